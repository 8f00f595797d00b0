"""Put a model to the test beyond clean cells: degraded and turned pictures, pictures without a white cell, unknown cells.

Each function gives one JSON-able entry; figures are ``{"value": ..., "low": ..., "high": ...}`` with an interval. As in
``evaluation.measure``, any folder that ``AutoModelForImageClassification`` loads will do, through its own image processor.
Pictures are made and classified one batch at a time; what is kept of each is its logits.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from scipy.special import logsumexp, softmax

from evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from evaluation.entry import DECIMALS
from evaluation.evidence import FRAMING
from evaluation.framing import WINDOWS, Box
from evaluation.intervals import binomial_interval
from evaluation.labels import Answers, label_numbers, match_labels
from evaluation.measure import load_config, read_logits
from evaluation.metrics import balanced_accuracy, confusion_matrix, of_all_classes
from evaluation.probe import Setting, bounded, choose, facts
from evaluation.summary import LEAST, as_figure
from evaluation.symmetry import VIEWS, average_views, eight_views, stays

SCORES = ("not_a_cell", "energy", "energy_of_cells")


def _match(folder: Path | str, dataset: datasets.Dataset, label_map: Mapping[str, str] | None) -> Answers:
    labels, names = label_numbers(dataset)
    return match_labels(load_config(folder).id2label, names, set(labels), label_map)


def corruption_entry(
    folder: Path | str,
    dataset: datasets.Dataset,
    label_map: Mapping[str, str] | None = None,
    setting: Setting | None = None,
) -> dict[str, Any]:
    """Measure the balanced error on images that are corrupted in eleven ways, each at five severities.

    The balanced error is 1 minus the mean recall of the classes that have images, as MedMNIST-C has it. Its mean is over the 55
    of them; it is not divided by a reference network's. What an image's corruptions draw depends on its pixels and the seed.

    Parameters
    ----------
    folder, dataset, label_map
        As in ``evaluation.measure.answer``; the column ``file`` may be missing.
    setting
        Left out: all images, on a GPU if there is one.

    Returns
    -------
    dict
        ``clean`` and ``mean``, figures; ``corruptions``, for each name its ``mean`` over the severities, a figure, and
        ``severities``, five errors; ``n_images``, ``n_photos``, ``n_groups`` and ``interval``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``evaluation.measure.answer``; fewer than two groups.
    """
    setting = setting or Setting()
    chosen = choose(dataset, setting)
    answers = _match(folder, dataset, label_map)

    def pictures() -> Iterator[Image.Image]:
        for image in chosen.open():
            seed = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:6]) + setting.seed
            yield Image.fromarray(image)
            for name in CORRUPTIONS:
                for severity in SEVERITIES:
                    yield Image.fromarray(corrupt(image, name, severity, seed))

    versions = 1 + len(CORRUPTIONS) * len(SEVERITIES)
    logits = read_logits(
        folder, pictures(), len(chosen.labels) * versions, "corrupted images", setting.batch_size, setting.device
    )
    predicted = answers.merge(softmax(logits, axis=1)).argmax(axis=1).reshape(-1, versions)  # (n, 56)
    references = np.array([answers.answer_of_label[label] for label in chosen.labels])
    n_answers = len(answers.names)

    def errors(weights: np.ndarray) -> np.ndarray:
        matrices = (confusion_matrix(column, references, n_answers, weights) for column in predicted.T)
        clean, *others = (1 - balanced_accuracy(matrix) for matrix in matrices)
        others = np.stack(others, axis=-1).reshape(len(weights), len(CORRUPTIONS), len(SEVERITIES))
        means = others.mean(axis=-1)  # (R, 11)
        return np.column_stack([clean, means.mean(axis=-1), means, others.reshape(len(weights), -1)])

    values, figures = bounded(errors, chosen, setting, versions)
    single = values[2 + len(CORRUPTIONS) :].reshape(len(CORRUPTIONS), len(SEVERITIES)).round(DECIMALS).tolist()
    return {
        **facts(chosen, setting),
        "clean": figures[0],
        "mean": figures[1],
        "corruptions": {
            name: {"mean": figures[2 + number], "severities": single[number]} for number, name in enumerate(CORRUPTIONS)
        },
    }


def symmetry_entry(
    folder: Path | str,
    dataset: datasets.Dataset,
    label_map: Mapping[str, str] | None = None,
    setting: Setting | None = None,
) -> dict[str, Any]:
    """Measure whether answers stay when images are turned and mirrored, and what averaging over the eight views is worth.

    Parameters
    ----------
    folder, dataset, label_map, setting
        As in ``corruption_entry``.

    Returns
    -------
    dict
        ``same_under_all``, the share of images whose top label is one under all eight views; ``same_on_average``, the mean
        share of the seven other views with the label of the image as it is; ``balanced_accuracy`` of the images as they are and
        ``balanced_accuracy_of_views``, of the mean probability of the eight; ``gain``, the latter minus the former, on the same
        images. Figures all; and ``n_images``, ``n_photos``, ``n_groups`` and ``interval``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``corruption_entry``.
    """
    setting = setting or Setting()
    chosen = choose(dataset, setting)
    answers = _match(folder, dataset, label_map)
    pictures = (Image.fromarray(view) for image in chosen.open() for view in eight_views(image))
    logits = read_logits(
        folder, pictures, len(chosen.labels) * len(VIEWS), "turned images", setting.batch_size, setting.device
    )
    probabilities = answers.merge(softmax(logits, axis=1)).reshape(
        len(chosen.labels), len(VIEWS), -1
    )  # (n, 8, answers)
    references = np.array([answers.answer_of_label[label] for label in chosen.labels])
    predicted = probabilities.argmax(axis=-1)
    same = stays(predicted)  # (n, 7)
    averaged = average_views(probabilities).argmax(axis=-1)

    def measured(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=-1)
        shares = [weights @ share / total for share in (same.all(axis=-1), same.mean(axis=-1))]
        one, mean = (
            balanced_accuracy(confusion_matrix(top, references, len(answers.names), weights))
            for top in (predicted[:, 0], averaged)
        )
        return np.column_stack([*shares, one, mean, mean - one])

    names = ("same_under_all", "same_on_average", "balanced_accuracy", "balanced_accuracy_of_views", "gain")
    _, figures = bounded(measured, chosen, setting)
    return {**facts(chosen, setting), **dict(zip(names, figures, strict=True))}


def stranger_entry(
    folder: Path | str,
    pictures: Iterable[tuple[str, Image.Image]],
    negatives: str | None = None,
    setting: Setting | None = None,
    total: int | None = None,
) -> dict[str, Any]:
    """Count how many pictures without a white cell are accepted as one.

    A picture is accepted when its top label is not the class for negatives and the label's probability is at least the model's
    ``acceptance_threshold``, if its ``config.json`` has one. Where it has an ``energy_threshold`` too, those are counted apart
    whose energy, -logsumexp(logits), is not above it: what the model's own pipeline would accept.

    The intervals are Clopper and Pearson's: of drawings, for other drawings of the kind; of parts of a few photographs and of
    windows of a few smears, which are not independent, they are too narrow.

    Parameters
    ----------
    folder
        As in ``corruption_entry``.
    pictures
        The kind of each, and the picture, RGB.
    negatives
        The model's class that means "none of the others"; None takes ``negatives_label`` of its ``config.json``, and where that
        has none, every label is a white cell's.
    setting
        ``batch_size``, ``device`` and ``level`` are read.
    total
        How many there will be, for the progress bar.

    Returns
    -------
    dict
        ``negatives``, ``acceptance_threshold`` and ``energy_threshold``, null where there is none; ``level`` of the intervals;
        ``kinds``, for each kind ``n``, ``accepted`` (a figure with its ``count``), with an energy threshold
        ``accepted_and_familiar`` (the same), and ``called``, how often which label was accepted; and ``all``, the same of all.

    Raises
    ------
    FileNotFoundError, ValueError
        A model that ``evaluation.measure.load_model`` refuses or without the class ``negatives``; no picture.
    """
    setting, rules, kinds = setting or Setting(), read_rules(folder, negatives), []

    def shown() -> Iterator[Image.Image]:
        for kind, picture in pictures:
            kinds.append(kind)
            yield picture

    logits = read_logits(
        folder, shown(), total, "pictures without a white cell", setting.batch_size, setting.device
    ).astype(np.float64)
    top = logits.argmax(axis=1)
    accepted, familiar = rules.accept(logits)

    def counted(rows: np.ndarray) -> dict[str, Any]:
        n, counts = int(rows.sum()), {"accepted": accepted}
        if rules.energy_threshold is not None:
            counts["accepted_and_familiar"] = familiar
        shares = {}
        for name, rule in counts.items():
            count = int(rule[rows].sum())
            shares[name] = {"count": count} | as_figure(count / n, *binomial_interval(count, n, setting.level))
        called = Counter(rules.names[label] for label in top[rows & accepted])
        return {"n": n, **shares, "called": dict(called.most_common())}

    kind_of = np.array(kinds)
    return {
        "negatives": rules.negatives,
        "acceptance_threshold": rules.acceptance_threshold,
        "energy_threshold": rules.energy_threshold,
        "level": setting.level,
        "kinds": {kind: counted(kind_of == kind) for kind in dict.fromkeys(kinds)},
        "all": counted(np.ones(len(kinds), bool)),
    }


def framing_entry(
    folder: Path | str,
    dataset: datasets.Dataset,
    boxes: Sequence[Box],
    cut: Callable[[Image.Image, Box, float], Image.Image],
    find: Callable[[np.ndarray], Sequence[Box]],
    usual: float,
    label_map: Mapping[str, str] | None = None,
    negatives: str | None = None,
    setting: Setting | None = None,
) -> dict[str, Any]:
    """Measure what it costs to cut cells out more closely or less: squares of ``evaluation.framing.WINDOWS``.

    Parameters
    ----------
    folder, dataset, label_map, setting
        As in ``corruption_entry``; the images are whole ones, a field's too.
    boxes
        Of each row's cell, (row_min, col_min, row_max, col_max), px.
    cut
        Takes an image, a box and the square's side in longer sides of the box, and gives the square.
    find
        Gives the boxes of the white cells in a picture (H, W, 3), uint8 RGB.
    usual
        One of the windows, beside which the others lose or gain.
    negatives
        As in ``stranger_entry``.

    Returns
    -------
    dict
        ``usual``; ``windows``, for each its ``window`` and five figures: ``balanced_accuracy``; ``lost``, how much less that is
        than at the usual window, on the same cells; ``named``, the share of the cells that are named a white cell at the
        model's thresholds; ``right``, of all the share that are named so and rightly; ``overlooked``, the share of the squares
        in which ``find`` finds no cell. ``n_images``, ``n_photos``, ``n_groups`` and ``interval``; a balanced accuracy has none
        where most resamples lack a class.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``corruption_entry`` and ``stranger_entry``; another number of boxes than of rows; another usual window.
    """
    if len(boxes) != len(dataset) or usual not in WINDOWS:
        raise ValueError(
            f"{len(boxes)} boxes came for {len(dataset)} rows, and {usual} as the usual window; expected a box for each, and "
            f"one of {WINDOWS}."
        )
    setting, rules = setting or Setting(), read_rules(folder, negatives)
    chosen = choose(dataset, setting)
    answers = _match(folder, dataset, label_map)
    overlooked = []

    def squares() -> Iterator[Image.Image]:
        for row, image in zip(chosen.rows, chosen.open(), strict=True):
            for window in WINDOWS:
                square = cut(Image.fromarray(image), boxes[row], window)
                overlooked.append(not find(np.asarray(square)))
                yield square

    total = len(chosen.labels) * len(WINDOWS)
    logits = read_logits(folder, squares(), total, "cells cut out", setting.batch_size, setting.device).astype(
        np.float64
    )
    missed = np.reshape(overlooked, (-1, len(WINDOWS)))
    named = rules.accept(logits)[1].reshape(-1, len(WINDOWS))  # (n, windows)
    predicted = answers.merge(softmax(logits, axis=1)).argmax(axis=1).reshape(-1, len(WINDOWS))
    references = np.array([answers.answer_of_label[label] for label in chosen.labels])
    right = named & (predicted == references[:, None])
    whole = confusion_matrix(references, references, len(answers.names))

    def measured(weights: np.ndarray) -> np.ndarray:
        drawn = [confusion_matrix(column, references, len(answers.names), weights) for column in predicted.T]
        columns = [of_all_classes(balanced_accuracy(matrix), matrix, whole) for matrix in drawn]
        lost = [columns[WINDOWS.index(usual)] - column for column in columns]
        shares = [weights @ share / weights.sum(axis=-1) for share in (*named.T, *right.T, *missed.T)]
        return np.column_stack([*columns, *lost, *shares])

    _, figures = bounded(measured, chosen, setting, least=LEAST)
    return {
        **facts(chosen, setting),
        "usual": usual,
        "windows": [
            {"window": window} | {key: figures[len(WINDOWS) * place + number] for place, key in enumerate(FRAMING)}
            for number, window in enumerate(WINDOWS)
        ],
    }


@dataclass(frozen=True)
class Rules:
    """When an answer of a model is accepted as a white cell's name.

    Attributes
    ----------
    names
        Its classes, by number.
    negatives
        The one that means "none of the others", or None.
    acceptance_threshold, energy_threshold
        As in its ``config.json``, or None.
    """

    names: list[str]
    negatives: str | None
    acceptance_threshold: float | None
    energy_threshold: float | None

    def accept(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Say which answers (N, classes) are accepted by class and probability, and which by energy too: (N,) bool."""
        accepted = softmax(logits, axis=1).max(axis=1) >= (self.acceptance_threshold or 0)
        if self.negatives is not None:
            accepted &= logits.argmax(axis=1) != self.names.index(self.negatives)
        if self.energy_threshold is None:
            return accepted, accepted
        return accepted, accepted & (-logsumexp(logits, axis=1) <= self.energy_threshold)


