"""The ONNX files of a model folder: their names, what they are, and whether they were made from the weights beside them."""

import os
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from evaluation.results import weights_sha256

FOLDER = "onnx"
FLOAT = "model.onnx"
QUANTIZED = "model_quantized.onnx"  # so transformers.js calls 8 bits, which it takes in a browser unless told otherwise
INPUT, OUTPUT = "pixel_values", "logits"
WEIGHTS = "weights_sha256"  # the key, in a file's metadata, of the weights that it was made from
REMEDY = {
    FLOAT: "python export_onnx.py {folder}",
    QUANTIZED: "python quantize_onnx.py {folder} --data_dir IMAGES, or remove the file",
}


class ExportError(ValueError):
    """An ONNX file that is none, or that holds other weights than stand beside it."""


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises
    ------
    FileNotFoundError
        There is none.
    ExportError
        (a ValueError) It is no ONNX file, or a part of one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected an exported model. Export it: {_remedy(path)}")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        raise ExportError(
            f"{path} is no ONNX file ({error}); expected an exported model. Export it again: {_remedy(path)}"
        ) from error
    if not model.graph.node:
        raise ExportError(f"{path} holds no network; expected an exported model. Export it again: {_remedy(path)}")
    return model


def _remedy(path: Path) -> str:
    return REMEDY.get(path.name, REMEDY[FLOAT]).format(folder=path.parent.parent)


def describe(path: Path) -> dict[str, Any]:
    """Say what an ONNX file is.

    Returns
    -------
    dict
        ``file`` (within the model folder), ``bytes``, ``sha256``, ``weights_sha256`` (None where it says none), ``opset``,
        ``ir_version`` and ``producer``.

    Raises
    ------
    FileNotFoundError, ExportError
        As in ``read_model``.
    """
    model = read_model(path)
    content = path.read_bytes()
    opset = {entry.domain: entry.version for entry in model.opset_import}
    return {
        "file": f"{path.parent.name}/{path.name}",
        "bytes": len(content),
        "sha256": sha256(content).hexdigest(),
        WEIGHTS: {entry.key: entry.value for entry in model.metadata_props}.get(WEIGHTS),
        "opset": opset.get("", opset.get("ai.onnx")),
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
    }


def put(source: Path, target: Path) -> None:
    """Copy a file to where it is to stand, in one step: a reader sees the old one or the new one, never half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def check_export(path: Path) -> dict[str, Any]:
    """Refuse an ONNX file that was made from other weights than stand in its model folder, and describe it.

    Raises
    ------
    FileNotFoundError
        No such file, or the folder holds no weights.
    ExportError
        (a ValueError) As in ``read_model``; a file of other weights.
    """
    found, weights = describe(path), weights_sha256(path.parent.parent)
    if found[WEIGHTS] != weights:
        raise ExportError(
            f"{path} was made from weights with SHA-256 {found[WEIGHTS]}, but beside it stand those with {weights}; expected "
            f"the same. Export it again: {_remedy(path)}"
        )
    return found


def check_exports(folder: Path, evidence: Mapping[str, Any]) -> None:
    """Refuse ONNX files of other weights than stand in a model folder, or others than were measured.

    Parameters
    ----------
    folder
        A model folder; one without ``onnx/``, of which nothing was measured, passes.
    evidence
        Of its ``eval_results.json``.

    Raises
    ------
    FileNotFoundError
        A file that was measured and is shipped is absent.
    ExportError
        (a ValueError) As in ``check_export``; a file that was measured with another content, or that nobody measured.
    """
    files = [report for report in evidence.get("onnx", ()) if "file" in report and report.get("shipped", True)]
    measured = {report["file"]: report["sha256"] for report in files}
    there = {f"{FOLDER}/{path.name}" for path in (folder / FOLDER).glob("*.onnx")}
    for file in sorted(there | measured.keys()):
        found, known = check_export(folder / file), measured.get(file)
        if found["sha256"] != known:
            raise ExportError(
                f"{folder / file} has SHA-256 {found['sha256']}, but {known or 'no such file'} was measured; expected the "
                f"same. Export and measure it: {_remedy(folder / file)} --out FILE, then python -m evaluation.collect {folder} "
                "--onnx FILE, with the file of each export."
            )
