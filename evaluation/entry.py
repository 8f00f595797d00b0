"""One measurement of ``eval_results.json``: what it must hold, checked so that no two of its figures disagree."""

import math
from collections.abc import Collection, Mapping
from typing import Any

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll", "brier", "aurc")
OVER_CLASSES = ("balanced_accuracy", "macro_f1")  # a resample without a class says nothing of these
DECIMALS = (
    6  # of stored figures: finer than any interval, coarser than the rounding errors in which two machines differ
)
UNITS = ("photo", "overlap group")
ENTRY_KEYS = {
    "dataset",
    "split",
    "n_images",
    "n_photos",
    "left_out",
    "interval",
    "labels",
    "metrics",
    "recall",
    "confusion_matrix",
    "confusion_shares",
    "photo_level",
}
PHOTO_KEYS = {*METRICS, "recall", "n_correct", "n_photos", "confusion_matrix", "confusion_shares"}


class ResultsError(ValueError):
    """Results that are incomplete, contradict themselves, or hold what nobody understands."""


def require(condition: Any, where: str, came: Any, expected: str) -> None:
    """Raise a ResultsError that says what stands where, unless the condition holds."""
    if not condition:
        raise ResultsError(f"{where} is {came!r}; expected {expected}. Measure again rather than edit the file.")


def require_keys(mapping: Any, keys: Collection[str], where: str, free: bool = False) -> None:
    """Raise a ResultsError unless this is an object with these keys, and with others only if it is ``free`` to have them."""
    require(isinstance(mapping, Mapping), where, mapping, f"an object with the keys {sorted(keys)}")
    missing, unknown = sorted(set(keys) - set(mapping)), [] if free else sorted(set(mapping) - set(keys))
    wrong = [*[f"lacks {missing}"] * bool(missing), *[f"has unknown keys {unknown}"] * bool(unknown)]
    if wrong:
        raise ResultsError(
            f"{where} {' and '.join(wrong)}; expected {sorted(keys)} and {'any' if free else 'no'} others. Write it with the "
            "code of the same revision."
        )


def is_number(value: Any) -> bool:
    """Say whether this is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any, least: int = 1) -> bool:
    """Say whether this is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require_figure(figure: Any, where: str, more: tuple[str, ...] = (), bounded: bool = True) -> None:
    """Check one value with its interval, and counts beside it; unless it is ``bounded``, the interval may be null."""
    require_keys(figure, {"value", "low", "high", *more}, where)
    if not bounded and figure["low"] is None and figure["high"] is None:
        require(is_number(figure["value"]), f"{where}.value", figure["value"], "a finite number")
        return
    for key in ("value", "low", "high"):
        require(is_number(figure[key]), f"{where}.{key}", figure[key], "a finite number")
    require(figure["low"] <= figure["high"], f"{where}.low", figure["low"], f"at most its high, {figure['high']}")
    for key in more:
        require(is_count(figure[key]), f"{where}.{key}", figure[key], "a whole number above 0")


def _require_matrix(matrix: Any, size: int, total: int, where: str) -> None:
    square = isinstance(matrix, list) and [len(row) if isinstance(row, list) else -1 for row in matrix] == [size] * size
    require(square, where, matrix, f"{size} rows of {size} counts, one for each label")
    cells = [cell for row in matrix for cell in row]
    require(all(is_count(cell, 0) for cell in cells), where, matrix, "counts of 0 or more")
    require(sum(cells) == total, f"the sum of {where}", sum(cells), f"{total}, the number counted")


def _require_shares(shares: Any, matrix: list[list[int]], where: str) -> None:
    """Check the bounds of the rows' shares, and that the row of a class without images has none."""
    require_keys(shares, {"low", "high"}, where)
    for bound, rows in shares.items():
        require(isinstance(rows, list) and len(rows) == len(matrix), f"{where}.{bound}", rows, f"{len(matrix)} rows")
        for k, (row, counts) in enumerate(zip(rows, matrix, strict=True)):
            if not any(counts):
                require(row is None, f"{where}.{bound}[{k}]", row, "null, for a class without images")
                continue
            whole = isinstance(row, list) and len(row) == len(counts)
            right = whole and all(is_number(share) and 0 <= share <= 1 for share in row)
            require(right, f"{where}.{bound}[{k}]", row, f"{len(counts)} numbers from 0 to 1")
    for low, high in zip(shares["low"], shares["high"], strict=True):
        rising = low is None or all(a <= b for a, b in zip(low, high, strict=True))
        require(rising, f"{where}.low", low, f"at most its high, {high}")


def _require_equal(came: float, expected: float, where: str, reason: str) -> None:
    require(abs(came - expected) <= 10**-DECIMALS, where, came, f"{round(expected, DECIMALS)}, {reason}")


