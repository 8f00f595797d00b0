"""Measure the recipe of train.py on every photo of the Kaggle archive, each by weights that never saw it.

    python cross_validate.py --data_dir blood-cells --split_by photo

trains five networks, each on four of the five folds that ``hub_dataset/images.csv`` names (overlapping photos stay together),
and names the images of the fifth. They begin from scratch, or with the weights that ``--init_from`` names. The same with the
files dealt out at random, as much of the literature does it, so that copies of one photo stand on both sides:

    python cross_validate.py --data_dir blood-cells --split_by file

Killed and started again, it goes on where it stopped. ``--folds 0 1`` runs some of the folds only. Options of train.py may
follow; with ``--results hub_model/eval_results.json`` the pooled figures are put there, under ``protocol``.
"""

import argparse
import csv
import json
import logging
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from sklearn.model_selection import StratifiedKFold

from evaluation.command import without_token
from evaluation.measure import answer
from evaluation.predictions import predictions_file
from evaluation.results import FILE_NAME, read_results, write_results, write_text
from evaluation.slices import Slice
from evaluation.summary import summarise
from smears.kaggle_tables import FOLDS
from smears.loading import DataError, load_folder
from smears.photos import TABLE, find_photo_folder, name_photos
from smears.provenance import read_images
from smears.splits import VALIDATION_SHARE, hold_out

ROOT = Path(__file__).parent
SEED = 0  # of the files dealt out at random
PREDICTIONS = "predictions.csv"
ONE_RECIPE = ("seed", "commit", "dirty", "recipe", "samples_seen", "resolutions")  # what the folds must share
logger = logging.getLogger("cross_validate")


def copies_with_folds(data_dir: Path, split_by: str) -> tuple[datasets.Dataset, np.ndarray]:
    """Load the copies of TRAIN and TEST together, with a fold for each, 0 to 4.

    Raises:
        DataError: a copy that the table of photos does not know, so that its photo could stand on both sides.
    """
    splits = name_photos(load_folder(data_dir))
    if missing := {"train", "test"} - splits.keys():
        raise DataError(
            f"{data_dir} has the splits {sorted(splits)}, without {sorted(missing)}; expected the Kaggle archive."
        )
    copies = datasets.concatenate_datasets([splits[name] for name in ("train", "test")])
    if split_by == "file":
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
        folds = np.empty(len(copies), int)
        for fold, (_, held) in enumerate(splitter.split(np.zeros(len(copies)), copies["label"])):
            folds[held] = fold
        return copies, folds
    fold_of = {row.sha256: row.fold for row in read_images(TABLE) if row.fold is not None}
    strays = [file for file, digest in zip(copies["file"], copies["sha256"], strict=True) if digest not in fold_of]
    if strays:
        raise DataError(
            f"{strays[0]} (and {len(strays) - 1} more) is in no fold of {TABLE.name}: not a file of the archive, or saved "
            "anew. Take the archive's own files."
        )
    return copies, np.array([fold_of[digest] for digest in copies["sha256"]])


