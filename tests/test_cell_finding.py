"""White cells drawn at known places among red cells, under several lamps, stains and sizes; and laboratories' own boxes."""

import json

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image, ImageOps
from scipy.stats import binomtest
from smear_drawings import CYTOPLASM, FIELD_CELLS, _disc, draw_field, write_box_table, write_image

import measure_finding
from hub_model.cell_finding import find_cells
from hub_model.smear_gate import why_no_smear


def assert_found(picture, boxes):
    finds = [cell["box"] for cell in find_cells(picture)]
    found, false = measure_finding.match(boxes, finds)
    assert (found, false) == (list(range(len(boxes))), []), finds
    return finds


def test_each_cell_is_found_once_with_most_of_its_body():
    picture, boxes = draw_field()
    for find in assert_found(picture, boxes):
        assert max(measure_finding.overlap(find, box) for box in boxes) >= 0.5


def test_what_is_given_back():
    picture, _ = draw_field()
    cells = find_cells(Image.fromarray(picture))
    assert cells == find_cells(picture)
    assert json.loads(json.dumps(cells)) == cells
    assert [cell["box"] for cell in cells] == sorted(cell["box"] for cell in cells)
    for cell in cells:
        row_min, col_min, row_max, col_max = cell["box"]
        assert 0 <= row_min < row_max <= 480 and 0 <= col_min < col_max <= 640
        assert 0 < cell["find_score"] <= 1


@pytest.mark.parametrize("ground", [(240, 205, 210), (235, 230, 185), (205, 215, 225), (150, 140, 150)])
def test_ground_of_any_tint(ground):
    field, boxes = draw_field()
    tinted = field.astype(float) * np.array(ground) / (230, 225, 235)
    assert_found(np.clip(tinted, 0, 255).astype(np.uint8), boxes)


def test_vignette():
    field, boxes = draw_field()
    row, col = np.ogrid[-1:1:480j, -1:1:640j]
    assert_found((field * (1 - 0.25 * (row**2 + col**2))[..., None]).astype(np.uint8), boxes)


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (5120, 3840)])
def test_size_of_the_photo_does_not_matter(size):
    field, boxes = draw_field()
    factor = size[0] / 640
    finds = assert_found(Image.fromarray(field).resize(size, Image.Resampling.LANCZOS), np.array(boxes) * factor)
    for find, plain in zip(finds, [cell["box"] for cell in find_cells(field)], strict=True):
        assert np.abs(np.array(find) / factor - plain).max() <= 12  # px of 640


def test_a_large_field_of_many_cells():
    rng = np.random.default_rng(1)
    white = [(row, col) for row in range(100, 1900, 450) for col in range(100, 2500, 450)]
    white = [(int(row + rng.integers(-50, 50)), int(col + rng.integers(-50, 50))) for row, col in white]
    assert_found(*draw_field(2, white, (1920, 2560)))


def test_cells_at_the_edge():
    boxes = assert_found(*draw_field(3, [(10, 200), (240, 630), (470, 400)]))
    assert boxes[0][0] == 0 and any(box[3] == 640 for box in boxes) and any(box[2] == 480 for box in boxes)


def test_two_lymphocytes_that_touch_are_two():
    field, _ = draw_field(4, [])
    boxes = []
    for col in (250, 352):
        _disc(field, (col, 240), 54, CYTOPLASM["lymphocyte"])
        _disc(field, (col, 240), 49, (105, 60, 150))
        boxes.append((186, col - 54, 294, col + 54))
    assert_found(field, boxes)


@pytest.mark.parametrize(
    "turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_LEFT_RIGHT]
)
def test_a_field_has_no_up(turn):
    field, _ = draw_field()
    turned = Image.fromarray(field).transpose(turn)
    assert len(find_cells(turned)) == len(FIELD_CELLS)


