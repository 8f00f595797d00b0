"""Images that lie elsewhere: in Google's storage, as its emulator answers, and on the Hub, as the loopback one does."""

import io
import os
import socket
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from hub_fixtures import Client, log_in, start_hub  # noqa: F401
from peers_fixtures import overlaid
from PIL import Image
from pyarrow import fs as arrow_fs

from scoring import locations
from scoring.locations import ScoringError, list_input, locate, read_input
from scoring.reading import read_file


def picture(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def bucket():
    """Google's storage with one empty bucket, ``cells``: how to open it, as an option of an address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen(
        [*command, "--in-memory", "--default-bucket=cells", "--quiet"],
        env=overlaid("storage"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        else:
            pytest.fail("the emulator of Google's storage does not answer")
        yield f"?endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=20"
    finally:
        server.kill()
        server.wait()


def put(options, files):
    store, _ = arrow_fs.FileSystem.from_uri(f"gs://anonymous@cells{options}")
    for path, content in files.items():
        with store.open_output_stream(f"cells/{path}") as stream:
            stream.write(content)
    return store


def found_in(address, without="/nowhere"):
    source = read_input(address)
    found = list_input(source, locate(without), Counter())
    return {source.place.shown(one.path): read_file(source.place, one).data for one in found}


def test_a_bucket_is_listed_with_folders_that_nobody_made(bucket):
    files = {f"plain/{name}": name.encode() for name in ("a.jpg", "lab/b.jpg", "lab/deep/c.png", ".hidden/d.png")}
    put(bucket, files | {"plain/lab/notes.txt": b"x", "plainer/e.jpg": b"x"})
    address = "gs://anonymous@cells/plain"
    shown = {f"gs://cells/{path}": content for path, content in files.items() if "hidden" not in path}
    assert found_in(address + bucket) == shown
    assert found_in(f"{address}/*/*.jpg{bucket}") == {"gs://cells/plain/lab/b.jpg": b"lab/b.jpg"}
    assert found_in(f"{address}/lab/deep/c.png{bucket}") == {"gs://cells/plain/lab/deep/c.png": b"lab/deep/c.png"}
    assert found_in(address + bucket, without=f"{address}/lab{bucket}") == {"gs://cells/plain/a.jpg": b"a.jpg"}
    with pytest.raises(ScoringError, match="nothing is there"):
        read_input(f"{address}/nowhere{bucket}")


def test_a_storage_that_does_not_answer_is_told_in_time(monkeypatch):
    monkeypatch.setattr(locations, "GS_PATIENCE", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        address = f"gs://anonymous@cells/lab?endpoint_override=127.0.0.1:{closed.getsockname()[1]}&scheme=http"
        begun = time.monotonic()
        with pytest.raises(ScoringError, match=r"cannot be looked at .*Correct the address, or allow it"):
            read_input(address)
    assert time.monotonic() - begun < 30  # pyarrow's own patience is 15 minutes


def test_a_bucket_is_scored_into_itself_and_a_second_start_does_nothing_again(bucket):
    store = put(bucket, {f"smears/lab{number % 2}/{number}.png": picture(number) for number in range(6)})
    command = [sys.executable, str(REPOSITORY / "score.py"), f"gs://anonymous@cells/smears{bucket}"]
    command += ["--out", f"gs://anonymous@cells/smears/scores{bucket}", "--model", str(REPOSITORY / "hub_model")]
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    said = []
    for _ in range(2):
        done = subprocess.run([*command, "--chunk", "2"], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout)
        files = store.get_file_info(arrow_fs.FileSelector("cells/smears/scores", recursive=False))
        rows = pq.ParquetFile(
            store.open_input_file(next(one.path for one in files if one.path.endswith(".parquet")))
        ).read()
        expected = sorted(f"gs://cells/smears/lab{number % 2}/{number}.png" for number in range(6))
        assert sorted(rows["path"].to_pylist()) == expected
        assert rows["error"].null_count == 6
    assert "6 images, 0 of them with an error" in said[0] and "6 of them now" in said[0]
    assert "nothing was left to do" in said[1]


READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from collections import Counter
from scoring.locations import ScoringError, list_input, locate, read_input
from scoring.reading import read_file

told = {}
for address in sys.argv[2:]:
    try:
        source = read_input(address)
        found = list_input(source, locate("/nowhere"), Counter())
        told[address] = {source.place.shown(one.path): read_file(source.place, one).data.decode() for one in found}
    except ScoringError as error:
        told[address] = str(error)
print(json.dumps(told))
"""


def test_a_data_set_of_the_hub_is_listed_and_read_at_a_revision_with_ones_token(hub, client, tmp_path):
    files = {"README.md": b"x", "a.jpg": b"a", "lab/b.png": b"b", "lab/deep/c.jpg": b"c"}
    hub.add_repository("dataset", "anna/cells", files, private=True)
    home = "hf://datasets/anna/cells"
    addresses = [home, f"{home}/lab/*/*.jpg", f"{home}@main/lab", f"{home}@other", f"{home}/nowhere"]
    told = client.python(READ, REPOSITORY, *addresses)
    assert told[home] == {f"{home}/a.jpg": "a", f"{home}/lab/b.png": "b", f"{home}/lab/deep/c.jpg": "c"}
    assert told[f"{home}/lab/*/*.jpg"] == {f"{home}/lab/deep/c.jpg": "c"}
    assert told[f"{home}@main/lab"] == {f"{home}@main/lab/b.png": "b", f"{home}@main/lab/deep/c.jpg": "c"}
    for address in (f"{home}@other", f"{home}/nowhere"):
        assert "nothing is there" in told[address] and "hf auth login" in told[address]
    stranger = Client(hub, tmp_path / "stranger", None)
    assert "hf auth login" in stranger.python(READ, REPOSITORY, home)[home]
