"""The network against two others that are the same on paper, and against its own algebra."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from conftest import LABELS, live_in
from torch import nn
from torch.optim.swa_utils import update_bn
from transformers import ResNetConfig, ResNetForImageClassification

from hub_model import batch_statistics
from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import WbcResNet, WbcResNetForImageClassification
from hub_model.tensor_names import torchvision_names

SIZES = [(64, 64), (97, 131), (224, 224), (240, 320)]
# Where the same sum is taken in another order (a mean over hundreds of places, another batch size): 1e-6 was seen, on logits
# of size six.
ROUNDING = {"rtol": 0, "atol": 5e-6}


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def transformers_pair():
    torch.manual_seed(1)
    theirs = ResNetForImageClassification(ResNetConfig(depths=[3, 4], hidden_sizes=[256, 512], num_labels=4))
    theirs = live_in(theirs).eval()
    ours = WbcResNet().eval()
    ours.load_state_dict(torchvision_names(theirs.state_dict()))
    return ours, lambda x: theirs(x).logits


@pytest.fixture(scope="module")
def timm_pair():
    torch.manual_seed(2)
    theirs = timm.create_model("resnet50", layers=(3, 4, 0, 0), channels=(64, 128, 128, 128), num_classes=4)
    theirs = live_in(theirs).eval()
    ours = WbcResNet().eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pair", ["transformers_pair", "timm_pair"])
@torch.no_grad()
def test_same_weights_give_the_same_logits_as_the_library(pair, size, request):
    ours, theirs = request.getfixturevalue(pair)
    x = images(2, 3, *size)
    expected = theirs(x)
    assert expected.std() > 0.1  # logits that say nothing would agree too
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-6)


def test_one_training_step_moves_the_same_statistics_and_gradients_as_timm(timm_pair):
    grads, statistics = [], []
    for network in timm_pair:
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train()
        nn.functional.cross_entropy(network(images(4, 3, 64, 64)), torch.arange(4)).backward()
        grads.append({name: value.grad for name, value in network.named_parameters()})
        statistics.append({name: value.clone() for name, value in network.named_buffers()})
        network.zero_grad()
        network.load_state_dict(before)
        network.eval()
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(statistics[0], statistics[1], rtol=1e-5, atol=1e-6)


def test_the_longest_path_through_the_graph_has_24_layers():
    """Count convolutions, max pooling and the linear layer on the way from the image to the logits.

    The shortcut projections are never on the longest way, so nothing has to be excluded by name.
    """
    logits = live_in(WbcResNet())(images(1, 3, 64, 64).requires_grad_())
    layers = ("ConvolutionBackward", "MaxPool", "AddmmBackward")
    longest = {}

    def depth(node):
        if node not in longest:
            own = any(node.name().startswith(name) for name in layers)
            longest[node] = own + max((depth(parent) for parent, _ in node.next_functions if parent), default=0)
        return longest[node]

    assert depth(logits.grad_fn) == 24
    assert sum("Convolution" in node.name() for node in longest) == 22 + 2  # the two shortcut projections


def test_parameters():
    assert sum(p.numel() for p in WbcResNet(num_classes=4).parameters()) == 1_446_980


def test_the_receptive_field_is_91_pixels():
    """One central feature's gradient reaches 91 x 91 pixels and not one further."""
    network = WbcResNet().eval().double()
    for module in network.modules():  # nothing cancels and no ReLU closes: every reachable pixel counts
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1.0)
    x = torch.rand(1, 3, 192, 192, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network.forward_features(x)[0, :, 12, 12].sum().backward()
    rows, columns = (x.grad.abs().sum(dim=(0, 1, axis)).nonzero().flatten() for axis in (3, 2))
    centre = 12 * 8
    for reached in (rows, columns):
        assert (reached.min().item(), reached.max().item()) == (centre - 45, centre + 45)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (224, 224)], ids=str)
