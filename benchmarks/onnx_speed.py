"""Time one image through PyTorch and through each ONNX file of a model folder, on one thread, in turns.

    python benchmarks/onnx_speed.py hub_model --out runs/onnx-speed.json

Each round runs every kind once, so that whatever else the machine does meets all of them; the medians are to be read as ratios.
The report goes to ``evaluation.collect --onnx`` beside those of export_onnx.py and quantize_onnx.py.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluation.command import require_least, run
from evaluation.measure import load_model
from evaluation.onnx_files import FLOAT, FOLDER, INPUT, OUTPUT, QUANTIZED, WEIGHTS, check_export
from evaluation.onnx_runtime import open_session
from evaluation.results import hardware, provenance, to_text, weights_sha256, write_text

WARM_UP = 3  # rounds that are not counted
logger = logging.getLogger("onnx_speed")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help=f"a model folder with {FOLDER}/{FLOAT}")
    parser.add_argument("--rounds", type=int, default=50, help="that are counted")
    parser.add_argument("--out", type=Path, help="write the report into this JSON file")
    options = parser.parse_args(argv)
    require_least(parser, options, rounds=1)
    return options


@torch.inference_mode()
def time_kinds(folder: Path, rounds: int) -> dict[str, Any]:
    """Give the median milliseconds of one image, for PyTorch and by the file for ONNX Runtime.

    Raises
    ------
    FileNotFoundError, ExportError
        As in ``evaluation.onnx_files.check_export``.
    """
    model, processor = load_model(folder)
    side = processor.size["height"], processor.size["width"]
    pixels = np.random.default_rng(0).normal(size=(1, model.config.num_channels, *side)).astype(np.float32)
    kinds: dict[str, Callable[[], Any]] = {"pytorch": lambda: model(pixel_values=torch.from_numpy(pixels))}
    for file in (FLOAT, QUANTIZED):
        path = folder / FOLDER / file
        if file == FLOAT or path.is_file():
            check_export(path)
            session = open_session(path, threads=1)
            kinds[f"{FOLDER}/{file}"] = lambda session=session: session.run([OUTPUT], {INPUT: pixels})
    taken = {name: [] for name in kinds}
    for number in range(WARM_UP + rounds):
        for name, answer in kinds.items():
            begun = time.perf_counter()
            answer()
            if number >= WARM_UP:
                taken[name].append(time.perf_counter() - begun)
    return {name: round(1e3 * float(np.median(seconds)), 2) for name, seconds in taken.items()}


def measure(options: argparse.Namespace) -> None:
    """Time them and report."""
    measured_by = provenance("onnx", "onnxruntime")
    torch.set_num_threads(1)
    times = time_kinds(options.folder, options.rounds)
    for name, one in times.items():
        logger.info("%s: %.1f ms, %.2f of PyTorch's time", name, one, one / times["pytorch"])
    report = {
        WEIGHTS: weights_sha256(options.folder),
        "milliseconds": times,
        "rounds": options.rounds,
        "hardware": hardware(),
        **measured_by,
    }
    if options.out:
        write_text(options.out, to_text(report))
        logger.info("wrote %s", options.out)


if __name__ == "__main__":
    run(measure, parse())
