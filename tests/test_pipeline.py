"""Our pipeline: the verdict is what plain transformers' probabilities and the thresholds in config.json say, and a field's
cells and count are what its parts give by hand."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import cv2
import jsonschema
import numpy as np
import pytest
import torch
from conftest import LABELS, REPOSITORY
from PIL import Image, ImageSequence
from smear_drawings import draw_field, write_image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from hub_model.cell_finding import find_cells
from hub_model.differential import count_cells
from hub_model.pipeline_wbc_resnet import WINDOW, crop_cell

pytestmark = pytest.mark.usefixtures("no_network")

SIDE = 64  # px, what the image processor here resizes to: such an image is not resampled
TRANSPOSE = Image.Transpose
ALL_WAYS_UP = (None, *TRANSPOSE)


def photos(number):
    """Draw noise of one colour each, so that the answers differ from photo to photo."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 40, (SIDE, SIDE, 3)) + rng.integers(0, 216, 3) for _ in range(number)]
    return [Image.fromarray(pixels.astype(np.uint8)) for pixels in drawn]


@pytest.fixture(scope="module")
def small_folder(model_folder, tmp_path_factory):
    """The published folder with images of 64 px, which are quicker."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("small") / "wbc")
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor["size"] = {"height": SIDE, "width": SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def published(small_folder, tmp_path):
    """Publish the folder with the pipeline as the shipped config.json names it, and with these fields besides."""

    def publish(**fields):
        folder = shutil.copytree(small_folder, tmp_path / f"wbc-{len(list(tmp_path.iterdir()))}")
        shipped = json.loads((REPOSITORY / "hub_model" / "config.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        config |= {"custom_pipelines": shipped["custom_pipelines"], **fields}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return publish


def ours(folder, **options):
    """Our pipeline for images of one cell."""
    return pipeline(model=str(folder), trust_remote_code=True, device="cpu", one_cell=True, **options)


def fields(folder, **options):
    """Our pipeline for fields."""
    return pipeline(model=str(folder), trust_remote_code=True, device="cpu", **options)


@pytest.fixture(scope="module")
def logits(small_folder):
    """Give the logits (classes,) of an image by transformers' own network, in double precision."""
    network = AutoModelForImageClassification.from_pretrained(small_folder, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(small_folder)

    @torch.no_grad()
    def by_hand(image):
        return network(**processor(image, return_tensors="pt")).logits[0].double().numpy()

    return by_hand


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def test_without_thresholds_the_likeliest_class_is_the_verdict(published, logits):
    answers = ours(published())(photos(5))
    expected = [logits(photo) for photo in photos(5)]
    assert len({answer["verdict"] for answer in answers}) > 1
    for answer, values in zip(answers, expected, strict=True):
        probabilities = softmax(values)
        assert answer.keys() == {"verdict", "reason", "confidence", "energy", "probabilities"}
        assert (answer["verdict"], answer["reason"]) == (LABELS[int(values.argmax())], None)
        assert answer["confidence"] == pytest.approx(probabilities.max(), abs=1e-6)
        assert answer["energy"] == pytest.approx(-np.log(np.exp(values).sum()), abs=1e-5)
        assert {row["label"]: row["score"] for row in answer["probabilities"]} == pytest.approx(
            dict(zip(LABELS, probabilities, strict=True)), abs=1e-6
        )
        assert (np.diff([row["score"] for row in answer["probabilities"]]) <= 0).all()


def test_an_answer_below_the_acceptance_threshold_is_unidentified(published, logits):
    images = photos(4)
    sure = [softmax(logits(photo)).max() for photo in images]
    threshold = float(np.mean(sorted(sure)[1:3]))  # two above, two below
    answers = ours(published(acceptance_threshold=threshold, acceptance_risk=0.01))(images)
    for answer, probability in zip(answers, sure, strict=True):
        accepted = probability > threshold
        assert (answer["verdict"] != "unidentified") == accepted
        assert answer["reason"] == (None if accepted else "low confidence")
        assert answer["confidence"] == pytest.approx(probability, abs=1e-6)  # stated all the same
    assert sum(answer["verdict"] == "unidentified" for answer in answers) == 2


def test_an_energy_above_the_threshold_is_unidentified_however_sure(published, logits):
    images = photos(4)
    energies = [-np.log(np.exp(logits(photo)).sum()) for photo in images]
    threshold = float(np.mean(sorted(energies)[1:3]))
    answers = ours(published(energy_threshold=threshold, energy_accept_rate=0.5))(images)
    for answer, energy in zip(answers, energies, strict=True):
        expected = "unlike the images learnt from" if energy > threshold else None
        assert (answer["reason"], answer["verdict"] == "unidentified") == (expected, expected is not None)
    assert sum(answer["verdict"] == "unidentified" for answer in answers) == 2


def test_negatives_are_named_like_any_class(published, logits):
    photo = photos(1)[0]
    label = LABELS[int(logits(photo).argmax())]
    assert ours(published(negatives_label=label))(photo)["verdict"] == label


def test_eight_views_are_the_flips_and_turns_of_the_photo(published, logits):
    """The photo is turned here by Pillow, before the image processor."""
    photo = photos(1)[0]
    photo.paste((90, 30, 160), (5, 10, 30, 22))  # no longer alike whichever way up
    seen = [logits(photo if way is None else photo.transpose(way)) for way in ALL_WAYS_UP]
    assert len({round(float(values.max()), 4) for values in seen}) == 8
    classify = ours(published())
    answer = classify(photo, views=8)
    mean = np.mean([softmax(values) for values in seen], axis=0)
    assert {row["label"]: row["score"] for row in answer["probabilities"]} == pytest.approx(
        dict(zip(LABELS, mean, strict=True)), abs=1e-6
    )
    assert answer["energy"] == pytest.approx(np.mean([-np.log(np.exp(values).sum()) for values in seen]), abs=1e-5)
    assert classify(photo)["confidence"] == pytest.approx(softmax(seen[0]).max(), abs=1e-6)
    assert ours(published(), views=8)(photo) == answer  # said once, when it is built


@pytest.mark.parametrize("native", [True, False])
def test_many_photos_are_named_in_bfloat16_where_the_processor_has_it(published, monkeypatch, native):
    classify = ours(published())
    module = sys.modules[type(classify).__module__]
    monkeypatch.setattr(module, "has_bfloat16", lambda: native)
    seen, real = [], classify.model.forward_folded
    monkeypatch.setattr(classify.model, "forward_folded", lambda pixels: seen.append(pixels.dtype) or real(pixels))
    images = photos(3)
    exact = (
        [classify(image) for image in images] + classify(images) + classify(images, batch_size=2, precision="float32")
    )
    assert set(seen) == {torch.float32}
    seen.clear()
    quick = [*classify(images, batch_size=2), *classify(iter(images)), *classify(iter(images), views=8)][:6]
    assert (torch.bfloat16 in seen) == native
    for answer, expected in zip(quick, exact, strict=False):
        assert answer["confidence"] == pytest.approx(expected["confidence"], abs=0.05 if native else 1e-5)
    seen.clear()
    for one_or_more in (images, images[0]):
        seen.clear()
        classify(one_or_more, precision="bfloat16")
        assert set(seen) == {torch.bfloat16}
    with pytest.raises(ValueError, match="precision is 'half'; expected 'auto', 'float32' or 'bfloat16'"):
        classify(images, precision="half")


def test_what_bfloat16_leaves_open_is_named_again_in_float32(published, monkeypatch):
    classify = ours(published())
    module = sys.modules[type(classify).__module__]
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    classes = classify.model.config.num_labels
    classify.model.config.acceptance_threshold, classify.model.config.energy_threshold = 0.9, -1.0

    def logits_of(first, scale=1.0):
        """Logits of an energy of -scale whose likeliest class has the probability ``first``, and the second what is left."""
        rest = torch.full((classes,), 1e-6)
        rest[0], rest[1] = first, 1 - first
        return (rest / rest.sum()).log() + scale

    rough = [logits_of(0.99, 3), logits_of(0.52, 3), logits_of(0.895, 3), logits_of(0.8, 3), logits_of(0.99, 1.05)]
    asked = []

    def forward(pixels):
        asked.append((pixels.dtype, len(pixels)))
        if pixels.dtype == torch.float32:
            return torch.stack([logits_of(0.3, 3)] * len(pixels))
        return torch.stack(rough)

    monkeypatch.setattr(classify.model, "forward_folded", forward)
    answers = list(classify(iter(photos(5))))
    assert asked == [(torch.bfloat16, 5), (torch.float32, 3)], "even classes, an answer at each threshold"
    likeliest = [answer["probabilities"][0]["label"] for answer in answers]
    first, second = (classify.model.config.id2label[number] for number in range(2))
    assert likeliest == [first, second, second, first, second]
    asked.clear()
    list(classify(iter(photos(5)), precision="bfloat16"))
    assert asked == [(torch.bfloat16, 5)], "whoever asks for it has it"


def test_photos_may_come_one_by_one_in_batches_and_as_files(published, tmp_path):
    images = photos(3)
    images[0].save(tmp_path / "cell.png")
    classify = ours(published())
    one_by_one = [classify(image) for image in images]
    in_batches = classify(images, batch_size=2, views=1, precision="float32")
    streamed = list(classify((image for image in images), precision="float32"))
    assert isinstance(one_by_one[0], dict) and classify(str(tmp_path / "cell.png")) == one_by_one[0]
    for other in (in_batches, streamed):
        for answer, expected in zip(other, one_by_one, strict=True):
            assert answer["verdict"] == expected["verdict"]
            assert answer["energy"] == pytest.approx(expected["energy"], abs=1e-5)
    turned = classify(images, batch_size=3, views=8)
    assert [answer["confidence"] for answer in turned] == pytest.approx(
        [classify(image, views=8)["confidence"] for image in images], abs=1e-6
    )


def test_of_a_stream_no_more_is_taken_than_two_batches(published):
    """So memory does not grow with the number of images, here without end."""
    taken, one = [], photos(1)[0]

    def endless():
        while True:
            taken.append(len(taken))
            yield one

    answers = ours(published())(endless(), batch_size=2, num_workers=1)
    expected = next(answers)
    assert len(taken) == 4
    for number in range(2, 8):
        assert next(answers)["confidence"] == pytest.approx(expected["confidence"], abs=1e-6)
        assert len(taken) <= number + 4
    answers.close()
    assert len(taken) <= 12


def test_a_stream_of_cells_ends_at_the_image_that_cannot_be_read(published, tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    sources = [photos(1)[0], photos(1)[0], str(tmp_path / "notes.jpg"), photos(1)[0]]
    classify = ours(published())
    answers = classify(iter(sources), batch_size=2)
    assert len([next(answers), next(answers)]) == 2
    with pytest.raises(ValueError, match=r"notes\.jpg: this is no picture that can be read"):
        next(answers)
    with pytest.raises(ValueError, match=r"notes\.jpg"):
        classify(sources)
    assert classify([]) == [] and list(classify(iter([]))) == []


def test_a_picture_that_comes_again_or_moves_on_is_read_before_it_does(published, tmp_path):
    """Threads do not share it: each answer is that of the frame it was at."""
    images = photos(6)
    images[0].save(tmp_path / "stack.tif", save_all=True, append_images=images[1:])
    images[0].save(tmp_path / "cell.png")
    classify = ours(published())
    expected = [answer["energy"] for answer in classify(images, precision="float32")]
    with Image.open(tmp_path / "stack.tif") as stack:
        answers = classify(ImageSequence.Iterator(stack), batch_size=3, precision="float32")
        assert [answer["energy"] for answer in answers] == pytest.approx(expected, abs=1e-5)
    again = Image.open(tmp_path / "cell.png")
    answers = classify([again] * 20, batch_size=4, num_workers=4, precision="float32")
    assert [answer["energy"] for answer in answers] == pytest.approx([expected[0]] * 20, abs=1e-5)


def test_of_several_cells_the_one_that_cannot_be_read_is_numbered(published):
    classify, photo = ours(published()), photos(1)[0]
    with pytest.raises(ValueError, match="^image 3: this is no picture"):
        classify([photo, photo, b"no picture"])
    with pytest.raises(ValueError, match="^image 2: the array is uint16"):
        classify([photo, np.asarray(photo).astype(np.uint16)], batch_size=1)
    answers = classify(iter([photo, photo, Image.new("RGB", (1, 1))]), batch_size=2)
    assert len([next(answers), next(answers)]) == 2  # it ends when its turn comes
    with pytest.raises(ValueError, match="^image 3: 1 x 1 px"):
        next(answers)


def test_the_files_hash_is_told_as_long_as_its_weights_answer(published):
    folder = published()
    count, picture = fields(folder), draw_field()[0]
    told = count(picture)["differential"]["model"]
    assert told["sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    pixels = count.image_processor(photos(4), return_tensors="pt")["pixel_values"]
    count.model.try_statistics([pixels])
    assert count.count([])["model"] == told
    count.model.reestimate_statistics([pixels], 0.5)
    assert count.count([])["model"] == told | {"sha256": None}


def test_errors_of_the_old_statistics_adjust_no_count(published):
    errors = {"labels": list(LABELS), "acceptance_threshold": None, "energy_threshold": None}
    errors["counts"] = {"here": {name: {name: 40, LABELS[0]: 5} for name in LABELS}}
    count, picture = fields(published(validation_confusion=errors)), draw_field()[0]
    answer = count(picture)
    assert answer["differential"]["rows"][0]["adjusted_percent"] is not None
    count.model.reestimate_statistics([torch.randn(4, 3, SIDE, SIDE)])
    assert count.count(answer["images"])["rows"][0]["adjusted_percent"] is None


def test_the_pipeline_follows_weights_that_change(published):
    """What it folds is folded anew at each call."""
    classify, photo = ours(published()), photos(1)[0]
    before = classify(photo)
    with torch.no_grad():
        classify.model.network.layer1[0].bn2.weight.data.mul_(1.5)
    pixels = classify.image_processor(photo, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = classify.model(pixels).logits.double().softmax(-1).max()
    assert classify(photo)["confidence"] == pytest.approx(float(expected), abs=1e-6) != before["confidence"]


def test_one_cell_may_come_in_every_form_and_what_cannot_be_read_is_named(published, tmp_path):
    classify, photo = ours(published()), photos(1)[0]
    photo.save(tmp_path / "cell.png")
    expected = classify(photo)
    for source in (tmp_path / "cell.png", (tmp_path / "cell.png").read_bytes(), np.asarray(photo)):
        assert classify(source) == expected
    (tmp_path / "short.jpg").write_bytes((tmp_path / "cell.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match="short.jpg: the file is damaged or cut short"):
        classify(str(tmp_path / "short.jpg"))


def test_the_librarys_own_task_is_as_it_was(published, logits):
    """Also without remote code: what the hosted inference API runs."""
    folder, photo = published(acceptance_threshold=1.0, acceptance_risk=0.0), photos(1)[0]
    for trust in (False, True):
        rows = pipeline("image-classification", model=str(folder), trust_remote_code=trust, device="cpu")(
            photo, top_k=4
        )
        expected = dict(zip(LABELS, softmax(logits(photo)), strict=True))
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(expected, abs=1e-6)


def test_the_model_inside_can_be_saved_and_loaded_again(published, tmp_path):
    folder = published()
    classify = ours(folder)
    classify.model.save_pretrained(tmp_path / "saved")
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "saved"))
    assert after["custom_pipelines"] == before["custom_pipelines"]


@pytest.mark.parametrize("views", [0, 2, 4, "8"])
def test_other_numbers_of_views_are_refused(published, views):
    with pytest.raises(ValueError, match=rf"views is {views!r}; expected 1, or 8 for all flips and quarter turns"):
        ours(published())(photos(1)[0], views=views)


def test_an_argument_that_nothing_reads_is_refused(published):
    with pytest.raises(TypeError, match="top_k"):
        ours(published())(photos(1)[0], top_k=2)


def test_without_leave_to_run_code_the_library_asks_for_it(published):
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("wbc-classification", model=str(published()), trust_remote_code=False, device="cpu")


def test_a_fields_cells_are_what_the_parts_give_by_hand(published, logits):
    """The finder's boxes, squares about them cut out by numpy, transformers' own network."""
    picture, _ = draw_field()
    count = fields(published())
    answer = count(picture)
    (image,), rows = answer["images"], answer["differential"]["rows"]
    assert (image["name"], image["height"], image["width"], image["notes"], image["refused"]) == (
        "image 1",
        480,
        640,
        [],
        None,
    )
    found = find_cells(picture)
    assert [cell["box"] for cell in image["cells"]] == [cell["box"] for cell in found] and len(found) == 3
    assert count.find(Image.fromarray(picture)) == found
    padded = np.pad(picture, ((500, 500), (500, 500), (0, 0)), mode="reflect")
    for cell, find in zip(image["cells"], found, strict=True):
        top, left, bottom, right = (edge + 500 for edge in find["box"])
        side = round(max(bottom - top, right - left) * WINDOW)
        top, left = round((top + bottom - side) / 2), round((left + right - side) / 2)
        probabilities = softmax(logits(Image.fromarray(padded[top : top + side, left : left + side])))
        assert list(cell["probabilities"]) == list(LABELS)
        assert list(cell["probabilities"].values()) == pytest.approx(probabilities, abs=1e-6)
        assert cell["label"] == cell["verdict"] == LABELS[int(probabilities.argmax())]
        assert cell["score"] == pytest.approx(probabilities.max(), abs=1e-6)
        assert (cell["find_score"], cell["reason"], cell["same_as"], cell["reviewed"]) == (
            find["find_score"],
            None,
            None,
            None,
        )
    counted = {row["class"]: row["count"] for row in answer["differential"]["rows"]}
    assert counted == {name: sum(cell["verdict"] == name for cell in image["cells"]) for name in counted}
    assert sum(counted.values()) == 3
    document = json.loads(count.as_json(answer))
    assert document == {"schema": "wbc-differential/1", **answer}
    assert len(count.cells_csv(answer).splitlines()) == 1 + 3
    assert [line.partition(",")[0] for line in count.count_csv(answer).splitlines()[1:]] == [
        row["class"] for row in rows
    ]
    assert (np.asarray(count.read(picture)) == picture).all()
    jsonschema.validate(document, json.loads((REPOSITORY / "hub_model" / "differential.schema.json").read_text()))


def test_a_crop_at_the_corner_shows_the_mirrored_field_beyond_it():
    picture, _ = draw_field(3, [(10, 10)])
    crop = np.asarray(crop_cell(Image.fromarray(picture), (0, 0, 60, 60)))
    assert crop.shape == (105, 105, 3) and (crop[22:, 22:] == picture[:83, :83]).all()
    mirrored = cv2.copyMakeBorder(picture, 22, 0, 22, 0, cv2.BORDER_REFLECT_101)  # as training's warp does
    assert (crop == mirrored[:105, :105]).all()


def test_a_crop_wider_than_the_field_is_mirrored_on_both_sides():
    picture, _ = draw_field(3, [(30, 30)])
    small = picture[:60, :60]
    crop = np.asarray(crop_cell(Image.fromarray(small), (0, 0, 60, 60)))
    assert (crop == cv2.copyMakeBorder(small, 22, 23, 22, 23, cv2.BORDER_REFLECT_101)).all()


def test_a_field_may_come_in_every_form(published, tmp_path):
    picture, _ = draw_field()
    path = write_image(tmp_path / "field.png", picture)
    count = fields(published())
    expected = count(picture)["images"][0]["cells"]
    for source in (
        str(path),
        path,
        path.read_bytes(),
        path.open("rb"),
        Image.open(path),
        [picture],
        (path,),
        iter([path]),
    ):
        assert count(source)["images"][0]["cells"] == expected
    (refused,) = count(torch.zeros(480, 640, 3))["images"]  # one picture, not 480
    assert "Tensor is no picture" in refused["refused"]


def test_cells_of_many_fields_share_batches(published, monkeypatch):
    pictures = [
        draw_field(seed, white)[0]
        for seed, white in enumerate([[(110, 150)], [], [(330, 420), (90, 500)], [(240, 320)]])
    ]
    count = fields(published())
    sizes, forward = [], count._forward
    monkeypatch.setattr(
        count,
        "_forward",
        lambda inputs, **options: (sizes.append(len(inputs["pixel_values"])), forward(inputs, **options))[1],
    )
    together = count(pictures)
    assert sizes == [4]
    sizes.clear()
    in_threes = count(pictures, batch_size=3)
    assert sizes == [3, 1]
    one_by_one = [count(picture) for picture in pictures]
    for answer in (in_threes, {"images": [image for one in one_by_one for image in one["images"]]}):
        for image, expected in zip(answer["images"], together["images"], strict=True):
            assert [cell["box"] for cell in image["cells"]] == [cell["box"] for cell in expected["cells"]]
            for cell, other in zip(image["cells"], expected["cells"], strict=True):
                assert list(cell["probabilities"].values()) == pytest.approx(
                    [*other["probabilities"].values()], abs=1e-6
                )
    assert [len(image["cells"]) for image in together["images"]] == [1, 0, 2, 1]


def test_it_is_told_how_far_the_fields_have_come(published):
    picture, _ = draw_field()
    told = []
    count = fields(published())
    answer = count([picture, b"", picture], tell=lambda done, cells: told.append((done, cells)))
    each = len(answer["images"][0]["cells"])
    assert each and told == [(1, each), (2, each), (3, 2 * each)]
    with pytest.raises(ValueError, match="tell is for fields"):
        count(picture, one_cell=True, tell=print)


def test_unreadable_images_are_listed_and_the_rest_goes_on(published, tmp_path):
    picture, _ = draw_field()
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    answer = fields(published())([text, picture, tmp_path / "absent.png", b"", Image.new("RGB", (1, 1))])
    assert [image["refused"] is None for image in answer["images"]] == [False, True, False, False, False]
    assert answer["images"][0]["refused"].startswith("notes.jpg: this is no picture")
    assert answer["images"][2]["name"] == "absent.png" and answer["images"][3]["name"] == "image 4"
    assert answer["differential"]["images"] == {"given": 5, "counted": 1, "refused": 4}
    assert answer["differential"]["cells"]["counted"] == 3
    assert "4 of 5 images were refused and are not counted." in answer["differential"]["warnings"]


def test_photos_that_are_no_smears_are_listed_and_counted_nowhere(published):
    picture, _ = draw_field()
    grey = Image.fromarray(picture).convert("L")
    meadow = Image.fromarray(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8))
    answer = fields(published())([meadow, grey, picture])
    reasons = [image["refused"] for image in answer["images"]]
    assert reasons[0].startswith("image 1: no stained smear: ") and "grey" in reasons[1] and reasons[2] is None
    assert answer["images"][0]["cells"] == [] and answer["images"][0]["height"] == 240
    assert answer["differential"]["images"] == {"given": 3, "counted": 1, "refused": 2}
    assert answer["differential"]["cells"]["counted"] == 3


def test_an_empty_field_counts_nothing_and_says_so(published):
    ground = np.random.default_rng(1).normal((230, 225, 235), 2, (480, 640, 3)).astype(np.uint8)
    answer = fields(published())(ground)
    assert answer["images"][0]["cells"] == [] and answer["images"][0]["refused"] is None
    assert answer["differential"]["warnings"] == ["No white cell was counted: there is no differential."]
    assert all(row["count"] == 0 and row["percent"] is None for row in answer["differential"]["rows"])
    assert fields(published())([])["differential"]["images"] == {"given": 0, "counted": 0, "refused": 0}


def test_a_field_given_twice_is_counted_once(published):
    picture, _ = draw_field()
    answer = fields(published())([picture, picture])
    assert [cell["same_as"] for cell in answer["images"][1]["cells"]] == [[0, 0], [0, 1], [0, 2]]
    assert answer["differential"]["cells"] == {"found": 6, "repeated": 3, "dropped": 0, "counted": 3, "reviewed": 0}


def test_the_count_uses_thresholds_errors_and_what_the_user_says(published):
    errors = {"labels": list(LABELS), "acceptance_threshold": 0.5, "energy_threshold": None}
    table = {name: {name: 40, f"{name}?": 5, LABELS[0]: 5} for name in LABELS[1:]} | {LABELS[0]: {LABELS[0]: 50}}
    errors["counts"] = {"here": table, "there": table}
    operating = {"acceptance_threshold": 0.5, "acceptance_risk": 0.01}
    folder = published(validation_confusion=errors, **operating)
    count = fields(folder, white_cells_per_microlitre=5000)
    picture, _ = draw_field()
    answer = count(picture, laboratory="here", reference_ranges={"neutrophil": [99, 100]})
    by_hand = count_cells(
        answer["images"],
        LABELS,
        None,
        errors["counts"],
        "here",
        {"neutrophil": [99, 100]},
        5000,
        answer["differential"]["model"],
    )
    assert answer["differential"] == by_hand
    assert by_hand["laboratory_weights"] == {"here": 1.0} and by_hand["rows"][0]["adjusted_percent"] is not None
    assert sum(row["per_microlitre"] for row in by_hand["rows"][:-1]) == pytest.approx(5000, abs=1)
    answer["images"][0]["cells"][0]["reviewed"] = "monocyte"
    assert count.count(answer["images"])["cells"]["reviewed"] == 1
    stale = published(validation_confusion={**errors, "acceptance_threshold": 0.4}, **operating)
    differential = fields(stale)(picture)["differential"]
    assert differential["rows"][0]["adjusted_percent"] is None
    assert any("was not measured" in warning for warning in differential["warnings"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"laboratory": "moon"}, r"laboratory is 'moon'; expected one of \[\], or None"),
        ({"white_cells_per_microlitre": -1}, "expected a number above 0"),
        ({"reference_ranges": {"neutrophil": [3]}}, "expected two rising per cents"),
        ({"one_cell": "yes"}, "one_cell is 'yes'; expected True or False"),
    ],
)
def test_an_option_that_does_not_fit_is_told_before_any_field_is_looked_at(published, options, said):
    def photographs():
        raise AssertionError("a field was looked at")
        yield

    with pytest.raises(ValueError, match=said):
        fields(published())(photographs(), **options)


def test_eight_views_of_a_fields_cells(published):
    picture, _ = draw_field()
    count = fields(published())
    cell = count(picture, views=8)["images"][0]["cells"][0]
    crop = crop_cell(Image.fromarray(picture), cell["box"])
    assert cell["score"] == pytest.approx(count(crop, one_cell=True, views=8)["confidence"], abs=1e-6)


ALONE = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the network is blocked in this test")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["timm"] = None
from pathlib import Path
from transformers import pipeline

here = Path(sys.argv[1])
classify = pipeline(model=str(here / "wbc"), trust_remote_code=True, device="cpu")
file = Path(sys.modules[type(classify).__module__].__file__)
answer = classify(str(here / "photo.png"), one_cell=True)
counted = classify(str(here / "field.png"))["differential"]["cells"]["counted"]
seen = {"answer": answer, "counted": counted, "cached": file.is_relative_to(here)}
print(json.dumps({**seen, "checkout": "hub_model" in sys.modules}))
"""


def test_the_folder_alone_is_enough(published, logits, tmp_path):
    """Elsewhere, without checkout, network and timm."""
    here = tmp_path / "elsewhere"
    shutil.copytree(published(), here / "wbc")
    photos(1)[0].save(here / "photo.png")
    write_image(here / "field.png", draw_field()[0])
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hf_home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ALONE, str(here)]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["cached"] and not seen["checkout"] and seen["counted"] == 3
    assert seen["answer"]["confidence"] == pytest.approx(softmax(logits(photos(1)[0])).max(), abs=1e-6)
