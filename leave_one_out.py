"""Measure the recipe of train.py in laboratories it has never seen: each left out in turn, learnt from the others.

    python leave_one_out.py --data_dir blood-cells pbc raabin chula \
        --labels eosinophil lymphocyte monocyte neutrophil basophil other \
        --label_map ig=other erythroblast=other platelet=other --negatives other --exchange_share 0.6

trains a network for each laboratory on the other ones and names its cells, with no label of it used: once with the plain
weights and once with batch-norm statistics re-estimated from its unlabelled images, chosen as they come. Of the Kaggle
archive the photos of TRAIN are named, never its test images. Killed and started again, it goes on where it stopped.
``--leave_out pbc`` runs some of the laboratories only, ``--leave_out raabin+chula`` leaves two out at once. Options of
train.py may follow.

``leave_one_out.json`` holds for each laboratory left out, now or before, and for the validation images of those learnt from
(to find a rule that says without labels when re-estimating helps): the two measurements, as ``evaluation.summary`` gives
them, the balanced accuracy and the mean confidence for each share of new statistics, the distance of the images from the stored
statistics, and the share that the model's rule suggests, which sees no label.
"""

import argparse
import copy
import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from evaluation.command import read_shares, without_token
from evaluation.divisions import check_unseen, division, learnt_before
from evaluation.labels import read_label_map
from evaluation.measure import load_model, open_image
from evaluation.metrics import statistics
from evaluation.probe import choose_rows
from evaluation.results import FILE_NAME, read_results, write_text
from evaluation.summary import summarise
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification
from smears.laboratories import held_out_cells, unseen_cells
from smears.splits import VALIDATION_SHARE

ROOT = Path(__file__).parent
RESULTS = "leave_one_out.json"
UNLABELLED = 512  # images at most that the statistics are re-estimated from, chosen without their labels
LIMIT = 1200  # images at most of a laboratory that are named; the classes count alike
BATCH = 64
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the re-estimated statistics
WAYS = {0.0: "plain", 1.0: "re-estimated"}
logger = logging.getLogger("leave_one_out")


def choose_images(data: datasets.Dataset) -> datasets.Dataset:
    """Choose ``LIMIT`` images at most, the classes as alike in number as they can be."""
    return data.select(choose_rows(data["label"][:], LIMIT, seed=0))


def choose_unlabelled(data: datasets.Dataset) -> datasets.Dataset:
    """Choose ``UNLABELLED`` images at most, at random: whoever has no labels has the classes as they come."""
    return data.select(np.random.default_rng(0).permutation(len(data))[:UNLABELLED])


def as_pixels(data: datasets.Dataset, processor: Any) -> torch.Tensor:
    """Show images as the network sees them: (N, 3, H, W)."""
    images = (open_image(value) for value in data["image"])
    return torch.cat([processor(images=[image], return_tensors="pt")["pixel_values"] for image in images])


