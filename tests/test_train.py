"""The script as a user runs it: trained, killed, resumed and started from earlier weights on a drawn archive."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from safetensors.torch import load_file
from sklearn import metrics as sk
from smear_drawings import (
    ARCHIVE_IMAGES,
    LABELS,
    write_archive,
    write_class_folders,
    write_photo_column,
    write_table,
)
from transformers import AutoImageProcessor, AutoModelForImageClassification, HfArgumentParser

import train
from evaluation.results import read_results
from smears.loading import fingerprint, load_folder
from smears.photos import boxes_on_copies, name_photos
from smears.splits import hold_out

QUICK = shlex.split(
    "--sides 64 --phase_epochs 3 --draws_per_epoch 32 --per_device_train_batch_size 8 --dataloader_num_workers 0"
    " --statistics_batches 2 --bf16 False --use_cpu --seed 5"
)
EPOCHS, STEPS = 3, 12  # 32 draws in batches of 8
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def start(*arguments):
    """Start train.py as from a shell, in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments), *QUICK]
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
    assert {path.name for path in folder.iterdir()} == needed | code
    assert str(folder) in said


def test_what_training_ends_on_is_what_ships(trained):
    processor = AutoImageProcessor.from_pretrained(trained[0] / "model", trust_remote_code=False)
    assert dict(processor.size) == {"height": 64, "width": 64}
    assert processor(Image.new("RGB", (90, 70)), return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)


def test_copies_of_known_photos_bring_their_cells_boxes(tmp_path, monkeypatch):
    photos = write_archive(tmp_path / "blood-cells", train=6, test=2, copies=2, size=(640, 480))
    table = write_table(tmp_path / "images.csv", photos)
    for function in (name_photos, boxes_on_copies):
        monkeypatch.setattr(function, "__defaults__", (table,))
    arguments = train.DataArguments(data_dir=str(tmp_path / "blood-cells"), train_on="images")
    _, fit, shown = train.load_images(arguments)
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


# Arguments, in this process


def parser():
    return HfArgumentParser((train.DataArguments, train.RecipeArguments, train.SmearTrainingArguments))


@pytest.mark.parametrize("arguments", [[], ["--data_dir", "blood-cells", "--dataset_name", "someone/cells"]])
def test_images_must_come_from_one_place(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(
        SystemExit, match="^error: Name the images: either --data_dir FOLDER or --dataset_name ID, and not both"
    ):
        train.main()


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
        (["--push_to_hub"], "hf upload"),
        (["--train_on", "photos", "--dataset_name", "someone/cells"], "needs the Kaggle archive"),
        (["--sides", "32", "--phase_epochs", "1"], "64 px and more"),
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
    data, recipe, arguments = parser().parse_args_into_dataclasses([*words[1:], "--use_cpu"])
    train.GrowingResolution(tuple(recipe.sides), tuple(recipe.phase_epochs))  # the phases fit
    # What it names is what it gets.
    given = dict(zip(words[1::2], words[2::2], strict=True))
    values = {
        f"--{field.name}": getattr(part, field.name) for part in (data, recipe, arguments) for field in fields(part)
    }
    for flag, text in given.items():
        value = values[flag][0] if isinstance(values[flag], list) else values[flag]
        assert str(value) == text or float(value) == float(text)
