"""Where images lie: folders, patterns and files, on this machine or on an object store, listed without holding them all.

pyarrow opens local paths, ``s3://``, ``gs://`` and ``hf://``; any other scheme goes through fsspec.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs as arrow_fs

IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUETS = (".parquet", ".pq")
MOST_ENDINGS = 20
IN_OUT = "in --out"
GS_PATIENCE = 60  # s that Google's storage is tried for, where the address says nothing; pyarrow's own are 15 minutes
WILD = re.compile(r"[*?\[]")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]*://\S+")
AUTHORITY = re.compile(r"(?<=://)[^/@:]*:[^/@]*(?=@)")
# Where a key was written raw, its slashes seem to end the authority: all up to the last "@" goes, but for a port.
RAW_SECRET = re.compile(r"(?<=://)([^/@:]*):(?!\d+(?:/|$))\S*@")
OPTIONS = re.compile(r"\?[\w.-]+=")
SECRET_OPTION = re.compile(
    r"([?&](?:[\w-]*(?:secret|token|passw(?:or)?d|credential|signature|(?:access|account|api|private|secret|shared)[_-]?key)|sig)=)[^&\s]*",
    re.IGNORECASE,
)
NAMED_BEFORE_AT = "github://"  # whose addresses say organisation:repository@revision


def without_secrets(text: str) -> str:
    """Replace passwords and signatures in the addresses of a text by ``***``: what is told may be stored or passed on."""

    def mask(found: re.Match) -> str:
        address = SECRET_OPTION.sub(r"\1***", found.group())
        return address if address.startswith(NAMED_BEFORE_AT) else RAW_SECRET.sub(r"\1:***@", address)

    return ADDRESS.sub(mask, text)


def without_keys(address: str) -> str:
    """Write an address that could be opened as what it names, whichever key it is opened with."""
    address = SECRET_OPTION.sub(r"\1***", address) if "://" in address else address
    return address if address.startswith(NAMED_BEFORE_AT) else AUTHORITY.sub("***", address, count=1)


class ScoringError(ValueError):
    """A run cannot start or go on; the message says what came, without its secrets, what was expected, and what to do."""

    def __init__(self, message: str):
        super().__init__(without_secrets(message))


class Found(NamedTuple):
    """A file that was listed: its path in its filesystem, its size in bytes, and when it was last changed, in ns."""

    path: str
    size: int
    changed: int


def kind_of(path: str) -> str | None:
    """Tell by a file's ending what it is: ``"image"``, ``"tar"``, ``"parquet"``, or None for anything else."""
    name = path.lower()
    for kind, endings in (("image", IMAGES), ("tar", TARS), ("parquet", PARQUETS)):
        if name.endswith(endings):
            return kind
    return None


def count_ending(path: str, counts: Counter) -> None:
    """Count a file that is left out by its ending; what has many endings is not counted by each."""
    ending = os.path.splitext(path)[1].lower() or "no ending"
    counts[ending if ending in counts or len(counts) < MOST_ENDINGS else "others"] += 1


