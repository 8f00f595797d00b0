"""The pictures of a measurement: what they show is what was measured, and the same bytes come out twice."""

import matplotlib.image
import numpy as np
import pytest

from evaluation import plots
from evaluation.metrics import reliability
from evaluation.plots import confusion_picture, reliability_picture, risk_coverage_picture, save
from evaluation.selective import operating_point, risk_coverage
from evaluation.summary import summarise

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "artefact", "blast"]


@pytest.fixture(scope="module")
def measured():
    """120 images of 24 photos; three classes have images, four are answered, two are neither."""
    generator = np.random.default_rng(0)
    photo = np.repeat(np.arange(24), 5)
    references = photo % 3
    logits = generator.normal(size=(120, 6)) + 2 * np.eye(6)[references]
    logits[:, [3, 4]] -= 20
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probabilities = probabilities[:, [0, 1, 2, 3, 5, 4]]  # the artefact is answered, the last is not
    groups = [f"photo {p}" for p in photo]
    entry = summarise(
        probabilities, references, groups, NAMES, f"drawn $cells$ {'of a long name ' * 6}", "TEST", resamples=40
    )
    return probabilities, references, groups, entry


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_the_confusion_matrix_shows_counts_shares_and_intervals(measured):
    entry = measured[-1]
    axes = confusion_picture(entry).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*NAMES[:3], "artefact"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{name}\n8 photos" for name in NAMES[:3]]
    shown = np.array(entry["confusion_matrix"])[:3][:, [0, 1, 2, 4]]
    np.testing.assert_allclose(axes.images[0].get_array(), shown / 40)
    found = {(round(text.get_position()[0]), round(text.get_position()[1]), text.get_text()) for text in axes.texts}
    low, high = (entry["confusion_shares"][bound] for bound in ("low", "high"))
    for row in range(3):
        for column, k in enumerate([0, 1, 2, 4]):
            count = shown[row, column]
            assert (column, row, str(count)) in found
            if count:
                assert (column, row, f"{100 * count / 40:.1f} %") in found
                assert (column, row, f"[{100 * low[row][k]:.0f}, {100 * high[row][k]:.0f}]") in found


def test_the_reliability_diagram_shows_the_bins_and_the_error(measured):
    probabilities, references, _, entry = measured
    upper, lower = reliability_picture(*measured).axes
    count, sure, right = reliability(probabilities, references)
    points = next(line for line in upper.lines if line.get_label() == "this model").get_xydata()
    np.testing.assert_allclose(points, np.column_stack([sure, right])[count > 0])
    assert [bar.get_height() for bar in lower.patches] == count.tolist()
    ece = entry["metrics"]["ece"]
    assert f"ECE {ece['value']:.3f} [{ece['low']:.3f}, {ece['high']:.3f}]" in "\n".join(texts(upper)).splitlines()
    bars = next(one for one in upper.collections if one.get_label() == "95 % interval over photos")
    assert all(low - 1e-9 <= y <= high + 1e-9 or n < 5 for ((_, low), (_, high)), (_, y), n in zip(
        bars.get_segments(), points, count[count > 0], strict=True
    ))  # fmt: skip


def test_the_risk_coverage_curve_shows_the_operating_points(measured):
    probabilities, references, _, entry = measured
    axes = risk_coverage_picture(*measured).axes[0]
    _, coverage, risk = risk_coverage(probabilities, references)
    curve = next(line for line in axes.lines if line.get_label() == "this model").get_xydata()
    for share, expected in zip(coverage, risk, strict=True):
        nearest = curve[np.abs(curve[:, 0] - share).argmin()]
        if abs(nearest[0] - share) < 1e-9:
            assert nearest[1] == pytest.approx(expected)
    assert tuple(curve[-1]) == pytest.approx((1, risk[-1]))
    aurc = entry["metrics"]["aurc"]
    assert f"AURC {aurc['value']:.3f} [{aurc['low']:.3f}, {aurc['high']:.3f}]" in "\n".join(texts(axes)).splitlines()
    for right in plots.RIGHT:
        threshold, answered, share = operating_point(probabilities, references, right)
        label = f"{100 * right:.0f} % right: {100 * answered:.0f} % answered, p ≥ {threshold:.3f}"
        marker = next(line for line in axes.lines if line.get_label() == label)
        assert tuple(marker.get_xydata()[0]) == pytest.approx((answered, 1 - share))


def test_a_share_of_right_answers_that_no_threshold_reaches_is_said(measured):
    probabilities, references, groups, entry = measured
    wrong = np.roll(probabilities, 1, axis=1)  # the surest answers are wrong
    axes = risk_coverage_picture(wrong, references, groups, entry).axes[0]
    assert "99 % right: at no coverage" in [line.get_label() for line in axes.lines]


def test_the_same_picture_is_the_same_file_and_fits_a_card(measured, tmp_path):
    for draw, arguments in (
        (confusion_picture, measured[-1:]),
        (reliability_picture, measured),
        (risk_coverage_picture, measured),
    ):
        first, second = tmp_path / "pictures" / "first.png", tmp_path / "second.png"
        for path in (first, second):
            figure = draw(*arguments)
            save(figure, path)
        assert first.read_bytes() == second.read_bytes(), draw
        assert b"tEXtSoftware" not in first.read_bytes()  # the version would change the file and not the picture
        pixels = matplotlib.image.imread(first)
        assert pixels.shape[1] == 1400
        # Nothing is cut off: the margin is blank, and the writing stays inside.
        assert (pixels[:, [0, -1], :3] == 1).all() and (pixels[[0, -1], :, :3] == 1).all(), draw
        box, slack = figure.get_tightbbox(), 0.01  # in
        assert box.x0 >= -slack and box.x1 <= figure.get_figwidth() + slack, draw
        assert box.y0 >= -slack and box.y1 <= figure.get_figheight() + slack, draw