def hold_out_files(copies: datasets.Dataset, share: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split at random over the files, whatever they show; the counterpart of ``smears.splits.hold_out``."""
    parts = copies.train_test_split(test_size=share, seed=SEED, stratify_by_column="label")
    return parts["train"], parts["test"]


def lay_out(data_dir: Path, parts: dict[str, datasets.Dataset], folder: Path) -> Path:
    """Lay out what train.py reads, as links to the archive's files, with the archive's photos beside; return the folder."""
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)  # links of an earlier layout would be learnt from
    names = next(iter(parts.values())).features["label"].names
    for part, data in parts.items():
        for file, label in zip(data["file"], data["label"], strict=True):
            link = images / part / names[label] / file.replace("/", "_")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((data_dir / file).resolve())
    photos = folder / "dataset-master"
    photos.unlink(missing_ok=True)
    photos.symlink_to(find_photo_folder(data_dir).parent)
    return images


def run_fold(
    data_dir: Path, copies: datasets.Dataset, held: np.ndarray, split_by: str, folder: Path, options: Sequence[str]
) -> None:
    """Train without the images that ``held`` (N,) marks, name those, and write ``predictions.csv`` into the folder."""
    if not (folder / "model" / FILE_NAME).is_file():
        fit = copies.select(np.flatnonzero(~held))
        divide = hold_out if split_by == "photo" else hold_out_files
        fit, validation = divide(fit, VALIDATION_SHARE)
        images = lay_out(data_dir, {"train": fit, "validation": validation}, folder)
        command = [sys.executable, str(ROOT / "train.py"), "--data_dir", str(images), "--output_dir", str(folder)]
        subprocess.run([*command, "--train_on", "images", "--eval_strategy", "no", *options], check=True)
    unseen = copies.select(np.flatnonzero(held))
    answered = answer(folder / "model", unseen)
    with predictions_file(folder / PREDICTIONS) as append:
        append(unseen, answered, [Slice(folder.name, np.arange(len(unseen)))])


def pool(folders: Sequence[Path], split_by: str, data_name: str) -> dict:
    """Pool the predictions of folds into one measurement, as ``evaluation.summary.summarise`` gives it."""
    rows = []
    for folder in folders:
        with (folder / PREDICTIONS).open(newline="", encoding="utf-8") as stream:
            rows += csv.DictReader(stream)
    labels = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
    probabilities = np.array([[float(row[f"p_{label}"]) for label in labels] for row in rows])
    references = np.array([labels.index(row["label"]) for row in rows])
    photos, groups = ([row[name] for row in rows] for name in ("photo", "group"))
    split = f"{len(folders)} of {FOLDS} folds by {split_by}"
    return summarise(probabilities, references, photos, labels, data_name, split, groups=groups)


def record(folders: Sequence[Path], split_by: str, data_name: str, command: Sequence[str]) -> dict:
    """Give what ``eval_results.json`` keeps of a cross-validation: its pooled figures and how each network was trained.

    Raises:
        ValueError: the folds were trained in different ways, so that their figures are no figure of one recipe.
    """
    trainings = [json.loads((folder / "model" / FILE_NAME).read_text("utf-8"))["training"] for folder in folders]
    first = trainings[0]
    for folder, training in zip(folders, trainings, strict=True):
        if differing := [key for key in ONE_RECIPE if training[key] != first[key]]:
            raise ValueError(
                f"{folder} was trained with another {', '.join(differing)} than {folders[0].name}: "
                f"{[training[key] for key in differing]} against {[first[key] for key in differing]}. Remove the folder "
                "that is out of date and run the command again, or name another --output_dir."
            )
    return {
        "split_by": split_by,
        "folds_run": len(folders),
        "folds": FOLDS,
        "command": shlex.join(command),
        **{key: first[key] for key in (*ONE_RECIPE, "hardware")},
        "wall_seconds": round(sum(training["wall_seconds"] for training in trainings), 1),
        "n_photos_fitted": [training["n_photos"] for training in trainings],
        "result": pool(folders, split_by, data_name),
    }


def main() -> None:
    """Run the folds, pool them, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="the unpacked Kaggle archive")
    parser.add_argument("--split_by", choices=("photo", "file"), required=True, help="what stays on one side")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)), help="which of the five, 0 to 4")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/folds"), help="a folder for each fold comes here")
    parser.add_argument("--results", type=Path, help="eval_results.json to put the pooled figures into")
    options, for_training = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if not set(options.folds) <= set(range(FOLDS)):
        parser.error(f"--folds {options.folds}: the folds are 0 to {FOLDS - 1}")
    started = time.perf_counter()
    folders = [options.output_dir / f"by-{options.split_by}-{fold}" for fold in sorted(set(options.folds))]
    try:
        results = read_results(options.results) if options.results else None
        todo = [folder for folder in folders if not (folder / PREDICTIONS).is_file()]
        if todo:
            copies, folds = copies_with_folds(options.data_dir, options.split_by)
        for folder in todo:
            logger.info("%s: training (%d of %d folds done)", folder.name, len(folders) - len(todo), len(folders))
            held = folds == int(folder.name.rsplit("-", 1)[1])
            run_fold(options.data_dir, copies, held, options.split_by, folder, for_training)
        command = ["python", Path(sys.argv[0]).name, *without_token(sys.argv[1:])]
        found = record(folders, options.split_by, options.data_dir.resolve().name, command)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: train.py ended with status {error.returncode}; what it said stands above")
    write_text(options.output_dir / f"by-{options.split_by}.json", json.dumps(found, indent=2) + "\n")
    metrics, photos = found["result"]["metrics"], found["result"]["photo_level"]
    logger.info(
        "%s: accuracy %.4f, balanced %.4f; photos: %d of %d, balanced %.4f; %.0f s",
        found["result"]["split"], metrics["accuracy"]["value"], metrics["balanced_accuracy"]["value"],
        photos["n_correct"], photos["n_photos"], photos["balanced_accuracy"]["value"], time.perf_counter() - started,
    )  # fmt: skip
    if results is not None:
        kept = [entry for entry in results.get("protocol", []) if entry["split_by"] != options.split_by]
        write_results(options.results, results | {"protocol": [*kept, found]})


if __name__ == "__main__":
    main()
