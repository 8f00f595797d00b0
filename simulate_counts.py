"""Draw differentials of known truth from held-out cells, and see how far off the count is and whether its intervals hold.

    python count_errors.py hub_model --data_dir ... --out cells.csv
    python simulate_counts.py hub_model --cells cells.csv --out counts.json

A truth is drawn about an adult's usual shares, healthy or far from it; then 200 cells by it, each one of the held-out cells
of its class with the outcome that the pipeline gave it. Ways of telling whose errors apply are tried on the same draws: the
user names the laboratory; does not; and does not, while that laboratory's errors are unknown (its network knows it, though).
Cells of the split *test* meet the errors that validation showed. Where these are few, luck decides how well the two agree;
therefore in *all held-out cells* the errors are counted anew for each slide, on as many cells of each class as validation had,
drawn from the same cells: that shows whether the method is right, whatever one validation was like.

`mean_error`: of per cents, against the cells drawn, as an analyser is compared with a manual count of the same slide.
`coverage`: how often the 95 % interval holds the true share, from which the cells were drawn.
"""

import argparse
import csv
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from evaluation.command import require_least, run
from evaluation.intervals import binomial_interval
from evaluation.results import provenance, weights_sha256, write_text
from hub_model.differential import count_cells
from smears.loading import DataError

# Per cent of an adult's cells, and how far a slide's shares scatter: a Dirichlet distribution of this many cells' worth
USUAL = {"neutrophil": 58.0, "lymphocyte": 29.0, "monocyte": 6.0, "eosinophil": 3.0, "basophil": 1.0, "other": 3.0}
SCATTER = 12.0
TEST, ALL = "test", "all held-out cells"
LEAST = 3  # held-out cells of a class: from fewer nothing is drawn
logger = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("model", type=Path, help="a folder as on the Hub, with validation's counts in its config.json")
    parser.add_argument("--cells", type=Path, required=True, help="CSV that count_errors.py wrote")
    parser.add_argument("--draws", type=int, default=1000, help="differentials for each laboratory")
    parser.add_argument("--count", type=int, default=200, help="cells of a differential")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    options = parser.parse_args(argv)
    require_least(parser, options, draws=1, count=1, seed=0, workers=1)
    return options


def read_cells(path: Path, weights: str) -> list[dict[str, str]]:
    """Read the cells that the pipeline found.

    Args:
        path: table of count_errors.py.
        weights: SHA-256 of those that are to have named them.

    Raises:
        DataError: the table has not the columns that count_errors.py writes, or no cells, or other weights named them.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    wanted = {"lab", "split", "group", "class", "outcome", "verdict", "label", "weights"}
    if not rows or not wanted <= rows[0].keys():
        raise DataError(f"{path} lists no cells with {', '.join(sorted(wanted))}. Write it with count_errors.py.")
    if strange := sorted(
        {row["weights"] for row in rows if not row["weights"] or not weights.startswith(row["weights"])}
    ):
        raise DataError(
            f"{path} lists cells that the weights {strange[0]!r} named; expected those of the model, {weights}. "
            "Write it anew with count_errors.py."
        )
    return [row for row in rows if row["verdict"]]


def tables(cells: Sequence[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    """Count the outcomes of a laboratory's cells, by class."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for cell in cells:
        counts[cell["class"]][cell["outcome"]] += 1
    return {name: dict(count) for name, count in counts.items()}


def scenes(cells: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str, list[Mapping[str, str]]]]:
    """Give what is drawn from: laboratory, a word on the cells, and the cells."""
    for lab in dict.fromkeys(cell["lab"] for cell in cells):
        own = [cell for cell in cells if cell["lab"] == lab]
        if test := [cell for cell in own if cell["split"] == "test"]:
            yield lab, TEST, test
        yield lab, ALL, own


def count_anew(
    pool: Sequence[Mapping[str, str]], known: Mapping[str, Mapping[str, int]], rng: np.random.Generator
) -> dict[str, dict[str, int]]:
    """Count errors on as many cells of each class as were counted before, drawn from a pool."""
    drawn = []
    for name, row in sorted(known.items()):
        own = [cell for cell in pool if cell["class"] == name]
        drawn += [own[place] for place in rng.integers(len(own), size=sum(row.values()))]
    return tables(drawn)


