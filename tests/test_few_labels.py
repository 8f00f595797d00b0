"""A few labelled cells: no photo on both sides, learnt by the README's command, measured where nothing was learnt."""

import io
import json
import subprocess
import sys

import datasets
import numpy as np
import pytest
from PIL import Image
from smear_drawings import draw_field, write_class_folders, write_photo_column
from test_train import QUICK, checkpoint_of

import few_labels
from evaluation import evidence
from evaluation.measure import open_image, predict
from few_labels import choose_cells, find_each, write_cells
from smears.laboratories import held_out_cells, unseen_cells
from smears.loading import DataError, load_folder

LABELS = ("lymphocyte", "neutrophil", "other")


def rows(**groups):
    """Build a data set from the groups of each image of a class."""
    names = sorted(groups)
    labels = [number for number, name in enumerate(names) for _ in groups[name]]
    data = {"label": labels, "group": [group for name in names for group in groups[name]]}
    features = {"label": datasets.ClassLabel(names=names), "group": datasets.Value("string")}
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


def test_no_group_is_labelled_and_measured_and_the_images_come_from_as_many_as_can_be():
    data = rows(a=[f"a{n // 4}" for n in range(24)], b=[f"b{n}" for n in range(10)])
    labelled, others = choose_cells(data, 5, seed=1)
    groups, labels = np.array(data["group"]), np.array(data["label"])
    assert np.bincount(labels[labelled]).tolist() == [5, 5]
    assert not set(groups[labelled]) & set(groups[others])
    assert len(set(groups[labelled][labels[labelled] == 0])) == 3 == len(set(groups[others][labels[others] == 0]))
    assert len(set(groups[labelled][labels[labelled] == 1])) == 5
    assert choose_cells(data, 5, seed=1) == (labelled, others) != choose_cells(data, 5, seed=2)


def test_a_scarce_class_gives_what_it_has_and_the_others_share_the_rest():
    data = rows(a=[f"a{n}" for n in range(60)], b=[f"b{n}" for n in range(6)], c=[f"c{n}" for n in range(60)])
    labelled, others = choose_cells(data, 100, seed=0, most=24)
    labels = np.array(data["label"])
    counts = np.bincount(labels[labelled])
    assert len(labelled) == 24 and counts[1] == np.sum(labels == 1) - np.sum(labels[others] == 1) <= 4
    assert abs(counts[0] - counts[2]) <= 1 and not set(labelled) & set(others)
    assert np.bincount(labels[choose_cells(data, 5, seed=0, most=100)[0]]).tolist() == [5, counts[1], 5]


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_more_or_fewer_photos_are_labelled_from_where_that_is_asked_for(share):
    data = rows(a=[f"a{n // 2}" for n in range(80)], b=[f"b{n}" for n in range(16)])
    labelled, others = choose_cells(data, 80, seed=0, most=len(data), share=share)
    groups, labels = np.array(data["group"]), np.array(data["label"])
    assert not set(groups[labelled]) & set(groups[others]) and len(labelled) + len(others) == len(data)
    for label, number in ((0, 40), (1, 16)):
        assert len(set(groups[labelled][labels[labelled] == label])) == pytest.approx(share * number, abs=1)


def test_photos_alone_are_kept_apart_where_that_is_asked_for():
    photos = [f"{number // 2}" for number in range(24)]
    data = rows(a=["slide"] * 24, b=["slide"] * 24).add_column(
        "photo", [f"{label}{p}" for label in "ab" for p in photos]
    )
    with pytest.raises(DataError, match="two are needed"):
        choose_cells(data, 3, seed=0)
    labelled, others = choose_cells(data, 3, seed=0, apart="photo")
    sides = [{data["photo"][row] for row in side} for side in (labelled, others)]
    assert len(sides[0]) == 6 and not sides[0] & sides[1]


