"""A visitor's laboratory: its cells, with labels and without, the network fitted to them, and the folder to take home."""

import copy
import hashlib
import io
import json
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from languages import WORDS, SaidError
from PIL import Image
from review import DROPPED, UNIDENTIFIED, Slide
from smear_model import SmearModel
from turns import Line

WANTED = 10  # labelled cells of a class
FEWEST = 2  # of a class: one to learn from, one to try it on
FEW_IMAGES = 32  # with fewer a single odd one moves the statistics of the last layers
MOST_CELLS = 1000
BATCH = 32
SIDE = 256  # px, a cell as it is kept here
# Of the model's folder: they would be loaded in the new weights' place, or tell of other weights.
LEFT_OUT = ("model.safetensors", "eval_results.json", "README.md", "adaptation.json")

Tell = Callable[[int, int], None]


class LaboratoryError(SaidError):
    """What a visitor asked of the laboratory cannot be done."""


@dataclass
class Cell:
    """A cell of the laboratory.

    Attributes:
        picture: RGB, as the network is shown it.
        label: a class, or None where nobody has said.
        group: the photo that it comes from; cells of one photo are never learnt from and tried on at once.
    """

    picture: Image.Image
    label: str | None
    group: str

    @property
    def key(self) -> str:
        """The same for the same picture, from whatever file or slide it comes."""
        return hashlib.sha256(f"{self.picture.size}".encode() + self.picture.tobytes()).hexdigest()


