"""The parts of a test set: which rows they hold, why, and what is not measured twice."""

import datasets
import pytest

from evaluation.slices import slices


def rows_of(groups, flags=None):
    columns = {"group": groups} | ({} if flags is None else {"flags": flags})
    features = {"group": datasets.Value("string")}
    if flags is not None:
        features["flags"] = datasets.List(datasets.Value("string"))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def splits():
    """Five test images: the second and the last show cells of training photos, the third shows no cell."""
    flags = [[], ["leak"], ["sliver", "no cell"], ["sliver"], []]
    return {"train": rows_of(["b", "x", "b"]), "test": rows_of(["a", "b", "c", "d", "x"], flags)}


def listed(splits, split="test", **options):
    return [(part.title, part.rows.tolist(), part.left_out) for part in slices(splits, split, **options)]


def test_each_part_leaves_out_what_it_says(splits):
    assert listed(splits) == [
        ("TEST", [0, 1, 2, 3, 4], {}),
        ("TEST, leak-free", [0, 2, 3], {"photos that overlap training photos, directly or through others": 2}),
        ("TEST, cell visible", [0, 1, 3, 4], {"flag 'no cell'": 1}),
    ]


def test_what_was_left_out_before_is_counted_in_every_part(splits):
    for _, _, left_out in listed(splits, left_out={"label basophil": 7}):
        assert left_out["label basophil"] == 7


def test_other_splits_are_measured_whole(splits):
    splits |= {"validation": splits["test"], "test_simple": splits["test"]}
    assert listed(splits, "validation") == [("validation", [0, 1, 2, 3, 4], {})]
    assert listed(splits, "test_simple") == [("TEST_SIMPLE", [0, 1, 2, 3, 4], {})]


def test_a_part_that_leaves_out_nothing_is_not_measured_twice(splits, caplog):
    caplog.set_level("INFO")
    splits["test"] = rows_of(["a", "c"], [[], ["sliver"]])
    assert listed(splits) == [("TEST", [0, 1], {})]
    assert "leak-free: 0 of 2 images left out" in caplog.text and "cell visible: 0 of 2 images" in caplog.text


def test_a_part_of_too_few_photos_is_named_in_a_warning(splits, caplog):
    splits["test"] = rows_of(["a", "a", "b", "x"])
    assert [title for title, *_ in listed(splits)] == ["TEST"]
    assert (
        "leak-free: 2 of 4 images left out (photos that overlap training photos, directly or through others), too few photos"
        in caplog.text
    )


def test_where_nothing_is_known_the_whole_is_measured(splits):
    assert listed({"test": rows_of(["a", "b"])}) == [("TEST", [0, 1], {})]
