"""Find, among many images, the copies of one photograph and the photographs that show the same cells.

All pairs would be too many to register. Each image's strongest keypoints vote for the images that hold their nearest
neighbours, and only the few with most votes are registered. Copies of a photograph met before stand behind it: the rest
of the images is compared with the photograph alone.

Limits: images of less than 32 px a side or without landmarks are not compared; a detail enlarged more than 1.4 times
does not register to its whole; kept in memory are about 200 KB for each photograph, not for each copy.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from smears.alignment import Description, Registration, describe, mirror, register

COPY = "copy"
SAME_CELLS = "same cells"

VOTED_KEYPOINTS = 120  # of each photograph: the strongest are enough to be found by
VOTING_DIMENSIONS = 32  # principal components keep 86 % of the variance
SAMPLED_IMAGES = 128  # that the principal components are taken from
TREES, CHECKS = 4, 128  # of the search for nearest neighbours: a hundredth of the exact search's time
NEIGHBOURS = 4  # an image's own keypoints come first
# keypoints that vote, photographs registered: of a copy's keypoints, every other finds the photograph
COPY_EFFORT = (32, 3)
# A strip of common cells has few keypoints: all vote where photographs are few, and the strongest where all would take long.
CELLS_KEYPOINTS = (64, 400)
CELLS_QUERIES = 600_000  # keypoints of all photographs together
CELLS_REGISTERED = 12  # photographs for each
MIN_VOTES = 2  # one vote is nearly always chance, and there are five times as many
# Images searched at a time: at first few, so that copies meet their photograph; an index of many is not built too often.
FIRST_BATCH, LARGEST_BATCH = 32, 256
SMALLEST_SIDE = 32  # pixels
MIN_LANDMARKS = 20  # keypoints: with fewer, agreement is chance

MIN_INLIERS = 7  # of 4,000 pairs of photographs of different cells, 4 reached 7, with residuals from 15 up
MAX_RESIDUAL = 10.0  # grey levels: photographs of the same cells reach 8.4, chance maps start at 12
MIN_CORRELATION = 0.85  # photographs of the same cells: from 0.89; chance maps: up to 0.71
MIN_OVERLAP = 0.1
MIN_COPY_INLIERS = 15
MIN_COPY_OVERLAP = 0.75  # shifted and turned copies share 0.82; less is a crop that was made to show something else
SAME_FRAME = 0.96  # of the picture: what agrees as far as its edges was saved anew; the next other photograph has 0.94
SAME_FRAME_RESIDUAL = 3.5  # grey levels: JPEG at low quality
# grey levels, in another frame: turned copies reach 1.7, other photographs of the same cells begin at 2.3
COPY_RESIDUAL = 2.0


@dataclass(frozen=True)
class Link:
    """Two images, `first` and `second` by their positions, and what says that they belong together.

    `kind`: `COPY`, the same photograph, saved anew, resized, turned, shifted or mirrored; or `SAME_CELLS`, another
    photograph, or another part of it, that shows some of the same cells. `inliers`: keypoints that agree. `residual`:
    mean difference of grey levels where both show a picture, 0 to 255. `correlation`: -1 to 1, of the grey levels there.
    `overlap`: 0 to 1, the share of the smaller picture. `mirrored`: one is the other's mirror image.
    """

    first: int
    second: int
    kind: str
    inliers: int
    residual: float
    correlation: float
    overlap: float
    mirrored: bool


@dataclass(frozen=True)
class _Kept:
    """A description in a quarter of the memory."""

    grey: np.ndarray
    inside: np.ndarray | None  # None: all of it
    points: np.ndarray
    descriptors: np.ndarray  # (N, 128) uint8, 255 times the values

    @classmethod
    def of(cls, described: Description) -> "_Kept":
        inside = None if described.inside.all() else np.packbits(described.inside, axis=1)
        return cls(described.grey, inside, described.points, np.rint(described.descriptors * 255).astype(np.uint8))

    def description(self) -> Description:
        width = self.grey.shape[1]
        inside = self.inside
        inside = np.ones(self.grey.shape, bool) if inside is None else np.unpackbits(inside, axis=1)[:, :width] > 0
        return Description(self.grey, inside, self.points, self.strongest(len(self.points)))

    def strongest(self, count: int) -> np.ndarray:
        return self.descriptors[:count].astype(np.float32) / 255


class _Index:
    """Images to be voted for: their strongest keypoints, projected."""

    def __init__(self, images: dict[int, _Kept], mean: np.ndarray, axes: np.ndarray):
        projected = [(kept.strongest(VOTED_KEYPOINTS) - mean) @ axes for kept in images.values()]
        self.mean, self.axes = mean, axes
        self.owners = np.repeat(list(images), [len(rows) for rows in projected])  # (K,)
        cv2.setRNGSeed(0)  # the same trees each time
        self.trees = cv2.flann.Index()
        self.projected = np.concatenate(projected)  # (K, 32), which the trees point into
        self.trees.build(self.projected, {"algorithm": 1, "trees": TREES})

    def vote(self, image: _Kept, effort: tuple[int, int], itself: int = -1) -> list[int]:
        """List the positions with most votes, most first."""
        keypoints, count = effort
        strongest = image.strongest(keypoints)
        best = {}
        for descriptors in (strongest, mirror(strongest)):
            query = np.ascontiguousarray((descriptors - self.mean) @ self.axes)
            wanted = min(NEIGHBOURS, len(self.owners))
            nearest, _ = self.trees.knnSearch(query, wanted, params={"checks": CHECKS})  # (keypoints, 4)
            owners = self.owners[nearest]
            others = owners != itself
            first = owners[np.arange(len(owners)), others.argmax(axis=1)][others.any(axis=1)]
            for owner, votes in zip(*np.unique(first, return_counts=True), strict=True):
                best[int(owner)] = max(best.get(int(owner), 0), int(votes))
        voted = [owner for owner, votes in best.items() if votes >= MIN_VOTES]
        return sorted(voted, key=lambda owner: (-best[owner], owner))[:count]


def find_links(
    count: int, read: Callable[[int], np.ndarray], order: Sequence[int] | None = None, workers: int = 2
) -> tuple[list[Link], list[int]]:
    """Find the links that join all copies of a photograph, and all photographs of the same cells.

    Not every pair is named: each copy is linked to one photograph, photographs of the same cells to each other.

    Args:
        count: how many images there are.
        read: gives the image at a position, (H, W, 3) uint8 RGB; called by several threads, up to twice an image.
        order: the positions, best images first; a photograph is best seen where it is large and whole.
        workers: threads.

    Returns:
        The links, sorted by position, and the positions of images that show too little to be compared.
    """
    order = list(range(count) if order is None else order)
    # the threads share the cores already
    with threadpool_limits(1), _single_threaded_opencv(), ThreadPoolExecutor(workers) as pool:
        projection = _principal_axes(pool.map(lambda position: _describe(read(position)), _spread(order)))
        photographs, copies, unlike = _set_copies_apart(order, read, projection, pool)
        links = copies + _compare_photographs(photographs, projection, pool)
    return sorted(links, key=lambda link: (link.first, link.second)), sorted(unlike)


def _set_copies_apart(
    order: Sequence[int], read: Callable[[int], np.ndarray], projection: tuple, pool: Executor
) -> tuple[dict[int, _Kept], list[Link], list[int]]:
    """Return the photographs, the links from their copies to them, and the positions of images that show too little."""
    photographs: dict[int, _Kept] = {}
    links, unlike = [], []
    start, size = 0, FIRST_BATCH
    with tqdm(total=len(order), desc="copies", unit="image") as bar:
        while start < len(order):
            batch = order[start : start + size]
            for position, (kept, link) in zip(batch, _search(batch, read, photographs, projection, pool), strict=True):
                if link:
                    links.append(link)
                elif _shows_enough(kept):
                    photographs[position] = kept
                else:
                    unlike.append(position)
                bar.update()
            start, size = start + size, min(2 * size, max(LARGEST_BATCH, len(photographs) // 4))
    return photographs, links, unlike


def _search(
    batch: Sequence[int],
    read: Callable[[int], np.ndarray],
    photographs: dict[int, _Kept],
    projection: tuple,
    pool: Executor,
) -> list[tuple[_Kept, Link | None]]:
    """Describe a batch of images and link those that are copies of photographs met before."""
    index = _Index(photographs, *projection) if photographs else None

    def attach(position: int) -> tuple[_Kept, Link | None]:
        kept = _describe(read(position))
        return kept, _copy_of(position, kept, index, photographs) if index and _shows_enough(kept) else None

    return list(pool.map(attach, batch))


def _compare_photographs(photographs: dict[int, _Kept], projection: tuple, pool: Executor) -> list[Link]:
    if len(photographs) < 2:
        return []
    index = _Index(photographs, *projection)
    effort = (int(np.clip(CELLS_QUERIES // len(photographs), *CELLS_KEYPOINTS)), CELLS_REGISTERED)

    def vote(position: int) -> list[tuple[int, int]]:
        voted = index.vote(photographs[position], effort, position)
        return [(min(position, other), max(position, other)) for other in voted]

    def compare(pair: tuple[int, int]) -> Link | None:
        return _link(*pair, *(photographs[position].description() for position in pair))

    voted = tqdm(pool.map(vote, photographs), "shortlist", len(photographs), unit="photo")
    pairs = sorted({pair for pairs in voted for pair in pairs})
    return [link for link in tqdm(pool.map(compare, pairs), "same cells", len(pairs), unit="pair") if link]


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _spread(order: Sequence[int]) -> list[int]:
    return [order[k] for k in sorted({*np.linspace(0, len(order) - 1, min(SAMPLED_IMAGES, len(order))).astype(int)})]


def _describe(image: np.ndarray) -> _Kept:
    if min(image.shape[:2]) < SMALLEST_SIDE:
        nothing = np.zeros((1, 1), np.uint8)
        return _Kept(nothing, None, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    return _Kept.of(describe(_lay_on_side(image), precise=True))


def _lay_on_side(image: np.ndarray) -> np.ndarray:
    """Turn an upright picture: brought to one width, it would be much larger than its turned copy."""
    return np.ascontiguousarray(np.rot90(image)) if image.shape[0] > image.shape[1] else image


def _shows_enough(kept: _Kept) -> bool:
    return len(kept.points) >= MIN_LANDMARKS


def _principal_axes(images: Iterable[_Kept]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (128,) and the axes (128, 32) of descriptors, float32."""
    descriptors = np.concatenate(
        [np.zeros((1, 128), np.float32), *(kept.strongest(VOTED_KEYPOINTS) for kept in images)]
    )
    mean = descriptors.mean(axis=0)
    _, vectors = np.linalg.eigh((descriptors - mean).T @ (descriptors - mean))
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :VOTING_DIMENSIONS])


