"""Laboratories as one collection: drawn fields, single cells and archives whose cells, slides and boxes are known."""

import csv
import functools
import logging
from collections import Counter, defaultdict

import datasets
import numpy as np
import pytest
from PIL import Image
from smear_drawings import (
    ARCHIVE_PHOTOS,
    MARKERS,
    draw_disc,
    draw_smear,
    write_archive,
    write_box_table,
    write_class_folders,
    write_fields,
    write_image,
    write_photo_column,
    write_splits,
    write_table,
    write_voc,
)

from smears import laboratories, loading, photos
from smears.laboratories import (
    basophil_photos,
    cut_cells,
    divide,
    is_archive,
    load_laboratory,
    read_box_table,
    rename_classes,
)
from smears.loading import DataError, content_hash
from smears.photos import name_photos


@pytest.fixture(scope="module", autouse=True)
def one_reading_of_the_table():
    """Read the archive's table of photos once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "read_images", functools.cache(photos.read_images))
        yield


def rows_by_file(data):
    """Sort the rows of a data set by file."""
    found = defaultdict(list)
    for row in data:
        found[row["file"]].append(row)
    return found


def names(data):
    return [data.features["label"].names[label] for label in data["label"]]


@pytest.fixture
def same_cells(tmp_path, monkeypatch):
    """Write which images show the same cells, in place of the table that ships."""
    path = tmp_path / "same_cells.csv"
    monkeypatch.setattr(laboratories.read_same_cells, "__defaults__", (path,))

    def write(*groups):
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["lab", "sha256", "group"])
            for group in groups:
                writer.writerows(["lab", content_hash(file.read_bytes()), group[0].name] for file in group)

    write()
    return write


# Fields


def test_each_cell_of_a_field_is_a_row_with_the_subtype_of_its_box(tmp_path):
    truth = write_fields(tmp_path / "bangkok", ("lymphocyte", "monocyte", "neutrophil"), each=2)
    data = load_laboratory(tmp_path / "bangkok")["train"]
    found = rows_by_file(data)
    assert len(data) == 12 and found.keys() == truth.keys()
    for file, rows in found.items():
        shown = [(data.features["label"].names[row["label"]], row["boxes"]) for row in rows]
        assert shown == [(label, [box]) for label, box in truth[file]]  # not the folder's
        for row in rows:
            assert row["cells"] == [box for _, box in truth[file]]
            assert row["others"] == [[28, 148, 52, 172]]  # the red cell
            assert not row["whole"] and row["lab"] == "bangkok"
            label, number = file.removesuffix(".png").split("/")
            assert row["slide"] == row["group"] == f"slide {label} {number}"


def test_boxes_of_a_few_pixels_are_slips_and_a_field_without_a_box_is_left_out(tmp_path, caplog):
    truth = write_fields(tmp_path / "lab", each=2)
    (first, (large, (other, box))), (second, _) = list(truth.items())[:2]
    rows = [(file, label, box, "s") for file, cells in truth.items() for label, box in cells if file != second]
    rows[1] = (first, other, [box[0], box[1], box[0] + 44, box[1] + 29], "s")  # 29 px wide
    write_box_table(tmp_path / "lab" / "boxes.csv", rows)
    with caplog.at_level(logging.WARNING):
        data = load_laboratory(tmp_path / "lab")["train"]
    found = rows_by_file(data)
    assert second not in found and len(data) == 5
    assert [row["boxes"] for row in found[first]] == [[large[1]]] == [row["cells"] for row in found[first]]
    assert "lab: box too small, 1 left out" in caplog.text and "lab: field without a box, 1 left out" in caplog.text


def test_a_white_cell_without_a_subtype_has_its_folders(tmp_path):
    truth = write_fields(tmp_path / "lab", each=2)
    rows = [
        (file, label if place else "WBC", box, "s")
        for file, cells in truth.items()
        for place, (label, box) in enumerate(cells)
    ]
    write_box_table(tmp_path / "lab" / "boxes.csv", rows)
    data = load_laboratory(tmp_path / "lab")["train"]
    assert sorted(names(data)) == sorted(label for cells in truth.values() for label, _ in cells)
    for file, found in rows_by_file(data).items():
        assert [row["boxes"] for row in found] == [[box] for _, box in truth[file]]


# Images of one cell each


def test_an_image_with_boxes_of_white_cells_stays_one_row(tmp_path, caplog):
    root = write_class_folders(tmp_path / "tehran", 2, ("Lymphocyte", "Monocyte"), size=(96, 72))
    table = [
        ("Lymphocyte/00.png", "WBC", [5, 6, 45, 48], "monday"),
        ("Lymphocyte/00.png", "wbc", [20, 50, 60, 90], "monday"),
        ("Lymphocyte/00.png", "RBC", [0, 0, 20, 21], "monday"),
        ("Monocyte/01.png", "WBC", [10.4, 9.6, 50.2, 49.9], "unknown"),
        ("Monocyte/01.png", "Platelets", [60, 60, 70, 70], "unknown"),
    ]
    write_box_table(root / "boxes.csv", table)
    with caplog.at_level(logging.INFO):
        data = load_laboratory(root)["train"]
    assert data["file"] == ["Lymphocyte/00.png", "Lymphocyte/01.png", "Monocyte/00.png", "Monocyte/01.png"]
    assert all(data["whole"]) and names(data) == ["lymphocyte"] * 2 + ["monocyte"] * 2
    two = [[5, 6, 45, 48], [20, 50, 60, 90]]
    assert data["boxes"][:] == data["cells"][:] == [two, [], [], [[10, 10, 50, 50]]]
    assert data["others"][:] == [[[0, 0, 20, 21]], [], [], [[60, 60, 70, 70]]]
    assert data["slide"] == ["monday", "", "", ""]
    assert data["group"] == ["monday", *data["sha256"][1:]]  # an unknown slide is none
    assert "boxes of platelets, rbc count as no white cell" in caplog.text


def test_without_a_table_every_image_is_whole_and_a_group_of_its_own(tmp_path):
    data = load_laboratory(write_class_folders(tmp_path / "lab", 3))["train"]
    assert len(data) == 12 and all(data["whole"]) and set(data["slide"]) == {""}
    assert all(data[name][:] == [[]] * 12 for name in ("boxes", "cells", "others"))
    assert data["group"] == data["photo"] == data["sha256"] and len(set(data["group"])) == 12


def test_equally_named_images_of_two_splits_and_of_two_slides_keep_their_own_boxes(tmp_path):
    root = write_splits(tmp_path / "lab", {"train": 2, "test": 1}, ("Lymphocyte", "Monocyte"), size=(96, 72))
    write_box_table(root / "train" / "boxes.csv", [("Lymphocyte/00.png", "WBC", [0, 0, 40, 40], "a")])
    write_box_table(root / "boxes.csv", [("test/Lymphocyte/00.png", "WBC", [9, 9, 49, 49], "b")])
    splits = load_laboratory(root)
    for split, box in (("train", [0, 0, 40, 40]), ("test", [9, 9, 49, 49])):
        boxes = dict(zip(splits[split]["file"], splits[split]["boxes"], strict=True))
        assert boxes.pop(f"{split}/Lymphocyte/00.png") == [box] and not any(boxes.values())

    own, table = write_class_folders(tmp_path / "own", 1, ("lymphocyte", "monocyte")), []
    for number, label in enumerate(("lymphocyte", "monocyte"), start=5):
        write_image(own / label / "slide-1" / "0.png", draw_smear(label, number)[0])
        table.append((f"{label}/slide-1/0.png", "WBC", [0, 0, 40, 40 + number], ""))
    write_box_table(own / "boxes.csv", table)
    data = load_laboratory(own)["train"]
    assert names(data) == ["lymphocyte"] * 2 + ["monocyte"] * 2
    assert data["boxes"][:] == [[], [[0, 0, 40, 45]], [], [[0, 0, 40, 46]]]


# Which images belong together


def test_slides_same_cells_and_photos_tie_images_also_in_chains(tmp_path, same_cells):
    root = write_class_folders(tmp_path / "lab", 7, ("monocyte",), size=(96, 72))
    files = [root / "monocyte" / f"0{number}.png" for number in range(7)]
    slides = ("s1", "s1", "s2", "", "", "", "s3")
    table = [(f"monocyte/0{number}.png", "WBC", [0, 0, 40, 40], slide) for number, slide in enumerate(slides)]
    write_box_table(root / "boxes.csv", table)
    same_cells([files[1], files[2]], [files[4], files[5]])
    write_photo_column(root, {"monocyte/03.png": "a photo", "monocyte/02.png": "a photo"})
    data = load_laboratory(root)["train"]
    # 0 and 1 by their slide, 1 and 2 by their cells, 2 and 3 by their photo; 4 and 5 by their cells; 6 alone.
    groups = data["group"][:]
    assert groups[:4] == ["s1"] * 4 and groups[4] == groups[5] and groups[6] == "s3"
    assert len(set(groups)) == 3


def test_the_groups_do_not_hang_on_the_order_of_the_ties():
    rng = np.random.default_rng(0)
    for _ in range(20):
        columns = [[str(value) if value else "" for value in rng.integers(0, 12, 30)] for _ in range(2)]
        columns.append([f"photo {number}" for number in range(30)])
        found = laboratories._tie(*columns)
        # Against the closure of the relation, by squaring its matrix.
        tied = np.eye(30, dtype=bool)
        for column in columns:
            tied |= np.array([[bool(one) and one == two for two in column] for one in column])
        for _ in range(6):
            tied = tied @ tied
        np.testing.assert_array_equal(tied, [[one == two for two in found] for one in found])


# Tables that do not fit


def test_a_table_without_a_column_is_refused_by_name(tmp_path):
    (tmp_path / "boxes.csv").write_text("file,label,xmin,ymin,xmax\n")
    with pytest.raises(DataError, match=r"boxes\.csv has the columns .*, without \['ymax'\]\. Expected \['file'"):
        read_box_table(tmp_path / "boxes.csv")


@pytest.mark.parametrize(
    "row",
    ["9,1,4,5", "1,9,4,5", "1,1,1,5", "one,1,4,5", "1,1,4", "1,1,4,", "nan,1,4,5", "1,1,inf,5", "-3,1,4,5"],
    ids=["left of left", "above above", "no width", "text", "short", "empty", "nan", "inf", "below 0"],
)
def test_a_row_that_is_no_box_is_refused_with_its_line(tmp_path, row):
    text = f"file,label,xmin,ymin,xmax,ymax\na/0.png,WBC,1,1,4,5\na/1.png,WBC,{row}\n"
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(
        DataError, match=r"boxes\.csv, line 3: .*1\.png.* is no box; expected numbers from 0 on with xmin"
    ):
        read_box_table(tmp_path / "boxes.csv")


def test_a_table_is_read_as_spreadsheets_save_it(tmp_path):
    (tmp_path / "boxes.csv").write_bytes(
        b"\xef\xbb\xbffile,label,xmin,ymin,xmax,ymax,remark\r\na/0.png,Neutrophil,1.4,2.6,30,40,?\r\n"
    )
    assert read_box_table(tmp_path / "boxes.csv") == {
        "a/0.png": [{"label": "neutrophil", "box": [3, 1, 40, 30], "slide": ""}]
    }


def test_a_table_that_names_a_file_that_is_not_there_is_refused(tmp_path):
    root = write_class_folders(tmp_path / "lab", 1)
    write_box_table(
        root / "boxes.csv", [("monocyte/77.png", "WBC", [0, 0, 9, 9]), ("x/y.png", "WBC", [0, 0, 9, 9])], False
    )
    with pytest.raises(
        DataError,
        match=r"lab: boxes\.csv names 'monocyte/77\.png' \(and 1 more\), which is not there\. Write names as CLASS",
    ):
        load_laboratory(root)


def test_boxes_of_the_image_before_it_was_resized_are_refused(tmp_path):
    root = write_class_folders(tmp_path / "lab", 1, size=(96, 72))
    write_box_table(root / "boxes.csv", [("monocyte/00.png", "WBC", [10, 10, 73, 97], "")])  # counted from 1
    assert load_laboratory(root)["train"]["boxes"][2] == [[10, 10, 73, 97]]
    write_box_table(root / "boxes.csv", [("monocyte/00.png", "WBC", [10, 10, 74, 90], "")])
    with pytest.raises(
        DataError, match=r"monocyte/00\.png is 96 x 72 px and boxes\.csv has the box \[10, 10, 74, 90\].*resized needs"
    ):
        load_laboratory(root)


def test_a_laboratory_without_images_to_learn_from_is_refused(tmp_path):
    write_splits(tmp_path / "lab", {"test": 2})
    with pytest.raises(
        DataError, match=r"lab has the splits \['test'\] and no 'train' to learn from\. Add one, or name"
    ):
        load_laboratory(tmp_path / "lab")


# The archive


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A drawn archive of 16 photos, one of two basophils more, and its photos; its table of photos is the one that is read."""
    drawn = write_archive(tmp_path / "blood-cells", train=3, test=1, copies=2)
    monkeypatch.setattr(name_photos, "__defaults__", (write_table(tmp_path / "images.csv", drawn, groups={4: 0}),))
    folder = tmp_path / "blood-cells" / ARCHIVE_PHOTOS
    for number in (90, 91):
        write_image(folder / "JPEGImages" / f"BloodImage_{number:05d}.jpg", draw_smear("monocyte", number)[0])
    write_voc(folder / "Annotations" / "BloodImage_00090.xml", [("WBC", [9, 8, 60, 50]), ("Platelets", [1, 2, 8, 9])])
    with (folder / "labels.csv").open("a", newline="") as stream:
        csv.writer(stream).writerows([("", 90, "BASOPHIL"), ("", 91, "BASOPHIL"), ("", 92, "BASOPHIL, NEUTROPHIL")])
    return tmp_path / "blood-cells", drawn


