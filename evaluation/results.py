"""``eval_results.json``: the one place where measured numbers stand, written whole and read strictly."""

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation.comparison import validate_protocol
from evaluation.entry import ResultsError, is_count, is_number, require, require_keys, validate_entry
from evaluation.evidence import validate_evidence

SCHEMA_VERSION = 2
FILE_NAME = "eval_results.json"
ROOT = Path(__file__).resolve().parent.parent
# What the repository's own commands write of a model that is measured; its code is not among it.
MEASURED = (
    "README.md", "hub_model/README.md", f"hub_model/{FILE_NAME}", "hub_model/config.json", "hub_model/model.safetensors",
    "hub_model/pictures", "hub_model/onnx",
)  # fmt: skip
logger = logging.getLogger(__name__)

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
RESULTS_KEYS = {"schema_version", "model", "training", "versions", "results"}
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


def _validate_model(model: Any) -> None:
    require_keys(model, MODEL_KEYS, "model")
    require(isinstance(model["name"], str) and model["name"], "model.name", model["name"], "the repository's id")
    require(is_count(model["parameters"]), "model.parameters", model["parameters"], "a whole number above 0")
    digest = model["sha256"]
    is_digest = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    require(is_digest, "model.sha256", digest, "64 hexadecimal digits")


def _validate_training(training: Any) -> None:
    require_keys(training, TRAINING_KEYS, "training", free=True)
    for key in ("command", "commit", "data_fingerprint"):
        require(isinstance(training[key], str) and training[key], f"training.{key}", training[key], "a text")
    require(isinstance(training["dirty"], bool), "training.dirty", training["dirty"], "true or false")
    require(is_count(training["seed"], 0), "training.seed", training["seed"], "a whole number")
    for key in ("samples_seen", "n_images", "n_photos"):
        require(is_count(training[key]), f"training.{key}", training[key], "a whole number above 0")
    for key in ("wall_seconds", "images_per_second", "temperature"):
        require(is_number(training[key]) and training[key] > 0, f"training.{key}", training[key], "a number above 0")
    sizes = training["resolutions"]
    require(
        isinstance(sizes, list) and sizes and all(map(is_count, sizes)), "training.resolutions", sizes, "sizes in px"
    )
    require_keys(training["hardware"], {"cpu", "threads"}, "training.hardware", free=True)


