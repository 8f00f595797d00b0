"""handler.py without a server: what it takes for a picture, what it answers, what it refuses."""

import base64
import copy
import importlib.util
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

FOLDER = REPOSITORY / "hub_model"
EXAMPLES = REPOSITORY / "space" / "examples"
PHOTO = (EXAMPLES / "monocyte.png").read_bytes()


def load(folder):
    """Load handler.py by its path, as endpoints do."""
    spec = importlib.util.spec_from_file_location("handler.EndpointHandler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler


@pytest.fixture(scope="module")
def handler():
    return load(FOLDER)(str(FOLDER))


@pytest.fixture(scope="module")
def plain():
    from transformers import pipeline

    return pipeline("image-classification", str(FOLDER), trust_remote_code=False, device="cpu")


def text(content=PHOTO):
    return base64.b64encode(content).decode()


def assert_same(answer, expected):
    assert [row["label"] for row in answer] == [row["label"] for row in expected]
    assert [row["score"] for row in answer] == pytest.approx([row["score"] for row in expected], rel=1e-5, abs=1e-6)
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(
    "picture",
    [
        PHOTO,
        bytearray(PHOTO),
        memoryview(PHOTO),
        text(),
        base64.encodebytes(PHOTO).decode(),  # in lines of 76 letters
        f"data:image/png;base64,{text()}",
        f"DATA:;base64,{text()}",
        Image.open(io.BytesIO(PHOTO)),
        Image.open(io.BytesIO(PHOTO)).convert("RGB"),
    ],
    ids=["bytes", "bytearray", "memoryview", "base64", "lines", "data URL", "data URL, no type", "PIL, unread", "PIL"],
)
def test_whatever_a_server_gives_as_a_picture_is_one(picture, handler, plain):
    assert_same(handler({"inputs": picture}), plain(str(EXAMPLES / "monocyte.png")))


@pytest.mark.parametrize("kind", ["jpeg", "turned", "grey", "palette", "opaque", "noise"])
def test_any_picture_is_answered_as_by_the_plain_door(kind, handler, plain, tmp_path):
    photo, path, options = Image.open(io.BytesIO(PHOTO)).convert("RGB"), tmp_path / "cell.png", {}
    if kind in ("jpeg", "turned"):
        path = tmp_path / "cell.jpg"
    if kind == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # lies on its side
        photo = photo.resize((300, 150))
    if kind == "grey":
        photo = photo.convert("L")
    if kind == "palette":
        photo = photo.quantize(64)
    if kind == "opaque":
        photo.putalpha(255)
    if kind == "noise":
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (77, 131, 3), dtype=np.uint8))
    photo.save(path, **options)
    assert_same(handler({"inputs": path.read_bytes()}), plain(str(path)))


@pytest.mark.parametrize(
    "asked",
    [
        {"top_k": 1},
        {"top_k": 100},
        {"function_to_apply": "softmax"},
        {"function_to_apply": "sigmoid", "top_k": 6},
        {"function_to_apply": "none", "top_k": 6},
    ],
)
def test_parameters_mean_what_they_mean_there(asked, handler, plain):
    request = {"inputs": PHOTO, "parameters": asked | {"fields": False, "views": None}}
    kept = copy.deepcopy(request)
    assert_same(handler(request), plain(str(EXAMPLES / "monocyte.png"), **asked))
    assert request == kept


def test_nothing_asked_for_is_five_labels(handler):
    assert len(handler({"inputs": PHOTO, "parameters": None, "options": {"wait_for_model": True}})) == 5


def test_several_cells_get_an_answer_each(handler, plain):
    names = ["basophil", "lymphocyte"]
    answers = handler(
        {"inputs": [(EXAMPLES / f"{name}.png").read_bytes() for name in names], "parameters": {"top_k": 2}}
    )
    for name, answer in zip(names, answers, strict=True):
        assert_same(answer, plain(str(EXAMPLES / f"{name}.png"), top_k=2))


