"""The Hub, as far as publishing needs it: what stands there, one commit, a tag; and its refusals as sentences.

The token is HF_TOKEN or that of the usual login; HF_ENDPOINT says where the Hub is.
"""

import errno
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of the library below, which has changed its name once
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import parse_ratelimit_headers

from publishing.faults import PublishingError

logger = logging.getLogger(__name__)
T = TypeVar("T")
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before an answer that may be better next time is asked for again
LONGEST_WAIT = 310.0  # seconds; the Hub counts requests over five minutes
PASSING = (408, 429, 500, 502, 503, 504)
TOKENS = "https://huggingface.co/settings/tokens"
HUBS_OWN = (".gitattributes",)  # the Hub writes and keeps it
FIRST_FILES = {"README.md"}  # what a repository may hold before anybody pushed, besides
TRAILER = "Published-by: publish.py of wbc-resnet24"


@dataclass(frozen=True)
class Standing:
    """What stands on a branch of a repository.

    Attributes:
        head: its last commit; None where there is no such repository or branch.
        private: whether the repository is; None where there is none.
        files: each file and its content's name, "git:..." or, for a large one, "sha256:...".
        ours: whether the last commit was made here, or nobody has pushed anything yet.
        title: of the last commit.
        first: the repository's first commit.
        tags: the commit of each tag of the repository.
    """

    head: str | None = None
    private: bool | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    ours: bool = True
    title: str = ""
    first: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Changes:
    """What a commit would do to a branch, each a list of paths."""

    added: list[str]
    changed: list[str]
    removed: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def __str__(self) -> str:
        parts = {"new": self.added, "changed": self.changed, "removed": self.removed}
        return ", ".join(f"{len(paths)} {word}" for word, paths in parts.items() if paths) or "nothing"


def content_names(path: Path) -> set[str]:
    """Give the names that the Hub may know a file's content by: git's, and that of a large file."""
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {f"git:{blob}", f"sha256:{hashlib.sha256(content).hexdigest()}"}


def compare(folder: Path, files: Mapping[str, str]) -> Changes:
    """Say what would make a branch's files those of a folder; what the Hub keeps for itself is left out."""
    local = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    added = [name for name in local if name not in files]
    changed = [name for name in local if name in files and files[name] not in content_names(local[name])]
    return Changes(added, changed, sorted(set(files) - local.keys()))


