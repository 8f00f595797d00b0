"""Entries of eval_results.json against scikit-learn in a plain loop over resamples, and photos counted by hand."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from evaluation import intervals
from evaluation.entry import METRICS, OVER_CLASSES, ResultsError, validate_entry
from evaluation.metrics import statistics
from evaluation.summary import average_copies, summarise

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "artefact"]  # the last is answered, and never right
N_PHOTOS, RESAMPLES, SEED, LEVEL = 14, 60, 5, 0.9


def drawn():
    """Draw 70 images of 14 photos in 9 groups; probabilities in whole twentieths, so that many are equally sure."""
    generator = np.random.default_rng(3)
    photo = np.concatenate([np.arange(N_PHOTOS), generator.integers(N_PHOTOS, size=56)])
    references = photo % 4
    probabilities = generator.dirichlet(np.ones(5), size=70) + 0.8 * np.eye(5)[references] * generator.random((70, 1))
    probabilities = np.round(20 * probabilities / probabilities.sum(axis=1, keepdims=True)) / 20
    probabilities[:, 4] += 1 - probabilities.sum(axis=1)
    probabilities = np.abs(probabilities) / np.abs(probabilities).sum(axis=1, keepdims=True)
    group = np.minimum(photo, 8)  # photos 8 to 13 show the same cells
    return probabilities, references, [f"photo {p}" for p in photo], [f"group {g}" for g in group]


def calibration_error(confidence, right):
    gaps = 0.0
    for k in range(15):
        inside = [k / 15 < c <= (k + 1) / 15 for c in confidence]
        gaps += abs(sum(c - r for c, r, here in zip(confidence, right, inside, strict=True) if here))
    return gaps / len(right)


def by_hand(probabilities, references):
    """Give every figure of a plain list of images."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == references
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        balanced = sk.balanced_accuracy_score(references, predicted)
    true = np.clip(probabilities[np.arange(len(references)), references], 1.1920929e-07, 1)
    return {
        "accuracy": sk.accuracy_score(references, predicted),
        "balanced_accuracy": balanced,
        "macro_f1": sk.f1_score(references, predicted, average="macro", zero_division=0),
        "ece": calibration_error(confidence, right),
        "nll": -np.log(true).mean(),
        "brier": sk.brier_score_loss(np.eye(5)[references], probabilities, scale_by_half=False),
        "aurc": np.mean([1 - right[confidence >= c].mean() for c in confidence]),
        "shares": sk.confusion_matrix(references, predicted, labels=range(5), normalize=None),
    }


def in_a_loop(probabilities, references, groups):
    """Bound every figure by drawing whole groups, one resample at a time; means over classes where all are drawn."""
    names = sorted(set(groups))
    found, whole = [], []
    for draw in np.random.default_rng(SEED).integers(len(names), size=(RESAMPLES, len(names))):
        rows = [row for number in draw for row in range(len(groups)) if groups[row] == names[number]]
        found.append(by_hand(probabilities[rows], references[rows]))
        whole.append(set(references[rows]) == set(references))
    bounds = {
        name: np.quantile(
            [one[name] for one, all_drawn in zip(found, whole, strict=True) if all_drawn or name not in OVER_CLASSES],
            [0.05, 0.95],
        )
        for name in METRICS
    }
    assert RESAMPLES / 2 < sum(whole) < RESAMPLES
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.filterwarnings("ignore", "All-NaN slice")
        shares = [one["shares"] / one["shares"].sum(axis=1, keepdims=True) for one in found]
        bounds["shares"] = np.nanquantile(shares, [0.05, 0.95], axis=0)
    return bounds


@pytest.fixture(scope="module")
def entry():
    probabilities, references, photos, groups = drawn()
    return summarise(
        probabilities, references, photos, NAMES, "drawn", "TEST", RESAMPLES, LEVEL, SEED, groups, {"label blast": 3}
    )


def test_every_figure_and_interval_of_the_images_is_the_plain_loops(entry):
    probabilities, references, _, groups = drawn()
    assert len(set(probabilities.max(axis=1))) < 40  # many images are equally sure
    values, bounds = by_hand(probabilities, references), in_a_loop(probabilities, references, groups)
    for name in METRICS:
        figure = entry["metrics"][name]
        assert figure["value"] == pytest.approx(values[name], abs=1e-6), name
        assert (figure["low"], figure["high"]) == pytest.approx(tuple(bounds[name]), abs=1e-6), name
    assert entry["confusion_matrix"] == values["shares"].tolist()
    for bound, expected in zip(("low", "high"), bounds["shares"], strict=True):
        np.testing.assert_allclose(entry["confusion_shares"][bound][:4], expected[:4], atol=1e-6)
        assert entry["confusion_shares"][bound][4] is None
    for k, name in enumerate(NAMES[:4]):
        recall = entry["recall"][name]
        assert recall["value"] == pytest.approx(values["shares"][k, k] / values["shares"][k].sum(), abs=1e-6)
        assert (recall["low"], recall["high"]) == pytest.approx(tuple(bounds["shares"][:, k, k]), abs=1e-6)
    assert list(entry["recall"]) == NAMES[:4]


