"""Drawn fields under many lamps and lenses pass the gate; photographs of other things, drawings and grey pictures do not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from smear_drawings import draw_field, write_archive, write_box_table, write_image

import measure_gate
from evaluation.strangers import draw_strangers, installed_photographs
from hub_model.smear_gate import why_no_smear


def far(size=(480, 640)):
    """Distance from the middle, (H, W, 1), 1 at the middles of the longer sides' ends."""
    row, col = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    return np.hypot(row * size[0] / size[1], col)[..., None]


def as_bytes(levels):
    return np.clip(levels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_fields_with_white_cells_and_without_pass(seed):
    assert why_no_smear(draw_field(seed)[0]) is None
    assert why_no_smear(draw_field(seed, [])[0]) is None


@pytest.mark.parametrize(
    "ground", [(240, 205, 210), (235, 230, 185), (205, 215, 225), (150, 140, 150), (250, 215, 235)]
)
def test_ground_of_any_tint_passes(ground):
    field, _ = draw_field()
    assert why_no_smear(as_bytes(field * np.array(ground) / (230, 225, 235))) is None


@pytest.mark.parametrize(
    "degrade",
    [
        lambda field: field * (1 - 0.45 * far() ** 2),
        lambda field: field * np.clip((0.7 - far()) / 0.05, 0, 1),  # an eyepiece's black rim
        lambda field: field * np.clip((0.7 - far()) / 0.05, 0, 1) * (1 - 0.3 * far() ** 2) + 6,
        lambda field: field * 0.5,
        lambda field: field + np.random.default_rng(0).normal(0, 12, field.shape),
        lambda field: np.asarray(Image.fromarray(field).filter(ImageFilter.GaussianBlur(12))),
        lambda field: np.asarray(Image.fromarray(field).rotate(20)),  # black corners
    ],
    ids=["vignette", "rim", "rim and vignette", "dim", "noise", "out of focus", "turned"],
)
def test_degraded_fields_pass(degrade):
    assert why_no_smear(as_bytes(degrade(draw_field()[0]))) is None


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (1280, 960), (5472, 3648)])
def test_size_of_the_photo_does_not_matter(size):
    assert why_no_smear(Image.fromarray(draw_field()[0]).resize(size)) is None


@pytest.mark.parametrize("ground", [(255, 255, 255), (230, 225, 235), (240, 225, 200)])
def test_clear_ground_passes_as_an_empty_field(ground):
    empty = np.full((480, 640, 3), ground, float)
    assert why_no_smear(as_bytes(empty)) is None
    assert why_no_smear(as_bytes(empty * (1 - 0.4 * far() ** 2))) is None  # vignette
    assert why_no_smear(as_bytes(empty + np.random.default_rng(0).normal(0, 3, empty.shape))) is None


@pytest.mark.parametrize(
    ("colour", "reason"),
    [
        ((0, 0, 0), "too dark"),
        ((30, 40, 30), "too dark"),
        ((20, 60, 200), "of one colour"),
        ((250, 120, 30), "of one colour"),
    ],
)
def test_plain_pictures_that_are_no_clear_ground(colour, reason):
    assert reason in why_no_smear(np.full((480, 640, 3), colour, np.uint8))


def test_a_grey_picture_is_refused_as_grey():
    """Of a smear, too: it cannot be told from anything else."""
    grey = Image.fromarray(draw_field()[0]).convert("L")
    assert why_no_smear(grey) == "no stained smear: it is grey, and only colour tells a stain"
    page = Image.new("RGB", (600, 800), "white")
    for row in range(40, 760, 22):
        ImageDraw.Draw(page).text((40, row), "the quick brown fox jumps over the lazy dog " * 2, fill="black")
    assert "it is grey" in why_no_smear(page)


def test_other_colours_than_a_stain_s_are_refused():
    """The drawn field itself, its colours exchanged: what was darkest in green is darkest in blue."""
    field, _ = draw_field()
    for order in ((0, 2, 1), (2, 0, 1)):
        assert "not those of a blood stain" in why_no_smear(np.ascontiguousarray(field[..., order]))
    assert why_no_smear(255 - field).startswith("no stained smear: ")


