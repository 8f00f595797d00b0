"""Images that lie elsewhere: in Google's and Amazon's storage, as emulators answer, and on the Hub, as our own one does."""

import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from hub_fixtures import Client, log_in, start_hub  # noqa: F401
from peers_fixtures import overlaid
from PIL import Image
from pyarrow import fs as arrow_fs

import score
from scoring import locations
from scoring.locations import ScoringError, list_input, locate, read_input, without_keys, without_secrets
from scoring.manifest import alone, list_once, open_folder, read_listed
from scoring.reading import read_file
from scoring.stages import Task, Work, _chunks

SECRET = "wJalrXUtnFEMI+K7MDENG"


def picture(seed):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def serve(*command):
    """Start a server of tests/peers on a free port, and yield the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", *(word.format(port=port) for word in command)],
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
            pytest.fail(f"{command[0]} does not answer")
        yield port
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def google():
    """Google's storage with one empty bucket, ``cells``."""
    command = ["gcp_storage_emulator", "start", "--host=127.0.0.1", "--port={port}", "--in-memory"]
    for port in serve(*command, "--default-bucket=cells", "--quiet"):
        yield Bucket("gs://anonymous@", f"?endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=20")


@pytest.fixture(scope="module")
def amazon():
    """Amazon's storage with one empty bucket, ``cells``, opened with a secret in the address."""
    for port in serve("moto.server", "--host=127.0.0.1", "--port={port}"):
        options = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        found = Bucket(f"s3://anna:{SECRET}@", options)
        store, _ = arrow_fs.FileSystem.from_uri(found.address() + "&allow_bucket_creation=true")
        store.create_dir("cells")
        yield found


@pytest.fixture(params=["google", "amazon"])
def bucket(request):
    return request.getfixturevalue(request.param)


@dataclass(frozen=True)
class Bucket:
    """How the bucket ``cells`` of a storage is opened, and how what lies in it is shown."""

    start: str
    options: str

    def address(self, path=""):
        return f"{self.start}cells/{path}{self.options}"

    def shown(self, path):
        return f"{self.start.partition('://')[0]}://cells/{path}"

    def put(self, files):
        store, _ = arrow_fs.FileSystem.from_uri(self.address())
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
    bucket.put(files | {"plain/lab/notes.txt": b"x", "plainer/e.jpg": b"x"})
    shown = {bucket.shown(path): content for path, content in files.items() if "hidden" not in path}
    assert found_in(bucket.address("plain")) == shown
    assert found_in(bucket.address("plain/*/*.jpg")) == {bucket.shown("plain/lab/b.jpg"): b"lab/b.jpg"}
    one = "plain/lab/deep/c.png"
    assert found_in(bucket.address(one)) == {bucket.shown(one): b"lab/deep/c.png"}
    without = bucket.address("plain/lab")
    assert found_in(bucket.address("plain"), without) == {bucket.shown("plain/a.jpg"): b"a.jpg"}
    with pytest.raises(ScoringError, match="nothing is there") as told:
        read_input(bucket.address("plain/nowhere"))
    assert SECRET not in str(told.value)


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
    store = bucket.put({f"smears/lab{number % 2}/{number}.png": picture(number) for number in range(6)})
    command = [sys.executable, str(REPOSITORY / "score.py"), bucket.address("smears")]
    command += ["--out", bucket.address("smears/scores"), "--model", str(REPOSITORY / "hub_model")]
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    said = []
    for _ in range(2):
        # A key may have been replaced since, with its name: the run is still the same.
        command = [word.replace(f"anna:{SECRET}", f"otto:{SECRET[::-1]}") for word in command]
        done = subprocess.run([*command, "--chunk", "2"], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout)
        files = store.get_file_info(arrow_fs.FileSelector("cells/smears/scores", recursive=True))
        rows = pq.ParquetFile(
            store.open_input_file(next(one.path for one in files if one.path.endswith(".parquet")))
        ).read()
        expected = sorted(bucket.shown(f"smears/lab{number % 2}/{number}.png") for number in range(6))
        assert sorted(rows["path"].to_pylist()) == expected
        assert rows["error"].null_count == 6
        written = {
            one.path: store.open_input_file(one.path).read() for one in files if one.type == arrow_fs.FileType.File
        }
        assert "cells/smears/scores/__score/run.json" in written
        for secret in (SECRET, SECRET[::-1]):
            assert secret not in done.stdout + done.stderr
            assert not [path for path, content in written.items() if secret.encode() in content]
    assert "6 images, 0 of them with an error" in said[0] and "6 of them now" in said[0]
    assert "nothing was left to do" in said[1]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("s3://AKIA12:s3cr+t@cells/lab?region=x failed", "s3://AKIA12:***@cells/lab?region=x failed"),
        ("https://a.org/c.png?sv=1&sig=Ab%2B&se=2", "https://a.org/c.png?sv=1&sig=***&se=2"),
        ("'https://a.org/c.png?X-Amz-Security-Token=t&X-Amz-Signature=s'", None),
        ("sftp://anna:pass@host:22/cells and s3://cells?secret_key=abc", None),
        ("s3://AKIA12:s3c/r+t@cells/lab", "s3://AKIA12:***@cells/lab"),  # malformed, and told of
        ("s3://AKIA12:se@cret@cells/lab", "s3://AKIA12:***@cells/lab"),
        ("sftp://host:22/anna@home.jpg", "sftp://host:22/anna@home.jpg"),
        ("github://anna:cells@main/lab", "github://anna:cells@main/lab"),
        ("https://a.org/c?key=1.png&page=2", "https://a.org/c?key=1.png&page=2"),
        ("gs://anonymous@cells/x?retry_limit_seconds=1", "gs://anonymous@cells/x?retry_limit_seconds=1"),
        ("s3://cells/12:30/a@b.jpg", "s3://cells/12:30/a@b.jpg"),
        ("/home/anna/a:b@c.jpg?key=1", "/home/anna/a:b@c.jpg?key=1"),
        ("C:\\cells\\a.jpg", "C:\\cells\\a.jpg"),
    ],
)
def test_what_is_told_of_an_address_is_without_its_secrets(said, told):
    found = without_secrets(said)
    if told is not None:
        assert found == told
    else:
        assert found.count("***") == 2
        assert not [secret for secret in ("=t&", "=s'", "pass@", "=abc") if secret in found]
    assert str(ScoringError(said)) == found


