"""The endpoints from outside: gradio's client, and an MCP client; each visitor and each client gets its own answer."""

import asyncio
import base64
import json

import jsonschema
import pytest
from conftest import REPOSITORY
from space_fixtures import EXAMPLES, serve_shipped  # noqa: F401

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
        sent("neutrophil", "monocyte"), 7200, "pbc", '{"monocyte": [2, 10]}', api_name="/differential"
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
    assert "Differential count" in text and "in 1 photo(s)" in text and "not for diagnosis" in text


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
        ((["neutrophil"], None, "nowhere", ""), "laboratory is 'nowhere'"),
        ((["neutrophil"], -1, "", ""), "expected a number above 0"),
        ((["neutrophil"], 0, "", ""), "white_cells_per_microlitre is 0; expected a number above 0"),
        ((["neutrophil"], None, "", "{monocyte"), "reference_ranges is no JSON"),
        ((["neutrophil"], None, "", '{"blast": [0, 1]}'), "reference range for 'blast'"),
    ],
)
def test_what_does_not_fit_is_told(asked, match, client):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=match):
        client.predict(sent(*asked[0]), *asked[1:], api_name="/differential")


def test_an_assistant_reaches_the_same_as_tools(shipped):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    url = "data:image/png;base64," + base64.b64encode((EXAMPLES / "neutrophil.png").read_bytes()).decode()

    async def ask():
        async with (
            streamablehttp_client(f"{shipped}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name.rpartition("_")[2]: tool for tool in (await session.list_tools()).tools}
            assert {"classify", "differential", "report"} == tools.keys()
            for tool in tools.values():
                assert "not for diagnosis" in tool.description
            one = await session.call_tool(tools["classify"].name, {"photo": url})
            asked = {"photos": [url], "white_cells_per_microlitre": None, "laboratory": "", "reference_ranges": ""}
            many = await session.call_tool(tools["differential"].name, asked)
            far = await session.call_tool(tools["classify"].name, {"photo": "https://example.org/cell.png"})
            return one, many, far

    one, many, far = asyncio.run(ask())
    assert far.isError and "Addresses are not fetched" in far.content[0].text
    assert not one.isError and not many.isError, (one, many)
    assert '"sha256"' in one.content[0].text.replace("'", '"') and "wbc-differential/1" in many.content[0].text
