"""Colours in optical density against numpy, against the closed form of the map they are carried by, and against themselves."""

import numpy as np
import pytest
from smear_drawings import draw_smear

from training.augment import Augmentation
from training.colour import (
    HED_TO_OD,
    LARGEST_GAIN,
    OD_TO_HED,
    Colours,
    blend,
    carry_colours,
    change_colour,
    compose,
    read_colours,
)

SAME_COLOUR = np.eye(3, 4, dtype=np.float32)


def all_colours():
    """Give 32 x 32 x 32 colours over the whole cube, (181, 182, 3)."""
    levels = np.linspace(0, 255, 32).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    return np.resize(cube, (181, 182, 3))


def spread_along(values, rng):
    """Give a symmetric matrix (3, 3) with these eigenvalues and axes at random."""
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return (axes * values) @ axes.T


def draw_colours(rng, low=0.03, high=0.4):
    return Colours(rng.uniform(0.1, 0.9, 3), spread_along(rng.uniform(low, high, 3) ** 2, rng))


def move(colour_map, densities):
    """Apply a map (3, 4) to densities (N, 3)."""
    return densities @ colour_map[:, :3].T + colour_map[:, 3]


# Changing


def test_the_identity_leaves_every_colour_within_one_grey_level():
    image = all_colours()
    assert np.abs(change_colour(image, SAME_COLOUR).astype(int) - image).max() <= 1


def test_twice_the_optical_density_is_the_square_of_the_light():
    image = all_colours()
    light = (image + 1.0) / 256
    found = change_colour(image, 2 * SAME_COLOUR)
    expected = np.clip(light**2 * 256 - 1, 0, 255)
    expected[(image == 0).all(axis=2)] = 0
    assert np.abs(found - expected).max() <= 1


def test_an_added_density_is_a_gain_of_one_channel():
    image = all_colours().astype(int)
    gain = SAME_COLOUR.copy()
    gain[1, 3] = np.log(2)  # half the green light
    found = change_colour(image.astype(np.uint8), gain).astype(int)
    lit = (image > 0).any(axis=2)
    assert np.abs(found[lit][:, [0, 2]] - image[lit][:, [0, 2]]).max() <= 1
    assert np.abs(found[lit][:, 1] - np.maximum((image[lit][:, 1] + 1) / 2 - 1, 0)).max() <= 1


def test_black_fill_stays_black_under_every_colour_map_and_dark_pixels_are_not_fill():
    image = draw_smear("neutrophil", 4, (320, 240))[0]
    image[:40] = 0
    image[40:50] = (0, 0, 1)
    for seed in range(50):
        changed = change_colour(image, Augmentation()._colour_map(np.random.default_rng(seed)))
        assert not changed[:40].any()
        assert changed.dtype == np.uint8 and changed.shape == image.shape
    brighter = SAME_COLOUR.copy()
    brighter[:, 3] = -1
    assert change_colour(image, brighter)[40:50].any()


def test_a_stronger_stain_darkens_what_is_stained_and_leaves_the_clear_ground():
    # Haematoxylin twice as strong: the nucleus loses light, white stays white.
    image = np.array([[[95, 55, 135], [255, 255, 255]]], np.uint8)
    linear = (OD_TO_HED * [2, 1, 1]) @ HED_TO_OD
    changed = change_colour(image, np.hstack([linear.T, np.zeros((3, 1))]).astype(np.float32))
    assert changed[0, 0].sum() < image[0, 0].sum() - 60
    assert (changed[0, 1] >= 254).all()


# Reading


def test_colours_are_the_mean_and_covariance_of_the_optical_density():
    image = draw_smear("eosinophil", 3)[0]
    density = -np.log((image.reshape(-1, 3) + 1.0) / 256)
    found = read_colours(image)
    np.testing.assert_allclose(found.mean, density.mean(axis=0), rtol=1e-4)  # summed in single precision
    centred = density - density.mean(axis=0)
    np.testing.assert_allclose(found.covariance, centred.T @ centred / (len(density) - 1), rtol=1e-4, atol=1e-7)


def test_black_fill_is_no_colour_of_an_image():
    image = draw_smear("eosinophil", 3)[0]
    filled = np.zeros((200, 200, 3), np.uint8)
    filled[50 : 50 + image.shape[0], 60 : 60 + image.shape[1]] = image
    expected, found = read_colours(image), read_colours(filled)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-4)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-4, atol=1e-7)
    black = read_colours(np.zeros((8, 8, 3), np.uint8))  # and yet an image that is nothing else has some
    np.testing.assert_allclose(black.mean, np.log(256), rtol=1e-5)


# Carrying over


