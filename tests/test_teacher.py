"""A teacher is what timm says it is, sees what our network sees, and is learnt from as the papers write it."""

import numpy as np
import pytest
import timm
import torch
from conftest import build_model
from PIL import Image
from safetensors.torch import load_file, save_file
from test_trainer import Blots, assert_resumed_ends_in_the_same_bits, make_trainer
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTImageProcessor

from training.teacher import Teachers, build_teacher, rename_alike, taught_loss
from training.trainer import PROJECTION_FILE

TINY, SIDE = "test_efficientnet", 96
NAMES = ["eosinophil", "lymphocyte"]
OURS = ViTImageProcessor(size={"height": 64, "width": 64}, image_mean=[0.7, 0.6, 0.7], image_std=[0.2, 0.25, 0.2])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights as timm writes them, with 1,000 classes, and statistics that are not those of a fresh network."""
    torch.manual_seed(3)
    network = timm.create_model(TINY)
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    torch.manual_seed(4)
    return save(build_teacher(NAMES, TINY, SIDE, weights), tmp_path_factory.mktemp("teacher"))


def save(model, folder):
    model.save_pretrained(folder)
    return str(folder)


def photo(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (80, 110, 3), dtype=np.uint8))


def test_it_begins_with_the_weights_of_the_file_and_a_layer_of_its_own(weights):
    built, stored = build_teacher(NAMES, TINY, SIDE, weights), load_file(weights)
    own = built.timm_model.state_dict()
    for name, tensor in stored.items():
        if not name.startswith("classifier"):
            assert torch.equal(own[name], tensor), name
    assert own["classifier.weight"].shape == (2, built.timm_model.num_features)
    assert built.config.id2label == dict(enumerate(NAMES))


def test_weights_under_other_names_are_taken_in_their_order(weights, tmp_path):
    stored = load_file(weights)
    network = timm.create_model(TINY)
    ordered = {f"_block.{number}": stored[name] for number, name in enumerate(network.state_dict())}
    torch.save(ordered, tmp_path / "other.pth")
    built = build_teacher(NAMES, TINY, SIDE, tmp_path / "other.pth").timm_model.state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in stored.items() if "classifier" not in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored | {"more": torch.zeros(1)}, "holds 3 tensors; expected the network's 2"),
        (lambda stored: {"b": stored["b"], "a": stored["a"]} | {}, None),
        (
            lambda stored: {"x": stored["b"], "y": stored["a"]},
            r"holds x of shape \(3,\) where the network has a of \(2,\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    own = {"a": torch.ones(2), "b": torch.ones(3)}
    if message is None:
        assert rename_alike(change(own), own, "file").keys() == own.keys()
        return
    with pytest.raises(ValueError, match=f"file {message}"):
        rename_alike(change(own), own, "file")


def test_a_network_that_timm_has_not_or_cannot_fetch_is_refused():
    with pytest.raises(ValueError, match="--network resnet999: timm has no such network"):
        build_teacher(NAMES, "resnet999", SIDE)
    with pytest.raises(ValueError, match=f"--network {TINY}: its weights cannot be fetched .* --network_weights FILE"):
        build_teacher(NAMES, TINY, SIDE)  # no Hub is reachable, or asked, in the tests


def test_its_folder_is_one_that_transformers_loads_and_shows_whole_images(folder):
    """The library's own processor for it makes the pixels that ours would."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(photo(), return_tensors="pt")["pixel_values"]
    seen = model.config.pretrained_cfg
    plain = ViTImageProcessor(size={"height": SIDE, "width": SIDE}, image_mean=seen["mean"], image_std=seen["std"])
    assert torch.allclose(pixels, plain(photo(), return_tensors="pt")["pixel_values"], atol=0.02)
    with torch.no_grad():
        assert model(pixel_values=pixels).logits.shape == (1, 2)


