"""Pictures without a white cell: what each kind must look like, and windows of a smear painted so that each pixel tells."""

import string

import numpy as np
import pytest
from smear_drawings import write_image

from evaluation import strangers
from evaluation.drawings import ALPHABETS, DRAWINGS
from evaluation.strangers import draw_strangers, ground_windows, installed_photographs

GROUND, RED, PLATELET, WHITE = (240, 230, 220), (220, 120, 130), (150, 90, 160), (80, 40, 120)


@pytest.fixture(scope="module")
def drawn():
    """Six pictures of each drawn kind, as arrays."""
    found = {}
    for kind, picture in draw_strangers(6, 64, 0):
        assert picture.mode == "RGB" and picture.size == (64, 64)
        found.setdefault(kind, []).append(np.asarray(picture))
    return found


def roughness(image):
    """Mean difference of neighbours."""
    return np.mean([np.abs(np.diff(image.astype(float), axis=axis)).mean() for axis in (0, 1)])


def test_every_kind_comes_as_often_as_asked_and_never_twice_the_same(drawn):
    assert set(DRAWINGS) <= set(drawn)
    for kind, pictures in drawn.items():
        assert len(pictures) == 6, kind
        assert len({picture.tobytes() for picture in pictures}) == 6, kind


def test_a_picture_depends_on_its_kind_its_number_and_the_seed():
    three, one, other = (list(draw_strangers(count, 48, seed)) for count, seed in ((3, 5), (1, 5), (1, 6)))
    assert [kind for kind, _ in one] == [kind for kind, _ in three[::3]]
    for (_, first), (_, again), (kind, different) in zip(three[::3], one, other, strict=True):
        assert first.tobytes() == again.tobytes() and first.tobytes() != different.tobytes(), kind


def test_the_kinds_look_as_they_are_called(drawn):
    assert max(picture.std(axis=(0, 1)).max() for picture in drawn["plain colour"]) < 30
    smooth = [roughness(picture) for kind in ("plain colour", "gradient") for picture in drawn[kind]]
    assert np.mean([roughness(picture) for picture in drawn["noise"]]) > 3 * np.mean(smooth)
    for picture in drawn["stripes"]:  # waves: as much above the middle as below, in the channel that swings most
        channel = picture.reshape(-1, 3).astype(float)[:, picture.std(axis=(0, 1)).argmax()]
        middle = (channel.max() + channel.min()) / 2
        assert 0.25 < (channel > middle).mean() < 0.75
    for kind in ("printed page", "table of figures"):
        for picture in drawn[kind]:  # letters: dark and light side by side
            assert picture.std() > 8 and roughness(picture) > 4, kind


def test_the_letters_are_none_that_training_draws():
    assert not set("".join(ALPHABETS)) & set(string.ascii_letters + string.digits)


def test_photographs_are_found_in_packages_without_importing_them(tmp_path, monkeypatch):
    package = tmp_path / "somepackage"
    write_image(package / "data" / "red.png", np.full((40, 60, 3), (200, 10, 20), np.uint8))
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    table = {
        "holiday": ("somepackage/data/red.png", "somepackage/data/lost.png", "nopackage/a.png"),
        "none": ("nopackage/b.png", "somepackage/data/c.png"),
    }
    monkeypatch.setattr(strangers, "PHOTOGRAPHS", table)
    assert installed_photographs() == {"holiday": [package / "data" / "red.png"]}
    pictures = [(kind, np.asarray(picture)) for kind, picture in draw_strangers(2, 32, 0)]
    assert [kind for kind, _ in pictures][:3] == ["holiday", "holiday", next(iter(DRAWINGS))]
    for _, picture in pictures[:2]:
        assert picture.shape == (32, 32, 3) and (picture == (200, 10, 20)).all()


def test_what_requirements_ask_for_brings_photographs():
    names = {path.name for path in installed_photographs()["photograph"]}
    assert {"china.jpg", "flower.jpg", "grace_hopper.jpg"} <= names


