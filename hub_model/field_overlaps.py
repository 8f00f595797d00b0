"""The same cell in two overlapping fields of one slide is counted once.

Describe each field as it comes, keep the small description, and mark the repeats at the end:

    descriptions = [describe_field(picture) for picture in pictures]
    mark_repeats(images, descriptions)

Two fields of one microscope differ by a shift. For all shifts at once, through Fourier transforms, the fields' correlation
inside the overlap is computed that each shift would make (Padfield 2012, doi:10.1109/TIP.2011.2181402). The likeliest shift
is refined on larger pictures and believed only if the overlap agrees there as a whole and in nearly all of its parts; and
only cells in one place that look alike are one. A false merge loses a cell, a missed one counts it twice: in doubt, cells
stay apart.

Limits: fields of one magnification and pixel size, turned by no more than a degree or two, never mirrored; overlaps of
less than a sixth of a field are mostly missed, of less than a tenth not looked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from statistics import mode
from typing import Any

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from .sentences import say

KEPT_SIDE = 400  # px, at most, of a description's longer side
SEARCHED_SIDE = 112  # px, at most, while all shifts are tried: a red cell of BCCD is 16 px wide then
SMALLEST_SIDE = 16  # px of a field while searched: less shows no pattern
DENSITY_STEPS = 200  # grey levels per unit of optical density: 255 stands for 1.27, which few nuclei exceed
BACKGROUND_QUANTILE = 0.01  # of a field's densities: the clear ground
DARKEST_QUANTILE = 0.98  # of a field's densities: above, nuclei would outweigh all else
GROUND_SHARE = 1 / 16  # of the longer side, a standard deviation: broader changes are the lamp's and the lens's
LARGEST_DEVIATION = 3.0  # standard deviations: a crumb of dye weighs no more
MIN_ENERGY = 1e-3  # squared standard deviations times px: keeps blank overlaps from dividing by zero

# The values are from BCCD photos that are no official test photos. That evidence decides, and correlation alone does not, was
# settled after Chula's noisy fields had missed true overlaps and small crops of PBC and Raabin had shown false ones.
MIN_OVERLAP = 0.1  # of the smaller field's area
# -ln(1 - correlation^2) times the share grows with how unlikely chance is: a small overlap must agree better than a large
# one, whose correlation a noisy camera lowers. True overlaps of a sixth of a field start at 0.37, chance reaches 0.25.
MIN_EVIDENCE = 0.35
MIN_SEARCHED_EVIDENCE = 0.25  # before refinement, which adds to true ones
MIN_CORRELATION = 0.7  # chance reaches 0.68 where a third of the fields overlaps
NOISE = 1.0  # px of a description, standard deviation of the blur that takes a camera's noise out
PARTS = 8  # along the longer side: a part is about one red cell wide
MIN_PART_DEVIATION = 0.5  # standard deviations of the field: parts without pattern say nothing
MIN_PART_CORRELATION = 0.5
MIN_PARTS = 3  # with pattern: fewer could be one cell, and one round cell looks like another
MIN_PARTS_AGREEING = 0.9  # of the parts with pattern
MIN_BOX_AGREEMENT = 0.3  # intersection over union, of what of two boxes lies in the overlap
MIN_CELL_CORRELATION = 0.6  # of what of two cells lies in the overlap
OTHER_SIZE = say(
    "note_other_size",
    "of another size than other fields: if its magnification is another too, cells that they share count twice",
)
MIN_CELL_SIDE = 4  # px of a description: a thinner sliver of a cell is not compared


@dataclass(frozen=True)
class FieldDescription:
    """What is kept of a field.

    `height`, `width`: px of the field. `reduction`: how many of its pixels a side make one of `density`, a power of two.
    `density`: (height / reduction, width / reduction) uint8, optical density of green light above the ground's.
    """

    height: int
    width: int
    reduction: int
    density: np.ndarray


@dataclass(frozen=True)
class Overlap:
    """Two fields that show one place, by their positions; ``first < second``.

    `rows`, `cols`: px to add to a place in the second field to stand in the first. `correlation`: -1..1, of what both show.
    `share`: 0..1, the overlap's area in the smaller field's.
    """

    first: int
    second: int
    rows: int
    cols: int
    correlation: float
    share: float


def describe_field(picture: Image.Image | np.ndarray) -> FieldDescription:
    """Describe an upright field, a PIL image or (height, width, 3) uint8 RGB: at most 160 KB, whatever its size.

    Raises:
        TypeError: the picture is an array of another dtype, or no picture.
        ValueError: the array has another shape.
    """
    if isinstance(picture, Image.Image):
        picture = picture if picture.mode == "RGB" else picture.convert("RGB")
    elif not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        came = getattr(picture, "dtype", type(picture).__name__)
        raise TypeError(f"The field is {came}; expected a PIL image or an array of uint8, 0 to 255. Convert it first.")
    elif picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"The field has shape {picture.shape}; expected (height, width, 3) in RGB. Convert it first.")
    else:
        picture = Image.fromarray(picture)
    reduction = 1
    while max(picture.size) / reduction > KEPT_SIDE:
        reduction *= 2
    green = np.asarray(picture.getchannel("G").reduce(reduction), np.float32)
    density = -np.log10((green + 1) / 256)
    density = DENSITY_STEPS * (density - np.quantile(density, BACKGROUND_QUANTILE))
    return FieldDescription(picture.height, picture.width, reduction, np.clip(density, 0, 255).round().astype(np.uint8))


def mark_repeats(images: Sequence[dict[str, Any]], descriptions: Sequence[FieldDescription | None]) -> None:
    """Mark, in place, the cells that an earlier field of the slide shows already.

    Each later sight of a cell gets `same_as`, [image number, cell number] of the first; the others get None. The later of two
    fields that overlap says so in its `notes`; so does a field of another size than the usual one, since its magnification may
    be another. Cells that a reviewer dropped are no cell, so none is the same as they.

    Args:
        images: as the pipeline gives them, with `name`, `height`, `width`, `notes` and `cells`, each with its `box`.
        descriptions: of the same fields, in the same order; None for an image that was refused.

    Raises:
        ValueError: images and descriptions are not of the same fields.
    """
    if len(images) != len(descriptions):
        raise ValueError(f"{len(images)} images and {len(descriptions)} descriptions; expected one for each image.")
    for number, (image, described) in enumerate(zip(images, descriptions, strict=True)):
        if described is None and image["cells"]:
            raise ValueError(f"Image {number}, {image['name']}, has cells but no description: describe its field.")
        if described and (image["height"], image["width"]) != (described.height, described.width):
            raise ValueError(
                f"Image {number}, {image['name']}, is {image['height']} x {image['width']} px, its description "
                f"{described.height} x {described.width}; expected the upright field, described in the images' order."
            )
    present = [number for number, described in enumerate(descriptions) if described is not None]
    overlaps = find_overlaps([descriptions[number] for number in present])
    groups = _Groups()
    counts = []
    # the surest overlaps first: what they join, a doubtful one cannot spoil
    for overlap in sorted(overlaps, key=lambda overlap: -overlap.correlation * overlap.share):
        first, second = present[overlap.first], present[overlap.second]
        pairs = _same_cells(images[first], images[second], descriptions[first], descriptions[second], overlap)
        joined = sum(groups.join((first, one), (second, other)) for one, other in pairs)
        counts.append((second, first, joined))
    for number, image in enumerate(images):
        for place, cell in enumerate(image["cells"]):
            seen = groups.first((number, place))
            cell["same_as"] = None if seen == (number, place) else list(seen)
    sizes = {number: tuple(sorted((images[number]["height"], images[number]["width"]))) for number in present}
    usual = mode(sizes.values()) if sizes else None
    for number, size in sizes.items():
        if size != usual and OTHER_SIZE not in images[number]["notes"]:
            images[number]["notes"].append(OTHER_SIZE)
    for second, first, joined in sorted(counts):
        other = images[first]["name"]
        note = say("note_overlaps", f"overlaps {other}", other=other)
        if joined:
            text = f"{note}: {joined} cell{'' if joined == 1 else 's'} counted once"
            note = say("note_overlaps_cells", text, other=other, number=joined)
        if note not in images[second]["notes"]:
            images[second]["notes"].append(note)


def find_overlaps(descriptions: Sequence[FieldDescription]) -> list[Overlap]:
    """Find which of these fields show the same place, sorted by position.

    Two fields are compared at the scale of the larger, whatever the sizes of the others. It takes a fifth of a millisecond for
    each pair of fields and 0.3 MB for each field while it runs.
    """

    @cache
    def kept(position: int, reduction: int) -> np.ndarray:
        return _reduce(descriptions[position].density, reduction // descriptions[position].reduction)

    @cache
    def flat(position: int, reduction: int) -> np.ndarray:
        return _flatten(ndimage.gaussian_filter(kept(position, reduction), NOISE))

    @cache
    def searched(position: int, reduction: int, factor: int) -> np.ndarray:
        return _flatten(_reduce(kept(position, reduction), factor))

    by_size: dict[tuple[int, int, int], list[int]] = {}
    for position, described in enumerate(descriptions):
        by_size.setdefault((described.reduction, *described.density.shape), []).append(position)
    found = []
    for one, other in combinations_with_replacement(sorted(by_size), 2):
        if one == other and len(by_size[one]) == 1:
            continue
        reduction = max(one[0], other[0])
        sides = (side for size in (one, other) for side in kept(by_size[size][0], reduction).shape)
        factor = max(1, -(-max(sides) // SEARCHED_SIDE))
        pictures = [{p: searched(p, reduction, factor) for p in by_size[size]} for size in (one, other)]
        for first, second, rows, cols in _likely_shifts(*pictures):
            overlap = _verify(flat(first, reduction), flat(second, reduction), rows * factor, cols * factor, factor)
            if overlap:
                rows, cols, correlation, share = overlap
                found.append(Overlap(first, second, rows * reduction, cols * reduction, correlation, share))
    return sorted(found, key=lambda overlap: (overlap.first, overlap.second))


def _reduce(picture: np.ndarray, factor: int) -> np.ndarray:
    """Average squares of pixels: (H, W) of any number type to float32."""
    picture = picture.astype(np.float32)
    return picture if factor == 1 else np.asarray(Image.fromarray(picture).reduce(factor))


def _flatten(picture: np.ndarray) -> np.ndarray:
    """Take broad changes of brightness out, and scale to standard deviations."""
    picture = np.minimum(picture, np.quantile(picture, DARKEST_QUANTILE))
    flat = picture - ndimage.gaussian_filter(picture, GROUND_SHARE * max(picture.shape), mode="nearest")
    deviation = flat.std()
    if deviation < 1:  # grey level: an empty field, whose noise must not look like a pattern
        return np.zeros_like(flat)
    return np.clip(flat / deviation, -LARGEST_DEVIATION, LARGEST_DEVIATION)


def _likely_shifts(ones: dict[int, np.ndarray], others: dict[int, np.ndarray]) -> Iterator[tuple[int, int, int, int]]:
    """Give each pair of pictures (H, W) that may overlap, with the likeliest shift: first, second, rows, cols.

    Args:
        ones, others: by position, pictures of one size each; the same twice for the pairs among them.
    """
    one, other = (next(iter(pictures.values())).shape for pictures in (ones, others))
    if min(*one, *other) < SMALLEST_SIDE:
        return
    among = ones.keys() == others.keys()
    shape = tuple(fft.next_fast_len(a + b - 1, real=True) for a, b in zip(one, other, strict=True))
    spectra = {p: fft.rfft2(picture, shape) for p, picture in (ones | others).items()}  # (S, T/2+1) complex64
    share = _inside(np.ones(one), other, shape) / min(one[0] * one[1], other[0] * other[1])
    possible = share >= MIN_OVERLAP
    share = np.where(possible, share, 0).astype(np.float32)
    scales = {p: possible * _scale(picture, other, shape) for p, picture in ones.items()}
    back = np.ix_(*(-np.arange(length) % length for length in shape))
    for second in others:
        scale = _scale(others[second], one, shape)[back]
        for first in ones:
            if first >= second and among:
                break
            correlation = fft.irfft2(spectra[first] * spectra[second].conj(), shape)  # (S, T)
            correlation *= scales[first]
            correlation *= scale
            np.clip(correlation, 0, 0.999, out=correlation)
            # the logarithm of chance: a small overlap must agree better than a large one
            evidence = share * np.log1p(-correlation * correlation)
            place = int(evidence.argmin())
            if -evidence.flat[place] < MIN_SEARCHED_EVIDENCE:
                continue
            rows, cols = (
                index - length if index > length // 2 else index
                for index, length in zip(divmod(place, shape[1]), shape, strict=True)
            )
            yield (first, second, rows, cols) if first < second else (second, first, -rows, -cols)


def _scale(picture: np.ndarray, other: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    energy = _inside(picture.astype(np.float64) ** 2, other, shape)
    return (1 / np.sqrt(np.maximum(energy, MIN_ENERGY))).astype(np.float32)


def _inside(values: np.ndarray, other: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Sum the values (H, W) under a frame of size `other` at each shift (S, T), negative shifts from the end on."""
    sums = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    ends = []
    for length, frame, shifts in zip(values.shape, other, shape, strict=True):
        shift = np.arange(shifts)
        shift = np.where(shift >= length, shift - shifts, shift)
        ends.append((np.clip(shift, 0, length), np.clip(shift + frame, 0, length)))
    (top, bottom), (left, right) = ends
    return sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]


