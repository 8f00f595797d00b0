"""Measure any image classifier on labelled smear images: every figure with a 95 % interval over photos.

The shipped weights, on the official test images of the unpacked Kaggle archive ``paultimothymooney/blood-cells``; the file that
the card is made of is written by ``make measure``:

    python validate.py hub_model --data_dir blood-cells --splits test test_simple

A model of another project, from the Hub, whose labels have other names, with pictures and every probability:

    python validate.py OWNER/MODEL --data_dir my_cells --label_map LABEL_0=eosinophil LABEL_1=lymphocyte \
        --ignore_labels basophil --plots pictures --predictions probabilities.csv

Images listed in a table, with the columns file and label, and perhaps photo, group and split:

    python validate.py hub_model --table cells.csv --data_dir images

The laboratories that a model has learnt from, as train.py reads and divides several (their boxes and slides, cells cut out of
fields, folders that are one class); with the options of its training, what it held out and nothing else:

    python validate.py hub_model --data_dir blood-cells pbc --laboratories --folder_map ig=other erythroblast=other \
        platelet=other --test_share pbc=0.2 --validation_share 0.1 --split_seed 3
"""

import argparse
import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
from tqdm import tqdm

from evaluation.command import read_shares, require_device, require_least, run
from evaluation.labels import label_numbers, match_labels, read_label_map
from evaluation.measure import Answered, answer, load_config, load_model, summarise_slice
from evaluation.plots import confusion_picture, reliability_picture, risk_coverage_picture, save
from evaluation.predictions import predictions_file
from evaluation.results import (
    SCHEMA_VERSION,
    environment,
    put_entries,
    read_for_update,
    weights_sha256,
    write_results,
)
from evaluation.screen import as_table
from evaluation.slices import MEASURED, slices
from smears.laboratories import cut_cells, divide, load_laboratory, rename_classes
from smears.loading import (
    SPLIT_FOLDERS,
    DataError,
    check_image,
    content_hash,
    load_folder,
    load_hub,
    refuse_shared_content,
)
from smears.photos import name_photos
from smears.splits import VALIDATION_SHARE, hold_out

SPLITS = tuple(dict.fromkeys(SPLIT_FOLDERS.values()))
WHOLE = "all"  # what images are called that are not split
TABLE_COLUMNS = ("file", "label", "photo", "group", "split")
logger = logging.getLogger("validate")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", help="a folder written by save_pretrained, or the id of a model on the Hub")
    add("--revision", help="commit, tag or branch of a model on the Hub")
    add(
        "--data_dir",
        nargs="+",
        default=[],
        help="folder of images: the unpacked archive, SPLIT/CLASS/, or CLASS/; with --table: of its files",
    )
    add("--dataset_name", help="instead: a dataset of the Hub")
    add("--dataset_revision", help="commit or tag of --dataset_name")
    add(
        "--table", type=Path, help="instead: a CSV file with the columns file and label, perhaps photo, group and split"
    )
    add(
        "--splits",
        nargs="+",
        choices=SPLITS,
        help="which parts; left out: those of validation, test, test_simple there are",
    )
    add(
        "--validation_share",
        type=float,
        default=VALIDATION_SHARE,
        help="share of train held out where there is no validation split",
    )
    add("--split_seed", type=int, default=0, help="which photos are held out")
    add("--laboratories", action="store_true", help="read and divide each --data_dir as train.py does with several")
    add(
        "--folder_map",
        nargs="+",
        default=[],
        help="with --laboratories: FOLDER=MODEL_LABEL, folders that are one class",
    )
    add("--test_share", nargs="+", default=[], help="with --laboratories: LAB=SHARE, as it was held out in training")
    add("--label_map", nargs="+", default=[], help="MODEL_LABEL=DATA_LABEL ..., or a JSON file, where names differ")
    add("--ignore_labels", nargs="+", default=[], help="labels whose images are left out")
    add("--name", help="what the results call the data; left out: the name of its folder, dataset or table")
    add("--results", type=Path, help="write the figures into this eval_results.json, beside those that stay true")
    add("--predictions", type=Path, help="write every image's probabilities into this CSV file")
    add("--plots", type=Path, help="draw confusion matrix, reliability and risk-coverage curve into this folder")
    add("--batch_size", type=int, default=64, help="images at a time")
    add("--device", help="cpu, cuda, ...; left out: a GPU if there is one")
    add("--resamples", type=int, default=2000, help="of the bootstrap over photos")
    add("--seed", type=int, default=0, help="of the bootstrap")
    options = parser.parse_args(argv)
    if options.table is None and (not options.data_dir) == (options.dataset_name is None):
        parser.error("name the images: one of --data_dir FOLDER, --dataset_name ID and --table FILE.csv")
    if options.table is not None and options.dataset_name is not None:
        parser.error("--table and --dataset_name both name the images; leave one out")
    if options.laboratories and (not options.data_dir or options.table is not None):
        parser.error("--laboratories reads folders: name them with --data_dir, without --table")
    if (options.folder_map or options.test_share) and not options.laboratories:
        parser.error("--folder_map and --test_share go with --laboratories")
    if len(options.data_dir) > 1 and not options.laboratories:
        parser.error(f"--data_dir {' '.join(options.data_dir)}: several folders go with --laboratories; else name one")
    if len(options.data_dir) > 1 and options.name:
        parser.error("--name goes with one --data_dir; several are called by their folders")
    require_least(parser, options, batch_size=1, resamples=1, seed=0)
    require_device(parser, options.device)
    if options.plots is not None and options.plots.exists() and not options.plots.is_dir():
        parser.error(f"--plots {options.plots} is a file; expected a folder for the pictures")
    if options.results is not None and options.results.is_dir():
        parser.error(
            f"--results {options.results} is a folder; expected a file, such as {options.results}/eval_results.json"
        )
    return options


