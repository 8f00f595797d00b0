"""The doors of a model folder: the same pictures through each way of using it, and how far the answers lie apart.

A door takes the folder and picture files and gives probabilities, (N, classes) float64, in the order of ``id2label``. Each does
its own reading, resizing and scaling, as its users have it done. The reference is plain transformers.
"""

import importlib.util
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from gradio_client import Client, handle_file
from PIL import Image
from timm.data import create_transform, resolve_data_config
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, pipeline

from evaluation.javascript_doors import answers_in_browser, answers_in_node
from evaluation.measure import load_model, open_image
from evaluation.onnx_files import FLOAT, FOLDER, QUANTIZED
from evaluation.onnx_runtime import open_session, session_logits, softmax


@dataclass(frozen=True)
class Door:
    """A way of using a model folder.

    Attributes
    ----------
    name, how
        What the card calls it, and the call that it stands for, in Markdown.
    answer
        Takes the folder and N picture files; gives probabilities, (N, classes).
    tolerances
        Largest difference of a probability from the reference's that is put down to arithmetic, or to another way of
        resizing: of pictures of the network's size, and of pictures as they come.
    """

    name: str
    how: str
    answer: Callable[[Path, Sequence[Path]], np.ndarray]
    tolerances: tuple[float, float]


def _labels(folder: Path) -> list[str]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return [config.id2label[number] for number in range(config.num_labels)]


def _in_order(folder: Path, answers: Sequence[Sequence[Mapping[str, Any]]]) -> np.ndarray:
    """Turn lists of ``{"label", "score"}`` into rows of probabilities."""
    labels = _labels(folder)
    return np.array([[{row["label"]: row["score"] for row in answer}[label] for label in labels] for answer in answers])


def _open(image: Path) -> Image.Image:
    return open_image({"path": str(image), "bytes": None})


@torch.inference_mode()
def _through_network(network: Callable[[torch.Tensor], Any], pixels: Sequence[torch.Tensor]) -> np.ndarray:
    logits = [network(one) for one in pixels]
    return softmax(torch.cat([getattr(one, "logits", one) for one in logits]).numpy())


