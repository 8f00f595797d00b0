"""A run's list and files, broken off at each point: what is there is whole, what is left is done, nothing twice."""

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as arrow_datasets
import pyarrow.parquet as pq
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from pyarrow import fs as arrow_fs

import score
from scoring import attempts, engine, results, stages
from scoring.engine import plan
from scoring.locations import Input, Location, ScoringError, locate
from scoring.manifest import Folder, alone, list_once, open_folder, partitions, read_listed
from scoring.reading import Item
from scoring.results import Tally, merge, read_tally, remove, row_schema, write_rows
from scoring.stages import Task, Work


class Killed(BaseException):
    """The program ends here."""


def chunk_of(numbers, **tally):
    return pa.table({"number": numbers}), Tally(images=len(numbers), cells=len(numbers), **tally)


@pytest.fixture
def place(tmp_path):
    return locate(str(tmp_path))


def test_a_file_that_was_begun_is_not_there_until_it_is_whole(place, tmp_path, monkeypatch):
    def killed(*names):
        raise Killed

    table, tally = chunk_of(range(5), last=False)
    with monkeypatch.context() as patched:
        patched.setattr(results.os, "replace", killed)
        with pytest.raises(Killed):
            write_rows(place, f"{tmp_path}/a.parquet", table, tally)
    assert read_tally(place, f"{tmp_path}/a.parquet") is None
    assert [path.suffix for path in tmp_path.iterdir()] != [".parquet"]
    write_rows(place, f"{tmp_path}/a.parquet", table, tally)
    assert read_tally(place, f"{tmp_path}/a.parquet") == tally
    assert pq.read_table(tmp_path / "a.parquet")["number"].to_pylist() == list(range(5))


def test_what_is_being_written_is_in_no_readers_way(place, tmp_path, monkeypatch):
    """A merge that was ended: pandas, pyarrow and datasets read the folder of results all the same."""
    folder = begin(tmp_path / "out")
    write_rows(place, folder.partition("files-000001"), *chunk_of(range(3)))
    write_rows(place, folder.chunk("files-000000", 0), *chunk_of(range(5)))

    def killed(*names):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(results.os, "replace", killed)
        with pytest.raises(Killed):
            merge(place, folder.partition("files-000000"), [folder.chunk("files-000000", 0)])
    assert [path for path in (tmp_path / "out").rglob("*") if results.UNFINISHED in path.name]
    assert pd.read_parquet(tmp_path / "out").number.tolist() == [0, 1, 2]
    assert arrow_datasets.dataset(tmp_path / "out").count_rows() == 3
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded["number"][:] == [0, 1, 2]


@pytest.mark.parametrize("step", ["open_output_stream", "write", "close"])
def test_a_full_disk_is_told_and_nothing_half_is_left(tmp_path, step):
    class Stream(io.BytesIO):
        pass

    class Full:
        """A filesystem without room."""

        def open_output_stream(self, path):
            (tmp_path / "half").write_bytes(b"x")
            if step != "open_output_stream":
                stream = Stream()
                setattr(stream, step, self.fails)
                return stream
            self.fails()

        def fails(self, *values):
            raise OSError(errno.ENOSPC, "no room")

        def delete_file(self, path):
            assert results.UNFINISHED in path
            (tmp_path / "half").unlink()

    with pytest.raises(ScoringError, match=r"a\.parquet cannot be written \(No space left on device\)\. Make room"):
        write_rows(Location("out", Full(), "out", ""), "out/a.parquet", *chunk_of([1]))
    assert step == "open_output_stream" or not (tmp_path / "half").exists()


LOOKS = """
import os, sys
from scoring.attempts import Attempt
from scoring.locations import locate
place = locate(sys.argv[1])
attempt = Attempt(place, sys.argv[1] + "/note.json")
for number in range(4):
    if attempt.ends_processes(number):
        print("left out", number)
        continue
    with attempt.looking_at(number):
        if number == 2:
            os._exit(9)
attempt.end()
"""


