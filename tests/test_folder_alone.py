"""The folder, not the checkout: hub_model alone, elsewhere, without network and without timm, loads and answers."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

USER = """
import json, socket, sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise OSError("the network is blocked in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["timm"] = None  # what an import of an absent package meets

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

here = Path(sys.argv[1])
folder = here / "wbc_resnet"
seen = {}
pixels = AutoImageProcessor.from_pretrained(folder)(Image.open(here / "photo.png"), return_tensors="pt")
seen["pixels"] = list(pixels["pixel_values"].shape)
for door, trust in {"plain": False, "remote": True}.items():
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=trust)
    with torch.no_grad():
        logits = model(**pixels).logits[0]
    file = Path(sys.modules[type(model).__module__].__file__)
    seen[door] = {
        "logits": logits.tolist(),
        "label": model.config.id2label[logits.argmax().item()],
        "evidence": hasattr(model, "evidence"),
        "from the cache": file.is_relative_to(here / "hf_home"),
    }
seen["cached"] = sorted(file.name for file in (here / "hf_home").rglob("*_wbc_resnet.py"))
seen["checkout"] = "hub_model" in sys.modules

sys.path.insert(0, str(here))
from wbc_resnet.modeling_wbc_resnet import WbcResNetForImageClassification
from wbc_resnet.timm_wbc_resnet import wbc_resnet24

seen["logits"] = list(wbc_resnet24(num_classes=6, global_pool="avg").eval()(torch.zeros(1, 3, 64, 64)).shape)
seen["label"] = WbcResNetForImageClassification.from_pretrained(folder).config.id2label[0]
for asked in ({"pretrained": True}, {"features_only": True}, {"num_clases": 6}):
    try:
        wbc_resnet24(**asked)
    except (ImportError, TypeError) as error:
        seen[list(asked)[0]] = f"{type(error).__name__}: {error}"
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory, model_folder):
    """What a user sees who has the folder in an otherwise empty directory, one photo, and no way out."""
    here = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(model_folder, here / "wbc_resnet")
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "photo.png")
    (here / "cwd").mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hf_home"), "OMP_NUM_THREADS": "1"}
    # -I keeps the checkout out of sys.path: neither the working directory nor PYTHONPATH is on it.
    command = [sys.executable, "-I", "-c", USER, str(here)]
    done = subprocess.run(command, cwd=here / "cwd", env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_both_doors_answer_the_same(seen):
    assert seen["pixels"] == [1, 3, 224, 224]
    assert seen["plain"]["logits"] == pytest.approx(seen["remote"]["logits"], abs=1e-6)
    assert len(seen["plain"]["logits"]) == 4
    assert seen["plain"]["label"] == seen["remote"]["label"]


def test_only_the_remote_door_runs_the_folders_code(seen):
    assert not seen["plain"]["evidence"] and not seen["plain"]["from the cache"]
    assert seen["remote"]["evidence"] and seen["remote"]["from the cache"]
    assert {"configuration_wbc_resnet.py", "modeling_wbc_resnet.py"} <= set(seen["cached"])
    assert "timm_wbc_resnet.py" not in seen["cached"]
    assert not seen["checkout"]


def test_without_timm_the_network_builds_and_the_rest_says_what_is_missing(seen):
    assert seen["logits"] == [1, 6]
    assert seen["label"] == "eosinophil"
    assert seen["pretrained"].startswith("ImportError: wbc_resnet24(pretrained) needs timm: pip install timm")
    assert seen["features_only"].startswith("ImportError: wbc_resnet24(features_only) needs timm: pip install timm")
    assert seen["num_clases"].startswith("TypeError") and "num_clases" in seen["num_clases"]
