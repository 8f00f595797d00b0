"""Fields with the boxes of their white cells: the Kaggle archive's photos, and laboratories with a table of boxes."""

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from smears.laboratories import read_box_table
from smears.photos import find_photo_folder, photo_name, read_boxes

NOT_WHITE = ("rbc", "platelets")  # labels of a table of boxes


def read_fields(data_dir: Path) -> tuple[list[Path], list[list[list[int]]]]:
    """List the fields and, of each, its white cells' boxes (row_min, col_min, row_max, col_max), px."""
    if (data_dir / "boxes.csv").exists():
        table = read_box_table(data_dir / "boxes.csv")
        endings = Image.registered_extensions()
        files = sorted(file for file in data_dir.rglob("*") if file.suffix.lower() in endings)
        return files, [
            [
                row["box"]
                for row in table.get(str(file.relative_to(data_dir).as_posix()), [])
                if row["label"] not in NOT_WHITE
            ]
            for file in files
        ]
    folder = find_photo_folder(data_dir)
    files = sorted((folder / "JPEGImages").glob("*.jpg"))
    return files, [read_boxes(folder, file.stem) for file in files]


def read_tests(path: Path | None, names: Sequence[str]) -> set[int]:
    """Read which fields are official test photos, as positions, from a CSV of photo and split."""
    if path is None:
        return set()
    with path.open(newline="", encoding="utf-8") as stream:
        tests = {photo_name(int(row["photo"])) for row in csv.DictReader(stream) if row["split"] == "TEST"}
    return {position for position, name in enumerate(names) if name in tests}
