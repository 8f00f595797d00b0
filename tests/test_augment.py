"""Augmentation against numpy, against drawn discs with known places, and against what its ranges promise."""

import cv2
import numpy as np
import pytest
from smear_drawings import draw_disc, draw_smear

from training import augment
from training.augment import Augmentation, change_colour, halvings, warp

# Nothing but the view changes; a disc keeps its colour.
ONLY_VIEWS = {"stain": 0, "stain_floor": 0, "white_balance": 0, "gamma": 0, "degrade_share": 0}
IDENTITY = np.eye(2, 3)
SAME_COLOUR = np.eye(3, 4, dtype=np.float32)


@pytest.fixture
def smear():
    return draw_smear("neutrophil", 4, (320, 240))


def dark(image):
    """Weight of each pixel (H, W), 0 on the ground to 1 in the disc of ``draw_disc``."""
    return np.clip((image[..., 0].astype(float) - 230) / (60 - 230), 0, 1)


def centre_of(weights):
    """Centre (col, row) of a blot of weights (H, W)."""
    rows, cols = np.indices(weights.shape)
    return np.array([(weights * cols).sum(), (weights * rows).sum()]) / weights.sum()


def whole_discs(image):
    """Diameters in px of the discs that lie wholly inside; a mirrored border may show several."""
    count, parts = cv2.connectedComponents((dark(image) > 0.1).astype(np.uint8))
    found = []
    for part in range(1, count):
        inside = parts == part
        edge = inside[[0, -1]].any() or inside[:, [0, -1]].any()
        if not edge:
            found.append(2 * np.sqrt(dark(image)[inside].sum() / np.pi))
    return found


# The same state gives the same image


def test_the_same_state_gives_the_same_image_and_the_next_draw_another(smear):
    image, box = smear
    pyramid, draw = halvings(image), Augmentation()
    first, second = (np.random.default_rng(5) for _ in range(2))
    drawn = [[draw(pyramid, rng, 96, [box]) for _ in range(30)] for rng in (first, second)]
    for one, two in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, two)
    assert len({one.tobytes() for one in drawn[0]}) == 30
    assert first.bit_generator.state == second.bit_generator.state


def test_the_photo_itself_is_left_alone(smear):
    pyramid = halvings(smear[0].copy())
    for seed in range(20):
        Augmentation()(pyramid, np.random.default_rng(seed), 64, [smear[1]])
    np.testing.assert_array_equal(pyramid[0], smear[0])


@pytest.mark.parametrize("side", [64, 96, 224])
@pytest.mark.parametrize("size", [(320, 240), (640, 480), (256, 256), (150, 200)])
def test_a_whole_view_is_as_a_copy_of_the_archive_and_a_crop_is_a_square(side, size):
    # A copy is 320 px wide and is seen at 224 px: the view is 320 / 224 of the side wide, in the photo's proportions.
    image, box = draw_smear("monocyte", 1, size)
    for crop_share, expected in (
        (0.0, (round(side * 320 / 224 * size[1] / size[0]), round(side * 320 / 224))),
        (1.0, None),
    ):
        drawn = Augmentation(crop_share=crop_share)(halvings(image), np.random.default_rng(0), side, [box])
        assert drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.shape[2] == 3
        if expected:
            assert np.abs(np.subtract(drawn.shape[:2], expected)).max() <= 1
        else:
            assert drawn.shape[0] == drawn.shape[1] and side <= drawn.shape[0] <= 1.2 * side


def test_without_boxes_every_view_is_whole(smear):
    shapes = {Augmentation()(halvings(smear[0]), np.random.default_rng(s), 70, None).shape for s in range(30)}
    assert shapes == {(75, 100, 3)}


def test_channels_stay_in_the_order_red_green_blue():
    reddish = np.full((240, 320, 3), (200, 120, 60), np.uint8)
    for seed in range(60):  # a JPEG round trip or a stain must not swap the first with the last
        drawn = Augmentation()(halvings(reddish), np.random.default_rng(seed), 64)
        red, green, blue = np.percentile(drawn.reshape(-1, 3), 90, axis=0)
        assert red > green > blue


# Halving


def test_halvings_have_half_the_size_each_and_end_before_the_shorter_side_falls_below_the_smallest():
    levels = halvings(np.zeros((480, 640, 3), np.uint8))
    assert [level.shape for level in levels] == [(480, 640, 3), (240, 320, 3), (120, 160, 3)]
    assert len(halvings(np.zeros((239, 900, 3), np.uint8))) == 1
    assert [level.shape[:2] for level in halvings(np.zeros((65, 77, 3), np.uint8), 16)] == [
        (65, 77),
        (32, 38),
        (16, 19),
    ]


