"""The folders as they are pushed: copied, the repositories called by their new namespace, licence and pin put in.

The project's files stay as they are. Whatever stands beside a folder's files is copied with them, so that the checks can
refuse it; only what Python itself leaves there is not.
"""

import ast
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from publishing.faults import Fault, FolderRefused
from publishing.repositories import KINDS, LICENSE, OWN_IDS, Kind

TEXTS = (".md", ".json", ".py", ".txt", ".css", ".js", ".mjs")
PIN = "smear_model.py"  # of the Space: which model it loads
UNKNOWN_COMMIT = "0" * 40  # stands for a commit that is still to be made


@dataclass(frozen=True)
class Composed:
    """A folder as it is pushed.

    Attributes:
        kind: of the repository.
        id: of the repository, NAMESPACE/NAME.
        folder: where the copy lies.
        source: the folder that it was made from, as the user knows it.
        branch: where it goes.
    """

    kind: Kind
    id: str
    folder: Path
    source: str
    branch: str = "main"

    def shown(self, path: Path | str) -> str:
        """Name a file of the copy as the user knows it."""
        path = Path(path)
        return str(Path(self.source) / (path.relative_to(self.folder) if path.is_absolute() else path))

    @property
    def files(self) -> list[Path]:
        """All files, in order, those behind links too."""
        return sorted(path for path in self.folder.rglob("*") if not path.is_dir())


def compose(tree: Path, kind: Kind, namespace: str, into: Path, revision: str = UNKNOWN_COMMIT) -> Composed:
    """Copy a folder of the project for a namespace.

    Args:
        tree: the project.
        kind: which folder.
        namespace: of the repositories.
        into: the copy; must not exist.
        revision: the model's commit, that a Space is pinned to.

    Raises:
        FolderRefused: the folder or the licence is not there, or a Space has no line to pin.
        OSError: it cannot be copied.
    """
    copy_folder(tree / kind.folder, into)
    for path in into.rglob("*"):
        if path.suffix in TEXTS and path.is_file():
            rename_repositories(path, namespace)
    add_license(tree, into)
    composed = Composed(kind, f"{namespace}/{kind.repository}", into, kind.folder)
    if kind.name == "space":
        pin(composed, f"{namespace}/{KINDS['model'].repository}", revision)
    return composed


def copy_folder(folder: Path, into: Path) -> None:
    """Copy a folder without what Python caches in it."""
    if not folder.is_dir():
        raise FolderRefused([Fault(str(folder), "no folder", "what is to be published", "Name the project's folder.")])
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)


def add_license(tree: Path, into: Path) -> None:
    """Put the project's licence into a folder."""
    if not (tree / LICENSE).is_file():
        raise FolderRefused([Fault(LICENSE, "no file", "the project's licence", "Restore it from git.")])
    shutil.copyfile(tree / LICENSE, into / LICENSE)


def rename_repositories(path: Path, namespace: str) -> None:
    """Call the project's repositories by another namespace in a text file; a file that is no text is left alone."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return  # the checks say so
    renamed = OWN_IDS.sub(rf"{namespace}/\1", text).encode("utf-8")
    if renamed != content:
        path.write_bytes(renamed)


def pin(space: Composed, model: str, revision: str) -> None:
    """Make a composed Space load one model at one commit.

    Raises:
        FolderRefused: there is not one line each that says which.
    """
    path = space.folder / PIN
    text = path.read_text("utf-8") if path.is_file() else ""
    faults = []
    for name, value in {"MODEL": model, "REVISION": revision}.items():
        text, count = re.subn(rf'^{name} = "[^"\n]*"$', f'{name} = "{value}"', text, flags=re.MULTILINE)
        if count != 1:
            came, expected = f"{count} lines '{name} = \"...\"'", "one, which is pinned"
            faults.append(Fault(space.shown(PIN), came, expected, "Say there, once, which model the page loads."))
    if faults:
        raise FolderRefused(faults)
    path.write_text(text, "utf-8")


def pinned(folder: Path) -> dict[str, object]:
    """Read which model and which revision a Space's folder loads."""
    statements = ast.parse((folder / PIN).read_text("utf-8")).body
    return {
        statement.targets[0].id: statement.value.value
        for statement in statements
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in ("MODEL", "REVISION")
    }
