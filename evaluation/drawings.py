"""Drawings that show nothing of a smear: pages, tables, charts, noise, gradients, stripes, boards, plain colours, fractals.

Each takes a random generator and a side in px, and gives (side, side, 3), uint8 RGB. ``training.oddities`` draws what a network
may have learnt to refuse; these are other drawings, with other letters in other typefaces.
"""

import colorsys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ALPHABETS = ("αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзийклмнопрстуфхцчшщыьэюя", "àâäæçèéêëîíïñóôöøœùúûüýÿß")
TYPEFACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono")


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Draw a colour whose hue, saturation and value are even: (3,) float, 0 to 255."""
    return np.array(colorsys.hsv_to_rgb(*rng.random(3))) * 255


def _as_bytes(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _plane(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each pixel's place on turned axes through a point of the picture, in sides: (side, side) twice."""
    rows, cols = np.mgrid[:side, :side] / side - rng.uniform(0.2, 0.8, (2, 1, 1))
    angle = rng.uniform(0, np.pi)
    return cols * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - cols * np.sin(angle)


def _blend(rng: np.random.Generator, share: np.ndarray) -> np.ndarray:
    """Go from one colour to another by shares (side, side) from 0 to 1."""
    first, last = _colour(rng), _colour(rng)
    return _as_bytes(first + share[..., None] * (last - first))


def _smooth(rng: np.random.Generator, side: int, cells: int, channels: int) -> np.ndarray:
    """Draw normal values on a coarse grid, bent smoothly between: (side, side, channels)."""
    grid = rng.normal(size=(cells + 3, cells + 3, channels)).astype(np.float32)
    return cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, channels)


