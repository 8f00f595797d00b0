"""The measurements in one process: limit, networks, stages, latency, bulk, whole fields."""

import io
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from benchmarks.peak import Product
from benchmarks.subjects import (
    OURS,
    OURS_BF16,
    STOCK,
    STOCK_OURS,
    TIMM_50,
    TRANSFORMERS_50,
    Doors,
    multiply_adds,
)
from benchmarks.timing import figure, ratios, side_by_side
from hub_model.pipeline_wbc_resnet import has_bfloat16
from smears.fields import read_fields

SMALL_BATCH = 8
BATCHES = (2, 4, 8, 16)  # of which each takes its quickest
TRIALS, TRIED = 5, 32  # rounds and files in which that is found
AT_BEST = "at its best batch"
SELF_CHECK = "Self-check: two builds of the same network"
ALIKE = {"of": "ratio", "at_least": 0.85, "at_most": 1.15}  # farther apart, one of them was disturbed
TWENTY_MEGAPIXELS = (3648, 5472)  # px, height and width

Figures = list[dict[str, Any]]
Peaks = Mapping[str, Product]


class Possible:
    """What share of the processor's peak a network's multiply-adds are.

    Args:
        peaks: the fastest matrix product of each type, timed in the same run.
        doors: whose networks are counted.
        side: px of their input.
    """

    def __init__(self, peaks: Peaks, doors: Doors, side: int = 224):
        pixels = torch.zeros(1, 3, side, side)
        networks = {"ResNet-50": doors.timm_50, "ResNet-18": doors.timm_18, "ours": doors.ours}
        self.counts = {name: multiply_adds(network, pixels) for name, network in networks.items()}
        self.rates = {kind: peak.multiply_adds / peak.seconds for kind, peak in peaks.items()}

    def share(self, name: str, times: Sequence[float], images: int = 1, kind: str = "") -> list[float]:
        """Give the share of each round.

        Args:
            name: of the subject; one that names ResNet-50 or ResNet-18 is counted as that, others as ours.
            times: its seconds of each round.
            images: how many it saw in that time.
            kind: the type it computes in; left out, it follows from the name.
        """
        kind = kind or ("bfloat16" if "bfloat16" in name else "float32")
        count = next((count for end, count in self.counts.items() if end in name), self.counts["ours"])
        return [count * images / own / self.rates[kind] for own in times]


@torch.inference_mode()
def measure_networks(doors: Doors, possible: Possible, pixels: torch.Tensor, repeats: int) -> Figures:
    """Time the networks alone for one image and a batch, beside timm's ResNet-50 and beside what the processor can do.

    The same network as timm and as transformers build it takes the same time, unless one's neighbours disturb it.

    Args:
        pixels: (8, 3, 224, 224), as the processor gives them.
    """
    figures, checks = [], []
    for batch in (1, len(pixels)):
        networks = doors.networks(pixels[:batch])
        seconds = side_by_side(networks, repeats)
        title = "One image through the network alone" if batch == 1 else f"{batch} images through the network at once"
        for name in networks:
            times, ratio = [1e3 * value / batch for value in seconds[name]], ratios(seconds[name], seconds[TIMM_50])
            share = possible.share(name, seconds[name], batch)
            figures.append(figure(title, name, TIMM_50, ratio, times, "ms an image", possible=share))
        times, ratio = (seconds[TIMM_50], ratios(seconds[TIMM_50], seconds[TRANSFORMERS_50]))
        what = f"{TIMM_50}, {'one image' if batch == 1 else f'{batch} images at once'}"
        milliseconds = [1e3 * value / batch for value in times]
        checks.append(figure(SELF_CHECK, what, TRANSFORMERS_50, ratio, milliseconds, "ms an image", ALIKE))
    return figures + checks


@torch.inference_mode()
def measure_stages(doors: Doors, possible: Possible, jpeg: bytes, repeats: int) -> Figures:
    """Time each stage of one answer by itself, beside the whole, and the whole beside the network alone."""
    classify = doors.classify
    image = classify.read(jpeg)
    inputs = classify.preprocess(image)
    output = classify.forward(dict(inputs))
    answer = classify.postprocess(output)
    stages = {
        "decode": lambda: classify.read(jpeg),
        "resize and normalise": lambda: doors.processor(image, return_tensors="pt"),
        "network": lambda: classify.model.forward_folded(inputs["pixel_values"]),
        "postprocess": lambda: classify.postprocess(output),
        "serialise": lambda: json.dumps(answer),
        "all of it": lambda: json.dumps(classify(jpeg)),
    }
    seconds = side_by_side(stages, repeats)
    whole = seconds["all of it"]
    section = "The stages of one answer"
    figures = []
    for name in stages:
        times, beside, wanted = seconds[name], "all of it", None
        if name == "all of it":
            beside, wanted = "the network alone", {"of": "ratio", "at_most": 1.5}
        ratio = ratios(times, seconds["network"] if name == "all of it" else whole)
        share = possible.share(OURS, times) if name in ("network", "all of it") else None
        figures.append(figure(section, name, beside, ratio, [1e3 * value for value in times], "ms", wanted, share))
    return figures


