"""A folder of images is listed whole: splits and labels from its paths, and rows for what is missing or foreign."""

import shutil

import pytest
from smear_drawings import (
    ARCHIVE_IMAGES,
    ARCHIVE_PHOTOS,
    draw_smear,
    write_archive,
    write_class_folders,
    write_image,
    write_splits,
)

from smears import survey as module
from smears.loading import content_hash
from smears.survey import survey


def places(surveyed):
    return {(image.split, image.label) for image in surveyed.images}


def kinds(surveyed):
    return {(fault.kind, fault.path) for fault in surveyed.faults}


@pytest.mark.parametrize("inside", ["", "wrapper/deeper"])
def test_splits_and_classes_are_found_at_any_depth(tmp_path, inside):
    write_splits(tmp_path / inside, {"Training": 1, "val": 1, "test": 1}, labels=("lymphocyte", "monocyte"))
    found = survey(tmp_path)
    assert places(found) == {
        (split, label) for split in ("train", "validation", "test") for label in ("lymphocyte", "monocyte")
    }
    assert found.faults == ()


@pytest.mark.parametrize("inside", ["", "PBC_dataset/images"])
def test_class_folders_alone_have_no_split(tmp_path, inside):
    write_class_folders(tmp_path / inside, 1)
    found = survey(tmp_path)
    assert places(found) == {(None, label) for label in ("eosinophil", "lymphocyte", "monocyte", "neutrophil")}
    assert found.faults == ()


def test_one_class_folder_is_a_class_and_a_flat_folder_is_none(tmp_path):
    write_class_folders(tmp_path, 2, labels=("monocyte",))
    assert places(survey(tmp_path)) == {(None, "monocyte")}
    flat = survey(tmp_path / "monocyte")
    assert places(flat) == {(None, None)}
    assert kinds(flat) == {("no label", ".")}


def test_an_image_is_described_as_it_lies(tmp_path):
    pixels, _ = draw_smear("monocyte", 0, (40, 30))
    pixels[:, :10] = 0
    path = write_image(tmp_path / "train/Monocyte/0.png", pixels)
    (image,) = survey(tmp_path).images
    assert (image.file, image.split, image.label) == ("train/Monocyte/0.png", "train", "monocyte")
    assert (image.width, image.height, image.mode) == (40, 30, "RGB")
    assert image.picture == 0.75
    assert image.sha256 == content_hash(path.read_bytes())


def test_classes_above_splits_are_a_foreign_layout(tmp_path):
    for label in ("lymphocyte", "monocyte"):
        write_class_folders(tmp_path / label, 1, labels=("neutrophil",))
        (tmp_path / label / "neutrophil").rename(tmp_path / label / "train")
    found = survey(tmp_path)
    assert places(found) == {("train", None)}
    assert kinds(found) >= {("no label", "lymphocyte/train"), ("no label", "monocyte/train")}


def test_splits_that_are_missing_or_named_twice_are_rows(tmp_path):
    write_splits(tmp_path / "only", {"test": 1})
    assert kinds(survey(tmp_path / "only")) == {("split missing", ".")}
    write_splits(tmp_path / "twice", {"train": 1, "training": 1})
    assert kinds(survey(tmp_path / "twice")) == {("named twice", ".")}
    write_splits(tmp_path / "case", {"train": 1}, labels=("monocyte",))
    shutil.copytree(tmp_path / "case/train/monocyte", tmp_path / "case/train/MONOCYTE")
    assert ("named twice", "train") in kinds(survey(tmp_path / "case"))


def test_classes_of_the_same_content_are_a_row(tmp_path):
    write_class_folders(tmp_path, 2)
    shutil.rmtree(tmp_path / "monocyte")
    shutil.copytree(tmp_path / "lymphocyte", tmp_path / "monocyte")
    rows = [fault for fault in survey(tmp_path).faults if fault.kind == "same content"]
    assert {row.path for row in rows} == {".: lymphocyte", ".: monocyte"}
    assert "All its 2 image(s) also stand under 'lymphocyte'" in rows[1].reason


@pytest.fixture
def archive(tmp_path, monkeypatch):
    write_archive(tmp_path)
    monkeypatch.setattr(module, "ARCHIVE_COUNTS", {"TRAIN": 24, "TEST": 8, "TEST_SIMPLE": 4})
    return tmp_path


def test_the_photos_of_a_whole_archive_have_neither_split_nor_label(archive):
    found = survey(archive)
    photos = [image for image in found.images if image.split is None]
    assert len(photos) == 16
    assert {image.label for image in photos} == {None}
    assert not [fault for fault in found.faults if fault.kind == "half unpacked"]
    # what is no image is one row for each folder and ending
    assert {(f.path, f.reason.split(",")[0]) for f in found.faults if f.kind == "no image"} == {
        (f"{ARCHIVE_PHOTOS.as_posix()}/Annotations", "16 file(s) .xml"),
        (ARCHIVE_PHOTOS.as_posix(), "1 file(s) .csv"),
    }


@pytest.mark.parametrize(
    ("removed", "row"),
    [
        ("dataset-master", f"{ARCHIVE_PHOTOS.as_posix()}/JPEGImages"),
        ("dataset2-master", f"{ARCHIVE_IMAGES.as_posix()}/TRAIN"),
        (f"{ARCHIVE_IMAGES.as_posix()}/TEST", f"{ARCHIVE_IMAGES.as_posix()}/TEST"),
        (f"{ARCHIVE_IMAGES.as_posix()}/TRAIN/MONOCYTE", f"{ARCHIVE_IMAGES.as_posix()}/TRAIN"),
    ],
)
def test_a_half_unpacked_archive_is_a_row(archive, removed, row):
    shutil.rmtree(archive / removed)
    half = {fault.path: fault.reason for fault in survey(archive).faults if fault.kind == "half unpacked"}
    assert row in half
    assert "Unpack it again" in half[row]
