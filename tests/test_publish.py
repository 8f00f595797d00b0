"""publish.py before a Hub: what it pushes loads in the real clients, a push is one commit, what fails changes nothing."""

import errno
import json
import re
import shutil
import signal

import pytest
from conftest import REPOSITORY
from hub_fixtures import Client, Fault, LoopbackHub
from huggingface_hub import HfApi
from publishing_fixtures import compose_once, desk_of, sit_down, start_quickly  # noqa: F401

import publish
from evaluation.results import weights_sha256
from publishing import releasing
from publishing.composing import pinned
from publishing.repositories import version_of

TAG = f"v{version_of(REPOSITORY)}"
MODEL, DATASET, SPACE = (
    ("model", "anna/wbc-resnet24"),
    ("dataset", "anna/kaggle-photos"),
    ("space", "anna/wbc-resnet24"),
)
ALL = (MODEL, DATASET, SPACE)


@pytest.fixture(scope="module")
def published():
    """The project, checked and published, and the process that did it."""
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        desk = desk_of(hub, patch)
        assert desk.publish() == 0, desk.err
        yield desk


def edit(tree, name, old, new):
    """Change a file of the tree; the old words must be there."""
    path = tree / name
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def one_more_line(tree, name="hub_model/README.md"):
    path = tree / name
    path.write_text(path.read_text("utf-8") + "\nOne line more.\n", "utf-8")


def titles(hub, repository, branch="main"):
    return [commit.title for commit in hub.repository(*repository).branches[branch].history]


# What stands on the Hub then


