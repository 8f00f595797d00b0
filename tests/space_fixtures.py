"""What the tests of the Space share: its modules, and the page served on a free loopback port."""

import socket
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import REPOSITORY

# The Space's files import one another by bare name, as they do where it runs.
sys.path.insert(0, str(REPOSITORY / "space"))
import app
import colours
import draw_examples
import field_picture
import fields_page
import laboratory
import languages
import metadata
import my_laboratory
import one_cell
import overlay
import page
import reading
import report
import review
import smear_fields
import smear_model
import turns
import uploads
import visits

__all__ = [
    "EXAMPLES",
    "SPACE",
    "app",
    "colours",
    "draw_examples",
    "field_picture",
    "fields_page",
    "free_port",
    "laboratory",
    "languages",
    "metadata",
    "my_laboratory",
    "one_cell",
    "overlay",
    "page",
    "reading",
    "report",
    "review",
    "serve",
    "serve_shipped",
    "smear_fields",
    "smear_model",
    "turns",
    "uploads",
    "visits",
]
SPACE = REPOSITORY / "space"
EXAMPLES = SPACE / "examples"


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(folder, uploads):
    """Serve the page around the model in ``folder``: the page and its address; ``uploads`` takes what visitors send."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        demo = app.build(folder)
        yield demo, app.launch(demo, "127.0.0.1", free_port())
        demo.close(verbose=False)


# Named apart from its function, so that a test module can import the one and take the other as an argument.
@pytest.fixture(scope="module", name="served")
def serve(model_folder, tmp_path_factory):
    """The page around a network nobody trained: the page, its address, and the folder with what visitors send."""
    uploads = tmp_path_factory.mktemp("uploads")
    with running(model_folder, uploads) as (demo, url):
        yield demo, url, uploads


@pytest.fixture(scope="module", name="shipped")
def serve_shipped(tmp_path_factory):
    """The address of the page as it ships, with the weights that ship."""
    with running(REPOSITORY / "hub_model", tmp_path_factory.mktemp("uploads")) as (_, url):
        yield url