def measure_latency(doors: Doors, possible: Possible, jpegs: Sequence[bytes], repeats: int) -> Figures:
    """Time one image, JPEG bytes to JSON, through each door."""
    images = itertools.cycle(jpegs)
    current = next(images)
    subjects: dict[str, Callable[[], Any]] = {
        name: lambda door=door: door(current) for name, door in doors.from_bytes().items()
    }

    def take_another() -> None:
        nonlocal current
        current = next(images)

    seconds = side_by_side(subjects, repeats, each_round=take_another)
    figures = []
    for name, times in seconds.items():
        wanted = {"of": "ratio", "at_most": 0.5} if name == OURS else None
        milliseconds, ratio = [1e3 * value for value in times], ratios(times, seconds[STOCK])
        share = possible.share(name, times)
        figures.append(figure("One image, from JPEG to JSON", name, STOCK, ratio, milliseconds, "ms", wanted, share))
    times = seconds[TIMM_50]
    milliseconds, ratio = [1e3 * value for value in times], ratios(times, seconds[STOCK])
    return [*figures, figure(SELF_CHECK, f"{TIMM_50}, from JPEG to JSON", STOCK, ratio, milliseconds, "ms", ALIKE)]


def _in_json(answers: Any) -> int:
    return sum(len(json.dumps(answer)) for answer in answers)


def find_best_batch(run: Callable[[int], Any], batches: Sequence[int] = BATCHES, rounds: int = TRIALS) -> int:
    """Give the batch with which something is quickest: of the median of some rounds, after one that does not count."""
    tried = side_by_side(
        {str(batch): lambda batch=batch: run(batch) for batch in batches}, rounds, warm_up=1, lead_in=0
    )
    return min(batches, key=lambda batch: statistics.median(tried[str(batch)]))


def measure_bulk(doors: Doors, possible: Possible, files: Sequence[Path], repeats: int) -> Figures:
    """Time many files, paths in, JSON out, as images a second.

    What has a batch is tried at several, and takes part with its quickest, which its figure keeps as ``batch``; ours has none
    to choose.
    """
    names = [str(path) for path in files]
    by_batch: dict[str, Callable[[Sequence[Path], int], Any]] = {
        STOCK: lambda files, batch: doors.stock(names_of(files), batch_size=batch),
        STOCK_OURS: lambda files, batch: doors.stock_ours(names_of(files), batch_size=batch),
    } | doors.bulk()
    few = files[:TRIED]
    best = {name: find_best_batch(lambda batch, run=run: _in_json(run(few, batch))) for name, run in by_batch.items()}
    one_by_one, at_best = f"{STOCK}, one at a time", f"{STOCK}, {AT_BEST}"
    subjects = {
        one_by_one: lambda: _in_json(doors.stock(name) for name in names),
        f"{STOCK_OURS}, one at a time": lambda: _in_json(doors.stock_ours(name) for name in names),
    }
    batches = {f"{name}, {AT_BEST}": best[name] for name in by_batch}
    for name, run in by_batch.items():
        subjects[f"{name}, {AT_BEST}"] = lambda run=run, batch=best[name]: _in_json(run(files, batch))
    subjects[OURS] = lambda: _in_json(doors.classify(iter(names)))
    subjects[f"{OURS}, float32"] = lambda: _in_json(doors.classify(iter(names), precision="float32"))
    seconds = side_by_side(subjects, repeats, warm_up=1, lead_in=0)
    figures = []
    for name in subjects:
        times = seconds[name]
        rate = [len(names) / value for value in times]
        kind = "bfloat16" if name == OURS and has_bfloat16() else "float32"
        share = possible.share(name, times, len(names), kind)
        for reference, least in ((one_by_one, 3.0), (at_best, 1.5)):
            wanted = {"of": "ratio", "at_least": least} if name == OURS else None
            ratio, unit = ratios(seconds[reference], times), "images a second"
            figures.append(figure("Many files", name, reference, ratio, rate, unit, wanted, share, batches.get(name)))
    return figures


def names_of(files: Sequence[Path]) -> Any:
    """Give the names of files as a generator, which the library's pipeline streams."""
    return (str(path) for path in files)


