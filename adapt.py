"""Fit a model to another laboratory's stain and camera with unlabelled images: only the batch-norm statistics change.

    python adapt.py hub_model --images their_cells --check                   # how far are these images from those learnt from?
    python adapt.py hub_model --images their_cells --out runs/adapted        # a model folder for them
    python adapt.py hub_model --images their_cells --out runs/adapted --share 0.5

The images show the cells as they come, in folders of any depth; no label is read. The classes should be mixed as they will
be in use: a folder of neutrophils alone would make the model see something else in them. On images like those that the
model has learnt from new statistics do harm rather than good; a rule that needs no labels (the model's ``suggest_share``) says
which share to take, if any. Measure afterwards where there are labels: python validate.py runs/adapted --data_dir
labelled_cells
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evaluation.measure import load_config, load_model, open_image
from evaluation.results import weights_sha256, write_text
from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification
from smears.loading import IMAGE_ENDINGS, DataError, check_image

RECORD = "adaptation.json"
WEIGHTS = "model.safetensors"
# Of the weights that are replaced: they would be loaded in the new ones' place, or give the old answers.
OLD_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.onnx", "*.onnx.data")
BATCH = 64  # images at a time, at most
FEW = 32  # a judgement: with fewer images a single odd one moves the statistics of the last layers
logger = logging.getLogger("adapt")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("model", type=Path, help="the model's folder; of a model on the Hub: hf download ID --local-dir FOLDER")
    add("--images", type=Path, required=True, help="folder of unlabelled images, of any depth")
    add("--out", type=Path, help="the adapted model goes into this new folder")
    add("--share", type=float, help="of the new statistics, 0 to 1; left out: as the rule says, which needs no labels")
    add("--limit", type=int, default=512, help="images at most, chosen at random")
    add("--check", action="store_true", help="only report; write nothing")
    options = parser.parse_args(argv)
    if options.out is None and not options.check:
        parser.error("name a folder for the adapted model, --out FOLDER, or --check to write none")
    if options.share is not None and not 0 <= options.share <= 1:
        parser.error(
            f"--share {options.share}: expected a number from 0 (nothing changes) to 1 (all statistics are new)"
        )
    if options.limit < 1:
        parser.error(f"--limit {options.limit}: expected 1 image or more")
    return options


def find_images(folder: Path, limit: int) -> list[Path]:
    """Choose at most ``limit`` images of a folder and those inside it, the same at every call, and check each.

    Raises
    ------
    DataError
        (a ValueError) No folder, no image in it, or an image that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder. Name the one that holds the images.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.name[0] != ".")
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_ENDINGS))}). Name the folder that does.")
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = [files[number] for number in order[:limit]]
    for path in tqdm(chosen, desc="reading images", unit="image"):
        if not path.is_file():
            raise DataError(f"{path} is no file, or a link to nothing. Fetch or remove it.")
        check_image(str(path), path.read_bytes())
    return chosen


