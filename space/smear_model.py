"""The model that the page answers with, loaded by its name on the Hub or from a folder, and which weights it is."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import texts
import torch
from huggingface_hub import hf_hub_download, snapshot_download
from numpy.typing import NDArray
from PIL import Image
from transformers import pipeline

MODEL = "wbc-resnet/wbc-resnet24"
REVISION = "v1.0.0"
WEIGHTS = "model.safetensors"
RESULTS = "eval_results.json"
HERE = Path(__file__).resolve().parent


@dataclass
class CellAnswer:
    """What is said of one cell.

    Attributes:
        probabilities: of each label, 0..1, in the configuration's order.
        evidence: (classes, h, w) in logits.
        verdict: a label, or "unidentified".
        reason: why unidentified, else None.
        no_smear: why the photo shows no stained smear, or None.
    """

    probabilities: dict[str, float]
    evidence: NDArray[np.float32]
    verdict: str
    reason: str | None
    no_smear: str | None = None

    @property
    def label(self) -> str:
        """The likeliest label."""
        return max(self.probabilities, key=lambda key: self.probabilities[key])


@dataclass
class SmearModel:
    """The pipeline with its network and image processor.

    Attributes:
        count: the pipeline, fields in, cells and differential out.
        source: the folder, or the name on the Hub, that it was loaded from.
        name: the folder's name, or the model's name on the Hub.
        revision: of the model on the Hub; None for a folder.
        sha256: of the file of weights.
    """

    count: Any
    source: str
    name: str
    revision: str | None
    sha256: str

    @property
    def network(self) -> torch.nn.Module:
        return self.count.model

    @property
    def processor(self) -> Any:
        return self.count.image_processor

    @property
    def labels(self) -> list[str]:
        """The classes, as the model's configuration numbers them."""
        return [self.network.config.id2label[number] for number in range(self.network.config.num_labels)]

    @property
    def negatives(self) -> str | None:
        """The label that means "none of the others", if there is one."""
        return self.network.config.negatives_label

    @property
    def subtypes(self) -> list[str]:
        """The labels without the negatives."""
        return [label for label in self.labels if label != self.negatives]

    @property
    def identity(self) -> dict[str, str | None]:
        """Which weights answer, for what is kept."""
        return {"name": self.name, "revision": self.revision, "sha256": self.sha256}

    @property
    def laboratories(self) -> list[str]:
        """Those whose errors were counted."""
        return sorted(self.network.config.usable_confusion() or {})

    @cached_property
    def results(self) -> dict[str, Any]:
        """What was measured of these weights, from eval_results.json; empty where the model brings none."""
        try:
            return json.loads(self.file(RESULTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def file(self, name: str) -> Path:
        """Give a file of the model.

        Raises:
            OSError: it has none of this name, or the Hub cannot be reached.
        """
        if self.revision is None:
            return Path(self.source) / name
        return Path(hf_hub_download(self.source, name, revision=self.revision))

    def folder(self) -> Path:
        """Give all files of the model as a folder.

        Raises:
            OSError: the Hub cannot be reached.
        """
        return (
            Path(self.source) if self.revision is None else Path(snapshot_download(self.source, revision=self.revision))
        )

    @torch.inference_mode()
    def classify(self, image: Image.Image) -> CellAnswer:
        """Name the cell that a photo shows, RGB and upright, as the plain door does: the whole photo is looked at."""
        pixels = self.processor(image, return_tensors="pt")["pixel_values"]  # (1, 3, 224, 224)
        output = self.network(pixel_values=pixels, output_evidence=True)
        logits = output.logits[0].double()  # (classes,)
        probabilities = logits.softmax(dim=-1)
        verdict, reason = self.network.decide(probabilities, float(self.network.energy(logits)))
        named = dict(zip(self.labels, probabilities.tolist(), strict=True))
        return CellAnswer(named, output.evidence[0].numpy(), verdict, reason, self.count.why_no_smear(image))


def load(model: str | Path) -> SmearModel:
    """Load a model by folder or by name on the Hub.

    Raises:
        ValueError: it is neither, or it gives no evidence map.
        OSError: the Hub does not have it, or cannot be reached.
    """
    model = str(model)
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(texts.NO_CONFIG.format(model=model))
        revision, name, weights = None, folder.resolve().name, folder / WEIGHTS
    elif model.count("/") == 1 and not model.startswith((".", "/")):
        revision, name = pinned_revision(model), model
        weights = Path(hf_hub_download(model, WEIGHTS, revision=revision))
    else:
        raise ValueError(texts.NO_FOLDER.format(model=model, example=MODEL))
    try:
        count = pipeline(model=model, revision=revision, trust_remote_code=True, device="cpu")
        loaded = SmearModel(count, model, name, revision, hashlib.sha256(weights.read_bytes()).hexdigest())
        # A first picture also makes the visitor's first answer a quick one.
        loaded.classify(Image.new("RGB", (64, 64)))
    except (TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(texts.NO_EVIDENCE.format(model=model)) from error
    return loaded


def pinned_revision(model: str) -> str:
    """Say which commit or tag of a model on the Hub to run: remote code runs from one that somebody chose, never from
    whatever stands there today.

    Raises:
        ValueError: nobody chose one.
    """
    revision = os.environ.get("WBC_REVISION") or (REVISION if model == MODEL else None)
    if revision is None:
        raise ValueError(texts.NO_REVISION.format(model=model))
    return revision


def chosen_model(argument: str | None = None) -> str:
    """Say which model to load: the argument, else WBC_MODEL, else the folder of this checkout, else MODEL."""
    beside = HERE.parent / "hub_model"
    default = str(beside) if (beside / "config.json").is_file() else MODEL
    return argument or os.environ.get("WBC_MODEL") or default


def most_confused(results: dict[str, Any], label: str) -> tuple[int, str | None, float] | None:
    """Say with which class held-out photos of a class are most often confused.

    Of each laboratory the test photos are taken, or where it has none those of validation; the laboratories' photos are put
    together. Photos count, not images: an archive may hold hundreds of copies of one photo, which err together.

    Args:
        results: as eval_results.json holds them.

    Returns:
        Photos of the class; the class that most of those named wrongly were given, None where there is none; their share of
        all, 0..1. None where nothing was measured.
    """
    counts: dict[str, int] = {}
    for entry in held_out(results.get("results", [])):
        names = entry["labels"]
        if label in names:
            for name, number in zip(names, entry["photo_level"]["confusion_matrix"][names.index(label)], strict=True):
                counts[name] = counts.get(name, 0) + number
    total = sum(counts.values())
    if not total:
        return None
    wrong = {name: number for name, number in counts.items() if name != label and number}
    other = max(wrong, key=lambda name: wrong[name], default=None)
    return total, other, wrong[other] / total if other else 0.0


def usual_window(results: dict[str, Any]) -> float | None:
    """Say how wide a photo of one cell should be, in widths of the cell: as the pipeline cuts cells out, beside which closer
    and wider cuts were measured.

    Args:
        results: as eval_results.json holds them; None comes where none was measured.
    """
    stress = results.get("evidence", {}).get("stress", [])
    return next((part["usual"] for report in stress if (part := report.get("parts", {}).get("framing"))), None)


@dataclass
class Choosiness:
    """How often held-out images of a laboratory are named, and how often rightly, 0..1.

    Attributes:
        laboratory: its name.
        named: share of the images that got a name and not "unidentified".
        right: share of those whose name is right.
    """

    laboratory: str
    named: float
    right: float


def choosiness(results: dict[str, Any]) -> list[Choosiness]:
    """Say of each laboratory how choosy the model is on its held-out images, from results as eval_results.json holds them."""
    return [
        Choosiness(entry["dataset"], *(entry["selective"][name]["value"] for name in ("coverage", "accuracy")))
        for entry in held_out(results.get("results", []))
        if entry.get("selective")
    ]


def held_out(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choose one measurement of each laboratory: its test images, else its validation images."""
    chosen: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry["split"] == "TEST" or (entry["split"] == "validation" and entry["dataset"] not in chosen):
            chosen[entry["dataset"]] = entry
    return list(chosen.values())
