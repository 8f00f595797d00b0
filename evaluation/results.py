"""``eval_results.json``: the one place where measured numbers stand, written whole and read strictly."""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
FILE_NAME = "eval_results.json"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll")
DECIMALS = (
    6  # of stored figures: finer than any interval, coarser than the rounding errors in which two machines differ
)

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "huggingface_hub",
    "numpy",
    "scikit-learn",
    "scipy",
    "pillow",
)
MODEL_KEYS = {"name", "parameters", "sha256"}
TRAINING_KEYS = {
    "command",
    "seed",
    "commit",
    "dirty",
    "hardware",
    "wall_seconds",
    "images_per_second",
    "samples_seen",
    "resolutions",
    "data_fingerprint",
    "n_images",
    "n_photos",
    "temperature",
}
ENTRY_KEYS = {
    "dataset",
    "split",
    "n_images",
    "n_photos",
    "interval",
    "labels",
    "metrics",
    "recall",
    "confusion_matrix",
    "photo_level",
}
PHOTO_KEYS = {"accuracy", "balanced_accuracy", "n_correct", "n_photos", "confusion_matrix"}


class ResultsError(ValueError):
    """Results that are incomplete, contradict themselves, or hold what nobody understands."""


def _require(condition: bool, where: str, came: Any, expected: str) -> None:
    if not condition:
        raise ResultsError(f"{where} is {came!r}; expected {expected}. Measure again rather than edit the file.")


