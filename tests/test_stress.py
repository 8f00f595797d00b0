"""Stress measurements on toy networks whose answers can be worked out by hand, in a file of transformers' own ResNet."""

import copy
import csv
import io
import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from smear_drawings import write_image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

import stress
from evaluation.corruptions import CORRUPTIONS
from evaluation.framing import WINDOWS, boxes_of_cells
from evaluation.intervals import binomial_interval, group_bootstrap
from evaluation.measure import predict, read_logits
from evaluation.probe import Setting, choose_rows
from evaluation.stress import (
    anomaly_entry,
    corruption_entry,
    framing_entry,
    stranger_entry,
    symmetry_entry,
    weighted_auroc,
)

SIDE = 33  # px; odd, so that strides of two meet the same pixels from both ends
CPU = Setting(device="cpu", resamples=200)


def write_model(folder, labels, weights, bias, taps=None, shift=(0.0, 0.0, 0.0), **config):
    """Write a ResNet whose three features are relu(a tap of the pixels + shift), averaged over the image.

    ``taps`` are (feature, colour, row, column of the 7x7 stem, weight); by default feature k is colour k. Pixels run from 0 to
    1, and the only block adds nothing.
    """
    names = dict(enumerate(labels))
    model = ResNetForImageClassification(
        ResNetConfig(
            embedding_size=3, hidden_sizes=[3], depths=[1], layer_type="basic", id2label=names,
            label2id={name: number for number, name in names.items()}, **config,
        )
    )  # fmt: skip
    with torch.no_grad():
        stem = model.resnet.embedder.embedder
        stem.convolution.weight.zero_()
        for feature, colour, row, column, weight in taps or [(k, k, 3, 3, 1.0) for k in range(3)]:
            stem.convolution.weight[feature, colour, row, column] = weight
        stem.normalization.bias.copy_(torch.tensor(shift))
        last = model.resnet.encoder.stages[0].layers[0].layer[-1].normalization
        last.weight.zero_()
        model.classifier[1].weight.copy_(torch.tensor(weights))
        model.classifier[1].bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    pixels = ViTImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    pixels.save_pretrained(folder)
    return folder


def table(images, labels, names, photos=None, groups=None):
    """Make a data set of arrays (H, W, 3)."""
    values = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        values.append({"bytes": stream.getvalue(), "path": None})
    photos = photos or [f"photo {number}" for number in range(len(images))]
    columns = {"image": values, "label": labels, "file": photos, "photo": photos, "group": groups or photos}
    features = {name: datasets.Value("string") for name in columns}
    features |= {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def plain(*colour):
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Eosinophils are red, lymphocytes blue, all else green: logits 20 times the colour's shares."""
    folder = tmp_path_factory.mktemp("models") / "colours"
    return write_model(folder, ["eosinophil", "other", "lymphocyte"], (20 * np.eye(3)).tolist(), [0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def brightness(tmp_path_factory):
    """Monocytes are brighter than 0.6, neutrophils darker."""
    folder = tmp_path_factory.mktemp("models") / "brightness"
    return write_model(folder, ["monocyte", "neutrophil"], [[300.0, 0, 0], [0, 0, 0]], [-180.0, 0.0])


@pytest.fixture(scope="module")
def rising(tmp_path_factory):
    """Basophils have a sharp step from dark to bright, left to right; all others are monocytes."""
    folder = tmp_path_factory.mktemp("models") / "rising"
    taps = [(0, 0, 3, 3, 1.0), (0, 0, 3, 2, -1.0)]
    return write_model(
        folder, ["basophil", "monocyte"], [[3000.0, 0, 0], [0, 0, 0]], [-1.0, 1.0], taps, (-0.5, 0.0, 0.0)
    )


def step():
    """A ridge that begins sharply on its left and fades to the right, and upwards and downwards, in black."""
    image = np.zeros((SIDE, SIDE))
    image[:, 8:28] = np.outer(1 - np.abs(np.linspace(-1, 1, SIDE)), np.linspace(1, 0, 20))
    return np.rint(255 * image).astype(np.uint8)[..., None].repeat(3, axis=2)


def test_the_toys_answer_as_they_were_made(colours, rising):
    shares = np.array([(200, 30, 10), (0, 90, 0), (3, 5, 255)]) / 255
    logits = read_logits(colours, [Image.fromarray(plain(*(255 * c))) for c in shares], 3, "toys", device="cpu")
    np.testing.assert_allclose(logits, 20 * shares, atol=0.05)
    pictures = [Image.fromarray(image) for image in (step(), step()[:, ::-1], plain(0, 0, 0))]
    assert read_logits(rising, pictures, 3, "toys", device="cpu").argmax(axis=1).tolist() == [0, 1, 1]


def test_logits_are_those_that_measuring_clean_images_rests_on(colours):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20 + k, 30, 3), np.uint8) for k in range(7)]
    data = table(images, [0] * 7, ["eosinophil"])
    logits = torch.tensor(read_logits(colours, map(Image.fromarray, images), None, "clean", 3, "cpu"))
    np.testing.assert_allclose(logits.softmax(-1), predict(colours, data, device="cpu"), atol=1e-6)
    with pytest.raises(ValueError, match="No picture came for 'nothing'"):
        read_logits(colours, [], 0, "nothing", device="cpu")