def _copy_of(position: int, kept: _Kept, index: _Index, photographs: dict[int, _Kept]) -> Link | None:
    """Find the photograph of which an image is a copy: of two photographs of the same cells, the more alike one."""
    image = kept.description()
    voted = index.vote(kept, COPY_EFFORT)
    links = [_link(position, other, image, photographs[other].description()) for other in voted]
    copies = [link for link in links if link and link.kind == COPY]
    return min(copies, key=lambda link: link.residual, default=None)


def _link(first: int, second: int, image: Description, photograph: Description) -> Link | None:
    """Register two images and judge what they have in common."""
    if image.inside.sum() > photograph.inside.sum():  # the whole frame is brought to the clipped one
        image, photograph = photograph, image
    fitted = register(image, photograph)
    if fitted is None or fitted.inliers < MIN_INLIERS or fitted.residual > MAX_RESIDUAL:
        return None
    correlation, overlap = _agreement(image, photograph, fitted.matrix)
    if correlation < MIN_CORRELATION or overlap < MIN_OVERLAP:
        return None
    kind = COPY if _is_copy(fitted, overlap) else SAME_CELLS
    grey, alike, share = round(fitted.residual, 2), round(correlation, 3), round(overlap, 3)
    return Link(*sorted((first, second)), kind, fitted.inliers, grey, alike, share, fitted.mirrored)


