"""One publication from beginning to end: composed, checked, compared with what stands on the Hub, then pushed.

The order keeps every state of the Hub whole: the model, its timm branch, the data set, and last the Space, which names the
model's commit. Each push is one commit. Nothing is written before everything was read and found in order.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import git_commit
from publishing.checks import check_folders
from publishing.composing import UNKNOWN_COMMIT, Composed, compose, pin
from publishing.faults import Fault, FolderRefused, PublishingError
from publishing.hub import TRAILER, Changes, Hub, Standing, compare
from publishing.repositories import KINDS, TIMM
from publishing.timm_branch import export

logger = logging.getLogger(__name__)
ORDER = ("model", "dataset", "space")
UNCHANGED = "nothing has changed"
LICENSE_ID = "apache-2.0"  # of the project's own code and weights


@dataclass
class Push:
    """One branch to be pushed.

    Attributes:
        composed: its files.
        standing: what stands there.
        changes: what would be done.
    """

    composed: Composed
    standing: Standing
    changes: Changes

    @property
    def kind(self) -> str:
        return self.composed.kind.name

    @property
    def name(self) -> str:
        """What it is called in a line of the report."""
        branch = "" if self.composed.branch == "main" else f", branch {self.composed.branch}"
        return f"{self.kind} {self.composed.id}{branch}"


@dataclass(frozen=True)
class Options:
    """How to publish.

    Attributes:
        tag: of the version; None for none.
        message: the commits' first line.
        private: new repositories are; an existing public one is refused.
        dry_run: read everything, write nothing.
        replace: also where somebody else's files or commits stand.
        origin: the code's commit, for the commits' description.
    """

    tag: str | None
    message: str
    private: bool = False
    dry_run: bool = False
    replace: bool = False
    origin: str = "unknown"


def publish_project(tree: Path, namespace: str, what: Sequence[str], hub: Hub, options: Options) -> list[str]:
    """Publish the project's folders.

    Args:
        what: some of "model", "dataset", "space".

    Returns:
        What was done, a line for each branch.

    Raises:
        PublishingError: nothing is half done; the message says what to do.
    """
    with staging() as stage:
        folders, faults = compose_project(tree, namespace, what, stage)
        faults += check_folders(folders, tree)
        if faults:
            raise FolderRefused(faults)
        pinned = None
        if "space" in what and "model" not in what:
            pinned = published_model(hub, f"{namespace}/{KINDS['model'].repository}", options.tag)
        return release(folders, hub, options, pinned)


def compose_project(tree: Path, namespace: str, what: Sequence[str], stage: Path) -> tuple[list[Composed], list[Fault]]:
    """Compose the folders that are asked for, in the order in which they are pushed, and the model's timm branch."""
    folders: list[Composed] = []
    faults: list[Fault] = []
    for name in [name for name in ORDER if name in what]:
        try:
            folders.append(compose(tree, KINDS[name], namespace, stage / name))
            if name == "model":
                folders.append(export(folders[-1], stage / TIMM, LICENSE_ID))
        except FolderRefused as error:
            faults += error.faults
    return folders, faults


@contextmanager
def staging() -> Iterator[Path]:
    """Give an empty folder that goes at the end, whatever happens."""
    try:
        with tempfile.TemporaryDirectory(prefix="publishing-") as name:
            yield Path(name)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise PublishingError(
            f"The folders cannot be put together ({error}); expected room for copies in {tempfile.gettempdir()}. Free some "
            "space, or set TMPDIR. Nothing was pushed."
        ) from error


def published_model(hub: Hub, repo_id: str, tag: str | None) -> str:
    """Say at which commit a Space loads a model that is not pushed along: the version's, else the last one.

    Raises:
        PublishingError: it is not there.
    """
    standing = hub.look("model", repo_id)
    if not standing.files.get("model.safetensors"):
        raise PublishingError(
            f"There is no model {repo_id} for the Space to load; expected it to be published. "
            "Leave out --what, or name model, too."
        )
    return standing.tags.get(tag or "") or str(standing.head)


def release(folders: Sequence[Composed], hub: Hub, options: Options, pinned: str | None = None) -> list[str]:
    """Push composed and checked folders.

    Args:
        folders: in the order in which they are pushed.
        pinned: the commit that a Space loads; None where its model is among the folders.

    Returns:
        What was done, a line for each branch.

    Raises:
        PublishingError: nothing is half done.
    """
    space = next((folder for folder in folders if folder.kind.name == "space"), None)
    pushes = []
    for composed in folders:
        standing = hub.look(composed.kind.name, composed.id, composed.branch)
        if composed is space:
            pinned = pinned or _known_commit(pushes[0], options.tag)
            pin(space, model_of(space), pinned or UNKNOWN_COMMIT)
        pushes.append(Push(composed, standing, compare(composed.folder, standing.files)))
    judge(pushes, hub, options)
    if options.dry_run:
        return [_rehearsed(push, options) for push in pushes]
    return _write(pushes, hub, options, pinned)


