"""What is measured of a classifier's probabilities: plain numpy functions, and one ``evaluate.Metric`` of them all.

The functions below take checked input (``check_predictions``). Where they take ``weights``, these say how often each
image counts, shape (..., N): a bootstrap measures many resamples in one call, and no image is copied.
"""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from evaluation.selective import area_under_risk_coverage

BINS = 15  # of the calibration error, as in Guo et al. 2017
SUM_TOLERANCE = 1e-3  # a float16 softmax over a dozen classes stays within it, logits do not

# The resolution of a float32 probability near 1. One sure and wrong answer costs at most -ln(1.19e-7) = 15.9 nats.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def check_predictions(
    predictions: Sequence[Sequence[float]] | np.ndarray, references: Sequence[int] | np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Turn predictions and references into arrays that the functions of this file understand.

    Parameters
    ----------
    predictions
        Probabilities, (N, classes), each row summing to 1.
    references
        True classes, (N,), whole numbers from 0 to ``n_classes - 1``.
    n_classes
        Number of classes.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Probabilities, (N, classes) float64, and references, (N,) int64.

    Raises
    ------
    ValueError
        Shapes that do not fit each other or ``n_classes``, no image at all, probabilities that are not finite, not
        within [0, 1] or do not sum to 1 within 1e-3, references that are not whole numbers in range.
    """
    try:
        probabilities = np.asarray(predictions, dtype=np.float64)
        labels = np.asarray(references, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Predictions and references are not rectangular arrays of numbers ({error}); expected {n_classes} "
            "probabilities and one class number per image. Pass one row of equal length per image."
        ) from error
    if probabilities.ndim != 2 or probabilities.shape[1] != n_classes or not len(probabilities):
        raise ValueError(
            f"Predictions have shape {probabilities.shape}; expected (N >= 1, {n_classes}), one probability for each "
            "class. Pass the softmax of the logits, not the predicted class, and name every class."
        )
    if labels.shape != (len(probabilities),):
        raise ValueError(
            f"References have shape {labels.shape} for {len(probabilities)} predictions; expected "
            f"({len(probabilities)},). Pass exactly one true class per prediction."
        )
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=1)))
        raise ValueError(
            f"Prediction {row} is {probabilities[row].tolist()}; expected finite probabilities. NaN comes from a "
            "network that diverged or from an image with broken pixels: look at that image first."
        )
    sums = probabilities.sum(axis=1)  # (N,)
    wrong = (
        (np.abs(sums - 1) > SUM_TOLERANCE)
        | (probabilities < 0).any(axis=1)
        | (probabilities > 1 + SUM_TOLERANCE).any(axis=1)
    )
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Prediction {row} is {probabilities[row].tolist()} and sums to {sums[row]:.6g}; expected probabilities "
            "that sum to 1. Apply the softmax to the logits once."
        )
    wrong = ~((labels >= 0) & (labels < n_classes) & (labels == np.floor(labels)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Reference {row} is {labels[row]:g}; expected a whole number from 0 to {n_classes - 1}. Map the label "
            "names to the model's class numbers, and drop images without a label."
        )
    return probabilities, labels.astype(np.int64)


def _sums_by_bin(values: np.ndarray, bins: np.ndarray, n_bins: int, weights: np.ndarray | None) -> np.ndarray:
    """Add up values (N,) by their bin (N,), each times its weight (..., N): (..., n_bins)."""
    if weights is None:
        return np.bincount(bins, values, n_bins)
    rows = weights.reshape(-1, weights.shape[-1])  # (R, N)
    cells = np.arange(len(rows))[:, None] * n_bins + bins
    sums = np.bincount(cells.ravel(), (rows * values).ravel(), len(rows) * n_bins)
    return sums.reshape(*weights.shape[:-1], n_bins)


def confusion_matrix(
    predicted: np.ndarray, references: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Count how often each class was taken for each: (..., classes, classes), rows true, columns predicted.

    Parameters
    ----------
    predicted, references
        Class numbers, (N,).
    n_classes
        Number of classes.
    weights
        How often each image counts, (..., N); None counts each once.
    """
    cells = references * n_classes + predicted
    counts = _sums_by_bin(np.ones(len(cells)), cells, n_classes**2, weights)
    return counts.reshape(*counts.shape[:-1], n_classes, n_classes)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, and give NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Average over the last axis what is not NaN."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=-1) / defined.sum(axis=-1)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Give the share of images that were named rightly, from confusion matrices (..., classes, classes): (...)."""
    return np.trace(matrix, axis1=-2, axis2=-1) / matrix.sum(axis=(-2, -1))