def test_grey_fields_are_searched_by_darkness():
    field, boxes = draw_field()
    assert_found(ImageOps.grayscale(Image.fromarray(field)), boxes)


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_red_cells_alone_are_no_find(seed):
    assert find_cells(draw_field(seed, [])[0]) == []


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_pictures_are_no_find(level):
    assert find_cells(np.full((480, 640, 3), level, np.uint8)) == []
    noisy = np.random.default_rng(0).normal(level, 3, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    assert find_cells(noisy) == []


def strip(shape):
    """Pale ground with one nucleus in its middle."""
    field = np.full((*shape, 3), (225, 190, 200), np.uint8)
    rows, cols = np.indices(shape)
    field[np.hypot(rows - shape[0] // 2, cols - shape[1] // 2) < 12] = (90, 40, 140)
    return field


@pytest.mark.parametrize("shape", [(40, 600), (600, 40)])
def test_a_strip_is_searched_as_broad_as_it_is(shape):
    (cell,) = find_cells(strip(shape))
    row_min, col_min, row_max, col_max = cell["box"]
    assert 0 <= row_min < shape[0] // 2 < row_max <= shape[0] and 0 <= col_min < shape[1] // 2 < col_max <= shape[1]


@pytest.mark.parametrize("shape", [(32, 1900), (1900, 32), (32, 32)])
def test_a_strip_without_a_cell_gives_none(shape):
    assert find_cells(np.full((*shape, 3), (225, 190, 200), np.uint8)) == []


@pytest.mark.parametrize("shape", [(40, 8000), (8000, 40)])
def test_what_is_too_long_for_its_breadth_is_refused_and_no_smear(shape):
    with pytest.raises(ValueError, match="expected at most 60 times as long as broad. Crop it"):
        find_cells(strip(shape))
    assert why_no_smear(strip(shape)) == "no stained smear: it is more than 60 times as long as broad"


def test_errors_say_what_came():
    with pytest.raises(TypeError, match="float64; expected a PIL image or an array of uint8"):
        find_cells(np.zeros((480, 640, 3)))
    with pytest.raises(TypeError, match="The field is str"):
        find_cells("field.png")
    with pytest.raises(ValueError, match=r"shape \(480, 640\); expected \(height, width, 3\)"):
        find_cells(np.zeros((480, 640), np.uint8))
    with pytest.raises(ValueError, match="640 x 20 px; expected 32 or more each side"):
        find_cells(np.zeros((20, 640, 3), np.uint8))


def test_the_measuring_command_counts_what_was_drawn(tmp_path):
    folder = tmp_path / "drawn"
    folder.mkdir()
    rows = []
    for name, seed in (("a.png", 0), ("b.png", 1)):
        field, boxes = draw_field(seed)
        write_image(folder / name, field)
        rows += [(name, "wbc", box, "") for box in boxes]
    rows += [("a.png", "wbc", (400, 10, 440, 50), ""), ("b.png", "wbc", (400, 10, 420, 30), "")]  # nothing there
    rows += [("b.png", "rbc", (10, 10, 90, 90), "")]
    write_box_table(folder / "boxes.csv", rows)
    contested = tmp_path / "contested.csv"
    contested.write_text("lab,file,row_min,col_min,why\ndrawn,a.png,400,10,nothing there\n", encoding="utf-8")
    arguments = [str(folder), "--min_side", "10", "--contested", str(contested), "--out", str(tmp_path / "out.json")]
    measure_finding.main(arguments)
    results = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {"command", "commit", "dirty", "versions"} <= results.keys()
    results = results["fields"]
    assert (results["fields"], results["boxes"], results["found"], results["false"]) == (2, 7, 6, 0)
    assert (results["contested_boxes"], results["contested_found"]) == (1, 0)
    assert results["missed"] == [["b.png", [400, 10, 420, 30]]]
    assert (results["recall"]["value"], results["recall_with_contested"]["value"]) == (round(6 / 7, 4), 0.75)
    theirs = binomtest(6, 7).proportion_ci(0.95, "exact")
    assert (results["recall"]["low"], results["recall"]["high"]) == (round(theirs.low, 4), round(theirs.high, 4))


def test_fields_of_twenty_megapixels_are_measured(tmp_path):
    field, boxes = draw_field()
    write_image(tmp_path / "a.png", field)
    results = measure_finding.measure_large([tmp_path / "a.png"] * 40, [boxes] * 40)
    # 8 fields of 640 px stand in a row of 5,472 px
    assert (results["side_by_side"]["megapixels"], results["side_by_side"]["boxes"]) == (12.3, 120)
    assert (results["side_by_side"]["found"], results["side_by_side"]["false"]) == (120, 0)
    assert (results["enlarged"]["megapixels"], results["enlarged"]["finds"]) == (20.0, 3)


def test_contested_boxes_stand_in_the_tables(data_root):
    table = data_root / "raabin" / "boxes.csv"
    if not table.exists():
        pytest.skip(f"{table} is absent: it is no part of the project")
    from smears.laboratories import read_box_table

    given = {(file, row["box"][0], row["box"][1]) for file, rows in read_box_table(table).items() for row in rows}
    contested = measure_finding.read_contested("raabin", measure_finding.CONTESTED)
    assert contested and contested <= given


def test_bccd_boxes(data_root):
    """A twelfth of the photos that are no official test photos: the whole is measured by the command."""
    folder = data_root / "blood-cells"
    if not folder.exists():
        pytest.skip(f"{folder} is absent: it is no part of the project")
    files, boxes = measure_finding.read_fields(folder)
    tests = measure_finding.read_tests(REPOSITORY / "hub_dataset" / "photos.csv", [file.stem for file in files])
    places = [place for place in range(len(files)) if place not in tests and boxes[place]][::12]
    results = measure_finding.measure_fields(
        [files[place].name for place in places],
        [files[place] for place in places],
        [boxes[place] for place in places],
        measure_finding.read_contested("blood-cells", measure_finding.CONTESTED),
        1,
    )
    assert results["boxes"] > 20 and results["recall"]["value"] >= 0.95 and results["false_per_field"] <= 0.15