def test_an_image_at_which_the_process_ends_again_and_again_is_left_out(tmp_path):
    ends = []
    while not ends or ends[-1].returncode:
        assert len(ends) < 10
        ends.append(
            subprocess.run([sys.executable, "-c", LOOKS, tmp_path], capture_output=True, text=True, cwd=REPOSITORY)
        )
    assert [end.returncode for end in ends] == [9] * (attempts.TIMES + attempts.TIMES_ALONE) + [0], ends[-1].stderr
    assert ends[-1].stdout == "left out 2\n" and not list(tmp_path.iterdir())


DIES = """
import os, sys
from scoring.attempts import Attempt
from scoring.locations import locate
attempt = Attempt(locate(sys.argv[1]), sys.argv[1] + "/note.json", sys.argv[2])
with attempt.looking_at(0):
    pass
os._exit(9)
"""


def test_a_chunk_that_ends_the_process_at_none_of_its_images_ends_the_run(tmp_path):
    def start(name):
        command = [sys.executable, "-c", DIES, str(tmp_path), name]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    for _ in range(attempts.TIMES + attempts.TIMES_ELSEWHERE):
        assert start("one").returncode == 9
    told = start("one")
    assert told.returncode == 1
    assert "the process ended 5 times while this chunk was done, and at none of its images" in told.stderr
    assert start("another").returncode == 9  # a later start of the program, perhaps with more memory, tries anew


def test_one_that_is_left_out_is_a_row_with_its_error(place, tmp_path):
    attempt = attempts.Attempt(place, f"{tmp_path}/note.json")
    attempt.ends[1] = attempts.TIMES_ALONE
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "PNG")
    items = [Item(f"{number}.png", data=stream.getvalue()) for number in range(3)]

    def processor(image, **_):
        return {"pixel_values": torch.zeros((1, 3, 8, 8), dtype=torch.uint8)}

    rows = list(stages._seen(items, processor, False, attempt))
    assert [len(pixels) for _, pixels in rows] == [1, 0, 1]
    assert [row["error"] is None for row, _ in rows] == [True, False, True] and rows[1][0]["found"] == []
    assert rows[1][0]["error"].startswith("1.png: looking at it has ended the process 3 times. Open it in")


@pytest.mark.parametrize("content", [b"", b"{", b'{"begun": 7}'])
def test_a_note_that_is_cut_is_none(place, tmp_path, content):
    (tmp_path / "note.json").write_bytes(content)
    assert attempts.Attempt(place, f"{tmp_path}/note.json").begun == (8 if b"7" in content else 1)


@pytest.mark.parametrize("content", [b"", b"PAR1", "cut", "other"])
def test_a_damaged_or_foreign_file_is_none_of_ours(place, tmp_path, content):
    path = tmp_path / "a.parquet"
    write_rows(place, str(path), *chunk_of(range(5)))
    if content == "other":
        pq.write_table(pa.table({"number": [1]}), path)
    else:
        path.write_bytes(path.read_bytes()[:-20] if content == "cut" else content)
    assert read_tally(place, str(path)) is None


@pytest.mark.parametrize("step", range(9))
def test_a_merge_broken_off_anywhere_is_done_again_with_the_same_result(place, tmp_path, monkeypatch, step):
    paths = [f"{tmp_path}/chunk-{number}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        write_rows(
            place,
            path,
            *chunk_of(range(number * 4, number * 4 + 4), errors=1, examples=[["a", "b"]], verdicts={"x": 2}),
        )
    steps = Counter()

    def ends(function):
        def counted(*values):
            steps["all"] += 1
            if steps["all"] > step:
                raise Killed
            return function(*values)

        return counted

    with monkeypatch.context() as patched:
        for owner, name in (
            (results.os, "replace"),
            (results, "remove"),
            (results.pq, "read_schema"),
            (results, "read_tally"),
        ):
            patched.setattr(owner, name, ends(getattr(owner, name)))
        try:
            merge(place, f"{tmp_path}/whole.parquet", paths)
        except Killed:
            there = read_tally(place, f"{tmp_path}/whole.parquet")
            assert there is None or there.images == 12
    whole = merge(place, f"{tmp_path}/whole.parquet", paths)
    assert whole == Tally(images=12, errors=3, cells=12, verdicts={"x": 6}, examples=[["a", "b"]] * 3)
    assert pq.read_table(tmp_path / "whole.parquet")["number"].to_pylist() == list(range(12))
    assert not any(
        name.startswith("chunk") and name.endswith(".parquet") for name in (p.name for p in tmp_path.iterdir())
    )


