"""ONNX Runtime on this machine's processor: a session, its logits, and how far two sets of logits lie apart."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tqdm import tqdm

from evaluation.onnx_files import INPUT, OUTPUT, read_model

BATCH = 16  # images at a time


def open_session(path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open an ONNX file on the processor; ``threads`` None leaves their number to ONNX Runtime.

    Raises
    ------
    FileNotFoundError, ExportError
        As in ``evaluation.onnx_files.read_model``.
    """
    read_model(path)  # its errors name the remedy
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def session_logits(
    session: onnxruntime.InferenceSession, pixels: np.ndarray, task: str | None = None, batch_size: int = BATCH
) -> np.ndarray:
    """Run pixels (N, 3, H, W) float32 through a session, a batch at a time: logits, (N, classes); ``task`` shows a bar."""
    starts = tqdm(range(0, len(pixels), batch_size), task, disable=task is None, unit="batch")
    parts = [session.run([OUTPUT], {INPUT: pixels[start : start + batch_size]})[0] for start in starts]
    return np.concatenate(parts)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn logits (..., classes) into probabilities, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def differences(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Compare two sets of logits (N, classes) of the same images: how far apart, and how often the same label.

    Returns
    -------
    dict
        ``n``, ``same_label``, and the largest absolute differences, ``logits`` and ``scores`` (probabilities).
    """
    scores = np.abs(softmax(ours) - softmax(theirs))
    return {
        "n": len(ours),
        "same_label": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        "logits": float(np.abs(ours - theirs).max()),
        "scores": float(scores.max()),
    }
