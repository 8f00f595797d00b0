"""Several laboratories as one collection: common class names, and for each image its laboratory, slide and boxes.

A laboratory is a folder that ``smears.loading`` reads. Beside its class folders it may have a table ``boxes.csv`` with the
columns ``file`` (CLASS/image.jpg, from the table's own folder), ``label``, ``xmin``, ``ymin``, ``xmax``, ``ymax`` (pixels)
and perhaps ``slide``. A box labelled with one of the laboratory's classes is a cell with a subtype of its own: such images
are fields, and each of their cells becomes a row. A box labelled ``WBC`` is a white cell of the image's class; any other box
is no white cell.
"""

import csv
import io
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
from PIL import ExifTags, Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from smears.loading import DataError, check_image, content_hash, load_folder
from smears.photos import (
    PHOTO_PREFIX,
    find_photo_folder,
    name_photos,
    photo_name,
    photos_at_hand,
    photos_behind,
    read_boxes,
)
from smears.provenance import read_labels
from smears.splits import VALIDATION_SHARE, hold_out

BOX_TABLE = "boxes.csv"
WHITE_CELL = "wbc"
BASOPHIL = "basophil"
SMALLEST_BOX = 30.0  # px: of the fields at hand, smaller boxes of white cells are slips of the hand that drew them
WINDOW = 2.0  # side of the square that is cut out about a cell of a field, in sides of its box
SAME_CELLS = Path(__file__).parent / "same_cells.csv"  # written by `python -m smears.same_cells`
BOX_COLUMNS = ("boxes", "cells", "others")
_BOXES = datasets.List(datasets.List(datasets.Value("int32")))
logger = logging.getLogger(__name__)


def read_box_table(path: Path) -> dict[str, list[dict]]:
    """Read ``boxes.csv``: for each file its rows, with ``label`` in lower case, ``box`` and ``slide``.

    Raises:
        DataError: a column is missing, or a box is none.
    """
    boxes = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        table = csv.DictReader(stream)
        wanted = ("file", "label", "xmin", "ymin", "xmax", "ymax")
        if missing := sorted(set(wanted) - set(table.fieldnames or ())):
            raise DataError(f"{path} has the columns {table.fieldnames}, without {missing}. Expected {list(wanted)}.")
        for row in table:
            try:
                left, top, right, bottom = (float(row[name]) for name in wanted[2:])
            except (TypeError, ValueError):
                left = right = 0.0
            if not (0 <= left < right < math.inf and 0 <= top < bottom < math.inf):
                raise DataError(
                    f"{path}, line {table.line_num}: {row} is no box; expected numbers from 0 on with xmin < xmax and "
                    "ymin < ymax."
                )
            boxes[row["file"]].append(
                {
                    "label": row["label"].lower(),
                    "box": [round(value) for value in (top, left, bottom, right)],
                    "slide": row.get("slide") or "",
                }
            )
    return dict(boxes)


def read_same_cells(path: Path = SAME_CELLS) -> dict[str, str]:
    """Read which images show the same cells: the group of each content hash that has one."""
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["sha256"]: row["group"] for row in csv.DictReader(stream)}


