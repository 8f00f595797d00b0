"""What a run leaves: rows, in Parquet files that are there whole or not at all, each with a tally of what it holds."""

import contextlib
import errno
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs as arrow_fs

from scoring.locations import Location, ScoringError

EXAMPLES = 5  # errors that a tally quotes
ROWS_A_GROUP = 8192
BYTES_A_GROUP = 64 << 20
TALLY = b"wbc_score"
UNFINISHED = ".unfinished-"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # a second try would meet them too
# On these an object is there once its last byte was sent, and not before.
APPEAR_WHOLE = (arrow_fs.S3FileSystem, arrow_fs.GcsFileSystem)


@dataclass
class Tally:
    """What a file of results holds.

    Attributes
    ----------
    images, errors
        Rows, and those of them that could not be read.
    cells
        Cells named: as many as images without errors, or those found in fields.
    bytes
        Of the images as they lay there.
    verdicts
        How many cells got each verdict.
    examples
        The first errors, (path, error).
    left_out
        How many members of archives, by ending, were no images, and how many archives held none. They have no row.
    empty
        The first of these archives.
    last
        No chunk of the same partition comes after.
    """

    images: int = 0
    errors: int = 0
    cells: int = 0
    bytes: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    examples: list[list[str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    last: bool = True

    def add(self, other: "Tally") -> None:
        self.images += other.images
        self.errors += other.errors
        self.cells += other.cells
        self.bytes += other.bytes
        self.verdicts = dict(Counter(self.verdicts) + Counter(other.verdicts))
        self.examples = (self.examples + other.examples)[:EXAMPLES]
        self.left_out = dict(Counter(self.left_out) + Counter(other.left_out))
        self.empty = (self.empty + other.empty)[:EXAMPLES]


def row_schema(labels: Sequence[str], fields: bool, embedding: bool, width: int) -> pa.Schema:
    """Lay out a row.

    Parameters
    ----------
    labels
        The classes, in the model's order.
    fields
        Images are fields: each cell found has an answer of its own, in the list ``cells``.
    embedding
        Keep the network's features of each cell, ``width`` numbers.
    """
    answer = [
        ("label", pa.string()),
        ("probabilities", pa.struct([(label, pa.float32()) for label in labels])),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("energy", pa.float32()),
    ]
    if embedding:
        answer.append(("embedding", pa.list_(pa.float32(), width)))
    if fields:
        box = [("box", pa.list_(pa.int32(), 4)), ("find_score", pa.float32())]
        answer = [("cells", pa.list_(pa.struct([*box, *answer])))]
    return pa.schema(
        [
            ("path", pa.string()),
            ("member", pa.string()),
            ("row", pa.int64()),
            ("sha256", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("notes", pa.list_(pa.string())),
            *answer,
            ("error", pa.string()),
        ]
    )


def write_whole(place: Location, path: str, content: pa.Buffer | bytes) -> None:
    """Write a file so that it is there whole or not at all, wherever the program is ended.

    Raises
    ------
    ScoringError
        The disk is full, or does not allow it.
    """
    with _whole(place, path) as stream:
        stream.write(content)


class _whole:
    """A stream into a file that takes its name only when all is written; ``beside``: the folder where it stands until then."""

    def __init__(self, place: Location, path: str, beside: str | None = None):
        self.place, self.path = place, path
        folder, _, name = path.rpartition("/")
        unfinished = f"{beside or folder}/{name}{UNFINISHED}{uuid.uuid4().hex[:12]}"
        # Of one that is given up half way, Arrow makes a whole object all the same: what is written bit by bit gets a name of
        # its own there too.
        self.written = path if isinstance(place.filesystem, APPEAR_WHOLE) and beside is None else unfinished

    def __enter__(self):
        try:
            self.stream = self.place.filesystem.open_output_stream(self.written)
        except OSError as error:
            self._tell(error)
            raise
        return self.stream

    def __exit__(self, kind, error, trace):
        if kind is not None and self.written == self.path:
            return
        try:
            self.stream.close()
            if kind is None:
                self._give_its_name()
                return
        except OSError as fault:
            error = error or fault
        with contextlib.suppress(OSError):
            self.place.filesystem.delete_file(self.written)
        self._tell(error)
        if kind is None:
            raise error

    def _give_its_name(self) -> None:
        if self.place.local:
            descriptor = os.open(self.written, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # the name must not outlive the content when the power fails
            finally:
                os.close(descriptor)
            os.replace(self.written, self.path)
        elif self.written != self.path:
            self.place.filesystem.move(self.written, self.path)

    def _tell(self, error: BaseException) -> None:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            raise ScoringError(
                f"{self.place.shown(self.path)} cannot be written ({os.strerror(error.errno)}). Make room or allow it; the "
                "same command goes on from here."
            ) from error


def write_rows(place: Location, path: str, table: pa.Table, tally: Tally) -> None:
    """Write rows and their tally as one Parquet file, whole or not at all."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({TALLY: json.dumps(asdict(tally))}), buffer, compression="zstd")
    write_whole(place, path, buffer.getvalue())


def read_tally(place: Location, path: str) -> Tally | None:
    """Read what a file of results holds; None where it is missing, damaged, or none of ours."""
    try:
        with place.filesystem.open_input_file(path) as file:
            metadata = pq.read_metadata(file)
        tally = Tally(**json.loads(metadata.metadata[TALLY]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return tally if tally.images == metadata.num_rows else None


def merge(place: Location, target: str, chunks: Sequence[str], expected: tuple[int, int] | None = None) -> Tally:
    """Put the chunks of a partition together, in their order, and take them away; a partition that is there is replaced.

    To do it again changes nothing.

    Parameters
    ----------
    expected
        Images and errors of all chunks, by which a partition that was put together before, its chunks gone, is known from an
        earlier one.

    Raises
    ------
    OSError
        A chunk is missing, and the partition is not there or another.
    """
    tallies = [read_tally(place, path) for path in chunks]
    missing = [path for path, tally in zip(chunks, tallies, strict=True) if tally is None]
    whole = read_tally(place, target) if missing else None
    if missing and (whole is None or (expected is not None and (whole.images, whole.errors) != expected)):
        raise OSError(f"{missing[0]} is missing or damaged. Start the same command again: it is made anew.")
    if whole is None:
        whole = Tally()
        for tally in tallies:
            whole.add(tally)
        with place.filesystem.open_input_file(chunks[0]) as file:
            schema = pq.read_schema(file)
        # Beside the chunks: readers of the folder above take every file in it for a result.
        with _whole(place, target, chunks[0].rpartition("/")[0]) as stream:
            metadata = {TALLY: json.dumps(asdict(whole))}
            with pq.ParquetWriter(stream, schema.with_metadata(metadata), compression="zstd") as writer:
                for table in _groups(place, chunks):
                    writer.write_table(table.replace_schema_metadata(metadata))
    remove(place, chunks)
    return whole


def unmerge(place: Location, partition: str, length: int, chunk_path: Callable[[int], str]) -> None:
    """Make files again of those chunks of a partition that hold no error; those that are there and the partition stay.

    Where members of an archive were left out, no chunk is made: how many belong to which is not known any more.

    Parameters
    ----------
    length
        Images of a chunk.
    chunk_path
        Gives the path of a chunk by its number.
    """
    whole = read_tally(place, partition)
    if whole is None or whole.left_out or whole.empty:
        return
    with place.filesystem.open_input_file(partition) as stream:
        for number, table in enumerate(_cut(pq.ParquetFile(stream), length)):
            if table["error"].null_count < len(table) or read_tally(place, chunk_path(number)) is not None:
                continue
            if "cells" in table.column_names:  # of fields: a list of cells in each row
                verdicts = pc.struct_field(pc.list_flatten(table["cells"]), "verdict")
            else:
                verdicts = table["verdict"]
            counts = {row["values"]: row["counts"] for row in verdicts.value_counts().to_pylist()}
            tally = Tally(images=len(table), cells=len(verdicts), verdicts=counts)
            tally.bytes = round(whole.bytes * len(table) / whole.images)
            tally.last = (number + 1) * length >= whole.images
            write_rows(place, chunk_path(number), table, tally)


def _cut(file: pq.ParquetFile, length: int) -> Iterator[pa.Table]:
    """Read a file so many rows at a time."""
    held = file.schema_arrow.empty_table()
    for group in range(file.num_row_groups):
        held = pa.concat_tables([held, file.read_row_group(group)])
        while len(held) >= length:
            yield held.slice(0, length).combine_chunks()
            held = held.slice(length)
    if len(held):
        yield held.combine_chunks()


def _groups(place: Location, chunks: Sequence[str]) -> Iterable[pa.Table]:
    """Read chunks in their order, as many at a time as make a good row group."""
    held: list[pa.Table] = []
    for path in chunks:
        with place.filesystem.open_input_file(path) as file:
            held.append(pq.ParquetFile(file).read())
        if sum(map(len, held)) >= ROWS_A_GROUP or sum(table.nbytes for table in held) >= BYTES_A_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def remove(place: Location, paths: Iterable[str]) -> None:
    """Delete files, those that are there."""
    for path in paths:
        if place.filesystem.get_file_info(path).type == arrow_fs.FileType.File:
            place.filesystem.delete_file(path)
