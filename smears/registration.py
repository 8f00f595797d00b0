"""Find the smear photo that each image was made from, and the photos that show the same cells.

    python -m smears.registration ARCHIVE_ROOT --out smears/kaggle_photos.csv --workers 2

ARCHIVE_ROOT is the folder that holds `dataset-master/` and `dataset2-master/`. The command writes the table of images to
`--out` and the table of overlapping photos beside it, as `kaggle_overlaps.csv`. Killed and started again, it goes on where
it stopped.

Keypoints of the image vote for the photo that holds their nearest neighbour; the photos with most votes are fitted with an
affine map, mirrored or not; the pixels under the map decide between photos of the same cells. An image without a clear
winner stays unassigned. All coordinates are (x, y) in pixels of the working size: images and photos shrunk to 320 wide.
"""

import argparse
import logging
import multiprocessing
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from smears import provenance

logger = logging.getLogger(__name__)

WORKING_WIDTH = 320  # pixels, the width of the copies
FILL_LEVEL = 24  # grey levels: JPEG ripples in the black fill stay below, the darkest nuclei above
FILL_MARGIN = 5  # pixels: corners between fill and picture are no landmarks
MAX_KEYPOINTS = 400
VOTING_KEYPOINTS = 24  # of an image: the true photo gets about half of these votes, any other photo a few
VOTED_KEYPOINTS = 120  # of each photo: the strongest are enough to be found by
VOTING_DIMENSIONS = 32  # principal components: a quarter of the arithmetic, the same winner
SHORTLIST = 3  # photos registered for an image
MATCH_RATIO = 0.85
RANSAC_PIXELS = 2.0
STRETCH_RANGE = (0.7, 1.4)  # singular values of a believable map: rotation, shift, flip, some shear

MIN_INLIERS = 15  # chance maps between different cells reach about 5
CLEAR_FACTOR = 2.0  # times the inliers of the best photo of other cells
MAX_RESIDUAL = 4.0  # grey levels: true photos stay below 3, other exposures of the same cells start at 2.5
MIN_FRAME = 0.9  # the frame of the true photo covers the picture, and no more than the picture
CLEAR_RESIDUAL = 0.75  # times the residual of another photo of the same cells
SHIFT_PIXELS = 6.0  # between exposures the stage moves and the lens distorts a little
MIN_OVERLAP_INLIERS = 6  # the overlap may be a narrow strip
MAX_OVERLAP_RESIDUAL = (
    8.0  # grey levels; dirt on the camera agrees at shift zero between any two photos, with 9 and more
)


@dataclass(frozen=True)
class Description:
    """What registration needs of one image.

    `grey`: (H, 320) uint8. `inside`: (H, 320) bool, False in black fill. `points`: (N, 2) float32, x and y in working
    pixels, strongest first. `descriptors`: (N, 128) float32, square roots of SIFT histograms, each of unit length.
    """

    grey: np.ndarray
    inside: np.ndarray
    points: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class Registration:
    """An affine map from a photo to an image and how well the two agree under it.

    `matrix`: (2, 3) float64, takes (x, y, 1) of the photo to (x, y) of the image, in working pixels. `inliers`: keypoints
    within 2 px of the map. `residual`: mean absolute difference in grey levels, 0 to 255, where both show a picture, after
    the best linear change of brightness (the copies were stretched to full contrast). `frame`: 0 to 1, intersection over
    union of the image's picture and the photo's frame; about 1 for the true photo.
    """

    matrix: np.ndarray
    inliers: int
    residual: float
    frame: float
    mirrored: bool


@dataclass(frozen=True)
class PhotoIndex:
    """Photos prepared for searching.

    `numbers`: the P photo numbers, ascending; `photos`: their descriptions; `groups`: for each the smallest number among the
    photos of the same cells. `mean` (128,) and `axes` (128, 32) project descriptors for voting; `projected` (K, 33) holds
    those of all photos with half their squared length as last column, `owners` (K,) the position of each one's photo in
    `numbers`.
    """

    numbers: tuple[int, ...]
    photos: tuple[Description, ...]
    groups: tuple[int, ...]
    mean: np.ndarray
    axes: np.ndarray
    projected: np.ndarray
    owners: np.ndarray