def test_of_the_archive_the_photos_are_learnt_and_the_copies_tested(archive):
    root, drawn = archive
    splits = load_laboratory(root)
    assert {split: len(data) for split, data in splits.items()} == {"train": 12, "test": 8, "test_simple": 4}
    known = {photo.path.name: photo for photo in drawn}
    for row in splits["train"]:
        photo = known[row["file"]]
        assert row["boxes"] == row["cells"] == [photo.box] and row["others"] == [[0, 0, 9, 8]]
        assert row["photo"] == photo.name and row["whole"] and row["lab"] == "blood-cells" and row["slide"] == ""
        assert row["group"] == ("BloodImage_00000" if photo.number == 4 else photo.name)
    assert is_archive(splits["train"]) and all("JPEGImages" not in file for file in splits["test"]["file"])
    assert splits["train"].features == splits["test"].features == splits["test_simple"].features


def test_the_archives_basophils_join_the_others(archive):
    root, _ = archive
    train = rename_classes(load_laboratory(root)["train"], ["basophil", *sorted(MARKERS)])
    found = basophil_photos(root, train)
    assert found["photo"] == ["BloodImage_00090", "BloodImage_00091"] and names(found) == ["basophil"] * 2
    assert found["boxes"][:] == found["cells"][:] == [[[9, 8, 60, 50]], []]
    assert found["others"][:] == [[[1, 2, 8, 9]], []]
    both = datasets.concatenate_datasets([train, found])
    assert len(both) == 14 and set(both["lab"]) == {"blood-cells"} and both["group"][12:] == found["photo"][:]
    assert both[12]["sha256"] == content_hash((root / ARCHIVE_PHOTOS / "JPEGImages" / found["file"][0]).read_bytes())