def test_every_figure_and_interval_of_the_photos_is_the_plain_loops(entry):
    probabilities, references, photos, groups = drawn()
    names = sorted(set(photos))
    copies = {name: [row for row, photo in enumerate(photos) if photo == name] for name in names}
    means = np.stack([probabilities[copies[name]].mean(axis=0) for name in names])
    true = np.array([references[copies[name][0]] for name in names])
    values, bounds = by_hand(means, true), in_a_loop(means, true, [groups[copies[name][0]] for name in names])
    found = entry["photo_level"]
    for name in METRICS:
        assert found[name]["value"] == pytest.approx(values[name], abs=1e-6), name
        if name != "accuracy":  # whose interval is exact
            assert (found[name]["low"], found[name]["high"]) == pytest.approx(tuple(bounds[name]), abs=1e-6), name
    low, high = intervals.binomial_interval(found["n_correct"], 14, LEVEL)
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == pytest.approx((low, high), abs=1e-6)
    assert found["confusion_matrix"] == values["shares"].tolist()
    for k, name in enumerate(NAMES[:4]):
        assert found["recall"][name]["n"] == (true == k).sum() == entry["recall"][name]["n_photos"]
        assert found["recall"][name]["high"] == pytest.approx(bounds["shares"][1, k, k], abs=1e-6)


def test_where_most_resamples_lack_a_class_no_interval_is_given():
    """Three classes on a slide each, of five: 27 % of the resamples show all of them (inclusion and exclusion)."""
    references = np.array([0] * 4 + [1] * 4 + [2] * 4 + [0] * 8)
    slides = [f"slide {row // 4}" for row in range(20)]
    photos = [f"photo {row}" for row in range(20)]
    probabilities = 0.7 * np.eye(3)[references] + 0.1
    probabilities[::3] = probabilities[::3, ::-1]
    entry = summarise(probabilities, references, photos, ["a", "b", "c"], "lab", "validation", 400, groups=slides)
    for level in (entry["metrics"], entry["photo_level"]):
        for name in METRICS:
            bounds = {level[name]["low"], level[name]["high"]}
            assert (bounds == {None}) == (name in OVER_CLASSES), name
    validate_entry(entry)
    entry["metrics"]["accuracy"].update(low=None, high=None)
    with pytest.raises(ResultsError, match="metrics.accuracy.low is None"):
        validate_entry(entry)


def test_an_entry_says_what_it_counts_and_is_whole(entry):
    assert (entry["n_images"], entry["n_photos"], entry["photo_level"]["n_photos"]) == (70, 14, 14)
    assert entry["interval"] == {
        "level": 0.9, "resamples": 60, "seed": 5, "unit": "overlap group", "n_units": 9,
    }  # fmt: skip
    assert entry["left_out"] == {"label blast": 3}
    validate_entry(entry)
    probabilities, references, photos, _ = drawn()
    alone = summarise(probabilities, references, photos, NAMES, "drawn", "TEST", RESAMPLES)
    assert alone["interval"]["unit"] == "photo" and alone["interval"]["n_units"] == 14 and alone["left_out"] == {}
    validate_entry(alone)


def test_memory_is_bounded_by_the_number_of_classes_too(monkeypatch):
    """A resample of 40 classes holds 1,600 counts, of 30 images only 30 weights: the larger number sets the rows at once."""
    generator = np.random.default_rng(0)
    references = generator.integers(40, size=30)
    photos = [f"photo {number}" for number in range(30)]
    probabilities = generator.dirichlet(np.ones(40), size=30)
    names = [f"class {k}" for k in range(40)]
    whole = summarise(probabilities, references, photos, names, "drawn", "TEST", resamples=50)
    rows = []

    def watched(probabilities, references, weights=None):
        rows.append(0 if weights is None else len(weights))
        return statistics(probabilities, references, weights)

    monkeypatch.setattr(intervals, "CELLS_AT_ONCE", 16_000)
    monkeypatch.setattr("evaluation.summary.statistics", watched)
    assert summarise(probabilities, references, photos, names, "drawn", "TEST", resamples=50) == whole
    assert max(rows) == 10


