"""The README's shell commands, run as they are printed, in a copy of the repository with drawn images beside it.

What is added lets a program learn from, or measure on, less: ``LESS`` lists it. The commands of make that set up, open the
page and run these tests are looked at elsewhere: by whoever runs them, and in ``test_space_browser``.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest
from conftest import REPOSITORY
from hub_fixtures import LoopbackHub
from peers_fixtures import node_modules
from PIL import Image
from smear_drawings import (
    ARCHIVE_IMAGES,
    LABELS,
    draw_field,
    draw_smear,
    write_archive,
    write_fields,
    write_image,
    write_photo_column,
)
from test_readme import BLOCKS, SHELL

SMALL = "--sides 64 --phase_epochs 1 --draws_per_epoch 12 --per_device_train_batch_size 4 --dataloader_num_workers 0"
SMALL += " --statistics_batches 1 --bf16 False --use_cpu --eval_strategy no"
# What a command has in it, and the options that are added; the first that fits counts.
LESS = {
    "train.py --data_dir my_cells": SMALL,
    "train.py --data_dir blood-cells pbc": f"{SMALL} --validation_share 0.34",
    "train.py --data_dir blood-cells": SMALL,
    "train.py --packed": SMALL,
    "leave_one_out.py": f"{SMALL} --validation_share 0.34 --leave_out raabin",
    "stress.py": "--limit 8 --strangers 1 --resamples 20 --parts symmetry framing anomaly strangers",
    "validate.py": "--resamples 50",
}
PBC = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet")
FIVE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")


def write_cells(folder, labels, each, first_seed, size=(96, 96)):
    """Write drawn cells into folders of any name."""
    for place, label in enumerate(labels):
        for number in range(each):
            image, _ = draw_smear(LABELS[place % len(LABELS)], first_seed + 20 * place + number, size)
            write_image(folder / label / f"{number}.png", image)


def write_archive_of_cells(root):
    """Write shards/0.tar and cells.parquet, two drawn cells in each."""
    pictures = []
    for number in range(4):
        stream = io.BytesIO()
        Image.fromarray(draw_smear("monocyte", 950 + number, (96, 96))[0]).save(stream, "png")
        pictures.append(stream.getvalue())
    (root / "shards").mkdir()
    with tarfile.open(root / "shards" / "0.tar", "w") as tar:
        for number, picture in enumerate(pictures[:2]):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(picture)
            tar.addfile(member, io.BytesIO(picture))
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures[2:]}), root / "cells.parquet")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository, and what its README supposes beside it."""
    root = tmp_path_factory.mktemp("clone") / "wbc"
    left = shutil.ignore_patterns(".git", "__pycache__", "runs", ".*_cache")
    shutil.copytree(REPOSITORY, root, ignore=left)
    photos = write_archive(root / "blood-cells", train=6, test=2, copies=2)
    for split in ("TRAIN", "TEST"):
        folder = root / "blood-cells" / ARCHIVE_IMAGES / split
        copies = [(path, photo.name) for photo in photos for where, path in photo.copies if where == split]
        write_photo_column(folder, {path.relative_to(folder).as_posix(): name for path, name in copies})
    write_cells(root / "pbc", PBC, 4, 300)
    write_cells(root / "raabin", FIVE, 4, 500)
    write_fields(root / "chula", LABELS, each=3)
    write_cells(root / "my_cells", LABELS, 4, 700)
    for number in range(12):  # of another stain, so that there is something to adapt to
        image, _ = draw_smear("lymphocyte", 900 + number, (96, 96))
        write_image(root / "their_images" / f"{number}.png", image[..., ::-1] // 4)
    write_archive_of_cells(root)
    for number, places in ((1, [(110, 150)]), (2, [(330, 420)])):
        write_image(root / "my_fields" / f"{number}.jpg", draw_field(number, places)[0], quality=95)
    return root


@pytest.fixture(scope="module")
def run(clone, model_folder):
    """Run a command as from a shell in the clone, the environment's programs on its PATH; give what it said."""
    with LoopbackHub() as hub:
        config = (model_folder / "config.json").read_text()
        for number, label in enumerate(LABELS):
            config = config.replace(label, f"LABEL_{number}")
        names = ("model.safetensors", "preprocessor_config.json")
        files = {name: (model_folder / name).read_bytes() for name in names} | {"config.json": config.encode()}
        hub.add_repository("model", "SOMEBODY/CLASSIFIER", files)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(clone.parent / "hf"), "HF_HUB_DISABLE_XET": "1"}
        variables["HF_TOKEN"] = hub.add_user("NAME")  # as whom README's reader publishes
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

        def run(line):
            less = next((options for words, options in LESS.items() if words in line), "")
            done = subprocess.run(
                ["bash", "-c", f"{line} {less}"], cwd=clone, env=variables, text=True, timeout=600,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}"
            return done.stdout

        yield run


PROGRAMS = [line for line in SHELL if line.startswith("python ")]
# One measures what another trained.
PROGRAMS.sort(key=lambda line: "train.py" not in line)


@pytest.mark.parametrize("line", PROGRAMS)
def test_a_command_does_what_it_says(line, run, clone):
    run(line)
    words = line.split()
    for option in ("--out", "--output_dir", "--plots", "--predictions"):
        if option in words:
            written = clone / words[words.index(option) + 1]
            assert written.is_file() or any(written.iterdir()), written


def test_what_is_made_shorter_is_named_in_the_readme():
    for words in LESS:
        assert any(words in line for line in PROGRAMS), words


def test_the_archive_holds_each_cell_once(run, clone):
    (line,) = [line for line in PROGRAMS if "score.py" in line]
    run(line)
    assert len(pandas.read_parquet(clone / "scores")) == 4 * len(LABELS) + 2 + 2


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "js"])
def test_the_javascript_runs_in_the_clone(text, clone):
    if not (clone / "node_modules").exists():
        (clone / "node_modules").symlink_to(node_modules())
    (clone / "readme.mjs").write_text(text)
    done = subprocess.run(["node", "readme.mjs"], cwd=clone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"label: 'neutrophil',\s+score: 0\.9", done.stdout), done.stdout
