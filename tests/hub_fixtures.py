"""What the tests of publishing share: the loopback Hub, and real clients that can reach nothing else."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from loopback_hub import Fault, LoopbackHub

__all__ = ["BEGIN", "CARD", "WEIGHTS", "Client", "Fault", "LoopbackHub", "log_in", "start_hub"]

CARD = "---\nlicense: apache-2.0\npipeline_tag: image-classification\ntags:\n- small\n---\n# A card\n"
WEIGHTS = np.random.default_rng(0).bytes(3_000_000)  # no text, hence a large file

# Read by each script: what an error was, or "" for none; and no waiting between two tries, only a list of the waits.
BEGIN = """
import json, sys, time
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download

def error(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"
    return ""

waits, seen, api = [], {}, HfApi()
time.sleep = waits.append
folder = sys.argv[1]
"""

# Read by every Python that is started with its folder on PYTHONPATH, also by the ``hf`` command.
GUARD = """
import os
import socket

connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def check(host):
    if str(host) not in ("127.0.0.1", "localhost", "::1"):
        with open(os.environ["HOSTS_TRIED"], "a") as stream:
            stream.write(f"{host}\\n")
        raise OSError(f"{host}: only loopback may be reached in this test")


def checked(call):
    def only_loopback(self, address):
        if self.family != socket.AF_UNIX:
            check(address[0])
        return call(self, address)

    return only_loopback


def look_up(host, *args, **kwargs):
    check(host.decode() if isinstance(host, bytes) else host)
    return getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = checked(connect), checked(connect_ex), look_up
"""


@dataclass
class Client:
    """A machine of a user of the Hub: an empty home, one token, and no way to any other host."""

    hub: LoopbackHub
    here: Path
    token: str | None

    def __post_init__(self):
        for name in ("guard", "cwd", "hf_home"):
            (self.here / name).mkdir(parents=True)
        (self.here / "guard" / "sitecustomize.py").write_text(GUARD)
        self.tried = self.here / "hosts_tried"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process on this machine."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "PYTHON", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
        }
        kept |= {"HF_ENDPOINT": self.hub.endpoint, "HF_HOME": str(self.here / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
        kept |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HOME": str(self.here)}
        # A busy machine may be slow where nobody asked it to be.
        kept |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"}
        kept |= {"PYTHONPATH": str(self.here / "guard"), "HOSTS_TRIED": str(self.tried), "OMP_NUM_THREADS": "1"}
        return kept | ({"HF_TOKEN": self.token} if self.token else {})

    def run(self, *command: str, may_try: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess:
        """Run a command and wait; ``more`` goes into its environment.

        It must not have tried to reach another host, but for those in ``may_try``, which it did not reach either.
        """
        self.tried.unlink(missing_ok=True)
        environment = self.environment | more
        cwd = self.here / "cwd"
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        tried = set(self.tried.read_text().split()) if self.tried.exists() else set()
        assert tried <= set(may_try), f"tried to reach {tried}"
        return done

    def python(self, script: str, *arguments: object, **more) -> dict:
        """Run a script that prints JSON on its last line, and return that."""
        done = self.run(sys.executable, "-c", script, *map(str, arguments), **more)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(name="hub")
def start_hub():
    """A Hub that holds nothing yet, and its user anna."""
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(name="client")
def log_in(hub, tmp_path):
    """A machine on which anna is logged in."""
    return Client(hub, tmp_path / "anna", hub.token)
