"""Labelled smear images from a folder or the Hub, every file read and checked before anything is learnt from it."""

import csv
import hashlib
import io
import logging
import struct
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path, PurePosixPath

import datasets
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

# Folder names (in lower case) that name a split, and what the split is called here.
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "test_simple": "test_simple",
}
# Where the unpacked Kaggle archive paultimothymooney/blood-cells keeps its split folders, from each level a user may name.
ARCHIVE_FOLDERS = ["dataset2-master/dataset2-master/images", "dataset2-master/images", "images"]
IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
HASH_LENGTH = 16  # hexadecimal digits of SHA-256 kept: 64 bits tell a million files apart


class DataError(ValueError):
    """The images cannot be used as they lie; the message names the file and the remedy."""


def content_hash(data: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def find_splits(data_dir: str | Path) -> dict[str, Path]:
    """Find the folder of each split below ``data_dir``.

    Accepts the unpacked Kaggle archive at any of its levels, a folder of split folders (train, validation, test, ...), or a
    folder of class folders, which is one split named ``train``.

    Raises:
        DataError: the folder is missing, empty, or holds no class folders, or two of its folders name one split.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise DataError(f"{root} is no folder. Unpack the archive and name the folder that holds its images.")
    for candidate in [root, *(root / folder for folder in ARCHIVE_FOLDERS)]:
        folders = sorted(path for path in candidate.iterdir() if path.is_dir()) if candidate.is_dir() else []
        splits = {}
        for path in folders:
            split = SPLIT_FOLDERS.get(path.name.lower())
            if split in splits:
                raise DataError(
                    f"{splits[split].name} and {path.name} in {candidate} both name the split {split!r}. "
                    "Put their images into one folder, or name one of them alone."
                )
            if split:
                splits[split] = path
        if splits:
            others = [path.name for path in folders if path.name.lower() not in SPLIT_FOLDERS and path.name[0] != "."]
            if others:
                raise DataError(
                    f"{candidate} mixes split folders ({', '.join(sorted(splits))}) with others ({', '.join(others)}). "
                    "Move the others away, or name one split folder alone."
                )
            _refuse_loose_images(candidate)
            return splits
    if any(path.is_dir() and any(map(_is_image, path.iterdir())) for path in root.iterdir()):
        return {"train": root}
    raise DataError(
        f"{root} holds no images in class folders. Expected SPLIT/CLASS/image.jpg, CLASS/image.jpg, or the unpacked "
        "archive 'blood-cells' with dataset2-master inside."
    )


def _split_folders(folder: Path) -> set[str]:
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    return {SPLIT_FOLDERS[name] for name in names & SPLIT_FOLDERS.keys()}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS


def _refuse_loose_images(folder: Path) -> None:
    loose = sorted(path for path in folder.iterdir() if _is_image(path) and not path.is_dir() and path.name[0] != ".")
    if loose:
        raise DataError(
            f"{loose[0]} stands beside the folders and has no label. Move it into its class folder, or away."
        )


def list_class_folders(split_dir: Path) -> dict[str, list[Path]]:
    """List the image files of each class folder of one split, both in sorted order; labels are in lower case.

    Raises:
        DataError: a class folder without an image, a file that is no image, a link to nothing, an image outside the class
            folders, or no class folder at all.
    """
    found = {}
    for folder in sorted(path for path in split_dir.iterdir() if path.is_dir() and path.name[0] != "."):
        files = sorted(path for path in folder.rglob("*") if not path.is_dir() and path.name[0] != ".")
        if broken := [path for path in files if not path.is_file()]:
            raise DataError(f"{broken[0]} is a link to nothing. Fetch the file it stands for, or remove the link.")
        foreign = [path for path in files if not _is_image(path)]
        if foreign:
            raise DataError(
                f"{foreign[0]} is no image ({', '.join(sorted(IMAGE_ENDINGS))}). Move it out of the class folder."
            )
        if not files:
            raise DataError(f"{folder} holds no images. Remove the empty class folder, or fill it.")
        label = folder.name.lower()
        if label in found:
            raise DataError(f"{folder} names the class {label!r} a second time in {split_dir} (case is ignored).")
        found[label] = files
    if not found:
        raise DataError(f"{split_dir} holds no class folders. Expected {split_dir.name}/CLASS/image.jpg.")
    _refuse_loose_images(split_dir)
    return found


def read_photo_column(split_dir: Path) -> dict[str, str]:
    """Read which photo each file shows from ``metadata.csv`` (file_name, photo), if the split has one.

    Several files of one photo, cell or slide must not be split between training and validation; this is how a user says so.
    A file without an entry stands for itself.

    Raises:
        DataError: the table lacks one of the two columns, or names a file that is not there.
    """
    table = split_dir / "metadata.csv"
    if not table.exists():
        return {}
    try:
        text = table.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error}). Save it as CSV in UTF-8.") from error
    with io.StringIO(text, newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"file_name", "photo"} <= set(reader.fieldnames or []):
            raise DataError(f"{table} has the columns {reader.fieldnames}; expected 'file_name' and 'photo'.")
        photos = {PurePosixPath(row["file_name"]).as_posix(): row["photo"] for row in reader if row["photo"]}
    for file in photos:
        if not (split_dir / file).is_file():
            raise DataError(
                f"{table} names {file!r}, which is not a file below {split_dir}. Write names as CLASS/image.jpg, from there."
            )
    return photos


def check_image(name: str, data: bytes) -> None:
    """Decode one image to its last pixel.

    Raises:
        DataError: the bytes are no image, are cut off, or hold 16-bit grey levels (which turn white in RGB).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            mode = image.mode
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        # That error names a buffer, not the file.
        reason = "no image format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"{name} cannot be read as an image ({reason}). Replace the file or remove it.") from error
    if mode.startswith(("I", "F")):
        raise DataError(f"{name} has {mode} pixels (16 bits or more). Rescale it to 8 bits per channel.")


def load_folder(data_dir: str | Path, check: bool = True) -> datasets.DatasetDict:
    """Load every split below ``data_dir``.

    Returns:
        Per split a ``datasets.Dataset`` with the columns ``image`` (not yet decoded), ``label`` (a ``ClassLabel``, classes in
        alphabetical order, lower case), ``file`` (path below ``data_dir``), ``sha256`` (16 digits), ``photo`` (what the
        split's metadata.csv says, else the hash: each file a photo of its own) and ``group`` (photos of the same cells; here
        the photo itself).

    Raises:
        DataError: anything a reader of the result would stumble over: an unreadable or truncated file, a class without
            images, a class that only one split shows, the same content in two splits or under two labels.
    """
    root = Path(data_dir)
    split_dirs = find_splits(root)
    splits = {name: list_class_folders(path) for name, path in split_dirs.items()}
    photos = {name: read_photo_column(path) for name, path in split_dirs.items()}
    rows = {
        name: [(path, label) for label, paths in classes.items() for path in paths] for name, classes in splits.items()
    }
    labels = _common_labels({name: list(classes) for name, classes in splits.items()}, root)

    def read(path: Path) -> str:
        data = path.read_bytes()
        if check:
            check_image(str(path), data)
        return content_hash(data)

    loaded = {}
    total = sum(map(len, rows.values()))
    with tqdm(total=total, desc="reading images", unit="image") as bar, ThreadPoolExecutor(cpu_count()) as pool:
        for name, entries in rows.items():
            columns = defaultdict(list)
            for (path, label), digest in zip(entries, pool.map(read, [path for path, _ in entries]), strict=True):
                within = path.relative_to(split_dirs[name]).as_posix()
                columns["image"].append(str(path))
                columns["label"].append(labels.index(label))
                columns["file"].append(path.relative_to(root).as_posix())
                columns["sha256"].append(digest)
                columns["photo"].append(photos[name].get(within, digest))
                columns["group"].append(columns["photo"][-1])
                bar.update()
            loaded[name] = _as_dataset(columns, labels)
    return refuse_shared_content(datasets.DatasetDict(loaded))


def load_hub(name: str, revision: str | None = None) -> datasets.DatasetDict:
    """Load a dataset of the Hub (or of a local folder that ``datasets`` understands) into the columns of ``load_folder``.

    It must have the columns ``image`` and ``label`` (a ``ClassLabel`` or a string) and may have ``photo``.

    Raises:
        DataError: as ``load_folder``, or a column is missing.
    """
    source = datasets.load_dataset(name, revision=revision)
    loaded, label_names, declared = {}, {}, set()
    named = [SPLIT_FOLDERS.get(split.lower(), split) for split in source]
    if len(set(named)) < len(named):
        raise DataError(f"{name} has the splits {list(source)}, two of which name the same. Merge or drop one.")
    if Path(name).is_dir() and (here := _split_folders(Path(name))) and set(here) != set(named):
        # `datasets` knows train and test in lower case, and mixes the archive's folders into one split.
        raise DataError(
            f"{name} has the splits {sorted(here)}, read as {sorted(named)}. Name the folder with --data_dir."
        )
    if unknown := sorted(set(named) - set(SPLIT_FOLDERS.values())):
        logger.warning("%s: the splits %s are neither learnt from nor measured", name, unknown)
    for split, data in source.items():
        if missing := {"image", "label"} - set(data.column_names):
            raise DataError(
                f"{name}, split {split!r}, has the columns {data.column_names}; {sorted(missing)} is missing."
            )
        feature, values = data.features["label"], data["label"][:]
        is_class_label = isinstance(feature, datasets.ClassLabel)
        for number, value in enumerate(values):
            if value is None or (is_class_label and value < 0):
                raise DataError(f"{name} {split}/{number:06d} has no label ({value}). Leave the row out.")
        shown = {feature.int2str(value) if is_class_label else str(value) for value in set(values)}
        label_names[SPLIT_FOLDERS.get(split.lower(), split)] = [label.lower() for label in shown]
        declared.update(label.lower() for label in (feature.names if is_class_label else shown))
    labels = _common_labels(label_names, name)
    if absent := sorted(declared - set(labels)):
        raise DataError(f"{name}: the class {absent[0]!r} is declared but has no image. Add some, or drop its name.")
    for split, data in source.items():
        feature = data.features["label"]
        columns = defaultdict(list)
        images = data.cast_column("image", datasets.Image(decode=False))
        for number, row in enumerate(tqdm(images, desc=split, unit="image")):
            file = f"{split}/{number:06d}"
            if row["image"] is None:
                raise DataError(f"{name} {file} has no image. Leave the row out.")
            blob = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
            check_image(f"{name} {file}", blob)
            label = feature.int2str(row["label"]) if isinstance(feature, datasets.ClassLabel) else str(row["label"])
            columns["label"].append(labels.index(label.lower()))
            columns["file"].append(file)
            columns["sha256"].append(content_hash(blob))
            photo = row.get("photo")
            columns["photo"].append(columns["sha256"][-1] if photo in (None, "") else str(photo))
            columns["group"].append(columns["photo"][-1])
        images = images.select_columns("image")  # the bytes stay in the file that `datasets` maps
        features = _features(labels)
        for column, values in columns.items():
            images = images.add_column(column, values, feature=features[column])
        loaded[SPLIT_FOLDERS.get(split.lower(), split)] = images
    return refuse_shared_content(datasets.DatasetDict(loaded))


def _features(labels: list[str]) -> datasets.Features:
    return datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=labels),
            "file": datasets.Value("string"),
            "sha256": datasets.Value("string"),
            "photo": datasets.Value("string"),
            "group": datasets.Value("string"),
        }
    )


