"""What a run has to do, listed once and then fixed: a restart asks this list, not the disk, so that nothing moves under it.

    OUT/files-000000.parquet        results: 16,384 image files each; there when the partition is done
    OUT/archive-000000.parquet      results of one tar or Parquet file
    OUT/__score/run.json            what was asked, of which model, how much was found; written last, so it ends the listing
    OUT/__score/files/000000.list   the image files of a partition
    OUT/__score/archives/000000.list  archives, 10,000 a file
    OUT/__score/chunks/             results on their way, see results.py
    OUT/__score/begun/              a note of each chunk that is being done, see attempts.py

Readers of Parquet folders pass over names that begin with an underscore, datasets over those that begin with two, and patterns
such as OUT/**/*.parquet over other endings. Memory: the names of one folder and one partition.
"""

import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as arrow_fs

from scoring.locations import (
    IN_OUT,
    Found,
    Input,
    Location,
    ScoringError,
    kind_of,
    list_input,
    locate,
    read_input,
    without_keys,
    without_secrets,
)
from scoring.reading import WITHOUT_IMAGES, NoImages, image_column
from scoring.results import UNFINISHED, remove, write_whole

logger = logging.getLogger(__name__)
VERSION = 2
PARTS = ("files", "archives", "chunks", "begun")
STALE_SECONDS = 3600  # where no lock keeps starts apart, a file that has been written for longer is given up
ARCHIVES_A_FILE = 10_000
FORMER_RUN = "_score"  # where earlier versions kept their notes
ARCHIVE = "archive-"  # begins the name of a partition that is one archive
PARQUETS_AT_ONCE = 16
LISTED = pa.schema([("root", pa.int32()), ("path", pa.binary()), ("size", pa.int64()), ("changed", pa.int64())])


@dataclass
class Manifest:
    """What was found.

    Attributes
    ----------
    asked
        What decides the results: inputs, without their secrets, model, options. A restart must ask the same.
    files, archives
        How many image files and how many archives.
    file_bytes, archive_bytes
        Their sizes.
    ignored
        How many files of which ending were left out, being neither image nor archive, or Parquet without images.
    """

    asked: dict[str, Any]
    files: int = 0
    archives: int = 0
    file_bytes: int = 0
    archive_bytes: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    version: int = VERSION


@dataclass(frozen=True)
class Folder:
    """The folder of a run, and the names in it."""

    place: Location

    @property
    def run(self) -> str:
        return f"{self.place.path}/__score"

    @property
    def described(self) -> str:
        return f"{self.run}/run.json"

    def listed(self, kind: str, number: int) -> str:
        return f"{self.run}/{kind}/{number:06}.list"

    def partition(self, name: str) -> str:
        return f"{self.place.path}/{name}.parquet"

    def chunk(self, name: str, number: int) -> str:
        return f"{self.run}/chunks/{name}-{number:06}.chunk"

    def begun(self, name: str, number: int) -> str:
        return f"{self.run}/begun/{name}-{number:06}.json"


def open_folder(address: str) -> Folder:
    """Find the folder of a run; nothing is changed there.

    Raises
    ------
    ScoringError
        It cannot be looked at, or holds Parquet files of something else.
    """
    place = locate(address)
    folder = Folder(place)
    try:
        entries = place.filesystem.get_file_info(
            arrow_fs.FileSelector(place.path, recursive=False, allow_not_found=True)
        )
        foreign = [info.base_name for info in entries if info.base_name.endswith(".parquet")]
        if foreign and not _begun(folder):
            if any(info.base_name == FORMER_RUN for info in entries):
                raise ScoringError(
                    f"{address} holds a run of an earlier version of this program, whose notes stand in {FORMER_RUN}. Go on "
                    "with it in that version, or name another --out."
                )
            raise ScoringError(
                f"{address} holds {sorted(foreign)[0]} but no run of this program; expected an empty or a new folder, or one "
                "in which a run was begun. Name another --out."
            )
    except (OSError, pa.ArrowException) as error:
        raise ScoringError(f"--out {address} cannot be used ({error}). Allow it, or name another folder.") from error
    return folder


def _begun(folder: Folder) -> bool:
    return folder.place.filesystem.get_file_info(folder.described).type == arrow_fs.FileType.File


