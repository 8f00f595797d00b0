"""Say whether a picture may be a photo of a stained blood smear, before cells are looked for in it.

    reason = why_no_smear(picture)  # None, or "no stained smear: ..."

Nothing is trained. What counts is how light changes from place to place, in logarithms, so that the lamp, its unevenness and
the camera's white balance drop out (Beer and Lambert). Eosin and azure both absorb green most: where a smear grows darker
green falls, red falls less, and blue hardly follows. Elsewhere shade darkens all three alike, and paint knows no such order.

A grey picture has three equal colours whatever it shows: whether it shows a smear cannot be known, nor which stain is where,
which is what cells are named by. So it is refused as grey. An empty field is a smear: red cells alone, or all out of focus;
a bright, even, nearly colourless picture cannot be told from clear ground and passes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from .cell_finding import LONGEST_STRIP, check_field, is_strip
from .sentences import Sentence, say

SIDE = 192  # px, the longer one, of the thumbnail that is looked at: a field's red cells are 5 px or more wide
# Of the longer side: changes over longer ways are the lamp's. Red cells of a close crop are 0.3 wide.
SURROUNDINGS = 0.4
NEAR = 0.15  # in these even a strong vignette is level
DARKEST = 4  # of 255: logarithms of less would be a camera's noise
LIGHT = 0.95  # quantile of the brightest channel: what the ground lets through

# A phone that looks into an eyepiece shows a black rim, a turned copy black corners: dark, and at the edge.
RIM_LIGHT = 0.3  # of the ground's; nuclei at the edge of a field, blue as they are, have more
RIM_GLOW = 0.02  # of the longer side, beside the rim
MOST_RIM = 0.9  # of the picture

# Limits. Each stands well outside what the four laboratories' fields show that may be looked at, and was moved outwards until
# turned white balance, vignette, blur, noise and stronger contrast hardly mattered.
MIN_LIGHT = 60  # of 255; theirs have 164 and more
EVEN = 0.08  # contrast below which a picture is even; theirs have 0.11 to 0.69
MAX_TINT_EVEN = 0.4  # of an even picture; theirs have up to 0.40, with cells on it
MAX_TINT = 0.9  # of any other: the same and a camera set for another lamp
MAX_CONTRAST = 1.0  # of a good camera's field; theirs have up to 0.69
MAX_FAINT = 0.5  # contrast of a poor camera's; Chula's has up to 0.43
MAX_FAINT_LIGHT = 245  # it is never as bright as paper; Chula's has up to 235
MAX_RED_CELLS = 0.35  # contrast of red cells without a white one; theirs have up to 0.31
# Of the densities of green light: cells are darker than the ground, not lighter. Theirs have -0.26 and more, Chula's -0.77.
MIN_SKEW, MIN_FAINT_SKEW = -0.8, -1.5


REASONS = {
    "dark": "it is too dark",
    "one_colour": "it is of one colour throughout, and not of clear ground's",
    "grey": "it is grey, and only colour tells a stain",
    "colourful": "its light parts are too colourful for clear ground",
    "no_stain": "its colours are not those of a blood stain",
    "contrast": "light and dark differ more than in a smear",
    "inverted": "it shows light things on dark, not cells on clear ground",
}


@dataclass(frozen=True)
class _Order:
    """How red and blue light's density follow green's: limits of their slopes, and of red's correlation."""

    red: tuple[float, float]
    blue: tuple[float, float]
    tie: tuple[float, float]


# Good cameras gave red 0.21 to 0.84, blue -0.06 to 0.81, correlation 0.70 and more. A poor one, which mixes the channels and
# shows the lens's colours at edges, gave 0.67 to 1.92, 0.25 to 0.98, 0.54 to 0.89; a grey picture has a correlation of 1.
STAIN = _Order(red=(0.0, 0.9), blue=(-0.25, 0.8), tie=(0.5, 1.0))
FAINT_STAIN = _Order(red=(0.25, 2.2), blue=(-0.25, 1.0), tie=(0.35, 0.95))
# Red cells alone: blood's own red is as dark in blue light as in green. Squares without white cells gave blue up to 0.91; in
# bright eosin it is 1 and more.
RED_CELLS = _Order(red=(-0.1, 0.7), blue=(0.3, 1.15), tie=(0.3, 1.0))
RED_LEAD = -0.1  # slope of red less that of blue, of a poor camera's
GREY = 0.01  # mean difference between a place's densities of red, green and blue; a faint field has 0.02 and more


@dataclass(frozen=True)
class _Look:
    """What a picture looks like: light of the ground, 0..255; the rest in natural logarithms of light, or of no unit.

    `tint`: between the ground's brightest and darkest channel. `contrast`: standard deviation of the densities of the three
    channels together. `red`, `blue`: slopes of their density on green's. `tie`: red's correlation with green. `skew`: of green.
    `colour`: mean difference between the densities of one place. `relief`: contrast, in narrow surroundings.
    """

    light: float
    tint: float
    contrast: float
    red: float
    blue: float
    tie: float
    skew: float
    colour: float
    relief: float


