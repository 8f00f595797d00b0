"""What backs the card beside the figures of the shipped weights themselves: the ``evidence`` of ``eval_results.json``.

It may be absent, and has the keys

``official``
    trainings on the Kaggle archive's TRAIN photos alone, each measured on the official TEST by train.py; those of the first
    one's recipe, see ``evaluation.wanted.recipe_of``, are the ones that count;
``eight_classes``
    trainings on the eight classes of PBC, measured on a random part of it;
``unseen``
    reports of leave_one_out.py, each with the ``name`` of what was tried, the recipe of the shipped weights first;
``few_labels``
    reports of few_labels.py;
``heads``
    reports of few_labels.py --head;
``stress``
    reports of stress.py, of the shipped weights and no others;
``finding``
    reports of measure_finding.py, without its lists of single fields;
``gate``
    reports of measure_gate.py, without its lists of pictures;
``counts``
    reports of simulate_counts.py;
``examples``
    answers to the pictures of the model's page, of the shipped weights and no others;
``onnx``
    reports of export_onnx.py, quantize_onnx.py and benchmarks/onnx_speed.py, of the shipped weights and no others;
``doors``
    a report of measure_doors.py, of the shipped weights and no others.

``evaluation.collect`` puts them there, ``evaluation.evidence_tables`` and ``evaluation.wanted`` show them.
"""

from collections.abc import Mapping
from typing import Any

from evaluation.entry import is_count, is_number, require, require_keys, validate_entry

TRAININGS = ("official", "eight_classes")
# The figures of each window, see evaluation.stress.framing_entry.
FRAMING = ("balanced_accuracy", "lost", "named", "right", "overlooked")
KINDS = (
    *TRAININGS, "unseen", "few_labels", "heads", "stress", "finding", "gate", "counts", "examples", "onnx", "doors",
)  # fmt: skip
OF_THE_SHIPPED_WEIGHTS = ("stress", "counts", "examples", "onnx", "doors")  # of no others
KEPT_OF_TRAINING = (
    "command", "seed", "commit", "dirty", "hardware", "wall_seconds", "samples_seen", "resolutions", "n_images", "n_photos",
    "started_from",
)  # fmt: skip
MEASURED_BY = {"command", "commit", "dirty", "versions"}  # as ``evaluation.results.provenance`` gives it
WAYS = ("plain", "re-estimated")
SENT = ("at_network_size", "as_they_come")  # how pictures go through the doors


def _validate_training(run: Any, where: str) -> None:
    require_keys(run, {"model", "training", "results"}, where)
    require_keys(run["training"], KEPT_OF_TRAINING, f"{where}.training")
    require(is_count(run["training"]["seed"], 0), f"{where}.training.seed", run["training"]["seed"], "a whole number")
    require(isinstance(run["results"], list) and run["results"], f"{where}.results", run["results"], "measurements")
    for number, entry in enumerate(run["results"]):
        validate_entry(entry, f"{where}.results[{number}]")


def _validate_unseen(report: Any, where: str) -> None:
    require_keys(report, {"name", "runs"}, where)
    for run, one in report["runs"].items():
        at = f"{where}.runs.{run}"
        require_keys(one, {"unseen", "command", "laboratories", "training"}, at)
        require_keys(one["training"], KEPT_OF_TRAINING, f"{at}.training")
        for lab, found in one["laboratories"].items():
            whole = WAYS if lab in one["unseen"] else ()
            require_keys(found, {"distance", "shares", "confidence", "suggested_share", *whole}, f"{at}.{lab}")
            require(is_number(found["distance"]), f"{at}.{lab}.distance", found["distance"], "a number")
            for way in whole:
                validate_entry(found[way], f"{at}.{lab}.{way}")


def _validate_few_labels(report: Any, where: str) -> None:
    keys = {"laboratory", "cells_of_a_class", "n_labelled", "n_groups_labelled", "seed", "command", "commit", "dirty"}
    require_keys(report, keys | {"others", "home"}, where, free=True)
    for name, pair in {report["laboratory"]: report["others"], **report["home"]}.items():
        require_keys(pair, {"before", "after"}, f"{where}.{name}")
        for when, entry in pair.items():
            validate_entry(entry, f"{where}.{name}.{when}")