def recall(matrix: np.ndarray) -> np.ndarray:
    """Give the share of each true class that was named rightly: (..., classes), NaN for a class without images."""
    return _ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Average the recall over the classes that are present among the references: (...).

    A class without images has no recall and is left out, as in ``sklearn.metrics.balanced_accuracy_score``.
    """
    return _mean_of_defined(recall(matrix))


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Average F1 = 2TP / (2TP + FP + FN) over the classes that are present or predicted: (...).

    A class that nobody has and nobody predicts is left out; one that is only predicted counts as 0, as in
    ``sklearn.metrics.f1_score(average="macro")``.
    """
    right = np.diagonal(matrix, axis1=-2, axis2=-1)
    return _mean_of_defined(_ratio(2 * right, matrix.sum(axis=-1) + matrix.sum(axis=-2)))


def of_all_classes(values: np.ndarray, drawn: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Give NaN in place of a mean over classes where a resample lacks a class: it is then a mean over other classes.

    Parameters
    ----------
    values
        Of each resample, (R,).
    drawn
        Confusion matrices of the resamples, (R, classes, classes).
    whole
        Confusion matrix of all images, (classes, classes).
    """
    missing = (drawn.sum(axis=-1) == 0) & (whole.sum(axis=-1) > 0)  # (R, classes)
    return np.where(missing.any(axis=-1), np.nan, values)


def expected_calibration_error(
    probabilities: np.ndarray, references: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> np.ndarray:
    """Measure how far the top probability is from the share of right answers: (...), from 0 to 1.

    The top probabilities are put into equal bins (lower, upper] of [0, 1]; the error is the mean over bins of
    |share right - mean top probability|, each bin weighted by its images (Guo et al. 2017, arXiv:1706.04599). It is
    never negative, so on few images even perfect probabilities show an error above zero.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    bins
        Number of bins.
    weights
        How often each image counts, (..., N); None counts each once.
    """
    confidence = probabilities.max(axis=1)  # (N,)
    surplus = confidence - (probabilities.argmax(axis=1) == references)
    gaps = _sums_by_bin(surplus, _bin_of(confidence, bins), bins, weights)  # (..., bins)
    total = len(references) if weights is None else weights.sum(axis=-1)
    return np.abs(gaps).sum(axis=-1) / total


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Number the equal bins (lower, upper] of [0, 1] that top probabilities fall into: (N,)."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confidence)


def reliability(
    probabilities: np.ndarray, references: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give what a reliability diagram shows, over the bins of ``expected_calibration_error``.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    bins
        Number of bins.
    weights
        How often each image counts, (..., N); None counts each once.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        Images in each bin, their mean top probability and the share of them named rightly, (..., bins) each; the latter two
        are NaN in an empty bin.
    """
    confidence = probabilities.max(axis=1)  # (N,)
    right = probabilities.argmax(axis=1) == references
    number = _bin_of(confidence, bins)
    count, sure, named = (
        _sums_by_bin(values, number, bins, weights) for values in (np.ones(len(number)), confidence, right)
    )
    return count, _ratio(sure, count), _ratio(named, count)


def negative_log_likelihood(
    probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average -ln(probability of the true class) over the images: (...), in nats.

    Probabilities below 1.19e-7 (the resolution of float32) count as 1.19e-7, so that one image costs at most 15.9 nats.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    weights
        How often each image counts, (..., N); None counts each once.
    """
    true = probabilities[np.arange(len(references)), references]
    losses = -np.log(np.clip(true, SMALLEST_PROBABILITY, 1.0))  # (N,)
    return losses.mean() if weights is None else (weights * losses).sum(axis=-1) / weights.sum(axis=-1)


def brier_score(probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Average over the images the squared distance of the probabilities from the truth: (...), from 0 to 2.

    The squared differences are summed over the classes, as Brier 1950 did and as
    ``sklearn.metrics.brier_score_loss(scale_by_half=False)`` does; halved for two classes, it is the other definition.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    weights
        How often each image counts, (..., N); None counts each once.
    """
    true = probabilities[np.arange(len(references)), references]
    distances = (probabilities**2).sum(axis=1) - 2 * true + 1  # (N,): the sum of (p - truth)^2, multiplied out
    return distances.mean() if weights is None else (weights * distances).sum(axis=-1) / weights.sum(axis=-1)


def statistics(
    probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Give every figure of this file at once.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    weights
        How often each image counts, (..., N); None counts each once.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``ece``, ``nll``, ``brier`` and ``aurc`` (the area under the
        risk-coverage curve of ``evaluation.selective``), each (...); ``recall``, (..., classes); ``confusion_matrix``,
        (..., classes, classes).
    """
    matrix = confusion_matrix(probabilities.argmax(axis=1), references, probabilities.shape[1], weights)
    return {
        "accuracy": accuracy(matrix),
        "balanced_accuracy": balanced_accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "ece": expected_calibration_error(probabilities, references, weights=weights),
        "nll": negative_log_likelihood(probabilities, references, weights),
        "brier": brier_score(probabilities, references, weights),
        "aurc": area_under_risk_coverage(probabilities, references, weights),
        "recall": recall(matrix),
        "confusion_matrix": matrix,
    }


class ClassificationReport(evaluate.Metric):
    """Report every figure of ``statistics``: what is right, how well the probabilities fit, and how errors are foreseen.

    Works without a network: import it and make an instance. It compares as false (it is an empty container until it is
    fed), so test for it with ``is not None``.

    Parameters
    ----------
    class_names
        Name of each class, in the order of the probabilities.
    keep_in_memory
        Collect predictions in memory (32 bytes an image for four classes) rather than in a file of the user's cache.
    **options
        Passed on to ``evaluate.Metric``.

    Raises
    ------
    ValueError
        Fewer than two classes, or a name given twice.

    Examples
    --------
    >>> report = ClassificationReport(["eosinophil", "lymphocyte"])
    >>> report.compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1])["recall"]
    {'eosinophil': 1.0, 'lymphocyte': 1.0}
    """

    def __init__(self, class_names: Sequence[str], keep_in_memory: bool = True, **options):
        self.class_names = list(class_names)
        if (
            isinstance(class_names, str)
            or len(set(self.class_names)) != len(self.class_names)
            or len(self.class_names) < 2
        ):
            raise ValueError(
                f"class_names is {class_names!r}; expected two or more different names. Pass the names of "
                "config.id2label in the order of their numbers."
            )
        super().__init__(keep_in_memory=keep_in_memory, **options)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=(
                "Accuracy, balanced accuracy, macro-F1, recall, confusion matrix, calibration error, log-likelihood, Brier "
                "score, area under the risk-coverage curve."
            ),
            citation="",
            inputs_description=(
                "predictions: probabilities, (N, classes), each row summing to 1. "
                f"references: class numbers, (N,), in the order {self.class_names}."
            ),
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def add_batch(self, *, predictions=None, references=None, **unknown):
        """Add predictions (N, classes) and references (N,); ValueError when ``check_predictions`` refuses them."""
        if unknown:
            raise ValueError(f"Unknown inputs {sorted(unknown)}; expected predictions and references only.")
        # Arrow would cut a reference of 0.7 down to 0 without a word.
        probabilities, labels = check_predictions(predictions, references, len(self.class_names))
        super().add_batch(predictions=probabilities, references=labels)

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict:
        """Report on all that was added.

        Returns
        -------
        dict
            ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``ece`` (15 equal bins), ``nll`` (nats), ``brier`` (0 to 2)
            and ``aurc`` as floats; ``recall``, a dict by class name over the classes that are present among the references;
            ``confusion_matrix``, a list of rows of ints, rows true, columns predicted.
        """
        values = statistics(*check_predictions(predictions, references, len(self.class_names)))
        matrix, by_class = values.pop("confusion_matrix"), values.pop("recall")
        return {
            **{name: float(value) for name, value in values.items()},
            "recall": {
                name: float(value)
                for name, value in zip(self.class_names, by_class, strict=True)
                if not np.isnan(value)
            },
            "confusion_matrix": matrix.astype(int).tolist(),
        }
