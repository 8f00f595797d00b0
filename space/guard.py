"""What stands between gradio and whoever sends something: no address is fetched for anybody, no upload keeps EXIF or its name.

gradio 6.31 downloads what a client names in a file's place before the page sees it, and hands out other hosts' files under
``/gradio_api/file=``. Both are refused here, before a name is looked up. Uploads are cleaned before their path is told.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import gradio as gr
import texts
import uploads
from starlette.formparsers import MultiPartException

ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*:/", re.IGNORECASE)  # of any scheme, but for data:
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
SUMMARY = "/monitoring/summary"  # of others' calls, which is not kept; gradio's API page takes a refusal for an error


def names_address(sent: Any) -> bool:
    """Tell whether what a client sent holds an address where a file's path should stand, however deep."""
    if isinstance(sent, Mapping):
        path = sent.get("path")
        return (isinstance(path, str) and ADDRESS.match(path) is not None) or any(map(names_address, sent.values()))
    return isinstance(sent, list | tuple) and any(map(names_address, sent))


class GuardedBlocks(gr.Blocks):
    """gradio's page, of which no event fetches an address."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *others: Any, **named: Any) -> list[Any]:
        """Refuse addresses, then go on as gradio does.

        Raises:
            gr.Error: one stands in a file's place.
        """
        if names_address(inputs):
            raise gr.Error(texts.API_ADDRESS, print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *others, **named)


class Guard:
    """What each request passes before gradio sees it."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and FILE in path and ADDRESS.match(path.partition(FILE)[2]):
            await answer(send, 403, "text/plain; charset=utf-8", texts.API_ADDRESS)
        elif path.endswith(SUMMARY):
            await answer(send, 200, "application/json", '{"functions": {}}')
        elif scope["type"] == "http" and scope["method"] == "POST" and path.endswith(UPLOAD):
            await self._take(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _take(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Have gradio take an upload, and tell where it lies once it is cleaned."""
        told: list[dict[str, Any]] = []
        more = True

        async def whole() -> dict[str, Any]:
            nonlocal more
            message = await receive()
            if more and message["type"] == "http.disconnect":
                raise MultiPartException(texts.API_BROKEN_OFF)  # after this error gradio deletes what came
            more = message.get("more_body", False)
            return message

        async def wait(message: dict[str, Any]) -> None:
            told.append(message)

        await self.app(scope, whole, wait)
        if told[0]["status"] == 200:
            paths = json.loads(b"".join(message.get("body", b"") for message in told[1:]))
            await answer(send, 200, "application/json", json.dumps(await asyncio.to_thread(uploads.take, paths)))
        else:
            for message in told:
                await send(message)


async def answer(send: Any, status: int, kind: str, text: str) -> None:
    """Answer a request with a text."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
    await send({"type": "http.response.body", "body": text.encode()})
