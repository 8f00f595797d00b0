"""The loopback Hub before huggingface_hub itself: repositories, commits, refs, downloads, rights, and faults on the way."""

import hashlib
import re
import subprocess
import sys

import pytest
from hub_fixtures import BEGIN, CARD, WEIGHTS, Client, Fault, LoopbackHub, log_in, start_hub  # noqa: F401


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A small folder with a card, a text in a subfolder, weights and a picture."""
    folder = tmp_path_factory.mktemp("to-push")
    (folder / "notes").mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "notes" / "a b.txt").write_text("grüße\n", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    return folder


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A repository's life


LIFE = (
    BEGIN
    + """
seen["who"] = api.whoami()["name"]
seen["url"] = str(api.create_repo("anna/x"))
seen["again"] = error(api.create_repo, "anna/x")
api.create_repo("anna/x", exist_ok=True)
first = api.upload_folder(repo_id="anna/x", folder_path=folder, commit_message="first", commit_description="why")
seen["first"] = first.oid
api.create_tag("anna/x", tag="v1", tag_message="the first")
seen["tag again"] = error(api.create_tag, "anna/x", tag="v1")
before = len(waits)
seen["unchanged"] = api.upload_folder(repo_id="anna/x", folder_path=folder, commit_message="nothing").oid
second = api.create_commit(
    "anna/x",
    [CommitOperationAdd("new.txt", b"new"), CommitOperationDelete("notes/"), CommitOperationDelete("picture.png")],
    commit_message="second",
    parent_commit=first.oid,
)
seen["second"] = second.oid
late = [CommitOperationAdd("late.txt", b"late"), CommitOperationDelete("new.txt")]
seen["stale"] = error(api.create_commit, "anna/x", late, commit_message="late", parent_commit=first.oid)
wrong = [CommitOperationAdd("half.txt", b"half"), CommitOperationDelete("absent.txt")]
seen["half"] = error(api.create_commit, "anna/x", wrong, commit_message="half")
bad_card = [CommitOperationAdd("README.md", b"---\\ntags: [a, 1]\\n---\\n")]
seen["bad card"] = error(api.create_commit, "anna/x", bad_card, commit_message="bad card")
seen["files"] = api.list_repo_files("anna/x")
seen["files at v1"] = api.list_repo_files("anna/x", revision="v1")
tree = list(api.list_repo_tree("anna/x", revision="v1"))
seen["top at v1"] = [one.path for one in tree]
seen["weights"] = next([one.size, one.blob_id, one.lfs.sha256] for one in tree if one.path == "model.safetensors")
seen["folder"] = [one.path for one in api.list_repo_tree("anna/x", "notes", revision="v1")]
seen["paths"] = [one.path for one in api.get_paths_info("anna/x", ["notes", "notes/a b.txt", "no"], revision="v1")]
seen["commits"] = [[one.commit_id, one.title, one.message, one.authors] for one in api.list_repo_commits("anna/x")]
api.create_branch("anna/x", branch="try/this", revision="v1")
api.upload_file(path_or_fileobj=b"branch", path_in_repo="b.txt", repo_id="anna/x", revision="try/this")
seen["on the branch"] = api.list_repo_files("anna/x", revision="try/this")
refs = api.list_repo_refs("anna/x")
seen["refs"] = {one.name: one.target_commit for one in refs.branches + refs.tags}
api.delete_branch("anna/x", branch="try/this")
seen["no branch"] = error(api.list_repo_files, "anna/x", revision="try/this")
seen["main"] = error(api.delete_branch, "anna/x", branch="main")
info = api.model_info("anna/x", revision="v1", files_metadata=True)
seen["info"] = [info.sha, info.pipeline_tag, info.card_data.license, info.tags, info.private]
seen["sizes"] = {one.rfilename: one.size for one in info.siblings}
seen["snapshot"] = snapshot_download("anna/x", revision="v1")
back = api.upload_folder(
    repo_id="anna/x", folder_path=seen["snapshot"], delete_patterns="*", commit_message="back to v1", revision="main"
)
seen["back"] = back.oid
seen["no file"] = error(api.hf_hub_download, "anna/x", "absent.txt")
seen["exists"] = [api.file_exists("anna/x", "README.md"), api.revision_exists("anna/x", "v1"), api.repo_exists("anna/no")]
api.move_repo("anna/x", "anna/y")
seen["moved"] = api.model_info("anna/x").id
seen["from the old name"] = Path(api.hf_hub_download("anna/x", "README.md", revision="v1")).read_text()
seen["tree under the old name"] = sorted(api.list_repo_files("anna/x", revision="v1"))
api.update_repo_settings("anna/y", private=True)
seen["moved and private"] = error(HfApi(token=False).model_info, "anna/x")
api.delete_tag("anna/y", tag="v1")
seen["no tag"] = error(api.list_repo_files, "anna/y", revision="v1")
api.create_repo("anna/s", repo_type="space", space_sdk="gradio")
api.upload_folder(repo_id="anna/s", repo_type="space", folder_path=folder, allow_patterns="notes/*")
seen["space"] = [api.list_repo_files("anna/s", repo_type="space"), api.get_space_runtime("anna/s").stage]
api.create_repo("anna/d", repo_type="dataset")
seen["dataset"] = api.list_repo_files("anna/d", repo_type="dataset")
api.delete_repo("anna/d", repo_type="dataset")
seen["deleted"] = error(api.dataset_info, "anna/d")
print(json.dumps(seen))
"""
)


@pytest.fixture(scope="module")
def life(folder, tmp_path_factory):
    """What huggingface_hub saw of a repository's whole life, and the Hub after it."""
    with LoopbackHub() as hub:
        hub.page = 3  # so that every list comes in pages
        yield Client(hub, tmp_path_factory.mktemp("life") / "anna", hub.token).python(LIFE, folder), hub


