"""Downloads from the loopback Hub: what it answers on the wire, and that no fault and no full disk makes half a file whole."""

import base64
import hashlib
import json
import resource
import subprocess
from contextlib import contextmanager

import httpx
import pytest
from hub_fixtures import BEGIN, CARD, WEIGHTS, Client, Fault, LoopbackHub, log_in, start_hub  # noqa: F401
from hub_repositories import LARGE, Refusal, Repository, StoredFile, card_problems, is_binary

FILES = {"README.md": CARD.encode(), "notes/a b.txt": "grüße\n".encode(), "model.safetensors": WEIGHTS}
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


# On the wire


def test_a_small_file_is_answered_by_the_hub_itself(hub):
    repository = hub.add_repository("model", "anna/x", FILES)
    url = f"{hub.endpoint}/anna/x/resolve/main/notes/a%20b.txt"
    head, got = httpx.head(url), httpx.get(url)
    oid = StoredFile(FILES["notes/a b.txt"]).oid
    assert head.headers["etag"] == got.headers["etag"] == f'"{oid}"'
    assert head.headers["x-repo-commit"] == repository.resolve().oid
    assert head.headers["content-length"] == str(len(got.content)) and head.content == b""
    assert got.text == "grüße\n"


def test_a_large_file_lies_at_another_origin_and_comes_in_parts(hub):
    hub.add_repository("dataset", "anna/x", FILES)
    url = f"{hub.endpoint}/datasets/anna/x/resolve/main/model.safetensors"
    head = httpx.head(url)
    assert head.status_code == 302
    assert head.headers["x-linked-etag"] == f'"{SHA256}"' and head.headers["x-linked-size"] == str(len(WEIGHTS))
    target = head.headers["location"]
    assert hub.endpoint.startswith("http://127.0.0.1:") and target.startswith(f"http://localhost:{hub.port}/")
    other = httpx.head(url.replace("127.0.0.1", "localhost")).headers["location"]
    assert other.startswith(f"http://127.0.0.1:{hub.port}/")
    part = httpx.get(target, headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == WEIGHTS[1000:2000]
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(WEIGHTS)}"
    assert httpx.get(target, headers={"Range": f"bytes={len(WEIGHTS) - 5}-"}).content == WEIGHTS[-5:]
    beyond = httpx.get(target, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert beyond.status_code == 416 and beyond.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


def test_the_raw_file_of_a_large_one_is_its_pointer(hub):
    hub.add_repository("model", "anna/x", FILES)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\nsize {len(WEIGHTS)}\n"
    assert httpx.get(f"{hub.endpoint}/anna/x/raw/main/model.safetensors").text == pointer
    assert httpx.get(f"{hub.endpoint}/anna/x/raw/main/README.md").text == CARD


def test_a_signed_address_holds_for_what_it_was_signed_and_takes_no_token(hub):
    hub.add_repository("model", "anna/x", FILES)
    target = httpx.head(f"{hub.endpoint}/anna/x/resolve/main/model.safetensors").headers["location"]
    assert httpx.get(target, headers={"Authorization": f"Bearer {hub.token}"}).status_code == 403
    assert httpx.put(target, content=b"other").status_code == 403
    assert httpx.get(target[:-1]).status_code == 403
    assert httpx.get(target).content == WEIGHTS


def test_what_is_uploaded_must_be_what_was_announced(hub):
    hub.add_repository("model", "anna/x", {})
    mine = {"Authorization": f"Bearer {hub.token}"}
    asked = {"operation": "upload", "objects": [{"oid": SHA256, "size": len(WEIGHTS)}]}
    batch = httpx.post(f"{hub.endpoint}/anna/x.git/info/lfs/objects/batch", json=asked, headers=mine).json()
    actions = batch["objects"][0]["actions"]
    assert httpx.put(actions["upload"]["href"], content=WEIGHTS[:-1]).status_code == 400
    verify = {"url": actions["verify"]["href"], "json": asked["objects"][0], "headers": mine}
    assert httpx.post(**verify).status_code == 404
    assert httpx.put(actions["upload"]["href"], content=WEIGHTS).status_code == 200
    assert httpx.post(**verify).status_code == 200


def test_faults_do_what_they_say_and_no_more(hub):
    hub.add_repository("model", "anna/x", FILES)
    url = f"{hub.endpoint}/anna/x/resolve/main/README.md"
    hub.faults = [Fault("GET", "README", "cut", after_bytes=10, skip=1)]
    assert httpx.get(url).text == CARD
    received = b""
    with pytest.raises(httpx.RemoteProtocolError), httpx.stream("GET", url) as answer:
        assert answer.status_code == 200 and answer.headers["content-length"] == str(len(CARD))
        for part in answer.iter_raw():
            received += part
    assert received == CARD[:10].encode()
    assert httpx.get(url).text == CARD
    # A tag is set though nobody hears of it; of a request cut in its body nothing is done.
    tag = {"url": f"{hub.endpoint}/api/models/anna/x/tag/main", "headers": {"Authorization": f"Bearer {hub.token}"}}
    hub.faults = [Fault("POST", "/tag/", "cut"), Fault("POST", "/tag/", "lost"), Fault(path="/refs", kind=503)]
    for name in ("cut", "lost"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
            httpx.post(**tag, json={"tag": name})
    assert list(hub.repository("model", "anna/x").tags) == ["lost"]
    refs = f"{hub.endpoint}/api/models/anna/x/refs"
    assert [httpx.get(refs).status_code for _ in range(2)] == [503, 200]
    assert hub.requests.count("POST /api/models/anna/x/tag/main") == 2


NAMELESS = {"key": "header", "value": {"summary": ""}}
NAMED = {"key": "header", "value": {"summary": "one"}}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "0" * 64, "size": 1}}, "never uploaded"),
        ({"key": "file", "value": {"path": "../a", "content": "", "encoding": "base64"}}, "Invalid path: '../a'"),
        ({"key": "file", "value": {"path": ".git/config", "content": "", "encoding": "base64"}}, "Invalid path"),
        ({"key": "file", "value": {"path": "README.md/a", "content": "", "encoding": "base64"}}, "a file and a folder"),
        ({"key": "file", "value": {"path": "a", "content": "?", "encoding": "base64"}}, "as lines of JSON"),
        ({"key": "file", "value": {"path": "a"}}, "as lines of JSON"),
        ({"key": "rename", "value": {"path": "a"}}, "Unknown operation 'rename'"),
        (NAMELESS, "needs a summary"),
    ],
)
def test_a_commit_that_cannot_be_is_refused_whole(line, told, hub):
    repository = hub.add_repository("model", "anna/x", FILES)
    before = repository.resolve()
    fine = {"key": "file", "value": {"path": "fine", "content": base64.b64encode(b"1").decode(), "encoding": "base64"}}
    body = "\n".join(json.dumps(one) for one in (NAMED, fine, line))
    url = f"{hub.endpoint}/api/models/anna/x/commit/main"
    answer = httpx.post(url, content=body, headers={"Authorization": f"Bearer {hub.token}"})
    assert answer.status_code == 400 and told in answer.json()["error"], answer.text
    assert repository.resolve() is before