def test_an_archive_without_basophils_adds_none(tmp_path):
    write_archive(tmp_path)
    train = rename_classes(load_laboratory(tmp_path)["train"], ["basophil", *sorted(MARKERS)])
    found = basophil_photos(tmp_path, train)
    assert len(found) == 0 and found.features == train.features
    assert len(datasets.concatenate_datasets([train, found])) == len(train) > 0


def test_basophils_without_a_class_are_refused(archive):
    root, _ = archive
    with pytest.raises(DataError, match="without 'basophil'; nothing says what these photos show"):
        basophil_photos(root, load_laboratory(root)["train"])


def test_cells_of_ones_own_are_no_archive(tmp_path):
    assert not is_archive(load_laboratory(write_class_folders(tmp_path / "lab", 2))["train"])


# Common names


def test_classes_are_numbered_as_asked_after_the_map(tmp_path):
    data = load_laboratory(write_class_folders(tmp_path / "lab", 2))["train"]
    labels = ["other", "neutrophil", "basophil", "lymphocyte"]
    found = rename_classes(data, labels, {"eosinophil": "other", "monocyte": "other", "platelet": "other"})
    assert found.features["label"].names == labels  # a class without images stays
    folder = [file.split("/")[0] for file in found["file"]]
    expected = {"eosinophil": 0, "monocyte": 0, "neutrophil": 1, "lymphocyte": 3}
    assert found["label"] == [expected[name] for name in folder]
    assert found["sha256"] == data["sha256"]


