"""The photos behind the Kaggle copies: which copy shows which photo, and the photos themselves with their cells' boxes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import datasets
import numpy as np

from smears.loading import DataError, check_image, content_hash
from smears.provenance import PHOTO_FOLDER, read_images

logger = logging.getLogger(__name__)

TABLE = Path(__file__).parent.parent / "hub_dataset" / "images.csv"  # written by `python -m smears.kaggle_tables`
PHOTO_PREFIX = "BloodImage_"
COPY_SIZE = (320, 240)  # px, width and height of the archive's copies; its photos are twice as large


def photo_name(number: int) -> str:
    """Return the name of a photo of the archive, without its ending."""
    return f"{PHOTO_PREFIX}{number:05d}"


def name_photos(splits: datasets.DatasetDict, table: Path = TABLE) -> datasets.DatasetDict:
    """Fill the columns ``photo`` and ``group`` of Kaggle copies from the provenance table, joined by content hash.

    A column ``flags`` comes beside them: a list of what is known of each image, see ``smears.provenance.FLAGS``. Images that
    the table does not know keep what they have and get no flag, and their number is logged.
    """
    known = {row.sha256: row for row in read_images(table) if row.photo is not None}
    named = {}
    for split, data in splits.items():
        rows = [known.get(digest) for digest in data["sha256"]]
        if found := sum(row is not None for row in rows):
            logger.info("%s: %d of %d images traced to their photo", split, found, len(rows))
        columns = {
            "photo": [photo_name(row.photo) if row else old for row, old in zip(rows, data["photo"], strict=True)],
            "group": [photo_name(row.group) if row else old for row, old in zip(rows, data["group"], strict=True)],
            "flags": [row.flags.split(";") if row and row.flags else [] for row in rows],
        }
        texts = datasets.Value("string")
        for column, values in columns.items():
            if column in data.column_names:
                data = data.remove_columns(column)
            data = data.add_column(column, values, feature=datasets.List(texts) if column == "flags" else texts)
        named[split] = data
    return datasets.DatasetDict(named)


def boxes_on_copies(copies: datasets.Dataset, data_dir: str | Path, table: Path = TABLE) -> datasets.Dataset:
    """Add a column ``boxes``: the white cells' boxes of each copy's photo, carried over by the map of its registration.

    ``boxes`` holds (row_min, col_min, row_max, col_max) in pixels of the copy, about the turned box, cut at the copy's edge;
    a cell of which less than a third is left has none, nor has an image that the table does not know.

    Raises:
        DataError: the archive with its annotations is not about ``data_dir``.
    """
    folder = find_photo_folder(data_dir)
    known = {row.sha256: row for row in read_images(table) if row.photo is not None}
    photos = {row.photo: read_boxes(folder, photo_name(row.photo)) for row in known.values()}
    column = []
    for digest in copies["sha256"]:
        row = known.get(digest)
        carried = [carry_box(box, row.matrix) for box in photos[row.photo]] if row else []
        column.append([box for box in carried if box])
    return copies.add_column("boxes", column, feature=datasets.List(datasets.List(datasets.Value("int32"))))


def carry_box(box: Sequence[int], matrix: np.ndarray) -> list[int] | None:
    """Carry a box of a photo over to a copy: (row_min, col_min, row_max, col_max) in px of the copy, or None.

    Args:
        box: the same in pixels of the photo, which is 640 px wide.
        matrix: (2, 3), from (x, y) at a width of 320 to the copy's, as in ``smears.provenance.ImageRow``.
    """
    row_min, col_min, row_max, col_max = np.array(box) / 2  # the photo at a width of 320
    # the ends of the ellipse's axes, turned: what a turned box's corners would add is background
    centre = np.array([(col_min + col_max) / 2, (row_min + row_max) / 2])
    radii = matrix[:, :2] * ((col_max - col_min) / 2, (row_max - row_min) / 2)  # (2, 2), x and y by axis
    reach = np.sqrt((radii**2).sum(axis=1))  # half the width and height of the turned ellipse
    middle = matrix[:, :2] @ centre + matrix[:, 2]
    low, high = np.clip([middle - reach, middle + reach], 0, COPY_SIZE)
    if np.prod(high - low) < np.prod(2 * reach) / 3:
        return None
    return [int(value) for value in (*low.round()[::-1], *high.round()[::-1])]


def find_photo_folder(data_dir: str | Path) -> Path:
    """Find ``dataset-master/dataset-master`` in the archive that ``data_dir`` is, or lies in.

    Raises:
        DataError: it is not there.
    """
    root = Path(data_dir).resolve()
    for folder in (root, *root.parents[:3]):
        if (folder / PHOTO_FOLDER / "JPEGImages").is_dir():
            return folder / PHOTO_FOLDER
    raise DataError(
        f"No {PHOTO_FOLDER}/JPEGImages in {root} or above it. Unpack the whole archive 'blood-cells', or train on the copies "
        "with --train_on images."
    )


def photos_at_hand(copies: datasets.Dataset, data_dir: str | Path) -> bool:
    """Say whether these are all copies of known photos, and the photos lie in the same archive."""
    try:
        find_photo_folder(data_dir)
    except DataError:
        return False
    return all(photo.startswith(PHOTO_PREFIX) for photo in copies["photo"])


def photos_behind(copies: datasets.Dataset, data_dir: str | Path) -> datasets.Dataset:
    """Load the photos that these copies were made from: one row a photo, with a column ``boxes`` of its white cells.

    Labels, photos and groups are those of the copies. ``boxes`` holds (row_min, col_min, row_max, col_max) in pixels of the
    photo, from the archive's VOC annotations; it is empty where the photo has none.

    Raises:
        DataError: the photos are missing or unreadable, a copy is traced to none, or copies of one photo carry two labels.
    """
    folder = find_photo_folder(data_dir)
    first = {}
    traced = [number for number, photo in enumerate(copies["photo"]) if photo.startswith(PHOTO_PREFIX)]
    if not traced:
        raise DataError(
            f"None of the {len(copies)} copies is traced to a photo of the archive: other files, or saved anew. Take the "
            "archive's own files, or train on the images as they lie with --train_on images."
        )
    if len(traced) < len(copies):
        stray = sorted(set(copies["file"]) - {copies[number]["file"] for number in traced})
        raise DataError(
            f"{stray[0]} (and {len(stray) - 1} more) is no copy of a photo of the archive, so its photo cannot be learnt from. "
            "Move it away, or train on the images as they lie with --train_on images."
        )
    for photo, group, label, file in zip(
        copies["photo"], copies["group"], copies["label"], copies["file"], strict=True
    ):
        kept = first.setdefault(photo, (group, label, file))
        if kept[1] != label:
            names = copies.features["label"].names
            raise DataError(
                f"{file} ({names[label]}) and {kept[2]} ({names[kept[1]]}) are copies of one photo, {photo}."
            )
    columns = {name: [] for name in ("image", "label", "file", "sha256", "photo", "group", "boxes")}
    for photo, (group, label, copy) in sorted(first.items()):
        path = folder / "JPEGImages" / f"{photo}.jpg"
        if not path.exists():
            raise DataError(f"{path}, the photo behind {copy}, is missing. Unpack the archive again.")
        data = path.read_bytes()
        check_image(str(path), data)
        values = (str(path), label, path.name, content_hash(data), photo, group, read_boxes(folder, photo))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    features = copies.features | {"boxes": datasets.List(datasets.List(datasets.Value("int32")))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({name: features[name] for name in columns}))


def read_boxes(folder: Path, photo: str, name: str = "WBC") -> list[list[int]]:
    """Read the boxes (row_min, col_min, row_max, col_max) of one kind of cell from a photo's VOC file, if it has one."""
    path = folder / "Annotations" / f"{photo}.xml"
    if not path.exists():
        return []
    boxes = []
    for entry in ElementTree.parse(path).getroot().iter("object"):
        if entry.findtext("name") == name:
            corner = {key: int(entry.findtext(f"bndbox/{key}")) for key in ("ymin", "xmin", "ymax", "xmax")}
            boxes.append([corner["ymin"], corner["xmin"], corner["ymax"], corner["xmax"]])
    return boxes
