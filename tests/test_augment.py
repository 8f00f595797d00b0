"""Augmentation against numpy, against drawn discs with known places, and against what its ranges promise."""

import cv2
import numpy as np
import pytest
from smear_drawings import GROUND, MARKERS, RED_CELL, draw_disc, draw_smear

from training import augment
from training.augment import Augmentation, halvings, read_augmentation, streak, warp
from training.colour import change_colour

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


@pytest.mark.parametrize(("share", "least", "most"), [(0.5, 60, 140), (0.0, 0, 0), (1.0, 200, 200)])
def test_for_a_network_that_sees_more_than_a_copy_has_some_views_have_only_a_copys_pixels(smear, share, least, most):
    draw = Augmentation(crop_share=0, copy_share=share)
    pyramid = halvings(cv2.resize(smear[0], (640, 480)))
    shapes = [draw(pyramid, np.random.default_rng(seed), 288, None).shape[:2] for seed in range(200)]
    assert set(shapes) <= {(240, 320), (309, 411)} and least <= shapes.count((240, 320)) <= most


def test_at_a_copys_own_size_the_share_of_copies_changes_no_draw(smear):
    pyramid = halvings(smear[0])
    for side in (96, 224):
        one, two = (Augmentation(copy_share=share)(pyramid, np.random.default_rng(3), side, None) for share in (0, 1))
        np.testing.assert_array_equal(one, two)


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


def test_a_field_of_several_cells_is_never_shown_whole():
    photo, boxes = draw_disc((640, 480), (200, 150), 40), [[110, 160, 190, 240]]
    for seed in range(40):
        draw = Augmentation(crop_share=0, **ONLY_VIEWS)
        image = draw(halvings(photo), np.random.default_rng(seed), 64, boxes, whole=False)
        assert image.shape == (74, 74, 3) and dark(image)[37, 37] > 0.9


# Ground


CELL = MARKERS["neutrophil"]
CELLS = [[60, 90, 130, 160], [300, 420, 390, 510], [200, 300, 250, 350]]  # of three sizes
OTHERS = [[300, 60, 340, 100], [100, 500, 140, 540], [410, 250, 450, 290], [60, 300, 64, 304]]  # the last one is a slip


