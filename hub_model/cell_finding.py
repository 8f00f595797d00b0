"""Find the white blood cells in a photo of a stained smear, by their nuclei.

    for cell in find_cells(picture):
        row_min, col_min, row_max, col_max = cell["box"]

Nothing is trained, and no lens or scale is given: the field is its own ruler. Light turns into optical density (Beer and
Lambert; Ruifrok and Johnston 2001, Anal. Quant. Cytol. Histol. 23:291), the lamp's unevenness taken out. The red cells'
diameter is the ruler, found from the pattern that they make. Nuclei are where azure outweighs eosin: green and red light are
absorbed, blue is not. Lobes of one nucleus are joined, and nuclei that touch are cut, by what fits a white cell, in red cells.

Sizes are in pixels (px) or in diameters and areas of the field's red cells; densities are natural logarithms.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy import fft, ndimage
from scipy.spatial import cKDTree

SMALLEST_SIDE = 32  # px, of a field: a red cell would be about two pixels wide

# Working pictures: 240 px show a field as a microscope gives it. Where red cells would be far narrower than MIN_DIAMETER, it
# holds more of them and is looked at larger.
WORKING_SIDE = 240  # px of the longer side
LARGEST_WORKING_SIDE = 1920
LONGEST_STRIP = (
    LARGEST_WORKING_SIDE // SMALLEST_SIDE
)  # times as long as broad: what is made smaller keeps SMALLEST_SIDE
MIN_DIAMETER = 10  # px, of a red cell
# Below so many px the working picture is too small; where the photo's red cells are narrower than LARGE_CELL, noise may look
# like up to 8 px.
SMALL_DIAMETER, SMALL_DIAMETER_IN_LARGE = 5, 8
LARGE_CELL = 40  # px of the photo
MAX_DIAMETER = 1 / 3  # of the working side
RULER_TILE = 360  # px, of the parts of a large field that the ruler looks at
RULER_TILES = 5

# The lamp: a quadratic surface of the logarithm of light, per channel, that lies on top of the clear ground
LAMP_SIDE = 96  # px, of the thumbnail that it is fitted on
LAMP_ROUNDS = 12
LAMP_NOISE = 0.06  # density within which a pixel still counts as ground
LAMP_WEIGHTS = (1.0, 0.3, 0.02)  # of pixels brighter than the ground, a little darker, and darker: cells
MIN_LIGHT = 20  # of 255, of the clear ground: a darker picture shows nothing
LAMP_RIDGE = 1e-3  # keeps slopes near zero where the ground does not show them

NUCLEUS = (0.5, 1.5, -1.0)  # weights of the densities of red, green and blue light
# All of the following were chosen on Kaggle's photos that are no official test photos, Raabin, Chula and a sample of PBC that
# held images of the part that training keeps back.
NUCLEUS_BLUR = 0.12  # red cells, standard deviation: cytoplasm's granules and a camera's noise go
CORRELATION_END = 0.1  # where the autocorrelation of a field comes down to it lies 0.77 of a red cell's diameter
CORRELATION_DIAMETER = 0.77
RED_NUCLEUS = 1.18  # diameter of a white cell's nucleus in red cells, typical
PATTERN_SPREAD, NUCLEUS_SPREAD = 0.7, 0.35  # natural logarithms, standard deviations of the two rough rulers
BLOB_DIAMETER = 0.84  # of a red cell's diameter is the disc's that a Laplacian of Gaussian answers to
BLOB_SIZES = 14
MIN_BLOB = 0.25  # answer of the Laplacian; a full disc gives 0.74
RULER_ROUNDS = 2
# In a close crop, where a red cell takes this share of the shorter side, few are whole, and the parts that are seen look like
# smaller ones: the pattern, which sees their curves, then sets the least, unless nuclei are far too small for it.
CLOSE_CROP, CLOSE_FLOOR, CLOSE_NUCLEUS = 0.22, 0.95, 1.6

RED_LEVEL = 0.9  # quantile of the nucleus map outside nuclei
NUCLEUS_LEVEL = 0.4  # of the way up from there to a nucleus's own level
MIN_PIECE = 0.04  # red cell's areas; smaller is noise
MIN_AREA, MIN_EDGE_AREA = 0.3, 0.18  # of a nucleus, inside the field and at its edge; platelets are smaller
MAX_AREA, MAX_EXTENT = 2.6, 2.25  # red cells' areas and diameters, of lobes that are joined
MAX_GAP = 0.6  # diameters, between lobes of one nucleus
WHOLE_NUCLEUS = 1.2  # areas: two pieces as large as this are two nuclei
CRUMB_AREA, CRUMB_GAP, CRUMB_EXTENT = 0.25, 0.25, 2.5  # a crumb beside a nucleus belongs to it
CUT_AREA, CUT_EXTENT = 2.4, 2.1  # larger pieces are looked at for a neck
MIN_CORE = 0.22  # diameters, depth of a nucleus's middle
CORE_DISTANCE = 0.6  # diameters, between the middles of two nuclei
NECK = 0.7  # of the smaller core's depth: a wider neck does not part two nuclei
# Below lies what is darkest in a field without white cells: overlapping red cells, dirt. Nuclei start at 0.5 and 0.3.
MIN_SCORE = 0.45
MIN_STAIN = 0.15  # of the nucleus map: a blank picture's noise has less
BODY_MARGIN = 0.3  # diameters, from a nucleus's box to the cell's


@dataclass(frozen=True)
class _Field:
    """A field at working size.

    `density`: optical, (H, W, 3) float32. `light`: 0..255, of the clear ground in its brightest channel. `scale`: working px
    that one px of the photo makes. `height`, `width`: px of the photo.
    """

    density: np.ndarray
    light: float
    scale: float
    height: int
    width: int


def find_cells(picture: Image.Image | np.ndarray) -> list[dict[str, Any]]:
    """Find the white cells in an upright field, a PIL image or (height, width, 3) uint8 RGB, 0..255.

    Returns:
        Per cell, from top to bottom: ``box``, [row_min, col_min, row_max, col_max], px of the field, the ends exclusive, about
        the whole cell as far as the nucleus tells; ``find_score``, 0..1, how far the nucleus stands out of the red cells, 1
        meaning that they have nothing of its colour. An empty field gives an empty list.

    Raises:
        TypeError: the picture is an array of another dtype, or no picture.
        ValueError: it has another shape, a side of less than 32 px, or is more than 60 times as long as broad.
    """
    image = check_field(picture)
    if is_strip(image):
        raise ValueError(
            f"The field has {image.width} x {image.height} px; expected at most {LONGEST_STRIP} times as long as broad. "
            "Crop it."
        )
    field = _prepare(image)
    if field.light < MIN_LIGHT:
        return []
    nuclei, diameter = _find_nuclei(field)
    cells = []
    for box, score in nuclei:
        margin = BODY_MARGIN * diameter
        corners = np.rint((np.array(box) + [-margin, -margin, margin, margin]) / field.scale).astype(int)
        corners = np.clip(corners, 0, [field.height, field.width] * 2)
        cells.append({"box": corners.tolist(), "find_score": float(score)})
    return sorted(cells, key=lambda cell: cell["box"])


def check_field(picture: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(picture, Image.Image):
        image = picture if picture.mode == "RGB" else picture.convert("RGB")
    elif not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        came = getattr(picture, "dtype", type(picture).__name__)
        raise TypeError(f"The field is {came}; expected a PIL image or an array of uint8, 0 to 255. Convert it first.")
    elif picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ValueError(f"The field has shape {picture.shape}; expected (height, width, 3) in RGB. Convert it first.")
    else:
        image = Image.fromarray(picture)
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(
            f"The field has {image.width} x {image.height} px; expected {SMALLEST_SIDE} or more each side. Take a larger photo."
        )
    return image


def is_strip(image: Image.Image) -> bool:
    return max(image.size) > LONGEST_STRIP * min(image.size)


def _prepare(image: Image.Image) -> _Field:
    """Bring a field to the size at which its red cells are wide enough."""
    side = WORKING_SIDE
    while True:
        scale = min(1.0, max(side / max(image.size), SMALLEST_SIDE / min(image.size)))  # a strip keeps its breadth
        shape = [max(1, round(length * scale)) for length in image.size]
        small = image if scale == 1 else image.resize(shape, Image.Resampling.BOX, reducing_gap=2.0)
        density, light = _density(np.asarray(small))
        pattern = _pattern(density[..., 1])
        enough = SMALL_DIAMETER_IN_LARGE if pattern / scale >= LARGE_CELL else SMALL_DIAMETER
        if scale == 1 or 2 * side > LARGEST_WORKING_SIDE or pattern >= enough:
            return _Field(density, light, scale, image.height, image.width)
        side *= 2


def _surface(height: int, width: int) -> np.ndarray:
    """Terms (height, width, 6) of a quadratic surface."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32), indexing="ij"
    )
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)


