"""The README's promises: its commands exist, and its Python runs as it stands, from a clone, on the shipped folder."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from space_fixtures import serve_shipped  # noqa: F401

README = (REPOSITORY / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [
    text for language, text in BLOCKS if language == "python" and "ENDPOINT" not in text
]  # test_endpoint_servers.py
SHELL = [line for language, text in BLOCKS if language == "bash" for line in text.replace("\\\n", " ").splitlines()]
DEMO = "http://127.0.0.1:7860"


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: text.strip().splitlines()[0])
def test_the_python_runs(text, monkeypatch, request):
    monkeypatch.chdir(REPOSITORY)
    if DEMO in text:
        text = text.replace(DEMO, request.getfixturevalue("shipped").rstrip("/"))
    else:
        request.getfixturevalue("no_network")
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})


def test_there_is_a_snippet_for_each_kind_of_user():
    doors = (
        'pipeline("image-classification"',
        "views=8",
        "output_evidence=True",
        "timm.create_model",
        'api_name="/classify"',
    )
    assert [sum(door in text for text in PYTHON) for door in doors] == [1] * 5
    assert any(line.startswith("curl https://router.huggingface.co/") for line in SHELL)


def test_make_knows_every_target_that_is_named():
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake (?:-s )?(\w+)", README))
    assert {"demo", "test"} <= named <= targets, named - targets


def test_train_py_understands_every_flag_that_is_named():
    from transformers import HfArgumentParser

    from train import DataArguments, RecipeArguments, SmearTrainingArguments

    commands = [shlex.split(line) for line in SHELL if "train.py" in line]
    assert len(commands) >= 2
    for command in commands:
        parser = HfArgumentParser((DataArguments, RecipeArguments, SmearTrainingArguments))
        parser.parse_args_into_dataclasses(command[command.index("train.py") + 1 :])


OTHERS = [line for line in SHELL if re.match(r"python (?!train\.py)", line)]


@pytest.mark.parametrize("line", OTHERS)
def test_every_other_command_knows_the_options_that_are_named(line, monkeypatch, capsys):
    """Run as a program is, in this process: the libraries are imported once."""
    words = shlex.split(line)
    is_module = words[1] == "-m"
    program = words[2] if is_module else str(REPOSITORY / words[1])
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    monkeypatch.syspath_prepend(str(REPOSITORY if is_module else Path(program).parent))
    with pytest.raises(SystemExit) as ended:
        (runpy.run_module if is_module else runpy.run_path)(program, run_name="__main__")
    assert not ended.value.code
    told = capsys.readouterr().out
    for word in words:
        assert not word.startswith("--") or re.search(rf"{word}\b", told), word


def test_the_measuring_and_the_audit_are_shown():
    assert any("validate.py" in line for line in OTHERS) and any("smears.audit" in line for line in OTHERS)


def test_every_file_that_is_linked_exists():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
    for rooms in re.findall(r"^\| (`[^|]+`) \|", README, re.MULTILINE):
        for room in re.findall("`([^`]+)`", rooms):
            assert (REPOSITORY / room).exists(), room
