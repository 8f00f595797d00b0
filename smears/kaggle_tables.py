"""Make the published tables of the Kaggle archive: for each image its photo, what it shows, and the split it belongs to.

    python -m smears.registration ARCHIVE_ROOT --out found
    python -m smears.kaggle_tables ARCHIVE_ROOT --found found --out hub_dataset

The first command looks for the photo of each image; the second, in seconds, adds labels, flags and splits, and writes
`images.csv`, `photos.csv` and `overlaps.csv`. `smears.provenance` says what their columns hold.
"""

import argparse
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from smears import provenance
from smears.alignment import WORKING_WIDTH
from smears.loading import DataError, content_hash
from smears.photos import COPY_SIZE, photo_name, read_boxes
from smears.provenance import ImageRow, OverlapRow, PhotoRow, RegistrationRow
from smears.registration import IMAGE_TABLE, OVERLAP_TABLE

logger = logging.getLogger(__name__)

FOLDS = 5
SEED = 0
VALIDATION_PART = 8  # one of so many parts of TRAIN is held out
NOTHING_SEEN = 0.05  # of the nucleus: what is less cannot be made out by eye
SLIVER = 0.5  # of the nucleus
SAME_CELL = 0.3  # intersection over union of the boxes of one cell in two photos: 0.38 and more, else 0 throughout


