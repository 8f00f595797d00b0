"""Colours of a smear image in optical density: read, carried over from another laboratory's image, and changed at random.

Every change is one affine map (3, 4) of the optical densities of red, green and blue, so that changes compose.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# Optical density of one unit of haematoxylin, eosin and residual in RGB (Ruifrok & Johnston 2001, as in skimage.color).
HED_TO_OD = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
OD_TO_HED = np.linalg.inv(HED_TO_OD)
GREY_TO_OD = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)  # a table over the 256 grey levels
SMALLEST_SPREAD = 0.02  # of optical density: what spreads less along an axis is noise, and not to be blown up
LARGEST_GAIN = 3.0  # of a colour axis, when colours are carried over


@dataclass(frozen=True)
class Colours:
    """How an image's optical densities are spread: ``mean`` (3,) and ``covariance`` (3, 3) over red, green and blue."""

    mean: np.ndarray
    covariance: np.ndarray


def read_colours(image: np.ndarray) -> Colours:
    """Read the colours of an image (H, W, 3), uint8 RGB; pure black is the fill of turned images and does not count."""
    pixels = image.reshape(-1, 3)
    shown = pixels[pixels.max(axis=1) > 0]
    if len(shown) < 2:
        shown = pixels
    density = GREY_TO_OD[shown]
    return Colours(density.mean(axis=0), np.cov(density, rowvar=False))


def carry_colours(own: Colours, other: Colours) -> np.ndarray:
    """Return the affine map (3, 4) that gives an image with colours ``own`` the mean and covariance of ``other``.

    It is the linear Monge-Kantorovich map (Pitié & Kokaram 2007), which moves colours least: Reinhard's transfer without
    a choice of axes. A spread below ``SMALLEST_SPREAD`` counts as that, and no axis is stretched more than ``LARGEST_GAIN``.
    """
    root, inverse = _roots(own.covariance)
    other_root, _ = _roots(other.covariance)
    # With M = root @ other_root, M @ M.T is what is to be rooted, and its eigenvectors are M's left singular vectors.
    axes, spreads, _ = np.linalg.svd(root @ other_root)
    linear = inverse @ (axes * spreads) @ axes.T @ inverse
    values, axes = np.linalg.eigh((linear + linear.T) / 2)
    linear = (axes * np.clip(values, 1 / LARGEST_GAIN, LARGEST_GAIN)) @ axes.T
    return np.hstack([linear, (other.mean - linear @ own.mean)[:, None]])


def _roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the square root (3, 3) of a covariance and its inverse."""
    values, axes = np.linalg.eigh(covariance)
    spread = np.sqrt(np.maximum(values, SMALLEST_SPREAD**2))
    return (axes * spread) @ axes.T, (axes / spread) @ axes.T


def blend(colour_map: np.ndarray, share: float) -> np.ndarray:
    """Return the map (3, 4) that goes ``share`` of the way from no change to ``colour_map``."""
    return share * colour_map + (1 - share) * np.eye(3, 4)


def compose(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the map (3, 4) that applies ``first``, then ``second``."""
    linear = second[:, :3] @ first[:, :3]
    return np.hstack([linear, (second[:, :3] @ first[:, 3] + second[:, 3])[:, None]])


def change_colour(image: np.ndarray, colour_map: np.ndarray) -> np.ndarray:
    """Apply an affine map (3, 4) to the optical densities of an image (H, W, 3), uint8 RGB; black fill stays black."""
    density = cv2.transform(GREY_TO_OD[image], colour_map.astype(np.float32))
    changed = np.clip(cv2.exp(-density) * 256 - 1, 0, 255).astype(np.uint8)
    fill = (image[..., 0] | image[..., 1] | image[..., 2]) == 0
    changed[fill] = 0
    return changed
