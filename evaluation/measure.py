"""Measure a model folder on labelled images through the door that most users take: plain transformers, no remote code.

Any folder that ``AutoModelForImageClassification`` loads can be measured, through the image processor that it came with.
``evaluation.summary`` shows the entry of ``eval_results.json`` that comes out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from PIL import Image
from tqdm import tqdm
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, PretrainedConfig

from evaluation.labels import label_numbers, match_labels
from evaluation.slices import Slice, slices
from evaluation.summary import summarise

COLUMNS = ("image", "label", "file", "photo")


def _check_columns(dataset: datasets.Dataset, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in dataset.column_names]
    if missing or not len(dataset):
        raise ValueError(
            f"The data set has {len(dataset)} rows and the columns {dataset.column_names}, without {missing}; expected "
            f"one row or more and the columns {list(columns)}. Rename its columns with rename_columns."
        )
    if "image" in columns and not isinstance(dataset.features["image"], datasets.Image):
        raise ValueError(
            f"The column 'image' is {dataset.features['image']}; expected datasets.Image. Use cast_column('image', "
            "datasets.Image())."
        )


def open_image(value: Mapping[str, Any], file: str | None = None) -> Image.Image:
    """Decode one undecoded ``datasets.Image`` value to RGB, turned upright as its EXIF says: what transformers' pipeline reads.

    Parameters
    ----------
    value
        ``{"path", "bytes"}``, one of them None.
    file
        What to call it in an error; None takes the path.

    Raises
    ------
    ValueError
        It cannot be read, or is not 8 bits deep.
    """
    file = file or value["path"] or "an image"
    try:
        image = datasets.Image().decode_example(dict(value))
    except (OSError, TypeError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"{file} cannot be read as an image ({error}); expected JPEG, PNG or WebP. Replace the file or leave its "
            "row out."
        ) from error
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"{file} has pixels of mode {image.mode}; expected 8 bits a channel. Scale it to 0-255 first: a plain "
            "conversion would turn most of it white."
        )
    return image.convert("RGB")


def load_config(folder: Path | str) -> PretrainedConfig:
    """Read the configuration of the model in ``folder``, without running code from there.

    Raises
    ------
    FileNotFoundError
        The folder holds no model.
    ValueError
        A kind of model that this transformers does not know or that needs code of its own, or one whose answers do not
        exclude each other.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder written by save_pretrained. For a model on the Hub, "
            "pass what huggingface_hub.snapshot_download returns."
        )
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise _unloadable(folder, error) from error
    if config.problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"The model in {folder} is for {config.problem_type}; expected single_label_classification, whose "
            "probabilities sum to 1. Measure a model that names one class."
        )
    if config.model_type == "timm_wrapper" and config.model_args:
        # timm writes the number of classes among these, too, and transformers then hands it over twice.
        config.model_args = {name: value for name, value in config.model_args.items() if name != "num_classes"}
    return config


def _unloadable(folder: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{folder} cannot be loaded by transformers {transformers.__version__} alone: {' '.join(str(error).split())} Expected "
        "an image classifier of the library with its image processor; code that comes with a model (trust_remote_code) is "
        "not run here. Save it as a class of the library, or compute probabilities yourself and measure those with "
        "evaluation.summary.summarise."
    )