def test_requests_at_once_do_not_meet(handler):
    """Servers call it from several threads."""
    photos = [(EXAMPLES / f"{name}.png").read_bytes() for name in ("basophil", "lymphocyte", "neutrophil")]
    requests = [{"inputs": photo, "parameters": {"fields": fields}} for photo in photos for fields in (False, True)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(handler, requests)) == [handler(request) for request in requests]


def test_a_slides_count_is_the_pipelines(handler):
    from transformers import pipeline

    asked = {
        "white_cells_per_microlitre": 7200,
        "laboratory": "pbc",
        "reference_ranges": {"monocyte": [2, 10]},
        "views": 8,
    }
    photos = [(EXAMPLES / "neutrophil.png").read_bytes(), PHOTO]
    document = handler({"inputs": [photos[0], text()], "parameters": {"fields": True, **asked}})
    jsonschema.validate(document, json.loads((FOLDER / "differential.schema.json").read_text(encoding="utf-8")))
    count = pipeline(model=str(FOLDER), trust_remote_code=True, device="cpu")
    assert document == json.loads(count.as_json(count(photos, **asked)))
    assert document["differential"]["cells"]["counted"] == 2


def test_one_field_needs_no_list(handler):
    document = handler({"inputs": PHOTO, "parameters": {"fields": True}})
    assert document["differential"]["images"] == {"given": 1, "counted": 1, "refused": 0}


