"""Lay the network's evidence over the photograph."""

import numpy as np
from colours import evidence_colours
from numpy.typing import NDArray
from PIL import Image

STRIDE = 8  # photograph pixels, at the network's size, from one place of the evidence map to the next
LONGEST = 1024  # px, the longer side of what is shown: sharp on a large screen, light to send


def speaks_for(evidence: NDArray[np.floating], number: int) -> NDArray[np.float64]:
    """Say how much more each place speaks for one class than for the classes on average.

    Only differences between classes decide a softmax, hence the mean is taken off; what is left below zero spoke for
    another class and is set to zero.

    Args:
        evidence: (classes, h, w) in logits.
        number: the class.

    Returns:
        (h, w), 0..1, where 1 is the strongest half per cent of the places; all 0 where nothing spoke for the class.
    """
    more = np.clip(evidence[number] - evidence.mean(axis=0), 0, None)
    # The very strongest places would leave the rest of the map dark.
    top = np.percentile(more, 99.5) or more.max()
    return np.clip(more / top, 0, 1) if top > 0 else np.zeros(more.shape)


def stretch(values: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    """Stretch a map (h, w) of values 0..1 over a picture of ``size`` (width, height), which the network saw squashed.

    The network's paddings centre place 0 on pixel 0, place 1 on pixel 8 and so on; a plain resize would centre place 0
    on the middle of the first eight pixels, half a place too far right and down.

    Returns:
        (height, width), 0..1.
    """
    rows, columns = values.shape
    padded = np.pad(values, ((0, 1), (0, 1)), mode="edge").astype(np.float32)
    start = 0.5 - 0.5 / STRIDE
    box = (start, start, columns + start, rows + start)
    resized = Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC, box=box)
    return np.clip(np.asarray(resized, dtype=np.float64), 0, 1)


def heat_layer(values: NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """Colour the places where ``values`` (h, w; 0..1) are high: a layer to lay over the photo.

    Args:
        values: as ``speaks_for`` gives them.
        size: width and height of the photo, px.

    Returns:
        RGBA; the stronger a place, the less transparent. Lay it over the photo in grey, so that the stain cannot be taken for
        evidence.
    """
    heat = stretch(values, size)
    opacity = 255 * 0.88 * heat[..., None] ** 0.75
    return Image.fromarray(np.rint(np.concatenate([evidence_colours(heat), opacity], axis=-1)).astype(np.uint8))


def shown_photo(photo: Image.Image) -> Image.Image:
    """Make a photo small enough to show, ``LONGEST`` px at most."""
    photo = photo.copy()
    photo.thumbnail((LONGEST, LONGEST))
    return photo
