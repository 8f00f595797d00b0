"""The risk-coverage curve against a plain loop over thresholds, small cases by hand, and identities."""

import numpy as np
import pytest

from evaluation.selective import area_under_risk_coverage, operating_point, risk_at, risk_coverage


def drawn(n: int, seed: int = 0, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities (n, 3), in whole tenths if many are to be equal, and references (n,) that they know something of."""
    generator = np.random.default_rng(seed)
    references = generator.integers(3, size=n)
    probabilities = generator.dirichlet(np.ones(3), size=n) + 0.5 * np.eye(3)[references]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if ties:
        probabilities = np.round(probabilities, 1)
    return probabilities, references


def area_by_hand(probabilities, references, times):
    """Accept all images at least as sure as each image in turn, and average their error rates."""
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != references
    rates = []
    for image, count in enumerate(times):
        sure = [other for other in range(len(times)) if confidence[other] >= confidence[image]]
        if count:
            errors, accepted = (sum(times[k] * value[k] for k in sure) for value in (wrong, np.ones(len(wrong))))
            rates += [errors / accepted] * int(count)
    return sum(rates) / len(rates)


@pytest.mark.parametrize("ties", [True, False])
def test_the_area_is_the_mean_over_images_of_the_error_rate_among_those_as_sure(ties):
    probabilities, references = drawn(80, ties=ties)
    assert (len(set(probabilities.max(axis=1))) < 10) == ties
    expected = area_by_hand(probabilities, references, np.ones(80))
    assert area_under_risk_coverage(probabilities, references) == pytest.approx(expected)
    weights = np.random.default_rng(1).integers(0, 3, size=(2, 4, 80)).astype(float)
    found = area_under_risk_coverage(probabilities, references, weights)
    assert found.shape == (2, 4)
    for place in np.ndindex(2, 4):
        assert found[place] == pytest.approx(area_by_hand(probabilities, references, weights[place]))


def test_the_curve_by_hand():
    confidence = np.array([0.9, 0.6, 0.8, 0.8, 0.7])
    probabilities = np.column_stack([confidence, 1 - confidence])
    references = np.array([0, 1, 0, 1, 0])  # the second and the fourth are wrong
    threshold, coverage, risk = risk_coverage(probabilities, references)
    np.testing.assert_allclose(threshold, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(coverage, [1 / 5, 3 / 5, 4 / 5, 1])
    np.testing.assert_allclose(risk, [0, 1 / 3, 1 / 4, 2 / 5])
    assert area_under_risk_coverage(probabilities, references) == pytest.approx((0 + 2 / 3 + 1 / 4 + 2 / 5) / 5)
    np.testing.assert_allclose(
        risk_at(np.array([0.1, 0.2, 0.3, 0.6, 0.61, 1.0]), coverage, risk), [0, 0, *[1 / 3] * 2, 1 / 4, 2 / 5]
    )
    assert operating_point(probabilities, references, 0.75) == pytest.approx((0.7, 0.8, 0.75))
    assert operating_point(probabilities, references, 0.76) == pytest.approx((0.9, 0.2, 1.0))
    assert operating_point(probabilities, references, 0.6) == pytest.approx((0.6, 1.0, 0.6))


def test_an_image_that_is_not_drawn_answers_nothing():
    probabilities, references = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), np.array([1, 1, 0])
    _, coverage, risk = risk_coverage(probabilities, references, np.array([[0.0, 1, 3], [1, 0, 0]]))
    np.testing.assert_allclose(coverage, [[0, 1 / 4, 1], [1, 1, 1]])
    np.testing.assert_allclose(risk, [[0, 0, 0], [1, 1, 1]])


def test_the_best_and_the_worst_order_of_the_same_errors():
    n, errors = 1000, 100
    confidence = np.linspace(0.99, 0.51, n)
    probabilities = np.column_stack([confidence, 1 - confidence])
    last = (np.arange(n) >= n - errors).astype(int)
    rate = errors / n
    # The least sure answers are the wrong ones: r + (1 - r) ln(1 - r), Geifman, Uziel & El-Yaniv 2019.
    best = area_under_risk_coverage(probabilities, last)
    assert best == pytest.approx(rate + (1 - rate) * np.log(1 - rate), abs=1e-3)
    worst = area_under_risk_coverage(probabilities, last[::-1].copy())
    assert worst == pytest.approx(rate - rate * np.log(rate), abs=1e-3)
    same = np.tile([0.6, 0.4], (n, 1))
    assert area_under_risk_coverage(same, last) == pytest.approx(rate)


def test_many_curves_are_read_as_one_by_one():
    probabilities, references = drawn(50)
    weights = np.random.default_rng(2).integers(0, 3, size=(6, 50)).astype(float)
    _, coverage, risk = risk_coverage(probabilities, references, weights)
    coverages = np.array([0.05, 0.5, 1.0])
    together = risk_at(coverages, coverage, risk)
    confidence, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != references
    for row, times in enumerate(weights):
        for column, enough in enumerate(coverages):
            for threshold in sorted(set(confidence), reverse=True):
                answered = times * (confidence >= threshold)
                if answered.sum() >= enough * times.sum() - 1e-9:
                    assert together[row, column] == pytest.approx((answered * wrong).sum() / answered.sum())
                    break


def test_no_threshold_makes_the_surest_error_right():
    probabilities, references = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([1, 0])
    assert operating_point(probabilities, references, 0.9) is None
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="expected more than 0 and at most 1"):
            operating_point(probabilities, references, share)
