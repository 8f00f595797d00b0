"""The endpoints from outside: gradio's client, and an MCP client; each visitor and each client gets its own answer."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import jsonschema
import pytest
from conftest import REPOSITORY
from space_fixtures import EXAMPLES, serve_shipped, visits  # noqa: F401

SCHEMA = json.loads((REPOSITORY / "hub_model" / "differential.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def client(shipped):
    from gradio_client import Client

    return Client(shipped, verbose=False)


def sent(*names):
    from gradio_client import handle_file

    return [handle_file(str(EXAMPLES / f"{name}.png")) for name in names]


def test_a_differential_is_the_pipelines(client):
    from transformers import pipeline

    document = client.predict(
        sent("neutrophil", "monocyte"), 7200, "pbc", {"monocyte": [2, 10]}, api_name="/differential"
    )
    jsonschema.validate(document, SCHEMA)
    count = pipeline(model=str(REPOSITORY / "hub_model"), trust_remote_code=True, device="cpu")
    own = count(
        [EXAMPLES / "neutrophil.png", EXAMPLES / "monocyte.png"],
        white_cells_per_microlitre=7200,
        laboratory="pbc",
        reference_ranges={"monocyte": [2, 10]},
    )
    assert document["differential"]["rows"] == own["differential"]["rows"]
    assert [image["name"] for image in document["images"]] == ["neutrophil.png", "monocyte.png"]
    for image, other in zip(document["images"], own["images"], strict=True):
        assert [cell["box"] for cell in image["cells"]] == [cell["box"] for cell in other["cells"]]


def test_a_report_is_a_pdf_of_these_photos(client):
    from pypdf import PdfReader

    path = client.predict(sent("neutrophil"), None, "", "", api_name="/report")
    text = "".join(page.extract_text() for page in PdfReader(path).pages)
    assert "Differential count" in text and "photos: 1" in text and "not for diagnosis" in text


def test_photos_go_once_they_are_answered_and_reports_within_the_hour(client, shipped):
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    client.predict(sent("neutrophil"), api_name="/differential")
    client.predict(sent("neutrophil")[0], api_name="/classify")
    files = [path.name for path in uploads.rglob("*") if path.is_file()]
    assert not [name for name in files if not name.startswith("report-")], "no photo is left"
    client.predict(sent("neutrophil"), api_name="/report")
    reports = [path.parent for path in uploads.rglob("report-*.pdf")]
    assert reports and {path.parent for path in reports} == {uploads}
    for folder in reports:
        os.utime(folder, (0, 0))
    visits.Visits().sweep()
    assert not list(uploads.rglob("*.pdf"))


def test_a_photo_that_is_sent_once_and_asked_twice_is_gone(client, shipped):
    path = httpx.post(
        f"{shipped}gradio_api/upload", files={"files": (EXAMPLES / "neutrophil.png").read_bytes()}
    ).json()[0]
    assert client.predict({"path": path}, api_name="/classify")["label"] == "neutrophil"
    with pytest.raises(Exception, match="was answered and deleted"):
        client.predict({"path": path}, api_name="/classify")


def test_a_refused_photo_is_listed_and_the_rest_counted(client, tmp_path):
    from gradio_client import handle_file

    (tmp_path / "cut.png").write_bytes((EXAMPLES / "monocyte.png").read_bytes()[:40_000])
    files = [*sent("neutrophil"), handle_file(str(tmp_path / "cut.png"))]
    document = client.predict(files, None, "", "", api_name="/differential")
    assert document["differential"]["images"] == {"given": 2, "counted": 1, "refused": 1}
    assert "damaged or cut short" in document["images"][1]["refused"]


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (([], None, "", ""), "No photo came"),
        ((["neutrophil"], 7.2, "", ""), "7.2 white cells per µL are too few"),
        ((["neutrophil"], None, "nowhere", ""), "laboratory is 'nowhere'"),
        ((["neutrophil"], -1, "", ""), "expected a number above 0"),
        ((["neutrophil"], 0, "", ""), "white_cells_per_microlitre is 0; expected a number above 0"),
        ((["neutrophil"], None, "", "{monocyte"), "reference_ranges is no JSON"),
        ((["neutrophil"], None, "", {"blast": [0, 1]}), "reference range for 'blast'"),
        ((["neutrophil"], None, "", '{"blast": [0, 1]}'), "reference range for 'blast'"),
    ],
)
def test_what_does_not_fit_is_told(asked, match, client):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=match):
        client.predict(sent(*asked[0]), *asked[1:], api_name="/differential")


def test_a_drawing_that_is_not_there_is_told_as_such(client):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=r"no drawing 'examples/xx.png'; expected one of examples/basophil.png, "):
        client.predict("examples/xx.png", api_name="/classify")


def test_the_answer_of_a_count_is_typed_throughout(client):
    (returned,) = client.view_api(return_format="dict")["named_endpoints"]["/differential"]["returns"]
    kinds = returned["python_type"]["type"]
    assert "rows: list[dict(class: str, count: int, percent: float | None, interval: list[float] | None" in kinds
    assert "cells: list[dict(box: list[int], " in kinds and "dict()" not in kinds


@pytest.mark.parametrize("colour", [(255, 255, 255), (230, 200, 200), (240, 210, 225)])
def test_an_empty_picture_shows_no_white_cell(colour, client, tmp_path):
    """The network's class of none of the subtypes has empty ground in it, as sure as blasts."""
    from gradio_client import handle_file
    from PIL import Image

    Image.new("RGB", (400, 300), colour).save(tmp_path / "empty.png")
    answer = client.predict(handle_file(str(tmp_path / "empty.png")), api_name="/classify")
    assert (answer["verdict"], answer["reason"]) == ("no white cell", "no nucleus of a white cell found")
    assert answer["label"] == "other" and answer["score"] == max(answer["probabilities"].values()), (
        "the network's own, as ever"
    )


