"""Mixed images and their loss against what Zhang et al. write: x = a x1 + (1 - a) x2, and the same of one-hot labels."""

import numpy as np
import pytest
import torch
from test_trainer import Blots, assert_resumed_ends_in_the_same_bits, make_trainer, small_network
from torch import nn

from training.mixup import mix_images, mixed_loss

PIXELS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def test_an_image_is_mixed_with_another_in_the_share_that_is_told():
    mixed, partners, own = mix_images(PIXELS, 0.4, (1, 2))
    assert sorted(partners.tolist()) == list(range(6)) and not (partners == torch.arange(6)).any()
    for row in range(6):
        expected = own[row] * PIXELS[row] + (1 - own[row]) * PIXELS[partners[row]]
        torch.testing.assert_close(mixed[row], expected)
    assert len(set(own.tolist())) == 6, "each image has a share of its own"


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_the_shares_are_those_of_the_beta_distribution_the_larger_first(strength):
    own = mix_images(torch.zeros(20000, 3, 1, 1), strength, (3,))[2].numpy()
    drawn = np.random.default_rng(99).beta(strength, strength, 20000)
    assert own.min() >= 0.5 and own.max() <= 1
    quantiles = np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(
        np.quantile(own, quantiles), np.quantile(np.maximum(drawn, 1 - drawn), quantiles), atol=0.015
    )


def test_a_seed_draws_the_same_again_and_another_does_not():
    first, again, other = (mix_images(PIXELS, 0.4, seed)[2] for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_to_mixed_labels(smoothing):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))
    _, partners, own = mix_images(PIXELS, 0.4, (1,))
    one_hot = nn.functional.one_hot(LABELS, 3).float()
    target = own[:, None] * one_hot + (1 - own[:, None]) * one_hot[partners]
    expected = nn.functional.cross_entropy(logits, target, label_smoothing=smoothing)
    torch.testing.assert_close(mixed_loss(logits, LABELS, partners, own, smoothing), expected)


def watch(network, shown):
    network.register_forward_pre_hook(
        lambda module, arguments, options: shown.append((module.training, options["pixel_values"].clone())),
        with_kwargs=True,
    )
    return network


def test_training_sees_mixed_images_and_validation_whole_ones(tmp_path):
    shown, images = [], Blots()
    trainer = make_trainer(tmp_path, epochs=1, images=images, network=watch(small_network(), shown), mixup=0.5)
    trainer.train()
    trained = torch.cat([pixels for training, pixels in shown if training])
    whole = [any(torch.equal(pixels, known) for known in images.pixels) for pixels in trained]
    assert len(trained) == 8 and not any(whole)
    shown.clear()
    trainer.evaluate()
    assert shown and all(any(torch.equal(one, known) for known in images.pixels) for _, part in shown for one in part)


def test_without_mixup_nothing_is_mixed(tmp_path):
    shown, images = [], Blots()
    make_trainer(tmp_path, epochs=1, images=images, network=watch(small_network(), shown)).train()
    assert shown and all(any(torch.equal(one, known) for known in images.pixels) for _, part in shown for one in part)


def test_a_resumed_training_mixes_as_one_that_went_through(tmp_path):
    assert_resumed_ends_in_the_same_bits(tmp_path, mixup=0.5)


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_strength_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"mixup is .*; expected 0 \(none\) or a strength above it"):
        make_trainer(tmp_path, mixup=value)


def test_batches_that_are_accumulated_into_a_step_have_shares_of_their_own(tmp_path, monkeypatch):
    seeds = []

    def note(pixels, strength, seed):
        seeds.append(seed)
        return mix_images(pixels, strength, seed)

    monkeypatch.setattr("training.trainer.mix_images", note)
    trainer = make_trainer(tmp_path, epochs=2, mixup=0.5)
    trainer.args.gradient_accumulation_steps = 2
    trainer.train()
    assert trainer.state.global_step == 2 and len(seeds) == 4 and len(set(seeds)) == 4