def fetch_model(model: str, revision: str | None) -> tuple[Path, str]:
    """Find a model's folder, from the Hub if it is none here; return it with the model's name.

    Raises
    ------
    ValueError
        Neither a folder nor a model that the Hub serves; a revision of a folder.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision:
            raise ValueError(f"--revision {revision} was given with the folder {folder}; expected a model on the Hub.")
        return folder, folder.resolve().name
    try:
        found = huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=["*.json", "*.safetensors"])
        if not any(Path(found).glob("*.safetensors")):  # an older model; most newer ones carry both
            found = huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=["*.json", "*.bin"])
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{model} is no folder here, and the Hub gives no such model ({' '.join(str(error).split())}); expected a folder "
            "written by save_pretrained, or OWNER/NAME. Correct the name, or log in if the model is private."
        ) from error
    return Path(found), model


def load_table(table: Path, root: Path | None = None) -> datasets.DatasetDict:
    """Load the images that a CSV file lists into the columns of ``smears.loading.load_folder``.

    Parameters
    ----------
    table
        UTF-8, with the columns ``file`` and ``label`` and perhaps ``photo``, ``group`` and ``split``. Without ``photo`` each
        file is a photo of its own, without ``group`` each photo shows other cells, and without ``split`` nothing is split.
    root
        What the files are named from; None for the table's folder.

    Raises
    ------
    DataError
        (a ValueError) A table that cannot be read or lacks a column, a row without file, label or known split, a file that
        is missing or no image, the same image in two splits or under two labels.
    """
    try:
        text = table.read_text("utf-8-sig")  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read ({error}); expected a CSV file in UTF-8. Save it as one.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    if missing := {"file", "label"} - set(header):
        raise DataError(
            f"{table} has the columns {header}; {' and '.join(sorted(missing))} missing. Name the columns in its first line."
        )
    if others := [name for name in header if name not in TABLE_COLUMNS]:
        logger.info("%s: the columns %s are not read", table.name, others)
    rows = list(reader)
    if not rows:
        raise DataError(f"{table} lists no images; expected one row or more. Add them.")
    root, columns = root or table.parent, {}
    for number, row in enumerate(tqdm(rows, desc="reading images", unit="image"), start=2):
        where = f"{table}, row {number}"
        row = {name: (row.get(name) or "").strip() for name in TABLE_COLUMNS}
        if not row["file"] or not row["label"]:
            raise DataError(
                f"{where} has file {row['file']!r} and label {row['label']!r}; expected both. Complete or remove it."
            )
        split = SPLIT_FOLDERS.get(row["split"].lower()) if "split" in header else "train"
        if split is None:
            raise DataError(f"{where} has the split {row['split']!r}; expected one of {list(SPLITS)}. Correct it.")
        path = root / row["file"]
        if not path.is_file():
            raise DataError(
                f"{where} names {row['file']!r}, which is no file in {root}. Name that folder with --data_dir."
            )
        data = path.read_bytes()
        check_image(str(path), data)
        digest = content_hash(data)
        photo = row["photo"] or digest
        values = (str(path), row["label"].lower(), row["file"], digest, photo, row["group"] or photo)
        for name, value in zip(("image", "label", "file", "sha256", "photo", "group"), values, strict=True):
            columns.setdefault(split, {}).setdefault(name, []).append(value)
    labels = sorted({label for part in columns.values() for label in part["label"]})
    texts = {name: datasets.Value("string") for name in ("file", "sha256", "photo", "group")}
    kinds = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=labels), **texts}
    splits = {}
    for split, part in columns.items():
        numbers = [labels.index(label) for label in part["label"]]
        splits[split] = datasets.Dataset.from_dict({**part, "label": numbers}, features=datasets.Features(kinds))
    splits = refuse_shared_content(datasets.DatasetDict(splits))
    return splits if "photo" in header else name_photos(splits)


def load_divided(options: argparse.Namespace, classes: Sequence[str]) -> dict[str, datasets.DatasetDict]:
    """Load laboratories as train.py does: divided, under the model's class names, what is measured as cells."""
    folder_map, shares = read_label_map(options.folder_map), read_shares(options.test_share)
    loaded = {Path(folder).resolve().name: load_laboratory(folder) for folder in options.data_dir}
    if strange := sorted(shares.keys() - loaded.keys()):
        raise DataError(f"--test_share {strange[0]}: there is no such laboratory; expected one of {sorted(loaded)}.")
    names = {name for splits in loaded.values() for name in splits["train"].features["label"].names}
    if strange := sorted(folder_map.keys() - names):
        raise DataError(f"--folder_map {strange[0]}=...: there is no such folder; expected some of {sorted(names)}.")
    shown = options.splits or MEASURED
    found = {}
    for lab, splits in loaded.items():
        splits = divide(splits, options.validation_share, shares.get(lab, 0.0), options.split_seed)
        splits = {name: rename_classes(data, classes, folder_map) for name, data in splits.items()}
        cells = {name: cut_cells(data) if name in shown else data for name, data in splits.items()}
        found[options.name or lab] = datasets.DatasetDict(cells)
    return found


