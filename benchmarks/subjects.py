"""What is timed: our doors, and the same work by other well-known means, on the same images."""

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    pipeline,
)

from benchmarks.timing import cores
from hub_model.pipeline_wbc_resnet import has_bfloat16

STOCK = "transformers' pipeline, ResNet-50"
STOCK_OURS = "transformers' pipeline, our weights"
OURS = "our pipeline"
OURS_BF16 = "our pipeline, bfloat16"
ONNX = "ONNX Runtime, our weights"
TIMM_50, TIMM_18 = "timm, ResNet-50", "timm, ResNet-18"
TRANSFORMERS_50 = "transformers, ResNet-50"  # the network inside STOCK


def read_jpegs(folder: Path, number: int) -> list[bytes]:
    """Read images as JPEG files of 320x240 px, as Kaggle's copies are; taken again from the first where there are fewer."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no JPEG or PNG; name a folder of images with --images.")
    chosen = [files[place * len(files) // min(number, len(files))] for place in range(min(number, len(files)))]
    jpegs = []
    for path in chosen:
        stream = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize((320, 240)).save(stream, "JPEG", quality=90)
        jpegs.append(stream.getvalue())
    return [jpegs[place % len(jpegs)] for place in range(number)]


def multiply_adds(network: torch.nn.Module, pixels: torch.Tensor) -> int:
    """Count the multiplications and additions of convolutions and linear layers for a batch (B, 3, H, W)."""
    total = 0

    def count(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        each = module.weight.numel() // module.weight.shape[0]  # of one value of the output
        total += output.numel() * each

    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.inference_mode():
            network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return total


class Doors:
    """Every door and peer, loaded once.

    Args:
        folder: the model's folder.

    Attributes:
        classify: our pipeline; ``stock``, ``stock_ours`` the library's; ``timm_50``, ``timm_18`` networks; ``session`` an
            ONNX Runtime session whose input is ``pixel_values`` and output ``logits``.
    """

    def __init__(self, folder: Path):
        self.processor = AutoImageProcessor.from_pretrained(folder)
        options = {"model": str(folder), "trust_remote_code": True, "device": "cpu", "one_cell": True}
        self.classify = pipeline(**options)
        self.classify_bf16 = pipeline(**options, dtype=torch.bfloat16)
        torch.manual_seed(0)
        stock = ResNetForImageClassification(ResNetConfig()).eval()
        self.stock = pipeline("image-classification", stock, image_processor=self.processor, device="cpu")
        self.stock_ours = pipeline("image-classification", str(folder), trust_remote_code=False, device="cpu")
        self.ours = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
        self.timm_50 = timm.create_model("resnet50").eval()
        self.timm_18 = timm.create_model("resnet18").eval()
        self.timm_view = timm.data.create_transform(**timm.data.resolve_model_data_config(self.timm_50))
        self.session = self._onnx(folder)

    def _onnx(self, folder: Path) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()  # they spin between answers, as they do for every user: see timing.rest
        shipped = folder / "onnx" / "model.onnx"
        if shipped.is_file():
            return onnxruntime.InferenceSession(shipped, options, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.onnx"
            torch.onnx.export(
                self.ours.network,
                (torch.zeros(2, 3, 224, 224),),
                path,
                dynamo=True,
                external_data=False,
                opset_version=18,
                verbose=False,
                input_names=["pixel_values"],
                output_names=["logits"],
                dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            )
            return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    @property
    def labels(self) -> list[str]:
        return [self.ours.config.id2label[number] for number in range(self.ours.config.num_labels)]

    def from_bytes(self) -> dict[str, Callable[[bytes], str]]:
        """Give, by name, functions from the bytes of a JPEG to the answer in JSON, one image at a time."""
        doors = {
            STOCK: lambda jpeg: json.dumps(self.stock(Image.open(io.BytesIO(jpeg)))),
            STOCK_OURS: lambda jpeg: json.dumps(self.stock_ours(Image.open(io.BytesIO(jpeg)))),
            OURS: lambda jpeg: json.dumps(self.classify(jpeg)),
            ONNX: self._through_onnx,
            TIMM_50: lambda jpeg: self._through_timm(self.timm_50, jpeg),
            TIMM_18: lambda jpeg: self._through_timm(self.timm_18, jpeg),
        }
        if has_bfloat16():
            doors[OURS_BF16] = lambda jpeg: json.dumps(self.classify_bf16(jpeg))
        return doors

    def bulk(self) -> dict[str, Callable[[Sequence[Path], int], Iterator[dict[str, float]]]]:
        """Give, by name, a plain loop over files in batches of a size, as their users write it, to answers."""
        return {
            TIMM_50: lambda files, batch: self._loop_timm(self.timm_50, files, batch),
            TIMM_18: lambda files, batch: self._loop_timm(self.timm_18, files, batch),
            ONNX: self._loop_onnx,
        }

    def networks(self, pixels: torch.Tensor) -> dict[str, Callable[[], Any]]:
        """Give, by name, the networks alone on pixels (B, 3, H, W)."""
        as_numpy = {"pixel_values": pixels.numpy()}
        networks = {
            TIMM_50: lambda: self.timm_50(pixels),
            TIMM_18: lambda: self.timm_18(pixels),
            TRANSFORMERS_50: lambda: self.stock.model(pixels),
            "our class": lambda: self.ours(pixels),
            OURS: lambda: self.classify.model.forward_folded(pixels),
            ONNX: lambda: self.session.run(["logits"], as_numpy),
        }
        if has_bfloat16():
            half = pixels.bfloat16()
            networks[OURS_BF16] = lambda: self.classify_bf16.model.forward_folded(half)
        return networks

    def _loop_timm(self, network: torch.nn.Module, files: Sequence[Path], batch: int) -> Iterator[dict[str, float]]:
        for start in range(0, len(files), batch):
            pixels = torch.stack(
                [self.timm_view(Image.open(path).convert("RGB")) for path in files[start : start + batch]]
            )
            with torch.inference_mode():
                best = network(pixels).softmax(-1).topk(5)
            for places, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                yield dict(zip(places, shares, strict=True))

    def _loop_onnx(self, files: Sequence[Path], batch: int) -> Iterator[dict[str, float]]:
        for start in range(0, len(files), batch):
            images = [Image.open(path).convert("RGB") for path in files[start : start + batch]]
            pixels = self.processor(images, return_tensors="np")["pixel_values"]
            (logits,) = self.session.run(["logits"], {"pixel_values": pixels})
            exps = np.exp(logits - logits.max(-1, keepdims=True))
            for shares in (exps / exps.sum(-1, keepdims=True)).tolist():
                yield dict(zip(self.labels, shares, strict=True))

    def _through_onnx(self, jpeg: bytes) -> str:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        pixels = self.processor(image, return_tensors="np")["pixel_values"]
        (logits,) = self.session.run(["logits"], {"pixel_values": pixels})
        exps = np.exp(logits[0] - logits[0].max())
        return json.dumps(dict(zip(self.labels, (exps / exps.sum()).tolist(), strict=True)))

    def _through_timm(self, network: torch.nn.Module, jpeg: bytes) -> str:
        pixels = self.timm_view(Image.open(io.BytesIO(jpeg)).convert("RGB"))[None]
        with torch.inference_mode():
            best = network(pixels).softmax(-1)[0].topk(5)
        return json.dumps(dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
