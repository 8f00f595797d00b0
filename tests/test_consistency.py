"""Two views of a draw and how far their answers differ, against SciPy's Jensen-Shannon distance."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from test_device_views import both, processor, smears  # noqa: F401 (fixtures)
from test_mixup import watch
from test_trainer import Blots, assert_resumed_ends_in_the_same_bits, make_trainer, small_network

from training.augment import Augmentation
from training.consistency import VIEWS, divergence
from training.device_views import collate

LOGITS = 3 * torch.randn(12, 4, generator=torch.Generator().manual_seed(5))


def test_two_views_differ_by_scipys_distance_squared():
    answers = LOGITS.double().softmax(-1).numpy()
    expected = np.mean([jensenshannon(answers[row], answers[row + 1]) ** 2 for row in range(0, 12, 2)])
    assert float(divergence(LOGITS)) == pytest.approx(expected, rel=1e-5)


def test_three_views_differ_by_the_entropy_of_their_mean_less_their_mean_entropy():
    def entropy(p):
        return -(p * np.log(p)).sum(-1)

    answers = LOGITS.double().softmax(-1).numpy().reshape(4, 3, 4)
    expected = (entropy(answers.mean(1)) - entropy(answers).mean(1)).mean()
    assert float(divergence(LOGITS, views=3)) == pytest.approx(expected, rel=1e-5)


def test_equal_answers_do_not_differ_and_opposed_ones_by_the_logarithm_of_two():
    assert float(divergence(LOGITS.repeat_interleave(2, dim=0))) == pytest.approx(0, abs=1e-6)
    opposed = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    assert float(divergence(opposed)) == pytest.approx(np.log(2), rel=1e-6)


def test_sure_answers_have_a_gradient_that_is_a_number():
    logits = torch.tensor([[3e4, 0.0], [0.0, 3e4]], dtype=torch.bfloat16, requires_grad=True)
    divergence(logits).backward()
    assert torch.isfinite(logits.grad).all()


def test_answers_that_are_no_whole_draws_are_refused():
    with pytest.raises(ValueError, match="3 answers came; expected 2 for each draw"):
        divergence(LOGITS[:3])


# Views


@pytest.fixture
def views(smears, processor):  # noqa: F811
    """Give draws of two views, the same ones planned, what shows these, and draws of one view."""
    options = {"exchange_share": 0.5, "views": 2, "ground_share": 0.2, "oddity_share": 0.1}
    host, planned, photos = both(smears, processor, 96, Augmentation(degrade_share=0), **options)
    single, _, _ = both(smears, processor, 96, Augmentation(degrade_share=0), **options | {"views": 1})
    return host, planned, photos, single


def test_the_first_view_is_what_one_view_shows_and_the_second_has_its_label(views):
    host, _, _, single = views
    for number in range(24):
        first, second = host[number]
        alone = single[number]
        assert torch.equal(first["pixel_values"], alone["pixel_values"])
        assert first["labels"] == second["labels"] == alone["labels"]
        assert not torch.equal(first["pixel_values"], second["pixel_values"])


def test_both_views_are_of_one_photo(views, monkeypatch):
    host, rows = views[0], []
    shown = type(host)._pyramid
    monkeypatch.setattr(type(host), "_pyramid", lambda self, row: rows.append(row) or shown(self, row))
    monkeypatch.setattr(host, "exchange_share", 0.0)  # which reads another photo's colours
    of_cells = [number for number in range(24) if host.labels[host.turns[number]] != host.negatives]
    for number in of_cells:
        rows.clear()
        host[number]
        assert len(rows) == 2 and rows[0] == rows[1]
    assert len(of_cells) == 16


def test_the_device_shows_both_views_as_the_host_does(views):
    host, planned, photos, _ = views
    shown = photos(collate([planned[number] for number in range(24)]))
    expected = collate([host[number] for number in range(24)])
    assert shown["labels"].tolist() == expected["labels"].tolist()
    assert [first == second for first, second in pairwise(shown["labels"].tolist())][::2] == [True] * 24
    apart, moved = ((shown["pixel_values"] - other).abs().mean() for other in (
        expected["pixel_values"], expected["pixel_values"].roll(1, 0)
    ))  # fmt: skip
    assert shown["pixel_values"].shape == (48, 3, 96, 96) and apart < moved / 3


# Training


class PairedBlots(Blots):
    """Each of the eight images as it is, and a brighter one."""

    def __getitem__(self, row):
        entry = super().__getitem__(row)
        return [entry, entry | {"pixel_values": entry["pixel_values"] + 0.5}]


def test_the_loss_is_the_cross_entropy_and_the_weighted_divergence(tmp_path):
    trainer = make_trainer(tmp_path, consistency=3.0)
    batch = collate([PairedBlots()[row] for row in range(4)])
    trainer.model.train()
    loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    expected = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"]) + 3 * divergence(outputs.logits)
    assert float(divergence(outputs.logits.detach())) > 1e-5
    torch.testing.assert_close(loss, expected)
    trainer.model.eval()
    plain, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(outputs.logits, batch["labels"]))


def test_each_view_counts_as_an_image_and_the_pairs_stay_together(tmp_path):
    shown = []
    network = watch(small_network(), shown)
    trainer = make_trainer(
        tmp_path, epochs=1, images=PairedBlots(), network=network, data_collator=collate, consistency=12.0
    )
    trainer.train()
    assert trainer.samples_seen == 16 and trainer.state.global_step == 2
    for training, pixels in shown:
        assert training and len(pixels) == 4 * VIEWS
        torch.testing.assert_close(pixels[1::2], pixels[::2] + 0.5)


def test_a_resumed_training_ends_as_one_that_went_through(tmp_path):
    assert_resumed_ends_in_the_same_bits(tmp_path, images=PairedBlots(), data_collator=collate, consistency=12.0)


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"consistency is .*; expected 0 \(none\) or a weight above it"):
        make_trainer(tmp_path, consistency=value)


def test_mixed_images_have_no_views(tmp_path):
    with pytest.raises(ValueError, match="mixup and consistency: expected one of them"):
        make_trainer(tmp_path, consistency=12.0, mixup=0.2)
