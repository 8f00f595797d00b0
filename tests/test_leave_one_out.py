"""Each laboratory named by a network that has not seen it: trained once, measured as scikit-learn does, no label of it used."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk
from smear_drawings import (
    ARCHIVE_IMAGES,
    write_archive,
    write_class_folders,
    write_fields,
    write_splits,
    write_table,
)
from test_train import QUICK
from torch.optim.swa_utils import update_bn
from transformers import AutoImageProcessor, AutoModelForImageClassification

import leave_one_out
from evaluation.measure import load_model, open_image
from leave_one_out import SHARES, choose_images, choose_unlabelled, measure_laboratory
from smears.laboratories import divide, held_out_cells, load_laboratory, unseen_cells
from smears.loading import DataError, load_folder
from smears.photos import name_photos

LABELS = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
COMMON = ("neutrophil", "lymphocyte", "other")


def run(monkeypatch, *arguments):
    """Run the script in this process, as from a shell."""
    monkeypatch.setattr(sys, "argv", ["leave_one_out.py", *map(str, arguments)])
    leave_one_out.main()


@pytest.fixture(scope="module")
def laboratories(tmp_path_factory):
    """Three drawn laboratories: fields, and two of single cells, one of which has a class that the common ones merge."""
    root = tmp_path_factory.mktemp("laboratories")
    write_fields(root / "fields", ("lymphocyte", "neutrophil"), each=3)
    write_class_folders(root / "cells", 4, ("lymphocyte", "monocyte", "neutrophil"), size=(96, 72))
    write_class_folders(root / "others", 3, ("lymphocyte", "neutrophil"), first_seed=50, size=(80, 80))
    return [root / name for name in ("fields", "cells", "others")]


@pytest.fixture(scope="module")
def left_out(laboratories, tmp_path_factory):
    """What the script writes with ``cells`` left out, its arguments, and the commands that it ran."""
    output, commands, started = tmp_path_factory.mktemp("runs") / "lolo", [], subprocess.run

    def watch(command, **options):
        if "train.py" in str(command[1]):
            commands.append(command)
        return started(command, **options)

    arguments = ["--data_dir", *laboratories, "--labels", *COMMON, "--label_map", "monocyte=other"]
    arguments += ["--negatives", "other", "--leave_out", "cells", "--output_dir", output, *QUICK]
    arguments += [
        "--phase_epochs",
        "1",
        "--draws_per_epoch",
        "12",
        "--validation_share",
        "0.34",
        "--eval_strategy",
        "no",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", watch)
        run(patch, *arguments)
    return output, arguments, commands


def test_the_network_learns_from_the_others_alone(left_out, laboratories):
    output, _, (command,) = left_out
    fields, cells, others = map(str, laboratories)
    assert command[2 : command.index("--labels")] == ["--data_dir", fields, others] and cells not in command
    training = json.loads((output / "cells" / "model" / "eval_results.json").read_text())
    assert {entry["dataset"] for entry in training["results"]} == {"fields", "others"}
    assert training["training"]["n_photos"] + sum(entry["n_photos"] for entry in training["results"]) == 6 + 6


def test_the_figures_are_those_of_the_unseen_cells(left_out, laboratories):
    output, _, _ = left_out
    report = json.loads((output / leave_one_out.RESULTS).read_text())
    assert list(report) == ["cells"] and report["cells"]["unseen"] == ["cells"]
    assert report["cells"]["command"].startswith("python leave_one_out.py --data_dir")
    assert report["cells"]["training"]["recipe"]["negatives"] == "other"
    measured = report["cells"]["laboratories"]
    assert list(measured) == ["fields", "cells", "others"]  # those learnt from by their validation images
    found = measured["cells"]
    assert found["shares"]["0.00"] == found["plain"]["metrics"]["balanced_accuracy"]["value"]
    assert found["shares"]["1.00"] == found["re-estimated"]["metrics"]["balanced_accuracy"]["value"]
    assert len(found["shares"]) == len(found["confidence"]) == len(SHARES) and found["distance"] > 0
    model = AutoModelForImageClassification.from_pretrained(output / "cells" / "model")
    processor = AutoImageProcessor.from_pretrained(output / "cells" / "model")
    rows, labels = [], []
    for path in sorted(laboratories[1].glob("*/*.png")):
        if path.parent.name != "monocyte":  # a class that only 'other' names does not count
            with torch.no_grad(), Image.open(path) as image:
                rows.append(model(**processor(image, return_tensors="pt")).logits.double().softmax(-1)[0].numpy())
            labels.append(COMMON.index(path.parent.name))
    plain, again = found["plain"], found["re-estimated"]
    assert plain["n_images"] == again["n_images"] == len(labels) == 8
    assert plain["metrics"]["nll"]["value"] == pytest.approx(sk.log_loss(labels, rows, labels=range(3)), abs=1e-4)
    expected = sk.confusion_matrix(labels, np.argmax(rows, axis=1), labels=range(3))
    assert plain["confusion_matrix"] == expected.tolist()
    assert plain["metrics"]["nll"]["value"] != again["metrics"]["nll"]["value"]
    assert (plain["dataset"], plain["split"], again["split"]) == ("cells", "plain", "re-estimated")
    assert found["confidence"]["0.00"] == pytest.approx(np.max(rows, axis=1).mean(), abs=1e-5)


def test_of_the_laboratories_learnt_from_the_figures_are_those_of_the_training(left_out):
    """The same validation images, and the same answers as through plain transformers."""
    output, _, _ = left_out
    found = json.loads((output / leave_one_out.RESULTS).read_text())["cells"]["laboratories"]
    by_training = json.loads((output / "cells" / "model" / "eval_results.json").read_text())["results"]
    assert [entry["dataset"] for entry in by_training] == ["fields", "others"]
    for entry in by_training:
        plain = found[entry["dataset"]]["plain"]
        assert plain["confusion_matrix"] == entry["confusion_matrix"]
        assert plain["metrics"]["nll"]["value"] == pytest.approx(entry["metrics"]["nll"]["value"], abs=1e-4)


def test_weights_that_learnt_from_what_is_left_out_are_refused_before_anything_is_trained(
    left_out, tmp_path, monkeypatch
):
    output, arguments, _ = left_out
    options = ["--leave_out", "fields", "--output_dir", tmp_path / "runs", "--init_from", output / "cells" / "model"]
    monkeypatch.setattr(leave_one_out, "train_without", lambda *_: pytest.fail("it trains"))
    with pytest.raises(SystemExit, match="error: model learnt from fields, so that it is no laboratory never seen"):
        run(monkeypatch, *arguments, *options)
    assert not (tmp_path / "runs").exists()


def test_weights_of_which_nobody_knows_what_they_learnt_from_are_told(left_out, tmp_path, monkeypatch, caplog):
    output, arguments, _ = left_out
    shutil.copytree(output, tmp_path / "runs")
    record = tmp_path / "runs" / "cells" / "model" / "eval_results.json"
    found = json.loads(record.read_text())
    found["training"]["started_from"] = {"source": "found.safetensors"}
    record.write_text(json.dumps(found))
    run(monkeypatch, *arguments, "--output_dir", tmp_path / "runs")
    assert "cells, unseen: of found.safetensors, which this network went on from, no record names" in caplog.text
    caplog.clear()
    run(monkeypatch, *arguments)
    assert "no record names" not in caplog.text


def test_the_report_keeps_the_runs_that_still_stand(tmp_path):
    report = tmp_path / leave_one_out.RESULTS
    (tmp_path / "a" / "model").mkdir(parents=True)
    leave_one_out.add_to_report(report, "a", {"unseen": ["a"]})
    leave_one_out.add_to_report(report, "b", {"unseen": ["b"]})
    assert json.loads(report.read_text()) == {"a": {"unseen": ["a"]}, "b": {"unseen": ["b"]}}
    (tmp_path / "a" / "model").rmdir()
    leave_one_out.add_to_report(report, "b", {"unseen": ["again"]})
    assert json.loads(report.read_text()) == {"b": {"unseen": ["again"]}}


def test_started_again_it_does_not_train_again(left_out, monkeypatch):
    output, arguments, _ = left_out
    before = json.loads((output / leave_one_out.RESULTS).read_text())
    (output / leave_one_out.RESULTS).unlink()

    def refuse(command, **options):
        raise AssertionError(f"it ran {command}")

    monkeypatch.setattr(subprocess, "run", refuse)
    run(monkeypatch, *arguments)
    assert json.loads((output / leave_one_out.RESULTS).read_text()) == before


def test_a_network_of_other_classes_is_not_measured(left_out, monkeypatch):
    _, arguments, _ = left_out
    place = arguments.index("neutrophil")
    swapped = [*arguments[:place], "lymphocyte", "neutrophil", *arguments[place + 2 :]]
    with pytest.raises(
        SystemExit,
        match=r"error: .*model names \['neutrophil', 'lymphocyte', 'other'\], and --labels says \['lymph.*Remove",
    ):
        run(monkeypatch, *swapped)


# What is refused before the hours, not after


@pytest.fixture
def no_training(monkeypatch):
    def refuse(command, **options):
        raise AssertionError(f"it ran {command}")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--leave_out", "cells", "pbc"], r"--leave_out pbc: expected some of fields, cells, others"),
        (["--leave_out", "cells+pbc"], r"--leave_out pbc: expected some of fields, cells, others"),
        (["--leave_out", "cells+others+fields"], r"--leave_out cells\+others\+fields: nothing is left to learn from"),
        (["--test_share", "pbc=0.2"], r"error: --test_share pbc: expected one of fields, cells, others"),
        (["--label_map", "lymphocyte"], r"error: The label map holds \['lymphocyte'\]"),
        (["--leave_out", "cells"], r"error: The class 'monocyte' of cells is not among .*\(monocyte=CLASS\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    laboratories, no_training, monkeypatch, capsys, tmp_path, arguments, message
):
    where = ["--data_dir", *laboratories, "--labels", *COMMON, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *where, *arguments)
    assert re.search(message, f"{ended.value} {capsys.readouterr().err}")
    assert not (tmp_path / "out").exists()


def test_one_laboratory_or_two_of_one_name_are_refused(laboratories, no_training, monkeypatch, capsys, tmp_path):
    shutil.copytree(laboratories[1], tmp_path / "fields")
    for folders in (laboratories[:1], [laboratories[0], tmp_path / "fields"]):
        with pytest.raises(SystemExit):
            run(monkeypatch, "--data_dir", *folders, "--labels", *COMMON)
        assert "expected two folders or more, of different names" in capsys.readouterr().err


def test_a_training_that_fails_ends_the_script_with_its_status(laboratories, monkeypatch, tmp_path):
    def fail(command, **options):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(SystemExit, match="error: train.py ended with status 3"):
        run(monkeypatch, "--data_dir", *laboratories, "--labels", *LABELS, "--output_dir", tmp_path)


# The unseen cells


def test_unseen_cells_are_those_of_a_user_and_at_most_so_many_of_a_class(laboratories, monkeypatch):
    cells = choose_images(unseen_cells(laboratories[1], COMMON, {"monocyte": "other"}))
    assert Counter(cells["label"]) == {0: 4, 1: 4, 2: 4}
    monkeypatch.setattr(leave_one_out, "LIMIT", 6)
    fields = choose_images(unseen_cells(laboratories[0], COMMON, {}))
    assert Counter(fields["label"]) == {0: 3, 1: 3}
    assert all(value["bytes"] for value in fields["image"])  # cut out of their fields
    again = choose_images(unseen_cells(laboratories[0], COMMON, {}))
    assert again["file"][:] == fields["file"][:] and again["boxes"][:] == fields["boxes"][:]


def test_what_statistics_are_estimated_from_is_chosen_without_labels(laboratories, monkeypatch):
    cells = unseen_cells(laboratories[1], COMMON, {"monocyte": "other"})
    monkeypatch.setattr(leave_one_out, "UNLABELLED", 7)
    chosen = choose_unlabelled(cells)
    turned = cells.map(lambda row: {"label": (row["label"] + 1) % len(COMMON)}, features=cells.features)
    assert len(set(chosen["file"])) == 7 and choose_unlabelled(turned)["file"][:] == chosen["file"][:]
    monkeypatch.setattr(leave_one_out, "UNLABELLED", 100)
    assert sorted(choose_unlabelled(cells)["file"]) == sorted(cells["file"])


def test_of_the_archive_no_test_image_is_named(tmp_path, monkeypatch):
    photos = write_archive(tmp_path / "blood-cells", train=3, test=2)
    monkeypatch.setattr(name_photos, "__defaults__", (write_table(tmp_path / "images.csv", photos),))
    found = unseen_cells(tmp_path / "blood-cells", LABELS, {})
    assert len(found) == 12
    tested = {photo.name for photo in photos if any(split == "TEST" for split, _ in photo.copies)}
    assert len(tested) == 8 and tested.isdisjoint(found["photo"])
    assert load_folder(tmp_path / "blood-cells" / ARCHIVE_IMAGES / "TEST")["train"].num_rows == 16
    with pytest.raises(DataError, match=r"has the splits \['test'\] and no 'train'"):
        unseen_cells(write_splits(tmp_path / "own", {"test": 2}), LABELS, {})


def test_of_a_laboratory_that_is_learnt_from_only_what_is_held_out_is_named(tmp_path):
    folder = write_class_folders(tmp_path / "lab", 5, size=(64, 48))
    held = held_out_cells(folder, LABELS, {}, 0.4, 1)
    parts = divide(load_laboratory(folder), 0.4, 0.0, 1)
    assert set(held["file"]) == set(parts["validation"]["file"]) and set(held["file"]).isdisjoint(
        parts["train"]["file"]
    )
    beside = divide(load_laboratory(folder), 0.4, 0.2, 1)
    held = held_out_cells(folder, LABELS, {}, 0.4, 1, 0.2)
    assert set(held["file"]) == set(beside["validation"]["file"]) != set(parts["validation"]["file"])


def test_two_are_left_out_at_once(laboratories, monkeypatch, tmp_path):
    commands = []

    def stop(command, **options):
        commands.append(command)
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", stop)
    where = ["--data_dir", *laboratories, "--labels", *LABELS, "--output_dir", tmp_path, "--validation_share", "0.34"]
    with pytest.raises(SystemExit, match="status 1"):
        run(monkeypatch, *where, "--leave_out", "cells+others")
    (command,) = commands
    assert command[2:5] == ["--data_dir", str(laboratories[0]), "--labels"]
    assert command[command.index("--output_dir") + 1] == str(tmp_path / "cells+others")


@pytest.fixture(scope="module")
def small_model(model_folder, tmp_path_factory):
    """A folder as it is published, whose images are 64 px wide, for speed."""
    folder = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(model_folder, folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": {"height": 64, "width": 64}}))
    return folder


def test_no_label_of_the_unseen_laboratory_is_used(small_model, tmp_path):
    """Whatever the labels say, the same images get the same answers."""
    data = unseen_cells(write_class_folders(tmp_path / "lab", 3, size=(64, 48)), LABELS, {})
    turned = data.map(lambda row: {"label": (row["label"] + 1) % 4}, features=data.features)
    answers = {}
    for name, part in (("as they are", data), ("turned", turned)):
        found = measure_laboratory(small_model, part, LABELS, None)
        answers[name] = {
            way: np.sum(found[way]["confusion_matrix"], axis=0).tolist() for way in ("plain", "re-estimated")
        }
        assert all(sum(given) == 12 for given in answers[name].values())
    assert answers["as they are"] == answers["turned"]


def test_statistics_are_re_estimated_from_its_images(small_model, tmp_path):
    data = unseen_cells(write_class_folders(tmp_path / "lab", 2, size=(64, 48)), LABELS, {})
    found = measure_laboratory(small_model, data, LABELS, None)
    model, processor = load_model(small_model)
    pixels = processor([open_image(value) for value in data["image"]], return_tensors="pt")["pixel_values"]
    update_bn([pixels], model)
    with torch.no_grad():
        shares = model.eval()(pixels).logits.double().softmax(-1).numpy()
    expected = sk.log_loss(data["label"][:], shares, labels=range(4))
    assert found["re-estimated"]["metrics"]["nll"]["value"] == pytest.approx(expected, abs=1e-4)
    assert found["plain"]["metrics"]["nll"]["value"] != pytest.approx(expected, abs=1e-2)
