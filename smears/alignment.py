"""Find an image's landmarks and the affine map under which two images of one smear field agree.

All coordinates are (x, y) in pixels of the working size: every image is brought to a width of 320 pixels first.
"""

from dataclasses import dataclass

import cv2
import numpy as np

WORKING_WIDTH = 320  # pixels, the width of the copies
FILL_LEVEL = 24  # grey levels: JPEG ripples in the black fill stay below, the darkest nuclei above
FILL_MARGIN = 5  # pixels: corners between fill and picture are no landmarks
MAX_KEYPOINTS = 400
MATCH_RATIO = 0.85
RANSAC_PIXELS = 2.0
STRETCH_RANGE = (0.7, 1.4)  # singular values of a believable map: rotation, shift, flip, some shear


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

    `matrix`: (2, 3) float64, takes (x, y, 1) of the photo to (x, y) of the image, in working pixels. `inliers`:
    keypoints within 2 px of the map. `residual`: mean absolute difference in grey levels, 0 to 255, where both show a
    picture, after the best linear change of brightness (the copies were stretched to full contrast). `frame`: 0 to 1,
    intersection over union of the image's picture and the photo's frame; about 1 for the true photo.
    """

    matrix: np.ndarray
    inliers: int
    residual: float
    frame: float
    mirrored: bool


def describe(image: np.ndarray, precise: bool = False) -> Description:
    """Find the landmarks of an image.

    image: (H, W, 3) uint8 RGB, 0 to 255, at least 32 px a side; black fill is taken for no picture. `precise`: without the
    quarter of a pixel by which OpenCV's SIFT misplaces keypoints, which is half a pixel between mirror images.

    Raises:
        TypeError: the image is no array, or of another dtype.
        ValueError: the image has another shape.
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
    sift = cv2.SIFT_create(nfeatures=MAX_KEYPOINTS, contrastThreshold=0.01, enable_precise_upscale=precise)
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

    Returns:
        None where fewer than four keypoints agree or the map stretches more than a copy can be stretched.
    """
    plain = matches(image.descriptors, photo.descriptors)
    flipped = matches(mirror(image.descriptors), photo.descriptors)
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
    residual, frame = compare(image, photo, matrix)
    return Registration(matrix, int(used.sum()), residual, frame, mirrored)


def mirror(descriptors: np.ndarray) -> np.ndarray:
    """Give the descriptors (N, 128) that the mirror image would have.

    SIFT stores 4 rows x 4 columns x 8 directions relative to the keypoint's own direction, which the mirror takes
    along: rows change places across it, directions change sign.
    """
    return descriptors.reshape(-1, 4, 4, 8)[:, ::-1, :, -np.arange(8) % 8].reshape(-1, 128)


def matches(query: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pair descriptors that are each other's nearest and much nearer than the second.

    Returns:
        (M, 2) int, rows of the query (N, 128) and of the target (K, 128).
    """
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


def compare(image: Description, photo: Description, matrix: np.ndarray) -> tuple[float, float]:
    """Warp a photo onto an image by a matrix (2, 3) and compare the pixels.

    Returns:
        `residual` and `frame` as in `Registration`; 255 and 0 where the two do not meet.
    """
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
