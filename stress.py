"""Put a model to the test on a laboratory's held-out images: degraded, turned, cut out closely, of unknown cells, of none.

    python stress.py runs/wbc-resnet24/model --data_dir pbc --label_map ig=other erythroblast=other platelet=other \
        --other_cells ig erythroblast --ground_dir blood-cells --results stress.json

The options of the split are those of train.py: with the same ones, no image that was learnt from is measured.
``--ground_dir`` names a laboratory with boxes, whose held-out images give windows beside the white cells; without it these
come from ``--data_dir``, if it has boxes. ``--limit 400`` measures 400 images, the classes alike.

The file of results, figures being ``{"value": ..., "low": ..., "high": ...}``::

    {"schema_version": 1,
     "model": {"name": ..., "parameters": ..., "sha256": of the weights},
     "dataset": "pbc", "split": "validation", "split_seed": 0,
     "left_out": {"label ig": images whose label the model does not know, left out of the first three parts, ...},
     "parts": {
       "corruption": {"clean": balanced error, a figure, "mean": of the 55, a figure,
                      "corruptions": {"pixelate": {"mean": figure, "severities": [five errors]}, ...},
                      "n_images": ..., "n_photos": ..., "n_groups": ..., "interval": {as in eval_results.json}},
       "symmetry": {"same_under_all": figure, "same_on_average": figure, "balanced_accuracy": figure,
                    "balanced_accuracy_of_views": figure, "gain": figure, "n_images": ... as above},
       "framing": {"usual": 1.75, "windows": [{"window": 1.5, "balanced_accuracy": figure, "lost": beside the usual window, a
                   figure, "named": figure, "right": figure, "overlooked": figure}, ...], "annotated": boxes that are,
                   "found": by the cell finder, "not_found": cells that are left out, "n_images": ... as above},
       "anomaly": {"n_familiar": ..., "anomalies": {"ig": {"n": ..., "not_a_cell": AUROC, a figure, "energy": figure,
                   "energy_of_cells": figure}, ...}, "n_images": ... as above},
       "strangers": {"negatives": "other", "acceptance_threshold": ..., "energy_threshold": ..., "level": 0.95,
                     "kinds": {"noise": {"n": ..., "accepted": {"count": ..., "value": ..., "low": ..., "high": ...},
                               "accepted_and_familiar": the same, "called": {"lymphocyte": 2, ...}}, ...},
                     "all": the same, "photographs": [names of the files], "seed": ...,
                     "ground": where the windows beside the white cells are from, "blood-cells, validation"}}}

Each part carries the ``command``, ``commit``, ``dirty`` and ``versions`` it was measured with. A file of the same weights and
images keeps the parts that are not measured again.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from evaluation.command import read_shares, require_device, require_least, run
from evaluation.corruptions import CORRUPTIONS
from evaluation.evidence import FRAMING
from evaluation.figures import figure, nats, percent, thousands
from evaluation.framing import boxes_of_cells
from evaluation.labels import label_numbers, read_label_map
from evaluation.measure import load_config, load_model, open_image
from evaluation.probe import Setting, choose_rows
from evaluation.results import provenance, to_text, weights_sha256, write_text
from evaluation.strangers import draw_strangers, ground_windows, installed_photographs
from evaluation.stress import SCORES, anomaly_entry, corruption_entry, framing_entry, stranger_entry, symmetry_entry
from hub_model.cell_finding import find_cells
from hub_model.pipeline_wbc_resnet import WINDOW, crop_cell
from smears.laboratories import cut_cells, divide, load_laboratory, rename_classes
from smears.loading import DataError
from smears.splits import VALIDATION_SHARE

SCHEMA_VERSION = 1
PARTS = ("corruption", "symmetry", "framing", "anomaly", "strangers")
STRANGER_SIDE = 256  # px, of pictures that are drawn: about what a laboratory's crops have
logger = logging.getLogger("stress")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("model", type=Path, help="a folder written by save_pretrained")
    add("--data_dir", type=Path, required=True, help="folder of the laboratory's images")
    add("--ground_dir", type=Path, help="folder of a laboratory with boxes, for windows without a white cell")
    add("--label_map", nargs="+", default=[], help="FOLDER=CLASS: folders that are one class of the model")
    add(
        "--other_cells",
        nargs="+",
        default=[],
        help="folders of cells that count as unknown cells, not as no white cell",
    )
    add("--negatives", help="the model's class 'none of the others'; left out: the one that its config.json names")
    add(
        "--split",
        choices=("validation", "test", "test_simple", "all"),
        help="left out: test if there is one, or validation",
    )
    add("--validation_share", type=float, default=VALIDATION_SHARE, help="as it was held out in training")
    add("--test_share", nargs="+", default=[], help="LAB=SHARE, as it was held out in training")
    add("--split_seed", type=int, default=0, help="which photos are held out")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured; left out: all")
    add("--limit", type=int, help="images at most for each part, the classes alike; left out: all")
    add("--strangers", type=int, default=200, help="pictures of each kind without a white cell")
    add("--results", type=Path, help="write the figures into this file, such as stress.json")
    add("--batch_size", type=int, default=64, help="images at a time")
    add("--device", help="cpu, cuda, ...; left out: a GPU if there is one")
    add("--resamples", type=int, default=2000, help="of the bootstrap")
    add("--seed", type=int, default=0, help="of the choice of images, of what is drawn and of the bootstrap")
    options = parser.parse_args(argv)
    require_least(parser, options, batch_size=1, resamples=1, seed=0, strangers=1, limit=1)
    require_device(parser, options.device)
    return options


def load_parts(
    folder: Path, classes: Sequence[str], label_map: Mapping[str, str], options: argparse.Namespace
) -> dict[str, datasets.Dataset]:
    """Load the parts of a laboratory's images that training holds out, or all as one part if that is asked for.

    They are as ``smears.laboratories.load_laboratory`` gives them, labelled with the model's classes and, after these, the
    laboratory's that the model does not know; the column ``own`` has the laboratory's own.

    Raises
    ------
    DataError
        (a ValueError) As ``load_laboratory`` and ``divide``.
    """
    splits = load_laboratory(folder)
    own = next(iter(splits.values())).features["label"]
    unknown = [name for name in own.names if label_map.get(name, name) not in classes]
    if "train" in splits and options.split != "all":  # by the folder's own classes, as train.py divides
        share = read_shares(options.test_share).get(folder.resolve().name, 0.0)
        splits = divide(splits, options.validation_share, share, options.split_seed)
    for part, data in splits.items():
        data = data.add_column("own", data["label"][:], feature=own)
        splits[part] = rename_classes(data, [*classes, *unknown], label_map)
    if options.split == "all":
        return {"all": datasets.concatenate_datasets(list(splits.values()))}
    return {part: data for part, data in splits.items() if part != "train"}


def choose_part(parts: Mapping[str, datasets.Dataset], wanted: str | None, lab: str) -> str:
    """Say which part is measured.

    Raises
    ------
    DataError
        (a ValueError) A part that is not there.
    """
    part = wanted or ("test" if "test" in parts else "validation")
    if part not in parts:
        raise DataError(
            f"{lab} has the parts {sorted(parts)} to measure on, without {part!r}. Ask for another with --split."
        )
    return part


def with_boxes(parts: Mapping[str, datasets.Dataset], first: str) -> tuple[datasets.Dataset | None, str]:
    """Find the images whose white cells have boxes, in the part ``first`` or else another; say where, or give None and why."""
    for part in (first, *parts):
        data = parts.get(part)
        if data and (rows := [row for row, boxes in enumerate(data["cells"][:]) if boxes]):
            return data.select(rows), f"{data['lab'][0]}, {part}"
    logger.warning("no image has the box of a white cell, so no windows beside them are shown; see --ground_dir")
    return None, "no boxes"


class Decoded(Sequence):
    """Images of a data set, decoded when they are asked for: (H, W, 3), uint8 RGB."""

    def __init__(self, data: datasets.Dataset):
        self.images = data.select_columns(["image", "file"]).cast_column("image", datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        value = self.images[int(row)]
        return np.asarray(open_image(value["image"], value["file"]))


def strangers(
    own: datasets.Dataset, unlike: Sequence[str], ground: datasets.Dataset | None, count: int, seed: int
) -> Iterator[tuple[str, Image.Image]]:
    """Yield pictures without a white cell that the model names: drawn, beside the white cells, and of other cells.

    Parameters
    ----------
    own
        Images labelled with the laboratory's own classes, of which those in ``unlike`` are shown.
    unlike
        Names of its classes that are none of the model's white cells.
    ground
        Images with the boxes of all their white cells; None shows no windows.
    count
        Of each kind, at most.
    seed
        0 or more.

    Yields
    ------
    (str, PIL.Image.Image)
        The kind, and the picture.
    """
    yield from draw_strangers(count, STRANGER_SIDE, seed)
    if ground is not None:
        windows = ground_windows(Decoded(ground), ground["cells"][:], ground["others"][:], count, seed)
        yield from ((f"{kind} of {ground['lab'][0]}", window) for kind, window in windows)
    labels, names = label_numbers(own)
    images = Decoded(own)
    for name in unlike:
        rows = np.flatnonzero(np.array(labels) == names.index(name))
        for row in rows[choose_rows(np.zeros(len(rows)), count, seed)]:
            yield f"{name} of {own['lab'][0]}", Image.fromarray(images[row])


def find_boxes(image: np.ndarray) -> list[list[int]]:
    """Give the boxes of the white cells in a picture (H, W, 3), uint8 RGB, as the shipped finder sees them.

    A picture that the finder refuses for its size or shape has none.
    """
    try:
        return [cell["box"] for cell in find_cells(Image.fromarray(image))]
    except ValueError as error:
        logger.warning("no cell is looked for in a picture of %dx%d px: %s", image.shape[1], image.shape[0], error)
        return []


def framing(
    options: argparse.Namespace, held: datasets.Dataset, cells: Sequence[str], negatives: str | None, setting: Setting
) -> dict[str, Any] | None:
    """Measure cells cut out more closely and less, as ``framing_entry``; None, and said so, where no cell has a box.

    Of whole images without annotated boxes the finder gives them, and those in which it finds nothing are left out.
    """
    names = held.features["label"].names
    white = np.flatnonzero(np.isin(np.array(held["label"][:]), [names.index(name) for name in cells]))
    shown = held.select(white)
    shown = shown.select(choose_rows(shown["label"][:], options.limit, options.seed))
    boxes, annotated = boxes_of_cells(shown, find_boxes)
    there = [row for row, box in enumerate(boxes) if box is not None]
    if not there:
        logger.warning("no cell of %s has a box, and none was found: nothing is cut out", held["lab"][0])
        return None
    entry = framing_entry(
        options.model, shown.select(there), [boxes[row] for row in there], crop_cell, find_boxes, WINDOW, negatives=negatives,
        setting=replace(setting, limit=None),
    )  # fmt: skip
    return entry | {"annotated": annotated, "found": len(there) - annotated, "not_found": len(boxes) - len(there)}


def start_report(path: Path | None, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a report, with the parts that its file holds of the same weights and images.

    Raises
    ------
    ValueError
        The file holds something else.
    """
    report = {"schema_version": SCHEMA_VERSION, **identity, "parts": {}}
    if path is None or not path.exists():
        return report
    try:
        found = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(
            f"--results {path} is no file of this program ({error}); expected a new one. Name another."
        ) from error
    mine = {key: value for key, value in report.items() if key != "parts"}
    if not isinstance(found, dict) or {key: found.get(key) for key in mine} != mine or not found.get("parts"):
        raise ValueError(
            f"--results {path} holds something else than figures of these weights on these images ({mine['model']['name']}, "
            f"{mine['dataset']}, {mine['split']}); expected a new file, or one of them. Name another."
        )
    parts = dict(found["parts"])
    if any(set(FRAMING) - row.keys() for row in parts.get("framing", {}).get("windows", [])):
        logger.warning("%s: its framing lacks figures that are measured by now, and is dropped: measure it again", path)
        del parts["framing"]
    return report | {"parts": parts}


