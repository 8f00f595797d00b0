"""Measure a model folder on labelled images through the door that most users take: plain transformers, no remote code.

``measure`` gives one entry of ``eval_results.json``::

    {"dataset": "Kaggle blood-cells", "split": "TEST", "n_images": ..., "n_photos": ...,
     "interval": {"level": 0.95, "resamples": 2000, "seed": 0, "unit": "photo"},
     "metrics": {"accuracy": {"value": ..., "low": ..., "high": ...}, "balanced_accuracy": {...}, "macro_f1": {...},
                 "ece": {...}, "nll": {...}},
     "recall": {"monocyte": {"value": ..., "low": ..., "high": ..., "n": images, "n_photos": photos}, ...},
     "labels": ["eosinophil", ...], "confusion_matrix": [[...], ...],
     "photo_level": {"accuracy": {"value": ..., "low": ..., "high": ...}, "balanced_accuracy": {...},
                     "n_correct": ..., "n_photos": ..., "confusion_matrix": [[...], ...]}}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from evaluation.intervals import binomial_interval, group_bootstrap
from evaluation.metrics import check_predictions, statistics
from evaluation.results import DECIMALS, METRICS

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


def _load(folder: Path) -> tuple[torch.nn.Module, Any]:
    """Load model and image processor from a folder, refusing weights that do not fit."""
    model, report = AutoModelForImageClassification.from_pretrained(
        folder, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    # The library draws missing tensors at random and goes on.
    faults = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(faults.values()):
        raise ValueError(
            f"The weights in {folder} do not fit its config.json: {faults}; expected every tensor once. Save the model "
            "again with save_pretrained."
        )
    return model.eval(), AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)


def _require_folder(folder: Path | str) -> Path:
    if not Path(folder, "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; expected a folder written by save_pretrained. For a model on the Hub, "
            "pass what huggingface_hub.snapshot_download returns."
        )
    return Path(folder)


@torch.inference_mode()
def predict(
    folder: Path | str, dataset: datasets.Dataset, batch_size: int = 64, device: str | None = None
) -> np.ndarray:
    """Classify every image of a data set with the model in ``folder``.

    The images are read one batch at a time, so memory does not grow with the data set. Arithmetic is float32, without
    TF32 on a GPU.

    Parameters
    ----------
    folder
        A model as ``save_pretrained`` leaves it: config.json, preprocessor_config.json, model.safetensors.
    dataset
        With the columns ``image`` (``datasets.Image``, decoded or not) and ``file``.
    batch_size
        Images at a time.
    device
        ``"cpu"``, ``"cuda"``, ...; None takes a GPU if there is one.

    Returns
    -------
    numpy.ndarray
        Probabilities, (N, classes) float32, columns in the order of the model's ``id2label``.

    Raises
    ------
    FileNotFoundError
        The folder holds no model.
    ValueError
        Weights that do not fit the configuration, missing columns, an image that cannot be read or is not 8 bits deep.
    """
    folder = _require_folder(folder)
    _check_columns(dataset, ("image", "file"))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, processor = _load(folder)
    model.to(device)
    rows = (
        dataset.with_format(None).select_columns(["image", "file"]).cast_column("image", datasets.Image(decode=False))
    )
    probabilities = np.empty((len(rows), model.config.num_labels), np.float32)
    done = 0
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False, fp32_precision="ieee")
    with exact, tqdm(total=len(rows), desc=f"classifying with {folder.name}", unit="image") as bar:
        for batch in rows.iter(batch_size):
            images = [open_image(value, file) for value, file in zip(batch["image"], batch["file"], strict=True)]
            pixel_values = processor(images=images, return_tensors="pt")["pixel_values"]  # (B, 3, H, W)
            logits = model(pixel_values=pixel_values.to(device, torch.float32)).logits  # (B, classes)
            probabilities[done : done + len(images)] = logits.softmax(dim=-1).cpu().numpy()
            done += len(images)
            bar.update(len(images))
    return probabilities


def class_numbers(dataset: datasets.Dataset, id2label: Mapping[int, str]) -> np.ndarray:
    """Translate a data set's labels to the model's class numbers, by name and whatever the case of the letters.

    Parameters
    ----------
    dataset
        With the column ``label``, a ``datasets.ClassLabel``.
    id2label
        The model's names by number, as in its configuration.

    Returns
    -------
    numpy.ndarray
        The model's class numbers, (N,) int64.

    Raises
    ------
    ValueError
        A column without names, an image without a label, a label that the model has no class for, or names that only
        their case tells apart.
    """
    _check_columns(dataset, ("label",))
    feature = dataset.features["label"]
    if not isinstance(feature, datasets.ClassLabel):
        raise ValueError(
            f"The column 'label' is {feature}; expected datasets.ClassLabel, which names the numbers. Use "
            "class_encode_column('label') on names, or cast_column with datasets.ClassLabel(names=...)."
        )
    numbers = {name.casefold(): int(number) for number, name in id2label.items()}
    if len(numbers) != len(id2label):
        raise ValueError(f"The model's labels {list(id2label.values())} differ in case only; expected different names.")
    labels = dataset.with_format(None)["label"][:]
    if missing := sum(label is None or label < 0 for label in labels):
        raise ValueError(
            f"{missing} of {len(labels)} images have no label; expected one each. Leave them out with filter."
        )
    present = {number: feature.names[number] for number in sorted(set(labels))}
    unknown = [name for name in present.values() if name.casefold() not in numbers]
    if unknown:
        raise ValueError(
            f"The data set's labels {unknown} are unknown to the model, which knows {list(id2label.values())}; "
            "expected the same names. Rename the labels, or leave these images out and say so."
        )
    translation = {number: numbers[name.casefold()] for number, name in present.items()}
    return np.array([translation[label] for label in labels], np.int64)


def average_copies(
    probabilities: np.ndarray, references: np.ndarray, photos: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the probabilities over the copies of each photo.

    Copies of one photo that carry different labels (overlapping photos in one group can) count as one photo per label.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    photos
        The photo of each image, (N,).

    Returns
    -------
    (numpy.ndarray, numpy.ndarray, numpy.ndarray)
        Mean probabilities, (photos, classes) float64; class numbers, (photos,); and the number of each one's group of
        photos, (photos,).
    """
    _, group = np.unique(np.asarray(photos), return_inverse=True)  # (N,)
    keys, photo, copies = np.unique(np.stack([group, references]), axis=1, return_inverse=True, return_counts=True)
    means = np.zeros((keys.shape[1], probabilities.shape[1]))
    np.add.at(means, photo.ravel(), probabilities)
    return means / copies[:, None], keys[1], keys[0]


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)


