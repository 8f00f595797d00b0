"""Show pictures of any making to a model, and bound what is counted of its answers: what the entries of a stress test share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from evaluation.intervals import group_bootstrap
from evaluation.labels import label_numbers
from evaluation.measure import open_image
from evaluation.summary import as_figure

COLUMNS = ("image", "label", "photo")


@dataclass(frozen=True)
class Setting:
    """How it is measured.

    Attributes
    ----------
    batch_size
        Pictures at a time.
    device
        ``"cpu"``, ``"cuda"``, ...; None takes a GPU if there is one.
    limit
        Images at most, the classes as alike in number as they can be; None takes all.
    seed
        Of the choice of images, of what corruptions draw and of the bootstrap.
    resamples, level
        Of the bootstrap over groups.
    """

    batch_size: int = 64
    device: str | None = None
    limit: int | None = None
    seed: int = 0
    resamples: int = 2000
    level: float = 0.95


@dataclass(frozen=True)
class Chosen:
    """Labelled images that are measured: undecoded images, row by row, their labels, photos, groups and rows, (n,)."""

    images: datasets.Dataset
    labels: np.ndarray
    photos: list[str]
    groups: list[str]
    rows: np.ndarray

    def open(self) -> Iterator[np.ndarray]:
        """Decode one image after the other: (H, W, 3), uint8 RGB."""
        for row in self.images:
            yield np.asarray(open_image(row["image"], row.get("file")))


def choose_rows(labels: Sequence[int] | np.ndarray, limit: int | None, seed: int) -> np.ndarray:
    """Choose images at random, the classes as alike in number as they can be.

    Parameters
    ----------
    labels
        Class numbers, (N,).
    limit
        How many at most; None takes all.
    seed
        0 or more.

    Returns
    -------
    numpy.ndarray
        Row numbers, rising.

    Raises
    ------
    ValueError
        A limit below 1.
    """
    labels = np.asarray(labels)
    if limit is None:
        return np.arange(len(labels))
    if limit < 1:
        raise ValueError(f"The limit is {limit}; expected 1 image or more, or None for all. Choose more.")
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), int)  # the how-manieth of its class an image is
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        turn[of_class] = np.arange(len(of_class))
    taken = order[np.argsort(turn[order], kind="stable")][:limit]
    return np.sort(taken)


def choose(dataset: datasets.Dataset, setting: Setting, keep: Callable[[str], bool] | None = None) -> Chosen:
    """Choose images of a labelled data set.

    Parameters
    ----------
    dataset
        With the columns ``image`` (``datasets.Image``, decoded or not), ``label`` (``datasets.ClassLabel``), ``photo``
        and perhaps ``file`` and ``group``, as in ``evaluation.measure.answer``.
    setting
        ``limit`` and ``seed`` are read.
    keep
        Says of a label's name whether its images count; None takes all.

    Raises
    ------
    ValueError
        Missing columns, images without a label, fewer than two groups.
    """
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing or not len(dataset):
        raise ValueError(
            f"The data set has {len(dataset)} rows and the columns {dataset.column_names}, without {missing}; expected one row "
            f"or more and the columns {list(COLUMNS)}, perhaps file and group. Rename its columns with rename_columns."
        )
    labels, names = label_numbers(dataset)
    rows = np.array([row for row, label in enumerate(labels) if keep is None or keep(names[label])], int)
    if len(rows):
        rows = rows[choose_rows(np.array(labels)[rows], setting.limit, setting.seed)]
    photos = dataset.with_format(None)["photo"][:]
    groups = dataset.with_format(None)["group"][:] if "group" in dataset.column_names else photos
    columns = ["image"] + ["file"] * ("file" in dataset.column_names)
    images = dataset.with_format(None).select_columns(columns).cast_column("image", datasets.Image(decode=False))
    photos, groups = ([values[row] for row in rows] for values in (photos, groups))
    if len(set(groups)) < 2:  # group_bootstrap would say so after the long part
        raise ValueError(
            f"{len(rows)} images of {len(set(groups))} group(s) are to be measured; expected two or more, for an interval. "
            "Take more images, or a higher limit."
        )
    return Chosen(images.select(rows), np.array(labels, int)[rows], photos, groups, rows)


def bounded(
    statistic: Callable[[np.ndarray], np.ndarray],
    chosen: Chosen,
    setting: Setting,
    numbers: int = 1,
    least: float = 0.0,
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Measure k statistics of all images, with intervals by ``evaluation.intervals.group_bootstrap``.

    Parameters
    ----------
    statistic
        Takes weights (R, n), gives (R, k).
    chosen, setting
        Groups and bootstrap.
    numbers, least
        As in ``group_bootstrap``.

    Returns
    -------
    (numpy.ndarray, list)
        The values, (k,), and the k figures.
    """
    n = len(chosen.labels)
    low, high = group_bootstrap(
        statistic, n, chosen.groups, setting.resamples, setting.level, setting.seed, max(n, numbers), least
    )
    values = statistic(np.ones((1, n)))[0]
    return values, [as_figure(*row) for row in zip(values, low, high, strict=True)]


def facts(chosen: Chosen, setting: Setting) -> dict[str, Any]:
    """Say what was measured, as ``evaluation.summary`` does."""
    n_photos, n_groups = len(set(chosen.photos)), len(set(chosen.groups))
    return {
        "n_images": len(chosen.labels),
        "n_photos": n_photos,
        "n_groups": n_groups,
        "interval": {
            "level": setting.level,
            "resamples": setting.resamples,
            "seed": setting.seed,
            "unit": "photo" if n_groups == n_photos else "overlap group",
            "n_units": n_groups,
        },
    }
