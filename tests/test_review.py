"""A count under review, and the visit that holds it: what is said changes the count, is logged, and goes with the visitor."""

import copy
import io
import json
import threading

import jsonschema
import pytest
from conftest import REPOSITORY
from PIL import Image
from space_fixtures import fields_page, languages, review, smear_fields, turns, visits

from hub_model.differential import cells_csv, count_cells, count_csv, report_json

CLASSES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
MODEL = {"name": "a model", "revision": None, "sha256": "ab" * 32}
ENGLISH = languages.WORDS["en"]


def made_cell(verdict, label, score, same_as=None):
    rest = (1 - score) / 3
    return {
        "box": [10, 20, 50, 60], "find_score": 0.9, "label": label, "score": score, "energy": -3.0, "verdict": verdict,
        "probabilities": {name: score if name == label else rest for name in CLASSES}, "same_as": same_as,
        "reason": "low confidence" if verdict == "unidentified" else None, "reviewed": None,
    }  # fmt: skip


class Count:
    """What of the pipeline a review needs, with the real count behind it."""

    def count(self, images, **options):
        return count_cells(images, CLASSES, **options)

    def as_json(self, answer):
        return report_json(answer["images"], answer["differential"], answer["changes"])

    def cells_csv(self, answer):
        return cells_csv(answer["images"], CLASSES)


@pytest.fixture
def slide():
    cells = [
        [made_cell("neutrophil", "neutrophil", 0.97), made_cell("unidentified", "monocyte", 0.5)],
        [made_cell("unidentified", "lymphocyte", 0.6), made_cell("neutrophil", "neutrophil", 0.99)],
        [made_cell("unidentified", "lymphocyte", 0.7, same_as=[1, 0])],
    ]
    images = [
        {"name": f"<{number}>.jpg", "height": 90, "width": 120, "notes": [], "refused": None, "cells": own}
        for number, own in enumerate(cells)
    ]
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112), "pink").save(buffer, "JPEG")
    pictures = {(number, place): buffer.getvalue() for number, own in enumerate(cells) for place in range(len(own))}
    answer = {"images": images, "differential": Count().count(images)}
    return review.Slide(Count(), answer, pictures, dict(pictures), [buffer.getvalue()] * 3, MODEL)


def counts(slide):
    return {row["class"]: row["count"] for row in slide.answer["differential"]["rows"] if row["count"]}


def test_a_change_is_counted_logged_and_taken_back(slide):
    before = copy.deepcopy(slide.answer["differential"])
    assert counts(slide) == {"neutrophil": 2, "unidentified": 2} and slide.open == 2
    slide.change(0, 1, "monocyte")
    assert counts(slide) == {"neutrophil": 2, "monocyte": 1, "unidentified": 1} and slide.open == 1
    slide.change(0, 0, "dropped")
    assert counts(slide) == {"neutrophil": 1, "monocyte": 1, "unidentified": 1}
    assert slide.answer["differential"]["cells"] | {"dropped": 1} == slide.answer["differential"]["cells"]
    slide.undo()
    slide.undo()
    assert slide.answer["differential"] == before and not slide.can_undo
    told = [(change["from"], change["to"]) for change in slide.answer["changes"]]
    assert told == [
        ("unidentified", "monocyte"), ("neutrophil", "dropped"), ("dropped", "neutrophil"), ("monocyte", "unidentified"),
    ]  # fmt: skip
    slide.undo()
    assert len(slide.answer["changes"]) == 4, "nothing is left to take back"


def test_a_whole_class_is_confirmed_and_taken_back_at_once(slide):
    slide.change(0, 1, "neutrophil")
    page = fields_page.gallery(slide, ENGLISH)
    assert 'data-right="neutrophil"' in page and "All 2 are right" in page, "not of the one that a person named"
    slide.take(slide.token, [{"number": 1, "right": "neutrophil", "cells": ["0-0", "1-1"]}])
    assert [cell["reviewed"] for *_, cell in slide.cells()] == ["neutrophil", "neutrophil", None, "neutrophil"]
    assert counts(slide) == {"neutrophil": 3, "unidentified": 1} and slide.open == 1
    assert "data-right" not in fields_page.gallery(slide, ENGLISH)
    assert [change["to"] for change in slide.answer["changes"]] == ["neutrophil"] * 3
    slide.take(slide.token, [{"number": 2, "undo": True}])
    assert [cell["reviewed"] for *_, cell in slide.cells()] == [None, "neutrophil", None, None]
    for number, name in enumerate(("unidentified", "dropped", "blast"), 3):
        with pytest.raises(ValueError, match="is no class of which all cells can be right"):
            slide.take(slide.token, [{"number": number, "right": name, "cells": ["0-0"]}])
    slide.take(slide.token, [{"number": 9, "right": "neutrophil", "cells": ["1-1"]}])
    assert [cell["reviewed"] for *_, cell in slide.cells()] == [None, "neutrophil", None, "neutrophil"], "what was seen"


