"""Pictures that show no white cell, to count how many of them a model takes for one.

Three sources, none of which needs a network: photographs that lie inside installed packages, pictures drawn from a seed, and
windows of smears beside the white cells.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.drawings import DRAWINGS

# Kind: files inside packages. Those of the first kind come with what requirements.txt asks for.
PHOTOGRAPHS = {
    "photograph": (
        "sklearn/datasets/images/china.jpg",
        "sklearn/datasets/images/flower.jpg",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        "gradio/media_assets/images/cheetah.jpg",
        "gradio/media_assets/images/cheetah1.jpg",
        "gradio/media_assets/images/lion.jpg",
        "gradio/media_assets/images/tower.jpg",
    ),
    "photograph of scikit-image": (
        "skimage/data/astronaut.png",
        "skimage/data/camera.png",
        "skimage/data/chelsea.png",
        "skimage/data/coffee.png",
        "skimage/data/coins.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/moon.png",
        "skimage/data/motorcycle_left.png",
        "skimage/data/rocket.jpg",
    ),
    "surface of scikit-image": ("skimage/data/brick.png", "skimage/data/grass.png", "skimage/data/gravel.png"),
    "medical picture of scikit-image": ("skimage/data/cell.png", "skimage/data/ihc.png", "skimage/data/retina.jpg"),
    "scanned page of scikit-image": ("skimage/data/page.png", "skimage/data/text.png"),
}
SMALLEST_SIDE = 32  # px, of a drawing
CROP = (0.35, 1.0)  # side of a part of a photograph, in its shorter sides

GROUND, RED, PLATELETS = "ground", "red cells", "platelets"
# A box is a platelet's below this share of the median side of all red cells and platelets: true of 99.6 % of BCCD's 4,516
# boxes and 98.4 % of Raabin's 6,327.
PLATELET = 0.6
GROUND_SIDE = (0.1, 0.5)  # side of a window, in shorter sides of the image; even in the logarithm
ABOUT_SIDE = (1.0, 4.0)  # side of a window about a red cell or platelet, in sides of its box; even in the logarithm
SMALLEST_WINDOW = 24  # px
EDGE = 2  # px, within which a box counts as cut off by the image's edge
CLEARANCE = 0.05  # kept from a white cell's box, in its sides: boxes are tight, cytoplasm is faint
WINDOW_TRIES, PLACE_TRIES = 40, 20  # images tried for a window, and places in each


def installed_photographs() -> dict[str, list[Path]]:
    """Find the files of ``PHOTOGRAPHS`` in the packages that are installed, which are not imported: paths by kind.

    A kind none of whose files is there is left out.
    """
    found = {}
    for kind, files in PHOTOGRAPHS.items():
        paths = []
        for file in files:
            package, _, inside = file.partition("/")
            spec = importlib.util.find_spec(package)
            if spec and spec.origin and (path := Path(spec.origin).parent / inside).is_file():
                paths.append(path)
        if paths:
            found[kind] = paths
    return found


def _part(rng: np.random.Generator, photograph: Image.Image, side: int) -> Image.Image:
    """Cut a square out of a photograph, mirror it or not, and bring it to this side."""
    length = max(1, int(min(photograph.size) * rng.uniform(*CROP)))
    left, top = (int(rng.integers(0, extent - length + 1)) for extent in photograph.size)
    square = photograph.crop((left, top, left + length, top + length))
    if rng.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return square.resize((side, side), Image.Resampling.LANCZOS)


def draw_strangers(count_per_kind: int, side: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Draw pictures that show nothing of a smear, kind after kind.

    The kinds of ``PHOTOGRAPHS`` that are installed give parts of their few photographs, taken in turn; those of ``DRAWINGS``
    are drawn. A picture depends on its kind, its number and the seed alone.

    Parameters
    ----------
    count_per_kind
        Pictures of each kind, 1 or more.
    side
        Of the pictures, px, 32 or more.
    seed
        0 or more.

    Yields
    ------
    (str, PIL.Image.Image)
        The kind, and the picture, (side, side) RGB.

    Raises
    ------
    ValueError
        A number below these.
    """
    for name, value, least in (("count_per_kind", count_per_kind, 1), ("side", side, SMALLEST_SIDE), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; expected {least} or more. Ask for more.")
    return _draw_strangers(count_per_kind, side, seed)


def _draw_strangers(count: int, side: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    kinds = [*PHOTOGRAPHS, *DRAWINGS]  # numbered whether installed or not, so that one installed more changes no other
    for kind, paths in installed_photographs().items():
        photographs = []
        for path in paths:
            with Image.open(path) as photograph:
                photographs.append(photograph.convert("RGB"))
        for number in range(count):
            rng = np.random.default_rng((seed, kinds.index(kind), number))
            yield kind, _part(rng, photographs[number % len(photographs)], side)
    for kind, draw in DRAWINGS.items():
        for number in range(count):
            rng = np.random.default_rng((seed, kinds.index(kind), number))
            yield kind, Image.fromarray(draw(rng, side))


def ground_windows(
    images: Sequence[np.ndarray],
    cells: Sequence[Sequence[Sequence[int]]],
    others: Sequence[Sequence[Sequence[int]]],
    count: int,
    seed: int,
) -> Iterator[tuple[str, Image.Image]]:
    """Cut squares without a white cell out of smears: ground, red cells, platelets.

    A window of ground touches no box, though it may show red cells that nobody drew one about; the others lie about the box of
    a red cell or a platelet, which are told apart by size. What has no box is not known: only images all of whose white cells
    have one will do.

    Parameters
    ----------
    images
        (H, W, 3) each, uint8 RGB. Read one at a time, so it may be a sequence that decodes on demand.
    cells
        For each image the boxes (row_min, col_min, row_max, col_max) of all its white cells, px.
    others
        For each image the boxes of its red cells and platelets, px.
    count
        Windows of each kind. Where there is no room for a kind, fewer come.
    seed
        0 or more.

    Yields
    ------
    (str, PIL.Image.Image)
        The kind, ``"ground"``, ``"red cells"`` or ``"platelets"``, and the window, in the image's own resolution.

    Raises
    ------
    ValueError
        Lists of different lengths, no image, no box of a white cell at all, a count below 1.
    """
    if not len(images) or not len(images) == len(cells) == len(others):
        raise ValueError(
            f"{len(images)} images came with the cells of {len(cells)} and the other boxes of {len(others)}; expected the same "
            "number of each, and one or more. Pass an empty list for an image without boxes of a kind."
        )
    if not any(len(boxes) for boxes in cells):
        raise ValueError(
            "None of the images has the box of a white cell; expected one wherever there is such a cell, or windows would show "
            "them. Take images of a laboratory that comes with boxes."
        )
    if count < 1:
        raise ValueError(f"The count is {count}; expected 1 or more. Ask for more.")
    return _ground_windows(images, cells, others, count, seed)


def _side(box: Sequence[int]) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _touch(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ground_windows(images, cells, others, count: int, seed: int) -> Iterator[tuple[str, Image.Image]]:
    limit = PLATELET * np.median([_side(box) for boxes in others for box in boxes] or [0])
    red = [[box for box in boxes if _side(box) >= limit] for boxes in others]
    small = [[box for box in boxes if _side(box) < limit] for boxes in others]
    about = {GROUND: [[]] * len(images), RED: red, PLATELETS: small}
    rows = {kind: [row for row, boxes in enumerate(about[kind]) if boxes or kind == GROUND] for kind in about}
    for number, kind in enumerate(about):
        rng, whole = (
            np.random.default_rng((seed, number)),
            kind == PLATELETS,
        )  # a red cell that is cut off looks like one
        windows = _windows(images, cells, others, about[kind], rows[kind], rng, whole)
        yield from ((kind, window) for window in islice(windows, count))


def _windows(
    images, cells, others, about, rows: Sequence[int], rng: np.random.Generator, whole: bool
) -> Iterator[Image.Image]:
    """Cut windows of these rows about one of the boxes ``about``, or away from all boxes where none is asked for.

    With ``whole``, boxes that the image's edge cuts off are passed over. Windows end where no room is found in many tries.
    """
    tries = WINDOW_TRIES if rows else 0
    while tries:
        tries -= 1
        row = rows[rng.integers(len(rows))]
        image = images[row]
        height, width = image.shape[:2]
        for _ in range(PLACE_TRIES):
            if about[row]:
                box = about[row][rng.integers(len(about[row]))]
                if whole and _is_cut(box, height, width):
                    continue
                side, shares = _side(box) * np.exp(rng.uniform(*np.log(ABOUT_SIDE))), rng.uniform(0.3, 0.7, 2)
                top, left = ((box[k] + box[k + 2]) / 2 - shares[k] * side for k in range(2))
                clear = cells[row]
            else:
                side = min(height, width) * np.exp(rng.uniform(*np.log(GROUND_SIDE)))
                top, left = rng.uniform(0, height - side), rng.uniform(0, width - side)
                clear = [*cells[row], *others[row]]
            top, left, side = round(top), round(left), max(SMALLEST_WINDOW, round(side))
            window = (top, left, top + side, left + side)
            inside = top >= 0 and left >= 0 and window[2] <= height and window[3] <= width
            if inside and not any(_touch(window, _widened(box)) for box in clear):
                yield Image.fromarray(np.ascontiguousarray(image[top : top + side, left : left + side]))
                tries = WINDOW_TRIES
                break


def _is_cut(box: Sequence[int], height: int, width: int) -> bool:
    return min(box[0], box[1]) <= EDGE or box[2] >= height - EDGE or box[3] >= width - EDGE


def _widened(box: Sequence[int]) -> tuple[float, ...]:
    row_room, col_room = (CLEARANCE * (box[k + 2] - box[k]) for k in range(2))
    return box[0] - row_room, box[1] - col_room, box[2] + row_room, box[3] + col_room
