"""Training on an accelerator: images a second, as a share of its peak, and whether what draws the images keeps up.

    python -m benchmarks.accelerator --packed FOLDER --out benchmarks/accelerator.json --page benchmarks/accelerator.md
    python -m benchmarks.accelerator --render_only --out benchmarks/accelerator.json --page benchmarks/accelerator.md

``FOLDER`` is what ``train.py --pack_to`` writes. All in one run, in bfloat16: a network's training step alone, ours and timm's
ResNet-50, on pixels that lie there; our Trainer with images drawn on the device; the same with images drawn on the host, which
is the library's plain loop; and what the drawing alone gives.
"""

import argparse
import json
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import timm
import torch
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, TrainingArguments

from benchmarks.subjects import multiply_adds
from benchmarks.table import compare_conditions, compare_figures, reported, source_commit, tables
from benchmarks.timing import cores, figure, ratios
from benchmarks.width import StepTimes
from evaluation.results import environment, hardware, without_folders
from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification
from training.augment import Augmentation
from training.device_views import DevicePhotos, PlannedDraws, Planner, collate
from training.packing import read_pack
from training.trainer import EmaTrainer
from training.views import GrowingResolution, TrainingDraws

ROOT = Path(__file__).resolve().parent.parent
MATRIX = 8192
PASSES = 3  # of a training step: forward, and backward for activations and for weights
WARM_UP = 4
FED = {"of": "ratio", "at_least": 0.95}  # of the network's rate with pixels at hand: below, what loads starves it


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packed", type=Path, help="a folder that train.py --pack_to wrote")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="the Markdown page to write")
    parser.add_argument("--compare", type=Path, help="an earlier JSON file: say what moved (default: what --out held)")
    parser.add_argument("--render_only", action="store_true", help="measure nothing; render --page from --out as it is")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=224, help="px")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed; of the host's loop a third")
    parser.add_argument("--workers", type=int, default=max(1, cores() - 2), help="processes that plan or draw")
    parser.add_argument("--device", default="cuda")
    found = parser.parse_args(arguments)
    if found.render_only and not found.page:
        parser.error("--render_only renders --page: name it")
    if not (found.render_only or found.packed):
        parser.error("--packed is missing: a folder that train.py --pack_to wrote")
    return found