def plain_text(path: str) -> str:
    """Write a path so that it can be stored: bytes of a file name that are no UTF-8 are shown as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Location:
    """A place, and the filesystem that opens it.

    Attributes
    ----------
    address
        As it was given; a local one made absolute. Options after ``?`` are kept, since the filesystem needs them.
    filesystem, path
        How pyarrow opens it.
    prefix
        What stands before a path of this filesystem where it is shown, such as ``"s3://"``; empty for a local one.
    """

    address: str
    filesystem: arrow_fs.FileSystem
    path: str
    prefix: str

    @property
    def local(self) -> bool:
        return isinstance(self.filesystem, arrow_fs.LocalFileSystem)

    def shown(self, path: str) -> str:
        """Write a path of this filesystem as it stands in the results."""
        whole = not self.local and not self.prefix  # the path is the address
        return plain_text(without_keys(path) if whole else self.prefix + path)


def locate(address: str) -> Location:
    """Find the filesystem of a local path or of an address such as ``s3://bucket/folder``.

    Raises
    ------
    ScoringError
        Nothing here opens such addresses, or the address is malformed.
    """
    scheme, mark, rest = address.partition("://")
    if not mark or scheme == "file":
        path = unquote(rest, errors="surrogateescape") if mark else address  # in addresses names are escaped
        path = os.path.abspath(os.path.expanduser(path))
        return Location(path, arrow_fs.LocalFileSystem(), path, "")
    try:
        # pyarrow reads wildcards as parts of an address that it must refuse; they are put back after it. The "?" that begins
        # the options is none.
        begun = OPTIONS.search(rest)
        pattern = WILD.search(rest, 0, begun.start() if begun else len(rest))
        base, options = (rest, "") if pattern is None else _cut(rest, pattern.start())
        filesystem, path = _open(f"{scheme}://{base}{options}")
        if pattern is not None:
            path = path.rstrip("/") + "/" + rest.removesuffix(options)[len(base) :].lstrip("/")
    except (ImportError, ValueError, OSError, pa.ArrowException) as error:
        raise ScoringError(
            f"{address} cannot be opened ({' '.join(str(error).split())}); expected a local path, s3://, gs://, hf://, or a "
            "scheme that an installed fsspec filesystem knows. Correct the address, or install what the message names."
        ) from error
    # Some filesystems of fsspec, such as http's, take the whole address for the path.
    return Location(address, filesystem, path.rstrip("/"), "" if "://" in path else f"{scheme}://")


def _cut(rest: str, wild: int) -> tuple[str, str]:
    """Part an address before the component with the first wildcard, and give the options at its end."""
    options = OPTIONS.search(rest)
    return rest[:wild].rpartition("/")[0], rest[options.start() :] if options else ""


def _open(address: str) -> tuple[arrow_fs.FileSystem, str]:
    if address.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in address:
        address += f"{'&' if '?' in address else '?'}retry_limit_seconds={GS_PATIENCE}"
    try:
        return arrow_fs.FileSystem.from_uri(address)
    except pa.ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(address)
    return arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(filesystem)), path


@dataclass(frozen=True)
class Input:
    """What a user named: a file, a folder with all below it, or a pattern.

    Attributes
    ----------
    place
        The file, the folder, or the folder above the first wildcard.
    patterns
        The components of the pattern below it, ``**`` for any number of folders; a folder that matches stands for all in it.
    is_file
        One file was named: it is taken whatever its ending.
    """

    place: Location
    patterns: tuple[str, ...] = ()
    is_file: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What tells the file, where one was named, from all others."""
        return self.place.prefix, self.place.path

    def _parts(self, path: str) -> list[str] | None:
        if path == self.place.path:
            return []
        root = self.place.path.rstrip("/") + "/"
        return path[len(root) :].split("/") if path.startswith(root) else None

    def covers(self, place: Location, path: str) -> bool:
        """Say whether a path of the place's filesystem is of this folder or pattern."""
        if place.prefix != self.place.prefix:
            return False
        parts = self._parts(path)
        if parts is None or any(part.startswith(".") for part in parts):
            return False
        return _matches(parts, self.patterns)

    def leads_to(self, folder: str) -> bool:
        """Say whether a folder below the place can hold what the pattern names."""
        parts = self._parts(folder) or []
        return "**" in self.patterns or all(map(fnmatchcase, parts, self.patterns))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_matches(parts[start:], patterns[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def read_input(address: str) -> Input:
    """Find out what an address names.

    Raises
    ------
    ScoringError
        Nothing is there, or it cannot be opened.
    """
    place = locate(address)
    info = _info(place, place.path)
    if info is not None:
        return Input(place, is_file=info.type == arrow_fs.FileType.File)
    parts = place.path.split("/")
    wild = next((number for number, part in enumerate(parts) if WILD.search(part)), None)
    if wild is not None:
        base = "/".join(parts[:wild]) or "/"
        info = _info(place, base)
        if info is not None and info.type == arrow_fs.FileType.Directory:
            return Input(Location(place.address, place.filesystem, base, place.prefix), tuple(parts[wild:]))
    # The Hub answers alike for what is not there and for what is hidden.
    hidden = (
        " If it is private or gated, `hf auth login` with a token that may read it." if place.prefix == "hf://" else ""
    )
    raise ScoringError(
        f"{address}: nothing is there; expected a file, a folder, or a pattern in quotes such as 'cells/*.jpg'. Correct it."
        + hidden
    )


def _info(place: Location, path: str) -> arrow_fs.FileInfo | None:
    try:
        info = place.filesystem.get_file_info(path)
    except (OSError, ValueError) as error:
        raise ScoringError(
            f"{place.address} cannot be looked at ({' '.join(str(error).split())}). Correct the address, or allow it."
        ) from error
    return None if info.type == arrow_fs.FileType.NotFound else info


def list_input(
    source: Input, without: Location, ignored: Counter, named: Set[tuple[str, str]] = frozenset()
) -> Iterator[Found]:
    """Give the files of an input one by one, in no particular order; what is held is the names of one folder at a time.

    Of ``gs://`` the names of all folders below the input are held.

    Parameters
    ----------
    source
        From ``read_input``.
    without
        The place of the results, which is no input even where it lies inside one.
    ignored
        Counts, by ending, what is neither image nor archive; under ``IN_OUT`` images and archives in the place of the results.
    named
        The ``key`` of files that are inputs of their own, and no part of a folder.

    Raises
    ------
    ScoringError
        A folder that cannot be listed: to go on would lose its images in silence.
    """
    place = source.place
    if source.is_file:
        info = _info(place, place.path)
        yield Found(place.path, info.size, info.mtime_ns or 0)
        return
    walk = _walk_local(place.path, source) if place.local else _walk(place, place.path, source)
    same_store = without.prefix == place.prefix
    try:
        for found in walk:
            if not source.covers(place, found.path) or (place.prefix, found.path) in named:
                continue
            if same_store and (found.path + "/").startswith(without.path.rstrip("/") + "/"):
                ignored[IN_OUT] += kind_of(found.path) is not None
            elif kind_of(found.path) is None:
                count_ending(found.path, ignored)
            else:
                yield found
    except OSError as error:
        raise ScoringError(
            f"{place.address} cannot be listed ({error}). Allow it, or name the folders that can be read."
        ) from error


def _walk_local(folder: str, source: Input, above: tuple = ()) -> Iterator[Found]:
    """Walk a folder and, through links too, the folders in it; a link that leads back to a folder above is not followed."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in above:
        return
    above += ((status.st_dev, status.st_ino),)
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                if entry.is_file():
                    status = entry.stat()
                    yield Found(entry.path, status.st_size, status.st_mtime_ns)
                    continue
            except OSError:  # such as of a link that leads to itself
                if not entry.is_symlink():
                    raise
            if entry.is_symlink():  # it leads nowhere: the row says so
                yield Found(entry.path, 0, 0)
    for path in sorted(folders):
        if source.leads_to(path):
            yield from _walk_local(path, source, above)


def _walk(place: Location, folder: str, source: Input) -> Iterator[Found]:
    folders = []
    # pyarrow's listing of one folder of gs:// leaves out the folders in it that nobody made as such, as where files were merely
    # uploaded (apache/arrow#35993): there the whole of it is listed at once, and held.
    at_once = place.filesystem.type_name == "gcs"
    for info in place.filesystem.get_file_info(arrow_fs.FileSelector(folder, recursive=at_once)):
        if info.type == arrow_fs.FileType.Directory:
            if not at_once:
                folders.append(info.path)
        else:
            yield Found(info.path, info.size or 0, info.mtime_ns or 0)
    for path in sorted(folders):
        if source.leads_to(path):
            yield from _walk(place, path, source)