def _validate_heads(report: Any, where: str) -> None:
    keys = {"laboratory", "command", "commit", "dirty", "checkpoint", "most", "apart", "not_found", "choices"}
    require_keys(report, keys, where, free=True)
    require(report["apart"] in ("group", "photo"), f"{where}.apart", report["apart"], "group or photo")
    choices = report["choices"]
    require(isinstance(choices, list) and choices, f"{where}.choices", choices, "one or more")
    for number, choice in enumerate(choices):
        at = f"{where}.choices[{number}]"
        keys = {"seed", "labelled", "n_labelled", "n_groups_labelled", "share", "seconds", "others", "home"}
        require_keys(choice, keys, at, free=True)
        labelled, most = choice["n_labelled"], report["most"]
        require(0 < labelled <= most, f"{at}.n_labelled", labelled, f"1 to {most}, the most that were asked for")
        require(choice["home"], f"{at}.home", choice["home"], "the laboratories that were learnt from")
        for name, pair in {report["laboratory"]: choice["others"], **choice["home"]}.items():
            require_keys(pair, {"n", "n_groups", "before", "after"}, f"{at}.{name}")
            for when in ("before", "after"):
                _validate_bounds(pair[when], f"{at}.{name}.{when}", bounded=False)
    seeds = [choice["seed"] for choice in choices]
    require(len(set(seeds)) == len(seeds), f"the seeds of {where}.choices", seeds, "each of them once")


def _validate_stress(report: Any, where: str, sha256: str) -> None:
    require_keys(report, {"schema_version", "model", "dataset", "split", "split_seed", "left_out", "parts"}, where)
    measured = report["model"]["sha256"]
    require(measured == sha256, f"{where}.model.sha256", measured, f"{sha256}, of the weights that are shipped")
    require(isinstance(report["parts"], Mapping) and report["parts"], f"{where}.parts", report["parts"], "one or more")
    for name, part in report["parts"].items():
        require_keys(part, MEASURED_BY, f"{where}.parts.{name}", free=True)
    for number, row in enumerate(report["parts"].get("framing", {}).get("windows", [])):
        require_keys(row, {"window", *FRAMING}, f"{where}.parts.framing.windows[{number}]")


def _validate_share(share: Any, where: str) -> None:
    require_keys(share, {"value", "low", "high", "count", "n"}, where)
    _validate_bounds(share, where)


def _validate_bounds(share: Mapping[str, Any], where: str, bounded: bool = True) -> None:
    numbers = [share[key] for key in ("low", "value", "high")]
    if not bounded and numbers[0] is None and numbers[2] is None:
        numbers = [numbers[1]] * 3
    ordered = all(is_number(number) for number in numbers) and 0 <= numbers[0] <= numbers[1] <= numbers[2] <= 1
    require(ordered, where, numbers, "three rising shares")


def _validate_finding(report: Any, where: str) -> None:
    require_keys(report, {"laboratory", *MEASURED_BY}, where, free=True)
    if "classes" in report:  # images of one cell
        _validate_share(report["one_find_in_the_middle"], f"{where}.one_find_in_the_middle")
        return
    require_keys(report, {"fields"}, where, free=True)
    for part in ("fields", "official_test_photos"):
        for name in ("recall", "recall_with_contested", "recall_by_overlap") if part in report else ():
            _validate_share(report[part].get(name), f"{where}.{part}.{name}")


def _validate_gate(report: Any, where: str) -> None:
    require_keys(report, {"held_out", "smears", "empty_fields", "strangers", *MEASURED_BY}, where, free=True)
    for part in ("smears", "empty_fields", "strangers"):
        for name, count in report[part].items():
            at = f"{where}.{part}.{name}"
            require_keys(count, {"pictures", "refused", "share", "interval"}, at, free=True)
            require(0 <= count["refused"] <= count["pictures"], at, count["refused"], f"0 to {count['pictures']}")


def _validate_counts(report: Any, where: str, sha256: str) -> None:
    require_keys(report, {"weights_sha256", "seed", "scenes", *MEASURED_BY}, where)
    came = report["weights_sha256"]
    require(came == sha256, f"{where}.weights_sha256", came, f"{sha256}, of the weights that are shipped")
    for number, scene in enumerate(report["scenes"]):
        at = f"{where}.scenes[{number}]"
        require_keys(scene, {"laboratory", "cells", "held_out_cells", "draws", "cells_each", "ways"}, at)
        for way, found in scene["ways"].items():
            require_keys(found, {"largest_mean_error", "coverage", "classes"}, f"{at}.{way}")
            require(0 <= found["coverage"] <= 1, f"{at}.{way}.coverage", found["coverage"], "a share")


def _validate_examples(report: Any, where: str, sha256: str) -> None:
    require_keys(report, {"sha256", "pictures", *MEASURED_BY}, where)
    require(
        report["sha256"] == sha256, f"{where}.sha256", report["sha256"], f"{sha256}, of the weights that are shipped"
    )
    for number, picture in enumerate(report["pictures"]):
        at = f"{where}.pictures[{number}]"
        require_keys(picture, {"file", "sha256", "answers"}, at)
        for answer in picture["answers"]:
            require_keys(answer, {"label", "score"}, f"{at}.answers")
            score = answer["score"]
            require(is_number(score) and 0 <= score <= 1, f"{at}.answers.score", score, "a probability")


