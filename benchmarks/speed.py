"""Measure what this program costs, beside others in the same run: latency, bulk, memory, training, whole fields.

    python -m benchmarks.speed hub_model --out benchmarks/results.json --page benchmarks/README.md
    python -m benchmarks.speed hub_model --data_dir blood-cells --out runs/speed.json --compare benchmarks/results.json

With ``--data_dir``, the unpacked Kaggle archive, the images are its photos, and it is counted on how many images of TEST the
quicker ways give the label that plain transformers gives; else they are the drawn examples. ``--only`` chooses parts.
Eleven minutes on two cores with nothing beside it.
"""

import argparse
import json
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import cold, measures, table, width
from benchmarks.peak import find_peaks
from benchmarks.subjects import Doors, read_jpegs
from benchmarks.timing import TURNS, cores
from evaluation.results import environment, hardware, without_folders
from hub_model.pipeline_wbc_resnet import has_bfloat16

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "space" / "examples"
PARTS = ("networks", "stages", "latency", "bulk", "start", "memory", "field", "width", "labels")
COPIES = ("dataset2-master/dataset2-master/images", "images", ".")  # where the archive keeps its copies
LOADED = 0.5  # processes that run already
logger = logging.getLogger("benchmarks")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the model's folder")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="the Markdown page to write")
    parser.add_argument("--data_dir", type=Path, help="the unpacked Kaggle archive")
    parser.add_argument("--compare", type=Path, help="earlier results: say what moved")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="the parts to measure")
    parser.add_argument("--repeats", type=int, default=20, help="rounds of what is short; what is long takes fewer")
    parser.add_argument("--images", type=int, default=64, help="files of the bulk")
    parser.add_argument(
        "--stream", type=int, nargs=2, default=[100, 1000], help="images of the two streams, for memory"
    )
    parser.add_argument("--field", type=int, nargs=2, default=measures.TWENTY_MEGAPIXELS, help="height and width, px")
    parser.add_argument("--drop_caches", action="store_true", help="also start with files from the disk (root)")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.images < 1:
        parser.error("--repeats and --images must be 1 or more")
    return options


def find_copies(data_dir: Path, split: str) -> Path:
    """Find the folder of a split of the archive.

    Raises:
        FileNotFoundError: there is none.
    """
    for place in COPIES:
        if (data_dir / place / split).is_dir():
            return data_dir / place / split
    raise FileNotFoundError(f"{data_dir} has no folder {split}; expected the unpacked Kaggle archive.")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts that were asked for."""
    commit = table.source_commit(ROOT)
    load = os.getloadavg()[0]
    if load > LOADED:
        logger.warning("other work runs on this machine (load %.1f): ratios hold roughly, values are too slow", load)
    torch.set_num_threads(cores())
    long = max(1, options.repeats // 4)
    folder = find_copies(options.data_dir, "TRAIN") if options.data_dir else EXAMPLES
    jpegs = read_jpegs(folder, options.images)
    figures, labels = [], None
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place) / f"{number:05d}.jpg" for number in range(len(jpegs))]
        for path, jpeg in zip(files, jpegs, strict=True):
            path.write_bytes(jpeg)
        doors = Doors(options.model)
        logger.info("measuring: the processor's peak")
        peaks = find_peaks(has_bfloat16())
        possible = measures.Possible(peaks, doors)

        def part(name: str, *arguments: Any, **others: Any) -> None:
            nonlocal figures
            if name in options.only:
                logger.info("measuring: %s", name)
                figures += functions[name](*arguments, **others)

        functions = {
            "networks": measures.measure_networks,
            "stages": measures.measure_stages,
            "latency": measures.measure_latency,
            "bulk": measures.measure_bulk,
            "start": cold.measure_start,
            "memory": cold.measure_memory,
            "field": measures.measure_field,
            "width": width.measure_width,
        }
        images = [doors.classify.read(jpeg) for jpeg in (jpegs * measures.SMALL_BATCH)[: measures.SMALL_BATCH]]
        part("networks", doors, possible, doors.processor(images, return_tensors="pt")["pixel_values"], options.repeats)
        part("stages", doors, possible, jpegs[0], 2 * options.repeats)
        part("latency", doors, possible, jpegs, 2 * options.repeats)
        part("bulk", doors, possible, files, long)
        if "field" in options.only:
            field = measures.build_field(measures.field_images(options.data_dir, EXAMPLES), tuple(options.field))
            part("field", doors, possible, field, long)
        if "labels" in options.only and options.data_dir:
            tests = sorted(path for path in find_copies(options.data_dir, "TEST").rglob("*") if path.is_file())
            logger.info("counting equal labels on %d images", len(tests))
            labels = {"what": "the official TEST of blood-cells"} | dict(measures.measure_labels(doors, tests))
        del doors
        part("start", options.model, files[0], long)
        if options.drop_caches:
            part("start", options.model, files[0], min(long, 3), drop=True)
        part("memory", options.model, files[0], options.stream)
        if "width" in options.only:
            classes = _by_class(Path(place) / "classes", jpegs)
            part("width", classes, min(long, 3))
    return {
        "schema_version": table.SCHEMA_VERSION,
        "command": without_folders(shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]])),
        "commit": commit,
        "machine": {
            "cpu": hardware()["cpu"],
            "cores": cores(),
            "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
            "bfloat16": has_bfloat16(),
            "load_before": round(load, 2),
        },
        "versions": environment(),
        "settings": {
            "threads": torch.get_num_threads(),
            "repeats": options.repeats,
            "turns": TURNS,
            "images": f"{len(jpegs)} JPEG of 320x240 px, from {'Kaggle TRAIN' if options.data_dir else 'the drawn examples'}",
        },
        "peaks": {
            kind: {"way": peak.way, "billions_a_second": peak.multiply_adds / peak.seconds / 1e9}
            for kind, peak in peaks.items()
        },
        "figures": figures,
        "same_labels": labels,
    }


def _by_class(folder: Path, jpegs: Sequence[bytes]) -> Path:
    """Write images into two folders, as train.py reads them, none of them twice; for speed any label serves."""
    for number, jpeg in enumerate(dict.fromkeys(jpegs)):
        path = folder / ("one", "other")[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logger.setLevel(logging.INFO)
    options = parse(arguments)
    try:
        earlier = table.read(options.compare) if options.compare else None
        results = measure(options)
    except (OSError, ValueError, RuntimeError, Image.UnidentifiedImageError) as error:
        sys.exit(f"error: {error}")
    table.check(results)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(table.page(results), encoding="utf-8")
    missed = [one for one in results["figures"] if table.meets(one) is False]
    for one in missed:
        print(f"missed: {one['what']} / {one['beside']}: {one[one['wanted']['of']]['median']:.3g}, {one['wanted']}")
    if earlier is not None:
        for line in table.compare(results, earlier) or ["nothing moved by more than a tenth"]:
            print(line)


if __name__ == "__main__":
    main()
