"""Cells of known class through the pipeline: which find answers for which cell, and what is counted and saved."""

import csv
import json
import shutil

import pytest
from conftest import LABELS, REPOSITORY
from smear_drawings import draw_field, write_box_table, write_image

import count_errors
from evaluation.results import weights_sha256

PLACES = ((110, 150), (330, 420))


def find(row, col, **fields):
    return {"box": [row - 20, col - 20, row + 20, col + 20], **fields}


def image(*cells):
    return {"height": 480, "width": 640, "cells": list(cells)}


def test_a_find_answers_for_the_cell_whose_box_holds_its_middle():
    boxes = {"boxes": [[100, 100, 200, 200], [150, 150, 300, 300]]}
    one, two, far = find(160, 160), find(250, 250), find(400, 400)
    assert count_errors.finds_of(boxes, image(far, one, two)) == [one, two]
    assert count_errors.finds_of(boxes, image(one)) == [one]  # not for two cells
    assert count_errors.finds_of(boxes, image(far)) == []


def test_without_boxes_a_find_in_the_middle_answers():
    middle, corner = find(240, 320), find(60, 60)
    assert count_errors.finds_of({"boxes": []}, image(corner, middle)) == [middle]
    assert count_errors.finds_of({"boxes": []}, image(corner)) == []


def test_validations_outcomes_are_counted_and_cells_not_found_are_not():
    row = {"lab": "b", "split": "validation", "class": "monocyte", "outcome": "monocyte?"}
    rows = [
        row,
        row,
        row | {"outcome": "not found"},
        row | {"split": "test"},
        row | {"lab": "a", "outcome": "neutrophil"},
    ]
    assert count_errors.count_outcomes(rows) == {
        "a": {"monocyte": {"neutrophil": 1}},
        "b": {"monocyte": {"monocyte?": 2}},
    }


@pytest.fixture
def laboratory(tmp_path):
    """Fields of two cells each, one of each class, with their boxes."""
    boxes = []
    for number in range(12):
        field, places = draw_field(number, PLACES)
        name = f"{LABELS[number % 2]}/{number}.png"
        write_image(tmp_path / "lab" / name, field)
        boxes += [(name, label, box, f"slide {number}") for label, box in zip(LABELS[:2], places, strict=True)]
    write_box_table(tmp_path / "lab" / "boxes.csv", boxes)
    return tmp_path / "lab"


@pytest.fixture
def published(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "wbc")
    shipped = json.loads((REPOSITORY / "hub_model" / "config.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    config |= {"custom_pipelines": shipped["custom_pipelines"], "acceptance_threshold": 0.4, "acceptance_risk": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_from_fields_to_the_models_configuration(laboratory, published, tmp_path, caplog):
    out = tmp_path / "cells.csv"
    arguments = [
        str(published),
        "--data_dir",
        str(laboratory),
        "--validation_share",
        "0.5",
        "--out",
        str(out),
        "--save",
    ]
    count_errors.main(arguments)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["split"] for row in rows} == {"validation"} and len(rows) >= 8
    assert {row["class"] for row in rows} == set(LABELS[:2]) and all(row["outcome"] != "not found" for row in rows)
    assert {row["weights"] for row in rows} == {weights_sha256(published)[:12]}
    for row in rows:
        assert row["outcome"] == (f"{row['label']}?" if float(row["score"]) < 0.4 else row["label"])
    saved = json.loads((published / "config.json").read_text())["validation_confusion"]
    assert (saved["labels"], saved["acceptance_threshold"], saved["energy_threshold"]) == (list(LABELS), 0.4, None)
    assert sum(sum(row.values()) for row in saved["counts"]["lab"].values()) == len(rows)
    from hub_model.configuration_wbc_resnet import WbcResNetConfig

    assert WbcResNetConfig.from_pretrained(published).usable_confusion() == saved["counts"]


def test_a_share_of_no_laboratory_is_an_error(laboratory, published, tmp_path):
    arguments = [
        str(published),
        "--data_dir",
        str(laboratory),
        "--test_share",
        "pbc=0.2",
        "--out",
        str(tmp_path / "x.csv"),
    ]
    with pytest.raises(SystemExit, match=r"--test_share pbc: there is no such laboratory; expected one of \['lab'\]"):
        count_errors.main(arguments)