def test_corruptions_err_where_arithmetic_says(brightness):
    """180 of 255 is 0.706: times 0.9 it is above 0.6, times 0.8 and less it is not; 50 of 255 stays below whatever comes."""
    images = [plain(180 + k % 2, *(180 + k % 2,) * 2) for k in range(4)] + [plain(50, 50, 50 + k) for k in range(4)]
    data = table(images, [1] * 4 + [0] * 4, ["neutrophil", "monocyte"], groups=["a", "a", "b", "b", "c", "c", "d", "d"])
    entry = corruption_entry(brightness, data, setting=CPU)
    errors = {name: entry["corruptions"][name]["severities"] for name in CORRUPTIONS}
    assert errors["brightness_down"] == [0, 0.5, 0.5, 0.5, 0.5]
    for name in ("pixelate", "jpeg_compression", "defocus_blur", "motion_blur", "brightness_up", "saturate", "bubble"):
        assert errors[name] == [0] * 5, name
    assert errors["contrast_up"] == errors["contrast_down"] == [0] * 5  # a plain image is its own mean
    assert entry["clean"] == {"value": 0, "low": 0, "high": 0}
    means = {name: np.mean(errors[name]) for name in CORRUPTIONS}
    assert entry["mean"]["value"] == pytest.approx(np.mean(list(means.values())), abs=1e-6)
    assert entry["mean"]["low"] <= entry["mean"]["value"] <= entry["mean"]["high"]
    for name, mean in means.items():
        assert entry["corruptions"][name]["mean"]["value"] == pytest.approx(mean, abs=1e-6)
    # A resample without a monocyte shows no error of brightness_down, one without a neutrophil shows twice as many.
    down = entry["corruptions"]["brightness_down"]["mean"]
    assert (down["low"], down["value"], down["high"]) == pytest.approx((0, 0.4, 0.8))
    assert (entry["n_images"], entry["n_photos"], entry["n_groups"]) == (8, 8, 4)
    assert entry["interval"] == {"level": 0.95, "resamples": 200, "seed": 0, "unit": "overlap group", "n_units": 4}
    assert json.loads(json.dumps(entry)) == entry
    assert corruption_entry(brightness, data, setting=Setting(batch_size=5, device="cpu", resamples=200)) == entry


