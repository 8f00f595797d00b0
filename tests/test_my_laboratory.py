"""A visitor's laboratory: what is fitted, what it gains by an independent reckoning, and that the folder loads."""

import copy
import io
import json
import shutil
import zipfile
from html import escape

import numpy as np
import pytest
from made_up import heads_report
from PIL import Image
from space_fixtures import laboratory, languages, my_laboratory, review, smear_model

INKS = {"eosinophil": (220, 90, 60), "lymphocyte": (60, 60, 200), "monocyte": (90, 160, 120)}


@pytest.fixture(scope="module")
def model(model_folder, tmp_path_factory):
    """The published folder for images of 128 px, which are quicker: a fit looks at each cell twelve times."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("small") / "wbc")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"size": {"height": 128, "width": 128}}))
    return smear_model.load(folder)


def drawn(label: str, seed: int) -> Image.Image:
    """Draw a disc in the ink of a class, a little different each time."""
    generator = np.random.default_rng(seed)
    pixels = generator.normal(215, 6, (96, 96, 3))
    rows, cols = np.mgrid[:96, :96] - 48
    pixels[np.hypot(rows, cols) < 26 + generator.uniform(-4, 4)] = np.array(INKS[label]) + generator.normal(0, 8, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def cells():
    return [
        laboratory.Cell(drawn(label, 10 * number + place), label, f"{label} {place}")
        for number, label in enumerate(INKS) for place in range(10)
    ]  # fmt: skip


@pytest.fixture
def filled(cells, model):
    own = laboratory.Laboratory(model)
    own.add(cells)
    return own


@pytest.fixture(scope="module")
def once(cells, model):
    """One laboratory that was fitted: that takes long, so the tests that need no fit of their own share it."""
    own = laboratory.Laboratory(model, list(cells))
    own.reestimate()  # the fit begins with the model as it came all the same
    own.fit_to_labels()
    return own


@pytest.fixture
def fitted(once):
    """A laboratory fitted to the cells of ``filled``, to be changed at will."""
    kept = copy.deepcopy((once.network, once.statistics, once.fit))
    return laboratory.Laboratory(once.model, list(once.cells), *kept)


def test_classes_that_can_be_told_apart_are_learnt(filled, model):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    found = filled.fit_to_labels()
    accuracy = found["validation"]["balanced_accuracy"]
    assert found["n"] == 30 and accuracy["after"] >= 0.85 > accuracy["before"]
    assert all((value == before[name]).all() for name, value in model.network.state_dict().items()), "ours stays"


def test_the_folder_loads_through_both_doors_and_names_its_own_cells(fitted, tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    with zipfile.ZipFile(io.BytesIO(fitted.folder())) as archive:
        assert all(name.startswith("adapted/") and ".." not in name for name in archive.namelist())
        assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in archive.namelist())
        archive.extractall(tmp_path)
    folder = tmp_path / "adapted"
    config = json.loads((folder / "config.json").read_text())
    assert not {"acceptance_threshold", "energy_threshold", "validation_confusion"} & config.keys()
    record = json.loads((folder / "adaptation.json").read_text())
    assert (
        record["fitted"]["n"] == 30
        and record["statistics"] is None
        and record["started_from"]["sha256"] == fitted.model.sha256
    )
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor([cell.picture for cell in fitted.cells], return_tensors="pt")["pixel_values"]
    plain, own = (
        AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=trusted)
        .eval()(pixel_values=pixels)
        .logits
        for trusted in (False, True)
    )
    assert (plain - own).abs().max() == 0
    named = [fitted.model.labels[number] for number in plain.argmax(-1)]
    assert np.mean([name == cell.label for name, cell in zip(named, fitted.cells, strict=True)]) > 0.9


def test_statistics_need_no_label(model):
    own = laboratory.Laboratory(model)
    own.add([laboratory.Cell(drawn("monocyte", seed), None, str(seed)) for seed in range(8)])
    found = own.reestimate()
    assert found["images"] == 8 and sum(found["before"].values()) == sum(found["after"].values()) == 8
    assert own.unlabelled == 8 and 0 < found["share"] <= 1


@pytest.mark.parametrize("step", ["reestimate", "fit_to_labels"])
def test_progress_is_told_and_each_image_is_looked_at_as_often_as_it_says(filled, step, monkeypatch):
    told, seen, kind = [], [], type(filled.model.network)
    forward = kind.forward_features
    monkeypatch.setattr(kind, "forward_features", lambda self, x: seen.append(len(x)) or forward(self, x))
    getattr(filled, step)(lambda *come: told.append(come))
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(set(done)) and len(set(totals)) == 1
    assert sum(seen) <= totals[0] and totals[0] == 30 * {"reestimate": 4, "fit_to_labels": 12}[step]


def test_cells_without_a_label_move_the_statistics_of_the_fit(fitted):
    alone = fitted.network.norms()["network.bn1"].running_mean.clone()
    fitted.add([laboratory.Cell(Image.new("RGB", (96, 96), (20, 160, 20)), None, f"green {n}") for n in range(30)])
    found = fitted.fit_to_labels()
    moved = not np.allclose(alone, fitted.network.norms()["network.bn1"].running_mean)
    assert found["n"] == 30 and moved == (found["share"] > 0)


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_cost_at_home_is_what_was_measured(fitted, model, language, monkeypatch):
    speech = languages.WORDS[language]
    found = fitted.fit
    assert my_laboratory.fitted_networks({}) == [], "nothing was measured"
    monkeypatch.setattr(model, "results", {"evidence": {"heads": [heads_report()]}})
    (row,) = my_laboratory.fitted_networks(model.results)
    assert row["others"] == pytest.approx((0.4, 0.85)) and row["home"] == pytest.approx((0.85, 0.6))
    before, after = ("85,0", "60,0") if language == "de" else ("85.0", "60.0")
    assert escape(speech("lab_cost", before=before, after=after)) in my_laboratory.fit_text(found, model, speech)
    known = my_laboratory.knowledge(model, speech)
    assert f"raabin, {speech['lab_cells_slides']}<" in known and speech["lab_cells_found"] not in known
    others = "40,0 → 85,0" if language == "de" else "40.0 → 85.0"
    assert f"<td>{others}</td><td>{before} → {after}</td>" in known and speech["lab_fitted_before"] in known
    report = heads_report() | {"checkpoint": {"sha256": "d" * 64, "command": "python train.py --consistency 12"}}
    monkeypatch.setattr(model, "results", {"evidence": {"heads": [report]}})
    known = my_laboratory.knowledge(model, speech)
    assert f"raabin, {speech['lab_cells_slides']}, {speech['lab_cells_views']}<" in known


def test_what_cross_validation_found_stands_with_its_interval(fitted, model):
    found = fitted.fit
    low, high = found["validation"]["intervals"]["after"]
    told = f"{100 * found['validation']['balanced_accuracy']['after']:.1f} ({100 * low:.1f}–{100 * high:.1f})"
    assert f"{told} % after" in my_laboratory.fit_text(found, model, languages.WORDS["en"])
    with zipfile.ZipFile(io.BytesIO(fitted.folder())) as archive:
        assert f"{told} after" in archive.read("adapted/README.md").decode()
        assert json.loads(archive.read("adapted/adaptation.json"))["fitted"]["validation"]["intervals"]["after"] == [
            low,
            high,
        ]


def test_new_statistics_come_with_old_thresholds_and_that_is_said(filled, model):
    filled.reestimate()
    assert "was not measured" in my_laboratory.statistics_text(filled.statistics, languages.WORDS["en"])
    with zipfile.ZipFile(io.BytesIO(filled.folder())) as archive:
        assert "thresholds in config.json were found with the old ones" in archive.read("adapted/README.md").decode()
        own, source = (
            json.loads(text)
            for text in (archive.read("adapted/config.json"), (model.folder() / "config.json").read_text())
        )
        assert own.get("acceptance_threshold") == source.get("acceptance_threshold")


def test_cells_of_one_photo_are_fitted_and_it_is_said_that_nothing_was_tried(model):
    own = laboratory.Laboratory(model)
    own.add([laboratory.Cell(drawn(label, n), label, label) for label in INKS for n in range(3)])
    found = own.fit_to_labels()
    text = my_laboratory.fit_text(found, model, languages.WORDS["en"])
    assert found["validation"] is None and "could not be tried" in text and "come from one photo" in text
    assert own.folder()


def test_of_one_picture_there_is_one_cell_and_the_last_word_holds(model):
    own = laboratory.Laboratory(model)
    first, second = drawn("monocyte", 1), drawn("monocyte", 2)
    assert own.add([laboratory.Cell(first, None, "a"), laboratory.Cell(second, None, "a")]) == (2, 0)
    own.reestimate()
    fitted = own.network
    assert own.add([laboratory.Cell(first, None, "b")]) == (0, 0) and own.network is fitted, "nothing came"
    assert own.add([laboratory.Cell(first, "monocyte", "a")]) == (0, 1) and own.network is None
    assert own.add([laboratory.Cell(first, "lymphocyte", "a")]) == (0, 1) and own.counts["lymphocyte"] == 1
    assert own.add([], [laboratory.Cell(first, None, "a"), laboratory.Cell(drawn("monocyte", 3), None, "a")]) == (0, 1)
    assert [cell.picture for cell in own.cells] == [second]


def test_a_slides_names_follow_and_another_slides_photos_of_the_same_name_are_others(model):
    def slide(seed, reviewed):
        streams = {(0, place): io.BytesIO() for place in range(3)}
        for (_, place), stream in streams.items():
            drawn("monocyte", seed + place).save(stream, "PNG")
        cells = [{"reviewed": word, "same_as": None} for word in reviewed]
        answer = {"images": [{"name": "IMG_0001.jpg", "cells": cells}], "differential": {}}
        crops = {place: stream.getvalue() for place, stream in streams.items()}
        return review.Slide(None, answer, {}, crops, [bytes([seed])], {})

    own = laboratory.Laboratory(model)
    assert own.add_slide(slide(1, (None, None, None))) == (3, 0)
    assert own.add_slide(slide(1, ("monocyte", "unidentified", "dropped"))) == (0, 2)
    assert [cell.label for cell in own.cells] == ["monocyte", None]
    assert own.add_slide(slide(50, ("lymphocyte", None, None))) == (3, 0)
    assert len({cell.group for cell in own.cells}) == 2, "no photo of one slide stands for one of another"


def test_what_is_too_little_is_told(model):
    own = laboratory.Laboratory(model)
    with pytest.raises(ValueError, match="There are no cells"):
        own.reestimate()
    with pytest.raises(ValueError, match="Nothing was fitted"):
        own.folder()
    own.add([laboratory.Cell(drawn("monocyte", seed), "monocyte", str(seed)) for seed in range(3)])
    own.add([laboratory.Cell(drawn("lymphocyte", 9), "lymphocyte", "9")])
    with pytest.raises(ValueError, match=r"Only one class has 2 labelled cells or more \(Monocyte: 3\)") as told:
        own.fit_to_labels()
    assert "(Monozyt: 3)" in told.value.told(languages.WORDS["de"])
    alone = laboratory.Laboratory(model)
    alone.add([laboratory.Cell(drawn(label, 5), label, label) for label in ("monocyte", "lymphocyte")])
    with pytest.raises(ValueError, match=r"Too few labelled cells \(2\)"):
        alone.fit_to_labels()
    with pytest.raises(ValueError, match="are too many; expected 1000 at most"):
        own.add([laboratory.Cell(Image.new("RGB", (1, side)), None, "") for side in range(1, 998)])


def test_a_class_of_one_cell_is_left_out_and_that_is_said(filled, model):
    filled.add([laboratory.Cell(Image.new("RGB", (96, 96), (20, 160, 20)), "neutrophil", "alone")])
    found = filled.fit_to_labels()
    assert found["n"] == 30 and found["left_out"] == {"neutrophil": 1} and found["labels"] == list(INKS)
    assert "taken as unlabelled: Neutrophil (1)" in my_laboratory.fit_text(found, model, languages.WORDS["en"])


def test_a_fit_that_gains_nothing_is_called_so(fitted, model):
    found = fitted.fit
    assert "no better than the model" not in my_laboratory.fit_text(found, model, languages.WORDS["en"])
    shares = found["validation"]["balanced_accuracy"]
    shares["after"] = shares["before"]
    assert "no better than the model" in my_laboratory.fit_text(found, model, languages.WORDS["en"])


def test_new_cells_forget_what_was_fitted_without_them(fitted):
    assert fitted.fit is not None and fitted.network is not None
    fitted.add([laboratory.Cell(drawn("monocyte", 77), "monocyte", "77")])
    assert fitted.fit is None and fitted.network is None
