"""Measure the recipe of train.py in laboratories it has never seen: each left out in turn, learnt from the others.

    python leave_one_out.py --data_dir blood-cells pbc raabin chula \
        --labels eosinophil lymphocyte monocyte neutrophil basophil other \
        --label_map ig=other erythroblast=other platelet=other

trains a network for each laboratory on the other ones and names its cells, with no label of it used: once with the plain
weights and once with batch-norm statistics re-estimated from its unlabelled images. Of the Kaggle archive the photos of
TRAIN are named, never its test images. Killed and started again, it goes on where it stopped. ``--leave_out pbc`` runs some
of the laboratories only. Options of train.py may follow.
"""

import argparse
import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch

from evaluation.labels import read_label_map
from evaluation.measure import load_model, open_image
from evaluation.results import FILE_NAME, read_results, write_text
from evaluation.summary import summarise
from smears.laboratories import cut_cells, load_laboratory, rename_classes
from training.finish import refresh_statistics

ROOT = Path(__file__).parent
RESULTS = "leave_one_out.json"
UNLABELLED = 512  # images at most that the statistics are re-estimated from
PER_CLASS = 200  # images at most of a class; the classes count alike
BATCH = 64
logger = logging.getLogger("leave_one_out")


def unseen_cells(data_dir: Path, labels: Sequence[str], label_map: dict[str, str]) -> datasets.Dataset:
    """Load the images of a laboratory that nothing was learnt from, as a user would have them, under the common names."""
    data = rename_classes(load_laboratory(data_dir)["train"], labels, label_map)
    rng = np.random.default_rng(0)
    numbers, rows = np.array(data["label"][:]), []
    for label in sorted(set(numbers.tolist())):
        of_class = np.flatnonzero(numbers == label)
        rows += rng.choice(of_class, min(PER_CLASS, len(of_class)), replace=False).tolist()
    return cut_cells(data.select(sorted(rows)))


@torch.inference_mode()
def name_cells(model: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray:
    """Name images (N, 3, H, W): probabilities (N, classes)."""
    model.eval()
    return torch.cat([model(pixel_values=batch).logits.softmax(-1) for batch in pixels.split(BATCH)]).numpy()


def measure_unseen(
    folder: Path, data: datasets.Dataset, lab: str, labels: Sequence[str], negatives: str | None
) -> dict:
    """Measure a network on a laboratory it has not seen, plain and with statistics re-estimated from unlabelled images.

    Classes that only ``negatives`` names are left out: a laboratory of single white cells has none, and they do not count.
    """
    model, processor = load_model(folder)
    images = (open_image(value) for value in data["image"])
    pixels = torch.cat([processor(images=[image], return_tensors="pt")["pixel_values"] for image in images])
    answers = {"plain": name_cells(model, pixels)}
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:UNLABELLED]
    refresh_statistics(model, pixels[chosen].split(BATCH))
    answers["re-estimated"] = name_cells(model, pixels)
    references = np.array(data["label"][:])
    counted = np.flatnonzero(references != (labels.index(negatives) if negatives else -1))
    photos, groups = ([data[name][row] for row in counted] for name in ("photo", "group"))
    return {
        way: summarise(
            probabilities[counted], references[counted], photos, list(labels), lab, f"unseen, {way}", groups=groups
        )
        for way, probabilities in answers.items()
    }


def main() -> None:
    """Train and measure for each laboratory, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="a folder for each laboratory")
    parser.add_argument("--labels", nargs="+", required=True, help="the classes, in their order")
    parser.add_argument("--label_map", nargs="+", default=[], help="FOLDER=CLASS: folders that are one class")
    parser.add_argument("--negatives", help="the class that also says 'no white cell here'; not counted")
    parser.add_argument("--leave_out", nargs="+", help="names of the folders to leave out, in turn; without: each")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/leave-one-out"), help="a folder for each comes here"
    )
    options, for_training = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    folders = {folder.resolve().name: folder for folder in options.data_dir}
    try:
        label_map = read_label_map(options.label_map)
        found = {}
        for lab in options.leave_out or folders:
            if lab not in folders:
                parser.error(f"--leave_out {lab}: expected some of {', '.join(folders)}")
            run = options.output_dir / lab
            if not (run / "model" / FILE_NAME).is_file():
                others = [str(folder) for name, folder in folders.items() if name != lab]
                command = [sys.executable, str(ROOT / "train.py"), "--data_dir", *others, "--labels", *options.labels]
                command += ["--label_map", *options.label_map] if options.label_map else []
                command += ["--negatives", options.negatives] if options.negatives else []
                command += ["--output_dir", str(run), "--measure_splits", "validation", *for_training]
                logger.info("%s is left out: training on the others", lab)
                subprocess.run(command, check=True)
            data = unseen_cells(folders[lab], options.labels, label_map)
            found[lab] = measure_unseen(run / "model", data, lab, options.labels, options.negatives)
            found[lab]["training"] = read_results(run / "model" / FILE_NAME)["training"]
            figures = {
                way: found[lab][way]["metrics"]["balanced_accuracy"]["value"] for way in ("plain", "re-estimated")
            }
            logger.info("%s, unseen: balanced accuracy %s", lab, figures)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: train.py ended with status {error.returncode}; what it said stands above")
    report = {"command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]), "laboratories": found}
    write_text(options.output_dir / RESULTS, json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