def test_the_mean_of_the_evidence_plus_the_bias_is_the_logit(model, size):
    out = model(images(3, 3, *size), output_evidence=True)
    height, width = (math.ceil(side / 8) for side in size)
    assert out.evidence.shape == (3, 4, height, width)
    torch.testing.assert_close(out.evidence.mean(dim=(2, 3)) + model.get_classifier().bias, out.logits, **ROUNDING)


@torch.no_grad()
def test_features_head_and_hidden_states_are_one_path(model):
    x = images(2, 3, 64, 96)
    features = model.forward_features(x)
    assert features.shape == (2, 512, 8, 12)
    embedding = model.forward_head(features, pre_logits=True)
    assert embedding.shape == (2, model.num_features) == (2, 512)
    torch.testing.assert_close(embedding, features.flatten(2).mean(-1), **ROUNDING)
    out = model(x, output_hidden_states=True)
    assert torch.equal(model.forward_head(features), out.logits)
    assert torch.equal(out.hidden_states[0], features)
    as_tuple = model(x, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], out.logits)


@torch.no_grad()
def test_feature_info_says_what_the_maps_are():
    network, seen = WbcResNet(), {}
    for info in network.feature_info:
        name = info["module"]
        network.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.shape}))
    network(images(1, 3, 72, 104))
    assert [info["module"] for info in network.feature_info] == ["act1", "layer1", "layer2"]
    for info in network.feature_info:
        expected = (1, info["num_chs"], math.ceil(72 / info["reduction"]), math.ceil(104 / info["reduction"]))
        assert seen[info["module"]] == expected


@torch.no_grad()
def test_reset_classifier(model):
    x = images(1, 3, 64, 64)
    before = model.forward_features(x)
    model.reset_classifier({0: "basophil", 1: "blast"})
    assert model(x).logits.shape == (1, 2)
    assert (model.config.num_labels, model.config.label2id) == (2, {"basophil": 0, "blast": 1})
    assert torch.equal(model.forward_features(x), before)
    fc = model.get_classifier()
    assert fc.bias.abs().max() == 0 and 0.005 < fc.weight.std() < 0.02

    network = model.network
    network.to(torch.bfloat16).reset_classifier(3)
    assert network.fc.weight.dtype == torch.bfloat16
    network.float().reset_classifier(0)
    features = network.forward_features(x)
    torch.testing.assert_close(network(x), features.mean(dim=(2, 3)), **ROUNDING)
    network.reset_classifier(0, global_pool="")
    assert torch.equal(network(x), features)


@pytest.mark.parametrize("build", [WbcResNet, lambda: WbcResNetForImageClassification(WbcResNetConfig())])
def test_every_block_starts_as_the_identity(build):
    network = build()
    zero = {name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()}
    prefix = "network." if hasattr(network, "network") else ""
    expected = {f"{prefix}layer1.{block}.bn3" for block in range(3)} | {
        f"{prefix}layer2.{block}.bn3" for block in range(4)
    }
    assert zero == expected
    block = network.get_submodule(f"{prefix}layer2.1").eval()
    x = images(1, 512, 8, 8).relu()
    assert torch.equal(block(x), x)


def test_loss_is_cross_entropy(model):
    x, labels = images(4, 3, 64, 64), torch.tensor([3, 1, 0, 1])
    out = model(x, labels=labels)
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(out.logits, labels), rtol=0, atol=0)
    assert model(x).loss is None


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(model):
    x = images(5, 3, 64, 64)
    order = torch.tensor([3, 0, 4, 1, 2])
    logits = model(x).logits
    torch.testing.assert_close(model(x[order]).logits, logits[order], **ROUNDING)
    torch.testing.assert_close(model(x[2:3]).logits, logits[2:3], **ROUNDING)