def _noise(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw white, blue, banded or pink noise, a few wild pixels, or a disturbed line signal."""
    kind, channels = rng.integers(6), int(rng.choice((1, 3)))
    ground, strength = rng.uniform(40, 215, 3), rng.uniform(15, 80)
    white = rng.normal(size=(side, side, channels)).astype(np.float32)
    if kind == 0:
        field = white
    elif kind == 1:  # high frequencies
        field = white - cv2.GaussianBlur(white, (0, 0), rng.uniform(0.8, 2)).reshape(white.shape)
    elif kind == 2:  # a band of frequencies
        finer = rng.uniform(1, side / 24)
        blurred = (cv2.GaussianBlur(white, (0, 0), sigma).reshape(white.shape) for sigma in (finer, 1.6 * finer))
        field = np.subtract(*blurred)
    elif kind == 3:  # low frequencies: octaves, each half as coarse and weaker
        field = sum(_smooth(rng, side, 2**octave, channels) * 0.6**octave for octave in range(1, 6))
    elif kind == 4:
        field = white * (rng.random((side, side, 1)) < rng.uniform(0.02, 0.3)) * 3
    else:
        field = np.broadcast_to(rng.normal(size=(side, 1, channels)), (side, side, channels))
    return _as_bytes(ground + field / max(field.std(), 1e-6) * strength)


def _gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """Go from colour to colour outwards, around, or between four corners."""
    kind = rng.integers(3)
    if kind == 2:
        corners = np.stack([[_colour(rng) for _ in range(2)] for _ in range(2)]).astype(np.float32)
        return _as_bytes(cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR))
    along, across = _plane(rng, side)
    if kind == 0:
        return _blend(rng, np.clip(np.hypot(along, across) / rng.uniform(0.4, 1.2), 0, 1))
    return _blend(rng, np.arctan2(across, along) / (2 * np.pi) + 0.5)


def _stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw waves in one direction, in two, or in rings that narrow outwards."""
    along, across = _plane(rng, side)
    waves, kind = rng.uniform(3, min(40, side / 4)), rng.integers(3)
    phase = waves * along if kind < 2 else waves * (along**2 + across**2)
    wave = np.sin(2 * np.pi * phase)
    if kind == 1:
        wave = (wave + np.sin(2 * np.pi * rng.uniform(3, min(40, side / 4)) * across)) / 2
    return _blend(rng, (wave + 1) / 2 if rng.random() < 0.5 else (wave > 0).astype(float))


def _checkerboard(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw a board seen at an angle, or a wall of bricks."""
    columns, rows = rng.integers(3, 16, 2)
    board = np.full((16 * rows, 16 * columns, 3), _colour(rng))
    colours = [_colour(rng) for _ in range(2)]
    bricks = rng.random() < 0.4
    for row in range(rows):
        for column in range(columns):
            if bricks:
                left = 16 * column + 8 * (row % 2)
                board[16 * row + 1 : 16 * row + 15, left + 1 : left + 15] = colours[0] * rng.uniform(0.8, 1.1)
            else:
                board[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = colours[(row + column) % 2]
    height, width = board.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    middle = np.array([(0, 0), (side, 0), (side, side), (0, side)]) * rng.uniform(1.0, 1.6)
    seen = (middle - middle.mean(0) + side / 2 + rng.uniform(-0.2, 0.2, (4, 2)) * side).astype(np.float32)
    view = cv2.getPerspectiveTransform(corners, seen)
    warped = cv2.warpPerspective(
        _as_bytes(board), view, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )
    return cv2.GaussianBlur(warped, (0, 0), 0.6)


def _plain(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw what a camera gives of an even surface: a colour, black or white, darker to the edges, with a little noise."""
    colour = (_colour(rng), np.full(3, 4.0), np.full(3, 252.0))[rng.choice(3, p=(0.8, 0.1, 0.1))]
    along, across = _plane(rng, side)
    falling = 1 - rng.uniform(0, 0.3) * (along**2 + across**2)
    return _as_bytes(colour * falling[..., None] + rng.normal(0, rng.uniform(0.5, 4), (side, side, 3)))


def _fractal(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw a Julia set, a carpet of binary digits, or a cloud of points under contracting maps."""
    kind = rng.integers(3)
    if kind == 0:
        along, across = _plane(rng, side)
        place = (along + 1j * across) * rng.uniform(1.2, 3.2)
        angle = rng.uniform(0, 2 * np.pi)
        start = 0.7885 * np.exp(1j * angle)
        steps = np.zeros((side, side))
        for _ in range(40):
            inside = np.abs(place) <= 2
            place[inside] = place[inside] ** 2 + start
            steps += inside
        return _blend(rng, np.sqrt((steps - steps.min()) / max(np.ptp(steps), 1)))
    if kind == 1:
        rows, cols = np.mgrid[:side, :side] + rng.integers(0, 256, (2, 1, 1))
        digits = (rows & cols, rows ^ cols, rows | cols)[rng.integers(3)] % 256
        return _blend(rng, digits / 255)
    maps = [(0.45 * _turn(rng.uniform(0, 2 * np.pi)), rng.uniform(-1, 1, 2)) for _ in range(int(rng.integers(3, 6)))]
    points = rng.uniform(-1, 1, (side * side // 2, 2))
    for _ in range(12):
        chosen = rng.integers(len(maps), size=len(points))
        for number, (turn, shift) in enumerate(maps):
            points[chosen == number] = points[chosen == number] @ turn.T + shift
    reach = np.abs(points).max() * 1.05
    counts, _, _ = np.histogram2d(*points.T, bins=side, range=[[-reach, reach]] * 2)
    return _blend(rng, np.minimum(counts / 3, 1))


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


@cache
def _typeface(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", size)


def _sheet(rng: np.random.Generator, side: int) -> tuple[Image.Image, tuple[int, ...]]:
    """Give a sheet of paper, or a dark screen, and the colour that is written in."""
    paper, ink = 255 - rng.uniform(0, 30, 3), rng.uniform(0, 60, 3)
    if rng.random() < 0.25:
        paper, ink = ink, paper
    return Image.new("RGB", (side, side), tuple(map(int, paper))), tuple(map(int, ink))


def _photographed(rng: np.random.Generator, sheet: Image.Image) -> np.ndarray:
    """Turn a sheet a little and light it from one side, or leave it as a scan."""
    if rng.random() < 0.5:
        return np.asarray(sheet)
    edge = sheet.getpixel((0, 0))
    turned = sheet.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=edge)
    along, _ = _plane(rng, sheet.width)
    return _as_bytes(np.asarray(turned) * (1 - rng.uniform(0, 0.4) * np.abs(along))[..., None])


def _page(rng: np.random.Generator, side: int) -> np.ndarray:
    """Write lines of words that mean nothing, in Greek, Cyrillic or accented Latin letters, under a heading."""
    sheet, ink = _sheet(rng, side)
    draw, letters = ImageDraw.Draw(sheet), list(ALPHABETS[rng.integers(len(ALPHABETS))])
    name, size = str(rng.choice(TYPEFACES)), int(rng.integers(max(7, side // 28), max(8, side // 9)))
    margin, top = int(rng.uniform(0, side / 8)), int(rng.uniform(0, size))
    heading = rng.random() < 0.5
    while top < side:
        font = _typeface(name, 2 * size if heading else size)
        words = ("".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(40))
        line = "   " if rng.random() < 0.15 else ""
        for word in words:
            if draw.textlength(line + word, font=font) > side - 2 * margin:
                break
            line += word + " "
        draw.text((margin, top), line, fill=ink, font=font)
        top += int(font.size * rng.choice((1.3, 1.3, 1.3, 2.0)))
        heading = False
    return _photographed(rng, sheet)


def _table(rng: np.random.Generator, side: int) -> np.ndarray:
    """Write a ruled table of figures, as a laboratory's report has it."""
    sheet, ink = _sheet(rng, side)
    draw, size = ImageDraw.Draw(sheet), int(rng.integers(max(7, side // 26), max(8, side // 12)))
    font, lines, columns = _typeface("DejaVuSansMono", size), int(1.8 * size), int(rng.integers(2, 5))
    decimals, ruled = int(rng.integers(0, 3)), rng.random() < 0.7
    if rng.random() < 0.5:
        draw.rectangle((0, 0, side, lines), fill=tuple(map(int, _colour(rng))))
    for row, top in enumerate(range(0, side, lines)):
        for column in range(columns):
            left = column * side // columns
            text = (
                f"{rng.lognormal(2, 1.5):.{decimals}f}" if row and column else "".join(rng.choice([*ALPHABETS[1]], 5))
            )
            draw.text((left + size // 2, top + size // 3), text, fill=ink, font=font)
            if ruled:
                draw.rectangle((left, top, left + side // columns, top + lines), outline=ink)
    return _photographed(rng, sheet)


def _chart(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw bars or curves over two axes."""
    sheet, ink = _sheet(rng, side)
    draw, edge = ImageDraw.Draw(sheet), side // 8
    count = int(rng.integers(3, 12))
    for _ in range(int(rng.integers(1, 4))):
        colour = tuple(map(int, _colour(rng)))
        tops = side - edge - rng.uniform(0.05, 0.95, count) * (side - 2 * edge)
        lefts = np.linspace(edge, side - edge, count + 1)
        if rng.random() < 0.5:
            draw.line([*zip(lefts[:-1], tops, strict=True)], fill=colour, width=max(1, side // 90))
        else:
            width = (lefts[1] - lefts[0]) * rng.uniform(0.3, 0.9)
            for left, top in zip(lefts[:-1], tops, strict=True):
                draw.rectangle((left, top, left + width, side - edge), fill=colour)
    draw.line([(edge, edge), (edge, side - edge), (side - edge, side - edge)], fill=ink, width=max(1, side // 110))
    for tick in np.linspace(edge, side - edge, 5):
        draw.text((tick, side - edge), f"{tick:.0f}", fill=ink, font=_typeface("DejaVuSans", max(7, side // 24)))
    return _photographed(rng, sheet)


DRAWINGS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "printed page": _page,
    "table of figures": _table,
    "chart": _chart,
    "noise": _noise,
    "gradient": _gradient,
    "stripes": _stripes,
    "checkerboard": _checkerboard,
    "plain colour": _plain,
    "fractal": _fractal,
}
