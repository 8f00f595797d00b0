"""transformers.js on the folder as it is published, in Node and in a browser; what is missing is told."""

import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPOSITORY
from peers_fixtures import node_modules
from PIL import Image
from space_fixtures import EXAMPLES

from evaluation import doors, javascript_doors
from evaluation.javascript_doors import (
    PAGE,
    JavaScriptError,
    answers_in_browser,
    answers_in_node,
    find_browser,
    library_version,
)
from evaluation.picking import pick_images

SHIPPED = REPOSITORY / "hub_model"
REAL = 200


@pytest.fixture
def modules():
    return node_modules()


@pytest.fixture
def browser():
    try:
        return find_browser()
    except JavaScriptError as error:
        pytest.skip(str(error))


def test_node_names_200_real_images_as_onnx_runtime_does(modules, data_root, tmp_path):
    laboratories = [
        data_root / name for name in ("blood-cells", "pbc", "raabin", "chula") if (data_root / name).is_dir()
    ]
    if not laboratories:
        pytest.skip(f"{data_root} holds none of the laboratories")
    images = doors.at_network_size(SHIPPED, pick_images(laboratories, REAL), tmp_path)
    assert len(images) == REAL
    expected, answers = doors.through_onnx(SHIPPED, images), doors.through_node(SHIPPED, images, modules)
    assert (answers.argmax(axis=1) == expected.argmax(axis=1)).all()
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-3)


RESIZE = """
import fs from 'node:fs';
import { createRequire } from 'node:module';
const [modules, folder, out, ...files] = process.argv.slice(1);
const { RawImage } = createRequire(modules + '/here.js')('@huggingface/transformers');
const { resize } = await import(folder + '/onnx/resize.mjs');
files.forEach(async (file, number) => {
    const image = resize(await RawImage.read(file), 224, 160);
    fs.writeFileSync(`${out}/${number}.rgb`, image.data);
});
"""


def test_the_folders_resizing_is_pillows(modules, tmp_path):
    """Shrunk, enlarged, both, and left as it is; grey and transparent: not one pixel differs."""
    rng = np.random.default_rng(0)
    sizes = [
        ("RGB", (640, 480)),
        ("RGB", (100, 75)),
        ("RGB", (50, 1200)),
        ("RGB", (224, 160)),
        ("L", (301, 17)),
        ("RGBA", (225, 161)),
    ]
    files = []
    for number, (mode, (width, height)) in enumerate(sizes):
        pixels = rng.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels.squeeze(), mode).save(files[-1])
    command = ["node", "--input-type=module", "-e", RESIZE, modules, SHIPPED, tmp_path, *files]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    for number, file in enumerate(files):
        with Image.open(file) as image:
            expected = np.asarray(image.convert("RGB").resize((224, 160), Image.Resampling.BILINEAR))
        resized = np.fromfile(tmp_path / f"{number}.rgb", np.uint8).reshape(160, 224, 3)
        assert np.array_equal(resized, expected), sizes[number]


def test_the_answers_are_the_librarys_own(modules):
    (image,) = images = [EXAMPLES / "monocyte.png"]
    ((first, *others),) = answers_in_node(modules, SHIPPED, images)
    assert first["label"] == "monocyte" and len(others) == 5
    scores = [row["score"] for row in (first, *others)]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1, abs=1e-5)


def test_a_page_that_asks_for_something_outside_is_told_and_does_not_get_it(modules, browser, tmp_path):
    page = tmp_path / "page.html"
    planted = '<img src="http://192.0.2.1/spy.png" />\n<script type="module">'
    page.write_text(PAGE.read_text().replace('<script type="module">', planted))
    with pytest.raises(JavaScriptError, match=r"asked for http://192\.0\.2\.1/spy\.png; expected nothing from outside"):
        answers_in_browser(modules, SHIPPED, [EXAMPLES / "monocyte.png"], page=page)


def test_a_folder_without_the_file_is_told_by_both(modules, browser, model_folder):
    images = [EXAMPLES / "monocyte.png"]
    for answer, who in ((answers_in_node, "Node"), (answers_in_browser, "The page")):
        with pytest.raises(JavaScriptError, match=rf"{who} failed on .* with fp32 \(.*model\.onnx.*; expected answers"):
            answer(modules, model_folder, images)


def test_what_is_not_installed_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(JavaScriptError, match="Node is not installed; expected the command node"):
        answers_in_node(tmp_path, SHIPPED, [])
    with pytest.raises(JavaScriptError, match="No browser is installed; expected one of .'chromium'"):
        answers_in_browser(tmp_path, SHIPPED, [])
    with pytest.raises(JavaScriptError, match="package.json is no file; expected transformers.js"):
        library_version(tmp_path)


def test_nothing_but_the_model_and_the_library_is_served(modules, tmp_path):
    import urllib.error
    import urllib.request

    with javascript_doors._served(modules, SHIPPED, [EXAMPLES / "monocyte.png"], PAGE) as address:
        for found in (
            "",
            "models/model/config.json",
            "images/0",
            "node_modules/@huggingface/transformers/package.json",
        ):
            assert urllib.request.urlopen(f"{address}/{found}").read()
        for hidden in ("images/1", "images/x", "models/model/../../README.md", "other", "models/%2e%2e/README.md"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{address}/{hidden}")
