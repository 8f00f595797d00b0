"""Turn a classifier's probabilities into one entry of ``eval_results.json``, every figure with its interval.

An entry, figures being ``{"value": ..., "low": ..., "high": ...}``::

    {"dataset": "blood-cells", "split": "TEST, leak-free", "n_images": ..., "n_photos": ...,
     "left_out": {"cells also in the training images": images, ...},
     "interval": {"level": 0.95, "resamples": 2000, "seed": 0, "unit": "overlap group", "n_units": ...},
     "metrics": {"accuracy": figure, "balanced_accuracy": figure, "macro_f1": figure, "ece": figure, "nll": figure,
                 "brier": figure, "aurc": figure},
     "recall": {"monocyte": {"value": ..., "low": ..., "high": ..., "n": images, "n_photos": photos}, ...},
     "labels": ["eosinophil", ...], "confusion_matrix": [[...], ...],
     "confusion_shares": {"low": [[...], ...], "high": [[...], ...]},
     "photo_level": {"accuracy": figure, ..., "aurc": figure, "recall": {"monocyte": {..., "n": photos}, ...},
                     "n_correct": ..., "n_photos": ..., "confusion_matrix": [[...], ...], "confusion_shares": {...},
                     "wrong": [{"photo": ..., "label": ..., "answer": ..., "probability": of the answer}, ...]}}

A model that carries an acceptance threshold has also ``"selective": {"threshold": ..., "coverage": figure, "accuracy":
figure, "accuracy_at": {"0.75": figure, ...}}``: the share of the images whose top probability reaches the threshold, the share
right among these, and the share right among the surest 75, 85 and 95 % of the images.

Where fewer than half of the resamples show every class that the images have, as where classes lie on one or two slides, the
``low`` and ``high`` of ``balanced_accuracy`` and ``macro_f1`` are null: no interval is known.

``wrong`` lists the photos that are named wrongly, the surest first, twenty at most. ``confusion_shares`` bounds the share of
each row's images that fell into each column; the row of a class without images is null.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.entry import DECIMALS, METRICS, OVER_CLASSES
from evaluation.intervals import binomial_interval, group_bootstrap
from evaluation.metrics import check_predictions, of_all_classes, statistics
from evaluation.selective import risk_at, risk_coverage

COVERAGES = np.array([0.75, 0.85, 0.95])  # shares of the images, the surest first
LEAST = 0.5  # of the resamples must show every class
SHOWN = 20  # photos that are named wrongly, at most


def average_copies(
    probabilities: np.ndarray, references: np.ndarray, photos: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the probabilities over the copies of each photo.

    Copies of one photo that carry different labels count as one photo per label.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    photos
        The photo of each image, (N,).

    Returns
    -------
    (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        Mean probabilities, (photos, classes) float64; class numbers, (photos,); and the row of one of its images, (photos,).
    """
    _, number = np.unique(np.asarray(photos), return_inverse=True)  # (N,)
    keys, first, photo, copies = np.unique(
        np.stack([number, references]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    means = np.zeros((keys.shape[1], probabilities.shape[1]))
    np.add.at(means, photo.ravel(), probabilities)
    return means / copies[:, None], keys[1], first


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)


def as_figure(value: float, low: float, high: float, **counts: int) -> dict[str, Any]:
    """Round a value and its bounds for the file; bounds that are NaN become None."""
    bounds = {name: None if np.isnan(bound) else _rounded(bound) for name, bound in (("low", low), ("high", high))}
    return {"value": _rounded(value), **bounds, **counts}


def _require_names(names: Sequence[str], n_images: int, what: str) -> None:
    if len(names) != n_images or any(not isinstance(name, str) or not name for name in names):
        raise ValueError(
            f"{len(names)} {what}s came for {n_images} images, some of them perhaps empty; expected the name of a {what} for "
            "each. Give an image of unknown origin a name of its own."
        )


def _one_group_each(photos: Sequence[str], groups: Sequence[str]) -> None:
    group_of = {}
    for photo, group in zip(photos, groups, strict=True):
        if group_of.setdefault(photo, group) != group:
            raise ValueError(
                f"Copies of the photo {photo} stand in two groups, {group_of[photo]} and {group}; expected all in one, since "
                "they show the same cells. Correct the column 'group'."
            )


def _measure_level(
    probabilities: np.ndarray,
    references: np.ndarray,
    groups: Sequence[str],
    labels: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """Measure images, or photos, with bootstrap intervals over groups: metrics, recall, confusion_matrix and its shares."""
    values = statistics(probabilities, references)
    matrix = values["confusion_matrix"].astype(int)
    true, answered = np.nonzero(matrix)  # a cell that no image fell into stays empty in every resample

    def resampled(weights: np.ndarray) -> np.ndarray:
        drawn = statistics(probabilities, references, weights)
        for name in OVER_CLASSES:
            drawn[name] = of_all_classes(drawn[name], drawn["confusion_matrix"], matrix)
        rows = drawn["confusion_matrix"].sum(axis=-1)[:, true]
        shares = np.where(rows > 0, drawn["confusion_matrix"][:, true, answered] / np.maximum(rows, 1), np.nan)
        return np.column_stack([*(drawn[metric] for metric in METRICS), shares])  # (R, 7 + cells)

    low, high = group_bootstrap(
        resampled, len(references), groups, resamples, level, seed, numbers=matrix.size, least=LEAST
    )
    bounds = {}
    for name, bound in (("low", low), ("high", high)):
        shares = np.zeros(matrix.shape)
        shares[true, answered] = bound[len(METRICS) :]
        bounds[name] = shares
    present = matrix.sum(axis=1) > 0
    return {
        "metrics": {name: as_figure(values[name], low[k], high[k]) for k, name in enumerate(METRICS)},
        "recall": {
            label: as_figure(values["recall"][k], bounds["low"][k, k], bounds["high"][k, k], n=int(matrix[k].sum()))
            for k, label in enumerate(labels)
            if present[k]
        },
        "confusion_matrix": matrix.tolist(),
        "confusion_shares": {
            name: [
                [_rounded(share) for share in row] if here else None for row, here in zip(shares, present, strict=True)
            ]
            for name, shares in bounds.items()
        },
    }


def _misnamed(
    means: np.ndarray, references: np.ndarray, photos: Sequence[str], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """List the photos that are named wrongly, the surest first, at most ``SHOWN``."""
    answers = means.argmax(axis=1)
    wrong = np.flatnonzero(answers != references)
    return [
        {
            "photo": photos[row],
            "label": labels[references[row]],
            "answer": labels[answers[row]],
            "probability": _rounded(means[row, answers[row]]),
        }
        for row in wrong[np.argsort(-means[wrong, answers[wrong]], kind="stable")][:SHOWN]
    ]


def _measure_selective(
    probabilities: np.ndarray,
    references: np.ndarray,
    groups: Sequence[str],
    threshold: float,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """Measure the answers that reach a threshold, and the surest shares of the images, with intervals over groups."""
    accepted = probabilities.max(axis=1) >= threshold
    right = accepted & (probabilities.argmax(axis=1) == references)

    def resampled(weights: np.ndarray) -> np.ndarray:
        weights = np.atleast_2d(weights)
        answered, correct = weights @ accepted, weights @ right
        _, coverage, risk = risk_coverage(probabilities, references, weights)
        accuracy = np.divide(correct, answered, out=np.full(len(weights), np.nan), where=answered > 0)
        return np.column_stack([answered / weights.sum(axis=-1), accuracy, 1 - risk_at(COVERAGES, coverage, risk)])

    low, high = group_bootstrap(resampled, len(references), groups, resamples, level, seed, numbers=4 * len(references))
    values = resampled(np.ones(len(references)))[0]
    coverage, accuracy, *at = (as_figure(*row) for row in zip(values, low, high, strict=True))
    at = {f"{share:.2f}": value for share, value in zip(COVERAGES, at, strict=True)}
    return {"threshold": threshold, "coverage": coverage, "accuracy": accuracy, "accuracy_at": at}


def summarise(
    probabilities: np.ndarray,
    references: np.ndarray,
    photos: Sequence[str],
    labels: Sequence[str],
    name: str,
    split: str,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    left_out: Mapping[str, int] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Turn probabilities into one entry of ``eval_results.json`` (shown at the top of this file).

    Every interval is by ``group_bootstrap`` over groups of overlapping photos, or over photos where none overlap, of a mean
    over classes over those resamples that show all of them; the
    photo-level accuracy's is Clopper and Pearson's, exact where photos are independent.
    Figures are rounded to six decimals. A class without images has an
    empty row in the matrix and no recall.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    photos
        The photo of each image, (N,).
    labels
        Name of each class, in the order of the columns.
    name, split
        What was measured, for instance ``"blood-cells"`` and ``"TEST"``.
    resamples, level, seed
        Of the bootstrap.
    groups
        The group of overlapping photos of each image, (N,); None where no photos overlap.
    left_out
        Number of images that were left out before, by reason.
    threshold
        Least top probability of an answer that the model's own pipeline accepts; None where it has none. One that
        accepts nothing is measured as none.

    Raises
    ------
    ValueError
        Input that ``check_predictions`` refuses; photos or groups that are missing, not one per image, or at odds; fewer
        than two groups.
    """
    probabilities, references = check_predictions(probabilities, references, len(labels))
    _require_names(photos, len(references), "photo")
    groups = photos if groups is None else groups
    _require_names(groups, len(references), "group")
    _one_group_each(photos, groups)
    n_photos, n_units = len(set(photos)), len(set(groups))
    images = _measure_level(probabilities, references, groups, labels, resamples, level, seed)
    means, photo_class, first = average_copies(probabilities, references, photos)
    photo_groups = [groups[row] for row in first]
    by_photo = _measure_level(means, photo_class, photo_groups, labels, resamples, level, seed)
    for label, figure in images["recall"].items():
        figure["n_photos"] = by_photo["recall"][label]["n"]
    n_correct = int(np.trace(by_photo["confusion_matrix"]))
    exact = as_figure(n_correct / len(means), *binomial_interval(n_correct, len(means), level))
    entry = {
        "dataset": name,
        "split": split,
        "n_images": len(references),
        "n_photos": n_photos,
        "left_out": dict(left_out or {}),
        "interval": {
            "level": level,
            "resamples": resamples,
            "seed": seed,
            "unit": "photo" if n_units == n_photos else "overlap group",
            "n_units": n_units,
        },
        "metrics": images["metrics"],
        "recall": images["recall"],
        "labels": list(labels),
        "confusion_matrix": images["confusion_matrix"],
        "confusion_shares": images["confusion_shares"],
        "photo_level": {
            **by_photo["metrics"],
            "accuracy": exact,
            "recall": by_photo["recall"],
            "n_correct": n_correct,
            "n_photos": len(means),
            "confusion_matrix": by_photo["confusion_matrix"],
            "confusion_shares": by_photo["confusion_shares"],
            "wrong": _misnamed(means, photo_class, [photos[row] for row in first], labels),
        },
    }
    if threshold is not None and (probabilities.max(axis=1) >= threshold).any():
        entry["selective"] = _measure_selective(probabilities, references, groups, threshold, resamples, level, seed)
    return entry
