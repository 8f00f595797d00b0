"""The endpoints as an assistant meets them, over MCP: tools whose answers are JSON, with a schema.

gradio 6.31 writes an answer as Python does, with single quotes and None, and tells no schema of it; and the client by which it
asks its own page would open any file of this machine that a caller names and calls a file.
"""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.processing_utils import add_root_url
from mcp import types

LONGEST_ERROR = 1000  # characters
HINTS = types.ToolAnnotations(readOnlyHint=True, openWorldHint=False)


def tell_in_json(demo: gr.Blocks, schemas: Mapping[str, Mapping[str, Any]]) -> None:
    """Have the tools of a page that is served answer in JSON, as text and as structured content.

    Args:
        schemas: of the answers, by the endpoint's name such as "/classify".
    """
    server = demo.mcp_server_obj
    handlers = server.mcp_server.request_handlers
    call, name = handlers[types.CallToolRequest], handlers[types.ListToolsRequest]

    async def called(request: types.CallToolRequest) -> types.ServerResult:
        arguments = plain(request.params.arguments or {})
        result = await call(
            request.model_copy(update={"params": request.params.model_copy(update={"arguments": arguments})})
        )
        if isinstance(result.root, types.CallToolResult):
            if result.root.isError:
                for told in result.root.content:
                    told.text = shortened(told.text)
            else:
                result.root.structuredContent = json.loads(result.root.content[0].text)
        return result

    async def named(request: types.ListToolsRequest) -> types.ServerResult:
        result = await name(request)
        for tool in result.root.tools:
            tool.outputSchema, tool.annotations = schemas[server.tool_to_endpoint[tool.name]], HINTS
            for schema in tool.inputSchema["properties"].values():
                schema.pop("additional_description", None)
        return result

    server.postprocess_output_data = as_json
    handlers[types.CallToolRequest], handlers[types.ListToolsRequest] = called, named


def plain(sent: Any) -> Any:
    """Give what a caller sent without gradio's mark of a file, which would have the page's own client open the path."""
    if isinstance(sent, Mapping):
        return {key: plain(value) for key, value in sent.items() if key != "meta"}
    return [plain(value) for value in sent] if isinstance(sent, list) else sent


def shortened(text: str) -> str:
    """Leave out the middle of an error that repeats what was sent, which may be a whole picture."""
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR // 2]} [...] {text[-LONGEST_ERROR // 2 :]}"


def as_json(answers: list[Any], address: str) -> list[types.TextContent]:
    """Write an endpoint's answers as JSON; of a file its address."""
    told = []
    for answer in add_root_url(answers, address, None):
        if isinstance(answer, Mapping) and "meta" in answer and "url" in answer:
            answer = {"url": answer["url"]}
        told.append(types.TextContent(type="text", text=json.dumps(answer, ensure_ascii=False, allow_nan=False)))
    return told