def _density(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Optical density (H, W, 3) float32 of RGB pixels (H, W, 3) uint8 against the clear ground, may be a little negative; and
    the ground's light in its brightest channel, 0..255."""
    height, width = pixels.shape[:2]
    step = max(1, round(max(height, width) / LAMP_SIDE))
    size = max(8, width // step), max(8, height // step)
    thumbnail = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), np.float64)
    light = np.log(np.maximum(thumbnail, 1)).reshape(-1, 3)
    terms = _surface(size[1], size[0]).reshape(-1, 6).astype(np.float64)
    ridge = np.diag([0] + [len(terms) * LAMP_RIDGE] * 5)
    brighter, level, darker = LAMP_WEIGHTS
    density = -np.log(np.maximum(pixels, 1, dtype=np.float32))
    surface, brightest = _surface(height, width), 0.0
    for channel in range(3):
        weights = np.ones(len(terms))
        for _ in range(LAMP_ROUNDS):
            weighted = terms * weights[:, None]
            lamp = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ light[:, channel])
            above = light[:, channel] - terms @ lamp
            weights = np.where(above > 0, brighter, np.where(above > -LAMP_NOISE, level, darker))
        density[..., channel] += surface @ lamp.astype(np.float32)
        brightest = max(brightest, float(np.exp(lamp[0])))
    return density, brightest