def draw_slides(
    pool: Sequence[Mapping[str, str]], labels: Sequence[str], draws: int, count: int, seed: int
) -> Iterator[tuple[dict[str, float], dict[str, int], list[dict[str, Any]]]]:
    """Draw slides: true shares of the classes, 0..1, how many cells were drawn of each, and the pipeline's cells."""
    by_class = {name: [cell for cell in pool if cell["class"] == name] for name in labels}
    names = [name for name in labels if len(by_class[name]) >= LEAST and name in USUAL]
    usual = np.array([USUAL[name] for name in names])
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        shares = rng.dirichlet(SCATTER * usual / usual.sum())
        counts = rng.multinomial(count, shares)
        slide = [
            by_class[name][k]
            for name, n in zip(names, counts, strict=True)
            for k in rng.integers(len(by_class[name]), size=n)
        ]
        cells = [{"verdict": cell["verdict"], "label": cell["label"], "same_as": None} for cell in slide]
        yield dict(zip(names, shares, strict=True)), dict(zip(names, counts.tolist(), strict=True)), cells


def measure(task: tuple) -> dict[str, Any]:
    """Count the slides of a scene, for each way of telling whose errors apply."""
    lab, what, pool, confusion, labels, negatives, options = task
    ways = {"laboratory named": (confusion, lab), "laboratory not named": (confusion, None)}
    others = {name: table for name, table in confusion.items() if name != lab}
    if others and what == TEST:
        ways["its errors unknown"] = (others, None)
    rng = np.random.default_rng((options["seed"], 1))
    found = {way: defaultdict(list) for way in ("sampling alone", *ways)}  # the same ways for all slides
    for shares, counts, cells in draw_slides(pool, labels, options["draws"], options["count"], options["seed"]):
        images = [{"name": "drawn", "refused": None, "cells": cells}]
        if what == ALL:
            anew = {**confusion, lab: count_anew(pool, confusion[lab], rng)}
            ways = {"laboratory named": (anew, lab), "laboratory not named": (anew, None)}
        for way, (errors, named) in ways.items():
            rows = {row["class"]: row for row in count_cells(images, labels, negatives, errors, named)["rows"]}
            for name, share in shares.items():
                row, drawn = rows[name], 100 * counts[name] / options["count"]
                low, high = row["adjusted_interval"]
                found[way][name].append((abs(row["adjusted_percent"] - drawn), low <= 100 * share <= high, high - low))
                if way == "laboratory named":
                    low, high = row["interval"]
                    found["sampling alone"][name].append(
                        (abs(row["percent"] - drawn), low <= 100 * share <= high, high - low)
                    )
    return {
        "laboratory": lab,
        "cells": what,
        "held_out_cells": dict(Counter(cell["class"] for cell in pool)),
        "draws": options["draws"],
        "cells_each": options["count"],
        "ways": {way: summarise(classes) for way, classes in found.items()},
    }


def summarise(classes: Mapping[str, Sequence[tuple[float, bool, float]]]) -> dict[str, Any]:
    """Give mean errors and widths, per cent points, and coverages, by class and over all."""
    table = {}
    for name, rows in classes.items():
        errors, held, widths = (np.array(column, float) for column in zip(*rows, strict=True))
        low, high = binomial_interval(int(held.sum()), len(held))
        table[name] = {
            "mean_error": round(float(errors.mean()), 3),
            "coverage": round(float(held.mean()), 4),
            "coverage_interval": [round(low, 4), round(high, 4)],
            "mean_width": round(float(widths.mean()), 2),
        }
    return {
        "largest_mean_error": max(row["mean_error"] for row in table.values()),
        "coverage": round(float(np.mean([row["coverage"] for row in table.values()])), 4),
        "classes": table,
    }


def simulate(options: argparse.Namespace) -> None:
    """Draw, count, and write what was found.

    Raises:
        DataError: as ``read_cells``; the model's config.json has no usable counts.
    """
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    if not (confusion := config.get("validation_confusion")):
        raise DataError(
            f"{options.model} has no validation_confusion in its config.json. Run count_errors.py --save first."
        )
    labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    sha256 = weights_sha256(options.model)
    measured_by = provenance()
    settings = {name: getattr(options, name) for name in ("draws", "count", "seed")}
    tasks = [
        (*scene, confusion["counts"], labels, config.get("negatives_label"), settings)
        for scene in scenes(read_cells(options.cells, sha256))
    ]
    with ProcessPoolExecutor(options.workers) as pool:
        results = list(tqdm(pool.map(measure, tasks), "scenes", total=len(tasks)))
    for result in results:
        for way, found in result["ways"].items():
            logger.info(
                "%s, %s, %s: coverage %.1f %%, largest mean error %.2f points",
                result["laboratory"],
                result["cells"],
                way,
                100 * found["coverage"],
                found["largest_mean_error"],
            )
    report = {"weights_sha256": sha256, **measured_by, "seed": options.seed, "scenes": results}
    write_text(options.out, json.dumps(report, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate, as ``evaluation.command.run`` does."""
    run(simulate, parse(argv))


if __name__ == "__main__":
    main()
