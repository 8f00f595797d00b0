"""A training of one's own on the Hub: the finished folder with a card of its own, checked and pushed like the project's."""

import json
import pickle
import shlex
import shutil
import sys

import pytest
from conftest import REPOSITORY
from hub_fixtures import Client
from made_up import made_up_entry, made_up_results, made_up_training
from publishing_fixtures import sit_down  # noqa: F401
from smear_drawings import write_class_folders

import publish
import train
from evaluation.command import without_token
from evaluation.results import read_results, weights_sha256, write_results
from publishing import training
from publishing.card_checks import check_figures, check_head
from publishing.faults import FolderRefused, PublishingError
from publishing.file_checks import check_files
from publishing.training import check_destination, compose_training, read_licences, without_paths

NAMES = ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
COMMAND = "python train.py --data_dir /home/anna/slides/my_cells pbc --output_dir /tmp/runs/mine"
LICENCE = ["my_cells=CC BY-SA 4.0"]


@pytest.fixture
def trained(model_folder, tmp_path):
    """A finished training's folder as train.py leaves it, measured on cells of one's own and on PBC."""
    folder = tmp_path / "mine" / "model"
    shutil.copytree(model_folder, folder)
    shutil.copy(REPOSITORY / "hub_model" / "differential.schema.json", folder)
    entries = [made_up_entry(split, 1, data, NAMES) for data, split in (("my_cells", "validation"), ("pbc", "TEST"))]
    results = made_up_results() | {"results": entries, "training": made_up_training(command=COMMAND)}
    results["model"] = {"name": "mine", "parameters": 1446980, "sha256": weights_sha256(folder)}
    write_results(folder / "eval_results.json", results)
    return folder


def compose(trained, into, licences=LICENCE):
    return compose_training(REPOSITORY, trained, "anna/mine", into, "cc-by-sa-4.0", read_licences(licences))


def test_its_card_states_what_was_measured_and_whose_images_they_are(trained, tmp_path):
    composed = compose(trained, tmp_path / "out")
    assert [str(fault) for check in (check_files, check_head, check_figures) for fault in check(composed)] == []
    card = (composed.folder / "README.md").read_text("utf-8")
    assert card.startswith("---\nlicense: cc-by-sa-4.0\n") and "\n# anna/mine\n" in card
    assert "| my_cells | of whoever trained this model | CC BY-SA 4.0 |" in card
    assert "(https://doi.org/10.17632/snkd93bnjr.1) | CC BY 4.0 |" in card
    assert "python train.py --data_dir my_cells pbc --output_dir mine\n" in card, "no path of a machine leaves it"
    assert read_results(composed.folder / "eval_results.json")["training"]["command"].count("/") == 0
    assert read_results(trained / "eval_results.json")["training"]["command"] == COMMAND, "the folder itself stays"
    assert not (trained / "README.md").exists() and (composed.folder / "LICENSE").is_file()
    composed.folder.joinpath("README.md").write_text(card.replace("| CC BY-SA 4.0 |", "|  |"), "utf-8")
    assert ["no licence of the images 'my_cells'" in str(fault) for fault in check_figures(composed)] == [True]


def test_paths_are_cut_wherever_they_stand():
    found = without_paths({"a": ["--data_dir=/root/x/y", r"C:\Users\anna\cells", "runs/a/b", 3, None]})
    assert found == {"a": ["--data_dir=y", "cells", "runs/a/b", 3, None]}


@pytest.mark.parametrize(
    "words",
    [
        "--hub_token s3cret",
        "--hub_token=s3cret",
        "--hub-token s3cret",
        "--hub_tok=s3cret",
        "--hub_token a --hub-t=s3cret",
    ],
)
def test_a_command_is_recorded_without_its_token_however_it_was_written(words):
    before, after = shlex.split("train.py --data_dir 'my cells' --push_to_hub"), ["--learning_rate", "-1", "--seed=5"]
    *_, arguments = train.parse(["--data_dir", "cells", "--use_cpu", *words.split()])
    assert arguments.hub_token == "s3cret", "it is train.py's own way to write it"
    assert without_token([*before, *words.split(), *after]) == before + after


