"""Ours beside others': every figure in the table is one of the results, every published row stands there unchanged."""

import copy
import csv
import json

import numpy as np
import pytest
from conftest import REPOSITORY

from evaluation.comparison import PROTOCOL_KEYS, PUBLISHED, comparison_table, validate_protocol
from evaluation.entry import ResultsError
from evaluation.summary import summarise


def entry(split, seed=0, dataset="blood-cells"):
    rng = np.random.default_rng(seed)
    references = np.repeat([0, 1], 20)
    probabilities = rng.dirichlet([2, 2], 40)
    photos = [f"p{number // 4}" for number in range(40)]
    return summarise(probabilities, references, photos, ["x", "y"], dataset, split, resamples=50)


def run(split_by, folds_run=5):
    known = {"command": "python cross_validate.py", "seed": 42, "commit": "c" * 40, "dirty": False, "hardware": {}}
    known |= {"recipe": {}, "samples_seen": 52800, "resolutions": [112, 160], "wall_seconds": 600.0}
    known |= {"n_photos_fitted": [240], "folds_run": folds_run, "folds": 5, "split_by": split_by}
    assert known.keys() | {"result"} == PROTOCOL_KEYS
    return known | {"result": entry(f"{folds_run} of 5 folds by {split_by}", seed=folds_run)}


def test_the_table_shows_each_figure_and_each_published_row():
    results = {"results": [entry("validation"), entry("TEST", 3)], "protocol": [run("file", 1), run("photo")]}
    rows = comparison_table(results).splitlines()
    ours = [row for row in rows if row.startswith("| **")]
    assert len(ours) == 3 and "by photo" in ours[1] and "by file" in ours[2]  # validation is nobody's figure
    shown = [results["results"][1], *(one["result"] for one in reversed(results["protocol"]))]
    for row, measured in zip(ours, shown, strict=True):
        accuracy = measured["metrics"]["accuracy"]
        assert f"{100 * accuracy['value']:.1f} % [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]" in row
        assert f"{measured['photo_level']['n_correct']} of 10" in row
    with PUBLISHED.open(newline="") as stream:
        for row in csv.DictReader(stream):
            assert any(all(f"| {value} |" in line for value in row.values()) for line in rows), row
    assert "5 of 5 folds, trained from scratch, 52,800 augmented images each at 112 and 160 px" in rows[-1]
    results["protocol"][1]["recipe"]["init_from"] = "runs/eight-classes/model"
    rows_later = comparison_table(results).splitlines()
    later = rows_later[-1]
    named = [row.split("|")[1].strip(" *") for row in rows_later if row.startswith("| **")][1:]
    assert named == ["this network, shorter training, from eight-classes", "this network, shorter training"]
    assert "by photo, 5 of 5 folds, trained starting from the weights eight-classes" in later
    assert "by file, 1 of 5 folds, trained from scratch" in later
    assert rows[-1].count("seed 42, commit ccccccc") == 2
    for path, name in (
        ("resnet50.safetensors", "resnet50.safetensors"),
        ("hub_model", "hub_model"),
        ("model", "model"),
    ):
        results["protocol"][1]["recipe"]["init_from"] = path
        assert f"by photo, 5 of 5 folds, trained starting from the weights {name}, " in comparison_table(results)


def test_without_cross_validations_there_is_no_word_of_them():
    table = comparison_table({"results": [entry("TEST")]})
    assert "folds" not in table and table.count("| **") == 1


def test_only_the_archive_that_others_measured_on_stands_beside_them():
    results = {"results": [entry("TEST"), entry("TEST", 1, "pbc"), entry("validation", 2, "raabin")]}
    ours = [row for row in comparison_table(results).splitlines() if row.startswith("| **")]
    assert len(ours) == 1 and ours[0].startswith("| **these weights, which learnt from pbc, raabin besides** |")


def test_published_figures_are_those_of_the_field(data_root):
    field = (data_root.parent / "targets.md").read_text(encoding="utf-8")
    with PUBLISHED.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for figure in row["accuracy"].replace("%", " ").replace("(", " ").replace(",", " ").split():
                if figure[0].isdigit():
                    assert figure in field, row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs[0].pop("seed"), r"protocol\[0\] lacks \['seed'\]"),
        (lambda runs: runs[0].update(folds_run=6), r"folds_run is 6; expected at most 5"),
        (lambda runs: runs[0].update(split_by="day"), r"split_by is 'day'; expected photo or file"),
        (lambda runs: runs[1].update(split_by="photo"), r"each of them once"),
        (lambda runs: runs[1]["result"].pop("metrics"), r"protocol\[1\].result"),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(change, message):
    runs = [run("photo"), run("file")]
    validate_protocol(copy.deepcopy(runs))
    change(runs)
    with pytest.raises(ResultsError, match=message):
        validate_protocol(runs)


def test_the_readme_shows_the_measured_comparison():
    results = json.loads((REPOSITORY / "hub_model" / "eval_results.json").read_text("utf-8"))
    assert comparison_table(results) in (REPOSITORY / "README.md").read_text("utf-8")