def why_no_smear(picture: Image.Image | np.ndarray) -> Sentence | None:
    """Give the reason why an upright picture shows no stained smear, or None where it may be one.

    Takes a PIL image or (height, width, 3) uint8 RGB, 0..255, of 32 px or more each side; a field, or the crop of a cell.

    Raises:
        TypeError: the picture is an array of another dtype, or no picture.
        ValueError: it has another shape, or a side of less than 32 px.
    """
    image = check_field(picture)
    if is_strip(image):
        text = f"no stained smear: it is more than {LONGEST_STRIP} times as long as broad"
        return say("smear_strip", text, times=LONGEST_STRIP)
    scale = min(1.0, SIDE / max(image.size))
    shape = [max(1, round(length * scale)) for length in image.size]
    small = image if scale == 1 else image.resize(shape, Image.Resampling.BOX, reducing_gap=2.0)
    look = _look(np.asarray(small))
    which = "dark" if look is None else _judge(look)
    return which and say(f"smear_{which}", f"no stained smear: {REASONS[which]}")


def _judge(look: _Look) -> str | None:
    """Give the name of a reason, or None."""
    if look.light < MIN_LIGHT:
        return "dark"
    grey = look.colour < GREY
    if look.contrast < EVEN or (grey and look.relief < EVEN):
        return None if look.tint <= MAX_TINT_EVEN else "one_colour"
    if grey:
        return "grey"
    if look.tint > MAX_TINT:
        return "colourful"
    dull = look.skew >= MIN_FAINT_SKEW and look.contrast <= MAX_FAINT and look.light <= MAX_FAINT_LIGHT
    if dull and look.red - look.blue >= RED_LEAD and _is_in(FAINT_STAIN, look):
        return None
    if look.skew >= MIN_SKEW and look.contrast <= MAX_RED_CELLS and _is_in(RED_CELLS, look):
        return None
    if not _is_in(STAIN, look):
        return "no_stain"
    if look.contrast > MAX_CONTRAST:
        return "contrast"
    if look.skew < MIN_SKEW:
        return "inverted"
    return None


def _is_in(order: _Order, look: _Look) -> bool:
    pairs = (order.red, look.red), (order.blue, look.blue), (order.tie, look.tie)
    return all(low <= value <= high for (low, high), value in pairs)


def _look(pixels: np.ndarray) -> _Look | None:
    """Measure a thumbnail (H, W, 3) uint8; None where hardly anything is lit."""
    brightest = pixels.max(-1)
    light = float(np.quantile(brightest, LIGHT))
    seen = ~_rim(brightest, light)
    if seen.mean() < 1 - MOST_RIM:
        return None
    density = -np.log(np.maximum(pixels, DARKEST, dtype=np.float32))
    local = _local(density, seen, SURROUNDINGS)  # (N, 3)
    covariance = local.T @ local / len(local)
    variance = np.maximum(np.diag(covariance), 1e-6)  # an even picture's is 0
    lit = pixels[seen].astype(np.float32)
    lit = lit[lit.max(1) >= np.median(lit.max(1))].mean(0)
    colour = float(np.ptp(local, axis=1).mean())
    return _Look(
        light=light,
        tint=float(np.ptp(np.log(np.maximum(lit, 1)))),
        contrast=float(np.sqrt(np.trace(covariance))),
        red=float(covariance[0, 1] / variance[1]),
        blue=float(covariance[2, 1] / variance[1]),
        tie=float(covariance[0, 1] / np.sqrt(variance[0] * variance[1])),
        skew=float((local[:, 1] ** 3).mean() / variance[1] ** 1.5),
        colour=colour,
        relief=float(np.linalg.norm(_local(density, seen, NEAR).std(0))) if colour < GREY else np.inf,
    )


def _local(density: np.ndarray, seen: np.ndarray, size: float) -> np.ndarray:
    """Density (N, 3) of the N seen px, against that of their surroundings, which are so large a share of the longer side."""
    width = max(3, round(size * max(seen.shape)))
    share = np.maximum(_spread(seen.astype(np.float32), width), 1e-3)
    around = [_spread(density[..., channel] * seen, width) / share for channel in range(3)]
    local = (density - np.stack(around, -1))[seen]
    return local - local.mean(0)


def _spread(values: np.ndarray, width: int) -> np.ndarray:
    """Mean over the surroundings, nearer ones counting more."""
    return ndimage.uniform_filter(ndimage.uniform_filter(values, width), width)


def _rim(brightest: np.ndarray, light: float) -> np.ndarray:
    dark, _ = ndimage.label(brightest < RIM_LIGHT * light)
    at_edge = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    rim = np.isin(dark, at_edge[at_edge > 0])
    glow = max(1, round(RIM_GLOW * max(brightest.shape)))
    return ndimage.binary_dilation(rim, iterations=glow) if rim.any() else rim