def _require_keys(mapping: Any, keys: Collection[str], where: str, free: bool = False) -> None:
    _require(isinstance(mapping, Mapping), where, mapping, f"an object with the keys {sorted(keys)}")
    missing, unknown = sorted(set(keys) - set(mapping)), sorted(set(mapping) - set(keys))
    if missing or (unknown and not free):
        raise ResultsError(
            f"{where} lacks {missing} and has unknown keys {unknown}; expected {sorted(keys)}"
            f"{' and any others' if free else ' and no others'}. Write it with the code of the same revision."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require_figure(figure: Any, where: str, more: tuple[str, ...] = ()) -> None:
    """Check one value with its interval, and counts beside it."""
    _require_keys(figure, {"value", "low", "high", *more}, where)
    for key in ("value", "low", "high"):
        _require(_is_number(figure[key]), f"{where}.{key}", figure[key], "a finite number")
    _require(figure["low"] <= figure["high"], f"{where}.low", figure["low"], f"at most its high, {figure['high']}")
    for key in more:
        _require(_is_count(figure[key]), f"{where}.{key}", figure[key], "a whole number above 0")


def _require_matrix(matrix: Any, size: int, total: int, where: str) -> None:
    square = isinstance(matrix, list) and [len(row) if isinstance(row, list) else -1 for row in matrix] == [size] * size
    _require(square, where, matrix, f"{size} rows of {size} counts, one for each label")
    cells = [cell for row in matrix for cell in row]
    _require(all(_is_count(cell, 0) for cell in cells), where, matrix, "counts of 0 or more")
    _require(sum(cells) == total, f"the sum of {where}", sum(cells), f"{total}, the number counted")


def _require_equal(came: float, expected: float, where: str, reason: str) -> None:
    _require(abs(came - expected) <= 10**-DECIMALS, where, came, f"{round(expected, DECIMALS)}, {reason}")


def validate_entry(entry: Any, where: str = "the entry") -> None:
    """Check one measurement, as ``evaluation.measure.measure`` gives it.

    Parameters
    ----------
    entry
        The measurement.
    where
        What an error calls it.

    Raises
    ------
    ResultsError
        (a ValueError) As for ``validate_results``.
    """
    _require_keys(entry, ENTRY_KEYS, where)
    for key in ("dataset", "split"):
        _require(isinstance(entry[key], str) and entry[key].strip(), f"{where}.{key}", entry[key], "a name")
    where = f"{where} ({entry['dataset']}, {entry['split']})"
    for key in ("n_images", "n_photos"):
        _require(_is_count(entry[key]), f"{where}.{key}", entry[key], "a whole number above 0")
    _require_keys(entry["interval"], {"level", "resamples", "seed", "unit"}, f"{where}.interval")
    level = entry["interval"]["level"]
    _require(_is_number(level) and 0 < level < 1, f"{where}.interval.level", level, "a number between 0 and 1")

    labels, matrix = entry["labels"], entry["confusion_matrix"]
    named = isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)
    _require(named and len(set(labels)) == len(labels) >= 2, f"{where}.labels", labels, "two or more different names")
    _require_matrix(matrix, len(labels), entry["n_images"], f"{where}.confusion_matrix")

    _require_keys(entry["metrics"], METRICS, f"{where}.metrics")
    for name in METRICS:
        _require_figure(entry["metrics"][name], f"{where}.metrics.{name}")
    right = sum(matrix[k][k] for k in range(len(labels)))
    _require_equal(
        entry["metrics"]["accuracy"]["value"],
        right / entry["n_images"],
        f"{where}.metrics.accuracy.value",
        "the confusion matrix's",
    )

    rows = {label: sum(row) for label, row in zip(labels, matrix, strict=True) if sum(row)}
    _require_keys(entry["recall"], rows, f"{where}.recall")
    for k, label in enumerate(labels):
        if label in rows:
            figure = entry["recall"][label]
            _require_figure(figure, f"{where}.recall.{label}", more=("n", "n_photos"))
            _require(
                figure["n"] == rows[label], f"{where}.recall.{label}.n", figure["n"], f"{rows[label]}, its row's sum"
            )
            value = matrix[k][k] / rows[label]
            _require_equal(figure["value"], value, f"{where}.recall.{label}.value", "the confusion matrix's")

    photos = entry["photo_level"]
    _require_keys(photos, PHOTO_KEYS, f"{where}.photo_level")
    for name in ("accuracy", "balanced_accuracy"):
        _require_figure(photos[name], f"{where}.photo_level.{name}")
    _require(
        _is_count(photos["n_photos"]), f"{where}.photo_level.n_photos", photos["n_photos"], "a whole number above 0"
    )
    _require_matrix(
        photos["confusion_matrix"], len(labels), photos["n_photos"], f"{where}.photo_level.confusion_matrix"
    )
    right = sum(photos["confusion_matrix"][k][k] for k in range(len(labels)))
    _require(
        photos["n_correct"] == right, f"{where}.photo_level.n_correct", photos["n_correct"], f"{right}, its diagonal"
    )
    _require_equal(
        photos["accuracy"]["value"],
        right / photos["n_photos"],
        f"{where}.photo_level.accuracy.value",
        "n_correct / n_photos",
    )


