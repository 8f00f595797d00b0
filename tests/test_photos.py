"""The photos behind the copies, on a drawn archive whose truth is known, and on the real one."""

import csv
import logging
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image
from smear_drawings import (
    ARCHIVE_IMAGES,
    ARCHIVE_PHOTOS,
    LABELS,
    draw_smear,
    real_archive,
    write_archive,
    write_image,
    write_photo_column,
    write_splits,
    write_table,
    write_voc,
)

from smears.loading import DataError, load_folder
from smears.photos import (
    boxes_on_copies,
    carry_box,
    find_photo_folder,
    name_photos,
    photos_at_hand,
    photos_behind,
    read_boxes,
)


@pytest.fixture
def archive(tmp_path):
    """A drawn archive, its photos, and its table of copies in which photo 4 shows the cells of photo 0."""
    root = tmp_path / "blood-cells"
    photos = write_archive(root, train=3, test=1, copies=2, size=(32, 24))
    return root, photos, write_table(tmp_path / "table.csv", photos, groups={4: 0})


def edit_table(table, change):
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(row for number, row in enumerate(rows) if change(number, row) is not False)


# Which photo a copy shows


def test_each_copy_is_traced_by_its_content_and_not_by_its_name(archive):
    root, photos, table = archive
    truth = {}
    for photo in photos:
        for number, (split, path) in enumerate(photo.copies):
            renamed = path.rename(path.with_name(f"_{31 * photo.number % 16}_{number}{split}.jpeg"))
            truth[renamed.relative_to(root).as_posix()] = photo
    splits = name_photos(load_folder(root), table)
    found = {row["file"]: row for data in splits.values() for row in data}
    assert set(found) == set(truth)
    for file, row in found.items():
        assert row["photo"] == f"BloodImage_{truth[file].number:05d}"
        assert row["group"] == f"BloodImage_{0 if truth[file].number == 4 else truth[file].number:05d}"


def test_labels_images_and_order_stay(archive):
    root, _, table = archive
    before = load_folder(root)
    after = name_photos(before, table)
    for split in before:
        for column in ("image", "label", "file", "sha256"):
            assert after[split][column][:] == before[split][column][:]
        flagless = {name: feature for name, feature in after[split].features.items() if name != "flags"}
        assert flagless == before[split].features


def test_images_that_the_table_does_not_know_keep_what_they_have_and_are_counted(archive, caplog):
    root, photos, table = archive
    edit_table(table, lambda number, row: row.update(photo="", group="") if row["photo"] == "1" else None)
    write_image(root / ARCHIVE_IMAGES / "TRAIN" / "MONOCYTE" / "own.jpeg", draw_smear("monocyte", 99)[0])
    before = load_folder(root)
    with caplog.at_level(logging.INFO, "smears.photos"):
        splits = name_photos(before, table)
    assert "train: 22 of 25 images traced to their photo" in caplog.text  # the own one, and two copies of photo 1
    assert "test: 8 of 8 images traced to their photo" in caplog.text
    kept = [row for row in splits["train"] if not row["photo"].startswith("BloodImage_")]
    assert len(kept) == 3
    for row in kept:
        assert row["photo"] == row["group"] == row["sha256"]


def test_flags_come_as_a_list_for_each_image(archive):
    root, photos, table = archive
    edit_table(table, lambda number, row: row.update(flags="no cell;leak") if row["photo"] == "12" else None)
    for data in name_photos(load_folder(root), table).values():
        for row in data:
            assert row["flags"] == (["no cell", "leak"] if row["photo"] == "BloodImage_00012" else [])


def test_images_that_are_not_the_archives_come_back_with_no_flag_and_otherwise_unchanged(tmp_path, archive, caplog):
    splits = load_folder(write_splits(tmp_path / "own", {"train": 2, "test": 1}, size=(40, 30)))
    with caplog.at_level(logging.INFO, "smears.photos"):
        named = name_photos(splits, archive[2])
    for name, data in splits.items():
        assert named[name].remove_columns("flags").to_dict() == data.to_dict()
        assert not any(named[name]["flags"])
    assert not caplog.records


# The photos themselves


def test_one_row_a_photo_with_its_label_its_group_and_the_boxes_of_its_white_cells(archive):
    root, photos, table = archive
    write_voc(
        root / ARCHIVE_PHOTOS / "Annotations" / "BloodImage_00002.xml",
        [("WBC", [1, 2, 11, 16]), ("Platelets", [0, 0, 3, 3]), ("WBC", [12, 5, 20, 30]), ("RBC", [4, 4, 9, 9])],
    )
    (root / ARCHIVE_PHOTOS / "Annotations" / "BloodImage_00003.xml").unlink()
    copies = name_photos(load_folder(root), table)["train"]
    rows = {row["photo"]: row for row in photos_behind(copies, root)}
    train = [photo for photo in photos if photo.copies[0][0] == "TRAIN"]
    assert set(rows) == {photo.name for photo in train} and len(rows) == 12
    for photo in train:
        row = rows[photo.name]
        assert LABELS[row["label"]] == photo.label
        assert row["group"] == ("BloodImage_00000" if photo.number == 4 else photo.name)
        assert row["image"]["path"] == str(photo.path) and row["file"] == photo.path.name
        expected = {2: [[1, 2, 11, 16], [12, 5, 20, 30]], 3: []}.get(photo.number, [photo.box])
        assert row["boxes"] == expected