def _find_nuclei(field: _Field) -> tuple[list[tuple[list[int], float]], float]:
    """Boxes of nuclei, working px, with their scores; and the red cells' diameter, working px."""
    stain = field.density @ np.array(NUCLEUS, np.float32)
    rough = max(MIN_DIAMETER, _pattern(field.density[..., 1]))
    nuclear, _ = _nuclear(stain, rough)
    around = ndimage.binary_dilation(nuclear, iterations=max(1, int(0.2 * rough)))
    diameter = _ruler(field.density[..., 1], nuclear, around, rough)
    nuclear, level = _nuclear(stain, diameter, around)
    smooth = ndimage.gaussian_filter(stain, NUCLEUS_BLUR * diameter)
    pieces = _join(_cut_out(nuclear, diameter), diameter)
    corner = np.array(stain.shape) - 1
    area = np.pi / 4 * diameter**2
    nuclei = []
    for piece in pieces:
        at_edge = piece.min() == 0 or (piece.max(0) == corner).any()
        if len(piece) < area * (MIN_EDGE_AREA if at_edge else MIN_AREA):
            continue
        own = float(smooth[piece[:, 0], piece[:, 1]].mean())
        score = 1 - max(level, 0) / own
        if own >= MIN_STAIN and score >= MIN_SCORE:
            nuclei.append(([*piece.min(0), *(piece.max(0) + 1)], score))
    return nuclei, diameter