def test_a_model_that_always_says_the_same_errs_on_the_other_classes(tmp_path):
    folder = write_model(tmp_path / "constant", ["a", "b", "c"], [[0.0] * 3] * 3, [2.0, 1.0, 0.0])
    data = table([plain(k, 90, 90) for k in range(6)], [0, 0, 1, 1, 2, 2], ["A", "x", "C"])
    entry = corruption_entry(folder, data, {"b": "x"}, CPU)
    for figure in (entry["clean"], entry["mean"], *(entry["corruptions"][name]["mean"] for name in CORRUPTIONS)):
        assert figure["value"] == pytest.approx(2 / 3, abs=1e-6)
    symmetry = symmetry_entry(folder, data, {"b": "x"}, CPU)
    assert symmetry["same_under_all"] == {"value": 1, "low": 1, "high": 1}
    assert symmetry["balanced_accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)


def test_symmetry_counts_the_views_that_agree(rising):
    images = [step(), step(), plain(0, 0, 0), plain(9, 9, 9), plain(3, 3, 3), step()[:, ::-1]]
    groups = ["a", "b", "c", "c", "d", "e"]
    data = table(images, [0, 0, 1, 1, 1, 0], ["basophil", "monocyte"], groups=groups)
    entry = symmetry_entry(rising, data, setting=CPU)
    # Of the step only the image as it is and the one turned upside down rise; of the mirrored step, two of the others do.
    share = np.array([1 / 7, 1 / 7, 1, 1, 1, 5 / 7])
    assert entry["same_on_average"]["value"] == pytest.approx(share.mean(), abs=1e-6)
    assert entry["same_under_all"]["value"] == pytest.approx(3 / 6)
    for name, values in (("same_on_average", share), ("same_under_all", share == 1)):
        bounds = group_bootstrap(lambda w, v=values: w @ v / w.sum(axis=-1), 6, groups, resamples=200)
        assert (entry[name]["low"], entry[name]["high"]) == pytest.approx(bounds, abs=1e-6)
    assert entry["balanced_accuracy"]["value"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    # Two sure answers of eight lose against six on the other side.
    assert entry["balanced_accuracy_of_views"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert entry["gain"]["value"] == pytest.approx(-1 / 3, abs=1e-6)


def test_a_symmetric_network_answers_alike_under_all_views(tmp_path):
    """Kernels that are their own mirror images, on images of odd sides, see the same cell however it lies."""
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    for even_handed in (False, True):
        model = ResNetForImageClassification(config).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and even_handed:
                kernel = module.weight.data
                views = [kernel.rot90(turns, (2, 3)) for turns in range(4)]
                module.weight.data = sum(view + view.flip(3) for view in views) / 8
        torch.nn.init.normal_(model.classifier[1].weight, std=50.0)
        folder, processor = tmp_path / str(even_handed), ViTImageProcessor(size={"height": SIDE, "width": SIDE})
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(24)]
        with torch.no_grad():  # centred, so that the answers differ from image to image
            logits = model(**processor(list(map(Image.fromarray, images)), return_tensors="pt")).logits
            model.classifier[1].bias -= logits.mean(dim=0)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        data = table(images, [k % 4 for k in range(24)], [f"LABEL_{k}" for k in range(4)])
        entry = symmetry_entry(folder, data, setting=CPU)
        assert (entry["same_on_average"]["value"] == 1) == even_handed
        assert (entry["same_under_all"]["value"] == 1) == even_handed
        if even_handed:
            assert entry["gain"] == {"value": 0, "low": 0, "high": 0}


def test_the_box_of_a_cell_is_the_annotated_one_or_else_the_largest_found():
    data = table([plain(9, 9, 9)] * 3, [0, 0, 0], ["a"])
    rows = [[[5, 5, 9, 9], [0, 0, 4, 6]], [], []]
    data = data.add_column("boxes", rows, feature=datasets.List(datasets.List(datasets.Value("int32"))))
    found = iter([[[0, 0, 10, 30], [0, 0, 20, 20]], []])
    boxes, annotated = boxes_of_cells(data, lambda image: next(found))
    assert (boxes, annotated) == ([[0, 0, 4, 6], [0, 0, 10, 30], None], 1)


def framed(inner, outer, reach, side=120):
    """Draw a square of one colour, which takes ``reach`` of the side, in a frame of another."""
    image = np.empty((side, side, 3), np.uint8)
    image[:] = outer
    edge = round(side * (1 - reach) / 2)
    image[edge : side - edge, edge : side - edge] = inner
    return image


MIDDLE = [30, 30, 90, 90]  # of 120 px


def square(image, box, window):
    """Cut out what lies inside the image."""
    middle, half = (box[0] + box[2]) / 2, (box[2] - box[0]) * window / 2
    return image.crop((middle - half, middle - half, middle + half, middle + half))


def nothing(picture):
    return []


def what_stands_in_blue(picture):
    return [MIDDLE] if picture[0, 0].argmax() == 2 else []


def test_squares_about_a_cell_show_more_of_what_surrounds_it(colours):
    """A red square in blue is red up to its own box, and blue where three quarters of what is seen are."""
    red, blue = (250, 0, 0), (0, 0, 250)
    images = [framed(red, blue, 0.5), framed(red, blue, 0.5), framed(blue, blue, 0.5), framed(blue, blue, 0.5)]
    data = table(images, [0, 0, 1, 1], ["eosinophil", "lymphocyte"], groups=["a", "b", "c", "d"])
    entry = framing_entry(colours, data, [MIDDLE] * 4, square, what_stands_in_blue, 1.75, setting=CPU)
    rows = {row["window"]: row for row in entry["windows"]}
    assert tuple(rows) == WINDOWS and entry["n_images"] == 4 and entry["usual"] == 1.75
    balanced = [row["balanced_accuracy"]["value"] for row in rows.values()]
    assert balanced == sorted(balanced, reverse=True) and set(balanced) == {0.5, 1}
    assert rows[1.0]["balanced_accuracy"]["value"] == 1 and rows[2.0]["balanced_accuracy"]["value"] == 0.5
    assert rows[1.75]["lost"] == {"value": 0, "low": 0, "high": 0} and rows[1.0]["lost"]["value"] == -0.5
    assert all(row["named"]["value"] == 1 for row in rows.values())  # it has no thresholds
    assert [row["right"]["value"] for row in rows.values()] == pytest.approx(balanced)
    overlooked = {window: row["overlooked"]["value"] for window, row in rows.items()}
    assert overlooked == {
        window: 0.5 if window <= 1 else 0 for window in WINDOWS
    }  # the red ones, where no blue is seen
    assert json.loads(json.dumps(entry)) == entry
    for boxes, usual in (([MIDDLE] * 3, 1.75), ([MIDDLE] * 4, 1.6)):
        with pytest.raises(ValueError, match=f"{len(boxes)} boxes came for 4 rows, and {usual} as the usual window"):
            framing_entry(colours, data, boxes, square, nothing, usual, setting=CPU)


def test_each_cell_is_cut_out_by_its_own_box_where_some_are_chosen(colours):
    red, blue = (250, 0, 0), (0, 0, 250)
    images = [framed(blue, red, 0.5)] * 3 + [framed(red, blue, 0.5)] * 3  # named by their corners
    data = table(images, [0, 0, 0, 1, 1, 1], ["eosinophil", "lymphocyte"])
    corner, wrong = [0, 0, 10, 10], MIDDLE
    setting = Setting(limit=4, seed=3, device="cpu", resamples=50)
    kept = set(choose_rows(data["label"][:], 4, seed=3))
    boxes = [corner if row in kept else wrong for row in range(6)]
    entry = framing_entry(colours, data, boxes, square, nothing, 1.0, setting=setting)
    assert entry["n_images"] == 4 and len(kept) == 4 and kept != {0, 1, 3, 4}
    assert all(row["balanced_accuracy"]["value"] == 1 for row in entry["windows"] if row["window"] <= 1)


def test_a_cell_is_named_only_where_the_thresholds_allow_it(colours, tmp_path):
    folder = shutil.copytree(colours, tmp_path / "sure")
    config = json.loads((folder / "config.json").read_text())

    def measure(images, labels, names, **thresholds):
        (folder / "config.json").write_text(json.dumps(config | thresholds))
        data = table(images, labels, names)
        rows = framing_entry(folder, data, [[0, 0, 20, 20]] * len(images), square, nothing, 1.75, None, "other", CPU)[
            "windows"
        ]
        return [(row["balanced_accuracy"]["value"], row["named"]["value"], row["right"]["value"]) for row in rows]

    sure, unsure, other, blue = plain(250, 0, 0), plain(30, 0, 0), plain(0, 250, 0), plain(0, 0, 250)
    images, labels, names = [sure, unsure, other, blue], [0, 0, 1, 1], ["eosinophil", "lymphocyte"]
    small = WINDOWS.index(1.0)  # what lies outside is black
    assert measure(images, labels, names)[small] == (0.75, 0.75, 0.75)
    assert measure(images, labels, names, acceptance_threshold=0.9)[small] == (0.75, 0.5, 0.5)
    # Of a red of 250 the energy is -19.6, of one of 200 it is -15.7: sure, but unlike what was learnt from.
    images = [sure, plain(200, 0, 0), plain(0, 0, 200), blue]
    assert measure(images, labels, names, acceptance_threshold=0.9)[small] == (1, 1, 1)
    assert measure(images, labels, names, acceptance_threshold=0.9, energy_threshold=-18.0)[small] == (1, 0.5, 0.5)
    # Of three groups that show a class each, most resamples lack one: what they average over is something else.
    (folder / "config.json").write_text(json.dumps(config))
    three = table([sure, other, blue], [0, 1, 2], ["eosinophil", "other", "lymphocyte"])
    row = framing_entry(folder, three, [[0, 0, 20, 20]] * 3, square, nothing, 1.0, setting=CPU)["windows"][small]
    assert row["balanced_accuracy"] == {"value": 1, "low": None, "high": None}
    assert row["lost"] == {"value": 0, "low": None, "high": None} and row["named"]["low"] is not None
    with pytest.raises(ValueError, match="class for negatives is 'none', which the model .* does not know"):
        framing_entry(folder, three, [[0, 0, 20, 20]] * 3, square, nothing, 1.0, negatives="none")


PICTURES = {
    "red": [plain(255, 0, 0)] * 3,  # an eosinophil, surely
    "green": [plain(0, 255, 0)] * 5,  # other
    "dim": [plain(30, 0, 0), plain(0, 30, 0), plain(0, 0, 30)],  # 0.84 for the colour, 0.08 for each other one
}


def shown():
    return ((kind, Image.fromarray(image)) for kind, images in PICTURES.items() for image in images)


def test_strangers_are_accepted_where_arithmetic_says(colours):
    assert np.exp(20 * 30 / 255) / (np.exp(20 * 30 / 255) + 2) == pytest.approx(0.84, abs=0.01)
    entry = stranger_entry(colours, shown(), "other", CPU, total=11)
    counts = {kind: (found["accepted"]["count"], found["n"]) for kind, found in entry["kinds"].items()}
    assert counts == {"red": (3, 3), "green": (0, 5), "dim": (2, 3)}
    assert entry["kinds"]["dim"]["called"] == {"eosinophil": 1, "lymphocyte": 1}
    assert (entry["all"]["accepted"]["count"], entry["all"]["n"]) == (5, 11)
    for found in (*entry["kinds"].values(), entry["all"]):
        accepted = found["accepted"]
        assert accepted["value"] == pytest.approx(accepted["count"] / found["n"], abs=1e-6)
        assert (accepted["low"], accepted["high"]) == pytest.approx(
            binomial_interval(accepted["count"], found["n"]), abs=1e-6
        )
        assert "accepted_and_familiar" not in found
    assert (entry["negatives"], entry["acceptance_threshold"], entry["energy_threshold"]) == ("other", None, None)
    without = stranger_entry(colours, shown(), setting=CPU)
    assert without["all"]["accepted"]["count"] == 11 and without["negatives"] is None


@pytest.mark.parametrize(("threshold", "accepted"), [(0.8, 5), (0.9, 3)])
def test_a_model_with_a_threshold_refuses_what_it_is_not_sure_of(colours, tmp_path, threshold, accepted):
    folder = shutil.copytree(colours, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    # Sure as it is of green and red, an energy of -20 is out of reach for anything dim.
    config |= {"acceptance_threshold": threshold, "energy_threshold": -10.0, "negatives_label": "other"}
    (folder / "config.json").write_text(json.dumps(config))
    entry = stranger_entry(folder, shown(), setting=CPU)
    assert entry["acceptance_threshold"] == threshold and entry["negatives"] == "other"
    assert entry["all"]["accepted"]["count"] == accepted
    familiar = {kind: found["accepted_and_familiar"]["count"] for kind, found in entry["kinds"].items()}
    assert familiar == {"red": 3, "green": 0, "dim": 0}


def test_the_area_is_scikit_learns_with_ties_and_weights():
    rng = np.random.default_rng(0)
    for levels in (4, 1000):  # many ties, and hardly any
        scores, positive = rng.integers(0, levels, 60) / 7, rng.random(60) < 0.3
        weights = rng.integers(0, 4, (20, 60)).astype(float)
        expected = [roc_auc_score(positive, scores, sample_weight=row) for row in weights]
        np.testing.assert_allclose(weighted_auroc(scores, positive, weights), expected)
        alone = np.stack([positive.astype(float), (~positive).astype(float)])  # nothing to compare with
        assert np.isnan(weighted_auroc(scores, positive, alone)).all()


def test_anomalies_score_as_scikit_learn_and_the_formulas_say(colours):
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 120, (40, 3))
    labels = np.repeat([0, 1, 2, 3], 10)  # eosinophil, ig, lymphocyte, dust
    levels[labels == 1, 1] += 100
    data = table([plain(*level) for level in levels], labels.tolist(), ["eosinophil", "ig", "lymphocyte", "dust"])
    cells, familiar = ["eosinophil", "lymphocyte"], ["eosinophil", "lymphocyte"]
    entry = anomaly_entry(colours, data, cells, familiar, ["ig", "dust"], CPU)
    logits = 20 * levels / 255
    powers = np.exp(logits)
    scores = {
        "not_a_cell": powers[:, 1] / powers.sum(axis=1),
        "energy": -np.log(powers.sum(axis=1)),
        "energy_of_cells": -np.log(powers[:, [0, 2]].sum(axis=1)),
    }
    assert entry["n_familiar"] == 20 and entry["n_images"] == 40
    for name, label in (("ig", 1), ("dust", 3)):
        rows = np.isin(labels, (0, 2, label))
        assert entry["anomalies"][name]["n"] == 10
        for score, values in scores.items():
            figure = entry["anomalies"][name][score]
            assert figure["value"] == pytest.approx(roc_auc_score(labels[rows] == label, values[rows]), abs=1e-6), score
            assert figure["low"] < figure["value"] < figure["high"]

        def areas(weights, rows=rows, label=label):
            return np.array(
                [roc_auc_score(labels == label, scores["energy"], sample_weight=row * rows) for row in weights]
            )

        bounds = group_bootstrap(areas, 40, data["photo"][:], resamples=200)
        energy = entry["anomalies"][name]["energy"]
        assert (energy["low"], energy["high"]) == pytest.approx(bounds, abs=1e-6)
    assert entry["anomalies"]["ig"]["not_a_cell"]["value"] > 0.7  # they were made greener
    everything = anomaly_entry(colours, data, [*cells, "other"], familiar, ["ig"], CPU)
    assert everything["anomalies"]["ig"]["not_a_cell"] == {"value": 0.5, "low": 0.5, "high": 0.5}  # all is a cell to it


def test_a_limit_takes_the_classes_alike_and_the_same_images_again():
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    rows = choose_rows(labels, 21, seed=3)
    assert np.bincount(labels[rows]).tolist() == [8, 5, 8]
    assert (np.diff(rows) > 0).all() and (rows == choose_rows(labels, 21, seed=3)).all()
    assert (rows != choose_rows(labels, 21, seed=4)).any()
    assert choose_rows(labels, None, 0).tolist() == list(range(75)) == choose_rows(labels, 1000, 0).tolist()
    with pytest.raises(ValueError, match="The limit is 0; expected 1 image or more"):
        choose_rows(labels, 0, 0)


def test_what_cannot_be_measured_is_refused(colours):
    data = table([plain(255, 0, 0), plain(0, 0, 255)], [0, 1], ["eosinophil", "lymphocyte"])
    with pytest.raises(ValueError, match=r"without \['photo'\]; expected one row"):
        corruption_entry(colours, data.remove_columns("photo"), setting=CPU)
    with pytest.raises(ValueError, match="has 0 rows"):
        symmetry_entry(colours, data.select([]), setting=CPU)
    with pytest.raises(ValueError, match=r"1 images of 1 group\(s\) are to be measured; expected two"):
        symmetry_entry(colours, data, setting=Setting(limit=1))
    with pytest.raises(ValueError, match="class for negatives is 'none', which the model .* does not know"):
        stranger_entry(colours, shown(), "none", CPU)
    with pytest.raises(ValueError, match=r"The cells \['monocyte'\] are no classes of the model"):
        anomaly_entry(colours, data, ["monocyte"], ["eosinophil"], ["lymphocyte"], CPU)
    for familiar, anomalies in ((["eosinophil"], ["ig"]), ([], ["eosinophil"]), (["eosinophil"], ["eosinophil"])):
        with pytest.raises(ValueError, match="expected one or more of each, each once, among the labels with images"):
            anomaly_entry(colours, data, ["eosinophil"], familiar, anomalies, CPU)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """Eight images of each of four classes: a cell of the class's colour, a red cell and a platelet, with their boxes."""
    root = tmp_path_factory.mktemp("data") / "lab"
    rows = []
    of_class = {"eosinophil": (250, 20, 20), "lymphocyte": (20, 20, 250), "ig": (20, 250, 20), "giant": (250, 30, 20)}
    for label, colour in of_class.items():
        for number in range(8):
            image = np.full((120, 120, 3), 30 + number, np.uint8)
            for name, box, paint in (
                ("WBC", (10, 10, 70, 70), colour),
                ("RBC", (80, 20, 110, 50), (90, 60, 60)),
                ("Platelets", (80, 90, 90, 100), (60, 40, 90)),
            ):
                image[box[0] : box[2], box[1] : box[3]] = paint
                rows.append((f"{label}/{number}.png", name, box[1], box[0], box[3], box[2]))
            write_image(root / label / f"{number}.png", image)
    with (root / "boxes.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("file", "label", "xmin", "ymin", "xmax", "ymax"), *rows])
    return root


def options(*more):
    return [str(option) for option in more]


def test_the_script_measures_a_laboratorys_held_out_images(colours, laboratory, tmp_path, capsys):
    path = tmp_path / "stress.json"
    common = options(
        colours, "--data_dir", laboratory, "--label_map", "ig=other", "--negatives", "other", "--results", path
    )
    common += options("--validation_share", 0.5, "--device", "cpu", "--resamples", 50, "--strangers", 3)
    report = stress.stress(stress.parse([*common, "--parts", "symmetry", "framing", "strangers"]))
    assert json.loads(path.read_text()) == report
    assert (report["dataset"], report["split"], report["split_seed"]) == ("lab", "validation", 0)
    assert report["left_out"] == {"label giant": 4}
    assert set(report["parts"]) == {"symmetry", "framing", "strangers"}
    assert report["parts"]["framing"]["n_images"] == 8  # without those of the class other
    assert [report["parts"]["framing"][key] for key in ("annotated", "found", "not_found")] == [8, 0, 0]
    symmetry, strangers = report["parts"]["symmetry"], report["parts"]["strangers"]
    assert symmetry["n_images"] == 12 and symmetry["same_under_all"]["value"] == 1  # a mean colour has no direction
    kinds = strangers["kinds"]
    assert {"ground of lab", "red cells of lab", "platelets of lab", "ig of lab", "giant of lab", "noise"} <= set(kinds)
    assert {found["n"] for found in kinds.values()} == {3}
    assert kinds["ig of lab"]["accepted"]["count"] == 0 and kinds["giant of lab"]["called"] == {"eosinophil": 3}
    assert strangers["ground"] == "lab, validation" and "china.jpg" in strangers["photographs"]
    printed = capsys.readouterr().out
    assert "left out: 4 images, label giant" in printed and "same under all" in printed
    assert "Cut out as squares, in sides of the cell's box: 8 images" in printed
    assert f"giant of lab{' ' * 22}    3 of 3     100.0 % [29.2, 100.0]" in printed

    # The parts of the same weights and images stay, and each says how it was measured.
    later = stress.stress(stress.parse([*common, "--parts", "anomaly", "corruption", "--limit", "6"]))
    assert {part: later["parts"][part] for part in ("symmetry", "framing", "strangers")} == report["parts"]
    assert json.loads(path.read_text()) == later
    anomalies = later["parts"]["anomaly"]["anomalies"]
    assert anomalies["ig"]["not_a_cell"]["value"] == 1 and anomalies["giant"]["not_a_cell"]["value"] < 1
    assert later["parts"]["corruption"]["n_images"] == 6 and later["parts"]["corruption"]["clean"]["value"] == 0
    assert set(later["parts"]["corruption"]["corruptions"]) == set(CORRUPTIONS)
    assert {"command", "commit", "dirty", "versions"} <= set(later["parts"]["anomaly"])
    printed = capsys.readouterr().out
    for name in (*CORRUPTIONS, "mean of the 55", "not a cell 1.000"):
        assert name in printed

    older = copy.deepcopy(later)
    for row in older["parts"]["framing"]["windows"]:
        del row["overlooked"]
    path.write_text(json.dumps(older))
    again = stress.stress(stress.parse([*common, "--parts", "symmetry"]))
    assert "framing" not in again["parts"] and {"symmetry", "anomaly", "strangers"} <= again["parts"].keys()

    with pytest.raises(ValueError, match="holds something else than figures of these weights on these images"):
        stress.stress(stress.parse([*common, "--split_seed", "1"]))
    path.write_text("figures")
    with pytest.raises(ValueError, match="is no file of this program"):
        stress.stress(stress.parse(common))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--negatives", "none"), "'none' is no class of the model"),
        (("--label_map", "ig=granulocyte"), "'granulocyte' is no class of the model"),
        (("--label_map", "blast=other"), "--label_map blast=...: there is no such class; expected some of"),
        (("--other_cells", "eosinophil"), r"--other_cells eosinophil: expected some of \['giant', 'ig'\]"),
        (("--split", "test_simple"), r"lab has the parts \['validation'\] to measure on, without 'test_simple'"),
    ],
)
def test_the_script_refuses_what_does_not_fit(colours, laboratory, more, message):
    with pytest.raises(ValueError, match=message):
        stress.stress(stress.parse(options(colours, "--data_dir", laboratory, "--validation_share", 0.5, *more)))


def test_windows_come_from_another_laboratory_where_this_one_has_no_boxes(colours, laboratory, tmp_path, caplog):
    bare = shutil.copytree(laboratory, tmp_path / "bare", ignore=lambda *_: {"boxes.csv"})
    for path in bare.rglob("*.png"):  # other images than the laboratory's
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    common = options(
        colours, "--data_dir", bare, "--label_map", "ig=other", "--validation_share", 0.5, "--strangers", 2
    )
    common += options("--device", "cpu", "--parts", "strangers", "--negatives", "other")
    alone = stress.stress(stress.parse(common))["parts"]["strangers"]
    assert alone["ground"] == "no boxes" and not [kind for kind in alone["kinds"] if kind.startswith("ground")]
    assert "no image has the box of a white cell" in caplog.text
    both = stress.stress(stress.parse([*common, "--ground_dir", str(laboratory)]))["parts"]["strangers"]
    assert both["ground"] == "lab, validation"
    assert {"ground of lab", "red cells of lab", "platelets of lab", "ig of bare"} <= set(both["kinds"])
    cells = stress.stress(stress.parse([*common, "--other_cells", "ig"]))["parts"]["strangers"]
    assert set(alone["kinds"]) - set(cells["kinds"]) == {"ig of bare"}
    assert cells["all"]["n"] == alone["all"]["n"] - alone["kinds"]["ig of bare"]["n"]


def test_a_laboratory_of_unknown_classes_is_refused_and_ends_the_program(rising, laboratory):
    with pytest.raises(SystemExit, match="error: None of the classes .* Say which is which with --label_map"):
        stress.main(options(rising, "--data_dir", laboratory, "--split", "all"))
    with pytest.raises(SystemExit) as ended:
        stress.parse(options(rising, "--data_dir", laboratory, "--limit", 0))
    assert ended.value.code == 2
