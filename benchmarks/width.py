"""Training images a second, of one process and of two, and of what feeds them. Started by ``speed.py``, also under torchrun.

python -m benchmarks.width --images FOLDER --batch 16 --side 128 --steps 10 --out one.json
torchrun --nproc_per_node 2 -m benchmarks.width --images FOLDER --batch 8 --side 128 --steps 10 --out two.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, TrainerCallback, TrainingArguments

from benchmarks.timing import figure, ratios
from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification
from smears.loading import load_folder
from training.trainer import EmaTrainer
from training.views import GrowingResolution, TrainingDraws

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 3  # steps that are not counted


class StepTimes(TrainerCallback):
    """Keep the time at the end of each step."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def train(options: argparse.Namespace) -> dict[str, Any] | None:
    """Train a few steps from scratch in float32; the first process gives what it measured."""
    data = load_folder(options.images)["train"]
    names = data.features["label"].names
    processor = AutoImageProcessor.from_pretrained(ROOT / "hub_model")
    size = options.batch * (options.steps + WARM_UP) * int(os.environ.get("WORLD_SIZE", 1))
    draws = TrainingDraws(data, processor, GrowingResolution((options.side,), (1,)), size)
    draws.fill_cache()
    begun = time.perf_counter()
    for number in range(options.draws):
        draws[number % size]
    draws_per_second = options.draws / (time.perf_counter() - begun) if options.draws else None
    config = WbcResNetConfig(id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    torch.manual_seed(0)
    model = WbcResNetForImageClassification(config).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as place:
        arguments = TrainingArguments(
            output_dir=place,
            num_train_epochs=1,
            per_device_train_batch_size=options.batch,
            learning_rate=1e-3,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        times = StepTimes()
        trainer = EmaTrainer(model=model, args=arguments, train_dataset=draws, callbacks=[times])
        trainer.train()
    steps = [later - earlier for earlier, later in pairwise(times.ends)][WARM_UP - 1 :]
    images = options.batch * arguments.world_size
    if not trainer.is_world_process_zero():
        return None
    return {
        "processes": arguments.world_size,
        "threads": torch.get_num_threads(),
        "images_per_second": images / statistics.median(steps),
        "draws_per_second": draws_per_second,
    }


def _start(images: Path, out: Path, processes: int, threads: int, batch: int, **numbers: int) -> dict[str, Any]:
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *start, "-m", "benchmarks.width", "--images", str(images), "--out", str(out)]
    command += ["--batch", str(batch // processes)]
    command += [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"Training in {processes} processes failed: {done.stderr[-2000:]}")
    return json.loads(out.read_text(encoding="utf-8"))


def measure_width(images: Path, repeats: int, batch: int = 40, side: int = 128, steps: int = 5) -> list[dict[str, Any]]:
    """Time training with one thread, with two, and with two processes of one, the same images in a step of each."""
    runs: dict[str, list[dict[str, Any]]] = {"one": [], "threads": [], "two": []}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(repeats):
            for name, processes, threads in (("one", 1, 1), ("threads", 1, 2), ("two", 2, 1)):
                options = {"side": side, "steps": steps, "draws": 100 if name == "one" else 0}
                runs[name].append(_start(images, Path(place) / "out.json", processes, threads, batch, **options))
    rates = {name: [run["images_per_second"] for run in kept] for name, kept in runs.items()}
    draws = [run["draws_per_second"] for run in runs["one"]]
    section = f"Training at {side} px, {batch} images a step"
    one, unit = "one process with one thread", "images a second"
    return [
        figure(section, "two processes with one thread each", one, ratios(rates["two"], rates["one"]), rates["two"], unit),
        figure(section, "one process with two threads", one, ratios(rates["threads"], rates["one"]), rates["threads"], unit),
        figure(section, "images drawn and augmented by one process", one, ratios(draws, rates["one"]), draws, unit),
    ]  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, a folder for each class")
    parser.add_argument("--batch", type=int, required=True, help="images of a step in each process")
    parser.add_argument("--side", type=int, default=128, help="input side, px")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    parser.add_argument("--draws", type=int, default=0, help="images drawn alone, without training, to time that")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    measured = train(options)
    if measured is not None:
        options.out.write_text(json.dumps(measured) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
