"""Export a model folder to ONNX, for ONNX Runtime and transformers.js, and say how far its answers lie from PyTorch's.

    python export_onnx.py hub_model
    python export_onnx.py hub_model --images hub_model/examples blood-cells pbc --count 200 --out runs/onnx.json

The first writes ``hub_model/onnx/model.onnx`` from ``hub_model/model.safetensors``: input ``pixel_values``, (B, 3, H, W)
float32 as the folder's image processor gives them, output ``logits``, (B, classes) float32; any B, H and W. The same weights
and the same versions of PyTorch and onnx give the same bytes. The weights' SHA-256 stands in the file's metadata, by which
``evaluation.onnx_files`` tells an export that is out of date. Both are compared on noise, before anything is written.

The second compares them on images from these folders, too, and writes a report for ``evaluation.collect --onnx``.
"""

import argparse
import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.export import Dim

from evaluation.command import require_least, run
from evaluation.measure import load_model, open_image
from evaluation.onnx_files import FLOAT, FOLDER, INPUT, OUTPUT, WEIGHTS, describe, put
from evaluation.onnx_runtime import BATCH, differences, open_session, session_logits
from evaluation.picking import pick_images
from evaluation.results import provenance, to_text, weights_sha256, write_text

OPSET = 18
DIMENSIONS = {0: "batch", 2: "height", 3: "width"}  # of the input, any number
NOISE = 20  # pictures of noise that every export is compared on
SIDE = 224  # px, of the noise
LARGEST = 1e-4  # difference of logits that is still put down to the order of additions
logger = logging.getLogger("export_onnx")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="a folder written by save_pretrained; the file goes into its onnx/")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="compare on images in these, too")
    parser.add_argument("--count", type=int, default=200, help="of images, at most")
    parser.add_argument("--out", type=Path, help="write the report into this JSON file")
    options = parser.parse_args(argv)
    require_least(parser, options, count=1)
    return options


def export(model: torch.nn.Module, weights: str) -> onnx.ModelProto:
    """Turn an image classifier into an ONNX graph.

    Parameters
    ----------
    model
        In evaluation mode; takes ``pixel_values`` and gives ``logits``.
    weights
        SHA-256 of its weights, to be kept in the file.

    Returns
    -------
    onnx.ModelProto
        Checked; without traces of the machine that made it.
    """
    example = torch.zeros(2, model.config.num_channels, SIDE, SIDE)
    shapes = {INPUT: {axis: Dim.DYNAMIC for axis in DIMENSIONS}}
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # it tells its steps, whatever verbose says
        program = torch.onnx.export(
            model, kwargs={INPUT: example}, dynamo=True, external_data=False, opset_version=OPSET, verbose=False,
            input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=shapes,
        )  # fmt: skip
    graph = program.model_proto
    strip(graph)
    graph.producer_version = graph.producer_version.partition("+")[0]  # builds for other accelerators export the same
    for axis, name in DIMENSIONS.items():
        graph.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = DIMENSIONS[0]
    onnx.helper.set_model_props(graph, {WEIGHTS: weights})
    onnx.checker.check_model(graph, full_check=True)
    return graph


def strip(model: onnx.ModelProto) -> None:
    """Remove what is no part of the network, in place: stack traces with a machine's paths, and shapes that follow anyway."""
    parts = [model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")


@torch.inference_mode()
def torch_logits(model: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Run pixels (N, 3, H, W) through PyTorch: logits, (N, classes)."""
    parts = torch.from_numpy(pixels).split(BATCH)
    return torch.cat([model(pixel_values=part).logits for part in parts]).numpy()


def compare(folder: Path, path: Path, images: Sequence[Path]) -> dict[str, Any]:
    """Compare an ONNX file with PyTorch on noise and on images, through the folder's image processor.

    Raises
    ------
    ValueError
        The logits lie further apart than the order of additions explains, or an image cannot be read.
    """
    model, processor = load_model(folder)
    session = open_session(path)
    noise = np.random.default_rng(0).normal(size=(NOISE, model.config.num_channels, SIDE, SIDE)).astype(np.float32)
    found = {"noise": differences(session_logits(session, noise), torch_logits(model, noise))}
    if images:
        read = [open_image({"path": str(image), "bytes": None}) for image in images]
        pixels = np.concatenate([processor(images=image, return_tensors="np")[INPUT] for image in read])
        found["images"] = differences(session_logits(session, pixels), torch_logits(model, pixels))
    for name, one in found.items():
        if one["logits"] > LARGEST:
            raise ValueError(
                f"On {name} the logits of {folder / FOLDER / FLOAT} differ from PyTorch's by up to {one['logits']:.1e}; "
                f"expected {LARGEST:.0e} at most. Export with other versions of torch and onnxscript, and report this."
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Export, compare and report, as ``evaluation.command.run`` does."""
    run(export_folder, parse(argv))


def export_folder(options: argparse.Namespace) -> None:
    """Write the ONNX file of a folder and the report on it; where it does not agree with PyTorch, nothing is written."""
    measured_by = provenance("onnx", "onnxruntime")  # before the file makes the tree differ
    images = pick_images(options.images, options.count) if options.images else []
    model, _ = load_model(options.folder)
    path = options.folder / FOLDER / FLOAT
    for chatty in ("onnx_ir", "onnxscript"):  # they tell each step of theirs
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="onnx-") as place:  # elsewhere, so that nothing is left if it is ended
        trial = Path(place) / FLOAT
        graph = export(model, weights_sha256(options.folder))
        trial.write_bytes(graph.SerializeToString(deterministic=True))
        parity = compare(options.folder, trial, images)
        put(trial, path)
    report = describe(path) | measured_by | {"parity": parity}
    for name, one in parity.items():
        logger.info("%s: %d of %d same label, logits within %.1e", name, one["same_label"], one["n"], one["logits"])
    logger.info("wrote %s, %d bytes, opset %d", path, report["bytes"], report["opset"])
    if options.out:
        write_text(options.out, to_text(report))
        logger.info("wrote %s", options.out)


if __name__ == "__main__":
    main()
