"""Pictures that are no smear: what somebody drops into a demo, drawn so that a network can learn to say *other*."""

import string

import cv2
import numpy as np


def draw_oddity(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw a picture that shows no smear: noise, a texture, a gradient, a pattern, shapes or a page of text.

    Returns:
        (side, side, 3), uint8 RGB.
    """
    kinds = (_plain, _noise, _texture, _texture, _gradient, _pattern, _shapes, _shapes, _page)
    return kinds[rng.integers(len(kinds))](rng, side)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(level) for level in rng.integers(0, 256, 3))


def _plain(rng: np.random.Generator, side: int) -> np.ndarray:
    return np.full((side, side, 3), _colour(rng), np.uint8)


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    coarse = int(rng.integers(1, 9))
    channels = 1 if rng.random() < 0.3 else 3
    cells = -(-side // coarse)
    grain = rng.integers(0, 256, (cells, cells, channels), np.uint8)
    return np.broadcast_to(grain.repeat(coarse, 0).repeat(coarse, 1)[:side, :side], (side, side, 3)).copy()


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw noise with the spectrum of photographs, amplitude as one over a power of the frequency, in a few colours."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    fall = np.maximum(frequency, 1 / side) ** -rng.uniform(0.8, 2.2)
    layers = []
    for _ in range(3):
        phases = rng.uniform(0, 2 * np.pi, fall.shape)
        layer = np.fft.irfft2(fall * np.exp(1j * phases), s=(side, side))
        layers.append((layer - layer.mean()) / max(layer.std(), 1e-9))
    mixing = rng.normal(0, 1, (3, 3)) + rng.normal(0, 2, (3, 1)) * np.array([1.0, 0, 0])
    levels = np.stack(layers, axis=-1) @ mixing.T * rng.uniform(10, 45) + rng.uniform(40, 215, 3)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = np.mgrid[:side, :side] / side - 0.5
    along = np.clip(rows * np.sin(angle) + cols * np.cos(angle) + 0.5, 0, 1)[..., None]
    return (along * _colour(rng) + (1 - along) * _colour(rng)).astype(np.uint8)


def _pattern(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw stripes or a chequered ground."""
    step = int(rng.integers(4, max(5, side // 4)))
    rows, cols = np.mgrid[:side, :side] // step
    even = (rows if rng.random() < 0.3 else cols if rng.random() < 0.5 else rows + cols) % 2 == 0
    return np.where(even[..., None], _colour(rng), _colour(rng)).astype(np.uint8)


def _shapes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw polygons and lines with sharp corners: round shapes would look like cells."""
    image = _gradient(rng, side)
    for _ in range(int(rng.integers(2, 12))):
        corners = rng.integers(-side // 4, side + side // 4, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        if rng.random() < 0.3:
            cv2.polylines(image, [corners], False, _colour(rng), int(rng.integers(1, 6)))
        else:
            cv2.fillPoly(image, [corners], _colour(rng))
    return image


def _page(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw lines of letters: a document, a screen, a label."""
    ground, ink = (255, 255, 255), (0, 0, 0)
    if rng.random() < 0.5:
        ground, ink = _colour(rng), _colour(rng)
    image = np.full((side, side, 3), ground, np.uint8)
    size = rng.uniform(0.25, 1.2)
    letters = list(string.ascii_letters + string.digits + "    .,")
    for row in range(int(20 * size), side + int(20 * size), max(6, int(30 * size))):
        text = "".join(rng.choice(letters, 60))
        start = (int(rng.integers(-10, side // 4)), row)
        cv2.putText(image, text, start, int(rng.integers(0, 5)), size, ink, 1 + int(size > 0.8), cv2.LINE_AA)
    return image