def test_each_folder_is_one_commit_with_the_versions_tag(published):
    for repository in ALL:
        one = published.hub.repository(*repository)
        assert titles(published.hub, repository) == [f"Version {TAG[1:]}", "initial commit"]
        assert one.tags.keys() == {TAG} and one.tags[TAG] is one.branches["main"]
    assert titles(published.hub, MODEL, "timm") == [f"Version {TAG[1:]}", "initial commit"]
    for branch in ("main", "timm"):
        files = published.hub.repository(*MODEL).files(branch)
        assert files["LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
        assert not [name for name in files if name.endswith((".bin", ".pt", ".pyc"))]
    for name, content in published.hub.repository(*MODEL).files().items():
        if (REPOSITORY / "hub_model" / name).is_file() and name not in ("README.md", "eval_results.json"):
            assert content == (REPOSITORY / "hub_model" / name).read_bytes(), name


def test_the_space_names_the_model_and_its_commit(published, tmp_path):
    files = published.hub.repository(*SPACE).files()
    (tmp_path / "smear_model.py").write_bytes(files["smear_model.py"])
    head = published.hub.repository(*MODEL).branches["main"].oid
    assert pinned(tmp_path) == {"MODEL": "anna/wbc-resnet24", "REVISION": head}
    assert b"models:\n  - anna/wbc-resnet24\n" in files["README.md"]
    own = re.compile(rb"\bwbc-resnet/(wbc-resnet24|kaggle-photos)")
    for repository in ALL:
        stale = [name for name, content in published.hub.repository(*repository).files().items() if own.search(content)]
        assert not stale, "they call a repository by the project's own namespace"


CLIENTS = """
import json, sys
from pathlib import Path
import numpy as np, timm, torch
from datasets import load_dataset
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

photo, tag = sys.argv[1:]
image = Image.open(photo).convert("RGB")
seen = {}
ours = {"plain": {}, "ours": {"trust_remote_code": True}, "tag": {"revision": tag, "trust_remote_code": True}}
pixels = AutoImageProcessor.from_pretrained("anna/wbc-resnet24")(image, return_tensors="pt")
with torch.no_grad():
    for door, options in ours.items():
        model = AutoModelForImageClassification.from_pretrained("anna/wbc-resnet24", **options)
        seen[door] = model(**pixels).logits[0].tolist()
    network = timm.create_model("hf-hub:anna/wbc-resnet24@timm", pretrained=True).eval()
    seen["timm"] = network(pixels["pixel_values"])[0].tolist()
seen["timm's labels"] = list(network.pretrained_cfg["label_names"])
seen["pipeline"] = pipeline("image-classification", "anna/wbc-resnet24", trust_remote_code=False)(image)[0]["label"]
seen["rows"] = len(load_dataset("anna/kaggle-photos", "photos", split="train"))
folder = Path(snapshot_download("anna/wbc-resnet24", revision=tag))
seen["files"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
print(json.dumps(seen))
"""


def test_the_real_clients_load_what_was_pushed(published, tmp_path):
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    photo = REPOSITORY / "space" / "examples" / "eosinophil.png"
    client = Client(published.hub, tmp_path / "stranger", None)
    # datasets asks the Hub's viewer for a converted copy, and does without where there is none.
    seen = client.python(CLIENTS, photo, TAG, may_try=("datasets-server.127.0.0.1",), HF_UPDATE_DOWNLOAD_COUNTS="0")
    pixels = AutoImageProcessor.from_pretrained(REPOSITORY / "hub_model")(Image.open(photo), return_tensors="pt")
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(REPOSITORY / "hub_model", trust_remote_code=False)
        expected = model(**pixels).logits[0].tolist()
    for door in ("plain", "ours", "tag", "timm"):
        assert seen[door] == pytest.approx(expected, abs=1e-6), door
    assert seen["pipeline"] == "eosinophil"
    assert seen["timm's labels"] == [model.config.id2label[number] for number in range(model.config.num_labels)]
    assert seen["rows"] == len((REPOSITORY / "hub_dataset" / "photos.csv").read_text().splitlines()) - 1
    assert seen["files"] == sorted(published.hub.repository(*MODEL).files())


def test_a_second_run_pushes_nothing_and_says_so(published, monkeypatch):
    monkeypatch.setattr(releasing, "check_folders", lambda *_: [])  # of the same folders; the export is made anew
    before = published.heads
    assert published.publish() == 0, published.err
    assert published.writes == [] and published.heads == before
    assert published.out.count("nothing has changed") == 4 and "Nothing was pushed" in published.out


def test_nothing_was_pushed_whatever_the_namespace_is_called(desk, tree):
    desk.patch.setenv("HF_TOKEN", desk.hub.add_user("anna", organisations=("heritage-lab",)))
    options = ("--what", "model,space", "--private")
    assert desk.publish(*options, namespace="heritage-lab") == 0, desk.err
    assert desk.out.startswith("Published:\n") and "The Space needs a secret HF_TOKEN" in desk.out
    assert desk.publish(*options, namespace="heritage-lab") == 0 and desk.writes == []
    assert desk.out.startswith("Nothing was pushed:\n") and "The Space needs a secret HF_TOKEN" in desk.out
    for one in desk.hub.repositories.values():
        one.tags.clear()
    assert desk.publish(*options, namespace="heritage-lab") == 0 and desk.writes
    assert desk.out.startswith("Published:\n") and f"nothing has changed, tag {TAG}\n" in desk.out


# Again, changed, rolled back, rehearsed


def test_one_changed_file_is_one_commit_of_a_new_version(desk, tree):
    assert desk.publish() == 0, desk.err
    first, before = desk.hub.repository(*MODEL).branches["main"], desk.heads
    one_more_line(tree)
    assert desk.publish() == 1
    assert f"the tag {TAG} stands on {first.oid[:12]} with other files (1 changed)" in desk.err
    assert "expected a new version for new files. Raise version in pyproject.toml" in desk.err
    assert desk.writes == [] and desk.heads == before
    edit(tree, "pyproject.toml", f'version = "{TAG[1:]}"', 'version = "1.7.0"')
    assert desk.publish() == 0, desk.err
    model = desk.hub.repository(*MODEL)
    assert titles(desk.hub, MODEL)[:2] == ["Version 1.7.0", f"Version {TAG[1:]}"]
    changed = [name for name, content in model.files().items() if content != first.files[name].content]
    assert changed == ["README.md"]
    assert len(titles(desk.hub, MODEL, "timm")) == len(titles(desk.hub, DATASET)) == 2
    assert titles(desk.hub, SPACE)[0] == "Version 1.7.0", "it follows the model"
    assert (
        f'REVISION = "{model.branches["main"].oid}"'.encode() in desk.hub.repository(*SPACE).files()["smear_model.py"]
    )
    assert all(desk.hub.repository(*one).tags["v1.7.0"] is desk.hub.repository(*one).branches["main"] for one in ALL)
    assert model.tags[TAG] is first


def test_an_older_tree_rolls_back(desk, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "older")
    assert desk.publish() == 0, desk.err
    first = {one: desk.hub.repository(*one).branches["main"] for one in ALL}
    one_more_line(tree)
    (tree / "hub_model" / "handler.py").write_text("# new\n")
    assert desk.publish("--version", "1.7.0") == 0, desk.err
    desk.patch.setattr(publish, "ROOT", tmp_path / "older")
    assert desk.publish("--message", "Back to the version before") == 0, desk.err
    for one in (MODEL, SPACE):
        repository = desk.hub.repository(*one)
        assert titles(desk.hub, one)[0] == "Back to the version before"
        assert repository.files() == {name: stored.content for name, stored in first[one].files.items()}
        assert repository.tags[TAG] is first[one] and repository.tags["v1.7.0"] is not first[one]
    before = desk.heads
    assert desk.publish() == 0 and desk.writes == [] and desk.heads == before


def test_a_rehearsal_writes_nothing_and_tells_all(desk, tree):
    assert desk.publish("--dry-run") == 0, desk.err
    assert desk.writes == [] and desk.hub.repositories == {}
    assert "Nothing was written; this is what would be:" in desk.out
    assert f"dataset anna/kaggle-photos: would be made; 5 new would be pushed; the tag {TAG} would be set" in desk.out
    assert "\n    smear_model.py\n" in desk.out
    assert desk.publish() == 0
    one_more_line(tree, "hub_dataset/README.md")
    assert desk.publish("--dry-run", "--version", "1.7.0") == 0
    assert (
        "dataset anna/kaggle-photos: 1 changed would be pushed; the tag v1.7.0 would be set\n    README.md" in desk.out
    )
    assert desk.writes == []


def test_what_is_asked_for_is_pushed_and_nothing_else(desk, tree):
    assert desk.publish("--what", "space") == 1
    assert "There is no model anna/wbc-resnet24 for the Space to load" in desk.err and desk.hub.repositories == {}
    assert desk.publish("--what", "model,dataset") == 0
    assert desk.hub.repositories.keys() == {MODEL, DATASET}
    assert desk.publish("--what", "space") == 0
    head = desk.hub.repository(*MODEL).branches["main"].oid
    assert f'REVISION = "{head}"'.encode() in desk.hub.repository(*SPACE).files()["smear_model.py"]
    with pytest.raises(SystemExit):
        publish.parse(["--namespace", "anna", "--what", "modell"])


def test_private_repositories(desk, tree):
    assert desk.publish("--private") == 0, desk.err
    assert all(desk.hub.repository(*one).private for one in ALL)
    assert "The Space needs a secret HF_TOKEN" in desk.out
    desk.hub.repository(*DATASET).private = False
    before = desk.heads
    assert desk.publish("--private") == 1
    assert "dataset anna/kaggle-photos is public already; expected a private one for --private" in desk.err
    assert desk.heads == before and desk.writes == []


# Interrupted


def test_cut_off_in_the_middle_the_hub_is_as_it_was_and_the_same_command_completes(desk, tree):
    cut = Fault("PUT", "/storage/", "cut", after_bytes=5000, times=1000, skip=3)
    desk.hub.faults.append(cut)
    assert desk.publish() == 1
    assert "cannot be reached" in desk.err and "run it again" in desk.err
    assert desk.hub.repositories == {}, "what was made for this run is taken back"
    desk.hub.faults.clear()
    assert desk.publish() == 0, desk.err
    before = desk.heads
    one_more_line(tree)
    desk.hub.faults.append(Fault("POST", "/commit/", "cut", after_bytes=5000, times=1000))
    assert desk.publish("--version", "1.7.0") == 1
    assert desk.heads == before
    desk.hub.faults.clear()
    assert desk.publish("--version", "1.7.0") == 0 and titles(desk.hub, MODEL)[0] == "Version 1.7.0"


def test_what_is_already_whole_stays_and_the_rest_follows(desk, tree):
    desk.hub.faults.append(Fault("POST", "/datasets/.*/commit/", 503, times=1000))
    assert desk.publish() == 1
    assert "fails (HTTP 503" in desk.err and "Already there, each whole: model anna/wbc-resnet24: " in desk.err
    assert desk.hub.repositories.keys() == {MODEL}
    model = desk.heads
    desk.hub.faults.clear()
    assert desk.publish() == 0
    assert desk.hub.repositories.keys() == set(ALL) and model.items() <= desk.heads.items()


def test_a_lost_answer_makes_no_second_commit(desk, tree):
    desk.hub.faults.append(Fault("POST", "/commit/main", "lost"))
    desk.hub.faults.append(Fault("POST", "/branch/timm", "lost"))
    desk.hub.faults.append(Fault("POST", "/repos/create", "lost"))
    desk.hub.faults.append(Fault("POST", "/tag/", "lost"))
    assert desk.publish() == 0, desk.err
    assert all(len(titles(desk.hub, one)) == 2 for one in ALL)


def test_faults_that_pass_are_waited_for(desk, tree):
    limit = {"RateLimit": '"api";r=0;t=120', "RateLimit-Policy": '"fixed window";"api";q=1000;w=300'}
    desk.hub.faults.append(Fault("POST", "/models/.*/commit/main", 429, headers=limit))
    desk.hub.faults.append(Fault("POST", "/spaces/.*/commit/main", 500))
    desk.hub.faults.append(Fault("GET", "/api/whoami-v2", 503))
    assert desk.publish() == 0, desk.err
    assert 121.0 in desk.waits, "as long as the Hub says"
    desk.hub.faults.append(Fault("GET", "/api/models/", 429, times=1000))
    assert desk.publish() == 1 and "has had too many requests" in desk.err


@pytest.mark.parametrize("when", ["between", "at the commit"])
def test_somebody_pushes_meanwhile(desk, tree, when):
    assert desk.publish() == 0
    one_more_line(tree)
    model = desk.hub.repository(*MODEL)

    def somebody():
        api = HfApi(endpoint=desk.hub.endpoint, token=desk.hub.token)
        real(api, MODEL[1], [publish_add(b"hers")], commit_message="hers")

    if when == "between":
        real = HfApi.create_commit
        look = publish.Hub.look

        def looked(self, kind, repo_id, branch="main"):
            if kind == "space" and titles(desk.hub, MODEL)[0] != "hers":
                somebody()
            return look(self, kind, repo_id, branch)

        desk.patch.setattr(publish.Hub, "look", looked)
    else:
        real = HfApi.create_commit

        def late(self, *args, **options):
            somebody()
            return real(self, *args, **options)

        desk.patch.setattr(HfApi, "create_commit", late)
    assert desk.publish("--version", "1.7.0") == 1
    assert "somebody pushed" in desk.err and "meanwhile" in desk.err
    assert titles(desk.hub, MODEL)[0] == "hers" and "v1.7.0" not in model.tags


def publish_add(content):
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd("hers.txt", content)


def test_control_c(desk, tree):
    real = HfApi.create_commit

    def interrupted(self, repo_id, *args, **options):
        if options["repo_type"] == "dataset":
            raise KeyboardInterrupt
        return real(self, repo_id, *args, **options)

    desk.patch.setattr(HfApi, "create_commit", interrupted)
    assert desk.publish() == 130
    assert "Interrupted. Each repository is as it was or whole; the same command goes on from there." in desk.err
    assert desk.hub.repositories.keys() == {MODEL}
    desk.patch.setattr(HfApi, "create_commit", real)
    assert desk.publish() == 0 and desk.hub.repositories.keys() == set(ALL)


def test_being_ended_is_an_interruption(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(publish, "publish", lambda options: handlers[signal.SIGTERM](signal.SIGTERM, None))
    assert publish.main(["--namespace", "anna"]) == 130


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "copying",
            "The folders cannot be put together ([Errno 28] No space left on device); expected room for copies in",
        ),
        ("uploading", "The disk is full (temporary files); expected room. Free some, or set TMPDIR."),
    ],
)
def test_a_full_disk(desk, tree, place, message):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    if place == "copying":
        desk.patch.setattr(shutil, "copytree", full)
    else:
        desk.patch.setattr(HfApi, "create_commit", full)
    assert desk.publish() == 1
    assert message in desk.err and "TMPDIR" in desk.err
    assert desk.hub.repositories == {}