def _as_dataset(columns: dict[str, list], labels: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(dict(columns), features=_features(labels))


def _common_labels(label_names: dict[str, list[str]], where: str | Path) -> list[str]:
    """Return the class names, in alphabetical order, after making sure that every split shows all of them."""
    labels = sorted(set().union(*label_names.values()))
    for split, names in label_names.items():
        if missing := sorted(set(labels) - set(names)):
            having = [other for other, those in label_names.items() if missing[0] in those]
            raise DataError(
                f"{where}: the class {missing[0]!r} stands in {', '.join(having)} but not in {split}. "
                "Every split must show every class: add its images or remove the class folder."
            )
    return labels


def refuse_shared_content(splits: datasets.DatasetDict) -> datasets.DatasetDict:
    """Return ``splits`` unchanged if no content stands in two splits or under two labels, and no photo is learnt and measured.

    Raises:
        DataError: naming both files.
    """
    seen: dict[str, tuple[str, str, int]] = {}
    for split, data in splits.items():
        for file, digest, label in zip(data["file"], data["sha256"], data["label"], strict=True):
            other_split, other_file, other_label = seen.setdefault(digest, (split, file, label))
            if other_split != split:
                raise DataError(
                    f"{file} and {other_file} are the same image in two splits, {split} and {other_split}. Remove one."
                )
            if other_label != label:
                names = data.features["label"].names
                raise DataError(
                    f"{file} and {other_file} are the same image under two labels, {names[label]} and {names[other_label]}. "
                    "Remove the wrong one."
                )
    photos: dict[str, tuple[str, str]] = {}
    for split, data in splits.items():
        for file, photo in zip(data["file"], data["photo"], strict=True):
            other_split, other_file = photos.setdefault(photo, (split, file))
            # Two test splits may show the same photos, as the archive's do.
            if other_split != split and not {split, other_split}.isdisjoint({"train", "validation"}):
                raise DataError(
                    f"{file} ({split}) and {other_file} ({other_split}) show the same photo, {photo}. Put them into one split."
                )
    return splits


def fingerprint(splits: datasets.DatasetDict) -> str:
    """Return 16 hexadecimal digits that change when any image, label or split changes, and not with folder or order."""
    digest = hashlib.sha256()
    for split in sorted(splits):
        names = splits[split].features["label"].names
        for entry in sorted(zip(splits[split]["sha256"], splits[split]["label"], strict=True)):
            digest.update(f"{split} {entry[0]} {names[entry[1]]}\n".encode())
    return digest.hexdigest()[:HASH_LENGTH]