def read_rules(folder: Path | str, negatives: str | None = None) -> Rules:
    """Read a model's rules; ``negatives`` goes before what its ``config.json`` names.

    Raises
    ------
    FileNotFoundError, ValueError
        As ``evaluation.measure.load_config``; the model has no class ``negatives``.
    """
    config = load_config(folder)
    names = [config.id2label[number] for number in sorted(config.id2label)]
    negatives = negatives or getattr(config, "negatives_label", None)
    if negatives is not None and negatives not in names:
        raise ValueError(
            f"The class for negatives is {negatives!r}, which the model in {folder} does not know; it knows {names}. Correct "
            "it, or leave it out if every class is a white cell's."
        )
    return Rules(names, negatives, *(getattr(config, f"{name}_threshold", None) for name in ("acceptance", "energy")))


def weighted_auroc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Give the probability that a positive scores higher than a negative, ties counting half, of weighted images.

    The same as ``sklearn.metrics.roc_auc_score(positive, scores, sample_weight=...)``, for many rows of weights at once.

    Parameters
    ----------
    scores
        (N,).
    positive
        (N,) bool.
    weights
        How often each image counts, (R, N).

    Returns
    -------
    numpy.ndarray
        (R,), NaN where the positives or the negatives count nothing.
    """
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where each different score begins
    weights = weights[:, order]
    ups = np.add.reduceat(weights * positive[order], first, axis=1)  # (R, different scores)
    downs = np.add.reduceat(weights * ~positive[order], first, axis=1)
    wins = (ups * (downs.cumsum(axis=1) - downs / 2)).sum(axis=1)
    pairs = ups.sum(axis=1) * downs.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def anomaly_entry(
    folder: Path | str,
    dataset: datasets.Dataset,
    cells: Sequence[str],
    familiar: Sequence[str],
    anomalies: Sequence[str],
    setting: Setting | None = None,
) -> dict[str, Any]:
    """Measure how well scores tell cells of other kinds from the white cells that the model names.

    The scores are 1 minus the probability of the classes ``cells`` together (``not_a_cell``; it says nothing where the model
    has no other class); the energy, -logsumexp of all logits (``energy``; Liu et al. 2020, arXiv:2010.03759), which is low for
    all that the model has a class for, be it one of negatives; and the energy of the logits of ``cells`` alone
    (``energy_of_cells``). Strangers are to score higher.

    Parameters
    ----------
    folder
        As in ``corruption_entry``.
    dataset
        As in ``corruption_entry``, labelled with the laboratory's own classes.
    cells
        The model's classes of white cells.
    familiar
        The data set's labels of cells that the model knows.
    anomalies
        The data set's labels of other cells, each compared with all ``familiar`` ones together.
    setting
        As in ``corruption_entry``.

    Returns
    -------
    dict
        ``n_familiar``; ``anomalies``, for each label ``n`` and for each score its AUROC, a figure; ``n_images``, ``n_photos``,
        ``n_groups`` and ``interval``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``corruption_entry``; classes or labels that are not there or have no images, or stand on both sides.
    """
    setting, config = setting or Setting(), load_config(folder)
    classes = [config.id2label[number] for number in sorted(config.id2label)]
    if unknown := sorted(set(cells) - set(classes)):
        raise ValueError(
            f"The cells {unknown} are no classes of the model in {folder}; it knows {classes}. Correct them."
        )
    numbers, names = label_numbers(dataset)
    present = [names[number] for number in sorted(set(numbers))]
    wanted = [*familiar, *anomalies]
    if not familiar or not anomalies or len(set(wanted)) < len(wanted) or not set(wanted) <= set(present):
        raise ValueError(
            f"The familiar labels are {list(familiar)} and the anomalies {list(anomalies)}; expected one or more of each, each "
            f"once, among the labels with images, {present}. Correct them."
        )
    chosen = choose(dataset, setting, set(wanted).__contains__)
    pictures = (Image.fromarray(image) for image in chosen.open())
    logits = read_logits(
        folder, pictures, len(chosen.labels), "unknown cells", setting.batch_size, setting.device
    ).astype(np.float64)
    columns = [classes.index(name) for name in cells]
    others = [number for number, name in enumerate(classes) if name not in cells]
    scores = {
        "not_a_cell": softmax(logits, axis=1)[:, others].sum(axis=1),  # 1 - p would rank rounding errors
        "energy": -logsumexp(logits, axis=1),
        "energy_of_cells": -logsumexp(logits[:, columns], axis=1),
    }
    of_label = {name: chosen.labels == names.index(name) for name in wanted}
    known = np.any([of_label[name] for name in familiar], axis=0)
    pairs = [(name, score) for name in anomalies for score in SCORES]
    if empty := [name for name in wanted if not of_label[name].any()]:
        raise ValueError(f"No image of {empty} is among {len(chosen.labels)}; expected one or more. Raise the limit.")

    def areas(weights: np.ndarray) -> np.ndarray:
        return np.column_stack(
            [weighted_auroc(scores[score], of_label[name], weights * (known | of_label[name])) for name, score in pairs]
        )

    _, figures = bounded(areas, chosen, setting)
    found = {name: {"n": int(of_label[name].sum())} for name in anomalies}
    for (name, score), figure in zip(pairs, figures, strict=True):
        found[name][score] = figure
    return {**facts(chosen, setting), "n_familiar": int(known.sum()), "anomalies": found}
