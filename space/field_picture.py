"""Draw a field with a coloured, labelled box about each cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import texts
from colours import NOT_COUNTED, ink_on
from PIL import Image, ImageDraw, ImageFont

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
LINE = 1 / 240  # of the picture's longer side: a box's line
TEXT = 1 / 42  # of the picture's longer side: a label's height
SMALLEST_TEXT = 9  # px: smaller letters cannot be read
DASH = 4  # lines' widths, of a dash and of the gap after it


def draw_field_picture(
    field: Image.Image, cells: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> Image.Image:
    """Draw the boxes of a field's cells, each with its name.

    A cell that is unidentified has a dashed box; what is not counted, because an earlier photo shows it or a reviewer called
    it no cell, has a thin grey one: nothing is told by colour alone.

    Args:
        field: upright, RGB.
        cells: as the pipeline gives them; ``reviewed`` stands above ``verdict``.
        colours: of each class and of "unidentified", ``#rrggbb``.

    Returns:
        A new picture of the same size.
    """
    picture = field.convert("RGB")
    picture = picture.copy() if picture is field else picture
    draw = ImageDraw.Draw(picture)
    longer = max(picture.size)
    width = max(1, round(longer * LINE))
    font = ImageFont.truetype(str(FONT), max(SMALLEST_TEXT, round(longer * TEXT)))
    placed: list[tuple[int, int, int, int]] = []
    for cell in cells:
        name, text, counted = told(cell)
        row_min, col_min, row_max, col_max = cell["box"]
        corners = (col_min, row_min, col_max - 1, row_max - 1)
        colour = colours.get(name, NOT_COUNTED) if counted else NOT_COUNTED
        line = width if counted else max(1, width // 2)
        dashed = name == "unidentified"
        _outline(draw, corners, "white", line + 2 * max(1, line // 2), False)
        _outline(draw, corners, colour, line, dashed)
        place = _place(draw, text, font, corners, width, picture.size, placed)
        placed.append(place)
        draw.rectangle(place, fill=colour)
        draw.text(((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), text, ink_on(colour), font, "mm")
    return picture


def told(cell: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Say what a cell is, what its label reads, and whether it is counted."""
    review = cell.get("reviewed")
    if review == "dropped":
        return review, texts.FIELD_DROPPED, False
    if cell.get("same_as") is not None:
        return review or cell["verdict"], texts.FIELD_REPEATED, False
    if review is not None:
        return review, review, True
    if cell["verdict"] == "unidentified":
        return cell["verdict"], f"{cell['label']}?", True
    return cell["verdict"], f"{cell['verdict']} {100 * cell['score']:.0f} %", True


def _outline(draw: ImageDraw.ImageDraw, corners: Sequence[int], colour: str, width: int, dashed: bool) -> None:
    left, top, right, bottom = corners
    if not dashed:
        draw.rectangle(corners, outline=colour, width=width)
        return
    step = DASH * max(2, width)
    for start in range(left, right + 1, 2 * step):
        for row in (top, bottom - width + 1):
            draw.rectangle((start, row, min(right, start + step), row + width - 1), fill=colour)
    for start in range(top, bottom + 1, 2 * step):
        for col in (left, right - width + 1):
            draw.rectangle((col, start, col + width - 1, min(bottom, start + step)), fill=colour)


def _place(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont,
    corners: Sequence[int],
    line: int,
    size: tuple[int, int],
    placed: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Find a label's place: above the box, below, beside, inside; the first that no other label has, or that is least taken."""
    start, low, end, high = draw.textbbox((0, 0), text, font, "lt")
    wide, tall = round(end - start) + 4 * line + 4, round(high - low) + 2 * line + 4
    left, top, right, bottom = corners
    gap = line + 1
    tried = [
        (left, top - gap - tall), (right - wide + 1, top - gap - tall), (left, bottom + gap), (right - wide + 1, bottom + gap),
        (right + gap, top), (left - gap - wide, top), (left + gap, top + gap), (left + gap, bottom - gap - tall),
    ]  # fmt: skip
    best, least = None, None
    for col, row in tried:
        inside = max(0, min(col, size[0] - wide)), max(0, min(row, size[1] - tall))
        moved = abs(inside[0] - col) + abs(inside[1] - row)
        place = (inside[0], inside[1], inside[0] + wide - 1, inside[1] + tall - 1)
        covered = sum(_common(place, other) for other in placed) + moved
        if least is None or covered < least:
            best, least = place, covered
        if not covered:
            break
    return best


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Pixels that two rectangles share."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + 1
    tall = min(one[3], other[3]) - max(one[1], other[1]) + 1
    return max(0, wide) * max(0, tall)
