"""Measure how well white cells are found in fields: hub_model/cell_finding.py against given boxes.

The photos of the Kaggle archive; fields with a boxes.csv; and, with --single, folders of images that each show one cell in
the middle, of which the part is taken that training learns from, divided as train.py divides:

    python measure_finding.py blood-cells --photos hub_dataset/photos.csv --out kaggle.json
    python measure_finding.py chula --min_side 30 --out chula.json
    python measure_finding.py pbc --single basophil eosinophil lymphocyte monocyte neutrophil --test_share 0.2 --split_seed 3 \\
        --out pbc.json

A box is found if the centre of a find lies in it, each find answering for one box; every other find is false. Figures stand
with all boxes, and without those that smears/contested_boxes.csv contests. Besides, all fields are laid side by side to
one of 20 megapixels, and one field is enlarged to as much.
"""

import argparse
import csv
import io
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.intervals import binomial_interval
from evaluation.results import provenance
from hub_model.cell_finding import find_cells
from smears.fields import read_fields, read_tests
from smears.laboratories import divide, load_laboratory
from smears.loading import DataError

CONTESTED = Path(__file__).parent / "smears" / "contested_boxes.csv"
LARGE = (3648, 5472)  # px, height and width of a field of 20 megapixels
MIDDLE = (0.375, 0.625)  # of the sides, where the cell of a single-cell image lies: PBC's middle 64 px of 256
OVERLAP = 0.5  # intersection over union


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "data_dir", type=Path, help="the Kaggle archive, a folder with a boxes.csv, or folders of classes"
    )
    parser.add_argument("--photos", type=Path, help="CSV of photo and split: official test photos stand apart")
    parser.add_argument("--contested", type=Path, default=CONTESTED, help="CSV of boxes that are wrong, by laboratory")
    parser.add_argument(
        "--min_side", type=int, default=1, help="px; smaller boxes are left out on both sides of the count"
    )
    parser.add_argument(
        "--single", nargs="+", metavar="CLASS", help="classes of images that show one cell in the middle"
    )
    parser.add_argument("--test_share", type=float, default=0.0, help="of --single: held out, and not looked at")
    parser.add_argument("--split_seed", type=int, default=0, help="of --single: as training's")
    parser.add_argument("--large", action="store_true", help="measure fields of 20 megapixels too")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    return parser.parse_args(argv)


def read_contested(lab: str, path: Path) -> set[tuple[str, int, int]]:
    """Read which boxes of a laboratory are contested: file, row_min and col_min of each."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["lab"] == lab]
    return {(row["file"], int(row["row_min"]), int(row["col_min"])) for row in rows}


def match(boxes: Sequence[Sequence[int]], finds: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Say which boxes are found by centre, and which finds are none of them; the first find of a box counts."""
    found, false = [], []
    for number, find in enumerate(finds):
        row, col = (find[0] + find[2]) / 2, (find[1] + find[3]) / 2
        inside = [
            place
            for place, (top, left, bottom, right) in enumerate(boxes)
            if place not in found and top <= row <= bottom and left <= col <= right
        ]
        if inside:
            found.append(inside[0])
        else:
            false.append(number)
    return sorted(found), false