@torch.no_grad()
def test_channels_last_and_bf16_run(model):
    x = images(2, 3, 64, 64)
    logits = model(x).logits
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)).logits, logits, rtol=0, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x, labels=torch.tensor([0, 1]))
    assert out.loss.dtype == torch.float32
    # bf16 keeps 8 bits of a number, 0.4 %.
    torch.testing.assert_close(out.logits.float(), logits, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("pixel_values", "error", "message"),
    [
        ([[0.0]], TypeError, r"Expected a tensor of images \(B, 3, H, W\), got list"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, r"got torch.uint8.*image processor"),
        (torch.zeros(1, 1, 64, 64), ValueError, r"\(B, 3, H, W\), got \(1, 1, 64, 64\).*RGB"),
        (torch.zeros(3, 64, 64), ValueError, r"\(B, 3, H, W\), got \(3, 64, 64\).*stack"),
        (torch.zeros(0, 3, 64, 64), ValueError, r"empty batch of shape \(0, 3, 64, 64\)"),
        (torch.zeros(1, 3, 63, 64), ValueError, r"at least 64x64 px, got 63x64.*Resize"),
        (torch.zeros(1, 3, 64, 63), ValueError, r"at least 64x64 px, got 64x63.*Resize"),
    ],
    ids=["no tensor", "integers", "one channel", "no batch", "empty", "low", "narrow"],
)
def test_wrong_images_are_refused(model, pixel_values, error, message):
    with pytest.raises(error, match=message):
        model(pixel_values)


def test_wrong_arguments_are_refused(model):
    x = images(1, 3, 64, 64)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'output_evidnce'"):
        model(x, output_evidnce=True)
    with pytest.raises(ValueError, match=r"global_pool='max' is not offered; use 'avg' or ''"):
        WbcResNet(global_pool="max")
    with pytest.raises(ValueError, match=r"num_classes is -1; expected 0"):
        WbcResNet(num_classes=-1)
    with pytest.raises(ValueError, match=r"keeps the map of features; classify with"):
        WbcResNet(num_classes=4, global_pool="")(x)
    with pytest.raises(ValueError, match=r"must number its classes 0, 1, 2"):
        model.reset_classifier({1: "basophil", 2: "blast"})
    with pytest.raises(ValueError, match=r"must number its classes"):
        model.reset_classifier({})
    with pytest.raises(KeyError, match=r"'resnet.pooler.weight' is no tensor of transformers' ResNet"):
        torchvision_names({"resnet.pooler.weight": x})


def test_the_labels_are_the_configurations(model):
    assert [model.config.id2label[i] for i in range(4)] == list(LABELS)
    assert model.get_classifier().out_features == model.config.num_labels == 4


def test_reset_classifier_drops_the_thresholds_of_the_old_layer(model):
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.9, 0.01
    model.config.negatives_label = "monocyte"
    model.reset_classifier({0: "basophil", 1: "blast"})
    assert "negatives_label" not in model.config.to_dict()
    assert model.decide(torch.tensor([0.6, 0.4]), 0.0) == ("basophil", None)


# The operating point


@torch.no_grad()
def test_the_energy_is_minus_the_logarithm_of_the_sum_of_exponentials(model):
    logits = images(5, 4).double()
    torch.testing.assert_close(model.energy(logits), -logits.exp().sum(-1).log())


@pytest.mark.parametrize(
    ("probability", "energy", "expected"),
    [
        (0.8, -3.0, ("lymphocyte", None)),  # at both thresholds
        (0.79, -3.0, ("unidentified", "low confidence")),
        (0.8, -2.9, ("unidentified", "unlike the images learnt from")),
        (0.79, -2.9, ("unidentified", "unlike the images learnt from")),
    ],
)
def test_an_answer_needs_confidence_and_an_energy_like_those_learnt(model, probability, energy, expected):
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.8, 0.01
    model.config.energy_threshold, model.config.energy_accept_rate = -3.0, 0.99
    rest = (1 - probability) / 3
    assert model.decide(torch.tensor([rest, probability, rest, rest]).double(), energy) == expected


