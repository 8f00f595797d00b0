"""Our pipeline: the verdict is what plain transformers' probabilities and the thresholds in config.json say."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import LABELS, REPOSITORY
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

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


def test_photos_may_come_one_by_one_in_batches_and_as_files(published, tmp_path):
    images = photos(3)
    images[0].save(tmp_path / "cell.png")
    classify = ours(published())
    one_by_one = [classify(image) for image in images]
    in_batches = classify(images, batch_size=2, views=1)
    streamed = list(classify(image for image in images))
    assert isinstance(one_by_one[0], dict) and classify(str(tmp_path / "cell.png")) == one_by_one[0]
    for other in (in_batches, streamed):
        for answer, expected in zip(other, one_by_one, strict=True):
            assert answer["verdict"] == expected["verdict"]
            assert answer["energy"] == pytest.approx(expected["energy"], abs=1e-5)
    turned = classify(images, batch_size=3, views=8)
    assert [answer["confidence"] for answer in turned] == pytest.approx(
        [classify(image, views=8)["confidence"] for image in images], abs=1e-6
    )


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
answer = classify(str(here / "photo.png"))
print(json.dumps({"answer": answer, "cached": file.is_relative_to(here), "checkout": "hub_model" in sys.modules}))
"""


def test_the_folder_alone_is_enough(published, logits, tmp_path):
    """Elsewhere, without checkout, network and timm."""
    here = tmp_path / "elsewhere"
    shutil.copytree(published(), here / "wbc")
    photos(1)[0].save(here / "photo.png")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hf_home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", ALONE, str(here)]
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["cached"] and not seen["checkout"]
    assert seen["answer"]["confidence"] == pytest.approx(softmax(logits(photos(1)[0])).max(), abs=1e-6)
