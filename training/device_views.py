"""Augmented draws whose pixels are made on an accelerator: workers plan them, the device shows and changes them by the batch.

Plans are those of ``training.augment`` draw for draw; the pixels differ from its own by rounding, by the noise, and by what
blurs, coarsens and compresses them here. All photos lie decoded in the device's memory.
"""

import mmap
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import default_collate

from evaluation.measure import open_image
from training.augment import Augmentation, Degradation, bright_ground, draw_border, halvings, streak
from training.colour import compose
from training.views import TrainingDraws, read_colours_about

CANVAS = 10 / 7  # sides of the network's input: at 224 px a photo is seen 320 px wide, as the Kaggle copies are
CANVAS_STEP = 16  # px: JPEG's blocks of halved colours
BYTE = 255
# Quantisation of JPEG at quality 50, Annex K of ITU-T T.81, brightness and colours.
BRIGHTNESS_STEPS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
COLOUR_STEPS = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *(((99,) * 8,) * 4),
)  # fmt: skip
RGB_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF


@dataclass(frozen=True)
class Plan:
    """One augmented draw without its pixels.

    Attributes:
        row: of the photo.
        matrix: map (2, 3) from the photo's (col, row) to the view's.
        size: (w, h) of the view, px.
        border: what lies outside the photo, or None: its mirror image.
        colours: affine map (3, 4) of the optical densities.
        degradation: how the view is degraded, in its px.
    """

    row: int
    matrix: np.ndarray
    size: tuple[int, int]
    border: tuple[int, int, int] | None
    colours: np.ndarray
    degradation: Degradation


class Outline(list):
    """Stands for a photo and its halvings where only their sizes are asked for: arrays (H, W, 3) that take no memory."""

    def __init__(self, row: int, sizes: Sequence[tuple[int, int]], ground: tuple[int, int, int]):
        super().__init__(np.broadcast_to(np.uint8(0), (*size, 3)) for size in sizes)
        self.row, self.ground = row, ground


class Planner(Augmentation):
    """Draws what ``Augmentation`` draws, from ``Outline`` instead of pixels, and gives a ``Plan`` instead of an image."""

    def _show(self, pyramid, rng, matrix, size, colours):
        border = draw_border(rng, lambda: pyramid.ground)
        random = self._colour_map(rng)
        changed = random if colours is None else compose(random, colours)
        return Plan(pyramid.row, matrix, size, border, changed, self.draw_degradation(rng, size[0] / 320))


