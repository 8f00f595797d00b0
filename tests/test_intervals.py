"""The intervals against the binomial distribution, resampling by hand, and the truth they are meant to cover."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from evaluation import intervals
from evaluation.intervals import binomial_interval, group_bootstrap
from evaluation.metrics import statistics


def mean_of(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=-1)


def test_copies_of_a_photo_leave_the_binomial_interval_of_the_photos():
    right = np.array([1.0] * 60 + [0.0] * 11)  # photos
    copies = np.repeat(np.arange(71), 35)
    low, high = group_bootstrap(mean_of(right[copies]), len(copies), copies, resamples=20_000)
    expected = stats.binom.ppf([0.025, 0.975], 71, 60 / 71) / 71
    # Exact up to the lattice of 1/71 on which both quantiles lie.
    np.testing.assert_allclose([low, high], expected, atol=1 / 71 + 1e-9)


def test_one_group_per_item_is_the_ordinary_bootstrap():
    generator = np.random.default_rng(5)
    references = np.arange(40) % 3
    probabilities = generator.dirichlet(np.ones(3), size=40)
    predicted = probabilities.argmax(axis=1)
    low, high = group_bootstrap(
        lambda weights: statistics(probabilities, references, weights)["balanced_accuracy"],
        40,
        np.arange(40),
        resamples=300,
        level=0.9,
        seed=3,
    )
    draws = np.random.default_rng(3).integers(40, size=(300, 40))
    by_hand = [balanced_accuracy_score(references[row], predicted[row]) for row in draws]
    assert (low, high) == pytest.approx(tuple(np.quantile(by_hand, [0.05, 0.95])))


def test_whole_groups_are_drawn():
    groups = np.array(["b", "a", "b", "c", "a", "b"])

    def statistic(weights):
        for name in "abc":
            assert np.ptp(weights[:, groups == name], axis=1).max() == 0
        of_each = np.stack([weights[:, groups == name][:, 0] for name in "abc"])
        np.testing.assert_array_equal(of_each.sum(axis=0), 3)
        return weights.sum(axis=1)

    assert group_bootstrap(statistic, 6, groups, resamples=200) == (3, 9)


def test_the_same_seed_gives_the_same_interval_however_much_is_held_in_memory(monkeypatch):
    values, groups = np.random.default_rng(0).normal(size=200), np.arange(200) // 4
    first = group_bootstrap(mean_of(values), 200, groups, resamples=500)
    assert group_bootstrap(mean_of(values), 200, groups, resamples=500) == first
    assert group_bootstrap(mean_of(values), 200, groups, resamples=500, seed=1) != first
    sizes = []

    def watched(weights):
        sizes.append(weights.size)
        return mean_of(values)(weights)

    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 1000)
    assert group_bootstrap(watched, 200, groups, resamples=500) == pytest.approx(first, abs=1e-12)
    assert max(sizes) == 1000 and len(sizes) == 100


def test_it_covers_the_truth_where_resampling_images_would_not():
    generator = np.random.default_rng(0)
    n_photos, copies, truth, trials = 60, 10, 0.8, 150
    groups = np.repeat(np.arange(n_photos), copies)
    covered = {"photos": 0, "images": 0}
    for trial in range(trials):
        values = (generator.random(n_photos) < truth).astype(float)[groups]
        for kind, unit in (("photos", groups), ("images", np.arange(len(groups)))):
            low, high = group_bootstrap(mean_of(values), len(groups), unit, resamples=200, seed=trial)
            covered[kind] += low <= truth <= high
    # Ten copies of each photo make the image interval sqrt(10) too narrow: it covers about 46 %.
    assert covered["photos"] / trials > 0.88
    assert covered["images"] / trials < 0.65


def test_many_statistics_at_once_are_the_same_as_one_by_one():
    values = np.random.default_rng(0).normal(size=(30, 2))
    low, high = group_bootstrap(lambda weights: weights @ values, 30, np.arange(30) // 3, resamples=200)
    for k in range(2):
        alone = group_bootstrap(lambda weights, k=k: weights @ values[:, k], 30, np.arange(30) // 3, resamples=200)
        assert (low[k], high[k]) == pytest.approx(alone)


def test_a_resample_that_leaves_the_statistic_undefined_is_left_out():
    groups = np.arange(4)

    def of_the_first(weights):
        return np.where(weights[:, 0] > 0, 0.5, np.nan)

    assert group_bootstrap(of_the_first, 4, groups, resamples=100) == (0.5, 0.5)
    with pytest.raises(ValueError, match="NaN in every resample"):
        group_bootstrap(lambda weights: np.full(len(weights), np.nan), 4, groups, resamples=100)


def test_a_narrower_level_gives_a_narrower_interval():
    values = np.random.default_rng(0).normal(size=50)
    low_95, high_95 = group_bootstrap(mean_of(values), 50, np.arange(50))
    low_50, high_50 = group_bootstrap(mean_of(values), 50, np.arange(50), level=0.5)
    assert low_95 < low_50 < values.mean() < high_50 < high_95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0, 1]}, "2 groups came for 3 items"),
        ({"groups": ["a", "a", "a"]}, r"belong to 1 group\(s\)"),
        ({"n_items": 0, "groups": []}, r"belong to 0 group\(s\)"),
        ({"level": 95}, "a level between 0 and 1"),
        ({"resamples": 0}, "1 or more resamples"),
        ({"statistic": lambda weights: weights.sum()}, "one value per row of weights"),
    ],
)
def test_the_bootstrap_refuses_what_has_no_interval(options, message):
    defaults = {"statistic": lambda weights: weights[:, 0], "n_items": 3, "groups": [0, 1, 2]}
    with pytest.raises(ValueError, match=message):
        group_bootstrap(**(defaults | options))


@pytest.mark.parametrize(("successes", "trials"), [(0, 71), (1, 4), (64, 71), (71, 71)])
def test_the_exact_interval_is_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert binomial_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    "arguments", [(5, 4, 0.95), (-1, 4, 0.95), (0, 0, 0.95), (1, 4, 1.0)], ids=["more", "negative", "none", "level"]
)
def test_the_exact_interval_refuses_impossible_counts(arguments):
    with pytest.raises(ValueError, match="expected 0 <= successes <= trials"):
        binomial_interval(*arguments)


def test_a_statistic_that_too_few_resamples_define_has_no_bounds():
    groups = np.arange(4)

    def of_the_first(weights):  # drawn in 1 - (3/4)^4 = 68 % of the resamples
        first = np.where(weights[:, 0] > 0, weights[:, 0], np.nan)
        return np.column_stack([first, weights.sum(axis=1), np.full(len(weights), np.nan)])

    low, high = group_bootstrap(of_the_first, 4, groups, 500, least=0.6)
    assert np.isfinite(low[:2]).all() and np.isnan([low[2], high[2]]).all()
    low, high = group_bootstrap(of_the_first, 4, groups, 500, least=0.75)
    assert np.isnan([low[0], high[0]]).all() and (low[1], high[1]) == (4, 4)
    with pytest.raises(ValueError, match="NaN in every resample"):
        group_bootstrap(of_the_first, 4, groups, 500)
