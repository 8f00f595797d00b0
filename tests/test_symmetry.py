"""The eight views against the group they form, and answers under them against counts made by hand."""

import numpy as np
import pytest

from evaluation.symmetry import VIEWS, average_views, eight_views, stays

LOPSIDED = np.arange(12).reshape(3, 4)  # no flip or turn of it is another


def as_set(views):
    return {(view.shape, view.tobytes()) for view in views}


def test_the_views_are_eight_and_turn_into_each_other():
    views = eight_views(LOPSIDED)
    assert len(views) == len(VIEWS) == len(as_set(views)) == 8
    for view in views:
        assert sorted(view.ravel()) == list(range(12))
        assert as_set(eight_views(view)) == as_set(views)  # closed, as a group is
        assert not np.shares_memory(view, LOPSIDED)


def test_the_views_come_in_the_order_of_their_names():
    corners = np.array([[1, 2], [3, 4]])
    expected = {
        "as it is": [[1, 2], [3, 4]],
        "turned by 90 degrees": [[2, 4], [1, 3]],
        "turned by 180 degrees": [[4, 3], [2, 1]],
        "turned by 270 degrees": [[3, 1], [4, 2]],
        "mirrored": [[2, 1], [4, 3]],
        "mirrored and turned by 90 degrees": [[1, 3], [2, 4]],
        "mirrored and turned by 180 degrees": [[3, 4], [1, 2]],
        "mirrored and turned by 270 degrees": [[4, 2], [3, 1]],
    }
    assert dict(zip(VIEWS, (view.tolist() for view in eight_views(corners)), strict=True)) == expected


def test_colours_stay_colours():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    for view in eight_views(image):
        assert view.shape in ((3, 5, 3), (5, 3, 3)) and view.flags.c_contiguous
        assert {tuple(pixel) for pixel in view.reshape(-1, 3)} == {tuple(pixel) for pixel in image.reshape(-1, 3)}


def test_an_answer_that_knows_no_direction_stays_and_another_does_not():
    images = [np.random.default_rng(seed).random((6, 6)) for seed in range(20)]
    views = np.array([eight_views(image) for image in images])  # (20, 8, 6, 6)
    blind = (views.mean(axis=(-2, -1)) > 0.5).astype(int)
    assert stays(blind).shape == (20, 7) and stays(blind).all() and len(set(blind[:, 0])) == 2
    left_heavy = (views[..., :3].sum(axis=(-2, -1)) > views[..., 3:].sum(axis=(-2, -1))).astype(int)
    same = stays(left_heavy)
    # Left and right change places under a mirror and under a half turn; up and down mirrored leaves them.
    assert (
        not same[:, VIEWS.index("mirrored") - 1].any() and not same[:, VIEWS.index("turned by 180 degrees") - 1].any()
    )
    assert same[:, VIEWS.index("mirrored and turned by 180 degrees") - 1].all()


def test_the_mean_of_the_views_is_a_mean():
    probabilities = np.zeros((2, 8, 3))
    probabilities[0, :6, 0] = probabilities[0, 6:, 1] = 1
    probabilities[1, :, 2] = 1
    np.testing.assert_allclose(average_views(probabilities), [[0.75, 0.25, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eight_views(np.zeros(5)), r"shape \(5,\); expected \(H, W, ...\)"),
        (lambda: stays(np.zeros((4, 7), int)), r"shape \(4, 7\) came, with views \[7\]; expected 8"),
        (lambda: average_views(np.zeros((4, 8))), r"views \[4\]; expected 8"),
        (lambda: average_views(np.zeros(8)), r"views \[\]; expected 8"),
    ],
)
def test_what_is_not_eight_views_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
