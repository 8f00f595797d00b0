"""The differential count: of the white cells on a smear, how many per cent of each subtype, and how far that can be trusted.

    differential = count_cells(images, labels, negatives="other", confusion=config.validation_confusion)

Two kinds of uncertainty are told apart. *Sampling*: 200 cells are not the patient; Clopper and Pearson's exact interval. *The
classifier's own errors*: ``error_adjustment`` corrects the counts for them, and its interval covers both.

    report_json(images, differential), cells_csv(images), count_csv(differential)

write what is to be kept; ``differential.schema.json`` is the JSON document's schema.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy.special import betaincinv

from .error_adjustment import UNIDENTIFIED, adjust, outcome
from .sentences import Sentence, say

SCHEMA = "wbc-differential/1"
CLINICAL_ORDER = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")
DROPPED = "dropped"  # what a reviewer says of a find that is no cell

# Per cent, adults; band forms count as neutrophils. Laboratories differ: pass your own.
REFERENCE_RANGES = {
    "neutrophil": (40.0, 70.0),
    "lymphocyte": (20.0, 40.0),
    "monocyte": (2.0, 8.0),
    "eosinophil": (1.0, 4.0),
    "basophil": (0.5, 1.0),
}
LEVEL = 0.95
USUAL_COUNTS = (200, 400)  # cells; 400 are the reference method's, CLSI H20-A2
FEWEST_CELLS = 100
FEWEST_OF_A_CLASS = 10  # validation cells: of fewer, one more or less moves an error by a tenth and more
LOW_TOTAL = 100.0  # white cells in a microlitre: likelier a count in thousands
REVIEW_SHARE = 0.1  # of the cells counted, unidentified
NEGATIVES_SHARE = 0.05  # of the cells counted, of none of the other classes: more moves their per cents visibly


def exact_interval(count: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """Bound a share, 0..1, by the exact binomial interval (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404).

    Raises:
        ValueError: not 0 <= count <= total, total 0, or a level that does not lie between 0 and 1.
    """
    if not 0 <= count <= total or total < 1 or not 0 < level < 1:
        raise ValueError(
            f"{count} of {total} at level {level}; expected 0 <= count <= total, total at least 1, 0 < level < 1."
        )
    tail = (1 - level) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return low, high


def count_cells(
    images: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    negatives: str | None = None,
    confusion: Mapping[str, Mapping[str, Mapping[str, int]]] | None = None,
    laboratory: str | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
    white_cells_per_microlitre: float | None = None,
    model: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Count the cells of a slide's fields.

    Args:
        images: as the pipeline gives them, with ``name``, ``refused`` and ``cells``; of each cell are read ``verdict``,
            ``label``, ``same_as`` (a cell of an earlier field, counted there) and ``reviewed`` (what a person says it is: a
            label, "dropped" for what is no cell, or None).
        labels: the model's classes.
        negatives: the class that means "none of the others".
        confusion: by laboratory, class and outcome, how many validation cells had that outcome, see ``error_adjustment``. None:
            nothing is corrected; nor is it where a person named every cell that is counted.
        laboratory: whose errors apply, one of ``confusion``. None: all are possible, and each weighs as much as it makes the
            slide's outcomes likely.
        references: by class, lowest and highest usual per cent; None takes ``REFERENCE_RANGES``, {} flags nothing.
        white_cells_per_microlitre: the total count, for absolute counts.
        model: ``name``, ``revision`` and ``sha256`` of the model that named the cells.

    Returns:
        The differential, ready for JSON; ``differential.schema.json`` says what each field means.

    Raises:
        ValueError: a verdict or a review that is no class, an unknown laboratory, a confusion of other classes, a range that
            is none, a total count that is not above 0.
    """
    ranges = _check_ranges(REFERENCE_RANGES if references is None else references, labels)
    total = white_cells_per_microlitre
    if total is not None:
        try:
            number = math.nan if isinstance(total, bool) or not isinstance(total, Real) else float(total)
        except OverflowError:  # a whole number that no float holds
            number = math.inf
        if not 0 < number < math.inf:
            raise ValueError(f"white_cells_per_microlitre is {total!r}; expected a number above 0, such as 7200.")
        total = number
    if laboratory is not None and laboratory not in (confusion or {}):
        raise ValueError(f"laboratory is {laboratory!r}; expected one of {sorted(confusion or {})}, or None.")
    order = clinical_order(labels, negatives)
    machine, seen, reviewed, cells, review = _tally(images, order)
    counted = cells["counted"]
    rows = {name: _row(name, machine[name] + reviewed[name], counted) for name in order}
    weights: dict[str, float] = {}
    fits = True
    if confusion and seen:  # of cells that a person named all, no figure rests on the classifier
        shares, weights, fits = adjust(seen, reviewed, order[:-1], confusion, laboratory)
        for name in order[:-1]:
            rows[name]["adjusted_percent"] = _percent(shares[name].mean())
            low, high = np.quantile(shares[name], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            # less than half a cell of those counted is as good as none, and none must not lie outside
            rows[name]["adjusted_interval"] = [_percent(low) if low >= 0.5 / counted else 0.0, _percent(high)]
    for name, row in rows.items():
        _flag(row, ranges.get(name))
        # where the adjustment shares unidentified cells out, they are none of the total
        _absolute(row, None if weights and name == UNIDENTIFIED else total)
    refused = sum(image["refused"] is not None for image in images)
    differential = {
        "schema": SCHEMA,
        "images": {"given": len(images), "counted": len(images) - refused, "refused": refused},
        "cells": cells,
        "review": review,
        "rows": list(rows.values()),
        "white_cells_per_microlitre": total,
        "laboratory": laboratory,
        "laboratory_weights": weights,
    }
    differential["warnings"] = _warnings(differential, machine, confusion, negatives, fits)
    differential["methods"] = METHODS if weights else METHODS[:2]
    differential["references"] = REFERENCES if references is None else []
    differential["model"] = {key: (model or {}).get(key) for key in ("name", "revision", "sha256")}
    return differential


METHODS = [
    "Per cents are of the cells counted: all finds but repeats in overlapping fields and what a reviewer dropped.",
    "Interval: exact binomial, 95 % (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404); sampling alone.",
    "Adjusted per cent and interval: also for the classifier's own errors, as counted on validation cells of known class "
    "(after Tenenbein 1972, doi:10.1080/00401706.1972.10488892; Gibbs sampling, Tanner and Wong 1987, "
    "doi:10.1080/01621459.1987.10478458). Unidentified cells are shared out by it. What is no white cell at all, and cells "
    "that were not found, are outside it.",
]
REFERENCES = [
    "Reference ranges are adults': of neutrophils after Kratz et al. 2004, doi:10.1056/NEJMcpc049016, of the others after "
    "MedlinePlus, Blood differential test, medlineplus.gov/ency/article/003657.htm. Laboratories differ: put in your own."
]


def clinical_order(labels: Sequence[str], negatives: str | None = None) -> list[str]:
    """Put classes in the order of a report: neutrophils, lymphocytes, monocytes, eosinophils, basophils, any other classes,
    the one for none of the others, and "unidentified"."""
    place = {name: number for number, name in enumerate(CLINICAL_ORDER)}
    subtypes = [label for label in labels if label != negatives]
    subtypes.sort(key=lambda label: place.get(label.casefold(), len(place)))  # stable: unknown ones keep their order
    return [*subtypes, *([negatives] if negatives in labels else []), UNIDENTIFIED]


def _check_ranges(ranges: Mapping[str, Sequence[float]], labels: Sequence[str]) -> dict[str, tuple[float, float]]:
    if not isinstance(ranges, Mapping):
        raise ValueError(
            f"The reference ranges are {ranges!r}; expected per cents by class, such as {{'monocyte': [2, 8]}}."
        )
    by_name = {label.casefold(): label for label in labels}
    checked = {}
    for name, limits in ranges.items():
        try:
            # text would be taken apart into its digits
            low, high = () if isinstance(limits, str | bytes) else (float(limit) for limit in limits)
        except (TypeError, ValueError, OverflowError):
            low = high = math.nan
        if not 0 <= low <= high <= 100:
            raise ValueError(
                f"The reference range of {name} is {limits!r}; expected two rising per cents, such as [2, 8]."
            )
        if isinstance(name, str) and name.casefold() in by_name:
            checked[by_name[name.casefold()]] = (low, high)
        elif ranges is not REFERENCE_RANGES:
            raise ValueError(f"There is a reference range for {name!r}; expected classes of {list(labels)}.")
    return checked


def _tally(
    images: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> tuple[Counter, Counter, Counter, dict[str, int], dict[str, Any]]:
    """Count verdicts and outcomes of cells that nobody reviewed, reviewers' labels, and what else there is; and say how far the
    unidentified cells were looked at.

    A cell that several fields show counts as its first sight, or as what a reviewer says of any of its sights.
    """
    said: dict[tuple[int, int], str] = {}
    repeated = 0
    for number, image in enumerate(images):
        for place, cell in enumerate(image["cells"]):
            first = tuple(cell["same_as"]) if cell.get("same_as") is not None else (number, place)
            repeated += first != (number, place)
            review = cell.get("reviewed")
            for name in (cell["verdict"], review):
                if name is not None and name not in order and not (name is review and name == DROPPED):
                    raise ValueError(
                        f"Cell {place} of {image['name']} is called {name!r}; expected one of {list(order)}"
                        f"{f', or {DROPPED!r}' if name is review else ''}."
                    )
            if review is not None:
                said.setdefault(first, review)
    machine, seen, reviewed = Counter(), Counter(), Counter()
    dropped = unidentified = unseen = 0
    for number, image in enumerate(images):
        for place, cell in enumerate(image["cells"]):
            if cell.get("same_as") is not None:
                continue
            review = said.get((number, place))
            unidentified += cell["verdict"] == UNIDENTIFIED
            unseen += cell["verdict"] == UNIDENTIFIED and review is None
            # where a person cannot tell either, the outcome still tells something
            if review in (None, UNIDENTIFIED):
                machine[review or cell["verdict"]] += 1
                seen[outcome(cell)] += 1
            elif review == DROPPED:
                dropped += 1
            else:
                reviewed[review] += 1
    counted = sum(machine.values()) + sum(reviewed.values())
    cells = {
        "found": counted + dropped + repeated,
        "repeated": repeated,
        "dropped": dropped,
        "counted": counted,
        "reviewed": sum(reviewed.values()),
    }
    if not counted + dropped:
        state = "no cells"
    elif not unidentified:
        state = "nothing unidentified"
    else:
        state = "not reviewed" if unseen else "reviewed"
    return machine, seen, reviewed, cells, {"state": state, "unidentified": unidentified, "unseen": unseen}


def _percent(share: float) -> float:
    return round(100 * float(share), 4)


def _row(name: str, count: int, counted: int) -> dict[str, Any]:
    row: dict[str, Any] = {"class": name, "count": count, "percent": None, "interval": None}
    row |= {"adjusted_percent": None, "adjusted_interval": None}
    row |= {f"interval_at_{usual}": None for usual in USUAL_COUNTS}
    if counted:
        row["percent"] = _percent(count / counted)
        row["interval"] = [_percent(value) for value in exact_interval(count, counted)]
        for usual in USUAL_COUNTS:
            as_many = exact_interval(round(count / counted * usual), usual)
            row[f"interval_at_{usual}"] = [_percent(value) for value in as_many]
    return row


def best_estimate(row: Mapping[str, Any]) -> tuple[float | None, Sequence[float] | None]:
    """Give a row's per cent and its interval: the adjusted ones where there are any."""
    if row["adjusted_percent"] is not None:
        return row["adjusted_percent"], row["adjusted_interval"]
    return row["percent"], row["interval"]


def _flag(row: dict[str, Any], limits: tuple[float, float] | None) -> None:
    """Say whether the best estimate lies outside the usual range, and whether all of its interval does."""
    row |= {"reference": None if limits is None else list(limits), "flag": None, "flag_sure": False}
    percent, interval = best_estimate(row)
    if limits is None or percent is None:
        return
    if percent < limits[0]:
        row |= {"flag": "low", "flag_sure": interval[1] < limits[0]}
    elif percent > limits[1]:
        row |= {"flag": "high", "flag_sure": interval[0] > limits[1]}


def _absolute(row: dict[str, Any], total: float | None) -> None:
    row |= {"per_microlitre": None, "per_microlitre_interval": None}
    percent, interval = best_estimate(row)
    if total is not None and percent is not None:
        row["per_microlitre"] = round(percent / 100 * total, 2)
        row["per_microlitre_interval"] = [round(limit / 100 * total, 2) for limit in interval]


def _warnings(
    differential: Mapping[str, Any],
    machine: Mapping[str, int],
    confusion: Mapping | None,
    negatives: str | None,
    fits: bool,
) -> list[Sentence]:
    images, counted = differential["images"], differential["cells"]["counted"]
    laboratory = differential["laboratory"]
    warnings = []
    if images["refused"]:
        were = "was refused and is" if images["refused"] == 1 else "were refused and are"
        text = f"{images['refused']} of {images['given']} images {were} not counted."
        warnings.append(say("images_refused", text, number=images["refused"], given=images["given"]))
    if not counted:
        return [*warnings, say("no_cell_counted", "No white cell was counted: there is no differential.")]
    if counted < FEWEST_CELLS:
        were = "cell was" if counted == 1 else "cells were"
        text = f"Only {counted} {were} counted: intervals are wide. Count {FEWEST_CELLS} at least, {USUAL_COUNTS[0]} better."
        warnings.append(say("few_cells", text, number=counted, fewest=FEWEST_CELLS, better=USUAL_COUNTS[0]))
    total = differential["white_cells_per_microlitre"]
    if total is not None and total < LOW_TOTAL:
        text = f"{total:g} white cells in a microlitre are hardly possible: 7.2 times 10^9 in a litre are 7200."
        warnings.append(say("low_total", text, total=total))
    left = machine[UNIDENTIFIED]
    if left:
        share = f" ({100 * left / counted:.0f} %)" if left > REVIEW_SHARE * counted else ""
        todo = "before the count is signed, look at those that nobody has looked at"
        rest = todo if differential["review"]["unseen"] else "a person has looked at each"
        are = "is" if left == 1 else "are"
        which = "unidentified_unseen" if differential["review"]["unseen"] else "unidentified_seen"
        text = f"{left} of {counted} cells{share} {are} unidentified: {rest}."
        warnings.append(say(which, text, number=left, counted=counted, share=share))
    none_of_them = {row["class"]: row["count"] for row in differential["rows"]}.get(negatives, 0)
    if none_of_them > NEGATIVES_SHARE * counted:
        share = f"{100 * none_of_them / counted:.0f} %"
        are, they, lower = ("is", "it", "lowers") if none_of_them == 1 else ("are", "they", "lower")
        text = (
            f"{none_of_them} of {counted} cells ({share}) {are} {negatives!r}, none of the other classes: {they} {lower} every "
            "other per cent and share the total count. Drop what is no white cell."
        )
        values = {"number": none_of_them, "counted": counted, "share": share, "label": negatives}
        warnings.append(say("many_negatives", text, **values))
    if not machine:  # a person named every cell: how the classifier errs bears on nothing
        return warnings
    if not confusion:
        text = "How often this model errs was not measured: the intervals cover sampling alone."
        warnings.append(say("errors_unknown", text))
    elif laboratory is None:
        text = (
            "The classifier's errors were measured in other laboratories than, perhaps, this slide's: the adjusted figures "
            "hold only if it errs here as it does there."
        )
        warnings.append(say("errors_elsewhere", text))
    else:
        known = {
            row["class"]: sum(confusion[laboratory].get(row["class"], {}).values()) for row in differential["rows"]
        }
        few = [
            (name, cells)
            for name, cells in known.items()
            if name not in (negatives, UNIDENTIFIED) and cells < FEWEST_OF_A_CLASS
        ]
        if few:
            named = ", ".join(f"{name} ({cells})" for name, cells in few)
            text = (
                f"How the classifier errs in {laboratory} was counted on few cells of {named}: the adjusted figures of these, "
                "and of what they are taken for, may be far from true."
            )
            warnings.append(say("errors_of_few", text, laboratory=laboratory, labels=few))
    if not fits:
        text = (
            "The verdicts on this slide are unlike those in every laboratory where errors were measured: do not trust the "
            "adjusted figures; review the cells."
        )
        warnings.append(say("errors_do_not_fit", text))
    return warnings


def report_json(
    images: Sequence[Mapping[str, Any]],
    differential: Mapping[str, Any],
    changes: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Write images and differential as a JSON document after ``differential.schema.json``; the same input, the same text.

    Args:
        images, differential: as the pipeline gives them.
        changes: what a reviewer did, in order: ``image`` and ``cell``, their numbers from 0; ``from`` and ``to``, a class,
            "unidentified" or "dropped"; ``time``, ISO 8601. None where nobody kept them.
    """
    document = {"schema": differential["schema"], "differential": differential, "images": list(images)}
    if changes is not None:
        document["changes"] = list(changes)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def cells_csv(images: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """Write a row for each cell found, also those that are not counted; refused images get a row that says so."""
    header = ["image", "cell", "row_min", "col_min", "row_max", "col_max", "find_score", "verdict", "reason", "label"]
    header += ["score", "energy", "same_as_image", "same_as_cell", "reviewed", *(f"p({label})" for label in labels)]
    rows = []
    for image in images:
        if image["refused"] is not None:
            rows.append([image["name"], "", *[""] * 5, "refused", image["refused"]])
        for number, cell in enumerate(image["cells"]):
            same = cell.get("same_as")
            row = [
                image["name"],
                number,
                *cell["box"],
                cell["find_score"],
                cell["verdict"],
                cell["reason"],
                cell["label"],
            ]
            row += [cell["score"], cell["energy"], *((images[same[0]]["name"], same[1]) if same else ("", ""))]
            rows.append([*row, cell.get("reviewed"), *(cell["probabilities"][label] for label in labels)])
    return _csv(header, rows)


def count_csv(differential: Mapping[str, Any]) -> str:
    """Write a row for each class, in clinical order; each ends with how far the count was reviewed."""
    header = list(differential["rows"][0])
    pairs = {name for name in header if name.startswith(("interval", "reference")) or name.endswith("_interval")}
    columns = [part for name in header for part in ([f"{name}_low", f"{name}_high"] if name in pairs else [name])]
    rows = []
    for row in differential["rows"]:
        values = [row[name] if name in pairs else [row[name]] for name in header]
        values = [[None, None] if value is None else value for value in values]
        rows.append([*(value for part in values for value in part), differential["review"]["state"]])
    return _csv([*columns, "review"], rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        # a spreadsheet would run a file's name that begins like a formula
        texts = (
            f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
            for value in row
        )
        writer.writerow([*texts, *[""] * (len(header) - len(row))])
    return stream.getvalue()
