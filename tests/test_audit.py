"""The audit finds what was planted in a folder of drawn smears, and what is known of the real archives.

A full run on an archive: `python -m smears.audit blood-cells --out found`.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from smear_drawings import write_image
from test_registration import copy_map, draw_field, make_copy

from smears.audit import SCHEMA, audit, choose_pairs, main, report, summary, table
from smears.findings import (
    CELLS_CONFLICT,
    CELLS_LEAK,
    CELLS_TWICE,
    CONFLICT,
    EXACT,
    LEAK,
    NEAR,
    TWO_SPLITS,
    Finding,
)
from smears.likeness import COPY, SAME_CELLS
from smears.loading import DataError, content_hash

KEYS = ["schema", "run", "counts", "sizes", "summary", "faults", "images"]
KEYS += ["same_bytes", "same_pixels", "photos", "cells", "links", "findings"]


def small(seed):
    return cv2.resize(draw_field(seed), (320, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A folder with every fault once, and ten photographs that nothing is wrong with."""
    root = tmp_path_factory.mktemp("planted") / "images"
    for number, place in enumerate(("train/neutrophil", "train/lymphocyte", "train/monocyte", "test/lymphocyte")):
        for seed in range(2):
            write_image(root / place / f"alone_{seed}.png", small(100 + 10 * number + seed))
    write_image(root / "test/monocyte/alone.png", small(150))
    write_image(root / "train/neutrophil/twice.png", small(1))
    shutil.copy(root / "train/neutrophil/twice.png", root / "train/neutrophil/twice_again.png")
    write_image(root / "train/lymphocyte/pixels.png", small(2))
    write_image(root / "train/lymphocyte/pixels.bmp", small(2))
    write_image(root / "train/monocyte/saved_anew.png", draw_field(3))
    write_image(root / "train/monocyte/saved_anew.jpg", small(3), quality=70)
    write_image(root / "train/neutrophil/upright.png", np.rot90(small(4)))
    write_image(root / "test_simple/neutrophil/upright.png", small(4))
    write_image(root / "train/lymphocyte/turned.png", draw_field(5))
    write_image(root / "test/lymphocyte/turned.png", make_copy(draw_field(5), copy_map(14, (9, -7), "left-right")))
    write_image(root / "test/lymphocyte/both.png", draw_field(6))
    shutil.copy(root / "test/lymphocyte/both.png", root / "train/monocyte/both.png")
    wide = draw_field(30, 600, 800)
    moved = cv2.GaussianBlur(wide[40:520, 24:664], (0, 0), 1.6).astype(float) * 0.9
    noise = np.random.default_rng(0).normal(0, 3, (480, 640, 1))
    write_image(root / "train/lymphocyte/cells.png", wide[:480, :640])
    write_image(root / "train/monocyte/cells.png", np.clip(moved + noise, 0, 255).astype(np.uint8))

    cut = (root / "train/monocyte/saved_anew.jpg").read_bytes()
    (root / "train/neutrophil/cut.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "train/neutrophil/empty.png").touch()
    (root / "train/neutrophil/text.png").write_text("no picture")
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 9).save(root / "train/neutrophil/deep.png")
    (root / "train/neutrophil/dangling.png").symlink_to(root / "nowhere.png")
    (root / "train/loop").symlink_to(root / "train")
    (root / "train/notes.txt").write_text("a note")
    (root / "train/.cache").mkdir()
    (root / "train/basophil").mkdir()
    write_image(root / "train/loose.png", small(160))
    write_image(root / "outside/reference.png", small(161))
    write_image(root / "test/monocyte/tiny.png", np.full((16, 16, 3), 90, np.uint8))
    write_image(root / "test/monocyte/blank.png", np.full((240, 320, 3), 200, np.uint8))
    return root


@pytest.fixture(scope="module")
def audited(planted):
    return audit(planted)


@pytest.fixture(scope="module")
def reported(audited):
    return json.loads(json.dumps(report(audited)))