def test_a_cell_that_is_found_is_cut_out_and_a_photo_without_one_stays():
    picture, ((top, left, bottom, right),) = draw_field(1, [(200, 320)])
    empty = np.full_like(picture, 220)
    streams = [io.BytesIO() for _ in range(3)]
    for stream, pixels in zip(streams, (picture, empty, picture), strict=True):
        Image.fromarray(pixels).save(stream, "PNG")
    images = [{"bytes": stream.getvalue(), "path": None} for stream in streams]
    columns = {"image": images, "file": ["a", "b", "c"], "whole": [True, True, False]}
    data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))
    cut, missed = find_each(data)
    assert missed == 1 and cut.column_names == data.column_names and cut["image"][1:] == images[1:]
    cell = np.array(open_image(cut[0]["image"]))
    height, width = cell.shape[:2]
    assert height == width and max(bottom - top, right - left) < height < 3 * max(bottom - top, right - left)
    middle = picture[(top + bottom) // 2, (left + right) // 2]
    assert np.abs(cell[height // 2, width // 2].astype(int) - middle).max() < 60


def test_a_group_of_two_classes_stands_on_one_side():
    data = rows(a=["x", "a1", "a2", "a3"], b=["x", "b1", "b2", "b3", "b4"])
    for seed in range(6):
        labelled, others = choose_cells(data, 1, seed)
        groups = np.array(data["group"])
        assert not set(groups[labelled]) & set(groups[others])


def test_a_class_that_stands_in_groups_of_others_alone_is_labelled_and_measured():
    data = rows(a=["x", "y", "a1", "a2"], b=["x", "x", "y", "y"])
    for seed in range(4):
        labels = np.array(data["label"])
        assert [set(labels[part]) for part in choose_cells(data, 1, seed)] == [{0, 1}, {0, 1}]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["1", "1"], "b": ["2", "3"]}, r"The class 'a' has 1 photo\(s\); two are needed"),
        ({"a": ["1", "4", "5", "6"], "b": ["2", "3"]}, "About 50% of the photos or slides of 'b' show 1 image"),
    ],
)
def test_too_few_to_label_and_to_measure_is_said(groups, message):
    with pytest.raises(DataError, match=message):
        choose_cells(rows(**groups), 2, seed=0)


def test_the_cells_are_written_as_a_user_has_them(tmp_path):
    write_class_folders(tmp_path / "lab", 3, LABELS[:2], size=(64, 48))
    data = unseen_cells(tmp_path / "lab", LABELS, {})
    write_cells(data, tmp_path / "cells")
    back = load_folder(tmp_path / "cells")["train"]
    assert [LABELS[label] for label in data["label"]] == [
        back.features["label"].names[label] for label in back["label"]
    ]
    assert back["photo"][:] == data["photo"][:]
    for before, after in zip(data, back, strict=True):
        np.testing.assert_array_equal(*(np.asarray(few_labels.open_image(row["image"])) for row in (before, after)))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """A laboratory, another at home, and a checkpoint with the record of a training that never saw the first."""
    root = tmp_path_factory.mktemp("few")
    lab = write_class_folders(root / "lab", 8, LABELS[:2], size=(64, 48))
    home = write_class_folders(root / "home", 6, ("lymphocyte", "monocyte", "neutrophil"), first_seed=60, size=(64, 48))
    for folder in (lab, home):
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
        write_photo_column(folder, {file: f"{folder.name}-{number // 2}" for number, file in enumerate(files)})
    checkpoint_of(root / "source", LABELS, negatives_label="other")
    command = [sys.executable, "train.py", "--data_dir", home, "--init_from", root / "source", "--labels", *LABELS]
    command += ["--label_map", "monocyte=other"]
    command += ["--negatives", "other", "--output_dir", root / "known", *QUICK, "--phase_epochs", "1"]
    command += ["--validation_share", "0.34", "--eval_strategy", "no"]
    subprocess.run([*map(str, command)], check=True, cwd=few_labels.ROOT)
    return root