def test_of_several_fields_those_that_can_be_read_are_counted(handler):
    noise = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(noise, format="PNG")
    document = handler({"inputs": [PHOTO[:3000], PHOTO, noise.getvalue()], "parameters": {"fields": True}})
    assert document["differential"]["images"] == {"given": 3, "counted": 1, "refused": 2}
    assert "damaged or cut short" in document["images"][0]["refused"]
    assert document["images"][2]["height"] == 200  # read, but no smear


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        (None, "The request is None; expected an object with inputs"),
        ({"image": PHOTO}, "expected an object with inputs"),
        ({"inputs": PHOTO, "parameter": {}}, "The request has 'parameter', which nothing reads; expected inputs"),
        ({"inputs": PHOTO, "options": {"gpu": True}}, "options has 'gpu', which nothing reads"),
        ({"inputs": PHOTO, "parameters": [3]}, "parameters is of type list; expected an object"),
        ({"inputs": PHOTO, "options": "wait"}, "options is 'wait'; expected an object"),
        ({"inputs": None}, "image 1 is None; expected a picture. Send the picture's bytes, or base64"),
        ({"inputs": {"image": text()}}, "image 1 is of type dict; expected a picture"),
        ({"inputs": np.zeros((64, 64, 3))}, "image 1 is of type ndarray; expected a picture"),
        ({"inputs": [PHOTO, 7]}, "image 2 is 7; expected a picture"),
        ({"inputs": []}, "inputs has 0 pictures; expected 1 to 200 in a request"),
        ({"inputs": [PHOTO] * 201}, "inputs has 201 pictures; expected 1 to 200"),
        ({"inputs": b""}, "image 1: there are no bytes"),
        ({"inputs": ""}, "image 1: there are no bytes"),
        ({"inputs": [PHOTO, PHOTO[:3000]]}, "image 2: the file is damaged or cut short"),
        ({"inputs": b"no picture at all"}, "image 1: this is no picture that can be read"),
        ({"inputs": text(b"no picture at all")}, "image 1: this is no picture that can be read"),
        ({"inputs": b"no picture at all", "parameters": {"fields": True}}, "this is no picture that can be read"),
        ({"inputs": "no-base64"}, "image 1 is 'no-base64', no base64 text .*; paths are not opened"),
        ({"inputs": "data:image/png,abcd"}, "a data URL must be base64"),
        ({"inputs": "data:image/png;base64"}, "a data URL must be base64"),
        ({"inputs": "https://example.org/cell.png"}, "addresses are not fetched"),
        ({"inputs": [PHOTO, "file:///etc/hostname"]}, "image 2 is 'file:///etc/hostname'; addresses are not fetched"),
        ({"inputs": "/etc/hosts", "parameters": {"fields": True}}, "paths are not opened"),
        ({"inputs": PHOTO, "parameters": {"topk": 3}}, "parameters has 'topk', which nothing reads; expected fields"),
        ({"inputs": PHOTO, "parameters": {"top_k": 0}}, "top_k is 0; expected a whole number above 0"),
        ({"inputs": PHOTO, "parameters": {"top_k": "3"}}, "top_k is '3'; expected a whole number"),
        ({"inputs": PHOTO, "parameters": {"top_k": True}}, "top_k is True; expected a whole number"),
        ({"inputs": PHOTO, "parameters": {"function_to_apply": "relu"}}, "'relu'; expected one of softmax, sigmoid"),
        ({"inputs": PHOTO, "parameters": {"function_to_apply": ["none"]}}, "of type list; expected one of softmax"),
        ({"inputs": PHOTO, "parameters": {"fields": "yes"}}, "fields is 'yes'; expected true or false"),
        ({"inputs": PHOTO, "parameters": {"laboratory": "pbc"}}, 'does not belong to a single cell. Ask for "fields"'),
        ({"inputs": PHOTO, "parameters": {"fields": True, "top_k": 1}}, "top_k does not belong to fields"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "views": 3}}, "views is 3; expected 1, or 8"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "views": 8.0}}, "views is 8.0; expected a whole number"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "laboratory": ["pbc"]}}, "of type list; expected a name"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "laboratory": "moon"}}, "laboratory is 'moon'; expected one"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "reference_ranges": [2]}}, "expected per cents by class"),
        ({"inputs": PHOTO, "parameters": {"fields": True, "white_cells_per_microlitre": "7"}}, "expected a number"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(request_, match, handler, no_network):
    with pytest.raises(ValueError, match=match):
        handler(request_)


def test_a_name_that_might_be_base64_opens_no_file(handler, tmp_path, monkeypatch):
    (tmp_path / "cell").write_bytes(PHOTO)
    monkeypatch.chdir(tmp_path)
    for asked in ({}, {"fields": True}):
        with pytest.raises(ValueError, match="image 1: this is no picture that can be read"):
            handler({"inputs": "cell", "parameters": asked})


@pytest.mark.parametrize("fields", [False, True])
def test_a_picture_too_large_is_refused_before_it_is_decoded(fields, handler, monkeypatch):
    vast = io.BytesIO()
    Image.new("1", (10_000, 9_000)).save(vast, format="PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        opened = Image.open(vast)
    for picture in (vast.getvalue(), text(vast.getvalue()), opened):
        with pytest.raises(ValueError, match="10000 x 9000 px are more than 89 million pixels"):
            handler({"inputs": picture, "parameters": {"fields": fields}})
    monkeypatch.setattr(handler.slide, "most_pixels", 1_000_000, raising=False)
    for heavy in (bytes(3_000_001), "A" * 4_000_004):
        with pytest.raises(ValueError, match="image 1 has more than 3 million bytes"):
            handler({"inputs": heavy, "parameters": {"fields": fields}})


def test_single_cells_may_not_be_large_together(handler, monkeypatch):
    blank = io.BytesIO()
    Image.new("1", (600, 600)).save(blank, format="PNG")  # a small file of many pixels
    monkeypatch.setattr(handler.slide, "most_pixels", 1_000_000, raising=False)
    assert len(handler({"inputs": [blank.getvalue()] * 2})) == 2
    with pytest.raises(
        ValueError, match=r"The first 3 pictures have 1\.1 million pixels together; expected at most 1\.0"
    ):
        handler({"inputs": [blank.getvalue()] * 200})


def test_without_a_path_it_serves_the_folder_that_it_lies_in(tmp_path, no_network, model_folder):
    folder = shutil.copytree(model_folder, tmp_path / "repository")
    for file in FOLDER.glob("*.py"):
        shutil.copy(file, folder)
    answer = load(folder)()({"inputs": PHOTO})
    assert sorted(row["label"] for row in answer) == ["eosinophil", "lymphocyte", "monocyte", "neutrophil"]
