"""What is measured of a split: all of it and, of the test set, the parts without leaks and without images that show no cell."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import datasets
import numpy as np

MEASURED = ("validation", "test", "test_simple")  # in this order, of the splits that there are
TITLES = {"test": "TEST", "test_simple": "TEST_SIMPLE"}  # as the Kaggle archive spells them
NO_CELL = "no cell"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slice:
    """Rows of a data set that are measured together.

    Attributes
    ----------
    title
        What ``eval_results.json`` calls it.
    rows
        Row numbers, rising, (n,).
    left_out
        Number of images that are left out, by reason.
    """

    title: str
    rows: np.ndarray
    left_out: Mapping[str, int] = field(default_factory=dict)


def slices(
    splits: Mapping[str, datasets.Dataset], split: str, left_out: Mapping[str, int] | None = None
) -> list[Slice]:
    """List what is measured of a split, the whole first.

    Of the split ``test`` also "leak-free", without the images whose ``group`` (photos of the same cells) occurs in the split
    ``train``, and "cell visible", without those that have the flag ``no cell``. A part that would leave out nothing, or
    leave fewer than two groups, is not listed; the log says so.

    Parameters
    ----------
    splits
        Each with the column ``group`` and, where something is known of the images, ``flags`` (texts, a list for each image).
    split
        Which of them.
    left_out
        Number of images that were left out before, by reason.
    """
    data, title, left_out = splits[split], TITLES.get(split, split), dict(left_out or {})
    found = [Slice(title, np.arange(len(data)), left_out)]
    if split != "test":
        return found
    groups, parts = np.array(data["group"][:]), []
    if "train" in splits:
        parts.append(
            (
                "leak-free",
                "photos that overlap training photos, directly or through others",
                np.isin(groups, splits["train"]["group"][:]),
            )
        )
    if "flags" in data.column_names:
        parts.append(("cell visible", f"flag '{NO_CELL}'", np.array([NO_CELL in flags for flags in data["flags"][:]])))
    for name, reason, out in parts:
        count = int(out.sum())
        said = f"{title}, {name}: {count} of {len(data)} images left out ({reason})"
        if not count:
            logger.info("%s, so it is not measured beside the whole", said)
        elif len(set(groups[~out])) < 2:
            logger.warning("%s, too few photos are left to measure", said)
        else:
            logger.info("%s", said)
            found.append(Slice(f"{title}, {name}", np.flatnonzero(~out), left_out | {reason: count}))
    return found
