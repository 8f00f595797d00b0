"""The last layer, fitted to a few cells: against other solvers, on drawn features, and as a folder that both doors open."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import LABELS, REPOSITORY, build_model
from scipy.stats import beta
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from transformers import AutoModelForImageClassification

from hub_model import head_fitting
from hub_model.head_fitting import flips_and_turns

WIDTH = 512


def drawn(each, classes=4, apart=1.0, views=1, seed=0):
    """Draw features about a place for each class, ``apart`` in units of their spread, and their labels, class by class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    places = np.random.default_rng(99).normal(size=(classes, WIDTH)) / np.sqrt(WIDTH) * apart * 10
    features = places[labels][:, None] + rng.normal(size=(len(labels), views, WIDTH))
    return torch.from_numpy(features).float(), labels.tolist()


def layer_of(model):
    layer = model.get_classifier()
    return torch.column_stack([layer.weight, layer.bias]).detach().double().numpy()


def right(model, features, labels):
    with torch.no_grad():
        return float((model.get_classifier()(features[:, 0]).argmax(1) == torch.tensor(labels)).double().mean())


def clear(model):
    """Make the layer say nothing of any class."""
    torch.nn.init.zeros_(model.get_classifier().weight)
    torch.nn.init.zeros_(model.get_classifier().bias)


def test_embedded_views_give_the_models_own_logits(model):
    x = torch.randn(3, 3, 70, 70)
    features = model.embed(x, views=8)
    assert features.shape == (3, 8, WIDTH) and not features.requires_grad
    torch.testing.assert_close(model.embed(x), features[:, :1])
    with torch.no_grad():
        for number, view in enumerate(flips_and_turns(x)):
            torch.testing.assert_close(model.get_classifier()(features[:, number]), model(view).logits)


def test_embedding_leaves_a_model_in_training_as_it_was(model):
    x = torch.randn(2, 3, 64, 64)
    expected = model.embed(x)
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    torch.testing.assert_close(model.embed(x), expected)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_the_layer_is_that_of_gaussians_with_sklearns_covariance(model):
    """Classes of 3, 6, 9 and 12 cells, each counting alike in the covariance."""
    features, labels = drawn(12, views=8)
    kept = [row for row in range(48) if row % 12 < 3 + 3 * labels[row]]
    cells, own = features[kept].double().numpy(), np.array(labels)[kept]
    clear(model)
    found = model.fit_head(features[kept], own.tolist())
    means = np.stack([cells[own == label].mean(axis=(0, 1)) for label in range(4)])
    weights = np.sqrt(len(own) / (4 * np.bincount(own)[own]))
    residuals = ((cells - means[own][:, None]) * weights[:, None, None]).reshape(-1, WIDTH)
    covariance, shrinkage = ledoit_wolf(residuals, assume_centered=True)
    assert found["shrinkage"] == pytest.approx(shrinkage, rel=1e-6) and found["kept"] == 0
    expected = np.linalg.solve(covariance, means.T).T
    expected = np.column_stack([expected, -(expected * means).sum(1) / 2])
    np.testing.assert_allclose(
        layer_of(model), found["scale"] * (expected - expected.mean(0)), rtol=1e-3, atol=1e-5 * found["scale"]
    )


def test_it_names_cells_as_sklearns_discriminant_does(model):
    features, labels = drawn(15, apart=0.6)
    others, _ = drawn(100, apart=0.6, seed=1)
    clear(model)
    model.fit_head(features, labels)
    with torch.no_grad():
        answers = model.get_classifier()(others[:, 0]).argmax(1).numpy()
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features[:, 0].numpy(), labels)
    # Theirs shrinks the covariance of each class, ours that of all together.
    assert (answers == theirs.predict(others[:, 0].numpy())).mean() > 0.95


def test_probabilities_are_as_sure_as_they_are_right(model):
    """Twice as loud or half as loud, other cells would be told less well."""
    features, labels = drawn(20, apart=0.4, views=2)
    others, answers = drawn(200, apart=0.4, seed=1)
    clear(model)
    model.fit_head(features, labels)
    with torch.no_grad():
        logits = model.get_classifier()(others[:, 0])
    loss, louder, softer = (
        float(torch.nn.functional.cross_entropy(by * logits, torch.tensor(answers))) for by in (1, 2, 0.5)
    )
    assert loss < min(louder, softer)


