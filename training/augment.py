"""Augmentation of smear images: image in, image out. What the network sees is made of it by the processor that ships."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from training.colour import HED_TO_OD, OD_TO_HED, change_colour, compose

GROUND_ATTEMPTS = 40  # to find a place that keeps clear of the cells
GROUND_SHRINKS = 0.95  # at each attempt: about a cell that fills its image, only the corners are free
COPY_WIDTH = 320  # px, of the Kaggle archive's images
COPY_SIDE = 224  # px, of the network that these are shown to
SMALLEST_WINDOW = 8  # px: some boxes of red cells and platelets are slips of a few pixels


@dataclass(frozen=True)
class Augmentation:
    """How far an image may be changed. Every range is drawn from uniformly (scales and gains: in the logarithm).

    Attributes:
        scale: smallest and largest enlargement of a whole photo.
        shift: largest shift of a whole photo, as a share of its width and height.
        copy_share: how often a whole photo, for a network that sees more than 224 px, has only the pixels of a Kaggle copy.
        crop_share: how often a photo with known boxes gives a close crop instead of the whole.
        crop_side: smallest and largest side of a close crop, in sides of the cell's box.
        crop_centre: largest distance of the crop's centre from the cell's, in sides of the crop.
        ground_side: smallest and largest side of a window without white cells, in sides of a white cell.
        stretch: largest change of the aspect ratio, as a logarithm.
        stain: largest change of each stain's strength, as a logarithm.
        stain_floor: largest addition to each stain, in optical density.
        white_balance: largest gain of a channel, as a logarithm (an addition in optical density).
        gamma: largest change of contrast in optical density, as a logarithm.
        mixing: largest share of each channel's density that leaks into each other one.
        grey_share: how often an image loses its colours.
        blur: largest standard deviation of a Gaussian, in pixels of a 320 px wide photo.
        streak: longest streak of a moved camera, in pixels of a 320 px wide photo.
        pixelate: coarsest pixels, in pixels of a 320 px wide photo.
        noise: largest standard deviation, in grey levels.
        jpeg: lowest quality of a JPEG round trip.
        degrade_share: how often each of blur, streak, pixelate, noise and JPEG happens.
    """

    scale: tuple[float, float] = (0.7, 1.4)
    shift: float = 0.15
    copy_share: float = 0.5
    crop_share: float = 0.35
    crop_side: tuple[float, float] = (1.1, 2.4)
    crop_centre: float = 0.12
    ground_side: tuple[float, float] = (0.4, 2.5)
    stretch: float = 0.15
    stain: float = 0.25
    stain_floor: float = 0.03
    white_balance: float = 0.08
    gamma: float = 0.2
    mixing: float = 0.0
    grey_share: float = 0.0
    blur: float = 1.2
    streak: float = 0.0
    pixelate: float = 0.0
    noise: float = 6.0
    jpeg: int = 40
    degrade_share: float = 0.2

    def __call__(
        self,
        pyramid: list[np.ndarray],
        rng: np.random.Generator,
        side: int,
        boxes: list[list[int]] | None = None,
        whole: bool = True,
        colours: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw one changed image.

        Args:
            pyramid: the photo (H, W, 3), uint8 RGB, and its halvings (see ``halvings``).
            rng: where every choice comes from; the same state gives the same image.
            side: the network's input side in px; the image is made about 1.4 times as large, as a copy is at 224 px.
            boxes: (row_min, col_min, row_max, col_max) of the photo's white cells, in px of the photo.
            whole: whether the whole photo may be shown; a field of several cells shows only crops about ``boxes``.
            colours: affine map (3, 4) of the optical densities that comes before the random one.

        Returns:
            (h, w, 3), uint8 RGB.
        """
        height, width = pyramid[0].shape[:2]
        if boxes and (not whole or rng.random() < self.crop_share):
            matrix, size = self._crop_view(rng, side, boxes)
        else:
            matrix, size = self._whole_view(rng, side, height, width, boxes)
        return self._show(pyramid, rng, matrix, size, colours)

    def ground(
        self,
        pyramid: list[np.ndarray],
        rng: np.random.Generator,
        side: int,
        cells: list[list[int]],
        others: list[list[int]],
        colours: np.ndarray | None = None,
    ) -> np.ndarray | None:
        """Draw a window of a photo that shows no white cell: red cells, platelets, the empty ground between.

        Args:
            pyramid, rng, side, colours: as for a call.
            cells: boxes of all white cells of the photo.
            others: boxes of red cells and platelets, about which half of the windows lie.

        Returns:
            (h, w, 3), uint8 RGB, or None where no place was found that keeps clear of the cells.
        """
        height, width = pyramid[0].shape[:2]
        discs = [
            ((box[1] + box[3]) / 2, (box[0] + box[2]) / 2, max(box[2] - box[0], box[3] - box[1]) / 2) for box in cells
        ]
        unit = 2 * max((radius for _, _, radius in discs), default=min(height, width) / 4)
        for attempt in range(GROUND_ATTEMPTS):
            if others and rng.random() < 0.5:
                box = others[rng.integers(len(others))]
                window = max(box[2] - box[0], box[3] - box[1]) * _log_uniform(rng, *self.crop_side)
                col, row = (box[1] + box[3]) / 2, (box[0] + box[2]) / 2
            else:
                window = unit * _log_uniform(rng, *self.ground_side) * GROUND_SHRINKS**attempt
                col, row = rng.uniform(0, width), rng.uniform(0, height)
            reach = window * np.sqrt(np.cosh(self.stretch) / 2)  # of a window turned by any angle and stretched
            inside = window >= SMALLEST_WINDOW and reach <= col <= width - reach and reach <= row <= height - reach
            if inside and all(np.hypot(col - x, row - y) >= reach + radius for x, y, radius in discs):
                out = round(side * 1.15)
                matrix = _about(self._linear(rng, out / window), np.array([col, row]), np.array([out / 2, out / 2]))
                return self._show(pyramid, rng, matrix, (out, out), colours)
        return None

    def change(
        self, image: np.ndarray, rng: np.random.Generator, colours: np.ndarray | None = None, zoom: float = 1.0
    ) -> np.ndarray:
        """Change the colours of an image (h, w, 3) and degrade it; ``zoom`` as its width over 320 px."""
        random = self._colour_map(rng)
        image = change_colour(image, random if colours is None else compose(random, colours))
        return self.draw_degradation(rng, zoom)(image, rng)

    def _show(self, pyramid, rng, matrix, size, colours):
        image = warp(pyramid, matrix, size, draw_border(rng, lambda: bright_ground(pyramid[-1])))
        return self.change(image, rng, colours, size[0] / 320)

    def _whole_view(self, rng, side, height, width, boxes):
        """Return the map from photo to output pixels, and the output's size (w, h), for the whole photo."""
        zoom = side / COPY_SIDE * COPY_WIDTH / width  # at 224 px a photo is seen 320 px wide, as the Kaggle copies are
        # Larger views show what no copy has: who sees these alone names photos better, and copies no better.
        if side > COPY_SIDE and rng.random() < self.copy_share:
            zoom = COPY_WIDTH / width
        size = (round(width * zoom), round(height * zoom))
        for _ in range(5):
            linear = self._linear(rng, zoom * _log_uniform(rng, *self.scale))
            centre = np.array(size) * (0.5 + rng.uniform(-self.shift, self.shift, 2))
            matrix = _about(linear, np.array([width / 2, height / 2]), centre)
            # A view that lost every cell would teach its label on an empty field.
            if not boxes or any(_inside(matrix, box, size) for box in boxes):
                break
        return matrix, size

    def _crop_view(self, rng, side, boxes):
        """Return the map and the output's size (w, h) for a close crop about one of the cells."""
        row_min, col_min, row_max, col_max = boxes[rng.integers(len(boxes))]
        window = max(row_max - row_min, col_max - col_min) * _log_uniform(rng, *self.crop_side)
        out = round(side * 1.15)
        linear = self._linear(rng, out / window)
        centre = out * (0.5 + rng.uniform(-self.crop_centre, self.crop_centre, 2))
        return _about(linear, np.array([col_min + col_max, row_min + row_max]) / 2, centre), (out, out)

    def _linear(self, rng: np.random.Generator, zoom: float) -> np.ndarray:
        """Draw a rotation by any angle, a flip and a slight stretch, at this zoom: (2, 2)."""
        angle = rng.uniform(0, 2 * np.pi)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.exp(rng.uniform(-self.stretch, self.stretch) / 2)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        return np.diag([stretch, 1 / stretch]) @ rotation @ np.diag([flip, 1.0]) * zoom

    def _colour_map(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an affine map (3, 4) of optical densities: stains stronger and weaker, contrast, white balance."""
        strength = np.exp(rng.uniform(-self.stain, self.stain, 3) + rng.uniform(-self.gamma, self.gamma))
        floor = rng.uniform(-self.stain_floor, self.stain_floor, 3)
        # Row vectors: od -> hed = od @ OD_TO_HED -> hed * strength + floor -> @ HED_TO_OD
        linear = (OD_TO_HED * strength) @ HED_TO_OD
        offset = floor @ HED_TO_OD + rng.uniform(-self.white_balance, self.white_balance, 3)
        linear = linear.T
        if self.mixing:
            leak = rng.uniform(-self.mixing, self.mixing, (3, 3))
            linear = (np.eye(3) + leak - np.diag(leak.sum(axis=1))) @ linear  # greys stay grey
        if self.grey_share and rng.random() < self.grey_share:
            linear, offset = np.full((3, 3), 1 / 3) @ linear, np.full(3, offset.mean())
        return np.hstack([linear, offset[:, None]]).astype(np.float32)

    def draw_degradation(self, rng: np.random.Generator, zoom: float) -> "Degradation":
        """Draw how an image is degraded, ``zoom`` as its width over 320 px."""
        found = {}
        if rng.random() < self.degrade_share:
            found["blur"] = max(0.2, rng.uniform(0, self.blur) * zoom)
        if self.streak and rng.random() < self.degrade_share:
            found["streak"] = (rng.uniform(1, self.streak) * zoom, rng.uniform(0, np.pi))
        if self.pixelate and rng.random() < self.degrade_share:
            found["coarse"] = max(1.0, rng.uniform(1, self.pixelate) * zoom)
        if rng.random() < self.degrade_share:
            found["grain"] = rng.uniform(0, self.noise)
        if rng.random() < self.degrade_share:
            found["jpeg"] = int(rng.integers(self.jpeg, 96))
        return Degradation(**found)


@dataclass(frozen=True)
class Degradation:
    """What is done to an image, in this order; 0 leaves it out.

    Attributes:
        blur: standard deviation of a Gaussian, px.
        streak: length, px, and angle, radians, of a moved camera's streak.
        coarse: side of the coarse pixels, px.
        grain: standard deviation of the noise, grey levels.
        jpeg: quality of a round trip.
    """

    blur: float = 0.0
    streak: tuple[float, float] = (0.0, 0.0)
    coarse: float = 0.0
    grain: float = 0.0
    jpeg: int = 0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degrade an image (h, w, 3), uint8 RGB; ``rng`` gives the noise."""
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.streak[0]:
            image = cv2.filter2D(image, -1, streak(*self.streak))
        if self.coarse:
            height, width = image.shape[:2]
            size = (round(width / self.coarse), round(height / self.coarse))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
        if self.grain:
            grain = rng.standard_normal(image.shape, dtype=np.float32) * self.grain
            image = np.clip(image + grain, 0, 255).astype(np.uint8)
        if self.jpeg:
            quality = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg]
            image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        return image


