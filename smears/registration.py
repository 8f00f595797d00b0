"""Find the smear photo that each image was made from, and the photos that show the same cells.

    python -m smears.registration ARCHIVE_ROOT --out found --workers 2

ARCHIVE_ROOT is the folder that holds `dataset-master/` and `dataset2-master/`. The command writes the table of images,
`found/registrations.csv`, and the table of overlapping photos, `found/overlaps.csv`; `python -m smears.kaggle_tables`
makes the published tables of them. Killed and started again, it goes on where it stopped.

Keypoints of the image vote for the photo that holds their nearest neighbour; the photos with most votes are fitted with
an affine map, mirrored or not; the pixels under the map decide between photos of the same cells. An image without a
clear winner stays unassigned.
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
from smears.alignment import MAX_KEYPOINTS, Description, Registration, compare, describe, matches, mirror, register
from smears.loading import content_hash

logger = logging.getLogger(__name__)

IMAGE_TABLE = "registrations.csv"
OVERLAP_TABLE = "overlaps.csv"

VOTED_KEYPOINTS = 120  # of each photo: the strongest are enough to be found by
VOTING_DIMENSIONS = 32  # principal components: a quarter of the arithmetic, the same winner
# (keypoints that vote, photos registered): the true photo gets about half of the first votes, any other photo a few;
# a blurred image needs the second round
EFFORTS = ((24, 3), (MAX_KEYPOINTS, 12))
MIN_INLIERS = 15  # chance maps between different cells reach about 5
CLEAR_FACTOR = 2.0  # times the inliers of the best photo of other cells
MAX_RESIDUAL = 4.0  # grey levels: true photos reach 2.3, other cells stay above 10
MIN_FRAME = 0.9  # the frame of the true photo covers the picture, and no more than the picture
CLEAR_RESIDUAL = 0.75  # times the residual of another photo of the same cells
SHIFT_PIXELS = 6.0  # between exposures the stage moves and the lens distorts a little
MIN_OVERLAP_INLIERS = 6  # the overlap may be a narrow strip
MAX_OVERLAP_RESIDUAL = 8.0  # grey levels; dirt on the camera agrees at shift zero between any two photos, from 9 up


@dataclass(frozen=True)
class PhotoIndex:
    """Photos prepared for searching.

    `numbers`: the P photo numbers, ascending; `photos`: their descriptions; `groups`: for each the smallest number
    among the photos of the same cells. `mean` (128,) and `axes` (128, 32) project descriptors for voting; `projected`
    (K, 33) holds those of all photos with half their squared length as last column, `owners` (K,) the position of each
    one's photo in `numbers`.
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

    `registration`: to that photo, or to the best candidate when unsure, None without one. `margin`: its inliers less
    those of the best photo of other cells. `reason`: why the image is unsure, empty otherwise.
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


def build_index(photo_paths: Sequence[Path]) -> PhotoIndex:
    """Describe all photos and prepare them for searching.

    The digits that end a file's name are its number (`BloodImage_00012.jpg` is photo 12); each photo starts as a group
    of its own.

    Raises:
        ValueError: no path, a name without a number, a number that comes twice, a file that holds no image.
        OSError: a file that cannot be opened.
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


def shortlist(image: Description, index: PhotoIndex, keypoints: int, count: int) -> list[int]:
    """List the positions in the index of the photos to register an image to.

    The `count` photos with most votes of the image's strongest `keypoints`, then the others of the first one's group.
    """
    strongest = image.descriptors[:keypoints]
    votes = np.maximum(*(_vote(descriptors, index) for descriptors in (strongest, mirror(strongest))))
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

    image: (H, W, 3) uint8 RGB. Photos of other cells must have far fewer inliers, photos of the same cells (the same
    group in the index) a far larger residual.

    Raises:
        TypeError, ValueError: as `describe`.
    """
    described = describe(image)
    found: dict[int, Registration | None] = {}
    for keypoints, count in EFFORTS:
        for position in shortlist(described, index, keypoints, count):
            if position not in found:
                found[position] = register(described, index.photos[position])
        match = _choose({k: fitted for k, fitted in found.items() if fitted is not None}, index)
        if match.photo is not None:
            break
    return match