def test_the_token_is_not_in_what_is_written_of_the_arguments(tmp_path):
    where = ["--data_dir", "cells", "--output_dir", str(tmp_path), "--use_cpu"]
    *_, arguments = train.parse([*where, "--hub_token", "s3cret"])
    for written in (repr(arguments), str(arguments), arguments.to_json_string(), repr(pickle.dumps(arguments))):
        assert "s3cret" not in written
    assert arguments.hub_token == "s3cret" and pickle.loads(pickle.dumps(arguments)).seed == arguments.seed
    with pytest.raises(ValueError, match=r"^There is no option --hub_tokenn\. Did you mean --hub_token\?$"):
        train.parse([*where, "--hub_tokenn=s3cret"])


@pytest.mark.parametrize("words", ["--hub_token s3cret", "--hub-token=s3cret", "--hub_token 's3$cret'"])
def test_a_token_that_an_earlier_training_recorded_is_not_published(trained, tmp_path, words):
    path = trained / "eval_results.json"
    results = read_results(path)
    results["training"] |= {"command": f"{COMMAND} {words}", "started_from": {"source": "a", "command": f"x {words}"}}
    write_results(path, results)
    told = [str(fault) for fault in check_files(compose(trained, tmp_path / "out"))]
    assert len(told) >= 2 and all("what looks like the token of a command (--hub" in one for one in told)
    assert not [one for one in told if "s3" in one]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({"source": "a.pth"}, "went on from the weights a.pth, which have learnt from further images."),
        (
            {"source": "a.st", "sha256": "5" * 64, "learnt_from": "ImageNet-1k (a.tgz)"},
            f"went on from the weights a.st, SHA-256 `{'5' * 64}`, which have learnt from ImageNet-1k (a.tgz).",
        ),
    ],
)
def test_the_card_says_which_weights_a_training_went_on_from(start, told, trained, tmp_path):
    path = trained / "eval_results.json"
    results = read_results(path)
    results["training"]["started_from"] = start
    write_results(path, results)
    folder = compose(trained, tmp_path / "out").folder
    assert f"Training {told}\n" in (folder / "README.md").read_text("utf-8")


def test_what_cannot_be_published(trained, tmp_path):
    with pytest.raises(
        FolderRefused, match=r"images 'my_cells'; expected their licence. .* Give --data_license my_cells=LICENCE"
    ):
        compose(trained, tmp_path / "out", [])
    with pytest.raises(PublishingError, match="--data_license 'my_cells'; expected DATA=LICENCE"):
        read_licences(["my_cells"])
    (trained / "eval_results.json").unlink()
    with pytest.raises(
        FolderRefused, match="eval_results.json: no such file; expected a training that has come to its end"
    ):
        compose(trained, tmp_path / "again")


def test_publish_py_takes_a_training(desk, trained, monkeypatch):
    monkeypatch.setattr(training, "check_folders", lambda _: [])
    options = ["--trained", str(trained), "--data_license", *LICENCE, "--license", "cc-by-sa-4.0"]
    assert desk.publish(*options) == 0, desk.err
    mine = desk.hub.repository("model", "anna/mine")
    assert {"main", "timm"} == mine.branches.keys() and mine.tags == {} and len(mine.history) == 2
    assert json.loads(mine.files()["eval_results.json"])["model"]["name"] == "anna/mine"
    before = desk.heads
    assert desk.publish(*options) == 0 and desk.writes == [] and desk.heads == before
    with pytest.raises(SystemExit):
        publish.parse(["--namespace", "anna", "--name", "x"])
    with pytest.raises(SystemExit):
        publish.parse(["--namespace", "anna", "--trained", "x", "--what", "model"])