def test_a_folder_is_one_commit_and_comes_back_as_it_was(life, folder):
    seen, hub = life
    assert seen["who"] == "anna" and seen["url"] == f"{hub.endpoint}/anna/x"
    assert seen["again"].startswith("HfHubHTTPError: Client error '409 Conflict'")
    repository = hub.repository("model", "anna/y")
    pushed = files_of(folder)
    assert set(seen["files at v1"]) == {".gitattributes", *pushed}
    assert {name: repository.files(seen["first"])[name] for name in pushed} == pushed
    assert [commit.title for commit in repository.history] == ["back to v1", "second", "first", "initial commit"]
    assert repository.history[2].message == "why" and repository.history[2].author == "anna"


def test_pushing_the_same_again_changes_nothing(life):
    seen, hub = life
    assert seen["unchanged"] == seen["first"]
    assert "nothing" not in [commit.title for commit in hub.repository("model", "anna/y").history]


def test_large_files_go_through_the_storage_and_are_named_as_git_names_them(life, folder):
    seen, hub = life
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(WEIGHTS)}\n"
    git = ["git", "hash-object", "--stdin"]
    blob = subprocess.run(git, input=pointer, capture_output=True, text=True, check=True).stdout.strip()
    assert seen["weights"] == [len(WEIGHTS), blob, sha256]
    stored = hub.repository("model", "anna/y").resolve().files
    card = subprocess.run([*git[:2], folder / "README.md"], capture_output=True, text=True, check=True).stdout.strip()
    assert stored["README.md"].oid == card and stored["README.md"].sha256 is None
    assert {path for path, file in stored.items() if file.sha256} == {"model.safetensors", "picture.png"}
    # Pictures are not among a model's patterns: each got a line of its own.
    assert stored[".gitattributes"].content.endswith(b"\npicture.png filter=lfs diff=lfs merge=lfs -text\n")


def test_a_commit_onto_an_old_parent_or_with_one_wrong_part_leaves_all_as_it_was(life):
    seen, hub = life
    assert "412 Precondition Failed" in seen["stale"] and "A commit has happened since" in seen["stale"]
    assert seen["half"].startswith("RemoteEntryNotFoundError") and "absent.txt" in seen["half"]
    assert seen["bad card"].startswith("ValueError: Invalid metadata") and '"tags" must be an array' in seen["bad card"]
    assert seen["files"] == [".gitattributes", "README.md", "model.safetensors", "new.txt"]
    repository = hub.repository("model", "anna/y")
    assert not {"late.txt", "half.txt"} & {path for commit in repository.history for path in commit.files}