@pytest.mark.parametrize("probabilities", [[0.3, 0.25, 0.2, 0.25], [0.0, 0.0, 0.0, 1.0]])
def test_without_thresholds_the_likeliest_class_is_the_answer(model, probabilities):
    assert model.decide(torch.tensor(probabilities), 1e6) == (LABELS[probabilities.index(max(probabilities))], None)


def test_negatives_are_a_class_like_the_others(model):
    model.config.negatives_label = "neutrophil"
    model.config.acceptance_threshold, model.config.acceptance_risk = 0.5, 0.01
    assert model.decide(torch.tensor([0.1, 0.1, 0.1, 0.7]), 0.0) == ("neutrophil", None)
    assert model.decide(torch.tensor([0.2, 0.2, 0.2, 0.4]), 0.0) == ("unidentified", "low confidence")


# Statistics of another laboratory


def statistics(model):
    return {name: value.clone() for name, value in model.named_buffers()}


def stained(seed, shift=0.0):
    """Batches of several images each; ``shift`` tints them, in units of the processor's standard deviation."""
    tint = torch.tensor([1.0, -0.5, 0.3]).view(1, 3, 1, 1) * shift
    return [images(6, 3, 64, 64, seed=10 * seed + number) + tint for number in range(3)]


def test_reestimated_statistics_are_those_of_torchs_own_update(model):
    by_torch = WbcResNetForImageClassification(model.config)
    by_torch.load_state_dict(model.state_dict())
    update_bn(stained(1, shift=1.0), by_torch)
    weights = {name: value.clone() for name, value in model.named_parameters()}
    before = statistics(model)
    model.reestimate_statistics(stained(1, shift=1.0))
    torch.testing.assert_close(statistics(model), statistics(by_torch), rtol=0, atol=0)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
    assert not any(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_of_the_old_statistics_is_kept(model, share):
    old = statistics(model)
    all_new = WbcResNetForImageClassification(model.config)
    all_new.load_state_dict(model.state_dict())
    all_new.reestimate_statistics(stained(1))
    new = statistics(all_new)
    model.reestimate_statistics(stained(1), share)
    for name, value in model.named_buffers():
        if "running" in name:
            torch.testing.assert_close(value, old[name] + share * (new[name] - old[name]), rtol=1e-5, atol=1e-6)


def test_statistics_are_read_in_whatever_mode_the_model_is(model):
    """Only the first norm is in training mode, as when the rest is frozen; each is as it was afterwards."""
    model.network.bn1.train()
    modes = {name: module.training for name, module in model.named_modules()}
    momenta = {name: norm.momentum for name, norm in model.norms().items()}
    first = model.statistics_distance(stained(1))
    model.network.bn1.eval()
    assert model.statistics_distance(stained(1)) == first
    model.network.bn1.train()
    model.reestimate_statistics(stained(1))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: norm.momentum for name, norm in model.norms().items()} == momenta
    assert len(momenta) == 24  # 22 on the main path and 2 on shortcut projections


def test_the_distance_is_torchs_own_divergence_between_gaussians(model):
    """Activations are caught here by hooks of the test's own; the divergence is that of torch.distributions."""
    caught = {name: [] for name in model.norms()}
    for name, norm in model.norms().items():
        norm.register_forward_hook(lambda _, inputs, __, name=name: caught[name].append(inputs[0].clone()))
    batches = stained(2, shift=0.5)
    with torch.no_grad():
        for batch in batches:
            model(batch)
    expected = []
    for name, norm in model.norms().items():
        values = torch.cat(caught[name]).double().movedim(1, 0).flatten(1)  # (C, all places of all images)
        here = torch.distributions.Normal(values.mean(1), (values.var(1, correction=0) + norm.eps).sqrt())
        stored = torch.distributions.Normal(norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt())
        divergence = torch.distributions.kl_divergence
        expected.append((divergence(here, stored) + divergence(stored, here)).mean())
    assert model.statistics_distance(batches) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-6)
    assert model.statistics_distance([torch.cat(batches)]) == pytest.approx(
        model.statistics_distance(batches), rel=1e-6
    )