@pytest.fixture(scope="module")
def field():
    """A field of 640x480 whose white cells and red cells fill their boxes."""
    image = np.empty((480, 640, 3), np.uint8)
    image[:] = GROUND
    for boxes, colour in ((OTHERS, RED_CELL), (CELLS, CELL)):
        for top, left, bottom, right in boxes:
            cv2.circle(image, ((left + right) // 2, (top + bottom) // 2), (right - left) // 2, colour, cv2.FILLED)
    return halvings(image)


def near(image, colour, reach):
    return (np.abs(image.astype(int) - colour).max(axis=2) <= reach).any()


@pytest.mark.parametrize("stretch", [0.0, 0.15, 0.6])
def test_a_window_of_the_ground_shows_no_pixel_of_a_white_cell_and_nothing_beyond_the_photo(field, stretch):
    draw = Augmentation(**ONLY_VIEWS | {"stretch": stretch})
    drawn = [draw.ground(field, np.random.default_rng(seed), 64, CELLS, OTHERS) for seed in range(400)]
    shown = [image for image in drawn if image is not None]
    assert len(shown) > 300
    for image in shown:
        assert image.shape == (74, 74, 3) and image.dtype == np.uint8
        # Every pixel is ground, red cell, or the edge between: no darker, and no black fill.
        assert (image.min(axis=(0, 1)) >= np.minimum(GROUND, RED_CELL) - 2).all()
        assert not near(image, CELL, 60)
    assert sum(near(image, RED_CELL, 3) for image in shown) > 150


@pytest.mark.parametrize("stretch", [0.0, 0.15, 0.6])
def test_a_window_keeps_clear_of_cells_and_edges_to_its_corners(monkeypatch, stretch):
    views = []
    monkeypatch.setattr(augment, "warp", lambda pyramid, matrix, size, border: views.append(matrix) or pyramid[0])
    draw, photo = Augmentation(**ONLY_VIEWS | {"stretch": stretch}), [np.zeros((480, 640, 3), np.uint8)]
    monkeypatch.setattr(Augmentation, "change", lambda self, image, rng, colours, zoom: image)
    for seed in range(3000):
        draw.ground(photo, np.random.default_rng(seed), 64, CELLS, OTHERS)
    rim = np.array([(col, row) for col in range(75) for row in range(75) if {col, row} & {0, 74}])  # of the window
    assert len(views) > 2500
    for matrix in views:
        places = (rim - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T  # (col, row) in the photo
        assert (places >= -1e-6).all() and (places <= np.array([640, 480]) + 1e-6).all()
        for top, left, bottom, right in CELLS:
            reach = np.hypot(*(places - [(left + right) / 2, (top + bottom) / 2]).T)
            assert reach.min() >= (right - left) / 2 - 1e-6


def test_windows_would_show_white_cells_if_their_boxes_were_not_known(field):
    draw = Augmentation(**ONLY_VIEWS)
    drawn = [draw.ground(field, np.random.default_rng(seed), 96, CELLS[:1], OTHERS) for seed in range(200)]
    assert sum(near(image, CELL, 10) for image in drawn if image is not None) > 20


def test_about_half_of_the_windows_lie_about_a_red_cell_or_platelet(field):
    draw = Augmentation(**ONLY_VIEWS)
    drawn = [draw.ground(field, np.random.default_rng(seed), 96, [[20, 20, 60, 60]], OTHERS[:1]) for seed in range(300)]
    middles = [image[55, 55] for image in drawn if image is not None]
    about = sum(near(middle[None, None], RED_CELL, 3) for middle in middles)
    assert len(middles) == 300 and 110 < about < 200
    alone = [draw.ground(field, np.random.default_rng(seed), 96, [[20, 20, 60, 60]], []) for seed in range(100)]
    assert sum(near(image[55:56, 55:56], RED_CELL, 3) for image in alone if image is not None) < 20


def test_where_the_cell_leaves_no_room_there_is_no_window(monkeypatch):
    photo = [np.full((100, 100, 3), 200, np.uint8)]
    for seed in range(30):
        assert Augmentation().ground(photo, np.random.default_rng(seed), 64, [[0, 0, 100, 100]], []) is None
    # a box of a few pixels is a slip, and no window lies about it
    monkeypatch.setattr("training.augment.GROUND_SHRINKS", 1.0)
    without = Augmentation(ground_side=(9.0, 10.0))
    assert all(
        without.ground(photo, np.random.default_rng(seed), 64, [[0, 0, 20, 20]], [[50, 50, 53, 53]]) is None
        for seed in range(30)
    )


def test_beside_a_cell_that_nearly_fills_its_image_windows_lie_in_the_corners():
    photo = np.full((256, 256, 3), 200, np.uint8)
    cv2.circle(photo, (128, 128), 92, (255, 0, 255), -1)
    draw = Augmentation(**ONLY_VIEWS)
    windows = [draw.ground([photo], np.random.default_rng(seed), 64, [[36, 36, 220, 220]], []) for seed in range(60)]
    found = [window for window in windows if window is not None]
    assert len(found) > 20 and all(window[..., 1].min() > 190 for window in found)  # the cell has none


def test_a_window_is_as_large_as_asked_in_sides_of_a_white_cell():
    stripes = np.full((480, 640, 3), 200, np.uint8)
    stripes[:, ::20] = 100  # a line every 20 px, so that the window's size can be counted
    draw = Augmentation(ground_side=(1.0, 1.0), **ONLY_VIEWS | {"stretch": 0})
    windows = []
    for seed in range(40):
        image = draw.ground([stripes], np.random.default_rng(seed), 96, [[10, 10, 110, 110]], [])
        spectrum = np.abs(np.fft.fft2(image[..., 0] - image[..., 0].mean(), (440, 440)))
        row, col = np.unravel_index(spectrum[:220].argmax(), (220, 440))
        cycles = np.hypot(row, min(col, 440 - col)) / 440 * 110  # lines across the window
        windows.append(cycles * 20)
    assert 95 < np.median(windows) < 105


def test_the_same_state_gives_the_same_window(field):
    drawn = [[Augmentation().ground(field, rng, 64, CELLS, OTHERS) for _ in range(10)] for rng in both_at(7)]
    for one, two in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, two)


def both_at(seed):
    return [np.random.default_rng(seed) for _ in range(2)]


# Colour


def test_carried_colours_come_before_the_random_ones(smear):
    still, colours = Augmentation(**ONLY_VIEWS), np.hstack([np.diag([0.8, 1.1, 1.3]), [[0.05], [0.1], [0.0]]])
    rng = np.random.default_rng(0)
    assert np.abs(still.change(smear[0], rng, colours).astype(int) - change_colour(smear[0], colours)).max() <= 1
    draw = Augmentation(**ONLY_VIEWS | {"gamma": 0.5, "white_balance": 0.3})
    one, two = both_at(3)
    random = draw._colour_map(one)
    expected = change_colour(change_colour(smear[0], colours), random)  # rounded once more
    assert np.abs(draw.change(smear[0], two, colours).astype(int) - expected).max() <= 6
    one, two = both_at(5)
    carried = still([smear[0]], one, 96, colours=colours)
    assert np.abs(carried.astype(int) - change_colour(still([smear[0]], two, 96), colours)).max() <= 2


def test_an_image_that_loses_its_colours_is_grey(smear):
    small = np.ascontiguousarray(smear[0][::4, ::4])
    for seed in range(20):
        image = Augmentation(grey_share=1, noise=0, jpeg=95).change(small, np.random.default_rng(seed))
        assert np.ptp(image.astype(int), axis=2).max() <= 2  # a JPEG rounds
    changed = [Augmentation(grey_share=0.3, **ONLY_VIEWS).change(small, np.random.default_rng(s)) for s in range(300)]
    assert 60 < sum(int(np.ptp(image, axis=2).max()) == 0 for image in changed) < 120


def test_channels_that_leak_into_each_other_leave_greys_grey(smear):
    draw = Augmentation(mixing=0.2, **ONLY_VIEWS)
    grey = np.repeat(np.arange(1, 256, dtype=np.uint8)[None, :, None], 3, axis=2)
    changes = []
    for seed in range(20):
        assert np.abs(draw.change(grey, np.random.default_rng(seed)).astype(int) - grey).max() <= 1
        changes.append(np.abs(draw.change(smear[0], np.random.default_rng(seed)).astype(int) - smear[0]).max())
    assert np.median(changes) > 10


def test_without_a_range__a_colour_map_is_the_identity_and_with_one_it_is_not():
    still = Augmentation(**ONLY_VIEWS)
    np.testing.assert_allclose(still._colour_map(np.random.default_rng(0)), SAME_COLOUR, atol=1e-5)
    assert np.abs(Augmentation()._colour_map(np.random.default_rng(0)) - SAME_COLOUR).max() > 0.02


# A moved camera, coarse pixels


@pytest.fixture
def degrade(monkeypatch):
    """Give what changes an image by the named ranges alone; without JPEG, which would blur the edges that are looked at."""
    monkeypatch.setattr(cv2, "imencode", lambda kind, image, options: (True, image))
    monkeypatch.setattr(cv2, "imdecode", lambda image, flags: image)

    def change(image, seed, zoom=1.0, **ranges):
        draw = Augmentation(**ONLY_VIEWS | {"degrade_share": 1, "blur": 0, "noise": 0} | ranges)
        return draw.change(image, np.random.default_rng(seed), zoom=zoom).astype(int)

    return change


@pytest.mark.parametrize("length", [1.0, 4.0, 7.5, 12.0])
def test_a_streak_is_a_line_of_its_length_and_direction_that_keeps_the_light(length):
    for angle in np.linspace(0, np.pi, 7):
        kernel = streak(length, angle)
        assert kernel.sum() == pytest.approx(1, abs=1e-5) and kernel.shape[0] == kernel.shape[1]
        rows, cols = np.nonzero(kernel)
        middle = (len(kernel) - 1) / 2
        along = (cols - middle) * np.cos(angle) + (rows - middle) * np.sin(angle)
        across = (rows - middle) * np.cos(angle) - (cols - middle) * np.sin(angle)
        assert np.abs(across).max() <= 0.75  # rounded to a pixel
        assert np.ptp(along) == pytest.approx(length, abs=1.5)


def test_a_moved_camera_smears_one_way_and_only_where_asked(degrade):
    point = np.full((101, 101, 3), 40, np.uint8)
    point[50, 50] = 250
    lengths = []
    for seed in range(30):
        light = degrade(point, seed, streak=15)[..., 0] - 39  # a level is lost in the change of colour
        assert light[light > 2].sum() == pytest.approx(210, abs=40)  # spread out, not lost
        rows, cols = np.nonzero(light > 3)
        across, along = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(np.stack([rows, cols]))), 0)) * np.sqrt(12)
        lengths.append(along)
        assert across < 2.5
    assert 8 < max(lengths) <= 17
    assert (degrade(point, 0)[..., 0] > 60).sum() == 1  # without it the point stays one