def test_the_rules_by_which_a_file_is_large():
    repository = Repository("model", "anna/x")
    assert repository.is_large("a.safetensors", b"text", 4, "main")
    assert repository.is_large("run/events.out.tfevents.1", b"text", 4, "main")
    assert repository.is_large("a.txt", b"text", LARGE, "main") and not repository.is_large("a.txt", b"text", 4, "main")
    assert repository.is_large("a.png", b"\x89PNG", 4, "main")
    assert not repository.is_large("a.png", b"", 0, "main")
    assert not is_binary("ä".encode() * 255 + b"\xc3") and is_binary(b"a\0b")
    assert Repository("dataset", "anna/x").is_large("a.png", b"text", 4, "main")


def test_what_the_hub_says_of_a_cards_head():
    assert card_problems(CARD.encode(), "model") == ([], [])
    assert card_problems(b"# No head", "model") == ([], ["empty or missing yaml metadata in repo card"])
    assert "cannot be read" in card_problems(b"---\na: [\n---\n", "model")[0][0]
    assert "must be a mapping" in card_problems(b"---\n- a\n---\n", "model")[0][0]
    assert card_problems(b"---\nlicense: 3\n---\n", "dataset")[0] == ['"license" must be a string']
    space = b"---\nsdk: flask\ncolorFrom: mauve\nshort_description: " + b"long" * 16 + b"\n---\n"
    assert [problem.split('"')[1] for problem in card_problems(space, "space")[0]] == [
        "sdk",
        "colorFrom",
        "short_description",
    ]


def test_a_revision_may_be_a_shortened_commit(hub):
    repository = hub.add_repository("model", "anna/x", FILES)
    assert repository.resolve(repository.history[1].oid[:7]) is repository.history[1]
    with pytest.raises(Refusal, match="Invalid rev id: 1234567"):
        repository.resolve("1234567")


# Faults on the way