def _validate_onnx(report: Any, where: str, sha256: str) -> None:
    require_keys(report, {"weights_sha256", *MEASURED_BY}, where, free=True)
    weights = report["weights_sha256"]
    require(weights == sha256, f"{where}.weights_sha256", weights, f"{sha256}, of the weights that are shipped")
    if "milliseconds" in report:
        for name, time in report["milliseconds"].items():
            require(is_number(time) and time > 0, f"{where}.milliseconds.{name}", time, "a number above 0")
        return
    require_keys(report, {"file", "bytes", "sha256", "opset", "producer"}, where, free=True)
    require(is_count(report["opset"]), f"{where}.opset", report["opset"], "a whole number above 0")
    if "parity" in report:
        for name, found in report["parity"].items():
            _validate_agreement(found, f"{where}.parity.{name}", "scores")
        return
    require_keys(report, {"most_lost", "tried", "recipe", "test", "shipped"}, where, free=True)
    for part in ("tried", "test"):
        for name, found in report[part].items():
            _validate_agreement(found, f"{where}.{part}.{name}", "scores")
    lost = [found["lost"]["value"] for found in report["test"].values()]
    holds = bool(lost) and max(lost) <= report["most_lost"]
    require(report["shipped"] == holds, f"{where}.shipped", report["shipped"], f"{holds}, by what it lost on test")


def _validate_agreement(found: Any, where: str, largest: str) -> None:
    require_keys(found, {"n", "same_label", largest}, where, free=True)
    require(is_count(found["n"]), f"{where}.n", found["n"], "a whole number above 0")
    same = found["same_label"]
    require(is_count(same, 0) and same <= found["n"], f"{where}.same_label", same, f"0 to {found['n']}")
    difference = found[largest]
    require(is_number(difference) and 0 <= difference <= 1, f"{where}.{largest}", difference, "a number from 0 to 1")


def _validate_doors(report: Any, where: str, sha256: str) -> None:
    keys = {"weights_sha256", "onnx_sha256", "pictures", "pictures_sha256", "reference", "doors", "versions"}
    require_keys(report, keys, where)
    weights = report["weights_sha256"]
    require(weights == sha256, f"{where}.weights_sha256", weights, f"{sha256}, of the weights that are shipped")
    for name, door in report["doors"].items():
        require_keys(door, {"how", *SENT, *MEASURED_BY - {"versions"}}, f"{where}.{name}")
        for sent in SENT:
            at = f"{where}.{name}.{sent}"
            _validate_agreement(door[sent], at, "difference")
            limit, found = door[sent]["tolerance"], door[sent]["difference"]
            require(found <= limit, f"{at}.difference", found, f"{limit} or less, its tolerance")


def validate_evidence(evidence: Any, sha256: str) -> None:
    """Check the ``evidence`` of ``eval_results.json``.

    Parameters
    ----------
    evidence
        See the module's docstring.
    sha256
        Of the shipped weights.

    Raises
    ------
    ResultsError
        (a ValueError) Kinds or keys that are unknown or missing, entries that ``validate_entry`` refuses, a seed or
        a name that stands twice, a stress test, answers or exports of other weights, a door that differs by more than it may.
    """
    require(isinstance(evidence, Mapping), "evidence", evidence, "an object")
    unknown = sorted(set(evidence) - set(KINDS))
    require(not unknown, "evidence", unknown, f"only the kinds {', '.join(KINDS)}")
    for kind, reports in evidence.items():
        require(isinstance(reports, list) and reports, f"evidence.{kind}", reports, "a list of one or more")
        for number, report in enumerate(reports):
            where = f"evidence.{kind}[{number}]"
            if kind in TRAININGS:
                _validate_training(report, where)
            elif kind == "unseen":
                _validate_unseen(report, where)
            elif kind == "few_labels":
                _validate_few_labels(report, where)
            elif kind == "heads":
                _validate_heads(report, where)
            elif kind == "finding":
                _validate_finding(report, where)
            elif kind == "gate":
                _validate_gate(report, where)
            elif kind == "counts":
                _validate_counts(report, where, sha256)
            elif kind == "examples":
                _validate_examples(report, where, sha256)
            elif kind == "onnx":
                _validate_onnx(report, where, sha256)
            elif kind == "doors":
                _validate_doors(report, where, sha256)
            else:
                _validate_stress(report, where, sha256)
    for kind in TRAININGS:
        # A seed may stand for itself under another schedule, or on other photos.
        trainings = [run["training"] for run in evidence.get(kind, ())]
        seeds = [tuple(training[key] for key in ("seed", "samples_seen", "n_photos")) for training in trainings]
        require(len(set(seeds)) == len(seeds), f"the seeds of evidence.{kind}", seeds, "each of them once")
    measured = [(report["dataset"], report["split"]) for report in evidence.get("stress", ())]
    require(len(set(measured)) == len(measured), "the images of evidence.stress", measured, "each of them once")
    names = [report["name"] for report in evidence.get("unseen", ())]
    require(len(set(names)) == len(names), "the names of evidence.unseen", names, "each of them once")
