"""Put into ``eval_results.json`` what backs the card beside the figures of the shipped weights themselves.

    python -m evaluation.collect hub_model --official runs/official-1/model runs/official-2/model \
        --eight_classes runs/eight-classes/model --unseen "as shipped=runs/leave-one-out/leave_one_out.json" \
        --few_labels runs/few-raabin/few_labels.json --heads runs/head-raabin/heads.json --stress stress-pbc.json \
        --finding kaggle.json chula.json --counts counts.json

Each option replaces what stands there of its kind, see ``evaluation.evidence``; the others stay. With ``--add`` it comes
behind what stands there, with ``--add_first`` before it. Of ``--official`` and ``--unseen`` the first is what counts.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.entry import ResultsError, require, require_keys
from evaluation.evidence import KEPT_OF_TRAINING, KINDS, TRAININGS, WAYS
from evaluation.results import FILE_NAME, read_results, without_folders, write_results

WRITERS = {
    "few_labels": "few_labels.py",
    "heads": "few_labels.py --head",
    "stress": "stress.py",
    "finding": "measure_finding.py",
    "gate": "measure_gate.py",
    "counts": "simulate_counts.py",
    "onnx": "export_onnx.py, quantize_onnx.py and benchmarks/onnx_speed.py",
    "doors": "measure_doors.py",
}
LISTS = ("missed", "false_finds", "odd")  # of measure_finding.py and measure_gate.py


def read_training(folder: Path) -> dict[str, Any]:
    """Take the measured figures of a finished training.

    Raises
    ------
    FileNotFoundError, ResultsError
        As in ``read_results``; the weights were not trained here.
    """
    results = read_results(folder / FILE_NAME)
    require(results["training"] is not None, f"{folder}: training", None, "a training of train.py")
    training = {key: results["training"].get(key) for key in KEPT_OF_TRAINING}
    return {"model": results["model"], "training": training, "results": results["results"]}


def read_unseen(name: str, path: Path) -> dict[str, Any]:
    """Take a report of ``leave_one_out.py``: whole for what was unseen, in brief for the laboratories learnt from."""
    found = {}
    for run, report in _read_json(path, "leave_one_out.py").items():
        require_keys(report, {"unseen", "command", "laboratories", "training"}, f"{path}: {run}")
        brief = {
            lab: {
                key: one[key]
                for key in ("distance", "shares", "confidence", "suggested_share")
                + (WAYS if lab in report["unseen"] else ())
            }
            for lab, one in report["laboratories"].items()
        }
        training = {key: report["training"].get(key) for key in KEPT_OF_TRAINING}
        found[run] = {
            "unseen": report["unseen"],
            "command": report["command"],
            "laboratories": brief,
            "training": training,
        }
    return {"name": name, "runs": found}


def _read_json(path: Path, writer: str) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is no report of {writer} ({error}). Run it, or name another file.") from error


def _in_brief(report: Any) -> Any:
    """Leave out lists of single fields and images."""
    if isinstance(report, Mapping):
        return {key: _in_brief(value) for key, value in report.items() if key not in LISTS}
    return [_in_brief(value) for value in report] if isinstance(report, list) else report


def add_evidence(folder: Path, found: Mapping[str, list[Mapping[str, Any]]]) -> None:
    """Put reports into a folder's ``eval_results.json``, each kind in place of what stood there of it.

    Raises
    ------
    FileNotFoundError, ResultsError
        As in ``read_results`` and ``write_results``; the file is then as it was.
    """
    results = read_results(folder / FILE_NAME, without=found)
    evidence = {**results.get("evidence", {}), **found}
    write_results(
        folder / FILE_NAME, {**results, "evidence": {kind: evidence[kind] for kind in KINDS if kind in evidence}}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the reports and write them into the folder's results; a fault ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.collect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help=f"the model repository's folder, with {FILE_NAME}")
    for kind in TRAININGS:
        parser.add_argument(f"--{kind}", nargs="+", type=Path, help="model/ of finished trainings")
    parser.add_argument("--unseen", nargs="+", help="NAME=FILE: reports of leave_one_out.py, each with a name")
    for kind, writer in WRITERS.items():
        parser.add_argument(f"--{kind}", nargs="+", type=Path, help=f"reports of {writer}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--add", action="store_true", help="behind what stands there of its kind, not in its place")
    where.add_argument(
        "--add_first", action="store_true", help="before what stands there of its kind, so that it counts"
    )
    options = parser.parse_args(arguments)
    try:
        found = {}
        for kind in TRAININGS:
            if folders := getattr(options, kind):
                found[kind] = [read_training(folder) for folder in folders]
        if options.unseen:
            if wrong := [text for text in options.unseen if not all(text.rpartition("="))]:
                raise ResultsError(f"--unseen {wrong[0]}: expected NAME=FILE.")
            pairs = (text.rpartition("=") for text in options.unseen)
            found["unseen"] = [read_unseen(name, Path(path)) for name, _, path in pairs]
        for kind, writer in WRITERS.items():
            if paths := getattr(options, kind):
                found[kind] = [_in_brief(_read_json(path, writer)) for path in paths]
        if not found:
            parser.error(f"name one or more of {', '.join(f'--{kind}' for kind in KINDS)}")
        found = without_folders(found)
        if options.add or options.add_first:
            there = read_results(options.folder / FILE_NAME).get("evidence", {})
            for kind, reports in found.items():
                found[kind] = there.get(kind, []) + reports if options.add else reports + there.get(kind, [])
        add_evidence(options.folder, found)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
