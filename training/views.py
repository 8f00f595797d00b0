"""What the Trainer reads: balanced, augmented draws of the photos to fit, and plain views of the photos to validate."""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from evaluation.measure import open_image
from training.augment import Augmentation, halvings
from training.colour import Colours, blend, carry_colours, change_colour, read_colours
from training.oddities import draw_oddity

# What the cell of a single-cell image takes at most, as shares of its height and width.
CENTRE = (0.14, 0.14, 0.86, 0.86)
SURROUNDINGS = 2.5  # side of the window about a cell whose colours are read, in sides of its box
EXCHANGED = (0.4, 1.0)  # how far an image goes towards another's colours


@dataclass(frozen=True)
class GrowingResolution:
    """The input side for each epoch: training starts small and quick and ends at the size that ships.

    Attributes:
        sides: input sides in px, one for each phase.
        epochs: how many epochs each phase lasts.
    """

    sides: tuple[int, ...]
    epochs: tuple[int, ...]

    def __post_init__(self):
        if len(self.sides) != len(self.epochs) or not self.sides or min(self.epochs) < 1:
            raise ValueError(
                f"resolutions {self.sides} and phase epochs {self.epochs} must be lists of the same length, epochs at least 1."
            )

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole training."""
        return sum(self.epochs)

    def side(self, epoch: int) -> int:
        """Return the input side in px for an epoch, counted from 0; the last phase's beyond the end."""
        ends = np.cumsum(self.epochs).tolist()
        return self.sides[min(bisect.bisect_right(ends, epoch), len(self.sides) - 1)]


