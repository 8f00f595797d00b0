"""Holding out by photo: no cell on both sides, every class on both, and the same answer whatever the order of the rows."""

import re
from collections import Counter

import datasets
import numpy as np
import pytest

from smears.loading import DataError
from smears.splits import hold_out

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
REAL_PHOTOS = (75, 27, 16, 159)  # behind the archive's TRAIN


def make(groups, copies=1, order=None):
    """Make a data set of rows (label, group); ``groups`` are such pairs, each stands ``copies`` times or as a list says."""
    copies = [copies] * len(groups) if isinstance(copies, int) else copies
    rows = [pair for pair, times in zip(groups, copies, strict=True) for _ in range(times)]
    rows = [rows[place] for place in order(len(rows))] if order else rows
    features = {"label": datasets.ClassLabel(names=NAMES), "group": datasets.Value("string")}
    columns = {"label": [label for label, _ in rows], "group": [group for _, group in rows]}
    features["row"] = datasets.Value("int64")
    return datasets.Dataset.from_dict(columns | {"row": range(len(rows))}, features=datasets.Features(features))


def photos(*counts):
    return [(label, f"photo {label}-{number}") for label, count in enumerate(counts) for number in range(count)]


def held_per_class(part):
    return [Counter(label for label, _ in set(zip(part["label"], part["group"], strict=True)))[n] for n in range(4)]


@pytest.mark.parametrize("seed", range(5))
def test_every_row_stands_on_one_side_and_no_group_on_both(seed):
    rng = np.random.default_rng(seed)
    groups = photos(*rng.integers(2, 40, 4))
    data = make(groups, rng.integers(1, 6, len(groups)).tolist())
    fit, held = hold_out(data, 0.2, seed)
    assert not set(fit["group"]) & set(held["group"])
    assert sorted(fit["row"][:] + held["row"][:]) == list(range(len(data)))
    for part in (fit, held):
        assert part["row"][:] == sorted(part["row"])  # in their former order
        assert set(part["label"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("share", [0.5, 0.25, 0.125, 0.1])
@pytest.mark.parametrize("counts", [REAL_PHOTOS, (40, 40, 40, 40), (12, 200, 33, 10)])
def test_each_class_gives_its_share_of_groups(share, counts):
    _, held = hold_out(make(photos(*counts)), share, seed=1)
    for found, count in zip(held_per_class(held), counts, strict=True):
        assert abs(found - share * count) < 1


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_does_not_change_the_share_of_the_others(seed):
    fit, held = hold_out(make(photos(100, 80, 2, 3)), 0.125, seed)
    assert held_per_class(held)[2:] == [1, 1]
    assert 12 <= held_per_class(held)[0] <= 13 and held_per_class(held)[1] == 10
    assert held_per_class(fit)[2:] == [1, 2]


def test_the_same_seed_gives_the_same_groups_and_another_seed_others():
    data = make(photos(*REAL_PHOTOS))
    first, second, other = (set(hold_out(data, 0.125, seed)[1]["group"]) for seed in (3, 3, 4))
    assert first == second != other


def test_order_of_rows_and_number_of_copies_do_not_matter():
    groups = photos(20, 9, 8, 30)
    rng = np.random.default_rng(0)
    expected = set(hold_out(make(groups), 0.125)[1]["group"])
    for _ in range(3):
        data = make(groups, rng.integers(1, 30, len(groups)).tolist(), order=rng.permutation)
        assert set(hold_out(data, 0.125)[1]["group"]) == expected


@pytest.mark.parametrize("seed", range(5))
def test_a_group_with_two_labels_stays_whole(seed):
    # Photo 206 of the archive says lymphocyte and photo 278 monocyte, of one cell.
    data = make([*photos(9, 9, 9, 9), (1, "the same cell"), (2, "the same cell")])
    fit, held = hold_out(data, 0.25, seed)
    assert Counter([*fit["group"], *held["group"]])["the same cell"] == 2
    assert ("the same cell" in fit["group"]) != ("the same cell" in held["group"])


def test_a_class_with_one_group_is_refused_by_name():
    data = make(photos(9, 9, 1, 9), copies=20)
    with pytest.raises(
        DataError, match=r"'monocyte' has 1 photo\(s\); two are needed .* Add images, or bring a validation"
    ):
        hold_out(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_class_that_only_shares_its_groups_stands_on_both_sides(seed):
    # A slide with several subtypes counts for the first of them.
    data = make([*photos(9, 9, 0, 9), *((2, f"photo 1-{number}") for number in range(3))])
    fit, held = hold_out(data, 0.125, seed)
    assert 2 in fit["label"] and 2 in held["label"]
    assert not set(fit["group"]) & set(held["group"])


def test_a_class_that_shares_its_one_group_is_refused_by_name():
    with pytest.raises(DataError, match=r"'monocyte' has 1 photo\(s\); two are needed"):
        hold_out(make([*photos(9, 9, 0, 9), (2, "photo 1-4")]))


def test_where_a_class_would_be_held_out_whole_the_seed_is_to_blame():
    # Of each of two classes one slide of two is held out, at random; the third class stands on one slide of each.
    data = make([(0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "a"), (2, "c")])
    outcomes = Counter()
    for seed in range(30):
        try:
            fit, held = hold_out(data, 0.5, seed)
        except DataError as error:
            assert re.match(
                r"All 2 photos or slides with the class '\w+' would be held out.*other --split_seed", str(error)
            )
            outcomes["refused"] += 1
        else:
            assert {0, 1, 2} == set(fit["label"]) == set(held["label"])
            outcomes["divided"] += 1
    assert min(outcomes["refused"], outcomes["divided"]) > 0


@pytest.mark.parametrize("absent", [0, 2, 3])
def test_a_class_without_images_changes_nothing_for_the_others(absent):
    counts = [12, 30, 9, 20]
    counts[absent] = 0
    groups = photos(*counts)
    fit, held = hold_out(make(groups), 0.25, seed=2)
    expected = [count / 4 for count in counts]
    assert all(abs(found - count) < 1 for found, count in zip(held_per_class(held), expected, strict=True))
    assert absent not in {*fit["label"], *held["label"]} and len(fit) + len(held) == len(groups)


@pytest.mark.parametrize("share", [0, -0.1, 0.51, 1, 12.5, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(DataError, match=r"share to hold out is .*; expected more than 0 and at most 0\.5"):
        hold_out(make(photos(9, 9, 9, 9)), share)
