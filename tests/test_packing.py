"""A pack: what is learnt and held out, whole, in a folder that can be carried away; and a training that starts from it."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from smear_drawings import write_class_folders

import train
from benchmarks import accelerator
from smears.loading import DataError
from training.packing import read_pack

LABELS = ["lymphocyte", "monocyte", "neutrophil", "other"]


def run_train(*arguments):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Two laboratories, packed; their folders are gone."""
    root = tmp_path_factory.mktemp("packed")
    for lab, first in (("one", 0), ("two", 100)):
        write_class_folders(root / lab, 6, size=(96, 80), first_seed=first)
    options = ["--labels", *LABELS, "--label_map", "eosinophil=other", "--validation_share", "0.34"]
    done = run_train("--data_dir", root / "one", root / "two", *options, "--pack_to", root / "pack")
    assert done.returncode == 0, done.stderr
    for lab in ("one", "two"):
        shutil.rmtree(root / lab)
    return root / "pack"


def test_a_pack_holds_every_image_once_learnt_or_held_out(packed):
    pack = read_pack(packed)
    learnt, held = set(pack.fit["sha256"]), {digest for data in pack.held.values() for digest in data["sha256"]}
    assert learnt.isdisjoint(held) and len(learnt | held) == 2 * 4 * 6
    assert set(pack.held) == {"one", "two"} and pack.fit.features["label"].names == LABELS
    assert all(row["image"]["bytes"] for row in pack.fit)


def test_a_laboratory_can_be_left_out_of_it(packed):
    pack = read_pack(packed, ["two"])
    assert set(pack.fit["lab"]) == {"one"} == set(pack.held) == set(pack.fingerprints)
    with pytest.raises(DataError, match="--leave_out three: the pack has one, two"):
        read_pack(packed, ["three"])
    with pytest.raises(DataError, match="nothing is left to learn from"):
        read_pack(packed, ["one", "two"])


@pytest.mark.parametrize("drawn", ["host", "device"])
def test_a_training_starts_from_it_without_the_folders(packed, tmp_path, drawn):
    options = ["--sides", "64", "--phase_epochs", "1", "--draws_per_epoch", "32", "--per_device_train_batch_size", "16"]
    options += ["--statistics_batches", "1", "--exchange_share", "0.5", "--negatives", "other", "--draw_on", drawn]
    done = run_train("--packed", packed, *options, "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "model" / "eval_results.json").read_text(encoding="utf-8"))
    assert {(entry["dataset"], entry["split"]) for entry in found["results"]} == {
        ("one", "validation"),
        ("two", "validation"),
    }
    assert found["training"]["recipe"]["draw_on"] == drawn
    assert found["training"]["data_fingerprint"] == " ".join(read_pack(packed).fingerprints.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--packed", "nowhere"], "nowhere holds no whole pack"),
        (["--packed", "nowhere", "--labels", "a", "b"], "--packed images are named and divided already"),
        (["--leave_out", "one", "--data_dir", "x"], "--leave_out goes with --packed"),
        (["--packed", "nowhere", "--data_dir", "x"], "Name the images: one of"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments, "--output_dir", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match=message):
        train.main()
    assert not (tmp_path / "run").exists()


def test_half_a_pack_and_a_folder_in_use_are_refused(packed, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(packed, half)
    (half / "pack.json").unlink()
    with pytest.raises(DataError, match=r"holds no whole pack .*Write it again"):
        read_pack(half)
    write_class_folders(tmp_path / "lab", 4)
    done = run_train("--data_dir", tmp_path / "lab", "--validation_share", "0.34", "--pack_to", half)
    assert done.returncode != 0 and "is not empty" in done.stderr


def test_the_accelerators_benchmark_measures_what_it_renders(packed, tmp_path):
    out, page = tmp_path / "accelerator.json", tmp_path / "accelerator.md"
    command = ["--out", str(out), "--page", str(page)]
    small = [
        "--packed",
        str(packed),
        "--device",
        "cpu",
        "--batch",
        "4",
        "--side",
        "64",
        "--steps",
        "3",
        "--workers",
        "1",
    ]
    accelerator.main([*command, *small])
    figures = json.loads(out.read_text(encoding="utf-8"))["figures"]
    assert len(figures) == 8 and all(one["value"]["low"] > 0 and one["ratio"]["median"] > 0 for one in figures)
    rendered = page.read_text(encoding="utf-8")
    page.unlink()
    accelerator.main([*command, "--render_only"])
    assert page.read_text(encoding="utf-8") == rendered
    with pytest.raises(SystemExit):
        accelerator.main(["--out", str(out)])


def test_the_committed_page_is_what_the_committed_figures_say():
    committed = REPOSITORY / "benchmarks" / "accelerator.json"
    report = json.loads(committed.read_text(encoding="utf-8"))
    assert accelerator.page(report) == committed.with_suffix(".md").read_text(encoding="utf-8")
