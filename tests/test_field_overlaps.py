"""Overlapping fields cut out of one drawn smear, where every cell's place is known, and fields of other smears."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from smear_drawings import CYTOPLASM, LABELS, LOBES, RED_CELL, _disc, write_box_table, write_image

import measure_overlaps
from hub_model.field_overlaps import describe_field, find_overlaps, mark_repeats

FIELD = (240, 320)  # px, height and width


def draw_slide(seed, size=(700, 900), white=((150, 200), (300, 420), (500, 300), (380, 700))):
    """Draw a smear (H, W, 3) with red cells anywhere and white cells about the places (row, col)."""
    rng = np.random.default_rng(seed)
    slide = np.full((*size, 3), (230, 225, 235), np.uint8)
    for _ in range(size[0] * size[1] // 3000):
        _disc(slide, (rng.uniform(0, size[1]), rng.uniform(0, size[0])), rng.uniform(15, 22), RED_CELL)
    for number, (row, col) in enumerate(white):
        label = LABELS[number % len(LABELS)]
        _disc(slide, (col, row), 34, CYTOPLASM[label])
        turn = np.exp(1j * rng.uniform(0, 2 * np.pi))
        for across, along, share in LOBES[label]:
            place = turn * complex(across, along) * 34
            _disc(slide, (col + place.real, row + place.imag), share * 34, (95, 55, 135))
    return slide, [(row - 34, col - 34, row + 34, col + 34) for row, col in white]


def take(slide, cells, row, col, size=FIELD, seed=0, gain=1.0, turn=0.0):
    """Photograph a part of the slide with a noisy camera: the field and the image with the cells that it shows."""
    height, width = size
    part = slide[row : row + height, col : col + width].astype(float)
    if turn:
        turned = ndimage.rotate(
            slide[max(0, row - 40) : row + height + 40, max(0, col - 40) : col + width + 40], turn, reshape=False
        )
        part = turned[min(row, 40) :, min(col, 40) :][:height, :width].astype(float)
    part = part * gain + np.random.default_rng(seed).normal(0, 4, part.shape)
    boxes = []
    for top, left, bottom, right in cells:
        box = [max(0, top - row), max(0, left - col), min(height, bottom - row), min(width, right - col)]
        if box[2] - box[0] > 20 and box[3] - box[1] > 20:
            boxes.append(box)
    image = {"name": f"{row}-{col}", "height": height, "width": width, "notes": [], "refused": None}
    image["cells"] = [{"box": box, "label": "x", "same_as": None} for box in boxes]
    return np.clip(part, 0, 255).astype(np.uint8), image


def mark(*taken):
    pictures, images = zip(*taken, strict=True)
    mark_repeats(images, [describe_field(picture) for picture in pictures])
    return images


def marks(image):
    return [cell["same_as"] for cell in image["cells"]]


def test_the_shift_of_two_fields_is_found_to_a_pixel():
    slide, cells = draw_slide(0)
    for rows, cols in ((0, 0), (37, -61), (-101, 17), (60, 150), (0, 215)):
        one, other = (
            take(slide, cells, *place, seed=k)[0] for k, place in enumerate([(200, 300), (200 + rows, 300 + cols)])
        )
        (overlap,) = find_overlaps([describe_field(one), describe_field(other)])
        assert abs(overlap.rows - rows) <= 1 and abs(overlap.cols - cols) <= 1
        assert overlap.share == pytest.approx((1 - abs(rows) / 240) * (1 - abs(cols) / 320), abs=0.02)


def test_a_cell_in_two_fields_counts_once():
    slide, cells = draw_slide(1)
    first, second = mark(take(slide, cells, 230, 250), take(slide, cells, 270, 190, seed=1, gain=0.85))
    assert marks(first) == [None] and marks(second) == [[0, 0], None]  # and a cell that the first does not show
    assert first["notes"] == [] and second["notes"] == ["overlaps 230-250: 1 cell counted once"]


def test_a_cell_cut_off_by_the_edge_is_the_same_cell():
    slide, cells = draw_slide(2)
    first, second = mark(take(slide, cells, 180, 250), take(slide, cells, 300, 290, seed=1))
    assert first["cells"][0]["box"][0] > 0 and second["cells"][0]["box"][0] == 0
    assert marks(second)[0] == [0, 0]


def test_a_chain_points_to_the_first_sight_and_stays_so():
    slide, cells = draw_slide(3)
    images = mark(*(take(slide, cells, 190 + 30 * k, 240 + 40 * k, seed=k) for k in range(4)))
    assert [marks(image)[0] for image in images] == [None, [0, 0], [0, 0], [0, 0]]
    before = json.dumps(images)
    pictures = [take(slide, cells, 190 + 30 * k, 240 + 40 * k, seed=k)[0] for k in range(4)]
    mark_repeats(images, [describe_field(picture) for picture in pictures])
    assert json.dumps(images) == before


def test_the_same_photo_twice_and_a_refused_image_between():
    slide, cells = draw_slide(4)
    picture, image = take(slide, cells, 230, 250)
    again = take(slide, cells, 230, 250)[1]
    refused = {"name": "r", "height": 1, "width": 1, "notes": [], "refused": "no smear", "cells": []}
    mark_repeats([refused, image, again], [None, describe_field(picture), describe_field(Image.fromarray(picture))])
    assert marks(image) == [None] and marks(again) == [[1, 0]]


def test_a_dropped_cell_is_no_first_sight():
    slide, cells = draw_slide(4)
    picture, image = take(slide, cells, 230, 250)
    again = take(slide, cells, 230, 250)[1]
    image["cells"][0]["reviewed"] = "dropped"
    mark_repeats([image, again], [describe_field(picture)] * 2)
    assert marks(again) == [None]


def test_fields_of_other_slides_are_never_merged():
    places = ((150, 160),) * 2  # one cell in one place of every field: the place alone says nothing
    taken = []
    for seed in range(40):
        slide, cells = draw_slide(100 + seed, size=(300, 400), white=places[:1])
        taken.append(take(slide, cells, 20, 20, seed=seed))
    images = mark(*taken)
    assert all(mark is None for image in images for mark in marks(image))
    assert not any(image["notes"] for image in images)


def test_two_cells_that_changed_in_an_overlap_stay_apart():
    slide, cells = draw_slide(5)
    first = take(slide, cells, 230, 250)
    other = slide.copy()
    _disc(other, (420, 300), 34, (230, 225, 235))
    _disc(other, (430, 310), 22, (95, 55, 135))
    assert marks(mark(first, take(other, [(288, 408, 332, 452)], 240, 270, seed=1))[1]) == [None]


def test_a_degree_of_turn_is_borne_and_fields_may_differ_in_size():
    slide, cells = draw_slide(6)
    images = mark(take(slide, cells, 230, 250), take(slide, cells, 260, 280, seed=1, turn=1.0))
    assert marks(images[1])[0] == [0, 0]
    images = mark(take(slide, cells, 230, 250, size=(300, 500)), take(slide, cells, 260, 280, size=(240, 320), seed=1))
    assert marks(images[1])[0] == [0, 0]


def test_a_larger_photo_takes_nothing_from_the_others_and_is_said_to_be_of_another_size():
    slide, cells = draw_slide(3)
    fields = [(190 + 30 * k, 240 + 40 * k) for k in range(3)]
    taken = [take(slide, cells, *place, seed=k) for k, place in enumerate(fields)]
    alone = mark(*taken)
    pattern = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(pattern).resize((3264, 2448)))
    photo = {"name": "large", "height": 2448, "width": 3264, "notes": [], "refused": None, "cells": []}
    for place in (0, 3):
        together = [take(slide, cells, *at, seed=k) for k, at in enumerate(fields)]
        together.insert(place, (large, {**photo, "notes": []}))
        images = list(mark(*together))
        assert images.pop(place)["notes"] == [
            "of another size than other fields: if its magnification is another too, cells that they share count twice"
        ]
        assert [image["notes"] for image in images] == [image["notes"] for image in alone]
        shift = place == 0
        expected = [[seen and [seen[0] + shift, seen[1]] for seen in marks(image)] for image in alone]
        assert [marks(image) for image in images] == expected and any(any(seen) for seen in expected)


def test_a_turned_camera_is_no_other_size():
    slide, cells = draw_slide(3)
    images = mark(take(slide, cells, 190, 240), take(slide, cells, 200, 250, size=FIELD[::-1], seed=1))
    assert not any("size" in note for image in images for note in image["notes"])


def test_empty_fields_do_not_overlap():
    rng = np.random.default_rng(0)
    pictures = [np.clip(rng.normal(230, 3, (240, 320, 3)), 0, 255).astype(np.uint8) for _ in range(4)]
    pictures.append(np.full((240, 320, 3), 230, np.uint8))
    pictures.append(np.full((1, 1, 3), 230, np.uint8))
    assert find_overlaps([describe_field(picture) for picture in pictures + pictures]) == []
    assert find_overlaps([]) == []


def test_a_description_is_small():
    described = describe_field(Image.new("RGB", (5184, 3888)))
    assert (described.height, described.width) == (3888, 5184) and described.density.nbytes < 160_000


def test_errors_say_what_came():
    slide, cells = draw_slide(7)
    picture, image = take(slide, cells, 230, 250)
    with pytest.raises(TypeError, match="float64; expected a PIL image or an array of uint8"):
        describe_field(picture / 255)
    with pytest.raises(TypeError, match="The field is str"):
        describe_field("field.png")
    with pytest.raises(ValueError, match=r"shape \(240, 320\); expected \(height, width, 3\)"):
        describe_field(picture[..., 0])
    with pytest.raises(ValueError, match="1 images and 0 descriptions"):
        mark_repeats([image], [])
    with pytest.raises(ValueError, match="has cells but no description"):
        mark_repeats([image], [None])
    with pytest.raises(ValueError, match="is 240 x 320 px, its description 320 x 240"):
        mark_repeats([image], [describe_field(np.rot90(picture).copy())])


def test_the_measuring_command_finds_what_was_drawn(tmp_path):
    slide, cells = draw_slide(8)
    stranger, far = draw_slide(9)
    rows = []
    for name, taken in (
        ("a_0.png", take(slide, cells, 230, 250)),
        ("a_1.png", take(slide, cells, 270, 190, seed=1)),
        ("b_0.png", take(stranger, far, 230, 250)),
    ):
        write_image(tmp_path / name, taken[0])
        rows += [(name, "lymphocyte", cell["box"], "") for cell in taken[1]["cells"]]
    write_box_table(tmp_path / "boxes.csv", rows)
    measure_overlaps.main([str(tmp_path), "--out", str(tmp_path / "out.json")])
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    found = results["true_pairs"]["without_test_photos"]
    assert (results["fields"], results["pairs_compared"], results["cells"]) == (3, 3, 4)
    assert (found["pairs"], found["pairs_found"], found["shared_cells"], found["counted_once"]) == (1, 1, 1, 1)
    assert results["cells_marked"] == 1 and not results["false_pairs_of_two_slides"] and not results["unknown_pairs"]