def _nuclear(stain: np.ndarray, diameter: float, around: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Where nuclei are, (H, W) bool, and the red cells' level of stain; `around`: where nuclei were found roughly."""
    smooth = ndimage.gaussian_filter(stain, NUCLEUS_BLUR * diameter)
    count = min(
        max(4, int(np.pi / 4 * (0.6 * diameter) ** 2)), smooth.size // 2
    )  # of a strip a disc may be more than all
    ordered = np.sort(smooth, axis=None)
    top = ordered[-count:].mean()
    if around is None or around.mean() >= 0.7:
        level = np.quantile(ordered[:-count], RED_LEVEL)
    else:
        level = np.quantile(smooth[~around], RED_LEVEL)
    return smooth > level + NUCLEUS_LEVEL * (top - level), float(level)


def _pattern(green: np.ndarray) -> float:
    """Red cells' diameter, px, by the width of the autocorrelation of green light's density (H, W)."""
    green = np.minimum(green, np.quantile(green, 0.9))  # else a dark nucleus would outweigh them
    green = green - green.mean()
    shape = [fft.next_fast_len(2 * length, real=True) for length in green.shape]
    power = [fft.irfft2(np.abs(fft.rfft2(values, shape)) ** 2, shape) for values in (green, np.ones_like(green))]
    far = min(green.shape) // 2
    rows, cols = (np.minimum(np.arange(length), length - np.arange(length)) for length in shape)
    rows, cols = rows[rows < far], cols[cols < far]
    power = [values[np.ix_(*(np.r_[0:far, length - far + 1 : length] for length in shape))] for values in power]
    radius = np.rint(np.hypot(rows[:, None], cols[None])).astype(int)
    inside = radius < far
    sums, pairs = (np.bincount(radius[inside], values[inside]) for values in power)
    correlation = sums / pairs
    correlation /= max(correlation[0], 1e-12)
    end = int(np.argmax(correlation < CORRELATION_END))
    longest = max(green.shape) * MAX_DIAMETER
    if not end:
        return longest
    step = correlation[end - 1] - correlation[end]
    diameter = (end - (CORRELATION_END - correlation[end]) / step) / CORRELATION_DIAMETER
    return float(np.clip(diameter, 1, longest))


def _ruler(green: np.ndarray, nuclear: np.ndarray, around: np.ndarray, rough: float) -> float:
    """Red cells' diameter, px: the usual size of round blobs, if the pattern's and the nuclei's sizes allow it."""
    near, _ = ndimage.label(ndimage.distance_transform_edt(~nuclear) <= max(1, 0.15 * rough))
    areas = np.sort(np.bincount(near[nuclear])[1:]) if nuclear.any() else np.array([])
    areas = areas[areas > 0]
    if not len(areas):
        area = rough * rough
    elif max(green.shape) <= RULER_TILE:
        area = areas[-1]
    else:  # where there are many, the largest may be a clump
        area = areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)]
    longest = max(green.shape)
    by_nucleus = float(
        np.clip(np.sqrt(area * 4 / np.pi) / RED_NUCLEUS, min(longest / 40, MIN_DIAMETER / 2), longest / 2)
    )
    if around.mean() >= 0.7:
        found = [float(np.sqrt(rough * by_nucleus))]
    else:
        found = [_blob_diameter(green[tile], ~around[tile], rough, by_nucleus) for tile in _tiles(green)]
    is_close = CLOSE_CROP * min(green.shape) < rough < CLOSE_NUCLEUS * by_nucleus
    return max(float(np.median(found)), CLOSE_FLOOR * rough if is_close else 0.0)


