"""Split by photo, so that no cell stands on both sides."""

import warnings
from collections import defaultdict

import datasets
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from smears.loading import DataError

VALIDATION_SHARE = 0.125  # of the photos, where a user brings no validation split


def hold_out(
    data: datasets.Dataset, share: float = VALIDATION_SHARE, seed: int = 0
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split into a part to fit and a part to validate, by ``group``, about ``share`` of the groups of each class in the latter.

    The split depends on the groups and their labels alone, not on the order of the rows or the number of copies of a photo.
    A class with too few groups for its share gives one; of a group with several classes the first has the say.

    Returns:
        The rows to fit and the rows to validate, each in their former order.

    Raises:
        DataError: a class has too few groups to stand on both sides, or shares them all with others so that this seed holds
            out each; ``share`` is no share.
    """
    if not 0 < share <= 0.5:
        raise DataError(f"The share to hold out is {share}; expected more than 0 and at most 0.5.")
    labels_of = defaultdict(set)
    for group, label in zip(data["group"], data["label"], strict=True):
        labels_of[group].add(label)
    names = data.features["label"].names
    # Photos of the same cells may disagree (one cell of the Kaggle set has two labels): the group counts for its first class.
    groups = np.array(sorted(labels_of))
    labels = np.array([min(labels_of[group]) for group in groups])
    counts = np.bincount(labels, minlength=len(names))
    showing = {label: [group for group in groups if label in labels_of[group]] for label in sorted(set(data["label"]))}
    for label, shown_by in showing.items():
        if len(shown_by) < 2:
            raise DataError(
                f"The class {names[label]!r} has 1 photo(s); two are needed to validate by photo. "
                "Add images, or bring a validation split of your own."
            )
    splitter = StratifiedGroupKFold(min(round(1 / share), int(counts.max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # seen to below
        _, held = next(splitter.split(groups, labels, groups))
    held_groups = set(groups[held])
    rng = np.random.default_rng(seed)
    for label in np.setdiff1d(labels, labels[held]):
        held_groups.add(rng.choice(groups[labels == label]))
    for shown_by in showing.values():
        if held_groups.isdisjoint(shown_by):
            held_groups.add(rng.choice(shown_by))
    for label, shown_by in showing.items():
        if held_groups.issuperset(shown_by):
            raise DataError(
                f"All {len(shown_by)} photos or slides with the class {names[label]!r} would be held out, since they show "
                "other classes too. Take another --split_seed, or bring a validation split of your own."
            )
    inside = np.array([group in held_groups for group in data["group"]])
    return data.select(np.flatnonzero(~inside)), data.select(np.flatnonzero(inside))
