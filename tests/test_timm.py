"""The timm door: what timm's users expect of a registered model holds."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from conftest import LABELS, build_model, import_from
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import AutoImageProcessor, AutoModelForImageClassification

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def door(model_folder):
    """The module of the published folder, registered last."""
    return import_from(model_folder, "timm_wbc_resnet")


@pytest.fixture
def stored_logits(model_folder):
    model = AutoModelForImageClassification.from_pretrained(model_folder, trust_remote_code=False)
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, model(x).logits


def test_it_is_listed(door):
    assert timm.is_model("wbc_resnet24")
    assert timm.list_models("wbc_*") == ["wbc_resnet24"]
    assert timm.list_pretrained("wbc_*") == ["wbc_resnet24"]


@torch.no_grad()
def test_num_classes_in_chans_and_global_pool(door):
    network = timm.create_model("wbc_resnet24", num_classes=11, in_chans=1).eval()
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 11)
    embedding = timm.create_model("wbc_resnet24", num_classes=0).eval()
    assert embedding(torch.zeros(2, 3, 64, 64)).shape == (2, 512)
    maps = timm.create_model("wbc_resnet24", num_classes=0, global_pool="").eval()
    assert maps(torch.zeros(2, 3, 64, 80)).shape == (2, 512, 8, 10)


@torch.no_grad()
def test_features_only(door):
    """Every map is the one that stock timm's ResNet-50 gives with the same weights."""
    backbone = timm.create_model("wbc_resnet24", features_only=True, pretrained=True).eval()
    assert backbone.feature_info.channels() == [64, 256, 512]
    assert backbone.feature_info.reduction() == [2, 4, 8]
    x = torch.randn(1, 3, 96, 64)
    maps = backbone(x)
    assert [tuple(m.shape) for m in maps] == [(1, 64, 48, 32), (1, 256, 24, 16), (1, 512, 12, 8)]
    stock = timm.create_model("resnet50", layers=(3, 4, 0, 0), channels=(64, 128, 128, 128), num_classes=4)
    stock.load_state_dict(timm.create_model("wbc_resnet24", pretrained=True).state_dict())
    stem = []
    stock.act1.register_forward_hook(lambda _, __, out: stem.append(out.clone()))
    last = stock.eval().forward_features(x)
    torch.testing.assert_close(maps[0], stem[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(maps[1], stock.layer1(stock.maxpool(stem[0])), rtol=0, atol=1e-6)
    torch.testing.assert_close(maps[2], last, rtol=0, atol=1e-6)
    only_last = timm.create_model("wbc_resnet24", features_only=True, out_indices=(2,))
    assert only_last.feature_info.channels() == [512] and len(only_last(x)) == 1


@torch.no_grad()
def test_pretrained_is_the_stored_model(door, stored_logits):
    x, expected = stored_logits
    network = timm.create_model("wbc_resnet24", pretrained=True).eval()
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_pretrained_with_another_label_count_keeps_the_features(door):
    full = timm.create_model("wbc_resnet24", pretrained=True).eval()
    other = timm.create_model("wbc_resnet24", pretrained=True, num_classes=7).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.forward_features(x), full.forward_features(x))
    assert other(x).shape == (1, 7) and other.fc.bias.abs().max() == 0


@torch.no_grad()
def test_pretrained_with_one_channel_sees_grey_as_grey(door):
    """timm sums the first kernel over colours, so grey given once is grey given three times."""
    grey = torch.randn(1, 1, 64, 64)
    one = timm.create_model("wbc_resnet24", pretrained=True, in_chans=1).eval()
    three = timm.create_model("wbc_resnet24", pretrained=True).eval()
    torch.testing.assert_close(one(grey), three(grey.expand(1, 3, 64, 64)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("written_by", ["save_pretrained", "timm"])
@torch.no_grad()
def test_checkpoint_path(written_by, door, model_folder, stored_logits, tmp_path):
    x, expected = stored_logits
    path = model_folder / "model.safetensors"
    if written_by == "timm":
        path = tmp_path / "last.pth.tar"
        network = timm.create_model("wbc_resnet24", pretrained=True)
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    network = timm.create_model("wbc_resnet24", num_classes=4, checkpoint_path=str(path)).eval()
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)


def test_a_checkpoint_that_does_not_fit_is_refused(door, model_folder):
    with pytest.raises(RuntimeError, match="size mismatch for fc.weight"):
        timm.create_model("wbc_resnet24", num_classes=9, checkpoint_path=str(model_folder / "model.safetensors"))


def test_pixels_and_labels_are_the_published_ones(door, model_folder):
    """timm's own transform gives what the image processor gives, on a photo that is not square."""
    network = timm.create_model("wbc_resnet24", pretrained=True)
    assert tuple(network.pretrained_cfg["label_names"]) == LABELS
    processor = json.loads((model_folder / "preprocessor_config.json").read_text())
    assert list(network.pretrained_cfg["mean"]) == processor["image_mean"]
    transform = create_transform(**resolve_model_data_config(network))
    rows, columns = np.mgrid[0:240, 0:320]
    pixels = np.stack([rows, columns * 0.75, 120 + 100 * np.sin(rows / 9) * np.cos(columns / 7)], -1).astype(np.uint8)
    photo = Image.fromarray(pixels)
    theirs = AutoImageProcessor.from_pretrained(model_folder)(photo, return_tensors="pt")["pixel_values"][0]
    # The two resizes, PIL's and torchvision's, may round to neighbouring grey values: 1/255 over the smallest deviation.
    torch.testing.assert_close(transform(photo), theirs, rtol=0, atol=1 / 255 / 0.2 + 1e-5)


def test_another_published_folder_brings_its_own_labels_and_pixels(model_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    build_model(("basophil", "blast")).save_pretrained(other)
    processor = json.loads((other / "preprocessor_config.json").read_text())
    processor |= {"size": {"height": 160, "width": 192}, "image_std": [0.1, 0.2, 0.3], "resample": 3}
    (other / "preprocessor_config.json").write_text(json.dumps(processor))
    import_from(other, "timm_wbc_resnet")
    network = timm.create_model("wbc_resnet24", pretrained=True)
    cfg = network.pretrained_cfg
    assert network.num_classes == 2 and tuple(cfg["label_names"]) == ("basophil", "blast")
    assert (cfg["input_size"], cfg["std"], cfg["interpolation"]) == ((3, 160, 192), (0.1, 0.2, 0.3), "bicubic")


def test_before_the_first_training_there_is_a_network_but_nothing_pretrained(model_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(model_folder, bare, ignore=shutil.ignore_patterns("*.json", "*.safetensors"))
    import_from(bare, "timm_wbc_resnet")
    assert timm.create_model("wbc_resnet24").num_classes == 4
    assert timm.list_pretrained("wbc_*") == []
    with pytest.raises(RuntimeError, match="No pretrained weights exist for wbc_resnet24"):
        timm.create_model("wbc_resnet24", pretrained=True)


def test_dropout_is_refused_unless_zero(door):
    assert timm.create_model("wbc_resnet24", drop_rate=0.0).num_classes == 4
    with pytest.raises(ValueError, match=r"drop_rate=0.3 is not offered"):
        timm.create_model("wbc_resnet24", drop_rate=0.3)
    with pytest.raises(TypeError, match="drop_path_rate"):
        timm.create_model("wbc_resnet24", drop_path_rate=0.1)