def _is_copy(fitted: Registration, overlap: float) -> bool:
    if fitted.inliers < MIN_COPY_INLIERS or overlap < MIN_COPY_OVERLAP:
        return False
    return fitted.residual <= (SAME_FRAME_RESIDUAL if fitted.frame >= SAME_FRAME else COPY_RESIDUAL)


def _agreement(image: Description, photograph: Description, matrix: np.ndarray) -> tuple[float, float]:
    """Return the correlation of the grey levels where both show a picture, and that place's share of the smaller one."""
    size = image.grey.shape[::-1]
    warped = cv2.warpAffine(photograph.grey, matrix, size)
    both = (cv2.warpAffine(photograph.inside.astype(np.uint8) * 255, matrix, size) == 255) & image.inside
    smaller = min(image.inside.sum(), photograph.inside.sum() * abs(np.linalg.det(matrix[:, :2])))
    source, target = warped[both].astype(np.float32), image.grey[both].astype(np.float32)
    if not len(source) or not source.std() * target.std():
        return 0.0, 0.0
    return float(np.corrcoef(source, target)[0, 1]), float(min(1, both.sum() / smaller))


def lay_over(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Bring the second image to where it agrees with the first, at a width of 320 pixels; None if they do not agree.

    first, second: (H, W, 3) uint8 RGB.
    """
    if min(*first.shape[:2], *second.shape[:2]) < SMALLEST_SIDE:
        return None
    upright = first.shape[0] > first.shape[1]
    first, second = _lay_on_side(first), _lay_on_side(second)
    image, photograph = describe(first, precise=True), describe(second, precise=True)
    fitted = register(image, photograph)
    if fitted is None or fitted.inliers < MIN_INLIERS:
        return None
    small = cv2.resize(second, photograph.grey.shape[::-1], interpolation=cv2.INTER_AREA)
    laid = cv2.warpAffine(small, fitted.matrix, image.grey.shape[::-1], borderValue=(255, 255, 255))
    return np.ascontiguousarray(np.rot90(laid, -1)) if upright else laid
