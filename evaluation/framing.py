"""How closely a cell is cut out: squares about its box, from tighter than the box to twice its side."""

from collections.abc import Callable, Sequence

import datasets
import numpy as np

from evaluation.measure import open_image

WINDOWS = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)  # sides of the square, in the longer side of the cell's box

Box = Sequence[int]


def boxes_of_cells(
    dataset: datasets.Dataset, find: Callable[[np.ndarray], Sequence[Box]]
) -> tuple[list[Box | None], int]:
    """Give the box of the cell that each image's label names: the annotated one, else the largest that is found.

    Parameters
    ----------
    dataset
        With the columns ``image``, ``file`` and ``boxes`` of ``smears.laboratories.load_laboratory``.
    find
        Gives the boxes of the white cells in a picture (H, W, 3), uint8 RGB.

    Returns
    -------
    (list, int)
        For each row (row_min, col_min, row_max, col_max), px, or None where nothing is annotated and nothing was found; and how
        many of them are annotated.
    """
    boxes, annotated = [], 0
    for row in dataset:
        own = row["boxes"]
        annotated += bool(own)
        candidates = own or find(np.asarray(open_image(row["image"], row["file"]).convert("RGB")))
        boxes.append(max(candidates, key=lambda box: max(box[2] - box[0], box[3] - box[1]), default=None))
    return boxes, annotated