def model_of(space: Composed) -> str:
    """Name the model that a Space of this namespace loads."""
    return f"{space.id.split('/')[0]}/{KINDS['model'].repository}"


def _known_commit(model: Push, tag: str | None) -> str | None:
    """Give the commit that the Space is pinned to as far as it is there already: the version's, else the unchanged head."""
    tagged = model.standing.tags.get(tag or "")
    return tagged or (model.standing.head if not model.changes else None)


def judge(pushes: Sequence[Push], hub: Hub, options: Options) -> None:
    """Refuse what may not be pushed before anything is.

    Raises:
        PublishingError: all reasons, a line each.
    """
    reasons = []
    for push in pushes:
        composed, standing = push.composed, push.standing
        if standing.head and push.changes and not standing.ours and not options.replace:
            reasons.append(
                f"{push.name} holds what publish.py did not put there (last commit: {standing.title!r}, "
                f"{len(standing.files)} files); expected an empty repository or one published here. Choose another "
                "namespace, or give --replace, which puts one commit over it and keeps its history."
            )
        if options.private and standing.private is False and composed.branch == "main":
            reasons.append(
                f"{push.name} is public already; expected a private one for --private. Change it in its settings, or "
                "leave the option out."
            )
        tagged = standing.tags.get(options.tag or "")
        if tagged and composed.branch == "main" and (push.changes or tagged != standing.head):
            # The same files under an older tag are a version that comes back.
            files = hub.files_at(push.kind, composed.id, tagged)
            if changes := compare(composed.folder, files):
                reasons.append(
                    f"{push.name}: the tag {options.tag} stands on {tagged[:12]} with other files ({changes}); expected a new "
                    "version for new files. Raise version in pyproject.toml, or give --version."
                )
    if reasons:
        raise PublishingError("\n".join(reasons))


def _rehearsed(push: Push, options: Options) -> str:
    made = "" if push.standing.head else " would be made;"
    tagged = options.tag in push.standing.tags or push.composed.branch != "main" or not options.tag
    tag = "" if tagged else f"; the tag {options.tag} would be set"
    listed = [*push.changes.added, *push.changes.changed, *(f"{name} (removed)" for name in push.changes.removed)]
    return f"{push.name}:{made} {push.changes} would be pushed{tag}" + "".join(f"\n    {name}" for name in listed)


def _write(pushes: Sequence[Push], hub: Hub, options: Options, pinned: str | None) -> list[str]:
    description = f"{TRAILER}\nCode: {options.origin}"
    created: list[Push] = []
    done: list[str] = []
    try:
        for push in pushes:
            if push.standing.private is None and push.composed.branch == "main":
                created.append(push)
                hub.create(push.kind, push.composed.id, options.private)
        for push in pushes:
            composed = push.composed
            if composed.kind.name == "space":
                pin(composed, model_of(composed), str(pinned))
            standing = hub.look(push.kind, composed.id, composed.branch)
            if push.standing.head not in (None, standing.head) or (push.standing.head is None and not standing.ours):
                raise PublishingError(
                    f"{push.name}: somebody pushed meanwhile; expected {(push.standing.head or 'nothing')[:12]} to be its "
                    "last commit. Look at that commit, then run it again."
                )
            if standing.head is None:
                hub.branch(push.kind, composed.id, composed.branch, str(standing.first))
                standing = hub.look(push.kind, composed.id, composed.branch)
            if changes := compare(composed.folder, standing.files):
                logger.info("pushing %s", push.name)
            commit = hub.push(
                push.kind, composed.id, composed.branch, composed.folder, standing, options.message, description
            )
            created = [one for one in created if one is not push]
            tag = ""
            if options.tag and composed.branch == "main" and options.tag not in standing.tags:
                hub.tag(push.kind, composed.id, options.tag, commit)
                tag = f", tag {options.tag}"
            if composed.kind.name == "model" and composed.branch == "main":
                pinned = standing.tags.get(options.tag or "") or commit
            done.append(f"{push.name}: {f'{changes}, commit {commit}' if changes else UNCHANGED}{tag}")
    except BaseException as error:
        _take_back(created, hub)
        if done and isinstance(error, PublishingError):
            raise PublishingError(f"{error} Already there, each whole: {'; '.join(done)}.") from error
        raise
    return done


def _take_back(created: Sequence[Push], hub: Hub) -> None:
    """Delete the repositories that this run has made and not yet pushed to."""
    for push in created:
        try:
            hub.withdraw(push.kind, push.composed.id)
        except Exception as error:  # the reason why the run ends is told, this one beside it
            logger.warning("%s may stand there empty: %s", push.name, str(hub.explain(error, "to take it back")))


def origin_of(tree: Path, describe: Callable[[Path], dict] = git_commit) -> str:
    """Name the code's commit, for the description of what is pushed."""
    try:
        found = describe(tree)
    except RuntimeError:
        return "of no known commit"
    return found["commit"] + (", with uncommitted changes" if found["dirty"] else "")
