"""The branch for stock timm: the same network bit for bit, the published pixels and labels, the same bytes each time."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from conftest import REPOSITORY
from PIL import Image
from publishing_fixtures import compose_once  # noqa: F401
from timm.data import create_transform, resolve_model_data_config
from transformers import AutoImageProcessor, AutoModelForImageClassification

from publishing.faults import FolderRefused
from publishing.timm_branch import export

pytestmark = pytest.mark.usefixtures("no_network")
LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "basophil", "other"]


@torch.no_grad()
def test_stock_timm_builds_the_same_network(composed):
    network = timm.create_model(f"local-dir:{composed['timm'].folder}", pretrained=True).eval()
    stored = AutoModelForImageClassification.from_pretrained(REPOSITORY / "hub_model", trust_remote_code=False)
    x = torch.randn(2, 3, 224, 160, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network(x), stored(x).logits)
    assert network.forward_features(x).shape == (2, 512, 28, 20)
    assert type(network).__module__ == "timm.models.resnet"


def test_labels_and_pixels_are_the_published_ones(composed):
    network = timm.create_model(f"local-dir:{composed['timm'].folder}", pretrained=True)
    assert network.pretrained_cfg["label_names"] == LABELS
    photo = Image.open(REPOSITORY / "space" / "examples" / "monocyte.png").convert("RGB").crop((0, 0, 240, 180))
    theirs = AutoImageProcessor.from_pretrained(REPOSITORY / "hub_model")(photo, return_tensors="pt")["pixel_values"][0]
    ours = create_transform(**resolve_model_data_config(network))(photo)
    # The two resizes, PIL's and torchvision's, may round to neighbouring grey values: 1/255 over the smallest deviation.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1 / 255 / 0.224 + 1e-5)


def test_nothing_of_timms_own_resnet50_is_claimed(composed):
    config = json.loads((composed["timm"].folder / "config.json").read_text("utf-8"))
    assert not re.search("a1_in1k|rsb|2110.00476|1000|pytorch-image-models", json.dumps(config))
    assert config["pretrained_cfg"]["license"] == "apache-2.0"


def test_the_same_folder_gives_the_same_bytes(composed, tmp_path):
    again = export(composed["model"], tmp_path / "again", "apache-2.0")
    files = {path.name: path.read_bytes() for path in composed["timm"].files}
    assert {path.name: path.read_bytes() for path in again.files} == files
    assert files.keys() == {"README.md", "LICENSE", "config.json", "model.safetensors"}


def test_another_model_brings_its_own_size_and_labels(model_folder, composed, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    shutil.copyfile(REPOSITORY / "LICENSE", folder / "LICENSE")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor |= {"size": {"height": 160, "width": 192}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    model = replace(composed["model"], folder=folder, id="anna/mine")
    exported = export(model, tmp_path / "timm", "cc-by-4.0")
    network = timm.create_model(f"local-dir:{exported.folder}", pretrained=True)
    cfg = network.pretrained_cfg
    assert (tuple(cfg["input_size"]), cfg["interpolation"], cfg["std"]) == ((3, 160, 192), "bicubic", [0.2, 0.25, 0.3])
    assert network.num_classes == 4 and cfg["license"] == "cc-by-4.0"
    assert 'timm.create_model("hf-hub:anna/mine@timm", pretrained=True)' in (exported.folder / "README.md").read_text()


@torch.no_grad()
def test_the_readmes_code_runs(composed, tmp_path, monkeypatch):
    text = (composed["timm"].folder / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(REPOSITORY / "space" / "examples" / "basophil.png", tmp_path / "cell.jpg")
    seen = {}
    exec(code.replace("hf-hub:anna/wbc-resnet24@timm", f"local-dir:{composed['timm'].folder}"), seen)
    assert seen["model"].pretrained_cfg["label_names"][int(np.argmax(seen["probabilities"]))] == "basophil"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"no weights", "no export (SafetensorError"),
        ("config.json", b"{}", "no export (KeyError: 'id2label')"),
        ("preprocessor_config.json", b"[", "no export (JSONDecodeError"),
    ],
)
def test_a_damaged_folder_is_refused(composed, tmp_path, file, content, message):
    folder = shutil.copytree(composed["model"].folder, tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(FolderRefused, match=re.escape(message)):
        export(replace(composed["model"], folder=folder), tmp_path / "timm", "apache-2.0")