@dataclass(frozen=True)
class Match:
    """The photo that an image was made from; `photo` and `group` are None when that is unsure.

    `registration`: to that photo, or to the best candidate when unsure, None without one. `margin`: its inliers less those
    of the best photo of other cells. `reason`: why the image is unsure, empty otherwise.
    """

    photo: int | None
    group: int | None
    registration: Registration | None
    margin: int
    reason: str = ""


@dataclass(frozen=True)
class Overlap:
    """Two photos, `photo_a` < `photo_b`, that show the same cells; the registration takes b to a."""

    photo_a: int
    photo_b: int
    registration: Registration


def describe(image: np.ndarray) -> Description:
    """Find the landmarks of an image.

    image: (H, W, 3) uint8 RGB, 0 to 255, at least 32 px a side; black fill is taken for no picture. Raises TypeError for
    another dtype and ValueError for another shape.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        came = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image has dtype {came}, expected uint8 from 0 to 255; convert it before describing it")
    if image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 32:
        raise ValueError(f"image has shape {image.shape}, expected (height, width, 3) in RGB, at least 32 px a side")
    height, width = image.shape[:2]
    if width != WORKING_WIDTH:
        size = (WORKING_WIDTH, max(32, round(height * WORKING_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if width > WORKING_WIDTH else cv2.INTER_LINEAR)
    square = np.ones((3, 3), np.uint8)
    inside = cv2.morphologyEx((image.max(axis=2) > FILL_LEVEL).astype(np.uint8), cv2.MORPH_OPEN, square)
    landmarks = cv2.erode(inside, square, iterations=FILL_MARGIN, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # the smear is pale: with SIFT's own threshold a field of faint cells keeps too few keypoints
    sift = cv2.SIFT_create(nfeatures=MAX_KEYPOINTS, contrastThreshold=0.01)
    keypoints, histograms = sift.detectAndCompute(grey, landmarks)
    if not keypoints:
        return Description(grey, inside > 0, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    order = np.argsort([-keypoint.response for keypoint in keypoints], kind="stable")[:MAX_KEYPOINTS]
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32)[order]
    histograms = histograms[order]
    descriptors = np.sqrt(histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1e-6))
    return Description(grey, inside > 0, points, descriptors)


def register(image: Description, photo: Description) -> Registration | None:
    """Fit the affine map, mirrored or not, that takes a photo to an image.

    Returns None where fewer than four keypoints agree or the map stretches more than a copy can be.
    """
    plain = _matches(image.descriptors, photo.descriptors)
    flipped = _matches(_mirror(image.descriptors), photo.descriptors)
    mirrored = len(flipped) > len(plain)
    pairs = flipped if mirrored else plain
    if len(pairs) < 4:
        return None
    matrix, used = cv2.estimateAffine2D(
        photo.points[pairs[:, 1]],
        image.points[pairs[:, 0]],
        method=cv2.RANSAC,
        ransacReprojThreshold=RANSAC_PIXELS,
        confidence=0.999,
    )
    if matrix is None or used.sum() < 4:
        return None
    largest, smallest = np.linalg.svd(matrix[:, :2], compute_uv=False)
    turned_over = np.linalg.det(matrix[:, :2]) < 0
    if smallest < STRETCH_RANGE[0] or largest > STRETCH_RANGE[1] or turned_over != mirrored:
        return None
    residual, frame = _compare(image, photo, matrix)
    return Registration(matrix, int(used.sum()), residual, frame, mirrored)


def _mirror(descriptors: np.ndarray) -> np.ndarray:
    """Give the descriptors (N, 128) that the mirror image would have.

    SIFT stores 4 rows x 4 columns x 8 directions relative to the keypoint's own direction, which the mirror takes along:
    rows change places across it, directions change sign.
    """
    return descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, -np.arange(8) % 8].reshape(-1, 128)


def _matches(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pair descriptors that are each other's nearest and much nearer than the second; (M, 2) rows of query and target."""
    if len(query) < 2 or len(target) < 2:
        return np.zeros((0, 2), int)
    similarity = query @ target.T  # (N, K), of unit vectors: squared distance is 2 - 2 * similarity
    rows = np.arange(len(query))
    nearest = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[nearest] == rows
    best = similarity[rows, nearest]
    similarity[rows, nearest] = -1
    second = similarity.max(axis=1)
    keep = np.flatnonzero(mutual & (1 - best < MATCH_RATIO**2 * (1 - second)))
    return np.stack([keep, nearest[keep]], axis=1)