def test_a_class_that_has_no_place_is_refused_by_name(tmp_path):
    data = load_laboratory(write_class_folders(tmp_path / "lab", 2))["train"]
    with pytest.raises(
        DataError,
        match=r"The class 'eosinophil' of lab is not among \['monocyte', 'neutrophil'\]\. .* \(eosinophil=CLASS\)",
    ):
        rename_classes(data, ["monocyte", "neutrophil"], {"lymphocyte": "neutrophil"})


# Holding out


@pytest.mark.parametrize("seed", range(4))
def test_slides_stay_whole_and_every_row_stands_somewhere_once(tmp_path, seed):
    write_fields(tmp_path / "lab", ("lymphocyte", "monocyte", "neutrophil"), each=6)
    splits = load_laboratory(tmp_path / "lab")
    divided = divide(splits, validation_share=0.25, test_share=0.25, seed=seed)
    assert set(divided) == {"train", "validation", "test"}
    slides = {name: set(data["slide"]) for name, data in divided.items()}
    assert not (slides["train"] & slides["validation"] or slides["train"] & slides["test"])
    assert not slides["validation"] & slides["test"]
    rows = [(row["file"], tuple(row["boxes"][0])) for data in divided.values() for row in data]
    expected = [(row["file"], tuple(row["boxes"][0])) for row in splits["train"]]
    assert sorted(rows) == sorted(expected) and len(set(rows)) == 36
    assert all(3 <= len(slides[name]) <= 6 for name in ("validation", "test"))  # 4.5 of 18 are asked for
    assert all(set(data["label"]) == {0, 1, 2} for data in divided.values())


