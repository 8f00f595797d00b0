"""What the tests of the Space share: its modules, and the page served on a free loopback port."""

import socket
import sys

import pytest
import torch
from conftest import REPOSITORY

# The Space's files import one another by bare name, as they do where it runs.
sys.path.insert(0, str(REPOSITORY / "space"))
import app
import colours
import draw_examples
import overlay
import page
import reading

__all__ = ["EXAMPLES", "SPACE", "app", "colours", "draw_examples", "free_port", "overlay", "page", "reading", "serve"]
SPACE = REPOSITORY / "space"
EXAMPLES = SPACE / "examples"


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# Named apart from its function, so that a test module can import the one and take the other as an argument.
@pytest.fixture(scope="module", name="served")
def serve(model_folder, tmp_path_factory):
    """The page, running: its address, and the folder in which gradio puts what visitors send."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        uploads = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        demo = app.build(model_folder)
        url = app.launch(demo, "127.0.0.1", free_port())
        yield demo, url, uploads
        demo.close(verbose=False)