def test_a_cell_that_fills_its_photo_is_answered_with_a_note(client, tmp_path):
    from gradio_client import handle_file
    from PIL import Image

    drawing = Image.open(EXAMPLES / "monocyte.png")
    drawing.crop((192, 107, 421, 368)).save(tmp_path / "close.png")
    assert client.predict(handle_file(str(EXAMPLES / "monocyte.png")), api_name="/classify")["notes"] == []
    answer = client.predict(handle_file(str(tmp_path / "close.png")), api_name="/classify")
    (note,) = answer["notes"]
    assert "1.75 times as wide as the cell" in note and answer["verdict"] != "no white cell"


def with_tools(address, ask):
    """Give what ``ask``, a coroutine of a session and the tools by name, gives over MCP."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def connected():
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name.rpartition("_")[2]: tool for tool in (await session.list_tools()).tools}
            return await ask(session, tools)

    return asyncio.run(connected())


def as_url(name):
    return "data:image/png;base64," + base64.b64encode((EXAMPLES / f"{name}.png").read_bytes()).decode()


def test_an_assistant_reaches_the_same_as_tools(shipped, client):
    """Their answers are JSON, as text and structured, which the client holds against the tool's own schema."""
    url = as_url("neutrophil")

    async def ask(session, tools):
        one = await session.call_tool(tools["classify"].name, {"photo": url})
        asked = {"photos": [url], "white_cells_per_microlitre": 7200, "reference_ranges": {"neutrophil": [40, 60]}}
        asked |= {"laboratory": None}  # as assistants write what they do not use
        many = await session.call_tool(tools["differential"].name, asked)
        paper = await session.call_tool(tools["report"].name, {"photos": [url]})
        return one, many, paper

    one, many, paper = with_tools(shipped, ask)
    for result in (one, many, paper):
        assert not result.isError, result
        assert json.loads(result.content[0].text) == result.structuredContent
    assert one.structuredContent == client.predict(sent("neutrophil")[0], api_name="/classify")
    assert one.structuredContent["reason"] is None and one.structuredContent["verdict"] == "neutrophil"
    jsonschema.validate(many.structuredContent, SCHEMA)
    ranges = {row["class"]: row["reference"] for row in many.structuredContent["differential"]["rows"]}
    assert ranges["neutrophil"] == [40, 60]
    with urllib.request.urlopen(paper.structuredContent["url"], timeout=60) as response:
        assert response.read().startswith(b"%PDF")