def test_a_fault_that_was_not_foreseen_is_told_whole_and_without_keys(monkeypatch, tmp_path):
    def breaks_off(options):
        raise RuntimeError(f"a task lost s3://anna:{SECRET}@cells/a.png")

    monkeypatch.setattr(score, "score", breaks_off)
    with pytest.raises(SystemExit) as ended:
        score.main(["cells", "--out", str(tmp_path / "out")])
    told = ended.value.code
    assert (
        "breaks_off" in told
        and "RuntimeError: a task lost s3://" in told
        and told.splitlines()[-1].startswith("error:")
    )
    assert SECRET not in told


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3://AKIA1:a@cells/x?region=r", "s3://AKIA2:b@cells/x?region=r", True),
        ("https://a.org/c.png?v=1&sig=A", "https://a.org/c.png?v=1&sig=B", True),
        ("https://a.org/c.png?v=1&sig=A", "https://a.org/c.png?v=2&sig=A", False),
        ("github://anna:cells@main/x", "github://anna:other@main/x", False),
        ("s3://a:1@cells/x@1.png", "s3://a:1@cells/x@2.png", False),
        ("sftp://anna@host/x", "sftp://otto@host/x", False),
        ("/cells/a:b@c?sig=1", "/cells/a:b@c?sig=2", False),
    ],
)
def test_an_address_names_the_same_whichever_key_opens_it(one, other, same):
    assert (without_keys(one) == without_keys(other)) == same


@pytest.fixture
def website(tmp_path):
    """A web server of the folder ``site``; it takes whatever stands behind a ``?``."""
    (tmp_path / "site").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "site"
        server.shutdown()


def test_a_signed_address_is_read_and_its_signature_stored_nowhere(website, tmp_path):
    address, site = website
    for name in "ab":
        (site / f"{name}.png").write_bytes(name.encode())
    asked = {"inputs": [f"{address}/{name}.png?v=1&sig={SECRET}" for name in "ab"], "column": None}
    folder = open_folder(str(tmp_path / "out"))
    with alone(folder):
        list_once(folder, asked, 10, lambda number: None)
    listed = read_listed(folder, "files", 0)
    assert [root for root, _ in listed] == [0, 1]
    work = Work(tuple(asked["inputs"]), folder.place.address, 10, 10, False, False, None, "float32", "cpu")
    ((_, items, _),) = _chunks(Task("files-000000", 0, 1), work)
    read = list(items)
    assert [(item.path, item.data) for item in read] == [
        (f"{address}/{name}.png?v=1&sig=***", name.encode()) for name in "ab"
    ]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written and not [path for path in written if SECRET.encode() in path.read_bytes()]


READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
from collections import Counter
from scoring.locations import ScoringError, list_input, locate, read_input, without_secrets
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