def load_laboratory(data_dir: str | Path) -> datasets.DatasetDict:
    """Load one laboratory's splits, under its own class names.

    Returns:
        Per split the columns of ``smears.loading.load_folder``, and ``lab`` (the folder's name); ``slide`` ("" where unknown;
        images of one slide have one ``group``, since consecutive frames show the same cells); ``whole``, whether the
        label names all of the image, not one cell of several; and three lists of boxes (row_min, col_min, row_max,
        col_max) in pixels: ``boxes``, the cells that the label names, ``cells``, all white cells of the image, and
        ``others``, red cells and platelets. Of the Kaggle archive the split ``train`` holds the photos themselves.

    Raises:
        DataError: as ``load_folder`` and ``read_box_table``; no split ``train``; a box table that names files which are not
            there, or boxes that do not lie in their images.
    """
    root = Path(data_dir)
    splits = name_photos(load_folder(root))
    if "train" not in splits:
        raise DataError(
            f"{root} has the splits {sorted(splits)} and no 'train' to learn from. Add one, or name its folder alone."
        )
    table = {}
    for path in sorted(root.rglob(BOX_TABLE)):
        below = path.parent.relative_to(root)
        table |= {(below / file).as_posix(): rows for file, rows in read_box_table(path).items()}
    if strays := sorted(table.keys() - {file for data in splits.values() for file in data["file"]}):
        raise DataError(
            f"{root}: {BOX_TABLE} names {strays[0]!r} (and {len(strays) - 1} more), which is not there. Write names as "
            "CLASS/image.jpg, from the table's own folder."
        )
    known = read_same_cells()
    loaded = {}
    for split, data in splits.items():
        if split == "train" and photos_at_hand(data, root):
            data = _with_photo_boxes(photos_behind(data, root), root)
            data = data.add_column("flags", [[]] * len(data), feature=splits[split].features["flags"])
        else:
            data = _with_table_boxes(data, table, root)
        groups = _tie(data["slide"], [known.get(digest, "") for digest in data["sha256"]], data["group"])
        data = data.remove_columns("group").add_column("group", groups, feature=datasets.Value("string"))
        loaded[split] = data.add_column("lab", [root.resolve().name] * len(data), feature=datasets.Value("string"))
    return datasets.DatasetDict(loaded)


def _tie(*columns: Sequence[str]) -> list[str]:
    """Name a group for each image (N,): images that share a value in one of the columns (N,), be it over others, share it.

    An empty value ties nothing. The name is the smallest value in the first column that has one.
    """
    keys = [[(place, value) for place, value in enumerate(values) if value] for values in zip(*columns, strict=True)]
    nodes = sorted({key for row in keys for key in row})
    number = {key: n for n, key in enumerate(nodes)}
    pairs = [(number[first], number[other]) for first, *others in keys for other in others]
    starts, ends = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (starts, ends)), shape=(len(nodes), len(nodes)))
    _, group = connected_components(graph, directed=False)
    first_of = dict(zip(group[::-1], nodes[::-1], strict=True))  # the smallest comes last and stays
    return [first_of[group[number[first]]][1] for first, *_ in keys]


def _with_photo_boxes(photos: datasets.Dataset, root: Path) -> datasets.Dataset:
    folder = find_photo_folder(root)
    names = [Path(file).stem for file in photos["file"]]
    others = [read_boxes(folder, name, "RBC") + read_boxes(folder, name, "Platelets") for name in names]
    photos = photos.add_column("cells", photos["boxes"][:], feature=_BOXES)
    photos = photos.add_column("others", others, feature=_BOXES)
    photos = photos.add_column("whole", [True] * len(photos), feature=datasets.Value("bool"))
    return photos.add_column("slide", [""] * len(photos), feature=datasets.Value("string"))