@contextlib.contextmanager
def alone(folder: Folder) -> Iterator[None]:
    """Have a folder for oneself, made where it is new, without what an ended start was writing.

    Other starts on this machine are refused before anything is changed; on an object store two would do the same work, and no
    harm. Where a fault of the request ends the first start, nothing is left behind.

    Raises
    ------
    ScoringError
        Another start has it, or it cannot be written.
    """
    place = folder.place
    new = place.filesystem.get_file_info(place.path).type == arrow_fs.FileType.NotFound
    with contextlib.ExitStack() as held:
        try:
            for part in PARTS:
                place.filesystem.create_dir(f"{folder.run}/{part}", recursive=True)
            held.enter_context(_locked(folder))
            _clean(folder)
        except (OSError, pa.ArrowException) as error:
            raise ScoringError(
                f"--out {place.address} cannot be used ({error}). Allow it, or name another folder."
            ) from error
        try:
            yield
        except ScoringError:
            if not _begun(folder):
                _take_back(folder, new)
            raise


@contextlib.contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    if not folder.place.local:
        yield
        return
    import fcntl

    with open(f"{folder.run}/lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_nlink == 0:
                raise BlockingIOError("taken back by the start that had it")
        except BlockingIOError as error:
            raise ScoringError(
                f"{folder.place.address} is being written by another start. Wait for it, or name another --out."
            ) from error
        yield


def _clean(folder: Folder) -> None:
    """Take away what was being written when an earlier start was ended."""
    place = folder.place
    for part in ("", "/__score", *(f"/__score/{part}" for part in PARTS)):
        names = place.filesystem.get_file_info(arrow_fs.FileSelector(place.path + part, allow_not_found=True))
        begun = [info for info in names if UNFINISHED in info.base_name]
        if not place.local:
            begun = [info for info in begun if info.mtime and time.time() - info.mtime.timestamp() > STALE_SECONDS]
        remove(place, [info.path for info in begun])


def _take_back(folder: Folder, new: bool) -> None:
    """Undo what a start has made that came to nothing."""
    place = folder.place
    folders = [f"{folder.run}/{part}" for part in PARTS] + [folder.run] + ([place.path] if new else [])
    for path in folders:
        names = place.filesystem.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True))
        remove(place, [info.path for info in names if info.path.endswith(".list") or info.path == f"{folder.run}/lock"])
        if not place.filesystem.get_file_info(arrow_fs.FileSelector(path, allow_not_found=True)):
            with contextlib.suppress(OSError):  # on an object store it is gone with what was in it
                place.filesystem.delete_dir(path)


def list_once(folder: Folder, asked: dict[str, Any], partition: int, tell: Any) -> Manifest:
    """Give the list of an earlier start, or make it.

    Parameters
    ----------
    asked
        See ``Manifest``.
    partition
        Image files of a partition.
    tell
        Called with the number of files as the listing goes.

    Raises
    ------
    ScoringError
        An earlier start asked for something else; nothing is there to score, or only Parquet files in which not one column of
        images shows.
    """
    place = folder.place
    if _begun(folder):
        with place.filesystem.open_input_stream(folder.described) as stream:
            manifest = Manifest(**json.loads(stream.read()))
        _same(manifest, asked, place.address)
        return manifest
    sources = [read_input(address) for address in asked["inputs"]]
    manifest, ignored = Manifest(_kept(asked)), Counter()
    files, archives = _Lists(folder, "files", partition), _Lists(folder, "archives", ARCHIVES_A_FILE)
    unseen: list[tuple] = []  # Parquet files whose columns were not looked at yet
    faults: list[ScoringError] = []  # of Parquet files in which not one column of images shows
    usable = False

    def look_at_columns() -> None:
        nonlocal usable
        with ThreadPoolExecutor(PARQUETS_AT_ONCE) as pool:
            seen = list(pool.map(lambda row: _column(sources[row[0]].place, row[1], asked["column"]), unseen))
        for (root, found), column in zip(unseen, seen, strict=True):
            if isinstance(column, ScoringError):
                faults[1:] = [column]  # the first and the last
            else:
                usable = True
            if isinstance(column, NoImages):
                ignored[WITHOUT_IMAGES.format(".parquet")] += 1
            else:
                archives.add(root, found)
        unseen.clear()

    # Named twice, scored once: by its own name, whatever folder it lies in, else with the first input that it is of.
    named = {source.key: root for root, source in enumerate(sources) if source.is_file}
    wide: list[Input] = []
    for root, source in enumerate(sources):
        if source.is_file and named[source.key] != root:
            continue
        for found in list_input(source, place, ignored, named.keys()):
            if not source.is_file and any(earlier.covers(source.place, found.path) for earlier in wide):
                continue
            kind = kind_of(found.path)
            if source.is_file and not source.place.local:
                found = found._replace(path="")  # it is the input's own, with a signature at times, see ``read_listed``
            if kind == "parquet":
                unseen.append((root, found))
                if len(unseen) == PARQUETS_AT_ONCE:
                    look_at_columns()
            elif kind == "tar":
                usable = True
                archives.add(root, found)
            else:
                usable = True
                files.add(root, found)
            tell(files.number + archives.number)
        if not source.is_file:
            wide.append(source)
    look_at_columns()
    in_out = ignored.pop(IN_OUT, 0)
    manifest.ignored = dict(ignored)
    if faults and not usable:
        raise faults[0]
    if in_out:
        unread = (
            f"{in_out} images and archives lie in --out {place.address}, where no input is read; expected results alone"
        )
        if not usable:
            raise ScoringError(f"{', '.join(asked['inputs'])}: {unread}. Name an --out beside them.")
        logger.warning("%s. To have them scored, name an --out beside them.", without_secrets(unread))
    if not usable:
        raise ScoringError(
            f"{', '.join(asked['inputs'])}: no image and no archive among {sum(ignored.values())} files {dict(ignored)}; "
            "expected images (JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, .parquet, .tar). Correct the path or unpack what is packed."
        )
    for lists in (files, archives):
        lists.write()
    manifest.files, manifest.file_bytes = files.number, files.size
    manifest.archives, manifest.archive_bytes = archives.number, archives.size
    write_whole(place, folder.described, json.dumps(asdict(manifest), indent=2).encode())
    return manifest


