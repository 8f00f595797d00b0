"""What several tests share: a network with lived-in statistics, a folder as it is published, the real images if present."""

import importlib.util
import json
import os
import shutil
import socket
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

# Read by torch and by transformers when they are imported, so set before: one thread, for the machine may be shared; and
# remote code goes to a folder of its own, so that no copy from an earlier run answers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="hf_modules_")

REPOSITORY = Path(__file__).resolve().parent.parent
LABELS = ("eosinophil", "lymphocyte", "monocyte", "neutrophil")
AUTO_MAP = {
    "AutoConfig": "configuration_wbc_resnet.WbcResNetConfig",
    "AutoModelForImageClassification": "modeling_wbc_resnet.WbcResNetForImageClassification",
}


def pytest_sessionfinish():
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


def custom_pipelines():
    """The entry of config.json by which our pipeline is found."""
    return json.loads((REPOSITORY / "hub_model" / "config.json").read_text(encoding="utf-8"))["custom_pipelines"]


def live_in(network, seed=0):
    """Give every normalisation the statistics and scales of a trained one, in place; a fresh one is an identity or zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.3, 0.9, generator=generator)
            module.bias.data.normal_(std=0.2, generator=generator)
        elif isinstance(module, torch.nn.Linear):
            module.weight.data.normal_(std=0.3, generator=generator)
            module.bias.data.normal_(generator=generator)
    return network


def build_model(labels=LABELS, seed=0):
    """Build the classifier with these labels, in evaluation mode."""
    import torch

    from hub_model.configuration_wbc_resnet import WbcResNetConfig
    from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification

    torch.manual_seed(seed)
    config = WbcResNetConfig(id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})
    return live_in(WbcResNetForImageClassification(config), seed).eval()


def import_from(folder, name):
    """Import ``name`` from a folder like hub_model that stands anywhere, as a package of its own."""
    package = f"published_{abs(hash(str(folder)))}"
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    sys.modules.pop(f"{package}.{name}", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Overwriting wbc_resnet24 in registry")
        return importlib.import_module(f"{package}.{name}")


@pytest.fixture
def model():
    """The classifier with four labels and randomised batch-norm statistics."""
    return build_model()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A complete folder as it stands on the Hub; read only, copy it before changing it."""
    from transformers import ViTImageProcessor

    folder = tmp_path_factory.mktemp("published") / "wbc-resnet"
    shutil.copytree(REPOSITORY / "hub_model", folder, ignore=lambda _, names: [n for n in names if n[-3:] != ".py"])
    model = build_model()
    model.config.auto_map = AUTO_MAP
    model.config.custom_pipelines = custom_pipelines()
    model.save_pretrained(folder)
    # Mean and deviation of no known data set, so that a second list of them somewhere shows.
    pixels = ViTImageProcessor(
        size={"height": 224, "width": 224}, image_mean=[0.7, 0.6, 0.65], image_std=[0.2, 0.25, 0.3]
    )
    pixels.save_pretrained(folder)
    return folder


def real_images():
    """Find the folder of real images, from WBC_DATA or beside the repository; None where it is absent."""
    root = Path(os.environ.get("WBC_DATA", REPOSITORY.parent / "shared" / "data"))
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def data_root():
    """The folder of real images; skips where it is absent."""
    root = real_images()
    if root is None:
        pytest.skip(f"real images are absent: set WBC_DATA or put them at {REPOSITORY.parent / 'shared' / 'data'}")
    return root


@pytest.fixture
def no_network(monkeypatch):
    """Refuse every connection."""

    def refuse(*args, **kwargs):
        raise OSError("the network is blocked in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