def _with_table_boxes(data: datasets.Dataset, table: Mapping[str, list[dict]], root: Path) -> datasets.Dataset:
    """Add the boxes of a table; an image with boxes of subtypes becomes a row for each of its cells."""
    names = [name.lower() for name in data.features["label"].names]
    numbers, labels, slides, columns = [], [], [], {name: [] for name in BOX_COLUMNS}
    passed_over = Counter()
    fields = any(row["label"] in names for rows in table.values() for row in rows)
    own = data["label"][:]

    def subtype(label: str, of_image: int) -> int:
        return names.index(label) if label in names else of_image

    for number, file in enumerate(data["file"]):
        rows = table.get(file, [])
        if rows:
            _require_inside(root / file, rows)
        white = [row for row in rows if row["label"] in (WHITE_CELL, *names)]
        small = [row for row in white if min(_sides(row["box"])) < SMALLEST_BOX]
        passed_over["box too small"] += len(small)
        white = [row for row in white if row not in small]
        others = [row["box"] for row in rows if row["label"] not in (WHITE_CELL, *names)]
        cells = [row["box"] for row in white]
        if not fields:
            told = [(own[number], cells)]
        elif not (told := [(subtype(row["label"], own[number]), [row["box"]]) for row in white]):
            passed_over["field without a box"] += 1
        for label, boxes in told:
            numbers.append(number)
            labels.append(label)
            slides.append(rows[0]["slide"] if rows and rows[0]["slide"] != "unknown" else "")
            for name, value in zip(BOX_COLUMNS, (boxes, cells, others), strict=True):
                columns[name].append(value)
    if no_cells := sorted({row["label"] for rows in table.values() for row in rows} - {WHITE_CELL, *names}):
        logger.info("%s: boxes of %s count as no white cell", root.name, ", ".join(no_cells))
    for reason, count in passed_over.items():
        if count:
            logger.warning("%s: %s, %d left out", root.name, reason, count)
    data = data.select(numbers)
    data = data.remove_columns("label").add_column("label", labels, feature=data.features["label"])
    data = data.add_column("whole", [not fields] * len(data), feature=datasets.Value("bool"))
    data = data.add_column("slide", slides, feature=datasets.Value("string"))
    for name, values in columns.items():
        data = data.add_column(name, values, feature=_BOXES)
    return data


def _require_inside(path: Path, rows: Sequence[Mapping]) -> None:
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:  # shown turned by a quarter
            width, height = height, width
    for row in rows:
        if row["box"][2] > height + 1 or row["box"][3] > width + 1:  # one more: some tables count pixels from 1
            raise DataError(
                f"{path} is {width} x {height} px and {BOX_TABLE} has the box {row['box']} in it (row_min, col_min, row_max, "
                "col_max). Write boxes in the pixels of the image as it is; one that was resized needs its boxes resized."
            )


def _sides(box: Sequence[int]) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def rename_classes(
    data: datasets.Dataset, labels: Sequence[str], label_map: Mapping[str, str] | None = None
) -> datasets.Dataset:
    """Number the classes as in ``labels``, after ``label_map`` (name here: name there); labels without images may be missing.

    Raises:
        DataError: a class of the data is not among ``labels``.
    """
    label_map = label_map or {}
    names = [label_map.get(name, name) for name in data.features["label"].names]
    present = data["label"][:]
    if strange := sorted({names[label] for label in set(present)} - set(labels)):
        lab = data["lab"][0] if "lab" in data.column_names else "the images"
        raise DataError(
            f"The class {strange[0]!r} of {lab} is not among {list(labels)}. Say which of them it is "
            f"({strange[0]}=CLASS), or add it to them."
        )
    numbers = [labels.index(names[label]) for label in present]
    feature = datasets.ClassLabel(names=list(labels))
    return data.remove_columns("label").add_column("label", numbers, feature=feature)


def divide(
    splits: datasets.DatasetDict, validation_share: float = VALIDATION_SHARE, test_share: float = 0.0, seed: int = 0
) -> datasets.DatasetDict:
    """Hold out by ``group`` what a laboratory brings no split of: first ``test``, then ``validation``, from ``train``.

    Raises:
        DataError: as ``hold_out``; a share to test on of a laboratory that brings its own test images.
    """
    divided = dict(splits)
    lab = divided["train"]["lab"][0]
    if test_share and "test" in divided:
        raise DataError(f"{lab} has test images of its own; leave out its share to test on.")
    try:
        if test_share:
            divided["train"], divided["test"] = hold_out(divided["train"], test_share, seed)
        if "validation" not in divided:
            share = validation_share / (1 - test_share)
            divided["train"], divided["validation"] = hold_out(divided["train"], share, seed)
    except DataError as error:
        raise DataError(f"{lab}: {error}") from error
    return datasets.DatasetDict(divided)