def load_images(options: argparse.Namespace, classes: Sequence[str]) -> dict[str, datasets.DatasetDict]:
    """Load all splits from where the options say, traced to their photos, by what the data are called."""
    if options.laboratories:
        return load_divided(options, classes)
    folder = options.data_dir[0] if options.data_dir else None
    if options.table is not None:
        root = None if folder is None else Path(folder)
        return {options.name or options.table.stem: load_table(options.table, root)}
    if options.dataset_name:
        splits = load_hub(options.dataset_name, options.dataset_revision)
        return {options.name or options.dataset_name: name_photos(splits)}
    return {options.name or Path(folder).resolve().name: name_photos(load_folder(folder))}


def choose_splits(
    splits: Mapping[str, datasets.Dataset], wanted: Sequence[str] | None, share: float, seed: int
) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """Say which splits are measured, holding validation out of train as training does where there is none.

    Parameters
    ----------
    splits
        What was loaded.
    wanted
        Names of splits; None takes those of validation, test and test_simple that there are, or all images where they are
        not split.
    share, seed
        As in ``smears.splits.hold_out``.

    Returns
    -------
    (dict, list)
        All splits, and the names of those to measure.

    Raises
    ------
    DataError
        (a ValueError) A split that is not there, or too few photos to hold one out.
    """
    splits = dict(splits)
    if wanted is None and set(splits) == {"train"}:
        logger.warning(
            "the images are not split, so all are measured, also those that the model may have learnt from; "
            "--splits validation measures the photos that train.py holds out of such a folder"
        )
        return {WHOLE: splits["train"]}, [WHOLE]
    available = {*splits, *({"validation"} if "train" in splits else ())}
    chosen = [split for split in MEASURED if split in available] if wanted is None else list(dict.fromkeys(wanted))
    if missing := [split for split in chosen if split not in available]:
        raise DataError(
            f"The images have the splits {sorted(splits)}, without {missing}. Ask for others with --splits."
        )
    if "validation" in chosen and "validation" not in splits:
        _, splits["validation"] = hold_out(splits["train"], share, seed)
        logger.info("validation: %d images held out of train by photo", len(splits["validation"]))
    return splits, chosen


