"""What a loopback Hub keeps: repositories with commits, branches, tags and files, in memory and without HTTP.

The rules are those of the Hub: a commit appears whole or not at all, its parent must be the branch's head where one is
named, large and binary files go through the large file storage, every repository begins with a commit of its own.
"""

import fnmatch
import hashlib
import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import yaml

KINDS = ("model", "dataset", "space")
LARGE = 10 * 1024 * 1024  # bytes; from here on a file is large whatever its name
ARCHIVES = (
    "7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar"
)
ARCHIVES += " safetensors tar tflite tgz wasm xz zip zst"
MEDIA = "aac bmp flac gif jpeg jpg mp3 mp4 ogg png tiff wav webm webp"
SPACE_COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SPACE_SDKS = ("gradio", "docker", "static")


class Refusal(Exception):
    """A request that is not done: its HTTP status, the word for ``X-Error-Code`` or None, and a sentence."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class StoredFile(NamedTuple):
    """One version of one file; ``sha256`` is None unless it lies in the large file storage."""

    content: bytes
    sha256: str | None = None

    @property
    def pointer(self) -> bytes:
        """What git itself holds: the content, or three lines that point to it."""
        if self.sha256 is None:
            return self.content
        lines = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return lines.encode()

    @property
    def oid(self) -> str:
        """The git blob's name."""
        return hashlib.sha1(b"blob %d\0" % len(self.pointer) + self.pointer).hexdigest()

    @property
    def etag(self) -> str:
        """The word that names the content in a download: the storage's for a large file, else git's."""
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    """One state of a repository: all its files by path, and how it came to be."""

    oid: str
    title: str
    message: str
    author: str
    date: str
    files: dict[str, StoredFile]
    parent: "Commit | None"

    @property
    def history(self) -> list["Commit"]:
        """This commit and those before it, newest first."""
        return [self, *(self.parent.history if self.parent else [])]