def test_photos_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]])
    references = np.array([0, 0, 0, 1, 1, 1])
    photos = ["p", "p", "p", "q", "r", "r"]
    # p is right though two of its three copies are wrong: its mean for class 0 is (0.9 + 0.4 + 0.45) / 3 = 0.58.
    # So is r, whose mean for class 1 is (0.8 + 0.4) / 2 = 0.6.
    entry = summarise(probabilities, references, photos, ["a", "b"], "hand", "TEST", resamples=50)
    assert entry["photo_level"]["n_correct"] == entry["photo_level"]["n_photos"] == 3
    assert entry["photo_level"]["confusion_matrix"] == [[1, 0], [0, 2]]
    assert entry["photo_level"]["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 3), abs=1e-6)  # exact: low^3 = 2.5 %
    assert entry["metrics"]["accuracy"]["value"] == 0.5
    found = entry["recall"]["a"]
    assert (found["value"], found["n"], found["n_photos"]) == (0.333333, 3, 1)


def test_copies_of_one_photo_with_two_labels_count_once_for_each():
    means, classes, rows = average_copies(
        np.array([[1.0, 0.0], [0.2, 0.8], [0.5, 0.5]]), np.array([0, 1, 0]), ["same", "same", "same"]
    )
    np.testing.assert_allclose(means, [[0.75, 0.25], [0.2, 0.8]])
    np.testing.assert_array_equal(classes, [0, 1])
    np.testing.assert_array_equal(rows, [0, 1])


def test_the_photos_named_wrongly_are_listed_the_surest_first():
    probabilities, references, photos, _ = drawn()
    found = summarise(probabilities, references, photos, NAMES, "drawn", "all", resamples=20)
    expected = {}
    for photo in sorted(set(photos)):
        rows = [row for row, name in enumerate(photos) if name == photo]
        mean = probabilities[rows].mean(axis=0)
        if mean.argmax() != references[rows[0]]:
            expected[photo] = (NAMES[references[rows[0]]], NAMES[mean.argmax()], pytest.approx(mean.max(), abs=1e-6))
    wrong = found["photo_level"]["wrong"]
    assert {one["photo"]: (one["label"], one["answer"], one["probability"]) for one in wrong} == expected and expected
    assert [one["probability"] for one in wrong] == sorted((one["probability"] for one in wrong), reverse=True)
    validate_entry(found)
    for spoiled in ([*wrong, *wrong[:1]] * 9, [wrong[0] | {"answer": wrong[0]["label"]}], [{"photo": "p"}]):
        found["photo_level"]["wrong"] = spoiled
        with pytest.raises(ResultsError, match="wrong"):
            validate_entry(found)


def test_photos_and_groups_must_be_named_and_agree():
    probabilities, references = np.full((2, 2), 0.5), np.array([0, 1])

    def of(photos, groups=None):
        return summarise(probabilities, references, photos, ["a", "b"], "hand", "TEST", groups=groups)

    for names in (["p"], ["p", None], ["p", ""]):
        with pytest.raises(ValueError, match="expected the name of a photo"):
            of(names)
        with pytest.raises(ValueError, match="expected the name of a group"):
            of(["p", "q"], names)
    with pytest.raises(ValueError, match="Copies of the photo p stand in two groups, g and h"):
        of(["p", "p"], ["g", "h"])
    with pytest.raises(ValueError, match=r"belong to 1 group\(s\)"):
        of(["p", "q"], ["g", "g"])


def test_accepted_answers_against_a_plain_loop():
    probabilities, references, photos, groups = drawn()
    options = {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED, "groups": groups}
    entry = summarise(probabilities, references, photos, NAMES, "drawn", "all", threshold=0.6, **options)
    validate_entry(entry)
    selective = entry["selective"]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == references
    accepted = confidence >= 0.6
    assert selective["coverage"]["value"] == pytest.approx(accepted.mean(), abs=1e-6)
    assert selective["accuracy"]["value"] == pytest.approx(right[accepted].mean(), abs=1e-6)
    for share, figure in selective["accuracy_at"].items():
        least = np.sort(confidence)[::-1][int(np.ceil(float(share) * 70 - 1e-9)) - 1]
        assert figure["value"] == pytest.approx(right[confidence >= least].mean(), abs=1e-6)
    names = np.unique(groups)
    generator, drawn_values = np.random.default_rng(SEED), []
    for chosen in generator.integers(len(names), size=(RESAMPLES, len(names))):
        rows = np.concatenate([np.flatnonzero(np.array(groups) == names[k]) for k in chosen])
        drawn_values.append((accepted[rows].mean(), right[rows][accepted[rows]].mean()))
    tail = (1 - LEVEL) / 2
    for name, values in zip(("coverage", "accuracy"), np.transpose(drawn_values), strict=True):
        low, high = np.quantile(values, [tail, 1 - tail])
        assert (selective[name]["low"], selective[name]["high"]) == pytest.approx((low, high), abs=1e-6)


def test_a_threshold_that_accepts_nothing_leaves_nothing_to_measure():
    probabilities, references, photos, groups = drawn()
    entry = summarise(probabilities, references, photos, NAMES, "drawn", "all", 20, groups=groups, threshold=1.0)
    assert (probabilities.max(axis=1) < 1).all() and "selective" not in entry
