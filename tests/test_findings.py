"""Findings about photographs, from links that are given: which pairs are serious, and that each is named once."""

import pytest

from smears.findings import (
    CELLS_CONFLICT,
    CELLS_LEAK,
    CELLS_TWICE,
    CONFLICT,
    EXACT,
    LEAK,
    NEAR,
    TWO_SPLITS,
    group,
    judge,
    order_by_size,
)
from smears.likeness import COPY, SAME_CELLS, Link
from smears.survey import SurveyedImage


def image(file, content="", width=320, picture=1.0):
    """An image whose file is SPLIT/LABEL/name, with - for none; equal contents are equal pixels and bytes."""
    split, label, _ = (part if part != "-" else None for part in file.split("/"))
    return SurveyedImage(file, split, label, width, 240, "RGB", content or file, content or file, picture)


def link(first, second, kind=COPY):
    return Link(first, second, kind, 99, 1.0, 0.99, 1.0, False)


def judged(images, links=()):
    found = judge(images, links, group(images, links))
    return [(one.reasons, one.evidence, {images[one.first].file, images[one.second].file}, one.images) for one in found]


@pytest.mark.parametrize(
    ("here", "there", "copied", "shared"),
    [
        ("train/a", "train/a", (NEAR,), (CELLS_TWICE,)),
        ("train/a", "train/b", (CONFLICT,), (CELLS_CONFLICT,)),
        ("train/a", "test/a", (LEAK,), (CELLS_LEAK,)),
        ("train/a", "validation/b", (CONFLICT, LEAK), (CELLS_CONFLICT, CELLS_LEAK)),
        ("test/a", "test_simple/a", (TWO_SPLITS,), (CELLS_TWICE,)),
        ("-/a", "-/b", (CONFLICT,), (CELLS_CONFLICT,)),
        ("-/-", "train/a", None, (CELLS_TWICE,)),  # the photo behind a copy, kept for reference
        ("-/-", "-/-", (NEAR,), (CELLS_TWICE,)),
    ],
)
def test_splits_and_labels_say_how_serious_a_pair_is(here, there, copied, shared):
    images = [image(f"{here}/0.png"), image(f"{there}/1.png")]
    files = {one.file for one in images}
    assert judged(images, [link(0, 1)]) == ([(copied, COPY, files, 2)] if copied else [])
    assert judged(images, [link(0, 1, SAME_CELLS)]) == [(shared, SAME_CELLS, files, 2)]
    assert judged(images) == []


def test_many_copies_of_a_photograph_are_one_finding_for_each_pair_of_places():
    images = [image(f"train/a/{k}.png", picture=0.8) for k in range(5)] + [
        image("test/a/5.png"),
        image("train/b/6.png"),
    ]
    links = [link(5, k) for k in (0, 1, 2, 3, 4, 6)]
    assert judged(images, links) == [
        ((CONFLICT, LEAK), COPY, {"test/a/5.png", "train/b/6.png"}, 2),
        ((CONFLICT,), COPY, {"train/a/0.png", "train/b/6.png"}, 6),
        ((LEAK,), COPY, {"test/a/5.png", "train/a/0.png"}, 6),
        ((NEAR,), COPY, {"train/a/0.png", "train/a/1.png"}, 5),
    ]


def test_photographs_of_the_same_cells_are_compared_by_the_places_of_all_their_copies():
    """The link joins two photos without a label; their copies have labels, and these differ."""
    images = [
        image("-/-/0.png", width=640),
        image("-/-/1.png", width=640),
        image("train/a/2.png"),
        image("train/b/3.png"),
    ]
    links = [link(0, 1, SAME_CELLS), link(0, 2), link(1, 3), link(2, 3, SAME_CELLS)]
    assert judged(images, links) == [((CELLS_CONFLICT,), SAME_CELLS, {"train/a/2.png", "train/b/3.png"}, 2)]


def test_equal_content_is_shown_rather_than_the_largest_copy():
    images = [
        image("train/a/0.png"),
        image("train/a/1.png", "twin", picture=0.5),
        image("train/b/2.png", "twin", picture=0.5),
    ]
    assert judged(images, [link(0, 1)])[0] == ((CONFLICT,), "same bytes", {"train/a/1.png", "train/b/2.png"}, 3)


def test_equal_content_in_one_place_is_counted_once():
    images = [image(f"train/a/{k}.png", "twin") for k in range(3)]
    assert judged(images) == [((EXACT,), "same bytes", {"train/a/0.png", "train/a/1.png"}, 3)]


def test_the_largest_picture_stands_for_its_group():
    images = [image("train/a/0.png"), image("train/a/1.png", picture=0.9), image("train/a/2.png", width=640)]
    images += [image("train/a/3.png", width=640), image("train/a/4.png")]
    assert order_by_size(images) == [2, 3, 0, 4, 1]
    groups = group(images, [link(0, 1), link(1, 2), link(2, 3, SAME_CELLS)])
    assert groups.photos == (2, 2, 2, 3, 4)
    assert groups.cells == (2, 2, 2, 2, 4)
