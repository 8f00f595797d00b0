"""How tightly a cell is framed: a picture cut closer about its middle, and how much of its side the cell then takes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

ZOOMS = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
SMALLEST = 2  # px, of the sides that a cut leaves


def cut_closer(image: np.ndarray, zoom: float) -> np.ndarray:
    """Cut a picture about its middle, to 1/zoom of its height and of its width.

    Parameters
    ----------
    image
        (H, W, ...), rows first.
    zoom
        1 or more; 1 leaves the picture as it is.

    Returns
    -------
    numpy.ndarray
        A view of (H / zoom, W / zoom, ...), rounded.

    Raises
    ------
    ValueError
        A zoom below 1, or one that leaves less than two pixels of a side.
    """
    if not zoom >= 1:
        raise ValueError(f"The zoom is {zoom}; expected 1 or more: a picture does not show what lies round it.")
    height, width = (round(side / zoom) for side in image.shape[:2])
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"A zoom of {zoom:g} leaves {width}x{height} px; expected {SMALLEST} or more. Choose a lower one."
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def cell_share(
    images: Iterable[np.ndarray], find: Callable[[np.ndarray], Sequence[Sequence[int]]]
) -> tuple[float | None, int]:
    """Say how much of a picture's shorter side the longer side of its largest white cell takes.

    Parameters
    ----------
    images
        (H, W, 3), uint8 RGB.
    find
        Gives the boxes of a picture's white cells, (row_min, col_min, row_max, col_max), px.

    Returns
    -------
    (float or None, int)
        The median over the pictures in which a cell was found, None where there are none, and their number.
    """
    shares = []
    for image in images:
        if boxes := find(image):
            longest = max(max(box[2] - box[0], box[3] - box[1]) for box in boxes)
            shares.append(longest / min(image.shape[:2]))
    return (float(np.median(shares)) if shares else None), len(shares)