def test_a_halving_is_the_mean_of_each_four_pixels(smear):
    image = smear[0]
    mean = image.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert np.abs(halvings(image)[1] - mean).max() <= 0.5


# Moving pixels


def test_the_identity_a_quarter_turn_and_a_flip_are_numpys(smear):
    image = smear[0][:, :200]  # (240, 200, 3)
    height, width = image.shape[:2]
    # Rows of a matrix: where a pixel (col, row) goes.
    moves = {
        "identity": (IDENTITY, image),
        "clockwise": (np.array([[0.0, -1, height - 1], [1, 0, 0]]), np.rot90(image, -1)),
        "anticlockwise": (np.array([[0.0, 1, 0], [-1, 0, width - 1]]), np.rot90(image)),
        "upside down": (np.array([[-1.0, 0, width - 1], [0, -1, height - 1]]), np.rot90(image, 2)),
        "left for right": (np.array([[-1.0, 0, width - 1], [0, 1, 0]]), image[:, ::-1]),
        "top for bottom": (np.array([[1.0, 0, 0], [0, -1, height - 1]]), image[::-1]),
    }
    for name, (matrix, expected) in moves.items():
        found = warp([image], matrix, (expected.shape[1], expected.shape[0]), (0, 0, 0))
        assert np.abs(found.astype(int) - expected).max() <= 1, name


def test_what_lies_outside_is_the_border_or_the_mirror_image(smear):
    image = smear[0]
    moved = np.array([[1.0, 0, 30], [0, 1, 0]])  # 30 px to the right
    filled = warp([image], moved, (320, 240), (7, 8, 9))
    np.testing.assert_array_equal(filled[:, :30], np.broadcast_to((7, 8, 9), (240, 30, 3)))
    mirrored = warp([image], moved, (320, 240), None)
    np.testing.assert_array_equal(mirrored[:, :30], image[:, 30:0:-1])
    for found in (filled, mirrored):
        np.testing.assert_array_equal(found[:, 30:], image[:, :290])


@pytest.mark.parametrize("zoom", [0.2, 0.35, 0.5, 0.7, 1.0, 1.6])
@pytest.mark.parametrize("flip", [1, -1])
def test_a_discs_centre_lands_where_the_matrix_says(zoom, flip):
    rng = np.random.default_rng(int(zoom * 100) + flip)
    for _ in range(10):
        place = rng.uniform((150, 150), (490, 330))
        photo = draw_disc((640, 480), place, 40)
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = zoom * np.diag([1.1, 1 / 1.1]) @ turn @ np.diag([flip, 1])
        target = rng.uniform((100, 80), (220, 160))
        matrix = np.hstack([linear, (target - linear @ place)[:, None]])
        image = warp(halvings(photo), matrix, (320, 240), (230, 225, 235))
        np.testing.assert_allclose(centre_of(dark(image)), matrix @ [*place, 1], atol=1.5)
        area = np.pi * 40**2 * zoom**2
        assert 0.9 < dark(image).sum() / area < 1.1


def test_shrinking_does_not_alias():
    # Stripes of one pixel are grey when seen from afar; read off point by point they would stay black and white.
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = warp(halvings(stripes), np.diag([0.25, 0.25]) @ IDENTITY, (160, 120), None)
    assert np.abs(shrunk.astype(int) - 127.5).max() < 8


# Views


def test_whole_views_are_enlarged_by_0_7_to_1_4_and_by_all_of_it():
    photo = draw_disc((640, 480), (320, 240), 30)
    draw, side = Augmentation(crop_share=0, **ONLY_VIEWS), 224
    shown_at_one = 60 * (side / 224) * 320 / 640  # px, the disc's diameter at scale 1
    scales = []
    for seed in range(250):
        scales += [
            d / shown_at_one for d in whole_discs(draw(halvings(photo), np.random.default_rng(seed), side, None))
        ]
    assert len(scales) >= 200
    assert 0.7 * 0.96 <= min(scales) < 0.75 and 1.3 < max(scales) <= 1.4 * 1.04
    assert (
        0.9 < np.exp(np.mean(np.log(scales))) < 1.08
    )  # as often smaller as larger: the middle is sqrt(0.7 * 1.4) = 0.99


def test_close_crops_show_the_cell_large_and_near_the_middle():
    photo = draw_disc((640, 480), (200, 150), 40)
    box, draw = [110, 160, 190, 240], Augmentation(crop_share=1, stretch=0, **ONLY_VIEWS)
    shares = []
    for seed in range(150):
        image = draw(halvings(photo), np.random.default_rng(seed), 96, [box])
        side = image.shape[0]
        discs = [d for d in whole_discs(image) if d > 0.3 * side]
        if len(discs) == 1:
            shares.append(discs[0] / side)
        assert dark(image)[int(side * 0.37) : int(side * 0.63), int(side * 0.37) : int(side * 0.63)].max() > 0.9
    # The crop is 1.1 to 2.4 sides of the box wide.
    assert 1 / 2.4 * 0.97 < min(shares) < 0.46 and 0.75 < max(shares) < 1 / 1.1 * 1.03