class Hub:
    """The Hub at one endpoint with one token."""

    def __init__(self, token: str | None = None, endpoint: str | None = None):
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self._token_from = "--hub_token" if token else "HF_TOKEN" if os.environ.get("HF_TOKEN") else "the login"
        token = token or get_token()
        if token and not token.isascii():
            raise PublishingError(
                f"The token from {self._token_from} holds letters that no token has; expected hf_, plain letters, digits. "
                f"Copy it anew from {TOKENS}."
            )
        self.api = HfApi(endpoint=self.endpoint, token=token)
        self._reached = False

    def account(self, namespace: str | None = None) -> str:
        """Say whose token it is, once it may write in a namespace.

        Args:
            namespace: the user's own where none is named.

        Raises:
            PublishingError: no token, a wrong one, one that may only read, a namespace of others.
        """
        who = self._ask("who the token belongs to", self.api.whoami)
        name = who.get("name") if isinstance(who, dict) else None
        if not name:
            raise PublishingError(
                f"{self.endpoint} does not say whose token it is; expected a Hub. Correct HF_ENDPOINT."
            )
        namespace = namespace or name
        access = (who.get("auth") or {}).get("accessToken") or {}
        if access.get("role") == "read" or (access.get("role") == "fineGrained" and not _may_write(access)):
            raise PublishingError(
                f"The token from {self._token_from} ({access.get('displayName', 'no name')!r}, of {name}) may only read; "
                f"expected one that may write in {namespace}. Make one at {TOKENS}."
            )
        groups = {group.get("name"): group.get("roleInOrg") for group in who.get("orgs") or []}
        if namespace != name and namespace not in groups:
            others = f" or one of {', '.join(sorted(groups))}" if groups else ""
            raise PublishingError(
                f"The token from {self._token_from} belongs to {name}, who is no member of {namespace}; expected --namespace "
                f"{name}{others}. Name that, or use a token of {namespace}."
            )
        if groups.get(namespace) == "read":
            raise PublishingError(
                f"{name} may only read in {namespace}; expected a member who may write. Ask an administrator of {namespace}."
            )
        return name

    def look(self, kind: str, repo_id: str, branch: str = "main") -> Standing:
        """Say what stands on a branch.

        Raises:
            PublishingError: the Hub does not tell.
        """
        asked = {"repo_id": repo_id, "repo_type": kind}

        def look() -> Standing:
            try:
                info = self.api.repo_info(**asked)
            except RepositoryNotFoundError:
                return Standing()
            refs = self.api.list_repo_refs(**asked)
            tags = {ref.name: ref.target_commit for ref in refs.tags}
            heads = {ref.name: ref.target_commit for ref in refs.branches}
            if branch not in heads:
                commits = self.api.list_repo_commits(**asked)
                return Standing(private=info.private, first=commits[-1].commit_id, tags=tags)
            # By the commit, so that a push in between does not give the files of one and the history of another.
            commits = self.api.list_repo_commits(**asked, revision=heads[branch])
            files = self.files(kind, repo_id, heads[branch])
            fresh = len(commits) == 1 and files.keys() <= FIRST_FILES
            ours = fresh or TRAILER in commits[0].message
            return Standing(heads[branch], info.private, files, ours, commits[0].title, commits[-1].commit_id, tags)

        return self._ask(f"what stands in {repo_id}", look)

    def files(self, kind: str, repo_id: str, revision: str) -> dict[str, str]:
        """List the files of a revision with their contents' names, without what the Hub keeps for itself."""
        listed = self.api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=kind)
        return {
            entry.path: f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            for entry in listed
            if isinstance(entry, RepoFile) and entry.path not in HUBS_OWN
        }

    def files_at(self, kind: str, repo_id: str, revision: str) -> dict[str, str]:
        """List the files of a commit that is known to be there."""
        return self._ask(f"the files of {repo_id} at {revision}", lambda: self.files(kind, repo_id, revision))

    def create(self, kind: str, repo_id: str, private: bool) -> None:
        """Make a repository; where its first try's answer was lost, it is taken for made."""
        sdk = {"space_sdk": "gradio"} if kind == "space" else {}
        self._ask(
            f"for the repository {repo_id}",
            lambda: self.api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, **sdk),
        )

    def withdraw(self, kind: str, repo_id: str) -> None:
        """Delete a repository that was made a moment ago and that nobody has pushed to; one try."""
        asked = {"repo_id": repo_id, "repo_type": kind}
        try:
            commits = self.api.list_repo_commits(**asked)
        except RepositoryNotFoundError:
            return  # it never came to be
        if len(commits) == 1 and self.files(kind, repo_id, commits[0].commit_id).keys() <= FIRST_FILES:
            self.api.delete_repo(**asked)

    def branch(self, kind: str, repo_id: str, name: str, start: str) -> None:
        """Make a branch that begins at a commit."""
        self._ask(
            f"for the branch {name} of {repo_id}",
            lambda: self.api.create_branch(repo_id, branch=name, revision=start, repo_type=kind, exist_ok=True),
        )

    def tag(self, kind: str, repo_id: str, name: str, commit: str) -> None:
        """Give a commit a tag.

        Raises:
            PublishingError: the tag has come into being on another commit.
        """
        self._ask(
            f"for the tag {name} of {repo_id}",
            lambda: self.api.create_tag(repo_id, tag=name, revision=commit, repo_type=kind, exist_ok=True),
        )
        if (found := self.look(kind, repo_id).tags.get(name)) != commit:
            raise PublishingError(
                f"{repo_id}: the tag {name} stands on {found}; expected {commit}. Somebody else tags: raise the version."
            )

    def push(
        self, kind: str, repo_id: str, branch: str, folder: Path, standing: Standing, message: str, description: str
    ) -> str:
        """Make a branch's files those of a folder, in one commit, which appears whole or not at all.

        Args:
            standing: the branch as it was looked at; a commit since then is not overwritten.

        Returns:
            The branch's last commit, the same as before where nothing differs.

        Raises:
            PublishingError: somebody pushed meanwhile, or the Hub refuses or cannot be reached.
        """
        doing, before = f"for one commit to {repo_id}", standing.head
        for wait in (*WAITS, None):
            changes = compare(folder, standing.files)
            if not changes:
                return standing.head
            adds = [CommitOperationAdd(name, folder / name) for name in (*changes.added, *changes.changed)]
            gone = [CommitOperationDelete(name) for name in changes.removed]
            try:
                done = self.api.create_commit(
                    repo_id, [*adds, *gone], commit_message=message, commit_description=description, repo_type=kind,
                    revision=branch, parent_commit=before,
                )  # fmt: skip
                return done.oid
            except (HTTPError, OSError, ValueError, RuntimeError) as raised:
                # An upload that fails comes as a RuntimeError with the reason behind it.
                cause = raised.__cause__
                error = cause if isinstance(raised, RuntimeError) and isinstance(cause, HTTPError | OSError) else raised
                if status_of(error) in (409, 412):
                    raise _overtaken(repo_id, branch, before) from error
                if wait is None or not is_passing(error):
                    raise self.explain(error, doing) from error
                self._wait(error, wait, doing)
            standing = self.look(kind, repo_id, branch)
            # Where the answer was lost and the commit was not, the loop ends above with nothing to change.
            if standing.head != before and compare(folder, standing.files):
                raise _overtaken(repo_id, branch, before)
        raise AssertionError("the last try returns or raises")

    def _ask(self, doing: str, call: Callable[[], T]) -> T:
        """Ask, and again where the answer may be better next time; a Hub that never answered is asked once."""
        for wait in (*WAITS, None):
            try:
                answer = call()
            except (HTTPError, OSError, ValueError, KeyError, TypeError) as error:
                answered = self._reached or status_of(error) is not None
                if wait is None or not answered or not is_passing(error):
                    raise self.explain(error, doing) from error
                self._wait(error, wait, doing)
            else:
                self._reached = True
                return answer
        raise AssertionError("the last try returns or raises")

    def _wait(self, error: Exception, seconds: float, doing: str) -> None:
        response = getattr(error, "response", None)
        if status_of(error) == 429 and (limit := parse_ratelimit_headers(response.headers)):
            seconds = min(limit.reset_in_seconds + 1.0, LONGEST_WAIT)
        elif response is not None and response.headers.get("Retry-After", "").isdigit():
            seconds = min(float(response.headers["Retry-After"]), LONGEST_WAIT)
        logger.warning("asking %s: %s; again in %.0f s", doing, _first_line(error), seconds)
        time.sleep(seconds)

    def explain(self, error: Exception, doing: str) -> PublishingError:
        """Turn what the libraries raise into one sentence with its remedy."""
        status, asked = status_of(error), f"{self.endpoint}, asked {doing}"
        if isinstance(error, LocalTokenNotFoundError):
            text = f"No token was found; expected one that may write. Set HF_TOKEN, or run: hf auth login ({TOKENS})."
        elif isinstance(error, OfflineModeIsEnabled):
            text = f"HF_HUB_OFFLINE forbids the network; expected a way to {self.endpoint}. Unset it."
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            text = f"The disk is full ({error.filename or 'temporary files'}); expected room. Free some, or set TMPDIR."
        elif status == 401:
            which = f"the token from {self._token_from}"
            text = f"{asked}, refuses {which}; expected a valid one that may write. Make one at {TOKENS}."
        elif status == 403:
            text = f"{asked}, forbids it ({_said(error)}); expected a token with the right to. Make one at {TOKENS}."
        elif status == 429:
            waits = f"an answer after {len(WAITS)} waits"
            text = f"{asked}, has had too many requests; expected {waits}. Run it again in some minutes."
        elif status is not None and status >= 500:
            text = f"{asked}, fails (HTTP {status}, {_said(error)}); expected an answer. Run it again later."
        elif status is not None:
            text = f"{asked}, refuses it (HTTP {status}, {_said(error)}); expected success. Correct what it names."
        elif isinstance(error, json.JSONDecodeError | KeyError | TypeError):
            text = f"{asked}, answers like no Hub ({_first_line(error)}); expected one. Correct HF_ENDPOINT."
        elif isinstance(error, HTTPError | ConnectionError):
            text = (
                f"{self.endpoint} cannot be reached ({_first_line(error)}); expected a Hub. Check the network and HF_ENDPOINT, "
                "then run it again."
            )
        else:
            text = f"{asked}: {_first_line(error)}; expected success. Correct what it names and run it again."
        return PublishingError(text)


def status_of(error: Exception) -> int | None:
    """Give the HTTP status of an answer that became an error; None where there was no answer."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def is_passing(error: Exception) -> bool:
    """Say whether the same request may succeed next time."""
    status = status_of(error)
    if status is not None:
        return status in PASSING
    return isinstance(error, HTTPError) and not isinstance(error, OfflineModeIsEnabled)


def _may_write(access: Mapping[str, Any]) -> bool:
    """Say whether a fine-grained token may write anywhere; where, the Hub says."""
    scoped = (access.get("fineGrained") or {}).get("scoped")
    if not isinstance(scoped, list):
        return True
    return any("repo.write" in (entry.get("permissions") or ()) for entry in scoped)


def _overtaken(repo_id: str, branch: str, before: str | None) -> PublishingError:
    return PublishingError(
        f"{repo_id}: somebody pushed to {branch} meanwhile; expected {str(before)[:12]} to be its last commit. Nothing was "
        "overwritten there. Look at that commit, then run it again."
    )


def _said(error: Exception) -> str:
    message = getattr(error, "server_message", None) or _first_line(error)
    return " ".join(str(message).split())


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
