"""Which class of a model is which label of a data set: by name, by map, and what is refused."""

import json

import datasets
import numpy as np
import pytest

from evaluation.labels import label_numbers, match_labels, read_label_map

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]


def match(model, label_map=None, present=(0, 1, 2, 3), labels=LABELS):
    return match_labels(dict(enumerate(model)), labels, present, label_map)


def test_names_match_whatever_their_case_and_order():
    answers = match(["NEUTROPHIL", "Monocyte", "lymphocyte", "eosinophil"])
    assert answers.names == ["NEUTROPHIL", "Monocyte", "lymphocyte", "eosinophil"]
    assert answers.answer_of_label == {3: 0, 2: 1, 1: 2, 0: 3}
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 5).astype(np.float32)
    assert answers.merge(probabilities) is probabilities


def test_classes_that_stand_for_one_label_add_up():
    model = ["LABEL_0", "band", "segmented", "Basophil", "lymphocyte", "mono"]
    answers = match(
        model, {"LABEL_0": "eosinophil", "band": "neutrophil", "segmented": "Neutrophil", "mono": "monocyte"}
    )
    assert answers.names == ["eosinophil", "neutrophil", "Basophil", "lymphocyte", "monocyte"]
    assert answers.answer_of_label == {0: 0, 3: 1, 1: 3, 2: 4}  # nothing is ever a basophil
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), 7)
    merged = answers.merge(probabilities)
    expected = np.stack([
        probabilities[:, 0], probabilities[:, 1] + probabilities[:, 2], probabilities[:, 3], probabilities[:, 4],
        probabilities[:, 5],
    ], axis=1)  # fmt: skip
    np.testing.assert_allclose(merged, expected, atol=1e-7)
    assert merged.dtype == np.float32


def test_a_class_may_share_its_name_with_the_label_that_another_is_mapped_to():
    answers = match([*LABELS, "band"], {"band": "neutrophil"})
    assert answers.names == LABELS
    np.testing.assert_array_equal(answers.answer_of_class, [0, 1, 2, 3, 3])


def test_a_label_that_no_class_stands_for_is_refused_only_where_it_occurs():
    with pytest.raises(
        ValueError, match=r"labels \['neutrophil'\] are unknown to the model.*--ignore_labels neutrophil"
    ):
        match(LABELS[:3])
    answers = match(LABELS[:3], present={0, 2})
    assert answers.names == LABELS[:3] and answers.answer_of_label == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize(
    ("model", "label_map", "message"),
    [
        (LABELS, {"LABEL_7": "monocyte"}, r"names \['LABEL_7'\], which the model does not know; it knows"),
        (["a", *LABELS], {"a": "basophil"}, r"names \['basophil'\], which the data set does not show; it shows"),
        ([*LABELS, "Monocyte"], None, "The model's labels .* differ in case only"),
        (["a", "b"], dict.fromkeys("ab", "monocyte"), "expected two or more answers"),
    ],
)
def test_maps_and_names_that_do_not_fit_are_refused(model, label_map, message):
    with pytest.raises(ValueError, match=message):
        match(model, label_map, present=(2,))


def test_labels_that_only_their_case_tells_apart_are_refused():
    with pytest.raises(ValueError, match="The data set's labels .* differ in case only"):
        match(LABELS, labels=["monocyte", "Monocyte"], present=(0,))


def test_a_map_is_read_from_the_command_line_and_from_a_file(tmp_path):
    expected = {"LABEL_0": "eosinophil", "a=b": "monocyte"}
    assert read_label_map(["LABEL_0=eosinophil", "a=b=monocyte"]) == expected
    path = tmp_path / "map.json"
    path.write_text(json.dumps(expected))
    assert read_label_map([str(path)]) == expected
    assert read_label_map([]) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "x", "a": "y"}', r"\['a'\] twice"),
        ('{"a": 1}', "expected {"),
        ('["a"]', "expected {"),
        ('{"a": ', "no valid JSON"),
    ],
)
def test_a_file_that_is_no_map_is_refused(tmp_path, text, message):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_map([str(path)])


def test_entries_that_are_no_map_are_refused(tmp_path):
    for entry in ("LABEL_0", "=monocyte", "LABEL_0="):
        with pytest.raises(ValueError, match="expected entries MODEL_LABEL=DATA_LABEL"):
            read_label_map([entry, "b=monocyte"])
    with pytest.raises(ValueError, match=r"\['a'\] twice"):
        read_label_map(["a=x", "a=y"])
    with pytest.raises(FileNotFoundError, match="expected a label map"):
        read_label_map([str(tmp_path / "nowhere.json")])


def test_labels_without_names_or_values_are_refused():
    named = datasets.Features({"label": datasets.ClassLabel(names=LABELS)})
    with pytest.raises(ValueError, match="expected datasets.ClassLabel"):
        label_numbers(datasets.Dataset.from_dict({"label": [0, 1]}))
    with pytest.raises(ValueError, match="2 of 3 images have no label"):
        label_numbers(datasets.Dataset.from_dict({"label": [0, None, -1]}, named))
    assert label_numbers(datasets.Dataset.from_dict({"label": [2, 0]}, named)) == ([2, 0], LABELS)
