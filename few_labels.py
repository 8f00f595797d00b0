"""Measure what a user gets who fits a checkpoint to a laboratory with a few labelled cells of each class.

    python few_labels.py runs/leave-one-out/raabin/model --data_dir raabin --home blood-cells pbc chula --cells 25 \
        --label_map ig=other erythroblast=other platelet=other --validation_share 0.1 --split_seed 3 --out runs/few-raabin

The checkpoint must not have seen the laboratory of ``--data_dir``: ``leave_one_out.py`` makes such ones. From its images
``--cells`` of a class are chosen, from as many photos or slides as can be, and from about half of them; they are written
into a folder as a user has them, and the command of the README is run on it::

    python train.py --init_from CHECKPOINT --data_dir OUT/cells --output_dir OUT/fitted

Then the laboratory's other photos are named before and after, and so is what the checkpoint's training held out of each
laboratory of ``--home``; the options of the split must be those of that training. Of the Kaggle archive the copies of TRAIN
are used, never its test images. ``few_labels.json`` in ``--out`` holds the figures.
"""

import argparse
import csv
import json
import logging
import shlex
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from evaluation.command import require_least, run
from evaluation.labels import read_label_map
from evaluation.measure import load_config, measure, open_image
from evaluation.results import FILE_NAME, environment, git_commit, read_results, write_text
from smears.laboratories import held_out_cells, unseen_cells
from smears.loading import DataError
from smears.splits import VALIDATION_SHARE, hold_out

ROOT = Path(__file__).parent
RESULTS = "few_labels.json"
SPLITS_TRIED = 20
logger = logging.getLogger("few_labels")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("model", type=Path, help="a checkpoint of train.py that has not seen the laboratory")
    add("--data_dir", type=Path, required=True, help="folder of the laboratory's images")
    add("--home", type=Path, nargs="+", default=[], help="folders of the laboratories that the checkpoint learnt from")
    add("--label_map", nargs="+", default=[], help="FOLDER=CLASS: folders that are one class")
    add("--cells", type=int, default=25, help="labelled images of a class")
    add("--validation_share", type=float, default=VALIDATION_SHARE, help="held out of each of --home, see train.py")
    add("--split_seed", type=int, default=0, help="which photos are held out of each of --home")
    add("--seed", type=int, default=0, help="which cells are labelled")
    add("--out", type=Path, required=True, help="the cells, the fitted model and the figures come here")
    options = parser.parse_args(argv)
    require_least(parser, options, cells=2, split_seed=0, seed=0)
    return options


def choose_cells(data: datasets.Dataset, each: int, seed: int) -> tuple[list[int], list[int]]:
    """Choose images to label and images to measure, no ``group`` on both sides.

    About half of the groups give images to label, by the first of ``SPLITS_TRIED`` splits whose half has enough; of each class
    they take turns, so that its images come from as many groups as can be.

    Args:
        data: with the columns ``label`` and ``group``.
        each: images of a class.
        seed: which.

    Returns:
        The rows to label and the rows to measure, rising.

    Raises:
        DataError: a class whose half has fewer images than ``each`` in all of them, or as ``smears.splits.hold_out``.
    """
    numbered = data.select_columns(["label", "group"]).add_column("row", list(range(len(data))))
    names, present = data.features["label"].names, set(data["label"])
    for attempt in range(SPLITS_TRIED):  # a slide may hold most of a class
        try:
            others, half = hold_out(numbered, 0.5, seed * SPLITS_TRIED + attempt)
        except DataError as error:  # this seed holds out all of a class
            fault = error
            continue
        counts = Counter(half["label"])
        scarce = min(present, key=lambda label: counts[label])
        if counts[scarce] >= each:
            break
        fault = DataError(
            f"Half of the photos or slides of {names[scarce]!r} show {counts[scarce]} image(s); {each} were asked for. Ask for "
            "fewer with --cells."
        )
    else:
        raise fault
    rng, rows_of = np.random.default_rng(seed), defaultdict(lambda: defaultdict(list))
    for label, group, row in zip(half["label"], half["group"], half["row"], strict=True):
        rows_of[label][group].append(row)
    labelled = []
    for _, of_group in sorted(rows_of.items()):
        turns = [rng.permutation(of_group[group]).tolist() for group in rng.permutation(sorted(of_group))]
        dealt = [rows[turn] for turn in range(max(map(len, turns))) for rows in turns if turn < len(rows)]
        labelled += dealt[:each]
    return sorted(labelled), others["row"][:]