def _compare(image: Description, photo: Description, matrix: np.ndarray) -> tuple[float, float]:
    """Warp the photo onto the image; return the residual in grey levels and the agreement of the frames, 0 to 1."""
    size = image.grey.shape[::-1]
    warped = cv2.warpAffine(photo.grey, matrix, size)
    seen = cv2.warpAffine(photo.inside.astype(np.uint8) * 255, matrix, size) == 255
    both = seen & image.inside
    if both.sum() < 2:
        return 255.0, 0.0
    source, target = warped[both].astype(np.float32), image.grey[both].astype(np.float32)
    centred = source - source.mean()
    # a negative would be no copy: the gain stays at zero and the residual large
    gain = max(0.0, float(centred @ (target - target.mean())) / max(float(centred @ centred), 1e-6))
    residual = np.abs(target - target.mean() - gain * centred).mean()
    return float(residual), float(both.sum() / (seen | image.inside).sum())


def build_index(photo_paths: Sequence[Path]) -> PhotoIndex:
    """Describe all photos and prepare them for searching.

    The digits that end a file's name are its number (`BloodImage_00012.jpg` is photo 12); each photo starts as a group of
    its own. Raises ValueError for an empty list, a name without a number or a number that comes twice, and what
    `provenance.read_image` raises.
    """
    if not photo_paths:
        raise ValueError("no photos came, expected at least one path; check the folder they are listed from")
    ordered = sorted((provenance.photo_number(path), path) for path in photo_paths)
    numbers = tuple(number for number, _ in ordered)
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ValueError(f"photo numbers {twice} come more than once, expected each once; rename the files")
    photos = tuple(describe(provenance.read_image(path)) for _, path in ordered)
    strongest = [photo.descriptors[:VOTED_KEYPOINTS] for photo in photos]
    owners = np.repeat(np.arange(len(photos)), [len(descriptors) for descriptors in strongest])
    if not len(owners):
        raise ValueError(f"the {len(photos)} photos show no keypoint, expected smear fields; check the files")
    descriptors = np.concatenate(strongest)
    mean = descriptors.mean(axis=0)
    centred = descriptors - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :VOTING_DIMENSIONS])
    projected = centred @ axes
    half_square = (projected**2).sum(axis=1, keepdims=True) / 2
    return PhotoIndex(numbers, photos, numbers, mean, axes, np.hstack([projected, half_square]), owners)


def shortlist(image: Description, index: PhotoIndex, count: int = SHORTLIST) -> list[int]:
    """List the positions in the index of the `count` photos with most votes, then the others of the first one's group."""
    strongest = image.descriptors[:VOTING_KEYPOINTS]
    votes = [_vote(descriptors, index) for descriptors in (strongest, _mirror(strongest))]
    votes = np.maximum(*votes)
    most = [int(position) for position in np.argsort(-votes, kind="stable")[:count] if votes[position] > 0]
    same_cells = [k for k, group in enumerate(index.groups) if most and group == index.groups[most[0]]]
    return most + [position for position in same_cells if position not in most]


