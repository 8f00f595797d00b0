"""Draw pairs of images side by side, to be judged by eye."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smears.likeness import lay_over

PANEL = (216, 162)  # pixels, width and height
GAP = 8
LINE = 15  # pixels, height of a line of text
COLUMNS, ROWS = 2, 12  # pairs on a page
TITLE_LINES = 2
NAME = "contact_sheet"


@dataclass(frozen=True)
class SheetPair:
    """Two images and what to write under them: the reason, and a line for each image."""

    first: Path
    second: Path
    reason: str
    first_line: str
    second_line: str


def draw_sheets(
    pairs: Sequence[SheetPair], read: Callable[[Path], np.ndarray], folder: Path, caption: str
) -> list[Path]:
    """Write `contact_sheet.jpg`, or numbered pages where the pairs fill several; pages of an earlier run go.

    Each pair takes three panels: the first image, the second, and the second laid where it agrees with the first.

    Args:
        pairs: in the order in which they are to be seen.
        read: gives the image at a path, (H, W, 3) uint8 RGB.
        folder: to write into; it exists.
        caption: stands above each page.

    Returns:
        The files written, none where there are no pairs.
    """
    for old in folder.glob(f"{NAME}*.jpg"):
        old.unlink()
    size = COLUMNS * ROWS
    pages = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    files = []
    for number, page in enumerate(pages, 1):
        file = folder / (f"{NAME}.jpg" if len(pages) == 1 else f"{NAME}_{number}.jpg")
        title = f"{caption}\nPage {number} of {len(pages)}. Left and middle: the images; right: the second laid on the first."
        _draw_page(page, read, title).save(file, quality=88)
        files.append(file)
    return files


def _draw_page(pairs: Sequence[SheetPair], read: Callable[[Path], np.ndarray], title: str) -> Image.Image:
    width = 3 * PANEL[0] + 2 * GAP  # of a pair
    height = PANEL[1] + 3 * LINE + 2 * GAP
    rows = -(-len(pairs) // COLUMNS)
    top = TITLE_LINES * LINE + 2 * GAP
    page = Image.new("RGB", (COLUMNS * (width + 2 * GAP), top + rows * height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
    for k, line in enumerate(title.split("\n")):
        pen.text((GAP, GAP + k * LINE), _fit(line, font, page.width - 2 * GAP), "black", font)
    for k, pair in enumerate(pairs):
        left = GAP + (k % COLUMNS) * (width + 2 * GAP)
        upper = top + (k // COLUMNS) * height
        first, second = read(pair.first), read(pair.second)
        for panel, image in enumerate((first, second, lay_over(first, second))):
            place = (left + panel * (PANEL[0] + GAP), upper)
            if image is None:
                pen.rectangle((*place, place[0] + PANEL[0], place[1] + PANEL[1]), outline="grey")
                pen.text((place[0] + GAP, place[1] + GAP), "linked through another image", "grey", font)
            else:
                shown = Image.fromarray(image)
                shown.thumbnail(PANEL)
                page.paste(shown, place)
        for row, (line, colour) in enumerate(
            ((pair.reason, "firebrick"), (pair.first_line, "black"), (pair.second_line, "black"))
        ):
            pen.text((left, upper + PANEL[1] + 2 + row * LINE), _fit(line, font, width), colour, font)
    return page


def _fit(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Shorten a line in its middle until it fits."""
    if font.getlength(line) <= width:
        return line
    kept = len(line)
    while kept and font.getlength(f"{line[: kept // 2]} ... {line[-(kept - kept // 2) :]}") > width:
        kept -= 1
    return f"{line[: kept // 2]} ... {line[-(kept - kept // 2) :]}"