def load_model(folder: Path | str) -> tuple[torch.nn.Module, Any]:
    """Load the model in ``folder``, in float32 and evaluation mode, and the image processor that came with it.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``load_config``; also weights that do not fit the configuration, and a processor that is missing.
    """
    config, folder = load_config(folder), Path(folder)
    try:
        model, report = AutoModelForImageClassification.from_pretrained(
            folder, config=config, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise _unloadable(folder, error) from error
    # The library draws missing tensors at random and goes on.
    faults = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(faults.values()):
        raise ValueError(
            f"The weights in {folder} do not fit its config.json: {faults}; expected every tensor once. Save the model "
            "again with save_pretrained."
        )
    return model.eval(), processor


@torch.inference_mode()
def read_logits(
    folder: Path | str,
    pictures: Iterable[Image.Image],
    total: int | None,
    task: str,
    batch_size: int = 64,
    device: str | None = None,
) -> np.ndarray:
    """Show pictures to the model in ``folder``, one batch at a time. Arithmetic is float32, without TF32 on a GPU.

    Parameters
    ----------
    folder
        A model as ``save_pretrained`` leaves it: config.json, preprocessor_config.json, model.safetensors.
    pictures
        RGB, of any sizes.
    total, task
        How many there will be, None where that is not known, and what the progress bar says.
    batch_size
        Pictures at a time.
    device
        ``"cpu"``, ``"cuda"``, ...; None takes a GPU if there is one.

    Returns
    -------
    numpy.ndarray
        Logits, (N, classes) float32, columns in the order of the model's ``id2label``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``load_model``; no picture.
    """
    model, processor = load_model(folder)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    pictures, logits = iter(pictures), []
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee")
    with exact, tqdm(total=total, desc=task, unit="image") as bar:
        while batch := list(islice(pictures, batch_size)):
            pixel_values = processor(images=batch, return_tensors="pt")["pixel_values"]  # (B, 3, H, W)
            logits.append(model(pixel_values=pixel_values.to(device, torch.float32)).logits.cpu().numpy())
            bar.update(len(batch))
    if not logits:
        raise ValueError(f"No picture came for {task!r}; expected one or more. Look at where they are taken from.")
    return np.concatenate(logits)  # (N, classes)


def predict(
    folder: Path | str, dataset: datasets.Dataset, batch_size: int = 64, device: str | None = None
) -> np.ndarray:
    """Classify every image of a data set with the model in ``folder``.

    The images are read one batch at a time, so memory does not grow with the data set.

    Parameters
    ----------
    folder, batch_size, device
        As in ``read_logits``.
    dataset
        With the columns ``image`` (``datasets.Image``, decoded or not) and ``file``.

    Returns
    -------
    numpy.ndarray
        Probabilities, (N, classes) float32, columns in the order of the model's ``id2label``.

    Raises
    ------
    FileNotFoundError
        The folder holds no model.
    ValueError
        A model that ``load_model`` refuses, missing columns, an image that cannot be read or is not 8 bits deep.
    """
    _check_columns(dataset, ("image", "file"))
    rows = (
        dataset.with_format(None).select_columns(["image", "file"]).cast_column("image", datasets.Image(decode=False))
    )
    images = (open_image(row["image"], row["file"]) for row in rows)
    logits = read_logits(folder, images, len(rows), f"classifying with {Path(folder).name}", batch_size, device)
    return torch.from_numpy(logits).softmax(dim=-1).numpy()


@dataclass(frozen=True)
class Answered:
    """What a model answered about a data set, row by row.

    Attributes
    ----------
    labels
        Name of each answer.
    probabilities
        (N, answers) float32.
    references
        The right answer, (N,) int64.
    photos, groups
        The photo that each image was made from, and its group of photos that show the same cells, (N,).
    threshold
        Least top probability of an answer that the model's own pipeline accepts, from its ``config.json``; None where it
        carries none.
    """

    labels: list[str]
    probabilities: np.ndarray
    references: np.ndarray
    photos: list[str]
    groups: list[str]
    threshold: float | None = None

    def part(self, rows: np.ndarray) -> "Answered":
        """Take rows by their numbers."""
        photos, groups = ([names[row] for row in rows] for names in (self.photos, self.groups))
        return Answered(self.labels, self.probabilities[rows], self.references[rows], photos, groups, self.threshold)


def answer(
    folder: Path | str,
    dataset: datasets.Dataset,
    label_map: Mapping[str, str] | None = None,
    batch_size: int = 64,
    device: str | None = None,
) -> Answered:
    """Classify every image of a labelled data set, in the data set's terms.

    Parameters
    ----------
    folder, batch_size, device
        As in ``predict``.
    dataset
        With the columns ``image``, ``label`` (``datasets.ClassLabel``), ``file``, ``photo`` (that an image was made from)
        and, where photos show the same cells, ``group``.
    label_map
        As in ``evaluation.labels.match_labels``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``predict``, ``evaluation.labels.match_labels`` and ``evaluation.labels.label_numbers``.
    """
    config = load_config(folder)
    _check_columns(dataset, COLUMNS)
    labels, names = label_numbers(dataset)
    answers = match_labels(config.id2label, names, set(labels), label_map)  # before the long part
    references = np.array([answers.answer_of_label[label] for label in labels], np.int64)
    photos = dataset["photo"][:]
    groups = dataset["group"][:] if "group" in dataset.column_names else photos
    probabilities = answers.merge(predict(folder, dataset, batch_size, device))
    # Of answers that several classes were added up to, the model's own pipeline knows nothing.
    merged = len(answers.names) != config.num_labels
    threshold = None if merged else getattr(config, "acceptance_threshold", None)
    return Answered(answers.names, probabilities, references, photos, groups, threshold)


def summarise_slice(answered: Answered, part: Slice, name: str, **bootstrap: Any) -> dict[str, Any]:
    """Turn the answers about a slice into an entry of ``eval_results.json``; ``bootstrap`` as in ``summarise``."""
    rows = answered.part(part.rows)
    return summarise(
        rows.probabilities, rows.references, rows.photos, rows.labels, name, part.title,
        groups=rows.groups, left_out=part.left_out, threshold=rows.threshold, **bootstrap,
    )  # fmt: skip


def measure(
    folder: Path | str,
    dataset: datasets.Dataset,
    name: str,
    split: str,
    batch_size: int = 64,
    device: str | None = None,
    **bootstrap: Any,
) -> dict[str, Any]:
    """Measure the model in ``folder`` on a data set: one entry of ``eval_results.json``.

    Parameters
    ----------
    folder, dataset, batch_size, device
        As in ``answer``.
    name, split
        What is measured, for instance ``"blood-cells"`` and ``"TEST"``.
    **bootstrap
        ``resamples``, ``level`` and ``seed``, as in ``evaluation.summary.summarise``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``answer`` and ``summarise``.
    """
    answered = answer(folder, dataset, None, batch_size, device)
    return summarise_slice(answered, Slice(split, np.arange(len(dataset))), name, **bootstrap)


def measure_slices(
    folder: Path | str, splits: Mapping[str, datasets.Dataset], split: str, name: str, **options: Any
) -> list[dict[str, Any]]:
    """Measure the model in ``folder`` on a split and its slices: entries of ``eval_results.json``, the whole one first.

    Parameters
    ----------
    folder
        As in ``answer``.
    splits, split
        As in ``evaluation.slices.slices``.
    name
        What the data set is called.
    **options
        ``resamples``, ``level`` and ``seed``, as in ``evaluation.summary.summarise``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``answer`` and ``summarise``.
    """
    answered = answer(folder, splits[split])
    return [summarise_slice(answered, part, name, **options) for part in slices(splits, split)]
