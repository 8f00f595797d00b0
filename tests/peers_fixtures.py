"""What ``make peers`` installed for the tests alone: other versions, Hugging Face's servers, clients in JavaScript."""

import os
import shutil
from pathlib import Path

import pytest
from peers.install import folder


def _part(name: str) -> Path:
    path = folder() / name
    if not path.is_dir():
        pytest.skip(f"{name} of tests/peers is not installed: make peers")
    return path


def node_modules() -> Path:
    """The folder of npm packages; skips the test where they or Node are absent."""
    if not shutil.which("node"):
        pytest.skip("Node is not installed (Debian: nodejs and npm)")
    return _part("node_modules")


def overlay(name: str) -> Path:
    """The packages of ``tests/peers/requirements-NAME.txt``, to stand in front of the environment's; skips where absent."""
    return _part(name)


def overlaid(name: str, **variables: str) -> dict[str, str]:
    """The environment of a process that sees an overlay's packages first, with further variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(overlay(name)), "OMP_NUM_THREADS": "1", **variables}
