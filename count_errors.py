"""Name cells of known class as the pipeline does, and count how it errs: what the differential count is corrected with.

Laboratories are divided as train.py divides them. Fields go through the pipeline; a find whose middle lies in a box
answers for that cell, in an image of one cell without boxes a find in the middle:

    python count_errors.py hub_model --data_dir blood-cells pbc raabin chula --folder_map ig=other erythroblast=other \\
        platelet=other --validation_share 0.1 --split_seed 3 --test_share pbc=0.2 --out cells.csv --save

writes a row for each cell of validation and of what is held out for testing, with the first digits of the SHA-256 of the
weights that named it; ``--save`` puts validation's counts into the
model's config.json.
"""

import argparse
import csv
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from tqdm import tqdm
from transformers import pipeline

from evaluation.command import read_shares, require_least, run
from evaluation.labels import read_label_map
from evaluation.results import weights_sha256, write_text
from hub_model.error_adjustment import outcome
from smears.laboratories import divide, load_laboratory, rename_classes
from smears.loading import DataError
from smears.photos import find_photo_folder, read_boxes

MIDDLE = (0.375, 0.625)  # of the sides, where the cell of a single-cell image lies
SPLITS = ("validation", "test")
NAMED = ("verdict", "label", "score", "energy", "find_score")
COLUMNS = ("lab", "split", "file", "group", "class", "outcome", *NAMED, "weights")
WEIGHTS_DIGITS = 12  # of the weights' SHA-256, in each row
NOT_FOUND, REFUSED = "not found", "image refused"
logger = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("model", type=Path, help="a folder as on the Hub")
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="a folder for each laboratory")
    parser.add_argument(
        "--folder_map", nargs="+", default=[], metavar="FOLDER=CLASS", help="what folders are called here"
    )
    parser.add_argument("--validation_share", type=float, default=0.1, help="as in training")
    parser.add_argument("--test_share", nargs="+", default=[], metavar="LAB=SHARE", help="as in training")
    parser.add_argument("--split_seed", type=int, default=0, help="as in training")
    parser.add_argument("--batch_size", type=int, default=32, help="crops that go through the network at once")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--save", action="store_true", help="put validation's counts into the model's config.json")
    options = parser.parse_args(argv)
    require_least(parser, options, batch_size=1)
    return options


def known_fields(data: datasets.Dataset) -> list[list[dict[str, Any]]]:
    """Gather the rows of each image, one for each cell of known class; a copy of an image adds none."""
    fields: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in data.cast_column("image", datasets.Image(decode=False)):
        fields[row["sha256"]].setdefault(str(row["boxes"]), row)
    return [list(rows.values()) for rows in fields.values()]


