"""Make an 8-bit version of a folder's ONNX file, for browsers and small machines, and ship it only where it is as right.

    python quantize_onnx.py hub_model --data_dir blood-cells pbc raabin chula --folder_map ig=other erythroblast=other \\
        platelet=other --validation_share 0.1 --split_seed 3 --test_share pbc=0.2 --out runs/onnx-int8.json --ship

Laboratories are divided as train.py divides them. Ranges of activations are taken from images that training learnt from; which
recipe of ``RECIPES`` is taken is decided on validation alone: the first that loses no more there than ``--most_lost`` points
of accuracy. With ``--ship`` it is then measured once on what was held out to test on, and
goes into ``onnx/`` if it loses no more there either, in no laboratory; otherwise nothing goes there, and one that stood there
is removed. The report says which, for ``evaluation.collect --onnx``.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from tqdm import tqdm

from evaluation.command import read_shares, require_least, run
from evaluation.intervals import group_bootstrap
from evaluation.labels import read_label_map
from evaluation.measure import load_model, open_image
from evaluation.metrics import statistics
from evaluation.onnx_files import FLOAT, FOLDER, INPUT, QUANTIZED, check_export, describe, put
from evaluation.onnx_runtime import BATCH, differences, open_session, session_logits, softmax
from evaluation.results import provenance, to_text, write_text
from smears.laboratories import cut_cells, divide, load_laboratory, rename_classes
from smears.loading import DataError

LEARNT, CHOSEN_ON, DECIDED_ON = "train", "validation", "test"
logger = logging.getLogger("quantize_onnx")


@dataclass(frozen=True)
class Recipe:
    """How a network is turned into 8 bits: weights by channel, activations by the least and largest value seen.

    Attributes
    ----------
    weight_bits
        7 leaves a bit unused, so that processors without VNNI, which add pairs of products in 16 bits, never overflow.
    float_convolutions, float_linear
        How many of the first convolutions, and whether the last layer, stay as they are.
    """

    weight_bits: int = 7
    float_convolutions: int = 0
    float_linear: bool = False

    def __str__(self) -> str:
        kept = [f"the first {self.float_convolutions} convolution(s)"] * bool(self.float_convolutions)
        kept += ["the linear layer"] * self.float_linear
        return f"{self.weight_bits}-bit weights" + (f", {' and '.join(kept)} in float" if kept else "")


# In their order of choice. Eight bits come last: where a processor with VNNI measures them, nothing shows what one without
# makes of them.
RECIPES = (Recipe(), Recipe(float_linear=True), Recipe(float_convolutions=1, float_linear=True), Recipe(weight_bits=8))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("folder", type=Path, help=f"a model folder with {FOLDER}/{FLOAT}")
    add("--data_dir", type=Path, nargs="+", required=True, help="a folder for each laboratory")
    add("--folder_map", nargs="+", default=[], metavar="FOLDER=CLASS", help="what folders are called here")
    add("--validation_share", type=float, default=0.1, help="as in training")
    add("--test_share", nargs="+", default=[], metavar="LAB=SHARE", help="as in training")
    add("--split_seed", type=int, default=0, help="as in training")
    add("--calibrate_on", type=int, default=400, help="images that ranges are taken from, at most")
    add("--most_lost", type=float, default=0.3, help="points of accuracy that may be lost")
    add("--ship", action="store_true", help="measure on test, and put the file into the folder if it is as right")
    add("--out", type=Path, help="write the report into this JSON file")
    options = parser.parse_args(argv)
    require_least(parser, options, calibrate_on=1)
    return options


class Pixels(CalibrationDataReader):
    """Hand out pixels (N, 3, H, W), a batch at a time."""

    def __init__(self, pixels: np.ndarray):
        self.batches = iter(np.array_split(pixels, max(1, len(pixels) // BATCH)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {INPUT: batch}


def quantize(source: Path, target: Path, pixels: np.ndarray, recipe: Recipe) -> None:
    """Write the 8-bit version of an ONNX file.

    Parameters
    ----------
    source, target
        The float file, and where the other goes.
    pixels
        Of images learnt from, (N, 3, H, W) float32.
    recipe
        How.
    """
    model = onnx.load_model(source)
    kept = [node.name for node in model.graph.node if node.op_type == "Conv"][: recipe.float_convolutions]
    kept += [node.name for node in model.graph.node if node.op_type == "Gemm" and recipe.float_linear]
    quantize_static(
        model, target, Pixels(pixels), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=recipe.weight_bits == 7, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax, nodes_to_exclude=kept,
    )  # fmt: skip
    quantized = onnx.load_model(target)
    quantized.graph.ClearField("value_info")
    onnx.helper.set_model_props(quantized, {entry.key: entry.value for entry in model.metadata_props})
    onnx.checker.check_model(quantized, full_check=True)
    target.write_bytes(quantized.SerializeToString(deterministic=True))


def read_laboratories(options: argparse.Namespace, classes: Sequence[str]) -> dict[str, dict[str, datasets.Dataset]]:
    """Load the laboratories, divided and under the model's class names, cells cut out of fields."""
    folder_map, shares = read_label_map(options.folder_map), read_shares(options.test_share)
    folders = {folder.resolve().name: folder for folder in options.data_dir}
    if strange := sorted(shares.keys() - folders.keys()):
        raise DataError(f"--test_share {strange[0]}: there is no such laboratory; expected one of {sorted(folders)}.")
    wanted = (LEARNT, CHOSEN_ON, *([DECIDED_ON] if options.ship else []))
    found = {}
    for lab, folder in folders.items():
        splits = divide(load_laboratory(folder), options.validation_share, shares.get(lab, 0.0), options.split_seed)
        found[lab] = {
            name: rename_classes(data, classes, folder_map) for name, data in splits.items() if name in wanted
        }
    return found


