"""The card's code, run as it is printed by a user who has nothing but the libraries, the model's id, and three photos.

The Hub is the loopback one with the shipped folder on it. The inference API is Hugging Face's own server code, and an endpoint
of one's own is its emulator around ``handler.py``; only their addresses are put in.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from endpoint_fixtures import servers  # noqa: F401
from hub_fixtures import BEGIN, Client, LoopbackHub
from peers_fixtures import node_modules
from smear_drawings import draw_field, write_image

import train
from evaluation.results import read_results
from publishing.composing import Composed
from publishing.repositories import KINDS
from publishing.timm_branch import export

FOLDER = REPOSITORY / "hub_model"
ID = read_results(FOLDER / "eval_results.json")["model"]["name"]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "bash"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
ROUTER = "https://router.huggingface.co"
# Read before the card's own code: where the client of the inference API finds it.
BEFORE = """
import os
from huggingface_hub import constants

constants.INFERENCE_PROXY_TEMPLATE = os.environ["ROUTER"] + "/{provider}"
# The Hub here does not say who serves a model; the server of the inference API does.
print("begin")
"""

# The branch that stock timm loads, as publish.py pushes it
PUSH_BRANCH = """
api.create_branch(sys.argv[2], branch="timm")
api.upload_folder(repo_id=sys.argv[2], folder_path=folder, revision="timm", delete_patterns="*")
print("{}")
"""


def export_for_timm(here):
    """Write the branch for stock timm as publishing does, and give its folder."""
    model, branch = shutil.copytree(FOLDER, here / "model"), here / "timm"
    shutil.copy(REPOSITORY / "LICENSE", model)
    export(Composed(KINDS["model"], ID, model, "hub_model"), branch, "apache-2.0")
    return branch


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A user's machine, with photos in the folder that it works in, and a Hub that has the model."""
    files = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with LoopbackHub() as hub:
        hub.add_repository("model", ID, files)
        owner = hub.add_user("owner", organisations=(ID.split("/")[0],))
        client = Client(hub, tmp_path_factory.mktemp("user") / "anna", owner)
        here = client.here / "cwd"
        for number, places in ((1, [(110, 150)]), (2, [(330, 420)])):
            write_image(here / f"field-{number}.jpg", draw_field(number, places)[0], quality=95)
        shutil.copy(FOLDER / "examples" / "neutrophil.png", here / "cell.jpg")  # what a file is, its content says
        branch = export_for_timm(tmp_path_factory.mktemp("for_timm"))
        client.python(f"{BEGIN}{PUSH_BRANCH}", branch, ID)
        yield client


@pytest.fixture(scope="module")
def doors(servers):  # noqa: F811
    """The variables that a user sets, and where the inference API is."""
    return {"ENDPOINT": servers["endpoint"], "ROUTER": servers["hosted"]}


def test_the_python_of_the_card_runs_from_top_to_bottom(client, doors):
    done = client.run("hf", "download", ID, "--local-dir", "hub_model", PATH=with_programs())
    assert done.returncode == 0, done.stderr
    said = []
    script = BEFORE + "\n".join(f"{text}\nprint('block', {number})" for number, text in enumerate(PYTHON))
    # hf-inference is asked for by the library under its own name; nothing of it leaves this machine.
    done = client.run(sys.executable, "-c", script, **doors, PYTHONPATH=f"{client.environment['PYTHONPATH']}:.")
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"{said[-1]}\n{done.stderr[-3000:]}"
    assert [line for line in said if line.startswith("block")] == [f"block {n}" for n in range(len(PYTHON))]
    assert len(PYTHON) >= 7 and any(line.startswith("neutrophil 0.9") for line in said)


def with_programs():
    return f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("text", [text for text in SHELL if "curl" in text], ids=["hosted", "endpoint"])
def test_curl_gets_an_answer(text, client, doors):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    done = client.run("bash", "-euo", "pipefail", "-c", text.replace(ROUTER, doors["ROUTER"]), **doors)
    assert done.returncode == 0, done.stderr
    assert '"neutrophil"' in done.stdout and '"score"' in done.stdout


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language in ("js", "javascript")])
def test_the_javascript_runs(text, client, doors):
    here = client.here / "cwd"
    if not (here / "node_modules").exists():
        (here / "node_modules").symlink_to(node_modules())
    shutil.copy(FOLDER / "onnx" / "resize.mjs", here)
    first = f'import {{ env }} from "@huggingface/transformers";\nenv.remoteHost = "{client.hub.endpoint}/";\n'
    (here / "card.mjs").write_text((first if "@huggingface/transformers" in text else "") + text)
    done = client.run("node", "card.mjs", **doors)
    assert done.returncode == 0, done.stderr
    assert "neutrophil" in done.stdout


def test_the_trainings_that_are_named_are_understood_by_train_py():
    commands = [line for text in SHELL for line in text.splitlines() if "train.py" in line]
    assert commands
    for command in commands:
        train.parse(shlex.split(command)[2:])


def test_the_card_can_be_checked_as_it_says():
    (line,) = [line for text in SHELL for line in text.splitlines() if "evaluation.card" in line]
    command = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "agrees with" in done.stdout, done.stdout + done.stderr


def test_what_the_card_says_to_make_the_makefile_makes():
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    targets = [line.split()[1] for text in SHELL for line in text.splitlines() if line.startswith("make ")]
    assert {"measure", "stress", "fields", "onnx", "doors", "card"} == set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_every_block_of_the_card_is_run_or_is_a_citation():
    known = [*SHELL, *PYTHON, *(text for language, text in BLOCKS if language in ("js", "javascript", "bibtex"))]
    assert len(known) == len(BLOCKS)
    for text in SHELL:
        assert any(words in text for words in ("curl", "train.py", "evaluation.card")), text
