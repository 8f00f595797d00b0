"""Drawn smears: pale ground, pink red cells and one white cell of a known class, place and size, and folders of them."""

import csv
import functools
import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from smears.loading import load_folder
from smears.provenance import ImageRow

LABELS = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
SIZE = (96, 72)  # px, (width, height)
ARCHIVE_IMAGES = Path("dataset2-master/dataset2-master/images")
ARCHIVE_PHOTOS = Path("dataset-master/dataset-master")
TABLE_COLUMNS = tuple(field.name for field in fields(ImageRow))  # of hub_dataset/images.csv

CYTOPLASM = {
    "eosinophil": (232, 160, 150),
    "lymphocyte": (170, 185, 230),
    "monocyte": (185, 180, 205),
    "neutrophil": (228, 205, 222),
}
# Lobes of the nucleus: (across, along, radius) in radii of the cell.
LOBES = {
    "eosinophil": [(-0.35, 0.1, 0.42), (0.35, -0.1, 0.42)],
    "lymphocyte": [(0.05, 0.0, 0.82)],
    "monocyte": [(-0.3, 0.25, 0.5), (0.0, -0.1, 0.5), (0.35, 0.2, 0.5)],
    "neutrophil": [(-0.5, 0.2, 0.3), (0.0, -0.3, 0.3), (0.45, 0.3, 0.3)],
}

MARKERS = {  # colours that no drawn smear has, so that a cell is known by its pixels
    "eosinophil": (200, 60, 40),
    "lymphocyte": (40, 60, 200),
    "monocyte": (60, 160, 80),
    "neutrophil": (120, 40, 140),
}
GROUND, RED_CELL = (230, 225, 235), (225, 150, 160)


def _disc(image: np.ndarray, centre: tuple[float, float], radius: float, colour) -> None:
    """Draw a disc with a soft edge about (col, row), to a sixteenth of a pixel."""
    place = tuple(round(value * 16) for value in centre)
    cv2.circle(image, place, round(radius * 16), [int(v) for v in colour], cv2.FILLED, cv2.LINE_AA, shift=4)


def draw_smear(label: str, seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, list[int]]:
    """Draw a field (H, W, 3), uint8 RGB, and give its white cell's box (row_min, col_min, row_max, col_max).

    The same label, seed and size (w, h) give the same pixels.
    """
    rng = np.random.default_rng((LABELS.index(label), seed))
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[:] = rng.integers(215, 240, 3)
    for _ in range(6):
        _disc(image, (rng.uniform(0, width), rng.uniform(0, height)), height * 0.11, (225, 150, 160))
    radius = height * rng.uniform(0.2, 0.26)
    col, row = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    _disc(image, (col, row), radius, CYTOPLASM[label])
    angle = rng.uniform(0, 2 * np.pi)
    for across, along, share in LOBES[label]:
        turned = np.exp(1j * angle) * complex(across, along) * radius
        _disc(image, (col + turned.real, row + turned.imag), share * radius, (95, 55, 135))
    image = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    return image, [round(value) for value in (row - radius, col - radius, row + radius, col + radius)]


