"""What stands between gradio and who sends something: no address is fetched, uploads lose EXIF and name and go with their page.

gradio 6.31 downloads what a client names in a file's place before the page sees it, and hands out other hosts' files under
``/gradio_api/file=``. Both are refused here, before a name is looked up. Uploads are cleaned before their path is told, and
noted as their page's before its question waits: no event of ours hears of a page that is closed meanwhile.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import gradio as gr
import texts
import uploads
from starlette.formparsers import MultiPartException
from visits import Visits

ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*:/", re.IGNORECASE)  # of any scheme, but for data:
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
QUESTION = "/gradio_api/queue/join"
SUMMARY = "/monitoring/summary"  # of others' calls, which is not kept; gradio's API page takes a refusal for an error


def named_paths(sent: Any) -> Iterator[str]:
    """Give what stands in the place of a file's path in what a client sent, however deep."""
    if isinstance(sent, Mapping):
        if isinstance(path := sent.get("path"), str):
            yield path
        sent = sent.values()
    elif not isinstance(sent, list | tuple):
        return
    for one in sent:
        yield from named_paths(one)


def names_address(sent: Any) -> bool:
    """Tell whether what a client sent holds an address where a file's path should stand."""
    return any(map(ADDRESS.match, named_paths(sent)))


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

    def __init__(self, app: Any, visits: Visits):
        self.app = app
        self.visits = visits

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and FILE in path and ADDRESS.match(path.partition(FILE)[2]):
            await answer(send, 403, "text/plain; charset=utf-8", texts.API_ADDRESS)
        elif path.endswith(SUMMARY):
            await answer(send, 200, "application/json", '{"functions": {}}')
        elif scope["type"] == "http" and scope["method"] == "POST" and path.endswith(UPLOAD):
            await self._take(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "POST" and path.endswith(QUESTION):
            await self._note(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _note(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Note the files that a question names as their page's, then let gradio have it."""
        heard: list[dict[str, Any]] = []
        while not heard or heard[-1].get("more_body", False):
            heard.append(await receive())
        body = b"".join(message.get("body", b"") for message in heard)
        await asyncio.to_thread(self._expect, body)  # away from the others' answers, for it may be long

        async def again() -> dict[str, Any]:
            return heard.pop(0) if heard else await receive()

        await self.app(scope, again, send)

    def _expect(self, body: bytes) -> None:
        with suppress(ValueError, RecursionError):  # what is no question gradio refuses
            question = json.loads(body)
            name = question.get("session_hash") if isinstance(question, dict) else None
            if isinstance(name, str) and (folders := uploads.folders_of(named_paths(question.get("data")))):
                self.visits.expect(name, folders)

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