def through_plain(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """``pipeline("image-classification", ID)``, no code from the folder."""
    classify = pipeline("image-classification", str(folder), trust_remote_code=False, device="cpu")
    n_classes = classify.model.config.num_labels
    return _in_order(folder, [classify(str(image), top_k=n_classes) for image in images])


def through_our_class(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """``from_pretrained(ID, trust_remote_code=True)`` and the folder's image processor."""
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(folder)
    return _through_network(model, [processor(_open(image), return_tensors="pt")["pixel_values"] for image in images])


def through_our_pipeline(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """``pipeline(model=ID, trust_remote_code=True)``, each picture as one cell."""
    classify = pipeline(model=str(folder), trust_remote_code=True, one_cell=True, device="cpu")
    return _in_order(folder, [classify(str(image))["probabilities"] for image in images])


@contextmanager
def beside(folder: Path, name: str) -> Any:
    """Import a file of the folder, as part of a package of its own and none of the repository, while it is needed."""
    package = f"folder_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[package])
        yield importlib.import_module(f"{package}.{name}")
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == package]:
            del sys.modules[module]


def through_timm(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """``timm.create_model("wbc_resnet24", pretrained=True)`` and the transform that timm derives from it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overwriting wbc_resnet24 in registry")
        with beside(folder, "timm_wbc_resnet"):
            return _with_timm("wbc_resnet24", images)


def through_stock_timm(export: Path, images: Sequence[Path]) -> np.ndarray:
    """``timm.create_model("hf-hub:ID@timm", pretrained=True)``, here from the folder that the branch holds."""
    return _with_timm(f"local-dir:{export}", images)


def _with_timm(name: str, images: Sequence[Path]) -> np.ndarray:
    model = timm.create_model(name, pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model.pretrained_cfg, model=model))
    return _through_network(model, [transform(_open(image))[None] for image in images])


def through_handler(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """``handler.py`` as an endpoint runs it: loaded by its path, given a file's bytes."""
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    endpoint, asked = handler.EndpointHandler(str(folder)), {"top_k": len(_labels(folder))}
    return _in_order(folder, [endpoint({"inputs": image.read_bytes(), "parameters": asked}) for image in images])


def through_onnx(folder: Path, images: Sequence[Path], file: str = FLOAT) -> np.ndarray:
    """ONNX Runtime and the folder's image processor."""
    _, processor = load_model(folder)
    session = open_session(folder / FOLDER / file, torch.get_num_threads())
    pixels = [processor(images=_open(image), return_tensors="np")["pixel_values"] for image in images]
    return softmax(session_logits(session, np.concatenate(pixels)))


def through_node(folder: Path, images: Sequence[Path], node_modules: Path, **how: str) -> np.ndarray:
    """transformers.js in Node; ``how`` as in ``evaluation.javascript_doors.answers_in_node``."""
    return _in_order(folder, answers_in_node(node_modules, folder, images, **how))


def through_browser(folder: Path, images: Sequence[Path], node_modules: Path, **how: str) -> np.ndarray:
    """transformers.js in a browser."""
    return _in_order(folder, answers_in_browser(node_modules, folder, images, **how))


def through_space(folder: Path, images: Sequence[Path], address: str) -> np.ndarray:
    """The Space's ``/classify``, called by gradio's own client."""
    page = Client(address, verbose=False)
    labels = _labels(folder)
    answers = [page.predict(handle_file(image), api_name="/classify")["probabilities"] for image in images]
    return np.array([[answer[label] for label in labels] for answer in answers])


def compare(answers: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Say how far two doors' probabilities (N, classes) lie apart: ``n``, ``same_label`` and the largest ``difference``."""
    return {
        "n": len(reference),
        "same_label": int((answers.argmax(axis=1) == reference.argmax(axis=1)).sum()),
        "difference": float(np.abs(answers - reference).max()),
    }


def at_network_size(folder: Path, images: Sequence[Path], into: Path) -> list[Path]:
    """Write pictures as PNG of the network's size, so that no door resizes them; give the files."""
    size = AutoImageProcessor.from_pretrained(folder).size
    written = [into / f"{number:04d}.png" for number in range(len(images))]
    for image, path in zip(images, written, strict=True):
        _open(image).resize((size["width"], size["height"]), Image.Resampling.BILINEAR).save(path)
    return written


SAME = (1e-6, 1e-6)  # the same arithmetic on the same pixels
ROUNDED = (1e-5, 1e-5)  # additions in another order, as where batch norms are folded into the convolutions
FILTERED = (1e-5, 2e-2)  # resized with Pillow where the reference resizes with torchvision: a level of grey at times
EIGHT_BITS = (0.3, 0.3)  # how far validation images moved, the ONNX evidence in eval_results.json says
REFERENCE = Door("plain transformers", '`pipeline("image-classification", ID)`', through_plain, SAME)
DOORS = (
    Door("our class", "`from_pretrained(ID, trust_remote_code=True)`", through_our_class, SAME),
    Door("our pipeline", "`pipeline(model=ID, trust_remote_code=True, one_cell=True)`", through_our_pipeline, ROUNDED),
    Door("endpoint", "`handler.py`", through_handler, SAME),
    Door("timm", '`timm.create_model("wbc_resnet24", pretrained=True)`', through_timm, FILTERED),
    Door("ONNX Runtime", "`onnx/model.onnx`", through_onnx, ROUNDED),
)


def stock_timm(export: Path) -> Door:
    """The Hub's branch for stock timm, here as a folder."""
    how = '`timm.create_model("hf-hub:ID@timm", pretrained=True)`'
    return Door("timm alone", how, lambda _, images: through_stock_timm(export, images), FILTERED)


def space(address: str) -> Door:
    """The page that stands at an address."""
    return Door("Space", "`/classify`", partial(through_space, address=address), SAME)


def eight_bits() -> Door:
    """ONNX Runtime on the 8-bit file."""
    answer = partial(through_onnx, file=QUANTIZED)
    return Door("ONNX Runtime, 8 bits", f"`{FOLDER}/{QUANTIZED}`", answer, EIGHT_BITS)


def javascript(node_modules: Path, quantized: bool) -> list[Door]:
    """transformers.js in Node and in a browser: with the folder's resizing, with its own, and on the 8-bit file."""
    kinds = {
        "": ({"dtype": "fp32"}, f"`{FOLDER}/{FLOAT}`, `resize.mjs`", (1e-3, 1e-2)),
        ", its own resizing": ({"dtype": "fp32", "resize": "library"}, f"`{FOLDER}/{FLOAT}`", (1e-3, 0.5)),
    }
    if quantized:
        kinds[", 8 bits"] = ({"dtype": "q8"}, f"`{FOLDER}/{QUANTIZED}`, `resize.mjs`", EIGHT_BITS)
    return [
        Door(f"transformers.js in {where}{kind}", how, partial(through, node_modules=node_modules, **asked), tolerances)
        for where, through in (("Node", through_node), ("a browser", through_browser))
        for kind, (asked, how, tolerances) in kinds.items()
    ]