def read_augmentation(entries: Sequence[str]) -> Augmentation:
    """Read an ``Augmentation`` from ``NAME=VALUE`` entries; a range is ``NAME=LOW,HIGH``.

    Raises:
        ValueError: no such name, no number, or one that no image can be changed by.
    """
    known = {field.name: field.default for field in fields(Augmentation)}
    changed = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        if name not in known:
            raise ValueError(f"--augment {entry}: expected NAME=VALUE with one of the names {', '.join(known)}.")
        try:
            numbers = (
                [type(known[name])(text)] if not isinstance(known[name], tuple) else [*map(float, text.split(","))]
            )
        except ValueError:
            numbers = []
        if len(numbers) != (2 if isinstance(known[name], tuple) else 1):
            raise ValueError(f"--augment {entry}: expected a value like that of {name}={known[name]}.")
        low, high = numbers[0], numbers[-1]
        if isinstance(known[name], tuple):
            fits, expected = 0 < low <= high < np.inf, "two rising numbers above 0"
        elif name.endswith("_share"):
            fits, expected = 0 <= low <= 1, "a share from 0 to 1"
        elif name == "jpeg":
            fits, expected = 1 <= low <= 95, "a quality from 1 to 95"
        else:
            fits, expected = 0 <= low < np.inf, "a number from 0 on"
        if not fits:
            raise ValueError(f"--augment {entry}: expected {expected}.")
        changed[name] = tuple(numbers) if isinstance(known[name], tuple) else numbers[0]
    return replace(Augmentation(), **changed)