def test_every_planted_pair_is_found_and_no_other(reported):
    found = {
        (tuple(one["reasons"]), one["evidence"], *sorted((one["first"], one["second"]))) for one in reported["findings"]
    }
    assert found == {
        ((EXACT,), "same bytes", "train/neutrophil/twice.png", "train/neutrophil/twice_again.png"),
        ((EXACT,), "same pixels", "train/lymphocyte/pixels.bmp", "train/lymphocyte/pixels.png"),
        ((NEAR,), COPY, "train/monocyte/saved_anew.jpg", "train/monocyte/saved_anew.png"),
        ((LEAK,), COPY, "test_simple/neutrophil/upright.png", "train/neutrophil/upright.png"),
        ((LEAK,), COPY, "test/lymphocyte/turned.png", "train/lymphocyte/turned.png"),
        ((CONFLICT, LEAK), "same bytes", "test/lymphocyte/both.png", "train/monocyte/both.png"),
        ((CELLS_CONFLICT,), SAME_CELLS, "train/lymphocyte/cells.png", "train/monocyte/cells.png"),
    }
    assert reported["findings"][0]["reasons"] == [CONFLICT, LEAK]
    assert {(link["first"].split("/")[-1], link["kind"], link["mirrored"]) for link in reported["links"]} == {
        ("saved_anew.jpg", COPY, False),
        ("upright.png", COPY, False),
        ("turned.png", COPY, True),
        ("cells.png", SAME_CELLS, False),
    }


def test_exact_duplicates_are_named_by_bytes_and_by_pixels(reported):
    assert sorted(map(sorted, reported["same_bytes"])) == [
        ["test/lymphocyte/both.png", "train/monocyte/both.png"],
        ["train/neutrophil/twice.png", "train/neutrophil/twice_again.png"],
    ]
    assert [sorted(files) for files in reported["same_pixels"]] == [
        ["train/lymphocyte/pixels.bmp", "train/lymphocyte/pixels.png"]
    ]


@pytest.mark.parametrize(
    ("kind", "path", "reason"),
    [
        ("unreadable", "train/neutrophil/cut.jpg", "cannot be read as an image .*Replace the file or remove it"),
        ("unreadable", "train/neutrophil/empty.png", r"empty \(0 bytes\)"),
        ("unreadable", "train/neutrophil/text.png", "cannot be read as an image"),
        ("unreadable", "train/neutrophil/deep.png", "16 bits or more"),
        ("unreadable", "train/neutrophil/dangling.png", "link to nothing"),
        ("left out", "train/loop", "a folder that is audited already"),
        ("left out", "train/.cache", "hidden folder"),
        ("no image", "train", r"1 file\(s\) .txt, not audited"),
        ("no image", "train/basophil", "split or class folder without a readable image"),
        ("empty folder", "train/basophil", "holds nothing"),
        ("no label", "train", r"1 image\(s\) outside class folders.* Move them into SPLIT/CLASS/"),
        ("no split", "outside", r"1 image\(s\) outside the split folders"),
        ("class missing", "test", "No image of the class 'neutrophil'"),
        ("class missing", "test_simple", "No image of the class 'lymphocyte'"),
        ("class missing", "test_simple", "No image of the class 'monocyte'"),
        ("not compared", "test/monocyte/tiny.png", "too few landmarks"),
        ("not compared", "test/monocyte/blank.png", "too few landmarks"),
    ],
)
def test_every_fault_is_a_row_with_its_reason(audited, kind, path, reason):
    matching = [fault for fault in audited.faults if (fault.kind, fault.path) == (kind, path)]
    assert any(re.search(reason, fault.reason) for fault in matching), audited.faults
    assert len(audited.faults) == 17


