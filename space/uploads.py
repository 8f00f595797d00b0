"""What visitors send, as it lies on this machine: without names or EXIF, each file in a folder of its own that goes with it.

gradio puts a file under its content's hash and its own name, as it came, and serves it from there.
"""

import os
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder
from metadata import without_metadata

PREFIX = "sent-"
MOST_LOOKED_AT = 1000  # paths of one question that may be files which a visitor sent; no page of ours asks with more
LONGEST_NAME = 200  # bytes of a file's name; file systems take 255
HASH = re.compile("[0-9a-f]{64}")  # gradio's folders, by the content's SHA-256
EMPTY = 60  # seconds after which such a folder goes: in a moment the same content may come again
REMEMBERED = 1000  # files that were taken last
NO_PICTURE = b"no picture"  # in the place of what cannot be cleaned: readers say then that it is none

# gradio lays two files of the same content and name upon each other, whoever sends them: where the first was taken to.
_last: OrderedDict[Path, Path] = OrderedDict()
_taking = threading.Lock()


def take(paths: Iterable[str]) -> list[str]:
    """Clean files that were uploaded, and move them where their paths tell nothing; gives the new paths."""
    taken = []
    for path in map(Path, paths):
        target = new_folder() / f"photo{path.suffix.lower() if path.suffix[1:].isalnum() else ''}"
        with _taking:
            if path.is_file():
                content = path.read_bytes()
                path.unlink()
                target.write_bytes(without_metadata(content) or (NO_PICTURE if content else b""))
            else:  # the same file under the same name came twice at once
                shutil.copyfile(_last[path], target)
            _last[path] = target
            while len(_last) > REMEMBERED:
                _last.popitem(last=False)
        taken.append(str(target))
    return taken


def new_folder() -> Path:
    """Make a folder for one file among the visitors' files."""
    folder = Path(get_upload_folder()) / f"{PREFIX}{secrets.token_hex(16)}"
    folder.mkdir(parents=True)
    return folder


def folder_of(path: str | Path) -> Path | None:
    """Give the folder of its own in which a visitor's file lies; None for any other file."""
    try:
        folder = Path(path).resolve().parent
    except (TypeError, ValueError, OSError):  # what a client names may be no path at all
        return None
    return folder if folder.parent == Path(get_upload_folder()).resolve() and folder.name.startswith(PREFIX) else None


def folders_of(paths: Iterable[str]) -> set[Path]:
    """Give the folders of those visitors' files that exist among what a client names, ``MOST_LOOKED_AT`` paths at most."""
    found = set()
    for path in islice((path for path in dict.fromkeys(paths) if PREFIX in path), MOST_LOOKED_AT):
        with suppress(OSError, ValueError):  # a name that no file can have
            if (folder := folder_of(path)) is not None and folder.is_dir():
                found.add(folder)
    return found


def forget(sent: Any) -> None:
    """Delete the files that a client sent, a mapping with the path, or several."""
    for one in [sent] if isinstance(sent, Mapping) else sent if isinstance(sent, list | tuple) else []:
        folder = folder_of(one["path"]) if isinstance(one, Mapping) and one.get("path") else None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def forget_older(age: float) -> None:
    """Delete every visitor's files that lie here for ``age`` seconds, whatever became of the visit, and folders left empty."""
    now = time.time()
    for path in Path(get_upload_folder()).glob("*"):
        try:
            lies = now - path.stat().st_mtime
            if path.is_file():  # as gradio takes an upload; of one that broke off it stays
                if lies > age:
                    path.unlink()
            elif path.name.startswith(PREFIX) and lies > age:
                shutil.rmtree(path, ignore_errors=True)
            elif HASH.fullmatch(path.name) and lies > EMPTY:
                path.rmdir()
        except OSError:  # it went meanwhile, or is not empty
            continue


def rename_as_sent(one: dict[str, Any]) -> None:
    """Give a visitor's file back the name that its sender knows it by, for lists and reports; it is served no more."""
    path, name = Path(one.get("path") or ""), str(one.get("orig_name") or "").replace("\\", "/").rpartition("/")[2]
    name = "".join(letter for letter in name if letter.isprintable()).strip()
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = os.fsencode(name)[-LONGEST_NAME:].decode(errors="ignore")
    if name.strip(".") and path.is_file() and folder_of(path) is not None:
        one["path"] = str(path.rename(path.with_name(name)))