@pytest.mark.parametrize("seed", range(6))
def test_equal_colours_leave_everything_as_it_is(seed):
    rng = np.random.default_rng(seed)
    colours = draw_colours(rng, low=0.001)  # also what hardly spreads
    np.testing.assert_allclose(carry_colours(colours, colours), np.eye(3, 4), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_map_between_two_clouds_is_the_symmetric_one_that_made_the_second_of_the_first(seed):
    # Of all linear maps from a covariance C to B C B with B symmetric and positive, B moves least, and it is the only such one.
    rng = np.random.default_rng(seed)
    own = draw_colours(rng, low=0.1)
    made_by = spread_along(rng.uniform(0.5, 2.5, 3), rng)
    other = Colours(rng.uniform(0.1, 0.9, 3), made_by @ own.covariance @ made_by)
    found = carry_colours(own, other)
    np.testing.assert_allclose(found[:, :3], made_by, atol=1e-8)
    np.testing.assert_allclose(found[:, :3] @ own.mean + found[:, 3], other.mean, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_densities_take_on_the_others_mean_and_covariance(seed):
    rng = np.random.default_rng(seed)
    clouds = [rng.normal(0.5, rng.uniform(0.08, 0.2, 3), (500, 3)) @ spread_along([0.7, 1, 1.4], rng) for _ in range(2)]
    own, other = (Colours(cloud.mean(axis=0), np.cov(cloud, rowvar=False)) for cloud in clouds)
    moved = move(carry_colours(own, other), clouds[0])
    np.testing.assert_allclose(moved.mean(axis=0), other.mean, atol=1e-9)
    np.testing.assert_allclose(np.cov(moved, rowvar=False), other.covariance, atol=1e-9)
    back = move(carry_colours(other, own), moved)
    np.testing.assert_allclose(back, clouds[0], atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_no_axis_is_stretched_or_flattened_beyond_the_largest_gain(seed):
    rng = np.random.default_rng(seed)
    flat, wide = draw_colours(rng, 0.0001, 0.01), draw_colours(rng, 0.3, 0.9)
    for own, other, limit in ((flat, wide, LARGEST_GAIN), (wide, flat, 1 / LARGEST_GAIN)):
        found = carry_colours(own, other)
        np.testing.assert_allclose(np.linalg.eigvalsh(found[:, :3]), limit, rtol=1e-6)
        np.testing.assert_allclose(found[:, :3] @ own.mean + found[:, 3], other.mean, atol=1e-9)


def test_an_image_of_one_colour_takes_on_the_others_mean():
    plain = read_colours(np.full((8, 8, 3), (200, 180, 190), np.uint8))
    other = read_colours(draw_smear("monocyte", 1)[0])
    found = carry_colours(plain, other)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, :3] @ plain.mean + found[:, 3], other.mean, atol=1e-6)


def test_a_smear_takes_on_the_colours_of_another_stain():
    # A stain that no drawing has: darker, bluer, and of less contrast.
    smear, model = draw_smear("neutrophil", 2, (160, 120))[0], draw_smear("eosinophil", 5, (160, 120))[0]
    stained = change_colour(model, np.hstack([np.diag([0.9, 0.8, 0.6]), [[0.35], [0.25], [0.05]]]))
    own, other = read_colours(smear), read_colours(stained)
    found = read_colours(change_colour(smear, carry_colours(own, other)))
    np.testing.assert_allclose(found.mean, other.mean, atol=0.02)
    np.testing.assert_allclose(found.covariance, other.covariance, atol=0.1 * np.abs(other.covariance).max())
    assert np.abs(own.mean - other.mean).max() > 0.3  # it was another stain


# Composing


@pytest.mark.parametrize("seed", range(4))
def test_a_composed_map_does_what_the_two_do_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    first, second = (np.hstack([rng.normal(size=(3, 3)), rng.normal(size=(3, 1))]) for _ in range(2))
    densities = rng.uniform(0, 2, (50, 3))
    np.testing.assert_allclose(move(compose(second, first), densities), move(second, move(first, densities)), atol=1e-9)


def test_of_an_image_too_but_for_the_rounding_between():
    image = draw_smear("lymphocyte", 1)[0]
    rng = np.random.default_rng(1)
    first, second = (np.hstack([spread_along([0.8, 1, 1.2], rng), rng.uniform(0.02, 0.06, (3, 1))]) for _ in range(2))
    once = change_colour(image, compose(second, first)).astype(int)
    twice = change_colour(change_colour(image, first), second).astype(int)
    assert np.abs(once - twice).max() <= 3
    assert np.abs(once - change_colour(image, compose(first, second))).max() > 3  # the order matters


def test_a_share_of_a_map_goes_that_share_of_the_way():
    rng = np.random.default_rng(0)
    colour_map = rng.normal(size=(3, 4))
    densities = rng.uniform(0, 2, (50, 3))
    for share in (0, 0.3, 1):
        expected = densities + share * (move(colour_map, densities) - densities)
        np.testing.assert_allclose(move(blend(colour_map, share), densities), expected, atol=1e-9)
