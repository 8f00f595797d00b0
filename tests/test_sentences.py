"""Each sentence of the model that a visitor may read is said in the page's other language too, with the same values."""

import ast
import copy
import io
import json
import pickle
import re

import numpy as np
import pytest
from conftest import LABELS, REPOSITORY
from PIL import Image
from smear_drawings import draw_field
from space_fixtures import fields_page, languages, page

from hub_model.differential import count_cells
from hub_model.field_overlaps import describe_field, mark_repeats
from hub_model.image_reading import ImageError, read_image
from hub_model.sentences import Sentence, say
from hub_model.smear_gate import REASONS, why_no_smear

GERMAN = languages.WORDS["de"]
CLASSES = [*LABELS, "basophil", "other"]


def names_said():
    """Names in calls of ``say`` in the model's files, and those made with the gate's reasons."""
    names = {f"smear_{reason}" for reason in REASONS}
    for path in (REPOSITORY / "hub_model").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say":
                options = [node.args[0]]
                if isinstance(options[0], ast.Name):  # chosen one line above: both of its names stand in the file
                    options = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.IfExp)]
                    options = [end for n in options for end in (n.body, n.orelse)]
                names |= {
                    o.value
                    for o in options
                    if isinstance(o, ast.Constant) and re.fullmatch(r"[a-z]+_[a-z_]+", str(o.value))
                }
    return names


def test_every_sentence_has_its_german_and_no_german_is_left_over():
    german = {name.removesuffix("_one") for name in languages.MODELS["de"]}
    assert german == names_said()
    assert all(name.removesuffix("_one") in languages.MODELS["de"] for name in languages.MODELS["de"])


def warnings_of(counts, confusion=None, **options):
    cells = [
        {"label": name if name != "unidentified" else "monocyte", "score": 0.9, "verdict": name, "same_as": None}
        | {"reviewed": reviewed, "reason": "low confidence" if name == "unidentified" else None}
        | {"probabilities": dict.fromkeys(CLASSES, 1 / 6), "energy": -4.0, "box": [0, 0, 9, 9], "find_score": 0.5}
        for (name, reviewed), number in counts.items()
        for _ in range(number)
    ]
    images = [{"name": "a", "height": 99, "width": 99, "notes": [], "refused": None, "cells": cells}]
    images += [{**images[0], "refused": "b: no.", "cells": []}] * options.pop("refused", 0)
    return count_cells(images, CLASSES, "other", confusion=confusion, **options)["warnings"]


def sure(number):
    return {name: {name: number} for name in CLASSES}


@pytest.mark.parametrize(
    ("counts", "options", "which"),
    [
        ({}, {"refused": 1}, ["images_refused", "no_cell_counted"]),
        ({("monocyte", None): 1}, {"refused": 2}, ["images_refused", "few_cells", "errors_unknown"]),
        ({("monocyte", None): 200}, {"white_cells_per_microlitre": 7.25}, ["low_total", "errors_unknown"]),
        (
            {("monocyte", None): 200, ("unidentified", None): 50, ("other", None): 20},
            {"confusion": {"here": sure(9)}},
            ["unidentified_unseen", "many_negatives", "errors_elsewhere", "errors_do_not_fit"],
        ),
        (
            {("monocyte", None): 200, ("unidentified", "unidentified"): 1},
            {"confusion": {"here": sure(9)}, "laboratory": "here"},
            ["unidentified_seen", "errors_of_few"],
        ),
        ({("unidentified", "unidentified"): 3}, {}, ["few_cells", "unidentified_seen", "errors_unknown"]),
        ({("other", None): 1}, {}, ["few_cells", "many_negatives", "errors_unknown"]),
        ({("unidentified", None): 1}, {}, ["few_cells", "unidentified_unseen", "errors_unknown"]),
    ],
)
def test_warnings_are_said_in_german_with_their_figures(counts, options, which):
    warnings = warnings_of(counts, **options)
    assert {warning.which for warning in warnings} >= set(which)
    for warning in warnings:
        text, language = GERMAN.said(warning)
        assert language is None and "{" not in text and text != warning
        # the German may leave out the 7.2 of the English, or write it with its own mark; no figure is put in anew
        assert set(re.findall(r"\d+", text)) <= set(re.findall(r"\d+", warning)) | {"1", "10"}
        assert text[0].isdigit() or text[0].isupper()
    said = " ".join(GERMAN.said(warning)[0] for warning in warnings)
    assert ("Monozyt (9)" in said) == ("errors_of_few" in which)
    assert ("„Andere“" in said) == ("many_negatives" in which)


