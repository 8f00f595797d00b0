"""The eleven corruptions of BloodMNIST-C, five severities each: what cameras, files and careless staining do to a smear.

They are those of MedMNIST-C (Di Salvo, Doerrich & Ledig 2024, arXiv:2406.17536), with the parameters that its package
``medmnistc`` 0.1.0 (Apache-2.0) lists for ``bloodmnist`` in ``corruptions/registry.py``. The package itself needs ImageMagick
and old releases of scikit-image and MedMNIST, so they are drawn anew here, without its files: its motion blur is ImageMagick's
half Gaussian along a line, its ten blots of ink are replaced by blots drawn from the seed.

Its parameters are for images of 224x224 px. Lengths are scaled here by the image's shorter side, so that they take the same
share of an image of any size; one that has fewer pixels than ``pixelate`` would leave stays as it is. JPEG's quality cannot be
scaled: its blocks are 8 px whatever the image.
"""

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance

SEVERITIES = (1, 2, 3, 4, 5)
REFERENCE_SIDE = 224  # px, of the images that the parameters are for

PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)  # share of the reference side's pixels that are left, each way
JPEG_QUALITY = (50, 30, 15, 10, 7)
DEFOCUS_RADIUS = (2, 3, 4, 5, 6)  # px, of the disc that a point becomes
MOTION = (
    (3, 3),
    (5, 5),
    (10, 5),
    (10, 7),
    (10, 9),
)  # px: ImageMagick's radius (half the streak) and standard deviation
BRIGHTNESS_UP = (1.1, 1.2, 1.3, 1.35, 1.4)  # factors
BRIGHTNESS_DOWN = (0.9, 0.8, 0.7, 0.6, 0.5)
CONTRAST_UP = (1.1, 1.15, 1.2, 1.25, 1.3)
CONTRAST_DOWN = (0.9, 0.8, 0.7, 0.6, 0.5)
SATURATE = (0.05, 0.10, 0.15, 0.17, 0.20)  # added to the saturation, which runs from 0 to 1
# Blots at most, their side in px, and the share of the square that is ink: the mean of the package's ten blots of this size.
DEPOSITS = ((1, 24, 0.62), (2, 24, 0.62), (3, 24, 0.62), (3, 24, 0.62), (3, 32, 0.54))
BUBBLES = ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12))  # largest radius in px, and bubbles at most

LARGEST_ANGLE = np.pi / 4  # of the direction of motion, to either side of the rows
DEPOSIT_MARGIN = 10  # px between a blot and the image's edge
FEWEST_BUBBLES, SMALLEST_BUBBLE, BUBBLE_RIM = 7, 3, 2  # number; px; px
BUBBLE_WHITE, RIM_WHITE = 100 / 255, 130 / 255  # share of white inside a bubble and in its rim
FINENESS = 9  # points a pixel is sampled at, each way, where a disc's edge crosses it


def _pixelate(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    share = min(1.0, PIXELATE[severity] / unit)
    small = (max(1, int(width * share)), max(1, int(height * share)))
    picture = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY[severity])
    return np.asarray(Image.open(stream))