def time_steps(step: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Give the seconds of each repeat of a step, each waited for."""
    seconds = []
    for number in range(WARM_UP + repeats):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - begun)
    return seconds


def training_step(network: torch.nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Give one training step on pixels that are on the device already."""
    optimiser = torch.optim.AdamW(network.parameters(), fused=pixels.is_cuda)
    network.train()

    def step() -> None:
        with torch.autocast(pixels.device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(pixels), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def ahead(options: argparse.Namespace) -> int:
    """Count the batches that workers make ahead; steps fed by them would say nothing of what lasts."""
    return 2 * options.workers


def build(names: list[str]) -> WbcResNetForImageClassification:
    """Build our network for these classes."""
    config = WbcResNetConfig(id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    return WbcResNetForImageClassification(config)


def loop(draws: TrainingDraws, photos: DevicePhotos | None, options: argparse.Namespace, steps: int) -> list[float]:
    """Give the seconds of each step of our Trainer from scratch."""
    model = build(draws.names).to(memory_format=torch.channels_last)
    skipped = WARM_UP + ahead(options)
    draws.size = options.batch * (steps + skipped)
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place, num_train_epochs=1, per_device_train_batch_size=options.batch, bf16=True,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            remove_unused_columns=False, label_names=["labels"], dataloader_num_workers=options.workers,
            use_cpu=options.device == "cpu", dataloader_pin_memory=options.device != "cpu",
        )  # fmt: skip
        times = StepTimes()
        trainer = EmaTrainer(
            model=model, args=arguments, train_dataset=draws, data_collator=collate, draw=photos, callbacks=[times]
        )
        trainer.train()
    return [later - earlier for earlier, later in pairwise(times.ends)][skipped - 1 :]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all of it; give figures as ``benchmarks.timing.figure``."""
    pack, device = read_pack(options.packed), torch.device(options.device)
    processor = AutoImageProcessor.from_pretrained(ROOT / "hub_model")
    resolution, size = (
        GrowingResolution((options.side,), (1,)),
        options.batch * (options.steps + WARM_UP + ahead(options)),
    )
    planned = PlannedDraws(pack.fit, processor, resolution, size, Planner())
    drawn = TrainingDraws(pack.fit, processor, resolution, size, Augmentation())
    decoded = planned.fill_cache()  # forks, before the device is touched
    drawn.fill_cache()
    for draws in (planned, drawn):
        draws.names = pack.fit.features["label"].names
    loader = DataLoader(planned, options.batch, num_workers=options.workers, collate_fn=collate)
    begun, ends = time.perf_counter(), []
    for batch in loader:  # noqa: B007
        ends.append(time.perf_counter() - begun)
    window = max(1, options.workers)  # batches come in bursts of as many as there are workers
    plans = [(later - earlier) / window for earlier, later in zip(ends, ends[window:], strict=False)][::window]
    photos = DevicePhotos(decoded, processor.image_mean, processor.image_std, device)
    batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    pixels = photos(batch)["pixel_values"]
    labels = batch["labels"].to(device)
    side = MATRIX if device.type == "cuda" else 512
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    products = time_steps(lambda: matrix @ matrix.T, device, options.steps)
    peak = [len(matrix) ** 3 / seconds for seconds in products]  # multiply-adds a second
    ours = build(planned.names).network.to(device, memory_format=torch.channels_last)
    theirs = timm.create_model("resnet50", num_classes=len(planned.names)).to(device, memory_format=torch.channels_last)
    work = {name: multiply_adds(net, pixels[:1]) for name, net in (("ours", ours), ("theirs", theirs))}
    alone = {
        name: time_steps(training_step(net, pixels, labels), device, options.steps)
        for name, net in (("theirs", theirs), ("ours", ours))
    }
    images = {name: [options.batch / seconds for seconds in found] for name, found in alone.items()}
    shows = [options.batch / seconds for seconds in time_steps(lambda: photos(batch), device, options.steps)]
    on_device = [options.batch / seconds for seconds in loop(planned, photos, options, options.steps)]
    on_host = [options.batch / seconds for seconds in loop(drawn, None, options, max(3, options.steps // 3))]

    def fitted(values: list[float], number: int) -> list[float]:
        return (values * number)[:number]

    def entry(what: str, values: list[float], beside: str, other: list[float], **more: Any) -> dict[str, Any]:
        ratio = ratios(values, fitted(other, len(values)))
        return figure(f"Training at {options.side} px, {options.batch} images a step, bfloat16", what, beside, ratio, values,
                      "images a second", **more)  # fmt: skip

    rows = [
        entry("our network, pixels at hand", images["ours"], "timm's ResNet-50, pixels at hand", images["theirs"]),
        entry(
            "our Trainer, images drawn on the device",
            on_device,
            "our network, pixels at hand",
            images["ours"],
            wanted=FED,
        ),
        entry(
            "our Trainer, images drawn on the device", on_device, "timm's ResNet-50, pixels at hand", images["theirs"]
        ),
        entry(
            "the Trainer's plain loop, images drawn on the host", on_host, "our network, pixels at hand", images["ours"]
        ),
        entry("drawing on the device alone", shows, "our network, pixels at hand", images["ours"]),
        entry("planning alone", [options.batch / s for s in plans], "our network, pixels at hand", images["ours"]),
    ]
    for name, what in (("ours", "our network"), ("theirs", "timm's ResNet-50")):
        done = [PASSES * work[name] * value / 1e12 for value in images[name]]
        rows.append(
            figure(
                "Multiply-adds of a training step, as a share of the peak",
                what,
                f"product of two {len(matrix)}x{len(matrix)} matrices, bfloat16",
                ratios(done, [value / 1e12 for value in fitted(peak, len(done))]),
                done,
                "10^12 a second",
            )  # fmt: skip
        )
    return rows


def compare(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Say which ratios moved by more than a tenth, and what else is another."""
    told = compare_conditions("another machine", new["machine"], old["machine"], "; ratios may differ for that")
    told += compare_conditions("another version", new["versions"], old["versions"])
    return told + compare_figures(new["figures"], old["figures"])


def page(report: dict[str, Any]) -> str:
    """Render a report as Markdown."""
    machine = report["machine"]
    lines = [
        "# Training on an accelerator", "",
        "Rendered by `python -m benchmarks.accelerator --render_only` from `accelerator.json`. A ratio divides what was",
        "measured in the same run; shown are median and, in brackets, quartiles.", "",
        f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores, {machine['workers']} processes that plan or draw; "
        + ", ".join(f"{name} {report['versions'][name]}" for name in ("torch", "transformers", "timm"))
        + f"; commit {report['commit'][:12]}, `{report['command']}`.", "",
    ]  # fmt: skip
    if report.get("note"):
        lines += [report["note"], ""]
    return "\n".join(lines + tables(report["figures"]))


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the figures."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    cv2.setNumThreads(1)
    options = parse(arguments)
    if options.render_only:
        options.page.write_text(page(json.loads(options.out.read_text(encoding="utf-8"))), encoding="utf-8")
        return
    commit = source_commit(ROOT)
    try:
        earlier = reported(options.compare or options.out, needed=options.compare is not None)
        figures = measure(options)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    report = {
        "command": without_folders(shlex.join(["python", "-m", "benchmarks.accelerator", *sys.argv[1:]])),
        "commit": commit,
        "machine": hardware(options.device) | {"cores": cores(), "workers": options.workers},
        "versions": environment(),
        "figures": figures,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.page:
        options.page.write_text(page(report), encoding="utf-8")
    for one in figures:
        print(
            f"{one['what']}: {one['value']['median']:.4g} {one['unit']}, {one['ratio']['median']:.3g} of {one['beside']}"
        )
    if earlier is not None:
        for line in compare(report, earlier) or ["nothing moved by more than a tenth"]:
            print(line)


if __name__ == "__main__":
    main()
