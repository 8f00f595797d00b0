"""Pictures that are no smear: what somebody drops into a demo, drawn so that a network can learn to say *other*."""

import string

import cv2
import numpy as np


def draw_oddity(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw a picture that shows no smear: noise, a texture, a gradient, a pattern, shapes, leaves, strokes or a page of text.

    Three in ten are two pictures laid over each other, and three in ten are out of focus.

    Returns:
        (side, side, 3), uint8 RGB.
    """
    image = _draw(rng, side)
    if rng.random() < 0.3:
        image = cv2.addWeighted(image, share := rng.uniform(0.3, 0.7), _draw(rng, side), 1 - share, 0)
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, side / 40))
    return image


def _draw(rng: np.random.Generator, side: int) -> np.ndarray:
    kinds = (_plain, _noise, _texture, _texture, _gradient, _pattern, _shapes, _leaves, _leaves, _strokes, _page)
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


def _leaves(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw corners and discs of a few colours that lie over one another and over a texture, few large and many small.

    Such "dead leaves" share statistics with natural images (Lee, Mumford & Huang 2001) and have been learnt from in place of
    photographs (Baradad et al. 2021).
    """
    image = _texture(rng, side)
    palette = rng.integers(0, 256, (int(rng.integers(2, 7)), 3))
    spread, rough = rng.uniform(0, 40), rng.random() < 0.5
    for radius in np.sort(side * 0.03 * rng.pareto(1.5, int(rng.integers(40, 160))) + 2)[::-1]:
        colour = np.clip(palette[rng.integers(len(palette))] + rng.normal(0, spread, 3), 0, 255).tolist()
        middle, radius = rng.integers(0, side, 2), min(radius, side / 2)
        if rng.random() < 0.3:
            cv2.circle(image, middle.tolist(), round(radius), colour, -1)
            continue
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        corners = middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(image, [corners.round().astype(np.int32)], colour)
    if rough:
        grain = rng.normal(0, rng.uniform(4, 25), (side, side, 1))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return image


def _strokes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw bent lines: a scribble, wires, roots."""
    image = _gradient(rng, side) if rng.random() < 0.5 else _plain(rng, side)
    bend, colours = rng.uniform(0.02, 0.5), [_colour(rng) for _ in range(int(rng.integers(1, 4)))]
    for _ in range(int(rng.integers(1, 12))):
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, bend, 80))
        steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * side / 40
        path = (rng.uniform(0, side, 2) + np.cumsum(steps, axis=0)).round().astype(np.int32)
        thickness = int(rng.integers(1, max(2, side // 20)))
        cv2.polylines(image, [path], False, colours[rng.integers(len(colours))], thickness, cv2.LINE_AA)
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
