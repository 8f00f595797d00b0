"""A folder alone: copied into an empty directory and loaded there by a program that knows nothing else and has no network."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evaluation.results import weights_sha256
from publishing.composing import Composed
from publishing.faults import Fault

VISITOR = Path(__file__).with_name("first_visit.py")
LONGEST = 300  # seconds that a visit may take
CLOSE = 1e-6  # of logits through the two doors
CLOSE_ONNX = 1e-4  # of logits, put down to the order of additions
PACKAGE = "wbc_resnet"  # what the folder is called there


class VisitError(RuntimeError):
    """The program came to no end of its own."""


def visit(kind: str, folder: Path) -> dict[str, Any]:
    """Let a stranger see a folder; see ``first_visit`` for what is given back.

    Args:
        kind: "model" or "dataset".
        folder: is copied and not touched.

    Raises:
        VisitError: the visitor crashed or took too long.
        OSError: the folder cannot be copied.
    """
    with tempfile.TemporaryDirectory(prefix="alone-") as name:
        here = Path(name)
        copy, empty, cwd = here / "folder" / PACKAGE, here / "empty", here / "cwd"
        shutil.copytree(folder, copy)
        empty.mkdir()
        cwd.mkdir()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
        env |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(empty)}
        # -I keeps the checkout out of sys.path: neither the working directory nor PYTHONPATH is on it.
        command = [sys.executable, "-I", "-B", str(VISITOR), kind, str(copy), str(empty)]
        try:
            done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=LONGEST)
        except subprocess.TimeoutExpired as error:
            raise VisitError(f"no answer within {LONGEST} s") from error
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            raise VisitError(f"status {done.returncode}: {(done.stderr.splitlines() or ['no word'])[-1]}")
        return json.loads(lines[-1])


def check_alone(composed: Composed) -> Iterator[Fault]:
    """Give what a stranger cannot do with a composed model or data set."""
    remedy = "Load the folder elsewhere, without network, and mend what is missing."
    try:
        seen = visit(composed.kind.name, composed.folder)
    except VisitError as error:
        yield Fault(f"{composed.source}/", str(error), "a folder that loads alone", remedy)
        return
    for name, reason in seen["errors"].items():
        expected = f"that {name} loads and answers, alone and without network"
        yield Fault(f"{composed.source}/", " ".join(reason.split()), expected, remedy)
    if composed.kind.name == "dataset":
        yield from _check_tables(composed, seen)
    else:
        yield from _check_doors(composed, seen)


def _check_doors(composed: Composed, seen: dict[str, Any]) -> Iterator[Fault]:
    if "plain" not in seen:
        return  # told already
    plain, expected = seen["plain"], "the logits of the plain door"
    remedy = "Make config.json, weights and code those of one training: restore them from git."
    if "remote" in seen and (apart := distance(plain["logits"], seen["remote"]["logits"])) > CLOSE:
        came = f"our class's logits differ from them by {apart:.2g}"
        yield Fault(composed.shown("model.safetensors"), came, expected, remedy)
    for name in ("plain pipeline", "pipeline", "handler"):
        if name in seen and seen[name] != plain["label"]:
            file = "handler.py" if name == "handler" else "pipeline_wbc_resnet.py"
            came = f"{name} answers {seen[name]!r} to the drawn picture"
            yield Fault(composed.shown(file), came, f"{plain['label']!r}, as the plain door", remedy)
    for name in [name for name in seen if name.startswith("onnx/")]:
        shown, answer = composed.shown(name), seen[name]
        again = "Export it again: python export_onnx.py."
        if answer["weights"] not in (None, weights_sha256(composed.folder)):
            yield Fault(shown, f"made from weights {answer['weights'][:12]}", "those beside it", again)
        # Eight bits change the logits, so that of those only the form can be told.
        apart = distance(plain["logits"], answer["logits"])
        if len(answer["logits"]) != len(plain["logits"]) or (name == "onnx/model.onnx" and apart > CLOSE_ONNX):
            yield Fault(shown, f"its logits differ by {apart:.2g}", f"{expected} within {CLOSE_ONNX}", again)
        elif (apart := distance(answer["logits"], answer["in a batch"])) > CLOSE_ONNX:
            yield Fault(shown, f"in a batch its logits differ by {apart:.2g}", "the same for any batch", again)


def _check_tables(composed: Composed, seen: dict[str, Any]) -> Iterator[Fault]:
    for name, table in seen["tables"].items():
        shown = composed.shown(f"{name}.csv")
        if not table["rows"]:
            yield Fault(shown, "no row", "a table", "Write it anew: make tables.")
        if table["images"]:
            came = f"images in {', '.join(table['images'])}"
            yield Fault(shown, came, "tables alone; the images are others'", "Leave them out.")
    named = {f"{name}.csv" for name in seen["tables"]}
    for path in composed.folder.glob("*.csv"):
        if path.name not in named and not seen["errors"]:
            yield Fault(composed.shown(path), "a table that no config of the card names", "one", "Name it in the head.")


def distance(one: list[float], other: list[float]) -> float:
    """Give the largest difference of two rows of logits; infinite where one is no number or they differ in length."""
    if len(one) != len(other):
        return float("inf")
    apart = max(abs(a - b) for a, b in zip(one, other, strict=True))
    return apart if apart == apart else float("inf")
