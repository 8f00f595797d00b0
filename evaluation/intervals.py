"""How far a measured figure could be off: intervals that count photos, not the copies made of them."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy.stats import beta

CELLS_AT_ONCE = 1 << 20  # weights held in memory at a time: 8 MiB whatever the number of resamples


def group_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n_items: int,
    groups: Sequence[Hashable] | np.ndarray,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    numbers: int = 1,
    least: float = 0.0,
) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
    """Bound a statistic by the percentile bootstrap over groups.

    Whole groups are drawn with replacement, as many as there are, and every item of a drawn group comes along: copies
    of one photo stand or fall together (the cluster bootstrap, Davison & Hinkley 1997, section 3.8). The same seed
    draws the same groups for every statistic.

    A percentile interval says nothing of what no group shows: it collapses to a point when every item is right, and for
    an error that cannot be negative (ECE) it lies high, at times above the value itself.

    Parameters
    ----------
    statistic
        Takes weights (R, n_items), how often each item was drawn in each of R resamples, and gives one value per
        resample, (R,) or (R, ...). NaN means that a resample leaves it undefined (a class was not drawn); the interval
        is then over the other resamples.
    n_items
        Number of items.
    groups
        The group of each item, (n_items,).
    resamples
        Number of resamples.
    level
        Share of the resamples that the interval holds, between 0 and 1.
    seed
        Of the draws.
    numbers
        How many numbers ``statistic`` holds in memory for a resample; more than ``n_items`` make it get fewer rows at a time.
    least
        Share of the resamples that must define a value; where fewer do, its bounds are NaN. 0 asks for one resample.

    Returns
    -------
    (low, high)
        Two floats, or two arrays of the shape (...) that ``statistic`` gives per resample.

    Raises
    ------
    ValueError
        Groups that are not one per item, fewer than two groups, a level outside (0, 1), no resamples, a statistic that
        gives another number of values than resamples, or, where ``least`` is 0, one that is undefined in every resample.
    """
    if len(groups) != n_items:
        raise ValueError(
            f"{len(groups)} groups came for {n_items} items; expected one per item. Pass the photo of each image."
        )
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            f"level is {level} and resamples {resamples}; expected a level between 0 and 1, such as 0.95, and 1 or "
            "more resamples."
        )
    _, group_of_item = np.unique(np.asarray(groups), return_inverse=True)  # (n_items,)
    n_groups = int(group_of_item.max()) + 1 if n_items else 0
    if n_groups < 2:
        raise ValueError(
            f"All {n_items} items belong to {n_groups} group(s); expected two or more. One photo says nothing of the "
            "spread between photos: measure on more of them."
        )
    generator = np.random.default_rng(seed)
    rows_at_once = max(1, CELLS_AT_ONCE // max(n_items, numbers))
    values = []
    for start in range(0, resamples, rows_at_once):
        rows = min(rows_at_once, resamples - start)
        drawn = generator.integers(n_groups, size=(rows, n_groups))
        cells = np.arange(rows)[:, None] * n_groups + drawn
        times = np.bincount(cells.ravel(), minlength=rows * n_groups).reshape(rows, n_groups)
        value = np.asarray(statistic(times[:, group_of_item].astype(np.float64)))
        if value.shape[:1] != (rows,):
            raise ValueError(
                f"The statistic gave shape {value.shape} for weights ({rows}, {n_items}); expected ({rows}, ...), one "
                "value per row of weights. Sum over the last axis only."
            )
        values.append(value)
    distribution = np.concatenate(values)  # (resamples, ...)
    defined = 1 - np.isnan(distribution).mean(axis=0)  # (...)
    if not least and not np.all(defined):
        raise ValueError(
            "The statistic is NaN in every resample; expected a value in some. Leave out classes without images, or "
            "draw more resamples."
        )
    tail = (1 - level) / 2
    # A column without any value would warn; its bounds are taken away below.
    filled = np.where(defined == 0, 0.0, distribution)
    low, high = np.where(defined >= least, np.nanquantile(filled, [tail, 1 - tail], axis=0), np.nan)
    return (float(low), float(high)) if distribution.ndim == 1 else (low, high)


def binomial_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Bound a share by the exact interval of Clopper and Pearson 1934, which stays honest when every trial succeeds.

    Parameters
    ----------
    successes, trials
        Counts, 0 <= successes <= trials, at least one trial.
    level
        Coverage that is guaranteed at least, between 0 and 1.

    Raises
    ------
    ValueError
        Counts or a level outside these ranges.
    """
    if not 0 <= successes <= trials or trials < 1 or not 0 < level < 1:
        raise ValueError(
            f"{successes} successes of {trials} trials at level {level}; expected 0 <= successes <= trials, one trial "
            "or more, and a level between 0 and 1."
        )
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return float(low), float(high)
