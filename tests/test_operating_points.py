"""Thresholds on drawn answers whose right thresholds follow by counting."""

import numpy as np
import pytest
import torch

from training.operating_points import choose_operating_points


def answers(confidences, right):
    """Give logits (N, 3) with these top probabilities, for class 0, and labels that make them right or wrong."""
    rest = (1 - np.array(confidences)) / 2
    logits = torch.tensor(np.log(np.stack([confidences, rest, rest], axis=1)))
    return logits, torch.tensor([0 if ok else 1 for ok in right])


def test_the_lowest_threshold_that_keeps_the_risk():
    # falling: right, right, right, wrong, right ... : at risk 0.25 the first four are accepted, at 0.2 the first five
    logits, labels = answers([0.99, 0.95, 0.9, 0.8, 0.7, 0.6], [True, True, True, False, True, False])
    assert choose_operating_points(logits, labels, risk=0.19).acceptance_threshold == pytest.approx(0.9)
    assert choose_operating_points(logits, labels, risk=0.2).acceptance_threshold == pytest.approx(0.7)
    assert choose_operating_points(logits, labels, risk=0.34).acceptance_threshold == pytest.approx(0.6)


def test_the_energy_threshold_lets_the_stated_share_of_white_cells_in():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(1000, 4, generator=generator) * 3, torch.randint(0, 4, (1000,), generator=generator)
    logits[torch.arange(1000), labels] += 40  # so that every answer is right
    logits[labels == 3] -= 100  # the class "none of these" has energies that would move the threshold
    points = choose_operating_points(logits, labels, negatives=3, accept_rate=0.9)
    energy = -torch.logsumexp(logits.double(), -1)
    assert float((energy[labels != 3] <= points.energy_threshold).double().mean()) == pytest.approx(0.9, abs=2e-3)
    assert (energy[labels == 3] > points.energy_threshold).all()


def test_nothing_sure_enough_is_said():
    logits, labels = answers([0.99, 0.98, 0.9, 0.8], [False, False, True, False])
    with pytest.raises(ValueError, match=r"No threshold leaves 50.0% .* hold out more images"):
        choose_operating_points(logits, labels, risk=0.5)


def test_a_hundredth_cannot_be_seen_in_fewer_than_a_hundred_images():
    logits, labels = answers([0.99] * 99, [True] * 99)
    with pytest.raises(ValueError, match=r"99 images were held out; a share of 1.0% wrong needs 100 or more"):
        choose_operating_points(logits, labels)


@pytest.mark.parametrize("shares", [{"risk": 0.0}, {"risk": 1.0}, {"accept_rate": 1.0}])
def test_shares_that_are_none(shares):
    logits, labels = answers([0.9, 0.8], [True, True])
    with pytest.raises(ValueError, match="expected shares above 0 and below 1"):
        choose_operating_points(logits, labels, **shares)
