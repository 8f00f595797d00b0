"""Measuring a small stock ResNet on drawn cells: against the pipeline, scikit-learn, and photos counted by hand."""

import io
import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn import metrics as sk
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline

from evaluation.measure import average_copies, class_numbers, measure, predict, summarise
from evaluation.results import validate_entry

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]


def draw_cell(seed: int) -> Image.Image:
    """Draw a violet disc on a pale field."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (48, 36), tuple(int(v) for v in generator.integers(200, 256, 3)))
    x, y, radius = generator.integers(8, 28), generator.integers(8, 24), generator.integers(4, 9)
    box = [int(v) for v in (x - radius, y - radius, x + radius, y + radius)]
    ImageDraw.Draw(image).ellipse(box, fill=tuple(int(v) for v in generator.integers(40, 180, 3)))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ResNet of two thin stages whose class order is not the data set's, and its image processor."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 32],
        depths=[1, 1],
        id2label=dict(enumerate(["NEUTROPHIL", "Monocyte", "lymphocyte", "eosinophil"])),
        label2id={"NEUTROPHIL": 0, "Monocyte": 1, "lymphocyte": 2, "eosinophil": 3},
    )
    model = ResNetForImageClassification(config)
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    torch.nn.init.normal_(model.classifier[1].weight, std=5.0)
    with torch.no_grad():  # centred, so that the answers differ from cell to cell
        logits = model.eval()(**processor([draw_cell(seed) for seed in range(20)], return_tensors="pt")).logits
        model.classifier[1].bias -= logits.mean(dim=0)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Twenty drawn images of eight photos on disk, undecoded."""
    path = tmp_path_factory.mktemp("cells")
    files = []
    for number in range(20):
        files.append(str(path / f"{number}.png"))
        draw_cell(number).save(files[-1])
    photos = [number % 8 for number in range(20)]
    features = datasets.Features(
        {
            "image": datasets.Image(decode=False),
            "label": datasets.ClassLabel(names=NAMES),
            "file": datasets.Value("string"),
            "photo": datasets.Value("string"),
        }
    )
    columns = {"image": files, "label": [p % 4 for p in photos], "file": files, "photo": [f"photo {p}" for p in photos]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_it_gives_the_numbers_of_the_plain_pipeline(folder, cells):
    found = predict(folder, cells, batch_size=7, device="cpu")
    classify = pipeline("image-classification", str(folder), trust_remote_code=False, device="cpu")
    names = list(classify.model.config.id2label.values())
    for row, file in zip(found, cells["file"], strict=True):
        scores = {answer["label"]: answer["score"] for answer in classify(file, top_k=4)}
        np.testing.assert_allclose(row, [scores[name] for name in names], atol=1e-6)
    assert found.dtype == np.float32 and found.shape == (20, 4)
    assert len(set(found.argmax(axis=1))) > 1  # a network that always says the same would hide a mixed-up order


def test_decoded_embedded_and_transformed_columns_give_the_same(folder, cells):
    expected = predict(folder, cells, device="cpu")
    decoded = cells.cast_column("image", datasets.Image())
    buffers = []
    for image in decoded["image"]:
        buffers.append(io.BytesIO())
        image.save(buffers[-1], "PNG")
    embedded = cells.remove_columns("image").add_column(
        "image", [{"bytes": b.getvalue(), "path": None} for b in buffers]
    )
    embedded = embedded.cast_column("image", datasets.Image())
    for other in (decoded, embedded, decoded.with_transform(lambda batch: {"image": [None] * len(batch["image"])})):
        np.testing.assert_array_equal(predict(folder, other, device="cpu"), expected)
    # Another batch size adds in another order inside the convolutions.
    np.testing.assert_allclose(predict(folder, cells, batch_size=3, device="cpu"), expected, atol=1e-6)


def test_the_entry_is_scikit_learns_and_comes_out_the_same_twice(folder, cells):
    entry = measure(folder, cells, "drawn cells", "TEST", device="cpu", resamples=100)
    assert measure(folder, cells, "drawn cells", "TEST", device="cpu", resamples=100) == entry
    validate_entry(entry)

    probabilities = predict(folder, cells, device="cpu").astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    references = np.array([3 - label for label in cells["label"]])  # the model counts the classes backwards
    predicted = probabilities.argmax(axis=1)
    assert entry["labels"] == ["NEUTROPHIL", "Monocyte", "lymphocyte", "eosinophil"]
    assert (entry["dataset"], entry["split"], entry["n_images"], entry["n_photos"]) == ("drawn cells", "TEST", 20, 8)
    value = {name: figure["value"] for name, figure in entry["metrics"].items()}
    assert value["accuracy"] == pytest.approx(sk.accuracy_score(references, predicted), abs=1e-6)
    assert value["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(references, predicted), abs=1e-6)
    assert value["macro_f1"] == pytest.approx(sk.f1_score(references, predicted, average="macro"), abs=1e-6)
    assert value["nll"] == pytest.approx(sk.log_loss(references, probabilities, labels=range(4)), abs=1e-5)
    assert entry["confusion_matrix"] == sk.confusion_matrix(references, predicted, labels=range(4)).tolist()
    recall = sk.recall_score(references, predicted, average=None)
    for label, expected in zip(entry["labels"], recall, strict=True):
        assert entry["recall"][label]["value"] == pytest.approx(expected, abs=1e-6)
        assert entry["recall"][label]["n_photos"] == 2


def test_photos_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]])
    references = np.array([0, 0, 0, 1, 1, 1])
    photos = ["p", "p", "p", "q", "r", "r"]
    # p is right though two of its three copies are wrong: its mean for class 0 is (0.9 + 0.4 + 0.45) / 3 = 0.58.
    # So is r, whose mean for class 1 is (0.8 + 0.4) / 2 = 0.6.
    entry = summarise(probabilities, references, photos, ["a", "b"], "hand", "TEST", resamples=50)
    assert entry["photo_level"]["n_correct"] == entry["photo_level"]["n_photos"] == 3
    assert entry["photo_level"]["confusion_matrix"] == [[1, 0], [0, 2]]
    assert entry["photo_level"]["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 3), abs=1e-6)  # exact: low^3 = 2.5 %
    assert entry["metrics"]["accuracy"]["value"] == 0.5
    assert entry["recall"]["a"] | {"low": 0, "high": 0} == {
        "value": 0.333333,
        "low": 0,
        "high": 0,
        "n": 3,
        "n_photos": 1,
    }


def test_copies_of_one_group_with_two_labels_count_once_for_each():
    means, classes, groups = average_copies(
        np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]]), np.array([0, 0, 1]), ["same", "same", "same"]
    )
    np.testing.assert_allclose(means, [[0.75, 0.25], [0.2, 0.8]])
    np.testing.assert_array_equal(classes, [0, 1])
    np.testing.assert_array_equal(groups, [0, 0])


