"""A cell has no upright: the eight flips and quarter turns of an image, whether an answer stays, and the mean over them."""

import numpy as np

VIEWS = (
    "as it is",
    "turned by 90 degrees",
    "turned by 180 degrees",
    "turned by 270 degrees",
    "mirrored",
    "mirrored and turned by 90 degrees",
    "mirrored and turned by 180 degrees",
    "mirrored and turned by 270 degrees",
)


def eight_views(image: np.ndarray) -> list[np.ndarray]:
    """Turn and mirror an image in the eight ways that keep its pixels, in the order of ``VIEWS``.

    Turns are counterclockwise, and mirroring, left to right, comes before them. A quarter turn of (H, W) is (W, H); a processor
    that squashes images to a square then squashes the cell along its other axis.

    Parameters
    ----------
    image
        (H, W, ...), rows first.

    Returns
    -------
    list of numpy.ndarray
        Eight copies, (H, W, ...) or (W, H, ...).

    Raises
    ------
    ValueError
        Fewer than two axes.
    """
    if image.ndim < 2:
        raise ValueError(
            f"The image has shape {image.shape}; expected (H, W, ...). Pass one image with rows and columns."
        )
    return [np.rot90(side, turns).copy() for side in (image, image[:, ::-1]) for turns in range(4)]


def stays(predicted: np.ndarray) -> np.ndarray:
    """Say in which of the other views the top label is that of the image as it is.

    The mean over the last axis is the share of views that agree, ``all`` over it says whether all do.

    Parameters
    ----------
    predicted
        Class numbers, (..., 8) in the order of ``VIEWS``.

    Returns
    -------
    numpy.ndarray
        (..., 7) bool.

    Raises
    ------
    ValueError
        Another number of views.
    """
    _require_views(predicted.shape[-1:], predicted.shape)
    return predicted[..., 1:] == predicted[..., :1]


def average_views(probabilities: np.ndarray) -> np.ndarray:
    """Average the probabilities over the eight views: test-time augmentation that no longer depends on how a cell lies.

    Parameters
    ----------
    probabilities
        (..., 8, classes).

    Returns
    -------
    numpy.ndarray
        (..., classes).

    Raises
    ------
    ValueError
        Another number of views.
    """
    _require_views(probabilities.shape[-2:-1], probabilities.shape)
    return probabilities.mean(axis=-2)


def _require_views(views: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if views != (len(VIEWS),):
        raise ValueError(
            f"An array of shape {shape} came, with views {list(views)}; expected {len(VIEWS)} of each image. Classify what "
            "eight_views gives, in its order."
        )