def as_table(report: Mapping[str, Any]) -> str:
    """Lay out what was measured for the screen."""
    parts, lines = report["parts"], [f"{report['model']['name']} on {report['dataset']}, {report['split']}"]
    lines += [f"left out: {thousands(count)} images, {reason}" for reason, count in report["left_out"].items()]

    def head(title: str, entry: Mapping[str, Any]) -> str:
        facts = f"{thousands(entry['n_images'])} images, {percent(entry['interval']['level'], 0)} intervals over "
        return f"\n{title}: {facts}{thousands(entry['n_groups'])} {entry['interval']['unit']}s"

    if entry := parts.get("corruption"):
        lines.append(head("Balanced error", entry))
        lines += [f"  {name:<18}{figure(entry[key])}" for name, key in (("clean", "clean"), ("mean of the 55", "mean"))]
        for name in CORRUPTIONS:
            errors = entry["corruptions"][name]
            single = "  ".join(f"{100 * error:5.1f}" for error in errors["severities"])
            lines.append(f"  {name:<18}{figure(errors['mean']):<24}severity 1 to 5: {single}")
    if entry := parts.get("symmetry"):
        lines.append(head("Eight flips and turns", entry))
        for key in ("same_under_all", "same_on_average", "balanced_accuracy", "balanced_accuracy_of_views", "gain"):
            lines.append(f"  {key.replace('_', ' '):<28}{figure(entry[key])}")
    if entry := parts.get("framing"):
        lines.append(head("Cut out as squares, in sides of the cell's box", entry))
        for row in entry["windows"]:
            shown = "  ".join(f"{key.replace('_', ' ')} {figure(row[key])}" for key in FRAMING)
            lines.append(f"  {row['window']:<6g}{shown}")
    if entry := parts.get("anomaly"):
        lines.append(head(f"Area under the ROC curve against {thousands(entry['n_familiar'])} known cells", entry))
        for name, areas in entry["anomalies"].items():
            scores = "  ".join(f"{score.replace('_', ' ')} {nats(areas[score])}" for score in SCORES)
            lines.append(f"  {name:<18}n = {areas['n']:<6}{scores}")
    if entry := parts.get("strangers"):
        lines.append("\nAccepted as a white cell (in brackets: Clopper and Pearson's intervals)")
        for kind, counted in [*entry["kinds"].items(), ("all", entry["all"])]:
            shares = [
                f"{title}{counted[rule]['count']:>5} of {counted['n']:<6}{figure(counted[rule])}"
                for rule, title in (("accepted", ""), ("accepted_and_familiar", "with the energy: "))
                if rule in counted
            ]
            lines.append(f"  {kind:<34}{'   '.join(shares)}")
    return "\n".join(lines)