def test_what_a_laboratory_brings_is_kept(tmp_path):
    splits = load_laboratory(write_splits(tmp_path / "lab", {"train": 3, "validation": 2, "test": 1}))
    divided = divide(splits)
    assert all(divided[name]["file"] == splits[name]["file"] for name in ("train", "validation", "test"))
    with pytest.raises(DataError, match="lab has test images of its own; leave out its share to test on"):
        divide(splits, test_share=0.2)


def test_what_cannot_be_held_out_names_the_laboratory(tmp_path):
    root = write_class_folders(tmp_path / "here", 3)
    with pytest.raises(DataError, match=r"^here: The share to hold out is 0\.7"):
        divide(load_laboratory(root), test_share=0.7)
    (root / "monocyte" / "02.png").unlink()
    with pytest.raises(DataError, match=r"^here: The class 'monocyte' has 1 photo\(s\)"):
        divide(load_laboratory(root), test_share=0.3)  # two give one to test, and one is left to validate


# Cutting out


def test_a_cut_shows_its_own_cell_in_the_middle_at_twice_its_box(tmp_path):
    truth = write_fields(tmp_path / "lab", ("eosinophil", "lymphocyte", "monocyte"), each=2)
    data = load_laboratory(tmp_path / "lab")["train"]
    cut = cut_cells(data)
    assert len(cut) == len(data) == 12 and cut.features == data.features
    for row, name in zip(cut, names(data), strict=True):
        image = datasets.Image().decode_example(row["image"])
        assert image.size == (88, 88) and image.mode == "RGB"
        (box,) = row["boxes"]
        assert box in [box for label, box in truth[row["file"]] if label == name]
        cell = (np.abs(np.asarray(image).astype(int) - MARKERS[name]).max(axis=2) <= 1).nonzero()
        np.testing.assert_allclose([places.mean() for places in cell], 44, atol=0.6)
        assert all(43 <= np.ptp(places) <= 45 for places in cell)
    wider = datasets.Image().decode_example(cut_cells(data, window=1.0)[0]["image"])
    assert wider.size == (44, 44)


def test_what_lies_beyond_the_edge_of_the_field_is_black(tmp_path):
    write_image(tmp_path / "lab" / "monocyte" / "0.png", draw_disc((200, 150), (30, 25), 20, MARKERS["monocyte"]))
    write_box_table(tmp_path / "lab" / "boxes.csv", [("monocyte/0.png", "monocyte", [5, 10, 45, 50], "")])
    image = np.asarray(
        datasets.Image().decode_example(cut_cells(load_laboratory(tmp_path / "lab")["train"])[0]["image"])
    )
    assert image.shape == (80, 80, 3)
    assert not image[:15].any() and not image[:, :10].any() and (image[15:, 10:] > 0).all()
    np.testing.assert_array_equal(image[40, 40], MARKERS["monocyte"])


def test_a_field_that_a_camera_stored_turned_is_cut_upright(tmp_path):
    upright = draw_disc((200, 150), (150, 40), 20, MARKERS["monocyte"])
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to show
    write_image(tmp_path / "lab" / "monocyte" / "0.png", np.ascontiguousarray(np.rot90(upright)), exif=exif)
    write_box_table(tmp_path / "lab" / "boxes.csv", [("monocyte/0.png", "monocyte", [20, 130, 60, 170], "")])
    image = np.asarray(
        datasets.Image().decode_example(cut_cells(load_laboratory(tmp_path / "lab")["train"])[0]["image"])
    )
    np.testing.assert_array_equal(image, upright[0:80, 110:190])