def streak(length: float, angle: float) -> np.ndarray:
    """Return the kernel (n, n) of a camera that moved ``length`` px in the direction ``angle``, in radians; its sum is 1."""
    half = max(1, int(np.ceil(length / 2)))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for step in np.linspace(-length / 2, length / 2, 4 * half + 1):
        kernel[round(half + step * np.sin(angle)), round(half + step * np.cos(angle))] += 1
    return kernel / kernel.sum()


def halvings(image: np.ndarray, smallest: int = 120) -> list[np.ndarray]:
    """Halve an image (H, W, 3) while its shorter side stays at least ``smallest`` px, so that shrinking it does not alias."""
    pyramid = [image]
    while min(pyramid[-1].shape[:2]) >= 2 * smallest:
        height, width = pyramid[-1].shape[:2]
        pyramid.append(cv2.resize(pyramid[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return pyramid


def warp(
    pyramid: list[np.ndarray], matrix: np.ndarray, size: tuple[int, int], border: tuple[int, int, int] | None
) -> np.ndarray:
    """Show a photo through a map (2, 3) from its (col, row) to the output's; ``size`` is (w, h), ``border`` None mirrors."""
    zoom = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    level = int(np.clip(np.floor(np.log2(1.2 / zoom)), 0, len(pyramid) - 1))
    factor = np.array([pyramid[0].shape[1] / pyramid[level].shape[1], pyramid[0].shape[0] / pyramid[level].shape[0]])
    scaled = np.hstack([matrix[:, :2] * factor, matrix[:, 2:]])
    mode = cv2.BORDER_REFLECT_101 if border is None else cv2.BORDER_CONSTANT
    return cv2.warpAffine(
        pyramid[level], scaled, size, flags=cv2.INTER_LINEAR, borderMode=mode, borderValue=border or (0, 0, 0)
    )


def draw_border(rng: np.random.Generator, ground: Callable[[], tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Draw what lies outside the photo: black as in the Kaggle copies, the photo's bright ground, or None: its mirror image."""
    kind = rng.random()
    if kind < 0.5:
        return (0, 0, 0)
    return ground() if kind < 0.75 else None


def bright_ground(photo: np.ndarray) -> tuple[int, int, int]:
    """Return the colour of the bright ground of a photo (H, W, 3), uint8 RGB: each channel's 90th percentile."""
    return tuple(int(level) for level in np.percentile(photo[::4, ::4].reshape(-1, 3), 90, axis=0))


def _about(linear: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the map (2, 3) that applies ``linear`` and takes the point ``source`` (col, row) to ``target``."""
    return np.hstack([linear, (target - linear @ source)[:, None]])


def _inside(matrix: np.ndarray, box: list[int], size: tuple[int, int]) -> bool:
    centre = matrix @ np.array([(box[1] + box[3]) / 2, (box[0] + box[2]) / 2, 1.0])
    return bool((centre >= 0).all() and (centre < size).all())


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
