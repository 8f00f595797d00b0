"""The report as a reader of PDFs sees it, and pictures of fields by their pixels."""

import copy
import io
import os
import pickle
import re
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader
from smear_drawings import draw_field
from space_fixtures import SPACE, colours, field_picture, report

from hub_model.differential import count_cells

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "basophil", "other"]
DATE = datetime(2026, 3, 1, tzinfo=UTC)
FIELD, PLACES = draw_field()
COLOURS = colours.verdict_colours(LABELS)


def cell(verdict="neutrophil", box=PLACES[0], label=None, **fields):
    label = label or ("monocyte" if verdict == "unidentified" else verdict)
    made = {
        "box": list(box),
        "find_score": 0.8,
        "label": label,
        "score": 0.97,
        "probabilities": {label: 0.97},
        "energy": -4.0,
    }
    return made | {"verdict": verdict, "reason": None, "same_as": None, "reviewed": None} | fields


def image(*cells, name="field.png", refused=None, notes=()):
    size = (None, None) if refused else (480, 640)
    return {
        "name": name,
        "height": size[0],
        "width": size[1],
        "notes": list(notes),
        "refused": refused,
        "cells": list(cells),
    }


def slide():
    first = image(
        cell(), cell("lymphocyte", PLACES[1]), cell("unidentified", PLACES[2], reviewed="basophil"), name="a.png"
    )
    second = image(
        cell(same_as=[0, 0]), cell("other", PLACES[1], reviewed="dropped"), name="b.png", notes=["overlaps a.png"]
    )
    return [first, second, image(name="c.jpg", refused="c.jpg: the file is empty, 0 bytes. Copy it again.")]


def result(images, labels=LABELS, **options):
    options = {"model": {"name": "wbc", "revision": None, "sha256": "ab" * 32}} | options
    return {
        "images": images,
        "differential": count_cells(images, labels, "other" if "other" in labels else None, **options),
    }


def written(images, title="Slide 7", labels=LABELS, **options):
    stream = io.BytesIO()
    pictures = [None if one["refused"] else Image.fromarray(FIELD) for one in images]
    report.write_report(result(images, labels, **options), pictures, stream, DATE, title)
    return stream.getvalue()


def sheets(data):
    """Return the texts of a report's pages, which must be A4."""
    pages = PdfReader(io.BytesIO(data)).pages
    assert all([round(float(side) / 72 * 25.4) for side in page.mediabox[2:]] == [210, 297] for page in pages)
    return [page.extract_text() for page in pages]


def read(data):
    """Return the text of a report of one page."""
    (text,) = sheets(data)
    return text


def test_all_that_was_counted_stands_in_the_report():
    errors = {"here": {name: {name: 50, f"{name}?": 5} for name in LABELS}}
    images = [image(*([cell()] * 120 + [cell("lymphocyte")] * 70 + [cell("unidentified")] * 10))]
    counted = result(images, confusion=errors, laboratory="here", white_cells_per_microlitre=8000)["differential"]
    text = read(written(images, confusion=errors, laboratory="here", white_cells_per_microlitre=8000))
    for row in counted["rows"]:
        (line,) = [
            line for line in text.splitlines() if line.startswith(f"{row['class']} ") and str(row["count"]) in line
        ][:1]
        figures = [f"{row['percent']:.1f}", report.limits(row["interval"])]
        if row["class"] != "unidentified":
            figures += [f"{row['adjusted_percent']:.1f}", report.limits(row["adjusted_interval"])]
            figures += [f"{row['per_microlitre']:.0f} (", report.limits(row["reference"]) if row["reference"] else ""]
        assert all(figure in line for figure in figures), line
    assert "low" in text and "Had 200 cells" in text and "Had 400 cells" in text
    for said in (
        "Slide 7",
        "2026-03-01",
        "For research and teaching, not for diagnosis",
        "ab" * 32,
        "wbc-differential/1",
    ):
        assert said in text
    assert "10 of 200 cells are unidentified" in text and "doi:10.1093/biomet/26.4.404" in " ".join(text.split())


def test_repeats_refusals_and_reviews_are_told():
    text = read(written(slide()))
    assert "Cells counted: 3; photos: 2" in text
    assert "seen in an earlier photo already: 1; finds dropped by the reviewer: 1" in " ".join(text.split())
    assert "c.jpg: the file is empty, 0 bytes" in text
    assert "a.png, cell 3: unidentified → basophil" in text and "b.png, cell 2: other → no cell" in text
    assert "b.png: overlaps a.png" in text
    assert "1 of 1" in text  # cells shown of each class