def test_what_was_said_in_the_browser_is_done_once_and_in_order(slide, monkeypatch):
    counted = []
    monkeypatch.setattr(slide, "recount", lambda recount=slide.recount: (counted.append(1), recount()))
    steps = [
        {"number": 4, "cell": "0-1", "to": "monocyte"},
        {"number": 5, "cell": "1-0", "to": "lymphocyte"},
        {"number": 6, "undo": True},
        {"number": 7, "cell": "0-0", "to": "dropped"},
    ]
    slide.take(slide.token, steps)
    assert [(cell["reviewed"]) for *_, cell in slide.cells()] == ["dropped", "monocyte", None, None]
    assert slide.taken == 7 and len(slide.answer["changes"]) == 4 and len(counted) == 1
    assert counts(slide) == {"neutrophil": 1, "monocyte": 1, "unidentified": 1}
    slide.take(slide.token, steps)  # sent again, since the answer came late
    slide.take("another slide", [{"number": 8, "cell": "0-0", "to": "monocyte"}])
    assert slide.taken == 7 and len(slide.answer["changes"]) == 4 and len(counted) == 1
    slide.take(slide.token, [{"number": 8, "undo": True}])
    assert slide.undone == (0, 0) and slide.cell(0, 0)["reviewed"] is None
    assert f'data-slide="{slide.token}" data-taken="8" data-undone="0-0"' in fields_page.gallery(slide, ENGLISH)


@pytest.mark.parametrize(
    "steps", [None, 7, [7], [{}], [{"number": "x"}], [{"number": 2}], [{"number": 2, "cell": "9-9"}]]
)
def test_steps_that_are_none_are_refused(slide, steps):
    with pytest.raises(ValueError):
        slide.take(slide.token, steps)
    assert slide.answer["changes"] == []


def test_what_was_said_before_a_step_that_is_none_is_counted(slide):
    steps = [{"number": 1, "cell": "0-1", "to": "monocyte"}, {"number": 2, "cell": "1-0", "to": "blast"}]
    with pytest.raises(ValueError, match="'blast' is no choice"):
        slide.take(slide.token, steps)
    assert slide.taken == 2 and counts(slide) == {"neutrophil": 2, "monocyte": 1, "unidentified": 1}


def test_a_cell_that_stays_unidentified_was_looked_at(slide):
    slide.change(0, 1, "unidentified")
    assert slide.open == 1 and counts(slide) == {"neutrophil": 2, "unidentified": 2}
    slide.change(0, 1, "unidentified")
    assert len(slide.answer["changes"]) == 1, "the same said twice is said once"


def test_another_sight_of_a_cell_is_that_cell(slide):
    slide.change(2, 0, "lymphocyte")
    assert slide.cell(1, 0)["reviewed"] == "lymphocyte" and slide.cell(2, 0)["reviewed"] is None
    assert counts(slide)["lymphocyte"] == 1
    assert [(number, place) for number, place, _ in slide.cells()] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_what_is_no_cell_or_no_class_is_refused_and_changes_nothing(slide):
    before = copy.deepcopy(slide.answer)
    for asked, match in (((0, 1, "blast"), "'blast' is no choice"), ((7, 0, "monocyte"), "no cell 0 in image 7")):
        with pytest.raises(ValueError, match=match):
            slide.change(*asked)
    with pytest.raises(ValueError, match="no cell -1"):
        slide.change(0, -1, "monocyte")
    assert slide.answer == before


def test_groups_begin_with_the_unidentified_and_fall_in_sureness(slide):
    slide.change(1, 1, "dropped")
    groups = slide.groups()
    assert list(groups) == ["unidentified", "neutrophil", "dropped"]
    assert [cell["score"] for *_, cell in groups["unidentified"]] == [0.6, 0.5]