def _vote(descriptors: np.ndarray, index: PhotoIndex) -> np.ndarray:
    """Count for each photo the descriptors whose nearest neighbour it holds; (P,) int."""
    query = np.hstack([(descriptors - index.mean) @ index.axes, np.full((len(descriptors), 1), -1, np.float32)])
    votes = np.zeros(len(index.photos), int)
    for start in range(0, len(query), 8):  # a few rows at a time stay in the processor's cache
        nearest = (query[start : start + 8] @ index.projected.T).argmax(axis=1)
        votes += np.bincount(index.owners[nearest], minlength=len(votes))
    return votes


def find_photo(image: np.ndarray, index: PhotoIndex) -> Match:
    """Find the photo that an image was made from, or say why that is unsure.

    image: (H, W, 3) uint8 RGB. Photos of other cells must have far fewer inliers, photos of the same cells (the same group
    in the index) a far larger residual. Raises what `describe` raises.
    """
    described = describe(image)
    found = {}
    for position in shortlist(described, index):
        registration = register(described, index.photos[position])
        if registration is not None:
            found[position] = registration
    if not found:
        return Match(None, None, None, 0, "no photo registers")
    most = max(found, key=lambda position: found[position].inliers)
    group = index.groups[most]
    same = {k: v for k, v in found.items() if index.groups[k] == group and v.frame >= MIN_FRAME}
    rival = max((v.inliers for k, v in found.items() if index.groups[k] != group), default=0)
    winner = min(same, key=lambda position: same[position].residual, default=most)
    best = found[winner]
    runner_up = min((v.residual for k, v in same.items() if k != winner), default=float("inf"))
    reason = _doubt(best, rival, runner_up)
    sure = (None, None) if reason else (index.numbers[winner], group)
    return Match(*sure, best, best.inliers - rival, reason)


def _doubt(best: Registration, rival_inliers: int, runner_up_residual: float) -> str:
    """Say what speaks against a registration; the empty string when nothing does."""
    if best.inliers < MIN_INLIERS:
        return f"{best.inliers} inliers, fewer than {MIN_INLIERS}"
    if best.inliers < CLEAR_FACTOR * rival_inliers:
        return f"{best.inliers} inliers against {rival_inliers} for a photo of other cells"
    if best.frame < MIN_FRAME:
        return f"the frames agree to {best.frame:.2f}, less than {MIN_FRAME}"
    if best.residual > MAX_RESIDUAL:
        return f"residual {best.residual:.1f}, more than {MAX_RESIDUAL}"
    if best.residual > CLEAR_RESIDUAL * runner_up_residual:
        return f"residual {best.residual:.1f} against {runner_up_residual:.1f} for a photo of the same cells"
    return ""


def find_overlaps(index: PhotoIndex) -> list[Overlap]:
    """Find the pairs of photos that show the same cells, sorted by number.

    All pairs are compared, as they differ by a shift of the microscope's stage alone, which is quick to find.
    """
    overlaps = []
    for a, photo in enumerate(tqdm(index.photos, desc="overlaps", unit="photo", disable=None)):
        for b in range(a + 1, len(index.photos)):
            shift = _shift(photo, index.photos[b])
            if shift is not None and shift.residual <= MAX_OVERLAP_RESIDUAL:
                overlaps.append(Overlap(index.numbers[a], index.numbers[b], shift))
    return overlaps


def _shift(image: Description, photo: Description) -> Registration | None:
    """Fit the shift that most keypoints agree on; None if fewer do than an overlap shows."""
    pairs = _matches(image.descriptors, photo.descriptors)
    if len(pairs) < MIN_OVERLAP_INLIERS:
        return None
    shifts = image.points[pairs[:, 0]] - photo.points[pairs[:, 1]]  # (M, 2)
    agree = np.abs(shifts[:, None] - shifts).max(axis=2) < SHIFT_PIXELS  # (M, M)
    chosen = agree[agree.sum(axis=1).argmax()]
    if chosen.sum() < MIN_OVERLAP_INLIERS:
        return None
    matrix = np.hstack([np.eye(2), np.median(shifts[chosen], axis=0)[:, None]])
    residual, frame = _compare(image, photo, matrix)
    return Registration(matrix, int(chosen.sum()), residual, frame, False)