def is_archive(train: datasets.Dataset) -> bool:
    """Say whether these are photos of the Kaggle archive."""
    return all(photo.startswith(PHOTO_PREFIX) for photo in train["photo"])


def basophil_photos(data_dir: str | Path, like: datasets.Dataset) -> datasets.Dataset:
    """Load the archive's photos of basophils, for which it has no folder of copies, with the columns and classes of ``like``.

    Raises:
        DataError: the archive's photos are not about ``data_dir``; ``like`` has no class ``basophil``.
    """
    folder = find_photo_folder(data_dir)
    classes = like.features["label"]
    if BASOPHIL not in classes.names:
        raise DataError(f"The classes are {classes.names}, without {BASOPHIL!r}; nothing says what these photos show.")
    rows = []
    for number, subtypes in read_labels(folder.parent.parent).items():
        if subtypes.lower() == BASOPHIL:
            name = photo_name(number)
            path = folder / "JPEGImages" / f"{name}.jpg"
            data = path.read_bytes()
            check_image(str(path), data)
            boxes = read_boxes(folder, name)
            others = read_boxes(folder, name, "RBC") + read_boxes(folder, name, "Platelets")
            row = {"image": {"path": str(path), "bytes": None}, "label": classes.str2int(BASOPHIL), "file": path.name}
            row |= {"sha256": content_hash(data), "photo": name, "group": name, "flags": [], "lab": like["lab"][0]}
            rows.append(row | {"slide": "", "whole": True, "boxes": boxes, "cells": boxes, "others": others})
    # An archive may have none of them; a list without rows would bring no columns.
    return datasets.Dataset.from_list(rows, features=like.features) if rows else like.select([])


def cut_cells(data: datasets.Dataset, window: float = WINDOW) -> datasets.Dataset:
    """Replace each field by the square about its cell: what a person or a cell finder would cut out.

    Args:
        data: as ``load_laboratory`` gives it; rows that are ``whole`` stay as they are.
        window: side of the square, in sides of the box.

    Returns:
        The rows with other images; their lists of boxes stay those of the fields.
    """
    if all(data["whole"]):
        return data

    def cut(row: Mapping) -> dict:
        if row["whole"]:
            return row
        (box,) = row["boxes"]
        row_min, col_min, row_max, col_max = box
        half = max(row_max - row_min, col_max - col_min) * window / 2
        middle = ((col_min + col_max) / 2, (row_min + row_max) / 2)
        image = datasets.Image().decode_example(dict(row["image"])).convert("RGB")  # upright, as its EXIF says
        # Pillow fills with black what lies beyond the field's edge
        square = image.crop(tuple(round(x + d * half) for d in (-1, 1) for x in middle))
        stream = io.BytesIO()
        square.save(stream, "PNG")
        return {"image": {"bytes": stream.getvalue(), "path": None}}

    return data.map(cut, features=data.features, load_from_cache_file=False, desc="cutting out cells")


def unseen_cells(data_dir: str | Path, labels: Sequence[str], label_map: Mapping[str, str]) -> datasets.Dataset:
    """Load what could be learnt from a laboratory, as a user has its cells: never its test images.

    Raises:
        DataError: as ``load_laboratory`` and ``rename_classes``.
    """
    return cut_cells(rename_classes(load_laboratory(data_dir)["train"], labels, label_map))


def held_out_cells(
    data_dir: str | Path,
    labels: Sequence[str],
    label_map: Mapping[str, str],
    share: float,
    seed: int,
    test_share: float = 0.0,
) -> datasets.Dataset:
    """Load what training holds out of a laboratory that it learns from, for validation, as a user has its cells.

    ``share``, ``seed`` and ``test_share`` are those of the training, or other images come.

    Raises:
        DataError: as ``load_laboratory``, ``divide`` and ``rename_classes``.
    """
    held = divide(load_laboratory(data_dir), share, test_share, seed)["validation"]
    return cut_cells(rename_classes(held, labels, label_map))
