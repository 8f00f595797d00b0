"""What a model calls its classes, what a data set calls them, and which of the one is which of the other."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np


@dataclass(frozen=True)
class Answers:
    """The answers that a model can give about a data set.

    Attributes
    ----------
    names
        Name of each answer. One that the data set has no label for is a possible answer all the same, and a wrong one.
    answer_of_class
        The answer that each of the model's classes stands for, (classes,) int64.
    answer_of_label
        The answer that is right for each of the data set's label numbers; labels without images may be missing.
    """

    names: list[str]
    answer_of_class: np.ndarray
    answer_of_label: Mapping[int, int]

    def merge(self, probabilities: np.ndarray) -> np.ndarray:
        """Add up the probabilities of classes that stand for one answer: (N, classes) to (N, answers) float32."""
        if len(self.names) == probabilities.shape[1]:  # each class is an answer of its own, in the same order
            return probabilities
        merged = np.zeros((len(probabilities), len(self.names)), np.float32)
        for number, answer in enumerate(self.answer_of_class):
            merged[:, answer] += probabilities[:, number]
        return merged


def _unique_keys(pairs: list[tuple[str, str]]) -> dict[str, str]:
    keys = [key for key, _ in pairs]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"The label map names the model's {twice} twice; expected each once. Remove one.")
    return dict(pairs)


def read_label_map(entries: Sequence[str]) -> dict[str, str]:
    """Read a label map from ``MODEL_LABEL=DATA_LABEL`` entries, or from a JSON file ``{"model label": "data label"}``.

    Parameters
    ----------
    entries
        The entries, or the path of one file that ends in ``.json``.

    Returns
    -------
    dict
        Data label by model label.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        An entry without ``=``, a file that is no such JSON, a label of the model named twice.
    """
    if len(entries) == 1 and entries[0].endswith(".json"):
        path = Path(entries[0])
        if not path.is_file():
            raise FileNotFoundError(f'{path} is no file; expected a label map, {{"model label": "data label", ...}}.')
        try:
            found = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique_keys)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no valid JSON ({error}). Correct the label map.") from error
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ValueError(f'{path} holds {found!r}; expected {{"model label": "data label", ...}}.')
        return found
    if wrong := [entry for entry in entries if not all(entry.rpartition("="))]:
        raise ValueError(
            f"The label map holds {wrong}; expected entries MODEL_LABEL=DATA_LABEL, such as LABEL_0=eosinophil, or one "
            "file that ends in .json."
        )
    return _unique_keys([(model, data) for model, _, data in (entry.rpartition("=") for entry in entries)])


def match_labels(
    id2label: Mapping[int, str],
    label_names: Sequence[str],
    present: Collection[int],
    label_map: Mapping[str, str] | None = None,
) -> Answers:
    """Find the answer that each class of a model stands for.

    A class that the map does not name stands for the label of the same name, whatever the case of the letters, or else for
    an answer that is always wrong. An answer keeps the model's name for it where the data set's differs in case only.

    Parameters
    ----------
    id2label
        The model's names by number, as in its configuration.
    label_names
        The data set's names, by label number.
    present
        The label numbers that occur.
    label_map
        Data label by model label; several model labels may stand for one data label.

    Raises
    ------
    ValueError
        A map with names that the model or the data set does not have, names that only their case tells apart, fewer than
        two answers, or a label with images that no class stands for.
    """
    classes = [id2label[number] for number in sorted(id2label)]
    label_map = dict(label_map or {})
    if unknown := sorted(set(label_map) - set(classes)):
        raise ValueError(
            f"The label map names {unknown}, which the model does not know; it knows {classes}. Correct it."
        )
    numbers = {name.casefold(): number for number, name in enumerate(label_names)}
    if len(numbers) != len(label_names):
        raise ValueError(f"The data set's labels {list(label_names)} differ in case only; expected different names.")
    if unknown := sorted({name for name in label_map.values() if name.casefold() not in numbers}):
        raise ValueError(
            f"The label map names {unknown}, which the data set does not show; it shows {list(label_names)}. Correct it, or "
            "leave these out: the model's classes then stay possible answers, and wrong ones."
        )
    unmapped = [name for name in classes if name not in label_map]
    if len({name.casefold() for name in unmapped}) != len(unmapped):
        raise ValueError(f"The model's labels {classes} differ in case only; expected different names.")

    names, answer_of_class, answer_of_label = [], [], {}
    taken = {}
    for name in classes:
        label = numbers.get(label_map.get(name, name).casefold())
        # Two classes that stand for no label are two answers, so their names tell them apart.
        key = ("label", label) if label is not None else ("other", name)
        if key not in taken:
            taken[key] = len(names)
            same = label is not None and name.casefold() == label_names[label].casefold()
            names.append(name if same or label is None else label_names[label])
            if label is not None:
                answer_of_label[label] = taken[key]
        answer_of_class.append(taken[key])
    unknown = [label_names[label] for label in sorted(present) if label not in answer_of_label]
    if unknown:
        raise ValueError(
            f"The data set's labels {unknown} are unknown to the model, which knows {classes}; expected the same names. Say "
            "which is which (--label_map MODEL_LABEL=DATA_LABEL), or leave these images out (--ignore_labels "
            f"{' '.join(unknown)})."
        )
    if len(names) < 2:
        raise ValueError(
            f"The model can answer only {names}; expected two or more answers. Map its classes {classes} to different labels."
        )
    return Answers(names, np.array(answer_of_class, np.int64), answer_of_label)


def label_numbers(dataset: datasets.Dataset) -> tuple[list[int], list[str]]:
    """Read the column ``label`` of a data set: the number of each row, and the name of each number.

    Raises
    ------
    ValueError
        The column is no ``datasets.ClassLabel``, or an image has no label.
    """
    feature = dataset.features["label"]
    if not isinstance(feature, datasets.ClassLabel):
        raise ValueError(
            f"The column 'label' is {feature}; expected datasets.ClassLabel, which names the numbers. Use "
            "class_encode_column('label') on names, or cast_column with datasets.ClassLabel(names=...)."
        )
    labels = dataset.with_format(None)["label"][:]
    if missing := sum(label is None or label < 0 for label in labels):
        raise ValueError(
            f"{missing} of {len(labels)} images have no label; expected one each. Leave them out with filter."
        )
    return labels, feature.names
