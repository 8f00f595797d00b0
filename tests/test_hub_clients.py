"""The folders of this repository on a Hub, and the libraries that load them from there by their ids."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hub_fixtures import Client, LoopbackHub, log_in, start_hub  # noqa: F401
from PIL import Image

HF = Path(sys.executable).with_name("hf")
PHOTO = REPOSITORY / "space" / "examples" / "neutrophil.png"

MODEL = """
import json, sys, warnings
from pathlib import Path

import timm
import torch
from huggingface_hub import HfApi
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

folder, photo, here = map(Path, sys.argv[1:])
api, ID, seen = HfApi(), "anna/wbc", {}
api.create_repo(ID)
pushed = api.upload_folder(repo_id=ID, folder_path=folder, commit_message="pushed", ignore_patterns="__pycache__/*")

pixels = AutoImageProcessor.from_pretrained(ID)(Image.open(photo), return_tensors="pt")

def logits(**asked):
    model = AutoModelForImageClassification.from_pretrained(ID, **asked)
    with torch.no_grad():
        return model, model(**pixels).logits[0].tolist()

with torch.no_grad():
    seen["folder"] = AutoModelForImageClassification.from_pretrained(folder)(**pixels).logits[0].tolist()
plain, seen["plain"] = logits()
ours, seen["ours"] = logits(trust_remote_code=True)
seen["classes"] = [hasattr(model, "evidence") for model in (plain, ours)]
seen["code"] = Path(sys.modules[type(ours).__module__].__file__).parts[-3:]
count = pipeline(model=ID, trust_remote_code=True, one_cell=True)
answer = count(str(photo))
seen["pipeline"] = answer
classify = pipeline("image-classification", ID, trust_remote_code=False)
seen["widget"] = {one["label"]: one["score"] for one in classify(str(photo), top_k=99)}
seen["labels"] = plain.config.id2label

# The branch that stock timm loads
network = timm.create_model("resnet50", layers=(3, 4, 0, 0), channels=(64, 128, 128, 128), num_classes=len(seen["folder"]))
network.load_state_dict(ours.network.state_dict())
arguments = {"layers": [3, 4, 0, 0], "channels": [64, 128, 128, 128]}
save_for_hf(network, here / "timm", model_args=arguments, safe_serialization=True)
api.create_branch(ID, branch="timm")
api.upload_folder(
    repo_id=ID, folder_path=here / "timm", revision="timm", delete_patterns="*", commit_message="for timm"
)
with torch.no_grad():
    loaded = timm.create_model(f"hf-hub:{ID}@timm", pretrained=True).eval()
    seen["timm"] = loaded(pixels["pixel_values"])[0].tolist()
seen["timm files"] = api.list_repo_files(ID, revision="timm")

# Other weights are pushed, and the old ones stay where the tag is
api.create_tag(ID, tag="v1")
tensors = load_file(folder / "model.safetensors")
changed = {name: tensor * 0 if name.startswith("classifier") else tensor for name, tensor in tensors.items()}
save_file(changed, here / "model.safetensors", metadata={"format": "pt"})
api.upload_file(path_or_fileobj=here / "model.safetensors", path_in_repo="model.safetensors", repo_id=ID)
_, seen["changed"] = logits()
_, seen["at v1"] = logits(revision="v1")
_, seen["ours at the commit"] = logits(revision=pushed.oid, trust_remote_code=True)
api.upload_folder(repo_id=ID, folder_path=folder, commit_message="back", ignore_patterns="__pycache__/*")
_, seen["back"] = logits()

# What the Trainer pushes of itself
sizes = {"depths": [1], "hidden_sizes": [8], "embedding_size": 8, "layer_type": "basic", "num_labels": 2}
tiny = ResNetForImageClassification(ResNetConfig(**sizes))
arguments = TrainingArguments(
    here / "tiny", max_steps=1, push_to_hub=True, hub_model_id="anna/tiny", use_cpu=True, report_to="none", save_strategy="no"
)
rows = [{"pixel_values": torch.zeros(3, 32, 32), "labels": 0}] * 2
trainer = Trainer(tiny, arguments, train_dataset=rows)
trainer.train()
trainer.push_to_hub()
again = AutoModelForImageClassification.from_pretrained("anna/tiny")
seen["tiny"] = [torch.equal(again.classifier[1].weight, tiny.classifier[1].weight), api.list_repo_files("anna/tiny")]
print(json.dumps(seen))
"""


DATA = """
import json, sys
from pathlib import Path