def _figure(value: float, low: float, high: float, **counts: int) -> dict[str, Any]:
    return {"value": _rounded(value), "low": _rounded(low), "high": _rounded(high), **counts}


def summarise(
    probabilities: np.ndarray,
    references: np.ndarray,
    photos: Sequence[str],
    labels: Sequence[str],
    name: str,
    split: str,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Turn probabilities into one entry of ``eval_results.json`` (shown at the top of this file).

    Every interval is over photos: by ``group_bootstrap``, and for the photo-level accuracy exact (Clopper-Pearson).
    Figures are rounded to six decimals. A class without images has an empty row in the matrix and no recall.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    photos
        The photo, or group of overlapping photos, of each image, (N,).
    labels
        Name of each class, in the order of the columns.
    name, split
        What was measured, for instance ``"Kaggle blood-cells"`` and ``"TEST"``.
    resamples, level, seed
        Of the bootstrap.

    Raises
    ------
    ValueError
        Input that ``check_predictions`` refuses, photos that are missing or not one per image, fewer than two photos.
    """
    probabilities, references = check_predictions(probabilities, references, len(labels))
    if len(photos) != len(references) or any(not isinstance(photo, str) or not photo for photo in photos):
        raise ValueError(
            f"{len(photos)} photos came for {len(references)} images, some of them perhaps empty; expected the name of "
            "a photo for each. Give an image of unknown origin a name of its own."
        )
    values = statistics(probabilities, references)
    present = np.flatnonzero(values["confusion_matrix"].sum(axis=1))

    def resampled(weights: np.ndarray) -> np.ndarray:
        drawn = statistics(probabilities, references, weights)
        return np.column_stack(
            [*(drawn[metric] for metric in METRICS), drawn["recall"][:, present]]
        )  # (R, 5 + present)

    low, high = group_bootstrap(resampled, len(references), photos, resamples, level, seed)
    means, photo_class, photo_group = average_copies(probabilities, references, photos)
    by_photo = statistics(means, photo_class)
    n_correct, n_photos = int(np.trace(by_photo["confusion_matrix"])), len(means)
    balanced = group_bootstrap(
        lambda weights: statistics(means, photo_class, weights)["balanced_accuracy"],
        n_photos,
        photo_group,
        resamples,
        level,
        seed,
    )
    recall = {}
    for column, k in enumerate(present, start=len(METRICS)):
        n = int((references == k).sum())
        counts = {"n": n, "n_photos": int((photo_class == k).sum())}
        recall[labels[k]] = _figure(values["recall"][k], low[column], high[column], **counts)
    return {
        "dataset": name,
        "split": split,
        "n_images": len(references),
        "n_photos": len(set(photos)),
        "interval": {"level": level, "resamples": resamples, "seed": seed, "unit": "photo"},
        "metrics": {metric: _figure(values[metric], low[k], high[k]) for k, metric in enumerate(METRICS)},
        "recall": recall,
        "labels": list(labels),
        "confusion_matrix": values["confusion_matrix"].astype(int).tolist(),
        "photo_level": {
            "accuracy": _figure(by_photo["accuracy"], *binomial_interval(n_correct, n_photos, level)),
            "balanced_accuracy": _figure(by_photo["balanced_accuracy"], *balanced),
            "n_correct": n_correct,
            "n_photos": n_photos,
            "confusion_matrix": by_photo["confusion_matrix"].astype(int).tolist(),
        },
    }


def measure(
    folder: Path | str,
    dataset: datasets.Dataset,
    name: str,
    split: str,
    batch_size: int = 64,
    device: str | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the model in ``folder`` on a data set: one entry of ``eval_results.json``.

    Parameters
    ----------
    folder, batch_size, device
        As in ``predict``.
    dataset
        With the columns ``image``, ``label`` (``datasets.ClassLabel``), ``file`` and ``photo`` (the photo, or the group
        of overlapping photos, that an image was made from).
    name, split, resamples, level, seed
        As in ``summarise``.

    Raises
    ------
    FileNotFoundError, ValueError
        As in ``predict``, ``class_numbers`` and ``summarise``.
    """
    folder = _require_folder(folder)
    _check_columns(dataset, COLUMNS)
    id2label = AutoConfig.from_pretrained(folder, trust_remote_code=False).id2label
    references = class_numbers(dataset, id2label)  # before the long part, so that a wrong label costs no time
    photos = dataset.with_format(None)["photo"][:]
    probabilities = predict(folder, dataset, batch_size, device)
    labels = [id2label[number] for number in sorted(id2label)]
    return summarise(probabilities, references, photos, labels, name, split, resamples, level, seed)