@dataclass
class _Lists:
    """What was found of a kind, ``number`` in all of ``size`` bytes, written away ``each`` at a time."""

    folder: Folder
    kind: str
    each: int
    number: int = 0
    size: int = 0
    waiting: list[tuple[int, Found]] = field(default_factory=list)

    def add(self, root: int, found: Found) -> None:
        self.waiting.append((root, found))
        self.number += 1
        self.size += found.size
        if len(self.waiting) == self.each:
            self.write()

    def write(self) -> None:
        if self.waiting:
            _write_listed(self.folder, self.kind, (self.number - 1) // self.each, self.waiting)
            self.waiting = []


def _kept(asked: dict[str, Any]) -> dict[str, Any]:
    """What may lie beside the results: who reads them is not given the key to the images."""
    return asked | {"inputs": [without_keys(address) for address in asked["inputs"]]}


def _same(manifest: Manifest, asked: dict[str, Any], address: str) -> None:
    if manifest.version != VERSION:
        raise ScoringError(
            f"{address} was begun by another version of this program ({manifest.version}, this is {VERSION}). "
            "Name another --out."
        )
    begun = _kept(manifest.asked)
    other = {name: (begun.get(name), value) for name, value in _kept(asked).items() if begun.get(name) != value}
    if other:
        told = "; ".join(f"{name} was {was!r}, is {now!r}" for name, (was, now) in other.items())
        raise ScoringError(
            f"{address} holds a run that was begun otherwise: {told}. Go on with what it was begun with, or name another --out."
        )


def _column(place: Location, found: Found, column: str | None) -> str | ScoringError:
    """Look for the images of a Parquet file; give their column, or what is wrong with it."""
    try:
        path = found.path or place.path
        with place.filesystem.open_input_file(path) as file:
            return image_column(pq.read_schema(file), column, place.shown(path))
    except ScoringError as error:
        return error
    except (OSError, ValueError, pa.ArrowException):
        return ""  # a damaged file becomes a row with its error


def _write_listed(folder: Folder, kind: str, number: int, listed: Sequence[tuple[int, Found]]) -> None:
    columns = [
        [root for root, _ in listed],
        [found.path.encode("utf-8", "surrogateescape") for _, found in listed],
        [found.size for _, found in listed],
        [found.changed for _, found in listed],
    ]
    arrays = [pa.array(values, kind.type) for values, kind in zip(columns, LISTED, strict=True)]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(arrays, schema=LISTED), buffer, compression="zstd")
    write_whole(folder.place, folder.listed(kind, number), buffer.getvalue())


def read_listed(folder: Folder, kind: str, number: int) -> list[tuple[int, Found]]:
    """Give what stands in a file of the list: (number of the input, file); a path that is empty is the input's own."""
    with folder.place.filesystem.open_input_file(folder.listed(kind, number)) as file:
        rows = pq.ParquetFile(file).read().to_pydict()
    paths = (path.decode("utf-8", "surrogateescape") for path in rows["path"])
    found = map(Found, paths, rows["size"], rows["changed"])
    return list(zip(rows["root"], found, strict=True))


def partitions(manifest: Manifest, partition: int) -> Iterator[tuple[str, int]]:
    """Give the name of each partition, and how many images it holds; 0 where only its archive knows."""
    for number in range(-(-manifest.files // partition)):
        yield f"files-{number:06}", min(partition, manifest.files - number * partition)
    for number in range(manifest.archives):
        yield f"{ARCHIVE}{number:06}", 0