def _verify(
    first: np.ndarray, second: np.ndarray, rows: int, cols: int, reach: int
) -> tuple[int, int, float, float] | None:
    """Refine a shift by up to `reach` px; return it, the correlation and the share, or None where the two disagree."""
    around = range(-reach, reach + 1)
    shifts = [(rows + down, cols + right) for down in around for right in around]
    rows, cols = max(shifts, key=lambda shift: _correlate(*_common(first, second, *shift)))
    one, other = _common(first, second, rows, cols)
    correlation, share = _correlate(one, other), one.size / min(first.size, second.size)
    evidence = -share * np.log1p(-min(correlation**2, 0.999))
    if correlation < MIN_CORRELATION or evidence < MIN_EVIDENCE:
        return None
    side = max(first.shape) / PARTS
    parts = zip(_parts(one, side), _parts(other, side), strict=True)
    agreeing = [
        _correlate(a, b) >= MIN_PART_CORRELATION for a, b in parts if max(a.std(), b.std()) >= MIN_PART_DEVIATION
    ]
    if len(agreeing) < MIN_PARTS or np.mean(agreeing) < MIN_PARTS_AGREEING:
        return None
    return rows, cols, correlation, share


def _common(first: np.ndarray, second: np.ndarray, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut what both pictures show, where a place of the second stands in the first after adding (rows, cols)."""
    top, left = max(0, rows), max(0, cols)
    bottom = max(top, min(first.shape[0], second.shape[0] + rows))
    right = max(left, min(first.shape[1], second.shape[1] + cols))
    return first[top:bottom, left:right], second[top - rows : bottom - rows, left - cols : right - cols]


def _parts(picture: np.ndarray, side: float) -> Iterator[np.ndarray]:
    counts = [max(1, round(length / side)) for length in picture.shape]
    for band in np.array_split(picture, counts[0], axis=0):
        yield from np.array_split(band, counts[1], axis=1)


def _correlate(one: np.ndarray, other: np.ndarray) -> float:
    if not one.size:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    energy = float((one * one).sum() * (other * other).sum())
    return float((one * other).sum()) / np.sqrt(energy) if energy > MIN_ENERGY else 0.0


def _same_cells(
    first: dict[str, Any],
    second: dict[str, Any],
    one: FieldDescription,
    other: FieldDescription,
    overlap: Overlap,
) -> list[tuple[int, int]]:
    """Pair the cells of two overlapping fields that lie in one place and look alike: their numbers in each."""
    reduction = max(one.reduction, other.reduction)
    pictures = [_reduce(described.density, reduction // described.reduction) for described in (one, other)]
    shift = np.array([overlap.rows, overlap.cols])
    low = np.maximum(0, shift)  # corners of what both show, in px of the first field
    high = np.minimum([one.height, one.width], shift + [other.height, other.width])
    shown = [[], []]  # number and the box's corners inside the overlap
    for image, move, boxes in ((first, 0, shown[0]), (second, shift, shown[1])):
        for number, cell in enumerate(image["cells"]):
            corners = np.clip(np.reshape(cell["box"], (2, 2)) + move, low, high)
            if cell.get("reviewed") != "dropped" and (corners[1] - corners[0]).min() >= MIN_CELL_SIDE * reduction:
                boxes.append((number, corners))
    pairs = []
    for number, box in shown[0]:
        for partner, mate in shown[1]:
            common = np.maximum(0, np.minimum(box[1], mate[1]) - np.maximum(box[0], mate[0])).prod()
            both = (box[1] - box[0]).prod() + (mate[1] - mate[0]).prod() - common
            if common < MIN_BOX_AGREEMENT * both:
                continue
            (top, left), (bottom, right) = np.array([np.minimum(box[0], mate[0]), np.maximum(box[1], mate[1])])
            top, left, bottom, right = (round(edge / reduction) for edge in (top, left, bottom, right))
            rows, cols = overlap.rows // reduction, overlap.cols // reduction
            here = pictures[0][top:bottom, left:right]
            there = pictures[1][max(0, top - rows) : bottom - rows, max(0, left - cols) : right - cols]
            height, width = np.minimum(here.shape, there.shape)  # a reduced picture may have one more or one less pixel
            if _correlate(here[:height, :width], there[:height, :width]) >= MIN_CELL_CORRELATION:
                pairs.append((common / both, number, partner))
    kept: list[tuple[int, int]] = []
    for _, number, partner in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        if all(number != taken and partner != mate for taken, mate in kept):
            kept.append((number, partner))
    return kept


class _Groups:
    """Sights, (image number, cell number), joined where they are one cell; no group holds two of one image."""

    def __init__(self):
        self._members: dict[tuple[int, int], set[tuple[int, int]]] = {}

    def join(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Join two groups; returns whether the two sights are one cell now."""
        these, those = self._members.get(one, {one}), self._members.get(other, {other})
        if these is those:
            return True
        if {image for image, _ in these} & {image for image, _ in those}:
            return False
        union = these | those
        self._members.update(dict.fromkeys(union, union))
        return True

    def first(self, sight: tuple[int, int]) -> tuple[int, int]:
        return min(self._members.get(sight, {sight}))