def leave_out(data: datasets.Dataset, split: str, labels: Sequence[str]) -> tuple[datasets.Dataset, dict[str, int]]:
    """Leave out the images with these labels, and count them by reason.

    Raises
    ------
    DataError
        (a ValueError) A label that the data do not have, or no image left.
    """
    numbers, names = label_numbers(data)
    ignored = {label.casefold() for label in labels}
    if unknown := sorted(ignored - {name.casefold() for name in names}):
        raise DataError(f"--ignore_labels names {unknown}, which the data do not show; they show {names}. Correct it.")
    keep = np.array([names[number].casefold() not in ignored for number in numbers])
    if not keep.any():
        raise DataError(
            f"{split}: no image is left without the labels {sorted(ignored)}. Ignore fewer, or --splits others."
        )
    counts = Counter(names[number] for number, kept in zip(numbers, keep, strict=True) if not kept)
    for name, count in sorted(counts.items()):
        logger.info("%s: %d images with the label %s are left out", split, count, name)
    return data.select(np.flatnonzero(keep)), {f"label {name}": count for name, count in sorted(counts.items())}


def start_results(path: Path | None, folder: Path, name: str, parameters: int) -> dict[str, Any]:
    """Give the results that the new figures go into: those of the file, if there is one, or new ones."""
    digest = weights_sha256(folder)
    if path is not None and path.exists():
        return read_for_update(path, digest)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": name, "parameters": parameters, "sha256": digest},
        "training": None,  # somebody else's
        "versions": environment(),
        "results": [],
    }


def draw(answered: Answered, entry: Mapping[str, Any], folder: Path) -> None:
    """Draw the three pictures of a measurement."""
    stem = re.sub(r"[^a-z0-9_.]+", "-", f"{entry['dataset']}-{entry['split']}".lower()).strip("-")
    measured = (answered.probabilities, answered.references, answered.groups, entry)
    save(confusion_picture(entry), folder / f"{stem}-confusion.png")
    save(reliability_picture(*measured), folder / f"{stem}-reliability.png")
    save(risk_coverage_picture(*measured), folder / f"{stem}-risk-coverage.png")


def validate(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what the options say and write what they ask for; return the entries of ``eval_results.json``.

    Raises
    ------
    ValueError, OSError
        Naming what came, what was expected, and the remedy; all but an unreadable image come before the long part.
    """
    folder, name = fetch_model(options.model, options.revision)
    label_map, config = read_label_map(options.label_map), load_config(folder)
    parameters = load_model(folder)[0].num_parameters()
    logger.info(
        "%s: %s, %d parameters, answers %s", name, config.model_type, parameters, list(config.id2label.values())
    )
    results = start_results(options.results, folder, name, parameters)
    loaded = load_images(options, [config.id2label[number] for number in sorted(config.id2label)])
    chosen = {}
    for dataset, all_splits in loaded.items():
        splits, measured = choose_splits(all_splits, options.splits, options.validation_share, options.split_seed)
        left_out = {}
        for split in measured:
            splits[split], left_out[split] = leave_out(splits[split], split, options.ignore_labels)
            numbers, names = label_numbers(splits[split])
            match_labels(config.id2label, names, set(numbers), label_map)
        chosen[dataset] = splits, left_out

    entries = []
    with predictions_file(options.predictions) as append:
        for dataset, (splits, left_out) in chosen.items():
            for split in left_out:
                answered = answer(folder, splits[split], label_map, options.batch_size, options.device)
                parts = slices(splits, split, left_out[split])
                append(splits[split], answered, parts)
                for part in parts:
                    entry = summarise_slice(answered, part, dataset, resamples=options.resamples, seed=options.seed)
                    print(f"\n{as_table(entry)}\n", flush=True)
                    if options.plots:
                        draw(answered.part(part.rows), entry, options.plots)
                    entries.append(entry)
    if options.results:
        write_results(options.results, put_entries(results, entries))
        logger.info("wrote %s", options.results)
    return entries


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, as ``evaluation.command.run`` does."""
    run(validate, parse(argv))


if __name__ == "__main__":
    main()