def test_each_photograph_takes_its_turn(tmp_path, monkeypatch):
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        write_image(tmp_path / "album" / f"{name}.png", np.full((50, 40, 3), colour, np.uint8))
    (tmp_path / "album" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(strangers, "PHOTOGRAPHS", {"album": ("album/red.png", "album/blue.png")})
    shown = [picture.getpixel((0, 0)) for kind, picture in draw_strangers(4, 32, 0) if kind == "album"]
    assert shown == [(255, 0, 0), (0, 0, 255)] * 2


def paint(boxes, size=(200, 260)):
    """Paint boxes (row_min, col_min, row_max, col_max) by their colour onto the ground."""
    image = np.full((*size, 3), GROUND, np.uint8)
    for colour, listed in boxes.items():
        for top, left, bottom, right in listed:
            image[top:bottom, left:right] = colour
    return image


@pytest.fixture(scope="module")
def fields():
    """Two painted fields and their boxes: one with red cells, one with platelets too, one of these cut by the edge."""
    red = [[10, 10, 50, 50], [60, 190, 100, 230], [140, 60, 180, 100]]
    small = [[20, 120, 32, 132], [0, 200, 12, 212]]
    white = [[70, 90, 130, 150]]
    first = paint({RED: red, WHITE: white})
    second = paint({RED: red[1:], WHITE: white, PLATELET: small})
    return [first, second], [white, white], [red, red[1:] + small]


def colours(window):
    return {tuple(int(level) for level in pixel) for pixel in np.asarray(window).reshape(-1, 3)}


def test_windows_show_what_they_are_called_and_never_a_white_cell(fields):
    windows = list(ground_windows(*fields, count=30, seed=0))
    kinds = [kind for kind, _ in windows]
    assert {kind: kinds.count(kind) for kind in kinds} == {"ground": 30, "red cells": 30, "platelets": 30}
    for kind, window in windows:
        shown = colours(window)
        assert window.mode == "RGB" and window.width == window.height >= 24
        assert WHITE not in shown
        assert {"ground": shown == {GROUND}, "red cells": RED in shown, "platelets": PLATELET in shown}[kind]
    sides = [window.width for _, window in windows]
    assert max(sides) > 2 * min(sides)  # at several scales


def test_a_platelet_at_the_edge_may_be_half_a_cell(fields):
    images, cells, others = fields
    images = [image.copy() for image in images]
    images[1][0:12, 200:212] = (1, 2, 3)
    shown = [colours(w) for kind, w in ground_windows(images, cells, others, 30, 0) if kind == "platelets"]
    assert len(shown) == 30 and all(PLATELET in one for one in shown)


def test_the_seed_says_which_windows(fields):
    first, again, other = (
        [window.tobytes() for _, window in ground_windows(*fields, count=3, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_where_there_is_no_room_fewer_windows_come(fields):
    images, cells, others = fields
    full = [[0, 0, 200, 260]]
    assert list(ground_windows(images, [full, full], others, 4, 0)) == []
    kinds = {kind for kind, _ in ground_windows(images, cells, [[], []], 4, 0)}
    assert kinds == {"ground"}  # nothing else has a box


def test_an_image_is_read_only_when_a_window_is_taken(fields):
    read = []

    class Lazy(list):
        def __getitem__(self, row):
            read.append(row)
            return super().__getitem__(row)

    windows = ground_windows(Lazy(fields[0]), *fields[1:], count=10, seed=0)
    assert read == []
    next(windows)
    assert 1 <= len(read) <= 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_strangers(0, 64, 0), "count_per_kind is 0; expected 1 or more"),
        (lambda: draw_strangers(1, 16, 0), "side is 16; expected 32 or more"),
        (lambda: draw_strangers(1, 64, -1), "seed is -1; expected 0 or more"),
        (lambda: ground_windows([], [], [], 1, 0), "0 images came"),
        (
            lambda: ground_windows([paint({})], [[]], [], 1, 0),
            "1 images came with the cells of 1 and the other boxes of 0",
        ),
        (lambda: ground_windows([paint({})], [[]], [[]], 1, 0), "None of the images has the box of a white cell"),
        (lambda: ground_windows([paint({})], [[[0, 0, 9, 9]]], [[]], 0, 0), "The count is 0; expected 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
