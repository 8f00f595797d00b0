"""Unlabelled images change a model's statistics and nothing else, and every door loads the folder that comes out."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import LABELS
from PIL import Image
from safetensors.torch import load_file
from torch.optim.swa_utils import update_bn
from transformers import AutoImageProcessor, AutoModelForImageClassification

import adapt
from evaluation.results import weights_sha256

SIDE = 64  # px, quicker than what ships


@pytest.fixture(scope="module")
def published(model_folder, tmp_path_factory):
    """A model folder with a card, figures, an ONNX export and a rule; read only."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("adapt") / "wbc")
    for name, fields in {
        "preprocessor_config.json": {"size": {"height": SIDE, "width": SIDE}},
        "config.json": {"acceptance_threshold": 0.5, "acceptance_risk": 0.02},
    }.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))
    (folder / "README.md").write_text("# The card\n")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"the old weights")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images at different depths, one of them turned by its EXIF, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a.png", "slide 1/b.png", "slide 1/deep/c.jpg", "slide 2/d.PNG", "slide 2/e.webp"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (48, 70, 3)) + rng.integers(60, 160, 3)
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "a.png" else 1
        Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)
    (folder / "slide 1" / "notes.csv").write_text("not,an,image\n")
    return folder


def by_hand(folder, paths):
    """Read images as the image processor of the folder does, without any code of ours: (N, 3, 64, 64)."""
    from transformers.image_utils import load_image

    processor = AutoImageProcessor.from_pretrained(folder)
    return processor([load_image(str(path)) for path in paths], return_tensors="pt")["pixel_values"]


@pytest.fixture(scope="module")
def adapted(published, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "adapted"
    adapt.main([str(published), "--images", str(images), "--out", str(out), "--share", "1"])
    return out


def test_the_statistics_are_torchs_own_and_all_else_is_the_old_models(adapted, published, images):
    plain = AutoModelForImageClassification.from_pretrained(published, trust_remote_code=False)
    update_bn([by_hand(published, sorted(path for path in images.rglob("*.*") if path.suffix != ".csv"))], plain)
    before, after = (load_file(folder / "model.safetensors") for folder in (published, adapted))
    assert before.keys() == after.keys()
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(after[name], before[name]) == (not name.endswith(("mean", "var", "tracked"))), name


def test_the_folder_is_whole_but_for_what_holds_the_old_weights(adapted, published):
    kept = {path.name for path in published.iterdir()}
    assert {path.name for path in adapted.iterdir()} == (kept - {"onnx"}) | {"adaptation.json"}
    for name in ("config.json", "README.md", "preprocessor_config.json", "modeling_wbc_resnet.py"):
        assert (adapted / name).read_bytes() == (published / name).read_bytes()
    assert list(adapted.parent.iterdir()) == [adapted], "nothing unfinished is left"


def test_errors_counted_with_the_old_statistics_are_not_taken_over(published, images, tmp_path):
    folder = shutil.copytree(published, tmp_path / "counted")
    config = json.loads((folder / "config.json").read_text())
    errors = {
        "labels": list(config["id2label"].values()),
        "acceptance_threshold": None,
        "energy_threshold": None,
        "counts": {},
    }
    (folder / "config.json").write_text(json.dumps(config | {"validation_confusion": errors}))
    adapt.main([str(folder), "--images", str(images), "--out", str(tmp_path / "adapted"), "--share", "1"])
    assert json.loads((tmp_path / "adapted" / "config.json").read_text()) == config


@pytest.mark.usefixtures("no_network")
def test_both_doors_load_it_and_answer_the_same(adapted, published, images):
    pixels = by_hand(adapted, sorted(images.rglob("*.png")))
    with torch.no_grad():
        plain, remote, old = (
            AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=trust)(pixels).logits
            for folder, trust in ((adapted, False), (adapted, True), (published, False))
        )
    torch.testing.assert_close(plain, remote, rtol=0, atol=1e-6)
    assert (plain - old).abs().max() > 0.1


def test_the_record_says_what_was_done(adapted, published, images):
    record = json.loads((adapted / "adaptation.json").read_text())
    model = adapt.WbcResNetForImageClassification.from_pretrained(published)
    pixels = by_hand(published, sorted(path for path in images.rglob("*.*") if path.suffix != ".csv"))
    assert record["distance"] == pytest.approx(model.statistics_distance([pixels]), rel=1e-3)
    assert record == {
        "images": 5,
        "share": 1.0,
        "suggested_share": model.suggest_share([pixels]),
        "distance": record["distance"],
        "sha256_before": weights_sha256(published),
    }
    assert weights_sha256(adapted) != record["sha256_before"]


def test_a_second_adaptation_keeps_the_record_of_the_first(adapted, images, tmp_path):
    adapt.main(
        [str(adapted), "--images", str(images), "--out", str(tmp_path / "out"), "--share", "0.25", "--limit", "3"]
    )
    first, second = (json.loads((folder / "adaptation.json").read_text()) for folder in (adapted, tmp_path / "out"))
    assert second["before"] == first
    assert (second["images"], second["share"], second["sha256_before"]) == (3, 0.25, weights_sha256(adapted))
    assert second["distance"] < 0.5 * first["distance"]


