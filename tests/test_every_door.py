"""Every door, the same model: the shipped folder answers the same pictures alike through each way of using it.

A new door is a new line in ``DOORS``.
"""

import json
import re

import numpy as np
import pytest
from conftest import REPOSITORY, real_images
from peers_fixtures import node_modules
from PIL import Image
from smear_drawings import LABELS, draw_smear, write_image
from space_fixtures import EXAMPLES, serve_shipped  # noqa: F401

import measure_doors
from evaluation import doors
from evaluation.evidence import validate_evidence
from evaluation.javascript_doors import JavaScriptError, find_browser
from evaluation.onnx_files import QUANTIZED
from evaluation.picking import pick_images
from evaluation.results import read_results, weights_sha256

SHIPPED = REPOSITORY / "hub_model"
SIZE = (320, 240)  # px, of drawings
PICTURES, AS_THEY_COME = 50, 13  # resizing differs for all pictures alike, so that fewer tell it


def eight_bits(_):
    if not (SHIPPED / "onnx" / QUANTIZED).is_file():
        pytest.skip("no 8-bit file is shipped: it lost too much")
    return doors.eight_bits()


def in_javascript(name):
    """Find a door in JavaScript, once what it needs is there."""

    def door(_):
        if "8 bits" in name:
            eight_bits(_)
        if "browser" in name:
            try:
                find_browser()
            except JavaScriptError as error:
                pytest.skip(str(error))
        return next(door for door in doors.javascript(node_modules(), quantized=True) if door.name == name)

    return door


def timm_alone(request):
    """Export the branch for stock timm as publishing does, and open it."""
    branch = pytest.importorskip("publishing.timm_branch")
    from publishing.composing import compose
    from publishing.repositories import KINDS

    folder = request.getfixturevalue("tmp_path")
    (folder / "timm").mkdir()
    branch.export(compose(REPOSITORY, KINDS["model"], "wbc-resnet", folder / "model"), folder / "timm", "apache-2.0")
    return doors.stock_timm(folder / "timm")


IN_JAVASCRIPT = (
    "transformers.js in Node",
    "transformers.js in Node, its own resizing",
    "transformers.js in Node, 8 bits",
    "transformers.js in a browser",  # with its own resizing it is slow and measured for the card alone
    "transformers.js in a browser, 8 bits",
)
DOORS = {
    **{door.name: lambda _, door=door: door for door in doors.DOORS},
    "timm alone": timm_alone,
    "ONNX Runtime, 8 bits": eight_bits,
    **{name: in_javascript(name) for name in IN_JAVASCRIPT},
    "Space": lambda request: doors.space(request.getfixturevalue("shipped")),
}


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """Drawn cells, and real ones where they are at hand, each way they are sent, with the reference's answers."""
    folder = tmp_path_factory.mktemp("pictures")
    examples = sorted(EXAMPLES.glob("*.png"))
    root = real_images()
    real = pick_images([root / "pbc", root / "raabin"], 24) if root and (root / "pbc").is_dir() else []
    drawings = [
        write_image(folder / f"{number}.png", draw_smear(LABELS[number % len(LABELS)], number, SIZE)[0])
        for number in range(PICTURES - len(examples) - len(real))
    ]
    images = [*examples, *real[:4], *drawings[:4], *real[4:], *drawings[4:]]
    (folder / "small").mkdir()
    small = doors.at_network_size(SHIPPED, images, folder / "small")
    return {
        how: (pictures, doors.through_plain(SHIPPED, pictures))
        for how, pictures in (("at_network_size", small), ("as_they_come", images[:AS_THEY_COME]))
    }


@pytest.mark.parametrize("name", DOORS)
def test_a_door_gives_plain_transformers_answers(name, sent, request):
    door = DOORS[name](request)
    assert door.name == name
    for (pictures, expected), tolerance in zip(sent.values(), door.tolerances, strict=True):
        answers = door.answer(SHIPPED, pictures)
        assert answers.shape == expected.shape == (len(pictures), 6)
        np.testing.assert_allclose(answers, expected, rtol=0, atol=tolerance)
        surest = np.sort(expected)[:, -2:]
        clear = surest[:, 1] - surest[:, 0] > 2 * tolerance  # else a difference within the tolerance may turn the label
        same = answers.argmax(axis=1) == expected.argmax(axis=1)
        assert same[clear].all() and same.mean() >= 0.9