def _choose(found: dict[int, Registration], index: PhotoIndex) -> Match:
    """Decide between the photos (positions in the index) that an image registers to."""
    if not found:
        return Match(None, None, None, 0, "no photo registers")
    most = max(found, key=lambda position: found[position].inliers)
    group = index.groups[most]
    same_cells = {k: v for k, v in found.items() if index.groups[k] == group and v.frame >= MIN_FRAME}
    winner = min(same_cells, key=lambda position: same_cells[position].residual, default=most)
    best = found[winner]
    rival = max((v.inliers for k, v in found.items() if index.groups[k] != group), default=0)
    runner_up = min((v.residual for k, v in same_cells.items() if k != winner), default=float("inf"))
    reason = _doubt(best, rival, runner_up)
    photo, cells = (None, None) if reason else (index.numbers[winner], group)
    return Match(photo, cells, best, best.inliers - rival, reason)


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
    pairs = matches(image.descriptors, photo.descriptors)
    if len(pairs) < MIN_OVERLAP_INLIERS:
        return None
    shifts = image.points[pairs[:, 0]] - photo.points[pairs[:, 1]]  # (M, 2)
    agree = np.abs(shifts[:, None] - shifts).max(axis=2) < SHIFT_PIXELS  # (M, M)
    chosen = agree[agree.sum(axis=1).argmax()]
    if chosen.sum() < MIN_OVERLAP_INLIERS:
        return None
    matrix = np.hstack([np.eye(2), np.median(shifts[chosen], axis=0)[:, None]])
    residual, frame = compare(image, photo, matrix)
    return Registration(matrix, int(chosen.sum()), residual, frame, False)


def group_photos(index: PhotoIndex, overlaps: Iterable[tuple[int, int]]) -> PhotoIndex:
    """Return the index with photos that overlap, directly or through others, in one group.

    Raises:
        ValueError: a pair names a photo that the index lacks.
    """
    group = {number: number for number in index.numbers}
    for pair in overlaps:
        if not set(pair) <= set(group):
            raise ValueError(f"photos {pair} overlap, expected photos of the index; build it from the same folder")
        kept, merged = sorted(group[number] for number in pair)
        group = {number: kept if of == merged else of for number, of in group.items()}
    return replace(index, groups=tuple(group[number] for number in index.numbers))


def _start_worker(index: PhotoIndex) -> None:
    global _index
    _index = index
    cv2.setNumThreads(1)
    threadpool_limits(1)  # the processes share the cores already


def _trace(image: provenance.ArchiveImage) -> tuple[provenance.RegistrationRow, str]:
    match = find_photo(provenance.read_image(image.path), _index)
    fitted = match.registration
    matrix = fitted.matrix if fitted else np.zeros((2, 3))
    linear, shift = matrix[:, :2].round(4).tolist(), matrix[:, 2].round(2).tolist()
    row = provenance.RegistrationRow(
        file=f"{image.split}/{image.label}/{image.path.name}",
        sha256=content_hash(image.path.read_bytes()),
        photo=match.photo,
        group=match.group,
        inliers=fitted.inliers if fitted else 0,
        margin=match.margin,
        residual=round(fitted.residual, 1) if fitted else 255.0,
        frame=round(fitted.frame, 3) if fitted else 0.0,
        a=linear[0][0], b=linear[0][1], c=shift[0],
        d=linear[1][0], e=linear[1][1], f=shift[1],
    )  # fmt: skip
    return row, f"{image.path}: {match.reason}" if match.reason else ""


def trace_archive(images: Sequence[provenance.ArchiveImage], index: PhotoIndex, out: Path, workers: int) -> None:
    """Find the photo of each image and write the table `out`; rows done before an interruption are kept beside it.

    Raises:
        ValueError, OSError: an image that cannot be read, named in the message.
    """
    unfinished = provenance.unfinished(out)
    rows = provenance.read_unfinished(unfinished)
    done = {row.file for row in rows}
    todo = [image for image in images if f"{image.split}/{image.label}/{image.path.name}" not in done]
    logger.info("%d images, %d of them to do, %d workers", len(images), len(todo), workers)
    # a forked process would wait for ever on the threads that OpenCV started in this one
    processes = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    with (
        processes.Pool(workers, _start_worker, (index,)) as pool,
        provenance.appending(unfinished) as append,
    ):
        for row, doubt in tqdm(pool.imap(_trace, todo, chunksize=8), total=len(todo), unit="image"):
            if doubt:
                logger.warning("unsure: %s", doubt)
            append(row)
            rows.append(row)
    seconds = max(time.perf_counter() - started, 1e-3)
    logger.info("%.1f images/s, %.0f s", len(todo) / seconds, seconds)
    provenance.write_registrations(out, rows)
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
            shift_x=round(float(pair.registration.matrix[0, 2]), 1),
            shift_y=round(float(pair.registration.matrix[1, 2]), 1),
            label_a=labels.get(pair.photo_a, ""),
            label_b=labels.get(pair.photo_b, ""),
        )
        for pair in find_overlaps(index)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both tables for an archive; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m smears.registration", description=__doc__.splitlines()[0])
    parser.add_argument("archive_root", type=Path, help="folder that holds dataset-master/ and dataset2-master/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the two tables into")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    images = provenance.list_images(options.archive_root)
    index = build_index(provenance.list_photos(options.archive_root))
    image_table, overlap_table = options.out / IMAGE_TABLE, options.out / OVERLAP_TABLE
    if not provenance.unfinished(image_table).exists():
        provenance.write_overlaps(overlap_table, _overlap_rows(index, options.archive_root))
    pairs = [(row.photo_a, row.photo_b) for row in provenance.read_overlaps(overlap_table)]
    trace_archive(images, group_photos(index, pairs), image_table, options.workers)


if __name__ == "__main__":
    main()
