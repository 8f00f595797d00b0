"""What the processor can do: the fastest matrix product of a type, of several sizes and by several libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

from benchmarks.timing import side_by_side

SIZES = (512, 1024, 2048)  # rows and columns
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ROUNDS = 10


@dataclass(frozen=True)
class Product:
    """A matrix product that shows what the processor can do.

    Attributes:
        run: does it once.
        multiply_adds: how many that are.
        way: library and size, in words.
        seconds: how long it took at best, once that is measured.
    """

    run: Callable[[], Any]
    multiply_adds: int
    way: str
    seconds: float = float("inf")


def products(kind: torch.dtype) -> list[Product]:
    """Give products of two square matrices: by PyTorch, by oneDNN as a convolution of one pixel, by NumPy and ONNX Runtime."""
    made = []
    for size in SIZES:
        left, right = torch.randn(2, size, size).to(kind)
        # Weights (out, in) times pixels (in, place) is a product of matrices, too.
        pixels = right.reshape(1, size, size, 1).contiguous(memory_format=torch.channels_last)
        weight = left.reshape(size, size, 1, 1).contiguous(memory_format=torch.channels_last)
        ways = {
            "PyTorch": lambda left=left, right=right: left @ right,
            "oneDNN's convolution": lambda pixels=pixels, weight=weight: torch.nn.functional.conv2d(pixels, weight),
        }
        if kind == torch.float32:  # in bfloat16 neither computes
            ways["NumPy"] = lambda left=left, right=right: np.matmul(left.numpy(), right.numpy())
            ways["ONNX Runtime"] = _by_onnx_runtime(left.numpy(), right.numpy())
        made += [Product(run, size**3, f"{name}, {size}x{size}") for name, run in ways.items()]
    return made


def _by_onnx_runtime(left: np.ndarray, right: np.ndarray) -> Callable[[], Any]:
    """Prepare a product whose right matrix stands in the graph, as a layer's weights do, so that it is packed beforehand."""
    shape = list(left.shape)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("left", "product")]
    weight = helper.make_tensor("right", TensorProto.FLOAT, shape, right.tobytes(), raw=True)
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


@torch.inference_mode()
def find_peaks(bfloat16: bool) -> Mapping[str, Product]:
    """Time all products and give the fastest of each type.

    Args:
        bfloat16: whether the processor computes in it.
    """
    peaks = {}
    for name, kind in TYPES.items():
        if name == "float32" or bfloat16:
            tried = products(kind)
            seconds = side_by_side({product.way: product.run for product in tried}, ROUNDS)
            timed = [replace(product, seconds=min(seconds[product.way])) for product in tried]
            peaks[name] = max(timed, key=lambda product: product.multiply_adds / product.seconds)
    return peaks
