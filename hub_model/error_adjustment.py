"""Correct a count for the classifier's own errors, as they were counted on validation cells of known class.

A cell's *outcome* is its verdict, or, where that is "unidentified", the likeliest class and a question mark: "monocyte?" tells
less than "monocyte", but something. The outcomes on a slide are a mixture of the classes' own outcomes (Tenenbein 1972,
doi:10.1080/00401706.1972.10488892; "Rogan and Gladen" for more than two classes). All that is unknown is drawn at once by
Gibbs sampling: the slide's true shares, how often each class has each outcome, and which class each cell is of (Tanner and
Wong 1987, doi:10.1080/01621459.1987.10478458). What the draws spread over holds both the sampling and the errors.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtri

UNIDENTIFIED = "unidentified"
CHAINS, BURN_IN, KEPT = 128, 40, 120  # of the sampler: 15,360 draws; 95 % limits then stay within 0.15 points
SEED = 20  # fixed, so that the same cells give the same figures
SHARE_PRIOR = 0.5  # cells, of each class's share: Jeffreys
# Before a laboratory's own cells are counted, a class's outcomes there are expected to be like those in the others, each of
# which says as much as any, with the weight of so many cells; and each outcome is possible. Both were chosen by how likely
# they made the counts of one laboratory's validation, given those of the others.
OTHERS_CELLS = 2.0
POSSIBLE = 0.05  # added to each outcome's share, summed over the others
MISFIT = 0.001  # a slide whose outcomes chance would make so rarely in every laboratory is like none of them


def outcome(cell: Mapping[str, Any]) -> str:
    """Give a cell's verdict, or its likeliest class and a question mark where it is unidentified."""
    return f"{cell['label']}?" if cell["verdict"] == UNIDENTIFIED else cell["verdict"]


def outcomes(classes: Sequence[str]) -> list[str]:
    """List what a cell's outcome may be."""
    return [*classes, *(f"{name}?" for name in classes)]


def adjust(
    seen: Mapping[str, int],
    reviewed: Mapping[str, int],
    classes: Sequence[str],
    confusion: Mapping[str, Mapping[str, Mapping[str, int]]],
    laboratory: str | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float], bool]:
    """Draw the true shares of a slide's classes, given its cells' outcomes and the classifier's errors on validation.

    Args:
        seen: how many cells, of those that nobody reviewed, had each outcome.
        reviewed: how many cells a person named so.
        classes: the model's classes.
        confusion: by laboratory, class and outcome, how many validation cells had that outcome.
        laboratory: whose errors apply; None weighs all by how likely they make the outcomes.

    Returns:
        Draws (15360,) of each class's share, 0..1; the weight of each laboratory, adding up to 1; and whether the errors of
        any of them make the outcomes plausible.

    Raises:
        ValueError: the confusion has other classes or outcomes, or counts that are none.
    """
    matrices = _matrices(confusion, classes)  # each (C, 2 C)
    if laboratory is not None:
        matrices = {laboratory: matrices[laboratory]}
    cells = np.array([seen.get(name, 0) for name in outcomes(classes)])  # (2 C,)
    known = np.array([reviewed.get(name, 0) for name in classes])  # (C,)
    likelihoods = {name: _log_likelihood(cells, known, matrix) for name, matrix in matrices.items()}
    best = max(likelihoods.values())
    free = cells[cells > 0]
    saturated = float((free * np.log(free / free.sum())).sum()) if free.size else 0.0
    powers = {name: math.exp(value - best) for name, value in likelihoods.items()}
    weights = {name: round(value / sum(powers.values()), 6) for name, value in powers.items()}
    chains = _deal(list(weights.values()), CHAINS)
    prior = np.repeat(np.stack(list(matrices.values())), chains, axis=0)  # (chains, C, 2 C)
    draws = _gibbs(cells, known, prior)  # (draws, C)
    # outcomes beyond the classes' number are what the shares cannot explain (Wilks 1938, doi:10.1214/aoms/1177732360)
    fits = 2 * (saturated - best) <= chdtri(len(classes), MISFIT)
    return dict(zip(classes, draws.T, strict=True)), weights, fits


def _matrices(confusion: Mapping[str, Any], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Turn counts into Dirichlet parameters (C, 2 C) for each laboratory: its cells, and what the others' tell."""
    columns, counts = outcomes(classes), {}
    for name, table in sorted(confusion.items()):
        matrix = np.zeros((len(classes), len(columns)))
        for true, row in table.items():
            for had, count in row.items():
                if true not in classes or had not in columns or not isinstance(count, int) or count < 0:
                    raise ValueError(
                        f"The confusion of {name} says {true!r} came out as {had!r} {count!r} times; expected classes of "
                        f"{list(classes)}, each perhaps with a question mark, and whole numbers. Measure it anew."
                    )
                matrix[classes.index(true), columns.index(had)] = count
        counts[name] = matrix
    shares = {name: matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) for name, matrix in counts.items()}
    expected = {
        name: sum((shares[other] for other in shares if other != name), np.zeros_like(shares[name])) for name in shares
    }
    return {name: matrix + OTHERS_CELLS * _rows_to_one(expected[name] + POSSIBLE) for name, matrix in counts.items()}


def _rows_to_one(matrix: np.ndarray) -> np.ndarray:
    return matrix / matrix.sum(axis=1, keepdims=True)


def _log_likelihood(seen: np.ndarray, known: np.ndarray, matrix: np.ndarray) -> float:
    """The largest log likelihood of the outcomes (V,) that shares (C,) reach, by expectation and maximisation."""
    mean = _rows_to_one(matrix)  # (C, V)
    shares = np.full(len(mean), 1 / len(mean))
    for _ in range(200):
        joint = shares[:, None] * mean  # (C, V)
        expected = (seen * joint / joint.sum(axis=0)).sum(axis=1) + known
        shares = expected / expected.sum() if expected.sum() else shares
    with np.errstate(divide="ignore"):
        logarithms = np.log(shares @ mean)
    return float(seen[seen > 0] @ logarithms[seen > 0]) if seen.any() else 0.0


def _deal(weights: Sequence[float], parts: int) -> list[int]:
    """Deal parts by weight, largest remainders first."""
    exact = np.array(weights) / sum(weights) * parts
    dealt = np.floor(exact).astype(int)
    for place in np.argsort(dealt - exact, kind="stable")[: parts - dealt.sum()]:
        dealt[place] += 1
    return dealt.tolist()


def _gibbs(seen: np.ndarray, known: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Draw shares (draws, C), given outcomes (V,), cells of known class (C,) and Dirichlet parameters (chains, C, V)."""
    rng = np.random.default_rng(SEED)
    chains, classes, kinds = prior.shape
    rates = prior / prior.sum(axis=2, keepdims=True)
    shares = np.full((chains, classes), 1 / classes)
    kept = []
    for step in range(BURN_IN + KEPT):
        joint = shares[:, :, None] * rates + 1e-300  # (chains, C, V)
        each = (joint / joint.sum(axis=1, keepdims=True)).transpose(0, 2, 1)  # (chains, V, C)
        truly = rng.multinomial(np.broadcast_to(seen, (chains, kinds)), each)  # (chains, V, C) cells
        shares = rng.standard_gamma(truly.sum(axis=1) + known + SHARE_PRIOR)
        shares /= shares.sum(axis=1, keepdims=True)
        rates = rng.standard_gamma(prior + truly.transpose(0, 2, 1)) + 1e-300
        rates /= rates.sum(axis=2, keepdims=True)
        if step >= BURN_IN:
            kept.append(shares)
    return np.concatenate(kept)