import datasets
from huggingface_hub import HfApi

folder, space, cells = map(Path, sys.argv[1:])
api, seen = HfApi(), {}
for name, source in {"anna/photos": folder, "anna/cells": cells}.items():
    api.create_repo(name, repo_type="dataset")
    api.upload_folder(repo_id=name, folder_path=source, repo_type="dataset", commit_message="pushed")
api.create_tag("anna/photos", tag="v1", repo_type="dataset")
for config in (None, "photos", "overlaps"):
    table = datasets.load_dataset("anna/photos", config)
    seen[config or "default"] = {split: [len(rows), rows.column_names] for split, rows in table.items()}
seen["first"] = datasets.load_dataset("anna/photos", split="train", revision="v1")[0]
seen["configurations"] = datasets.get_dataset_config_names("anna/photos")
seen["streamed"] = next(iter(datasets.load_dataset("anna/photos", "overlaps", split="train", streaming=True)))
loaded = datasets.load_dataset("anna/cells")
names = loaded["train"].features["label"].names
seen["cells"] = {
    split: [[names[row["label"]], row["image"].size, row["image"].getpixel((0, 0))] for row in rows]
    for split, rows in loaded.items()
}
loaded.push_to_hub("anna/parquet")
seen["files"] = api.list_repo_files("anna/parquet", repo_type="dataset")
again = datasets.load_dataset("anna/parquet")
seen["parquet"] = {
    split: [[names[row["label"]], row["image"].size, row["image"].getpixel((0, 0))] for row in rows]
    for split, rows in again.items()
}
api.create_repo("anna/smears", repo_type="space", space_sdk="gradio")
api.upload_folder(repo_id="anna/smears", repo_type="space", folder_path=space, ignore_patterns="__pycache__/*")
info = api.space_info("anna/smears")
seen["space"] = [info.sdk, info.card_data.app_file, [one.rfilename for one in info.siblings]]
print(json.dumps(seen, default=str))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine of anna's, and her Hub."""
    with LoopbackHub() as hub:
        yield Client(hub, tmp_path_factory.mktemp("clients") / "anna", hub.token)


@pytest.fixture(scope="module")
def model(machine, tmp_path_factory):
    """What transformers and timm saw of the published folder."""
    return machine.python(MODEL, REPOSITORY / "hub_model", PHOTO, tmp_path_factory.mktemp("model"))


# The model


def test_every_door_by_id_gives_what_the_folder_gives(model):
    expected = pytest.approx(model["folder"], abs=1e-5)
    for door in ("plain", "ours", "timm"):
        assert model[door] == expected, door
    assert model["classes"] == [False, True]  # only ours knows of evidence
    assert len(model["folder"]) == len(model["labels"]) >= 4


def test_our_code_comes_from_the_commit_that_was_pushed(model, machine):
    name, commit, file = model["code"]
    history = [one.oid for one in machine.hub.repository("model", "anna/wbc").history]
    assert (name, file) == ("wbc", "modeling_wbc_resnet.py") and commit == history[2]


def test_both_pipelines_by_id(model):
    scores = np.exp(model["folder"]) / np.exp(model["folder"]).sum()
    by_hand = {model["labels"][str(number)]: pytest.approx(score, abs=1e-5) for number, score in enumerate(scores)}
    assert model["widget"] == by_hand
    assert {one["label"]: one["score"] for one in model["pipeline"]["probabilities"]} == by_hand
    assert model["pipeline"]["verdict"] == "neutrophil"


def test_stock_timm_loads_its_branch_which_holds_nothing_else(model, machine):
    assert model["timm files"] == [".gitattributes", "config.json", "model.safetensors"]
    assert "modeling_wbc_resnet.py" in machine.hub.repository("model", "anna/wbc").files()