def _validate_level(
    level: Mapping, metrics: Any, labels: list[str], total: int, counts: tuple[str, ...], where: str, metrics_at: str
) -> None:
    """Check the figures of the images, or of the photos, against their confusion matrix."""
    matrix = level["confusion_matrix"]
    _require_matrix(matrix, len(labels), total, f"{where}.confusion_matrix")
    _require_shares(level["confusion_shares"], matrix, f"{where}.confusion_shares")
    for name in METRICS:
        _require_figure(metrics[name], f"{metrics_at}.{name}", bounded=name not in OVER_CLASSES)
    right = sum(matrix[k][k] for k in range(len(labels)))
    _require_equal(
        metrics["accuracy"]["value"], right / total, f"{metrics_at}.accuracy.value", "the confusion matrix's"
    )
    rows = {label: sum(row) for label, row in zip(labels, matrix, strict=True) if sum(row)}
    require_keys(level["recall"], rows, f"{where}.recall")
    for k, label in enumerate(labels):
        if label not in rows:
            continue
        figure, at = level["recall"][label], f"{where}.recall.{label}"
        _require_figure(figure, at, more=counts)
        require(figure["n"] == rows[label], f"{at}.n", figure["n"], f"{rows[label]}, its row's sum")
        _require_equal(figure["value"], matrix[k][k] / rows[label], f"{at}.value", "the confusion matrix's")
        for bound in ("low", "high"):
            share = level["confusion_shares"][bound][k][k]
            _require_equal(figure[bound], share, f"{at}.{bound}", "the diagonal of confusion_shares")


def validate_entry(entry: Any, where: str = "the entry") -> None:
    """Check one measurement, as ``evaluation.summary.summarise`` gives it.

    Parameters
    ----------
    entry
        The measurement.
    where
        What an error calls it.

    Raises
    ------
    ResultsError
        (a ValueError) As for ``evaluation.results.validate_results``.
    """
    require_keys(entry, ENTRY_KEYS | (entry.keys() & {"selective"} if isinstance(entry, Mapping) else set()), where)
    for key in ("dataset", "split"):
        require(isinstance(entry[key], str) and entry[key].strip(), f"{where}.{key}", entry[key], "a name")
    where = f"{where} ({entry['dataset']}, {entry['split']})"
    for key in ("n_images", "n_photos"):
        require(is_count(entry[key]), f"{where}.{key}", entry[key], "a whole number above 0")
    left_out = entry["left_out"]
    counted = isinstance(left_out, Mapping) and all(is_count(count) for count in left_out.values())
    require(counted, f"{where}.left_out", left_out, "the number of images left out for each reason, {} for none")
    interval = entry["interval"]
    require_keys(interval, {"level", "resamples", "seed", "unit", "n_units"}, f"{where}.interval")
    level = interval["level"]
    require(is_number(level) and 0 < level < 1, f"{where}.interval.level", level, "a number between 0 and 1")
    require(interval["unit"] in UNITS, f"{where}.interval.unit", interval["unit"], f"one of {list(UNITS)}")
    units, most = interval["n_units"], entry["n_photos"]
    # Where nothing overlaps, a photo is a group of its own.
    fits = is_count(units, 2) and (units == most if interval["unit"] == "photo" else units < most)
    require(fits, f"{where}.interval.n_units", units, f"2 or more, no more than the {most} photos, as the unit says")

    labels, photos = entry["labels"], entry["photo_level"]
    named = isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)
    require(named and len(set(labels)) == len(labels) >= 2, f"{where}.labels", labels, "two or more different names")
    require_keys(entry["metrics"], METRICS, f"{where}.metrics")
    _validate_level(entry, entry["metrics"], labels, entry["n_images"], ("n", "n_photos"), where, f"{where}.metrics")
    at = f"{where}.photo_level"
    require_keys(photos, PHOTO_KEYS | (photos.keys() & {"wrong"} if isinstance(photos, Mapping) else set()), at)
    require(is_count(photos["n_photos"]), f"{at}.n_photos", photos["n_photos"], "a whole number above 0")
    _validate_level(photos, photos, labels, photos["n_photos"], ("n",), at, at)
    for label, figure in entry["recall"].items():
        of_photos = photos["recall"].get(label, {}).get("n")
        require(figure["n_photos"] == of_photos, f"{where}.recall.{label}.n_photos", figure["n_photos"], f"{of_photos}")
    right = sum(photos["confusion_matrix"][k][k] for k in range(len(labels)))
    require(photos["n_correct"] == right, f"{at}.n_correct", photos["n_correct"], f"{right}, its diagonal")
    if "wrong" in photos:  # figures measured before it was kept lack it
        _validate_wrong(photos["wrong"], labels, photos["n_photos"] - right, f"{at}.wrong")
    if "selective" in entry:
        _validate_selective(entry["selective"], f"{where}.selective")


def _validate_wrong(wrong: Any, labels: list[str], most: int, where: str) -> None:
    require(isinstance(wrong, list) and len(wrong) <= most, where, wrong, f"a list of {most} photos or fewer")
    for number, photo in enumerate(wrong):
        require_keys(photo, {"photo", "label", "answer", "probability"}, f"{where}[{number}]")
        names = {photo["label"], photo["answer"]}
        require(len(names) == 2 and names <= set(labels), f"{where}[{number}]", photo, f"two of {labels}")


def _validate_selective(selective: Any, where: str) -> None:
    require_keys(selective, {"threshold", "coverage", "accuracy", "accuracy_at"}, where)
    threshold = selective["threshold"]
    require(is_number(threshold) and 0 <= threshold <= 1, f"{where}.threshold", threshold, "a number from 0 to 1")
    for name in ("coverage", "accuracy"):
        _require_figure(selective[name], f"{where}.{name}")
    shares = selective["accuracy_at"]
    require(isinstance(shares, Mapping) and shares, f"{where}.accuracy_at", shares, "a figure for each coverage")
    for share, figure in shares.items():
        _require_figure(figure, f"{where}.accuracy_at.{share}")