def overlap(one: Sequence[int], other: Sequence[int]) -> float:
    """Intersection over union of two boxes, 0..1."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    both = np.maximum(0, high - low).prod()
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / max(sum(areas) - both, 1))


def _share(count: int, total: int) -> dict[str, Any]:
    """A share with its exact 95 % interval; 0 of 0 tells nothing."""
    low, high = binomial_interval(count, total) if total else (0.0, 1.0)
    return {
        "value": round(count / max(total, 1), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "count": count,
        "n": total,
    }


def _read(source: Path | bytes) -> Image.Image:
    with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
        return image.convert("RGB")


def measure_fields(
    names: Sequence[str], files: Sequence[Path], boxes: Sequence[list[list[int]]], contested: set, min_side: int
) -> dict[str, Any]:
    """Find the cells of each field and count what of the boxes was found."""
    count = {"boxes": 0, "found": 0, "boxes_overlapped": 0, "contested_boxes": 0, "contested_found": 0, "false": 0}
    missed, false_finds, seconds = [], [], []
    for name, file, given in zip(names, tqdm(files, "fields", unit="field"), boxes, strict=True):
        image = _read(file)
        begun = time.perf_counter()
        finds = [cell["box"] for cell in find_cells(image)]
        seconds.append(time.perf_counter() - begun)
        usual = [min(box[2] - box[0], box[3] - box[1]) >= min_side for box in given]
        found, false = match(given, finds)
        false_finds += [[name, finds[number]] for number in false]
        count["false"] += len(false)
        for place, box in enumerate(given):
            if not usual[place]:
                continue
            if (name, box[0], box[1]) in contested:
                count["contested_boxes"] += 1
                count["contested_found"] += place in found
                continue
            count["boxes"] += 1
            count["found"] += place in found
            count["boxes_overlapped"] += any(overlap(box, find) >= OVERLAP for find in finds)
            if place not in found:
                missed.append([name, list(box)])
    everything, found = count["boxes"] + count["contested_boxes"], count["found"] + count["contested_found"]
    return (
        {"fields": len(files), "fields_without_boxes": sum(not given for given in boxes)}
        | count
        | {
            "recall": _share(count["found"], count["boxes"]),
            "recall_with_contested": _share(found, everything),
            "recall_by_overlap": _share(count["boxes_overlapped"], count["boxes"]),
            "false_per_field": round(count["false"] / max(len(files), 1), 4),
            "missed": missed,
            "false_finds": false_finds,
            "milliseconds": {
                "median": round(1e3 * float(np.median(seconds)), 1),
                "slowest": round(1e3 * max(seconds), 1),
            },
        }
    )


def measure_single(data_dir: Path, classes: Sequence[str], test_share: float, seed: int) -> dict[str, Any]:
    """Count, of images with one cell in the middle, those with a find there, and with that one alone.

    Raises:
        DataError: the folder has no such class, or cannot be divided.
    """
    learnt = divide(load_laboratory(data_dir), test_share=test_share, seed=seed)["train"]
    names = learnt.features["label"].names
    if unknown := sorted({*classes} - {*names}):
        raise DataError(f"{data_dir} has no class {unknown[0]!r}; it has {', '.join(names)}. Name some of these.")
    rows, odd = {name: {"images": 0, "middle": 0, "middle_alone": 0} for name in classes}, []
    for row in tqdm(learnt, "images", unit="image"):
        name = names[row["label"]]
        if name not in rows:
            continue
        source = row["image"]["bytes"] or Path(row["image"]["path"])
        image = _read(source)
        finds = [cell["box"] for cell in find_cells(image)]
        low, high = MIDDLE
        middle = [
            low * image.height <= (box[0] + box[2]) / 2 <= high * image.height
            and low * image.width <= (box[1] + box[3]) / 2 <= high * image.width
            for box in finds
        ]
        rows[name]["images"] += 1
        rows[name]["middle"] += sum(middle) == 1
        rows[name]["middle_alone"] += sum(middle) == 1 and len(finds) == 1
        if sum(middle) != 1 or len(finds) != 1:
            odd.append([row["file"], finds])
    total = sum(row["images"] for row in rows.values())
    return {
        "images": total,
        "one_find_in_the_middle": _share(sum(row["middle"] for row in rows.values()), total),
        "and_no_other": _share(sum(row["middle_alone"] for row in rows.values()), total),
        "classes": rows,
        "odd": odd,
    }


def measure_large(files: Sequence[Path], boxes: Sequence[list[list[int]]]) -> dict[str, Any]:
    """Find cells in a field of 20 megapixels made of the fields side by side, and in the first enlarged to as much."""
    mosaic, given = Image.new("RGB", LARGE[::-1]), []
    row = col = height = width = 0
    for file, own in zip(files, boxes, strict=True):
        image = _read(file)
        if col + image.width > LARGE[1]:
            row, col, height = row + height, 0, 0
        if row + image.height > LARGE[0]:
            height = 0
            break
        mosaic.paste(image, (col, row))
        given += [[top + row, left + col, bottom + row, right + col] for top, left, bottom, right in own]
        col, height = col + image.width, max(height, image.height)
        width = max(width, col)
    mosaic = mosaic.crop((0, 0, width, row + height))  # no black rim, which no field has
    results = {}
    for name, image, cells in (
        ("side_by_side", mosaic, given),
        ("enlarged", _read(files[0]).resize(LARGE[::-1], Image.Resampling.BICUBIC), None),
    ):
        begun = time.perf_counter()
        finds = [cell["box"] for cell in find_cells(image)]
        results[name] = {"megapixels": round(image.width * image.height / 1e6, 1), "finds": len(finds)} | {
            "seconds": round(time.perf_counter() - begun, 2)
        }
        if cells is not None:
            found, false = match(cells, finds)
            results[name] |= {"boxes": len(cells), "found": len(found), "false": len(false)}
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Read, find, count, write."""
    options = parse(argv)
    measured_by = provenance()
    if options.single:
        results = measure_single(options.data_dir, options.single, options.test_share, options.split_seed)
    else:
        files, boxes = read_fields(options.data_dir)
        tests = read_tests(options.photos, [file.stem for file in files])
        is_table = (options.data_dir / "boxes.csv").exists()
        names = [file.relative_to(options.data_dir).as_posix() if is_table else file.name for file in files]
        contested = read_contested(options.data_dir.resolve().name, options.contested)
        results = {}
        for part, places in (
            ("fields", [place for place in range(len(files)) if place not in tests]),
            ("official_test_photos", sorted(tests)),
        ):
            if places:
                chosen = [[items[place] for place in places] for items in (names, files, boxes)]
                results[part] = measure_fields(*chosen, contested, options.min_side)
                if options.large and part == "fields":
                    results["large"] = measure_large(*chosen[1:])
    results = {"laboratory": options.data_dir.resolve().name} | measured_by | results
    results["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