def test_a_layer_that_knows_the_classes_is_kept_and_one_that_knows_nothing_is_not(model):
    features, labels = drawn(200, apart=0.45, seed=5)
    model.fit_head(features, labels)
    few, own = drawn(3, apart=0.45)
    others, answers = drawn(100, apart=0.45, seed=1)
    before = right(model, others, answers)
    found = model.fit_head(few, own)
    assert found["kept"] > 0 and right(model, others, answers) > before - 0.02
    clear(model)
    assert model.fit_head(few, own)["kept"] == 0 and right(model, others, answers) < before - 0.05


def test_few_cells_that_are_all_named_rightly_do_not_make_it_sure_without_bound(model):
    """Of n cells named rightly, and one more that was not, a share of 1 in n + 2 is wrong: no surer is it on average."""
    features, labels = drawn(10, apart=3)
    clear(model)
    model.fit_head(features, labels)
    others, answers = drawn(100, apart=3, seed=1)
    assert right(model, others, answers) == 1.0
    with torch.no_grad():
        sure = model.get_classifier()(others[:, 0]).softmax(1).max(1).values
    assert 0.9 < sure.mean() < 1 - 0.5 / 42


def test_the_loss_is_told_without_fitting(model):
    features, labels = drawn(8)
    before = layer_of(model)
    parts = model.head_surprise(features, labels)
    assert np.array_equal(layer_of(model), before) and parts.shape == (32,)
    assert model.fit_head(features, labels)["loss"] == pytest.approx(parts.mean())


def test_a_gain_is_clear_above_its_standard_error():
    gains = np.array([1.0, -1.0, 1.0, 1.0])  # mean 0.5, standard error 0.433
    assert head_fitting.is_clear(gains) and not head_fitting.is_clear(gains - 0.1)
    assert not head_fitting.is_clear(np.zeros(4))


def test_views_that_differ_by_nothing_that_matters_are_learnt_to_be_passed_over(model):
    """The first half of the features changes from view to view as much as from class to class."""
    features, labels = drawn(6, apart=0.5, views=8)
    others, answers = drawn(100, apart=0.5, seed=1)
    for cells, seed in ((features, 2), (others, 3)):
        noise = torch.randn(*cells.shape[:2], 8, generator=torch.Generator().manual_seed(seed))
        cells[..., :8] += 20 * noise
    hits = []
    for seen in (features[:, :1], features):
        clear(model)
        model.fit_head(seen, labels)
        hits.append(right(model, others, answers))
    assert hits[1] > hits[0] + 0.05


def test_drawn_classes_are_learnt_and_named_in_cells_that_were_not_shown(model):
    features, labels = drawn(25, views=8, apart=2.0)
    others, answers = drawn(50, seed=1, apart=2.0)
    assert right(model, others, answers) < 0.6
    begun = time.perf_counter()
    model.fit_head(features, labels)
    assert time.perf_counter() - begun < 10  # some tenths of a second where nothing else runs
    assert right(model, others, answers) > 0.95


def test_the_same_cells_always_give_the_same_layer(model):
    features, labels = drawn(10)
    other = build_model()
    for one in (model, other):
        one.fit_head(features, labels)
    assert np.array_equal(layer_of(model), layer_of(other))


def test_a_class_that_no_cell_shows_is_only_lowered(model):
    """Its row stays against the mean of the others; they come to win over it on their own cells."""
    features, labels = drawn(10, classes=3)
    before = layer_of(model)
    model.fit_head(features, labels)
    after = layer_of(model)
    np.testing.assert_allclose(after[3, :-1], before[3, :-1] - before[:3, :-1].mean(0), atol=1e-5)
    np.testing.assert_allclose(after[:3].mean(0), 0, atol=1e-4)
    assert after[3, -1] <= before[3, -1] - before[:3, -1].mean() + 1e-6
    assert right(model, features, labels) == 1.0


def test_thresholds_go_and_what_the_classes_mean_stays(model):
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.9, 0.01
    model.config.negatives_label = LABELS[3]
    model.fit_head(*drawn(3))
    assert model.config.acceptance_threshold is None and model.config.acceptance_risk is None
    assert model.config.negatives_label == LABELS[3]


