"""A run's list and files, broken off at each point: what is there is whole, what is left is done, nothing twice."""

import io
import json
import os
import tarfile
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import fs as arrow_fs

import score
from scoring import engine, results, stages
from scoring.engine import plan
from scoring.locations import Location, ScoringError, locate
from scoring.manifest import Folder, alone, list_once, open_folder, partitions, read_listed
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
    description = json.loads((tmp_path / "out/_score/run.json").read_text())
    (tmp_path / "out/_score/run.json").write_text(json.dumps(description | {"version": 0}))
    with pytest.raises(ScoringError, match="begun by another version"):
        list_once(folder, asked(cells), 10, nothing)


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

    def ends(partition, *done):
        return {
            chunk: (len(list(items)), *ended())
            for chunk, items, ended in stages._chunks(Task(partition, done=frozenset(done)), work)
        }

    everything = ends("archive-000000")
    assert [end[:2] for end in everything.values()] == [(2, False), (2, False), (1, True)]
    counted = sum((Counter(end[2]) for end in everything.values()), Counter())
    assert counted == {".cls": 5, ".json": 5, ".txt": 1}
    for done in ((0,), (1,), (0, 1), (2,)):
        assert ends("archive-000000", *done) == {key: end for key, end in everything.items() if key not in done}
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
    (tmp_path / "out/_score/chunks/files-000001-000000.chunk").write_bytes(b"PAR1")  # half written, the power failed
    doing, progress = left()
    assert doing == [row for row in everything if row[0] != "files-000000" and row != ("files-000001", 2)]
    assert (progress.whole.images, progress.whole.errors) == (12, 1)
    assert [path.name for path in (tmp_path / "out/_score/chunks").iterdir()] == ["files-000001-000002.chunk"]
    assert [row for row in left(retry=True)[0] if row[0] == "files-000000"] == everything[:5]
    assert not (tmp_path / "out/files-000000.parquet").exists()


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
    times = json.loads((tmp_path / "out/_score/times.json").read_text())
    assert times["images"] == 13 and times["seconds"] == {"naming_cpu_seconds": 3.0}
    assert [done for done, _ in times["marks"]] == [2, 13] and times["begun"] == times["marks"][0][1]
    assert times["marks"][0][1] < times["marks"][1][1]


def test_what_an_ended_run_was_writing_is_taken_away(tmp_path):
    folder = begin(tmp_path)
    begun = tmp_path / "_score" / "chunks" / "files-000000-000001.chunk.unfinished-0123456789ab"
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
        begun = tmp_path / "_score" / "chunks" / "files-000000-000001.chunk.unfinished-0123456789ab"
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
    names = [tmp_path / "_score" / "chunks" / f"{number}.chunk.unfinished-0123456789ab" for number in range(2)]
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
