"""Measure what a user gets who fits a checkpoint to a laboratory with a few labelled cells of each class.

    python few_labels.py runs/leave-one-out/raabin/model --data_dir raabin --home blood-cells pbc chula --cells 25 \
        --label_map ig=other erythroblast=other platelet=other --validation_share 0.1 --split_seed 3 --out runs/few-raabin

The checkpoint must not have seen the laboratory of ``--data_dir``: ``leave_one_out.py`` makes such ones. From its images
``--cells`` of a class are chosen, from as many photos or slides as can be, and from about ``--labelled_share`` of them; they
are written into a folder as a user has them, and the command of the README is run on it::

    python train.py --init_from CHECKPOINT --data_dir OUT/cells --output_dir OUT/fitted

Then the laboratory's other photos are named before and after, and so is what the checkpoint's training held out of each
laboratory of ``--home``; the options of the split must be those of that training. Of the Kaggle archive the photos of TRAIN
are used, never its test images. ``few_labels.json`` in ``--out`` holds the figures.

With ``--head`` the statistics and the last layer are fitted and nothing else, by the method that the button of the page
calls, ``fit_to_laboratory``, to ``--most`` labelled cells at most, for ``--choices`` choices of them::

    python few_labels.py runs/leave-one-out/raabin/model --data_dir raabin --home blood-cells pbc chula --head --cells 100 \
        --label_map ig=other erythroblast=other platelet=other --validation_share 0.1 --split_seed 3 --out runs/head-raabin

What the fit chooses, it chooses on the labelled cells. ``heads.json`` in ``--out`` holds the figures of each choice. By
default no slide stands on both sides, which asks what the fit is worth on the next slide; ``--apart photo`` lets the labelled
and the measured cells share slides, never a photo, which asks what it is worth on the other cells of those that were labelled.
With ``--find`` the cell of each whole photo is cut out by the cell finder, as the page's count does before a person names it.
"""

import argparse
import copy
import csv
import io
import json
import logging
import shlex
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from evaluation.command import read_shares, require_least, run
from evaluation.divisions import learnt_before
from evaluation.entry import DECIMALS
from evaluation.intervals import group_bootstrap
from evaluation.labels import read_label_map
from evaluation.measure import load_config, load_model, measure, open_image
from evaluation.metrics import balanced_accuracy, confusion_matrix, of_all_classes
from evaluation.probe import choose_rows
from evaluation.results import FILE_NAME, provenance, read_results, write_text
from evaluation.summary import LEAST, as_figure
from hub_model.cell_finding import find_cells
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification
from hub_model.pipeline_wbc_resnet import crop_cell
from smears.laboratories import held_out_cells, unseen_cells
from smears.loading import DataError
from smears.splits import VALIDATION_SHARE, hold_out

ROOT = Path(__file__).parent
RESULTS = "few_labels.json"
HEADS = "heads.json"
SPLITS_TRIED = 20
LABELLED_SHARE = 0.5  # of the photos or slides: as many are left to measure on
APART = ("group", "photo")  # a group is a slide where slides are known, else a photo with those that show the same cell
FEWEST = 2  # labelled images of a class: with one alone nothing can be tried on a cell that was not shown
BATCH = 32
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
    add("--test_share", nargs="+", default=[], help="LAB=SHARE: as training held out of --home to measure on, besides")
    add("--seed", type=int, default=0, help="which cells are labelled")
    add("--head", action="store_true", help="fit statistics and last layer alone, as the page does")
    add("--most", type=int, default=100, help="with --head: labelled images in all; a scarce class gives what it has")
    add("--choices", type=int, default=3, help="with --head: how often cells are chosen, by --seed and those after it")
    add(
        "--labelled_share",
        type=float,
        default=LABELLED_SHARE,
        help="of the photos or slides, to choose labelled cells from",
    )
    add("--apart", choices=APART, default="group", help="with --head: what is kept on one side, slides or photos alone")
    add("--find", action="store_true", help="with --head: cut the cell out of each whole photo of --data_dir first")
    add("--limit", type=int, default=600, help="with --head: images at most of each laboratory that are looked at")
    add("--out", type=Path, required=True, help="the cells, the fitted model and the figures come here")
    options = parser.parse_args(argv)
    require_least(parser, options, cells=FEWEST, split_seed=0, seed=0, most=2 * FEWEST, choices=1, limit=10)
    if not 0 < options.labelled_share < 1:
        parser.error(
            f"--labelled_share {options.labelled_share}: expected a share between 0 and 1; the rest is measured."
        )
    return options