@pytest.mark.parametrize("zoom", [1, 2])
def test_coarse_pixels_are_squares_of_one_colour_and_only_where_asked(degrade, zoom):
    ramp = np.broadcast_to(np.arange(40, 240, dtype=np.uint8)[:, None], (200, 200, 3)).copy()
    sides = []
    for seed in range(40):
        image = degrade(ramp, seed, zoom, pixelate=6)[..., 0]
        runs = np.diff(np.flatnonzero(np.diff(image[0], prepend=-1, append=-1)))
        assert np.ptp(runs) <= 2 and np.ptp(image, axis=0).max() <= 1  # two squares may round to one level
        sides.append(runs.mean())
    assert min(sides) < 2 * zoom and 5 * zoom < max(sides) <= 6 * zoom + 0.5
    assert len(np.unique(degrade(ramp, 0)[0, :, 0])) > 150


# What the command line says


def test_entries_change_what_they_name_and_nothing_else():
    found = read_augmentation(["mixing=.05", "jpeg=60", "crop_side=1.1,3.5", "grey_share=1e-1"])
    assert found == Augmentation(mixing=0.05, jpeg=60, crop_side=(1.1, 3.5), grey_share=0.1)
    assert isinstance(found.jpeg, int) and read_augmentation([]) == Augmentation()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "blurr=1",
            r"blurr=1: expected NAME=VALUE with one of the names scale, shift, copy_share, crop_share, .*jpeg, degrade_share",
        ),
        ("blur", r"blur: expected a value like that of blur=1\.2"),
        ("blur=strong", r"blur=strong: expected a value like that of blur=1\.2"),
        ("blur=1,2", r"blur=1,2: expected a value like that of blur=1\.2"),
        ("jpeg=40.5", r"jpeg=40\.5: expected a value like that of jpeg=40"),
        ("scale=2", r"scale=2: expected a value like that of scale=\(0\.7, 1\.4\)"),
        ("scale=1,2,3", r"scale=1,2,3: expected a value like that of scale="),
        ("scale=1.4,0.7", r"scale=1\.4,0\.7: expected two rising numbers above 0"),
        ("crop_side=0,2", r"crop_side=0,2: expected two rising numbers above 0"),
        ("blur=-1", r"blur=-1: expected a number from 0 on"),
        ("noise=nan", r"noise=nan: expected a number from 0 on"),
        ("gamma=inf", r"gamma=inf: expected a number from 0 on"),
        ("grey_share=5", r"grey_share=5: expected a share from 0 to 1"),
        ("jpeg=100", r"jpeg=100: expected a quality from 1 to 95"),
    ],
)
def test_an_entry_that_is_none_is_refused_by_name(entry, message):
    with pytest.raises(ValueError, match="^--augment " + message):
        read_augmentation(["stain=.3", entry])