# Who may


def refused(desk, *options, **more):
    assert desk.publish(*options, **more) == 1
    assert desk.writes == [] and len(desk.err.splitlines()) == 1
    return desk.err


def test_no_token_a_wrong_one_and_one_that_may_only_read(desk, tree, tmp_path):
    desk.patch.setenv("HF_TOKEN", "hf_" + "0" * 34)
    assert "refuses the token from HF_TOKEN; expected a valid one that may write" in refused(desk)
    desk.patch.setenv("HF_TOKEN", "hf_ünï")
    assert "The token from HF_TOKEN holds letters that no token has; expected hf_" in refused(desk)
    desk.patch.setenv("HF_TOKEN", desk.hub.add_user("anna", "read"))
    assert "of anna) may only read; expected one that may write in anna" in refused(desk)
    desk.patch.delenv("HF_TOKEN")
    desk.patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "No token was found; expected one that may write. Set HF_TOKEN, or run: hf auth login" in refused(desk)
    (tmp_path / "token").write_text(desk.hub.token)  # as ``hf auth login`` leaves it
    assert desk.publish("--dry-run") == 0, desk.err


def test_whose_namespace(desk, tree):
    other = "belongs to anna, who is no member of bert; expected --namespace anna"
    assert other in refused(desk, namespace="bert")
    assert "'anna/x' is no name on the Hub" in refused(desk, namespace="anna/x")
    desk.patch.setenv("HF_TOKEN", desk.hub.add_user("anna", organisations=("a-lab",)))
    assert desk.publish("--what", "dataset", namespace="a-lab") == 0, desk.err
    assert desk.hub.repository("dataset", "a-lab/kaggle-photos")
    assert "expected --namespace anna or one of a-lab" in refused(desk, namespace="bert")