@dataclass(frozen=True)
class Photos:
    """Decoded photos and their halvings, one level after the other.

    Attributes:
        pixels: (N,), int32; red, green and blue in the lowest three bytes of each.
        sizes: (h, w) of each level.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]


class PlannedDraws(TrainingDraws):
    """The draws of ``TrainingDraws``, planned; ``DevicePhotos`` makes their pixels.

    Args:
        as for ``TrainingDraws``, with a ``Planner`` for the augmentation.
    """

    def fill_cache(self) -> Photos:
        """Decode every photo, on all processors; keep what planning needs, and give the pixels."""
        rows_of = defaultdict(list)
        for row, content in enumerate(self.contents):
            rows_of[content].append(row)
        surveys = self._on_all_processors(self._survey, list(rows_of.values()))
        self.place, self._colours = {}, {}  # of each content: number of its first level, sizes of its levels, ground
        sizes, starts = [], []
        for (content, rows), (levels, ground, colours) in zip(rows_of.items(), surveys, strict=True):
            self.place[content] = len(sizes), levels, ground
            self._colours.update(zip(rows, colours, strict=True))
            sizes += levels
        ends = np.cumsum([height * width for height, width in sizes])
        starts = [int(ends[self.place[content][0] - 1]) if self.place[content][0] else 0 for content in rows_of]
        shared = mmap.mmap(-1, 4 * int(ends[-1]))  # what forked processes write here, this one sees
        self._shared = np.frombuffer(shared, np.uint8).reshape(-1, 4)
        self._on_all_processors(
            self._write, [(rows[0], start) for rows, start in zip(rows_of.values(), starts, strict=True)]
        )
        pixels = torch.from_numpy(self._shared.view(np.int32)[:, 0])
        del self._shared
        return Photos(pixels, sizes)

    def _on_all_processors(self, do: Callable, tasks: Sequence) -> list:
        """Do tasks in forked processes, which share the table of photos; so the device must not have been touched yet."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        if len(tasks) < 2 * cores or cores == 1:
            return [do(task) for task in tasks]
        _DOING["do"] = do  # inherited, where an argument would be pickled for each task
        try:
            with multiprocessing.get_context("fork").Pool(cores) as pool:
                return pool.map(_do, tasks, chunksize=max(1, len(tasks) // (8 * cores)))
        finally:
            del _DOING["do"]

    def _survey(self, rows: Sequence[int]) -> tuple[list[tuple[int, int]], tuple[int, int, int], list]:
        """Give the sizes of a photo's levels, its bright ground, and the colours about the cell of each of its rows."""
        pyramid = halvings(np.asarray(open_image(self.images[rows[0]]["image"])))
        colours = [read_colours_about(pyramid, self.boxes[row]) if self.carries_colours else None for row in rows]
        return [level.shape[:2] for level in pyramid], bright_ground(pyramid[-1]), colours

    def _write(self, task: tuple[int, int]) -> None:
        row, start = task
        for level in halvings(np.asarray(open_image(self.images[row]["image"]))):
            end = start + level.shape[0] * level.shape[1]
            self._shared[start:end, :3] = level.reshape(-1, 3)
            start = end

    def _read_colours(self, row: int):
        return self._colours[row]

    def _pyramid(self, row: int) -> Outline:
        _, sizes, ground = self.place[self.contents[row]]
        return Outline(row, sizes, ground)

    def _show(self, draw: int, view: int) -> dict:
        drawn, rng = self._draw(draw, view)
        side = self.resolution.side(self.epoch)
        entry = {"labels": self.labels[self.turns[draw]], "side": side, "noise": int(rng.integers(2**31))}
        if isinstance(drawn, np.ndarray):
            return entry | {"oddity": drawn}
        return entry | self._pack(drawn, canvas_side(side))

    def _pack(self, plan: Plan, canvas: int) -> dict:
        """Say in numbers how a square canvas shows a plan: as the processor's resizing would squeeze the view into it."""
        number, sizes, _ = self.place[self.contents[plan.row]]
        degraded = plan.degradation
        stretch = np.array([canvas / plan.size[0], canvas / plan.size[1]])  # of columns and rows, view to canvas
        zoom = np.sqrt(abs(np.linalg.det(plan.matrix[:, :2])) * stretch.prod())
        level = int(np.clip(np.floor(np.log2(1.2 / zoom)), 0, len(sizes) - 1))
        height, width = sizes[level]
        shrunk = np.array([width / sizes[0][1], height / sizes[0][0]])
        back = np.linalg.inv(plan.matrix[:, :2])
        # canvas pixel (u, v) -> view ((u + 0.5) / stretch - 0.5) -> photo -> level
        offset = back @ (0.5 / stretch - 0.5 - plan.matrix[:, 2])
        to_level = np.hstack([back / stretch, offset[:, None]]) * shrunk[:, None]
        return {
            "level": number + level,
            "matrix": to_level.astype(np.float32),
            "mirrored": plan.border is None,
            "border": np.array(plan.border or (0, 0, 0), np.float32),
            "colours": plan.colours.astype(np.float32),
            "blur": degraded.blur * stretch[0],
            "streak": np.array(degraded.streak) * (stretch[0], 1.0),
            "coarse": degraded.coarse * stretch[0],
            "grain": degraded.grain,
            "jpeg": degraded.jpeg,
        }


def fits(data: datasets.Dataset, device: torch.device, looked_at: int = 64) -> bool:
    """Say whether all photos and their halvings fit half of what is free of a device's memory, and of this machine's.

    The photos' sizes are guessed from some of them. Without a way to fork, nothing fits.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return False
    rows = np.unique(np.linspace(0, len(data) - 1, looked_at).astype(int))
    areas = [np.prod(open_image(data[int(row)]["image"]).size) for row in rows]
    contents = len(set(data["sha256"][:])) if "sha256" in data.column_names else len(data)
    needed = float(np.mean(areas)) * contents * 4 * 4 / 3
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    if device.type == "cuda":
        free.append(torch.cuda.mem_get_info(device)[0])
    return needed < min(free) / 2


_DOING: dict[str, Callable] = {}


def _do(task):
    return _DOING["do"](task)


def canvas_side(side: int) -> int:
    """Return the side in px of the canvas that a view is made on, for a network's input of ``side`` px."""
    return max(CANVAS_STEP, CANVAS_STEP * round(side * CANVAS / CANVAS_STEP))


def collate(draws: Sequence[Mapping | Sequence[Mapping]]) -> dict:
    """Put draws of ``PlannedDraws`` together for ``DevicePhotos``; those of ``TrainingDraws`` and plain views as PyTorch does.

    A draw with several views becomes as many rows, one after the other.
    """
    entries = [entry for draw in draws for entry in ([draw] if isinstance(draw, Mapping) else draw)]
    if "side" not in entries[0]:
        return default_collate(entries)
    odd = [number for number, entry in enumerate(entries) if "oddity" in entry]
    shown = [number for number in range(len(entries)) if number not in set(odd)]
    batch = {
        "labels": torch.tensor([entry["labels"] for entry in entries]),
        "side": entries[0]["side"],
        "noise": entries[0]["noise"],
        "odd_places": torch.tensor(odd, dtype=torch.long),
        "places": torch.tensor(shown, dtype=torch.long),
    }
    if odd:
        batch["oddities"] = torch.from_numpy(np.stack([entries[number]["oddity"] for number in odd]))
    if shown:
        names = entries[shown[0]].keys() - {"labels", "side", "noise"}
        batch |= {name: torch.from_numpy(np.stack([entries[n][name] for n in shown])) for name in names}
        streaked = np.flatnonzero(batch["streak"][:, 0].numpy())
        kernels = [streak(*batch["streak"][place].tolist()) for place in streaked]
        widest = max((len(kernel) for kernel in kernels), default=1)
        kernels = [np.pad(kernel, (widest - len(kernel)) // 2) for kernel in kernels]
        batch["kernels"] = torch.from_numpy(np.stack(kernels) if kernels else np.zeros((0, 1, 1), np.float32))
        for name in ("blur", "coarse", "grain", "jpeg"):
            places = batch[name].nonzero()[:, 0]
            batch[f"{name}_places"], batch[name] = places, batch[name][places].float()
        batch["streak_places"] = torch.from_numpy(streaked)
        del batch["streak"]
    return batch


class DevicePhotos:
    """All photos in a device's memory, and what makes batches of pixels of them.

    Args:
        photos: of ``PlannedDraws.fill_cache``.
        mean, std: of the processor's normalisation, for pixels from 0 to 1.
        device: where.
    """

    def __init__(self, photos: Photos, mean: Sequence[float], std: Sequence[float], device: torch.device):
        self.device = device
        sizes = torch.tensor(photos.sizes)
        areas = sizes.prod(dim=1)
        self.pixels = photos.pixels.to(device)
        self.starts, self.sizes = (areas.cumsum(0) - areas).to(device), sizes.to(device)
        self.mean, self.std = (torch.tensor(values, device=device)[:, None, None] * BYTE for values in (mean, std))
        self.generator = torch.Generator(device)

    @torch.no_grad()
    def __call__(self, batch: Mapping) -> dict[str, Tensor]:
        """Make the pixels of a batch of ``collate``, on the device: ``pixel_values`` (B, 3, side, side) and ``labels`` (B,)."""
        side, labels = batch["side"], batch["labels"]
        images = torch.empty((len(labels), 3, side, side), device=self.device)
        if len(batch["places"]):
            self.generator.manual_seed(batch["noise"])
            canvas = self._change(self._show(batch, canvas_side(side)), batch)
            images[batch["places"]] = functional.interpolate(
                canvas, size=(side, side), mode="bilinear", antialias=True, align_corners=False
            )
        if len(batch["odd_places"]):
            images[batch["odd_places"]] = batch["oddities"].permute(0, 3, 1, 2).float()
        images = (images.round_().clamp_(0, BYTE) - self.mean) / self.std
        return {"pixel_values": images.contiguous(memory_format=torch.channels_last), "labels": labels}

    def _show(self, batch: Mapping, canvas: int) -> Tensor:
        """Show photos through their maps, in their new colours: (B, 3, canvas, canvas), 0 to 255."""
        steps = torch.arange(canvas, device=self.device, dtype=torch.float32)
        matrix = batch["matrix"][..., None, None]  # (B, 2, 3, 1, 1)
        col, row = (matrix[:, k, 0] * steps + matrix[:, k, 1] * steps[:, None] + matrix[:, k, 2] for k in (0, 1))
        height, width = (self.sizes[batch["level"]][:, k, None, None].float() for k in (0, 1))
        inside = (col > -0.5) & (col < width - 0.5) & (row > -0.5) & (row < height - 0.5)
        inside |= batch["mirrored"][:, None, None]
        col, row = _fold(col, width), _fold(row, height)
        start = self.starts[batch["level"]][:, None, None]
        left, top = col.floor(), row.floor()
        across, down = (col - left)[:, None], (row - top)[:, None]
        left, top, width, height = left.long(), top.long(), width.long(), height.long()
        right, bottom = torch.minimum(left + 1, width - 1), torch.minimum(top + 1, height - 1)
        upper, lower = start + top * width, start + bottom * width
        shown = self._pixels(upper + left) * (1 - across) + self._pixels(upper + right) * across
        shown = shown * (1 - down)
        shown += (self._pixels(lower + left) * (1 - across) + self._pixels(lower + right) * across) * down
        shown = torch.where(inside[:, None], shown, batch["border"][..., None, None])
        empty = shown.amax(dim=1, keepdim=True) < 0.5  # the fill of turned images stays black
        density = ((shown + 1) / 256).log_().neg_()
        linear, offset = batch["colours"][..., :3], batch["colours"][..., 3]
        density = torch.baddbmm(offset[..., None], linear, density.flatten(2)).view_as(shown)
        changed = density.neg_().exp_().mul_(256).sub_(1).clamp_(0, BYTE)
        return changed.masked_fill_(empty, 0)

    def _pixels(self, places: Tensor) -> Tensor:
        """Read pixels at places (B, h, w): (B, 3, h, w), 0 to 255."""
        packed = self.pixels[places]
        return torch.stack([(packed >> shift) & BYTE for shift in (0, 8, 16)], dim=1).float()

    def _change(self, canvas: Tensor, batch: Mapping) -> Tensor:
        """Degrade those that are to be: blur, streak, coarse pixels, grain, JPEG, in this order."""
        for name, change in (("blur", blur), ("streak", smear), ("coarse", coarsen), ("grain", None), ("jpeg", jpeg)):
            places = batch[f"{name}_places"]
            if not len(places):
                continue
            chosen = canvas[places]
            if name == "grain":
                noise = torch.randn(chosen.shape, generator=self.generator, device=self.device)
                chosen = (chosen + noise * batch["grain"][:, None, None, None]).clamp_(0, BYTE)
            else:
                chosen = change(chosen, batch["kernels" if name == "streak" else name])
            canvas[places] = chosen
        return canvas


def _fold(place: Tensor, extent: Tensor) -> Tensor:
    """Mirror coordinates into 0 to extent - 1, the edge pixels not doubled."""
    last = (extent - 1).clamp(min=1)
    place = torch.remainder(place, 2 * last)
    return torch.minimum(torch.minimum(place, 2 * last - place), extent - 1)


def smear(images: Tensor, kernels: Tensor) -> Tensor:
    """Convolve each image (N, 3, H, W) with a kernel (N, k, k) of its own, k odd; the border is mirrored."""
    number, channels, height, width = images.shape
    half = [length // 2 for length in (kernels.shape[2], kernels.shape[2], kernels.shape[1], kernels.shape[1])]
    padded = functional.pad(images, half, mode="reflect").flatten(0, 1)[None]
    weight = kernels.repeat_interleave(channels, dim=0)[:, None]
    found = functional.conv2d(padded, weight, groups=number * channels)
    return found.view(number, channels, height, width)


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (N, 3, H, W) with a Gaussian of its own ``sigma`` (N,), px."""
    reach = max(1, int(np.ceil(3 * float(sigma.max()))))
    steps = torch.arange(-reach, reach + 1, device=images.device)
    weights = (-0.5 * (steps / sigma[:, None]).square()).exp()
    weights = weights / weights.sum(dim=1, keepdim=True)  # (N, k)
    return smear(smear(images, weights[:, None, :]), weights[:, :, None])


def coarsen(images: Tensor, coarse: Tensor) -> Tensor:
    """Give each image (N, 3, H, H) pixels of its own size ``coarse`` (N,), px: means over squares."""
    side = images.shape[-1]
    number = (side / coarse).round().clamp(min=1)[:, None]  # of squares to a side
    steps = torch.arange(side, device=images.device)
    square = (steps * number / side).floor()
    first, beyond = ((edge * side / number).ceil().long().clamp(max=side) for edge in (square, square + 1))
    sums = functional.pad(images.double().cumsum(2).cumsum(3), (1, 0, 1, 0))

    def at(rows: Tensor, cols: Tensor) -> Tensor:
        places = (rows[:, :, None] * (side + 1) + cols[:, None, :]).flatten(1)  # (N, H * H)
        return sums.flatten(2).gather(2, places[:, None].expand(-1, sums.shape[1], -1))

    total = at(beyond, beyond) - at(first, beyond) - at(beyond, first) + at(first, first)
    extent = (beyond - first).double()
    area = (extent[:, :, None] * extent[:, None, :]).flatten(1)[:, None]
    return (total / area).view_as(images).to(images.dtype)


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Send each image (N, 3, H, W), 0 to 255, through JPEG of its own ``quality`` (N,), 1 to 100; H and W multiples of 16.

    Baseline JPEG with halved colours and the standard's own tables, scaled as libjpeg does; the lossless part is left out.
    """
    convert = torch.tensor(RGB_TO_YCC, device=images.device)
    coded = torch.einsum("dc,nchw->ndhw", convert, images)
    brightness, colours = coded[:, :1] - 128, functional.avg_pool2d(coded[:, 1:], 2)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    brightness = _quantise(brightness, BRIGHTNESS_STEPS, scale) + 128
    colours = functional.interpolate(
        _quantise(colours, COLOUR_STEPS, scale), scale_factor=2, mode="bilinear", align_corners=False
    )
    back = torch.linalg.inv(convert.double()).to(convert)
    return torch.einsum("dc,nchw->ndhw", back, torch.cat([brightness, colours], dim=1)).clamp_(0, BYTE)


def _quantise(planes: Tensor, steps: Sequence[Sequence[int]], scale: Tensor) -> Tensor:
    """Round the cosine coefficients of blocks of 8x8: planes (N, c, H, W), ``scale`` (N,) in per cent of ``steps``."""
    number, channels, height, width = planes.shape
    place = torch.arange(8, device=planes.device, dtype=planes.dtype)
    cosines = torch.cos((2 * place + 1) * place[:, None] * torch.pi / 16) / 2
    cosines[0] /= 2**0.5
    table = torch.tensor(steps, device=planes.device, dtype=planes.dtype)
    table = ((table * scale[:, None, None] + 50) / 100).floor().clamp(1, BYTE)[:, None, None, :, None, :]
    blocks = planes.view(number, channels, height // 8, 8, width // 8, 8)
    blocks = torch.einsum("ui,ncaibj,vj->ncaubv", cosines, blocks, cosines)
    blocks = (blocks / table).round() * table
    return torch.einsum("ui,ncaubv,vj->ncaibj", cosines, blocks, cosines).reshape(planes.shape)