def choose_cells(
    data: datasets.Dataset,
    each: int,
    seed: int,
    most: int | None = None,
    apart: str = "group",
    share: float = LABELLED_SHARE,
) -> tuple[list[int], list[int]]:
    """Choose images to label and images to measure, no ``group`` on both sides.

    About ``share`` of the groups give images to label, by the first of ``SPLITS_TRIED`` splits that leaves it enough; of each
    class they take turns, so that its images come from as many groups as can be.

    Args:
        data: with the columns ``label`` and ``apart``.
        each: images of a class.
        seed: which.
        most: images in all. A scarce class then gives what its share has, at least ``FEWEST``, and the others share the rest.
        apart: the column whose values take the place of groups.
        share: of the groups, between 0 and 1; the smaller side has one over a whole number of them, such as 1/4.

    Returns:
        The rows to label and the rows to measure, rising.

    Raises:
        DataError: a class whose share has fewer images than it must give in all of them, or as ``smears.splits.hold_out``.
    """
    columns = {"label": data["label"][:], "group": data[apart][:], "row": list(range(len(data)))}
    kinds = {"label": data.features["label"], "group": data.features[apart], "row": datasets.Value("int64")}
    numbered = datasets.Dataset.from_dict(columns, datasets.Features(kinds))
    names, present = data.features["label"].names, set(data["label"])
    least = each if most is None else min(each, FEWEST)
    for attempt in range(SPLITS_TRIED):  # a slide may hold most of a class
        try:
            one, held = hold_out(numbered, min(share, 1 - share), seed * SPLITS_TRIED + attempt)
        except DataError as error:  # this seed holds out all of a class
            fault = error
            continue
        pool, others = (held, one) if share <= 0.5 else (one, held)
        counts = Counter(pool["label"])
        scarce = min(present, key=lambda label: counts[label])
        if counts[scarce] >= least:
            break
        fault = DataError(
            f"About {share:.0%} of the photos or slides of {names[scarce]!r} show {counts[scarce]} image(s); {least} were "
            "asked for. Ask for fewer with --cells, or for more photos with --labelled_share."
        )
    else:
        raise fault
    rng, rows_of = np.random.default_rng(seed), defaultdict(lambda: defaultdict(list))
    for label, group, row in zip(pool["label"], pool["group"], pool["row"], strict=True):
        rows_of[label][group].append(row)
    dealt = []
    for _, of_group in sorted(rows_of.items()):
        turns = [rng.permutation(of_group[group]).tolist() for group in rng.permutation(sorted(of_group))]
        dealt.append([rows[turn] for turn in range(max(map(len, turns))) for rows in turns if turn < len(rows)][:each])
    labelled = [rows[turn] for turn in range(each) for rows in dealt if turn < len(rows)][:most]
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


def find_each(data: datasets.Dataset) -> tuple[datasets.Dataset, int]:
    """Cut out of each whole photo its largest white cell, as the cell finder sees it and the pipeline's count cuts it.

    Returns:
        The rows with other images, and in how many nothing was found: they keep the whole photo.
    """

    def cut(row: Mapping[str, Any]) -> dict[str, Any]:
        photo = open_image(row["image"], row["file"])
        found = [cell["box"] for cell in find_cells(photo)] if row["whole"] else []
        if not found:
            return {"image": row["image"], "found": False}
        stream = io.BytesIO()
        crop_cell(photo, max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))).save(stream, "PNG")
        return {"image": {"bytes": stream.getvalue(), "path": None}, "found": True}

    features = datasets.Features({**data.features, "found": datasets.Value("bool")})
    data = data.map(cut, features=features, load_from_cache_file=False, desc="finding cells")
    missed = sum(whole and not found for whole, found in zip(data["whole"], data["found"], strict=True))
    return data.remove_columns("found"), missed


def without(data: datasets.Dataset, negatives: str | None) -> datasets.Dataset:
    """Leave out the images of the class ``negatives``: most laboratories of single white cells have none."""
    names = data.features["label"].names
    if negatives not in names:
        return data
    return data.select(np.flatnonzero(np.array(data["label"][:]) != names.index(negatives)))