def nucleus(photo: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Find the pixels of a box that are stained most: the nucleus, in eosinophils the granules too.

    Args:
        photo: (H, W, 3) uint8 RGB.
        box: (row_min, col_min, row_max, col_max) in pixels of the photo.

    Returns:
        (N, 2) float, (x, y) in pixels of the photo at a width of 320.
    """
    row_min, col_min, row_max, col_max = box
    inside = cv2.GaussianBlur(photo[row_min:row_max, col_min:col_max], (5, 5), 0)
    saturation = cv2.cvtColor(inside, cv2.COLOR_RGB2HSV)[..., 1]
    _, stained = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    rows, columns = np.nonzero(stained)
    return (np.stack([columns + col_min, rows + row_min], axis=1) + 0.5) * WORKING_WIDTH / photo.shape[1]


def seen_share(points: np.ndarray, matrix: np.ndarray) -> float:
    """Say which share of points (N, 2) of a photo, at a width of 320, a copy's map (2, 3) leaves inside the copy."""
    places = points @ matrix[:, :2].T + matrix[:, 2]
    return float(((places >= 0) & (places < COPY_SIZE)).all(axis=1).mean())


def shared_cells(boxes_a: Sequence, boxes_b: Sequence, shift: tuple[float, float]) -> int:
    """Count the white cells that stand in both of two photos; `shift` (x, y), in photo pixels, takes b's boxes to a."""
    moved = [np.array(box) + (shift[1], shift[0], shift[1], shift[0]) for box in boxes_b]
    return sum(any(_iou(box, other) >= SAME_CELL for other in moved) for box in boxes_a)


def _iou(box: Sequence[float], other: Sequence[float]) -> float:
    inside = [min(box[k + 2], other[k + 2]) - max(box[k], other[k]) for k in (0, 1)]
    if min(inside) <= 0:
        return 0.0
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return inside[0] * inside[1] / (area + other_area - inside[0] * inside[1])


def flag_overlaps(overlaps: Sequence[OverlapRow], boxes: Mapping[int, list], zoom: float) -> list[OverlapRow]:
    """Fill `shared_cells` of each overlap; None where one of the two photos has no box."""
    return [
        replace(
            row,
            shared_cells=shared_cells(boxes[row.photo_a], boxes[row.photo_b], (row.shift_x / zoom, row.shift_y / zoom))
            if boxes[row.photo_a] and boxes[row.photo_b]
            else None,
        )
        for row in overlaps
    ]


def photo_flags(splits: Mapping[int, str], overlaps: Sequence[OverlapRow], boxes: Mapping[int, list]) -> dict[int, set]:
    """Say of each photo, by number, whether it has no box, leaks into TRAIN, or shows a cell under two labels."""
    flags = {photo: set() if boxes[photo] else {"no box"} for photo in splits}
    for row in overlaps:
        pair = (row.photo_a, row.photo_b)
        if not set(pair) <= splits.keys():
            continue  # a photo of no label or several, of which no image was made
        if {splits[photo] for photo in pair} == {"TRAIN", "TEST"}:
            flags[next(photo for photo in pair if splits[photo] == "TEST")].add("leak")
        if row.shared_cells and row.label_a != row.label_b:
            for photo in pair:
                flags[photo].add("conflict")
    return flags


def draw_folds(labels: Mapping[int, str], groups: Mapping[int, int], folds: int, seed: int = SEED) -> dict[int, int]:
    """Give each photo a fold, 0 to folds - 1: groups whole, labels in equal shares as far as they go."""
    photos = sorted(labels)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = splitter.split(photos, [labels[photo] for photo in photos], [groups[photo] for photo in photos])
    return {photos[place]: fold for fold, (_, held) in enumerate(parts) for place in held}


def clean_splits(
    splits: Mapping[int, str], labels: Mapping[int, str], groups: Mapping[int, int], flags: Mapping[int, set]
) -> dict[int, str]:
    """Give each photo its part of the clean split.

    The official one, less what would betray: photos of TEST that hang together with a photo of TRAIN, directly or through
    others, and photos of a cell with two labels stand in no part (the empty string). A part of TRAIN's groups is held out
    for validation.
    """
    learnt_groups = {groups[photo] for photo, split in splits.items() if split == "TRAIN"}
    clean = {
        photo: ""
        if "conflict" in flags[photo] or (split == "TEST" and groups[photo] in learnt_groups)
        else split.lower()
        for photo, split in splits.items()
    }
    learnt = {photo: labels[photo] for photo, part in clean.items() if part == "train"}
    held = draw_folds(learnt, groups, VALIDATION_PART)
    return clean | {photo: "validation" for photo, part in held.items() if part == 0}


def make_tables(
    archive_root: Path, registrations: Sequence[RegistrationRow], overlaps: Sequence[OverlapRow]
) -> tuple[list[ImageRow], list[PhotoRow], list[OverlapRow]]:
    """Make the three tables.

    Raises:
        DataError: copies of one photo stand in TRAIN and in TEST, or under two labels.
        FileNotFoundError: the archive lacks the photos.
    """
    folder = archive_root / provenance.PHOTO_FOLDER
    paths = {provenance.photo_number(path): path for path in provenance.list_photos(archive_root)}
    boxes = {number: read_boxes(folder, photo_name(number)) for number in paths}
    zoom = WORKING_WIDTH / provenance.read_image(next(iter(paths.values()))).shape[1]
    overlaps = flag_overlaps(overlaps, boxes, zoom)

    traced = [row for row in registrations if row.photo is not None]
    splits, labels, groups = {}, {}, {}
    for row in traced:
        official = "TRAIN" if row.split == "TRAIN" else "TEST"
        known = (splits, official), (labels, row.label.lower()), (groups, row.group)
        for table, value in known:
            if table.setdefault(row.photo, value) != value:
                raise DataError(
                    f"{row.file} is a copy of photo {row.photo} and says {value}, another copy {table[row.photo]}. "
                    "Look at both: one stands in the wrong folder, or the registration is wrong."
                )
    flags = photo_flags(splits, overlaps, boxes)
    folds = draw_folds(labels, groups, FOLDS)
    clean = clean_splits(splits, labels, groups, flags)
    copies = Counter(row.photo for row in traced)
    photos = [
        PhotoRow(
            photo=photo, file=paths[photo].name, sha256=content_hash(paths[photo].read_bytes()), group=groups[photo],
            split=splits[photo], clean_split=clean[photo], fold=folds[photo], label=labels[photo],
            flags=_join(flags[photo]), cells=len(boxes[photo]), images=copies[photo],
        )
        for photo in sorted(splits)
    ]  # fmt: skip
    nuclei = {
        photo: [nucleus(image, box) for box in boxes[photo]]
        for photo in splits
        for image in (provenance.read_image(paths[photo]),)
    }
    images = [_image_row(row, nuclei, flags, clean, folds) for row in registrations]
    return images, photos, overlaps


def _image_row(
    row: RegistrationRow,
    nuclei: Mapping[int, list[np.ndarray]],
    flags: Mapping[int, set],
    clean: Mapping[int, str],
    folds: Mapping[int, int],
) -> ImageRow:
    values = {name: value for name, value in vars(row).items() if name != "frame"}
    if row.photo is None:
        return ImageRow(
            **values, split=row.split, clean_split="", fold=None, label=row.label.lower(), flags="", cell=None
        )
    shares = [seen_share(points, row.matrix) for points in nuclei[row.photo]]
    shown = set(flags[row.photo])
    if shares:
        most = max(shares)
        shown |= {"no cell"} if most < NOTHING_SEEN else {"sliver"} if most < SLIVER else set()
        shown |= {"several cells"} if sum(share >= SLIVER for share in shares) > 1 else set()
    whole = row.split == "TEST_SIMPLE"  # the photos of TEST themselves: measured beside it, not in it
    return ImageRow(
        **values,
        split=row.split,
        clean_split="" if whole else clean[row.photo],
        fold=None if whole else folds[row.photo],
        label=row.label.lower(),
        flags=_join(shown),
        cell=round(max(shares), 2) if shares else None,
    )


def _join(flags: set[str]) -> str:
    return ";".join(flag for flag in provenance.FLAGS if flag in flags)


def _log_counts(images: Sequence[ImageRow], photos: Sequence[PhotoRow]) -> None:
    flagged = Counter((row.split, flag) for row in images for flag in row.flags.split(";") if flag)
    for (split, flag), count in sorted(flagged.items()):
        logger.info("%s: %d images flagged %r", split, count, flag)
    parts = defaultdict(Counter)
    for row in photos:
        parts[row.clean_split or "in no part"][row.label] += 1
    for part, counts in sorted(parts.items()):
        logger.info("clean split, %s: photos %s", part, dict(sorted(counts.items())))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the three tables; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m smears.kaggle_tables", description=__doc__.splitlines()[0])
    parser.add_argument("archive_root", type=Path, help="folder that holds dataset-master/ and dataset2-master/")
    parser.add_argument("--found", type=Path, required=True, help="folder that smears.registration wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tables into")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for name in (IMAGE_TABLE, OVERLAP_TABLE):
        if not (options.found / name).is_file():
            sys.exit(f"error: {options.found / name} is missing. Run python -m smears.registration to its end first.")
    try:
        images, photos, overlaps = make_tables(
            options.archive_root,
            provenance.read_registrations(options.found / IMAGE_TABLE),
            provenance.read_overlaps(options.found / OVERLAP_TABLE),
        )
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    provenance.write_images(options.out / "images.csv", images)
    provenance.write_photos(options.out / "photos.csv", photos)
    provenance.write_overlaps(options.out / "overlaps.csv", overlaps)
    _log_counts(images, photos)


if __name__ == "__main__":
    main()
