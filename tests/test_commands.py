"""The README's shell commands, run as they are printed, in a copy of the repository with drawn images beside it.

Only what ``SHORTER`` and ``ELSEWHERE`` list is added or put elsewhere: fewer and smaller images to learn from, a free port.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
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
from test_readme import SHELL

SMALL = "--sides 64 --phase_epochs 1 --draws_per_epoch 12 --per_device_train_batch_size 4 --dataloader_num_workers 0"
SMALL += " --statistics_batches 1 --bf16 False --use_cpu --eval_strategy no"
# A learning program: the options that let it learn less. Without them the same words would run for hours.
SHORTER = {
    "train.py --data_dir my_cells": SMALL,
    "train.py --data_dir blood-cells pbc": f"{SMALL} --validation_share 0.34",
    "train.py --data_dir blood-cells": SMALL,
    "leave_one_out.py": f"{SMALL} --validation_share 0.34 --leave_out raabin",
    "stress.py": "--limit 8 --strangers 1 --resamples 20",
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
    write_cells(root / "their_images", ("any",), 12, 900)
    for number, places in ((1, [(110, 150)]), (2, [(330, 420)])):
        write_image(root / "my_fields" / f"{number}.jpg", draw_field(number, places)[0], quality=95)
    return root


def arrange(line):
    """Add to a command what makes it short."""
    for words, options in SHORTER.items():
        if words in line:
            return f"{line} {options}"
    return line


def start(clone, line):
    """Run a command as from a shell in the clone, with the environment's programs on the PATH; gives what it said."""
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", arrange(line)], cwd=clone, env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}"
    return done.stdout