def test_what_is_wrong_is_told_before_a_training_begins(desk):
    def destination(asked="mine", data=("pbc",), licence="apache-2.0", licences=()):
        return check_destination(asked, data, licence, licences)

    assert destination() == "anna/mine" == destination("anna/mine")
    assert destination(data=("pbc", "my_cells"), licences=LICENCE) == "anna/mine"
    with pytest.raises(PublishingError, match="The images my_cells have no licence that is known"):
        destination(data=("pbc", "my_cells"))
    with pytest.raises(PublishingError, match="The licence is 'free'; expected an identifier of the Hub"):
        destination(licence="free")
    with pytest.raises(PublishingError, match="no member of bert"):
        destination("bert/mine")
    with pytest.raises(PublishingError, match="--hub_model_id 'my cells' is no name on the Hub"):
        destination("my cells")
    desk.hub.add_repository("model", "anna/hers", {"README.md": b"# Hers\n"})
    with pytest.raises(
        PublishingError, match="anna/hers holds what was not published here .* Name another with --hub_model_id"
    ):
        destination("hers")
    desk.patch.delenv("HF_TOKEN")
    desk.patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "absent")
    with pytest.raises(PublishingError, match="No token was found"):
        destination()
    assert desk.writes == []


def test_a_push_that_fails_names_the_command_that_tries_again(desk, trained, monkeypatch):
    monkeypatch.setattr(training, "check_folders", lambda _: [])
    desk.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishingError, match="cannot be reached") as raised:
        training.publish_finished(trained, "anna/mine", "other", LICENCE, private=True)
    again = str(raised.value).splitlines()[-1].partition("try it again: ")[2]
    options = publish.parse(shlex.split(again)[2:])
    assert (options.namespace, options.trained, options.name) == ("anna", trained, "mine")
    assert options.private and options.license == "other" and options.data_license == LICENCE


def test_the_trainers_own_push_is_off(tmp_path):
    _, _, arguments = train.parse(["--data_dir", "cells", "--output_dir", str(tmp_path), "--use_cpu", "--push_to_hub"])
    assert arguments.publish and not arguments.push_to_hub
    _, _, arguments = train.parse(["--data_dir", "cells", "--output_dir", str(tmp_path), "--use_cpu"])
    assert not arguments.publish


def test_train_py_pushes_the_finished_folder_and_nothing_else(desk, tmp_path):
    """From images to a model that the real clients load, by one command."""
    write_class_folders(tmp_path / "my_cells", 4)
    client = Client(desk.hub, tmp_path / "anna", desk.hub.token)
    done = client.run(
        sys.executable, str(REPOSITORY / "train.py"), "--data_dir", str(tmp_path / "my_cells"), "--output_dir",
        str(tmp_path / "mine"), *shlex.split(
            "--sides 64 --phase_epochs 1 --draws_per_epoch 8 --per_device_train_batch_size 8 --dataloader_num_workers 0"
            " --statistics_batches 1 --bf16 False --use_cpu --eval_strategy no --validation_share 0.5 --seed 5"
            f" --push_to_hub --hub_token {client.token} --data_license my_cells='not published'"
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    written = [path for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert any(path.name == "training_args.bin" for path in written) and client.token not in done.stdout + done.stderr
    assert not [path for path in written if client.token.encode() in path.read_bytes()]
    mine = desk.hub.repository("model", "anna/mine")
    expected = {path.name for path in (tmp_path / "mine" / "model").iterdir()} | {"README.md", "LICENSE"}
    assert mine.files().keys() - {".gitattributes"} == expected and "training_args.bin" not in expected
    assert [commit.title for commit in mine.history] == ["Publish mine", "initial commit"]
    assert len(desk.hub.repositories) == 1 and mine.tags == {}
    card = mine.files()["README.md"].decode()
    assert "| my_cells | of whoever trained this model | not published |" in card and str(tmp_path) not in card
    for name, content in mine.files().items():
        if name not in ("README.md", "LICENSE", "eval_results.json", ".gitattributes"):
            assert content == (tmp_path / "mine" / "model" / name).read_bytes(), name
    assert mine.files("timm").keys() == {".gitattributes", "README.md", "LICENSE", "config.json", "model.safetensors"}
