"""Measure how well cells that two overlapping fields show are counted once: hub_model/field_overlaps.py on known fields.

The photos of the Kaggle archive, against the pairs that show the same cells; and fields of slides with a boxes.csv, against
the pairs that registration by landmarks finds:

    python measure_overlaps.py blood-cells --pairs hub_dataset/overlaps.csv --photos hub_dataset/photos.csv --out kaggle.json
    python measure_overlaps.py chula --out chula.json

The given boxes are the cells. Of each true pair, landmarks (``smears.alignment``) say where a cell of one field lies in the
other; found are the cells that count once there. A pair found that is not known is false if the fields are of two slides (the
name before the last ``_``, where it is one), and otherwise listed as unknown, to be looked at.
"""

import argparse
import csv
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hub_model.field_overlaps import describe_field, find_overlaps, mark_repeats
from smears.alignment import WORKING_WIDTH, describe, register
from smears.fields import read_fields, read_tests
from smears.likeness import find_links
from smears.loading import DataError
from smears.photos import photo_name

MIN_SHARED = (
    0.3  # intersection over union of a cell's box, carried over, and a box of the other field, cut at the frame
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("data_dir", type=Path, help="the Kaggle archive, or a folder of fields with a boxes.csv")
    parser.add_argument(
        "--pairs", type=Path, help="CSV of the true pairs, photo_a and photo_b; otherwise landmarks find them"
    )
    parser.add_argument(
        "--photos", type=Path, help="CSV of photo and split: pairs with an official test photo stand apart"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    return parser.parse_args(argv)


def read_pairs(path: Path, names: Sequence[str]) -> set[tuple[int, int]]:
    """Read the true pairs, as positions of the fields; raises DataError for a photo that is not there."""
    place = {name: position for position, name in enumerate(names)}
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return {tuple(sorted(place[photo_name(int(row[key]))] for key in ("photo_a", "photo_b"))) for row in rows}
    except KeyError as error:
        raise DataError(f"{path} names {error}, which is not among the {len(names)} fields.") from error


def shared_cells(
    first: np.ndarray, second: np.ndarray, boxes: Sequence[Sequence[int]], others: Sequence[Sequence[int]]
) -> list[tuple[int, int]] | None:
    """Say which cells of two fields of one place are the same, by landmarks; None where the fields do not register."""
    found = register(describe(second, precise=True), describe(first, precise=True))
    if found is None:
        return None
    scale = first.shape[1] / WORKING_WIDTH
    frame = second.shape[:2]
    same = []
    for number, box in enumerate(boxes):
        (top, left), (bottom, right) = np.reshape(box, (2, 2)) / scale
        middle = found.matrix @ [(left + right) / 2, (top + bottom) / 2, 1] * scale
        half = np.array([box[2] - box[0], box[3] - box[1]]) / 2
        carried = np.clip([middle[::-1] - half, middle[::-1] + half], 0, frame)
        shares = [_intersection_over_union(carried, np.reshape(other, (2, 2))) for other in others]
        if shares and max(shares) >= MIN_SHARED:
            same.append((number, int(np.argmax(shares))))
    return same


def _intersection_over_union(one: np.ndarray, other: np.ndarray) -> float:
    both = np.maximum(0, np.minimum(one[1], other[1]) - np.maximum(one[0], other[0])).prod()
    return float(both / max((one[1] - one[0]).prod() + (other[1] - other[0]).prod() - both, 1))


def measure(
    files: Sequence[Path],
    boxes: Sequence[list[list[int]]],
    truth: set[tuple[int, int]],
    tests: set[int],
) -> dict[str, Any]:
    """Describe the fields, mark the repeats, and compare with the true pairs.

    Pairs are positions of fields; `tests` holds the fields whose pairs stand apart.
    """
    start = time.perf_counter()
    descriptions, seconds = [], 0.0
    for file in tqdm(files, "describe", unit="field"):
        picture = Image.open(file).convert("RGB")
        begun = time.perf_counter()
        descriptions.append(describe_field(picture))
        seconds += time.perf_counter() - begun
    images = [
        {"name": file.stem, "height": d.height, "width": d.width, "notes": [], "refused": None, "cells": cells}
        for file, d, cells in zip(
            files, descriptions, ([{"box": box} for box in field] for field in boxes), strict=True
        )
    ]
    begun = time.perf_counter()
    found = find_overlaps(descriptions)
    searching = time.perf_counter() - begun
    mark_repeats(images, descriptions)
    pairs = {(overlap.first, overlap.second): overlap for overlap in found}
    names = [file.stem for file in files]
    strangers = [pair for pair in pairs if pair not in truth and _slide(names[pair[0]]) != _slide(names[pair[1]])]
    return {
        "fields": len(files),
        "pairs_compared": len(files) * (len(files) - 1) // 2,
        "seconds": {"describe": round(seconds, 2), "search": round(searching, 2)},
        "description_bytes": sum(d.density.nbytes for d in descriptions),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "true_pairs": {
            name: _recall(part, pairs, images, files, boxes)
            for name, part in (
                ("without_test_photos", {pair for pair in truth if not tests & {*pair}}),
                ("with_test_photos", {pair for pair in truth if tests & {*pair}}),
            )
        },
        "false_pairs_of_two_slides": [_describe_pair(pairs[pair], names) for pair in strangers],
        "unknown_pairs": [_describe_pair(pairs[pair], names) for pair in sorted({*pairs} - truth - {*strangers})],
        "cells": sum(map(len, boxes)),
        "cells_marked": sum(cell["same_as"] is not None for image in images for cell in image["cells"]),
        "total_seconds": round(time.perf_counter() - start, 2),
    }


def _slide(name: str) -> str:
    return name.rpartition("_")[0] or name


def _describe_pair(overlap: Any, names: Sequence[str]) -> dict[str, Any]:
    return {
        "fields": [names[overlap.first], names[overlap.second]],
        "shift": [overlap.rows, overlap.cols],
        "correlation": round(overlap.correlation, 3),
        "share": round(overlap.share, 3),
    }


def _recall(truth, pairs, images, files, boxes) -> dict[str, Any]:
    """Count what of the true pairs was found, and what of the cells that both fields show counts once."""
    missed, cells, once, wrong = [], 0, [], []
    for first, second in sorted(truth):
        if (first, second) not in pairs:
            missed.append([files[first].stem, files[second].stem])
        pictures = [np.asarray(Image.open(files[number]).convert("RGB")) for number in (first, second)]
        shared = shared_cells(*pictures, boxes[first], boxes[second]) or []
        cells += len(shared)
        for one, other in shared:
            sights = [_first_sight(images, first, one), _first_sight(images, second, other)]
            (once if sights[0] == sights[1] else wrong).append([files[first].stem, one, files[second].stem, other])
    return {"pairs": len(truth), "pairs_found": len(truth) - len(missed), "missed": missed} | {
        "shared_cells": cells,
        "counted_once": len(once),
        "counted_twice": wrong,
    }


def _first_sight(images: Sequence[dict], number: int, place: int) -> tuple[int, int]:
    return tuple(images[number]["cells"][place]["same_as"] or (number, place))


def main(argv: Sequence[str] | None = None) -> None:
    """Read the fields, find their true pairs, measure, write."""
    options = parse(argv)
    files, boxes = read_fields(options.data_dir)
    names = [file.stem for file in files]
    if options.pairs:
        truth = read_pairs(options.pairs, names)
    else:
        links, _ = find_links(len(files), lambda position: np.asarray(Image.open(files[position]).convert("RGB")))
        truth = {(link.first, link.second) for link in links}
    results = measure(files, boxes, truth, read_tests(options.photos, names))
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
