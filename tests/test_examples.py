"""The pictures of the model's page: the Space's drawings, with the answers that the plain door gives."""

import hashlib
import json
import shutil
import sys

import pytest
import yaml
from conftest import REPOSITORY
from made_up import made_up_results
from transformers import pipeline

from evaluation import examples
from evaluation.results import read_results, weights_sha256, write_results

SHIPPED = REPOSITORY / "hub_model"


def test_the_cards_widget_shows_what_the_shipped_weights_answer():
    head = yaml.safe_load((SHIPPED / "README.md").read_text("utf-8").split("---\n")[1])
    classify = pipeline("image-classification", str(SHIPPED), trust_remote_code=False)
    assert len(head["widget"]) == 5
    for example in head["widget"]:
        answers = classify(str(SHIPPED / example["src"]))
        assert [row["label"] for row in example["output"]] == [row["label"] for row in answers]
        for stated, given in zip(example["output"], answers, strict=True):
            assert stated["score"] == pytest.approx(given["score"], abs=1e-4)


def test_the_pictures_are_the_spaces_drawings():
    for path in (SHIPPED / "examples").iterdir():
        assert path.read_bytes() == (REPOSITORY / "space" / "examples" / path.name).read_bytes(), path.name


def test_answers_are_written_beside_the_weights_they_are_of(model_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "examples").mkdir()
    drawing = shutil.copy(SHIPPED / "examples" / "monocyte.png", folder / "examples")
    results = made_up_results()
    results["model"]["sha256"] = weights_sha256(folder)
    write_results(folder / "eval_results.json", results)
    monkeypatch.setattr(sys, "argv", ["evaluation/examples.py", str(folder)])
    examples.main()
    (report,) = read_results(folder / "eval_results.json")["evidence"]["examples"]
    assert report["command"].endswith(" model"), "no folder of a machine is published"
    (picture,) = report["pictures"]
    assert picture["file"] == "examples/monocyte.png"
    with open(drawing, "rb") as file:
        assert picture["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    labels = json.loads((folder / "config.json").read_text())["label2id"]
    assert {row["label"] for row in picture["answers"]} == set(labels)
    assert sum(row["score"] for row in picture["answers"]) == pytest.approx(1, abs=1e-3)


def test_a_model_without_pictures_is_told(model_folder):
    with pytest.raises(SystemExit, match="holds no PNG; expected the pictures that the model's page shows"):
        examples.main([str(model_folder)])