def test_a_token_whose_right_is_withdrawn_meanwhile(desk, tree):
    desk.hub.faults.append(Fault("POST", "/repos/create", 403, skip=1))
    assert desk.publish() == 1
    assert "forbids it (" in desk.err and desk.hub.repositories == {}


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 cannot be reached"),
        ("127.0.0.1", "127.0.0.1 cannot be reached"),
        ("http://[bad", "[bad"),
    ],
)
def test_no_way_to_the_hub(desk, tree, endpoint, message):
    desk.patch.setenv("HF_ENDPOINT", endpoint)
    error = refused(desk)
    assert message in error and "HF_ENDPOINT" in error
    assert desk.waits == [], "a Hub that never answered is asked once"


def test_the_network_is_forbidden(desk, tree):
    desk.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from huggingface_hub.utils import close_session

    close_session()  # the client is made anew and then reads the switch
    try:
        assert "HF_HUB_OFFLINE forbids the network" in refused(desk)
    finally:
        close_session()


def test_an_address_that_is_no_hub(desk, tree):
    desk.hub.faults.append(Fault("GET", "/api/whoami-v2", 200))
    assert "does not say whose token it is; expected a Hub. Correct HF_ENDPOINT." in refused(desk)


# Whose repository


def test_somebody_elses_files_are_not_overwritten_unless_told(desk, tree):
    desk.hub.add_repository(*MODEL, {"README.md": b"---\nlicense: mit\n---\n# Mine\n", "weights.bin": b"\0" * 99})
    before = desk.heads
    error = refused(desk)
    assert "model anna/wbc-resnet24 holds what publish.py did not put there (last commit: 'pushed', 2 files)" in error
    assert "or give --replace" in error and desk.heads == before
    assert desk.publish("--replace") == 0, desk.err
    assert titles(desk.hub, MODEL) == [f"Version {TAG[1:]}", "pushed", "initial commit"]
    assert "weights.bin" not in desk.hub.repository(*MODEL).files()


