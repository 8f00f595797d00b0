"""The Space's folder: its code compiles, needs nothing but its requirements, and loads the model that was published."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from packaging.requirements import InvalidRequirement, Requirement

from publishing.composing import PIN, Composed, pinned
from publishing.faults import Fault
from publishing.repositories import KINDS

# What the Hub installs in a Space of this kind beside its requirements.
INSTALLED = ("gradio", "huggingface_hub")


def check_space(composed: Composed, model: str, revision: str) -> Iterator[Fault]:
    """Give what would keep a composed Space from starting with this model at this revision."""
    required = set(INSTALLED)
    path = composed.folder / "requirements.txt"
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else (), 1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        try:
            required |= {Requirement(line).name} if line else set()
        except InvalidRequirement as error:
            came = f"line {number}: {line!r} ({str(error).splitlines()[0]})"
            yield Fault(composed.shown(path), came, "a requirement such as numpy>=2", "Correct the line.")
    yield from _check_code(composed, {_plain(name) for name in required})
    yield from _check_pin(composed, model, revision)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_code(composed: Composed, required: set[str]) -> Iterator[Fault]:
    files = sorted(composed.folder.glob("*.py"))
    siblings = {path.stem for path in files}
    distributions = packages_distributions()
    for path in files:
        try:
            tree = ast.parse(path.read_text("utf-8", errors="replace"), str(path))
        except SyntaxError as error:
            came, remedy = f"line {error.lineno}: {error.msg}", "Correct the line."
            yield Fault(composed.shown(path), came, "code that compiles", remedy)
            continue
        for line, name in _imports(tree):
            owners = {_plain(owner) for owner in distributions.get(name, [name])}
            if name not in siblings and name not in sys.stdlib_module_names and not owners & required:
                what = "a package of its own" if name == "." else name
                came, expected = f"line {line}: imports {what}", "the Space's own files and its requirements"
                yield Fault(composed.shown(path), came, expected, "Name it in space/requirements.txt, or do without.")


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." if node.level else (node.module or "").split(".")[0]


def _check_pin(composed: Composed, model: str, revision: str) -> Iterator[Fault]:
    path = composed.folder / PIN
    try:
        loads = pinned(composed.folder)
    except (OSError, SyntaxError):
        return  # told above
    if loads != {"MODEL": model, "REVISION": revision}:
        came = f"it loads {loads.get('MODEL')} at {loads.get('REVISION')}"
        yield Fault(composed.shown(path), came, f"{model} at {revision}", "Leave the two lines as they are in git.")
    readme = composed.folder / "README.md"
    if readme.is_file() and f"- {model}\n" not in readme.read_text("utf-8", errors="replace"):
        remedy = f"Name it in the head as {KINDS['model'].repository} of the project's namespace."
        yield Fault(composed.shown(readme), "no such model in its head", f"models: {model}", remedy)