def validate_results(results: Any) -> None:
    """Check results whole: every key known, every figure with its interval, every count in agreement.

    Parameters
    ----------
    results
        What ``read_results`` gives and ``write_results`` takes; ``evaluation.summary`` shows an entry at its top.
        ``training`` is None for a model that was not trained here, and may hold any keys beside those of
        ``TRAINING_KEYS``. ``protocol``, which may be absent, holds cross-validations of the same network, see
        ``evaluation.comparison``; so may ``evidence``, see ``evaluation.evidence``.

    Raises
    ------
    ResultsError
        (a ValueError) Keys that are missing or unknown, figures that are not numbers, an accuracy or a recall that the
        confusion matrix contradicts, a data set and split that stand twice.
    """
    require_keys(results, RESULTS_KEYS | (results.keys() & {"protocol", "evidence"}), FILE_NAME)
    version = results["schema_version"]
    if version == 1:
        raise ResultsError(
            f"schema_version is 1; expected {SCHEMA_VERSION}, which has more figures. Measure the same weights again: "
            f"python validate.py FOLDER --data_dir IMAGES --results FOLDER/{FILE_NAME}"
        )
    require(version == SCHEMA_VERSION, "schema_version", version, f"{SCHEMA_VERSION}, which this code reads")
    _validate_model(results["model"])
    if results["training"] is not None:
        _validate_training(results["training"])
    require_keys(results["versions"], {"python", "torch", "transformers"}, "versions", free=True)
    entries = results["results"]
    require(isinstance(entries, list) and entries, "results", entries, "a list of one or more measurements")
    for number, entry in enumerate(entries):
        validate_entry(entry, f"results[{number}]")
    names = [(entry["dataset"], entry["split"]) for entry in entries]
    require(len(set(names)) == len(names), "the list of data sets and splits", names, "each of them once")
    validate_protocol(results.get("protocol", []))
    if "evidence" in results:
        validate_evidence(results["evidence"], results["model"]["sha256"])


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the keys {sorted({key for key in keys if keys.count(key) > 1})} stand twice in one object")
    return mapping


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is no file; expected measured results. Run train.py or validate.py, which write it."
        )
    try:
        return json.loads(path.read_text("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except ValueError as error:
        raise ResultsError(f"{path} is no valid JSON ({error}). Restore it from git or measure again.") from error


def read_results(path: Path | str, without: Collection[str] = ()) -> dict[str, Any]:
    """Read ``eval_results.json`` and check it.

    Parameters
    ----------
    path
        The file.
    without
        Kinds of evidence to leave out, unchecked, because others take their place.

    Raises
    ------
    FileNotFoundError
        No such file.
    ResultsError
        (a ValueError) No JSON, NaN or a key given twice in it, or anything that ``validate_results`` refuses.
    """
    results = _read_json(Path(path))
    if without and isinstance(results, dict) and isinstance(evidence := results.get("evidence"), dict):
        results["evidence"] = {kind: reports for kind, reports in evidence.items() if kind not in without}
    with _naming(path):
        validate_results(results)
    return results


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Say in an error which file it is about."""
    try:
        yield
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error


def read_for_update(path: Path | str, sha256: str) -> dict[str, Any]:
    """Read ``eval_results.json`` to put new measurements of the same weights into it.

    Of a file of schema 1 only ``model``, ``training`` and ``versions`` are taken over; its measurements lack figures.

    Parameters
    ----------
    path
        The file.
    sha256
        Of the weights that are measured, as ``weights_sha256`` gives it.

    Raises
    ------
    FileNotFoundError
        No such file.
    ResultsError
        (a ValueError) As for ``read_results``; also results of other weights.
    """
    results = _read_json(Path(path))
    if isinstance(results, dict) and results.get("schema_version") == 1:
        with _naming(path):
            require_keys(results, RESULTS_KEYS, FILE_NAME)
            _validate_model(results["model"])
            _validate_training(results["training"])
        logger.warning(
            "%s: the measurements in it are of schema 1, lack figures, and are dropped for those made now", path
        )
        results = results | {"schema_version": SCHEMA_VERSION, "results": []}
    else:
        with _naming(path):
            validate_results(results)
    measured = results["model"]["sha256"]
    if measured != sha256:
        raise ResultsError(
            f"{path} holds measurements of weights with SHA-256 {measured}, and those to be measured have {sha256}; expected "
            "the same weights. Name another file."
        )
    return results


def put_entries(results: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give results with new measurements in place of those of the same data set and split; the others stay.

    They stand in order, what is new of a data set behind what was there of it.

    ``versions`` become those of this machine; where they were others, ``training`` keeps the former as its own.
    """
    new = {(entry["dataset"], entry["split"]): entry for entry in entries}
    kept = [new.pop((entry["dataset"], entry["split"]), entry) for entry in results["results"]]
    versions, training = environment(), results["training"]
    if training is not None and versions != results["versions"]:
        training = {**training, "versions": training.get("versions", results["versions"])}
    all_entries = [*kept, *new.values()]
    datasets = list(dict.fromkeys(entry["dataset"] for entry in all_entries))
    all_entries.sort(key=lambda entry: datasets.index(entry["dataset"]))
    return {**results, "training": training, "versions": versions, "results": all_entries}


def to_text(results: Mapping[str, Any]) -> str:
    """Write results as JSON for people: a figure, and a row of a matrix, on one line.

    Raises
    ------
    ValueError
        A number that is not finite.
    """
    text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False)
    # Line breaks stand between values only (inside a text they are written \\n), so what is joined here is layout.
    return (
        re.sub(r"(?<=[\[{])\n\s+([^\[\]{}]{1,200}?)\n\s+(?=[\]}])", lambda m: re.sub(r"\n\s+", " ", m[1]), text) + "\n"
    )


def write_results(path: Path | str, results: Mapping[str, Any]) -> None:
    """Check results and write them to ``path``: all of the file or nothing.

    Raises
    ------
    ResultsError
        (a ValueError) Anything that ``validate_results`` refuses; the file is then left as it was.
    """
    validate_results(results)
    write_text(path, to_text(results))


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
    return {"python": platform.python_version(), **package_versions(*PACKAGES)}


def package_versions(*packages: str) -> dict[str, str]:
    """Give the version of each of these packages that is installed."""
    versions = {}
    for package in packages:
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


def without_folders(found: Any) -> Any:
    """Leave the last name of each path outside the project in commands: a machine's folders say nothing to others.

    A path is what stands alone, or behind ``=``, and begins with ``../``, or with ``/`` and a folder.
    """
    if isinstance(found, Mapping):
        return {key: without_folders(value) for key, value in found.items()}
    if isinstance(found, list):
        return [without_folders(value) for value in found]
    return re.sub(r"(?<![^\s=])(?:(?:\.\./)+(?:\S*/)?|/\S*/)(?=[^\s/])", "", found) if isinstance(found, str) else found


def provenance(*packages: str) -> dict[str, Any]:
    """Say by which command, code and versions, those of ``packages`` among them, something is measured.

    Returns
    -------
    dict
        ``command``; ``commit`` and ``dirty`` as ``git_commit`` gives them of this repository, "unknown" and True in a copy
        that names none; what measuring itself writes (``MEASURED``) makes it not dirty, and reports name weights and exports
        by their SHA-256. ``versions``. Ask before the measuring begins: a long one may outlast the code that it runs.
    """
    try:
        commit = git_commit(ROOT, MEASURED)
    except RuntimeError as error:
        logger.warning("the figures will name no commit: %s", error)
        commit = {"commit": "unknown", "dirty": True}
    return {
        "command": shlex.join(["python", *_program(), *sys.argv[1:]]),
        **commit,
        "versions": environment() | package_versions(*packages),
    }


def _program() -> list[str]:
    """Give the words by which the running program is called from the repository's root."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of ``python -m`` alone
    if module:
        return ["-m", module.name.removesuffix(".__main__")]
    script = Path(sys.argv[0]).resolve()
    return [script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name]


def git_commit(root: Path | str, passed_over: Sequence[str] = ()) -> dict[str, Any]:
    """Name the commit that is checked out in ``root``, and whether the files, but for those passed over, differ from it.

    Of a copy without its history, as on a machine lent for an hour, the environment variable SOURCE_COMMIT tells it.

    Returns
    -------
    dict
        ``commit``, 40 hexadecimal digits, and ``dirty``, True when a file is changed or new (ignored files aside).

    Raises
    ------
    RuntimeError
        ``root`` lies in no git repository, the repository has no commit yet, or git is not installed.
    """
    if told := os.environ.get("SOURCE_COMMIT"):
        return {"commit": told, "dirty": False}
    answers = []
    others = ["--", ".", *(f":(exclude){path}" for path in passed_over)] if passed_over else []
    for arguments in (["rev-parse", "--verify", "HEAD"], ["status", "--porcelain", *others]):
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
    """Give the SHA-256 of a folder's weights: 64 hexadecimal digits.

    That is of ``model.safetensors``; of a model that came in parts or as a pickle, of its files one after the other, in the
    order of their names.

    Raises
    ------
    FileNotFoundError
        The folder holds no weights.
    """
    for pattern in ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin"):
        if files := sorted(Path(folder).glob(pattern)):
            digest = hashlib.sha256()
            for path in files:
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
            return digest.hexdigest()
    raise FileNotFoundError(
        f"{Path(folder) / 'model.safetensors'} is no file; expected a model's weights. Save the model there first."
    )