def test_counts_are_those_of_the_folder(reported, audited):
    rows = {(row["split"], row["label"]): row for row in reported["counts"]}
    assert [rows["train", "neutrophil"][key] for key in ("images", "photos", "cells")] == [5, 4, 4]
    assert rows["train", "neutrophil"]["images_per_photo"] == [1, 1, 2]
    assert [rows["train", "monocyte"][key] for key in ("images", "photos", "cells")] == [6, 5, 5]
    assert rows["train", None]["images"] == rows[None, None]["images"] == 1
    assert sum(row["images"] for row in reported["counts"]) == len(reported["images"])
    assert {(size["split"], size["width"], size["height"]): size["images"] for size in reported["sizes"]}[
        "train", 240, 320
    ] == 1
    photo = {image["file"]: (image["photo"], image["cells"]) for image in reported["images"]}
    assert photo["test/lymphocyte/turned.png"][0] == photo["train/lymphocyte/turned.png"][0]
    one, other = photo["train/lymphocyte/cells.png"], photo["train/monocyte/cells.png"]
    assert one[0] != other[0]
    assert one[1] == other[1]
    assert {row["reason"]: row["pairs"] for row in summary(audited)}[EXACT] == 2


def test_the_same_folder_gives_the_same_report_whatever_the_threads(planted, reported):
    again = json.loads(json.dumps(report(audit(planted, workers=1))))
    assert list(again) == KEYS
    assert again.pop("run")["images"] == len(again["images"])
    assert again == {key: value for key, value in reported.items() if key != "run"}
    assert again["schema"] == SCHEMA