def test_a_check_reports_and_writes_nothing(published, images, tmp_path, capsys):
    files = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    adapt.main([str(published), "--images", str(images), "--check", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == files
    assert f"5 images of {images}" in said and "far from those learnt from: all statistics new" in said
    assert "answers with 1 new: " in said  # as the rule says

    network = AutoModelForImageClassification.from_pretrained(published, trust_remote_code=False)
    with torch.no_grad():
        pixels = by_hand(published, sorted(path for path in images.rglob("*.*") if path.suffix != ".csv"))
        probabilities = network(pixels).logits.softmax(-1)
    verdicts = [LABELS[row.argmax()] if row.max() >= 0.5 else "unidentified" for row in probabilities]
    before = next(line for line in said.splitlines() if line.startswith("answers before: "))
    for verdict in set(verdicts):
        assert f"{verdicts.count(verdict)} {verdict}" in before
    assert f"mean confidence {probabilities.max(-1).values.mean():.3f}" in before


@pytest.mark.parametrize(
    ("suggested", "said"),
    [(1.0, "(--share 1)"), (0.75, "0.75 new is likely to help"), (0.0, "keep the model (--share 0)")],
)
def test_the_rule_is_the_models_and_its_share_is_taken(
    published, images, tmp_path, monkeypatch, capsys, suggested, said
):
    monkeypatch.setattr(adapt.WbcResNetForImageClassification, "suggest_share", lambda *_: suggested)
    out = tmp_path / "out"
    if suggested:
        adapt.main([str(published), "--images", str(images), "--out", str(out)])
        assert json.loads((out / "adaptation.json").read_text())["share"] == suggested
    else:
        with pytest.raises(SystemExit, match="nothing is written: the model stays as it is"):
            adapt.main([str(published), "--images", str(images), "--out", str(out)])
        assert not out.exists()
    assert said in capsys.readouterr().out


def test_images_are_chosen_alike_at_every_call_and_not_by_their_order(tmp_path):
    for number in range(40):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02}.png")
    chosen = adapt.find_images(tmp_path, 10)
    assert chosen == adapt.find_images(tmp_path, 10) and len(set(chosen)) == 10
    assert sorted(chosen) != sorted(tmp_path.glob("*.png"))[:10]
    assert len(adapt.find_images(tmp_path, 100)) == 40


def test_batches_are_of_nearly_one_size(tmp_path, published):
    """The statistics are averaged over batches, so that a last batch of one image would count as much as a full one."""
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    processor = AutoImageProcessor.from_pretrained(published)
    sizes = [len(batch) for batch in adapt.read_batches([tmp_path / "a.png"] * 130, processor, "reading")]
    assert sorted(sizes) == [43, 43, 44]


def test_what_cannot_be_read_is_named(published, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "images")
    (folder / "slide 2" / "cut.png").write_bytes((folder / "a.png").read_bytes()[:300])
    with pytest.raises(SystemExit, match=r"cut.png cannot be read as an image .* Replace the file or remove it"):
        adapt.main([str(published), "--images", str(folder), "--check"])
    (folder / "slide 2" / "cut.png").unlink()
    Image.fromarray(np.zeros((70, 70), np.uint16)).save(folder / "deep.png")
    with pytest.raises(SystemExit, match=r"deep.png has I;16 pixels .* Rescale it to 8 bits"):
        adapt.main([str(published), "--images", str(folder), "--check"])


def test_wrong_folders_are_refused(published, images, tmp_path):
    def fails(*arguments, match):
        with pytest.raises(SystemExit, match=match):
            adapt.main([str(argument) for argument in arguments])

    out = tmp_path / "out"
    fails(tmp_path / "no", "--images", images, "--out", out, match="holds no config.json")
    fails(
        published,
        "--images",
        tmp_path / "no",
        "--out",
        out,
        match="no is no folder. Name the one that holds the images",
    )
    (tmp_path / "empty").mkdir()
    fails(
        published,
        "--images",
        tmp_path / "empty",
        "--out",
        out,
        match=r"holds no images \(.bmp, .jpeg.* Name the folder",
    )
    fails(
        published,
        "--images",
        images,
        "--out",
        published,
        match="is the model's own folder, or inside it; expected another",
    )
    fails(published, "--images", images, "--out", published / "new", match="is the model's own folder, or inside it")
    fails(published, "--images", images, "--out", images, match="exists and is not empty; expected a new folder")
    other = shutil.copytree(published, tmp_path / "vit")
    (other / "config.json").write_text(json.dumps({"model_type": "vit"}))
    fails(other, "--images", images, "--check", match="is of the kind 'vit'; expected a ResNet")
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name a folder for the adapted model, --out FOLDER, or --check"),
        (["--check", "--share", "1.5"], "--share 1.5: expected a number from 0"),
        (["--check", "--limit", "0"], "--limit 0: expected 1 image or more"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        adapt.parse(["hub_model", "--images", "cells", *options])
    assert message in capsys.readouterr().err
