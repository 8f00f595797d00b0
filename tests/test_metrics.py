"""The metrics against scikit-learn, small cases by hand, and identities."""

import socket

import numpy as np
import pytest
from sklearn import metrics as sk

from evaluation.entry import METRICS
from evaluation.metrics import (
    SMALLEST_PROBABILITY,
    ClassificationReport,
    accuracy,
    balanced_accuracy,
    brier_score,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    recall,
    reliability,
    statistics,
)

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]


def drawn(n: int, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities (n, classes) that are better than chance, and unbalanced references (n,)."""
    generator = np.random.default_rng(seed)
    references = generator.choice(classes, size=n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[references]
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), references


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_every_figure_is_scikit_learns(classes):
    probabilities, references = drawn(500, classes, seed=classes)
    predicted = probabilities.argmax(axis=1)
    found = statistics(probabilities, references)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(references, predicted))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(references, predicted))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(references, predicted, average="macro"))
    assert found["nll"] == pytest.approx(sk.log_loss(references, probabilities, labels=range(classes)))
    one_hot = np.eye(classes)[references]
    assert found["brier"] == pytest.approx(sk.brier_score_loss(one_hot, probabilities, scale_by_half=False))
    np.testing.assert_allclose(found["recall"], sk.recall_score(references, predicted, average=None))
    np.testing.assert_array_equal(found["confusion_matrix"], sk.confusion_matrix(references, predicted))


def test_a_class_without_images_is_left_out_as_scikit_learn_does():
    references = np.array([0, 0, 1, 1, 1, 3])
    predicted = np.array([0, 2, 1, 1, 3, 3])  # class 2 is predicted and absent, class 4 neither
    matrix = confusion_matrix(predicted, references, 5)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = sk.balanced_accuracy_score(references, predicted)
    assert balanced_accuracy(matrix) == pytest.approx(expected)
    assert macro_f1(matrix) == pytest.approx(sk.f1_score(references, predicted, average="macro", zero_division=0))
    np.testing.assert_allclose(recall(matrix), [0.5, 2 / 3, np.nan, 1.0, np.nan])


def test_weights_count_images_as_often_as_copies_would():
    probabilities, references = drawn(60)
    weights = np.random.default_rng(1).integers(0, 4, size=(3, 60))
    together = statistics(probabilities, references, weights.astype(float))
    for row in range(3):
        copied = np.repeat(np.arange(60), weights[row])
        alone = statistics(probabilities[copied], references[copied])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][row], value, err_msg=name)


def test_accuracy_takes_a_stack_of_matrices():
    stack = np.array([[[3, 1], [0, 4]], [[0, 2], [2, 0]]])
    np.testing.assert_allclose(accuracy(stack), [7 / 8, 0])


def test_calibration_error_by_hand():
    # Bins are thirds of a fifth: 0.60 and 0.62 share (0.600, 0.667] only in part, since a bin holds its upper edge.
    probabilities = np.array([[0.60, 0.40], [0.62, 0.38], [0.64, 0.36], [0.05, 0.95], [0.97, 0.03]])
    references = np.array([0, 0, 1, 1, 1])
    # (0.533, 0.600]: one image, right, 0.60. (0.600, 0.667]: two, one right, mean 0.63.
    # (0.933, 1.000]: two, one right, mean 0.96.
    expected = (1 * abs(1 - 0.60) + 2 * abs(0.5 - 0.63) + 2 * abs(0.5 - 0.96)) / 5
    assert expected_calibration_error(probabilities, references) == pytest.approx(expected)


def test_calibration_error_of_one_confidence_is_its_distance_from_the_accuracy():
    probabilities = np.tile([0.7, 0.2, 0.1], (10, 1))
    references = np.array([0] * 4 + [1] * 6)
    assert expected_calibration_error(probabilities, references) == pytest.approx(0.7 - 0.4)


def test_calibration_error_of_honest_probabilities_falls_with_their_number():
    generator = np.random.default_rng(0)
    errors = []
    for n in (400, 40_000):
        probabilities = generator.dirichlet(np.ones(4), size=n)
        references = (probabilities.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
        errors.append(expected_calibration_error(probabilities, references))
        sharper = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
        assert expected_calibration_error(sharper, references) > 5 * errors[-1] or n == 400
    # Each bin's gap has the standard error of a mean, so a hundred times the images leave a tenth of the error.
    assert errors[1] < 0.01 < errors[0] < 0.1


def test_a_reliability_diagram_shows_the_calibration_error():
    probabilities, references = drawn(300)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == references
    count, sure, named = reliability(probabilities, references)
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        assert count[k] == inside.sum()
        if inside.any():
            assert (sure[k], named[k]) == pytest.approx((confidence[inside].mean(), right[inside].mean()))
    assert count.sum() == 300 and np.isnan(named[0]) and np.isnan(sure[0])  # of four classes, one has a quarter or more
    gaps = np.nansum(count * np.abs(named - sure)) / 300
    assert expected_calibration_error(probabilities, references) == pytest.approx(gaps)
    weights = np.random.default_rng(4).integers(0, 3, size=(2, 300)).astype(float)
    together = reliability(probabilities, references, weights=weights)
    for row in range(2):
        copied = np.repeat(np.arange(300), weights[row].astype(int))
        for found, alone in zip(together, reliability(probabilities[copied], references[copied]), strict=True):
            np.testing.assert_allclose(found[row], alone)


def test_the_brier_score_by_hand():
    references = np.array([0, 1, 1])
    scores = [brier_score(np.array(rows), references) for rows in (np.eye(2)[references], 1 - np.eye(2)[references])]
    assert scores == [0, 2]  # sure and right, sure and wrong
    # (0.2^2 + 0.2^2 + 0.3^2 + 0.3^2 + 0.4^2 + 0.4^2) / 3, since each row's two errors are equal
    assert brier_score(np.array([[0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]), references) == pytest.approx(0.58 / 3)


def test_a_probability_of_zero_costs_what_the_clip_says():
    probabilities, references = np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 0])
    expected = (-np.log(SMALLEST_PROBABILITY) + np.log(2)) / 2
    assert negative_log_likelihood(probabilities, references) == pytest.approx(expected)
    single = probabilities.astype(np.float32)
    assert expected == pytest.approx(sk.log_loss(references, single, labels=[0, 1]), rel=1e-6)


def test_the_metric_reports_plain_numbers_without_a_network(monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    probabilities, references = drawn(50)
    report = ClassificationReport(NAMES)
    found = report.compute(predictions=probabilities.astype(np.float32), references=references)
    expected = statistics(probabilities, references)
    assert set(found) == {*METRICS, "recall", "confusion_matrix"}
    for name in METRICS:
        assert type(found[name]) is float
        assert found[name] == pytest.approx(float(expected[name]), rel=1e-5)
    assert found["recall"] == pytest.approx(dict(zip(NAMES, expected["recall"], strict=True)))
    assert found["confusion_matrix"] == expected["confusion_matrix"].tolist()
    assert all(type(cell) is int for row in found["confusion_matrix"] for cell in row)


def test_the_metric_takes_batches_and_can_be_used_again_after_an_error():
    probabilities, references = drawn(50)
    report = ClassificationReport(NAMES)
    for start in range(0, 50, 20):
        report.add_batch(predictions=probabilities[start : start + 20], references=references[start : start + 20])
    in_batches = report.compute()
    with pytest.raises(ValueError, match="sums to 2"):
        report.compute(predictions=[[1.0, 1.0, 0.0, 0.0]], references=[0])
    assert report.compute(predictions=probabilities.tolist(), references=references.tolist()) == in_batches


def test_the_metric_gives_recall_for_the_classes_that_are_present():
    found = ClassificationReport(NAMES).compute(predictions=[[0.7, 0.1, 0.1, 0.1]] * 2, references=[0, 2])
    assert found["recall"] == {"eosinophil": 1.0, "monocyte": 0.0}
    assert found["balanced_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[0.5, 0.5], [0.5]], [0, 1], "not rectangular"),
        ([["a", "b"]], [0], "not rectangular"),
        ([], [], "Predictions have shape"),
        ([0.5, 0.5], [0, 1], "Predictions have shape .*softmax of the logits, not the predicted class"),
        ([[0.2, 0.3, 0.5]], [0], r"expected \(N >= 1, 2\)"),
        ([[0.5, 0.5]], [0, 1], r"References have shape \(2,\) for 1 predictions"),
        ([[0.5, 0.5], [np.nan, 1.0]], [0, 1], "Prediction 1 is .*expected finite"),
        ([[0.5, 0.5], [2.0, -1.0]], [0, 1], "Prediction 1 is .*Apply the softmax"),
        ([[3.0, 1.5]], [0], "sums to 4.5; expected probabilities that sum to 1"),
        ([[0.5, 0.5]], [2], "Reference 0 is 2; expected a whole number from 0 to 1"),
        ([[0.5, 0.5]], [-1], "Reference 0 is -1"),
        ([[0.5, 0.5]], [0.7], "Reference 0 is 0.7"),
        ([[0.5, 0.5]], [None], "Reference 0 is nan"),
    ],
)
def test_the_metric_refuses_what_cannot_be_measured(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        ClassificationReport(["yes", "no"]).compute(predictions=predictions, references=references)


def test_the_metric_refuses_unknown_inputs_and_names():
    with pytest.raises(ValueError, match="Unknown inputs"):
        ClassificationReport(["yes", "no"]).add_batch(predictions=[[0.5, 0.5]], references=[0], weights=[1])
    for names in (["one"], ["same", "same"], "text"):
        with pytest.raises(ValueError, match="two or more different names"):
            ClassificationReport(names)
