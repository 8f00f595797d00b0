"""Every image's probabilities in a CSV file, from which anybody can compute the figures again."""

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from evaluation.measure import Answered
from evaluation.slices import Slice

logger = logging.getLogger(__name__)


@contextmanager
def predictions_file(path: Path | None) -> Iterator[Any]:
    """Give a function that appends the answers about a split to a CSV file, which appears when all are written."""
    if path is None:
        yield lambda *_: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")

    def append(data: datasets.Dataset, answered: Answered, parts: Sequence[Slice]) -> None:
        if not stream.tell():
            probabilities = [f"p_{label}" for label in answered.labels]
            writer.writerow(["file", "sha256", "split", "label", "photo", "group", "slices", *probabilities])
        titles = [[] for _ in range(len(data))]
        for part in parts:
            for row in part.rows:
                titles[row].append(part.title)
        named = zip(
            data["file"], data["sha256"], titles, answered.references, answered.photos, answered.groups, strict=True
        )
        for row, (file, digest, title, reference, photo, group) in enumerate(named):
            label = answered.labels[reference]
            shown = [f"{value:.9g}" for value in answered.probabilities[row]]  # nine digits give the float32 back
            writer.writerow([file, digest, parts[0].title, label, photo, group, "; ".join(title), *shown])

    try:
        with unfinished.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            yield append
        unfinished.replace(path)
        logger.info("wrote %s", path)
    finally:
        unfinished.unlink(missing_ok=True)
