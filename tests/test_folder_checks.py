"""The checks before a push: the project's folders pass, and each planted fault is one line that names file and remedy."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from publishing_fixtures import compose_once, state_another_accuracy, tree_of  # noqa: F401
from safetensors.numpy import save_file

from publishing import alone, file_checks
from publishing.alone import VisitError, check_alone, visit
from publishing.card_checks import check_figures, check_head, check_licences_of_tables
from publishing.checks import check_counts, check_folders, check_project_card
from publishing.composing import UNKNOWN_COMMIT, compose, pin
from publishing.faults import FolderRefused, PublishingError
from publishing.repositories import KINDS, check_name, check_version, version_of
from publishing.space_checks import check_space

TOKEN = "hf_" + "aB3d" * 9


@pytest.fixture
def copy_of(composed, tmp_path):
    """Give a copy of one of the composed folders, to plant a fault in."""

    def copied(name):
        folder = shutil.copytree(composed[name].folder, tmp_path / name, dirs_exist_ok=True)
        return replace(composed[name], folder=folder)

    return copied


def lines(faults):
    return [str(fault) for fault in faults]


def test_the_projects_folders_pass(composed):
    for name, one in composed.items():
        assert lines(check_files := file_checks.check_files(one)) == [] and check_files is not None, name
        assert lines(check_head(one)) == [], name
    assert lines(check_figures(composed["model"])) == []
    assert lines(check_licences_of_tables(composed["dataset"])) == []
    assert lines(check_space(composed["space"], "anna/wbc-resnet24", UNKNOWN_COMMIT)) == []


# Files


@pytest.mark.parametrize(
    ("folder", "file", "content", "line"),
    [
        ("model", "checkpoint-3/optimizer.pt", b"x", "a file that may hold a pickle, which runs code where it is loaded"),
        ("model", "pytorch_model.bin", b"x", "expected weights as safetensors and nothing else. Remove it."),
        ("model", ".DS_Store", b"x", "a file that nobody expects there"),
        ("model", "notes.md", b"x", "if it is to be published, name it in publishing/repositories.py"),
        ("model", "pictures/unseen.png", b"x", "a picture that README.md does not show"),
        ("model", "config.json", b"\x80\x04\x95\x00", "a pickle under another name"),
        ("model", "model.safetensors", b"PK\x03\x04data", "a pickle under another name"),
        ("model", "model.safetensors", b"no weights", "no safetensors ("),
        ("model", "pictures/pbc-test-confusion.png", b"no picture", "no picture ("),
        ("model", "differential.py", b"", "an empty file; expected its content"),
        ("model", "differential.py", b"caf\xe9 = 1\n", "bytes that are no UTF-8; expected a text"),
        ("model", "differential.py", f"T = '{TOKEN}'\n".encode(), "line 1: what looks like a Hugging Face token (hf_aB3da"),
        ("model", "differential.py", b"\n\nAKIA" + b"Q" * 16 + b"\n", "line 3: what looks like an AWS access key"),
        ("model", "differential.py", b"ghp_" + b"k" * 36, "what looks like a GitHub token"),
        ("model", "differential.py", b"-----BEGIN RSA PRIVATE KEY-----", "what looks like a private key"),
        ("model", "differential.py", b"https://me:secret@host/x", "what looks like a password in an address"),
        ("dataset", "README.md", b"see /home/anna/cells", "the path /home/anna/cells of a machine"),
        ("dataset", "README.md", b"C:\\Users\\anna\\x", "of a machine; expected no absolute path"),
        ("dataset", "image.jpg", b"x", "a file that nobody expects there"),
        ("timm", "pytorch_model.bin", b"x", "a file that may hold a pickle"),
        ("timm", "pictures/pbc-test-confusion.png", b"x", "a file that nobody expects there"),
        ("space", "secrets.toml", b"x", "a file that nobody expects there"),
    ],
)  # fmt: skip
def test_a_planted_file_is_one_line(copy_of, folder, file, content, line):
    planted = copy_of(folder)
    (planted.folder / file).parent.mkdir(exist_ok=True)
    (planted.folder / file).write_bytes(content)
    (found,) = lines(file_checks.check_files(planted))
    assert found.startswith(f"{planted.source}/{file}: ") and line in found
    assert TOKEN not in found, "a secret is not told again"


def test_a_missing_file_a_link_and_one_that_is_too_large(copy_of, monkeypatch):
    planted = copy_of("dataset")
    (planted.folder / "LICENSE").unlink()
    (planted.folder / "photos.csv").unlink()
    (planted.folder / "photos.csv").symlink_to("/etc/hostname")
    monkeypatch.setattr(file_checks, "LARGEST", 1_000_000)
    missing, large, link = sorted(lines(file_checks.check_files(planted)))
    assert missing.startswith("hub_dataset/LICENSE: no such file; expected it. Restore it from git")
    assert "hub_dataset/images.csv: 1.7 MB; expected at most 1 MB" in large
    assert "hub_dataset/photos.csv: a link; expected a file" in link


def test_addresses_and_ordinary_words_are_no_secrets(copy_of):
    planted = copy_of("dataset")
    text = "https://huggingface.co/home/x user@host.org hf_hub_download http://127.0.0.1:8000/tmp/x ./tmp/x a/home/b sk-learn"
    (planted.folder / "README.md").write_text(text)
    assert lines(file_checks.check_files(planted)) == []


# Heads and figures


@pytest.mark.parametrize(
    ("folder", "old", "new", "line"),
    [
        ("model", "license: apache-2.0", "license: apache2", "license is 'apache2'; expected an identifier such as"),
        ("model", "license: apache-2.0\n", "", "no license in its head"),
        (
            "model",
            "library_name: transformers",
            "library_name: keras",
            "expected 'transformers', by which the Hub loads",
        ),
        ("model", "pipeline_tag: image-classification", "pipeline_tag: [a]", "pipeline_tag is ['a']; expected a str"),
        ("model", "- haematology\n", "- 7\n", "tags holds 7; expected texts"),
        ("model", "language: en", "langage: en", "the key 'langage' in its head; expected keys that the Hub knows"),
        ("model", "      type: image-classification\n", "", "a head that huggingface_hub cannot read ("),
        ("model", "---\nlicense", "license", "no YAML head between two lines '---'"),
        ("model", "license: apache-2.0", "license: [", "a head that is no YAML ("),
        (
            "timm",
            "library_name: timm",
            "library_name: transformers",
            "expected 'timm', by which the Hub loads the model",
        ),
        ("dataset", "configs:", "config:", "no configs in its head"),
        ("space", 'python_version: "3.11"', "python_version: 3.11", "python_version is 3.11; expected"),
        ("space", "sdk: gradio", "sdk: static", "sdk is 'static'; expected 'gradio'"),
        ("space", "app_file: app.py", "app_file: main.py", "app_file is 'main.py'; expected a file of the folder"),
        ("space", "colorFrom: indigo", "colorFrom: mauve", "colorFrom is 'mauve'; expected one of red"),
        (
            "space",
            "sdk_version: 6.31.0",
            "sdk_version: newest",
            "sdk_version is 'newest'; expected a version of gradio",
        ),
        ("space", "Names the white", "Names all of the white and some other", "a short_description of more than 60"),
    ],
)
def test_a_head_that_the_hub_would_refuse(copy_of, folder, old, new, line):
    planted = copy_of(folder)
    readme = planted.folder / "README.md"
    assert old in (text := readme.read_text("utf-8"))
    readme.write_text(text.replace(old, new, 1), "utf-8")
    found = lines(check_head(planted))
    assert any(line in one for one in found), found
    assert all(one.startswith(f"{planted.source}/README.md: ") and "Correct the head" in one for one in found)


def test_a_card_that_states_other_figures(copy_of):
    planted = copy_of("model")
    readme, results = planted.folder / "README.md", planted.folder / "eval_results.json"
    text = readme.read_text("utf-8")
    state_another_accuracy(readme)
    assert any("model-index differs from eval_results.json" in line for line in lines(check_figures(planted)))
    readme.write_text(text.replace("| pbc | TEST | 2,392 |", "| pbc | TEST | 9,392 |"))
    (row,) = lines(check_figures(planted))
    assert "hub_model/README.md: not the row '| pbc | TEST | 2,392 |" in row and "make card" in row
    readme.write_text("".join(line for line in text.splitlines(True) if "snkd93bnjr" not in line))
    (licence,) = lines(check_figures(planted))
    assert "expected the licence of the images 'pbc'. Name source and licence in one line of the card." in licence
    readme.write_text(text)
    save_file({"x": np.zeros(3, np.float32)}, planted.folder / "model.safetensors")
    (other,) = lines(check_figures(planted))
    assert "expected the same weights" in other and "Measure them: make measure" in other
    results.write_text("{")
    (broken,) = lines(check_figures(planted))
    assert broken.startswith("hub_model/eval_results.json: eval_results.json is no valid JSON")


def test_the_projects_card_is_what_its_template_makes(tmp_path):
    tree = tree_of(tmp_path / "project")
    assert lines(check_project_card(tree)) == []
    card = tree / "hub_model" / "README.md"
    card.write_text(card.read_text("utf-8").replace("research and teaching", "every clinic", 1), "utf-8")
    (line,) = lines(check_project_card(tree))
    assert line.startswith("hub_model/README.md: line ") and "every clinic" in line and "make card" in line


def test_the_data_sets_card(copy_of):
    planted = copy_of("dataset")
    readme = planted.folder / "README.md"
    text = readme.read_text("utf-8")
    readme.write_text(text.replace("MIT", "free"), "utf-8")
    (line,) = lines(check_licences_of_tables(planted))
    assert "in its section on licences; expected the licence of the images" in line
    readme.write_text(text.replace("12,515 files", "12,516 files", 1), "utf-8")
    (line,) = lines(check_counts(planted))
    assert line.startswith("hub_dataset/README.md: counts that are not the tables'; expected the counts of the tables.")


# The Space


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("requirements.txt", "safetensors\n", "safetensors >> 1\n", "expected a requirement such as numpy>=2"),
        ("page.py", "\nimport ", "\nimport pandas\nimport ", "imports pandas; expected the Space's own files and"),
        ("page.py", "\nimport ", "\nfrom evaluation import card\nimport ", "imports evaluation; expected the Space's own"),
        ("page.py", "\nimport ", "\nfrom . import texts\nimport ", "imports a package of its own; expected the Space's own"),
        ("page.py", "\nimport ", "\ndef (\nimport ", "invalid syntax"),
        ("smear_model.py", 'REVISION = "', 'REVISION = "main', "expected anna/wbc-resnet24 at 0000"),
        ("README.md", "  - anna/wbc-resnet24", "  - anna/other", "expected models: anna/wbc-resnet24"),
    ],
)  # fmt: skip
def test_a_space_that_would_not_start(copy_of, file, old, new, line):
    planted = copy_of("space")
    path = planted.folder / file
    assert old in (text := path.read_text("utf-8"))
    path.write_text(text.replace(old, new, 1), "utf-8")
    found = lines(check_space(planted, "anna/wbc-resnet24", UNKNOWN_COMMIT))
    assert len(found) == 1 and found[0].startswith(f"space/{file}: ") and line in found[0], found


def test_a_space_without_the_lines_to_pin(copy_of):
    planted = copy_of("space")
    path = planted.folder / "smear_model.py"
    path.write_text(path.read_text("utf-8").replace("REVISION = ", "revision = "), "utf-8")
    with pytest.raises(
        FolderRefused, match=r"space/smear_model.py: 0 lines 'REVISION = \"...\"'; expected one, which is pinned"
    ):
        pin(planted, "anna/x", "f" * 40)


def test_a_tree_without_its_parts(tmp_path):
    (tmp_path / "hub_dataset").mkdir()
    with pytest.raises(FolderRefused, match="LICENSE: no file; expected the project's licence. Restore it from git."):
        compose(tmp_path, KINDS["dataset"], "anna", tmp_path / "out")
    with pytest.raises(FolderRefused, match="space: no folder; expected what is to be published"):
        compose(tmp_path, KINDS["space"], "anna", tmp_path / "out")


@pytest.mark.parametrize("name", ["", "a/b", "-x", "x.", "a--b", "x.git", "a b", "ü"])
def test_names_that_the_hub_refuses(name):
    with pytest.raises(PublishingError, match="is no name on the Hub; expected letters"):
        check_name(name, "--namespace")
    assert check_name("my_cells-2.x", "--name") == "my_cells-2.x"


def test_versions(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.0"\n')
    with pytest.raises(PublishingError, match="the version is '1.0'; expected three numbers"):
        version_of(tmp_path)
    assert check_version("1.2.0rc1", "--version") == "1.2.0rc1"


# Alone


def tiny_onnx(path, weights, classes=6):
    """Write a network of another kind: the mean colour, times a matrix."""
    matrix = onnx.numpy_helper.from_array(np.ones((3, classes), np.float32), "matrix")
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["pixel_values"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
    ]
    shape = {"pixel_values": ["batch", 3, "height", "width"], "logits": ["batch", classes]}
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape[name])] for name in shape
    )
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [matrix])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {"weights_sha256": weights})
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)


HANDLER = """
class EndpointHandler:
    def __init__(self, path):
        self.path = path

    def __call__(self, data):
        assert data["inputs"].size == (256, 256)
        return [{"label": "moon", "score": 0.9}, {"label": "monocyte", "score": 0.1}]
