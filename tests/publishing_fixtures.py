"""What the tests of publishing share: the project's folders composed once, a tree to change, a process that knows one Hub."""

import contextlib
import io
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY
from huggingface_hub import constants
from loopback_hub import LoopbackHub

import publish
from publishing import hub as hub_module
from publishing import releasing

__all__ = ["Desk", "compose_once", "desk_of", "sit_down", "start_quickly", "state_another_accuracy", "tree_of"]
OWN = ("hub_model", "hub_dataset", "space", "LICENSE", "pyproject.toml", "model_card.md")
KEPT_WAITS = (0.0, 0.0)  # seconds; as often as it takes for "again" and no longer


def tree_of(folder: Path) -> Path:
    """Copy what is published of the project."""
    folder.mkdir()
    for name in OWN:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    return folder


@pytest.fixture(scope="session", name="composed")
def compose_once(tmp_path_factory):
    """The folders as they are pushed for anna: model, its timm branch, data set, Space. Read only."""
    stage = tmp_path_factory.mktemp("composed")
    folders, faults = releasing.compose_project(REPOSITORY, "anna", releasing.ORDER, stage)
    assert not faults
    return dict(zip(("model", "timm", "dataset", "space"), folders, strict=True))


@dataclass
class Desk:
    """A process that knows one Hub and one token, with publish.py at hand."""

    hub: LoopbackHub
    patch: pytest.MonkeyPatch
    waits: list[float]
    out: str = ""
    err: str = ""

    def publish(self, *options: str, namespace: str = "anna") -> int:
        """Run publish.py; what it says is in ``out`` and ``err``, what it asked for in ``hub.requests``."""
        self.hub.requests.clear()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = publish.main(["--namespace", namespace, *options])
        self.out, self.err = out.getvalue(), err.getvalue()
        return status

    @property
    def writes(self) -> list[str]:
        """What it asked for that may change something."""
        return [request for request in self.hub.requests if not request.startswith(("GET ", "HEAD "))]

    @property
    def heads(self) -> dict[tuple[str, str], str]:
        """Every branch's and tag's commit, to tell whether anything changed."""
        return {
            (f"{kind} {name}", ref): commit.oid
            for (kind, name), one in self.hub.repositories.items()
            for ref, commit in (one.branches | {f"tag {tag}": commit for tag, commit in one.tags.items()}).items()
        }


def desk_of(hub: LoopbackHub, patch: pytest.MonkeyPatch) -> Desk:
    """Let this process know this Hub alone."""
    waits: list[float] = []
    patch.setenv("HF_ENDPOINT", hub.endpoint)
    patch.setenv("HF_TOKEN", hub.token)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    sleep = time.sleep

    def wait(seconds: float) -> None:
        # A page that tests before have served sweeps in a thread of its own as long as the process lasts.
        if threading.current_thread().name == "sweep visits":
            sleep(seconds)
        else:
            waits.append(seconds)

    patch.setattr("time.sleep", wait)
    patch.setattr(publish.signal, "signal", lambda *_: None)
    return Desk(hub, patch, waits)


@pytest.fixture(name="desk")
def sit_down(monkeypatch):
    """A process that knows an empty Hub of its own."""
    with LoopbackHub() as hub:
        yield desk_of(hub, monkeypatch)


@pytest.fixture(name="tree")
def start_quickly(desk, composed, monkeypatch, tmp_path):
    """A copy of the project to change, published without the checks, which have tests of their own."""
    tree = tree_of(tmp_path / "project")
    monkeypatch.setattr(publish, "ROOT", tree)
    monkeypatch.setattr(releasing, "check_folders", lambda *_: [])
    monkeypatch.setattr(hub_module, "WAITS", KEPT_WAITS)

    def export(model, into, license_id):
        shutil.copytree(composed["timm"].folder, into)
        # The true export takes seconds; all that these tests change in the model's folder is its card.
        return releasing.Composed(model.kind, model.id, into, "hub_model (timm)", "timm")

    monkeypatch.setattr(releasing, "export", export)
    return tree


def state_another_accuracy(card: Path) -> None:
    """Change the first accuracy in the head of a rendered card, whatever it is."""
    text, changed = re.subn(
        r"(    - type: accuracy\n      value: )[\d.]+\n", r"\g<1>0.123\n", card.read_text("utf-8"), count=1
    )
    assert changed
    card.write_text(text, "utf-8")
