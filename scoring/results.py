"""What a run leaves: rows, in Parquet files that are there whole or not at all, each with a tally of what it holds."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as arrow_fs

from scoring.locations import Location

EXAMPLES = 5  # errors that a tally quotes
ROWS_A_GROUP = 8192
BYTES_A_GROUP = 64 << 20
TALLY = b"wbc_score"
UNFINISHED = ".unfinished-"
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
    """Write a file so that it is there whole or not at all, wherever the program is ended."""
    with _whole(place, path) as stream:
        stream.write(content)


class _whole:
    """A stream into a file that takes its name only when all is written."""

    def __init__(self, place: Location, path: str):
        self.place, self.path = place, path
        direct = isinstance(place.filesystem, APPEAR_WHOLE)
        self.written = path if direct else f"{path}{UNFINISHED}{uuid.uuid4().hex[:12]}"

    def __enter__(self):
        self.stream = self.place.filesystem.open_output_stream(self.written)
        return self.stream

    def __exit__(self, kind, error, trace):
        if kind is not None and self.written == self.path:
            return  # never closed, so never there
        self.stream.close()
        if kind is not None:
            self.place.filesystem.delete_file(self.written)
        elif self.place.local:
            descriptor = os.open(self.written, os.O_RDONLY)
            os.fsync(descriptor)  # the name must not outlive the content when the power fails
            os.close(descriptor)
            os.replace(self.written, self.path)
        elif self.written != self.path:
            self.place.filesystem.move(self.written, self.path)


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


def merge(place: Location, target: str, chunks: Sequence[str]) -> Tally:
    """Put the chunks of a partition together, in their order, and take them away. To do it again changes nothing.

    Raises
    ------
    OSError
        A chunk is missing, and the partition is not there.
    """
    whole = read_tally(place, target)
    if whole is None:
        whole = Tally()
        for path in chunks:
            tally = read_tally(place, path)
            if tally is None:
                raise OSError(f"{path} is missing or damaged. Start the same command again: it is made anew.")
            whole.add(tally)
        with place.filesystem.open_input_file(chunks[0]) as file:
            schema = pq.read_schema(file)
        with _whole(place, target) as stream:
            metadata = {TALLY: json.dumps(asdict(whole))}
            with pq.ParquetWriter(stream, schema.with_metadata(metadata), compression="zstd") as writer:
                for table in _groups(place, chunks):
                    writer.write_table(table.replace_schema_metadata(metadata))
    remove(place, chunks)
    return whole


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
