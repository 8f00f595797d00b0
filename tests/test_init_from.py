"""Starting weights arrive exactly, or are refused with the name, both shapes and what to do."""

import json
import logging

import pytest
import timm
import torch
import torchvision
from conftest import LABELS, build_model
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetForImageClassification

from hub_model.tensor_names import torchvision_names
from training.init_from import init_from, load_companion, load_resnet50

TAKEN = ("conv1.", "bn1.", "layer1.", "layer2.")
LEFT_OUT = ("layer3.", "layer4.", "fc.")


@pytest.fixture(scope="module")
def resnet50():
    """A whole ResNet-50's tensors, random; every normalisation's statistics too."""
    torch.manual_seed(5)
    tensors = torchvision.models.resnet50(weights=None).state_dict()
    return {name: torch.rand_like(t) if t.is_floating_point() else t + 3 for name, t in tensors.items()}


@pytest.fixture(scope="module")
def shallow(resnet50):
    """The same with a token of the deeper stages, to keep the files of the refusals small."""
    kept = (*TAKEN, "layer3.0.bn1.", "layer4.0.bn1.", "fc.bias")
    return {name: tensor for name, tensor in resnet50.items() if name.startswith(kept)}


@pytest.fixture(scope="module")
def weights_file(resnet50, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(resnet50, path)
    return path


def assert_arrived(network, tensors, loaded):
    state = network.state_dict()
    expected = {name for name in tensors if name.startswith(TAKEN)}
    assert set(loaded) == expected == {name for name in state if not name.startswith("fc.")}
    for name in expected:
        assert torch.equal(state[name], tensors[name]), name


def test_torchvision_safetensors_into_the_model(model, resnet50, weights_file):
    head = model.get_classifier().weight.clone()
    loaded = init_from(model, weights_file)
    assert_arrived(model.network, resnet50, loaded)
    assert len(loaded) == 144
    assert torch.equal(model.get_classifier().weight, head)


def test_timm_pth_into_the_network(model, tmp_path):
    tensors = timm.create_model("resnet50").state_dict()
    torch.save(tensors, tmp_path / "resnet50.pth")
    loaded = load_resnet50(model.network, tmp_path / "resnet50.pth")
    assert_arrived(model.network, tensors, loaded)


@pytest.mark.parametrize("wrapped", [{"epoch": 90, "state_dict": ...}, {"model": ...}], ids=str)
def test_tensors_inside_a_checkpoint(wrapped, model, shallow, tmp_path):
    torch.save({key: shallow if value is ... else value for key, value in wrapped.items()}, tmp_path / "resnet50.pth")
    assert_arrived(model.network, shallow, load_resnet50(model, tmp_path / "resnet50.pth"))


@torch.no_grad()
def test_the_network_then_computes_what_resnet50_computes(model, resnet50, weights_file):
    load_resnet50(model, weights_file)
    theirs = torchvision.models.resnet50(weights=None).eval()
    theirs.load_state_dict(resnet50)
    x = torch.randn(1, 3, 64, 64)
    y = theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))))
    torch.testing.assert_close(model.forward_features(x), y, rtol=1e-5, atol=0)