def test_a_box_lies_over_the_drawn_cell(archive):
    root, photos, table = archive
    for row in photos_behind(name_photos(load_folder(root), table)["test"], root):
        row_min, col_min, row_max, col_max = row["boxes"][0]
        image = np.asarray(Image.open(row["image"]["path"]), float)
        nucleus = image[:, :, 1] < 110  # nothing else in a drawing is that dark
        inside = nucleus[row_min : row_max + 1, col_min : col_max + 1].sum()
        assert nucleus.sum() > 10 and inside == nucleus.sum()


@pytest.mark.parametrize("level", [".", "dataset2-master", "dataset2-master/dataset2-master", str(ARCHIVE_IMAGES)])
def test_the_photos_are_found_from_each_level_that_the_images_are_found_from(archive, level):
    assert find_photo_folder(archive[0] / level).samefile(archive[0] / ARCHIVE_PHOTOS)


def test_photos_that_a_user_names_in_metadata_need_no_table(archive):
    root, photos, _ = archive
    split_dir = root / ARCHIVE_IMAGES / "TRAIN"
    photo_of = {
        path.relative_to(split_dir).as_posix(): photo.name
        for photo in photos
        for split, path in photo.copies
        if split == "TRAIN"
    }
    write_photo_column(split_dir, photo_of)
    rows = photos_behind(load_folder(root)["train"], root)
    assert rows["photo"][:] == sorted(photo.name for photo in photos if photo.copies[0][0] == "TRAIN")


def test_copies_of_one_photo_with_two_labels_are_refused(archive):
    root, _, table = archive
    splits = load_folder(root)
    edit_table(table, lambda number, row: row.update(photo="1") if row["photo"] == "0" else None)
    with pytest.raises(
        DataError, match=r"\(lymphocyte\) and .*\(eosinophil\) are copies of one photo, BloodImage_00001"
    ):
        photos_behind(name_photos(splits, table)["train"], root)


def test_a_missing_photo_is_named_with_a_copy_of_it(archive):
    root, photos, table = archive
    copies = name_photos(load_folder(root), table)["train"]
    photos[5].path.unlink()
    with pytest.raises(
        DataError, match=r"BloodImage_00005\.jpg, the photo behind .*LYMPHOCYTE/.*, is missing\. Unpack"
    ):
        photos_behind(copies, root)


def test_a_damaged_photo_is_named(archive):
    root, photos, table = archive
    copies = name_photos(load_folder(root), table)["train"]
    photos[5].path.write_bytes(photos[5].path.read_bytes()[:400])
    with pytest.raises(DataError, match=r"BloodImage_00005\.jpg cannot be read as an image"):
        photos_behind(copies, root)


def test_a_copy_that_is_not_traced_is_named_and_refused(archive):
    root, _, table = archive
    edit_table(table, lambda number, row: row["photo"] != "1")
    copies = name_photos(load_folder(root), table)["train"]
    lost = sorted(file for file, photo in zip(copies["file"], copies["photo"], strict=True) if photo[:5] != "Blood")
    assert len(lost) == 2
    with pytest.raises(DataError, match=rf"{lost[0]} \(and 1 more\) is no copy .*--train_on images"):
        photos_behind(copies, root)
    assert not photos_at_hand(copies, root)


def test_copies_of_which_none_is_traced_are_refused(archive):
    root, _, _ = archive
    with pytest.raises(DataError, match="None of the 24 copies is traced to a photo.*--train_on images"):
        photos_behind(load_folder(root)["train"], root)


def test_images_without_an_archive_are_pointed_to_training_on_images(tmp_path):
    root = write_splits(tmp_path / "own", {"train": 1})
    with pytest.raises(
        DataError, match=r"No dataset-master/dataset-master/JPEGImages in .*own or above it\. .*--train_on images"
    ):
        photos_behind(load_folder(root)["train"], root)


def test_boxes_come_with_rows_first(tmp_path):
    write_voc(tmp_path / "Annotations" / "BloodImage_00009.xml", [("WBC", [10, 200, 50, 260]), ("RBC", [1, 2, 3, 4])])
    assert read_boxes(tmp_path, "BloodImage_00009") == [[10, 200, 50, 260]]  # ymin, xmin, ymax, xmax
    assert read_boxes(tmp_path, "BloodImage_00009", "RBC") == [[1, 2, 3, 4]]
    assert read_boxes(tmp_path, "BloodImage_00010") == []


# Boxes on the copies