def test_a_class_without_images_has_an_empty_row_and_no_recall(folder, cells):
    three = cells.filter(lambda label: label != 2, input_columns="label", load_from_cache_file=False)
    entry = measure(folder, three, "drawn cells", "three", device="cpu", resamples=50)
    assert set(entry["recall"]) == {"NEUTROPHIL", "lymphocyte", "eosinophil"}
    assert entry["confusion_matrix"][1] == [0, 0, 0, 0]
    validate_entry(entry)


def test_a_label_that_the_model_does_not_know_is_refused_only_where_it_occurs(cells):
    id2label = dict(enumerate(NAMES[:3]))
    with pytest.raises(ValueError, match=r"labels \['neutrophil'\] are unknown to the model"):
        class_numbers(cells, id2label)
    others = cells.filter(lambda label: label < 3, input_columns="label", load_from_cache_file=False)
    np.testing.assert_array_equal(class_numbers(others, id2label), others["label"][:])


def test_labels_without_names_or_values_are_refused(cells):
    with pytest.raises(ValueError, match="expected datasets.ClassLabel"):
        class_numbers(cells.cast_column("label", datasets.Value("int64")), dict(enumerate(NAMES)))
    with pytest.raises(ValueError, match="differ in case only"):
        class_numbers(cells, {0: "a", 1: "A"})
    missing = datasets.Dataset.from_dict(
        {"label": [0, None, -1]}, datasets.Features({"label": cells.features["label"]})
    )
    with pytest.raises(ValueError, match="2 of 3 images have no label"):
        class_numbers(missing, dict(enumerate(NAMES)))


def test_a_folder_without_a_model_or_with_other_weights_is_refused(folder, cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        predict(tmp_path / "nowhere", cells)
    shutil.copytree(folder, tmp_path / "deeper")
    config = tmp_path / "deeper" / "config.json"
    config.write_text(config.read_text().replace("NEUTROPHIL", "neutrophil"))
    np.testing.assert_array_equal(predict(tmp_path / "deeper", cells, device="cpu").shape, (20, 4))
    deeper = ResNetConfig.from_pretrained(folder)
    deeper.depths = [1, 2]
    deeper.save_pretrained(tmp_path / "deeper")
    with pytest.raises(ValueError, match="do not fit its config.json.*missing_keys"):
        predict(tmp_path / "deeper", cells)


def test_data_that_cannot_be_read_is_refused(folder, cells, tmp_path):
    with pytest.raises(ValueError, match=r"without \['photo'\]"):
        measure(folder, cells.remove_columns("photo"), "drawn", "TEST")
    with pytest.raises(ValueError, match="has 0 rows"):
        predict(folder, cells.select([]))
    with pytest.raises(ValueError, match="expected datasets.Image"):
        predict(folder, cells.remove_columns("image").rename_column("label", "image"))
    broken, deep = tmp_path / "broken.png", tmp_path / "deep.png"
    broken.write_bytes(b"not an image")
    Image.fromarray(np.full((36, 48), 3000, np.uint16)).save(deep)
    for path, message in (
        (broken, "broken.png cannot be read as an image"),
        (deep, "deep.png has pixels of mode I;16"),
    ):
        one = datasets.Dataset.from_dict({"image": [str(path)], "file": [str(path)]})
        with pytest.raises(ValueError, match=message):
            predict(folder, one.cast_column("image", datasets.Image()), device="cpu")


def test_photos_must_be_named():
    probabilities, references = np.full((2, 2), 0.5), np.array([0, 1])
    for photos in (["p"], ["p", None], ["p", ""]):
        with pytest.raises(ValueError, match="expected the name of a photo"):
            summarise(probabilities, references, photos, ["a", "b"], "hand", "TEST")
    with pytest.raises(ValueError, match=r"belong to 1 group\(s\)"):
        summarise(probabilities, references, ["p", "p"], ["a", "b"], "hand", "TEST")