def test_thumbnails_show_the_counted_cells():
    data = written([image(*(cell(box=PLACES[k % 3]) for k in range(40)))])
    (page,) = PdfReader(io.BytesIO(data)).pages
    shown = [np.asarray(picture.image.convert("RGB")).astype(int) for picture in page.images]
    assert len(shown) == 3  # of three places; a PDF keeps equal pictures once
    top, left, bottom, right = PLACES[0]
    patch = np.asarray(Image.fromarray(FIELD[top:bottom, left:right]).resize((112, 112))).astype(int)
    centre = slice(40, 72)
    assert min(np.abs(picture[centre, centre] - patch[centre, centre]).mean() for picture in shown) < 40
    (told,) = re.findall(r"(\d+) of 40", page.extract_text())
    assert 5 < int(told) < 40


NAMES = ["поле зрения " * 12 + ".jpg", "視野" * 40 + ".png", "a" * 300, "x\n\ty\u202e.png", "😀.jpg", "é" * 9]


@pytest.mark.parametrize(
    ("images", "labels", "pages"),
    [
        ([], LABELS, 1),
        ([image()], LABELS, 1),
        ([image(name="x", refused="x: no picture")] * 3, LABELS, 1),
        ([image(*[cell(name, PLACES[k % 3]) for k, name in enumerate(LABELS * 50)])] * 7, LABELS, 1),
        (
            [image(cell())] + [image(name=n, refused=f"{n}: this is no picture that can be read.") for n in NAMES * 10],
            LABELS,
            3,
        ),
        ([image(cell("unidentified", reviewed="monocyte"), notes=NAMES)] * 3, LABELS, 2),
        ([image(*(cell(f"class of cells {n}") for n in range(60)))], [f"class of cells {n}" for n in range(60)], 1),
    ],
    ids=["nothing", "empty field", "all refused", "2100 cells", "60 refused", "odd names", "60 classes"],
)
def test_one_page_whatever_comes_and_lists_behind(images, labels, pages):
    texts = sheets(written(copy.deepcopy(images), "Слайд 視 " * 40, labels))
    assert len(texts) == pages and "For research and teaching" in texts[0]
    assert all("wbc-differential/1" in text for text in texts)


def test_every_refused_photo_and_every_note_stands_in_the_report():
    notes = [f"overlaps {k:02d}.png" for k in range(7)]
    refused = [f"bad {k:03d}.jpg: the file is empty, 0 bytes." for k in range(70)]
    images = [image(cell(reviewed="monocyte"), name="x.png", notes=notes)] + [image(refused=why) for why in refused]
    first, behind, *others = sheets(written(images))
    assert "and 67 more; all stand on the pages behind" in first and "and 5 more; all stand" in first
    assert (
        "Notes on photos" in behind
        and [f"{k}. x.png: {note}" in behind for k, note in enumerate(notes, 1)] == [True] * 7
    )
    assert len(others) == 2 and all("Photos refused, counted nowhere" in text for text in others)
    told = "\n".join(others).splitlines()
    assert [line for line in told if "bad" in line] == [f"{k}. {why}" for k, why in enumerate(refused, 1)]
    whys = [f"{k}.png: {'nothing of it can be read ' * 12}because of reason {k}." for k in range(5)]
    told = sheets(written([image(cell())] + [image(refused=why) for why in whys]))[1]
    assert [why in " ".join(told.split()) for why in whys] == [True] * 5, "no part of a reason is left out"
    assert ["page 2 of 4" in behind, "page 3 of 4" in others[0], "page 4 of 4" in others[1]] == [True] * 3


def logged(number):
    """A slide with as many changes, all in one cell, and what a reader shall find of each."""
    names = ["monocyte", "lymphocyte", "dropped"]
    log = [
        {
            "image": 0,
            "cell": 0,
            "from": names[k % 3 - 1],
            "to": names[k % 3],
            "time": f"2026-03-01T{k // 60:02d}:{k % 60:02d}:00Z",
        }
        for k in range(number)
    ]
    images = [image(cell(reviewed="monocyte"), name="視 " + "long " * 40 + ".png")]
    stream = io.BytesIO()
    report.write_report(result(images) | {"changes": log}, [Image.fromarray(FIELD)], stream, DATE, "Slide 7")
    return [page.extract_text() for page in PdfReader(io.BytesIO(stream.getvalue())).pages], log