def test_a_cross_validation_leaves_the_model_and_counts_each_cell_once(model):
    features, labels = drawn(10, views=8, apart=2.0)
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.9, 0.01
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    found = model.cross_validate_head(features, labels)
    assert model.training and model.config.acceptance_threshold == 0.9
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert json.loads(json.dumps(found)) == found
    assert (found["n"], found["folds"]) == (40, 5) and list(found["classes"]) == list(LABELS)
    assert [row["n"] for row in found["classes"].values()] == [10] * 4
    before = [row["before"] for row in found["classes"].values()]
    assert found["balanced_accuracy"]["before"] == pytest.approx(sum(before) / 40) == right(model, features, labels)
    after = [row["after"] for row in found["classes"].values()]
    assert found["balanced_accuracy"]["after"] == pytest.approx(sum(after) / 40) and sum(after) > 36
    assert model.cross_validate_head(features, labels) == found


def test_the_limits_are_those_of_so_many_photos(model):
    """Against SciPy: for one class alone the equal-tailed limits under Jeffreys' prior are quantiles of a beta."""
    lower, upper = beta.ppf([0.025, 0.975], 15.5, 5.5)
    assert head_fitting._limits([0.75], [20]) == pytest.approx([lower, upper], abs=0.005)
    features, labels = drawn(12, apart=0.4)
    photos = [place % 12 // 4 for place in range(48)]  # three photos, each of all classes
    alone, together = (model.cross_validate_head(features, labels, groups) for groups in (None, photos))
    for found in (alone, together):
        for when, (low, high) in found["intervals"].items():
            assert 0 <= low < found["balanced_accuracy"][when] < high <= 1
    widths = [found["intervals"]["before"][1] - found["intervals"]["before"][0] for found in (alone, together)]
    assert widths[1] == pytest.approx(widths[0] * np.sqrt(14 / 5), rel=0.15)


@pytest.mark.parametrize(
    ("shares", "sizes"), [([1, 1, 1, 0.93], [3] * 4), ([1, 1, 1, 1, 0.98], [20] * 5), ([0, 0, 0, 0.05], [3] * 4)]
)
def test_the_limits_hold_their_own_value(shares, sizes):
    low, high = head_fitting._limits(shares, sizes)
    assert 0 <= low <= np.mean(shares) <= high <= 1


def test_limits_hold_what_was_found_at_either_end(model):
    features, labels = drawn(5, apart=9.0)
    found = model.cross_validate_head(features, labels)
    low, high = found["intervals"]["after"]
    assert found["balanced_accuracy"]["after"] == high == 1.0 and 0.75 < low < 0.95
    assert head_fitting._limits([0.0, 0.0], [5, 5])[0] == 0.0


def test_left_out_in_turn_each_cell_is_named_by_a_layer_of_the_others(model):
    """As many folds as cells of a class: against fitting by hand."""
    features, labels = drawn(4, classes=2, apart=0.25)
    found = model.cross_validate_head(features, labels, groups=[0, 1, 2, 3] * 2, folds=9)
    assert found["folds"] == 4
    hits = np.zeros(8, bool)
    for turn in range(4):
        other = build_model()
        shown = [row for row in range(8) if row % 4 != turn]
        other.fit_head(features[shown], [labels[row] for row in shown], [row % 4 for row in shown])
        for row in (turn, turn + 4):
            hits[row] = right(other, features[row : row + 1], labels[row : row + 1])
    assert [row["after"] for row in found["classes"].values()] == [hits[:4].sum(), hits[4:].sum()]


def test_what_tells_a_photo_and_not_a_class_helps_only_where_groups_are_kept_quiet(model):
    """Each photo has a mark of its own and one class; by the marks alone cells of a photo seen before are named."""
    clear(model)
    rng = np.random.default_rng(0)
    photos = np.repeat(np.arange(20), 4)
    labels = (photos % 2).tolist()
    features = torch.from_numpy(rng.normal(size=(20, WIDTH))[photos] * 2 + rng.normal(size=(80, WIDTH)) * 0.1)
    features = features.float()[:, None]
    naive = model.cross_validate_head(features, labels)["balanced_accuracy"]["after"]
    honest = model.cross_validate_head(features, labels, groups=photos.tolist())["balanced_accuracy"]["after"]
    assert naive == 1.0 and honest < 0.75


def test_no_group_stands_in_two_folds_and_each_class_in_every_fold():
    rng = np.random.default_rng(0)
    for _ in range(50):
        groups = rng.integers(0, 12, 60)
        labels = np.where(groups < 9, groups % 3, rng.integers(0, 3, 60))  # three photos show several classes
        folds = head_fitting._deal(labels, groups.tolist(), 3)
        assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
        assert all(set(folds[labels == label]) == {0, 1, 2} for label in range(3))


def test_few_cells_of_a_class_make_fewer_folds(model):
    features, labels = drawn(6)
    found = model.cross_validate_head(features[:21], labels[:21])  # three of the last class
    assert found["folds"] == 3 and found["classes"][LABELS[3]]["n"] == 3


TWELVE = [number // 3 for number in range(12)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((12, 1, WIDTH))}, r"The features are ndarray \(12, 1, 512\); expected a tensor"),
        ({"features": torch.zeros(12, WIDTH)}, r"The features are Tensor \(12, 512\)"),
        ({"features": torch.full((12, 1, WIDTH), torch.nan)}, "Some features are not finite"),
        ({"labels": TWELVE[:-1]}, "There are 11 labels for 12 cells"),
        ({"labels": [*TWELVE[:-1], 4]}, "A label is 4; expected the number of a class, 0 to 3"),
        ({"labels": [*TWELVE[:-1], "monocyte"]}, "A label is 'monocyte'"),
        ({"labels": [2] * 12}, "All 12 cells are of the class 'monocyte'; expected two classes"),
        ({"groups": list(range(11))}, "There are 11 groups for 12 cells"),
    ],
)
def test_cells_that_do_not_fit_are_refused_and_change_nothing(changes, message, model):
    stored = layer_of(model)
    given = {"features": torch.zeros(12, 1, WIDTH), "labels": TWELVE} | changes
    for method in (model.fit_head, model.cross_validate_head):
        with pytest.raises(ValueError, match=message):
            method(**given)
    assert np.array_equal(layer_of(model), stored)