def test_lists_of_files_commits_and_refs(life):
    seen, _ = life
    at_v1 = [".gitattributes", "README.md", "model.safetensors", "notes/a b.txt", "picture.png"]
    assert sorted(seen["files at v1"]) == at_v1
    assert seen["top at v1"] == [".gitattributes", "README.md", "model.safetensors", "notes", "picture.png"]
    assert seen["folder"] == ["notes/a b.txt"] and seen["paths"] == ["notes", "notes/a b.txt"]
    assert [commit[1:] for commit in seen["commits"]] == [
        ["second", "", ["anna"]],
        ["first", "why", ["anna"]],
        ["initial commit", "", ["anna"]],
    ]
    assert [commit[0] for commit in seen["commits"][:2]] == [seen["second"], seen["first"]]
    assert seen["refs"] | {"try/this": ""} == {"main": seen["second"], "v1": seen["first"], "try/this": ""}
    assert "b.txt" in seen["on the branch"] and "notes/a b.txt" in seen["on the branch"]
    assert seen["refs"]["try/this"] not in (seen["first"], seen["second"])
    assert seen["tag again"].startswith("HfHubHTTPError") and "Tag reference exists already" in seen["tag again"]
    assert seen["no branch"].startswith("RevisionNotFoundError: 404") and "try/this" in seen["no branch"]
    assert "default branch cannot be deleted" in seen["main"]
    assert seen["no tag"].startswith("RevisionNotFoundError: 404")


def test_a_repository_tells_of_itself(life, folder):
    seen, _ = life
    assert seen["info"] == [seen["first"], "image-classification", "apache-2.0", ["small"], False]
    expected = {name: len(content) for name, content in files_of(folder).items()}
    assert {name: size for name, size in seen["sizes"].items() if name != ".gitattributes"} == expected
    assert seen["no file"].startswith("RemoteEntryNotFoundError: 404")
    assert seen["exists"] == [True, True, False]


def test_an_older_revision_committed_again_is_a_roll_back(life, folder):
    seen, hub = life
    repository = hub.repository("model", "anna/y")
    assert repository.resolve().oid == seen["back"] != seen["first"]
    assert repository.files() == repository.files(seen["first"])
    assert seen["snapshot"].endswith(seen["first"])
    # What the storage holds is not sent again, though the picture had been deleted in between.
    assert len([one for one in hub.requests if one.startswith("PUT /storage/anna/x/")]) == 2


def test_a_moved_repository_answers_under_its_old_name(life):
    seen, hub = life
    assert seen["moved"] == "anna/y" and seen["from the old name"] == CARD
    assert seen["tree under the old name"] == sorted(seen["files at v1"])
    assert seen["moved and private"].startswith("RepositoryNotFoundError: 401")
    assert ("model", "anna/x") not in hub.repositories


def test_spaces_and_data_sets_begin_with_what_the_hub_puts_there(life):
    seen, hub = life
    assert seen["space"] == [[".gitattributes", "README.md", "notes/a b.txt"], "BUILDING"]
    assert b"sdk: gradio" in hub.repository("space", "anna/s").files()["README.md"]
    assert seen["dataset"] == [".gitattributes"]
    assert seen["deleted"].startswith("RepositoryNotFoundError: 404")


# Rights