def test_images_of_one_cell_stay_as_they_are(tmp_path):
    data = load_laboratory(write_class_folders(tmp_path / "lab", 2))["train"]
    assert cut_cells(data)["image"][:] == data["image"][:]
    write_fields(tmp_path / "fields", sorted(MARKERS), each=1)
    fields = load_laboratory(tmp_path / "fields")["train"]
    cut = cut_cells(datasets.concatenate_datasets([data, fields]))
    assert cut["image"][: len(data)] == data["image"][:]
    assert all(value["bytes"] for value in cut["image"][len(data) :])


# The real ones


@pytest.fixture(scope="module")
def load_real(data_root):
    """Load a real laboratory; without decoding each file to its last pixel, which is not what is looked at."""

    def load(lab):
        if not (data_root / lab).is_dir():
            pytest.skip(f"the images of {lab} are absent: put them at {data_root / lab}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loading, "check_image", lambda name, data: None)
            return load_laboratory(data_root / lab)["train"]

    return load


@pytest.fixture(scope="module")
def chula(load_real):
    return load_real("chula")


def test_the_fields_of_chula_give_their_boxes_but_one_slip(chula, data_root):
    with (data_root / "chula" / "boxes.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 511
    large = [
        (row["file"], row["label"])
        for row in table
        if min(float(row[f"{axis}max"]) - float(row[f"{axis}min"]) for axis in "xy") >= 30
    ]
    assert len(chula) == len(large) >= 505 and not any(chula["whole"])
    assert Counter(zip(chula["file"], names(chula), strict=True)) == Counter(large)
    folders = [file.split("/")[0] for file in chula["file"]]
    assert 15 <= sum(one != two for one, two in zip(folders, names(chula), strict=True)) <= 19
    fields = {file: folder for file, folder in zip(chula["file"], folders, strict=True)}
    assert Counter(fields.values())["monocyte"] == 100 - 12  # those without a box are left out
    assert all(slide and slide == group for slide, group in zip(chula["slide"], chula["group"], strict=True))


def test_no_slide_of_chula_stands_on_both_sides_and_every_class_on_each(chula):
    for seed in range(8):
        divided = divide(datasets.DatasetDict(train=chula), seed=seed)
        assert set(divided["train"]["slide"]).isdisjoint(divided["validation"]["slide"])
        assert len(divided["train"]) + len(divided["validation"]) == len(chula)
        assert all(set(data["label"]) == set(range(5)) for data in divided.values())


def test_cuts_of_chula_have_the_cell_in_them(chula):
    """A stained nucleus is darker than the rest of the field: the middle of a cut is darker than its edge."""
    cut = cut_cells(chula.select(range(0, len(chula), 16)))
    darker = []
    for row in cut:
        grey = np.asarray(datasets.Image().decode_example(row["image"]).convert("L")).astype(float)
        third = len(grey) // 3
        middle = grey[third:-third, third:-third].mean()
        shown = grey[grey > 0]
        darker.append(middle < shown.mean() - 5)
    assert np.mean(darker) > 0.9


def test_raabin_is_500_images_whose_same_cells_stay_together(load_real):
    data = load_real("raabin")
    assert Counter(names(data)) == dict.fromkeys(
        ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"), 100
    )
    assert all(data["whole"])
    white = [len(boxes) for boxes in data["cells"]]
    assert 4 <= white.count(0) <= 12 and 20 <= sum(count > 1 for count in white) <= 30  # about 8, about 25
    assert all(slide == "" for slide, name in zip(data["slide"], names(data), strict=True) if name == "neutrophil")
    group_of = dict(zip(data["sha256"], data["group"], strict=True))
    slides, cells = defaultdict(set), defaultdict(set)
    known = laboratories.read_same_cells()
    for digest, slide in zip(data["sha256"], data["slide"], strict=True):
        slides[slide].add(group_of[digest])
        cells[known.get(digest, digest)].add(group_of[digest])
    slides.pop("")
    assert all(len(groups) == 1 for groups in (*slides.values(), *cells.values()))
    assert len([digest for digest in group_of if digest in known]) == 32
    for seed in range(8):
        divided = divide(datasets.DatasetDict(train=data), seed=seed)
        assert all(set(part["label"]) == set(range(5)) for part in divided.values())
