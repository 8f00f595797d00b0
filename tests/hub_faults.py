"""Faults that a test puts between a client and the loopback Hub: cut connections, errors, limits, slowness."""

import asyncio
import re
from dataclasses import dataclass, field

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass
class Fault:
    """What befalls requests of one ``method`` whose path matches the regular expression ``path``.

    ``kind`` is a status that is answered instead (with ``headers``), or one of

    - "cut": the connection breaks. A request with a body is broken after ``after_bytes`` of it, and nothing of it is
      done; of an answer to any other, ``after_bytes`` of the body arrive.
    - "lost": the request is carried out whole, and its answer never arrives.
    - "slow": the answer begins ``seconds`` late.

    The first ``skip`` requests that match go through, the next ``times`` meet the fault, the rest go through again.
    """

    method: str = ".*"
    path: str = ".*"
    kind: str | int = "cut"
    after_bytes: int = 0
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.kind, int) and self.kind not in ("cut", "lost", "slow"):
            raise ValueError(f"kind must be a status, 'cut', 'lost' or 'slow', not {self.kind!r}")

    def meets(self, method: str, path: str) -> bool:
        """Tell whether this request is to suffer, and count it."""
        if self.times <= 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Connection(H11Protocol):
    """uvicorn's connection, which hands its socket to the application so that it can be broken."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.app_state = self.app_state | {"transport": transport}


class Faulty:
    """An ASGI application that notes every request to ``hub`` and lets its faults befall it before ``app`` answers."""

    def __init__(self, app, hub):
        self.app, self.hub = app, hub

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        self.hub.requests.append(f"{method} {path}")
        # A revision or a path may hold a quoted slash: routes see the path as it was sent.
        scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        fault = next((one for one in self.hub.faults if one.meets(method, path)), None)
        if fault is None:
            await self.app(scope, receive, send)
        elif isinstance(fault.kind, int):
            await read(receive)
            await answer(send, fault)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self.app(scope, receive, send)
        elif fault.kind == "lost":
            await self.app(scope, receive, broken(send, scope, 0))
        elif method in ("POST", "PUT", "PATCH"):
            await read(receive, fault.after_bytes)
            await hang_up(scope, receive)
        else:
            await self.app(scope, receive, broken(send, scope, fault.after_bytes))


async def read(receive, most: float = float("inf")) -> None:
    """Read a request's body, or about the first ``most`` bytes of it."""
    seen = 0
    while seen < most:
        message = await receive()
        seen += len(message.get("body", b""))
        if not message.get("more_body"):
            return


async def answer(send, fault: Fault) -> None:
    """Send the status of a fault, with a sentence in the Hub's form."""
    headers = {
        "content-type": "application/json",
        "x-error-message": "A fault that the test asked for",
        **fault.headers,
    }
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": fault.kind, "headers": encoded})
    await send({"type": "http.response.body", "body": b'{"error": "A fault that the test asked for"}'})


async def hang_up(scope, receive) -> None:
    """Break the connection at once and wait until uvicorn has seen it, so that it answers nothing."""
    scope["state"]["transport"].abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def broken(send, scope, after_bytes: int):
    """Return a ``send`` that lets through the head of an answer and ``after_bytes`` of its body, then breaks off.

    With no byte let through not even the head arrives.
    """
    left = after_bytes
    transport = scope["state"]["transport"]

    async def send_some(message):
        nonlocal left
        if transport.is_closing():
            return
        if after_bytes and message["type"] == "http.response.start":
            await send(message)
        elif after_bytes and message["type"] == "http.response.body" and len(message.get("body", b"")) < left:
            left -= len(message["body"])
            await send(message)
        else:
            if left and message["type"] == "http.response.body":
                await send({**message, "body": message["body"][:left], "more_body": True})
            # What was sent still arrives; then the client sees the end too early.
            transport.close()
            await asyncio.sleep(0)

    return send_some