def draw_disc(
    size: tuple[int, int], centre: tuple[float, float], radius: float, colour=(60, 40, 120), ground=(230, 225, 235)
) -> np.ndarray:
    """Draw one disc about (col, row) on a plain ground; ``size`` is (w, h)."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[:] = ground
    _disc(image, centre, radius, colour)
    return image


FIELD_CELLS = ((110, 150), (330, 420), (90, 500))  # row and col of the cells' middles
FIELD_RADIUS = 60  # px, of a white cell; red cells have 38


def draw_field(seed=0, white=FIELD_CELLS, size=(480, 640), ground=(230, 225, 235)):
    """Draw a field (H, W, 3) uint8 with red cells and white cells about these places, and give the white cells' boxes."""
    rng = np.random.default_rng(seed)
    field = np.full((*size, 3), ground, np.uint8)
    for row in range(40, size[0] + 40, 95):  # where one looks at a smear, red cells hardly overlap
        for col in range(40, size[1] + 40, 95):
            place = np.array([col, row]) + rng.uniform(-14, 14, 2)
            if rng.random() < 0.8:
                _disc(field, place, rng.uniform(35, 41), RED_CELL)
    for number, (row, col) in enumerate(white):
        label = LABELS[number % len(LABELS)]
        _disc(field, (col, row), FIELD_RADIUS, CYTOPLASM[label])
        for across, along, share in LOBES[label]:
            _disc(
                field, (col + across * FIELD_RADIUS, row + along * FIELD_RADIUS), share * FIELD_RADIUS, (105, 60, 150)
            )
    noisy = np.clip(field + rng.normal(0, 3, field.shape), 0, 255).astype(np.uint8)
    return noisy, [
        (row - FIELD_RADIUS, col - FIELD_RADIUS, row + FIELD_RADIUS, col + FIELD_RADIUS) for row, col in white
    ]


def write_image(path: Path, image: np.ndarray, **options) -> Path:
    """Write an image in the format of its ending, and its folder with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def write_class_folders(
    folder: Path,
    each: int = 2,
    labels=LABELS,
    first_seed: int = 0,
    size: tuple[int, int] = (24, 18),
    ending: str = ".png",
) -> Path:
    """Write CLASS/00.png ...: ``each`` different drawings for each class; the folders are named as in ``labels``."""
    for label in labels:
        for number in range(each):
            image, _ = draw_smear(label.lower(), first_seed + number, size)
            write_image(folder / label / f"{number:02d}{ending}", image)
    return folder


def write_splits(folder: Path, splits: dict[str, int], labels=LABELS, **options) -> Path:
    """Write SPLIT/CLASS/00.png ...; ``splits`` says how many drawings each class of a split has, none of them twice."""
    for place, (split, each) in enumerate(splits.items()):
        write_class_folders(folder / split, each, labels, first_seed=100 * place, **options)
    return folder


@dataclass
class DrawnPhoto:
    """One photo of a drawn archive, and the files that were made from it."""

    number: int
    label: str
    box: list[int]  # row_min, col_min, row_max, col_max
    path: Path
    copies: list[tuple[str, Path]] = field(default_factory=list)  # (split folder, file)

    @property
    def name(self) -> str:
        return f"BloodImage_{self.number:05d}"


def write_voc(path: Path, objects: list[tuple[str, list[int]]]) -> None:
    """Write boxes (row_min, col_min, row_max, col_max) with the names of what is in them as a VOC annotation."""
    entries = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{box[1]}</xmin><ymin>{box[0]}</ymin>"
        f"<xmax>{box[3]}</xmax><ymax>{box[2]}</ymax></bndbox></object>"
        for name, box in objects
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{entries}</annotation>", encoding="utf-8")


def write_archive(
    root: Path, train: int = 3, test: int = 1, copies: int = 2, size: tuple[int, int] = SIZE
) -> list[DrawnPhoto]:
    """Write a miniature of the Kaggle archive: per class ``train`` + ``test`` photos, and turned copies of each.

    TEST_SIMPLE shows the test photos once, upright. The classes take turns in the numbers of the photos.
    """
    photos = []
    for number in range((train + test) * len(LABELS)):
        label, seed = LABELS[number % len(LABELS)], number // len(LABELS)
        image, box = draw_smear(label, seed, size)
        path = write_image(
            root / ARCHIVE_PHOTOS / "JPEGImages" / f"BloodImage_{number:05d}.jpg", image, quality=95, subsampling=0
        )
        photo = DrawnPhoto(number, label, box, path)
        write_voc(root / ARCHIVE_PHOTOS / "Annotations" / f"{photo.name}.xml", [("RBC", [0, 0, 9, 8]), ("WBC", box)])
        split = "TRAIN" if seed < train else "TEST"
        places = [(split, f"_{number}_{copy}.jpeg", np.rot90(image, 2 * (copy % 2))) for copy in range(copies)]
        if split == "TEST":
            places.append(("TEST_SIMPLE", f"_0_{number}.jpeg", image))
        for place, name, copy in places:
            quality = 90 if place == "TEST_SIMPLE" else 93  # the same photo, another file
            file = write_image(root / ARCHIVE_IMAGES / place / label.upper() / name, copy, quality=quality)
            photo.copies.append((place, file))
        photos.append(photo)
    with (root / ARCHIVE_PHOTOS / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("", "Image", "Category"), *(("", p.number, p.label.upper()) for p in photos)])
    return photos


def write_table(path: Path, photos: list[DrawnPhoto], groups: dict[int, int] | None = None) -> Path:
    """Write the table that names the photo of each copy; ``groups`` says which photos show another photo's cells."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(TABLE_COLUMNS)
        for photo in photos:
            for split, file in photo.copies:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
                group = (groups or {}).get(photo.number, photo.number)
                known = {"sha256": digest, "photo": photo.number, "group": group, "split": split, "label": photo.label}
                known |= {"file": f"{split}/{photo.label.upper()}/{file.name}", "fold": photo.number % 5}
                known |= {"inliers": 50, "margin": 40, "residual": 1.5, "a": 1, "b": 0, "c": 0, "d": 0, "e": 1, "f": 0}
                writer.writerow([known.get(column, "") for column in TABLE_COLUMNS])
    return path