def write_cells(data: datasets.Dataset, folder: Path) -> None:
    """Write labelled cells as a user has them: a folder for each class, and metadata.csv that names the photos."""
    names = data.features["label"].names
    lines = [("file_name", "photo")]
    for number, row in enumerate(data):
        path = folder / names[row["label"]] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        open_image(row["image"], row["file"]).save(path)
        lines.append((path.relative_to(folder).as_posix(), row["photo"]))
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)


def without(data: datasets.Dataset, negatives: str | None) -> datasets.Dataset:
    """Leave out the images of the class ``negatives``: most laboratories of single white cells have none."""
    names = data.features["label"].names
    if negatives not in names:
        return data
    return data.select(np.flatnonzero(np.array(data["label"][:]) != names.index(negatives)))


def few_labels(options: argparse.Namespace) -> dict[str, Any]:
    """Fit, measure before and after, and write the figures.

    Raises:
        ValueError, OSError: naming what came, what was expected, and the remedy.
    """
    config, label_map = load_config(options.model), read_label_map(options.label_map)
    labels = [config.id2label[number] for number in range(config.num_labels)]
    negatives = getattr(config, "negatives_label", None)
    earlier = read_results(options.model / FILE_NAME)
    lab = options.data_dir.resolve().name
    if lab in {entry["dataset"] for entry in earlier["results"]}:
        raise ValueError(f"{options.model} was measured on {lab} by its training; expected one that has not seen it.")
    split = (options.validation_share, options.split_seed)
    homes = {home.resolve().name: held_out_cells(home, labels, label_map, *split) for home in options.home}
    cells = without(unseen_cells(options.data_dir, labels, label_map), negatives)
    labelled, others = choose_cells(cells, options.cells, options.seed)
    folder, fitted = options.out / "cells", options.out / "fitted"
    if folder.exists():
        raise ValueError(f"{folder} is there already; expected a new --out. Name another, or remove it.")
    write_cells(cells.select(labelled), folder)
    command = ["train.py", "--init_from", str(options.model), "--data_dir", str(folder), "--output_dir", str(fitted)]
    if status := subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]]).returncode:
        asked = shlex.join(["python", *command])
        raise ValueError(f"The fitting ended with status {status}, see above: {asked}. Remove {folder} to try again.")

    def both(data: datasets.Dataset, name: str, title: str) -> Mapping[str, Any]:
        named = {"before": options.model, "after": fitted / "model"}
        return {when: measure(model, data, name, f"{title}, {when}") for when, model in named.items()}

    seen = cells.select(labelled)
    report = {
        "laboratory": lab,
        "cells_of_a_class": options.cells,
        "n_labelled": len(labelled),
        "n_groups_labelled": len(set(seen["group"])),
        "seed": options.seed,
        "command": shlex.join(["python", "few_labels.py", *sys.argv[1:]]),
        **git_commit(ROOT),
        "versions": environment(),
        "checkpoint": {"sha256": earlier["model"]["sha256"], "command": earlier["training"]["command"]},
        "fitted": read_results(fitted / "model" / FILE_NAME)["training"],
        "others": both(cells.select(others), lab, "other photos"),
        "home": {name: both(without(data, negatives), name, "held out") for name, data in homes.items()},
    }
    write_text(options.out / RESULTS, json.dumps(report, indent=2) + "\n")
    for name, pair in {lab: report["others"], **report["home"]}.items():
        before, after = (pair[when]["metrics"]["balanced_accuracy"]["value"] for when in ("before", "after"))
        logger.info("%s: balanced accuracy %.1f %% before, %.1f %% after", name, 100 * before, 100 * after)
    return report


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, as ``evaluation.command.run`` does."""
    run(few_labels, parse(argv))


if __name__ == "__main__":
    main()
