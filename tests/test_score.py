"""An archive through score.py: the answers of the plain doors, each image once, whatever is killed in the middle."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from PIL import Image
from smear_drawings import draw_field, write_image
from transformers import pipeline

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import score

SIDE = 64  # px: such a network is twelve times as quick
KILLED_IMAGES, KILLED_CHUNK = 120, 4


@pytest.fixture(scope="module")
def small_folder(model_folder, tmp_path_factory):
    """The published folder for images of 64 px, with an operating point."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("small") / "wbc")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"size": {"height": SIDE, "width": SIDE}}))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "acceptance_threshold": 0.43,
        "acceptance_risk": 0.01,
        "energy_threshold": -0.57,
        "energy_accept_rate": 0.99,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def cluster():
    """Ray as on several machines: a head without work, and two machines of one core."""
    import ray
    from ray.cluster_utils import Cluster

    temporary = tempfile.mkdtemp(prefix="wbc", dir="/tmp")  # sockets in it have short paths only
    previous = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = temporary
    nodes = Cluster(shutdown_at_exit=False)
    try:
        nodes.add_node(num_cpus=0, object_store_memory=150_000_000)
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=150_000_000)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if previous is not None:
            os.environ["RAY_TMPDIR"] = previous
        shutil.rmtree(temporary, ignore_errors=True)