RIGHTS = (
    BEGIN
    + """
owner, other, reader, colleague, wrong, nobody = [HfApi(token=token or False) for token in sys.argv[2].split(",")]
owner.create_repo("anna/secret", private=True)
owner.upload_folder(repo_id="anna/secret", folder_path=folder)
owner.create_repo("anna/open")
for name, who in {"nobody": nobody, "other": other, "wrong": wrong}.items():
    seen[f"{name} reads"] = error(who.model_info, "anna/secret")
    seen[f"{name} downloads"] = error(who.hf_hub_download, "anna/secret", "README.md")
seen["reader reads"] = error(reader.hf_hub_download, "anna/secret", "model.safetensors")
seen["nobody reads what is open"] = error(nobody.model_info, "anna/open")
for name, who in {"nobody": nobody, "other": other, "reader": reader, "wrong": wrong}.items():
    seen[f"{name} creates"] = error(who.create_repo, "anna/new")
    add = dict(path_or_fileobj=b"x", path_in_repo="x", repo_id="anna/open")
    seen[f"{name} commits"] = error(who.upload_file, **add)
seen["unknown"] = error(nobody.model_info, "anna/absent")
seen["who is wrong"] = error(wrong.whoami)
seen["check"] = [error(who.auth_check, "anna/open", write=True)[:20] for who in (owner, other)]
seen["colleague"] = [error(colleague.create_repo, "lab/x"), [one["name"] for one in colleague.whoami()["orgs"]]]
owner.update_repo_settings("anna/secret", visibility="public")
seen["published"] = error(nobody.hf_hub_download, "anna/secret", "README.md")
owner.update_repo_settings("anna/secret", gated="manual")
seen["gated"] = [error(who.hf_hub_download, "anna/secret", "picture.png") for who in (nobody, other, owner)]
print(json.dumps(seen))
"""
)


def test_who_may_not_see_a_private_repository_does_not_learn_of_it(hub, client, folder):
    tokens = [
        hub.token,
        hub.add_user("bert"),
        hub.add_user("anna", "read"),
        hub.add_user("cora", organisations=("lab",)),
    ]
    seen = client.python(RIGHTS, folder, ",".join([*tokens, "hf_wrong", ""]))
    assert seen["nobody reads"].startswith("RepositoryNotFoundError: 401")
    assert seen["nobody downloads"].startswith("RepositoryNotFoundError: 401")
    assert seen["other reads"].startswith("RepositoryNotFoundError: 404")
    assert seen["other downloads"].startswith("RepositoryNotFoundError: 404")
    for told in ("wrong reads", "wrong downloads", "wrong creates", "wrong commits"):
        assert "Invalid credentials in Authorization header" in seen[told], told
    assert "Invalid user token" in seen["who is wrong"]
    assert seen["unknown"].startswith("RepositoryNotFoundError: 401")
    assert seen["reader reads"] == seen["nobody reads what is open"] == seen["published"] == ""
    assert "401" in seen["nobody creates"] and "401" in seen["nobody commits"]
    for who in ("other", "reader"):
        told = 'You don\'t have the rights to create a model under the namespace "anna"'
        assert told in seen[f"{who} creates"]
        assert "pass `create_pr=1` as a query parameter" in seen[f"{who} commits"]
    assert seen["check"][0] == "" and seen["check"][1].startswith("HfHubHTTPError")
    assert seen["colleague"] == ["", ["lab"]] and hub.repository("model", "lab/x").history
    assert [told.split(":")[0] for told in seen["gated"]] == ["GatedRepoError", "GatedRepoError", ""]
    assert [commit.title for commit in hub.repository("model", "anna/open").history] == ["initial commit"]


def test_a_client_that_tries_another_host_is_noticed(client):
    script = "import socket\ntry: socket.create_connection(('192.0.2.1', 80))\nexcept OSError as error: print(error)"
    with pytest.raises(AssertionError, match="tried to reach {'192.0.2.1'}"):
        client.run(sys.executable, "-c", script)
    done = client.run(sys.executable, "-c", script, may_try=("192.0.2.1",))
    assert done.stdout == "192.0.2.1: only loopback may be reached in this test\n"


def test_what_users_and_faults_must_not_be(hub):
    with pytest.raises(ValueError, match="role must be 'read' or 'write', not 'owner'"):
        hub.add_user("dora", "owner")
    with pytest.raises(KeyError, match="anna/absent"):
        hub.repository("model", "anna/absent")
    with pytest.raises(ValueError, match="kind must be a status, 'cut', 'lost' or 'slow', not 'broken'"):
        Fault(kind="broken")


