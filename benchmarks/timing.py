"""Timing side by side: every subject once a round, so that what disturbs the machine disturbs all of them, and none another."""

import logging
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WARM_UP = 3
TURNS = "in an order shuffled for each round, each subject after a rest of all threads and, where it is short, a run of its own"
WINDOW, WINDOWS = 0.01, 2  # s over which threads are watched, and how many such in a row have to be quiet
QUIET = 0.1  # of a processor: what sleeping threads take at most
LONGEST_REST = 2.0  # s
logger = logging.getLogger("benchmarks")


def cores() -> int:
    """Count the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rest() -> None:
    """Wait until no thread of this process computes any more.

    Threads of ONNX Runtime and of OpenMP go on spinning after their work, here for 35 and 10 ms, in case more comes at once. On
    their users' side that is as it should be; beside others it takes a processor from whoever is timed next.
    """
    ended, quiet = time.perf_counter() + LONGEST_REST, 0
    while quiet < WINDOWS:
        if time.perf_counter() > ended:
            logger.warning(
                "threads of this process computed on for %.0f s: what is timed now is too slow", LONGEST_REST
            )
            return
        computed, begun = time.process_time(), time.perf_counter()
        time.sleep(WINDOW)
        idle = time.process_time() - computed < QUIET * (time.perf_counter() - begun)
        quiet = quiet + 1 if idle else 0


def side_by_side(
    subjects: Mapping[str, Callable[[], Any]],
    repeats: int,
    warm_up: int = WARM_UP,
    lead_in: int = 1,
    each_round: Callable[[], Any] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Time subjects in rounds, each once a round, in an order that is shuffled anew for each.

    Before each subject all threads come to rest, and it then runs ``lead_in`` times before the clock starts: what it follows
    is itself, as in its users' loops, and not what another has left running.

    Args:
        subjects: what is timed, by name.
        repeats: rounds.
        warm_up: times that each runs before the first round.
        lead_in: times that each runs before its turn; for what takes long, and needs no other start, 0.
        each_round: called before each round, and before warming up.
        seed: of the orders; the same seed gives the same.

    Returns:
        Of each subject, its seconds in each round (repeats,).
    """
    names, orders = list(subjects), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    if each_round:
        each_round()
    for name in names:
        for _ in range(warm_up):
            subjects[name]()
    for number in range(repeats):
        if each_round and number:
            each_round()
        for name in orders.sample(names, len(names)):
            rest()
            for _ in range(lead_in):
                subjects[name]()
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
    batch: int | None = None,
) -> dict[str, Any]:
    """Put a figure together.

    Args:
        section: the table it stands in.
        what: what was measured.
        beside: what it was divided by.
        ratio: of each round.
        value: of each round, in ``unit``.
        wanted: ``{"of": "ratio" or "value", "at_most" and/or "at_least": number}``, or None.
        possible: of each round, the network's multiply-adds a second over those that the processor can do; or None.
        batch: images at once, where that is a finding and no condition: it is no part of what the figure is called.
    """
    parts = {"section": section, "what": what, "beside": beside, "ratio": spread(ratio)}
    parts |= {"value": spread(value), "unit": unit, "wanted": None if wanted is None else dict(wanted)}
    parts |= {"possible": None if possible is None else spread(possible), "batch": batch}
    return parts
