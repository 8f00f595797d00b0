"""The script as a user runs it: trained, killed, resumed and started from earlier weights on a drawn archive."""

import copy
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from safetensors.torch import load_file
from sklearn import metrics as sk
from smear_drawings import (
    ARCHIVE_IMAGES,
    ARCHIVE_PHOTOS,
    LABELS,
    draw_smear,
    write_archive,
    write_class_folders,
    write_fields,
    write_image,
    write_photo_column,
    write_table,
)
from transformers import AutoImageProcessor, AutoModelForImageClassification, HfArgumentParser

import train
import validate
from evaluation.results import read_results, weights_sha256
from smears.laboratories import divide, load_laboratory, rename_classes
from smears.loading import DataError, fingerprint, load_folder
from smears.photos import boxes_on_copies, name_photos
from smears.splits import hold_out

QUICK = shlex.split(
    "--sides 64 --phase_epochs 3 --draws_per_epoch 32 --per_device_train_batch_size 8 --dataloader_num_workers 0"
    " --statistics_batches 2 --bf16 False --use_cpu --seed 5"
)
EPOCHS, STEPS = 3, 12  # 32 draws in batches of 8
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(*arguments):
    """Start train.py as from a shell, in a process group of its own; of ``QUICK`` what ``arguments`` repeat counts."""
    where, others = arguments[:2], arguments[2:]
    command = [sys.executable, str(REPOSITORY / "train.py"), *map(str, where), *QUICK, *map(str, others)]
    return subprocess.Popen(
        command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(process):
    """Wait for its end and give what it said."""
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def kill(process):
    """Kill it and its workers at once, as a power cut does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A drawn archive of 8 photos a class, 6 of them to train, whose photos metadata.csv names."""
    root = tmp_path_factory.mktemp("data") / "blood-cells"
    photos = write_archive(root, train=6, test=2, copies=2)
    for split in ("TRAIN", "TEST"):  # TEST_SIMPLE shows the photos of TEST, and no photo may stand in two splits
        folder = root / ARCHIVE_IMAGES / split
        copies = [(path, photo.name) for photo in photos for where, path in photo.copies if where == split]
        write_photo_column(folder, {path.relative_to(folder).as_posix(): name for path, name in copies})
    return root


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory):
    """The output folder of a training that nothing disturbed, and what it said."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    return output, finish(start("--data_dir", archive, "--output_dir", output))


@pytest.fixture(scope="module")
def resumed(archive, trained, tmp_path_factory):
    """The output folder of the same training killed after an epoch and run again, and what the second run said."""
    output = tmp_path_factory.mktemp("runs") / "resumed"
    process = start("--data_dir", archive, "--output_dir", output)
    first = output / f"checkpoint-{STEPS // EPOCHS}" / "trainer_state.json"
    while not first.exists() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, process.stdout.read()
    kill(process)
    assert not (output / "model").exists()
    # A later checkpoint, cut off as it was being written.
    cut = output / f"checkpoint-{STEPS}"
    shutil.rmtree(cut, ignore_errors=True)
    cut.mkdir()
    weights = (first.parent / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return output, finish(start("--data_dir", archive, "--output_dir", output))


def test_images(archive, split):
    return sorted((archive / ARCHIVE_IMAGES / split).glob("*/*.jpeg"))


test_images.__test__ = False


def by_hand(folder, paths, **options):
    """Classify files one by one: probabilities (N, 4)."""
    model = AutoModelForImageClassification.from_pretrained(folder, **options)
    processor = AutoImageProcessor.from_pretrained(folder)
    rows = []
    for path in paths:
        with torch.no_grad(), Image.open(path) as image:
            rows.append(model(**processor(image.convert("RGB"), return_tensors="pt")).logits.softmax(-1)[0].numpy())
    return np.array(rows), model


def test_the_finished_folder_holds_all_that_the_doors_load(trained):
    output, said = trained
    folder = output / "model"
    code = {path.name for path in (REPOSITORY / "hub_model").glob("*.py")}
    needed = {"config.json", "model.safetensors", "preprocessor_config.json", "eval_results.json"}
    needed.add("differential.schema.json")
    assert {path.name for path in folder.iterdir()} == needed | code
    assert str(folder) in said


def test_a_new_folder_names_its_code_as_the_published_one_does(trained):
    new, published = (
        json.loads((folder / "config.json").read_text()) for folder in (trained[0] / "model", train.HUB_MODEL)
    )
    for key in ("auto_map", "custom_pipelines", "architectures", "model_type"):
        assert new[key] == published[key], key


def test_what_training_ends_on_is_what_ships(trained):
    processor = AutoImageProcessor.from_pretrained(trained[0] / "model", trust_remote_code=False)
    assert dict(processor.size) == {"height": 64, "width": 64}
    assert processor(Image.new("RGB", (90, 70)), return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)


def test_copies_of_known_photos_bring_their_cells_boxes(tmp_path, monkeypatch):
    photos = write_archive(tmp_path / "blood-cells", train=6, test=2, copies=2, size=(640, 480))
    table = write_table(tmp_path / "images.csv", photos)
    for function in (name_photos, boxes_on_copies):
        monkeypatch.setattr(function, "__defaults__", (table,))
    arguments = train.DataArguments(data_dir=[str(tmp_path / "blood-cells")], train_on="images")
    _, fit, shown, _ = train.load_images(arguments)
    assert len(fit) > 30 and "boxes" not in shown.column_names
    box_of = {photo.name: photo.box for photo in photos}
    for row in fit:
        assert row["boxes"] == [[round(side / 2) for side in box_of[row["photo"]]]]  # the table's map is the identity


def test_both_doors_give_the_same_and_the_figures_are_scikit_learns(archive, trained):
    folder = trained[0] / "model"
    results = {entry["split"]: entry for entry in read_results(folder / "eval_results.json")["results"]}
    assert list(results) == ["validation", "TEST", "TEST_SIMPLE"]
    for split in ("TEST", "TEST_SIMPLE"):
        paths = test_images(archive, split)
        labels = [LABELS.index(path.parent.name.lower()) for path in paths]
        plain, model = by_hand(folder, paths, trust_remote_code=False)
        assert list(model.config.id2label.values()) == list(LABELS)
        remote, _ = by_hand(folder, paths, trust_remote_code=True)
        np.testing.assert_allclose(remote, plain, rtol=0, atol=1e-6)
        entry = results[split]
        metrics = entry["metrics"]
        assert entry["n_images"] == len(paths) and entry["n_photos"] == 8
        assert metrics["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, plain.argmax(1)), abs=1e-6)
        assert metrics["nll"]["value"] == pytest.approx(sk.log_loss(labels, plain, labels=range(4)), abs=1e-4)
        assert entry["confusion_matrix"] == sk.confusion_matrix(labels, plain.argmax(1), labels=range(4)).tolist()


def test_the_record_says_what_was_trained_on_what(archive, trained):
    training = read_results(trained[0] / "model" / "eval_results.json")["training"]
    assert training["n_images"] == training["n_photos"] == 4 * 5  # 6 photos a class, one of them held out
    assert training["samples_seen"] == EPOCHS * 32 and training["resolutions"] == [64] and training["seed"] == 5
    assert training["recipe"]["phase_epochs"] == [EPOCHS] and training["recipe"]["per_device_train_batch_size"] == 8
    assert shlex.split(training["command"])[:4] == ["python", str(REPOSITORY / "train.py"), "--data_dir", str(archive)]
    splits = load_folder(archive)
    splits["validation"] = hold_out(splits["train"])[1]
    assert training["data_fingerprint"] == fingerprint(splits)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert training["commit"] == commit.stdout.strip()
    assert 0.05 <= training["temperature"] <= 20 and training["wall_seconds"] > 0


def test_a_training_that_was_killed_ends_in_the_same_bits(trained, resumed):
    for file in (
        f"checkpoint-{STEPS}/ema.safetensors",
        f"checkpoint-{STEPS}/model.safetensors",
        "model/model.safetensors",
    ):
        whole, again = (load_file(run[0] / file) for run in (trained, resumed))
        assert list(whole) == list(again)
        assert all(torch.equal(whole[name], again[name]) for name in whole), file
        assert (trained[0] / file).read_bytes() == (resumed[0] / file).read_bytes()
    figures = [read_results(run[0] / "model" / "eval_results.json") for run in (trained, resumed)]
    assert figures[0]["results"] == figures[1]["results"]
    assert figures[0]["training"]["samples_seen"] == figures[1]["training"]["samples_seen"]


def test_a_checkpoint_that_was_cut_off_is_passed_over_and_named(resumed):
    assert f"checkpoint-{STEPS} was cut off while being written and is passed over" in resumed[1]


def test_training_starts_from_earlier_weights_on_images_of_ones_own(trained, tmp_path):
    # With a learning rate of zero the weights must come out as they went in, but for statistics and temperature.
    own = write_class_folders(
        tmp_path / "my_cells", 4, [label.title() for label in LABELS], first_seed=40, size=(96, 72)
    )
    source, output = trained[0] / "model", tmp_path / "mine"
    said = finish(start(
        "--data_dir", own, "--train_on", "images", "--init_from", source, "--output_dir", output,
        "--learning_rate", "0", "--phase_epochs", "1", "--draws_per_epoch", "8", "--validation_share", "0.25",
    ))  # fmt: skip
    before, after = (load_file(folder / "model.safetensors") for folder in (source, output / "model"))
    results = read_results(output / "model" / "eval_results.json")
    for name, tensor in after.items():
        if "running" in name or "num_batches" in name:
            continue
        expected = before[name] / results["training"]["temperature"] if name.startswith("classifier") else before[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=0, msg=lambda m, name=name: f"{name}: {m}")
    assert [entry["split"] for entry in results["results"]] == ["validation"]
    assert results["results"][0]["n_images"] == 4 and results["results"][0]["dataset"] == "my_cells"
    assert results["training"]["n_images"] == 12
    assert "Loaded" in said and str(source) in said


def test_a_finished_training_is_averaged_with_other_checkpoints_without_learning_again(archive, trained, tmp_path):
    output = tmp_path / "again"
    shutil.copytree(trained[0], output)
    torch.manual_seed(9)
    other = checkpoint_of(tmp_path / "other", LABELS)
    finish(start("--data_dir", archive, "--output_dir", output, "--average_with", other))
    stored = load_file(trained[0] / f"checkpoint-{STEPS}" / "ema.safetensors")
    record = read_results(output / "model" / "eval_results.json")["training"]
    mean, drawn = (
        train.WbcResNetForImageClassification.from_pretrained(folder).state_dict()
        for folder in (output / "model", other)
    )
    for name, tensor in mean.items():
        if "running" in name or "num_batches" in name:
            continue  # estimated anew
        expected = (stored[f"module.{name}"] + drawn[name]) / 2
        expected = expected / record["temperature"] if name.startswith("network.fc") else expected
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7, msg=lambda m, name=name: f"{name}: {m}")
    assert record["averaged_with"] == [{"source": "other", "sha256": weights_sha256(other)}]
    assert record["samples_seen"] == EPOCHS * 32
    for file in ("model.safetensors", "ema.safetensors"):
        where = Path(f"checkpoint-{STEPS}") / file
        assert (output / where).read_bytes() == (trained[0] / where).read_bytes()


def checkpoint_of(folder, labels, **settings):
    """Save a network of these classes with random weights."""
    config = train.WbcResNetConfig(
        id2label=dict(enumerate(labels)), label2id={label: n for n, label in enumerate(labels)}, **settings
    )
    train.WbcResNetForImageClassification(config).save_pretrained(folder)
    AutoImageProcessor.from_pretrained(train.HUB_MODEL).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("shown", "told", "expected", "negatives"),
    [
        (("neutrophil", "lymphocyte"), (), ["monocyte", "lymphocyte", "neutrophil", "other"], "other"),
        (("neutrophil", "eosinophil"), (), ["eosinophil", "neutrophil"], None),
        (("neutrophil", "lymphocyte"), ("--labels", "lymphocyte", "neutrophil"), ["lymphocyte", "neutrophil"], None),
        (
            ("neutrophil", "lymphocyte"),
            ("--train_on", "images", "--labels", "neutrophil", "lymphocyte"),
            ["neutrophil", "lymphocyte"],
            None,
        ),
    ],
    ids=["known", "new", "told", "told of images"],
)
def test_cells_of_ones_own_keep_the_classes_of_the_checkpoint_that_knows_them(
    tmp_path, shown, told, expected, negatives
):
    checkpoint = checkpoint_of(
        tmp_path / "model", ("monocyte", "lymphocyte", "neutrophil", "other"), negatives_label="other"
    )
    own = write_class_folders(tmp_path / "my_cells", 4, shown, size=(96, 72))
    words = ["--data_dir", own, "--init_from", checkpoint, "--output_dir", tmp_path / "mine", "--use_cpu"]
    data, recipe, arguments = train.parse([*map(str, words), "--validation_share", "0.25", *told])
    ready = train.prepare(data, recipe, arguments)
    assert (
        ready.fit.features["label"].names == expected == [ready.model.config.id2label[n] for n in range(len(expected))]
    )
    assert recipe.negatives == negatives
    own_names = [expected[label] for label in ready.fit["label"]]
    assert own_names == [
        Path(file).parts[-2] for file in ready.fit["file"]
    ]  # each image is still called what its folder says
    source = load_file(checkpoint / "model.safetensors")["classifier.1.weight"]
    learnt = ready.model.get_classifier().weight
    kept = ["monocyte", "lymphocyte", "neutrophil", "other"]
    for number, label in enumerate(expected):
        if label in kept:
            torch.testing.assert_close(learnt[number], source[kept.index(label)])


# Several laboratories


COMMON = ("neutrophil", "lymphocyte", "other")  # in no alphabetical order


@pytest.fixture(scope="module")
def laboratories(tmp_path_factory):
    """Two drawn laboratories: fields with boxes of subtypes, and images of one cell; monocytes are no common class."""
    root = tmp_path_factory.mktemp("laboratories")
    write_fields(root / "fields", ("lymphocyte", "neutrophil"), each=4)
    write_class_folders(root / "cells", 4, ("lymphocyte", "monocyte", "neutrophil"), size=(96, 72))
    return root / "fields", root / "cells"


@pytest.fixture(scope="module")
def joint(laboratories, tmp_path_factory):
    """The output folder of a training on both laboratories with negatives, and what it said."""
    output = tmp_path_factory.mktemp("runs") / "joint"
    said = finish(start(
        "--output_dir", output, "--data_dir", *laboratories, "--labels", *COMMON, "--label_map", "monocyte=other",
        "--negatives", "other", "--exchange_share", "0.5", "--augment", "streak=3", "mixing=.05", "crop_side=1.1,3",
        "--validation_share", "0.25", "--phase_epochs", "1", "--draws_per_epoch", "24",
    ))  # fmt: skip
    return output / "model", said


def test_a_network_of_several_laboratories_has_their_common_classes_in_the_order_given(joint):
    folder, said = joint
    image = Image.new("RGB", (90, 70), (200, 160, 180))
    for trust in (False, True):
        model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=trust)
        assert [model.config.id2label[number] for number in range(3)] == list(COMMON)
        pixels = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)(image, return_tensors="pt")
        assert model(**pixels).logits.shape == (1, 3)
    assert "fields, validation: accuracy" in said and "cells, validation: accuracy" in said


def test_each_laboratory_is_measured_by_itself_as_a_user_would_see_its_cells(joint, laboratories):
    folder, _ = joint
    results = read_results(folder / "eval_results.json")
    entries = {(entry["dataset"], entry["split"]): entry for entry in results["results"]}
    assert list(entries) == [("fields", "validation"), ("cells", "validation")]
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    for data_dir in laboratories:
        held = divide(load_laboratory(data_dir), validation_share=0.25)["validation"]
        held = rename_classes(held, COMMON, {"monocyte": "other"})
        rows = []
        for row in held:
            with torch.no_grad(), Image.open(data_dir / row["file"]) as image:
                if data_dir.name == "fields":  # the square about the cell, twice its box of 44 px
                    ((top, left, bottom, right),) = row["boxes"]
                    image = image.crop((left - 22, top - 22, right + 22, bottom + 22))
                pixels = processor(image.convert("RGB"), return_tensors="pt")
                rows.append(model(**pixels).logits.double().softmax(-1)[0].numpy())
        entry, labels = entries[data_dir.name, "validation"], held["label"][:]
        assert entry["labels"] == list(COMMON) and entry["n_images"] == len(held) >= 3
        assert entry["metrics"]["nll"]["value"] == pytest.approx(sk.log_loss(labels, rows, labels=range(3)), abs=1e-4)
    assert entries["fields", "validation"]["n_photos"] == entries["fields", "validation"]["n_images"] / 2


def assert_near(found, expected, where="results"):
    """Compare what was measured in two processes, whose threads may add in another order: 2 in the sixth place at most."""
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_near(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_near(found[number], value, f"{where}[{number}]")
    else:
        assert found == (pytest.approx(expected, abs=2e-6) if isinstance(expected, float) else expected), where


def test_validate_comes_to_the_figures_that_training_measured(joint, laboratories):
    folder, _ = joint
    stored = read_results(folder / "eval_results.json")["results"]
    words = [folder, "--data_dir", *laboratories, "--laboratories", "--validation_share", "0.25"]
    found = validate.validate(validate.parse([*map(str, words), "--folder_map", "monocyte=other"]))
    assert_near(json.loads(json.dumps(found)), stored)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"The class 'monocyte' of cells is not among .*\(monocyte=CLASS\)"),
        (
            ("--folder_map", "monocyte=other", "blast=other"),
            "--folder_map blast=...: there is no such folder; expected",
        ),
        (
            ("--test_share", "clinic=0.2"),
            r"--test_share clinic: there is no such laboratory; expected one of \['cells'\]",
        ),
    ],
)
def test_validate_refuses_laboratories_that_it_cannot_place(joint, laboratories, words, message):
    with pytest.raises(DataError, match=message):
        validate.validate(validate.parse([str(joint[0]), "--data_dir", str(laboratories[1]), "--laboratories", *words]))


def test_the_record_of_several_laboratories_names_each(joint, laboratories):
    training = read_results(joint[0] / "eval_results.json")["training"]
    held = sum(entry["n_images"] for entry in read_results(joint[0] / "eval_results.json")["results"])
    assert training["n_images"] == 16 + 12 - held  # two cells in each of 8 fields, and 12 images
    recipe = training["recipe"]
    assert recipe["negatives"] == "other" and recipe["augment"] == ["streak=3", "mixing=.05", "crop_side=1.1,3"]
    assert recipe["exchange_share"] == 0.5
    prints = training["data_fingerprint"].split()
    assert len(prints) == 2
    cells = divide(load_laboratory(laboratories[1]), validation_share=0.25)
    assert prints[1] == fingerprint(
        {name: rename_classes(data, COMMON, {"monocyte": "other"}) for name, data in cells.items()}
    )


def load(*data_dir, **arguments):
    return train.load_images(train.DataArguments(data_dir=[str(folder) for folder in data_dir], **arguments))


def test_fields_are_learnt_from_as_they_are_and_shown_as_cells(laboratories):
    loaded, fit, shown, held = load(*laboratories, validation_share=0.25, test_share=["fields=0.25"])
    assert list(loaded) == ["fields", "cells"]
    assert fit.features["label"].names == ["lymphocyte", "monocyte", "neutrophil"]  # left out: all, by alphabet
    assert set(loaded["fields"]) == {"train", "validation", "test"} and set(loaded["cells"]) == {"train", "validation"}
    assert len(fit) == sum(len(splits["train"]) for splits in loaded.values())
    assert len(held) == len(shown) == sum(len(splits["validation"]) for splits in loaded.values())
    size = {True: (96, 72), False: (320, 240)}
    for row in fit:
        assert train.datasets.Image().decode_example(row["image"]).size == size[row["whole"]]
    for split in ("validation", "test"):
        for row in loaded["fields"][split]:
            assert train.datasets.Image().decode_example(row["image"]).size == (88, 88)
    photos = [set(data["photo"]) for data in loaded["fields"].values()]
    assert len(set.union(*photos)) == sum(map(len, photos)) == 8


@pytest.fixture
def archive_with_basophils(tmp_path, monkeypatch):
    """A drawn archive whose table of photos is read, and two photos of basophils that no folder shows."""
    root = tmp_path / "blood-cells"
    monkeypatch.setattr(name_photos, "__defaults__", (write_table(tmp_path / "images.csv", write_archive(root)),))
    photos = root / ARCHIVE_PHOTOS
    for number in (50, 51):
        write_image(photos / "JPEGImages" / f"BloodImage_{number:05d}.jpg", draw_smear("monocyte", number)[0])
    with (photos / "labels.csv").open("a") as stream:
        stream.write(",50,BASOPHIL\n,51,BASOPHIL\n")
    return root


def test_the_archives_basophils_are_learnt_where_there_is_such_a_class_and_never_held_out(archive_with_basophils):
    names = ["basophil", *LABELS]
    loaded, fit, _, held = load(archive_with_basophils, labels=names)
    basophils = fit.filter(lambda row: row["label"] == 0)
    assert basophils["photo"] == ["BloodImage_00050", "BloodImage_00051"]
    assert 0 not in held["label"] and len(fit) + len(held) == 12 + 2
    assert all(photo.startswith("BloodImage_") for photo in fit["photo"])
    assert 0 not in loaded["blood-cells"]["test"]["label"]
    _, fit, _, _ = load(archive_with_basophils, labels=list(LABELS))
    assert not {"BloodImage_00050", "BloodImage_00051"} & set(fit["photo"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"test_share": ["nowhere=0.2"]},
            r"--test_share nowhere: there is no such laboratory; expected one of \['cells', 'fi",
        ),
        ({"test_share": ["fields"]}, r"--test_share fields: expected LAB=SHARE, such as chula=0\.2"),
        ({"test_share": ["fields=much"]}, r"--test_share fields=much: expected LAB=SHARE"),
        (
            {"test_share": ["fields=0.9"]},
            r"^fields: The share to hold out is 0\.9; expected more than 0 and at most 0\.5",
        ),
        (
            {"labels": ["lymphocyte", "neutrophil"]},
            r"The class 'monocyte' of cells is not among .*\(monocyte=CLASS\)",
        ),
        ({"label_map": ["monocyte"]}, r"holds \['monocyte'\]"),
    ],
)
def test_what_does_not_fit_the_laboratories_is_refused_by_name(laboratories, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(*laboratories, **arguments)


def test_two_laboratories_of_one_name_are_refused(laboratories, tmp_path):
    shutil.copytree(laboratories[1], tmp_path / "fields")
    with pytest.raises(ValueError, match=r"--data_dir .*fields .*fields: two folders have one name; rename one"):
        load(laboratories[0], tmp_path / "fields")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--negatives", "artefact"],
            r"--negatives artefact: there is no such class; expected one of ['lymphocyte', 'mon",
        ),
        (["--augment", "blurr=3"], "--augment blurr=3: expected NAME=VALUE with one of the names"),
        (["--ground_share", "1.5"], "--ground_share 1.5: expected a share from 0 to 1"),
        (["--ground_share", "0.8", "--oddity_share", "0.3"], "--oddity_share 0.3: expected at most 1 together"),
        (["--exchange_share", "0.5"], "--exchange_share needs a second laboratory"),
        (["--class_balance", "-1"], "--class_balance -1.0: expected a share from 0 to 1"),
        (["--class_balance", "0", "--negatives", "other"], "--class_balance below 1 counts images"),
        (["--measure_splits", "validation", "exam"], "--measure_splits exam: expected some of validation, test, test_"),
        (["--train_on", "images", "--label_map", "monocyte=neutrophil"], "--train_on images goes with one --data_dir"),
    ],
)
def test_an_option_that_would_do_nothing_or_fail_late_is_refused_at_once(
    monkeypatch, tmp_path, laboratories, arguments, message
):
    where = ["--data_dir", str(laboratories[1]), "--output_dir", str(tmp_path / "run"), "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["train.py", *where, "--validation_share", "0.25", *arguments])
    with pytest.raises(SystemExit, match="^error: .*" + re.escape(message)):
        train.main()
    assert not (tmp_path / "run").exists()


def test_a_split_of_one_photo_is_refused_before_the_training_not_after(monkeypatch, tmp_path):
    own = write_class_folders(tmp_path / "platelets", 8, ("monocyte",))
    where = [
        "--data_dir",
        str(own),
        "--output_dir",
        str(tmp_path / "run"),
        "--labels",
        "monocyte",
        "other",
        "--use_cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["train.py", *where])
    with pytest.raises(
        SystemExit, match=r"^error: platelets: the split 'validation' shows one photo or slide; two are"
    ):
        train.main()


def test_labels_go_with_laboratories_not_with_the_hub():
    for option in (["--labels", "a", "b"], ["--label_map", "a=b"], ["--test_share", "x=0.1"]):
        with pytest.raises(ValueError, match="--labels, --label_map and --test_share go with --data_dir"):
            train.parse(["--dataset_name", "someone/cells", *option])


# Arguments, in this process


def parser():
    return HfArgumentParser((train.DataArguments, train.RecipeArguments, train.SmearTrainingArguments))


@pytest.mark.parametrize("arguments", [[], ["--data_dir", "blood-cells", "--dataset_name", "someone/cells"]])
def test_images_must_come_from_one_place(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(
        SystemExit, match="^error: Name the images: one of --data_dir FOLDER, --dataset_name ID and --packed FOLDER"
    ):
        train.main()


def test_a_checkpoint_that_cannot_be_averaged_with_is_refused_before_the_training(archive, tmp_path):
    other = checkpoint_of(tmp_path / "other", LABELS[::-1])
    words = ["--data_dir", str(archive), "--output_dir", str(tmp_path / "run"), *QUICK, "--average_with", str(other)]
    with pytest.raises(ValueError, match=f"^{re.escape(str(other))} names .*averaged class by class"):
        train.prepare(*train.parse(words))
    assert not (tmp_path / "run").exists()


def test_a_start_whose_record_cannot_be_read_is_refused_before_the_training(archive, tmp_path):
    start = checkpoint_of(tmp_path / "start", LABELS)
    earlier = {"schema_version": 1, "model": {}, "training": {}, "versions": {}, "results": []}
    (start / "eval_results.json").write_text(json.dumps(earlier))
    words = ["--data_dir", str(archive), "--output_dir", str(tmp_path / "run"), *QUICK, "--init_from", str(start)]
    with pytest.raises(ValueError, match=r"start/eval_results\.json: schema_version is 1; expected"):
        train.prepare(*train.parse(words))
    assert not (tmp_path / "run").exists()
    (start / "eval_results.json").unlink()
    begun = train.prepare(*train.parse(words)).started_from
    assert begun == {
        "source": "start",
        "sha256": hashlib.sha256((start / "model.safetensors").read_bytes()).hexdigest(),
    }


def test_a_mean_is_not_written_over_what_it_is_made_of(archive, tmp_path):
    own = checkpoint_of(tmp_path / "run" / "model", LABELS)
    words = ["--data_dir", str(archive), "--output_dir", str(tmp_path / "run"), *QUICK, "--average_with", str(own)]
    with pytest.raises(
        ValueError, match=r"^--average_with .*model: the mean is written there.* Copy that folder first"
    ):
        train.prepare(*train.parse(words))


def test_a_training_is_the_same_whether_it_knows_of_later_options_that_are_not_used(archive, tmp_path):
    words = ["--data_dir", str(archive), "--output_dir", str(tmp_path / "run"), *QUICK]
    train.prepare(*train.parse(words))
    begun = json.loads((tmp_path / "run" / "training.json").read_text())
    assert begun["sides"] == [64] and not {"mixup", "consistency", "average_with"} & begun.keys()
    other = checkpoint_of(tmp_path / "other", LABELS)
    train.prepare(*train.parse([*words, "--average_with", str(other)]))  # the same training, averaged at its end
    with pytest.raises(ValueError, match=r"holds a training with mixup = None, now it is 0\.2"):
        train.prepare(*train.parse([*words, "--mixup", "0.2"]))
    with pytest.raises(ValueError, match=r"holds a training with consistency = None, now it is 12\.0"):
        train.prepare(*train.parse([*words, "--consistency", "12"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_on", "slides"], "invalid choice: 'slides'"),
        (["--learning_rate", "quick"], "invalid float value: 'quick'"),
        (["--sides", "64.5"], "invalid int value"),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(capsys, arguments, message):
    with pytest.raises(SystemExit):
        parser().parse_args_into_dataclasses(["--data_dir", "cells", *arguments])
    assert message in capsys.readouterr().err


def test_an_option_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no option --learning_rat_e\. Did you mean --learning_rate\?"):
        train.parse(["--data_dir", "cells", "--learning_rat_e", "1"])
    with pytest.raises(ValueError, match=r"no option --data_dirr\. Did you mean --data_dir\?"):
        train.parse(["--data_dirr", "cells"])


def test_phases_that_do_not_fit_are_refused_before_any_image_is_read(monkeypatch, tmp_path):
    absent = str(tmp_path / "absent")
    phases = ["--sides", "64", "96", "--phase_epochs", "3"]
    where = ["--data_dir", absent, "--output_dir", str(tmp_path), "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["train.py", *where, *phases])
    with pytest.raises(SystemExit, match="must be lists of the same length"):
        train.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_train_epochs", "7"], "--phase_epochs says how many"),
        (["--resume_from_checkpoint", "here"], "the same command goes on"),
        (["--load_best_model_at_end"], "the moving average at the end is the model"),
        (["--hub_strategy", "end"], "the finished folder is pushed, once"),
        (["--push_to_hub", "--hub_license", "mine"], "expected an identifier of the Hub"),
        (["--push_to_hub"], "The images absent have no licence that is known"),
        (["--train_on", "photos", "--dataset_name", "someone/cells"], "needs the Kaggle archive"),
        (["--sides", "32", "--phase_epochs", "1"], "64 px and more"),
        (["--consistency", "-1"], "consistency is -1.0; expected 0 (none) or a weight above it"),
        (["--mixup", "0.2", "--consistency", "12"], "expected one of them"),
        (["--init_from", "nowhere"], "There is no nowhere to start from"),
        ([], "absent is no folder. Unpack the archive"),
    ],
)
def test_what_would_be_ignored_or_fail_late_is_refused_at_once(monkeypatch, tmp_path, arguments, message):
    source = [] if "--dataset_name" in arguments else ["--data_dir", str(tmp_path / "absent")]
    monkeypatch.setattr(sys, "argv", ["train.py", "--output_dir", str(tmp_path), "--use_cpu", *source, *arguments])
    with pytest.raises(SystemExit, match="^error: .*" + re.escape(message)):
        train.main()


def commands():
    """Give the commands of the module's docstring, each as a list of words from the script's name on."""
    text = re.sub(r"\\\n\s*", "", train.__doc__)
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("    ")]
    return [words[words.index("train.py") :] for words in lines]


def test_the_docstring_shows_commands():
    assert len(commands()) >= 3


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_the_docstring_is_understood(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    data, recipe, arguments = train.parse([*words[1:], "--use_cpu"])
    train.GrowingResolution(tuple(recipe.sides), tuple(recipe.phase_epochs))  # the phases fit
    # What it names is what it gets.
    given = dict(zip(words[1::2], words[2::2], strict=True))
    values = {
        f"--{field.name}": getattr(part, field.name) for part in (data, recipe, arguments) for field in fields(part)
    }
    for flag, text in given.items():
        value = values[flag][0] if isinstance(values[flag], list) else values[flag]
        assert str(value) == text or float(value) == float(text)


def test_a_checkpoint_is_adjusted_in_minutes_at_its_own_size_unless_told_otherwise(model_folder, tmp_path):
    checkpoint = shutil.copytree(model_folder, tmp_path / "model")
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    processor.size = {"height": 96, "width": 96}
    processor.save_pretrained(checkpoint)
    output = ["--data_dir", "cells", "--output_dir", str(tmp_path / "out")]

    def chosen(*arguments):
        _, recipe, trainer = train.parse([*output, *map(str, arguments)])
        return recipe.sides, recipe.phase_epochs, recipe.draws_per_epoch, trainer.learning_rate

    assert chosen() == ([112, 160, 224], [12, 9, 7], 6400, 2e-3)
    assert chosen("--init_from", checkpoint) == ([96], [5], 1000, 3e-4)
    # The linear layer is new, and the features are those of photographs of things.
    assert chosen("--init_from", "resnet50.safetensors") == chosen()
    told = ("--sides", 64, "--phase_epochs", 2, "--draws_per_epoch", 8, "--learning_rate", 1e-3)
    assert chosen("--init_from", checkpoint, *told) == ([64], [2], 8, 1e-3)
    with pytest.raises(ValueError, match="came without --phase_epochs"):
        chosen("--sides", 64, 96)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (None, r"its image processor cannot be read \(Can't load .*expected a preprocessor_config\.json"),
        (
            {"shortest_edge": 224},
            r"the size in its preprocessor_config\.json is \{'shortest_edge': 224\}; expected a square",
        ),
        (
            {"height": 64, "width": 96},
            r"is \{'height': 64, 'width': 96\}; expected a square, its height and width alike",
        ),
        ("no model", r"holds no config\.json; expected a folder written by save_pretrained"),
    ],
    ids=["no processor", "shortest edge", "oblong", "no model"],
)
def test_a_checkpoint_that_does_not_say_its_side_is_told_in_a_line(monkeypatch, model_folder, tmp_path, size, message):
    checkpoint = shutil.copytree(model_folder, tmp_path / "model")
    path = checkpoint / "preprocessor_config.json"
    processor = json.loads(path.read_text())
    path.unlink()
    if size == "no model":
        (checkpoint / "config.json").unlink()
    elif size:
        path.write_text(json.dumps(processor | {"size": size}))
    words = ["--data_dir", "cells", "--init_from", str(checkpoint), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit, match=f"^error: .*{re.escape(str(checkpoint))}.*{message}") as ended:
        train.main()
    assert "\n" not in ended.value.code
    if size != "no model":
        assert ended.value.code.endswith("or name the side: --sides 224 --phase_epochs 5.")
        _, recipe, _ = train.parse([*words, "--sides", "224", "--phase_epochs", "5"])
        assert (recipe.sides, recipe.phase_epochs, recipe.draws_per_epoch) == ([224], [5], 1000)


class Draws(torch.utils.data.Dataset):
    """Draws of noise that stand in for the augmented images; what is held out is answered right where it is sure."""

    resolution = train.GrowingResolution((64,), (1,))
    negatives = 3

    def __len__(self):
        return 16

    def set_epoch(self, epoch):
        pass

    def __getitem__(self, number):
        return {"pixel_values": torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(number)), "labels": 0}


@pytest.mark.parametrize("held_out", [150, 20])
def test_the_operating_point_is_found_on_calibrated_probabilities_and_stored(monkeypatch, model, caplog, held_out):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (held_out,), generator=generator)
    logits = 9 * torch.nn.functional.one_hot(labels, 4) + torch.randn(held_out, 4, generator=generator)
    logits[:10] = logits[:10].roll(1, dims=1) / 6  # a few are wrong, and not sure
    monkeypatch.setattr(train, "predict_logits", lambda *_, **__: (logits, labels))
    arguments = SimpleNamespace(per_device_train_batch_size=8, world_size=1, seed=0, dataloader_num_workers=0)
    trainer = SimpleNamespace(ema=SimpleNamespace(module=copy.deepcopy(model)), args=arguments)
    trainer.data_collator, trainer._prepare_inputs = None, lambda batch: batch
    finished, temperature = train.finish_model(trainer, Draws(), SimpleNamespace(data=None), batches=1)
    config = finished.config
    assert config.negatives_label == config.id2label[3]
    if held_out < 100:  # all named rightly, they would ask for a temperature of next to nothing
        assert temperature == 1 and "20 images were held out, too few for a temperature" in caplog.text
        assert config.acceptance_threshold is None and "a share of 1.0% wrong needs 100 or more" in caplog.text
        return
    assert temperature == pytest.approx(train.fit_temperature(logits, labels)) != 1
    probabilities = (logits.double() / temperature).softmax(-1)
    accepted = probabilities.max(-1).values >= config.acceptance_threshold
    wrong = probabilities.argmax(-1) != labels
    assert config.acceptance_risk == 0.01 and wrong[accepted].double().mean() <= 0.01 < wrong.double().mean()
    energy = -torch.logsumexp(logits.double() / temperature, -1)[labels != 3]
    assert config.energy_accept_rate <= (energy <= config.energy_threshold).double().mean() < 1
