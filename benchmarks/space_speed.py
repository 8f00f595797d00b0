"""Measure the Space as its visitors meet it: over HTTP, from outside, on this machine.

    python benchmarks/space_speed.py hub_model --out runs/space-speed.json
    python benchmarks/space_speed.py hub_model --fields blood-cells --out runs/space-speed.json   # a folder of smear photos

Starts space/app.py, and gives the seconds until it answers; of one cell, asked again and again, the median and the 95th
percentile; of eight visitors at once, the slowest; with ``--fields``, of 100 photos counted by /differential. Beside them the
network's own time for one image, in the same run, so that the figures read as ratios.
"""

import argparse
import base64
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "space" / "examples"
WARM_UP, ASKED, VISITORS, FIELDS = 5, 100, 8, 100
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the model's folder")
    parser.add_argument("--fields", type=Path, help="folder of smear photos, of any depth; the first 100 are counted")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    return parser.parse_args(arguments)


def as_url(path: Path) -> str:
    """Write a picture into an address."""
    return f"data:image/{path.suffix[1:]};base64," + base64.b64encode(path.read_bytes()).decode()


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


def network_seconds(model: Path) -> float:
    """Measure the median time of the network alone for one image at its own size, with as many threads as the page has."""
    import torch
    from transformers import AutoModelForImageClassification

    torch.set_num_threads(min(2, os.cpu_count() or 1))
    network = AutoModelForImageClassification.from_pretrained(model, trust_remote_code=True).eval()
    pixels = torch.zeros(1, 3, 224, 224)
    times = []
    with torch.inference_mode():
        for _ in range(WARM_UP + 30):
            started = time.perf_counter()
            network(pixel_values=pixels, output_evidence=True)
            times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start the page, measure it, and end it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(ROOT / "space" / "app.py"), "--model", str(options.model), "--port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cell = [{"url": as_url(EXAMPLES / "neutrophil.png")}]
    try:
        with httpx.Client(base_url=address, timeout=300) as client:
            while True:
                try:
                    client.get("/")
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        sys.exit("error: the page ended before it answered; start space/app.py to see why.")
                    time.sleep(0.05)
            report: dict[str, Any] = {"ready_seconds": time.perf_counter() - started}
            times = sorted([ask(client, "classify", cell) for _ in range(WARM_UP + ASKED)][WARM_UP:])
            report["one_cell"] = {
                "asked": ASKED,
                "median_seconds": statistics.median(times),
                "p95_seconds": times[int(0.95 * ASKED) - 1],
            }
            with ThreadPoolExecutor(VISITORS) as visitors:
                waited = list(visitors.map(lambda _: ask(client, "classify", cell), range(VISITORS)))
            report["visitors_at_once"] = {"visitors": VISITORS, "slowest_seconds": max(waited)}
            if options.fields:
                photos = sorted(path for path in options.fields.rglob("*") if path.suffix.lower() in ENDINGS)[:FIELDS]
                sent = [as_url(path) for path in photos]
                with ThreadPoolExecutor(1) as other:
                    running = other.submit(ask, client, "differential", [sent, None, "", ""])
                    time.sleep(2)
                    beside = [ask(client, "classify", cell) for _ in range(10)]
                    seconds = running.result()
                alone = ask(client, "differential", [sent, None, "", ""])
                report["fields"] = {
                    "photos": len(photos),
                    "seconds": alone,
                    "seconds_beside_one_cell": seconds,
                    "slowest_cell_meanwhile_seconds": max(beside),
                }
    finally:
        process.terminate()
        process.wait(timeout=30)
    report["network_seconds"] = network_seconds(options.model)
    report["one_cell"]["median_over_network"] = report["one_cell"]["median_seconds"] / report["network_seconds"]
    report["machine"] = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    report = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