def stress(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the options say, print it and write what they ask for; return the report.

    Raises
    ------
    ValueError, OSError
        Naming what came, what was expected, and the remedy.
    """
    measured_by = provenance()
    config, label_map = load_config(options.model), read_label_map(options.label_map)
    classes = [config.id2label[number] for number in sorted(config.id2label)]
    negatives = options.negatives or getattr(config, "negatives_label", None)
    for name in {*label_map.values(), *({negatives} - {None})}:
        if name not in classes:
            raise ValueError(
                f"{name!r} is no class of the model in {options.model}; expected one of {classes}. Correct it."
            )
    cells = [name for name in classes if name != negatives]
    logger.info("white cells of the model: %s; negatives: %s", ", ".join(cells), negatives or "none")
    parts = load_parts(options.data_dir, classes, label_map, options)
    split = choose_part(parts, options.split, options.data_dir.resolve().name)
    held, others = parts[split], parts
    if options.ground_dir:
        others = load_parts(options.ground_dir, classes, label_map, options)
    data = cut_cells(held)
    own = data.remove_columns("label").rename_column("own", "label")
    numbers, names = label_numbers(own)
    counts = {name: numbers.count(number) for number, name in enumerate(names) if number in numbers}
    if strange := sorted(label_map.keys() - {*names, *next(iter(others.values())).features["own"].names}):
        raise ValueError(f"--label_map {strange[0]}=...: there is no such class; expected some of {names}. Correct it.")
    familiar = [name for name in counts if label_map.get(name, name) in cells]
    unlike = [name for name in counts if name not in familiar]
    if strange := sorted(set(options.other_cells) - set(unlike)):
        raise ValueError(f"--other_cells {strange[0]}: expected some of {unlike}, whose images show none of {cells}.")
    left_out = {f"label {name}": counts[name] for name in unlike if label_map.get(name, name) not in classes}
    known = data.select(np.flatnonzero(np.array(data["label"][:]) < len(classes)))
    if not familiar:
        raise ValueError(
            f"None of the classes {names} is one of the model's, {cells}. Say which is which with --label_map."
        )

    model = {
        "name": options.model.resolve().name,
        "parameters": load_model(options.model)[0].num_parameters(),
        "sha256": weights_sha256(options.model),
    }
    identity = {"dataset": options.data_dir.resolve().name, "split": split, "split_seed": options.split_seed}
    report = start_report(options.results, {"model": model, **identity, "left_out": left_out})
    setting = Setting(options.batch_size, options.device, options.limit, options.seed, options.resamples)

    def measure(part: str) -> dict[str, Any] | None:
        if part == "corruption":
            return corruption_entry(options.model, known, setting=setting)
        if part == "symmetry":
            return symmetry_entry(options.model, known, setting=setting)
        if part == "framing":
            return framing(options, held, cells, negatives, setting)
        if part == "anomaly":
            if not unlike:
                logger.info("all classes of %s are the model's white cells: no other cells to tell apart", names)
                return None
            return anomaly_entry(options.model, own, cells, familiar, unlike, setting)
        ground, where = with_boxes(others, split)
        no_cells = [name for name in unlike if name not in options.other_cells]
        pictures = strangers(own, no_cells, ground, options.strangers, options.seed)
        photographs = [path.name for paths in installed_photographs().values() for path in paths]
        entry = stranger_entry(options.model, pictures, negatives, setting)
        return entry | {"photographs": photographs, "seed": options.seed, "ground": where}

    for part in dict.fromkeys(options.parts):
        if entry := measure(part):
            report["parts"][part] = entry | measured_by
            if options.results:
                write_text(options.results, to_text(report))
    print(as_table(report), flush=True)
    return report


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, as ``evaluation.command.run`` does."""
    run(stress, parse(argv))


if __name__ == "__main__":
    main()
