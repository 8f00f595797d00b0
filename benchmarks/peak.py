"""What the processor can do: the fastest matrix product of a type, of several sizes and by several libraries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

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
    """Give products of two square matrices: by PyTorch, by oneDNN as a convolution of one pixel, by NumPy."""
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
        if kind == torch.float32:  # NumPy has no bfloat16
            ways["NumPy"] = lambda left=left, right=right: np.matmul(left.numpy(), right.numpy())
        made += [Product(run, size**3, f"{name}, {size}x{size}") for name, run in ways.items()]
    return made


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