def test_a_file_from_before_the_counters_is_taken(model, resnet50, tmp_path):
    old = {name: value for name, value in resnet50.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    loaded = load_resnet50(model, tmp_path / "old.pth")
    assert set(loaded) == {name for name in old if name.startswith(TAKEN)}


def refused(model, tensors, path, message):
    """Expect a refusal that names the remedy and leaves the model as it was."""
    torch.save(tensors, path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_resnet50(model, path)
    assert "torchvision.models.resnet50" in str(caught.value)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_resnet34_is_refused(model, tmp_path):
    tensors = torchvision.models.resnet34(weights=None).state_dict()
    message = r"'layer1.0.conv1.weight'.*has shape \(64, 64, 3, 3\); expected \(64, 64, 1, 1\)"
    refused(model, tensors, tmp_path / "resnet34.pth", message)


def test_another_width_is_refused(model, tmp_path):
    tensors = timm.create_model("wide_resnet50_2", layers=(3, 4, 0, 0)).state_dict()
    message = r"'layer1.0.conv1.weight'.*has shape \(128, 64, 1, 1\); expected \(64, 64, 1, 1\)"
    refused(model, tensors, tmp_path / "wide.pth", message)


def test_a_missing_tensor_is_named(model, shallow, tmp_path):
    tensors = {name: value for name, value in shallow.items() if name != "layer2.3.conv2.weight"}
    refused(model, tensors, tmp_path / "a.pth", r"lacks 'layer2.3.conv2.weight'; expected shape \(128, 128, 3, 3\)")
    # layer3 may be left out because it is named, not because anything may be missing.
    tensors = {name: value for name, value in shallow.items() if not name.startswith("layer2.")}
    refused(model, tensors, tmp_path / "b.pth", r"lacks 'layer2.0.conv1.weight'")


def test_an_unexpected_tensor_is_named(model, shallow, tmp_path):
    tensors = {**shallow, "layer1.0.se.fc1.weight": torch.zeros(16, 256)}
    refused(model, tensors, tmp_path / "a.pth", r"holds 'layer1.0.se.fc1.weight' of shape \(16, 256\).*no place")
    tensors = {**shallow, "layer2.4.conv1.weight": torch.zeros(128, 512, 1, 1)}
    refused(model, tensors, tmp_path / "b.pth", r"holds 'layer2.4.conv1.weight'")
    refused(
        model, {"module." + name: value for name, value in shallow.items()}, tmp_path / "c.pth", r"lacks 'conv1.weight'"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_cut_short_is_refused(suffix, model, shallow, tmp_path):
    whole = tmp_path / f"whole{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(shallow, whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"cannot be read as a file of tensors.*fetch it again"):
        load_resnet50(model, cut)


def test_what_is_no_file_of_tensors_is_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no .*resnet50.pth.*hf download"):
        init_from(model, tmp_path / "resnet50.pth")
    (tmp_path / "weights.h5").write_bytes(b"HDF")
    with pytest.raises(ValueError, match=r"weights.h5 is no weights file; expected .safetensors"):
        init_from(model, tmp_path / "weights.h5")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"holds a list; expected a state_dict"):
        init_from(model, tmp_path / "list.pth")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"more than tensors is not opened: save its state_dict"):
        init_from(model, tmp_path / "module.pth")


def fresh(labels=LABELS):
    return build_model(labels, seed=9)


def test_a_folder_with_the_same_labels_gives_everything(model_folder, model, caplog):
    started = fresh()
    with caplog.at_level(logging.WARNING):
        loaded = init_from(started, str(model_folder))
    assert not caplog.records
    assert set(loaded) == set(model.network.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(started.state_dict()[name], value), name


@pytest.mark.parametrize(
    "labels", [LABELS[::-1], ("basophil", *LABELS), LABELS[:2]], ids=["other order", "one more", "some"]
)
def test_classes_of_the_same_name_bring_their_part_of_the_linear_layer(labels, model_folder, model, caplog):
    started = fresh(labels)
    head = started.get_classifier().weight.clone()
    with caplog.at_level(logging.WARNING, logger="training.init_from"):
        loaded = init_from(started, model_folder)
    assert ("basophil" in caplog.text) == ("basophil" in labels)
    for row, label in enumerate(labels):
        expected = model.get_classifier().weight[LABELS.index(label)] if label in LABELS else head[row]
        assert torch.equal(started.get_classifier().weight[row], expected), label
    for name in loaded:
        if not name.startswith("fc."):
            assert torch.equal(started.network.state_dict()[name], model.network.state_dict()[name]), name


def test_a_folder_of_transformers_whole_resnet50(tmp_path):
    """Four stages; a shallow third and fourth keep the file small."""
    torch.manual_seed(6)
    config = ResNetConfig(depths=[3, 4, 1, 1], hidden_sizes=[256, 512, 64, 64], num_labels=4)
    theirs = ResNetForImageClassification(config)
    theirs.save_pretrained(tmp_path)
    started = fresh()
    loaded = init_from(started, tmp_path)
    assert_arrived(started.network, torchvision_names(theirs.state_dict()), loaded)


def test_folders_that_do_not_fit_are_refused(model_folder, tmp_path):
    with pytest.raises(ValueError, match=r"holds no config.json"):
        init_from(fresh(), tmp_path)
    shallow = tmp_path / "shallow"
    ResNetForImageClassification(ResNetConfig(depths=[3, 3], hidden_sizes=[256, 512])).save_pretrained(shallow)
    with pytest.raises(ValueError, match=r"lacks 'layer2.3.conv1.weight'; expected shape \(128, 512, 1, 1\)"):
        init_from(fresh(), shallow)
    # A config.json and a model.safetensors that do not belong together.
    ResNetForImageClassification(ResNetConfig(depths=[3, 4], hidden_sizes=[256, 512])).config.save_pretrained(shallow)
    with pytest.raises(ValueError, match=r"does not fit the config.json beside it: missing keys.*layer2.3"):
        init_from(fresh(), shallow)
    config = (model_folder / "config.json").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"holds no model.safetensors"):
        init_from(fresh(), other)
    (other / "model.safetensors").write_bytes((model_folder / "model.safetensors").read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"other is no checkpoint of this network or of transformers"):
        init_from(fresh(), other)
    for text in ("[]", json.dumps({"model_type": "vit", "hidden_size": 64})):
        (other / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"other is no checkpoint of this network or of transformers"):
            init_from(fresh(), other)


def test_the_labels_decide_not_their_number(model_folder):
    """Four other classes: the head must not come along although its shape fits."""
    assert not any(name.startswith("fc.") for name in init_from(fresh(("a", "b", "c", "d")), model_folder))


def test_the_left_out_prefixes_cover_a_whole_resnet50(resnet50):
    assert all(name.startswith(TAKEN + LEFT_OUT) for name in resnet50)


# A companion to be averaged with


def test_a_companion_brings_all_its_weights(model_folder, model):
    stored = load_companion(fresh(), model_folder).state_dict()
    assert stored.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "labels", [LABELS[:3], LABELS[::-1], (*LABELS, "platelet"), tuple(name.upper() for name in LABELS)], ids=str
)
def test_a_companion_of_other_classes_or_another_order_is_refused(model_folder, labels):
    with pytest.raises(ValueError, match=r"averaged class by class\. Name a checkpoint of the same classes"):
        load_companion(fresh(labels), model_folder)


def test_a_companion_of_another_network_is_refused(tmp_path):
    config = ResNetConfig(depths=[3, 4, 1, 1], hidden_sizes=[256, 512, 64, 64], num_labels=4)
    config.id2label = dict(enumerate(LABELS))
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"network\.\S+ in .* has shape \(.*\), for which .* Name a checkpoint of this"
    ):
        load_companion(fresh(), tmp_path)


def test_a_companion_that_is_no_folder_of_a_checkpoint_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json; expected a folder that save_pretrained wrote"):
        load_companion(model, tmp_path)
