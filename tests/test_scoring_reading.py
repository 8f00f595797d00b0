"""What lies where, and the images of archives: whole, cut short, overwritten; nothing is skipped without a word."""

import gzip
import io
import os
import tarfile
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scoring.locations import ScoringError, list_input, locate, read_input
from scoring.reading import check_unchanged, read_archive, read_file


def picture(seed, kind="PNG"):
    """Draw noise, so that no two pictures have the same bytes."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def listed(*addresses, without="/nowhere"):
    ignored = Counter()
    found = [
        found for address in addresses for found in list_input(read_input(str(address)), locate(str(without)), ignored)
    ]
    return sorted(os.path.relpath(item.path, addresses[0]) for item in found), ignored


def found_in(path):
    return next(list_input(read_input(str(path)), locate("/nowhere"), Counter()))


def items_of(path, column=None, left_out=None):
    return list(read_archive(locate(str(path)), found_in(path), column, left_out))


@pytest.fixture
def tree(tmp_path):
    for name in (
        "a.jpg",
        "b.PNG",
        "lab1/c.webp",
        "lab1/deep/d.tif",
        "lab2/e.jpeg",
        "lab2/notes.txt",
        ".hidden/x.jpg",
        ".y.jpg",
    ):
        (tmp_path / "cells" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cells" / name).write_bytes(b"x")
    return tmp_path / "cells"


def test_a_folder_is_listed_with_all_below_it_and_what_is_no_image_is_counted(tree):
    names, ignored = listed(tree)
    assert names == ["a.jpg", "b.PNG", "lab1/c.webp", "lab1/deep/d.tif", "lab2/e.jpeg"]
    assert ignored == {".txt": 1}


@pytest.mark.parametrize("pattern", ["*.jpg", "lab?/*", "**/*.tif", "lab*", "**", "*/*.webp", "lab[2]/e*", "lab1/**/*"])
def test_patterns_find_what_the_standard_library_finds(tree, pattern):
    expected = set()
    for path in tree.glob(pattern):
        expected |= {path} if path.is_file() else {below for below in path.rglob("*") if below.is_file()}
    visible = {path for path in expected if not any(part.startswith(".") for part in path.relative_to(tree).parts)}
    wanted = sorted(str(path.relative_to(tree)) for path in visible if path.suffix != ".txt")
    found = list_input(read_input(f"{tree}/{pattern}"), locate("/nowhere"), Counter())
    assert sorted(os.path.relpath(item.path, tree) for item in found) == wanted


def test_the_folder_of_results_inside_an_input_is_none(tree):
    (tree / "lab1" / "scores.parquet").write_bytes(b"x")
    assert "lab1/scores.parquet" in listed(tree)[0]
    assert not any(name.startswith("lab1") for name in listed(tree, without=tree / "lab1")[0])


@pytest.mark.parametrize("name", ["sub dir/100%.png", "\xe4 [1].png", os.fsdecode(b"cell\xff.png")])
def test_the_address_of_a_local_file_is_read_without_its_escapes(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(picture(0))
    address = path.as_uri()
    assert "%" in address and locate(address).path == str(path) == locate(str(path)).path  # a path has no escapes
    found = list_input(read_input(path.parent.as_uri()), locate("/nowhere"), Counter())
    assert [one.path for one in found] == [str(path)]


def test_links_are_followed_but_not_in_circles_and_dead_ones_are_listed(tree):
    (tree / "lab2" / "back").symlink_to(tree)
    (tree / "lab2" / "other").symlink_to(tree / "lab1")
    (tree / "lab2" / "dead.jpg").symlink_to("nowhere.jpg")
    names, _ = listed(tree)
    assert {"lab2/dead.jpg", "lab2/other/c.webp"} <= set(names) and not any("back" in name for name in names)
    item = read_file(locate(str(tree)), found_in(tree / "lab2" / "de*.jpg"))
    assert item.data is None and "cannot be read" in item.error


def test_what_is_not_there_is_told(tree):
    with pytest.raises(ScoringError, match="nothing is there; expected a file, a folder, or a pattern"):
        read_input(f"{tree}/cell")
    with pytest.raises(ScoringError, match="cannot be opened .* expected a local path, s3://, gs://, hf://"):
        read_input("nosuchscheme://bucket/cells")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list any folder")
def test_a_folder_that_may_not_be_listed_ends_the_listing(tree):
    (tree / "lab1").chmod(0)
    with pytest.raises(ScoringError, match="cannot be listed"):
        listed(tree)


def test_any_scheme_of_fsspec_is_listed_and_read():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/cells/a.jpg": b"one", "/cells/lab/b.jpg": b"two", "/cells/lab/c.txt": b"three"})
    found = list(list_input(read_input("memory://cells"), locate("/nowhere"), Counter()))
    place = locate("memory://cells")
    items = {(item := read_file(place, one)).path.removeprefix("memory://").lstrip("/"): item.data for one in found}
    assert items == {"cells/a.jpg": b"one", "cells/lab/b.jpg": b"two"}
    only = list(list_input(read_input("memory://cells/*/*.jpg"), locate("/nowhere"), Counter()))
    assert [one.path.lstrip("/") for one in only] == ["cells/lab/b.jpg"]


def test_a_path_that_is_a_whole_address_is_shown_as_it_is():
    assert (
        locate("http://127.0.0.1:9/cells/a.jpg").shown("http://127.0.0.1:9/cells/a.jpg")
        == "http://127.0.0.1:9/cells/a.jpg"
    )
    place = locate("memory://cells")
    assert place.shown("/cells/a.jpg") == "memory:///cells/a.jpg"


def test_a_name_that_is_no_utf8_is_read(tmp_path):
    name = os.fsdecode(b"cell\xff.png")
    (tmp_path / name).write_bytes(picture(0))
    item = read_file(locate(str(tmp_path)), found_in(tmp_path))
    assert item.data == picture(0) and item.path.endswith("cell\\xff.png")


def test_a_file_too_long_for_a_picture_is_not_read(tmp_path):
    with open(tmp_path / "slide.tif", "wb") as file:
        file.truncate(600_000_000)  # takes no room
    item = read_file(locate(str(tmp_path)), found_in(tmp_path / "slide.tif"))
    assert item.data is None and "600 MB are more than the 534 MB" in item.error


MEMBERS = [(f"lab/{number:04}.{ending}", picture(number)) for number in range(6) for ending in ("png", "cls")]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_gives_its_images_in_their_order(tmp_path, mode):
    path = tar_of(tmp_path / f"shard.tar{mode[1:].replace(':', '.')}", MEMBERS, mode)
    items = items_of(path)
    assert [(item.member, item.row, item.data) for item in items] == [
        (name, row, content) for row, (name, content) in enumerate(MEMBERS[::2])
    ]
    assert not any(item.error for item in items)


def test_two_members_of_one_name_are_two_rows(tmp_path):
    path = tar_of(tmp_path / "a.tar", [("x.png", picture(1)), ("x.png", picture(2))])
    assert [(item.row, item.data) for item in items_of(path)] == [(0, picture(1)), (1, picture(2))]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.77, 0.9])
def test_a_tar_cut_short_anywhere_gives_what_came_before_and_one_error(tmp_path, ending, share):
    whole = tar_of(tmp_path / f"whole.{ending}", MEMBERS, "w:gz" if ending == "tar.gz" else "w").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(whole[: int(share * len(whole))])
    *before, last = items_of(tmp_path / f"cut.{ending}")
    assert [item.data for item in before] == [content for _, content in MEMBERS[::2]][: len(before)]
    assert last.data is None and "damaged or cut short after" in last.error and last.row == len(before)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_byte_changed_anywhere_in_a_packed_tar_does_no_harm_or_is_told(tmp_path, mode):
    whole = tar_of(tmp_path / "whole", MEMBERS[::2], mode).read_bytes()
    told = 0
    for place in (*np.linspace(0, len(whole) - 1, 60).astype(int), *range(len(whole) - 12, len(whole))):
        content = bytearray(whole)
        content[place] ^= 0x10
        (tmp_path / "a.tgz").write_bytes(content)
        *items, last = items_of(tmp_path / "a.tgz")
        told += bool(last.error)
        assert last.error or [item.data for item in (*items, last)] == [content for _, content in MEMBERS[::2]]
    assert told > 50


def test_a_picture_damaged_in_a_gzip_that_unpacks_is_told(tmp_path):
    whole = bytearray(gzip.compress(tar_of(tmp_path / "a.tar", MEMBERS[::2]).read_bytes(), compresslevel=0))
    place = whole.index(MEMBERS[4][1][100:200])
    whole[place : place + 10] = bytes(10)
    (tmp_path / "a.tgz").write_bytes(whole)
    *items, last = items_of(tmp_path / "a.tgz")
    assert len(items) == 6 and items[2].data != MEMBERS[4][1] and last.row == 6
    assert (
        "the check at the archive's end fails (CRC check failed" in last.error and "some may be damaged" in last.error
    )


def test_a_tar_cut_between_members_is_told_from_a_whole_one(tmp_path):
    whole = tar_of(tmp_path / "whole.tar", MEMBERS[:2:2]).read_bytes()
    end = 512 + -(-len(MEMBERS[0][1]) // 512) * 512
    (tmp_path / "cut.tar").write_bytes(whole[:end])
    first, last = items_of(tmp_path / "cut.tar")
    assert first.data == MEMBERS[0][1] and "its end mark is missing" in last.error


@pytest.mark.parametrize("damaged", range(6))
@pytest.mark.parametrize("long", [False, True], ids=["short names", "long names"])
def test_a_header_overwritten_loses_its_image_and_no_other(tmp_path, damaged, long):
    prefix = "folder/" * 30 if long else ""  # a long name takes a header and a block of its own before the member's
    path = tar_of(tmp_path / "a.tar", [(prefix + name, content) for name, content in MEMBERS[::2]])
    with tarfile.open(path) as archive:
        places = [member.offset_data - 512 for member in archive]
    content = bytearray(path.read_bytes())
    content[places[damaged] : places[damaged] + 512] = b"\x55" * 512
    path.write_bytes(content)
    items = items_of(path)
    expected = [content for _, content in MEMBERS[::2]]
    expected[damaged] = None
    assert [item.data for item in items] == expected and [item.row for item in items] == list(range(6))
    assert all((item.member is None) == (item.data is None) == bool(item.error) for item in items)
    told = items[damaged].error
    if damaged == 5:
        assert "damaged or cut short after 5 rows" in told and "what follows is lost" in told
    else:
        assert f"damaged after {damaged} rows" in told and MEMBERS[::2][damaged + 1][0] in told


def test_zeros_in_what_a_damaged_header_leaves_behind_are_no_end(tmp_path):
    path = tar_of(tmp_path / "a.tar", [("dark.bmp", bytes(5000)), *MEMBERS[::2]])
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    first, *others = items_of(path)
    assert "damaged after 0 rows" in first.error
    assert [item.data for item in others] == [content for _, content in MEMBERS[::2]]


def test_what_stands_behind_the_end_of_a_tar_is_told(tmp_path):
    one, two = (tar_of(tmp_path / f"{name}.tar", MEMBERS[:1]).read_bytes() for name in "ab")
    (tmp_path / "both.tar").write_bytes(one + two)
    first, last = items_of(tmp_path / "both.tar")
    assert first.data == MEMBERS[0][1] and "bytes after the archive's end are not read" in last.error


NOISE = np.random.default_rng(0).bytes(2000)


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", gzip.compress(b"garbage", mtime=0), NOISE],
    ids=["empty", "words", "compressed words", "noise"],
)
def test_garbage_named_as_an_archive_is_one_error(tmp_path, content):
    for name in ("a.tar", "a.parquet"):
        (tmp_path / name).write_bytes(content)
        (item,) = items_of(tmp_path / name)
        assert item.data is None and name in item.error and "Copy it again" in item.error


def test_what_in_a_tar_is_no_image_is_counted_and_no_image(tmp_path):
    members = [("a.txt", b"x"), ("b.JFIF", picture(0, "JPEG")), ("b.json", b"{}"), ("c.txt", b"x"), (".d.txt", b"x")]
    left_out = Counter()
    (item,) = items_of(tar_of(tmp_path / "a.tar", members), left_out=left_out)
    assert item.member == "b.JFIF" and item.data == picture(0, "JPEG") and left_out == {".txt": 2, ".json": 1}


def test_a_whole_archive_without_images_is_counted_and_no_image(tmp_path):
    left_out = Counter()
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"label": ["a"]}), tmp_path / "b.parquet")
    tar_of(tmp_path / "a.tar", [("a.txt", b"x")])
    tar_of(tmp_path / "b.tar", [])
    for name in ("a.parquet", "b.parquet", "a.tar", "b.tar"):
        assert items_of(tmp_path / name, left_out=left_out) == []
    assert left_out == {".parquet without images": 2, ".txt": 1, ".tar without images": 2}


def test_a_link_in_a_tar_is_told(tmp_path):
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a.png"
        archive.addfile(link)
    (item,) = items_of(tmp_path / "b.tar")
    assert "a link to another member" in item.error


def test_an_archive_that_changed_since_it_was_listed_is_refused(tmp_path):
    path = tar_of(tmp_path / "a.tar", MEMBERS[:2])
    found = found_in(path)
    check_unchanged(locate(str(path)), found)
    tar_of(path, MEMBERS)
    with pytest.raises(ScoringError, match="has changed since it was listed"):
        check_unchanged(locate(str(path)), found)


PICTURES = [picture(number) for number in range(8)]


@pytest.mark.parametrize("kind", ["bytes", "large", "struct", "datasets"])
def test_parquet_gives_its_images_in_their_order(tmp_path, kind):
    path = tmp_path / "a.parquet"
    structs = [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(PICTURES)]
    if kind == "datasets":
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        datasets.Dataset.from_dict({"image": structs, "label": list(range(8))}, features).to_parquet(path)
    else:
        columns = {
            "bytes": pa.array(PICTURES),
            "large": pa.array(PICTURES, pa.large_binary()),
            "struct": pa.array(structs),
        }
        pq.write_table(pa.table({"id": range(8), "jpg": columns[kind]}), path, row_group_size=3)
    items = items_of(path)
    assert [(item.row, item.data) for item in items] == list(enumerate(PICTURES))
    assert items[5].member == ("5.png" if kind in ("struct", "datasets") else None)


def test_rows_without_bytes_are_told(tmp_path):
    images = [{"bytes": None, "path": "a.png"}, {"bytes": PICTURES[0], "path": None}, None]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    first, second, third = items_of(tmp_path / "a.parquet")
    assert (
        "there are no bytes, only 'a.png'" in first.error and second.data == PICTURES[0] and "no bytes" in third.error
    )


def test_of_two_columns_one_must_be_named(tmp_path):
    pq.write_table(pa.table({"left": PICTURES, "right": PICTURES[::-1]}), tmp_path / "a.parquet")
    (item,) = items_of(tmp_path / "a.parquet")
    assert "Name it with --column" in item.error
    assert [item.data for item in items_of(tmp_path / "a.parquet", "right")] == PICTURES[::-1]
    (item,) = items_of(tmp_path / "a.parquet", "middle")
    assert "images in the column 'middle'" in item.error


def test_a_damaged_row_group_loses_its_rows_by_name_and_no_others(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": PICTURES}),
        path,
        row_group_size=4,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = bytearray(path.read_bytes())
    place = content.index(PICTURES[1][:200]) + 150
    content[place : place + 20] = b"\0" * 20
    path.write_bytes(content)
    items = items_of(path)
    assert [item.row for item in items] == list(range(8))
    assert all("the file is damaged" in item.error for item in items[:4])
    assert [item.data for item in items[4:]] == PICTURES[4:]
