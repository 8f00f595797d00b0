"""Servers of Hugging Face's around the shipped folder, each in a process of its own on a loopback port."""

import base64
import contextlib
import os
import re
import subprocess
import sys
import time

import httpx
import pytest
from conftest import REPOSITORY
from peers_fixtures import overlaid

FOLDER = REPOSITORY / "hub_model"
PEERS = REPOSITORY / "tests" / "peers"


@contextlib.contextmanager
def serve(app, overlay, log, **variables):
    """Run a server until the block ends; give the function that waits until it answers and gives its address."""
    environment = overlaid(overlay, HF_HUB_OFFLINE="1", HF_HOME=str(log.parent / log.stem), **variables)
    environment["PYTHONPATH"] += os.pathsep + str(PEERS)
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", "0"]
    with log.open("w") as out:
        server = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT)

    def address():
        for _ in range(1200):
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", log.read_text()):
                return found.group(1)
            if server.poll() is not None:
                break
            time.sleep(0.1)
        pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")

    try:
        yield address
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The addresses of the hosted API, which serves the plain door, and of an endpoint, which runs handler.py."""
    logs = tmp_path_factory.mktemp("servers")
    with (
        serve(
            "hosted_api:app", "api-inference", logs / "hosted.log", TASK="image-classification", MODEL_ID=str(FOLDER)
        ) as hosted,
        serve(
            "hf_endpoints_emulator.emulator:app",
            "endpoints",
            logs / "endpoint.log",
            HANDLER_PATH=str(FOLDER / "handler.py"),
        ) as endpoint,
    ):
        yield {"hosted": hosted(), "endpoint": endpoint()}


def post(address, body=None, **options):
    """Send JSON, or what ``options`` say; give the status and the answer."""
    answer = httpx.post(address, json=body, timeout=60, **options)
    return answer.status_code, answer.json()


def scores(address, content):
    """Ask for all labels of one cell, sent as base64: its picture's bytes in, each label's score out."""
    inputs = base64.b64encode(content).decode()
    status, answer = post(address, {"inputs": inputs, "parameters": {"top_k": 1000}})
    assert status == 200, answer
    return {row["label"]: row["score"] for row in answer}
