"""Measure the Space as its visitors meet it: over HTTP, from outside, on this machine.

    python -m benchmarks.space_speed hub_model --out runs/space.json                        # with the drawn examples
    python -m benchmarks.space_speed hub_model --fields blood-cells --out runs/space.json   # a folder of smear photos

Starts space/app.py, and gives the seconds until it answers; for one cell, asked again and again, the middle and the 95th
percentile; for eight visitors at once, the slowest; with ``--fields``, for 100 photos counted by /differential, and for a cell
of another visitor meanwhile. Beside them stands what each is made of, measured in the same run, so that they read as ratios.
``--page`` renders them, and what moved since ``--compare`` is told.
"""

import argparse
import base64
import json
import logging
import math
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForImageClassification

from benchmarks.table import compare_conditions, compare_figures, meets, reported, source_commit, tables
from benchmarks.timing import cores, figure
from evaluation.results import environment, hardware, package_versions, without_folders

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "space" / "examples"
WARM_UP, ROUNDS, ASKED, VISITORS, FIELDS, MEANWHILE, COUNTS = 5, 5, 40, 8, 100, 10, 3
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp")
SECTION = "The page, over HTTP"
ONE_CELL, NETWORK, LIBRARIES = "one cell", "the network alone", "importing torch, transformers and gradio"
WANTED = {"ready": 10.0, "cell": 0.3, "visitors": 2.0, "fields": 20.0}  # seconds
LOADED = 0.5  # processes that run already
logger = logging.getLogger("benchmarks")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the model's folder")
    parser.add_argument("--fields", type=Path, help="folder of smear photos, of any depth; the first 100 are counted")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--page", type=Path, help="a Markdown file, rendered from it")
    parser.add_argument("--compare", type=Path, help="an earlier --out; without it, the one that is overwritten")
    return parser.parse_args(arguments)


def as_url(path: Path) -> str:
    """Write a picture into an address."""
    return f"data:image/{path.suffix[1:].lower()};base64," + base64.b64encode(path.read_bytes()).decode()


def find_photos(folder: Path) -> list[Path]:
    """Give the first photos of a folder of any depth.

    Raises:
        ValueError: there are none.
    """
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)[:FIELDS]
    if not photos:
        raise ValueError(
            f"{folder} holds no photos ({', '.join(ENDINGS)}). Name a folder of smear photos with --fields."
        )
    return photos


def ask(client: httpx.Client, endpoint: str, data: list[Any]) -> float:
    """Ask an endpoint and wait for its answer; gives the seconds that took.

    Raises:
        RuntimeError: it answered with an error.
    """
    started = time.perf_counter()
    event = client.post(f"/gradio_api/call/{endpoint}", json={"data": data}).raise_for_status().json()["event_id"]
    answer = client.get(f"/gradio_api/call/{endpoint}/{event}").text
    if "event: complete" not in answer:
        raise RuntimeError(f"/{endpoint} answered: {answer[:400]}")
    return time.perf_counter() - started


@contextmanager
def started_page(model: Path) -> Iterator[tuple[httpx.Client, float]]:
    """Start the page; gives a client of it, and the seconds that it took until it answered.

    Raises:
        ValueError: it ended before it answered.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, str(ROOT / "space" / "app.py"), "--model", str(model), "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while True:
                try:
                    client.get("/").raise_for_status()
                    break
                except httpx.TransportError as error:
                    if process.poll() is not None:
                        raise ValueError(
                            f"the page ended before it answered. See why: python space/app.py --model {model}"
                        ) from error
                    time.sleep(0.05)
            yield client, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(timeout=30)


def import_seconds() -> float:
    """Measure how long a fresh interpreter takes for the libraries that the page stands on."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch, transformers, gradio"], check=True)
    return time.perf_counter() - started


def network_seconds(model: Path) -> list[float]:
    """Time the network alone on one image at its own size, with as many threads as the page has."""
    torch.set_num_threads(min(2, cores()))
    network = AutoModelForImageClassification.from_pretrained(model, trust_remote_code=True).eval()
    pixels, times = torch.zeros(1, 3, 224, 224), []
    with torch.inference_mode():
        for _ in range(WARM_UP + ASKED):
            started = time.perf_counter()
            network(pixel_values=pixels, output_evidence=True)
            times.append(time.perf_counter() - started)
    return times[WARM_UP:]


