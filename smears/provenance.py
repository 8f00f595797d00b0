"""Read the Kaggle archive and the tables that say which photo each of its images comes from."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SPLITS = ("TRAIN", "TEST", "TEST_SIMPLE")
PHOTO_FOLDER = Path("dataset-master/dataset-master")
IMAGE_FOLDER = Path("dataset2-master/dataset2-master/images")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class ArchiveImage:
    """One file of the archive's image folders, with the split and the label that its folders name."""

    path: Path
    split: str
    label: str


@dataclass(frozen=True)
class RegistrationRow:
    """One line of `registrations.csv`: the photo that a file was made from, and the map that shows it.

    `file`: path below the archive's folder of images, `SPLIT/LABEL/name`. `sha256`: first 16 hexadecimal digits of the
    file's SHA-256. `photo` and `group` (the smallest number among the photos of the same cells): None when unsure.
    `inliers`: keypoints that agree, the score; `margin`: that less the same for the best photo of other cells.
    `residual`: mean absolute difference under the map, grey levels, 0 to 255, after the
    best linear change of brightness. `frame`: 0 to 1, intersection over union
    of the image's picture and the photo's frame. `a` to `f`: the photo's (x, y), in pixels of the photo at a width of
    320, stands in the image, at a width of 320, at (a x + b y + c, d x + e y + f); all 0 without a registration.
    """

    file: str
    sha256: str
    photo: int | None
    group: int | None
    inliers: int
    margin: int
    residual: float
    frame: float
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    @property
    def split(self) -> str:
        """The official split, as the archive spells it."""
        return self.file.split("/")[0]

    @property
    def label(self) -> str:
        """The official label, as the archive spells it."""
        return self.file.split("/")[1]

    @property
    def matrix(self) -> np.ndarray:
        """The map from the photo to the image, (2, 3) float64, x before y."""
        return np.array([[self.a, self.b, self.c], [self.d, self.e, self.f]])


@dataclass(frozen=True)
class OverlapRow:
    """One line of `overlaps.csv`: two photos of the same cells, and their labels in `labels.csv`.

    `inliers` and `residual` as in `RegistrationRow`. `shift_x`, `shift_y`: what to add to (x, y) in b to stand in a, in
    pixels at a width of 320. `shared_cells`: white cells whose boxes fall together, None where one photo has no box (and
    before `smears.kaggle_tables` looked).
    """

    photo_a: int
    photo_b: int
    inliers: int
    residual: float
    shift_x: float
    shift_y: float
    label_a: str
    label_b: str
    shared_cells: int | None = None


@dataclass(frozen=True)
class ImageRow:
    """One line of `hub_dataset/images.csv`: a file of the archive's folders of images.

    `file`, `sha256`, `photo`, `group`, `inliers`, `margin`, `residual`, `a` to `f`: as in `RegistrationRow`. `split`: the
    official one. `clean_split`: `train`, `validation`, `test`, or empty where a clean split has no place for the image.
    `fold`: 0 to 4, groups whole, None for TEST_SIMPLE. `label`: in lower case. `flags`: see `FLAGS`, separated by `;`.
    `cell`: 0 to 1, how much of the nucleus of the white cell that is seen most of lies inside the image; None where
    nobody drew its box.
    """

    file: str
    sha256: str
    photo: int | None
    group: int | None
    split: str
    clean_split: str
    fold: int | None
    label: str
    flags: str
    cell: float | None
    inliers: int
    margin: int
    residual: float
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    @property
    def matrix(self) -> np.ndarray:
        """The map from the photo to the image, (2, 3) float64, x before y, as in `RegistrationRow`."""
        return np.array([[self.a, self.b, self.c], [self.d, self.e, self.f]])


@dataclass(frozen=True)
class PhotoRow:
    """One line of `hub_dataset/photos.csv`: a photo that images were made from.

    `file`: its name in `JPEGImages`. `sha256`: first 16 hexadecimal digits. `cells`: boxes of white cells in BCCD's
    annotations. `images`: files made from it, the photo's own in TEST_SIMPLE included. The others as in `ImageRow`.
    """

    photo: int
    file: str
    sha256: str
    group: int
    split: str
    clean_split: str
    fold: int
    label: str
    flags: str
    cells: int
    images: int


FLAGS = {
    "no cell": "the image was shifted until the white cell left it: under 5 % of its nucleus is inside",
    "sliver": "less than half of the nucleus lies inside the image",
    "several cells": "two white cells or more are seen, and the label names one of them",
    "no box": "BCCD gives no box of a white cell for the photo, so that nobody can tell by it what is seen",
    "conflict": "another photo shows the same white cell under another label",
    "leak": "an image of TEST or TEST_SIMPLE whose photo overlaps a photo of TRAIN",
}


