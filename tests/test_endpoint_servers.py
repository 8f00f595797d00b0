"""Hugging Face's own request handling around our folder, asked by Hugging Face's own clients, by curl and from JavaScript."""

import base64
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest
from conftest import REPOSITORY
from endpoint_fixtures import FOLDER, PEERS, post, servers  # noqa: F401
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from peers_fixtures import node_modules
from PIL import Image

EXAMPLES = REPOSITORY / "space" / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.png"))
BOTH = pytest.mark.parametrize("server", ["hosted", "endpoint"])


@pytest.fixture(scope="module")
def plain():
    """The plain door, in this process."""
    from transformers import pipeline

    return pipeline("image-classification", str(FOLDER), trust_remote_code=False, device="cpu")


def text(name):
    return base64.b64encode((EXAMPLES / f"{name}.png").read_bytes()).decode()


def header_only(width, height):
    """A PNG that says how large it is and breaks off."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\xff\xffIDAT"


def assert_same(answer, expected):
    rows = [row if isinstance(row, dict) else {"label": row.label, "score": row.score} for row in answer]
    assert [row["label"] for row in rows] == [row["label"] for row in expected]
    assert [row["score"] for row in rows] == pytest.approx([row["score"] for row in expected], abs=1e-5)


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_answered_as_by_the_plain_door(server, name, servers, plain):  # noqa: F811
    client = InferenceClient(model=servers[server], token="hf_none")
    answer = client.image_classification(str(EXAMPLES / f"{name}.png"))
    assert_same(answer, plain(str(EXAMPLES / f"{name}.png")))
    assert answer[0].label == name


@BOTH
def test_bytes_are_answered(server, servers, plain, tmp_path):  # noqa: F811
    """The client names no type for bytes, which the hosted API guesses and endpoints are told."""
    photo = Image.open(EXAMPLES / "monocyte.png").convert("RGB")
    photo.save(tmp_path / "cell.jpg", quality=95)
    headers = {"Content-Type": "image/jpeg"} if server == "endpoint" else None
    client = InferenceClient(model=servers[server], token="hf_none", headers=headers)
    assert_same(client.image_classification((tmp_path / "cell.jpg").read_bytes()), plain(str(tmp_path / "cell.jpg")))


@BOTH
@pytest.mark.parametrize(
    "asked", [{"top_k": 2}, {"function_to_apply": "sigmoid", "top_k": 6}, {"function_to_apply": "none"}]
)
def test_parameters_are_heeded(server, asked, servers, plain):  # noqa: F811
    client = InferenceClient(model=servers[server], token="hf_none")
    path = str(EXAMPLES / "basophil.png")
    assert_same(client.image_classification(path, **asked), plain(path, **asked))


@BOTH
def test_curl_is_answered(server, servers, plain, tmp_path):  # noqa: F811
    curl = shutil.which("curl") or pytest.skip("curl is not installed")
    photo = EXAMPLES / "eosinophil.png"
    (tmp_path / "body.json").write_text(json.dumps({"inputs": text("eosinophil"), "parameters": {"top_k": 3}}))
    for kind, body, top_k in (("image/png", photo, 5), ("application/json", tmp_path / "body.json", 3)):
        command = [
            curl,
            "--silent",
            "--show-error",
            servers[server],
            "-H",
            f"Content-Type: {kind}",
            "--data-binary",
            f"@{body}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert_same(json.loads(done.stdout), plain(str(photo), top_k=top_k))


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    """A folder whose scripts find npm's packages: Node looks for them beside the script."""
    place = tmp_path_factory.mktemp("javascript")
    (place / "node_modules").symlink_to(node_modules())
    return place


