"""Drawn pictures that are no smear: of every kind, whole, and the same for the same state."""

from collections import Counter

import cv2
import numpy as np
import pytest

from training import oddities
from training.oddities import draw_oddity


@pytest.mark.parametrize("side", [64, 97, 224])
def test_a_picture_fills_its_square(side):
    for seed in range(40):
        image = draw_oddity(np.random.default_rng(seed), side)
        assert image.shape == (side, side, 3) and image.dtype == np.uint8 and image.flags.c_contiguous


def test_the_same_state_gives_the_same_picture_and_the_next_draw_another():
    drawn = [[draw_oddity(rng, 64).tobytes() for _ in range(40)] for rng in map(np.random.default_rng, (3, 3))]
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == 40


def test_every_kind_has_its_turn(monkeypatch):
    seen = Counter()
    kinds = ["_plain", "_noise", "_texture", "_gradient", "_pattern", "_shapes", "_leaves", "_strokes", "_page"]
    plain = np.zeros((64, 64, 3), np.uint8)
    for name in kinds:
        monkeypatch.setattr(oddities, name, lambda rng, side, name=name: seen.update([name]) or plain)
    rng = np.random.default_rng(0)
    for _ in range(900):
        draw_oddity(rng, 64)
    assert set(seen) == set(kinds) and min(seen.values()) > 70  # 106 or more are expected
    assert 1050 < seen.total() < 1290  # three in ten lay a second one over the first


def test_leaves_cover_the_ground_with_few_colours_and_sharp_edges():
    """Of dead leaves most of the picture is even, and what changes, changes at once; of photographs' spectrum nothing is."""
    for seed in range(8):
        levels = oddities._leaves(np.random.default_rng(seed), 160).astype(int)
        steps = np.abs(np.diff(cv2.medianBlur(levels.astype(np.uint8), 5).astype(int), axis=1)).max(axis=2)
        assert (steps <= 12).mean() > 0.6 and (steps > 40).mean() > 0.005, seed


def test_strokes_leave_most_of_their_ground_bare():
    for seed in range(8):
        image = oddities._strokes(np.random.default_rng(seed), 160)
        edges = np.abs(np.diff(image.astype(int), axis=1)).max(axis=2) > 25
        assert 0 < edges.mean() < 0.25, seed


def kind(image):
    """Tell pictures apart as a person does: how many colours there are, and how alike neighbouring pixels are."""
    colours = len(np.unique(image.reshape(-1, 3).astype(int) @ [65536, 256, 1]))
    grey = image.astype(float).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean() / max(grey.std(), 1e-9)
    return "plain" if colours == 1 else "two colours" if colours == 2 else "rough" if steps > 0.25 else "smooth"


def test_some_are_plain_some_of_two_colours_some_rough_and_some_smooth():
    rng = np.random.default_rng(1)
    kinds = Counter(kind(draw_oddity(rng, 96)) for _ in range(150))
    assert set(kinds) == {"plain", "two colours", "rough", "smooth"} and min(kinds.values()) >= 5


def test_a_texture_has_the_spectrum_of_photographs():
    """Of photographs the amplitude falls as a power of the frequency near 1 (Field 1987); of white noise it does not."""
    slopes = []
    for seed in range(12):
        grey = oddities._texture(np.random.default_rng(seed), 128).astype(float).mean(axis=2)
        amplitude = np.abs(np.fft.rfft2(grey - grey.mean()))
        frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.rfftfreq(128)[None])
        inside = (frequency > 0.02) & (frequency < 0.25)
        slopes.append(np.polyfit(np.log(frequency[inside]), np.log(amplitude[inside] + 1e-9), 1)[0])
    assert min(slopes) > -2.4 and max(slopes) < -0.6