class Asked:
    """What both ways of fitting measure, read from the options.

    Attributes:
        labels: the classes, as the checkpoint numbers them.
        negatives: the one that also says "no white cell here", or None; it is not counted.
        earlier: the checkpoint's own results.
        lab: the laboratory's name.
        cells: its images.
        homes: what was held out of each laboratory of ``--home``, by its name.
        measured_by: the command, code and versions that were there when it began.

    Raises:
        ValueError, OSError: naming what came, what was expected, and the remedy.
    """

    def __init__(self, options: argparse.Namespace):
        self.measured_by = provenance()
        config, label_map = load_config(options.model), read_label_map(options.label_map)
        self.labels = [config.id2label[number] for number in range(config.num_labels)]
        self.negatives = getattr(config, "negatives_label", None)
        self.earlier = read_results(options.model / FILE_NAME)
        self.lab = options.data_dir.resolve().name
        if self.lab in {entry["dataset"] for entry in self.earlier["results"]}:
            raise ValueError(
                f"{options.model} was measured on {self.lab} by its training; expected one that has not seen it."
            )
        split = (options.validation_share, options.split_seed)
        shares = read_shares(options.test_share)
        homes = {home.resolve().name: home for home in options.home}
        if strange := sorted(shares.keys() - homes.keys()):
            raise ValueError(f"--test_share {strange[0]}: expected one of --home, {', '.join(homes)}.")
        self.homes = {
            lab: without(held_out_cells(home, self.labels, label_map, *split, shares.get(lab, 0.0)), self.negatives)
            for lab, home in homes.items()
        }
        self.cells = without(unseen_cells(options.data_dir, self.labels, label_map), self.negatives)
        for lab in homes:
            if learnt_before((*split, shares.get(lab, 0.0)), self.earlier["training"], lab):
                logger.warning(
                    "%s, at home: the weights had learnt a part of what is held out by this division; the figures flatter. "
                    "Give --validation_share, --split_seed and --test_share as they were trained with.", lab,
                )  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Say what was measured, with what."""
        return {
            "laboratory": self.lab,
            **self.measured_by,
            "checkpoint": {"sha256": self.earlier["model"]["sha256"], "command": self.earlier["training"]["command"]},
        }


def few_labels(options: argparse.Namespace) -> dict[str, Any]:
    """Fit by train.py, measure before and after, and write the figures.

    Raises:
        ValueError, OSError: naming what came, what was expected, and the remedy.
    """
    asked = Asked(options)
    labelled, others = choose_cells(asked.cells, options.cells, options.seed, share=options.labelled_share)
    folder, fitted = options.out / "cells", options.out / "fitted"
    if folder.exists():
        raise ValueError(f"{folder} is there already; expected a new --out. Name another, or remove it.")
    write_cells(asked.cells.select(labelled), folder)
    command = ["train.py", "--init_from", str(options.model), "--data_dir", str(folder), "--output_dir", str(fitted)]
    if status := subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]]).returncode:
        line = shlex.join(["python", *command])
        raise ValueError(f"The fitting ended with status {status}, see above: {line}. Remove {folder} to try again.")

    def both(data: datasets.Dataset, name: str, title: str) -> Mapping[str, Any]:
        named = {"before": options.model, "after": fitted / "model"}
        return {when: measure(model, data, name, f"{title}, {when}") for when, model in named.items()}

    seen = asked.cells.select(labelled)
    report = asked.record() | {
        "cells_of_a_class": options.cells,
        "n_labelled": len(labelled),
        "n_groups_labelled": len(set(seen["group"])),
        "seed": options.seed,
        "fitted": read_results(fitted / "model" / FILE_NAME)["training"],
        "others": both(asked.cells.select(others), asked.lab, "other photos"),
        "home": {name: both(data, name, "held out") for name, data in asked.homes.items()},
    }
    write_text(options.out / RESULTS, json.dumps(report, indent=2) + "\n")
    for name, pair in {asked.lab: report["others"], **report["home"]}.items():
        before, after = (pair[when]["metrics"]["balanced_accuracy"]["value"] for when in ("before", "after"))
        logger.info("%s: balanced accuracy %.1f %% before, %.1f %% after", name, 100 * before, 100 * after)
    return report


class Shown:
    """Images of a laboratory as a network sees them, and how rightly it names them.

    Args:
        data: with the columns ``image``, ``label`` and ``group``.
        processor: of the checkpoint.
    """

    def __init__(self, data: datasets.Dataset, processor: Any):
        self.labels, self.groups = np.array(data["label"][:]), np.array(data["group"][:])
        self.photos = np.array(data["photo"][:])
        images = (open_image(row["image"], row["file"]) for row in data)
        self.pixels = torch.cat([processor(images=[image], return_tensors="pt")["pixel_values"] for image in images])

    def name(self, model: WbcResNetForImageClassification) -> np.ndarray:
        """Give the class that each is taken for, (N,)."""
        with torch.inference_mode():
            return model.name_images(self.pixels.split(BATCH)).argmax(dim=-1).numpy()

    def rightness(self, answers: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict[str, float | None]:
        """Give the balanced accuracy of answers (N,) over ``rows``, with its interval over groups, as ``summarise`` does."""
        classes = int(max(self.labels.max(), answers.max())) + 1
        labels, answers, groups = self.labels[rows], answers[rows], self.groups[rows]
        whole = confusion_matrix(answers, labels, classes)

        def balanced(weights: np.ndarray) -> np.ndarray:
            drawn = confusion_matrix(answers, labels, classes, weights)
            return of_all_classes(balanced_accuracy(drawn), drawn, whole)

        low, high = group_bootstrap(balanced, len(labels), groups, least=LEAST)
        return as_figure(float(balanced_accuracy(whole)), low, high)


def fit_heads(options: argparse.Namespace) -> dict[str, Any]:
    """Fit as the page does, for each choice of cells, measure before and after, and write the figures.

    Raises:
        ValueError, OSError: naming what came, what was expected, and the remedy.
    """
    asked = Asked(options)
    _, processor = load_model(options.model)
    model = WbcResNetForImageClassification.from_pretrained(options.model, dtype=torch.float32).eval()
    cells = asked.cells.select(choose_rows(asked.cells["label"][:], options.limit, seed=0))
    cells, missed = find_each(cells) if options.find else (cells, None)
    seeds = range(options.seed, options.seed + options.choices)
    asked_for = (options.most, options.apart, options.labelled_share)
    chosen = [choose_cells(cells, options.cells, seed, *asked_for) for seed in seeds]
    own = Shown(cells, processor)
    homes = {}
    for name, data in asked.homes.items():
        homes[name] = Shown(data.select(choose_rows(data["label"][:], options.limit, seed=0)), processor)
    before = {name: one.name(model) for name, one in {asked.lab: own, **homes}.items()}
    choices = []
    for turn, (labelled, others) in enumerate(chosen):
        fitted, started = copy.deepcopy(model), time.monotonic()
        shown = own.labels[labelled].tolist()
        found = fitted.fit_to_laboratory(own.pixels[labelled].split(BATCH), shown, own.photos[labelled].tolist())
        seconds = round(time.monotonic() - started, 1)
        after = own.name(fitted)
        rows = np.array(others)
        named = {"before": own.rightness(before[asked.lab], rows), "after": own.rightness(after, rows)}
        estimate = found["validation"] and round(found["validation"]["balanced_accuracy"]["after"], DECIMALS)
        choices.append(
            {
                "seed": options.seed + turn,
                "labelled": {asked.labels[label]: shown.count(label) for label in sorted(set(shown))},
                "n_labelled": len(labelled),
                "n_groups_labelled": len(set(own.groups[labelled])),
                "share": found["share"],
                "losses": found["losses"],
                "layer": found["layer"],
                "cross_validated": estimate,
                "seconds": seconds,
                "others": {"n": len(rows), "n_groups": len(set(own.groups[rows])), **named},
                "home": {
                    name: {
                        "n": len(one.labels),
                        "n_groups": len(set(one.groups)),
                        "before": one.rightness(before[name]),
                        "after": one.rightness(one.name(fitted)),
                    }
                    for name, one in homes.items()
                },
            }
        )
        logger.info(
            "%s, choice %d, %d cells, %g of the statistics new: balanced accuracy %.1f %% before, %.1f %% after; at home %s",
            asked.lab, options.seed + turn, len(labelled), found["share"], 100 * named["before"]["value"],
            100 * named["after"]["value"], _at_home(choices[-1]["home"]),
        )  # fmt: skip
    report = asked.record() | {"limit": options.limit, "most": options.most, "apart": options.apart}
    report |= {
        "labelled_share": options.labelled_share,
        "not_found": missed,  # None: nothing was looked for
        "choices": choices,
    }
    write_text(options.out / HEADS, json.dumps(report, indent=2) + "\n")
    return report


def _at_home(home: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {100 * one['before']['value']:.1f} → {100 * one['after']['value']:.1f}" for name, one in home.items()
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, as ``evaluation.command.run`` does."""
    options = parse(argv)
    run(fit_heads if options.head else few_labels, options)


if __name__ == "__main__":
    main()
