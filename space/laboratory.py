"""A visitor's laboratory: its cells, with labels and without, the network fitted to them, and the folder to take home."""

import copy
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
from PIL import Image
from review import DROPPED, UNIDENTIFIED, Slide
from smear_model import SmearModel

WANTED = 10  # labelled cells of a class
FEWEST = 2  # of a class: one to learn from, one to try it on
FEW_IMAGES = 32  # with fewer a single odd one moves the statistics of the last layers
MOST_CELLS = 1000
BATCH = 32
SIDE = 256  # px, a cell as it is kept here
# Of the model's folder: they would be loaded in the new weights' place, or tell of other weights.
LEFT_OUT = ("model.safetensors", "eval_results.json", "README.md", "adaptation.json")

Tell = Callable[[int, int], None]


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


@dataclass
class Laboratory:
    """The cells that a visitor brought, and the network as it was fitted to them.

    Attributes:
        cells: in the order in which they came.
        network: with new statistics or a new last layer; None as long as nothing was fitted.
        statistics: what re-estimating without labels found, or None.
        fit: what the fitting to labelled cells found, or None.
    """

    model: SmearModel
    cells: list[Cell] = field(default_factory=list)
    network: Any = None
    statistics: dict[str, Any] | None = None
    fit: dict[str, Any] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def counts(self) -> dict[str, int]:
        """Labelled cells of each class, in the model's order."""
        counted = Counter(cell.label for cell in self.cells)
        return {label: counted[label] for label in self.model.labels}

    @property
    def unlabelled(self) -> int:
        return sum(cell.label is None for cell in self.cells)

    def add(self, cells: Sequence[Cell]) -> None:
        """Take more cells; what was fitted without them is forgotten.

        Raises:
            ValueError: too many.
        """
        if len(self.cells) + len(cells) > MOST_CELLS:
            raise ValueError(f"{len(self.cells) + len(cells)} cells are too many; expected {MOST_CELLS} at most.")
        self.cells += cells
        self.network = self.statistics = self.fit = None

    def add_slide(self, slide: Slide) -> int:
        """Take the cells of a slide, those that a person named with their label; gives how many.

        What was called no cell is left out, and so are cells taken before.
        """
        known = {cell.group for cell in self.cells}
        taken = []
        for number, place, cell in slide.cells():
            group = f"{slide.images[number]['name']} (field {number + 1})"
            if cell["reviewed"] == DROPPED or group in known:
                continue
            label = None if cell["reviewed"] in (None, UNIDENTIFIED) else cell["reviewed"]
            taken.append(Cell(Image.open(io.BytesIO(slide.crops[number, place])).convert("RGB"), label, group))
        self.add(taken)
        return len(taken)

    def reestimate(self, tell: Tell | None = None) -> dict[str, Any]:
        """Re-estimate the batch-norm statistics on all cells, labelled or not; no label is read.

        Args:
            tell: is told how many images of how many were looked at, each as often as it is.

        Returns:
            ``images``; ``distance`` from the stored statistics; ``suggested_share``; ``share``, which was taken: all new where
            the rule suggests none, since it was asked for; ``before`` and ``after``: how often each answer comes.

        Raises:
            ValueError: no cells.
        """
        if not self.cells:
            raise ValueError("There are no cells. Add some first.")
        network = copy.deepcopy(self.model.network)
        batches = self._batches()
        told = tell and (lambda done, total: tell(done, total + len(self.cells)))  # the last pass is told below
        trial = network.try_statistics(batches, told)
        share = trial.suggested_share or 1.0
        network.mix_statistics(trial.new, share)
        network.config.validation_confusion = None
        after = network.name_images(batches)
        self.network, self.fit = network, None
        self.statistics = {
            "images": len(self.cells),
            "distance": round(trial.distance, 4),
            "suggested_share": trial.suggested_share,
            "share": share,
            "before": _answers(network, trial.logits),
            "after": _answers(network, after),
        }
        return self.statistics

    def fit_to_labels(self, tell: Tell | None = None) -> dict[str, Any]:
        """Fit statistics and last layer to the labelled cells, beginning with the model as it came, and say what that gains.

        Args:
            tell: as for ``reestimate``.

        Returns:
            As the model's ``fit_to_laboratory``, and ``n``, the labelled cells, and ``seconds``.

        Raises:
            ValueError: too few cells.
        """
        labelled = [cell for cell in self.cells if cell.label is not None]
        scarce = {label: number for label, number in self.counts.items() if 0 < number < FEWEST}
        if not labelled or scarce:
            told = ", ".join(f"{label}: {number}" for label, number in scarce.items()) or "none"
            raise ValueError(
                f"Too few labelled cells ({told}); expected {FEWEST} of each class that is shown, better {WANTED}."
            )
        started = time.monotonic()
        network = copy.deepcopy(self.model.network)
        labels = [self.model.labels.index(cell.label) for cell in labelled]
        others = self._batches([cell for cell in self.cells if cell.label is None])
        groups = [cell.group for cell in labelled]
        found = network.fit_to_laboratory(self._batches(labelled), labels, groups, others, tell)
        self.network, self.statistics = network, None
        self.fit = found | {"n": len(labelled), "seconds": round(time.monotonic() - started, 1)}
        return self.fit

    def folder(self) -> bytes:
        """Write the fitted model as a zip archive of a folder that ``from_pretrained`` loads.

        Raises:
            ValueError: nothing was fitted.
        """
        if self.network is None:
            raise ValueError("Nothing was fitted yet. Re-estimate the statistics, or fit the model to labelled cells.")
        source = self.model.folder()
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        config.pop("validation_confusion", None)  # the errors of the old weights
        if self.fit is not None:
            for name in ("acceptance_threshold", "acceptance_risk", "energy_threshold", "energy_accept_rate"):
                config.pop(name, None)  # found with the old layer
        record = {"started_from": self.model.identity, "statistics": self.statistics, "fitted": self.fit}
        buffer = io.BytesIO()
        with tempfile.TemporaryDirectory() as saved, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            self.network.save_pretrained(saved)
            archive.write(Path(saved) / "model.safetensors", "adapted/model.safetensors")
            for path in sorted(source.iterdir()):
                if path.is_file() and path.suffix in (".py", ".json") and path.name not in (*LEFT_OUT, "config.json"):
                    archive.write(path, f"adapted/{path.name}")
            archive.writestr("adapted/config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
            archive.writestr("adapted/adaptation.json", json.dumps(record, indent=2) + "\n")
            archive.writestr("adapted/README.md", _readme(record))
        return buffer.getvalue()

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
            f"Batch-norm statistics re-estimated on {record['statistics']['images']} images of the laboratory."
        )
    if fit:
        lines.append(
            f"Fitted to {fit['n']} labelled cells: {100 * fit['share']:.0f} % of the batch-norm statistics are the "
            "laboratory's, and the last layer is new. It has no threshold and always answers. In the laboratories that the "
            "model learnt from it does worse than before."
        )
        if tried := fit["validation"]:
            accuracy = tried["balanced_accuracy"]
            lines.append(
                f"Balanced accuracy by {tried['folds']}-fold cross-validation over photos: {100 * accuracy['before']:.1f} % "
                f"before, {100 * accuracy['after']:.1f} % after."
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