def draw(seed, side=48):
    """Draw noise of one colour, so that answers differ."""
    rng = np.random.default_rng(seed)
    return Image.fromarray((rng.integers(0, 40, (side, side, 3)) + rng.integers(0, 216, 3)).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def result(out):
    """Read a result as a user does: the folder, with pandas."""
    return pd.read_parquet(out).astype(object).where(lambda table: table.notna(), None)


def test_every_kind_of_input_gives_the_answers_of_the_plain_doors(cluster, small_folder, tmp_path, capsys):
    images = {number: encoded(draw(number)) for number in range(24)}
    cells = tmp_path / "cells"
    (cells / "deep").mkdir(parents=True)
    for number in range(6):
        (cells / f"{number}.png").write_bytes(images[number])
    (cells / "deep" / "copy of 0.png").write_bytes(images[0])
    (cells / "named wrongly.jpg").write_bytes(images[7])
    (cells / "garbage.jpg").write_bytes(b"garbage")
    (cells / "empty.png").write_bytes(b"")
    (cells / "cut.png").write_bytes(images[1][:200])
    (cells / "notes.txt").write_text("x")
    structs = [{"bytes": images[number], "path": f"{number}.png"} for number in range(8, 14)]
    pq.write_table(pa.table({"image": structs}), tmp_path / "rows.parquet")
    with tarfile.open(tmp_path / "shard-0.tar", "w") as archive:
        for number in range(14, 19):
            for ending, content in (("png", images[number]), ("cls", b"1")):
                info = tarfile.TarInfo(f"{number}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    whole = (tmp_path / "shard-0.tar").read_bytes()
    (tmp_path / "shard-1.tar").write_bytes(whole[: len(whole) * 6 // 10])
    with tarfile.open(tmp_path / "shard-2.tar", "w"):
        pass
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 broken")
    pq.write_table(pa.table({"label": ["a"]}), tmp_path / "metadata.parquet")
    out = tmp_path / "scores"
    command = [f"{cells}", f"{cells}/*.png", f"{tmp_path}/*.parquet", f"{tmp_path}/shard-*.tar", "--out", str(out)]
    command += ["--model", str(small_folder), "--chunk", "4", "--partition", "8", "--embedding"]
    with pytest.raises(SystemExit) as ended:
        score.main([*command, "--fail_on_errors"])
    assert ended.value.code == 3
    told = capsys.readouterr().out
    rows = result(out)
    # truth: what was put where
    good = {(str(cells / f"{number}.png"), None): number for number in range(6)}
    good |= {(str(cells / "deep" / "copy of 0.png"), None): 0, (str(cells / "named wrongly.jpg"), None): 7}
    good |= {(str(tmp_path / "rows.parquet"), row): 8 + row for row in range(6)}
    good |= {(str(tmp_path / "shard-0.tar"), row): 14 + row for row in range(5)}
    keys = list(zip(rows.path, rows.row, strict=True))
    assert len(set(keys)) == len(keys)
    seen = rows.set_index(pd.Index(keys, tupleize_cols=False))
    plain = pipeline("image-classification", str(small_folder), trust_remote_code=False)
    ours = pipeline(model=str(small_folder), trust_remote_code=True, one_cell=True)
    for key, number in good.items():
        row, image = seen.loc[[key]].iloc[0], Image.open(io.BytesIO(images[number]))
        expected = {answer["label"]: answer["score"] for answer in plain(image, top_k=None)}
        assert row.probabilities == pytest.approx(expected, abs=1e-6)
        assert row.label == max(expected, key=expected.get)
        answer = ours(image)
        assert (row.verdict, row.reason, row.error) == (answer["verdict"], answer["reason"], None)
        assert row.energy == pytest.approx(answer["energy"], abs=1e-5)
        assert len(row.embedding) == 512 and (row.width, row.height) == (48, 48)
    assert len({row for row in seen.loc[list(good)].verdict}) > 1
    copies = (cells / "0.png", cells / "deep" / "copy of 0.png")
    assert len({seen.loc[[(str(path), None)]].sha256.item() for path in copies}) == 1
    # embeddings: the linear layer on them gives the probabilities
    classifier = ours.model.get_classifier()
    first = seen.loc[list(good)].iloc[0]
    weight, bias = (tensor.detach().double().numpy() for tensor in (classifier.weight, classifier.bias))
    logits = weight @ first.embedding.astype(float) + bias
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx(list(first.probabilities.values()), abs=1e-6)
    # the rest: each damage is a row with its error
    faults = rows[rows.error.notna()]
    cut = rows[(rows.path == str(tmp_path / "shard-1.tar")) & rows.error.isna()]
    assert list(cut.sha256) == list(rows[rows.path == str(tmp_path / "shard-0.tar")].sha256)[: len(cut)] and len(cut)
    damaged = ["broken.parquet", "cut.png", "empty.png", "garbage.jpg", "shard-1.tar"]
    assert sorted(Path(path).name for path in faults.path) == damaged
    assert faults.label.isna().all() and len(rows) == len(good) + len(cut) + len(faults)
    assert (
        f"{len(rows)} images, 5 of them with an error" in told
        and "neither image nor archive: 1 .txt, 1 .parquet without images" in told
    )
    assert "left out of archives, or with them, being no images: " in told and "1 .tar without images" in told
    assert f"holds no image: {tmp_path / 'shard-2.tar'}" in told
    # again: nothing is left to do, nothing changes
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    score.main(command)
    assert "nothing was left to do" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in out.glob("*.parquet")} == before
    assert not list((out / "__score" / "chunks").iterdir())
    # mended and asked for: the partition with the error is done again
    (cells / "garbage.jpg").write_bytes(images[20])
    score.main([*command, "--retry_errors"])
    again, times = result(out), json.loads((out / "__score" / "times.json").read_text())
    assert times["images"] < len(rows) / 2, "what had no error was not done again"
    assert len(again) == len(rows) and again[again.path == str(cells / "garbage.jpg")].error.item() is None
    with pytest.raises(SystemExit, match="begun otherwise: embedding was True, is False"):
        score.main([part for part in command if part != "--embedding"])


def test_threads_that_share_a_network_give_the_answers_of_the_plain_door(small_folder, tmp_path):
    """By the command, on this machine: its cores share one process, and the only archive."""
    cells, out = tmp_path / "cells", tmp_path / "scores"
    cells.mkdir()
    images = {f"{number:02}.png": draw(number) for number in range(48)}
    with tarfile.open(cells / "shard.tar", "w") as archive:
        for number, (name, image) in enumerate(images.items()):
            if number < 24:
                (cells / name).write_bytes(encoded(image))
                continue
            content = encoded(image)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [
        sys.executable,
        str(REPOSITORY / "score.py"),
        str(cells),
        "--out",
        str(out),
        "--model",
        str(small_folder),
    ]
    done = subprocess.run([*command, "--chunk", "2"], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert all("images" in line for line in lines), "more than the bar"
    rows = result(out)
    names = [row.member or Path(row.path).name for row in rows.itertuples()]
    assert sorted(names) == sorted(images)
    assert list(rows[rows.member.notna()].row) == list(range(24)), "as they lie in the archive"
    plain = pipeline("image-classification", str(small_folder), trust_remote_code=False)
    for row, name in zip(rows.itertuples(), names, strict=True):
        expected = {answer["label"]: answer["score"] for answer in plain(images[name], top_k=None)}
        assert row.probabilities == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("fields", [False, True], ids=["cells", "fields"])
def test_read_by_tasks_as_for_a_gpu_the_answers_are_the_same(cluster, small_folder, tmp_path, monkeypatch, fields):
    from scoring import engine

    cells, stream = tmp_path / "cells", engine._stream
    cells.mkdir()
    for number in range(3 if fields else 20):
        if fields:
            write_image(cells / f"{number}.png", draw_field(number)[0])
        else:
            draw(number).save(cells / f"{number}.png")
    (cells / "cut.png").write_bytes(b"x")
    options = ["--model", str(small_folder), "--chunk", "2", *["--fields"] * fields]
    score.main([str(cells), "--out", str(tmp_path / "one"), *options])
    monkeypatch.setattr(engine, "_stream", lambda *given, parted: stream(*given, parted=True))
    score.main([str(cells), "--out", str(tmp_path / "two"), *options])
    one, two = (result(tmp_path / name).to_dict("records") for name in ("one", "two"))
    assert len(one) == len(two) == len(list(cells.iterdir()))
    for own, other in zip(one, two, strict=True):
        parts = [(own, other)]
        if fields and own["error"] is None:
            assert len(own["cells"]) == len(other["cells"]) > 0
            parts = list(zip(own.pop("cells"), other.pop("cells"), strict=True))
        for cell, again in parts:
            if own["error"] is None:
                assert cell.pop("probabilities") == pytest.approx(again.pop("probabilities"), abs=1e-6)
                assert cell.pop("energy") == pytest.approx(again.pop("energy"), abs=1e-5)
        assert str(own) == str(other)


def test_a_chunk_is_heard_of_when_it_is_done_and_not_when_its_task_is(cluster, small_folder, tmp_path):
    from scoring.engine import _stream
    from scoring.manifest import alone, list_once, open_folder
    from scoring.stages import Task, Work, read_model

    cells, number = tmp_path / "cells", 200
    cells.mkdir()
    for name in range(number):
        (cells / f"{name}.png").write_bytes(encoded(draw(name)))
    folder = open_folder(str(tmp_path / "out"))
    with alone(folder):
        list_once(folder, {"inputs": [str(cells)], "column": None}, number, lambda count: None)
        work = Work((str(cells),), str(tmp_path / "out"), 1, number, False, False, None, "float32", "cpu")
        heard = _stream([Task("files-000000", 0, number)], work, read_model(small_folder), 1, 1, 1, parted=False)
        assert next(heard)["chunk"] == 0
        assert chunks_there(tmp_path / "out") < number / 2  # of the same task
        assert [done["chunk"] for done in heard] == list(range(1, number))


def free_ports(number):
    """Find ports below those that Ray's workers take."""
    free = []
    for port in range(6400, 9900):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                free.append(port)
        if len(free) == number:
            return free
    raise OSError("too few ports are free")


def test_a_cluster_started_by_hand_is_joined_with_the_token_that_it_asks_for(small_folder, tmp_path):
    """By the commands, in a home of its own: a run on this machine leaves no token there; where one lies, it is shown to a
    cluster that asks for it, and not to one that does not."""
    cells, home = tmp_path / "cells", tmp_path / "home"
    cells.mkdir()
    home.mkdir()
    for number in range(3):
        (cells / f"{number}.png").write_bytes(encoded(draw(number)))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")} | {"HOME": str(home)}

    def start(out, **environment):
        command = [sys.executable, str(REPOSITORY / "score.py"), str(cells), "--out", str(tmp_path / out)]
        command += ["--model", str(small_folder)]
        done = subprocess.run(command, env=plain | environment, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(result(tmp_path / out)) == 3

    def join(out, asks, **environment):
        temporary, log = tempfile.mkdtemp(prefix="wbc", dir="/tmp"), tmp_path / f"{out}.log"
        port, agent = free_ports(2)
        command = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--head",
            "--block",
            f"--port={port}",
            "--num-cpus=1",
        ]
        command += [f"--dashboard-agent-listen-port={agent}", "--include-dashboard=false", f"--temp-dir={temporary}"]
        with open(log, "w") as file:
            head = subprocess.Popen(command, env=plain | environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: "Ray runtime started" in log.read_text(), head)
            assert ("Token authentication is enabled" in log.read_text()) == asks
            start(out, RAY_ADDRESS=f"127.0.0.1:{port}")
        finally:
            for process in [*psutil.Process(head.pid).children(recursive=True), head]:
                process.kill()
            head.wait()
            shutil.rmtree(temporary, ignore_errors=True)

    start("local")
    assert not (home / ".ray").exists()
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    join("asking", True)
    join("open", False, RAY_AUTH_MODE="disabled")


@pytest.mark.parametrize(
    ("cores", "threads"), [([2], 2), ([64] * 3, 4), ([1, 1], 1), ([0, 1, 8], 1), ([0, 6, 6], 3), ([5], 1), ([0], 4)]
)
def test_threads_share_processes_as_far_as_no_core_is_left_over(cores, threads):
    from scoring.engine import threads_a_process

    assert threads_a_process(cores) == threads


def test_fields_give_the_cells_of_the_pipeline(cluster, small_folder, tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.png", draw_field(number)[0])
    draw(3, 200).save(folder / "noise.png")
    score.main([str(folder), "--fields", "--out", str(tmp_path / "out"), "--model", str(small_folder), "--chunk", "2"])
    rows = result(tmp_path / "out").set_index("path")
    answer = pipeline(model=str(small_folder), trust_remote_code=True)(sorted(folder.glob("*.png")))
    assert sum(len(image["cells"]) for image in answer["images"])
    for path, image in zip(sorted(folder.glob("*.png")), answer["images"], strict=True):
        row = rows.loc[str(path)]
        if image["refused"]:
            assert row.error == image["refused"].replace(path.name, str(path)) and row.cells is None
            continue
        assert len(row.cells) == len(image["cells"])
        for cell, expected in zip(row.cells, image["cells"], strict=True):
            assert list(cell["box"]) == list(expected["box"])
            assert cell["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
            assert all(cell[key] == expected[key] for key in ("label", "verdict", "reason"))


def wait_for(condition, process=None):
    ends = time.monotonic() + 400
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def actor_processes():
    """Find the processes that hold a network, by the names that Ray gives them; those of this process's cluster only."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if any("MapBatches(" in part and "Namer)" in part for part in process.cmdline()):
                found.append(process.pid)
    return found


def chunks_there(out):
    return len(list((out / "__score" / "chunks").glob("files-*[0-9].chunk"))) + 10 * len(
        list(out.glob("files-*.parquet"))
    )


def test_killed_again_and_again_each_image_stands_once(cluster, model_folder, tmp_path):
    """The driver twice, by SIGKILL; then, in the last start, an actor's process and a whole machine."""
    cells, out = tmp_path / "cells", tmp_path / "out"
    cells.mkdir()
    contents = [encoded(draw(number)) for number in range(5)]
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(contents[number])
    for number in range(KILLED_IMAGES):
        (cells / f"{number:03}.png").symlink_to(tmp_path / f"{number % 5}.png")
    command = [str(cells), "--out", str(out), "--model", str(model_folder)]
    command += ["--chunk", str(KILLED_CHUNK), "--partition", "40"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    done = []
    for least in (1, 8):
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / "score.py"), *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        wait_for(lambda least=least: chunks_there(out) >= least, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done.append(chunks_there(out))
    assert done[0] > 0 and done[1] < KILLED_IMAGES / KILLED_CHUNK, "the kills came too late to show anything"
    faults = []

    def kill_more():
        try:
            start = chunks_there(out)
            wait_for(lambda: chunks_there(out) > start + 1)
            os.kill(actor_processes()[0], signal.SIGKILL)
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        except BaseException as error:  # noqa: BLE001
            faults.append(error)

    killer = threading.Thread(target=kill_more)
    killer.start()
    score.main(command)
    killer.join()
    assert not faults
    rows = result(out)
    assert sorted(rows.path) == sorted(str(path) for path in cells.iterdir())
    assert rows.error.isna().all()
    by_content = rows.assign(number=[int(Path(path).stem) % 5 for path in rows.path]).groupby("number").sha256.nunique()
    assert (by_content == 1).all() and rows.sha256.nunique() == 5
    assert not list((out / "__score" / "chunks").iterdir())