def _defocus_blur(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    radius = DEFOCUS_RADIUS[severity] * unit
    reach = int(np.ceil(radius))
    fine = (np.arange((2 * reach + 1) * FINENESS) + 0.5) / FINENESS - reach - 0.5
    disc = (fine[:, None] ** 2 + fine[None] ** 2 <= radius**2).astype(np.float64)
    kernel = disc.reshape(2 * reach + 1, FINENESS, 2 * reach + 1, FINENESS).sum(axis=(1, 3))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _motion_blur(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    radius, deviation = (length * unit for length in MOTION[severity])
    angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    reach = 2 * int(np.ceil(radius))  # ImageMagick's kernel is as long as a symmetric one, and starts at its middle
    along = np.arange(reach + 1)
    weights = np.exp(-(along**2) / (2 * deviation**2))
    kernel = np.zeros((2 * reach + 3, 2 * reach + 3))
    rows, cols = reach + 1 + along * np.sin(angle), reach + 1 + along * np.cos(angle)
    for row, col, weight in zip(rows, cols, weights, strict=True):  # each point shared among its four neighbours
        top, left = int(row), int(col)
        down, right = row - top, col - left
        kernel[top : top + 2, left : left + 2] += weight * np.outer((1 - down, down), (1 - right, right))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _enhance(kind: Callable, factors: tuple[float, ...]) -> Callable:
    def enhance(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(kind(Image.fromarray(image)).enhance(factors[severity]))

    return enhance


def _saturate(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)  # hue 0 to 360, the others 0 to 1
    hsv[..., 1] = np.clip(hsv[..., 1] + SATURATE[severity], 0, 1)
    return np.clip(np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255), 0, 255).astype(np.uint8)


def _blot(rng: np.random.Generator, side: int, share: float) -> np.ndarray:
    """Draw a ragged blot that takes about this share of a square: (side, side) bool."""
    rows, cols = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1  # -1 to 1
    angle, distance = np.arctan2(rows, cols), np.hypot(rows, cols)
    edge = np.full(angle.shape, np.sqrt(share * 4 / np.pi) - 0.02)  # droplets and ragged edges add a little
    for waves in range(1, 13):
        edge += rng.normal(0, 0.1 / np.sqrt(waves)) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    blot = distance <= edge
    for row, col, radius in rng.uniform((-0.9, -0.9, 0.03), (0.9, 0.9, 0.1), (6, 3)):  # droplets about it
        blot |= np.hypot(rows - row, cols - col) <= radius
    return blot


def _stain_deposit(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    most, side, ink = DEPOSITS[severity]
    count = 1 + int(rng.random() * most)
    side, margin = max(1, round(side * unit)), DEPOSIT_MARGIN * unit
    free = np.maximum(0, np.array(image.shape[:2]) - side - 2 * margin)
    image = image.copy()
    for _ in range(count):
        top, left = (int(margin + share * room) for share, room in zip(rng.random(2), free, strict=True))
        blot = _blot(np.random.default_rng(rng.integers(1 << 32)), side, ink)
        under = image[top : top + side, left : left + side]
        under[blot[: under.shape[0], : under.shape[1]]] = 0
    return image


def _bubble(image: np.ndarray, severity: int, unit: float, rng: np.random.Generator) -> np.ndarray:
    largest, most = BUBBLES[severity]
    count = FEWEST_BUBBLES + int(rng.random() * (most - FEWEST_BUBBLES + 1))
    height, width = image.shape[:2]
    white = np.zeros((height, width, 1), np.float32)
    for size, down, right in rng.random((count, 3)):
        radius = (SMALLEST_BUBBLE + int(size * (largest - SMALLEST_BUBBLE + 1))) * unit
        row, col = radius + down * (height - 1 - 2 * radius), radius + right * (width - 1 - 2 * radius)
        reach = radius + BUBBLE_RIM * unit
        top, left = max(0, int(row - reach)), max(0, int(col - reach))
        about = white[top : int(row + reach) + 2, left : int(col + reach) + 2]
        rows, cols = np.ogrid[top : top + about.shape[0], left : left + about.shape[1]]
        distance = np.hypot(rows - row, cols - col)
        about[distance <= reach] = RIM_WHITE
        about[distance <= radius] = BUBBLE_WHITE  # where bubbles overlap, the later one hides the earlier
    return np.rint(image * (1 - white) + 255 * white).astype(np.uint8)


_CORRUPT = {
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "brightness_up": _enhance(ImageEnhance.Brightness, BRIGHTNESS_UP),
    "brightness_down": _enhance(ImageEnhance.Brightness, BRIGHTNESS_DOWN),
    "contrast_up": _enhance(ImageEnhance.Contrast, CONTRAST_UP),
    "contrast_down": _enhance(ImageEnhance.Contrast, CONTRAST_DOWN),
    "saturate": _saturate,
    "stain_deposit": _stain_deposit,
    "bubble": _bubble,
}
CORRUPTIONS = tuple(_CORRUPT)


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Corrupt an image.

    The same arguments give the same pixels. What is drawn at random (the direction of a motion, places and shapes of deposits
    and bubbles) depends on the seed and the corruption, not on the severity, so that severities differ in strength alone. As
    in the source, severities 3 and 4 of ``stain_deposit`` are the same.

    Parameters
    ----------
    image
        (H, W, 3), uint8 RGB.
    name
        One of ``CORRUPTIONS``.
    severity
        From 1, slight, to 5.
    seed
        0 or more; give each image its own.

    Returns
    -------
    numpy.ndarray
        (H, W, 3), uint8 RGB.

    Raises
    ------
    ValueError
        A name, a severity or a seed outside these, an image of another shape, kind or without pixels.
    """
    if name not in _CORRUPT:
        raise ValueError(f"The corruption {name!r} is unknown; expected one of {list(CORRUPTIONS)}. Correct the name.")
    if severity not in SEVERITIES:
        raise ValueError(f"The severity is {severity!r}; expected a whole number from 1, slight, to 5. Choose one.")
    if seed < 0:
        raise ValueError(f"The seed is {seed}; expected 0 or more. Choose another.")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        came = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"The image is {came}; expected a numpy array of uint8, 0 to 255. Convert it first.")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"The image has shape {image.shape}; expected (H, W, 3), RGB. Convert it with convert('RGB').")
    rng = np.random.default_rng((seed, CORRUPTIONS.index(name)))
    unit = min(image.shape[:2]) / REFERENCE_SIDE  # px of this image to one px of the reference
    return _CORRUPT[name](np.ascontiguousarray(image), int(severity) - 1, unit, rng)
