"""Answering only when sure: how many images are still answered, and how many of those answers are wrong.

As in ``evaluation.metrics``, input is checked (``check_predictions``) and ``weights`` (..., N) say how often each image
counts.
"""

import numpy as np


def risk_coverage(
    probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower the probability that an answer must reach, step by step, and say what is answered and what of it is wrong.

    Images with the same top probability are answered together, since no threshold tells them apart.

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
    (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        The T different top probabilities, falling, (T,); the coverage at each, which is the share of the images that are
        answered, (..., T), rising to 1; and the risk, which is the share of the answers that are wrong, (..., T), 0 where
        weights of zero leave nothing answered.
    """
    confidence = probabilities.max(axis=1)  # (N,)
    wrong = probabilities.argmax(axis=1) != references
    order = np.argsort(-confidence, kind="stable")
    first = np.flatnonzero(np.diff(confidence[order], prepend=np.inf))  # (T,), where each top probability begins
    counted = np.ones(len(order)) if weights is None else weights[..., order]
    answered = np.add.reduceat(counted, first, axis=-1).cumsum(axis=-1)
    errors = np.add.reduceat(counted * wrong[order], first, axis=-1).cumsum(axis=-1)
    risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
    return confidence[order][first], answered / answered[..., -1:], risk


def area_under_risk_coverage(
    probabilities: np.ndarray, references: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Average, over the images, the risk at the threshold that just lets each image in: (...), from 0 to 1, less is better.

    The area under the risk-coverage curve (Geifman & El-Yaniv 2017, arXiv:1705.08500; Geifman, Uziel & El-Yaniv 2019,
    arXiv:1805.08206), which is small when a classifier is mostly right and its errors are its least sure answers. If all
    images are equally sure, it is the error rate.

    Parameters
    ----------
    probabilities, references, weights
        As in ``risk_coverage``.
    """
    _, coverage, risk = risk_coverage(probabilities, references, weights)
    return (np.diff(coverage, axis=-1, prepend=0.0) * risk).sum(axis=-1)


def risk_at(coverages: np.ndarray, coverage: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Read a risk-coverage curve where at least these shares of the images are answered.

    Parameters
    ----------
    coverages
        Shares above 0 and at most 1, (C,).
    coverage, risk
        One or more curves as ``risk_coverage`` gives them, (..., T).

    Returns
    -------
    numpy.ndarray
        The risk at the first threshold that answers enough, (..., C).
    """
    flat = zip(coverage.reshape(-1, coverage.shape[-1]), risk.reshape(-1, risk.shape[-1]), strict=True)
    # Shares that are sums of the same whole numbers differ by rounding alone.
    rows = [errors[np.searchsorted(shares, coverages - 1e-9)] for shares, errors in flat]
    return np.stack(rows).reshape(*coverage.shape[:-1], len(coverages))


def operating_point(
    probabilities: np.ndarray, references: np.ndarray, right: float
) -> tuple[float, float, float] | None:
    """Find the lowest threshold whose answers are right at this share: the most that can be answered so.

    It is chosen on the very images it is stated for, so on others the share right tends to be lower.

    Parameters
    ----------
    probabilities, references
        As in ``risk_coverage``.
    right
        Share of the answers that must be right, above 0 and at most 1.

    Returns
    -------
    (float, float, float) or None
        Probability that an answer must reach, coverage, and share right; None when no threshold will do.

    Raises
    ------
    ValueError
        A share outside (0, 1].
    """
    if not 0 < right <= 1:
        raise ValueError(f"The share to be right is {right}; expected more than 0 and at most 1, such as 0.99.")
    threshold, coverage, risk = risk_coverage(probabilities, references)
    enough = np.flatnonzero(risk <= 1 - right + 1e-12)
    if not len(enough):
        return None
    last = enough[-1]
    return float(threshold[last]), float(coverage[last]), float(1 - risk[last])