def test_options_follow_and_a_wrong_one_leaves_the_old(slide):
    slide.set_options(review.Options(5000.0, None, {"neutrophil": [90.0, 95.0]}))
    row = next(row for row in slide.answer["differential"]["rows"] if row["class"] == "neutrophil")
    assert (row["flag"], row["per_microlitre"]) == ("low", 2500)
    with pytest.raises(ValueError, match="white_cells_per_microlitre"):
        slide.set_options(review.Options(-3.0))
    assert slide.options.white_cells_per_microlitre == 5000
    slide.change(0, 1, "monocyte")
    assert slide.answer["differential"]["white_cells_per_microlitre"] == 5000, "options stay through changes"


def test_what_is_kept_carries_the_changes_and_the_mark(slide):
    from pypdf import PdfReader

    slide.change(0, 1, "monocyte")
    document = json.loads(slide.count.as_json(slide.answer))
    schema = json.loads((REPOSITORY / "hub_model" / "differential.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, schema)
    assert [(change["from"], change["to"]) for change in document["changes"]] == [("unidentified", "monocyte")]
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(smear_fields.pdf(slide))).pages)
    assert "NOT REVIEWED" in text and "unidentified → monocyte" in text and document["changes"][0]["time"] in text
    slide.change(1, 0, "unidentified")
    text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(smear_fields.pdf(slide))).pages)
    assert "NOT REVIEWED" not in text and MODEL["sha256"] in "".join(text.split())


def test_reviewed_is_what_a_person_saw_in_everything_that_is_kept(slide):
    from pypdf import PdfReader

    def told():
        text = "".join(page.extract_text() for page in PdfReader(io.BytesIO(smear_fields.pdf(slide))).pages)
        document = json.loads(slide.count.as_json(slide.answer))
        page = fields_page.summary(slide, ENGLISH)
        (row,) = {line.rpartition(",")[2] for line in count_csv(slide.answer["differential"]).split("\n")[1:-1]}
        assert row == document["differential"]["review"]["state"]
        return row, page.partition("<b>")[2].partition("</b>")[0], text

    assert told()[:2] == ("not reviewed", "Not reviewed") and "NOT REVIEWED" in told()[2]
    slide.change(0, 1, "monocyte")
    slide.change(1, 0, "unidentified")
    assert told()[:2] == ("reviewed", "Reviewed") and "a person has looked at each" in told()[2]
    for image in slide.images:
        for cell in image["cells"]:
            cell |= {"verdict": cell["label"], "reviewed": None}
    slide.recount()
    assert told()[:2] == ("nothing unidentified", "Nothing unidentified") and "Nothing unidentified" in told()[2]
    for image in slide.images:
        image["cells"] = []
    slide.recount()
    assert told()[:2] == ("no cells", "No cells") and "No cells" in told()[2]


def test_the_page_escapes_names_and_marks_the_count(slide):
    for part in (fields_page.summary, fields_page.gallery, fields_page.photos):
        assert "<0>.jpg" not in part(slide, ENGLISH)
    assert 'data-reviewed="no"' in fields_page.summary(slide, ENGLISH)
    slide.change(0, 1, "monocyte")
    slide.change(1, 0, "dropped")
    assert 'data-reviewed="yes"' in fields_page.summary(slide, ENGLISH)


def test_an_unidentified_cell_tells_which_class_its_per_cent_means_and_why_it_has_no_name(slide):
    html = fields_page.gallery(slide, ENGLISH)
    assert "<span>Monocyte?<br>50.0%</span>" in html and "<span>97.0%</span>" in html
    assert 'title="Monocyte? 50.0%. Not named, for it is not sure enough."' in html
    assert (
        'aria-label="Unidentified, Monocyte? 50.0%, cell 2 of &lt;0&gt;.jpg. Not named, for it is not sure enough."'
        in html
    )
    german = fields_page.gallery(slide, languages.WORDS["de"])
    assert "<span>Monozyt?<br>50,0\xa0%</span>" in german and "nicht sicher genug" in german
    slide.change(0, 1, "monocyte")
    told = fields_page.gallery(slide, ENGLISH)
    assert "<span>Monocyte?" not in told and 'aria-label="Monocyte, named by you, cell 2 of &lt;0&gt;.jpg"' in told


