"""Copies and photographs of the same cells are found among drawn smears with known maps, and nothing else is joined."""

import cv2
import numpy as np
import pytest
from test_registration import copy_map, draw_field, make_copy

from smears.likeness import COPY, SAME_CELLS, find_links, lay_over


@pytest.fixture(scope="module")
def fields():
    return [draw_field(seed) for seed in range(60, 66)]


def joined(count, links):
    """The sets of positions that links join."""
    groups = [{position} for position in range(count)]
    for link in links:
        first, second = (next(group for group in groups if position in group) for position in (link.first, link.second))
        if first is not second:
            groups.remove(second)
            first |= second
    return sorted(map(sorted, groups))


def test_more_copies_than_a_batch_holds_join_their_photographs(fields):
    random = np.random.default_rng(0)
    images, photo = list(fields), list(range(len(fields)))
    for number in range(48):
        flip = ("", "left-right", "up-down")[number % 3]
        matrix = copy_map(random.uniform(-25, 25), random.uniform(-25, 25, 2), flip)
        images.append(make_copy(fields[number % len(fields)], matrix))
        photo.append(number % len(fields))
    links, unlike = find_links(len(images), images.__getitem__)
    expected = [[k for k, of in enumerate(photo) if of == number] for number in range(len(fields))]
    assert joined(len(images), links) == sorted(expected)
    assert {link.kind for link in links} == {COPY}
    assert unlike == []
    # copies are compared with photographs, not all with all
    assert len(links) < 3 * len(images)


def test_a_strip_of_common_cells_is_found_and_told_from_a_copy(fields):
    wide = draw_field(70, 480, 1000)
    random = np.random.default_rng(1)
    strip = np.clip(wide[:, 440:].astype(float) * 0.95 + random.normal(0, 7, (480, 560, 1)), 0, 255).astype(np.uint8)
    images = [*fields, wide[:, :560], strip]
    (link,), _ = find_links(len(images), images.__getitem__)
    assert (link.first, link.second, link.kind) == (len(fields), len(fields) + 1, SAME_CELLS)
    assert link.overlap == pytest.approx(120 / 560, abs=0.03)
    assert link.correlation > 0.8


def test_upright_and_lying_copies_agree_and_lie_on_each_other(fields):
    wide = draw_field(71, 360, 640)  # 16:9, where the sides differ most
    images = [*fields, wide, np.rot90(wide)]
    (link,), _ = find_links(len(images), images.__getitem__)
    assert (link.first, link.second, link.kind, link.residual < 2) == (6, 7, COPY, True)
    laid = lay_over(images[7], images[6])
    assert laid.shape == (320, 180, 3)
    shrunk = cv2.resize(np.ascontiguousarray(images[7]), (180, 320), interpolation=cv2.INTER_AREA)
    assert np.abs(laid.astype(int) - shrunk)[10:-10, 10:-10].mean() < 4


def test_images_that_show_nothing_are_named(fields):
    blank, tiny = np.full((240, 320, 3), 200, np.uint8), np.full((16, 400, 3), 90, np.uint8)
    images = [blank, fields[0], tiny, fields[1], blank]
    links, unlike = find_links(len(images), images.__getitem__)
    assert (links, unlike) == ([], [0, 2, 4])
    assert find_links(2, [blank, blank].__getitem__) == ([], [0, 1])
    assert lay_over(fields[0], fields[1]) is None
    assert lay_over(fields[0], tiny) is None


def test_the_order_says_which_image_is_the_photograph(fields):
    copies = [make_copy(fields[0], copy_map(angle, (0, 0), "")) for angle in (-20, 10, 20)]
    images = [*copies, fields[0]]
    links, _ = find_links(4, images.__getitem__, order=[3, 0, 1, 2])
    assert joined(4, links) == [[0, 1, 2, 3]]
    assert {3} <= {link.second for link in links}
