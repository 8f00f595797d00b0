"""The count against scipy's own intervals, the published table, exact sums and drawn slides of known make-up."""

import csv
import io
import json
from math import lgamma

import jsonschema
import numpy as np
import pytest
from conftest import REPOSITORY
from scipy.stats import beta, binomtest

from hub_model.differential import (
    REFERENCE_RANGES,
    cells_csv,
    clinical_order,
    count_cells,
    count_csv,
    exact_interval,
    report_json,
)
from hub_model.error_adjustment import adjust

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "basophil", "other"]
ORDER = ["neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "other", "unidentified"]
SURE = {name: {name: 100_000} for name in LABELS}


def cell(verdict, **fields):
    label = "neutrophil" if verdict == "unidentified" else verdict
    probabilities = {name: 0.95 if name == label else 0.01 for name in LABELS}
    drawn = {"box": [1, 2, 30, 40], "find_score": 0.8, "label": label, "score": 0.95, "probabilities": probabilities}
    drawn |= {"energy": -4.5, "verdict": verdict, "reason": "low confidence" if verdict == "unidentified" else None}
    return drawn | {"same_as": None, "reviewed": None} | fields


def image(*cells, name="field.png", refused=None):
    return {"name": name, "height": 480, "width": 640, "notes": [], "refused": refused, "cells": list(cells)}


def slide(**counts):
    return [image(*(cell(name) for name, count in counts.items() for _ in range(count)))]


def rows(differential):
    return {row["class"]: row for row in differential["rows"]}


def count(images, **options):
    return count_cells(images, LABELS, "other", **options)


@pytest.mark.parametrize(
    ("percent", "total", "low", "high"),
    [
        (5, 100, 1.6, 11.3),
        (5, 200, 2.4, 9.0),
        (5, 400, 3.1, 7.6),
        (0, 100, 0, 3.6),
        (0, 200, 0, 1.8),
        (0, 400, 0, 0.9),
        (60, 100, 49.7, 69.7),
        (60, 200, 52.9, 66.8),
        (60, 400, 55.0, 64.8),
    ],
)
def test_the_published_table_of_limits_comes_out(percent, total, low, high):
    share = percent * total // 100
    found = rows(count(slide(neutrophil=share, lymphocyte=total - share)))["neutrophil"]["interval"]
    assert [round(limit, 1) for limit in found] == [low, high]


def test_exact_intervals_are_scipys():
    for total in (1, 7, 100, 399):
        for hits in sorted({0, 1, total // 3, total - 1, total}):
            theirs = binomtest(hits, total).proportion_ci(0.95, "exact")
            assert exact_interval(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize("wrong", [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)])
def test_counts_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="expected 0 <= count <= total"):
        exact_interval(*wrong)


def test_counts_stand_in_clinical_order_and_add_up():
    differential = count(slide(eosinophil=3, neutrophil=120, lymphocyte=60, monocyte=10, other=4, unidentified=3))
    assert [row["class"] for row in differential["rows"]] == ORDER
    assert [row["count"] for row in differential["rows"]] == [120, 60, 10, 3, 0, 4, 3]
    assert sum(row["percent"] for row in differential["rows"]) == pytest.approx(100)
    assert differential["cells"] == {"found": 200, "repeated": 0, "dropped": 0, "counted": 200, "reviewed": 0}
    assert clinical_order(["BLAST", "MONOCYTE", "NEUTROPHIL"]) == ["NEUTROPHIL", "MONOCYTE", "BLAST", "unidentified"]


def test_what_200_and_400_cells_would_give():
    row = rows(count(slide(neutrophil=12, lymphocyte=8)))["neutrophil"]
    for total in (200, 400):
        theirs = binomtest(6 * total // 10, total).proportion_ci(0.95, "exact")
        assert row[f"interval_at_{total}"] == pytest.approx([100 * theirs.low, 100 * theirs.high], abs=1e-3)


def test_repeats_and_dropped_finds_do_not_count_and_reviews_replace_verdicts():
    first = image(cell("neutrophil"), cell("unidentified", reviewed="monocyte"), cell("other", reviewed="dropped"))
    second = image(cell("lymphocyte", same_as=[0, 0]), cell("eosinophil"), name="second.png")
    differential = count([first, second, image(name="bad.jpg", refused="bad.jpg: no picture")])
    assert {row["class"]: row["count"] for row in differential["rows"] if row["count"]} == {
        "neutrophil": 1,
        "monocyte": 1,
        "eosinophil": 1,
    }
    assert differential["cells"] == {"found": 5, "repeated": 1, "dropped": 1, "counted": 3, "reviewed": 1}
    assert differential["images"] == {"given": 3, "counted": 2, "refused": 1}


def test_a_review_of_any_sight_counts_for_the_cell():
    images = [image(cell("neutrophil")), image(cell("neutrophil", same_as=[0, 0], reviewed="basophil"))]
    assert rows(count(images))["basophil"]["count"] == 1
    images[1]["cells"][0]["reviewed"] = "dropped"
    assert count(images)["cells"]["counted"] == 0


def test_flags_follow_the_ranges_given():
    images = slide(neutrophil=150, lymphocyte=30, monocyte=10, eosinophil=8, basophil=2)
    found = rows(count(images))
    assert {name: tuple(row["reference"]) for name, row in found.items() if row["reference"]} == REFERENCE_RANGES
    assert {name: (row["flag"], row["flag_sure"]) for name, row in found.items() if row["flag"]} == {
        "neutrophil": ("high", False),  # 75 %, at least 68.4
        "lymphocyte": ("low", False),  # 15 %, at most 20.7
    }
    own = rows(count(images, references={"neutrophil": [20, 60], "monocyte": [6, 12]}))
    assert (own["neutrophil"]["flag"], own["neutrophil"]["flag_sure"]) == ("high", True)
    assert (own["monocyte"]["flag"], own["lymphocyte"]["reference"]) == ("low", None)
    assert not any(row["flag"] or row["reference"] for row in count(images, references={})["rows"])


def test_the_default_ranges_are_cited_and_own_ones_are_not_taken_for_them():
    assert "doi:10.1056/NEJMcpc049016" in count(slide(neutrophil=1))["references"][0]
    assert count(slide(neutrophil=1), references={})["references"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"references": {"neutrophil": [70, 40]}}, r"neutrophil is \[70, 40\]; expected two rising per cents"),
        ({"references": {"neutrophil": [40]}}, "expected two rising"),
        ({"references": {"neutrophil": "4070"}}, "expected two rising"),
        ({"references": {"monocyte": "28"}}, "monocyte is '28'; expected two rising per cents"),
        ({"references": {"monocyte": b"28"}}, "expected two rising per cents"),
        ({"references": {"blast": [0, 1]}}, "reference range for 'blast'"),
        ({"references": {3: [2, 8]}}, r"reference range for 3; expected classes of \['eosinophil'"),
        ({"white_cells_per_microlitre": 0}, "is 0; expected a number above 0"),
        ({"white_cells_per_microlitre": float("nan")}, "expected a number above 0"),
        ({"white_cells_per_microlitre": "7000"}, "expected a number above 0"),
        ({"white_cells_per_microlitre": True}, "is True; expected a number above 0"),
        ({"white_cells_per_microlitre": 10**400}, "expected a number above 0"),  # no float holds it
        ({"references": {"monocyte": [2, 10**400]}}, "expected two rising per cents"),
        ({"references": [1]}, r"ranges are \[1\]; expected per cents by class"),
        ({"laboratory": "here"}, r"laboratory is 'here'; expected one of \[\]"),
        ({"laboratory": "x", "confusion": {"y": SURE}}, r"expected one of \['y'\]"),
        ({"confusion": {"y": {"blast": {"blast": 3}}}}, "confusion of y says 'blast'"),
        ({"confusion": {"y": {"other": {"other": -3}}}}, "'other' -3 times"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        count(slide(neutrophil=5), **options)


@pytest.mark.parametrize("wrong", [{"verdict": "blast"}, {"verdict": "dropped"}, {"reviewed": "nutrophil"}])
def test_names_that_are_no_class_are_refused_with_their_cell(wrong):
    with pytest.raises(ValueError, match=f"Cell 1 of field.png is called '{[*wrong.values()][0]}'"):
        count([image(cell("neutrophil"), cell("neutrophil") | wrong)])


def test_absolute_counts_add_up_to_the_total():
    plain = count(slide(neutrophil=150, lymphocyte=50), white_cells_per_microlitre=8000)
    row = rows(plain)["neutrophil"]
    assert row["per_microlitre"] == 6000
    assert row["per_microlitre_interval"] == pytest.approx([80 * limit for limit in row["interval"]], abs=0.01)
    errors = {"here": {name: {name: 90, f"{name}?": 10} for name in LABELS}}
    images = slide(neutrophil=135, lymphocyte=45, unidentified=20)
    adjusted = count(images, white_cells_per_microlitre=8000, confusion=errors)
    assert sum(row["per_microlitre"] or 0 for row in adjusted["rows"]) == pytest.approx(8000, abs=1)
    assert rows(adjusted)["unidentified"]["per_microlitre"] is None  # shared out


def test_a_total_may_be_numpys_and_one_in_thousands_is_doubted():
    found = count(slide(neutrophil=150, lymphocyte=50), white_cells_per_microlitre=np.float32(8000))
    assert json.loads(json.dumps(found))["white_cells_per_microlitre"] == 8000
    assert (
        rows(count(slide(neutrophil=200), white_cells_per_microlitre=np.int64(7200)))["neutrophil"]["per_microlitre"]
        == 7200
    )
    doubt = "7.2 times 10^9 in a litre are 7200"
    assert any(doubt in warning for warning in count(slide(neutrophil=200), white_cells_per_microlitre=7.2)["warnings"])
    assert not any(doubt in warning for warning in found["warnings"])


def test_a_classifier_that_never_errs_leaves_sampling_alone():
    """Then the shares' posterior under Jeffreys' prior is a Dirichlet distribution, and a share's a beta distribution."""
    found = rows(count(slide(neutrophil=120, lymphocyte=80), confusion={"here": SURE}))["neutrophil"]
    exact = beta(120 + 0.5, 80 + 5 * 0.5)
    assert found["adjusted_percent"] == pytest.approx(100 * exact.mean(), abs=0.1)
    assert found["adjusted_interval"] == pytest.approx(100 * exact.ppf([0.025, 0.975]), abs=0.3)


def test_known_errors_are_taken_back():
    """Rogan and Gladen's formula: of eosinophils a third are called neutrophils, of neutrophils none eosinophils."""
    errors = {name: {name: 30_000} for name in LABELS} | {"eosinophil": {"eosinophil": 20_000, "neutrophil": 10_000}}
    found = rows(count(slide(neutrophil=1600, eosinophil=400), confusion={"here": errors}))
    assert found["eosinophil"]["adjusted_percent"] == pytest.approx(100 * 0.2 / (2 / 3), abs=0.3)
    assert found["neutrophil"]["adjusted_percent"] == pytest.approx(70, abs=0.3)


def test_the_draws_follow_the_posterior_summed_on_a_grid():
    """Two classes, three outcomes: integrated over the error rates, the posterior is a sum of Dirichlet-multinomials."""
    columns = ["a", "b", "a?", "b?"]
    counts = {"a": [42, 9, 9, 0], "b": [6, 27, 12, 0]}
    errors = {"here": {true: dict(zip(columns, row, strict=True)) for true, row in counts.items()}}
    shares, _, _ = adjust({"a": 9, "b": 14, "a?": 7}, {"a": 2}, ["a", "b"], errors)
    from hub_model.error_adjustment import SHARE_PRIOR, _matrices

    prior = _matrices(errors, ["a", "b"])["here"]

    def dirichlet_multinomial(parameters, cells):
        whole = lgamma(parameters.sum()) - lgamma((parameters + cells).sum())
        return whole + sum(lgamma(p + c) - lgamma(p) for p, c in zip(parameters, cells, strict=True))

    grid = np.linspace(0, 1, 2001)[1:-1]
    posterior = np.zeros_like(grid)
    for a in range(10):
        for b in range(15):
            for u in range(8):  # how many cells of each verdict are of class a
                of_a, of_b = np.array([a, b, u, 0]), np.array([9 - a, 14 - b, 7 - u, 0])
                ways = sum(
                    lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in zip([9, 14, 7, 0], of_a, strict=True)
                )
                weight = ways + dirichlet_multinomial(prior[0], of_a) + dirichlet_multinomial(prior[1], of_b)
                first, second = of_a.sum() + 2 + SHARE_PRIOR - 1, of_b.sum() + SHARE_PRIOR - 1
                posterior += np.exp(weight + first * np.log(grid) + second * np.log1p(-grid))
    cumulative = posterior.cumsum() / posterior.sum()
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert np.quantile(shares["a"], share) == pytest.approx(grid[np.searchsorted(cumulative, share)], abs=0.02)


def test_a_laboratory_that_explains_the_verdicts_outweighs_one_that_does_not():
    sure = {name: {name: 95, "neutrophil?": 5} for name in LABELS}
    unsure = {name: {name: 50, "neutrophil?": 50} for name in LABELS}
    images = slide(neutrophil=120, lymphocyte=60, unidentified=10)
    differential = count(images, confusion={"sure": sure, "unsure": unsure})
    assert differential["laboratory_weights"]["sure"] > 0.999
    assert sum(differential["laboratory_weights"].values()) == pytest.approx(1, abs=1e-5)
    chosen = count(images, confusion={"sure": sure, "unsure": unsure}, laboratory="unsure")
    assert (chosen["laboratory"], chosen["laboratory_weights"]) == ("unsure", {"unsure": 1.0})
    alike = count(images, confusion={"one": sure, "two": sure})
    assert alike["laboratory_weights"] == {"one": 0.5, "two": 0.5}


def test_verdicts_unlike_any_laboratory_are_said_to_be():
    sure = {"here": {name: {name: 990, "neutrophil?": 10} for name in LABELS}}
    doubt = "unlike those in every laboratory"
    assert any(
        doubt in warning for warning in count(slide(neutrophil=100, unidentified=100), confusion=sure)["warnings"]
    )
    assert not any(
        doubt in warning for warning in count(slide(neutrophil=198, unidentified=2), confusion=sure)["warnings"]
    )


def test_reviewed_cells_are_certain():
    errors = {"here": {name: {name: 5, f"{name}?": 5} for name in LABELS}}
    images = [image(*(cell("unidentified", reviewed="neutrophil") for _ in range(200)), cell("neutrophil"))]
    row = rows(count(images, confusion=errors))["neutrophil"]
    assert row["adjusted_interval"][0] > 95


@pytest.mark.parametrize("laboratory", [None, "here"])
def test_where_a_person_named_every_cell_the_classifiers_errors_bear_on_nothing(laboratory):
    """16 of 400 are 4 %, the end of the usual range, and no classifier raises them above it."""
    errors = {"here": {name: {name: 5, f"{name}?": 5} for name in LABELS}}
    named = {"neutrophil": 232, "lymphocyte": 120, "monocyte": 32, "eosinophil": 16}
    cells = [cell("unidentified", reviewed=name) for name, number in named.items() for _ in range(number)]
    options = {"white_cells_per_microlitre": 5000, "laboratory": laboratory}
    found = count([image(*cells)], confusion=errors, **options)
    assert found["rows"] == count([image(*cells)], white_cells_per_microlitre=5000)["rows"]
    assert (rows(found)["eosinophil"]["percent"], rows(found)["eosinophil"]["flag"]) == (4.0, None)
    assert (rows(found)["basophil"]["per_microlitre"], found["laboratory_weights"]) == (0, {})
    assert found["warnings"] == [] and not any("classifier" in method for method in found["methods"])
    untold = [image(*cells, cell("unidentified", reviewed="unidentified"))]  # of which the outcome says something
    assert rows(count(untold, confusion=errors))["eosinophil"]["adjusted_percent"] is not None


def test_many_finds_of_none_of_the_classes_are_warned_of():
    def told(**counts):
        return [text for text in count(slide(**counts))["warnings"] if "'other'" in text]

    assert told(neutrophil=190, other=10) == []
    assert told(neutrophil=189, other=11) == [
        "11 of 200 cells (6 %) are 'other', none of the other classes: they lower every other per cent and share the total "
        "count. Drop what is no white cell."
    ]
    assert told(neutrophil=1, other=1)[0].startswith(
        "1 of 2 cells (50 %) is 'other', none of the other classes: it lowers"
    )
    named = [image(cell("neutrophil"), cell("neutrophil", reviewed="other"), cell("other", reviewed="dropped"))]
    assert any("1 of 2 cells (50 %) is 'other'" in text for text in count(named)["warnings"])
    assert not any("'other'" in text for text in count_cells(slide(other=9), LABELS)["warnings"])  # a class like any


def test_warnings_say_what_a_reader_must_know():
    def warned(**counts):
        return " ".join(count(slide(**counts), confusion={"here": SURE}, laboratory="here")["warnings"])

    assert "Only 99 cells were counted" in warned(neutrophil=99)
    assert warned(neutrophil=100) == ""
    assert "2 of 102 cells are unidentified" in warned(neutrophil=100, unidentified=2)
    assert "50 of 150 cells (33 %) are unidentified" in warned(neutrophil=100, unidentified=50)
    assert warned() == "No white cell was counted: there is no differential."
    unknown = count(slide(neutrophil=100), confusion={"here": SURE})["warnings"]
    assert len(unknown) == 1 and "in other laboratories" in unknown[0]
    assert "was not measured" in count(slide(neutrophil=100))["warnings"][0]


def test_a_named_laboratory_warns_of_classes_whose_errors_were_counted_on_few_cells():
    errors = {name: {name: 10} for name in LABELS} | {
        "monocyte": {"monocyte": 4, "neutrophil?": 5},
        "other": {"other": 1},
    }
    del errors["basophil"]
    tables = {"here": errors, "there": SURE}

    def told(laboratory):
        warnings = count(slide(neutrophil=200), confusion=tables, laboratory=laboratory)["warnings"]
        return [warning for warning in warnings if "few cells" in warning]

    (warning,) = told("here")
    assert "errs in here was counted on few cells of monocyte (9), basophil (0): the adjusted figures" in warning
    assert told("there") == told(None) == []


def test_the_same_cells_give_the_same_figures():
    errors = {"here": {name: {name: 50, f"{name}?": 5, "monocyte?": 2} for name in LABELS}}
    images = slide(neutrophil=120, lymphocyte=50, unidentified=12)
    assert count(images, confusion=errors) == count(images, confusion=dict(errors))


def test_the_json_document_comes_back_whole():
    images = [*slide(neutrophil=3, unidentified=1), image(name="ж.jpg", refused="ж.jpg: no picture")]
    differential = count(images)
    document = json.loads(report_json(images, differential))
    assert document == {"schema": "wbc-differential/1", "differential": differential, "images": images}
    assert report_json(images, differential) == report_json(images, differential)
    assert "ж.jpg" in report_json(images, differential)


SCHEMA = json.loads((REPOSITORY / "hub_model" / "differential.schema.json").read_text())


@pytest.mark.parametrize(
    "options",
    [{}, {"confusion": {"here": SURE}, "laboratory": "here", "white_cells_per_microlitre": 6000.0}, {"references": {}}],
    ids=str,
)
@pytest.mark.parametrize("cells", [{}, {"neutrophil": 3}, {"neutrophil": 90, "other": 3, "unidentified": 20}], ids=str)
def test_the_json_document_follows_its_schema(cells, options):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    images = [*slide(**cells), image(name="bad.jpg", refused="bad.jpg: no picture") | {"height": None, "width": None}]
    images.append(image(cell("neutrophil", same_as=[0, 0]), cell("other", reviewed="dropped")) if cells else image())
    document = json.loads(report_json(images, count(images, **options)))
    jsonschema.validate(document, SCHEMA)
    for broken in ({"schema": "wbc-differential/2"}, {"extra": 1}, {"images": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | broken, SCHEMA)


def test_the_table_of_cells():
    images = [image(cell("neutrophil"), cell("unidentified", reviewed="monocyte"), name="=a.png")]
    images += [image(cell("neutrophil", same_as=[0, 0]), name="b.png"), image(name="c.png", refused="c.png: empty")]
    first, second, third, fourth = csv.DictReader(io.StringIO(cells_csv(images, LABELS)))
    assert first["image"] == "'=a.png"  # no formula
    assert [first[name] for name in ("row_min", "col_min", "row_max", "col_max")] == ["1", "2", "30", "40"]
    assert (first["verdict"], first["reason"], first["p(neutrophil)"], first["p(other)"]) == (
        "neutrophil",
        "",
        "0.95",
        "0.01",
    )
    assert (second["verdict"], second["reason"], second["reviewed"]) == ("unidentified", "low confidence", "monocyte")
    assert (third["same_as_image"], third["same_as_cell"]) == ("'=a.png", "0")
    assert (fourth["image"], fourth["verdict"], fourth["reason"], fourth["score"]) == (
        "c.png",
        "refused",
        "c.png: empty",
        "",
    )


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ([], {"state": "no cells", "unidentified": 0, "unseen": 0}),
        ([cell("neutrophil")], {"state": "nothing unidentified", "unidentified": 0, "unseen": 0}),
        ([cell("other", reviewed="dropped")], {"state": "nothing unidentified", "unidentified": 0, "unseen": 0}),
        ([cell("neutrophil"), cell("unidentified")], {"state": "not reviewed", "unidentified": 1, "unseen": 1}),
        (
            [cell("unidentified", reviewed="monocyte"), cell("unidentified")],
            {"state": "not reviewed", "unidentified": 2, "unseen": 1},
        ),
        (
            [cell("unidentified", reviewed="unidentified"), cell("unidentified", reviewed="dropped")],
            {"state": "reviewed", "unidentified": 2, "unseen": 0},
        ),
        (
            [cell("unidentified"), cell("unidentified", same_as=[0, 0], reviewed="monocyte")],
            {"state": "reviewed", "unidentified": 1, "unseen": 0},
        ),
    ],
    ids=["nothing", "sure", "dropped", "unseen", "half", "seen", "seen in another photo"],
)
def test_a_count_says_how_far_it_was_reviewed(cells, state):
    differential = count([image(*cells)])
    assert differential["review"] == state
    jsonschema.validate(json.loads(report_json([image(*cells)], differential)), SCHEMA)
    assert {row["review"] for row in csv.DictReader(io.StringIO(count_csv(differential)))} == {state["state"]}


def test_unidentified_cells_that_a_person_saw_are_not_to_be_looked_at_again():
    (left,) = [text for text in count([image(cell("unidentified"))])["warnings"] if "unidentified" in text]
    assert left == (
        "1 of 1 cells (100 %) is unidentified: before the count is signed, look at those that nobody has looked at."
    )
    seen = count([image(cell("unidentified", reviewed="unidentified"))])["warnings"]
    assert "1 of 1 cells (100 %) is unidentified: a person has looked at each." in seen


def test_the_table_of_the_count():
    differential = count(slide(neutrophil=3, lymphocyte=1))
    table = list(csv.DictReader(io.StringIO(count_csv(differential))))
    assert [row["class"] for row in table] == ORDER
    assert (table[0]["count"], table[0]["percent"]) == ("3", "75.0")
    assert float(table[0]["interval_low"]) == rows(differential)["neutrophil"]["interval"][0]
    assert (table[0]["reference_high"], table[-1]["reference_high"], table[0]["adjusted_interval_low"]) == (
        "70.0",
        "",
        "",
    )
