"""Timing side by side: every subject once a round, so that what disturbs the machine disturbs all of them."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WARM_UP = 3


def cores() -> int:
    """Count the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(
    subjects: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Time subjects in rounds, each once a round; every round begins with the next one.

    Returns:
        Of each subject, its seconds in each round (repeats,).
    """
    names = list(subjects)
    for name in names:
        for _ in range(warm_up):
            subjects[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begun = time.perf_counter()
            subjects[name]()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Give the median of values, their quartiles (``low``, ``high``) and how many there are."""
    if not values:
        raise ValueError("There are no values; expected one or more.")
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {"median": quartiles[1], "low": quartiles[0], "high": quartiles[2], "n": len(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round, so that a slow round does not enter with one side alone."""
    return [one / other for one, other in zip(above, below, strict=True)]


def figure(
    section: str,
    what: str,
    beside: str,
    ratio: Sequence[float],
    value: Sequence[float],
    unit: str,
    wanted: Mapping[str, Any] | None = None,
    possible: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Put a figure together.

    Args:
        section: the table it stands in.
        what: what was measured.
        beside: what it was divided by.
        ratio: of each round.
        value: of each round, in ``unit``.
        wanted: ``{"of": "ratio" or "value", "at_most" or "at_least": number}``, or None.
        possible: of each round, the network's multiply-adds a second over those that the processor can do; or None.
    """
    parts = {"section": section, "what": what, "beside": beside, "ratio": spread(ratio)}
    parts |= {"value": spread(value), "unit": unit, "wanted": None if wanted is None else dict(wanted)}
    parts["possible"] = None if possible is None else spread(possible)
    return parts