def test_a_push_a_tag_and_the_way_back(model, machine):
    assert model["changed"] != pytest.approx(model["folder"], abs=0.1)
    for revision in ("at v1", "ours at the commit", "back"):
        assert model[revision] == model["plain"], revision
    repository = machine.hub.repository("model", "anna/wbc")
    titles = [commit.title for commit in repository.history]
    assert titles == ["back", "Upload model.safetensors with huggingface_hub", "pushed", "initial commit"]
    assert repository.resolve().files == repository.resolve("v1").files


def test_what_the_trainer_pushes_loads_and_holds_a_pickle(model):
    """The last is why train.py does not push by it."""
    same, files = model["tiny"]
    assert same and {"README.md", "config.json", "model.safetensors", "training_args.bin"} < set(files)


# Data sets


COLOURS = {"basophil": (0, 0, 255), "neutrophil": (255, 0, 0)}
COUNTS = {"train": 3, "test": 2}


@pytest.fixture(scope="module")
def data(machine, tmp_path_factory):
    """What datasets saw of our tables, and of a folder of drawn images."""
    cells = tmp_path_factory.mktemp("cells")
    for split, count in COUNTS.items():
        for label, colour in COLOURS.items():
            (cells / split / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8 + number, 6), colour).save(cells / split / label / f"{number}.png")
    # It asks a viewer beside the Hub for tables made in advance, and goes on without.
    viewer = ("datasets-server.127.0.0.1",)
    folders = [REPOSITORY / "hub_dataset", REPOSITORY / "space", cells]
    return machine.python(DATA, *folders, may_try=viewer, HF_UPDATE_DOWNLOAD_COUNTS="0")


def test_each_of_our_tables_loads_by_id_as_the_card_says(data):
    assert data["configurations"] == ["images", "photos", "overlaps"]
    for shown, name in {"default": "images", "photos": "photos", "overlaps": "overlaps"}.items():
        with (REPOSITORY / "hub_dataset" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            head, *rows = csv.reader(stream)
        assert data[shown] == {"train": [len(rows), head]}, shown
    with (REPOSITORY / "hub_dataset" / "images.csv").open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert {name: "" if value is None else value for name, value in data["first"].items()} == {
        name: type(data["first"][name])(text) if text else "" for name, text in first.items()
    }
    assert data["streamed"].keys() == set(data["overlaps"]["train"][1])


@pytest.mark.parametrize("form", ["cells", "parquet"])
def test_images_come_back_from_a_folder_and_from_parquet(form, data):
    for split, count in COUNTS.items():
        expected = [[label, [8 + number, 6], list(COLOURS[label])] for label in COLOURS for number in range(count)]
        assert data[form][split] == expected, split
    assert data["files"][2:] == ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]


def test_the_space_is_taken_with_its_cards_head(data, machine):
    sdk, app, files = data["space"]
    assert (sdk, app) == ("gradio", "app.py")
    stored = machine.hub.repository("space", "anna/smears").files()
    assert set(files) == stored.keys()
    for path in ("README.md", "app.py", "examples/neutrophil.png"):
        assert stored[path] == (REPOSITORY / "space" / path).read_bytes(), path


# The command line


def test_the_hf_command_uploads_and_downloads(machine, tmp_path):
    folder = tmp_path / "to-push"
    (folder / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "deep" / "weights.safetensors").write_bytes(np.random.default_rng(0).bytes(100_000))
    who = machine.run(HF, "auth", "whoami")
    assert who.returncode == 0 and "anna" in who.stdout, who.stderr
    pushed = machine.run(HF, "upload", "anna/cli", str(folder), "--commit-message", "by hand", "--private")
    assert pushed.returncode == 0, pushed.stderr
    repository = machine.hub.repository("model", "anna/cli")
    assert repository.private and [commit.title for commit in repository.history] == ["by hand", "initial commit"]
    got = machine.run(HF, "download", "anna/cli", "--local-dir", str(tmp_path / "got"))
    assert got.returncode == 0, got.stderr
    for path in ("README.md", "deep/weights.safetensors"):
        assert (tmp_path / "got" / path).read_bytes() == (folder / path).read_bytes()


def test_the_hf_command_with_a_wrong_token_says_so(machine, tmp_path):
    stranger = Client(machine.hub, tmp_path / "stranger", "hf_wrong")
    who = stranger.run(HF, "auth", "whoami")
    assert who.returncode != 0 and "Invalid user token" in who.stdout + who.stderr