@torch.inference_mode()
def name_cells(model: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray:
    """Name images (N, 3, H, W): probabilities (N, classes)."""
    model.eval()
    return torch.cat([model(pixel_values=batch).logits.softmax(-1) for batch in pixels.split(BATCH)]).numpy()


def measure_laboratory(
    folder: Path, everything: datasets.Dataset, labels: Sequence[str], negatives: str | None
) -> dict:
    """Measure a network on a laboratory's images, plain and with statistics re-estimated from some of them, unlabelled.

    Images of the class ``negatives`` do not count: most laboratories of single white cells have none.

    Raises:
        ValueError: as ``load_model``; the network was trained on other ``labels``.
    """
    _, processor = load_model(folder)
    model = WbcResNetForImageClassification.from_pretrained(folder)
    learnt = [model.config.id2label[number] for number in range(model.config.num_labels)]
    if learnt != list(labels):
        raise ValueError(
            f"{folder} names {learnt}, and --labels says {list(labels)}. Remove the folder, or name another --output_dir."
        )
    data = choose_images(everything)
    pixels, chosen = as_pixels(data, processor), as_pixels(choose_unlabelled(everything), processor)
    batches = chosen.tensor_split(-(-len(chosen) // BATCH))  # of nearly one size, since each counts alike
    references = np.array(data["label"][:])
    counted = np.flatnonzero(references != (labels.index(negatives) if negatives else -1))
    photos, groups = ([data[name][row] for row in counted] for name in ("photo", "group"))
    stored = copy.deepcopy(model.state_dict())
    found = {"distance": round(model.statistics_distance(batches), 6), "shares": {}, "confidence": {}}
    found["suggested_share"] = model.suggest_share(batches)  # one of SHARES, or its figures would be missing
    for share in SHARES:
        model.load_state_dict(stored)
        if share:
            model.reestimate_statistics(batches, share)
        probabilities = name_cells(model, pixels)[counted]
        matrix = statistics(probabilities, references[counted])
        found["shares"][f"{share:.2f}"] = round(float(matrix["balanced_accuracy"]), 6)
        found["confidence"][f"{share:.2f}"] = round(float(probabilities.max(axis=1).mean()), 6)
        if way := WAYS.get(share):
            found[way] = summarise(
                probabilities, references[counted], photos, list(labels), data["lab"][0], way, groups=groups
            )
    return found


def train_without(folders: Sequence[str], run: Path, options: argparse.Namespace, for_training: Sequence[str]) -> None:
    """Train on these laboratories with train.py, into ``run``; what it measures is validation, never a test split."""
    names = {Path(folder).resolve().name for folder in folders}
    shares = [entry for entry in options.test_share if entry.partition("=")[0] in names]
    command = [sys.executable, str(ROOT / "train.py"), "--data_dir", *folders, "--labels", *options.labels]
    command += ["--label_map", *options.label_map] if options.label_map else []
    command += ["--negatives", options.negatives] if options.negatives else []
    command += ["--validation_share", str(options.validation_share), "--split_seed", str(options.split_seed)]
    command += ["--test_share", *shares] if shares else []
    command += ["--output_dir", str(run), "--measure_splits", "validation", *for_training]
    subprocess.run(command, check=True)


def check_start(for_training: Sequence[str], labs: Sequence[str]) -> None:
    """Look, before hours are spent, whether the weights to begin with are recorded to have learnt from what is left out.

    Raises:
        ValueError: they have, or their record cannot be read.
    """
    parser = argparse.ArgumentParser(add_help=False)  # abbreviated as train.py lets them be
    parser.add_argument("--init_from", "--init-from", dest="starts", nargs="+", default=[], action="extend")
    parser.add_argument("--average_with", "--average-with", dest="starts", nargs="+", default=[], action="extend")
    starts = parser.parse_known_args(for_training)[0].starts
    for source in map(Path, starts):
        record = read_results(source / FILE_NAME)["training"] if (source / FILE_NAME).is_file() else {}
        for lab in labs:
            check_unseen({"source": source.resolve().name, **record}, lab)


def add_to_report(path: Path, name: str, found: Mapping[str, Any]) -> None:
    """Put what was found with ``name`` left out into the report, beside what was found of runs that still stand."""
    report = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    report = {other: one for other, one in report.items() if (path.parent / other / "model").is_dir()}
    write_text(path, json.dumps(report | {name: found}, indent=2) + "\n")


def main() -> None:
    """Train and measure for each laboratory, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="a folder for each laboratory")
    parser.add_argument("--labels", nargs="+", required=True, help="the classes, in their order")
    parser.add_argument("--label_map", nargs="+", default=[], help="FOLDER=CLASS: folders that are one class")
    parser.add_argument("--negatives", help="the class that also says 'no white cell here'; not counted")
    parser.add_argument(
        "--validation_share", type=float, default=VALIDATION_SHARE, help="held out of each, see train.py"
    )
    parser.add_argument("--split_seed", type=int, default=0, help="which photos are held out")
    parser.add_argument("--test_share", nargs="+", default=[], help="LAB=SHARE: held out besides, see train.py")
    parser.add_argument(
        "--leave_out", nargs="+", help="names of the folders to leave out, in turn; A+B together; without: each"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/leave-one-out"), help="a folder for each comes here"
    )
    options, for_training = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    folders = {folder.resolve().name: folder for folder in options.data_dir}
    if len(folders) < max(2, len(options.data_dir)):
        parser.error(
            f"--data_dir {shlex.join(map(str, options.data_dir))}: expected two folders or more, of different names"
        )
    left_out = [tuple(names.split("+")) for names in options.leave_out or folders]
    if strange := sorted({lab for labs in left_out for lab in labs} - folders.keys()):
        parser.error(f"--leave_out {strange[0]}: expected some of {', '.join(folders)}")
    if everything := [labs for labs in left_out if set(labs) == folders.keys()]:
        parser.error(f"--leave_out {'+'.join(everything[0])}: nothing is left to learn from")
    command = shlex.join(["python", Path(sys.argv[0]).name, *without_token(sys.argv[1:])])
    try:
        label_map, shares = read_label_map(options.label_map), read_shares(options.test_share)
        if strange := sorted(shares.keys() - folders.keys()):
            raise ValueError(f"--test_share {strange[0]}: expected one of {', '.join(folders)}")
        check_start(for_training, sorted({lab for labs in left_out for lab in labs}))
        for labs in left_out:
            run = options.output_dir / "+".join(labs)
            split = (options.validation_share, options.split_seed)
            cells = {lab: unseen_cells(folders[lab], options.labels, label_map) for lab in labs}
            for lab in folders.keys() - set(labs):
                cells[lab] = held_out_cells(folders[lab], options.labels, label_map, *split, shares.get(lab, 0.0))
            if not (run / "model" / FILE_NAME).is_file():
                logger.info("%s is left out: training on the others", " and ".join(labs))
                train_without([str(folders[lab]) for lab in folders if lab not in labs], run, options, for_training)
            training = read_results(run / "model" / FILE_NAME)["training"]
            for lab in labs:
                if (unknown := check_unseen(training, lab)) is not None:
                    logger.warning(
                        "%s, unseen: of %s, which this network went on from, no record names the folders that it learnt from. "
                        "Whether %s was among them, only who trained it knows.", lab, unknown, lab,
                    )  # fmt: skip
            measured = {
                lab: measure_laboratory(run / "model", cells[lab], options.labels, options.negatives) for lab in folders
            }
            for lab in labs:
                logger.info("%s, unseen: balanced accuracy by share %s", lab, measured[lab]["shares"])
            for lab in folders.keys() - set(labs):
                if learnt_before(division(training["command"], lab), training.get("started_from"), lab):
                    logger.warning(
                        "%s, held out: the weights that this network went on from had learnt a part of these images, under "
                        "another division; its figures flatter. Those of %s are not touched.", lab, " and ".join(labs),
                    )  # fmt: skip
            found = {"unseen": list(labs), "command": command, "laboratories": measured, "training": training}
            add_to_report(options.output_dir / RESULTS, run.name, found)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: train.py ended with status {error.returncode}; what it said stands above")


if __name__ == "__main__":
    main()
