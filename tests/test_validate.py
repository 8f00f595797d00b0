"""``validate.py`` on a stock vision transformer with classes of other names, its figures computed again with scikit-learn."""

import csv
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import LABELS, REPOSITORY
from PIL import Image
from sklearn import metrics as sk
from smear_drawings import draw_smear, write_class_folders, write_image, write_splits
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import validate
from evaluation.intervals import group_bootstrap
from evaluation.results import read_results, weights_sha256, write_results
from smears.loading import DataError, content_hash
from smears.splits import hold_out

# Two of the model's classes are one label of the data, and one of them (a smudge) is none.
LABEL_MAP = {
    "LABEL_0": "neutrophil",
    "LABEL_2": "Eosinophil",
    "LABEL_3": "monocyte",
    "LABEL_4": "lymphocyte",
    "LABEL_5": "neutrophil",
}
ANSWERS = ["neutrophil", "LABEL_1", "eosinophil", "monocyte", "lymphocyte"]
MAPPED = [f"{model}={data}" for model, data in LABEL_MAP.items()]


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A vision transformer of one layer with six classes, and an image processor that is not ours."""
    folder = tmp_path_factory.mktemp("models") / "stock-vit"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=24, patch_size=8,
        num_labels=6,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    processor = ViTImageProcessor(
        size={"height": 24, "width": 24}, image_mean=[0.7, 0.6, 0.8], image_std=[0.2, 0.3, 0.1]
    )
    cells = [Image.fromarray(draw_smear(LABELS[seed % 4], seed)[0]) for seed in range(40)]
    with torch.inference_mode():  # centred and spread, so that the answers differ from cell to cell
        features = model.vit(**processor(cells, return_tensors="pt")).last_hidden_state[:, 0]
        model.classifier.weight.copy_(torch.randn(6, 16) / features.std(dim=0))
        model.classifier.bias.copy_(-model.classifier.weight @ features.mean(dim=0))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Cells in a table: 36 test images of 12 photos in 10 groups, one of which is also learnt from."""
    root = tmp_path_factory.mktemp("table")
    rows = []
    for number in range(12):
        label, group = LABELS[number % 4], max(number, 2)
        for copy in range(3):
            file = f"images/{number}-{copy}.png"
            write_image(root / file, np.rot90(draw_smear(label, number)[0], 2 * copy if copy < 2 else 1))
            rows.append((file, label.upper(), f"p{number}", f"g{group}", "TEST", "looks fine"))
    for number, label in enumerate(LABELS):
        write_image(root / f"images/train-{number}.png", draw_smear(label, 50 + number)[0])
        rows.append((f"images/train-{number}.png", label, "", "g7" if number == 3 else "", "train", ""))
    with (root / "cells.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([("file", "label", "photo", "group", "split", "remark"), *rows])
    return root / "cells.csv"


def run(*arguments):
    """Validate in this process."""
    return validate.validate(validate.parse([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def measured(stock, table, tmp_path_factory):
    """What the command line leaves behind: the finished process and the folder of its files."""
    out = tmp_path_factory.mktemp("out")
    command = [sys.executable, REPOSITORY / "validate.py", stock, "--table", table, "--label_map", *MAPPED]
    command += ["--splits", "test", "--resamples", "200", "--device", "cpu", "--batch_size", "16", "--name", "drawn"]
    command += ["--results", out / "results.json", "--predictions", out / "predictions.csv", "--plots", out / "plots"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=out, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done, out


def read_predictions(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_figures_are_scikit_learns_on_the_same_predictions(measured):
    rows = read_predictions(measured[1] / "predictions.csv")
    entries = read_results(measured[1] / "results.json")["results"]
    assert [entry["split"] for entry in entries] == ["TEST", "TEST, leak-free"]
    for entry in entries:
        part = [row for row in rows if entry["split"] in row["slices"].split("; ")]
        probabilities = np.array([[float(row[f"p_{name}"]) for name in ANSWERS] for row in part])
        references = np.array([ANSWERS.index(row["label"]) for row in part])
        assert entry["labels"] == ANSWERS and entry["n_images"] == len(part)
        photos = sorted({row["photo"] for row in part})
        copies = [[k for k, row in enumerate(part) if row["photo"] == photo] for photo in photos]
        means = np.stack([probabilities[rows].mean(axis=0) for rows in copies])
        images = (entry, entry["metrics"], probabilities, references)
        by_photo = (entry["photo_level"],) * 2 + (means, references[[rows[0] for rows in copies]])
        for level, figures, p, true in (images, by_photo):
            predicted, confidence = p.argmax(axis=1), p.max(axis=1)
            expected = {
                "accuracy": sk.accuracy_score(true, predicted),
                "balanced_accuracy": np.mean(sk.recall_score(true, predicted, average=None, labels=sorted(set(true)))),
                "macro_f1": sk.f1_score(true, predicted, average="macro", zero_division=0),
                "nll": sk.log_loss(true, p / p.sum(axis=1, keepdims=True), labels=range(5)),
                "brier": sk.brier_score_loss(np.eye(5)[true], p / p.sum(axis=1, keepdims=True), scale_by_half=False),
                "aurc": np.mean([1 - (predicted == true)[confidence >= c].mean() for c in confidence]),
            }
            for name, value in expected.items():
                assert figures[name]["value"] == pytest.approx(value, abs=2e-6), (entry["split"], name)
            assert level["confusion_matrix"] == sk.confusion_matrix(true, predicted, labels=range(5)).tolist()
            for k in sorted(set(true)):
                recall = sk.recall_score(true, predicted, average=None, labels=[k])[0]
                assert level["recall"][ANSWERS[k]]["value"] == pytest.approx(recall, abs=1e-6)
        right = (probabilities.argmax(axis=1) == references).astype(float)
        bounds = group_bootstrap(
            lambda weights, right=right: weights @ right / weights.sum(axis=-1),
            len(part), [row["group"] for row in part], resamples=200,
        )  # fmt: skip
        accuracy = entry["metrics"]["accuracy"]
        assert (accuracy["low"], accuracy["high"]) == pytest.approx(bounds, abs=1e-6)


def test_the_probabilities_are_the_librarys_through_its_own_processor(measured, stock, table):
    rows = read_predictions(measured[1] / "predictions.csv")
    model, processor = ViTForImageClassification.from_pretrained(stock).eval(), ViTImageProcessor.from_pretrained(stock)
    assert {len(set(model.config.id2label.values())), len(rows)} == {6, 36}
    images = [Image.open(table.parent / row["file"]).convert("RGB") for row in rows]
    with torch.inference_mode():
        expected = model(**processor(images, return_tensors="pt")).logits.softmax(-1).numpy()
    found = {name: np.array([float(row[f"p_{name}"]) for row in rows]) for name in ANSWERS}
    np.testing.assert_allclose(found["neutrophil"], expected[:, 0] + expected[:, 5], atol=1e-5)
    np.testing.assert_allclose(found["LABEL_1"], expected[:, 1], atol=1e-5)
    np.testing.assert_allclose(found["lymphocyte"], expected[:, 4], atol=1e-5)
    assert len(set(np.stack(list(found.values())).argmax(axis=0))) > 2  # it does not always say the same
    for row in rows:
        assert row["sha256"] == content_hash((table.parent / row["file"]).read_bytes())
        assert row["label"] == LABELS[int(row["photo"][1:]) % 4] and row["split"] == "TEST"


def test_leaks_are_left_out_and_counted(measured):
    done, out = measured
    leak_free = read_results(out / "results.json")["results"][1]
    assert leak_free["left_out"] == {"photos that overlap training photos, directly or through others": 3}
    assert (leak_free["n_images"], leak_free["n_photos"]) == (33, 11)
    assert leak_free["interval"] == {"level": 0.95, "resamples": 200, "seed": 0, "unit": "overlap group", "n_units": 9}
    assert "TEST, leak-free: 3 of 36 images left out" in done.stderr
    assert "the columns ['remark'] are not read" in done.stderr


def test_the_screen_shows_every_figure_and_how_far_it_is(measured):
    done, out = measured
    for entry in read_results(out / "results.json")["results"]:
        assert (
            f"drawn, {entry['split']}  (in brackets: 95 % intervals over {entry['interval']['n_units']}" in done.stdout
        )
        for level, figures in ((entry, entry["metrics"]), (entry["photo_level"],) * 2):
            for name in ("ece", "nll", "brier", "aurc"):
                figure = figures[name]
                assert f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]" in done.stdout
            for figure in [figures["macro_f1"], *level["recall"].values()]:
                assert f"{100 * figure['value']:.1f} % [{100 * figure['low']:.1f}" in done.stdout
    assert "left out: 3 images, photos that overlap training photos, directly or through others" in done.stdout
    assert "36/36" in done.stderr  # the progress bar


def test_the_pictures_are_drawn_for_each_part(measured):
    names = {path.name for path in (measured[1] / "plots").iterdir()}
    kinds = ("confusion", "reliability", "risk-coverage")
    assert names == {f"drawn-{part}-{kind}.png" for part in ("test", "test-leak-free") for kind in kinds}
    assert not [path for path in measured[1].iterdir() if path.name.startswith(".")]  # nothing unfinished is left


def test_the_same_numbers_come_out_twice(measured, stock, table, tmp_path):
    done, out = measured
    path = tmp_path / "map.json"
    path.write_text(json.dumps(LABEL_MAP))
    options = ["--label_map", path, "--splits", "test", "--resamples", 200, "--name", "drawn", "--batch_size", 16]
    run(
        stock,
        "--table",
        table,
        *options,
        "--device",
        "cpu",
        "--results",
        tmp_path / "r.json",
        "--predictions",
        tmp_path / "p.csv",
    )
    assert read_results(tmp_path / "r.json") == read_results(out / "results.json")
    assert (tmp_path / "p.csv").read_bytes() == (out / "predictions.csv").read_bytes()


def test_new_figures_go_beside_those_that_stay_true(measured, stock, table, tmp_path):
    path = tmp_path / "results.json"
    shutil.copy(measured[1] / "results.json", path)
    before = read_results(path)
    assert before["training"] is None
    assert before["model"] == {
        "name": "stock-vit", "sha256": weights_sha256(stock),
        "parameters": ViTForImageClassification.from_pretrained(stock).num_parameters(),
    }  # fmt: skip
    options = ["--table", table, "--label_map", *MAPPED, "--splits", "test", "--name", "drawn", "--results", path]
    again = run(stock, *options, "--resamples", "50")
    assert read_results(path) == before | {"results": again}
    more = run(stock, *options[:-4], "--name", "other", "--results", path, "--resamples", "50", "--seed", 1)
    assert read_results(path)["results"] == [*again, *more]
    write_results(path, before | {"model": before["model"] | {"sha256": "ab" * 32}})
    with pytest.raises(ValueError, match="expected the same weights"):
        run(stock, *options)


def test_images_with_other_labels_are_left_out_only_when_told_to(stock, table, tmp_path, caplog):
    caplog.set_level("INFO")
    options = [stock, "--table", table, "--splits", "test", "--resamples", "20", "--label_map"]
    options += [entry for entry in MAPPED if "monocyte" not in entry]
    with pytest.raises(ValueError, match=r"labels \['monocyte'\] are unknown to the model.*--ignore_labels monocyte"):
        run(*options)
    whole, leak_free = run(*options, "--ignore_labels", "Monocyte")
    assert whole["left_out"] == {"label monocyte": 9} and whole["n_images"] == 27
    assert leak_free["left_out"] == {
        "label monocyte": 9,
        "photos that overlap training photos, directly or through others": 3,
    }
    assert "test: 9 images with the label monocyte are left out" in caplog.text
    assert whole["labels"] == ["neutrophil", "LABEL_1", "eosinophil", "LABEL_3", "lymphocyte"]  # 0 and 5 are one


def test_a_folder_is_measured_by_split_and_validation_is_held_out_of_train(stock, tmp_path, caplog):
    folder = write_splits(tmp_path / "cells", {"TRAIN": 4, "TEST": 2, "TEST_SIMPLE": 1})
    named = run(stock, "--data_dir", folder, "--label_map", *MAPPED, "--resamples", "20", "--validation_share", "0.25")
    assert [(entry["split"], entry["n_images"]) for entry in named] == [
        ("validation", 4),
        ("TEST", 8),
        ("TEST_SIMPLE", 4),
    ]
    assert {entry["dataset"] for entry in named} == {"cells"}
    splits, measured = validate.choose_splits(validate.load_folder(folder), ["validation"], 0.25, 3)
    assert measured == ["validation"]
    assert splits["validation"]["file"][:] == hold_out(splits["train"], 0.25, 3)[1]["file"][:]
    test = {"test": splits["test"]}
    for wanted in ("validation", "test_simple"):
        with pytest.raises(DataError, match=rf"have the splits \['test'\], without \['{wanted}'\]"):
            validate.choose_splits(test, [wanted], 0.25, 0)
    assert validate.choose_splits(test, None, 0.25, 0)[1] == ["test"]


def test_images_that_are_not_split_are_measured_whole_with_a_warning(stock, tmp_path, caplog):
    folder = write_class_folders(tmp_path / "my_cells", 2)
    (entry,) = run(stock, "--data_dir", folder, "--label_map", *MAPPED, "--resamples", "20")
    assert (entry["split"], entry["n_images"]) == ("all", 8)
    assert "all are measured, also those that the model may have learnt from" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .* expected a CSV file"),
        ("file,class\na.png,monocyte\n", "label missing"),
        ("", r"columns \[\]; file and label missing"),
        ("file,label\n", "lists no images"),
        ("file,label\na.png,\n", "row 2 has file 'a.png' and label ''"),
        ("file,label,split\na.png,monocyte,exam\n", "row 2 has the split 'exam'; expected one of"),
        ("file,label,split\na.png,monocyte,\n", "row 2 has the split ''"),
        ("file,label\na.png,monocyte\nb.png,monocyte\n", "row 3 names 'b.png', which is no file in"),
        ("file,label\nbroken.png,monocyte\n", "broken.png cannot be read as an image"),
        ("file,label\na.png,monocyte\na.png,neutrophil\n", "the same image under two labels"),
        ("file,label,split\na.png,monocyte,test\na.png,monocyte,train\n", "the same image in two splits"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text, message):
    write_image(tmp_path / "a.png", draw_smear("monocyte", 0)[0])
    (tmp_path / "broken.png").write_bytes(b"no image")
    if text is not None:
        (tmp_path / "cells.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        validate.load_table(tmp_path / "cells.csv")


def test_a_table_may_stand_apart_from_its_files_and_say_little(tmp_path):
    for number, label in enumerate(LABELS):
        write_image(tmp_path / "files" / f"{number}.png", draw_smear(label, 0)[0])
    lines = ["file,label", *(f"{number}.png,{label.title()}" for number, label in enumerate(LABELS))]
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    splits = validate.load_table(tmp_path / "cells.csv", tmp_path / "files")
    assert list(splits) == ["train"]  # one whole, measured as "all"
    assert splits["train"].features["label"].names == list(LABELS) and splits["train"]["label"][:] == [0, 1, 2, 3]
    hashes = splits["train"]["sha256"][:]
    assert splits["train"]["photo"][:] == splits["train"]["group"][:] == hashes and len(set(hashes)) == 4


def test_labels_to_ignore_must_be_there_and_leave_something(tmp_path):
    data = validate.load_folder(write_class_folders(tmp_path, 1))["train"]
    with pytest.raises(DataError, match=r"names \['basophil'\], which the data do not show"):
        validate.leave_out(data, "test", ["Basophil"])
    with pytest.raises(DataError, match="no image is left without"):
        validate.leave_out(data, "test", LABELS)


class Hub(SimpleHTTPRequestHandler):
    """The three routes by which a repository's files are fetched: its commit, its list of files, and each file."""

    commit = "c0ffee" + "0" * 34

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        route, _, query = self.path.partition("?")
        folder = Path(self.directory)
        name = route.rpartition("/")[2]
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        if "/other/stock-vit" not in route:
            self.send_error(404)
            return
        if "/tree/" in route:
            content = json.dumps(
                [{"type": "file", "path": n, "size": len(b), "oid": content_hash(b)} for n, b in files.items()]
            ).encode()
        elif "/revision/" in route:
            siblings = [{"rfilename": file} for file in files]
            content = json.dumps({"id": "other/stock-vit", "sha": self.commit, "siblings": siblings}).encode()
        else:
            content = files[name]
        self.send_response(200)
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{content_hash(content)}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        """The test looks at what comes, not at who asked."""


def test_a_model_is_fetched_from_the_hub(stock, tmp_path, monkeypatch):
    newer, older = (shutil.copytree(stock, tmp_path / age / "files") for age in ("newer", "older"))
    for folder in (newer, older):
        (folder / "model.onnx").write_bytes(b"of no use here")
        (folder / "pytorch_model.bin").write_bytes(b"the same weights, pickled")
    (older / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for folder, weights in ((newer, "model.safetensors"), (older, "pytorch_model.bin")):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=folder))
        Thread(target=server.serve_forever, daemon=True).start()
        # What the library makes of HF_ENDPOINT when it is imported.
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        files = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + files)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder.parent / "cache"))
        found, name = validate.fetch_model("other/stock-vit", "main")
        assert name == "other/stock-vit"
        assert {path.name for path in found.iterdir()} == {"config.json", "preprocessor_config.json", weights}
        assert weights_sha256(found) == weights_sha256(folder)
        with pytest.raises(ValueError, match="other/nothing is no folder here, and the Hub gives no such model"):
            validate.fetch_model("other/nothing", None)
        server.shutdown()


def test_a_model_that_is_nowhere_is_refused(stock, tmp_path):
    with pytest.raises(ValueError, match="--revision main was given with the folder"):
        validate.fetch_model(str(stock), "main")
    with pytest.raises(ValueError, match="is no folder here, and the Hub gives no such model"):
        validate.fetch_model(str(tmp_path / "nowhere"), None)
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        run(tmp_path, "--data_dir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the images: one of"),
        (["--data_dir", "a", "--dataset_name", "b"], "name the images: one of"),
        (["--table", "a.csv", "--dataset_name", "b"], "leave one out"),
        (["--data_dir", "a", "--batch_size", "0"], "--batch_size is 0; expected 1 or more"),
        (["--data_dir", "a", "--splits", "exam"], "invalid choice: 'exam'"),
        (["--table", "a.csv", "--laboratories"], "name them with --data_dir, without --table"),
        (["--data_dir", "a", "--folder_map", "ig=other"], "go with --laboratories"),
        (["--data_dir", "a", "b"], "--data_dir a b: several folders go with --laboratories"),
        (["--data_dir", "a", "b", "--laboratories", "--name", "c"], "--name goes with one --data_dir"),
        (["--data_dir", "a", "--label", "x"], "unrecognized arguments: --label"),
    ],
)
def test_options_that_do_not_fit_end_the_program(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        validate.main(["model", *arguments])
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_fault_ends_the_program_with_one_line(stock, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*is no folder. Unpack the archive"):
        validate.main([str(stock), "--data_dir", str(tmp_path / "nowhere")])


def test_an_interrupted_run_leaves_the_earlier_predictions(stock, table, tmp_path, monkeypatch):
    path = tmp_path / "predictions.csv"
    path.write_text("earlier")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(validate, "summarise_slice", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(stock, "--table", table, "--splits", "test", "--label_map", *MAPPED, "--predictions", path)
    assert path.read_text() == "earlier" and [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resamples", "0"], "--resamples is 0; expected 1 or more"),
        (["--seed", "-1"], "--seed is -1; expected 0 or more"),
        (["--device", "banana"], "--device banana cannot be used"),
        (["--plots", __file__], "test_validate.py is a file; expected a folder"),
        (["--results", "."], "--results . is a folder; expected a file"),
    ],
)
def test_what_would_fail_after_the_long_part_is_refused_at_once(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        validate.parse(["model", "--data_dir", "x", *options])
    assert ended.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_a_table_without_splits_is_measured_whole_and_not_as_a_test_set(tmp_path, caplog):
    for number, label in enumerate(LABELS):
        write_image(tmp_path / f"{number}.png", draw_smear(label, number)[0])
    (tmp_path / "cells.csv").write_text("file,label\n" + "".join(f"{k}.png,{name}\n" for k, name in enumerate(LABELS)))
    splits, chosen = validate.choose_splits(validate.load_table(tmp_path / "cells.csv"), None, 0.125, 0)
    assert chosen == ["all"] and len(splits["all"]) == 4
    assert "also those that the model may have learnt from" in caplog.text