def test_the_command_prints_a_table_and_writes_report_and_contact_sheet(planted, tmp_path):
    command = [
        sys.executable,
        "-m",
        "smears.audit",
        str(planted),
        "--out",
        str(tmp_path / "out"),
        "--strict",
        "--pairs",
        "3",
    ]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/contact_sheet_7.jpg").touch()  # of an earlier run
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stderr
    for line in ("split ", "train        neutrophil", CONFLICT, "unreadable: 5", "images/s"):
        assert line in ran.stdout
    # the pairs that matter are named, not only counted
    pair = {"test/lymphocyte/both.png", "train/monocyte/both.png"}
    assert any(pair == set(line.split(": ")[-1].split(" ~ ")) for line in ran.stdout.splitlines())
    written = json.loads((tmp_path / "out/audit.json").read_text(encoding="utf-8"))
    assert len(written["findings"]) == 7
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.json", "contact_sheet.jpg"]
    with Image.open(tmp_path / "out/contact_sheet.jpg") as sheet:
        pixels = np.asarray(sheet)
    # three pairs in two rows, three panels each, none of them left white
    for left in (8, 232, 456):
        assert pixels[60:200, left + 20 : left + 180].std() > 5
    assert (pixels[-200:, pixels.shape[1] // 2 :] > 250).all()


def test_a_clean_folder_is_no_fault_even_if_strict(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, place in enumerate(("neutrophil", "neutrophil", "monocyte", "monocyte")):
        write_image(tmp_path / "clean" / place / f"{seed}.png", small(200 + seed))
    assert main(["clean", "--strict"]) == 0
    printed = capsys.readouterr().out
    assert "No copies, no shared cells, no conflicts." in printed
    assert "No unreadable, foreign or misplaced file." in printed
    assert [path.name for path in (tmp_path / "audit/clean").iterdir()] == ["audit.json"]


def test_what_cannot_be_audited_is_refused(tmp_path, capsys):
    packed = tmp_path / "blood-cells.zip"
    packed.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "packed").mkdir()
    shutil.copy(packed, tmp_path / "packed")
    write_image(tmp_path / "one/neutrophil/0.png", small(1))
    for arguments, message in [
        ([tmp_path / "missing"], "missing is no folder. Name the folder that holds the images"),
        ([packed], "blood-cells.zip is no folder. Unpack it"),
        ([tmp_path / "empty"], "empty holds no readable image"),
        ([tmp_path / "packed"], r"holds no readable image .*1 file\(s\) .zip, not audited. Unpack"),
        ([tmp_path / "one", "--out", tmp_path / "one/found"], "would be audited the next time"),
        ([tmp_path / "one", "--workers", "0"], "expected at least 1 worker"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        assert stopped.value.code == 2
        assert re.search(message, capsys.readouterr().err)
    with pytest.raises(DataError, match="is no folder"):
        audit(tmp_path / "missing")
    assert not (tmp_path / "one/found").exists()


def test_pairs_to_look_at_are_shared_among_the_reasons():
    findings = [Finding((LEAK,), COPY, k, k + 1, 2) for k in range(2)]
    findings += [Finding((NEAR,), COPY, k, k + 1, 2) for k in range(10, 40)]
    chosen = choose_pairs(findings, 6)
    assert Counter(one.reasons[0] for one in chosen) == {LEAK: 2, NEAR: 4}
    assert [one.first for one in chosen] == [0, 1, 10, 19, 29, 39]
    assert choose_pairs(findings, 0) == choose_pairs([], 6) == []


@pytest.fixture(scope="module")
def truth():
    """The photo and the group of each file of the Kaggle archive, by content."""
    with (REPOSITORY / "hub_dataset/images.csv").open(newline="", encoding="utf-8") as stream:
        return {row["sha256"]: row for row in csv.DictReader(stream)}


def test_a_sample_of_the_kaggle_archive_is_grouped_as_its_table_says(data_root, truth, tmp_path):
    archive = data_root / "blood-cells"
    if not archive.is_dir():
        pytest.skip(f"the Kaggle archive is absent: expected it at {archive}")
    # one cell under two labels, a photo of TEST and two of TRAIN of the same cells, and two others
    wanted = {"206", "278", "204", "276", "277", "1", "5"}
    taken = Counter()
    for path in sorted(archive.glob("dataset2-master/dataset2-master/images/*/*/*")):
        row = truth.get(content_hash(path.read_bytes()))
        if row and row["photo"] in wanted and taken[row["photo"], path.parent] < 4:
            taken[row["photo"], path.parent] += 1
            link = tmp_path / "sample" / path.relative_to(archive / "dataset2-master/dataset2-master/images")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, link)
    found = report(audit(tmp_path / "sample"))
    for of, column in (("photo", "photo"), ("cells", "group")):
        groups = defaultdict(set)
        for image in found["images"]:
            groups[image[of]].add(truth[image["sha256"]][column])
        assert all(len(numbers) == 1 for numbers in groups.values())
        assert len(groups) == len({truth[image["sha256"]][column] for image in found["images"]})
    photo = {image["file"]: truth[image["sha256"]]["photo"] for image in found["images"]}
    pairs = defaultdict(set)
    for one in found["findings"]:
        for reason in one["reasons"]:
            pairs[reason].add(frozenset((photo[one["first"]], photo[one["second"]])))
    assert frozenset(("206", "278")) in pairs[CELLS_CONFLICT]
    assert pairs[CELLS_LEAK] == {frozenset(("204", "276")), frozenset(("204", "277"))}
    assert pairs[TWO_SPLITS] == {frozenset(("204",)), frozenset(("1",))}
    assert not pairs[CONFLICT] | pairs[LEAK]


def test_exact_duplicates_of_pbc_are_found_among_others(data_root, tmp_path):
    folder = data_root / "pbc"
    if not folder.is_dir():
        pytest.skip(f"PBC is absent: expected it at {folder}")
    known = [{"eosinophil/EO_65638.webp", "eosinophil/EO_873756.webp"}, {"ig/PMY_187173.webp", "ig/PMY_225787.webp"}]
    others = [path for label in sorted(folder.iterdir()) for path in sorted(label.iterdir())[:3]]
    for file in sorted(set().union(*known) | {path.relative_to(folder).as_posix() for path in others}):
        (tmp_path / "sample" / file).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(folder / file, tmp_path / "sample" / file)
    found = audit(tmp_path / "sample")
    assert sorted(sorted(files) for files in report(found)["same_bytes"]) == sorted(map(sorted, known))
    assert len(set(found.groups.cells)) == len(found.survey.images) - len(known)
    assert re.search(rf"{EXACT} +- +2\n", table(found))
    assert CELLS_TWICE not in table(found)
