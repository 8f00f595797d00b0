"""After the last step: a planted temperature, and a fold that changes nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

from training.finish import (
    average_weights,
    fit_temperature,
    fold_temperature,
    predict_logits,
)


def images(number, side=64, seed=0):
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.3


# A mean of weights


def small_network(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    network(images(8, side=8, seed=seed))  # statistics of its own
    return network


def test_weights_and_statistics_are_the_plain_mean_and_the_others_stay():
    networks = [small_network(seed) for seed in range(3)]
    networks[1](images(2, side=8))  # another count of batches
    before = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    average_weights(networks[0], networks[1:])
    for name, tensor in networks[0].state_dict().items():
        if name == "1.num_batches_tracked":
            assert int(tensor) == 1
        else:
            expected = sum(np.float64(state[name]) for state in before) / 3
            np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-7, err_msg=name)
    for network, state in zip(networks[1:], before[1:], strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_mean_with_nothing_changes_nothing():
    network = small_network(1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    average_weights(network, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


# Logits


class Views(torch.utils.data.Dataset):
    def __init__(self, number):
        self.pixels = images(number, seed=5)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, row):
        return {"pixel_values": self.pixels[row], "labels": row % 4}


def test_every_view_is_classified_once_and_in_order(model):
    views = Views(7)
    logits, labels = predict_logits(model, views, batch_size=3)
    with torch.no_grad():
        expected = torch.cat([model(views.pixels[row : row + 1]).logits for row in range(7)])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert logits.dtype == torch.float32 and not logits.requires_grad
    assert labels.tolist() == [0, 1, 2, 3, 0, 1, 2]


# Temperature


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 1.7, 4.0])
def test_a_planted_temperature_is_found(temperature):
    # Labels drawn from softmax(z): of the logits T * z, the right temperature is T.
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (20_000, 4))
    labels = drawn_labels(z, rng)
    found = fit_temperature(torch.tensor(temperature * z, dtype=torch.float32), torch.tensor(labels))
    assert found == pytest.approx(temperature, rel=0.03)


def test_the_temperature_is_the_most_likely_one():
    rng = np.random.default_rng(1)
    logits, labels = torch.tensor(rng.normal(0, 3, (200, 5))), torch.tensor(rng.integers(0, 5, 200))
    logits[torch.arange(150), labels[:150]] += 2

    def loss(temperature):
        return float(nn.functional.cross_entropy(logits / temperature, labels))

    found = fit_temperature(logits, labels)
    assert loss(found) <= min(loss(t) for t in np.geomspace(0.05, 20, 400)) + 1e-9


def drawn_labels(logits, rng):
    """Draw a label for each row from softmax(logits), (N,)."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (rng.random((len(logits), 1)) > shares.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize(("confident", "expected"), [(True, 0.05), (False, 20)])
def test_the_temperature_stays_in_its_range_when_the_evidence_has_no_end(confident, expected):
    labels = torch.arange(8) % 4
    right = nn.functional.one_hot(labels, 4).float()
    found = fit_temperature(right if confident else 1 - right, labels)  # all right, or all wrong
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(4, 3), torch.zeros(5).long()),
        (torch.zeros(4), torch.zeros(4).long()),
        (torch.zeros(0, 3), torch.zeros(0).long()),
    ],
    ids=["other number", "one axis", "none"],
)
def test_logits_and_labels_that_do_not_match_are_refused(logits, labels):
    with pytest.raises(ValueError, match=r"Expected logits \(N, classes\) and labels \(N,\), got"):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("temperature", [0.25, 0.7, 3.0])
def test_a_folded_temperature_divides_every_logit_and_keeps_every_answer(model, temperature):
    batch = images(6)
    with torch.no_grad():
        before = model(batch).logits
        features = {name: tensor.clone() for name, tensor in model.state_dict().items() if "fc" not in name}
        fold_temperature(model.get_classifier(), temperature)
        after = model(batch).logits
    torch.testing.assert_close(after, before / temperature, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in features.items())


def test_a_power_of_two_is_folded_exactly(model):
    linear = model.get_classifier()
    weight, bias = linear.weight.clone(), linear.bias.clone()
    fold_temperature(linear, 4.0)
    assert torch.equal(linear.weight * 4, weight) and torch.equal(linear.bias * 4, bias)


@pytest.mark.parametrize("temperature", [0, -1.5, float("nan"), float("inf")])
def test_what_is_no_temperature_is_refused(model, temperature):
    weight = model.get_classifier().weight.clone()
    with pytest.raises(ValueError, match="temperature is .*; expected a positive number"):
        fold_temperature(model.get_classifier(), temperature)
    assert torch.equal(model.get_classifier().weight, weight)