def test_light_things_on_dark_are_refused():
    field = draw_field()[0].astype(float)
    middle = np.log(field).mean((0, 1))
    assert "light things on dark" in why_no_smear(as_bytes(0.6 * np.exp(2 * middle - np.log(field))))


def test_photographs_of_other_things_are_refused():
    answers = {}
    for kind, paths in installed_photographs().items():
        if kind.startswith(("photograph", "scanned", "surface")):
            for path in paths:
                with Image.open(path) as photograph:
                    answers[path.name] = why_no_smear(photograph.convert("RGB"))
    assert len(answers) >= 3
    passed = [name for name, answer in answers.items() if answer is None]
    assert len(passed) <= 0.1 * len(answers), passed


def test_drawings_are_refused():
    answers = [why_no_smear(picture) for kind, picture in draw_strangers(12, 256, 3) if kind != "plain colour"]
    assert sum(answer is None for answer in answers) <= 0.1 * len(answers)


def test_errors_say_what_came():
    with pytest.raises(TypeError, match="float64; expected a PIL image or an array of uint8"):
        why_no_smear(np.zeros((480, 640, 3)))
    with pytest.raises(TypeError, match="str; expected a PIL image"):
        why_no_smear("field.png")
    with pytest.raises(ValueError, match=r"shape \(480, 640\); expected \(height, width, 3\)"):
        why_no_smear(np.zeros((480, 640), np.uint8))
    with pytest.raises(ValueError, match="640 x 20 px; expected 32 or more each side"):
        why_no_smear(np.zeros((20, 640, 3), np.uint8))


def test_the_measuring_command_counts_who_is_refused(tmp_path):
    folder, others = tmp_path / "drawn", tmp_path / "others"
    folder.mkdir()
    rows = []
    for number in range(3):
        field, boxes = draw_field(number)
        write_image(folder / f"{number}.png", 255 - field if number == 2 else field)
        rows += [(f"{number}.png", "wbc", box, "") for box in boxes]
    write_box_table(folder / "boxes.csv", rows)
    write_image(others / "a" / "smear.png", draw_field(5)[0])
    write_image(others / "grey.png", np.repeat(draw_field(6)[0][..., :1], 3, 2))
    write_image(others / "tiny.png", np.zeros((20, 20, 3), np.uint8))
    arguments = [str(folder), "--strangers", f"own={others}", "--count", "0", "--out", str(tmp_path / "out.json")]
    measure_gate.main(arguments)
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {"command", "commit", "dirty", "versions"} <= results.keys()
    smears, own = results["smears"]["drawn"], results["strangers"]["own"]
    assert (smears["pictures"], smears["refused"], smears["odd"]) == (3, 1, ["2.png"])
    assert smears["interval"] == [0.0084, 0.9057]  # Clopper and Pearson, 1 of 3: 1 - 0.975**(1/3), and the root above
    assert (own["pictures"], own["refused"], list(own["reasons"].values())) == (2, 1, [1])
    assert results["empty_fields"]["drawn"]["pictures"] == 3


def test_the_archive_is_measured_behind_a_link_too(tmp_path, monkeypatch):
    photos = write_archive(tmp_path / "archive", train=1, test=1, size=(240, 320))
    (tmp_path / "blood-cells").symlink_to("archive")
    monkeypatch.chdir(tmp_path)
    measure_gate.main(["blood-cells", "--count", "0", "--out", "out.json"])
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["smears"]["archive"]["pictures"] == len(photos)


@pytest.mark.parametrize("lab", ["raabin", "chula", "pbc"])
def test_laboratories_fields_pass(data_root, lab):
    """A few images of each class, none of which training holds out in PBC: the whole is measured by the command."""
    folder = data_root / lab
    if not folder.exists():
        pytest.skip(f"{folder} is absent: it is no part of the project")
    if lab == "pbc":
        files, _ = measure_gate.read_laboratory(folder, None, 0.2, 3, held_out=False)
    else:
        files, _ = measure_gate.read_laboratory(folder, None, 0.0, 0, held_out=False)
    files = files[:: len(files) // 60]
    refused = []
    for file in files:
        with Image.open(file) as picture:
            if why_no_smear(picture.convert("RGB")):
                refused.append(file.name)
    assert len(files) >= 60 and refused == []