"""


def test_doors_that_answer_otherwise_or_not_at_all(copy_of):
    planted = copy_of("model")
    (planted.folder / "handler.py").write_text(HANDLER)
    tiny_onnx(planted.folder / "onnx" / "model.onnx", "ab" * 32)
    (planted.folder / "onnx" / "model_quantized.onnx").write_bytes(b"no graph")
    pipeline = planted.folder / "pipeline_wbc_resnet.py"
    pipeline.write_text("import nowhere_to_be_found\n" + pipeline.read_text("utf-8"), "utf-8")
    found = "\n".join(lines(check_alone(planted)))
    assert "hub_model/handler.py: handler answers 'moon' to the drawn picture; expected" in found
    assert (
        "hub_model/onnx/model.onnx: made from weights abababababab; expected those beside it. Export it again" in found
    )
    assert "hub_model/onnx/model.onnx: its logits differ by" in found and "within 0.0001" in found
    assert "expected that onnx/model_quantized.onnx loads and answers, alone and without network" in found
    assert "expected that pipeline loads and answers" in found and "nowhere_to_be_found" in found
    assert not list(planted.folder.rglob("__pycache__")), "the folder itself is not touched"


def test_the_doors_are_compared(composed, monkeypatch):
    logits = [1.0, 2.0, 3.0]
    seen = {"errors": {}, "plain": {"logits": logits, "label": "x"}, "remote": {"logits": [1.0, 2.0, 3.001]}}
    seen |= {"plain pipeline": "x", "pipeline": "y"}
    monkeypatch.setattr(alone, "visit", lambda *_: seen)
    ours, pipeline = lines(check_alone(composed["model"]))
    assert "our class's logits differ from them by 0.001" in ours
    assert "pipeline answers 'y' to the drawn picture; expected 'x', as the plain door" in pipeline
    assert alone.distance([1.0], [float("nan")]) == alone.distance([1.0], [1.0, 2.0]) == float("inf")


def test_tables_alone(copy_of):
    planted = copy_of("dataset")
    readme = planted.folder / "README.md"
    text = readme.read_text("utf-8").replace("- config_name: overlaps\n  data_files: overlaps.csv\n", "")
    readme.write_text(text.replace("  - {name: cells, dtype: int64}\n", "  - {name: cells, dtype: image}\n"), "utf-8")
    found = lines(check_alone(planted))
    assert any("expected that photos loads and answers" in line for line in found), found


def test_a_visitor_that_crashes_or_never_ends(tmp_path, monkeypatch):
    program = tmp_path / "visitor.py"
    monkeypatch.setattr(alone, "VISITOR", program)
    (tmp_path / "folder").mkdir()
    program.write_text("import os\nos._exit(7)\n")
    with pytest.raises(VisitError, match="status 7: no word"):
        visit("model", tmp_path / "folder")
    program.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(alone, "LONGEST", 0.5)
    with pytest.raises(VisitError, match=r"no answer within 0\.5 s"):
        visit("model", tmp_path / "folder")


def test_a_visitor_has_no_network_and_no_checkout(tmp_path, monkeypatch):
    program = tmp_path / "visitor.py"
    monkeypatch.setattr(alone, "VISITOR", program)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "folder").mkdir()
    program.write_text("import json, os, sys\nprint(json.dumps([os.environ.get('HF_TOKEN'), sys.path]))\n")
    token, path = visit("model", tmp_path / "folder")
    assert token is None, "a folder's code never sees the token"
    assert not [entry for entry in path if entry in ("", str(tmp_path))] and path != sys.path


def test_of_a_folder_with_a_file_too_many_nothing_is_run(copy_of, monkeypatch):
    monkeypatch.setattr("publishing.checks.check_alone", lambda _: pytest.fail("it was loaded"))
    planted = copy_of("model")
    (planted.folder / "evil.py").write_text("raise SystemExit")
    assert len(check_folders([planted])) == 1


def test_results_travel_with_their_names(composed):
    """The copy calls itself by the new namespace, in its figures, too, and figures stay as they are."""
    results = json.loads((composed["model"].folder / "eval_results.json").read_text("utf-8"))
    assert results["model"]["name"] == "anna/wbc-resnet24" == composed["model"].id
