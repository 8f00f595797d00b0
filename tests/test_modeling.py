"""The network against two others that are the same on paper, and against its own algebra."""

import math

import pytest
import timm
import torch
from conftest import LABELS, live_in
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import WbcResNet, WbcResNetForImageClassification, torchvision_names

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
