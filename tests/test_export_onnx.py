"""The ONNX file: the same network under the names that runtimes expect, and no export of other weights goes unnoticed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file, save_file
from transformers import ResNetForImageClassification

import export_onnx
from evaluation import card, onnx_files
from evaluation.onnx_files import ExportError, check_export, check_exports, describe
from evaluation.onnx_runtime import differences
from evaluation.picking import pick_images, picked
from evaluation.release import release
from evaluation.results import read_results, weights_sha256

SHIPPED = REPOSITORY / "hub_model"


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """A model folder with its export, made by the command in a process of its own, and the command's report."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("exported") / "model")
    command = [sys.executable, "export_onnx.py", str(folder), "--out", str(folder.parent / "report.json")]
    command += ["--images", str(SHIPPED / "examples"), "--count", "3"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder.parent / "report.json").read_text())


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 224, 224), (5, 224, 224), (3, 90, 64)])
def test_any_number_of_images_of_any_size_gives_transformers_logits(batch, height, width, exported, model_folder):
    session = onnxruntime.InferenceSession(exported[0] / "onnx" / "model.onnx")
    pixels = np.random.default_rng(batch).normal(size=(batch, 3, height, width)).astype(np.float32)
    (logits,) = session.run(["logits"], {"pixel_values": pixels})
    with torch.no_grad():
        expected = ResNetForImageClassification.from_pretrained(model_folder)(torch.from_numpy(pixels)).logits.numpy()
    assert logits.shape == (batch, 4)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_its_inputs_and_outputs_have_the_names_and_free_sizes_that_runtimes_expect(exported):
    session = onnxruntime.InferenceSession(exported[0] / "onnx" / "model.onnx")
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape) == (
        "pixel_values",
        "tensor(float)",
        ["batch", 3, "height", "width"],
    )
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 4])


def test_the_file_is_whole_valid_and_tells_nothing_of_the_machine(exported):
    folder, _ = exported
    path = folder / "onnx" / "model.onnx"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"], (
        "the weights lie in it, and nothing is left over"
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18}
    assert {entry.key: entry.value for entry in model.metadata_props} == {"weights_sha256": weights_sha256(folder)}
    content = path.read_bytes()
    for trace in (b"site-packages", b'File "', b"stack_trace", str(Path.home()).encode(), str(REPOSITORY).encode()):
        assert trace not in content, trace


def test_the_same_weights_give_the_same_bytes(exported, tmp_path):
    again = shutil.copytree(exported[0], tmp_path / "again", ignore=shutil.ignore_patterns("onnx"))
    export_onnx.export_folder(export_onnx.parse([str(again)]))
    assert (again / "onnx" / "model.onnx").read_bytes() == (exported[0] / "onnx" / "model.onnx").read_bytes()


def test_the_report_says_what_the_file_is_and_how_far_it_lies_from_pytorch(exported):
    folder, report = exported
    path = folder / "onnx" / "model.onnx"
    assert report["file"] == "onnx/model.onnx" and report["bytes"] == path.stat().st_size
    assert report["weights_sha256"] == weights_sha256(folder)
    assert (report["opset"], report["producer"]) == (18, f"pytorch {torch.__version__.partition('+')[0]}")
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    assert {"command", "commit", "dirty"} <= report.keys()
    for found, n in ((report["parity"]["noise"], export_onnx.NOISE), (report["parity"]["images"], 3)):
        assert found["n"] == found["same_label"] == n and 0 < found["logits"] < 1e-4


def test_differences_are_of_the_worst_image():
    ours, theirs = np.array([[1.0, 0.0], [0.0, 3.0]]), np.array([[1.0, 0.0], [0.5, 0.0]])
    found = differences(ours, theirs)
    assert (found["n"], found["same_label"], found["logits"]) == (2, 1, 3.0)
    assert found["scores"] == pytest.approx(1 / (1 + np.exp(-3)) - 1 / (1 + np.exp(0.5)))


def test_the_shipped_files_are_of_the_shipped_weights_and_are_the_measured_ones():
    evidence = read_results(SHIPPED / "eval_results.json")["evidence"]
    check_exports(SHIPPED, evidence)
    assert "onnx/model.onnx" in {report.get("file") for report in evidence["onnx"]}
    assert all(path.stat().st_size < 10_000_000 for path in (SHIPPED / "onnx").iterdir())