def _tiles(green: np.ndarray) -> list[tuple[slice, slice]]:
    """The whole of a small field; of a large one, those parts that are about as full as most."""
    if max(green.shape) <= RULER_TILE:
        return [(slice(None), slice(None))]
    edges = [np.linspace(0, length, -(-length // RULER_TILE) + 1).astype(int) for length in green.shape]
    tiles = [
        (slice(*rows), slice(*cols))
        for rows in zip(edges[0][:-1], edges[0][1:], strict=True)
        for cols in zip(edges[1][:-1], edges[1][1:], strict=True)
    ]
    full = np.array([green[tile].mean() for tile in tiles])
    usual = np.argsort(np.abs(full - np.median(full)), kind="stable")[:RULER_TILES]
    return [tiles[place] for place in usual]


def _blob_diameter(green: np.ndarray, keep: np.ndarray, rough: float, by_nucleus: float) -> float:
    fallback = float(np.sqrt(rough * by_nucleus))
    if keep.sum() < 16:
        return fallback
    values = green[keep]
    threshold = _otsu(np.clip(values, 0, np.quantile(values, 0.97)))
    distance = ndimage.distance_transform_edt(keep)
    diameter = rough
    for _ in range(RULER_ROUNDS):
        dark = ndimage.gaussian_filter(green, 0.03 * diameter) > threshold
        holes, _ = ndimage.label(~dark)
        small = np.bincount(holes.ravel()) <= np.pi / 4 * (0.6 * diameter) ** 2  # the pale middles of red cells
        small[0] = False
        filled = (dark | small[holes]).astype(np.float32)
        filled[~keep] = np.median(filled[keep])
        sizes, answers = _blobs(filled, np.sqrt(diameter * by_nucleus))
        peaks = answers == ndimage.maximum_filter(answers, (3, 5, 5))
        peaks[0] = peaks[-1] = False
        size, row, col = np.nonzero(peaks)
        answer, half = answers[size, row, col], 0.4 * sizes[size]
        good = (answer > MIN_BLOB) & (distance[row, col] > 0.3 * sizes[size]) & (row > half) & (col > half)
        good &= (row < filled.shape[0] - half) & (col < filled.shape[1] - half)
        size, answer = size[good], answer[good]
        if len(size) < 2:
            return fallback
        odd = (np.log(sizes[size] / rough) / PATTERN_SPREAD) ** 2
        odd += (np.log(sizes[size] / BLOB_DIAMETER / by_nucleus) / NUCLEUS_SPREAD) ** 2
        weights = answer * sizes[size] ** 2 * np.exp(-odd / 2)
        order = np.argsort(size, kind="stable")
        total = np.cumsum(weights[order])
        diameter = float(sizes[size[order][np.searchsorted(total, total[-1] / 2)]])
    return diameter / BLOB_DIAMETER


def _blobs(mask: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers (S, H, W) of Laplacians of Gaussians that discs of S diameters, px, excite most (Lindeberg 1998,
    doi:10.1023/A:1008045108935), through cosine transforms, which mirror the borders."""
    spectrum = fft.dctn(mask, norm="ortho")
    rows, cols = (np.pi * np.arange(length, dtype=np.float32) / length for length in mask.shape)
    square = rows[:, None] ** 2 + cols[None] ** 2
    sizes = np.geomspace(max(4, middle / 2.5), max(5, min(min(mask.shape) * 0.9, middle * 2)), BLOB_SIZES)
    answers = [
        fft.idctn(spectrum * (variance * square * np.exp(-variance * square / 2)), norm="ortho")
        for variance in (sizes**2 / 8).astype(np.float32)
    ]
    return sizes, np.array(answers)


def _otsu(values: np.ndarray, bins: int = 128) -> float:
    """The threshold that parts the values best in two (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    counts, edges = np.histogram(values, bins, (0, max(float(values.max()), 1e-3)))
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * centres)
    parts = below * (below[-1] - below)
    between = (moment[-1] * below - moment * below[-1]) ** 2 / np.maximum(parts, 1)
    return float(centres[between.argmax()])


def _cut_out(nuclear: np.ndarray, diameter: float) -> list[np.ndarray]:
    """Connected pieces, those that touch cut apart: px of each, (N, 2) rows and columns."""
    labels, _ = ndimage.label(nuclear, np.ones((3, 3)))
    pieces = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        piece = labels[place] == number
        if piece.sum() < MIN_PIECE * np.pi / 4 * diameter**2:
            continue
        corner = [place[0].start, place[1].start]
        pieces += [points + corner for points in _cut(piece, diameter)]
    return pieces


def _cut(piece: np.ndarray, diameter: float) -> list[np.ndarray]:
    """Part two nuclei that touch, where the neck between their middles is narrow."""
    points = np.argwhere(piece)
    if len(points) < CUT_AREA * np.pi / 4 * diameter**2 and np.ptp(points, axis=0).max() < CUT_EXTENT * diameter:
        return [points]
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1]
    depth = ndimage.gaussian_filter(depth, 0.05 * diameter)
    window = max(3, int(0.5 * diameter) | 1)
    cores = np.argwhere((depth == ndimage.maximum_filter(depth, window)) & (depth > MIN_CORE * diameter))
    cores = cores[np.argsort(-depth[tuple(cores.T)], kind="stable")]
    kept: list[np.ndarray] = []
    for core in cores:
        if all(_are_apart(core, other, depth, diameter) for other in kept):
            kept.append(core)
    if len(kept) < 2:
        return [points]
    owner = np.argmin([np.hypot(*(points - core).T) - depth[tuple(core)] for core in kept], axis=0)
    return [points[owner == number] for number in range(len(kept)) if (owner == number).any()]


def _are_apart(core: np.ndarray, other: np.ndarray, depth: np.ndarray, diameter: float) -> bool:
    distance = np.hypot(*(core - other))
    path = np.rint(np.linspace(other, core, max(2, int(distance)))).astype(int)
    neck = depth[path[:, 0], path[:, 1]].min()
    return distance >= CORE_DISTANCE * diameter and neck <= NECK * min(depth[tuple(core)], depth[tuple(other)])


def _join(pieces: list[np.ndarray], diameter: float) -> list[np.ndarray]:
    """Join lobes of one nucleus, the nearest first."""
    area, widest = np.pi / 4 * diameter**2, MAX_GAP * diameter
    alive: dict[int, np.ndarray] = {}
    trees: dict[int, cKDTree] = {}
    boxes = np.zeros((4, 2 * len(pieces)), int)  # first row and column, last row and column; two pieces make one more
    there = np.zeros(2 * len(pieces), bool)
    gaps: list[tuple[float, int, int]] = []  # px, between two that may be joined: a heap

    def add(number: int, piece: np.ndarray) -> None:
        boxes[:, number] = *piece.min(0), *piece.max(0)
        top, left, bottom, right = boxes[:, : number + 1]
        near = there[: number + 1] & (np.maximum(top[number] - bottom, top - bottom[number]) <= widest)
        near &= np.maximum(left[number] - right, left - right[number]) <= widest
        alive[number], trees[number], there[number] = piece, cKDTree(piece), True
        for other in np.flatnonzero(near).tolist():  # of thousands of specks few are worth a look
            if (gap := look(number, other)) is not None:
                heapq.heappush(gaps, (gap, number, other))

    def look(one: int, other: int) -> float | None:
        gap = trees[one].query(alive[other], distance_upper_bound=widest + 1)[0].min()
        box, beside = boxes[:, one], boxes[:, other]
        extent = ((np.maximum(box, beside)[2:] - np.minimum(box, beside)[:2]).max() + 1) / diameter
        sizes = len(alive[one]), len(alive[other])
        smaller = min(sizes) / area
        lobes = sum(sizes) / area <= MAX_AREA and extent <= MAX_EXTENT and smaller < WHOLE_NUCLEUS
        crumb = smaller < CRUMB_AREA and gap < CRUMB_GAP * diameter and extent <= CRUMB_EXTENT
        return float(gap) if gap <= widest and (lobes or crumb) else None

    for number, piece in enumerate(pieces):
        add(number, piece)
    number = len(pieces)
    while gaps:
        _, one, other = heapq.heappop(gaps)
        if there[one] and there[other]:
            there[[one, other]] = False
            add(number, np.concatenate([alive.pop(one), alive.pop(other)]))
            number += 1
    return [alive[number] for number in sorted(alive)]