def test_the_card_has_a_row_for_each_door():
    (report,) = read_results(SHIPPED / "eval_results.json")["evidence"]["doors"]
    shipped = {name for name in DOORS if QUANTIZED in {p.name for p in (SHIPPED / "onnx").iterdir()} or "8" not in name}
    assert shipped <= report["doors"].keys()
    for name, row in report["doors"].items():
        assert row["at_network_size"]["n"] == sum(report["pictures"].values()) >= 50
        if "8" not in name:
            assert row["at_network_size"]["same_label"] == row["at_network_size"]["n"], name
    section = (
        (SHIPPED / "README.md").read_text("utf-8").partition("## Every door, the same model")[2].partition("\n## ")[0]
    )
    assert re.findall(r"^\| ([^|]+) \| `", section, re.MULTILINE)[: len(report["doors"])] == list(report["doors"])


def test_pictures_of_the_networks_size_are_the_pictures_resized(sent):
    (small, _), (images, _) = sent.values()
    for path, image in zip(small[: len(images)], images, strict=True):
        with Image.open(path) as shown, Image.open(image) as given:
            assert (shown.mode, shown.size, shown.format) == ("RGB", (224, 224), "PNG")
            expected = np.asarray(given.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
            assert np.array_equal(np.asarray(shown), expected)


def test_compare_counts_labels_and_finds_the_worst_probability():
    reference = np.array([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    answers = np.array([[0.7, 0.3], [0.45, 0.55], [0.1, 0.9]])
    assert doors.compare(answers, reference) == {"n": 3, "same_label": 2, "difference": pytest.approx(0.15)}


def test_the_command_reports_each_door_and_ends_with_an_error_where_one_differs(tmp_path, monkeypatch):
    out = tmp_path / "doors.json"
    options = [str(SHIPPED), "--images", str(EXAMPLES), "--count", "2", "--no_space", "--out", str(out)]
    onnx = next(door for door in doors.DOORS if door.name == "ONNX Runtime")
    monkeypatch.setattr(doors, "DOORS", (onnx,))
    measure_doors.main(options)
    report = json.loads(out.read_text())
    assert report["weights_sha256"] == weights_sha256(SHIPPED) and report["pictures"] == {"examples": 2}
    assert report["doors"]["ONNX Runtime"]["as_they_come"] | {"difference": 0} == {
        "n": 2, "same_label": 2, "difference": 0, "tolerance": onnx.tolerances[1],
    }  # fmt: skip
    validate_evidence({"doors": [report]}, weights_sha256(SHIPPED))

    def unwanted(folder, images):
        raise AssertionError("a door that stands in the report is not measured again")

    monkeypatch.setattr(doors, "DOORS", (doors.Door(onnx.name, onnx.how, unwanted, onnx.tolerances),))
    measure_doors.main(options)
    assert json.loads(out.read_text()) == report
    quantized_before = report | {"onnx_sha256": report["onnx_sha256"] | {"onnx/model_quantized.onnx": "12" * 32}}
    out.write_text(json.dumps(quantized_before))
    with pytest.raises(AssertionError, match="not measured again"):
        measure_doors.main(options)
    out.write_text(json.dumps(report))

    def crooked(folder, images):
        return doors.through_plain(folder, images)[:, ::-1]

    monkeypatch.setattr(doors, "DOORS", (doors.Door("crooked", "a door", crooked, doors.SAME),))
    with pytest.raises(
        SystemExit, match=r"crooked, pictures at network size: a probability differs by 0\..*expected 1e-06"
    ):
        measure_doors.main(options)
    assert json.loads(out.read_text())["doors"]["crooked"]["as_they_come"]["same_label"] == 0, "the report tells, too"
    out.write_text("half a rep")
    with pytest.raises(SystemExit, match="doors.json is no report .* Remove it, or name another file"):
        measure_doors.main(options)


def test_a_space_that_does_not_start_is_told(tmp_path, monkeypatch):
    broken = tmp_path / "app.py"
    broken.write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(measure_doors, "SPACE", broken)
    with (
        pytest.raises(ValueError, match="The Space did not answer .* Start it to see why"),
        measure_doors.space(SHIPPED),
    ):
        pass