@pytest.fixture
def stale(tmp_path):
    """The shipped folder after another training was released into it: the export is of the weights before."""
    trained, repository = (shutil.copytree(SHIPPED, tmp_path / name) for name in ("trained", "hub"))
    shutil.rmtree(trained / "onnx")
    tensors = load_file(trained / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, trained / "model.safetensors", {"format": "pt"})
    results = read_results(trained / "eval_results.json")
    results["model"]["sha256"] = weights_sha256(trained)
    del results["evidence"]
    (trained / "eval_results.json").write_text(json.dumps(results))
    release(trained, repository)
    return repository


def test_an_export_of_weights_that_were_replaced_is_told_with_the_remedy(stale, capsys):
    path = stale / "onnx" / "model.onnx"
    with pytest.raises(
        ExportError, match=rf"beside it stand those with .* Export it again: python export_onnx.py {stale}$"
    ):
        check_export(path)
    assert "onnx" not in read_results(stale / "eval_results.json")["evidence"], "its figures went with the weights"
    options = ["--template", str(REPOSITORY / "model_card.md"), "--folder", str(stale), "--check"]
    assert card.main(options) == 2
    assert f"{path} was made from weights with SHA-256" in capsys.readouterr().err


def test_a_file_that_nobody_measured_or_that_is_missing_is_told(exported):
    folder, report = exported
    check_exports(folder, {"onnx": [report]})
    with pytest.raises(ExportError, match="but no such file was measured; expected the same"):
        check_exports(folder, {})
    with pytest.raises(ExportError, match=f"has SHA-256 {report['sha256']}, but {'0' * 64} was measured"):
        check_exports(folder, {"onnx": [report | {"sha256": "0" * 64}]})
    missing = {"onnx": [report, report | {"file": "onnx/model_quantized.onnx", "shipped": True}]}
    with pytest.raises(
        FileNotFoundError, match="model_quantized.onnx is no file; .* python quantize_onnx.py .* --data_dir"
    ):
        check_exports(folder, missing)
    missing["onnx"][1]["shipped"] = False  # measured, and found wanting
    check_exports(folder, missing)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"version https://git-lfs.github.com/spec/v1", "is no ONNX file"),
        (lambda content: content[: len(content) // 2], "is no ONNX file"),
        (lambda content: b"", "holds no network"),
    ],
)
def test_a_damaged_file_is_told_with_the_remedy(spoil, message, exported, tmp_path):
    path = tmp_path / "model" / "onnx" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(spoil((exported[0] / "onnx" / "model.onnx").read_bytes()))
    with pytest.raises(ExportError, match=f"{message}.* Export it again: python export_onnx.py {path.parent.parent}"):
        describe(path)


def test_an_export_that_answers_otherwise_is_not_written(model_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    right = export_onnx.export

    def wrong(model, weights):
        graph = right(model, weights)
        bias = next(one for one in graph.graph.initializer if list(one.dims) == [4])
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
        return graph

    monkeypatch.setattr(export_onnx, "export", wrong)
    with pytest.raises(
        SystemExit, match=r"On noise the logits of .* differ from PyTorch's by up to 1.0e-02; expected 1e-04"
    ):
        export_onnx.main([str(folder)])
    assert not (folder / onnx_files.FOLDER).exists()


def test_images_are_picked_evenly_and_the_same_each_time(tmp_path):
    for name, count in (("few", 2), ("many", 40)):
        (tmp_path / name / "deep").mkdir(parents=True)
        for number in range(count):
            (tmp_path / name / "deep" / f"{number:02d}.png").touch()
    (tmp_path / "many" / "notes.txt").touch()
    (tmp_path / "many" / ".hidden.png").touch()
    sources = [tmp_path / "few", tmp_path / "many"]
    found = pick_images(sources, 10)
    assert [path.stem for path in found] == ["00", "01", "00", "05", "10", "15", "20", "25", "30", "35"]
    assert picked(sources, found) == {sources[0]: 2, sources[1]: 8}
    assert len(pick_images(sources, 100)) == 42
    assert pick_images([found[3]], 1) == [found[3]]
    with pytest.raises(ValueError, match="1 images were asked for from 2 sources"):
        pick_images(sources, 1)
    with pytest.raises(ValueError, match="nowhere is no image and no folder with images"):
        pick_images([tmp_path / "nowhere"], 1)