def test_a_merge_without_all_chunks_is_refused(place, tmp_path):
    write_rows(place, f"{tmp_path}/0.parquet", *chunk_of([1]))
    with pytest.raises(OSError, match="1.parquet is missing or damaged. Start the same command again"):
        merge(place, f"{tmp_path}/whole.parquet", [f"{tmp_path}/0.parquet", f"{tmp_path}/1.parquet"])


def test_many_small_chunks_become_few_row_groups(place, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROWS_A_GROUP", 10)
    paths = [f"{tmp_path}/{number}.parquet" for number in range(12)]
    for number, path in enumerate(paths):
        write_rows(place, path, *chunk_of([number] * 4))
    merge(place, f"{tmp_path}/whole.parquet", paths)
    assert pq.ParquetFile(tmp_path / "whole.parquet").num_row_groups == 4


def asked(*inputs, **other):
    return {"inputs": list(map(str, inputs)), "column": None, "model": "m", **other}


@pytest.fixture
def cells(tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    for number in range(23):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number:02}.png")
    return folder


def begin(path):
    """Give a folder as a start has it."""
    folder = open_folder(str(path))
    with alone(folder):
        return folder


def nothing(count):
    """Show no progress."""


def test_the_list_is_made_once_and_names_each_file_once(cells, tmp_path):
    folder = begin(tmp_path / "out")
    inputs = (cells, f"{cells}/*.png", cells / "03.png")
    manifest = list_once(folder, asked(*inputs), 10, nothing)
    assert (manifest.files, manifest.archives) == (23, 0)
    assert dict(partitions(manifest, 10)) == {"files-000000": 10, "files-000001": 10, "files-000002": 3}
    rows = [found.path for number in range(3) for _, found in read_listed(folder, "files", number)]
    assert sorted(rows) == sorted(str(path) for path in cells.iterdir())
    (cells / "new.png").write_bytes(b"x")
    assert list_once(folder, asked(*inputs), 10, nothing) == manifest  # what came later is not of this run


def names_in(folder, manifest):
    return sorted(
        os.path.basename(found.path)
        for number in range(-(-manifest.files // 10))
        for _, found in read_listed(folder, "files", number)
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_file_that_is_named_is_taken_whatever_its_ending_and_whatever_folder_is_named_beside_it(
    cells, tmp_path, order
):
    (cells / "scan.0001").write_bytes((cells / "03.png").read_bytes())
    (cells / "notes.txt").write_text("x")
    inputs = (cells, cells / "scan.0001", f"{cells}/sc*")
    folder = begin(tmp_path / "out")
    manifest = list_once(folder, asked(*(inputs[number] for number in order)), 10, nothing)
    assert names_in(folder, manifest) == sorted({path.name for path in cells.iterdir()} - {"notes.txt"})
    assert manifest.ignored == {".txt": 1}


def test_a_file_in_the_folder_of_results_is_taken_where_it_is_named(cells, tmp_path):
    inputs = (tmp_path, cells / "03.png")
    folder = begin(cells)
    assert names_in(folder, list_once(folder, asked(*inputs), 10, nothing)) == ["03.png"]


def test_files_that_are_named_one_by_one_are_held_against_no_other_input(cells, tmp_path, monkeypatch):
    """As where a shell has written out a pattern: 30,000 files against each other would take minutes."""
    files = sorted(cells.iterdir())
    monkeypatch.setattr(Input, "covers", lambda *_: pytest.fail("it was compared"))
    manifest = list_once(begin(tmp_path / "out"), asked(*files, *files[::-1]), 10, nothing)
    assert (manifest.files, manifest.archives) == (23, 0)


@pytest.mark.parametrize("out", [".", "..", "../.."], ids=["the same", "above", "far above"])
def test_inputs_that_lie_in_the_folder_of_results_are_told_of_by_that_reason(cells, out):
    place = (cells / out).resolve()
    message = f"^{cells}: 23 images and archives lie in --out {place}, where no input is read; .* Name an --out beside"
    with pytest.raises(ScoringError, match=message):
        list_once(begin(place), asked(cells), 10, nothing)


def test_images_that_are_left_out_for_lying_in_the_folder_of_results_are_warned_of(cells, tmp_path, caplog):
    (tmp_path / "other").mkdir()
    (cells / "03.png").rename(tmp_path / "other" / "03.png")
    manifest = list_once(begin(cells), asked(cells, tmp_path / "other"), 10, nothing)
    assert manifest.files == 1 and manifest.ignored == {}
    assert f"22 images and archives lie in --out {cells}, where no input is read" in caplog.text
    caplog.clear()
    list_once(begin(tmp_path / "out"), asked(tmp_path), 10, nothing)
    assert not caplog.text


def test_a_listing_that_was_ended_is_begun_anew(cells, tmp_path):
    folder, told = begin(tmp_path / "out"), []

    def ends(count):
        told.append(count)
        if count == 15:
            raise Killed

    with pytest.raises(Killed):
        list_once(folder, asked(cells), 10, ends)
    assert list_once(begin(tmp_path / "out"), asked(cells), 10, nothing).files == 23


def test_a_restart_that_asks_for_something_else_is_refused(cells, tmp_path):
    folder = begin(tmp_path / "out")
    list_once(folder, asked(cells), 10, nothing)
    with pytest.raises(
        ScoringError, match="begun otherwise: model was 'm', is 'other'. Go on with what it was begun with"
    ):
        list_once(folder, asked(cells) | {"model": "other"}, 10, nothing)
    description = json.loads((tmp_path / "out/__score/run.json").read_text())
    (tmp_path / "out/__score/run.json").write_text(json.dumps(description | {"version": 0}))
    with pytest.raises(ScoringError, match="begun by another version"):
        list_once(folder, asked(cells), 10, nothing)


def test_a_run_of_an_earlier_version_is_told_as_such(tmp_path):
    (tmp_path / "_score").mkdir()
    (tmp_path / "files-000000.parquet").write_bytes(b"x")
    with pytest.raises(
        ScoringError, match=r"holds a run of an earlier version of this program.*_score\. Go on with it in"
    ):
        open_folder(str(tmp_path))


def test_a_folder_with_other_parquet_files_is_left_alone(tmp_path):
    (tmp_path / "mine.parquet").write_bytes(b"x")
    with pytest.raises(ScoringError, match="holds mine.parquet but no run of this program"):
        begin(tmp_path)


def test_nothing_to_score_is_told_with_what_was_seen(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.zip").write_bytes(b"x")
    with pytest.raises(ScoringError, match=r"no image and no archive among 1 files \{'.zip': 1\}"):
        list_once(begin(tmp_path / "out"), asked(tmp_path / "cells"), 10, nothing)


def test_a_parquet_file_without_images_is_told_before_the_long_part(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(ScoringError, match="expected one column of images"):
        list_once(begin(tmp_path / "out"), asked(tmp_path / "a.parquet"), 10, nothing)


@pytest.mark.parametrize("name", ["00.parquet", "metadata.parquet"], ids=["listed first", "listed last"])
@pytest.mark.parametrize("column", [None, "image"])
def test_a_parquet_file_without_images_among_images_is_left_out_and_counted(cells, tmp_path, name, column):
    pq.write_table(pa.table({"file_name": ["a"], "label": [1]}), cells / name)
    pq.write_table(pa.table({"image": [b"x"], "label": [1]}), cells / "more.parquet")
    pq.write_table(pa.table({"left": [b"x"], "right": [b"x"]}), cells / "unclear.parquet")  # a row with its error
    manifest = list_once(begin(tmp_path / "out"), asked(cells) | {"column": column}, 10, nothing)
    assert (manifest.files, manifest.archives, manifest.ignored) == (23, 2, {".parquet without images": 1})


def test_what_an_archive_leaves_out_is_counted_once_however_its_chunks_are_done(tmp_path):
    """Chunks that an earlier start has done are read again, and not counted again."""
    members = [(f"{number}.{ending}", b"x") for number in range(5) for ending in ("cls", "png", "json")]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in [*members, ("readme.txt", b"x")]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    folder = begin(tmp_path / "out")
    inputs = (str(tmp_path / "a.tar"), str(tmp_path / "empty.tar"))
    list_once(folder, asked(*inputs), 10, nothing)
    work = Work(inputs, str(tmp_path / "out"), 2, 10, False, False, None, "float32", "cpu")

    def ends(partition, *done, turn=0, every=1):
        return {
            chunk: (len(list(items)), *ended())
            for chunk, items, ended in stages._chunks(Task(partition, turn, 0, frozenset(done), every), work)
        }

    everything = ends("archive-000000")
    assert [end[:2] for end in everything.values()] == [(2, False), (2, False), (1, True)]
    counted = sum((Counter(end[2]) for end in everything.values()), Counter())
    assert counted == {".cls": 5, ".json": 5, ".txt": 1}
    for done in ((0,), (1,), (0, 1), (2,)):
        assert ends("archive-000000", *done) == {key: end for key, end in everything.items() if key not in done}
    shared = [ends("archive-000000", turn=turn, every=2) for turn in range(2)]
    assert [list(part) for part in shared] == [[0, 2], [1]] and shared[0] | shared[1] == everything
    assert ends("archive-000001", turn=1, every=2) == {}
    assert ends("archive-000001") == {0: (0, True, {".tar without images": 1}, [str(tmp_path / "empty.tar")])}


def test_what_is_left_is_planned_from_what_is_there(cells, tmp_path):
    folder = begin(tmp_path / "out")
    manifest = list_once(folder, asked(cells), 10, nothing)
    work = Work((str(cells),), str(tmp_path / "out"), 2, 10, False, False, None, "float32", "cpu")

    def left(retry=False):
        tasks, progress = plan(folder, manifest, work, retry, 1)
        doing = [(task.partition, chunk) for task in tasks for chunk in range(task.first, task.end)]
        assert len(doing) == len(set(doing))
        return sorted(doing), progress

    everything = [(f"files-{number:06}", chunk) for number, chunks in enumerate((5, 5, 2)) for chunk in range(chunks)]
    assert left()[0] == everything
    place = folder.place
    write_rows(place, folder.partition("files-000000"), *chunk_of(range(10), errors=1))  # done
    write_rows(place, folder.chunk("files-000000", 3), *chunk_of([1, 2]))  # came after its partition was done
    write_rows(place, folder.chunk("files-000001", 2), *chunk_of([1, 2], last=False))  # on its way
    write_rows(place, folder.partition("files-000002"), *chunk_of(range(2)))  # of other length than listed
    (tmp_path / "out/__score/chunks/files-000001-000000.chunk").write_bytes(b"PAR1")  # half written, the power failed
    doing, progress = left()
    assert doing == [row for row in everything if row[0] != "files-000000" and row != ("files-000001", 2)]
    assert (progress.whole.images, progress.whole.errors) == (12, 1)
    assert [path.name for path in (tmp_path / "out/__score/chunks").iterdir()] == ["files-000001-000002.chunk"]


@pytest.mark.parametrize("fields", [False, True], ids=["cells", "fields"])
def test_of_a_partition_with_errors_only_their_chunks_are_done_again_and_it_stays_till_then(cells, tmp_path, fields):
    folder = begin(tmp_path / "out")
    manifest = list_once(folder, asked(cells), 10, nothing)
    work = Work((str(cells),), str(tmp_path / "out"), 2, 10, fields, False, None, "float32", "cpu")
    place, schema = folder.place, row_schema(["a", "b"], fields, False, 512)

    def rows(numbers, bad=()):
        answer = {"label": "a", "probabilities": {"a": 1, "b": 0}, "verdict": "a", "energy": 0}
        answers = {"cells": [answer, answer | {"verdict": "b"}]} if fields else answer
        made = [{"path": f"{n}", **({"error": "bad"} if n in bad else answers)} for n in numbers]
        count = len(made) - len(set(bad) & set(numbers))
        verdicts = {"a": count, "b": count} if fields else {"a": count}
        examples = [[f"{n}", "bad"] for n in numbers if n in bad]
        tally = Tally(len(made), len(examples), sum(verdicts.values()), 7 * len(made), verdicts, examples)
        return pa.Table.from_pylist(made, schema), tally

    for number, numbers in enumerate((range(10), range(10, 20), range(20, 23))):
        write_rows(place, folder.partition(f"files-{number:06}"), *rows(numbers, bad=(3, 22)))

    def left(*values):
        tasks, progress = plan(folder, manifest, work, *values)
        return [(task.partition, chunk) for task in tasks for chunk in range(task.first, task.end)], progress

    assert left(False, 1)[0] == []
    doing, progress = left(True, 1)
    assert doing == [("files-000000", 1), ("files-000002", 1)] and progress.anew == {"files-000000", "files-000002"}
    assert (progress.whole.images, progress.whole.errors, progress.whole.bytes) == (20, 0, 140)
    assert progress.whole.verdicts == ({"a": 20, "b": 20} if fields else {"a": 20})
    assert pq.read_table(tmp_path / "out").num_rows == 23, "what was there stays till there is something else"
    # the engine fails: what was done meanwhile is done, and no retry is begun a second time
    write_rows(place, folder.chunk("files-000000", 1), *rows([2, 3], bad=[3]))
    doing, progress = left(False, 1, progress.anew)
    assert doing == [("files-000002", 1)] and progress.whole.errors == 1
    # put together in the place of the former, as often as it may be tried
    write_rows(place, folder.chunk("files-000000", 1), *rows([2, 3]))
    chunks = [folder.chunk("files-000000", number) for number in range(5)]
    with pytest.raises(OSError, match="files-000000-000009.chunk is missing"):  # what is there is an earlier one
        merge(place, folder.partition("files-000000"), [folder.chunk("files-000000", 9), *chunks], (12, 0))
    for _ in range(2):
        whole = merge(place, folder.partition("files-000000"), chunks, (10, 0))
        assert (whole.images, whole.errors) == (10, 0)
    assert pq.read_table(tmp_path / "out/files-000000.parquet").to_pylist() == rows(range(10))[0].to_pylist()
    # a start that does not retry takes the former for done
    assert left(False, 1)[0] == [] and not list((tmp_path / "out/__score/chunks").iterdir())


def test_tasks_that_read_a_shared_archive_to_different_ends_are_told_and_it_is_read_again(cells, tmp_path, monkeypatch):
    """Of five chunks one task's reading broke off in the third, which then is no last one; another's chunk is lost."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for path in sorted(cells.iterdir())[:10]:
            archive.add(path, path.name)
    folder = begin(tmp_path / "out")
    inputs = (str(tmp_path / "a.tar"),)
    manifest = list_once(folder, asked(*inputs), 10, nothing)
    work = Work(inputs, str(tmp_path / "out"), 2, 10, False, False, None, "float32", "cpu")
    place, name, given = folder.place, "archive-000000", []

    def streams(tasks, *_, **__):
        given.append(tasks)
        broken = len(given) == 1 or always
        for number in (
            (0, 1, 2, 4) if broken else {chunk for task in tasks for chunk in range(5) if chunk not in task.done}
        ):
            table, tally = chunk_of([2 * number, 2 * number + 1], last=number == 4 or (broken and number == 2))
            write_rows(place, folder.chunk(name, number), table, tally)
            times = dict.fromkeys(("reading_wall_seconds", "naming_wall_seconds"), 0.0)
            yield {"partition": name, "chunk": number, "tally": json.dumps(vars(tally)), **times}

    class Here:
        """Ray, in this process."""

        remote = staticmethod(lambda *call: merge(*call))

    monkeypatch.setattr(engine, "_stream", streams)
    monkeypatch.setattr(engine.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(engine.ray, "nodes", lambda: [])
    monkeypatch.setattr(engine.ray, "remote", lambda **_: lambda function: Here)
    monkeypatch.setattr(engine.ray, "wait", lambda waiting, **_: (waiting[:1], waiting[1:]))
    monkeypatch.setattr(engine.ray, "get", lambda one: one)
    monkeypatch.setattr(Tally, "__hash__", object.__hash__, raising=False)
    always = True
    with pytest.raises(ScoringError, match="archive-000000: an archive was read to another end each time"):
        engine.run(folder, manifest, work, {})
    assert not (tmp_path / "out/archive-000000.parquet").exists()
    assert [task.every for task in given[0]] == [2, 2], "it is shared"
    always = False
    given.append(None)
    progress = engine.run(folder, manifest, work, {})
    assert given[-1][0].done == {0, 1, 4} and (progress.whole.images, progress.here) == (10, 4)
    assert pq.read_table(tmp_path / "out/archive-000000.parquet")["number"].to_pylist() == list(range(10))
    assert not list((tmp_path / "out/__score/chunks").iterdir())


def test_a_start_goes_on_after_the_engine_failed_and_counts_all_that_it_did(cells, tmp_path, monkeypatch):
    import ray

    folder = begin(tmp_path / "out")
    manifest = list_once(folder, asked(cells), 10, nothing)
    work = Work((str(cells),), str(tmp_path / "out"), 2, 10, False, False, None, "float32", "cpu")
    write_rows(folder.place, folder.partition("files-000000"), *chunk_of(range(10)))  # by an earlier start
    tries = []

    def works_through(tasks, progress, *_):
        tries.append(progress)
        if len(tries) == 1:
            progress.whole.add(Tally(images=2))
            progress.seconds["naming_cpu_seconds"] = 3.0
            progress.mark(0.0)
            # of which the driver has heard a part only
            write_rows(folder.place, folder.partition("files-000001"), *chunk_of(range(10)))
            raise ray.exceptions.RayError("too many machines were lost")
        progress.whole.add(Tally(images=3))
        progress.mark(0.0)

    monkeypatch.setattr(engine, "_work_through", works_through)
    monkeypatch.setattr(engine.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(engine.ray, "nodes", lambda: [])
    progress = engine.run(folder, manifest, work, {})
    assert len(tries) == 2 and (progress.whole.images, progress.here) == (23, 13)
    times = json.loads((tmp_path / "out/__score/times.json").read_text())
    assert times["images"] == 13 and times["seconds"] == {"naming_cpu_seconds": 3.0}
    assert [done for done, _ in times["marks"]] == [2, 13] and times["begun"] == times["marks"][0][1]
    assert times["marks"][0][1] < times["marks"][1][1]


def test_what_an_ended_run_was_writing_is_taken_away(tmp_path):
    folder = begin(tmp_path)
    begun = tmp_path / "__score" / "chunks" / "files-000000-000001.chunk.unfinished-0123456789ab"
    begun.write_bytes(b"x")
    begin(tmp_path)
    assert not begun.exists()
    remove(folder.place, [str(begun)])  # what is gone stays gone


def test_a_row_holds_what_was_asked_for():
    plain = row_schema(["a", "b"], False, False, 512)
    assert {"path", "member", "row", "sha256", "label", "probabilities", "verdict", "error"} <= set(plain.names)
    assert row_schema(["a"], False, True, 512).field("embedding").type == pa.list_(pa.float32(), 512)
    cells = row_schema(["a"], True, True, 512)
    assert "label" not in cells.names and cells.field("cells").type.value_type.get_field_index("embedding") >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk", "0"], "expected 1 or more"),
        (["--chunk", "9", "--partition", "8"], "no partition below a chunk"),
        (["--device", "tpu"], "invalid choice"),
    ],
)
def test_options_that_do_not_fit_end_the_program_at_once(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        score.parse(["cells", "--out", "out", *options])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_fault_is_one_line_with_status_1(tmp_path, cells):
    with pytest.raises(SystemExit, match="error: .* lacks config.json, preprocessor_config.json, model.safetensors"):
        score.main([str(cells), "--out", str(tmp_path / "out"), "--model", str(cells)])
    with pytest.raises(SystemExit, match="error: .*nothing is there"):
        score.main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")])


def test_two_starts_at_once_are_kept_apart_and_the_second_changes_nothing(tmp_path):
    folder = open_folder(str(tmp_path))
    with alone(folder):
        begun = tmp_path / "__score" / "chunks" / "files-000000-000001.chunk.unfinished-0123456789ab"
        begun.write_bytes(b"x")
        with pytest.raises(ScoringError, match="is being written by another start"), alone(open_folder(str(tmp_path))):
            pass
        with pytest.raises(SystemExit, match="is being written by another start"):
            score.main([str(tmp_path), "--out", str(tmp_path)])
        assert begun.exists()
    with alone(folder):
        assert not begun.exists()


def test_without_a_lock_only_what_was_given_up_is_taken_away(tmp_path):
    """As on a store that fsspec opens, where another start may be at work."""
    import fsspec

    filesystem = arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fsspec.filesystem("file")))
    folder = Folder(Location(str(tmp_path), filesystem, str(tmp_path), ""))
    names = [tmp_path / "__score" / "chunks" / f"{number}.chunk.unfinished-0123456789ab" for number in range(2)]
    with alone(folder):
        for name in names:
            name.write_bytes(b"x")
        os.utime(names[0], (0, 0))
    with alone(folder):
        assert [name.exists() for name in names] == [False, True]


@pytest.mark.parametrize("there", [True, False], ids=["an empty folder", "no folder"])
@pytest.mark.parametrize(
    ("what", "message"),
    [("absent", "nothing is there"), ("texts", "no image and no archive"), ("cells", "lacks config.json")],
)
def test_a_refused_command_leaves_nothing_behind(cells, tmp_path, there, what, message):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("x")
    if there:
        (tmp_path / "out").mkdir()
    model = ["--model", str(tmp_path)] if what == "cells" else []
    with pytest.raises(SystemExit, match=message):
        score.main([str(tmp_path / what), "--out", str(tmp_path / "out"), *model])
    assert (tmp_path / "out").exists() == there and not list((tmp_path / "out").glob("*"))


def test_one_line_is_kept_from_the_standard_error_and_no_other(capfd):
    os.write(2, b"before\n")
    with pytest.raises(OSError, match="a fault"), engine.unsaid(b"level"):
        os.write(2, b"a level is set\na warning\n")
        raise OSError("a fault")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\na warning\nafter\n"


def test_patterns_over_all_folders_find_results_only(cells, tmp_path):
    folder = begin(tmp_path / "out")
    list_once(folder, asked(cells), 10, nothing)
    write_rows(folder.place, folder.chunk("files-000000", 0), *chunk_of([1]))
    write_rows(folder.place, folder.partition("files-000001"), *chunk_of([1]))
    assert [path.name for path in (tmp_path / "out").rglob("*.parquet")] == ["files-000001.parquet"]


def test_a_ray_that_does_not_come_up_is_told_in_a_line(monkeypatch):
    def late(**_):
        raise Exception("The current node timed out during startup. This could happen.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(engine.ray, "init", late)
    told = r"Ray does not start \(The current node timed out .*Start again when less"
    with pytest.raises(ScoringError, match=told), engine.engine():
        pytest.fail("there is no engine")
