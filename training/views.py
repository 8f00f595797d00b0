"""What the Trainer reads: balanced, augmented draws of the photos to fit, and plain views of the photos to validate."""

import bisect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import datasets
import numpy as np
import torch

from evaluation.measure import open_image
from training.augment import Augmentation, halvings


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
    """An epoch of augmented draws, balanced over classes, then over groups (photos of the same cells), then over files.

    Draw number i of epoch e depends on (seed, e, i) and nothing else, so a resumed training sees what it would have seen.

    Args:
        data: columns ``image``, ``label``, ``group`` and optionally ``boxes``, see ``smears.loading``.
        processor: the image processor that ships; it alone resizes and normalises.
        resolution: the input side for each epoch.
        size: draws in an epoch.
        augmentation: how an image is changed.
        seed: first part of every draw's seed.
        cache_mb: decoded photos kept in memory, MiB.
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
    ):
        self.images = data.select_columns(["image"])
        self.boxes = data["boxes"] if "boxes" in data.column_names else None
        self.processor = processor
        self.resolution = resolution
        self.size = size
        self.augmentation = augmentation or Augmentation()
        self.seed = seed
        self.epoch = 0
        rows = defaultdict(lambda: defaultdict(list))
        for number, (label, group) in enumerate(zip(data["label"], data["group"], strict=True)):
            rows[label][group].append(number)
        self.rows = [[rows[label][group] for group in sorted(rows[label])] for label in sorted(rows)]
        self.labels = sorted(rows)
        self._cache: dict[int, list[np.ndarray]] = {}
        self._cache_left = cache_mb * 2**20

    def __len__(self) -> int:
        return self.size

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is drawn; the Trainer calls this."""
        self.epoch = int(epoch)

    def __getitem__(self, draw: int) -> dict[str, torch.Tensor | int]:
        rng = np.random.default_rng((self.seed, self.epoch, draw))
        place = draw % len(self.rows)  # the classes take turns; the sampler shuffles
        groups = self.rows[place]
        files = groups[rng.integers(len(groups))]
        row = files[rng.integers(len(files))]
        side = self.resolution.side(self.epoch)
        image = self.augmentation(self._pyramid(row), rng, side, self.boxes[row] if self.boxes else None)
        pixels = self.processor(image, size={"height": side, "width": side}, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self.labels[place]}

    def fill_cache(self) -> None:
        """Decode photos until the cache is full, so that forked workers share them."""
        for row in range(len(self.images)):
            if self._cache_left <= 0:
                break
            self._pyramid(row)

    def _pyramid(self, row: int) -> list[np.ndarray]:
        if row in self._cache:
            return self._cache[row]
        pyramid = halvings(np.asarray(open_image(self.images[row]["image"])))
        cost = sum(level.nbytes for level in pyramid)
        if cost <= self._cache_left:
            self._cache[row] = pyramid
            self._cache_left -= cost
        return pyramid


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