@pytest.mark.parametrize(("number", "pages"), [(0, 1), (1, 1), (5, 1), (6, 2), (58, 2), (59, 3), (400, 8)])
def test_every_change_stands_in_the_report(number, pages):
    texts, log = logged(number)
    assert len(texts) == pages
    for text in texts[1:]:
        assert all(said in text for said in ("Slide 7", "2026-03-01", "ab" * 32, "Changes by the reviewer"))
    told = "\n".join(texts[1:] if pages > 1 else texts)
    for place, change in enumerate(log, 1):
        before, after = (name.replace("dropped", "no cell") for name in (change["from"], change["to"]))
        (line,) = [line for line in told.splitlines() if change["time"] in line]
        assert f"cell 1: {before} → {after}" in line and (pages == 1 or line.startswith(f"{place}. "))
    assert [f"page {page} of {pages}" in text for page, text in enumerate(texts, 1)] == [False] + [True] * (pages - 1)
    if pages > 1:
        assert f"and {number - 4} more; all stand on the pages behind" in texts[0]


def test_letters_that_the_font_lacks_are_written_as_numbers():
    text = read(
        written([image(name="視.png", refused="視.png: no picture"), image(name="я.png", refused="я.png: no picture")])
    )
    assert r"\u8996.png: no picture" in text and "я.png: no picture" in text


ANEW = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
import report
result, pictures, date = pickle.load(sys.stdin.buffer)
report.write_report(result, pictures, sys.stdout.buffer, date, "Slide 7")
"""


def test_the_same_input_gives_the_same_bytes_in_any_process():
    images = slide()
    given = pickle.dumps((result(images), [Image.fromarray(FIELD), Image.fromarray(FIELD), None], DATE))
    runs = [
        subprocess.run(
            [sys.executable, "-c", ANEW, str(SPACE)],
            input=given,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
        )
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr.decode()
    assert runs[0].stdout == runs[1].stdout == written(slide())
    assert written(slide(), "Slide 8") != written(slide())


def test_a_report_may_be_written_to_a_file(tmp_path):
    report.write_report(result(slide()[2:]), [None], tmp_path / "report.pdf", DATE)
    assert "c.jpg" in read((tmp_path / "report.pdf").read_bytes())


def test_pictures_that_are_not_the_fields_are_refused():
    images = slide()[:1]
    with pytest.raises(ValueError, match="0 pictures came for 1 images"):
        report.write_report(result(images), [], io.BytesIO(), DATE)
    with pytest.raises(ValueError, match="a.png has 64 x 48 px, its cells lie in one of 640 x 480"):
        report.write_report(result(images), [Image.new("RGB", (64, 48))], io.BytesIO(), DATE)


# Pictures of fields


def drawn(*cells, field=None):
    field = Image.fromarray(FIELD) if field is None else field
    return np.asarray(field_picture.draw_field_picture(field, cells, COLOURS))


def rgb(colour):
    return tuple(int(colour[start : start + 2], 16) for start in (1, 3, 5))


def share_along(picture, box, colour):
    """How much of a box's left and right sides has a colour."""
    top, left, bottom, right = box
    sides = np.concatenate([picture[top:bottom, left], picture[top:bottom, right - 1]])
    return (sides == rgb(colour)).all(axis=1).mean()


def test_boxes_lie_about_their_cells_in_their_classes_colours():
    before = FIELD.copy()
    picture = drawn(cell("lymphocyte"), cell("eosinophil", PLACES[1]))
    assert (before == FIELD).all() and picture.shape == FIELD.shape
    assert share_along(picture, PLACES[0], COLOURS["lymphocyte"]) > 0.95
    assert share_along(picture, PLACES[1], COLOURS["eosinophil"]) > 0.95
    top, left, bottom, right = PLACES[0]
    inside = slice(top + 12, bottom - 12), slice(left + 12, right - 12)
    assert (picture[inside] == FIELD[inside]).all()  # the cell itself stays in sight


def test_what_is_unidentified_or_not_counted_is_told_without_colour_too():
    unidentified = share_along(drawn(cell("unidentified")), PLACES[0], COLOURS["unidentified"])
    assert 0.35 < unidentified < 0.65  # dashes
    for fields in ({"same_as": [0, 0]}, {"reviewed": "dropped"}):
        assert share_along(drawn(cell(**fields)), PLACES[0], colours.NOT_COUNTED) > 0.95
    assert share_along(drawn(cell("unidentified", reviewed="basophil")), PLACES[0], COLOURS["basophil"]) > 0.95
    told = [field_picture.told(one) for one in (cell("unidentified"), cell(), cell(reviewed="dropped"))]
    assert told[:2] == [("unidentified", "monocyte?", True), ("neutrophil", "neutrophil 97 %", True)]
    assert told[2] == ("dropped", "no cell", False)