def validate_results(results: Any) -> None:
    """Check results whole: every key known, every figure with its interval, every count in agreement.

    Parameters
    ----------
    results
        What ``read_results`` gives and ``write_results`` takes; ``evaluation.measure`` shows an entry at its top.
        ``training`` may hold any keys beside those of ``TRAINING_KEYS``.

    Raises
    ------
    ResultsError
        (a ValueError) Keys that are missing or unknown, figures that are not numbers, an accuracy or a recall that the
        confusion matrix contradicts, a data set and split that stand twice.
    """
    _require_keys(results, {"schema_version", "model", "training", "versions", "results"}, FILE_NAME)
    _require(
        results["schema_version"] == SCHEMA_VERSION,
        "schema_version",
        results["schema_version"],
        f"{SCHEMA_VERSION}, which this code reads",
    )
    model, training, versions = results["model"], results["training"], results["versions"]
    _require_keys(model, MODEL_KEYS, "model")
    _require(isinstance(model["name"], str) and model["name"], "model.name", model["name"], "the repository's id")
    _require(_is_count(model["parameters"]), "model.parameters", model["parameters"], "a whole number above 0")
    digest = model["sha256"]
    _require(
        isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest),
        "model.sha256",
        digest,
        "64 hexadecimal digits",
    )

    _require_keys(training, TRAINING_KEYS, "training", free=True)
    for key in ("command", "commit", "data_fingerprint"):
        _require(isinstance(training[key], str) and training[key], f"training.{key}", training[key], "a text")
    _require(isinstance(training["dirty"], bool), "training.dirty", training["dirty"], "true or false")
    _require(_is_count(training["seed"], 0), "training.seed", training["seed"], "a whole number")
    for key in ("samples_seen", "n_images", "n_photos"):
        _require(_is_count(training[key]), f"training.{key}", training[key], "a whole number above 0")
    for key in ("wall_seconds", "images_per_second", "temperature"):
        _require(_is_number(training[key]) and training[key] > 0, f"training.{key}", training[key], "a number above 0")
    sizes = training["resolutions"]
    _require(
        isinstance(sizes, list) and sizes and all(map(_is_count, sizes)), "training.resolutions", sizes, "sizes in px"
    )
    _require_keys(training["hardware"], {"cpu", "threads"}, "training.hardware", free=True)

    _require_keys(versions, {"python", "torch", "transformers"}, "versions", free=True)
    entries = results["results"]
    _require(isinstance(entries, list) and entries, "results", entries, "a list of one or more measurements")
    for number, entry in enumerate(entries):
        validate_entry(entry, f"results[{number}]")
    names = [(entry["dataset"], entry["split"]) for entry in entries]
    _require(len(set(names)) == len(names), "the list of data sets and splits", names, "each of them once")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the keys {sorted({key for key in keys if keys.count(key) > 1})} stand twice in one object")
    return mapping


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def read_results(path: Path | str) -> dict[str, Any]:
    """Read ``eval_results.json`` and check it.

    Raises
    ------
    FileNotFoundError
        No such file.
    ResultsError
        (a ValueError) No JSON, NaN or a key given twice in it, or anything that ``validate_results`` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file; expected measured results. Run train.py or validate.py, which write it."
        )
    try:
        results = json.loads(path.read_text("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ResultsError(f"{path} is no valid JSON ({error}). Restore it from git or measure again.") from error
    validate_results(results)
    return results


def write_results(path: Path | str, results: Mapping[str, Any]) -> None:
    """Check results and write them to ``path``: all of the file or nothing.

    Raises
    ------
    ResultsError
        (a ValueError) Anything that ``validate_results`` refuses; the file is then left as it was.
    """
    validate_results(results)
    write_text(path, json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text to ``path`` in one step: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Name the versions of Python and of the packages that a measurement rests on, of those that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Name the processor and PyTorch's number of threads, and the accelerator if ``device`` is one; never the host."""
    import torch  # here, because reading results and rendering the card do without it

    cpu_info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", cpu_info.read_text(), re.MULTILINE) if cpu_info.is_file() else []
    found = {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def git_commit(root: Path | str) -> dict[str, Any]:
    """Name the commit that is checked out in ``root``, and whether the files differ from it.

    Returns
    -------
    dict
        ``commit``, 40 hexadecimal digits, and ``dirty``, True when a file is changed or new (ignored files aside).

    Raises
    ------
    RuntimeError
        ``root`` lies in no git repository, the repository has no commit yet, or git is not installed.
    """
    answers = []
    for arguments in (["rev-parse", "--verify", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            raise RuntimeError(
                f"git names no commit for {root} ({str(reason).strip()}); expected a repository with a commit. Commit "
                "first, so that the numbers can be traced to code."
            ) from error
        answers.append(done.stdout.strip())
    return {"commit": answers[0], "dirty": bool(answers[1])}


def weights_sha256(folder: Path | str) -> str:
    """Give the SHA-256 of ``model.safetensors`` in ``folder``: 64 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        The folder holds no such file.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected a model's weights. Save the model there first.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