@pytest.mark.parametrize(
    ("language", "one", "many"),
    [
        (
            "en",
            ("1 cell counted in 1 photo", "1 photo refused", "1 unidentified cell is"),
            "2 cells counted in 2 photos",
        ),
        (
            "de",
            ("1 Zelle gezählt in 1 Foto", "1 Foto abgelehnt", "1 unbestimmte Zelle ist"),
            "2 Zellen gezählt in 2 Fotos",
        ),
    ],
)
def test_one_thing_is_told_as_one(language, one, many, slide):
    speech = languages.WORDS[language]
    slide.images[0]["cells"] = [made_cell("unidentified", "monocyte", 0.5)]
    slide.images[1]["cells"], slide.images[2]["cells"] = [], []
    slide.images[1]["refused"] = slide.images[2]["refused"] = "no picture"
    slide.recount()
    assert "2 " in fields_page.summary(slide, speech).partition("wbc-facts")[2].partition(";")[2]
    del slide.images[2]
    slide.recount()
    assert all(text in fields_page.summary(slide, speech) for text in one)
    assert speech.many("white_cells", 1) in fields_page.photos(slide, speech)
    slide.images[1] |= {"refused": None, "cells": [made_cell("neutrophil", "neutrophil", 0.9)]}
    slide.recount()
    assert many in fields_page.summary(slide, speech)
    busy = [fields_page.progress(1, 3, cells, speech) for cells in (0, 1, 2)]
    assert speech.many("fields_so_far", 0) not in busy[0] and speech["fields_so_far_one"] in busy[1]
    assert speech.many("fields_so_far", 2) in busy[2]


@pytest.mark.parametrize(
    ("typed", "value"),
    [("", None), (None, None), ("7200", 7200), ("7,200", 7200), ("7.200", 7200), ("7 200", 7200), ("7'200", 7200)]
    + [("100", 100), ("12 500,5", 12500.5), ("1000000", 1e6)],
)
def test_a_total_is_read_as_it_is_typed(typed, value):
    assert smear_fields.read_total(typed, ENGLISH) == value


@pytest.mark.parametrize(
    ("typed", "match"),
    [("many", "'many' is no number of white cells per µL"), ("nan", "no number"), ("1e9", "'1e9' is no number")]
    + [("7,2", "^7,2 white cells per µL are too few.* 7200 per µL"), ("0", "too few"), ("-5", "too few")]
    + [("1000000000", "too many"), ("7200 /µL", "no number")],
)
def test_a_total_that_no_blood_has_is_told(typed, match):
    for language in ("en", "de"):
        with pytest.raises(ValueError) as told:
            smear_fields.read_total(typed, languages.WORDS[language])
        assert "white_cells" not in str(told.value) and "µL" in str(told.value)
    with pytest.raises(ValueError, match=match):
        smear_fields.read_total(typed, ENGLISH)


def test_ranges_that_are_none_are_left_out_and_told():
    given = {"neutrophil": (40, 70), "lymphocyte": (None, 40), "monocyte": (9, 8), "eosinophil": (None, None)}
    ranges, wrong = smear_fields.read_ranges(given | {"basophil": (0, 120)}, ENGLISH)
    assert ranges == {"neutrophil": [40, 70], "lymphocyte": [0, 40]}
    assert "Monocyte: 9 to 8 is no range" in wrong and "Basophil: 0 to 120 is no range" in wrong


def test_a_count_tells_how_many_cells_it_has_found(tmp_path):

    class Model:
        identity = MODEL

        class count:
            most_pixels = 1

            @staticmethod
            def count(images, **options):
                return count_cells(images, CLASSES)

    class Told(Model.count):
        def __call__(self, paths, tell, **options):
            assert options == {}
            for number, _ in enumerate(paths, 1):
                tell(number, 3 * number)
                seen.append((counting.done, counting.cells))
            return {"images": [{"refused": "no"}] * 2, "differential": count_cells([], CLASSES)}

    seen, model = [], Model()
    model.count = Told()
    counting = smear_fields.Counting(model, [tmp_path, tmp_path], review.Options(), threading.Event())
    counting.run()
    assert seen == [(1, 3), (2, 6)]
    assert "Reading photo 2 of 3; 6 white cells" in fields_page.progress(1, 3, 6, ENGLISH)


# Turns


def test_turns_come_in_order_and_who_stops_waiting_lets_the_next_one_come():
    line = turns.Line(at_once=2)
    first, second, third, fourth = (line.join() for _ in range(4))
    assert [turn.ahead for turn in (first, second, third, fourth)] == [0, 0, 1, 2]
    stop = threading.Event()
    stop.set()
    with pytest.raises(turns.Cancelled), third:
        third.wait(stop)
    assert fourth.ahead == 1
    begun = threading.Thread(target=fourth.wait, args=[threading.Event()])
    begun.start()
    first.leave()
    begun.join(timeout=60)
    assert not begun.is_alive() and fourth.ahead == 0
    first.leave()
    assert line.join().ahead == 1, "the second and the fourth work"