@pytest.mark.parametrize("degrees", [0, 17, 90, 133])
@pytest.mark.parametrize("mirror", [1, -1])
def test_a_carried_box_holds_the_ellipse_that_it_was_drawn_about(degrees, mirror):
    turn = np.deg2rad(degrees)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * (mirror, 1)
    centre = np.array([150.0, 110.0])  # x, y at a width of 320
    matrix = np.column_stack([linear, centre - linear @ centre + (12, -7)])
    box = [2 * (110 - 20), 2 * (150 - 30), 2 * (110 + 20), 2 * (150 + 30)]  # in the photo, twice as large
    angles = np.linspace(0, 2 * np.pi, 3600)
    outline = centre + np.stack([30 * np.cos(angles), 20 * np.sin(angles)], axis=1)
    seen = outline @ matrix[:, :2].T + matrix[:, 2]
    expected = [*seen.min(axis=0)[::-1], *seen.max(axis=0)[::-1]]
    assert carry_box(box, matrix) == pytest.approx(expected, abs=0.51)


def test_a_carried_box_ends_at_the_edge_and_is_gone_with_the_cell():
    box = [100, 100, 140, 140]  # 50 to 70 px at a width of 320
    assert carry_box(box, np.array([[1, 0, -60.0], [0, 1, 0]])) == [50, 0, 70, 10]
    assert carry_box(box, np.array([[1, 0, -65.0], [0, 1, 0]])) is None  # a quarter is left
    assert carry_box(box, np.array([[1, 0, 0], [0, 1, 300.0]])) is None


def test_a_copy_that_the_table_does_not_know_gets_no_box(archive):
    root, _, table = archive
    copies = name_photos(load_folder(root), table)["train"]
    edit_table(table, lambda number, row: number > 0)
    boxes = boxes_on_copies(copies, root, table)["boxes"]
    assert sum(not found for found in boxes) == 1 and len(boxes) == len(copies)


# The real archive


@pytest.fixture(scope="module")
def real_splits(data_root):
    return name_photos(real_archive(data_root / "blood-cells"))


def test_the_real_training_copies_show_277_photos(real_splits, data_root):
    train = photos_behind(real_splits["train"], data_root / "blood-cells")
    assert len(train) == 277 and set(train["photo"]) == set(real_splits["train"]["photo"])
    counts = Counter(LABELS[number] for number in train["label"])
    assert counts == {"neutrophil": 159, "eosinophil": 75, "lymphocyte": 27, "monocyte": 16}
    for row in train:
        for row_min, col_min, row_max, col_max in row["boxes"]:
            assert 0 <= row_min < row_max <= 480 and 0 <= col_min < col_max <= 640  # photos are 640x480
    assert sum(map(bool, train["boxes"])) > 260


def test_the_real_photos_are_those_of_the_archives_own_shuffle_and_labels(real_splits, data_root):
    # The archive was made from the single-label rows of labels.csv, shuffled by RandomState(10); the first 71 are for test.
    folder = data_root / "blood-cells" / ARCHIVE_PHOTOS
    with (folder / "labels.csv").open(newline="") as stream:
        rows = [(int(row["Image"]), row["Category"].strip()) for row in csv.DictReader(stream)]
    single = [(number, label) for number, label in rows if label and "," not in label]
    single = [
        (number, label) for number, label in single if (folder / "JPEGImages" / f"BloodImage_{number:05d}.jpg").exists()
    ]
    assert len(single) == 351
    order = np.random.RandomState(10).permutation(len(single))
    expected = {"test": order[:71], "train": order[71:]}
    for split, places in expected.items():
        photos = {f"BloodImage_{single[k][0]:05d}": single[k][1].lower() for k in places if single[k][1] != "BASOPHIL"}
        data = real_splits[split]
        assert set(data["photo"]) == set(photos)
        assert all(photos[photo] == LABELS[label] for photo, label in zip(data["photo"], data["label"], strict=True))


def test_no_real_image_is_left_without_its_photo(real_splits):
    for data in real_splits.values():
        assert all(photo.startswith("BloodImage_") for photo in data["photo"])
        assert isinstance(data.features["label"], datasets.ClassLabel)


def test_the_real_copies_are_dark_where_their_boxes_are(real_splits, data_root):
    copies = real_splits["train"].select(range(0, 9900, 99))
    carried = boxes_on_copies(copies, data_root / "blood-cells")
    inside, outside = [], []
    for row in carried:
        green = np.asarray(Image.open(row["image"]["path"]).convert("RGB"), float)[..., 1]
        for row_min, col_min, row_max, col_max in row["boxes"]:
            middle = green[row_min:row_max, col_min:col_max]
            inside.append(np.percentile(middle, 20))  # the nucleus fills a fifth of the box and more
            outside.append(np.median(green[green > 24]))
    assert len(inside) > 90
    assert np.mean(np.array(inside) < np.array(outside) - 20) > 0.95  # levels; nuclei take up green