def test_teachers_see_what_our_network_sees_and_answer_as_they_do_alone(folder, weights, tmp_path):
    torch.manual_seed(5)
    other = save(build_teacher(NAMES, TINY, 64, weights), tmp_path / "other")
    teachers = Teachers([folder, other], NAMES, OURS)
    assert not any(parameter.requires_grad for parameter in teachers.parameters())
    assert not teachers.train().networks[0].training, "its statistics must not follow our images"
    pixels = OURS(photo(), return_tensors="pt")["pixel_values"]
    answers, features = teachers(pixels)
    colours = pixels * torch.tensor(OURS.image_std).view(3, 1, 1) + torch.tensor(OURS.image_mean).view(3, 1, 1)
    expected, embeddings = [], []
    for path, side in ((folder, SIDE), (other, 64)):
        model = AutoModelForImageClassification.from_pretrained(path).eval()
        mean, std = (torch.tensor(model.config.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
        shown = functional.interpolate(colours, (side, side), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected.append(model(pixel_values=(shown - mean) / std).logits.softmax(-1))
            embeddings.append(model.timm_model.forward_features((shown - mean) / std).mean((-2, -1)))
    assert torch.allclose(answers, (expected[0] + expected[1]) / 2, atol=1e-5)
    assert features.shape == (1, teachers.width) and teachers.width == sum(one.shape[1] for one in embeddings)
    assert torch.allclose(features, torch.cat([one / one.norm() for one in embeddings], dim=1), atol=1e-4)


def test_a_folder_that_is_no_teacher_or_names_other_classes_is_refused(folder, model_folder):
    with pytest.raises(ValueError, match="no timm network can be loaded there .*what train.py --network writes"):
        Teachers([str(model_folder)], NAMES, OURS)
    with pytest.raises(ValueError, match="--teacher nowhere: no timm network can be loaded there"):
        Teachers(["nowhere"], NAMES, OURS)
    with pytest.raises(ValueError, match=r"names \['eosinophil', 'lymphocyte'\]; expected the classes .*'neutrophil'"):
        Teachers([folder], ["eosinophil", "neutrophil"], OURS)


def test_what_is_learnt_is_the_divergence_and_the_angle():
    logits = torch.tensor([[0.3, -0.2], [1.0, 2.0]], dtype=torch.float64)
    answers = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)
    own, wanted = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [4.0, 3.0]])
    q = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    by_hand = (answers.numpy() * np.log(answers.numpy() / q)).sum(1).mean() + np.mean([1 - 0, 1 - 24 / 25])
    assert float(taught_loss(logits, own, answers, wanted)) == pytest.approx(by_hand, abs=1e-6)
    assert float(taught_loss(logits, wanted * 7, logits.softmax(-1), wanted)) == pytest.approx(0, abs=1e-6)


def test_a_taught_training_that_was_killed_ends_in_the_same_bits(folder, tmp_path):
    def taught():
        return {"network": build_model(NAMES), "teachers": Teachers([folder], NAMES, OURS), "images": Blots(64)}

    assert_resumed_ends_in_the_same_bits(tmp_path, taught)
    assert (tmp_path / "parts" / "checkpoint-2" / PROJECTION_FILE).is_file()


def test_a_teacher_is_followed_and_its_layer_learnt(folder, tmp_path):
    teachers = Teachers([folder], NAMES, OURS)
    trainer = make_trainer(
        tmp_path, epochs=1, network=build_model(NAMES), teachers=teachers, teaching=1.0, images=Blots(64)
    )
    before = trainer.projection.weight.detach().clone()
    pixels = torch.stack([trainer.train_dataset[row]["pixel_values"] for row in range(8)])
    batch = {"pixel_values": pixels, "labels": torch.tensor([0, 1] * 4)}
    trainer.model.train()
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    answers, wanted = teachers(batch["pixel_values"])
    embedding = outputs.hidden_states[0].mean((-2, -1))
    expected = functional.cross_entropy(outputs.logits, batch["labels"]) + taught_loss(
        outputs.logits, trainer.projection(embedding), answers, wanted
    )
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    trainer.train()
    assert not torch.equal(trainer.projection.weight, before)
    as_stored = Teachers([folder], NAMES, OURS).state_dict()
    assert all(torch.equal(tensor, as_stored[name]) for name, tensor in teachers.state_dict().items())
    with pytest.raises(ValueError, match="expected a teacher and one process without it"):
        make_trainer(tmp_path / "mixed", network=build_model(NAMES), teachers=teachers, mixup=0.2)
