"""Install what only the tests need, each part in a folder of its own outside the clone: `make peers`.

A part is a ``requirements-NAME.txt`` beside this file, installed without its dependencies, to be put in front of the
environment's own packages; and ``package.json``, for Node. A part that is there is left alone; one that cannot be installed
is told, and the tests that want it are skipped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LISTS = Path(__file__).resolve().parent
TRIES = 2  # a registry may be slow once


def folder() -> Path:
    """Where the parts stand: one folder for each version of the lists, so that clones share it."""
    cache = os.environ.get("WBC_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "wbc-resnet"
    )
    lists = [LISTS / "package.json", *sorted(LISTS.glob("requirements-*.txt"))]
    content = b"".join(path.read_bytes() for path in lists)
    return Path(cache) / f"peers-{hashlib.sha256(content).hexdigest()[:12]}"


def commands(unfinished: Path) -> dict[str, list[str]]:
    """The command that makes each part in the folder ``unfinished``, by the part's name."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    parts = {
        path.stem.removeprefix("requirements-"): [*pip, "--target", str(unfinished), "--requirement", str(path)]
        for path in sorted(LISTS.glob("requirements-*.txt"))
    }
    npm = ["npm", "install", "--prefix", str(unfinished.parent), "--ignore-scripts", "--no-package-lock"]
    return parts | {"node_modules": [*npm, "--no-audit", "--no-fund", "--loglevel=error"]}


def install(name: str, target: Path) -> bool:
    """Make one part, whole or not at all; tell whether it is there."""
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target) as place:
        unfinished = Path(place) / name
        if name == "node_modules":
            if not shutil.which("npm"):
                print("npm is not installed: the tests in JavaScript will be skipped", file=sys.stderr)
                return False
            shutil.copy(LISTS / "package.json", place)
        command = commands(unfinished)[name]
        for _ in range(TRIES):
            shutil.rmtree(unfinished, ignore_errors=True)
            if subprocess.run(command, cwd=place).returncode == 0:
                break
        else:
            print(f"{name} could not be installed: the tests that need it will be skipped", file=sys.stderr)
            return False
        try:
            unfinished.rename(target / name)
        except OSError:
            if not (target / name).is_dir():  # else another clone was faster
                raise
    return True


def main() -> None:
    target = folder()
    target.mkdir(parents=True, exist_ok=True)
    for name in commands(target):
        if not (target / name).is_dir():
            install(name, target)


if __name__ == "__main__":
    main()