def test_a_close_crop_is_about_one_of_the_boxes_and_each_gets_its_turn():
    photo = draw_disc((640, 480), (120, 120), 40, colour=(60, 40, 120))
    cv2.circle(photo, (480, 330), 40, (40, 150, 60), cv2.FILLED)
    colours = np.array([(60, 40, 120), (40, 150, 60)])
    boxes, draw = [[80, 80, 160, 160], [290, 440, 370, 520]], Augmentation(crop_share=1, **ONLY_VIEWS)
    turns = np.zeros(2, int)
    for seed in range(60):
        image = draw(halvings(photo), np.random.default_rng(seed), 64, boxes)
        middle = image[image.shape[0] // 2, image.shape[1] // 2]
        turns += (np.abs(colours - middle) <= 1).all(axis=1)
    assert turns.sum() == 60 and turns.min() > 15


@pytest.fixture
def share_lost(monkeypatch):
    """Give the share of views of a 640x480 photo in which no cell's centre is to be seen."""
    views, real = [], augment.warp

    def spy(pyramid, matrix, size, border):
        views.append((matrix, size))
        return real(pyramid, matrix, size, border)

    monkeypatch.setattr(augment, "warp", spy)
    photo = halvings(np.full((480, 640, 3), 220, np.uint8))

    def count(draw, boxes, told=True, number=600):
        views.clear()
        for seed in range(number):
            draw(photo, np.random.default_rng(seed), 64, boxes if told else None)
        middles = np.array([((box[1] + box[3]) / 2, (box[0] + box[2]) / 2, 1) for box in boxes])
        seen = [middles @ matrix.T for matrix, _ in views]  # (cells, 2), (col, row) in the view
        inside = [
            ((places >= 0) & (places < size)).all(axis=1).any() for places, (_, size) in zip(seen, views, strict=True)
        ]
        return 1 - np.mean(inside)

    return count


@pytest.mark.parametrize(
    "boxes", [[[200, 280, 280, 360]], [[150, 200, 250, 300]], [[20, 20, 80, 80], [210, 300, 290, 400]]]
)
def test_a_view_shows_the_centre_of_at_least_one_cell(share_lost, boxes):
    assert share_lost(Augmentation(), boxes) == 0


def test_a_cell_near_a_corner_is_hardly_ever_lost_and_would_be_if_its_box_were_not_known(share_lost):
    whole, corner = Augmentation(crop_share=0), [[60, 80, 140, 160]]
    blind = share_lost(whole, corner, told=False)
    assert blind > 0.1 and share_lost(whole, corner) < blind / 20


def test_a_close_crop_never_loses_its_cell(share_lost):
    assert share_lost(Augmentation(crop_share=1), [[0, 0, 60, 60]]) == 0


# Colour


def all_colours():
    """Give 32 x 32 x 32 colours over the whole cube, (181, 182, 3)."""
    levels = np.linspace(0, 255, 32).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    return np.resize(cube, (181, 182, 3))


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


def test_black_fill_stays_black_under_every_colour_map_and_dark_pixels_are_not_fill(smear):
    image = smear[0].copy()
    image[:40] = 0
    image[40:50] = (0, 0, 1)
    for seed in range(50):
        changed = change_colour(image, Augmentation()._colour_map(np.random.default_rng(seed)))
        assert not changed[:40].any()
        assert changed.dtype == np.uint8 and changed.shape == image.shape
    brighter = SAME_COLOUR.copy()
    brighter[:, 3] = -1
    assert change_colour(image, brighter)[40:50].any()


def test_without_a_range_a_colour_map_is_the_identity_and_with_one_it_is_not():
    still = Augmentation(**ONLY_VIEWS)
    np.testing.assert_allclose(still._colour_map(np.random.default_rng(0)), SAME_COLOUR, atol=1e-5)
    assert np.abs(Augmentation()._colour_map(np.random.default_rng(0)) - SAME_COLOUR).max() > 0.02


def test_a_stronger_stain_darkens_what_is_stained_and_leaves_the_clear_ground(smear):
    # Haematoxylin twice as strong: the nucleus loses light, white stays white.
    image = np.array([[[95, 55, 135], [255, 255, 255]]], np.uint8)
    linear = (augment.OD_TO_HED * [2, 1, 1]) @ augment.HED_TO_OD
    changed = change_colour(image, np.hstack([linear.T, np.zeros((3, 1))]).astype(np.float32))
    assert changed[0, 0].sum() < image[0, 0].sum() - 60
    assert (changed[0, 1] >= 254).all()
