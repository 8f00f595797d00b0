"""Loading labelled images: every layout that a user may have, and every fault named with its file and its remedy."""

import csv
import hashlib
import io
import re
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image
from smear_drawings import (
    ARCHIVE_IMAGES,
    LABELS,
    draw_smear,
    real_archive,
    write_archive,
    write_class_folders,
    write_image,
    write_photo_column,
    write_splits,
)

from smears.loading import DataError, check_image, fingerprint, load_folder, load_hub


def sizes(splits):
    return {name: len(data) for name, data in splits.items()}


def file_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def jpeg(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


# Layouts


@pytest.mark.parametrize("level", [".", "dataset2-master", "dataset2-master/dataset2-master", str(ARCHIVE_IMAGES)])
def test_the_archive_is_found_from_each_of_its_levels(tmp_path, level):
    write_archive(tmp_path / "blood-cells", train=2, test=1, copies=3, size=(24, 18))
    splits = load_folder(tmp_path / "blood-cells" / level)
    assert sizes(splits) == {"train": 24, "test": 12, "test_simple": 4}
    for data in splits.values():
        assert data.features["label"].names == ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
        named = [data.features["label"].names[number] for number in data["label"]]
        assert [file.split("/")[-2].lower() for file in data["file"]] == named


def test_one_split_folder_of_the_archive_can_be_named_alone(tmp_path):
    write_archive(tmp_path, size=(24, 18))
    assert sizes(load_folder(tmp_path / ARCHIVE_IMAGES / "TEST")) == {"train": 8}


def test_class_folders_alone_are_one_split_with_labels_in_lower_case_and_alphabetical_order(tmp_path):
    write_class_folders(tmp_path, 2, ("Neutrophil", "EOSINOPHIL", "monocyte"))
    splits = load_folder(str(tmp_path))  # a text, as it comes from the command line
    assert sizes(splits) == {"train": 6}
    assert splits["train"].features["label"].names == ["eosinophil", "monocyte", "neutrophil"]
    labels = dict(zip(splits["train"]["file"], splits["train"]["label"], strict=True))
    assert labels["EOSINOPHIL/01.png"] == 0 and labels["monocyte/01.png"] == 1 and labels["Neutrophil/01.png"] == 2


def test_split_folders_are_known_by_their_usual_names_and_no_split_is_made_up(tmp_path):
    write_splits(tmp_path, {"Training": 3, "val": 1, "TEST": 2})
    assert sizes(load_folder(tmp_path)) == {"train": 12, "validation": 4, "test": 8}


def test_each_row_says_what_its_file_holds(tmp_path):
    write_splits(tmp_path, {"train": 2, "test": 1})
    for split, data in load_folder(tmp_path).items():
        assert data.column_names == ["image", "label", "file", "sha256", "photo", "group"]
        for row in data:
            path = tmp_path / row["file"]
            assert path.parent.parent.name == split and path.parent.name == LABELS[row["label"]]
            assert row["sha256"] == row["photo"] == row["group"] == file_hash(path)
            assert row["image"] == {"path": str(path), "bytes": None}  # not decoded


def test_images_in_folders_below_a_class_folder_count_and_hidden_files_do_not(tmp_path):
    write_splits(tmp_path, {"train": 1})
    write_class_folders(tmp_path / "train" / "monocyte", 3, ("lymphocyte",), first_seed=50)
    (tmp_path / "train" / "monocyte" / "lymphocyte").rename(tmp_path / "train" / "monocyte" / "slide_7")
    (tmp_path / "train" / "monocyte" / ".DS_Store").write_bytes(b"\0\1")
    (tmp_path / "train" / ".cache").mkdir()
    labels = load_folder(tmp_path)["train"]["label"][:]
    assert np.bincount(labels).tolist() == [1, 1, 4, 1]


@pytest.mark.parametrize("ending", [".bmp", ".jpeg", ".JPG", ".png", ".tif", ".tiff", ".webp"])
def test_every_usual_image_format_is_read(tmp_path, ending):
    write_class_folders(tmp_path, 1, ending=ending)
    assert sizes(load_folder(tmp_path)) == {"train": 4}


# Faults. Each says what came and what to do; `fault` breaks a good folder of two splits.


def remove_all(root):
    shutil.rmtree(root)


def only_text(root):
    remove_all(root)
    root.mkdir()
    (root / "readme.txt").write_text("no images")


def only_loose_images(root):
    remove_all(root)
    write_image(root / "cell.png", draw_smear("monocyte", 1)[0])


def empty_class(root):
    (root / "train" / "basophil").mkdir()


def foreign_file(root):
    (root / "train" / "monocyte" / "counts.xlsx").write_bytes(b"PK")


def truncated_jpeg(root):
    content = jpeg(draw_smear("monocyte", 7)[0])
    (root / "train" / "monocyte" / "cut.jpg").write_bytes(content[: len(content) // 2])


def text_as_jpeg(root):
    (root / "train" / "monocyte" / "page.jpg").write_text("<html>404</html>")


def zero_bytes(root):
    (root / "test" / "monocyte" / "nothing.png").write_bytes(b"")


def sixteen_bits(root):
    Image.fromarray(np.full((18, 24), 40000, np.uint16)).save(root / "train" / "monocyte" / "deep.png")


def label_in_train_only(root):
    shutil.copytree(root / "train" / "monocyte", root / "train" / "basophil")


def label_in_test_only(root):
    shutil.rmtree(root / "train" / "neutrophil")


def same_content_in_two_splits(root):
    shutil.copy(root / "train" / "monocyte" / "00.png", root / "test" / "monocyte" / "again.png")


def same_content_under_two_labels(root):
    shutil.copy(root / "train" / "monocyte" / "00.png", root / "train" / "lymphocyte" / "again.png")


def another_folder_beside_the_splits(root):
    (root / "old_scans").mkdir()


def a_split_twice(root):
    write_class_folders(root / "training", 1, first_seed=900)


def a_class_twice(root):
    write_class_folders(root / "train" / "more", 1, ("lymphocyte",), first_seed=900)
    (root / "train" / "more" / "lymphocyte").rename(root / "train" / "Lymphocyte")
    (root / "train" / "more").rmdir()


def no_class_folders_in_a_split(root):
    shutil.rmtree(root / "test")
    (root / "test").mkdir()


def photo_table_without_its_column(root):
    (root / "train" / "metadata.csv").write_text("file_name,slide\nmonocyte/00.png,7\n")


def photo_table_of_other_files(root):
    write_photo_column(root / "train", {"monocyte/00.png": "slide 7", "monocyte_01.png": "slide 7"})


def loose_image_in_a_split(root):
    write_image(root / "train" / "loose.png", draw_smear("monocyte", 71)[0])


def loose_image_beside_the_splits(root):
    write_image(root / "loose.png", draw_smear("monocyte", 71)[0])


def link_to_nothing(root):
    (root / "train" / "monocyte" / "annexed.png").symlink_to(root / "gone")


def one_photo_on_both_sides(root):
    write_photo_column(root / "train", {"monocyte/00.png": "slide 7"})
    write_photo_column(root / "test", {"./monocyte/00.png": "slide 7"})


def photo_table_in_another_encoding(root):
    (root / "train" / "metadata.csv").write_bytes("file_name,photo\nmonocyte/00.png,Präparat 7\n".encode("latin-1"))


FAULTS = {
    loose_image_in_a_split: r"train/loose\.png stands beside the folders and has no label",
    loose_image_beside_the_splits: r"smears/loose\.png stands beside the folders and has no label",
    link_to_nothing: r"annexed\.png is a link to nothing\. Fetch the file",
    one_photo_on_both_sides: r"(?=.*test/monocyte/00\.png)(?=.*train/monocyte/00\.png).*the same photo, slide 7",
    photo_table_in_another_encoding: r"train/metadata\.csv is not UTF-8 .*Save it as CSV in UTF-8",
    remove_all: r"smears is no folder\. Unpack the archive",
    only_text: r"smears holds no images in class folders\. Expected SPLIT/CLASS/image\.jpg",
    only_loose_images: r"smears holds no images in class folders\. Expected SPLIT/CLASS/image\.jpg",
    empty_class: r"train/basophil holds no images\. Remove the empty class folder, or fill it",
    foreign_file: r"monocyte/counts\.xlsx is no image .*\.png.*\. Move it out of the class folder",
    truncated_jpeg: r"monocyte/cut\.jpg cannot be read as an image \(.*truncated.*\)\. Replace the file or remove it",
    text_as_jpeg: r"monocyte/page\.jpg cannot be read as an image .*\. Replace the file or remove it",
    zero_bytes: r"test/monocyte/nothing\.png cannot be read as an image .*\. Replace the file or remove it",
    sixteen_bits: r"monocyte/deep\.png has I;16 pixels \(16 bits or more\)\. Rescale it to 8 bits per channel",
    label_in_train_only: r"'basophil' stands in train but not in test\. .*add its images or remove the class folder",
    label_in_test_only: r"'neutrophil' stands in test but not in train\. .*add its images or remove the class folder",
    same_content_in_two_splits: r"(?=.*train/monocyte/00\.png)(?=.*test/monocyte/again\.png).*two splits.*Remove one",
    same_content_under_two_labels: r"(?=.*monocyte/00\.png)(?=.*lymphocyte/again\.png).*two labels.*Remove the wrong one",
    another_folder_beside_the_splits: r"mixes split folders \(test, train\) with others \(old_scans\)\. Move the others away",
    a_split_twice: r"train and training .*both name the split 'train'\. Put their images into one folder",
    a_class_twice: r"names the class 'lymphocyte' a second time in .*train \(case is ignored\)",
    no_class_folders_in_a_split: r"test holds no class folders\. Expected test/CLASS/image\.jpg",
    photo_table_without_its_column: r"metadata\.csv has the columns \['file_name', 'slide'\]; expected .*'photo'",
    photo_table_of_other_files: r"metadata\.csv names 'monocyte_01\.png', .*not .* below .*train",
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_is_named_with_its_file_and_its_remedy(tmp_path, fault, message):
    root = write_splits(tmp_path / "smears", {"train": 2, "test": 1})
    load_folder(root)  # good as it stands
    fault(root)
    with pytest.raises(DataError, match=message):
        load_folder(root)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    path = write_image(tmp_path / "cell.png", draw_smear("monocyte", 1)[0])
    with pytest.raises(DataError, match=r"cell\.png is no folder"):
        load_folder(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("kind", "mode"), [("BMP", "P"), ("JPEG", "RGB"), ("PNG", "P"), ("PNG", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGB")]
)
def test_an_image_cut_off_or_damaged_anywhere_is_read_whole_or_refused_by_name(kind, mode):
    buffer = io.BytesIO()
    Image.fromarray(draw_smear("neutrophil", 3, (40, 30))[0]).convert(mode).save(buffer, kind)
    whole = buffer.getvalue()
    check_image("whole", whole)
    rng = np.random.default_rng(0)
    faulty = [whole[:end] for end in range(0, len(whole), max(1, len(whole) // 60))]
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 200), 3):  # in the header, which says how to read the rest
            damaged[place] = rng.integers(256)
        faulty.append(bytes(damaged))
    refused = 0
    for content in faulty:
        try:
            check_image("slide_7.img", content)
        except DataError as error:
            assert re.match(r"slide_7\.img (cannot be read as an image|has )", str(error))
            refused += 1
    assert refused > 20


# Photos that the user names


def test_metadata_says_which_files_show_one_photo(tmp_path):
    write_splits(tmp_path, {"train": 2, "test": 1})
    write_photo_column(
        tmp_path / "train", {"monocyte/00.png": "slide 7", "monocyte/01.png": "slide 7", "lymphocyte/00.png": ""}
    )
    train = load_folder(tmp_path)["train"]
    photos = dict(zip(train["file"], train["photo"], strict=True))
    assert photos["train/monocyte/00.png"] == photos["train/monocyte/01.png"] == "slide 7"
    # What the table leaves open is a photo of its own.
    for file in ("train/lymphocyte/00.png", "train/eosinophil/00.png"):
        assert photos[file] == file_hash(tmp_path / file)
    assert train["group"][:] == train["photo"][:]


def test_metadata_may_come_from_a_spreadsheet(tmp_path):
    write_splits(tmp_path, {"train": 1, "test": 1})
    with (tmp_path / "train" / "metadata.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, lineterminator="\r\n").writerows([("file_name", "photo"), ("monocyte/00.png", "Präparat 7")])
    assert "Präparat 7" in load_folder(tmp_path)["train"]["photo"][:]


# The fingerprint


def test_the_fingerprint_knows_the_images_and_not_where_they_lie_or_how_they_are_called(tmp_path):
    write_splits(tmp_path / "a", {"train": 3, "test": 1})
    for folder in (tmp_path / "a").glob("*/*"):
        for number, path in enumerate(sorted(folder.iterdir())):
            target = tmp_path / "elsewhere" / "b" / folder.parent.name.upper() / folder.name.title()
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / f"{9 - number}_renamed.png")
    first = fingerprint(load_folder(tmp_path / "a"))
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert fingerprint(load_folder(tmp_path / "elsewhere" / "b")) == first


def test_the_fingerprint_changes_with_a_pixel_a_label_a_split_and_a_missing_image(tmp_path):
    def variant(name, change):
        root = write_splits(tmp_path / name, {"train": 3, "test": 2})
        change(root)
        return fingerprint(load_folder(root))

    def one_pixel(root):
        path = root / "train" / "monocyte" / "00.png"
        image = np.array(Image.open(path))
        image[0, 0, 0] ^= 1
        write_image(path, image)

    def move(source, target):
        return lambda root: (root / source).rename(root / target)

    changes = {
        "as drawn": lambda root: None,
        "pixel": one_pixel,
        "label": move("train/monocyte/00.png", "train/lymphocyte/moved.png"),
        "split": move("train/monocyte/00.png", "test/monocyte/moved.png"),
        "missing": lambda root: (root / "train/monocyte/00.png").unlink(),
    }
    prints = {name: variant(name, change) for name, change in changes.items()}
    assert len(set(prints.values())) == len(changes), prints


# Data sets of the Hub, here from local folders that the same library reads


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


def write_parquet(folder, rows_of, label, extra=()):
    """Write SPLIT.parquet with embedded images; ``rows_of`` gives each split's (bytes, label, *extra)."""
    folder.mkdir(parents=True)
    for split, rows in rows_of.items():
        columns = {"image": [{"bytes": row[0], "path": None} for row in rows], "label": [row[1] for row in rows]}
        columns |= {name: [row[2 + place] for row in rows] for place, name in enumerate(extra)}
        features = {"image": datasets.Image(), "label": label} | {name: datasets.Value("string") for name in extra}
        data = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        data.to_parquet(folder / f"{split}.parquet")
    return str(folder)


def drawn_rows(names, each, first_seed, number=True):
    return [
        (jpeg(draw_smear(name.lower(), first_seed + k, (24, 18))[0]), place if number else name)
        for place, name in enumerate(names)
        for k in range(each)
    ]


@pytest.mark.usefixtures("hub_cache")
class TestLoadHub:
    def test_a_folder_gives_what_load_folder_gives(self, tmp_path):
        root = write_splits(tmp_path / "smears", {"train": 2, "test": 1})
        hub, folder = load_hub(str(root)), load_folder(root)
        assert sizes(hub) == sizes(folder) and fingerprint(hub) == fingerprint(folder)
        assert hub["train"].features == folder["train"].features

    @pytest.mark.parametrize("as_class_label", [True, False])
    def test_parquet_with_labels_as_numbers_or_as_names(self, tmp_path, as_class_label):
        names = ["Neutrophil", "MONOCYTE"]  # neither in order nor in lower case
        feature = datasets.ClassLabel(names=names) if as_class_label else datasets.Value("string")
        parts = {"train": drawn_rows(names, 2, 0, as_class_label), "test": drawn_rows(names, 1, 9, as_class_label)}
        splits = load_hub(write_parquet(tmp_path / "cells", parts, feature))
        assert sizes(splits) == {"train": 4, "test": 2}
        for split, data in splits.items():
            assert data.features["label"].names == ["monocyte", "neutrophil"]
            assert data["sha256"][:] == [hashlib.sha256(row[0]).hexdigest()[:16] for row in parts[split]]
            assert [data.features["label"].names[n] for n in data["label"]] == [
                (names[row[1]] if as_class_label else row[1]).lower() for row in parts[split]
            ]
            assert data["photo"][:] == data["group"][:] == data["sha256"][:]

    def test_the_photo_column_is_kept(self, tmp_path):
        rows = [(*row, f"slide {place // 2}") for place, row in enumerate(drawn_rows(LABELS, 2, 0))]
        folder = write_parquet(tmp_path / "cells", {"train": rows}, datasets.ClassLabel(names=list(LABELS)), ["photo"])
        train = load_hub(folder)["train"]
        assert train["photo"][:] == train["group"][:] == [f"slide {k}" for k in (0, 0, 1, 1, 2, 2, 3, 3)]

    def test_a_row_whose_photo_is_not_known_stands_for_itself(self, tmp_path):
        rows = [(*row, None) for row in drawn_rows(LABELS, 2, 0)]
        folder = write_parquet(tmp_path / "cells", {"train": rows}, datasets.ClassLabel(names=list(LABELS)), ["photo"])
        train = load_hub(folder)["train"]
        assert train["photo"][:] == train["sha256"][:] and len(set(train["photo"])) == 8

    def test_folders_that_datasets_would_mix_are_refused(self, tmp_path):
        write_archive(tmp_path, size=(24, 18))
        with pytest.raises(DataError, match=r"splits \['test', 'test_simple', 'train'\], read as .*--data_dir"):
            load_hub(str(tmp_path / ARCHIVE_IMAGES))

    def test_an_empty_image_is_named(self, tmp_path):
        rows = drawn_rows(LABELS, 1, 0)
        folder = tmp_path / "cells"
        folder.mkdir()
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(LABELS))})
        images = [{"bytes": row[0], "path": None} for row in rows[:3]] + [None]
        columns = {"image": images, "label": [row[1] for row in rows]}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "train.parquet")
        with pytest.raises(DataError, match="train/000003 has no image"):
            load_hub(str(folder))

    def test_usual_names_of_splits_are_understood(self, tmp_path):
        parts = {"train": drawn_rows(LABELS, 1, 0), "validation": drawn_rows(LABELS, 1, 9)}
        assert list(load_hub(write_parquet(tmp_path / "cells", parts, datasets.ClassLabel(names=list(LABELS))))) == [
            "train",
            "validation",
        ]

    def test_splits_that_nothing_reads_are_named_in_a_warning(self, tmp_path, caplog):
        parts = {"train": drawn_rows(LABELS, 1, 0), "unlabelled": drawn_rows(LABELS, 1, 9)}
        (tmp_path / "cells").mkdir()
        folder = write_parquet(tmp_path / "cells" / "data", parts, datasets.ClassLabel(names=list(LABELS)))
        files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in parts)
        (tmp_path / "cells" / "data" / "README.md").write_text(
            f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n"
        )
        assert list(load_hub(folder)) == ["train", "unlabelled"]
        assert "the splits ['unlabelled'] are neither learnt from nor measured" in caplog.text

    def test_a_missing_column_is_named(self, tmp_path):
        rows = drawn_rows(LABELS, 1, 0)
        folder = tmp_path / "cells"
        folder.mkdir()
        data = datasets.Dataset.from_dict(
            {"image": [{"bytes": row[0], "path": None} for row in rows], "class": list(LABELS)}
        )
        data.cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
        with pytest.raises(
            DataError, match=r"split 'train', has the columns \['image', 'class'\]; \['label'\] is missing"
        ):
            load_hub(str(folder))

    def test_a_class_that_one_split_does_not_show_is_refused(self, tmp_path):
        parts = {"train": drawn_rows(LABELS, 1, 0), "test": drawn_rows(LABELS, 1, 9)[:3]}
        folder = write_parquet(tmp_path / "cells", parts, datasets.ClassLabel(names=list(LABELS)))
        with pytest.raises(DataError, match="'neutrophil' stands in train but not in test"):
            load_hub(folder)

    def test_a_class_that_no_split_shows_is_refused(self, tmp_path):
        parts = {"train": drawn_rows(LABELS, 1, 0)}
        folder = write_parquet(tmp_path / "cells", parts, datasets.ClassLabel(names=[*LABELS, "basophil"]))
        with pytest.raises(DataError, match="class 'basophil' .* no image"):
            load_hub(folder)

    @pytest.mark.parametrize("label", [-1, None])
    def test_an_image_without_a_label_is_named(self, tmp_path, label):
        rows = drawn_rows(LABELS, 1, 0)
        rows.append((jpeg(draw_smear("monocyte", 70)[0]), label))
        folder = write_parquet(tmp_path / "cells", {"train": rows}, datasets.ClassLabel(names=list(LABELS)))
        with pytest.raises(DataError, match="train/000004 has no label.*Leave the row out"):
            load_hub(folder)

    def test_a_damaged_image_is_named(self, tmp_path):
        rows = drawn_rows(LABELS, 2, 0)
        rows[5] = (rows[5][0][:300], rows[5][1])
        folder = write_parquet(tmp_path / "cells", {"train": rows}, datasets.ClassLabel(names=list(LABELS)))
        with pytest.raises(DataError, match="train/000005 cannot be read as an image"):
            load_hub(folder)

    def test_the_same_image_in_two_splits_is_refused(self, tmp_path):
        parts = {"train": drawn_rows(LABELS, 1, 0), "test": drawn_rows(LABELS, 1, 0)}
        folder = write_parquet(tmp_path / "cells", parts, datasets.ClassLabel(names=list(LABELS)))
        with pytest.raises(DataError, match="same image in two splits"):
            load_hub(folder)


# The real archive


def test_the_real_archive_has_the_published_numbers_of_images(data_root):
    splits = real_archive(data_root / "blood-cells")
    assert sizes(splits) == {"train": 9957, "test": 2487, "test_simple": 71}
    # Counts of each class as the archive's page states them.
    assert np.bincount(splits["train"]["label"]).tolist() == [2497, 2483, 2478, 2499]
    assert np.bincount(splits["test"]["label"]).tolist() == [623, 620, 620, 624]
    assert splits["train"].features["label"].names == list(LABELS)