def test_the_distance_grows_with_the_stain_and_falls_to_nothing_when_statistics_fit(model):
    model.reestimate_statistics(stained(1))
    before = statistics(model)
    own, others, far, farther = (
        model.statistics_distance(batches)
        for batches in (stained(1), stained(2), stained(2, shift=0.5), stained(2, shift=1.0))
    )
    assert 0 <= own < others < far < farther
    assert own < 0.01 and far > 10 * others
    torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)  # it only looks
    model.reestimate_statistics(stained(3, shift=1.0))
    assert model.statistics_distance(stained(2, shift=1.0)) < 0.1 * farther


def surest(network, batches):
    """Give the mean probability of the likeliest class, by transformers' door alone."""
    with torch.no_grad():
        return float(torch.cat([network(batch).logits.double().softmax(-1).amax(-1) for batch in batches]).mean())


def test_the_suggested_share_follows_from_what_a_quarter_of_new_statistics_does(model, monkeypatch):
    monkeypatch.setattr(batch_statistics, "DISTANT", float("inf"))
    with torch.no_grad():
        model.get_classifier().weight *= 3  # answers that are sure of something
    suggested = set()
    for contrast in (1, 8):
        batches, before = [contrast * batch for batch in stained(2)], statistics(model)
        share = model.suggest_share(batches)
        torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)
        trial = copy.deepcopy(model)
        trial.reestimate_statistics(batches, 0.25)
        assert share == (0.75 if surest(trial, batches) > surest(model, batches) - 0.01 else 0.0)
        suggested.add(share)
    assert suggested == {0.0, 0.75}, "the images show one case only"


def test_far_away_all_statistics_are_to_be_new(model, monkeypatch):
    model.reestimate_statistics(stained(1))
    for shift in (0.0, 3.0):
        distance = model.statistics_distance(stained(1, shift))
        monkeypatch.setattr(batch_statistics, "DISTANT", distance * 1.01)
        assert model.suggest_share(stained(1, shift)) < 1
        monkeypatch.setattr(batch_statistics, "DISTANT", distance * 0.99)
        assert model.suggest_share(stained(1, shift)) == 1


@pytest.mark.parametrize("method", ["reestimate_statistics", "statistics_distance", "suggest_share"])
@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, r"no batches; expected one tensor of images"),
        (
            [torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)],
            ValueError,
            r"Expected images of shape .* \(2, 1, 64, 64\)",
        ),
        (torch.zeros(2, 3, 64, 64), ValueError, r"got \(3, 64, 64\).*stack them"),
        ([{"pixel_values": torch.zeros(2, 3, 64, 64)}], TypeError, r"Expected a tensor of images .* got dict"),
        ([torch.zeros(2, 3, 64, 64, dtype=torch.uint8)], TypeError, r"got torch.uint8.*image processor"),
    ],
    ids=["none", "grey", "one tensor", "a dictionary", "integers"],
)
def test_what_gives_no_statistics_is_refused_and_changes_nothing(model, method, batches, error, message):
    before = statistics(model)
    with pytest.raises(error, match=message):
        getattr(model, method)(batches)
    torch.testing.assert_close(statistics(model), before, rtol=0, atol=0)
    assert not any(module.training for module in model.modules())
    assert {norm.momentum for norm in model.norms().values()} == {0.1}
    assert not any(norm._forward_pre_hooks for norm in model.norms().values())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_nothing_and_all_is_refused(model, share):
    with pytest.raises(ValueError, match=rf"share is {share}; expected a number from 0 \(all old\) to 1"):
        model.reestimate_statistics(stained(1), share)


# Statistics of the norms, as numpy computes them


