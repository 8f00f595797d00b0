"""8 bits: chosen on validation, shipped only where test loses no more than it may, and the same file each time."""

import json
import shutil

import datasets
import numpy as np
import onnx
import pytest
from smear_drawings import write_class_folders

import export_onnx
import quantize_onnx
from evaluation.evidence import validate_evidence
from evaluation.onnx_files import describe
from evaluation.onnx_runtime import open_session, session_logits
from evaluation.results import weights_sha256
from quantize_onnx import Recipe, compare, quantize, spread


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """A model folder with its float export."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("float") / "model")
    export_onnx.export_folder(export_onnx.parse([str(folder)]))
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A laboratory of drawn cells."""
    return write_class_folders(tmp_path_factory.mktemp("drawn") / "cells", each=8, size=(96, 72))


PIXELS = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)


def whole_weights(model):
    """Give the weights that became whole numbers, (N, ...) int8."""
    stored = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    return [
        array
        for name, array in stored.items()
        if array.dtype == np.int8 and array.ndim > 1 and "zero_point" not in name
    ]


@pytest.mark.parametrize(
    ("recipe", "largest", "kept"),
    [
        (Recipe(), 64, 0),
        (Recipe(weight_bits=8), 128, 0),
        (Recipe(weight_bits=8, float_convolutions=1, float_linear=True), 128, 2),
    ],
)
def test_a_recipe_says_what_becomes_whole_numbers(recipe, largest, kept, exported, tmp_path):
    source, target = exported / "onnx" / "model.onnx", tmp_path / "model_quantized.onnx"
    quantize(source, target, PIXELS, recipe)
    floats = [one.name for one in onnx.load(source).graph.initializer if len(one.dims) in (2, 4)]
    whole = whole_weights(onnx.load(target))
    assert len(floats) == 25 and len(whole) == 25 - kept  # 24 convolutions with the shortcuts', and the last layer
    assert max(np.abs(weight.astype(int)).max() for weight in whole) in (largest, largest - 1)
    assert describe(target)["weights_sha256"] == weights_sha256(exported)
    assert target.stat().st_size < source.stat().st_size / 3
    theirs = session_logits(open_session(source), PIXELS)
    ours = session_logits(open_session(target), PIXELS)
    assert 0 < np.abs(ours - theirs).max() < 0.2 * np.ptp(theirs)


def test_the_same_pixels_give_the_same_bytes(exported, tmp_path):
    source = exported / "onnx" / "model.onnx"
    for name in ("a.onnx", "b.onnx"):
        quantize(source, tmp_path / name, PIXELS, Recipe())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_what_is_lost_is_counted_in_points_with_an_interval_over_groups():
    data = datasets.Dataset.from_dict({"label": [0] * 8 + [1] * 2, "group": [str(number) for number in range(10)]})
    theirs = np.array([[2.0, 0.0]] * 8 + [[0.0, 2.0]] * 2)
    ours = theirs.copy()
    ours[0] = [0.0, 2.0]  # one of ten turns wrong
    found = compare(data, ours, theirs)
    assert (found["n"], found["same_label"]) == (10, 9)
    assert found["lost"]["value"] == pytest.approx(10) and 0 == found["lost"]["low"] < 10 < found["lost"]["high"] <= 40
    assert found["float"] == {"accuracy": 1.0, "balanced_accuracy": 1.0}
    assert found["int8"] == {"accuracy": 0.9, "balanced_accuracy": pytest.approx(15 / 16)}
    turned = compare(data, theirs, ours)
    assert turned["lost"]["value"] == pytest.approx(-10), "what is gained counts against what is lost"


def test_images_to_calibrate_on_are_drawn_from_the_classes_in_turns():
    labels = [0] * 50 + [1] * 5 + [2] * 2
    data = datasets.Dataset.from_dict({"label": labels, "row": list(range(57))})
    drawn = spread(data, 12)
    assert [drawn["label"][:].count(label) for label in range(3)] == [5, 5, 2]
    assert drawn["row"][:] == spread(data, 12)["row"][:] == sorted(set(drawn["row"][:]))
    assert len(spread(data, 100)) == 57


def command(folder, cells, out, *more):
    options = [folder, "--data_dir", cells, "--calibrate_on", "8", "--validation_share", "0.25", "--out", out, *more]
    quantize_onnx.main(list(map(str, options)))
    return json.loads(out.read_text())


def test_a_file_that_is_as_right_is_shipped_with_its_report(folder, cells, tmp_path):
    report = command(
        folder, cells, tmp_path / "int8.json", "--test_share", "cells=0.25", "--ship", "--most_lost", "100"
    )
    assert report["shipped"] and report["recipe"] == "7-bit weights" and list(report["tried"]) == [report["recipe"]]
    assert report["calibration"] == {"cells": 8} and {"command", "commit", "dirty"} <= report.keys()
    assert (report["tried"]["7-bit weights"]["n"], report["test"]["cells"]["n"]) == (8, 8)
    files = {path.name for path in (folder / "onnx").iterdir()}
    assert files == {"model.onnx", "model_quantized.onnx"}, "no trial is left over"
    assert describe(folder / "onnx" / "model_quantized.onnx")["sha256"] == report["sha256"]
    validate_evidence({"onnx": [report]}, weights_sha256(folder))


def test_a_file_that_loses_too_much_is_not_shipped_and_an_older_one_goes(folder, cells, tmp_path, monkeypatch):
    older = folder / "onnx" / "model_quantized.onnx"
    older.write_bytes(b"of other weights")
    monkeypatch.setattr(quantize_onnx, "RECIPES", (Recipe(),))
    report = command(
        folder, cells, tmp_path / "int8.json", "--test_share", "cells=0.25", "--ship", "--most_lost", "-100.5"
    )
    assert not report["shipped"] and report["recipe"] is None and report["test"] == {}, "TEST is not looked at then"
    assert not older.exists()
    validate_evidence({"onnx": [report]}, weights_sha256(folder))


def test_what_does_not_fit_is_told(folder, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(quantize_onnx, "choose", lambda *_: {"recipe": "7-bit weights"})
    monkeypatch.setattr(quantize_onnx, "describe", lambda _: {})
    monkeypatch.setattr(quantize_onnx, "open_session", lambda _: None)
    with pytest.raises(SystemExit, match="No laboratory has images to test on, so nothing can be decided"):
        command(folder, cells, tmp_path / "int8.json", "--ship")
    with pytest.raises(
        SystemExit, match=r"--test_share other: there is no such laboratory; expected one of \['cells'\]"
    ):
        command(folder, cells, tmp_path / "int8.json", "--test_share", "other=0.2")
    (folder / "onnx" / "model.onnx").unlink()
    with pytest.raises(SystemExit, match="model.onnx is no file; .* Export it: python export_onnx.py"):
        command(folder, cells, tmp_path / "int8.json")