@pytest.mark.parametrize("size", [(320, 240), (5472, 3648)])
def test_labels_can_be_read_at_any_size(size):
    field = Image.new("RGB", size, (200, 210, 190))
    box = [int(0.4 * size[1]), int(0.4 * size[0]), int(0.6 * size[1]), int(0.6 * size[0])]
    picture = drawn(cell("lymphocyte", box), field=field)
    label = (picture[: box[0]] == rgb(COLOURS["lymphocyte"])).all(axis=2).any(axis=1)
    assert label.sum() >= max(9, size[0] / 60)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 60, 60], [0, 580, 60, 640], [420, 0, 480, 60], [420, 580, 480, 640]],
        [[200, 200, 260, 260], [205, 205, 265, 265], [210, 210, 270, 270]],
        [[0, 0, 480, 640]],
    ],
    ids=["corners", "crowd", "all of it"],
)
def test_no_label_leaves_the_picture_or_covers_another(boxes, monkeypatch):
    places = []
    place = field_picture._place
    monkeypatch.setattr(field_picture, "_place", lambda *given: places.append(place(*given)) or places[-1])
    drawn(*(cell("neutrophil", box) for box in boxes))
    for number, (left, top, right, bottom) in enumerate(places):
        assert 0 <= left < right < 640 and 0 <= top < bottom < 480
        assert not any(field_picture._common(places[number], other) for other in places[:number])


def simulate_colour_blindness(colour, kind):
    """Brettel, Viénot and Mollon's simplified form (Viénot et al. 1999) for red and green; Machado et al. 2009 for blue."""
    linear = np.array([(v / 255) ** 2.2 for v in rgb(colour)])
    matrices = {
        "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
        "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    }
    from skimage.color import rgb2lab

    return rgb2lab(np.clip(np.array(matrices[kind]) @ linear, 0, 1) ** (1 / 2.2))


@pytest.mark.parametrize("kind", ["protanopia", "deuteranopia", "tritanopia"])
def test_colours_are_told_apart_by_colour_blind_people(kind):
    seen = {name: simulate_colour_blindness(colour, kind) for name, colour in COLOURS.items()}
    names = sorted(seen)
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a in names for b in names if a < b}
    assert min(distances.values()) > 8, min(distances, key=distances.get)  # 2.3 is just noticed (Mahy et al. 1994)


@pytest.mark.parametrize("colour", [*COLOURS.values(), "#000000", "#ffffff", colours.NOT_COUNTED])
def test_labels_contrast_with_their_colour(colour):
    def luminance(value):
        light = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb(value)]
        return np.dot(light, [0.2126, 0.7152, 0.0722])

    one, other = sorted([luminance(colour), luminance(colours.ink_on(colour))])
    assert (other + 0.05) / (one + 0.05) >= 4.5  # WCAG 2.2, level AA


# From a terminal


@pytest.fixture
def count_fields():
    import count_fields

    return count_fields


def test_from_photos_to_a_folder_of_results(count_fields, tmp_path, capsys):
    import csv
    import json

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(FIELD).save(photos / "a.png")
    (photos / "broken.jpg").write_text("no picture")
    out = tmp_path / "count"
    model = ["--model", str(SPACE.parent / "hub_model")]
    count_fields.main([str(photos), "--out", str(out), "--title", "Slide 17", "--total", "7000", *model])
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "cells.csv",
        "count.csv",
        "fields/001-a.png",
        "report.json",
        "report.pdf",
    ]
    document = json.loads((out / "report.json").read_text())
    assert (
        document["differential"]["cells"]["counted"] == 3
        and document["differential"]["white_cells_per_microlitre"] == 7000
    )
    assert len(list(csv.DictReader((out / "cells.csv").open()))) == 4  # three cells, and what was refused
    text = read((out / "report.pdf").read_bytes())
    assert "Slide 17" in text and "broken.jpg: this is no picture" in text
    assert (np.asarray(Image.open(out / "fields" / "001-a.png")) != FIELD).any()
    assert "Wrote" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="count is not empty"):
        count_fields.main([str(photos), "--out", str(out), *model])
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match="holds no photos"):
        count_fields.main([str(tmp_path / "none"), "--out", str(tmp_path / "new"), *model])
    with pytest.raises(SystemExit, match="laboratory is 'moon'; expected one of"):
        count_fields.main([str(photos), "--out", str(tmp_path / "new"), "--laboratory", "moon", *model])
    assert not (tmp_path / "new").exists()