def test_a_card_edited_on_the_hub_is_not_lost(desk, tree):
    assert desk.publish() == 0
    api = HfApi(endpoint=desk.hub.endpoint, token=desk.hub.token)
    api.upload_file(path_or_fileobj=b"edited", path_in_repo="notes.md", repo_id=MODEL[1], commit_message="Update")
    assert "did not put there (last commit: 'Update'" in refused(desk, "--version", "1.7.0")


def test_an_empty_repository_made_by_hand_is_filled(desk, tree):
    api = HfApi(endpoint=desk.hub.endpoint, token=desk.hub.token)
    api.create_repo(SPACE[1], repo_type="space", space_sdk="gradio")
    assert desk.publish() == 0, desk.err
    assert titles(desk.hub, SPACE) == [f"Version {TAG[1:]}", "initial commit"]


# What is wrong with a folder


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_pushed(desk, tmp_path, monkeypatch):
    from publishing_fixtures import state_another_accuracy, tree_of

    tree = tree_of(tmp_path / "project")
    monkeypatch.setattr(publish, "ROOT", tree)
    (tree / "hub_model" / "training_args.bin").write_bytes(b"\x80\x04\x95pickle")
    state_another_accuracy(tree / "hub_model" / "README.md")
    (tree / "hub_dataset" / "notes.csv").write_text("a\n1\n")
    with (tree / "space" / "texts.py").open("a") as stream:
        stream.write(f'\nTOKEN = "{"hf_" + "a1B2" * 8}"\n')
    assert desk.publish() == 1
    assert desk.writes == [] and desk.hub.repositories == {}
    lines = desk.err.splitlines()
    assert any(
        re.match(r"error: hub_model/training_args.bin: a file that may hold a pickle.*Remove it\.$", line)
        for line in lines
    )
    assert any(re.match(r"error: hub_model/README.md: .*model-index differs from eval_results", line) for line in lines)
    assert any(line.startswith("error: hub_dataset/notes.csv: a file that nobody expects") for line in lines)
    assert any(
        re.match(r"error: space/texts.py: line \d+: what looks like a Hugging Face token \(hf_a1B2a\.\.\.", line)
        for line in lines
    )
    assert re.fullmatch(r"\d+ faults; nothing was pushed\.", lines[-1])


def test_the_version_and_the_spaces_own_pin_are_one(published):
    """Run from a clone without a folder beside it, the page asks for the version that is published."""
    assert pinned(REPOSITORY / "space") == {"MODEL": "wbc-resnet/wbc-resnet24", "REVISION": TAG}
    results = json.loads((REPOSITORY / "hub_model" / "eval_results.json").read_text())
    assert results["model"] == results["model"] | {
        "name": "wbc-resnet/wbc-resnet24",
        "sha256": weights_sha256(REPOSITORY / "hub_model"),
    }
