"""Read the Kaggle archive and the tables that say which photo each of its images comes from."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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
class PhotoRow:
    """One line of `kaggle_photos.csv`.

    `sha256`: first 16 hexadecimal digits of the file's sha256. `photo` and `group`: None when unsure. `inliers`:
    keypoints that agree. `residual`: grey levels, 0 to 255, one decimal.
    """

    sha256: str
    split: str
    label: str
    photo: int | None
    group: int | None
    inliers: int
    residual: float

    @property
    def key(self) -> tuple[str, str, str]:
        """What is unique in the table: the same file may stand in several folders."""
        return self.sha256, self.split, self.label


@dataclass(frozen=True)
class OverlapRow:
    """One line of `kaggle_overlaps.csv`: two photos of the same cells, and their labels in `labels.csv`."""

    photo_a: int
    photo_b: int
    inliers: int
    residual: float
    label_a: str
    label_b: str


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


def _write(path: Path, kind: type, rows: Iterable[PhotoRow | OverlapRow]) -> None:
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


def _photo_row(sha256: str, split: str, label: str, photo: str, group: str, inliers: str, residual: str) -> PhotoRow:
    numbers = (int(number) if number else None for number in (photo, group))
    return PhotoRow(sha256, split, label, *numbers, int(inliers), float(residual))


def write_photos(path: Path, rows: Iterable[PhotoRow]) -> None:
    """Write the table of images, sorted, each (sha256, split, label) once."""
    unique = {row.key: row for row in rows}
    _write(path, PhotoRow, sorted(unique.values(), key=lambda row: (SPLITS.index(row.split), row.label, row.sha256)))


def read_photos(path: Path) -> list[PhotoRow]:
    """Read the table of images.

    Raises:
        ValueError: its columns are others.
    """
    return [_photo_row(**row) for row in _read(path, PhotoRow)]


def write_overlaps(path: Path, rows: Iterable[OverlapRow]) -> None:
    """Write the table of overlapping photos, sorted by their numbers."""
    _write(path, OverlapRow, sorted(rows, key=lambda row: (row.photo_a, row.photo_b)))


def read_overlaps(path: Path) -> list[OverlapRow]:
    """Read the table of overlapping photos.

    Raises:
        ValueError: its columns are others.
    """
    return [
        OverlapRow(
            int(row["photo_a"]),
            int(row["photo_b"]),
            int(row["inliers"]),
            float(row["residual"]),
            row["label_a"],
            row["label_b"],
        )
        for row in _read(path, OverlapRow)
    ]


def unfinished(table: Path) -> Path:
    """Name the file that keeps the rows of a table of images until all are there."""
    return table.with_suffix(".partial.csv")


def read_unfinished(path: Path) -> list[PhotoRow]:
    """Read the rows that an interrupted run left, and cut off a last line that it did not finish."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    path.write_text(whole, encoding="utf-8")
    return [_photo_row(*line) for line in csv.reader(whole.splitlines())]


@contextmanager
def appending(path: Path) -> Iterator[Callable[[PhotoRow], None]]:
    """Open an unfinished table and give the function that adds a row to it, on disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def append(row: PhotoRow) -> None:
            writer.writerow(asdict(row).values())
            file.flush()

        yield append