class TrainingDraws(torch.utils.data.Dataset):
    """An epoch of augmented draws, balanced over classes, then laboratories, then groups (slides, photos), then files.

    Draw number i of epoch e depends on (seed, e, i) and nothing else, so a resumed training sees what it would have seen.
    Each is a dictionary of ``pixel_values`` (3, side, side) and ``labels``, or a list of them, one for each view.

    Args:
        data: columns ``image``, ``label``, ``group`` and optionally ``lab``, ``boxes``, ``cells`` and ``others``, see
            ``smears.laboratories``.
        processor: the image processor that ships; it alone resizes and normalises.
        resolution: the input side for each epoch.
        size: draws in an epoch.
        augmentation: how an image is changed.
        seed: first part of every draw's seed.
        cache_mb: decoded photos kept in memory, MiB.
        negatives: number of the class that also says "no white cell here", or None. Of its draws ``ground_share`` are
            windows without white cells of any laboratory's images, and ``oddity_share`` pictures that are no smear.
        oddity_stain_share: how often a picture that is no smear takes on the colours of an image of a smear, so that colour
            alone does not tell.
        exchange_share: how often an image takes on the colours of an image of another laboratory.
        class_balance: 1 draws every class equally often, 0 each as often as its images lie there; between: the shares are
            the counts to the power of 1 - class_balance.
        views: how often each draw is shown: the same image, changed in another way each time; where it is of ground or no
            smear, another picture of that kind.
    """

    def __init__(
        self,
        data: datasets.Dataset,
        processor: Callable,
        resolution: GrowingResolution,
        size: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_mb: int = 2048,
        negatives: int | None = None,
        ground_share: float = 0.45,
        oddity_share: float = 0.1,
        oddity_stain_share: float = 0.0,
        exchange_share: float = 0.0,
        class_balance: float = 1.0,
        views: int = 1,
    ):
        self.images = data.select_columns(["image"])
        names = ("boxes", "cells", "others")
        columns = {name: data[name][:] if name in data.column_names else [[]] * len(data) for name in names}
        self.boxes, self.cells, self.others = (columns[name] for name in names)
        self.processor = processor
        self.resolution = resolution
        self.size = size
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.epoch = 0
        self.views = views
        self.negatives = negatives
        self.ground_share, self.oddity_share = ground_share, oddity_share
        self.oddity_stain_share, self.exchange_share = oddity_stain_share, exchange_share
        self.carries_colours = exchange_share > 0 or oddity_stain_share > 0
        self.labs = data["lab"][:] if "lab" in data.column_names else [""] * len(data)
        self.labs_with_boxes = {lab for lab, cells in zip(self.labs, self.cells, strict=True) if cells}
        labels, groups = data["label"][:], data["group"][:]
        self.whole = data["whole"][:] if "whole" in data.column_names else [True] * len(data)
        self.contents = data["sha256"][:] if "sha256" in data.column_names else list(range(len(data)))
        self.labels = sorted({*labels, *(() if negatives is None else (negatives,))})
        rows_of = defaultdict(list)
        for row, label in enumerate(labels):
            rows_of[label].append(row)
        self.trees = [_tree(rows_of[label], self.labs, groups) for label in self.labels]
        self.turns = _take_turns([len(rows_of[label]) for label in self.labels], class_balance, size)
        self.rows_of_lab = _tree(range(len(data)), self.labs)
        self._cache: dict[str | int, list[np.ndarray]] = {}
        self._cache_left = cache_mb * 2**20
        self._colours: dict[int, Colours] = {}

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is drawn; the Trainer calls this."""
        self.epoch = int(epoch)

    def __getitem__(self, draw: int) -> dict | list[dict]:
        shown = [self._show(draw, view) for view in range(self.views)]
        return shown if self.views > 1 else shown[0]

    def _show(self, draw: int, view: int) -> dict[str, torch.Tensor | int]:
        image, _ = self._draw(draw, view)
        side = self.resolution.side(self.epoch)
        pixels = self.processor(image, size={"height": side, "width": side}, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self.labels[self.turns[draw]]}

    def _draw(self, draw: int, view: int) -> tuple[np.ndarray, np.random.Generator]:
        """Draw an image for the network, and give what later choices of this view come from."""
        rng = np.random.default_rng((self.seed, self.epoch, draw))  # every view of a draw chooses the same with it
        change = np.random.default_rng((self.seed, self.epoch, draw, view)) if view else rng
        place = self.turns[draw]  # the classes take turns; the sampler shuffles
        side = self.resolution.side(self.epoch)
        if self.labels[place] == self.negatives:
            kind = rng.random() if self.trees[place] else rng.uniform(0, self.ground_share + self.oddity_share)
            if kind < self.oddity_share:
                return self._oddity(change, side), change
            if kind < self.oddity_share + self.ground_share:
                return self._ground(change, side), change
        row = _descend(self.trees[place], rng)
        colours = self._exchange(change, row)
        image = self.augmentation(self._pyramid(row), change, side, self.boxes[row], self.whole[row], colours)
        return image, change

    def _ground(self, rng: np.random.Generator, side: int) -> np.ndarray:
        for _ in range(8):
            row = _descend(self.rows_of_lab, rng)
            pyramid = self._pyramid(row)
            if not self.cells[row] and self.labs[row] in self.labs_with_boxes:
                continue  # a field whose cells nobody has marked: they may be anywhere
            # In a laboratory of single cells without boxes, the middle is taken by the cell, see CENTRE.
            cells = self.cells[row] or [_centre(*pyramid[0].shape[:2])]
            colours = self._exchange(rng, row)
            image = self.augmentation.ground(pyramid, rng, side, cells, self.others[row], colours)
            if image is not None:
                return image
        return self._oddity(rng, side)

    def _oddity(self, rng: np.random.Generator, side: int) -> np.ndarray:
        image = draw_oddity(rng, side)
        if rng.random() < self.oddity_stain_share:
            stained = self._read_colours(_descend(self.rows_of_lab, rng))
            image = change_colour(image, carry_colours(read_colours(image), stained))
        return image

    def _exchange(self, rng: np.random.Generator, row: int) -> np.ndarray | None:
        """Draw the map (3, 4) that gives a row the colours of an image of another laboratory, or None."""
        others = [lab for lab in self.rows_of_lab if lab != self.labs[row]]
        if not others or rng.random() >= self.exchange_share:
            return None
        other = _descend(self.rows_of_lab[others[rng.integers(len(others))]], rng)
        return blend(carry_colours(self._read_colours(row), self._read_colours(other)), rng.uniform(*EXCHANGED))

    def _read_colours(self, row: int) -> Colours:
        """Read the colours about a row's cell, so that fields and close crops compare."""
        if row not in self._colours:
            self._colours[row] = read_colours_about(self._pyramid(row), self.boxes[row])
        return self._colours[row]

    def fill_cache(self) -> None:
        """Decode photos until the cache is full, so that forked workers share them."""
        for row in range(len(self.images)):
            if self._cache_left <= 0:
                break
            self._pyramid(row)
            if self.carries_colours:
                self._read_colours(row)

    def _pyramid(self, row: int) -> list[np.ndarray]:
        content = self.contents[row]
        if content in self._cache:
            return self._cache[content]
        pyramid = halvings(np.asarray(open_image(self.images[row]["image"])))
        cost = sum(level.nbytes for level in pyramid)
        if cost <= self._cache_left:
            self._cache[content] = pyramid
            self._cache_left -= cost
        return pyramid


