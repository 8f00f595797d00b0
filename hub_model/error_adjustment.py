"""Correct a count for the classifier's own errors, as they were counted on validation cells of known class.

The counts of verdicts on a slide are a mixture of the classes' own verdicts (Tenenbein 1972,
doi:10.1080/00401706.1972.10488892; "Rogan and Gladen" for more than two classes). All that is unknown is drawn at once by
Gibbs sampling: the slide's true shares, how often each class gets each verdict, and which class each cell is of (Tanner and
Wong 1987, doi:10.1080/01621459.1987.10478458). What the draws spread over holds both the sampling and the errors.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

CHAINS, BURN_IN, KEPT = 256, 50, 150  # of the sampler: 38,400 draws
SEED = 20  # fixed, so that the same cells give the same figures
SHARE_PRIOR = 0.5  # cells, of each class's share: Jeffreys
# A class's verdicts in a laboratory are expected to be like those in all laboratories, with the weight of so many cells.
POOLED_CELLS = 4.0
VERDICT_PRIOR = 0.05  # cells, for each verdict that no validation cell of the class got
MISFIT = (
    10.83  # twice the log likelihood ratio; chance exceeds it once in a thousand (chi squared, 1 degree of freedom)
)


def adjust(
    machine: Mapping[str, int],
    reviewed: Mapping[str, int],
    order: Sequence[str],
    confusion: Mapping[str, Mapping[str, Mapping[str, int]]],
    laboratory: str | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float], bool]:
    """Draw the true shares of a slide's classes, given its verdicts and the classifier's errors on validation.

    Args:
        machine: how many cells got each verdict.
        reviewed: how many cells a person named so.
        order: the classes, and "unidentified" last.
        confusion: as ``count_cells`` takes it.
        laboratory: whose errors apply; None weighs all.

    Returns:
        Draws (38400,) of each class's share, 0..1; the weight of each laboratory, adding up to 1; and whether the errors of
        any of them make the verdicts plausible.

    Raises:
        ValueError: the confusion has other classes or verdicts, or counts that are none.
    """
    matrices = _matrices(confusion, order)  # each (C, V)
    if laboratory is not None:
        matrices = {laboratory: matrices[laboratory]}
    seen = np.array([machine.get(name, 0) for name in order])  # (V,)
    known = np.array([reviewed.get(name, 0) for name in order[:-1]])  # (C,)
    likelihoods = {name: _log_likelihood(seen, known, matrix) for name, matrix in matrices.items()}
    best = max(likelihoods.values())
    free = seen[seen > 0]
    saturated = float((free * np.log(free / free.sum())).sum()) if free.size else 0.0
    powers = {name: math.exp(value - best) for name, value in likelihoods.items()}
    weights = {name: round(value / sum(powers.values()), 6) for name, value in powers.items()}
    chains = _deal(list(weights.values()), CHAINS)
    prior = np.repeat(np.stack(list(matrices.values())), chains, axis=0)  # (chains, C, V)
    draws = _gibbs(seen, known, prior)  # (draws, C)
    return dict(zip(order[:-1], draws.T, strict=True)), weights, 2 * (saturated - best) <= MISFIT


def _matrices(confusion: Mapping[str, Any], order: Sequence[str]) -> dict[str, np.ndarray]:
    """Turn counts into Dirichlet parameters (C, V) for each laboratory: its cells, and what all laboratories' tell."""
    classes, verdicts = list(order[:-1]), list(order)
    counts = {}
    for name, table in sorted(confusion.items()):
        matrix = np.zeros((len(classes), len(verdicts)))
        for true, row in table.items():
            for verdict, count in row.items():
                if true not in classes or verdict not in verdicts or not isinstance(count, int) or count < 0:
                    raise ValueError(
                        f"The confusion of {name} says {true!r} was called {verdict!r} {count!r} times; expected classes of "
                        f"{classes}, verdicts of {verdicts} and whole numbers. Measure it anew with this model."
                    )
                matrix[classes.index(true), verdicts.index(verdict)] = count
        counts[name] = matrix
    pooled = sum(counts.values()) + VERDICT_PRIOR
    usual = POOLED_CELLS * pooled / pooled.sum(axis=1, keepdims=True)
    return {name: matrix + usual for name, matrix in counts.items()}


def _log_likelihood(seen: np.ndarray, known: np.ndarray, matrix: np.ndarray) -> float:
    """The largest log likelihood of the verdicts (V,) that shares (C,) reach, by expectation and maximisation."""
    mean = matrix / matrix.sum(axis=1, keepdims=True)  # (C, V)
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
    """Draw shares (draws, C), given verdicts (V,), cells of known class (C,) and Dirichlet parameters (chains, C, V)."""
    rng = np.random.default_rng(SEED)
    chains, classes, verdicts = prior.shape
    rates = prior / prior.sum(axis=2, keepdims=True)
    shares = np.full((chains, classes), 1 / classes)
    kept = []
    for step in range(BURN_IN + KEPT):
        joint = shares[:, :, None] * rates + 1e-300  # (chains, C, V)
        each = (joint / joint.sum(axis=1, keepdims=True)).transpose(0, 2, 1)  # (chains, V, C)
        truly = rng.multinomial(np.broadcast_to(seen, (chains, verdicts)), each)  # (chains, V, C) cells
        shares = rng.standard_gamma(truly.sum(axis=1) + known + SHARE_PRIOR)
        shares /= shares.sum(axis=1, keepdims=True)
        rates = rng.standard_gamma(prior + truly.transpose(0, 2, 1)) + 1e-300
        rates /= rates.sum(axis=2, keepdims=True)
        if step >= BURN_IN:
            kept.append(shares)
    return np.concatenate(kept)
