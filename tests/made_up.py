"""Results as a release has them, made up: every data set, and evidence of every kind."""

import numpy as np

from evaluation.corruptions import CORRUPTIONS
from evaluation.evidence import KEPT_OF_TRAINING
from evaluation.results import SCHEMA_VERSION
from evaluation.summary import summarise

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "basophil", "other"]
CONFIG = {"acceptance_threshold": 0.537, "acceptance_risk": 0.01, "energy_threshold": -1.25, "energy_accept_rate": 0.99}
SHA256 = "ab" * 32
MEASURED_BY = {"command": "python a_script.py", "commit": "c" * 40, "dirty": False, "versions": {"torch": "2.15.0"}}
HELD_OUT = (
    ("blood-cells", "validation"),
    ("blood-cells", "TEST"),
    ("pbc", "TEST"),
    ("raabin", "validation"),
    ("chula", "validation"),
)


def made_up_entry(split: str, seed: int, dataset: str = "blood-cells", names: list[str] = NAMES, **options) -> dict:
    """Summarise drawn probabilities for 24 photos of 5 copies."""
    generator = np.random.default_rng(seed)
    photos = np.repeat(np.arange(24), 5)
    references = photos % len(names)
    logits = generator.normal(size=(120, len(names))) + 1.5 * np.eye(len(names))[references]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    options = {"resamples": 50, "threshold": CONFIG["acceptance_threshold"]} | options
    return summarise(probabilities, references, [f"photo {p}" for p in photos], names, dataset, split, **options)


def made_up_training(**fields) -> dict:
    return {
        "command": "python train.py --data_dir cells --seed 31",
        "seed": 31,
        "commit": "c0ffee" + "0" * 34,
        "dirty": False,
        "wall_seconds": 4400.5,
        "images_per_second": 321.4,
        "samples_seen": 1234567,
        "resolutions": [112, 160, 224],
        "hardware": {"cpu": "Some Processor", "threads": 2},
        "data_fingerprint": "f1f2f3",
        "n_images": 8765,
        "n_photos": 242,
        "temperature": 1.2345,
        "recipe": {"anything": "is allowed here"},
        **fields,
    }