def spread(data: datasets.Dataset, count: int, seed: int = 0) -> datasets.Dataset:
    """Draw ``count`` rows or fewer, classes in equal turns."""
    labels = np.array(data["label"][:])
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.empty(len(labels), int)  # how many of its class came before
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        turn[rows] = np.arange(len(rows))
    return data.select(np.sort(np.lexsort((np.argsort(order), turn))[:count]))


def read_pixels(data: datasets.Dataset, processor: Any, task: str) -> np.ndarray:
    """Show images, or the cells of fields, to the folder's image processor: (N, 3, H, W) float32."""
    rows = cut_cells(data).with_format(None).select_columns(["image", "file"])
    rows = rows.cast_column("image", datasets.Image(decode=False))
    images = (open_image(row["image"], row["file"]) for row in tqdm(rows, task, unit="image"))
    return np.concatenate([processor(images=image, return_tensors="np")[INPUT] for image in images])


def compare(data: datasets.Dataset, ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Say what 8 bits cost on labelled images.

    Parameters
    ----------
    data
        With the columns ``label`` and ``group``.
    ours, theirs
        Logits of 8 bits and of float, (N, classes).

    Returns
    -------
    dict
        As ``evaluation.onnx_runtime.differences``; ``accuracy`` and ``balanced_accuracy`` of ``float`` and ``int8``; ``lost``,
        points of accuracy, with the interval over groups of the same cells.
    """
    labels, groups = np.array(data["label"][:]), data["group"][:]
    found = differences(ours, theirs)
    for name, logits in (("float", theirs), ("int8", ours)):
        values = statistics(softmax(logits), labels)
        found[name] = {key: float(values[key]) for key in ("accuracy", "balanced_accuracy")}
    loss = (theirs.argmax(axis=1) == labels).astype(float) - (ours.argmax(axis=1) == labels)
    low, high = group_bootstrap(lambda weights: weights @ loss / weights.sum(axis=-1), len(loss), groups)
    found["lost"] = {"value": 100 * float(loss.mean()), "low": 100 * low, "high": 100 * high}
    return found


def choose(options: argparse.Namespace, laboratories: Any, processor: Any, target: Path) -> dict[str, Any]:
    """Write the first recipe's file that loses no more on validation than it may; say what was tried.

    Returns
    -------
    dict
        ``calibration``, images of each laboratory; ``tried``, for each recipe what it lost on all validation images; and
        ``recipe``, None where all lose more.
    """
    source, share = options.folder / FOLDER / FLOAT, -(-options.calibrate_on // len(laboratories))
    drawn = {lab: spread(splits[LEARNT], share) for lab, splits in laboratories.items()}
    learnt = np.concatenate([read_pixels(data, processor, f"{lab}, learnt from") for lab, data in drawn.items()])
    held = datasets.concatenate_datasets(
        [splits[CHOSEN_ON].select_columns(["label", "group"]) for splits in laboratories.values()]
    )
    pixels = np.concatenate(
        [read_pixels(splits[CHOSEN_ON], processor, f"{lab}, validation") for lab, splits in laboratories.items()]
    )
    theirs = session_logits(open_session(source), pixels, "float")
    found = {"calibration": {lab: len(data) for lab, data in drawn.items()}, "tried": {}, "recipe": None}
    for recipe in RECIPES:
        quantize(source, target, learnt, recipe)
        one = compare(held, session_logits(open_session(target), pixels, str(recipe)), theirs)
        logger.info(
            "%s: %.2f points lost on validation, %d of %d same label",
            recipe,
            one["lost"]["value"],
            one["same_label"],
            one["n"],
        )
        found["tried"][str(recipe)] = one
        if one["lost"]["value"] <= options.most_lost:
            found["recipe"] = str(recipe)
            break
    return found


def decide(options: argparse.Namespace, laboratories: Any, processor: Any, target: Path) -> dict[str, Any]:
    """Measure the chosen file once on what was held out to test on, by laboratory."""
    ours, theirs = open_session(target), open_session(options.folder / FOLDER / FLOAT)
    found = {}
    for lab, splits in laboratories.items():
        if DECIDED_ON in splits:
            pixels = read_pixels(splits[DECIDED_ON], processor, f"{lab}, test")
            both = [
                session_logits(session, pixels, f"{lab}, {name}")
                for session, name in ((ours, "int8"), (theirs, "float"))
            ]
            found[lab] = compare(splits[DECIDED_ON], *both)
            logger.info("%s: %.2f points lost on test", lab, found[lab]["lost"]["value"])
    if not found:
        raise DataError(
            "No laboratory has images to test on, so nothing can be decided. Name one that has, or --test_share."
        )
    return found


def quantize_folder(options: argparse.Namespace) -> None:
    """Choose, decide, put the file into the folder or not, and report.

    Raises
    ------
    DataError, ExportError, FileNotFoundError
        Images that cannot be read or divided; a float file that is absent or out of date.
    """
    measured_by = provenance("onnx", "onnxruntime")
    shipped = options.folder / FOLDER / QUANTIZED
    check_export(options.folder / FOLDER / FLOAT)
    model, processor = load_model(options.folder)
    laboratories = read_laboratories(options, [model.config.id2label[k] for k in range(model.config.num_labels)])
    with tempfile.TemporaryDirectory(prefix="onnx-") as place:  # elsewhere, so that nothing is left if it is ended
        target = Path(place) / QUANTIZED
        found = choose(options, laboratories, processor, target)
        report: dict[str, Any] = (
            describe(target) | {"file": f"{FOLDER}/{QUANTIZED}", "most_lost": options.most_lost} | found
        )
        report["test"] = {}
        if found["recipe"] and options.ship:
            report["test"] = decide(options, laboratories, processor, target)
        lost = [one["lost"]["value"] for one in report["test"].values()]
        report["shipped"] = bool(lost) and max(lost) <= options.most_lost
        report |= measured_by
        if report["shipped"]:
            put(target, shipped)
            logger.info("wrote %s, %d bytes", shipped, report["bytes"])
        elif options.ship:
            shipped.unlink(missing_ok=True)
            logger.info("not shipped: it loses more than %g points", options.most_lost)
    if options.out:
        write_text(options.out, to_text(report))
        logger.info("wrote %s", options.out)


def main(argv: Sequence[str] | None = None) -> None:
    """Quantize, as ``evaluation.command.run`` does."""
    run(quantize_folder, parse(argv))


if __name__ == "__main__":
    main()