def test_refusals_and_notes_are_said_in_german():
    def refusal(source):
        with pytest.raises(ImageError) as refused:
            read_image(source, "field.png")
        return refused.value.args[0]

    def saved(image, **options):
        buffer = io.BytesIO()
        image.save(buffer, **options)
        return buffer.getvalue()

    whole = saved(Image.fromarray(draw_field(0)[0]), format="PNG")
    nan = saved(Image.fromarray(np.full((64, 64), np.nan, np.float32)), format="TIFF")
    large = saved(Image.new("1", (10_000, 9_000)), format="PNG")
    refused = [
        refusal(source)
        for source in (
            b"no picture",
            whole[: len(whole) // 2],
            saved(Image.new("RGB", (9, 9)), format="PNG"),
            nan,
            large,
        )
    ]
    assert [one.which for one in refused] == [
        "image_unreadable",
        "image_damaged",
        "image_small",
        "image_no_numbers",
        "image_large",
    ]
    for one in refused:
        text, language = GERMAN.said(one)
        assert language is None and text.startswith("field.png: ") and text != one

    deep = read_image(saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), format="PNG"))
    printed = read_image(saved(Image.new("CMYK", (64, 64)), format="JPEG"))
    moving = read_image(
        saved(Image.new("L", (64, 64)), format="GIF", save_all=True, append_images=[Image.new("L", (64, 64), 9)])
    )
    notes = [*deep.notes, *printed.notes, *moving.notes]
    assert {note.which for note in notes} >= {"note_deep_grey", "note_cmyk", "note_frames"}
    assert all(GERMAN.said(note)[1] is None for note in notes)
    assert GERMAN.said(moving.notes[0])[0] == "Die Datei enthält 2 Bilder; nur Nummer 1 wurde gelesen."


def test_why_a_picture_is_no_smear_is_said_in_german_also_inside_another_sentence():
    reason = why_no_smear(np.zeros((64, 64, 3), np.uint8))
    assert reason == "no stained smear: it is too dark" and reason.which == "smear_dark"
    refused = say("image_no_smear", f"a.png: {reason}. Leave it out.", name="a.png", reason=reason)
    assert GERMAN.said(refused) == (
        "a.png: kein gefärbter Ausstrich: Das Bild ist zu dunkel. Weglassen oder das Foto neu aufnehmen.",
        None,
    )
    assert GERMAN.said(why_no_smear(np.zeros((40, 4000, 3), np.uint8)))[1] is None


def test_an_overlap_is_said_in_german():
    field = Image.fromarray(draw_field(0)[0])
    images = [
        {"name": name, "height": field.height, "width": field.width, "notes": [], "cells": [{"box": [10, 10, 60, 60]}]}
        | {"refused": None}
        for name in ("a.png", "b.png")
    ]
    for image in images:
        image["cells"][0]["reviewed"] = None
    mark_repeats(images, [describe_field(field)] * 2)
    (note,) = images[1]["notes"]
    assert note == "overlaps a.png: 1 cell counted once"
    assert GERMAN.said(note) == ("Überlappt a.png: 1 Zelle nur einmal gezählt.", None)


def test_a_sentence_is_plain_text_to_all_others():
    sentence = say("few_cells", "Only 3 cells.", number=3)
    assert json.dumps([sentence]) == '["Only 3 cells."]' and f"{sentence}" == "Only 3 cells."
    for other in (copy.copy(sentence), copy.deepcopy({"warnings": [sentence]})["warnings"][0]):
        assert other == sentence and (other.which, other.values) == ("few_cells", {"number": 3})
    again = pickle.loads(pickle.dumps(sentence))  # where it is read there may be no such class
    assert type(again) is str and again == sentence and b"entence" not in pickle.dumps(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "A text of an older model.",
        say("of_a_newer_model", "Mind <this>."),
        say("few_cells", "Other <values>.", cells=3),
        say("class_of_one_photo", "Of <3>.", label=3, number=2),
        say("errors_of_few", "Pairs of <others>.", laboratory="here", labels=[(1, 2)]),
        say("image_no_smear", "a.png: <upside> down.", name="a.png", reason=say("smear_upside_down", "<upside> down")),
    ],
)
def test_what_is_not_known_in_german_stays_english_and_says_so(sentence):
    assert GERMAN.said(sentence) == (sentence, "en")
    assert page.said(sentence, GERMAN, "<a>: ").startswith('&lt;a&gt;: <span lang="en">')
    assert "<this>" not in page.said(sentence, GERMAN) and "<values>" not in page.said(sentence, GERMAN)
    assert languages.WORDS["en"].said(sentence) == (sentence, None) and "<span" not in page.said(
        "A.", languages.WORDS["en"]
    )


def test_only_a_sentence_without_a_name_has_none():
    assert Sentence("A.").which is None and Sentence("A.").values == {}
    assert fields_page.message("Darunter.", first=page.said("a.png: <cut>.", GERMAN)) == (
        '<p class="wbc-note" role="status"><span lang="en">a.png: &lt;cut&gt;.</span> Darunter.</p>'
    )