# Faults on the way


PUSH = (
    BEGIN
    + """
for name in sys.argv[2:]:
    waits.clear()
    api.create_repo(name, exist_ok=True)
    # One large file, so that which request meets a fault is no matter of chance.
    push = dict(repo_id=name, folder_path=folder, ignore_patterns="*.png", commit_message="pushed")
    seen[name] = [error(api.upload_folder, **push), list(waits)]
print(json.dumps(seen))
"""
)
# What passes by: the fault, and how long the client waits before it tries again, in seconds.
PASSING = {
    "anna/cut": (Fault("PUT", "/storage/anna/cut", "cut", after_bytes=1_000_000, times=2), [1, 2]),
    "anna/lost": (Fault("PUT", "/storage/anna/lost", "lost"), [1]),
    "anna/500": (Fault("POST", "anna/500/preupload/", 500), [1]),
    "anna/503": (Fault("PUT", "/storage/anna/503", 503, times=3), [1, 2, 4]),
    "anna/429": (Fault("POST", "anna/429.git", 429, headers={"Retry-After": "7"}), [8]),
    "anna/slow": (Fault("POST", "anna/slow/commit/", "slow", seconds=0.2), []),
}
# What ends a push: huggingface_hub does not try a commit twice, and nothing for ever.
ENDING = {
    "anna/commit-cut": Fault("POST", "anna/commit-cut/commit/", "cut", after_bytes=50),
    "anna/commit-500": Fault("POST", "anna/commit-500/commit/", 500),
    "anna/commit-429": Fault("POST", "anna/commit-429/commit/", 429, headers={"Retry-After": "7"}),
    "anna/commit-lost": Fault("POST", "anna/commit-lost/commit/", "lost"),
    "anna/down": Fault("PUT", "/storage/anna/down", 503, times=6),
}


@pytest.fixture(scope="module")
def pushes(folder, tmp_path_factory):
    """What came of pushes to repositories on whose way a fault lay, each tried twice; and the Hub after each round."""
    with LoopbackHub() as hub:
        hub.faults += [fault for fault, _ in PASSING.values()] + list(ENDING.values())
        client = Client(hub, tmp_path_factory.mktemp("pushes") / "anna", hub.token)
        rounds = []
        for _ in range(2):
            seen = client.python(PUSH, folder, *PASSING, *ENDING)
            history = {name: [one.title for one in hub.repository("model", name).history] for name in seen}
            rounds.append((seen, history))
        yield rounds, hub


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_only_delays_a_push(name, pushes):
    (seen, history), _ = pushes[0]
    fault, waits = PASSING[name]
    assert fault.times == 0
    assert seen[name] == ["", waits]
    assert history[name] == ["pushed", "initial commit"]
    assert pushes[1].repository("model", name).files()["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("name", ENDING)
def test_a_push_that_failed_can_be_repeated_and_never_leaves_half(name, pushes, folder):
    ((first, history), (second, later)), hub = pushes
    assert ENDING[name].times == 0
    assert first[name][0] != "" and second[name] == ["", []]
    # The Hub may have done what it could not tell; then the second push finds nothing to do.
    assert history[name] == (["pushed"] if name == "anna/commit-lost" else []) + ["initial commit"]
    assert later[name] == ["pushed", "initial commit"]
    pushed = {path: content for path, content in files_of(folder).items() if path != "picture.png"}
    assert {path: hub.repository("model", name).files()[path] for path in pushed} == pushed


def test_the_errors_of_a_failed_push_say_what_happened(pushes):
    seen = pushes[0][0][0]
    assert "500 Internal Server Error" in seen["anna/commit-500"][0] and "429 Too Many" in seen["anna/commit-429"][0]
    assert seen["anna/down"][1] == [1, 2, 4, 8, 8]
    assert seen["anna/down"][0] == "RuntimeError: Error while uploading 'model.safetensors' to the Hub."
    assert re.match("(RemoteProtocol|Read|Write)Error", seen["anna/commit-cut"][0])
    assert re.match("(RemoteProtocol|Read)Error", seen["anna/commit-lost"][0])