def read_batches(files: Sequence[Path], processor: Callable, task: str) -> Iterator[torch.Tensor]:
    """Yield the images as batches (B, 3, H, W) of nearly the same size, in the order given."""
    sizes = [len(part) for part in torch.arange(len(files)).tensor_split(-(-len(files) // BATCH))]
    start = 0
    with tqdm(total=len(files), desc=task, unit="image") as bar:
        for size in sizes:
            images = [open_image({"path": str(path), "bytes": None}) for path in files[start : start + size]]
            yield processor(images=images, return_tensors="pt")["pixel_values"]
            start += size
            bar.update(size)


@torch.inference_mode()
def describe_answers(
    model: WbcResNetForImageClassification, batches: Sequence[torch.Tensor]
) -> tuple[dict[str, int], float]:
    """Give how often each answer comes, the most frequent first, and the mean probability of the likeliest class."""
    counts, confidence = Counter(), 0.0
    for batch in batches:
        logits = model(pixel_values=batch).logits.double()
        for probabilities, energy in zip(logits.softmax(-1), model.energy(logits), strict=True):
            counts[model.decide(probabilities, float(energy))[0]] += 1
            confidence += float(probabilities.max())
    return dict(counts.most_common()), confidence / counts.total()


def as_line(answers: tuple[dict[str, int], float]) -> str:
    """Write what ``describe_answers`` gives for the screen."""
    counts, confidence = answers
    return f"{', '.join(f'{count} {name}' for name, count in counts.items())}; mean confidence {confidence:.3f}"


def advice(share: float) -> str:
    """Say what the rule of ``suggest_share`` found."""
    if share == 1:
        return "The images lie far from those learnt from: all statistics new is likely to help (--share 1)."
    if share:
        return (
            f"With a part of them new the network is no less sure: {share:g} new is likely to help (--share {share:g})."
        )
    return "The images are like those learnt from, and new statistics are likely to harm: keep the model (--share 0)."


def load(folder: Path) -> tuple[WbcResNetForImageClassification, Callable]:
    """Load a folder's network, as our class, and its image processor.

    Raises
    ------
    FileNotFoundError, ValueError
        The folder holds no model, or one that is not this network.
    """
    kind = load_config(folder).model_type
    if kind != "resnet":
        raise ValueError(
            f"The model in {folder} is of the kind {kind!r}; expected a ResNet that this project has trained."
        )
    _, processor = load_model(folder)  # it refuses weights that do not fit
    return WbcResNetForImageClassification.from_pretrained(folder, dtype=torch.float32).eval(), processor


def claim(model: Path, out: Path) -> None:
    """Make sure that the adapted model overwrites nothing.

    Raises
    ------
    ValueError
        ``out`` is the model's own folder or inside it, or is not empty.
    """
    source, target = model.resolve(), out.resolve()
    if target == source or source in target.parents:
        raise ValueError(f"--out {out} is the model's own folder, or inside it; expected another. Name a new one.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"--out {out} exists and is not empty; expected a new folder. Remove it, or name another.")


def write_folder(model: WbcResNetForImageClassification, source: Path, out: Path, record: dict[str, Any]) -> None:
    """Write ``source`` with the weights of ``model`` and the record of the adaptation as ``out``, all or nothing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as unfinished:
        folder, saved = Path(unfinished) / "model", Path(unfinished) / "saved"
        left_out = shutil.ignore_patterns(*OLD_WEIGHTS, "onnx", ".git", ".cache", "__pycache__")
        shutil.copytree(source, folder, ignore=left_out)
        if exported := sorted(path.name for path in source.rglob("*.onnx")):
            logger.warning("%s would give the old answers and is left out: export the adapted model anew", exported[0])
        # Only the weights are taken: config.json names the classes of both doors, which the library would change.
        model.save_pretrained(saved)
        shutil.move(saved / WEIGHTS, folder / WEIGHTS)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.pop("validation_confusion", None) is not None:  # the errors of the old statistics
            write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        if out.exists():
            out.rmdir()  # empty, as claim has seen
        folder.rename(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the distance, re-estimate, compare the answers, write the folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    options = parse(argv)
    try:
        if not options.check:
            claim(options.model, options.out)
        model, processor = load(options.model)
        files = find_images(options.images, options.limit)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")

    if len(files) < FEW:
        logger.warning(
            "%d images are few: give more, or keep some of the old statistics with --share below 1", len(files)
        )

    read = list(read_batches(files, processor, "preparing images"))
    distance, suggested = model.statistics_distance(read), model.suggest_share(read)
    share = suggested if options.share is None else options.share
    before = describe_answers(model, read)
    model.reestimate_statistics(read, share)
    after = describe_answers(model, read)
    print(f"{len(files)} images of {options.images}")
    print(f"distance from the statistics of {options.model}: {distance:.3f}")
    print(advice(suggested))
    print(f"answers before: {as_line(before)}")
    print(f"answers with {share:g} new: {as_line(after)}")
    if options.check:
        return
    if not share:
        sys.exit(
            "nothing is written: the model stays as it is. To have the statistics re-estimated all the same, name a --share."
        )
    record = {
        "images": len(files),
        "share": share,
        "suggested_share": suggested,
        "distance": distance,
        "sha256_before": weights_sha256(options.model),
    }
    if (options.model / RECORD).is_file():
        record["before"] = json.loads((options.model / RECORD).read_text(encoding="utf-8"))
    write_folder(model, options.model, options.out, record)
    print(
        f"The adapted model stands in {options.out}. What its config.json and its card say was measured before it was adapted."
    )


if __name__ == "__main__":
    main()
