"""The files of a folder, one by one: those that belong there and no others, of a size, without pickles, paths and secrets."""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open

from publishing.composing import TEXTS, Composed
from publishing.faults import Fault
from publishing.repositories import LARGEST, LICENSE, TIMM, TIMM_FILES

ALWAYS = ("README.md", LICENSE)
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".tar", ".npy", ".npz", ".h5")
PICKLED = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04"
)  # a pickle's first bytes, and those of the zip that torch.save writes
SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{20,}",
    "a GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22,}",
    "an AWS access key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": rb"(?i:aws_secret_access_key)\W{1,5}[A-Za-z0-9/+=]{40}",
    "a Google key": rb"\bAIza[\w-]{35}",
    "a Slack token": rb"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a Kaggle key": rb"\"key\"\s*:\s*\"[0-9a-f]{32}\"",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "the token of a command": rb"--hub[_-]t\w*[ =]\S",
    "a password in an address": rb"\bhttps?://[^\s/:@\"'<>{}$]{1,64}:[^\s/@\"'<>{}$]{3,64}@",
}
ABSOLUTE = re.compile(
    rb"(?<![\w.:/~@-])/(?:root|home|Users|tmp|work|workspace|mnt|media|private|opt|srv|data|content|kaggle|var/\w+)/"
    rb"[\w.@+-]+(?:/[\w.@+-]+)*|\b[A-Za-z]:\\{1,2}(?:Users|Documents)\\{1,2}[^\s\"']+"
)


def check_files(composed: Composed) -> Iterator[Fault]:
    """Give what is wrong with the files of a folder, each for itself."""
    required = (*ALWAYS, *(TIMM_FILES if composed.branch == TIMM else composed.kind.files))
    found = {str(path.relative_to(composed.folder)): path for path in composed.files}
    for name in sorted(set(required) - found.keys()):
        yield Fault(composed.shown(name), "no such file", "it", "Restore it from git, or make it anew.")
    readme = found.get("README.md")
    named = readme.read_text("utf-8", errors="replace") if readme else ""
    for name, path in found.items():
        if path.is_symlink():
            yield Fault(composed.shown(name), "a link", "a file", "Put the file itself there.")
        elif Path(name).suffix in PICKLES:
            came = "a file that may hold a pickle, which runs code where it is loaded"
            yield Fault(composed.shown(name), came, "weights as safetensors and nothing else", "Remove it.")
        elif name in required or (composed.branch != TIMM and _fits(name, composed.kind.may)):
            yield from check_content(composed, name, path)
        elif composed.branch == TIMM or not _fits(name, composed.kind.pictures):
            remedy = "Remove it; if it is to be published, name it in publishing/repositories.py."
            yield Fault(composed.shown(name), "a file that nobody expects there", "the files that are named", remedy)
        elif name not in named:
            yield Fault(composed.shown(name), "a picture that README.md does not show", "its name there", "Remove it.")
        else:
            yield from check_content(composed, name, path)


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def check_content(composed: Composed, name: str, path: Path) -> Iterator[Fault]:
    """Give what is wrong inside one file that belongs there."""
    shown, size = composed.shown(name), path.stat().st_size
    if size > LARGEST:
        came, most = f"{size / 1e6:.1f} MB", f"at most {LARGEST / 1e6:.0f} MB"
        yield Fault(shown, came, most, "Make it smaller, or leave it out.")
        return
    content = path.read_bytes()
    if not content and name != "__init__.py":
        yield Fault(shown, "an empty file", "its content", "Restore it from git.")
    elif PICKLED.match(content):
        yield Fault(shown, "a pickle under another name", "a file of its kind", "Remove it.")
    elif (path.suffix in TEXTS or name == LICENSE) and not _is_text(content):
        yield Fault(shown, "bytes that are no UTF-8", "a text", "Save it as UTF-8.")
    elif path.suffix == ".safetensors":
        yield from _check_weights(shown, path)
    elif path.suffix in (".png", ".jpg", ".webp"):
        yield from _check_picture(shown, path)
    # Of weights, which are noise, only the beginning holds words: its length, then names and shapes.
    words = content[: 8 + int.from_bytes(content[:8], "little")] if path.suffix == ".safetensors" else content
    yield from _check_words(shown, words)


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in content


def _check_weights(shown: str, path: Path) -> Iterator[Fault]:
    try:
        with safe_open(path, "pt") as weights:
            if weights.keys():
                return
            came = "no tensor"
    except (SafetensorError, OSError) as error:
        came = f"no safetensors ({error})"
    yield Fault(shown, came, "the weights as safetensors", "Restore it from git, or train anew.")


def _check_picture(shown: str, path: Path) -> Iterator[Fault]:
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        yield Fault(shown, f"no picture ({error})", "one that opens", "Make it anew.")


def _check_words(shown: str, content: bytes) -> Iterator[Fault]:
    """Look for what must not leave the machine; a secret's beginning is told and not the rest."""
    for name, pattern in SECRETS.items():
        for match in re.finditer(pattern, content):
            line = content[: match.start()].count(b"\n") + 1
            place = f"line {line}: what looks like {name}"
            remedy = "Remove it, and revoke it where it was given out."
            yield Fault(shown, f"{place} ({match[0][:8].decode('ascii', 'replace')}...)", "no secret", remedy)
    for path in sorted({match[0] for match in ABSOLUTE.finditer(content)}):
        came = f"the path {path.decode('ascii', 'replace')} of a machine"
        yield Fault(shown, came, "no absolute path", "Write it relative to the folder.")