def write_photo_column(split_dir: Path, photo_of: dict[str, str]) -> Path:
    """Write a split's metadata.csv: which photo each file, named from the split's folder, shows."""
    table = split_dir / "metadata.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file_name", "photo"), *photo_of.items()])
    return table


def write_box_table(path: Path, rows: list[tuple], slides: bool = True) -> Path:
    """Write boxes.csv from rows (file, label, box, slide); a box is (row_min, col_min, row_max, col_max)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "xmin", "ymin", "xmax", "ymax", *(["slide"] if slides else [])])
        for file, label, (top, left, bottom, right), *slide in rows:
            writer.writerow([file, label, left, top, right, bottom, *slide])
    return path


def write_fields(
    folder: Path, labels=("lymphocyte", "neutrophil"), each: int = 3, size: tuple[int, int] = (320, 240)
) -> dict[str, list[tuple[str, list[int]]]]:
    """Write a laboratory of fields and its boxes.csv, each field a slide of its own.

    CLASS/0.png shows a cell of that class and one of the next: discs of 44 px in the colours of ``MARKERS``, about a quarter
    and three quarters of the width. Above the middle lies a red cell. Returns the white cells (label, box) of each file.
    """
    cells, rows, radius = {}, [], 22
    rng = np.random.default_rng(len(labels) * each)
    for place, label in enumerate(labels):
        for number in range(each):
            file, slide = f"{label}/{number}.png", f"slide {label} {number}"
            image = draw_disc(size, (size[0] / 2, 40), 12, RED_CELL, GROUND)
            rows.append((file, "RBC", [28, size[0] // 2 - 12, 52, size[0] // 2 + 12], slide))
            cells[file] = []
            for shown, share in ((label, 0.25), (labels[(place + 1) % len(labels)], 0.75)):
                col, row = round(size[0] * share + rng.uniform(-15, 15)), round(rng.uniform(90, size[1] - 60))
                _disc(image, (col, row), radius, MARKERS[shown])
                box = [row - radius, col - radius, row + radius, col + radius]
                cells[file].append((shown, box))
                rows.append((file, shown, box, slide))
            write_image(folder / file, image)
    write_box_table(folder / "boxes.csv", rows)
    return cells


@functools.cache
def real_archive(folder: Path):
    """Load the real archive once for all tests that look at it."""
    return load_folder(folder)