def test_an_assistant_is_told_what_it_may_send_and_what_comes_back(shipped):
    async def ask(session, tools):
        return tools

    tools = with_tools(shipped, ask)
    assert {"classify", "differential", "report"} == tools.keys()
    for tool in tools.values():
        assert "not for diagnosis" in tool.description and tool.annotations.readOnlyHint
        jsonschema.Draft202012Validator.check_schema(tool.inputSchema)
        jsonschema.Draft202012Validator.check_schema(tool.outputSchema)
        for name, schema in tool.inputSchema["properties"].items():
            assert len(schema["description"]) > 40, f"{tool.name}: {name} is not described"
    assert tools["differential"].outputSchema == SCHEMA
    assert "other" in tools["classify"].description and "no white cell" in tools["classify"].description
    assert {"unidentified", "no white cell"} < set(tools["classify"].outputSchema["properties"]["verdict"]["enum"])
    takes = tools["report"].inputSchema
    assert takes["required"] == ["photos"]
    named, unknown = takes["properties"]["laboratory"]["anyOf"]
    assert set(named["enum"]) == {"", "blood-cells", "chula", "pbc", "raabin"} and unknown == {"type": "null"}
    assert "pbc" in takes["properties"]["laboratory"]["description"]
    valid = {"photos": ["data:image/png;base64,AAAA", {"path": "/a.png"}], "reference_ranges": {"monocyte": [2, 8]}}
    jsonschema.validate(valid, takes)
    jsonschema.validate({"photos": "data:image/png;base64,AAAA"}, takes)
    for wrong in ({"photos": 3}, {"photos": [], "reference_ranges": "{}"}, {"photos": [], "laboratory": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, takes)


def test_a_tool_opens_no_file_of_this_machine_and_no_address(shipped, tmp_path):
    """gradio's own client, which the tools ask by, would upload any path that is called a file."""
    (tmp_path / "secret.png").write_bytes((EXAMPLES / "monocyte.png").read_bytes())
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}

    async def ask(session, tools):
        called = [
            await session.call_tool(tools["classify"].name, {"photo": photo})
            for photo in (
                file,
                "https://example.org/cell.png",
                {"path": "https://example.org/cell.png", "meta": file["meta"]},
            )
        ]
        return [*called, await session.call_tool(tools["differential"].name, {"photos": [file]})]

    own, far, farther, field = with_tools(shipped, ask)
    for result in (own, field):
        assert result.isError and "No such file was uploaded" in result.content[0].text
    for result in (far, farther):
        assert result.isError and "Addresses are not fetched" in result.content[0].text


def test_an_assistants_mistakes_are_told_briefly(shipped):
    url = as_url("neutrophil")

    async def ask(session, tools):
        alone = await session.call_tool(tools["differential"].name, {"photos": url})
        path = await session.call_tool(tools["classify"].name, {"photo": "/home/me/cell.png"})
        return alone, path, await session.call_tool(tools["differential"].name, {"photos": [url], "laboratory": url})

    alone, path, wrong = with_tools(shipped, ask)
    assert alone.structuredContent["differential"]["cells"]["counted"] == 1, "one photo needs no list"
    assert path.isError and "expected a data URL" in path.content[0].text
    assert wrong.isError and 0 < len(wrong.content[0].text) < 1100 < len(url)


@pytest.mark.parametrize("language", ["python", "bash"])
def test_the_snippets_of_the_api_page_work_as_they_stand(language, shipped, tmp_path):
    """gradio's own examples name files on other hosts, which are refused; its shell is zsh, or bash with lastpipe."""
    with urllib.request.urlopen(f"{shipped}gradio_api/info", timeout=60) as response:
        endpoints = json.load(response)["named_endpoints"]
    assert list(endpoints) == ["/classify", "/differential", "/report"]
    for name, endpoint in endpoints.items():
        snippet = endpoint["code_snippets"][language]
        assert "github" not in snippet and "Hello" not in snippet
        command = [sys.executable, "-c", snippet] if language == "python" else ["bash", "-O", "lastpipe", "-c", snippet]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        said = ran.stdout + ran.stderr
        expected = {"/classify": "verdict", "/differential": "wbc-differential/1", "/report": "report-"}[name]
        assert ran.returncode == 0 and expected in said and "error" not in said.lower().replace("errors", ""), said
        for told in endpoint["parameters"]:
            assert told["python_type"]["description"], f"{name}: {told['parameter_name']} is not described"