def card_data(readme: bytes) -> dict:
    """Return the YAML head of a card, {} without one; ValueError if there is one that is no mapping."""
    text = readme.decode("utf-8").replace("\r\n", "\n")
    head = re.match(r"---\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        data = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not isinstance(data or {}, dict):
        raise ValueError("YAML metadata must be a mapping")
    return data or {}


def card_problems(readme: bytes, kind: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings that the Hub has to say about a card's head."""
    try:
        data = card_data(readme)
    except ValueError as error:
        return [f"YAML metadata cannot be read: {error}"], []
    errors = []
    for name in ("license", "pipeline_tag", "library_name"):
        if name in data and not isinstance(data[name], str | list):
            errors.append(f'"{name}" must be a string')
    if "tags" in data and not (isinstance(data["tags"], list) and all(isinstance(tag, str) for tag in data["tags"])):
        errors.append('"tags" must be an array of strings')
    if kind == "space":
        if data and data.get("sdk") not in SPACE_SDKS:
            errors.append(f'"sdk" must be one of {", ".join(SPACE_SDKS)}')
        for name in ("colorFrom", "colorTo"):
            if data.get(name, "red") not in SPACE_COLOURS:
                errors.append(f'"{name}" must be one of {", ".join(SPACE_COLOURS)}')
        if len(str(data.get("short_description", ""))) > 60:
            errors.append('"short_description" length must be less than or equal to 60 characters long')
    return errors, [] if data else ["empty or missing yaml metadata in repo card"]


def first_files(kind: str, name: str, sdk: str | None) -> dict[str, StoredFile]:
    """Return what a repository holds before anybody pushes."""
    patterns = [f"*.{ending}" for ending in (ARCHIVES + (f" {MEDIA}" if kind == "dataset" else "")).split()]
    lines = [f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in [*patterns, "*.tar.*", "*tfevents*"]]
    files = {".gitattributes": StoredFile("".join(lines).encode())}
    if kind == "space":
        files["README.md"] = StoredFile(f"---\ntitle: {name}\nsdk: {sdk}\ncolorFrom: red\n---\n".encode())
    return files


@dataclass
class Repository:
    """A repository of one kind (model, dataset, space) under ``namespace/name``.

    ``storage`` holds the large files that were uploaded for it, by SHA-256, whether a commit names them or not yet.
    """

    kind: str
    id: str
    private: bool = False
    sdk: str | None = None
    gated: bool | str = False
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    storage: dict[str, bytes] = field(default_factory=dict, repr=False)
    _numbers: itertools.count = field(default_factory=itertools.count, repr=False)

    def __post_init__(self):
        namespace, name = self.id.split("/")
        self.branches["main"] = self._build(
            "initial commit", "", namespace, first_files(self.kind, name, self.sdk), None
        )

    def _build(self, title: str, message: str, author: str, files: dict, parent: Commit | None) -> Commit:
        names = [f"{path} {stored.oid}" for path, stored in sorted(files.items())]
        # The number stands for the clock: the same files committed twice are two commits.
        words = [
            self.kind,
            self.id,
            title,
            message,
            author,
            parent.oid if parent else "",
            str(next(self._numbers)),
            *names,
        ]
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        oid = hashlib.sha1("\n".join(words).encode()).hexdigest()
        return Commit(oid, title, message, author, date, dict(sorted(files.items())), parent)

    @property
    def history(self) -> list[Commit]:
        """The commits of main, newest first; the last is the one that the Hub made."""
        return self.branches["main"].history

    def resolve(self, revision: str = "main") -> Commit:
        """Return the commit under a branch, a tag, or a commit's full or shortened name; Refusal if there is none."""
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for head in [*self.branches.values(), *self.tags.values()]:
                for commit in head.history:
                    if commit.oid.startswith(revision):
                        return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the content of every file at a revision, by path."""
        return {path: stored.content for path, stored in self.resolve(revision).files.items()}

    def find(self, path: str, revision: str = "main") -> StoredFile:
        """Return one file at a revision; Refusal if the revision or the file is missing."""
        commit = self.resolve(revision)
        if path not in commit.files:
            # Told with the commit, so that a client may remember that there is none.
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
        return commit.files[path]

    def is_large(self, path: str, sample: bytes, size: int, revision: str) -> bool:
        """Tell whether this file goes through the large file storage: by its name, its size, or for it is no text."""
        if size >= LARGE or (size and is_binary(sample)):
            return True
        return size > 0 and is_tracked(path, self.resolve(revision).files)

    def commit(
        self, branch: str, author: str, title: str, changes: list[tuple[str, str, StoredFile | None]], **asked: str
    ) -> Commit:
        """Put one commit onto ``branch``: all of ``changes`` or, by Refusal, none of them.

        A change is ("file" | "deletedFile" | "deletedFolder", path, the new file or None). ``asked`` may hold the
        ``description`` and the ``parent``, a commit's name that must be the branch's head.
        """
        if branch not in self.branches:
            raise Refusal(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        head = self.branches[branch]
        if asked.get("parent") and not head.oid.startswith(asked["parent"]):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for key, path, stored in changes:
            check_path(path)
            if key == "file":
                files[path] = stored
                continue
            gone = [one for one in files if one == path or (key == "deletedFolder" and one.startswith(f"{path}/"))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            files = {one: kept for one, kept in files.items() if one not in gone}
        for path in files:
            if any(other.startswith(f"{path}/") for other in files):
                raise Refusal(400, f"{path} is a file and a folder at once")
        if "README.md" in files and (errors := card_problems(files["README.md"].content, self.kind)[0]):
            raise Refusal(400, "Invalid metadata in README.md: " + "; ".join(errors))
        if missing := [one for one, stored in files.items() if stored.sha256 and not is_tracked(one, files)]:
            files[".gitattributes"] = track(files, missing)
        self.branches[branch] = self._build(title, asked.get("description", ""), author, files, head)
        return self.branches[branch]


def is_binary(sample: bytes) -> bool:
    """Tell whether the beginning of a file is no UTF-8 text; a letter cut off at the end does not count."""
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    return b"\0" in sample


def is_tracked(path: str, files: dict[str, StoredFile]) -> bool:
    """Tell whether .gitattributes sends this path to the large file storage."""
    if ".gitattributes" not in files:
        return False
    lines = files[".gitattributes"].content.decode().splitlines()
    patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
    return any(fnmatch.fnmatch(path if "/" in pattern else path.rsplit("/")[-1], pattern) for pattern in patterns)


def track(files: dict[str, StoredFile], missing: list[str]) -> StoredFile:
    """Return .gitattributes with a line more for each of the large files that it does not name yet."""
    old = files.get(".gitattributes", StoredFile(b""))
    lines = "".join(f"{path} filter=lfs diff=lfs merge=lfs -text\n" for path in sorted(missing))
    return StoredFile(old.content + lines.encode())


def check_path(path: str) -> None:
    """Refuse a path that leads out of the repository or into git's own folder."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..", ".git") for part in parts):
        raise Refusal(400, f"Invalid path: {path!r}")