def test_one_cell_of_a_class_is_too_few(model):
    stored = layer_of(model)
    with pytest.raises(ValueError, match="There is one cell of 'neutrophil'; expected 2 of each class"):
        model.fit_head(torch.randn(12, 1, WIDTH), [0] * 11 + [3])
    assert np.array_equal(layer_of(model), stored)


def test_cells_of_one_photo_are_fitted_though_they_cannot_be_tried_on_another(model):
    features, labels = drawn(6, apart=2.0)
    model.fit_head(features, labels, groups=["slide 7"] * 24)
    assert right(model, features, labels) == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": 1}, "folds is 1; expected a whole number, 2 or more"),
        ({"groups": ["slide 7"] * 12}, "All 12 cells come from 'slide 7'; expected two photos"),
        ({"labels": [0] * 11 + [1]}, r"The 1 cell\(s\) of 'lymphocyte' come from one photo or field"),
        ({"groups": [0, 1] * 5 + [2, 2], "labels": [0] * 10 + [3] * 2}, r"The 2 cell\(s\) of 'neutrophil' come from"),
    ],
)
def test_what_cannot_be_cross_validated_is_refused(changes, message, model):
    given = {"features": torch.zeros(12, 1, WIDTH), "labels": TWELVE} | changes
    with pytest.raises(ValueError, match=message):
        model.cross_validate_head(**given)


@pytest.mark.parametrize("views", [0, 4, True, None])
def test_another_number_of_views_is_refused(views, model):
    with pytest.raises(ValueError, match=f"views is {views}; expected 1, or 8"):
        model.embed(torch.zeros(1, 3, 64, 64), views=views)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 64, 64), ValueError, "Expected images of shape"),
        (None, TypeError, "Expected a tensor of images"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, "Expected floating point pixel values"),
    ],
)
def test_images_are_refused_as_forward_refuses_them(images, error, message, model):
    with pytest.raises(error, match=message):
        model.embed(images, views=8)


@pytest.mark.usefixtures("no_network")
def test_a_fitted_folder_gives_the_same_logits_through_both_doors(model_folder, tmp_path):
    loaded = AutoModelForImageClassification.from_pretrained(model_folder, trust_remote_code=True)
    x = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        before = loaded(x).logits
    loaded.fit_head(loaded.embed(x, views=8), [0, 0, 1, 1, 2, 2, 3, 3])
    loaded.save_pretrained(tmp_path / "fitted")
    for source in model_folder.glob("*.py"):
        shutil.copy(source, tmp_path / "fitted")
    with torch.no_grad():
        expected = loaded(x).logits
        assert not torch.allclose(expected, before, atol=0.01)
        for trust in (False, True):
            again = AutoModelForImageClassification.from_pretrained(tmp_path / "fitted", trust_remote_code=trust)
            torch.testing.assert_close(again(x).logits, expected, rtol=0, atol=1e-6)
    fetched = {path.name for path in (REPOSITORY / "hub_model").glob("head_*.py")}
    assert fetched <= {path.name for path in (tmp_path / "fitted").iterdir()}