PULL = (
    BEGIN
    + """
cache = Path(folder)
for name in sys.argv[2:]:
    waits.clear()
    seen[name] = {"error": error(snapshot_download, name), "waits": list(waits)}
    stored = cache / ("models--" + name.replace("/", "--"))
    seen[name]["snapshot"] = {one.name: one.stat().st_size for one in stored.glob("snapshots/*/*") if one.is_file()}
    seen[name]["offline"] = error(snapshot_download, name, local_files_only=True)
    seen[name]["left"] = sorted(one.stat().st_size for one in stored.glob("blobs/*.incomplete"))
print(json.dumps(seen))
"""
)
PASSING = {
    "anna/cut": (Fault("GET", "/storage/anna/cut", "cut", after_bytes=1_000_000, times=2), [1, 1]),
    "anna/429": (Fault("GET", "/storage/anna/429", 429, headers={"Retry-After": "2"}), [3]),
    "anna/lost": (Fault("GET", "/storage/anna/lost", "lost"), [1]),
    "anna/500": (Fault("HEAD", "anna/500/resolve/.*safetensors", 500), []),
    "anna/slow": (Fault("GET", "/storage/anna/slow", "slow", seconds=0.2), []),
}
ENDING = {
    "anna/dead": Fault("GET", "/storage/anna/dead", "lost", times=5),
    "anna/gone": Fault("GET", "/storage/anna/gone", 500),
}
ALL = {".gitattributes", "README.md", "model.safetensors", "notes/a b.txt"}


@pytest.fixture(scope="module")
def pulls(tmp_path_factory):
    """What came of downloads on whose way a fault lay, each tried twice, and the Hub."""
    with LoopbackHub() as hub:
        for name in [*PASSING, *ENDING]:
            hub.add_repository("model", name, FILES)
        # A cut that lets a third through comes before the fault that ends it: so there is half a file to be mistaken.
        hub.faults += [fault for fault, _ in PASSING.values()] + list(ENDING.values())
        hub.faults.insert(0, Fault("GET", "/storage/anna/dead", "cut", after_bytes=1_000_000))
        client = Client(hub, tmp_path_factory.mktemp("pulls") / "anna", hub.token)
        cache = client.here / "hf_home" / "hub"
        yield [client.python(PULL, cache, *PASSING, *ENDING) for _ in range(2)], hub, cache


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_only_delays_a_download(name, pulls):
    (first, _), _, cache = pulls
    fault, waits = PASSING[name]
    assert fault.times == 0
    assert (first[name]["error"], first[name]["waits"], first[name]["offline"]) == ("", waits, "")
    (got,) = cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/model.safetensors")
    assert got.read_bytes() == WEIGHTS


def test_a_cut_download_goes_on_where_it_stood(pulls):
    _, hub, _ = pulls
    assert len([one for one in hub.requests if one.startswith("GET /storage/anna/cut/")]) == 3


def test_an_answer_that_comes_too_late_is_asked_for_again(hub, client):
    hub.add_repository("model", "anna/x", FILES)
    hub.faults = [Fault("GET", "/storage/", "slow", seconds=4)]
    seen = client.python(PULL, client.here / "hf_home" / "hub", "anna/x", HF_HUB_DOWNLOAD_TIMEOUT="2")["anna/x"]
    assert seen["error"] == "" and 1 in seen["waits"]
    assert len([one for one in hub.requests if one.startswith("GET /storage/")]) >= 2
    (got,) = client.here.glob("hf_home/hub/models--anna--x/snapshots/*/model.safetensors")
    assert got.read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ENDING)
def test_a_download_that_failed_is_not_taken_for_whole(name, pulls):
    (first, second), _, cache = pulls
    assert ENDING[name].times == 0
    assert first[name]["error"] != "" and "model.safetensors" not in first[name]["snapshot"]
    assert (
        first[name]["offline"].startswith("IncompleteSnapshotError") and "model.safetensors" in first[name]["offline"]
    )
    assert second[name]["error"] == second[name]["offline"] == ""
    (got,) = cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/model.safetensors")
    assert got.read_bytes() == WEIGHTS


# A full disk


@contextmanager
def full_disk(home):
    """Mount a disk of 2 MB at ``home``; yields how to make it larger."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(home)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a small disk may not be mounted here: {done.stderr.strip()}")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=20m", str(home)], check=True)
    finally:
        subprocess.run(["umount", str(home)], check=True)


@contextmanager
def limited_files(home):
    """Let no file of the processes that are started grow beyond 2 MB, which needs no rights; yields how to lift that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("fill", "told"), [(full_disk, "No space left on device"), (limited_files, "File too large")], ids=["disk", "limit"]
)
def test_what_a_full_disk_cut_off_is_not_taken_for_whole(fill, told, hub, client):
    hub.add_repository("model", "anna/x", FILES)
    cache = client.here / "hf_home"
    with fill(cache) as make_room:
        full = client.python(PULL, cache / "hub", "anna/x")["anna/x"]
        assert told in full["error"], full
        assert "model.safetensors" not in full["snapshot"]
        assert full["offline"].startswith("IncompleteSnapshotError")
        make_room()
        room = client.python(PULL, cache / "hub", "anna/x")["anna/x"]
        assert room["error"] == room["offline"] == ""
        (got,) = cache.glob("hub/models--anna--x/snapshots/*/model.safetensors")
        assert got.read_bytes() == WEIGHTS
