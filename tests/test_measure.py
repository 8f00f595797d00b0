"""Measuring a small stock ResNet on drawn cells: against the pipeline and scikit-learn; and timm's own models against timm."""

import io
import json
import shutil

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from sklearn import metrics as sk
from timm.models import save_for_hf
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor, pipeline

from evaluation.entry import validate_entry
from evaluation.measure import answer, load_model, measure, measure_slices, predict

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
    one_hot = np.eye(4)[references]
    brier = sk.brier_score_loss(one_hot, probabilities, scale_by_half=False)
    assert value["brier"] == pytest.approx(brier, abs=1e-6)
    assert value["nll"] == pytest.approx(sk.log_loss(references, probabilities, labels=range(4)), abs=1e-5)
    assert entry["confusion_matrix"] == sk.confusion_matrix(references, predicted, labels=range(4)).tolist()
    recall = sk.recall_score(references, predicted, average=None)
    for label, expected in zip(entry["labels"], recall, strict=True):
        assert entry["recall"][label]["value"] == pytest.approx(expected, abs=1e-6)
        assert entry["recall"][label]["n_photos"] == 2


def test_a_class_without_images_has_an_empty_row_and_no_recall(folder, cells):
    three = cells.filter(lambda label: label != 2, input_columns="label", load_from_cache_file=False)
    entry = measure(folder, three, "drawn cells", "three", device="cpu", resamples=50)
    assert set(entry["recall"]) == {"NEUTROPHIL", "lymphocyte", "eosinophil"}
    assert entry["confusion_matrix"][1] == [0, 0, 0, 0]
    validate_entry(entry)


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


def test_a_model_that_needs_other_code_or_names_several_things_is_refused(folder, cells, tmp_path):
    for number, (changed, message) in enumerate((
        ({"model_type": "wbc", "auto_map": {"AutoConfig": "code.Config"}}, r"cannot be loaded by .*trust_remote_code"),
        ({"problem_type": "multi_label_classification"}, "is for multi_label_classification; expected single_label"),
        ({"model_type": "bert"}, "cannot be loaded by transformers .* Expected an image classifier"),
    )):  # fmt: skip
        other = shutil.copytree(folder, tmp_path / str(number))
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ValueError, match=message):
            answer(other, cells)
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="Expected an image classifier of the library with its image processor"):
        answer(bare, cells)


def test_a_model_of_timms_answers_as_in_timm(cells, tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4).eval()
    save_for_hf(network, tmp_path, model_config={"label_names": NAMES})
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(file).convert("RGB")) for file in cells["file"]])
        expected = network(pixels).softmax(dim=-1).numpy()
    answered = answer(tmp_path, cells, device="cpu")
    np.testing.assert_allclose(answered.probabilities, expected, atol=1e-6)
    assert answered.labels == NAMES
    assert load_model(tmp_path)[0].num_parameters() == sum(p.numel() for p in network.parameters())


def test_a_split_is_measured_with_its_slices_in_one_pass(folder, cells):
    groups = [f"group {number % 8 // 2}" for number in range(20)]  # two photos show the same cells
    test = cells.add_column("group", groups)
    train = test.select([0, 8])  # group 0
    entries = measure_slices(folder, {"train": train, "test": test}, "test", "drawn cells", resamples=50)
    assert [entry["split"] for entry in entries] == ["TEST", "TEST, leak-free"]
    kept = [row for row, group in enumerate(groups) if group != "group 0"]
    assert entries[1]["n_images"] == len(kept) and entries[1]["n_photos"] == 6
    assert entries[1]["interval"]["unit"] == "overlap group" and entries[1]["interval"]["n_units"] == 3
    assert entries[1]["left_out"] == {"photos that overlap training photos, directly or through others": 20 - len(kept)}
    alone = measure(folder, test.select(kept), "drawn cells", "TEST, leak-free", resamples=50)
    assert alone["confusion_matrix"] == entries[1]["confusion_matrix"]
    for name, figure in entries[1]["metrics"].items():
        assert alone["metrics"][name] == pytest.approx(figure, abs=1e-5), name
    for entry in entries:
        validate_entry(entry)