def photo_number(path: Path) -> int:
    """Read the number that ends a photo's name: 12 for `BloodImage_00012.jpg`.

    Raises:
        ValueError: the name has none.
    """
    digits = path.stem[len(path.stem.rstrip("0123456789")) :]
    if not digits:
        raise ValueError(f"{path} has no number, expected digits at the end of its name as in BloodImage_00012.jpg")
    return int(digits)


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file holds no image.
    """
    content = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if image is None:
        raise ValueError(f"{path} ({len(content)} bytes) holds no image, expected JPEG or PNG; fetch the file again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _folder(archive_root: Path, inside: Path) -> Path:
    folder = archive_root / inside
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder, expected the archive root to hold {inside}; "
            "unpack the Kaggle archive and give the folder that holds dataset-master/ and dataset2-master/"
        )
    return folder


def list_photos(archive_root: Path) -> list[Path]:
    """List the archive's photos by name.

    Raises:
        FileNotFoundError: the folder is missing or holds none.
    """
    folder = _folder(archive_root, PHOTO_FOLDER / "JPEGImages")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"{folder} holds no photo, expected BloodImage_*.jpg; unpack the archive again")
    return paths


def list_images(archive_root: Path) -> list[ArchiveImage]:
    """List the images of TRAIN, TEST and TEST_SIMPLE by folder and name.

    Raises:
        FileNotFoundError: a split's folder is missing or holds none.
    """
    images = []
    for split in SPLITS:
        folder = _folder(archive_root, IMAGE_FOLDER / split)
        paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise FileNotFoundError(f"{folder} holds no image, expected LABEL/*.jpeg; unpack the archive again")
        images += [ArchiveImage(path, split, path.parent.name) for path in paths]
    return images


def read_labels(archive_root: Path) -> dict[int, str]:
    """Read `labels.csv`: the subtypes of each photo as written there, in the file's order, empty if none.

    Raises:
        FileNotFoundError: the folder or the file is missing.
        ValueError: the columns are others.
    """
    path = _folder(archive_root, PHOTO_FOLDER) / "labels.csv"
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"Image", "Category"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} has columns {reader.fieldnames}, expected Image and Category; take the original")
        return {int(row["Image"]): row["Category"].strip() for row in reader}


def _write(path: Path, kind: type, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(kind)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _read(path: Path, kind: type) -> list[dict[str, str]]:
    expected = [field.name for field in fields(kind)]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != expected:
            raise ValueError(f"{path} has columns {reader.fieldnames}, expected {expected}; write the table again")
        return list(reader)


def _from_text(kind: type, row: dict[str, str]) -> Any:
    """Turn a line's texts into the types that the fields name; an empty number is None."""
    read = {int: int, float: float, str: str}
    read |= {
        int | None: lambda text: int(text) if text else None,
        float | None: lambda text: float(text) if text else None,
    }
    return kind(**{field.name: read[field.type](row[field.name]) for field in fields(kind)})


def write_registrations(path: Path, rows: Iterable[RegistrationRow]) -> None:
    """Write the table of images, sorted by split, label and name."""
    _write(path, RegistrationRow, sorted(rows, key=lambda row: (SPLITS.index(row.split), row.file)))


def read_registrations(path: Path) -> list[RegistrationRow]:
    """Read the table of images.

    Raises:
        ValueError: its columns are others.
    """
    return [_from_text(RegistrationRow, row) for row in _read(path, RegistrationRow)]


def write_overlaps(path: Path, rows: Iterable[OverlapRow]) -> None:
    """Write the table of overlapping photos, sorted by their numbers."""
    _write(path, OverlapRow, sorted(rows, key=lambda row: (row.photo_a, row.photo_b)))


def read_overlaps(path: Path) -> list[OverlapRow]:
    """Read the table of overlapping photos.

    Raises:
        ValueError: its columns are others.
    """
    return [_from_text(OverlapRow, row) for row in _read(path, OverlapRow)]


def write_images(path: Path, rows: Iterable[ImageRow]) -> None:
    """Write the published table of images, sorted by split, label and name."""
    _write(path, ImageRow, sorted(rows, key=lambda row: (SPLITS.index(row.split), row.file)))


def read_images(path: Path) -> list[ImageRow]:
    """Read the published table of images.

    Raises:
        ValueError: its columns are others.
    """
    return [_from_text(ImageRow, row) for row in _read(path, ImageRow)]


def write_photos(path: Path, rows: Iterable[PhotoRow]) -> None:
    """Write the published table of photos, sorted by their numbers."""
    _write(path, PhotoRow, sorted(rows, key=lambda row: row.photo))


def read_photos(path: Path) -> list[PhotoRow]:
    """Read the published table of photos.

    Raises:
        ValueError: its columns are others.
    """
    return [_from_text(PhotoRow, row) for row in _read(path, PhotoRow)]


def unfinished(table: Path) -> Path:
    """Name the file that keeps the rows of a table of images until all are there."""
    return table.with_suffix(".partial.csv")


def read_unfinished(path: Path) -> list[RegistrationRow]:
    """Read the rows that an interrupted run left, and cut off a last line that it did not finish."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    path.write_text(whole, encoding="utf-8")
    names = [field.name for field in fields(RegistrationRow)]
    return [_from_text(RegistrationRow, dict(zip(names, line, strict=True))) for line in csv.reader(whole.splitlines())]


@contextmanager
def appending(path: Path) -> Iterator[Callable[[RegistrationRow], None]]:
    """Open an unfinished table and give the function that adds a row to it, on disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def append(row: RegistrationRow) -> None:
            writer.writerow(asdict(row).values())
            file.flush()

        yield append
