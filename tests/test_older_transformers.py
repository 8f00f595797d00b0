"""The folder on transformers 4, which the images of Inference Endpoints still carry: each door gives the same numbers."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from peers_fixtures import overlaid
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

FOLDER = REPOSITORY / "hub_model"
PHOTO = REPOSITORY / "space" / "examples" / "neutrophil.png"

USER = """
import importlib.metadata, importlib.util, json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the network is blocked in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse

import numpy as np
import torch
import transformers
from transformers import AutoModelForImageClassification, pipeline

folder, photo, here = sys.argv[1:]

def load(name):
    spec = importlib.util.spec_from_file_location(name, f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

seen = {"version": transformers.__version__}
pixels = torch.from_numpy(np.load(here + "/pixels.npy"))
for door, trust in {"plain": False, "ours": True}.items():
    model, report = AutoModelForImageClassification.from_pretrained(
        folder, trust_remote_code=trust, output_loading_info=True
    )
    with torch.no_grad():
        seen[door] = model(pixels).logits.tolist()
    seen[door + " left over"] = [keys for keys in report.values() if keys]
model.save_pretrained(here + "/saved")
fewer = AutoModelForImageClassification.from_pretrained(
    folder, trust_remote_code=True, num_labels=3, ignore_mismatched_sizes=True
)
seen["fewer"] = [fewer.get_classifier().out_features, fewer.config.acceptance_threshold]
seen["scores"] = pipeline("image-classification", folder, trust_remote_code=False)(photo, top_k=6)
handler = load("handler").EndpointHandler(folder)
content = open(photo, "rb").read()
seen["cell"] = handler({"inputs": content, "parameters": {"top_k": 6}})
seen["fields"] = handler({"inputs": content, "parameters": {"fields": True}})
importlib.metadata.version = lambda name: "4.40.0"
try:
    load("tensor_names")
except ImportError as error:
    seen["too old"] = str(error)
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    np.save(folder / "pixels.npy", np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def seen(here):
    environment = overlaid("transformers-4", HF_HUB_OFFLINE="1", HF_HOME=str(here / "hf_home"))
    command = [sys.executable, "-c", USER, str(FOLDER), str(PHOTO), str(here)]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def logits(here):
    model = AutoModelForImageClassification.from_pretrained(FOLDER, trust_remote_code=False)
    with torch.no_grad():
        return model(torch.from_numpy(np.load(here / "pixels.npy"))).logits.numpy()


@pytest.mark.parametrize("door", ["plain", "ours"])
def test_both_doors_give_the_same_logits(door, seen, logits):
    assert seen["version"].startswith("4.")
    assert np.abs(np.array(seen[door]) - logits).max() < 1e-5
    assert seen[f"{door} left over"] == []


def test_what_is_saved_there_loads_here(seen, here, logits):
    model = AutoModelForImageClassification.from_pretrained(here / "saved", trust_remote_code=False)
    with torch.no_grad():
        assert np.abs(model(torch.from_numpy(np.load(here / "pixels.npy"))).logits.numpy() - logits).max() < 1e-5


def test_other_classes_drop_the_thresholds_there_too(seen):
    assert seen["fewer"] == [3, None]


def test_a_photo_gets_the_same_scores(seen):
    """Up to the image processor's other backend, which rounds to whole grey values otherwise."""
    here = {row["label"]: row["score"] for row in pipeline("image-classification", str(FOLDER), top_k=6)(str(PHOTO))}
    for door in ("scores", "cell"):
        assert {row["label"]: row["score"] for row in seen[door]} == pytest.approx(here, abs=1e-4), door


def test_fields_are_counted_there(seen):
    count = pipeline(model=str(FOLDER), trust_remote_code=True, device="cpu")
    own = json.loads(count.as_json(count(Image.open(PHOTO))))
    there = seen["fields"]
    assert there["differential"]["rows"] == own["differential"]["rows"]
    assert [cell["box"] for cell in there["images"][0]["cells"]] == [cell["box"] for cell in own["images"][0]["cells"]]


def test_a_version_too_old_is_told_with_the_remedy(seen):
    assert "transformers>=4.51,<5 is required" in seen["too old"]
    assert "found transformers==4.40.0" in seen["too old"]
    assert "or load the same folder without trust_remote_code" in seen["too old"]
