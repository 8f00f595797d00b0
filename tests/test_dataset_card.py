"""The data set's folder as it is pushed: its tables load as the card says, its recipe runs, its counts are the tables'."""

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import datasets
import pytest
import yaml
from conftest import REPOSITORY
from smear_drawings import write_archive, write_table

from evaluation.slices import NO_CELL
from smears.dataset_card import BEGIN, END, render
from smears.provenance import FLAGS, ImageRow, OverlapRow, PhotoRow

FOLDER = REPOSITORY / "hub_dataset"
TABLES = {"images": ImageRow, "photos": PhotoRow, "overlaps": OverlapRow}


def card_text():
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def head():
    return yaml.safe_load(card_text().split("---\n")[1])


def read_rows(name):
    with (FOLDER / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", TABLES)
def test_each_table_loads_whole_and_with_the_types_of_the_head(name, tmp_path):
    table = datasets.load_dataset(str(FOLDER), name, split="train", cache_dir=str(tmp_path))
    declared = next(info["features"] for info in head()["dataset_info"] if info["config_name"] == name)
    assert table.column_names == list(TABLES[name].__dataclass_fields__) == [entry["name"] for entry in declared]
    assert [table.features[entry["name"]].dtype for entry in declared] == [entry["dtype"] for entry in declared]
    rows = read_rows(name)
    assert len(table) == len(rows)
    for entry in declared:
        read = {"string": str, "int64": int, "float64": float}[entry["dtype"]]
        expected = [read(row[entry["name"]]) if row[entry["name"]] else None for row in rows]
        assert table[entry["name"]][:] == expected


def test_the_folder_holds_tables_under_2_mb_and_no_image():
    files = {path.name: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert set(files) == {"README.md", "images.csv", "photos.csv", "overlaps.csv"}
    assert max(files.values()) < 2_000_000


def test_the_counts_are_those_of_the_tables():
    assert render(FOLDER) == card_text()


def test_the_counts_agree_with_a_count_of_its_own():
    block = card_text().split(BEGIN)[1].split(END)[0]
    images = read_rows("images")
    photos = {row["photo"] for row in images}
    assert f"{len(images):,} files" in block and f"made from {len(photos)} photos" in block
    leaks = Counter(row["split"] for row in images if "leak" in row["flags"].split(";"))
    assert f"| `leak` | {leaks['TRAIN']} | {leaks['TEST']} | {leaks['TEST_SIMPLE']} |" in block
    test = [row for row in images if row["clean_split"] == "test"]
    assert f"{len(test):,} of {len({row['photo'] for row in test})} |" in block


def test_every_flag_and_column_is_explained():
    text = card_text()
    for row in read_rows("images") + read_rows("photos"):
        assert set(row["flags"].split(";")) - {""} <= FLAGS.keys()
    explained = text.split("## The tables")[1].split("## What is in them")[0]
    for column in list(ImageRow.__dataclass_fields__)[:-6]:
        assert f"`{column}`" in explained, column


def test_the_measuring_knows_the_flag_by_the_name_that_the_table_gives_it():
    assert NO_CELL in FLAGS


def test_a_changed_table_is_noticed_and_a_card_without_markers_refused(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "set")
    command = [sys.executable, "-m", "smears.dataset_card", str(folder)]
    assert subprocess.run([*command, "--check"], cwd=REPOSITORY).returncode == 0
    lines = (folder / "photos.csv").read_text().splitlines(keepends=True)
    (folder / "photos.csv").write_text("".join(lines[:-1]))
    failed = subprocess.run([*command, "--check"], cwd=REPOSITORY, capture_output=True, text=True)
    assert failed.returncode == 1 and "does not agree with the tables" in failed.stderr
    assert subprocess.run(command, cwd=REPOSITORY).returncode == 0
    assert subprocess.run([*command, "--check"], cwd=REPOSITORY).returncode == 0
    (folder / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="needs one <!-- counts:begin -->"):
        render(folder)


# The recipe


SHOW_ALL = """
import json
print(json.dumps({part: [[r["file"], r["label"], r["image"].size] for r in data] for part, data in cells.items()}))
"""


def run_recipe(archive, folder, cwd, more=""):
    """Run the card's code block on an archive, with the data set's folder for its id, in a fresh interpreter."""
    (block,) = re.findall(r"```python\n(.*?)```", card_text(), re.DOTALL)
    code = block.replace('"wbc-resnet/kaggle-photos"', repr(str(folder))).replace('"blood-cells"', repr(str(archive)))
    assert code != block
    environment = os.environ | {"HF_DATASETS_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-c", code + more]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.fixture
def drawn(tmp_path):
    """A drawn archive and a data set whose table knows it: photo 0 for validation, TEST for test, photo 1 in no part."""
    archive = tmp_path / "archive"
    photos = write_archive(archive, train=3, test=1, copies=2)
    folder = shutil.copytree(FOLDER, tmp_path / "set")
    table = write_table(folder / "images.csv", photos)
    rows = list(csv.DictReader(table.open(newline="")))
    for row in rows:
        part = {"TRAIN": "train", "TEST": "test", "TEST_SIMPLE": ""}[row["split"]]
        row["clean_split"] = {"0": "validation", "1": ""}.get(row["photo"], part)
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return archive, folder, rows


def test_the_recipe_joins_by_content_wherever_the_files_lie(drawn, tmp_path):
    archive, folder, rows = drawn
    for number, path in enumerate(sorted(archive.rglob("*.jpeg"))):  # all in one folder, names gone
        path.rename(archive / f"{number}.jpeg")
    done = run_recipe(archive, folder, tmp_path, SHOW_ALL)
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout.splitlines()[-1])
    names = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
    for part in ("train", "validation", "test"):
        expected = [[row["file"], names.index(row["label"]), [96, 72]] for row in rows if row["clean_split"] == part]
        assert expected and parts[part] == expected


def test_the_recipe_names_a_file_that_is_not_there(drawn, tmp_path):
    archive, folder, rows = drawn
    wanted = next(row for row in rows if row["clean_split"] == "train")
    for path in archive.rglob("*.jpeg"):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] == wanted["sha256"]:
            path.unlink()
    done = run_recipe(archive, folder, tmp_path)
    assert done.returncode == 1
    assert re.search(rf"1 of \d+ files are not there, {wanted['file']} for one; unpack the archive again", done.stderr)


def test_the_recipe_runs_on_the_real_archive(data_root, tmp_path):
    done = run_recipe(data_root / "blood-cells", FOLDER, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = Counter(row["clean_split"] for row in read_rows("images"))
    for part in ("train", "validation", "test"):
        assert re.search(rf"{part}: Dataset\({{\n.*\n\s+num_rows: {rows[part]}\n", done.stdout), done.stdout[:2000]