def read_colours_about(pyramid: list[np.ndarray], boxes: Sequence[Sequence[int]]) -> Colours:
    """Read the colours about the first box of a photo and its halvings; without a box, of all of it."""
    small = pyramid[-1]
    zoom = small.shape[1] / pyramid[0].shape[1]
    if boxes:
        top, left, bottom, right = (value * zoom for value in boxes[0])
        half = max(bottom - top, right - left) * SURROUNDINGS / 2
        rows, cols = ((low + high) / 2 for low, high in ((top, bottom), (left, right)))
        edges = [max(0, round(value)) for value in (rows - half, rows + half, cols - half, cols + half)]
        small = small[edges[0] : edges[1], edges[2] : edges[3]]
    return read_colours(small)


def _centre(height: int, width: int) -> list[int]:
    """Return the box that the cell of a single-cell image takes at most."""
    return [round(share * extent) for share, extent in zip(CENTRE, (height, width, height, width), strict=True)]


def _take_turns(counts: Sequence[int], balance: float, size: int) -> list[int]:
    """Deal ``size`` draws to the classes: each comes at even distances, in the order of the classes where they are equal."""
    weights = np.ones(len(counts)) if balance == 1 else np.array(counts, dtype=float) ** (1 - balance)
    shares = weights / weights.sum()
    turns = [
        ((turn + 0.5) / share, place) for place, share in enumerate(shares) for turn in range(int(share * size) + 1)
    ]
    return [place for _, place in sorted(turns)[:size]]


def _tree(rows: Iterable[int], *keys: Sequence[str]) -> dict | list[int]:
    """Sort rows into a tree of dictionaries, a level for each of ``keys`` (N,), with lists of rows as leaves."""
    if not keys:
        return list(rows)
    branches = defaultdict(list)
    for row in rows:
        branches[keys[0][row]].append(row)
    return {key: _tree(branches[key], *keys[1:]) for key in sorted(branches)}


def _descend(node: dict | list[int], rng: np.random.Generator) -> int:
    """Draw a row from a tree, each branch of a node as likely as the others."""
    while not isinstance(node, int):
        if isinstance(node, dict):
            node = list(node.values())
        node = node[rng.integers(len(node))] if len(node) > 1 else node[0]
    return node


class PlainViews(torch.utils.data.Dataset):
    """Each image once, unchanged but for the processor that ships: what every user's image goes through."""

    def __init__(self, data: datasets.Dataset, processor: Callable):
        self.data = data
        self.processor = processor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor | int]:
        entry = self.data[row]
        pixels = self.processor(open_image(entry["image"]), return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": entry["label"]}
