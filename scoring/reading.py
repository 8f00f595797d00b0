"""The images of a file or an archive, one after another, as bytes; damage is an entry of its own, never a gap."""

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.locations import Found, Location, ScoringError, count_ending, kind_of, plain_text

# Twice the largest picture that is read (see image_reading.LARGEST), uncompressed: what is longer is no picture of a cell,
# and would have to be held in memory to find that out.
MOST_BYTES = 534_000_000
IMAGE_NAMES = ("image", "img", "picture", "jpg", "jpeg", "png")
READ_AT_ONCE = 1 << 20  # bytes
WITHOUT_IMAGES = "{} without images"
# By its first bytes, what a packed tar is unpacked with. Each compares the checksum at its end, which tarfile's own does not.
UNPACKERS = {
    b"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


@dataclass
class Item:
    """An image as it lies there.

    Attributes
    ----------
    path
        Of the file or the archive, as it is shown in results.
    member, row
        In an archive: the name, where there is one, and the place in it, from 0. Of a file both are None.
    data
        The bytes of the image; None where they cannot be had.
    error
        Why not.
    """

    path: str
    member: str | None = None
    row: int | None = None
    data: bytes | None = None
    error: str | None = None


def too_large(name: str, size: int) -> str:
    return (
        f"{name}: {size / 1e6:,.0f} MB are more than the {MOST_BYTES / 1e6:.0f} MB that a picture may have. "
        "Cut the cells or fields out of it first."
    )


def read_file(place: Location, found: Found) -> Item:
    """Read a file that is one image."""
    item = Item(place.shown(found.path))
    try:
        if found.size > MOST_BYTES:
            item.error = too_large(item.path, found.size)
        else:
            # Python's own open takes local names that are no UTF-8, too.
            local = place.local
            with open(found.path, "rb") if local else place.filesystem.open_input_stream(found.path, None) as stream:
                item.data = stream.read(MOST_BYTES)
    except (OSError, ValueError, pa.ArrowException) as error:
        item.error = f"{item.path}: cannot be read ({' '.join(str(error).split())}). Allow it, or copy the file again."
    return item


def check_unchanged(place: Location, found: Found) -> None:
    """Make sure that an archive is the one that was listed: chunks of two different ones must not meet in a result.

    Raises
    ------
    ScoringError
        It has another size or date.
    """
    try:
        info = place.filesystem.get_file_info(found.path)
    except (OSError, ValueError):
        return  # the reading says what is wrong
    if info.is_file and (info.size, info.mtime_ns or 0) != (found.size, found.changed):
        raise ScoringError(
            f"{place.shown(found.path)} has changed since it was listed ({found.size} bytes then, {info.size} now), and parts "
            "of it may be scored already. Put the old one back, or score into another --out."
        )


def read_archive(place: Location, found: Found, column: str | None, left_out: Counter | None = None) -> Iterator[Item]:
    """Give the images of a tar or Parquet archive in their order, and an item for each damage.

    Parameters
    ----------
    left_out
        Counts, by ending, members that are no images, and the archive itself where it is whole and holds none.
    """
    path, kind = place.shown(found.path), kind_of(found.path)
    left_out = Counter() if left_out is None else left_out
    items = _read_tar(place, found, path, left_out) if kind == "tar" else _read_parquet(place, found, path, column)
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007
        yield item
    if not count:
        left_out[WITHOUT_IMAGES.format(f".{kind}")] += 1


class _Member(tarfile.TarInfo):
    """A member whose header is looked at: the library takes a damaged one for the archive's end.

    After a damaged one the next whole one is looked for, block by block, as GNU tar does; its checksum tells it from content.
    """

    @classmethod
    def fromtarfile(cls, archive):
        if archive.inside:  # the second header of a member with a long name, which must not be another member's
            return super().fromtarfile(archive)
        first = None
        while True:
            archive.inside = True
            try:
                return super().fromtarfile(archive)
            except tarfile.EmptyHeaderError as error:  # the file ends where a header should be
                raise first or error from None
            except tarfile.EOFHeaderError:
                if first is None:
                    archive.ended = True
                    raise
            except (tarfile.InvalidHeaderError, tarfile.SubsequentHeaderError) as error:
                first = first or tarfile.InvalidHeaderError(str(error))
                archive.damage = archive.damage or str(error)
            except tarfile.HeaderError as error:
                archive.damage = archive.damage or str(error)
                raise
            finally:
                archive.inside = False


class _Tar(tarfile.TarFile):
    """A tar that knows how it ended.

    Attributes
    ----------
    ended
        Its end mark was met.
    damage
        What was wrong with the header before the member that was read last; with none read, nothing whole came after it.
    inside
        A header is being read.
    """

    ended, damage, inside, tarinfo = False, None, False, _Member


def _read_tar(place: Location, found: Found, path: str, left_out: Counter) -> Iterator[Item]:
    row = 0
    cut = f"{path}: the archive is damaged or cut short after {{}} rows ({{}}); what follows is lost. Copy it again."
    lost = f"{path}: damaged after {{}} rows ({{}}); what stood before {{!r}} is lost. Copy it again."
    checked = False
    try:
        with (
            place.filesystem.open_input_stream(found.path, compression=None, buffer_size=READ_AT_ONCE) as raw,
            _unpacked(raw) as stream,
            _Tar.open(fileobj=stream, mode="r|") as archive,
        ):
            member = archive.next()
            while member is not None:
                name = plain_text(member.name)
                if archive.damage:
                    yield Item(path, row=row, error=lost.format(row, archive.damage, name))
                    archive.damage, row = None, row + 1
                if member.isdir() or PurePosixPath(name).name.startswith("."):
                    pass
                elif kind_of(name) == "image":
                    yield _read_member(archive, member, path, name, row)
                    row += 1
                else:
                    count_ending(name, left_out)
                archive.members.clear()  # the library keeps all it has seen
                member = archive.next()
            if archive.damage or not archive.ended:
                reason = archive.damage or "its end mark is missing"
                yield Item(path, row=row, error=cut.format(row, reason))
                return
            checked = True  # from here on all images are read, and what is wrong is wrong with one of them
            if beyond := _content_beyond(archive):
                yield Item(
                    path, row=row, error=f"{path}: {beyond} bytes after the archive's end are not read. Split it."
                )
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        told = f"{path}: the check at the archive's end fails ({reason}): of its {row} rows, scored as they came, some may "
        told += "be damaged. Copy it again."
        yield Item(path, row=row, error=told if checked else cut.format(row, reason))


def _unpacked(raw: pa.NativeFile) -> BinaryIO:
    """Find out by its first bytes how a tar is packed, and open what is in it."""
    packed = io.BufferedReader(raw, READ_AT_ONCE)
    first = packed.peek(6)
    for mark, unpacker in UNPACKERS.items():
        if first.startswith(mark):
            return unpacker(packed)
    return packed


def _read_member(archive: _Tar, member: tarfile.TarInfo, path: str, name: str, row: int) -> Item:
    item = Item(path, name, row)
    if not member.isreg():
        item.error = f"{name}: a link to another member, which a stream cannot follow. Store the file itself."
    elif member.size > MOST_BYTES:
        item.error = too_large(name, member.size)
    else:
        item.data = archive.extractfile(member).read()
        if len(item.data) != member.size:
            raise tarfile.ReadError("unexpected end of data")
    return item


def _content_beyond(archive: _Tar) -> int:
    """Count what stands after an archive's end mark, which the padding with zeros does not; reads to the end of a packed one,
    where its checksum is."""
    count = 0
    while block := archive.fileobj.read(READ_AT_ONCE):
        if count or block.strip(b"\0"):
            count += len(block)
    return count


class NoImages(ScoringError):
    """A Parquet file has no column that could hold images, such as the table of labels in a folder of datasets' kind."""


def image_column(schema: pa.Schema, column: str | None, path: str) -> str:
    """Find the column that holds the images: bytes, or datasets' {bytes, path}.

    Raises
    ------
    ScoringError
        There is none, several could be meant, or the one that was named is none.
    """
    held = {name: kind for name, kind in zip(schema.names, schema.types, strict=True) if _holds_images(kind)}
    if column is not None:
        candidates = [column] if column in held else []
    else:
        named = [name for name in held if name.lower() in IMAGE_NAMES]
        candidates = named if len(named) == 1 else list(held)
    if len(candidates) != 1:
        wanted = "one column of images" if column is None else f"images in the column {column!r}"
        raise (ScoringError if held else NoImages)(
            f"{path} has the columns {dict(zip(schema.names, map(str, schema.types), strict=True))}; expected {wanted}, of "
            "bytes or of datasets' {bytes, path}. Name it with --column."
        )
    return candidates[0]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _holds_images(kind.field(position).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read_parquet(place: Location, found: Found, path: str, column: str | None) -> Iterator[Item]:
    try:
        file = pq.ParquetFile(
            place.filesystem.open_input_file(found.path),
            buffer_size=READ_AT_ONCE,  # a row group of gigabytes is read page by page
            pre_buffer=False,
            page_checksum_verification=True,
        )
        name = image_column(file.schema_arrow, column, path)
    except NoImages:
        return
    except (ScoringError, OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        yield Item(
            path, error=reason if isinstance(error, ScoringError) else f"{path}: no Parquet ({reason}). Copy it again."
        )
        return
    row = 0
    with file:
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(16, row_groups=[group], columns=[name], use_threads=False):
                    for value in batch.column(0):
                        yield _cell(value.as_py(), path, row)
                        row += 1
                reason = "it holds fewer rows than it says"
            except (OSError, ValueError, pa.ArrowException) as error:
                reason = " ".join(str(error).split())
            for lost in range(row, end):  # the next group may be whole
                yield Item(path, row=lost, error=f"{path}, row {lost}: the file is damaged ({reason}). Copy it again.")
            row = end


def _cell(value: bytes | dict | None, path: str, row: int) -> Item:
    item = Item(path, row=row)
    if isinstance(value, dict):
        item.member, value = value.get("path"), value["bytes"]
    if value is None:
        item.error = (
            f"{path}, row {row}: there are no bytes, only {item.member!r}. Store the images themselves, with "
            "datasets.table.embed_table_storage."
        )
    elif len(value) > MOST_BYTES:
        item.error = too_large(f"{path}, row {row}", len(value))
    else:
        item.data = value
    return item