@pytest.fixture(scope="module")
def ask_in_javascript(javascript):
    """Call npm's @huggingface/inference with an address and a file."""
    shutil.copy(PEERS / "classify.mjs", javascript)

    def ask(address, picture):
        command = ["node", str(javascript / "classify.mjs"), address, str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return ask


@BOTH
def test_javascript_is_answered(server, servers, plain, ask_in_javascript, tmp_path):  # noqa: F811
    photo = EXAMPLES / "lymphocyte.png"
    assert_same(ask_in_javascript(servers[server], photo), plain(str(photo)))
    (tmp_path / "words.png").write_text("no picture at all")
    refused = ask_in_javascript(servers[server], tmp_path / "words.png")
    assert refused["status"] == 400
    assert "cannot identify image file" in str(refused["error"])


README = re.findall(r"```(\w+)\n(.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("language", ["bash", "python", "javascript"])
def test_what_readme_says_of_endpoints_runs(language, servers, request):  # noqa: F811
    (text,) = [text for of, text in README if of == language and "ENDPOINT" in text]
    command = {"bash": ["bash", "-euo", "pipefail", "-c", text], "python": [sys.executable, "-c", text]}
    if language == "bash" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    if language == "javascript":
        script = request.getfixturevalue("javascript") / "readme.mjs"
        script.write_text(text)
        command[language] = ["node", str(script)]
    environment = os.environ | {"ENDPOINT": servers["endpoint"], "HF_TOKEN": "hf_none"}
    done = subprocess.run(
        command[language], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "neutrophil" in done.stdout and "adjusted_interval" in done.stdout


BY_ID = """
import json, sys
from huggingface_hub import constants

constants.INFERENCE_PROXY_TEMPLATE = sys.argv[1] + "/{provider}"
from huggingface_hub import InferenceClient

client = InferenceClient(provider="hf-inference", api_key="hf_none")
answer = client.image_classification(sys.argv[2], model="wbc-resnet/wbc-resnet24", top_k=3)
print(json.dumps([{"label": row.label, "score": row.score} for row in answer]))
"""


def test_by_its_id_the_hosted_model_answers(servers, plain):  # noqa: F811
    photo = str(EXAMPLES / "neutrophil.png")
    environment = {"HF_ENDPOINT": servers["hosted"], "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-I", "-c", BY_ID, servers["hosted"], photo]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert_same(json.loads(done.stdout), plain(photo, top_k=3))


def test_fields_are_counted(servers):  # noqa: F811
    asked = {
        "fields": True,
        "laboratory": "pbc",
        "white_cells_per_microlitre": 7200,
        "reference_ranges": {"monocyte": [2, 10]},
    }
    body = {"inputs": [text("neutrophil"), f"data:image/png;base64,{text('monocyte')}"], "parameters": asked}
    status, document = post(servers["endpoint"], body)
    assert status == 200
    jsonschema.validate(document, json.loads((FOLDER / "differential.schema.json").read_text(encoding="utf-8")))
    assert document["differential"]["cells"]["counted"] == 2
    assert document["differential"]["laboratory"] == "pbc"
    assert [cell["label"] for image in document["images"] for cell in image["cells"]] == ["neutrophil", "monocyte"]


def test_two_requests_at_once_get_their_own_answers(servers, plain):  # noqa: F811
    jobs = [(server, name) for server in servers for name in NAMES]

    def ask(job):
        server, name = job
        return InferenceClient(model=servers[server], token="hf_none").image_classification(
            str(EXAMPLES / f"{name}.png")
        )

    with ThreadPoolExecutor(2 * len(NAMES)) as pool:
        for (_, name), answer in zip(jobs, pool.map(ask, jobs), strict=True):
            assert_same(answer, plain(str(EXAMPLES / f"{name}.png")))


@pytest.mark.parametrize(
    ("server", "body", "match"),
    [
        ("endpoint", {"inputs": "https://example.org/cell.png"}, "addresses are not fetched"),
        ("endpoint", {"inputs": "/etc/hostname"}, "paths are not opened"),
        ("endpoint", {"inputs": text("monocyte"), "parameters": {"topk": 3}}, "parameters has 'topk'"),
        ("endpoint", {"inputs": text("monocyte"), "parameters": {"top_k": 0}}, "top_k is 0; expected a whole number"),
        (
            "endpoint",
            {"inputs": text("monocyte"), "parameters": {"fields": True, "laboratory": "moon"}},
            "expected one of",
        ),
        ("endpoint", {"inputs": base64.b64encode(header_only(10_000, 9_000)).decode()}, "more than 89 million pixels"),
        ("endpoint", {"inputs": [text("monocyte")] * 201}, "201 pictures; expected 1 to 200"),
        (
            "endpoint",
            {"inputs": base64.b64encode((EXAMPLES / "monocyte.png").read_bytes()[:3000]).decode()},
            "cut short",
        ),
        ("endpoint", {"picture": text("monocyte")}, "inputs"),
        ("hosted", {"inputs": "https://example.org/cell.png"}, "cannot identify image file"),
        ("hosted", {"inputs": text("monocyte"), "parameters": {"topk": 3}}, "unexpected keyword argument 'topk'"),
        ("hosted", {"inputs": base64.b64encode(header_only(20_000, 10_000)).decode()}, "cannot identify image file"),
    ],
)
def test_what_does_not_fit_is_a_fault_of_the_request(server, body, match, servers):  # noqa: F811
    status, answer = post(servers[server], body)
    assert status == 400
    assert match in str(answer["error"])


@BOTH
@pytest.mark.parametrize("body", [b"no picture at all", header_only(20_000, 10_000)])
def test_bytes_that_are_no_picture_are_a_fault_of_the_request(server, body, servers):  # noqa: F811
    status, answer = post(servers[server], content=body, headers={"Content-Type": "image/png"})
    assert status == 400
    assert "cannot identify image file" in answer["error"] or "decompression bomb" in answer["error"]


def test_a_client_is_told_why(servers, tmp_path):  # noqa: F811
    small = io.BytesIO()
    Image.new("RGB", (20, 20)).save(small, format="PNG")
    client = InferenceClient(model=servers["endpoint"], token="hf_none")
    with pytest.raises(HfHubHTTPError, match="20 x 20 px; expected 32 or more each side") as refused:
        client.image_classification(small.getvalue(), top_k=2)
    assert refused.value.response.status_code == 400
