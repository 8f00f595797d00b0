"""Send the same pictures through every door of a model folder and say how far the answers lie from plain transformers'.

    python measure_doors.py hub_model --images hub_model/examples blood-cells pbc raabin chula --count 205 \\
        --node_modules NODE_MODULES --out runs/doors.json

The pictures are picked evenly from the named files and folders. They are sent twice, as they come and shrunk to the network's
size, since browsers and Node resize in ways of their own. Doors are transformers' class and pipeline without code from the
folder (the reference), our class and our pipeline, timm, ``handler.py``, ONNX Runtime on each file of ``onnx/``,
transformers.js in Node and in a browser on each of these, and the Space's ``/classify``. ``--node_modules`` is where npm
installed ``@huggingface/transformers`` (`make peers`), ``--timm`` the folder that stock timm loads from the Hub's branch; left
out, these doors are not measured. The report is written after each door, and the same command goes on from there. Where a door
differs by more than its tolerance, the program ends with an error.
"""

import argparse
import hashlib
import json
import logging
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from evaluation import doors
from evaluation.command import require_least, run
from evaluation.evidence import SENT
from evaluation.javascript_doors import library_version
from evaluation.onnx_files import FLOAT, FOLDER, QUANTIZED, WEIGHTS, check_export, describe
from evaluation.picking import pick_images, picked
from evaluation.results import environment, package_versions, provenance, to_text, weights_sha256, write_text

SPACE = Path(__file__).parent / "space" / "app.py"
PATIENCE = 180  # s, for the Space to start
logger = logging.getLogger("measure_doors")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("folder", type=Path, help="the model's folder, as it stands on the Hub")
    add("--images", type=Path, nargs="+", required=True, help="picture files, and folders of them")
    add("--count", type=int, default=50, help="of pictures, at most")
    add("--node_modules", type=Path, help="where npm installed @huggingface/transformers; adds the doors in JavaScript")
    add("--timm", type=Path, help="folder of the Hub's branch for stock timm; adds that door")
    add("--no_space", action="store_true", help="leave the Space out")
    add("--out", type=Path, help="write the report into this JSON file")
    options = parser.parse_args(argv)
    require_least(parser, options, count=1)
    return options


@contextmanager
def space(folder: Path) -> Iterator[str]:
    """Start the Space on a free port of this machine, and end it: its address.

    Raises
    ------
    ValueError
        It ended, or did not answer in time.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, str(SPACE), "--model", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > until:
                    raise ValueError(
                        f"The Space did not answer ({error}); expected its page. Start it to see why: {' '.join(command)}"
                    ) from error
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def list_doors(options: argparse.Namespace, address: str | None) -> list[doors.Door]:
    """List the doors that can be measured here, with the Space at an address."""
    quantized = (options.folder / FOLDER / QUANTIZED).is_file()
    found = [*doors.DOORS, *([doors.stock_timm(options.timm)] if options.timm else [])]
    found += [doors.eight_bits()] if quantized else []
    if options.node_modules:
        found += doors.javascript(options.node_modules, quantized)
    return found + ([doors.space(address)] if address else [])


def exports(folder: Path) -> list[Path]:
    """List the ONNX files that are sent through doors: the one in float, and that in 8 bits where there is one."""
    files = [folder / FOLDER / file for file in (FLOAT, QUANTIZED)]
    return [file for file in files if file.name == FLOAT or file.is_file()]


def start_report(options: argparse.Namespace, images: Sequence[Path]) -> dict[str, Any]:
    """Give the report to be filled: ``--out``'s, if of the same weights, ONNX files, pictures and versions, or a new one."""
    versions = environment() | package_versions("onnxruntime", "gradio", "gradio_client")
    if options.node_modules:
        versions["transformers.js"] = library_version(options.node_modules)
    digest = hashlib.sha256()
    for image in images:
        digest.update(hashlib.sha256(image.read_bytes()).digest())
    report = {
        WEIGHTS: weights_sha256(options.folder),
        "onnx_sha256": {file["file"]: file["sha256"] for file in map(describe, exports(options.folder))},
        "pictures": {source.resolve().name: count for source, count in picked(options.images, images).items()},
        "pictures_sha256": digest.hexdigest(),
        "reference": doors.REFERENCE.how,
        "versions": versions,
        "doors": {},
    }
    if options.out and options.out.is_file():
        try:
            before = json.loads(options.out.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{options.out} is no report ({error}). Remove it, or name another file.") from error
        if before | {"doors": {}} == report:
            return before
        logger.info(
            "%s is of other weights, ONNX files, pictures or versions: all doors are measured anew", options.out
        )
    return report


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Send the pictures through every door that the report lacks, writing it after each: the report.

    Raises
    ------
    ValueError, OSError
        Pictures or files that are missing, an ONNX file of other weights, a door that cannot be opened.
    """
    measured_by = provenance()
    del measured_by["versions"]  # they stand once for all doors
    images = pick_images(options.images, options.count)
    for file in exports(options.folder):
        check_export(file)
    report = start_report(options, images)
    known = report["doors"]
    with ExitStack() as stack:
        small = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="doors-")))
        sent = dict(zip(SENT, (doors.at_network_size(options.folder, images, small), images), strict=True))
        references = {how: doors.REFERENCE.answer(options.folder, pictures) for how, pictures in sent.items()}
        address = None if options.no_space else stack.enter_context(space(options.folder))
        listed = list_doors(options, address)
        for door in listed:
            if door.name in known:
                logger.info("%s: measured before", door.name)
                continue
            row = {"how": door.how} | measured_by
            for (how, pictures), tolerance in zip(sent.items(), door.tolerances, strict=True):
                found = doors.compare(door.answer(options.folder, pictures), references[how])
                row[how] = found | {"tolerance": tolerance}
            known[door.name] = row
            logger.info("%s: %s", door.name, row)
            if options.out:
                write_text(options.out, to_text(report))
    return report | {"doors": {door.name: known[door.name] for door in listed}}


def measure_doors(options: argparse.Namespace) -> None:
    """Measure, write the report, and end with an error where a door differs by more than it may."""
    report = measure(options)
    if options.out:
        write_text(options.out, to_text(report))
        logger.info("wrote %s", options.out)
    for name, row in report["doors"].items():
        for how in SENT:
            if row[how]["difference"] > row[how]["tolerance"]:
                raise ValueError(
                    f"{name}, pictures {how.replace('_', ' ')}: a probability differs by {row[how]['difference']:.2g}; "
                    f"expected {row[how]['tolerance']:.2g} at most. Is its file of the same weights, and its library as new?"
                )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, as ``evaluation.command.run`` does."""
    run(measure_doors, parse(argv))


if __name__ == "__main__":
    main()