# The visit


def test_a_visit_that_is_closed_leaves_nothing(tmp_path):
    all_visits = visits.Visits()
    own, shared = tmp_path / "own.png", tmp_path / "shared.png"
    for file in (own, shared):
        file.touch()
    first, second = all_visits.of("first"), all_visits.of("second")
    first.files |= {own, shared}
    second.files.add(shared)
    running = first.cancelled
    all_visits.close("first")
    assert not own.exists() and shared.exists() and running.is_set() and len(all_visits) == 1
    all_visits.close("second")
    assert not shared.exists() and len(all_visits) == 0
    assert all_visits.of("first") is not first


def test_what_is_answered_after_the_page_was_closed_is_not_kept(tmp_path):
    all_visits = visits.Visits()
    own, shared, later = (tmp_path / name for name in ("own", "shared", "later"))
    for folder in (own, shared, later):
        folder.mkdir()
    all_visits.keep("other", shared)
    all_visits.of("gone")
    all_visits.leave("gone")
    for folder in (own, shared):
        all_visits.keep("gone", folder)  # its answer took longer than the visitor stayed
    assert not own.exists() and shared.exists() and len(all_visits) == 1, "and no visit of it begins anew"
    all_visits.of("gone")  # the connection had only broken
    all_visits.keep("gone", later)
    assert later.exists()
    all_visits.leave("gone")
    assert not later.exists()


def test_files_of_a_question_that_waits_go_with_the_page_and_not_before(tmp_path):
    all_visits = visits.Visits()
    waiting, answered, deleted = (tmp_path / name for name in ("waiting", "answered", "deleted"))
    for folder in (waiting, answered, deleted):
        folder.mkdir()
    all_visits.expect("page", [answered, deleted])
    all_visits.keep("page", answered)
    all_visits.forget_files("page")
    deleted.rmdir()  # as an endpoint does that has answered
    all_visits.expect("page", [waiting])
    assert all_visits.of("page").waiting == {waiting} and not answered.exists()
    all_visits.leave("page")
    assert not waiting.exists() and len(all_visits) == 0


def test_a_page_whose_connection_broke_asks_again(tmp_path):
    all_visits, photo = visits.Visits(), tmp_path / "photo"
    photo.mkdir()
    all_visits.of("page")
    all_visits.leave("page")
    all_visits.expect("page", [photo])
    assert photo.exists() and len(all_visits) == 0, (
        "it is read first, and deleted by its answer, should the page be closed"
    )
    all_visits.keep("page", photo)
    assert not photo.exists()


def test_a_visit_that_ended_by_itself_may_begin_anew(tmp_path, monkeypatch):
    all_visits = visits.Visits()
    all_visits.keep("late", tmp_path / "first")
    monkeypatch.setattr(visits, "LONGEST", -1)
    all_visits.sweep()
    (tmp_path / "second").mkdir()
    all_visits.keep("late", tmp_path / "second")
    assert (tmp_path / "second").exists()


def test_of_closed_pages_only_the_last_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(visits, "REMEMBERED", 2)
    all_visits = visits.Visits()
    for name in ("first", "second", "third"):
        all_visits.leave(name)
        (tmp_path / name).mkdir()
    for name in ("first", "second", "third"):
        all_visits.keep(name, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_visit_in_which_nothing_happens_ends_within_the_hour():
    now = [0.0]
    all_visits = visits.Visits(clock=lambda: now[0])
    all_visits.of("old")
    now[0] = 2000
    all_visits.of("young")
    now[0] = visits.LONGEST + 1
    all_visits.of("young")
    assert len(all_visits) == 1


# Languages


def test_both_languages_say_the_same_things():
    import string

    english, german = languages.ENGLISH, languages.GERMAN
    assert english.keys() == german.keys()
    for name in english:
        if name.endswith("_one"):
            assert name.removesuffix("_one") in english
        fields = [
            {field for _, field, *_ in string.Formatter().parse(text[name]) if field} for text in (english, german)
        ]
        assert fields[0] == fields[1], name


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("fr,en;q=0.3,de;q=0.5", "en"),
        ("fr;q=0.3,de;q=0.5", "de"),
        ("fr", "en"),
        ("", "en"),
        ("x;q=y,de", "de"),
    ],
)
def test_the_browsers_language_is_chosen(asked, language):
    class Request:
        headers = {"accept-language": asked}

    assert languages.words(Request())["language"] == language
    assert languages.words()["language"] == "en"