def finds_of(row: Mapping[str, Any], image: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the finds that answer for a row's cells, one for each cell that was found."""
    low, high = MIDDLE
    height, width = image["height"], image["width"]
    middle = [[low * height, low * width, high * height, high * width]]
    taken, answers = set(), []
    for top, left, bottom, right in row["boxes"] or middle:
        for number, cell in enumerate(image["cells"]):
            at_row, at_col = (cell["box"][0] + cell["box"][2]) / 2, (cell["box"][1] + cell["box"][3]) / 2
            if number not in taken and top <= at_row <= bottom and left <= at_col <= right:
                taken.add(number)
                answers.append(cell)
                break
    return answers


def name_cells(count: Any, data: datasets.Dataset, batch_size: int, progress: str) -> Iterator[dict[str, Any]]:
    """Send images through the pipeline and give a row of the table for each cell of known class."""
    names, fields = data.features["label"].names, known_fields(data)
    for start in tqdm(range(0, len(fields), batch_size), progress, unit="batch"):
        part = fields[start : start + batch_size]
        sources = [rows[0]["image"]["bytes"] or rows[0]["image"]["path"] for rows in part]
        for rows, image in zip(part, count(sources, batch_size=batch_size)["images"], strict=True):
            for row in rows:
                known = {"lab": row["lab"], "file": row["file"], "group": row["group"], "class": names[row["label"]]}
                finds = finds_of(row, image)
                for cell in finds:
                    yield known | {name: cell[name] for name in NAMED} | {"outcome": outcome(cell)}
                for _ in range(max(1, len(row["boxes"])) - len(finds)):
                    yield known | {"outcome": NOT_FOUND if image["refused"] is None else REFUSED}


def load_held_out(options: argparse.Namespace, classes: Sequence[str]) -> dict[tuple[str, str], datasets.Dataset]:
    """Load what training held out, by laboratory and split.

    Raises:
        DataError: as ``load_laboratory`` and ``divide``; a share of no laboratory here.
    """
    folder_map, shares = read_label_map(options.folder_map), read_shares(options.test_share)
    loaded = {folder.resolve().name: folder for folder in options.data_dir}
    if strange := sorted(shares.keys() - loaded.keys()):
        raise DataError(f"--test_share {strange[0]}: there is no such laboratory; expected one of {sorted(loaded)}.")
    found = {}
    for lab, folder in loaded.items():
        splits = divide(load_laboratory(folder), options.validation_share, shares.get(lab, 0.0), options.split_seed)
        if "test_simple" in splits:
            splits["test"] = _whole_photos(splits["test_simple"], folder)
        for split in SPLITS:
            if split in splits:
                found[lab, split] = rename_classes(splits[split], classes, folder_map)
    return found


def _whole_photos(data: datasets.Dataset, folder: Path) -> datasets.Dataset:
    """Put the Kaggle archive's photos, with their boxes, in place of the smaller pictures that its splits have of them."""
    photos = find_photo_folder(folder)
    images = [{"bytes": None, "path": str(photos / "JPEGImages" / f"{name}.jpg")} for name in data["photo"]]
    boxes = [read_boxes(photos, name) for name in data["photo"]]
    whole = data.remove_columns(["image", "boxes"]).add_column("image", images, feature=data.features["image"])
    return whole.add_column("boxes", boxes, feature=data.features["boxes"])


def count_outcomes(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Count the outcomes of validation's cells, by laboratory and class; those not found or refused have none."""
    counts: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for row in rows:
        if row["split"] == "validation" and row["outcome"] not in (NOT_FOUND, REFUSED):
            counts[row["lab"]][row["class"]][row["outcome"]] += 1
    return {
        lab: {name: dict(sorted(table[name].items())) for name in sorted(table)}
        for lab, table in sorted(counts.items())
    }


def save(folder: Path, counts: Mapping[str, Any]) -> None:
    """Put counts into a model's config.json, with the classes and thresholds that they hold for."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["validation_confusion"] = {
        "labels": [config["id2label"][str(number)] for number in range(len(config["id2label"]))],
        "acceptance_threshold": config.get("acceptance_threshold"),
        "energy_threshold": config.get("energy_threshold"),
        "counts": counts,
    }
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def count_errors(options: argparse.Namespace) -> None:
    """Name the cells, write their table, and with ``--save`` the counts."""
    count = pipeline(model=str(options.model), trust_remote_code=True, device="cpu")
    labels = [count.model.config.id2label[number] for number in range(count.model.config.num_labels)]
    rows, weights = [], weights_sha256(options.model)[:WEIGHTS_DIGITS]
    for (lab, split), data in load_held_out(options, labels).items():
        for row in name_cells(count, data, options.batch_size, f"{lab}, {split}"):
            rows.append({"split": split, "weights": weights} | row)
    with options.out.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for lab, split in dict.fromkeys((row["lab"], row["split"]) for row in rows):
        own = [row for row in rows if (row["lab"], row["split"]) == (lab, split)]
        kinds = Counter(
            row["outcome"]
            if row["outcome"] in (NOT_FOUND, REFUSED)
            else "right"
            if row["verdict"] == row["class"]
            else "unidentified"
            if row["outcome"].endswith("?")
            else "wrong"
            for row in own
        )
        told = ", ".join(f"{kind} {kinds[kind]}" for kind in ("right", "wrong", "unidentified", NOT_FOUND, REFUSED))
        logger.info("%s, %s: %d cells: %s", lab, split, len(own), told)
    if options.save:
        save(options.model, count_outcomes(rows))
        logger.info("wrote %s", options.model / "config.json")


def main(argv: Sequence[str] | None = None) -> None:
    """Count, as ``evaluation.command.run`` does."""
    run(count_errors, parse(argv))


if __name__ == "__main__":
    main()