def pictures(number, side=64, seed=0):
    return torch.randn(number, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.3


def stem_activations(model, batch):
    """Convolve as the stem does and stop before its normalisation: (C, B*H*W), float64."""
    with torch.no_grad():
        out = nn.functional.conv2d(batch, model.network.conv1.weight, stride=2, padding=3)  # (B, C, H, W)
    return out.double().numpy().transpose(1, 0, 2, 3).reshape(out.shape[1], -1)


def test_statistics_of_one_batch_are_its_pooled_mean_and_variance(model):
    batch = pictures(12)
    model.reestimate_statistics([batch])
    pooled = stem_activations(model, batch)
    np.testing.assert_allclose(model.network.bn1.running_mean, pooled.mean(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.network.bn1.running_var, pooled.var(axis=1, ddof=1), rtol=1e-4, atol=1e-5)


def test_statistics_of_several_batches_are_the_plain_average_and_near_the_pooled_ones(model):
    batches = [pictures(8, seed=seed) * (1 + 0.1 * seed) for seed in range(4)]
    model.reestimate_statistics(iter(batches))
    each = [stem_activations(model, batch) for batch in batches]
    pooled = np.hstack(each)
    norm = model.network.bn1
    # Of batches of one size the average of the means is the mean of all; that of the variances lacks what lies between them.
    np.testing.assert_allclose(norm.running_mean, pooled.mean(axis=1), rtol=1e-4, atol=1e-5)
    variances = np.mean([part.var(axis=1, ddof=1) for part in each], axis=0)
    np.testing.assert_allclose(norm.running_var, variances, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_var, pooled.var(axis=1), rtol=0.05)


def test_every_norm_is_refreshed_and_nothing_else_changes(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    momenta = [norm.momentum for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    assert not model.training
    model.reestimate_statistics([pictures(4), pictures(4, seed=1)])
    assert not model.training
    assert [norm.momentum for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)] == momenta
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    statistics = {f"{name}.{what}" for name in norms for what in ("running_mean", "running_var", "num_batches_tracked")}
    assert len(norms) > 20 and changed == statistics


def test_old_statistics_leave_no_trace(model):
    batch = pictures(6)
    model.reestimate_statistics([batch])
    first = {name: tensor.clone() for name, tensor in model.named_buffers()}
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean += 100
    model.reestimate_statistics([batch])
    assert all(torch.equal(tensor, first[name]) for name, tensor in model.named_buffers())


def test_with_fresh_statistics_evaluation_answers_as_training_does(model):
    # The identity that the statistics stand for, but for n / (n - 1) in the variance.
    batch = pictures(16)
    model.reestimate_statistics([batch])
    with torch.no_grad():
        in_evaluation = model.eval()(batch).logits
        in_training = model.train()(batch).logits
    torch.testing.assert_close(in_evaluation, in_training, rtol=0.02, atol=0.02)


def test_batches_go_to_where_the_model_is(model):
    class Seen(Exception):
        """Ends the pass where the images came: a device without memory can normalise none."""

    def look(_, inputs):
        raise Seen(inputs[0].device.type)

    model.to("meta").network.conv1.register_forward_pre_hook(look)
    with pytest.raises(Seen, match="meta"):
        model.reestimate_statistics([pictures(2)])


def test_folded_norms_give_the_same_logits(model):
    x = torch.randn(3, 3, 64, 96)
    for kind in ({}, {"memory_format": torch.channels_last}):
        with torch.no_grad():
            torch.testing.assert_close(model.to(**kind).forward_folded(x), model(x).logits, rtol=1e-5, atol=1e-5)
    x.requires_grad_()
    (folded,) = torch.autograd.grad(model.forward_folded(x).sum(), x)
    (plain,) = torch.autograd.grad(model(x).logits.sum(), x)
    torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-5)


def test_in_training_nothing_is_folded(model):
    with pytest.raises(RuntimeError, match="in training mode, where nothing can be folded"):
        model.train().forward_folded(torch.randn(2, 3, 64, 64))
