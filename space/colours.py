"""Every colour that carries meaning: one for each class and verdict, and the scale of the evidence map."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Okabe and Ito's palette (2008), which people with any form of colour blindness can tell apart.
SUBTYPES = {
    "EOSINOPHIL": "#D55E00",
    "LYMPHOCYTE": "#0072B2",
    "MONOCYTE": "#009E73",
    "NEUTROPHIL": "#CC79A7",
    "BASOPHIL": "#56B4E9",
    "OTHER": "#E69F00",
}
OTHERS = ("#F0E442", "#000000")
UNIDENTIFIED = "#5F5F5F"  # no class: darker than the grey of what is not counted
NOT_COUNTED = "#B0B0B0"  # cells that an earlier photo shows, finds that are no cell

# Eleven points of viridis (van der Walt and Smith, 2015), evenly spaced from 0 to 1: equal steps look equal.
VIRIDIS = np.array(
    [
        (68, 1, 84),
        (72, 36, 117),
        (65, 68, 135),
        (53, 95, 141),
        (42, 120, 142),
        (33, 145, 140),
        (34, 168, 132),
        (68, 191, 112),
        (122, 209, 81),
        (189, 223, 38),
        (253, 231, 37),
    ],
    dtype=float,
)


def subtype_colours(labels: Iterable[str]) -> dict[str, str]:
    """Give each label its colour, ``#rrggbb``; a label unknown here gets one of the colours left over."""
    spare = iter(OTHERS * 64)
    return {label: SUBTYPES.get(label.upper()) or next(spare) for label in labels}


def evidence_colours(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colour values 0..1 of shape (H, W) with viridis: (H, W, 3), RGB 0..255."""
    places = np.linspace(0, 1, len(VIRIDIS))
    return np.stack([np.interp(values, places, VIRIDIS[:, channel]) for channel in range(3)], axis=-1)


def verdict_colours(labels: Iterable[str]) -> dict[str, str]:
    """Give each label and "unidentified" its colour, ``#rrggbb``."""
    return {**subtype_colours(labels), "unidentified": UNIDENTIFIED}


def ink_on(colour: str) -> str:
    """Say whether black or white is read better on a colour, by the contrast of WCAG 2.2."""
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    light = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"
