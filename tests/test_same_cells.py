"""Which images show the same cells: from an audit to the table, and what the table that ships says of the real images."""

import csv
import json
import shutil
import sys
from collections import defaultdict

import cv2
import numpy as np
import pytest
from smear_drawings import draw_smear, write_class_folders, write_image

from smears import audit, laboratories, same_cells
from smears.laboratories import SAME_CELLS, load_laboratory, read_same_cells
from smears.loading import content_hash


def image(file, cells, digest=None):
    return {"file": file, "sha256": digest or f"hash of {file}", "cells": cells}


def test_an_image_alone_has_no_line_and_files_of_one_content_have_one():
    images = [
        image("a/1.png", "a/1.png"),
        image("a/2.png", "a/2.png"),
        image("b/3.png", "a/2.png"),
        image("b/4.png", "b/4.png", "twice"),
        image("b/5.png", "b/4.png", "twice"),
    ]
    rows = same_cells.grouped({"run": {"folder": "some/where/tehran"}, "images": images})
    assert rows == [
        {"lab": "tehran", "sha256": "hash of a/2.png", "group": "a/2.png"},
        {"lab": "tehran", "sha256": "hash of b/3.png", "group": "a/2.png"},
        {"lab": "tehran", "sha256": "twice", "group": "b/4.png"},
    ]


def test_what_an_audit_finds_stays_together_when_the_laboratory_is_loaded(tmp_path, monkeypatch):
    root = write_class_folders(tmp_path / "here", 3, size=(160, 120))
    photo = root / "monocyte" / "00.png"
    shutil.copyfile(photo, root / "monocyte" / "10.png")  # the same bytes
    write_image(
        root / "monocyte" / "11.png", draw_smear("monocyte", 0, (160, 120))[0], compress_level=1
    )  # the same pixels
    audit.main([str(root), "--out", str(tmp_path / "found"), "--pairs", "0"])
    table = tmp_path / "table.csv"
    monkeypatch.setattr(sys, "argv", ["same_cells", str(tmp_path / "found" / "audit.json"), "--out", str(table)])
    same_cells.main()
    monkeypatch.setattr(read_same_cells, "__defaults__", (table,))
    data = load_laboratory(root)["train"]
    group_of = dict(zip(data["file"], data["group"], strict=True))
    together = {f"monocyte/{name}.png" for name in ("00", "10", "11")}
    assert {group_of[file] for file in together} == {"monocyte/00.png"}
    assert len(set(group_of.values())) == len(data) - 2 == 12


def test_audits_of_several_laboratories_make_one_table(tmp_path, monkeypatch):
    files = []
    for lab in ("pbc", "raabin"):
        images = [image(f"{lab}/1.png", f"{lab}/1.png"), image(f"{lab}/2.png", f"{lab}/1.png")]
        files.append(tmp_path / f"{lab}.json")
        files[-1].write_text(json.dumps({"run": {"folder": lab}, "images": images}))
    table = tmp_path / "table.csv"
    monkeypatch.setattr(sys, "argv", ["same_cells", *map(str, files), "--out", str(table)])
    same_cells.main()
    assert read_same_cells(table) == {
        f"hash of {lab}/{number}.png": f"{lab}/1.png" for lab in ("pbc", "raabin") for number in (1, 2)
    }
    assert table.read_text().splitlines()[0] == "lab,sha256,group"


# The table that ships


def test_no_content_is_named_twice_and_no_group_is_one_image_in_one_file():
    with SAME_CELLS.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len({row["sha256"] for row in rows}) == len(read_same_cells()) == 172
    assert {row["lab"] for row in rows} == {"pbc", "raabin"}
    assert laboratories.read_same_cells.__defaults__ == (SAME_CELLS,)


@pytest.fixture(scope="module")
def by_content(data_root):
    """The files of each content among the images of pbc and raabin."""
    found = defaultdict(list)
    for lab in ("pbc", "raabin"):
        if not (data_root / lab).is_dir():
            pytest.skip(f"the images of {lab} are absent: put them at {data_root / lab}")
        for path in sorted((data_root / lab).rglob("*.webp")):
            found[content_hash(path.read_bytes())].append((lab, path.relative_to(data_root / lab).as_posix(), path))
    return found


def test_equal_files_have_a_group_and_a_group_is_named_after_its_first_file(by_content):
    known = read_same_cells()
    twice = [digest for digest, files in by_content.items() if len(files) > 1]
    assert len(twice) == 10 and set(twice) <= known.keys()
    assert known.keys() <= by_content.keys()
    members = defaultdict(set)
    for digest, group in known.items():
        members[group] |= {file for _, file, _ in by_content[digest]}
    assert all(group == min(files) and len(files) > 1 for group, files in members.items())
    assert sum(map(len, members.values())) == 172 + 10


def likeness(one, two):
    """Correlation of a part of one grey image (256, 256) with the place in the other where it fits best, of nine parts."""
    parts = [one[row : row + 96, col : col + 96] for row in (0, 80, 160) for col in (0, 80, 160)]
    return max(cv2.matchTemplate(two, part, cv2.TM_CCOEFF_NORMED).max() for part in parts)


def test_the_images_of_a_group_show_the_same_picture_shifted(by_content):
    groups = defaultdict(list)
    for digest, group in read_same_cells().items():
        lab, _, path = by_content[digest][0]
        if lab == "pbc" and len(groups[group]) < 2:
            groups[group].append(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    pairs = [images for images in groups.values() if len(images) == 2]
    alike = [likeness(one, two) for one, two in pairs]
    strange = [likeness(pairs[place - 1][0], two) for place, (_, two) in enumerate(pairs)]
    assert len(pairs) > 50
    # The others were photographed anew: turned, or in another light.
    assert np.mean(np.array(alike) > max(0.95, *strange)) > 0.6
