"""The differential count as PDF: on one page table, intervals, flags, a gallery of each class, who named what; on further ones
the changes, refusals and notes that found no place there."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import texts
from colours import ink_on, verdict_colours
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from PIL import Image

FONTS = Path(__file__).parent / "fonts"
WIDTH, HEIGHT, MARGIN = 210, 297, 14  # mm, A4
GREY, PALE, INK = (105, 105, 105), (238, 238, 238), (20, 20, 20)
MM = 0.3528  # of a typographic point
COLUMNS = (30, 12, 12, 24, 17, 24, 18, 12, 33)  # mm
PLOT = (0, 10, 20, 40, 60, 80, 100)  # per cent, marked on the scale
ROW = 5.6  # mm of a line of the table; less where there are many classes
TABLE = 96  # mm, of all lines of the table at most
FOOT = 23  # mm
THUMBNAIL, SMALLEST_THUMBNAIL, GAP = 12.5, 5.0, 0.8  # mm
THUMBNAIL_SIDE = 192  # px: granules are to be seen
SURROUNDINGS = 1.25  # side of a thumbnail, in sides of its cell's box
LOG_HEAD, LOG_LINE, LOG_FOOT = 14, 4.2, 8  # mm of a further page: its head, a line of a list, its foot
LOG_SIZE = 7.5
LINES = {"warnings": 7, "overlaps": 3, "refused": 4, "reviewed": 5}  # at most; seven warnings are all there can be


def write_report(
    result: Mapping[str, Any],
    pictures: Sequence[Image.Image | None],
    target: Path | str | BinaryIO,
    date: datetime,
    title: str = "",
    thumbnails: Mapping[tuple[int, int], bytes] | None = None,
) -> None:
    """Write a report of one page, and further ones for lists that it has no place for: changes by a reviewer, photos refused,
    notes; the same arguments give the same bytes.

    Args:
        result: what the pipeline gives: ``images`` and ``differential``; and ``changes``, as ``differential.report_json``
            takes them, where a reviewer's were kept.
        pictures: the upright field of each image, RGB; None for one that was refused.
        target: a file to write, or a stream.
        date: of the report.
        title: what the slide is called; no name of a patient.
        thumbnails: JPEG of each cell, by the numbers of image and cell, as ``cell_thumbnail`` makes it; where they are given,
            ``pictures`` are not looked at.

    Raises:
        ValueError: there is not one picture for each image, or one is of another size.
    """
    images, differential = result["images"], result["differential"]
    if thumbnails is None and len(pictures) != len(images):
        raise ValueError(f"{len(pictures)} pictures came for {len(images)} images; expected one for each.")
    for image, picture in zip(images, pictures, strict=True) if thumbnails is None else ():
        if picture is not None and image["refused"] is None and picture.size != (image["width"], image["height"]):
            raise ValueError(
                f"The picture of {image['name']} has {picture.width} x {picture.height} px, its cells lie in one of "
                f"{image['width']} x {image['height']}; expected the upright photo."
            )
    page = _Page(date, title)
    page.heading(differential, date, title)
    colours = verdict_colours([row["class"] for row in differential["rows"] if row["class"] != "unidentified"])
    page.table(differential, colours)
    kept = [image for image in images if image["refused"] is None]
    lists = {
        "warnings": differential["warnings"],
        "overlaps": [f"{image['name']}: {note}" for image in kept for note in image["notes"]],
        "refused": [image["refused"] for image in images if image["refused"] is not None],
        "reviewed": changes(images, result.get("changes")),
    }
    for name, lines in lists.items():
        page.section(name, lines)
    if thumbnails is None:
        thumbnails = _Cut(images, pictures)
    page.gallery(chosen_cells(images), thumbnails, [row["class"] for row in differential["rows"]], colours)
    page.foot(differential)
    page.further({name: lines for name, lines in lists.items() if len(lines) > LINES[name]}, date, title, differential)
    data = bytes(page.output())
    if isinstance(target, str | Path):
        Path(target).write_bytes(data)
    else:
        target.write(data)


class _Cut:
    """Thumbnails cut out of the fields when they are asked for."""

    def __init__(self, images: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image | None]):
        self.images, self.pictures = images, pictures

    def __getitem__(self, place: tuple[int, int]) -> bytes:
        image, cell = place
        return cell_thumbnail(self.pictures[image], self.images[image]["cells"][cell]["box"])


def chosen_cells(images: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """Give the cells that are counted, by what they are counted as: numbers of the image and of the cell in it."""
    said: dict[tuple[int, int], str] = {}
    for number, image in enumerate(images):
        for place, cell in enumerate(image["cells"]):
            if cell.get("reviewed") is not None:
                said.setdefault(tuple(cell["same_as"] or (number, place)), cell["reviewed"])
    found = defaultdict(list)
    for number, image in enumerate(images):
        for place, cell in enumerate(image["cells"]):
            name = said.get((number, place), cell["verdict"])
            if cell["same_as"] is None and name != "dropped":
                found[name].append((number, place))
    return found


def changes(images: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, Any]] | None = None) -> list[str]:
    """Say in words what a reviewer changed, and when where that was kept."""
    if log is not None:
        return [
            texts.REPORT_CHANGE.format(
                image=images[change["image"]]["name"],
                cell=change["cell"] + 1,
                before=texts.REPORT_DROPPED_AS if change["from"] == "dropped" else change["from"],
                after=texts.REPORT_DROPPED_AS if change["to"] == "dropped" else change["to"],
            )
            + texts.REPORT_CHANGED_AT.format(time=change["time"])
            for change in log
        ]
    return [
        texts.REPORT_CHANGE.format(
            image=image["name"],
            cell=place + 1,
            before=cell["verdict"],
            after=texts.REPORT_DROPPED_AS if cell["reviewed"] == "dropped" else cell["reviewed"],
        )
        for image in images
        for place, cell in enumerate(image["cells"])
        if cell.get("reviewed") is not None
    ]


class _Page(FPDF):
    """A4 pages: one filled from the top, and more for a long log."""

    def __init__(self, date: datetime, title: str):
        super().__init__(format="A4")
        self.set_creation_date(date)
        self.set_title(f"{texts.REPORT_TITLE} {title}".strip())
        self.set_auto_page_break(False)
        self.set_margin(MARGIN)
        self.add_font("DejaVu", "", FONTS / "DejaVuSans.ttf")
        self.add_font("DejaVu", "B", FONTS / "DejaVuSans-Bold.ttf")
        self.add_page()
        self.wide = WIDTH - 2 * MARGIN
        self.bottom = HEIGHT - MARGIN - FOOT

    def write_line(self, text: str, size: float = 8, style: str = "", colour=INK, height: float | None = None) -> None:
        """Write a line, cut short where it is too long."""
        self.set_font("DejaVu", style, size)
        self.set_text_color(*colour)
        tall = height or size * MM * 1.35
        self.cell(self.wide, tall, self.fit(text, self.wide), new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def fit(self, text: str, wide: float) -> str:
        """Make a text printable in the font, and cut its middle out where it is too long."""
        text = self.printable(text)
        if self.get_string_width(text) <= wide - 1:
            return text
        keep = len(text)
        while keep > 2 and self.get_string_width(f"{text[: keep // 2]}…{text[-(keep // 2) :]}") > wide - 1:
            keep -= 2
        return f"{text[: keep // 2]}…{text[-(keep // 2) :]}"

    def printable(self, text: str) -> str:
        """Write letters that the font lacks as their numbers, such as \\u4e2d, and control characters too."""
        known = self.fonts["dejavu"].cmap
        return "".join(
            letter if letter.isprintable() and ord(letter) in known else letter.encode("unicode_escape").decode()
            for letter in text
        )

    def broken(self, text: str, size: float) -> list[str]:
        """Break a text into lines that fit, at its spaces."""
        self.set_font("DejaVu", "", size)
        words, lines = self.printable(text).split(" "), [""]
        for word in words:
            longer = f"{lines[-1]} {word}".strip()
            if self.get_string_width(longer) <= self.wide - 1 or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines

    def wrapped(self, text: str, size: float, most: int, colour=INK) -> None:
        """Write a text over as many lines as it needs, `most` at most."""
        lines = self.broken(text, size)
        if len(lines) > most:
            lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
        for line in lines:
            self.write_line(line, size, colour=colour)

    def heading(self, differential: Mapping[str, Any], date: datetime, title: str) -> None:
        self.set_font("DejaVu", "B", 17)
        self.set_text_color(*INK)
        self.cell(self.wide - 40, 9, texts.REPORT_TITLE)
        self.set_font("DejaVu", "", 9)
        self.cell(40, 9, f"{date:%Y-%m-%d}", align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        if title:
            self.write_line(title, 10)
        self.write_line(texts.REPORT_PURPOSE, 8.5, "B", (170, 40, 0))
        cells, images = differential["cells"], differential["images"]
        facts = [texts.REPORT_COUNTED.format(counted=cells["counted"], images=images["counted"])]
        for number, text in (
            (cells["repeated"], texts.REPORT_REPEATED),
            (cells["dropped"], texts.REPORT_DROPPED),
            (cells["reviewed"], texts.REPORT_REVIEWED),
            (images["refused"], texts.REPORT_REFUSED),
        ):
            if number:
                facts.append(text.format(number=number))
        self.wrapped("; ".join(facts) + ".", 8.5, 2)
        review = differential["review"]
        style = "B" if review["state"] == "not reviewed" else ""
        self.write_line(texts.REPORT_REVIEW[review["state"]].format(**review), 8.5, style)
        self.ln(2)

    def table(self, differential: Mapping[str, Any], colours: Mapping[str, str]) -> None:
        rows = differential["rows"]
        tall = min(ROW, TABLE / len(rows))
        size = min(8.0, tall / MM / 1.5)
        absolute = differential["white_cells_per_microlitre"] is not None
        self.set_fill_color(*PALE)
        self.set_font("DejaVu", "B", 7)
        self.set_text_color(*INK)
        for name, wide in zip(texts.REPORT_COLUMNS[: None if absolute else -1], COLUMNS, strict=False):
            self.cell(wide, ROW, name, fill=True, align="R")
        if not absolute:
            self.scale(ROW)
        self.ln(ROW)
        for row in rows:
            top = self.get_y()
            self.set_fill_color(colours[row["class"]])
            self.rect(MARGIN, top + 0.2 * tall, 0.6 * tall, 0.6 * tall, "F")
            self.set_font("DejaVu", "B" if row["flag"] else "", size)
            self.set_x(MARGIN + tall)
            self.cell(COLUMNS[0] - tall, tall, self.fit(row["class"], COLUMNS[0] - tall))
            flag = texts.REPORT_FLAGS.get(row["flag"], "")
            if flag and not row["flag_sure"]:
                flag = texts.REPORT_FLAG_UNSURE.format(flag=flag)
            values = [
                str(row["count"]),
                number(row["percent"]),
                limits(row["interval"]),
                number(row["adjusted_percent"]),
            ]
            values += [limits(row["adjusted_interval"]), limits(row["reference"]), flag]
            if absolute:
                per = "" if row["per_microlitre"] is None else f"{row['per_microlitre']:.0f}"
                around = row["per_microlitre_interval"]
                values.append(per if around is None else f"{per} ({around[0]:.0f}–{around[1]:.0f})")
            for value, wide in zip(values, COLUMNS[1:], strict=False):
                self.cell(wide, tall, value, align="R")
            if not absolute:
                self.plot(row, top, tall, colours[row["class"]])
            self.set_xy(MARGIN, top + tall)
            self.set_draw_color(*PALE)
            self.line(MARGIN, top + tall, WIDTH - MARGIN, top + tall)
        self.ln(1)
        if any(row["adjusted_percent"] is not None for row in rows):
            self.wrapped(texts.REPORT_ADJUSTED, 6.5, 2, GREY)
        if any(row["flag"] and not row["flag_sure"] for row in rows):
            self.write_line(texts.REPORT_FLAGS_MEAN, 6.5, colour=GREY)
        if differential["cells"]["counted"]:
            for many in (200, 400):
                alike = ", ".join(
                    f"{row['class']} {limits(row[f'interval_at_{many}'])}" for row in rows if row["count"]
                )
                self.wrapped(texts.REPORT_AS_MANY.format(number=many, limits=alike), 6.5, 2, GREY)
        self.ln(1.5)

    def scale(self, tall: float) -> None:
        """Head the column of the plots: per cents, closer together the higher they are."""
        self.set_font("DejaVu", "", 5.5)
        left, top = self.get_x(), self.get_y()
        for mark in PLOT:
            self.text(left + self.along(mark) - 1, top + 0.65 * tall, str(mark))

    @staticmethod
    def along(percent: float) -> float:
        """Place a per cent on the scale, mm: by its square root, so that rare cells show too."""
        return 3 + (percent / 100) ** 0.5 * (COLUMNS[-1] - 5)

    def plot(self, row: Mapping[str, Any], top: float, tall: float, colour: str) -> None:
        """Draw the usual range as a band, and the best estimate with its interval over it."""
        left, middle = MARGIN + sum(COLUMNS[:-1]), top + tall / 2
        if row["reference"] is not None:
            low, high = (self.along(limit) for limit in row["reference"])
            self.set_fill_color(222, 222, 222)
            self.rect(left + low, top + 0.12 * tall, high - low, 0.76 * tall, "F")
        kind = "" if row["adjusted_percent"] is None else "adjusted_"
        percent, interval = row[f"{kind}percent"], row[f"{kind}interval"]
        if percent is None:
            return
        self.set_draw_color(colour)
        self.set_fill_color(colour)
        self.set_line_width(0.5)
        self.line(left + self.along(interval[0]), middle, left + self.along(interval[1]), middle)
        radius = 0.17 * tall
        self.ellipse(left + self.along(percent) - radius, middle - radius, 2 * radius, 2 * radius, "F")
        self.set_line_width(0.2)

    def section(self, name: str, lines: Sequence[str]) -> None:
        """Write a list; where there is no place for all its lines, the first of them, for all stand on a further page."""
        if not lines:
            return
        self.write_line(texts.REPORT_SECTIONS[name], 8.5, "B")
        most = LINES[name]
        shown = lines if len(lines) <= most else lines[: most - 1]
        for line in shown:
            self.wrapped(line, 7.5, 2) if name == "warnings" else self.write_line(line, 7)
        if len(shown) < len(lines):
            self.write_line(texts.REPORT_MORE.format(number=len(lines) - len(shown)), 7, colour=GREY)
        self.ln(1)

    def further(
        self, lists: Mapping[str, Sequence[str]], date: datetime, title: str, differential: Mapping[str, Any]
    ) -> None:
        """Write lists whole on pages of their own, each headed and numbered, with the weights that the count was made with."""
        fitting = int((HEIGHT - 2 * MARGIN - LOG_HEAD - LOG_FOOT) / LOG_LINE)
        sheets = []
        for name, entries in lists.items():
            told = [f"{place}. {entry}" for place, entry in enumerate(entries, 1)]
            if name != "reviewed":  # a change's ends say all; of a refusal no part can be spared
                told = [line for entry in told for line in self.broken(entry, LOG_SIZE)]
            sheets += [(name, told[first : first + fitting]) for first in range(0, len(told), fitting)]
        model = {key: value or texts.REPORT_UNKNOWN for key, value in differential["model"].items()}
        for number, (name, lines) in enumerate(sheets, 2):
            self.add_page()
            heading = texts.REPORT_FURTHER.format(date=f"{date:%Y-%m-%d}", page=number, pages=len(sheets) + 1)
            self.write_line(f"{texts.REPORT_TITLE}: {texts.REPORT_SECTIONS[name]}", 11, "B")
            self.write_line(" · ".join(filter(None, [heading, title])), 8, colour=GREY)
            self.set_y(MARGIN + LOG_HEAD)
            for line in lines:
                self.write_line(line, LOG_SIZE, height=LOG_LINE)
            self.set_y(HEIGHT - MARGIN - LOG_FOOT + 2)
            self.wrapped(texts.REPORT_MODEL.format(**model, schema=differential["schema"]), 5.8, 2, GREY)

    def gallery(
        self,
        cells: Mapping[str, Sequence[tuple[int, int]]],
        thumbnails: Mapping[tuple[int, int], bytes],
        order: Sequence[str],
        colours: Mapping[str, str],
    ) -> None:
        """Show cells of each class in a row, spread evenly over the slide where there is no place for all."""
        names = [name for name in order if cells.get(name)]
        if not names:
            return
        self.write_line(texts.REPORT_SECTIONS["cells"], 8.5, "B")
        side = min(THUMBNAIL, (self.bottom - self.get_y()) / len(names) - GAP)
        if side < SMALLEST_THUMBNAIL:  # as many classes as there is place for
            side = SMALLEST_THUMBNAIL
            names = names[: max(0, int((self.bottom - self.get_y()) / (side + GAP)))]
        for name in names:
            own, top = cells[name], self.get_y()
            fitting = int((self.wide - COLUMNS[0]) / (side + GAP))
            shown = [own[place * len(own) // fitting] for place in range(fitting)] if len(own) > fitting else own
            self.set_fill_color(colours.get(name, "#000000"))
            self.set_font("DejaVu", "B", min(7.0, side / MM / 2.4))
            ink = ink_on(colours.get(name, "#000000"))
            self.set_text_color(ink)
            self.cell(COLUMNS[0] - 2, side / 2, self.fit(name, COLUMNS[0] - 2), fill=True)
            self.set_xy(MARGIN, top + side / 2)
            self.set_font("DejaVu", "", min(6.5, side / MM / 2.6))
            self.set_text_color(*GREY)
            self.cell(COLUMNS[0] - 2, side / 2, texts.REPORT_SHOWN.format(shown=len(shown), count=len(own)))
            for place, cell in enumerate(shown):
                self.image(io.BytesIO(thumbnails[cell]), MARGIN + COLUMNS[0] + place * (side + GAP), top, side, side)
            self.set_xy(MARGIN, top + side + GAP)

    def foot(self, differential: Mapping[str, Any]) -> None:
        self.set_xy(MARGIN, HEIGHT - MARGIN - FOOT + 2)
        self.set_draw_color(*GREY)
        self.line(MARGIN, self.get_y(), WIDTH - MARGIN, self.get_y())
        self.ln(0.8)
        model = {key: value or texts.REPORT_UNKNOWN for key, value in differential["model"].items()}
        self.wrapped(texts.REPORT_MODEL.format(**model, schema=differential["schema"]), 5.8, 2, GREY)
        self.wrapped(" ".join([*differential["methods"], *differential["references"]]), 5.8, 6, GREY)


def number(percent: float | None) -> str:
    """Write a per cent."""
    return "" if percent is None else f"{percent:.1f}"


def limits(interval: Sequence[float] | None) -> str:
    """Write an interval of per cents."""
    if interval is None:
        return ""
    return "–".join(f"{limit:.1f}".removesuffix(".0") if limit in (0, 100) else f"{limit:.1f}" for limit in interval)


def cell_thumbnail(picture: Image.Image, box: Sequence[int]) -> bytes:
    """Cut a cell out of its field: a JPEG of ``THUMBNAIL_SIDE`` px, without what a camera writes into a file.

    Args:
        picture: the upright field, RGB.
        box: (row_min, col_min, row_max, col_max), px.
    """
    row_min, col_min, row_max, col_max = box
    half = max(row_max - row_min, col_max - col_min) * SURROUNDINGS / 2
    half = min(half, min(picture.size) / 2)
    # at the field's edge the square is moved inside
    row = min(max((row_min + row_max) / 2, half), picture.height - half)
    col = min(max((col_min + col_max) / 2, half), picture.width - half)
    square = picture.crop(tuple(round(value) for value in (col - half, row - half, col + half, row + half)))
    stream = io.BytesIO()
    square.convert("RGB").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC).save(
        stream, "JPEG", quality=88
    )
    return stream.getvalue()