def build_field(images: Sequence[Image.Image], size: tuple[int, int] = TWENTY_MEGAPIXELS) -> Image.Image:
    """Lay fields side by side, every second turned about, until they fill a large one.

    Args:
        images: RGB, fields at one enlargement, all of one size.
        size: height and width of the large field, px.
    """
    height, width = size
    field = Image.new("RGB", (width, height))
    places = itertools.product(range(0, height, images[0].height), range(0, width, images[0].width))
    for number, (top, left) in enumerate(places):
        image = images[number % len(images)]
        field.paste(ImageOps.mirror(image) if number // len(images) % 2 else image, (left, top))
    return field


def field_images(data_dir: Path | None, examples: Path, number: int = 60) -> list[Image.Image]:
    """Read the first fields of a laboratory, or without one the drawn examples."""
    files = read_fields(data_dir)[0][:number] if data_dir else sorted(examples.glob("*.png"))
    images = []
    for path in files:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return [image for image in images if image.size == images[0].size]


@torch.inference_mode()
def measure_field(doors: Doors, possible: Possible, field: Image.Image, repeats: int) -> Figures:
    """Time a whole field, JPEG bytes to the answer, beside the network alone on the crops of its cells.

    Raises:
        ValueError: no cell is found in the field.
    """
    stream = io.BytesIO()
    field.save(stream, "JPEG", quality=92)
    count = doors.classify
    (answered,) = count(stream.getvalue(), one_cell=False)["images"]
    cells = answered["cells"]
    if not cells:
        raise ValueError(f"No cell was found in a field of {field.size} px; take other fields with --data_dir.")
    upright = count.read(stream.getvalue())
    crops = [count.crop(upright, cell["box"]) for cell in cells]
    pixels = torch.cat([doors.processor(crop, return_tensors="pt")["pixel_values"] for crop in crops])
    batches = pixels.split(SMALL_BATCH)
    seconds = side_by_side(
        {
            "whole": lambda: count(stream.getvalue(), one_cell=False),
            "network": lambda: [count.model.forward_folded(batch) for batch in batches],
        },
        repeats,
        warm_up=1,
        lead_in=0,
    )
    megapixels = field.width * field.height / 1e6
    what = f"a field of {megapixels:.0f} megapixels with {len(cells)} cells, JPEG to the count"
    ratio = ratios(seconds["whole"], seconds["network"])
    rate = [len(cells) / value for value in seconds["whole"]]
    section, beside = "A whole field", "the network alone on the same crops"
    share = possible.share(OURS, seconds["whole"], len(cells))
    return [
        figure(section, what, beside, ratio, seconds["whole"], "s", possible=share),
        figure(section, "its cells", beside, [1 / value for value in ratio], rate, "cells a second", possible=share),
    ]


def measure_labels(doors: Doors, files: Sequence[Path], batch: int = SMALL_BATCH) -> Mapping[str, Any]:
    """Count how often a quicker way gives the same top label as plain transformers in float32.

    Returns:
        Of each way: ``same``, ``images``, ``share`` and ``largest_difference`` of a probability.
    """
    ways = {OURS: lambda pixels: doors.classify.model.forward_folded(pixels)}
    if has_bfloat16():
        ways[f"{OURS}, several images"] = lambda pixels: _as_many(doors, pixels)
        ways[OURS_BF16] = lambda pixels: doors.classify_bf16.model.forward_folded(pixels.bfloat16())
        ways["our class, bfloat16 autocast"] = lambda pixels: _autocast(doors, pixels)
    ways["ONNX Runtime, our weights"] = lambda pixels: torch.from_numpy(
        doors.session.run(["logits"], {"pixel_values": pixels.numpy()})[0]
    )
    same, largest = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
    begun = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(files), batch):
            images = [doors.classify.read(path) for path in files[start : start + batch]]
            pixels = doors.processor(images, return_tensors="pt")["pixel_values"]
            expected = doors.stock_ours.model(pixels).logits.double().softmax(-1)
            for name, way in ways.items():
                found = way(pixels).double().softmax(-1)
                same[name] += int((found.argmax(-1) == expected.argmax(-1)).sum())
                largest[name] = max(largest[name], float((found - expected).abs().max()))
    return {
        "images": len(files),
        "seconds": round(time.perf_counter() - begun, 1),
        "ways": {
            name: {"same": same[name], "share": same[name] / len(files), "largest_difference": largest[name]}
            for name in ways
        },
    }


def _as_many(doors: Doors, pixels: torch.Tensor) -> torch.Tensor:
    """Name images as our pipeline does many files: in bfloat16, and again what that leaves open."""
    return doors.classify._forward({"pixel_values": pixels}, kind=torch.bfloat16, again=True)["logits"][:, 0]


def _autocast(doors: Doors, pixels: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return doors.classify.model(pixels).logits
