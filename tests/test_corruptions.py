"""Corruptions against what optics, colour models and arithmetic say they do to points, blocks and plain colours."""

import colorsys

import cv2
import numpy as np
import pytest
from smear_drawings import LABELS, draw_smear

from evaluation.corruptions import CORRUPTIONS, MOTION, SEVERITIES, corrupt

# Table 2 of arXiv:2406.17536, the row of BloodMNIST-C.
PUBLISHED = {
    "pixelate", "jpeg_compression", "defocus_blur", "motion_blur", "brightness_up", "brightness_down", "contrast_up",
    "contrast_down", "saturate", "stain_deposit", "bubble",
}  # fmt: skip
DRAWN_AT_RANDOM = {"motion_blur", "stain_deposit", "bubble"}
SIDE = 224  # px, to which the parameters are stated


def smear(seed=0, size=(SIDE, SIDE)):
    return draw_smear(LABELS[seed % 4], seed, size)[0]


def point(brightness=255):
    """One white pixel in the middle of black."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[SIDE // 2, SIDE // 2] = brightness
    return image


def distance(one, other):
    return np.abs(one.astype(float) - other.astype(float)).mean()


def test_they_are_the_published_eleven():
    assert len(CORRUPTIONS) == 11 and set(CORRUPTIONS) == PUBLISHED


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(320, 240), (150, 181)])
def test_an_image_keeps_its_shape_and_the_callers_pixels(name, size):
    image = smear(size=size)
    before = image.copy()
    image.flags.writeable = False
    for severity in SEVERITIES:
        changed = corrupt(image, name, severity, 3)
        assert changed.shape == image.shape and changed.dtype == np.uint8
        assert distance(changed, before) > 0.1
        np.testing.assert_array_equal(changed, corrupt(image, name, severity, 3))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_says_what_is_drawn_and_nothing_else(name):
    first, second = (corrupt(smear(), name, 5, seed) for seed in (0, 1))
    assert (first != second).any() == (name in DRAWN_AT_RANDOM)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_distance_grows_with_the_severity(name):
    images = [smear(seed) for seed in range(8)]
    far = [np.mean([distance(corrupt(x, name, s, k), x) for k, x in enumerate(images)]) for s in SEVERITIES]
    steps = np.diff(far)
    if name == "stain_deposit":  # its third and fourth severity have the same parameters
        assert steps[2] == 0
        steps = np.delete(steps, 2)
    assert (steps > 0).all(), far


@pytest.mark.parametrize(
    ("name", "severity", "area"),
    [("defocus_blur", s, np.pi * r**2) for s, r in zip(SEVERITIES, (2, 3, 4, 5, 6), strict=True)],
)
def test_defocus_spreads_a_point_evenly_over_a_disc(name, severity, area):
    spread = corrupt(point(), name, severity, 0)[..., 0].astype(float)
    assert spread.max() == pytest.approx(255 / area, abs=1)
    rows, cols = np.nonzero(spread)
    assert np.hypot(rows - SIDE // 2, cols - SIDE // 2).max() <= np.sqrt(area / np.pi) + np.sqrt(0.5)


@pytest.mark.parametrize(("severity", "radius", "deviation"), [(s, *MOTION[s - 1]) for s in SEVERITIES])
def test_motion_drags_a_point_along_a_line(severity, radius, deviation):
    along = np.arange(2 * radius + 1)
    weights = np.exp(-(along**2) / (2 * deviation**2))
    expected = (along * weights).sum() / weights.sum()
    angles = []
    for seed in range(12):
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[SIDE // 2 - 8 : SIDE // 2 + 9, SIDE // 2 - 8 : SIDE // 2 + 9] = (
            255  # a point of 17 px: one would round away
        )
        dragged = corrupt(image, "motion_blur", severity, seed)[..., 0].astype(float)
        rows, cols = np.mgrid[:SIDE, :SIDE]
        down, right = ((axis * dragged).sum() / dragged.sum() - SIDE // 2 for axis in (rows, cols))
        assert np.hypot(down, right) == pytest.approx(expected, abs=0.15)
        angles.append(np.degrees(np.arctan2(down, right)) % 180)
    spread = np.minimum(angles, 180 - np.array(angles))
    assert spread.max() <= 46 and np.ptp(angles) > 30  # within 45 degrees of the rows, and not always the same


def test_pixels_that_are_coarse_already_stay():
    blocks = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(corrupt(blocks, "pixelate", 5, 0), blocks)  # a quarter of the pixels each way
    np.testing.assert_array_equal(corrupt(blocks, "pixelate", 2, 0), blocks)  # half
    assert distance(corrupt(blocks, "pixelate", 1, 0), blocks) > 1  # 0.6: blocks of 1.67 px


def test_brightness_contrast_and_saturation_go_the_way_they_are_called():
    for seed in range(4):
        image = smear(seed)

        def of(name, image=image):
            return corrupt(image, name, 3, 0).astype(float)

        assert of("brightness_down").mean() == pytest.approx(0.7 * image.mean(), abs=1)
        assert of("brightness_up").mean() > image.mean()
        assert of("contrast_down").std() < image.std() < of("contrast_up").std()
        saturation = [
            cv2.cvtColor(x.astype(np.uint8), cv2.COLOR_RGB2HSV)[..., 1].mean() for x in (image, of("saturate"))
        ]
        assert saturation[1] > saturation[0] + 20


def test_saturation_is_added_as_in_the_colour_model():
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for severity, more in zip(SEVERITIES, (0.05, 0.10, 0.15, 0.17, 0.20), strict=True):
        expected = np.empty((8, 8, 3))
        for place in np.ndindex(8, 8):
            hue, saturation, value = colorsys.rgb_to_hsv(*colours[place] / 255)
            expected[place] = colorsys.hsv_to_rgb(hue, min(1, saturation + more), value)
        np.testing.assert_allclose(corrupt(colours, "saturate", severity, 0), expected * 255, atol=1)


def test_deposits_are_black_and_as_large_as_stated():
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    shares = []
    for seed in range(20):
        one = corrupt(white, "stain_deposit", 1, seed)
        assert set(np.unique(one)) == {0, 255}
        rows, cols = np.nonzero(one[..., 0] == 0)
        assert np.ptp(rows) < 24 and np.ptp(cols) < 24
        assert min(rows.min(), cols.min()) >= 10 and max(rows.max(), cols.max()) < SIDE - 10
        shares.append(len(rows) / 24**2)
    assert np.mean(shares) == pytest.approx(0.62, abs=0.05)
    most = [np.sum(corrupt(white, "stain_deposit", 5, seed)[..., 0] == 0) / 32**2 for seed in range(20)]
    assert min(most) < 0.8 and 1.1 < max(most) < 3  # one to three blots of 32 px


def test_bubbles_only_whiten_in_part():
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    image = corrupt(black, "bubble", 5, 0)
    assert set(np.unique(image)) == {0, 100, 130}
    # Seven to twelve discs of radius 3 to 15, with a rim of 2 px, may overlap.
    assert 7 * np.pi * 5**2 * 0.5 < np.sum(image[..., 0] > 0) < 12 * np.pi * 17**2


@pytest.mark.parametrize("name", sorted({*CORRUPTIONS} - {"jpeg_compression"}))
def test_it_takes_the_same_share_of_an_image_of_any_size(name):
    """Twice the pixels, corrupted and halved again, look as the small image corrupted."""
    small = cv2.GaussianBlur(smear(1), (0, 0), 3)  # so that halving loses nothing
    large = cv2.resize(small, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC)
    expected = corrupt(small, name, 5, 7)
    found = cv2.resize(corrupt(large, name, 5, 7), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert distance(found, expected) < 0.3 * distance(small, expected) + 0.3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "fog"}, "The corruption 'fog' is unknown; expected one of"),
        ({"severity": 0}, "The severity is 0; expected a whole number from 1"),
        ({"severity": 6}, "The severity is 6"),
        ({"severity": 2.5}, "The severity is 2.5"),
        ({"seed": -1}, "The seed is -1; expected 0 or more"),
        ({"image": np.zeros((8, 8, 3))}, "The image is float64; expected a numpy array of uint8"),
        ({"image": [[0]]}, "The image is list; expected a numpy array"),
        ({"image": np.zeros((8, 8), np.uint8)}, r"shape \(8, 8\); expected \(H, W, 3\)"),
        ({"image": np.zeros((8, 8, 4), np.uint8)}, r"shape \(8, 8, 4\)"),
        ({"image": np.zeros((0, 8, 3), np.uint8)}, r"shape \(0, 8, 3\)"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(changed, message):
    arguments = {"image": smear(size=(24, 18)), "name": "pixelate", "severity": 1, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        corrupt(**arguments)