@dataclass
class Laboratory:
    """The cells that a visitor brought, and the network as it was fitted to them.

    Attributes:
        cells: in the order in which they came.
        network: with new statistics or a new last layer; None as long as nothing was fitted.
        statistics: what re-estimating without labels found, or None.
        fit: what the fitting to labelled cells found, or None.
        line: what the visitor asked for is done one after another, as it was asked for.
        stops: of what is done or waits, each set where that shall end.
    """

    model: SmearModel
    cells: list[Cell] = field(default_factory=list)
    network: Any = None
    statistics: dict[str, Any] | None = None
    fit: dict[str, Any] | None = None
    line: Line = field(default_factory=Line)
    stops: set[threading.Event] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # held for a moment: the fitted are of one fit

    @property
    def counts(self) -> dict[str, int]:
        """Labelled cells of each class, in the model's order."""
        counted = Counter(cell.label for cell in self.cells)
        return {label: counted[label] for label in self.model.labels}

    @property
    def unlabelled(self) -> int:
        return sum(cell.label is None for cell in self.cells)

    def add(self, cells: Sequence[Cell], dropped: Sequence[Cell] = ()) -> tuple[int, int]:
        """Take more cells; what was fitted without them is forgotten.

        Of one picture there is one cell, and the last word of its label holds.

        Args:
            cells: new ones, or ones taken before with another label.
            dropped: ones that are none after all; where they were taken before they go.

        Returns:
            How many are new, and of how many taken before the label is another now or they are gone.

        Raises:
            LaboratoryError: too many; the cells then are as they were.
        """
        kept = {cell.key: cell for cell in self.cells}
        before = {key: cell.label for key, cell in kept.items()}
        gone = [kept.pop(key) for key in {cell.key for cell in dropped} & kept.keys()]
        kept |= {cell.key: cell for cell in cells}
        if len(kept) > MOST_CELLS:
            raise LaboratoryError("lab_too_many", number=len(kept), most=MOST_CELLS)
        new = len(kept.keys() - before.keys())
        changed = len(gone) + sum(key in before and before[key] != cell.label for key, cell in kept.items())
        if new or changed:
            self.cells = list(kept.values())
            self._keep(None, None, None)
        return new, changed

    def add_slide(self, slide: Slide) -> tuple[int, int]:
        """Take the cells of a slide, those that a person named with their label; gives what ``add`` gives.

        What was called no cell is left out. Another slide's photo of the same name is another photo.
        """
        taken, dropped = [], []
        for number, place, cell in slide.cells():
            photo = hashlib.sha256(slide.fields[number] or b"").hexdigest()[:8]
            label = None if cell["reviewed"] in (None, UNIDENTIFIED, DROPPED) else cell["reviewed"]
            picture = Image.open(io.BytesIO(slide.crops[number, place])).convert("RGB")
            side = dropped if cell["reviewed"] == DROPPED else taken
            side.append(Cell(picture, label, f"{slide.images[number]['name']} {photo}"))
        return self.add(taken, dropped)

    def reestimate(self, tell: Tell | None = None) -> dict[str, Any]:
        """Re-estimate the batch-norm statistics on all cells, labelled or not; no label is read.

        Args:
            tell: is told how many images of how many were looked at, each as often as it is.

        Returns:
            ``images``; ``distance`` from the stored statistics; ``suggested_share``; ``share``, which was taken: all new where
            the rule suggests none, since it was asked for; ``before`` and ``after``: how often each answer comes.

        Raises:
            LaboratoryError: no cells.
        """
        if not self.cells:
            raise LaboratoryError("lab_no_cells")
        network = copy.deepcopy(self.model.network)
        batches = self._batches()
        told = tell and (lambda done, total: tell(done, total + len(self.cells)))  # the last pass is told below
        trial = network.try_statistics(batches, told)
        share = trial.suggested_share or 1.0
        network.mix_statistics(trial.new, share)
        network.config.validation_confusion = None
        after = network.name_images(batches)
        statistics = {
            "images": len(self.cells),
            "distance": round(trial.distance, 4),
            "suggested_share": trial.suggested_share,
            "share": share,
            "before": _answers(network, trial.logits),
            "after": _answers(network, after),
        }
        self._keep(network, statistics, None)
        return statistics

    def fit_to_labels(self, tell: Tell | None = None) -> dict[str, Any]:
        """Fit statistics and last layer to the labelled cells, beginning with the model as it came, and say what that gains.

        A class with fewer than ``FEWEST`` labelled cells is left out; its cells count as unlabelled.

        Args:
            tell: as for ``reestimate``.

        Returns:
            As the model's ``fit_to_laboratory``, and ``n``, the labelled cells, ``labels``, their classes, ``left_out``, the
            cells of each class that was left out, and ``seconds``.

        Raises:
            LaboratoryError: too few cells, or all of one class.
        """
        scarce = {label: number for label, number in self.counts.items() if 0 < number < FEWEST}
        labelled = [cell for cell in self.cells if cell.label is not None and cell.label not in scarce]
        if not labelled:
            raise LaboratoryError("lab_too_few", number=sum(scarce.values()), fewest=FEWEST, wanted=WANTED)
        if len({cell.label for cell in labelled}) < 2:
            raise LaboratoryError("lab_one_class", fewest=FEWEST, number=len(labelled), label=labelled[0].label)
        started = time.monotonic()
        network = copy.deepcopy(self.model.network)
        labels = [self.model.labels.index(cell.label) for cell in labelled]
        others = self._batches([cell for cell in self.cells if cell.label is None or cell.label in scarce])
        groups = [cell.group for cell in labelled]
        found = network.fit_to_laboratory(self._batches(labelled), labels, groups, others, tell)
        shown = [label for label, number in self.counts.items() if number >= FEWEST]
        fit = found | {"n": len(labelled), "labels": shown, "left_out": scarce}
        fit["seconds"] = round(time.monotonic() - started, 1)
        self._keep(network, None, fit)
        return fit

    def folder(self) -> bytes:
        """Write the fitted model as a zip archive of a folder that ``from_pretrained`` loads.

        Raises:
            LaboratoryError: nothing was fitted.
        """
        with self._lock:
            network, statistics, fit = self.network, self.statistics, self.fit
        if network is None:
            raise LaboratoryError("lab_nothing_fitted")
        source = self.model.folder()
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("validation_confusion", None)  # the errors of the old weights
        if fit is not None:
            for name in ("acceptance_threshold", "acceptance_risk", "energy_threshold", "energy_accept_rate"):
                config.pop(name, None)  # found with the old layer
        record = {"started_from": self.model.identity, "statistics": statistics, "fitted": fit}
        buffer = io.BytesIO()
        with tempfile.TemporaryDirectory() as saved, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            network.save_pretrained(saved)
            archive.write(Path(saved) / "model.safetensors", "adapted/model.safetensors")
            for path in sorted(source.iterdir()):
                if path.is_file() and path.suffix in (".py", ".json") and path.name not in (*LEFT_OUT, "config.json"):
                    archive.write(path, f"adapted/{path.name}")
            archive.writestr("adapted/config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
            archive.writestr("adapted/adaptation.json", json.dumps(record, indent=2) + "\n")
            archive.writestr("adapted/README.md", _readme(record))
        return buffer.getvalue()

    def _keep(self, network: Any, statistics: dict[str, Any] | None, fit: dict[str, Any] | None) -> None:
        with self._lock:
            self.network, self.statistics, self.fit = network, statistics, fit

    def _batches(self, cells: Sequence[Cell] | None = None) -> list[torch.Tensor]:
        cells = self.cells if cells is None else cells
        parts = -(-len(cells) // BATCH)
        sizes = [len(part) for part in torch.arange(len(cells)).tensor_split(parts)] if cells else []
        pixels, start = [], 0
        for size in sizes:
            pictures = [cell.picture for cell in cells[start : start + size]]
            pixels.append(self.model.processor(pictures, return_tensors="pt")["pixel_values"])
            start += size
        return pixels


def validated(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Give the balanced accuracy that cross-validation found ``before`` and ``after``: ``value``, ``low`` and ``high``."""
    return {
        when: {"value": value, **dict(zip(("low", "high"), found["intervals"][when], strict=True))}
        for when, value in found["balanced_accuracy"].items()
    }


def _answers(network: Any, logits: torch.Tensor) -> dict[str, int]:
    """Count the answers that logits (N, classes) give, the most frequent first."""
    counts = Counter(
        network.decide(probabilities, float(energy))[0]
        for probabilities, energy in zip(logits.softmax(-1), network.energy(logits), strict=True)
    )
    return dict(counts.most_common())


def _readme(record: Mapping[str, Any]) -> str:
    start, fit = record["started_from"], record["fitted"]
    lines = [
        "# A white-blood-cell classifier, adapted to one laboratory",
        "",
        f"Started from {start['name']}, weights SHA-256 {start['sha256']}. What was measured of those does not hold here.",
        "",
    ]
    if record["statistics"]:
        lines.append(
            f"Batch-norm statistics re-estimated on {record['statistics']['images']} images of the laboratory. The thresholds "
            "in config.json were found with the old ones: how often a cell that is named is named rightly was not measured."
        )
    if fit:
        lines.append(
            f"Fitted to {fit['n']} labelled cells: {100 * fit['share']:.0f} % of the batch-norm statistics are the "
            "laboratory's, and the last layer is new. It has no threshold and always answers. In the laboratories that the "
            "model learnt from it does worse than before."
        )
        if tried := fit["validation"]:
            shares = validated(tried)
            before, after = (WORDS["en"].with_interval(shares[when]) for when in ("before", "after"))
            lines.append(
                f"Balanced accuracy by {tried['folds']}-fold cross-validation over photos, in per cent: {before} before, "
                f"{after} after; in brackets 95 % intervals, in which the cells of a class from one photo count as one."
            )
    lines += [
        "",
        "For research and teaching, not for diagnosis.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'count = pipeline(model="adapted", trust_remote_code=True)',
        "```",
        "",
    ]
    return "\n".join(lines)
