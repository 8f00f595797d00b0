"""Statistics and last layer, fitted to a drawn laboratory: what is chosen, what it gains elsewhere in it, what stays."""

import copy

import numpy as np
import pytest
import torch
from conftest import LABELS, build_model

from hub_model import laboratory_fitting
from hub_model.laboratory_fitting import ALL_VIEWS, SHARES

SIDE = 64


def cells(each, tint=0.0, seed=0):
    """Draw discs of four inks on light ground: images (4 * each, 3, 64, 64), the classes in turn, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    inks = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1]])
    labels = torch.arange(4 * each) % 4
    rows, cols = torch.meshgrid(*[torch.arange(SIDE) - SIDE / 2] * 2, indexing="ij")
    disc = (rows.square() + cols.square() < 18**2).float()
    images = 1 - 0.8 * disc * (1 - inks[labels][..., None, None])
    return images + 0.4 * torch.randn(4 * each, 3, SIDE, SIDE, generator=generator) + tint, labels.tolist()


@pytest.fixture(scope="module")
def fitted():
    """A model before, the same fitted to twelve cells of a class with four more without a label, and what was told."""
    before, (images, labels) = build_model(), cells(12)
    model, told = copy.deepcopy(before), []
    more, _ = cells(1, seed=9)
    found = model.fit_to_laboratory(images.split(20), labels, None, [more], lambda *come: told.append(come))
    return before, model, found, told


def rightly(model, images, labels):
    with torch.no_grad():
        return float((model(images).logits.argmax(-1) == torch.tensor(labels)).double().mean())


def test_other_cells_of_the_laboratory_are_named(fitted):
    before, model, found, _ = fitted
    others, labels = cells(25, seed=1)
    assert rightly(before, others, labels) < 0.6 and rightly(model, others, labels) > 0.9
    tried = found["validation"]
    assert tried["n"] == 48 and tried["balanced_accuracy"]["after"] > 0.85 and found["why_not"] is None
    assert tried["balanced_accuracy"]["before"] == pytest.approx(rightly(before, *cells(12)))


def test_the_share_lowers_the_loss_if_there_is_one_and_its_statistics_are_in_place(fitted):
    before, model, found, _ = fitted
    images, _ = cells(12)
    more, _ = cells(1, seed=9)
    assert list(found["losses"]) == [f"{share:g}" for share in SHARES]
    least = min(found["losses"].values())
    assert found["losses"][f"{found['share']:g}"] == least or found["share"] == 0
    other = copy.deepcopy(before)
    other.reestimate_statistics([*images.split(20), more], found["share"])
    for name, norm in other.norms().items():
        torch.testing.assert_close(model.norms()[name].running_mean, norm.running_mean)
        torch.testing.assert_close(model.norms()[name].running_var, norm.running_var)


def test_nothing_but_statistics_and_last_layer_changes(fitted):
    before, model, _, _ = fitted
    stored = dict(before.named_parameters())
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, stored[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"}


def test_progress_rises_to_its_end(fitted):
    *_, told = fitted
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(set(done)) and set(totals) == {done[-1]} == {48 + 4 + 48 * (len(SHARES) + ALL_VIEWS)}


@pytest.mark.parametrize(("gain", "share"), [(0.5, 1.0), (0.4, 0.0)])
def test_new_statistics_are_taken_where_they_gain_more_than_chance(gain, share, monkeypatch):
    """The gain's standard error is 0.433 = sqrt(3 / 4) / sqrt(4), as the cells are made up."""
    model, (images, labels) = build_model(), cells(2)
    spread = np.array([0.5, -1.5, 0.5, 0.5])
    made_up = iter([np.full(4, 2.0), np.full(4, 3.0), np.full(4, 2.0) - spread - gain])
    monkeypatch.setattr(type(model), "head_surprise", lambda *_: next(made_up))
    assert model.fit_to_laboratory([images], labels)["share"] == share


def test_each_share_is_tried_on_the_same_model(monkeypatch):
    """In another order the shares have the same losses: none leaves a trace."""
    images, labels = cells(4, tint=1.0)
    losses = []
    for shares in (SHARES, SHARES[::-1]):
        monkeypatch.setattr(laboratory_fitting, "SHARES", shares)
        losses.append(build_model().fit_to_laboratory([images], labels)["losses"])
    assert losses[0] == losses[1]