def made_up_results() -> dict:
    """Give results without evidence."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": "wbc-resnet/wbc-resnet24", "parameters": 7654321, "sha256": SHA256},
        "training": made_up_training(),
        "versions": {"python": "3.11.7", "torch": "2.15.0", "transformers": "5.23.0"},
        "results": [made_up_entry(split, seed, dataset) for seed, (dataset, split) in enumerate(HELD_OUT, start=1)],
    }


def made_up_figure(value: float, width: float = 0.05, **counts) -> dict:
    return {"value": value, "low": value - width, "high": value + width, **counts}


def made_up_seed(seed: int, *entries: dict) -> dict:
    """Give what is kept of a training beside the shipped one."""
    training = {key: made_up_training(seed=seed).get(key) for key in KEPT_OF_TRAINING}
    return {"model": made_up_results()["model"], "training": training, "results": list(entries)}


def unseen_report() -> dict:
    """Give what leave_one_out.py writes with Raabin left out."""
    shares = {"0.00": 0.4, "0.25": 0.45, "0.75": 0.6, "1.00": 0.5}
    confidence = {"0.00": 0.7, "0.25": 0.72, "0.75": 0.65, "1.00": 0.62}
    one = {"distance": 0.31, "shares": shares, "confidence": confidence, "suggested_share": 0.75}
    ways = {way: made_up_entry(way, seed, "raabin") for seed, way in enumerate(("plain", "re-estimated"))}
    home = {way: made_up_entry(way, 0, "pbc") for way in ways}
    run = {"unseen": ["raabin"], "command": "python leave_one_out.py", "training": made_up_training()}
    run["laboratories"] = {"raabin": one | ways, "pbc": one | {"distance": 0.1, "suggested_share": 0.0} | home}
    return {"raabin": run}


def few_labels_report() -> dict:
    """Give what few_labels.py writes."""
    pair = {when: made_up_entry(when, seed, "raabin") for seed, when in enumerate(("before", "after"))}
    return {
        "laboratory": "raabin", "cells_of_a_class": 25, "n_labelled": 100, "n_groups_labelled": 60, "seed": 0,
        "command": "python few_labels.py", "commit": "c" * 40, "dirty": False, "others": pair, "home": {"pbc": pair},
        "fitted": {"wall_seconds": 125.0},
    }  # fmt: skip


def heads_report() -> dict:
    """Give what few_labels.py --head writes for two choices of cells."""

    def pair(before: float, after: float) -> dict:
        return {"n": 400, "n_groups": 40, "before": made_up_figure(before), "after": made_up_figure(after)}

    choices = [
        {
            "seed": seed, "labelled": {"monocyte": 40, "neutrophil": 60}, "n_labelled": 100, "n_groups_labelled": 60,
            "share": share, "seconds": 21.5, "others": pair(0.4, 0.8 + 0.1 * seed),
            "home": {"pbc": pair(0.9, 0.7), "chula": pair(0.8, 0.5)},
        }
        for seed, share in enumerate((0.5, 1.0))
    ]  # fmt: skip
    return {
        "laboratory": "raabin", "command": "python few_labels.py --head", "commit": "c" * 40, "dirty": True, "most": 100,
        "apart": "photo", "labelled_share": 0.75, "not_found": None, "choices": choices,
        "checkpoint": {"sha256": "d" * 64, "command": "python train.py"},
    }  # fmt: skip


def finding_reports() -> list[dict]:
    """Give what measure_finding.py writes of fields and of images of one cell."""
    share = {"value": 0.9, "low": 0.8, "high": 0.95, "count": 90, "n": 100}
    fields = {"fields": 60, "boxes": 100, "false_per_field": 0.05, "milliseconds": {"median": 41.2, "slowest": 80.0}}
    fields |= {
        "recall": share,
        "recall_with_contested": share,
        "recall_by_overlap": share,
        "missed": [["a.png", [1, 2, 3, 4]]],
    }
    single = {"images": 100, "one_find_in_the_middle": share, "and_no_other": share, "odd": [["b.png", []]]}
    single["classes"] = {"monocyte": {"images": 50, "middle": 45, "middle_alone": 40}}
    return [
        {
            "laboratory": "chula",
            **MEASURED_BY,
            "fields": fields,
            "official_test_photos": fields,
            "peak_memory_bytes": 1,
        },
        {"laboratory": "pbc", **MEASURED_BY, **single, "peak_memory_bytes": 1},
    ]


def gate_report() -> dict:
    """Give what measure_gate.py writes."""
    count = {"pictures": 50, "refused": 2, "share": 0.04, "interval": [0.005, 0.137], "reasons": {}, "odd": ["a.png"]}
    parts = {"smears": {"chula": count}, "empty_fields": {}, "strangers": {"page": count}}
    return {
        **MEASURED_BY,
        "held_out": True,
        **parts,
        "all_strangers": {"pictures": 50, "refused": 2, "share": 0.04, "interval": [0, 1]},
    }


def counts_report(sha256: str = SHA256) -> dict:
    """Give what simulate_counts.py writes."""
    row = {"mean_error": 0.75, "coverage": 0.95, "coverage_interval": [0.93, 0.97], "mean_width": 9.5}
    way = {
        "largest_mean_error": 1.25,
        "coverage": 0.95,
        "classes": {"monocyte": row, "neutrophil": row | {"coverage": 0.94}},
    }
    scene = {"laboratory": "pbc", "cells": "test", "held_out_cells": {"monocyte": 30, "neutrophil": 90}, "draws": 1000}
    return {
        "weights_sha256": sha256,
        **MEASURED_BY,
        "seed": 0,
        "scenes": [scene | {"cells_each": 200, "ways": {"sampling alone": way, "laboratory named": way}}],
    }


def examples_report(sha256: str = SHA256) -> dict:
    """Give what evaluation.examples writes."""
    answers = [{"label": "monocyte", "score": 0.875}, {"label": "other", "score": 0.0625}]
    return {
        "sha256": sha256,
        **MEASURED_BY,
        "pictures": [{"file": "examples/monocyte.png", "sha256": "cd" * 32, "answers": answers}],
    }


def onnx_reports(sha256: str = SHA256) -> list[dict]:
    """Give what export_onnx.py, quantize_onnx.py and benchmarks/onnx_speed.py write."""
    close = {"n": 20, "same_label": 20, "logits": 3.3e-6, "scores": 7.3e-7}
    apart = {"n": 1500, "same_label": 1493, "logits": 1.5, "scores": 0.125}
    lost = {
        "lost": {"value": 0.08, "low": -0.12, "high": 0.29},
        "float": {"accuracy": 0.9012},
        "int8": {"accuracy": 0.9004},
    }
    of_all = {"weights_sha256": sha256} | MEASURED_BY
    file = of_all | {"bytes": 5784529, "sha256": "12" * 32, "opset": 18, "producer": "pytorch 2.14.1"}
    return [
        file | {"file": "onnx/model.onnx", "parity": {"noise": close, "images": close | {"n": 205, "same_label": 205}}},
        file | {
            "file": "onnx/model_quantized.onnx", "bytes": 1577824, "producer": "onnx.quantize 0.1.0", "most_lost": 0.3,
            "tried": {"7-bit weights": apart | lost}, "recipe": "7-bit weights", "test": {"pbc": apart | lost}, "shipped": True,
        },
        of_all | {
            "milliseconds": {"pytorch": 40.0, "onnx/model.onnx": 30.0, "onnx/model_quantized.onnx": 10.0}, "rounds": 50,
            "hardware": {"cpu": "Some Processor", "threads": 1},
        },
    ]  # fmt: skip


def doors_report(sha256: str = SHA256) -> dict:
    """Give what measure_doors.py writes."""
    same = {"n": 55, "same_label": 55, "difference": 3.4e-8, "tolerance": 1e-6}
    resized = {"n": 55, "same_label": 54, "difference": 0.21, "tolerance": 0.5}
    by = {key: value for key, value in MEASURED_BY.items() if key != "versions"}
    return {
        "weights_sha256": sha256, "onnx_sha256": {"onnx/model.onnx": "12" * 32},
        "pictures": {"examples": 5, "pbc": 50}, "pictures_sha256": "34" * 32,
        "reference": "`pipeline(ID)`",
        "doors": {
            "our class": {"how": "`from_pretrained(ID)`", **by, "at_network_size": same, "as_they_come": same},
            "Node": {"how": "`onnx/model.onnx`", **by, "at_network_size": same, "as_they_come": resized},
        },
        "versions": {"transformers.js": "4.3.1"},
    }  # fmt: skip


def stress_report(sha256: str = SHA256) -> dict:
    """Give what stress.py writes."""
    figure = made_up_figure
    counted = {"n": 40, "accepted": figure(0.025, count=1), "accepted_and_familiar": figure(0.0, 0.0, count=0)}
    corruptions = {name: {"mean": figure(0.1), "severities": [0.02, 0.04, 0.08, 0.16, 0.2]} for name in CORRUPTIONS}
    scores = ("not_a_cell", "energy", "energy_of_cells")
    parts = {
        "corruption": {"clean": figure(0.01, 0.01), "mean": figure(0.08), "corruptions": corruptions, "n_images": 400},
        "symmetry": {
            "same_on_average": figure(0.98, 0.01), "same_under_all": figure(0.95), "gain": figure(0.004, 0.01),
            "n_images": 400,
        },
        "framing": {"usual": 1.75, "annotated": 0, "found": 400, "not_found": 3, "n_images": 400, "n_groups": 390, "windows": [
            {
                "window": window, "balanced_accuracy": figure(right), "lost": figure(lost), "named": figure(0.8),
                "right": figure(right), "overlooked": figure(0.9 - window / 2),
            }
            for window, right, lost in ((1.0, 0.4, 0.39), (1.5, 0.78, 0.01), (1.75, 0.79, 0.0))
        ]},
        "anomaly": {"n_familiar": 300, "anomalies": {"ig": {"n": 50, **{name: figure(0.97, 0.01) for name in scores}}}},
        "strangers": {"kinds": {"noise": counted}, "all": counted, "photographs": ["coins.png", "rocket.jpg"]},
    }  # fmt: skip
    return {
        "schema_version": 1, "model": {"name": "m", "parameters": 1, "sha256": sha256}, "dataset": "pbc", "split": "test",
        "split_seed": 3, "left_out": {}, "parts": {name: part | MEASURED_BY for name, part in parts.items()},
    }  # fmt: skip