def test_before_and_after_are_measured_on_photos_that_nothing_was_learnt_from(unseen, monkeypatch):
    commands, started = [], subprocess.run

    def quickly(command, **options):
        if "train.py" not in str(command[1]):
            return started(command, **options)
        commands.append(command)
        quick = [*command, *QUICK, "--phase_epochs", "1", "--draws_per_epoch", "16", "--validation_share", "0.5"]
        return started([*quick, "--eval_strategy", "no"], **options)

    monkeypatch.setattr(subprocess, "run", quickly)
    words = [unseen / "known" / "model", "--data_dir", unseen / "lab", "--home", unseen / "home", "--cells", 4]
    words += ["--label_map", "monocyte=other", "--validation_share", "0.34", "--out", unseen / "few"]
    few_labels.main([*map(str, words)])
    report = json.loads((unseen / "few" / "few_labels.json").read_text())
    (command,) = commands
    assert command[2:] == [
        "--init_from", str(unseen / "known" / "model"), "--data_dir", str(unseen / "few" / "cells"),
        "--output_dir", str(unseen / "few" / "fitted"),
    ]  # fmt: skip
    cells = unseen_cells(unseen / "lab", LABELS, {})
    labelled, others = choose_cells(cells, 4, 0)
    learnt = load_folder(unseen / "few" / "cells")["train"]
    assert set(learnt["photo"]) == {cells["photo"][row] for row in labelled}
    assert report["n_labelled"] == len(learnt) == 8 and report["n_groups_labelled"] == 4
    held = held_out_cells(unseen / "home", LABELS, {"monocyte": "other"}, 0.34, 0)
    held = held.select([row for row, label in enumerate(held["label"]) if LABELS[label] != "other"])
    pairs = [(cells.select(others), report["others"]), (held, report["home"]["home"])]
    for when, folder in (("before", unseen / "known" / "model"), ("after", unseen / "few" / "fitted" / "model")):
        for data, found in pairs:
            right = predict(folder, data).argmax(1) == np.array(data["label"])
            recalls = [right[np.array(data["label"]) == label].mean() for label in (0, 1)]
            assert found[when]["metrics"]["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls), abs=1e-6)
    config = json.loads((unseen / "few" / "fitted" / "model" / "config.json").read_text())
    assert list(config["id2label"].values()) == list(LABELS) and config["negatives_label"] == "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data_dir": "home"}, "expected one that has not seen it"),
        ({"--cells": "9"}, "9 were asked for"),
        ({"--out": "used"}, "is there already"),
    ],
)
def test_what_cannot_be_measured_is_refused(unseen, change, message):
    (unseen / "used" / "cells").mkdir(parents=True, exist_ok=True)
    words = {"--data_dir": "lab", "--home": "home", "--validation_share": "0.34", "--cells": "2", "--out": "refused"}
    words |= change
    places = {name: value if value[0].isdigit() else str(unseen / value) for name, value in words.items()}
    arguments = [str(unseen / "known" / "model"), "--label_map", "monocyte=other"]
    arguments += [word for pair in places.items() for word in pair]
    with pytest.raises(SystemExit, match=message):
        few_labels.main(arguments)


def test_the_pages_fit_is_measured_for_each_choice_of_cells(unseen, tmp_path):
    words = [unseen / "known" / "model", "--data_dir", unseen / "lab", "--home", unseen / "home", "--head", "--most", 8]
    words += ["--cells", 10, "--choices", 2, "--limit", 14, "--seed", 4, "--label_map", "monocyte=other"]
    few_labels.main([*map(str, words), "--validation_share", "0.34", "--out", str(tmp_path)])
    report = json.loads((tmp_path / "heads.json").read_text())
    cells = unseen_cells(unseen / "lab", LABELS, {})
    cells = cells.select(few_labels.choose_rows(cells["label"][:], 14, seed=0))
    assert [choice["seed"] for choice in report["choices"]] == [4, 5]
    for choice in report["choices"]:
        labelled, others = choose_cells(cells, 10, choice["seed"], 8)
        labels = np.array(cells["label"])
        counted = {LABELS[label]: int((labels[labelled] == label).sum()) for label in (0, 1)}
        assert choice["labelled"] == counted and choice["n_labelled"] == len(labelled) <= 8
        assert choice["others"]["n"] == len(others) and choice["home"].keys() == {"home"}
        right = predict(unseen / "known" / "model", cells.select(others)).argmax(axis=1) == labels[others]
        recalls = [right[labels[others] == label].mean() for label in (0, 1)]
        assert choice["others"]["before"]["value"] == pytest.approx(np.mean(recalls), abs=1e-4)
        assert str(choice["share"]) in ("0.0", "0.5", "1.0") and choice["seconds"] >= 0
    evidence.validate_evidence({"heads": [report]}, "0" * 64)