def test_where_cells_come_from_one_photo_each_class_it_is_fitted_and_said_that_nothing_was_tried():
    model, (images, labels) = build_model(), cells(5)
    found = model.fit_to_laboratory([images], labels, [LABELS[label] for label in labels])
    assert found["validation"] is None and "come from one photo or field" in found["why_not"]
    assert rightly(model, images, labels) > 0.9


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_stopped_on_the_way_the_model_is_as_it_was(stop):
    model, (images, labels) = build_model(), cells(4)
    stored = {name: value.clone() for name, value in model.state_dict().items()}

    def tell(done, total):
        if done > total / 2:
            raise stop

    with pytest.raises(stop):
        model.fit_to_laboratory([images], labels, tell=tell)
    assert model.as_stored
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_what_was_measured_of_the_old_weights_is_forgotten():
    model, (images, labels) = build_model(), cells(3)
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.9, 0.01
    model.config.validation_confusion = {"counts": {}}
    model.fit_to_laboratory([images], labels)
    assert model.config.acceptance_threshold is None and model.config.validation_confusion is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1] * 3, "There are 6 labels for 8 cells"), ([0] * 7 + [1], "There is one cell of 'lymphocyte'")],
)
def test_labels_that_do_not_fit_are_refused_and_change_nothing(labels, message):
    model, (images, _) = build_model(), cells(2)
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.fit_to_laboratory([images], labels)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["measure", "reestimate", "try", "suggest", "fit"])
def test_a_pixel_that_is_no_number_is_refused_and_changes_nothing(method, wrong):
    model, (images, labels) = build_model(), cells(3)
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    broken = images.clone()
    broken[0, 0, 0, 0] = wrong
    call = {
        "measure": model.measure_statistics,
        "reestimate": model.reestimate_statistics,
        "try": model.try_statistics,
        "suggest": model.suggest_share,
        "fit": lambda batches: model.fit_to_laboratory(batches, labels * 2),
    }[method]
    with pytest.raises(ValueError, match="The new statistics of network.bn1 are not finite; expected numbers"):
        call([images, broken])
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    assert model.as_stored


def test_statistics_come_back_bit_by_bit_and_a_share_of_nothing_changes_nothing():
    model, (images, _) = build_model(), cells(2)
    with torch.no_grad():
        model.network.bn1.running_var[0] = 1e-40  # of which 1 * x + 0 * y and x may differ
        model.network.bn1.running_mean[1] = -0.0
    stored = {name: value.clone() for name, value in model.named_buffers()}
    new = model.measure_statistics([images])
    model.mix_statistics(new, 0.0)
    new["network.bn1"]["running_mean"][3] = float("nan")
    model.mix_statistics(new, 0.0)
    for share in (0.5, 1.0):
        with pytest.raises(ValueError, match="The new statistics of network.bn1 are not finite"):
            model.mix_statistics(new, share)
    for name, value in model.named_buffers():
        assert torch.equal(value, stored[name]) and torch.equal(value.signbit(), stored[name].signbit())
    assert model.as_stored


def test_a_model_says_whether_it_still_is_its_files():
    model, (images, labels) = build_model(), cells(3)
    model.config.validation_confusion = counted = {"counts": {}}
    model.measure_statistics([images])
    model.try_statistics([images])
    model.reestimate_statistics([images], 0.0)
    assert model.as_stored and model.config.validation_confusion is counted
    model.reestimate_statistics([images], 0.25)
    assert not model.as_stored and model.config.validation_confusion is None
    for change in (
        lambda model: model.fit_head(model.embed(images), labels),
        lambda model: model.fit_to_laboratory([images], labels),
        lambda model: model.mix_statistics(model.measure_statistics([images])),
        lambda model: model.reset_classifier({0: "cell", 1: "none"}),
    ):
        model = build_model()
        change(model)
        assert not model.as_stored and not copy.deepcopy(model).as_stored


def test_a_laboratory_without_cells_is_refused():
    with pytest.raises(ValueError, match="There are no batches"):
        build_model().fit_to_laboratory([], [])


def test_statistics_are_tried_in_three_passes(model, monkeypatch):
    seen, forward = [], type(model).forward_features
    monkeypatch.setattr(type(model), "forward_features", lambda self, x: seen.append(len(x)) or forward(self, x))
    batches = [cells(2, seed=seed)[0] for seed in range(3)]
    told = []
    trial = model.try_statistics(batches, lambda *come: told.append(come))
    assert len(seen) in (6, 9) and told[-1][1] == 72
    assert trial.logits.shape == (24, len(LABELS)) and np.isfinite(trial.distance)
    expected = copy.deepcopy(model)
    expected.reestimate_statistics(batches, 0.3)
    model.mix_statistics(trial.new, 0.3)
    for name, value in expected.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], value, rtol=0, atol=0)
