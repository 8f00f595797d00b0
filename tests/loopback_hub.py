"""A Hub on this machine's loopback, for tests: the real clients push to it and load from it.

    with LoopbackHub() as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("anna/x")
        hub.repository("model", "anna/x").history

It speaks what huggingface_hub 2 speaks, in memory, without Xet: clients need ``HF_HUB_DISABLE_XET=1``.
"""

import hashlib
import secrets
import socket
import threading
from typing import NamedTuple

import uvicorn
from fastapi import Request
from hub_faults import Connection, Fault, Faulty
from hub_repositories import KINDS, Refusal, Repository, StoredFile
from hub_routes import build

__all__ = ["Fault", "LoopbackHub"]


class User(NamedTuple):
    """Who a token stands for, and whether it may write."""

    name: str
    role: str
    organisations: tuple[str, ...]

    def belongs_to(self, namespace: str) -> bool:
        """Tell whether this is the user's own namespace or that of one of their organisations."""
        return namespace in (self.name, *self.organisations)


class LoopbackHub:
    """A running Hub; a context manager.

    ``endpoint``: its address. ``token``: that of the writer anna. ``requests``: "METHOD /path" of each request, in order.
    ``faults``: what shall go wrong, see :class:`hub_faults.Fault`. ``page``: how many entries one answer lists at most.
    """

    def __init__(self):
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.page = 1000
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.moved: dict[tuple[str, str], str] = {}
        self.users: dict[str, User] = {}
        self.signed: dict[str, tuple[Repository, str, str]] = {}  # what a signed address reaches, by its secret word
        self.token = self.add_user("anna")
        # Said to be TCP, else asyncio leaves Nagle's delay on, and each answer takes 40 ms.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        app = Faulty(build(self), self)
        config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_level="critical")
        # A client may hold a connection for the whole test; nobody waits for it.
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self):
        self._socket.listen()  # from here on connections wait for the server instead of being refused
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

    def add_user(self, name: str, role: str = "write", organisations: tuple[str, ...] = ()) -> str:
        """Return a new token of this user, who may be new; ``role`` is "read" or "write"."""
        if role not in ("read", "write"):
            raise ValueError(f"role must be 'read' or 'write', not {role!r}")
        token = "hf_" + secrets.token_hex(17)
        self.users[token] = User(name, role, tuple(organisations))
        return token

    def repository(self, kind: str, identifier: str) -> Repository:
        """Return the "model", "dataset" or "space" of this id; KeyError if there is none."""
        return self.repositories[kind, identifier]

    def add_repository(self, kind: str, identifier: str, files: dict[str, bytes], private: bool = False) -> Repository:
        """Put a repository here as if somebody had pushed ``files`` by path, in one commit, and return it."""
        repository = Repository(kind, identifier, private, "gradio" if kind == "space" else None)
        changes = []
        for path, content in files.items():
            large = repository.is_large(path, content[:512], len(content), "main")
            changes.append(("file", path, StoredFile(content, hashlib.sha256(content).hexdigest() if large else None)))
        repository.storage |= {stored.sha256: stored.content for _, _, stored in changes if stored.sha256}
        repository.commit("main", identifier.split("/")[0], "pushed", changes)
        self.repositories[kind, identifier] = repository
        return repository

    def who(self, request: Request) -> User | None:
        """Return who asks, None without a token; Refusal for a token that nobody has."""
        word = request.headers.get("authorization")
        if word is None:
            return None
        user = self.users.get(word.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user

    def writer(self, request: Request, namespace: str, told: str) -> User:
        """Return who asks if they may write in this namespace; else a Refusal that is told with this sentence."""
        user = self.who(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if user.role != "write" or not user.belongs_to(namespace):
            raise Refusal(403, told)
        return user

    def find(self, request: Request, write: bool = False) -> Repository:
        """Return the repository that the request's path names; Refusal for those who may not see or change it."""
        kind = request.path_params.get("kinds", "models").removesuffix("s")
        if kind not in KINDS:
            raise Refusal(404, "Not found")
        identifier = "{namespace}/{name}".format(**request.path_params)
        now = identifier if (kind, identifier) in self.repositories else self.moved.get((kind, identifier), identifier)
        repository, namespace = self.repositories.get((kind, now)), now.split("/")[0]
        user = self.who(request)
        if repository is None or (repository.private and not (user and user.belongs_to(namespace))):
            # Whoever may not see it shall not learn whether it is there.
            if user is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        if now != identifier:
            target = request.url.replace(path=request.url.path.replace(identifier, now, 1))
            raise Refusal(307, f"Moved to {now}", Location=str(target))
        if write:
            commits = "/preupload/" in request.url.path or "/commit/" in request.url.path
            offer = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
            self.writer(request, namespace, offer if commits else "Authorization error.")
        return repository

    def sign(self, request: Request, repository: Repository, method: str, sha256: str) -> str:
        """Return an address in the storage, which stands at another origin, by which a large file can be put or got."""
        word = secrets.token_urlsafe(12)
        self.signed[word] = repository, method, sha256
        host = "localhost" if request.url.hostname == "127.0.0.1" else "127.0.0.1"
        return f"http://{host}:{self.port}/storage/{repository.id}/{word}"