def percentile_95(times: Sequence[float]) -> float:
    """Give the time that 95 in 100 do not exceed."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


def at_most(what: str) -> dict[str, Any]:
    """Say what is wanted of a figure, in seconds."""
    return {"of": "value", "at_most": WANTED[what]}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start the page, measure it, and end it.

    Raises:
        ValueError: no photos, or no page.
    """
    photos = find_photos(options.fields) if options.fields else []
    sent = [{"url": as_url(path)} for path in photos or sorted(EXAMPLES.glob("*.png"))]
    ready, libraries = [], []
    for _ in range(COUNTS - 1):  # the last start is the one that is asked below
        libraries.append(import_seconds())
        with started_page(options.model) as (_, seconds):
            ready.append(seconds)
    libraries.append(import_seconds())
    network = network_seconds(options.model)
    alone = sorted(network)[len(network) // 2]
    figures = []
    with started_page(options.model) as (client, seconds):
        ready.append(seconds)
        begun = [own / other for own, other in zip(ready, libraries, strict=True)]
        figures.append(figure(SECTION, "ready after its start", LIBRARIES, begun, ready, "s", at_most("ready")))

        cells = cycle([[one] for one in sent])
        for cell in islice(cells, WARM_UP):
            ask(client, "classify", cell)
        rounds = [[ask(client, "classify", cell) for cell in islice(cells, ASKED)] for _ in range(ROUNDS)]
        asked = [seconds for one in rounds for seconds in one]
        middle = sorted(asked)[len(asked) // 2]
        figures.append(figure(SECTION, ONE_CELL, NETWORK, [one / alone for one in asked], asked, "s"))
        slow = [percentile_95(one) for one in rounds]
        what = f"{ONE_CELL}, the 95th percentile of {ASKED}"
        figures.append(figure(SECTION, what, NETWORK, [one / alone for one in slow], slow, "s", at_most("cell")))

        waited = []
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(VISITORS) as visitors:
                waited.append(max(visitors.map(lambda cell: ask(client, "classify", cell), islice(cells, VISITORS))))
        what = f"{ONE_CELL}, the slowest of {VISITORS} visitors at once"
        figures.append(
            figure(SECTION, what, ONE_CELL, [one / middle for one in waited], waited, "s", at_most("visitors"))
        )

        if photos:
            slide = [[one["url"] for one in sent], None, "", ""]
            counted = [ask(client, "differential", slide) for _ in range(COUNTS)]
            ratio = [one / (len(photos) * middle) for one in counted]
            what, beside = f"{len(photos)} fields counted", f"{len(photos)} times {ONE_CELL}"
            figures.append(figure(SECTION, what, beside, ratio, counted, "s", at_most("fields")))
            with ThreadPoolExecutor(1) as other:
                running = other.submit(ask, client, "differential", slide)
                time.sleep(1)  # until it is under way
                meanwhile = [ask(client, "classify", cell) for cell in islice(cells, MEANWHILE)]
                if running.done():
                    logger.warning("the fields were counted before the cells beside them were answered")
                running.result()
            what = f"{ONE_CELL}, while another visitor's fields are counted"
            figures.append(figure(SECTION, what, ONE_CELL, [one / middle for one in meanwhile], meanwhile, "s"))
    return figures


def compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Say what moved since an earlier report, and what was measured otherwise."""
    told = compare_conditions("measured otherwise", new["machine"], old["machine"])
    return told + compare_figures(new["figures"], old["figures"])


def page(report: Mapping[str, Any]) -> str:
    """Render a report as Markdown."""
    machine = report["machine"]
    lines = [
        "# How fast the page is",
        "",
        "Rendered by `python -m benchmarks.space_speed` from what it measured: over the page's own HTTP API, from the request",
        "to the whole answer. Shown are median and, in brackets, quartiles.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; cells are {machine['pictures']}; "
        + ", ".join(f"{name} {report['versions'][name]}" for name in ("torch", "transformers", "gradio"))
        + f"; commit {report['commit'][:12]}, `{report['command']}`.",
        "",
    ]
    if report["load_before"] > LOADED:
        lines += [f"The machine was not idle (load {report['load_before']:.1f} before): the values are too slow.", ""]
    return "\n".join(lines + tables(report["figures"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the figures."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    options, load, commit = parse(arguments), os.getloadavg()[0], source_commit(ROOT)
    try:
        earlier = reported(options.compare or options.out, needed=options.compare is not None)
        figures = measure(options)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        sys.exit(f"error: {error}")
    report = {
        "command": without_folders(shlex.join(["python", "-m", "benchmarks.space_speed", *sys.argv[1:]])),
        "commit": commit,
        "load_before": round(load, 2),
        "machine": {
            "cpu": hardware()["cpu"],
            "cores": cores(),
            "pictures": "photos of smears" if options.fields else "the drawn examples",
        },
        "versions": environment() | package_versions("gradio"),
        "figures": figures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(page(report), encoding="utf-8")
    for one in figures:
        wanted = {None: "", True: "reached: ", False: "missed: "}[meets(one)]
        value = one["value"]
        print(f"{wanted}{one['what']}: {value['median']:.3g} [{value['low']:.3g}, {value['high']:.3g}] {one['unit']}")
    for line in [] if earlier is None else compare(report, earlier):
        print(line)


if __name__ == "__main__":
    main()