def group_photos(index: PhotoIndex, overlaps: Iterable[tuple[int, int]]) -> PhotoIndex:
    """Return the index with photos that overlap, directly or through others, in one group; pairs of photo numbers."""
    group = {number: number for number in index.numbers}
    for pair in overlaps:
        kept, merged = sorted(group[number] for number in pair)
        group = {number: kept if of == merged else of for number, of in group.items()}
    return replace(index, groups=tuple(group[number] for number in index.numbers))


def _start_worker(index: PhotoIndex) -> None:
    global _index
    _index = index
    cv2.setNumThreads(1)
    threadpool_limits(1)  # the processes share the cores already


def _trace(image: provenance.ArchiveImage) -> provenance.PhotoRow:
    match = find_photo(provenance.read_image(image.path), _index)
    if match.reason:
        logger.warning("unsure: %s: %s", image.path, match.reason)
    return provenance.PhotoRow(
        sha256=provenance.fingerprint(image.path),
        split=image.split,
        label=image.label,
        photo=match.photo,
        group=match.group,
        inliers=match.registration.inliers if match.registration else 0,
        residual=round(match.registration.residual, 1) if match.registration else 255.0,
    )


def trace_archive(images: Sequence[provenance.ArchiveImage], index: PhotoIndex, out: Path, workers: int) -> None:
    """Find the photo of each image and write the table `out`; rows done before an interruption are kept beside it."""
    unfinished = provenance.unfinished(out)
    rows = provenance.read_unfinished(unfinished)
    done = {row.key for row in rows}
    todo = [image for image in images if (provenance.fingerprint(image.path), image.split, image.label) not in done]
    logger.info("%d images, %d of them to do, %d workers", len(images), len(todo), workers)
    # a forked process would wait for ever on the threads that OpenCV started in this one
    processes = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    with (
        processes.Pool(workers, _start_worker, (index,)) as pool,
        provenance.appending(unfinished) as append,
    ):
        for row in tqdm(pool.imap(_trace, todo, chunksize=8), total=len(todo), unit="image", disable=None):
            append(row)
            rows.append(row)
    seconds = max(time.perf_counter() - started, 1e-3)
    logger.info("%.1f images/s, %.0f s", len(todo) / seconds, seconds)
    provenance.write_photos(out, rows)
    unfinished.unlink()
    unsure = sum(row.photo is None for row in rows)
    logger.info("%d of %d images assigned, %d unsure", len(rows) - unsure, len(rows), unsure)


def _overlap_rows(index: PhotoIndex, archive_root: Path) -> list[provenance.OverlapRow]:
    labels = provenance.read_labels(archive_root)
    return [
        provenance.OverlapRow(
            photo_a=pair.photo_a,
            photo_b=pair.photo_b,
            inliers=pair.registration.inliers,
            residual=round(pair.registration.residual, 1),
            label_a=labels.get(pair.photo_a, ""),
            label_b=labels.get(pair.photo_b, ""),
        )
        for pair in find_overlaps(index)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both tables for an archive; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m smears.registration", description=__doc__.splitlines()[0])
    parser.add_argument("archive_root", type=Path, help="folder that holds dataset-master/ and dataset2-master/")
    parser.add_argument("--out", type=Path, default=Path("smears/kaggle_photos.csv"), help="table of images to write")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    images = provenance.list_images(options.archive_root)
    index = build_index(provenance.list_photos(options.archive_root))
    overlap_table = options.out.with_name("kaggle_overlaps.csv")
    if not provenance.unfinished(options.out).exists():
        provenance.write_overlaps(overlap_table, _overlap_rows(index, options.archive_root))
    pairs = [(row.photo_a, row.photo_b) for row in provenance.read_overlaps(overlap_table)]
    trace_archive(images, group_photos(index, pairs), options.out, options.workers)


if __name__ == "__main__":
    main()
