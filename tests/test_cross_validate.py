"""Five folds by photo or by file: nothing shared where nothing may be, each image named once, a fold trained only once."""

import csv
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import REPOSITORY
from smear_drawings import write_archive, write_class_folders, write_table
from test_train import QUICK

import cross_validate
from cross_validate import copies_with_folds, hold_out_files, lay_out, pool, record
from smears.loading import DataError, load_folder


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A drawn archive of 40 photos, two copies each, whose table of photos and folds the module reads."""
    root = tmp_path / "blood-cells"
    photos = write_archive(root, train=8, test=2, copies=2)
    table = write_table(tmp_path / "images.csv", photos, groups={5: 0})
    monkeypatch.setattr(cross_validate, "TABLE", table)
    monkeypatch.setattr("smears.photos.name_photos.__defaults__", (table,))
    return root


def test_by_photo_the_published_folds_are_taken_and_by_file_copies_part(archive):
    copies, folds = copies_with_folds(archive, "photo")
    assert len(copies) == len(folds) == 80  # the photos of TEST_SIMPLE are no copies
    sides = defaultdict(set)
    for photo, fold in zip(copies["photo"], folds, strict=True):
        sides[photo].add(int(fold))
        assert fold == int(photo[-5:]) % 5  # as write_table writes it
    copies, folds = copies_with_folds(archive, "file")
    sides = defaultdict(set)
    for photo, fold in zip(copies["photo"], folds, strict=True):
        sides[photo].add(int(fold))
    assert sum(len(found) == 2 for found in sides.values()) > 20
    counts = Counter(zip(copies["label"], folds.tolist(), strict=True))
    assert set(counts.values()) == {4}


def test_a_file_that_the_table_does_not_know_is_named(archive):
    lines = cross_validate.TABLE.read_text().splitlines(keepends=True)
    cross_validate.TABLE.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(DataError, match=r"TRAIN/.*\(and 0 more\) is in no fold of images.csv.*archive's own files"):
        copies_with_folds(archive, "photo")


def test_files_held_out_are_dealt_by_label(archive):
    copies, _ = copies_with_folds(archive, "file")
    fit, held = hold_out_files(copies, 0.25)
    assert Counter(held["label"]) == {label: 5 for label in range(4)}
    assert set(fit["file"]).isdisjoint(held["file"]) and len(fit) + len(held) == 80
    assert held["file"] == hold_out_files(copies, 0.25)[1]["file"]


def test_the_links_lead_to_the_archives_files_and_can_be_laid_again(archive, tmp_path):
    copies, folds = copies_with_folds(archive, "photo")
    parts = {"train": copies.select(np.flatnonzero(folds > 1)), "validation": copies.select(np.flatnonzero(folds == 1))}
    for _ in range(2):
        images = lay_out(archive, parts, tmp_path / "fold")
    loaded = load_folder(images)
    for part, data in parts.items():
        assert sorted(loaded[part]["sha256"]) == sorted(data["sha256"])
        label_of = dict(zip(data["sha256"], data["label"], strict=True))
        assert all(label_of[row["sha256"]] == row["label"] for row in loaded[part])
    assert (tmp_path / "fold" / "dataset-master" / "dataset-master" / "JPEGImages").is_dir()


def write_predictions(folder, rows):
    folder.mkdir(parents=True)
    with (folder / cross_validate.PREDICTIONS).open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "sha256", "photo", "group", "label", "p_x", "p_y"], *rows])
    return folder


def test_pooled_figures_are_those_of_all_rows_together(tmp_path):
    one = write_predictions(
        tmp_path / "a", [["f1", "h1", "p1", "g1", "x", 0.9, 0.1], ["f2", "h2", "p1", "g1", "x", 0.4, 0.6]]
    )
    two = write_predictions(
        tmp_path / "b", [["f3", "h3", "p2", "g1", "y", 0.8, 0.2], ["f4", "h4", "p3", "g2", "y", 0.3, 0.7]]
    )
    entry = pool([one, two], "photo", "drawn")
    assert (entry["split"], entry["n_images"], entry["n_photos"]) == ("2 of 5 folds by photo", 4, 3)
    assert entry["metrics"]["accuracy"]["value"] == 0.5
    assert entry["confusion_matrix"] == [[1, 1], [1, 1]]
    assert entry["photo_level"]["n_correct"] == 2  # p1 by its mean, 0.65, and p3


def test_a_fold_is_trained_named_and_not_trained_again(tmp_path):
    """Through the command line, on a drawn archive; the real table knows none of its files, so by file."""
    write_archive(tmp_path / "drawn", train=8, test=2, copies=2)
    command = [sys.executable, str(REPOSITORY / "cross_validate.py"), "--data_dir", "drawn", "--split_by", "file"]
    command += ["--folds", "2", "--output_dir", "out", *QUICK]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "out" / "by-file-2"
    rows = list(csv.DictReader((folder / "predictions.csv").open(newline="")))
    assert len(rows) == 16
    learnt = load_folder(folder / "images")
    seen = {digest for data in learnt.values() for digest in data["sha256"]}
    assert seen.isdisjoint(row["sha256"] for row in rows) and len(seen) == 64
    found = json.loads((tmp_path / "out" / "by-file.json").read_text())
    assert found["result"]["n_images"] == 16 and found["folds_run"] == 1 and found["command"].endswith(" ".join(QUICK))

    before = (folder / "predictions.csv").stat().st_mtime_ns
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert again.returncode == 0 and (folder / "predictions.csv").stat().st_mtime_ns == before
    assert json.loads((tmp_path / "out" / "by-file.json").read_text()) == found


def test_folds_of_two_recipes_are_not_pooled(tmp_path):
    folders = []
    for number, rate in enumerate((0.1, 0.2)):
        row = [f"f{number}", f"h{number}", f"p{number}", f"g{number}", "x", 0.9, 0.1]
        folders.append(write_predictions(tmp_path / f"by-photo-{number}", [row]))
        training = {key: 1 for key in ("seed", "commit", "dirty", "samples_seen", "resolutions", "hardware")}
        training |= {"wall_seconds": 5.0, "n_photos": 3, "recipe": {"learning_rate": rate}}
        (folders[-1] / "model").mkdir()
        (folders[-1] / "model" / "eval_results.json").write_text(json.dumps({"training": training}))
    with pytest.raises(
        ValueError, match=r"by-photo-1 was trained with another recipe than by-photo-0.*Remove the folder"
    ):
        record(folders, "photo", "drawn", ["python"])


def test_links_of_an_earlier_layout_are_not_learnt_from(archive, tmp_path):
    copies, folds = copies_with_folds(archive, "photo")
    for fold in (0, 1):
        images = lay_out(archive, {"train": copies.select(np.flatnonzero(folds == fold))}, tmp_path / "fold")
    assert sum(path.is_symlink() for path in images.rglob("*")) == int((folds == 1).sum())


def test_a_folder_that_is_not_the_archive_is_refused(tmp_path):
    write_class_folders(tmp_path / "cells")
    with pytest.raises(DataError, match=r"has the splits \['train'\], without \['test'\]; expected the Kaggle archive"):
        copies_with_folds(tmp_path / "cells", "file")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--data_dir", "x", "--folds", "5"], "the folds are 0 to 4"),
        # before the hours, not after
        (["--data_dir", "x", "--results", "nowhere.json"], "error: nowhere.json is no file"),
        (["--data_dir", "nowhere"], "error: nowhere is no folder. Unpack the archive"),
    ],
)
def test_wrong_arguments_are_answered(tmp_path, monkeypatch, capsys, arguments, answer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cross_validate.py", "--split_by", "photo", *arguments])
    with pytest.raises(SystemExit) as ended:
        cross_validate.main()
    assert answer in capsys.readouterr().err + str(ended.value) and ended.value.code != 0
    assert not list(tmp_path.iterdir())
