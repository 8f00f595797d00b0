"""The results file and the card: what is written is what was measured, and what was tampered with is refused."""

import copy
import hashlib
import importlib.metadata
import itertools
import json
import re
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from made_up import (
    CONFIG,
    NAMES,
    SHA256,
    counts_report,
    doors_report,
    examples_report,
    few_labels_report,
    finding_reports,
    gate_report,
    heads_report,
    made_up_entry,
    made_up_results,
    made_up_seed,
    onnx_reports,
    stress_report,
    unseen_report,
)
from PIL import Image
from smear_drawings import draw_field, write_image

from evaluation import card
from evaluation.card import CardError, main, render_card, render_readme, results_table, validate_head
from evaluation.comparison import comparison_table
from evaluation.entry import METRICS, ResultsError
from evaluation.evidence import KEPT_OF_TRAINING
from evaluation.evidence_tables import unseen_table
from evaluation.results import (
    SCHEMA_VERSION,
    environment,
    git_commit,
    hardware,
    provenance,
    put_entries,
    read_for_update,
    read_results,
    to_text,
    validate_results,
    weights_sha256,
    write_results,
)
from evaluation.wanted import wanted_table

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "model_card.md"
FOUR = NAMES[:4]


@pytest.fixture
def results():
    """Results of two measurements and nothing else."""
    few = [
        made_up_entry(split, seed, "Made-up cells", FOUR) for seed, split in enumerate(("validation", "TEST"), start=1)
    ]
    return made_up_results() | {"results": few}


@pytest.fixture
def released():
    """Results as a release has them."""
    evidence = {
        "official": [made_up_seed(n, made_up_entry("TEST", n), made_up_entry("TEST_SIMPLE", n)) for n in (1, 2)],
        "unseen": [collect_unseen("the recipe", unseen_report())],
        "few_labels": [few_labels_report()],
        "heads": [heads_report()],
        "stress": [stress_report()],
        "finding": finding_reports(),
        "gate": [gate_report()],
        "counts": [counts_report()],
        "examples": [examples_report()],
        "onnx": onnx_reports(),
        "doors": [doors_report()],
    }
    results = made_up_results()
    results["results"].append(made_up_entry("TEST_SIMPLE", 7, "blood-cells"))
    return results | {"evidence": evidence}


def collect_unseen(name, report):
    """Give a report of leave_one_out.py as the results keep it."""
    kept = copy.deepcopy(report)
    for run in kept.values():
        run["training"] = {key: run["training"].get(key) for key in KEPT_OF_TRAINING}
        for lab, found in run["laboratories"].items():
            if lab not in run["unseen"]:
                del found["plain"], found["re-estimated"]
    return {"name": name, "runs": kept}


@pytest.fixture
def folder(tmp_path, released):
    """A model folder that holds made-up results."""
    write_results(tmp_path / "hub" / "eval_results.json", released)
    (tmp_path / "hub" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "hub"


def run(folder: Path, *more: str) -> int:
    return main(["--template", str(TEMPLATE), "--folder", str(folder), *more])


def test_results_come_back_as_they_were_written(tmp_path, results):
    path = tmp_path / "eval_results.json"
    write_results(path, results)
    assert read_results(path) == results
    assert [file.name for file in tmp_path.iterdir()] == ["eval_results.json"]  # nothing unfinished is left


def test_a_refused_write_leaves_the_file_as_it_was(tmp_path, results):
    path = tmp_path / "eval_results.json"
    write_results(path, results)
    before = path.read_bytes()
    with pytest.raises(ResultsError, match="model.parameters is 0"):
        write_results(path, results | {"model": results["model"] | {"parameters": 0}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("schema_version",), 3, "schema_version is 3; expected 2"),
        (("schema_version",), 1, "schema_version is 1; expected 2.*Measure the same weights again: python validate.py"),
        (("extra",), 1, r"unknown keys \['extra'\]"),
        (("model", "sha256"), "abc", "64 hexadecimal digits"),
        (("training", "seed"), True, "training.seed is True"),
        (("training", "wall_seconds"), float("inf"), "training.wall_seconds is inf"),
        (("training", "hardware"), {"cpu": "x"}, r"training.hardware lacks \['threads'\]"),
        (("training", "resolutions"), [], "sizes in px"),
        (("versions",), {"python": "3.11"}, r"versions lacks \['torch', 'transformers'\]"),
        (("results",), [], "one or more measurements"),
        (
            ("results", 1, "metrics", "accuracy", "value"),
            0.99,
            "metrics.accuracy.value is 0.99.*the confusion matrix's",
        ),
        (("results", 1, "metrics", "nll", "low"), 9.0, "at most its high"),
        (("results", 1, "metrics", "ece", "value"), float("nan"), "ece.value is nan"),
        (("results", 1, "recall", "monocyte", "value"), 1.0, "recall.monocyte.value is 1.0"),
        (("results", 1, "recall", "monocyte", "n"), 7, "monocyte.n is 7; expected 30"),
        (("results", 1, "recall", "basophil"), {}, r"unknown keys \['basophil'\]"),
        (("results", 1, "confusion_matrix", 0), [1, 2], "4 rows of 4 counts"),
        (("results", 1, "n_images"), 121, "sum of .* is 120; expected 121"),
        (("results", 1, "photo_level", "n_correct"), 3, "n_correct is 3"),
        (("results", 1, "labels"), ["a", "a", "b", "c"], "two or more different names"),
        (("results", 1, "split"), "validation", "each of them once"),
        (("results", 1, "left_out"), {"label blast": 0}, "left_out is .*images left out for each reason"),
        (("results", 1, "interval", "unit"), "image", "unit is 'image'; expected one of"),
        (("results", 1, "interval", "n_units"), 23, "n_units is 23; expected .*24 photos"),
        (("results", 1, "metrics", "brier"), 0.5, "metrics.brier is 0.5; expected an object"),
        (("results", 1, "recall", "monocyte", "n_photos"), 7, "monocyte.n_photos is 7; expected 6"),
        (("results", 1, "recall", "monocyte", "low"), 0.0, "monocyte.low is 0.0.*the diagonal of confusion_shares"),
        (("results", 1, "confusion_shares", "low"), [[0.5] * 4], "confusion_shares.low is .*expected 4 rows"),
        (("results", 1, "confusion_shares", "low", 2), None, r"low\[2\] is None; expected 4 numbers from 0 to 1"),
        (("results", 1, "confusion_shares", "high", 2, 3), 7, r"high\[2\] is .*expected 4 numbers from 0 to 1"),
        (("results", 1, "confusion_shares", "low", 2), [1.0] * 4, "at most its high"),
        (("results", 1, "photo_level", "aurc", "value"), None, "photo_level.aurc.value is None"),
        (("results", 1, "photo_level", "accuracy", "value"), 0.99, "photo_level.accuracy.value is 0.99"),
        (("results", 1, "photo_level", "recall", "monocyte", "n"), 7, "photo_level.recall.monocyte.n is 7"),
    ],
)
def test_results_that_contradict_themselves_are_refused(results, where, value, message):
    inner = results
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(ResultsError, match=message):
        validate_results(results)


def test_every_required_key_is_missed(results):
    for key in ("seed", "commit", "temperature", "data_fingerprint"):
        broken = copy.deepcopy(results)
        del broken["training"][key]
        with pytest.raises(ResultsError, match=rf"training lacks \['{key}'\]"):
            validate_results(broken)


def test_a_model_that_was_not_trained_here_has_no_training(tmp_path, results):
    path = tmp_path / "eval_results.json"
    write_results(path, results | {"training": None})
    assert read_results(path)["training"] is None


def test_the_file_shows_a_figure_and_a_row_on_one_line(results):
    results["training"]["command"] = "python train.py --data_dir '[\\n  a, b]' {\n c }"
    text = to_text(results)
    assert json.loads(text) == results
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    figure = json.dumps(results["results"][0]["metrics"]["nll"])
    assert f'"nll": {figure}' in lines
    for row in results["results"][1]["confusion_matrix"]:
        assert json.dumps(row) in lines


def test_new_measurements_replace_those_of_the_same_split_and_leave_the_others(tmp_path, results):
    path = tmp_path / "eval_results.json"
    write_results(path, results)
    again, more = (
        made_up_entry("TEST", 7, "Made-up cells", FOUR),
        made_up_entry("TEST, leak-free", 8, "Made-up cells", FOUR),
    )
    updated = put_entries(read_for_update(path, "ab" * 32), [more, again])
    assert updated["results"] == [results["results"][0], again, more]
    assert updated["model"] == results["model"]
    assert updated["versions"] == environment()
    assert updated["training"] == results["training"] | {"versions": results["versions"]}
    write_results(path, updated)
    assert put_entries(read_for_update(path, "ab" * 32), []) == updated  # the training's own versions stay


def test_new_measurements_stand_with_those_of_their_data_set(results):
    first, others = made_up_entry("validation", 1, "here", FOUR), made_up_entry("validation", 2, "there", FOUR)
    test = made_up_entry("TEST", 3, "here", FOUR)
    assert put_entries(results | {"results": [first, others]}, [test])["results"] == [first, test, others]


def test_of_an_old_file_only_the_model_and_its_training_are_taken_over(tmp_path, results, caplog):
    path = tmp_path / "eval_results.json"
    old = results | {"schema_version": 1, "results": [{"dataset": "x", "split": "TEST", "accuracy": 0.9}]}
    path.write_text(json.dumps(old))
    with pytest.raises(ResultsError, match="Measure the same weights again"):
        read_results(path)
    taken = read_for_update(path, "ab" * 32)
    assert taken == results | {"schema_version": SCHEMA_VERSION, "results": []}
    assert "dropped for those made now" in caplog.text
    path.write_text(json.dumps(old | {"training": {}}))
    with pytest.raises(ResultsError, match="training lacks"):
        read_for_update(path, "ab" * 32)


def test_measurements_of_other_weights_are_not_mixed(tmp_path, results):
    path = tmp_path / "eval_results.json"
    for version in (1, SCHEMA_VERSION):
        path.write_text(json.dumps(results | {"schema_version": version}))
        with pytest.raises(ResultsError, match="expected the same weights. Name another file"):
            read_for_update(path, "cd" * 32)


def test_reading_is_strict(tmp_path, results):
    path = tmp_path / "eval_results.json"
    with pytest.raises(FileNotFoundError, match="expected measured results"):
        read_results(path)
    text = json.dumps(results)
    for tampered, message in (
        (text[:-5], "no valid JSON"),
        (text.replace("4400.5", "NaN"), "NaN is no JSON number"),
        (text.replace('"seed": 31', '"seed": 31, "seed": 32'), r"\['seed'\] stand twice"),
    ):
        assert tampered != text
        path.write_text(tampered)
        with pytest.raises(ResultsError, match=message):
            read_results(path)


def test_environment_hardware_and_weights_are_named(tmp_path):
    import torch
    import transformers

    versions = environment()
    assert versions["transformers"] == transformers.__version__
    assert torch.__version__.split("+")[0] == versions["torch"].split("+")[0]  # the build is not always in the metadata
    assert set(hardware()) == {"cpu", "threads"} and hardware()["threads"] == torch.get_num_threads()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"weights").hexdigest()
    for name, content in (("model-00002-of-00002", b"ghts"), ("model-00001-of-00002", b"wei")):
        path = tmp_path / "parts" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert weights_sha256(tmp_path / "parts") == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(FileNotFoundError, match="expected a model's weights"):
        weights_sha256(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("program", "module", "words"),
    [
        (ROOT / "stress.py", None, "python stress.py"),
        (ROOT / "benchmarks" / "onnx_speed.py", None, "python benchmarks/onnx_speed.py"),
        ("/elsewhere/measure.py", None, "python measure.py"),
        (ROOT / "evaluation" / "examples.py", "evaluation.examples", "python -m evaluation.examples"),
        ("/elsewhere/pytest/__main__.py", "pytest.__main__", "python -m pytest"),
    ],
)
def test_what_is_measured_names_a_command_that_runs_from_the_root(monkeypatch, program, module, words):
    monkeypatch.setattr(sys, "argv", [str(program), "hub_model", "--out", "a file"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", module and ModuleSpec(module, None))
    monkeypatch.setenv("SOURCE_COMMIT", "c" * 40)
    told = provenance("onnx")
    assert told["command"] == f"{words} hub_model --out 'a file'"
    assert told["versions"] == environment() | {"onnx": importlib.metadata.version("onnx")}
    assert told["commit"] == "c" * 40 and told["dirty"] is False


def test_git_names_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    # The folder must not be taken for a part of a repository that lies around it.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", tmp_path, *arguments], check=True, capture_output=True, text=True).stdout

    with pytest.raises(RuntimeError, match="expected a repository with a commit"):
        git_commit(tmp_path)
    git("init")
    with pytest.raises(RuntimeError, match="Commit first"):
        git_commit(tmp_path)
    git("commit", "--allow-empty", "-m", "first")
    assert git_commit(tmp_path) == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "new.png").write_text("")
    assert git_commit(tmp_path)["dirty"] is True
    assert git_commit(tmp_path, ["results.json", "pictures"])["dirty"] is False
    (tmp_path / "new.py").write_text("")
    assert git_commit(tmp_path, ["results.json", "pictures"])["dirty"] is True


def test_the_card_states_what_was_measured(released):
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)
    test = released["results"][1]
    accuracy = test["metrics"]["accuracy"]
    shown = f"{100 * accuracy['value']:.1f} % [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
    photos = test["photo_level"]
    expected = [
        shown,
        f"{photos['n_correct']} of the {photos['n_photos']} photos",
        "7,654,321 parameters",
        "python train.py --data_dir cells --seed 31",
        released["training"]["commit"],
        "1 h 13 min, 321 images/s",
        "1,234,567, at 112, 160, 224 px",
        "8,765 images",
        "242 photos",
        "temperature of 1.234",
        "Some Processor, threads: 2",
        released["model"]["sha256"],
        # Four monocyte photos in 20 copies among 120 images: 5 of 120 each.
        "worth\n  4.2 points",
        "at least 0.537",
        "1 % of the accepted validation answers",
        "is above\n-1.25, below which 99 % of the validation cells lie",
    ]
    for one in expected:
        assert one in text, one
    for entry in released["results"]:
        assert f"{entry['metrics']['nll']['value']:.3f}" in text
    for entry in released["results"][1:]:
        for label in NAMES:
            assert f"{100 * entry['recall'][label]['value']:.1f} %" in text
    for table in (wanted_table(released), unseen_table(released["evidence"])):
        assert table in text
    for photo in photos["wrong"]:
        assert (
            f"| {photo['photo']} | {photo['label']} | {photo['answer']} | {100 * photo['probability']:.1f} % |" in text
        )
    for label, row in zip(NAMES, test["confusion_matrix"], strict=True):
        assert f"| **{label}** | {' | '.join(map(str, row))} |" in text
    assert "{{" not in text.replace("{{The wbc-resnet contributors}}", "") and "{%" not in text


def test_every_link_within_the_card_leads_to_a_heading(released):
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert {"results", "training", "from-train-photos-alone"} <= linked <= anchors


def test_what_is_folded_away_opens_and_closes(released):
    lines = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG).splitlines()
    opened = [k for k, line in enumerate(lines) if line.startswith("<details>")]
    closed = [k for k, line in enumerate(lines) if line == "</details>"]
    assert len(opened) == len(closed) == 5
    for begin, end in zip(opened, closed, strict=True):
        assert begin < end and lines[begin + 1] == lines[end - 1] == ""  # else Markdown within stays raw
        assert "python " in "\n".join(lines[begin:end])


def test_every_table_of_the_card_is_whole(released):
    lines = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG).splitlines()
    tables, block = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            tables.append(block)
            block = []
    assert len(tables) == 28
    for table in tables:
        assert len(table) >= 3 and re.fullmatch(r"\|(-+:?\|)+", table[1]), table
        assert len({line.count("|") for line in table}) == 1, table


def test_the_table_names_its_unit_and_what_was_left_out(results):
    assert "drawn as one" not in results_table(results["results"])
    groups = [f"group {p // 2}" for p in np.repeat(np.arange(24), 5)]
    entry = made_up_entry(
        "TEST, leak-free", 3, "Made-up cells", FOUR, groups=groups, left_out={"cells also seen": 1234, "label blast": 2}
    )
    text = results_table([*results["results"], entry])
    assert "photos of one slide, or of the same cells, are drawn as one" in text
    assert (
        "*TEST, leak-free* of Made-up cells leaves out 1,234 images (cells also seen) and 2 images (label blast)."
        in text
    )


def test_the_head_is_the_hubs(released):
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)
    head = ModelCard(text).data
    assert (head.license, head.library_name, head.pipeline_tag) == (
        "apache-2.0",
        "transformers",
        "image-classification",
    )
    assert head.model_name == "wbc-resnet/wbc-resnet24"
    assert head.widget == [
        {
            "src": "examples/monocyte.png",
            "example_title": "monocyte, drawn",
            "output": [{"label": "monocyte", "score": 0.875}, {"label": "other", "score": 0.0625}],
        }
    ]
    stated = {(one.dataset_name, one.dataset_split, one.metric_name): one.metric_value for one in head.eval_results}
    assert len(stated) == len(released["results"]) * len(METRICS)
    for entry in released["results"]:
        for name in METRICS:
            assert (
                stated[entry["dataset"], entry["split"], card.HUB_METRICS[name][1]] == entry["metrics"][name]["value"]
            )


def test_the_cards_snippets_run_on_the_published_folder(released, model_folder, tmp_path, monkeypatch):
    folder = shutil.copytree(model_folder, tmp_path / "published")
    config, shipped = (json.loads((place / "config.json").read_text()) for place in (folder, ROOT / "hub_model"))
    (folder / "config.json").write_text(json.dumps(config | {"custom_pipelines": shipped["custom_pipelines"]}))
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG).replace(released["model"]["name"], str(folder))
    plain, ours, fields, cell = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:4]
    Image.new("RGB", (64, 48), "plum").save(tmp_path / "cell.jpg")
    for number, places in ((1, [(110, 150)]), (2, [(330, 420)])):
        write_image(tmp_path / f"field-{number}.jpg", draw_field(number, places)[0], quality=95)
    monkeypatch.chdir(tmp_path)
    seen = {}
    exec(plain.replace("\nclassify(", "\nanswers = classify("), seen)
    exec(ours, seen)
    top, output = seen["answers"][0], seen["output"]
    assert top["label"] == seen["model"].config.id2label[seen["best"]]
    assert top["score"] == pytest.approx(float(output.logits.softmax(-1).max()), abs=1e-6)
    assert output.evidence[0, seen["best"]].shape == (28, 28)
    exec(fields.replace("count = pipeline", "from transformers import pipeline\ncount = pipeline"), seen)
    assert [len(image["cells"]) for image in seen["answer"]["images"]] == [1, 1]
    assert seen["answer"]["differential"]["cells"]["counted"] == 2
    exec(cell.replace("count(", "named = count(", 1), seen)
    assert seen["named"].keys() == {"verdict", "reason", "confidence", "energy", "probabilities"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("license: apache-2.0\n", "", "The head's license is None"),
        ("library_name: transformers", "library_name: timm", "library_name is 'timm'; expected 'transformers'"),
        ("pipeline_tag: image-classification", "pipeline_tag: 7", "pipeline_tag is 7; expected a text"),
        ("- balanced_accuracy", "- beauty", r"metrics \['beauty'\] are not measured"),
        ("metrics:", "datasets:\n- https://kaggle.com/x\nmetrics:", "are no repository ids"),
        ("---\nlicense", "license", "has no YAML head"),
        ("license: apache-2.0", "license: [", "no valid YAML"),
    ],
)
def test_a_head_that_the_hub_would_refuse_is_refused(released, old, new, message):
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)
    assert old in text
    with pytest.raises(CardError, match=message):
        validate_head(text.replace(old, new, 1), released)


def test_a_model_index_with_another_number_is_refused(released):
    text = render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)
    value = yaml.safe_dump(released["results"][1]["metrics"]["accuracy"]["value"]).split()[0]
    head, mark, rest = text.partition("\n---\n")
    with pytest.raises(CardError, match="model-index differs"):
        validate_head(head.replace(f"value: {value}", "value: 0.999") + mark + rest, released)


def test_a_name_that_nobody_measured_is_refused(released):
    head = TEMPLATE.read_text("utf-8").split("\n---\n")[0] + "\n---\n"
    for body, message in (
        ("{{ training.beauty }}", "has no attribute 'beauty'"),
        ("{{ beauty }}", "'beauty' is undefined"),
        ("{{ entry('moon').n_images }}", "asks for split 'moon'.*found 0"),
        ("{{ recall_of(entry('TEST', 'pbc'), 'blast').n }}", "asks for the recall of 'blast'"),
        ("{% if %}", "cannot be filled in"),
    ):
        with pytest.raises(CardError, match=message):
            render_card(head + body, released, CONFIG)
    assert render_card(head + "{{ training.seed }}", released, CONFIG).endswith("31")


BLOCKS = """<!-- results:begin -->
old
<!-- results:end -->
between
<!-- comparison:begin -->
<!-- comparison:end -->"""


def test_check_passes_what_was_rendered_and_fails_what_was_tampered_with(folder, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BLOCKS}\n\nThe rest.\n")
    assert run(folder, "--check") == 1  # there is no card yet
    assert run(folder, "--readme", str(readme)) == 0
    assert run(folder, "--readme", str(readme), "--check") == 0
    capsys.readouterr()
    for path in (folder / "README.md", readme):
        text = path.read_text()
        tampered = re.sub(r"\d+\.\d %", "99.9 %", text, count=1)
        assert tampered != text
        path.write_text(tampered)
        assert run(folder, "--readme", str(readme), "--check") == 1
        assert "+" in capsys.readouterr().out and path.read_text() == tampered  # shown, not mended
        path.write_text(text)
    assert run(folder, "--readme", str(readme), "--check") == 0


def test_results_of_other_weights_are_refused(folder, capsys):
    (folder / "model.safetensors").write_bytes(b"other weights")
    assert run(folder) == 2
    assert "expected the same weights" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_the_readme_keeps_what_stands_around_its_table(results):
    readme = f"before\n{BLOCKS}\nafter"
    text = render_readme(readme, results)
    assert text.startswith("before\n") and "\nbetween\n" in text and text.endswith("\nafter")
    assert results_table(results["results"]) in text and comparison_table(results) in text
    assert render_readme(text, results) == text
    for broken in (
        "no markers",
        "\n".join(reversed(BLOCKS.splitlines())),
        readme + readme,
        readme.replace("comparison:end", ""),
    ):
        with pytest.raises(CardError, match="once each, in this order"):
            render_readme(broken, results)


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (245, "4 min 5 s"), (4400.5, "1 h 13 min"), (7199.9, "2 h 0 min")]
)
def test_durations(seconds, text):
    assert card.duration(seconds) == text


def test_errors_with_a_class_are_its_row_and_its_column():
    measured = {"labels": ["a", "b", "c"], "confusion_matrix": [[9, 1, 2], [3, 9, 4], [5, 6, 9]]}
    assert [card.errors_of(measured, label) for label in "abc"] == [(11, 21), (14, 21), (17, 21)]


def test_errors_between_two_classes_are_those_of_both_directions():
    measured = {"labels": ["a", "b", "c"], "confusion_matrix": [[9, 1, 2], [3, 9, 4], [5, 6, 9]]}
    assert [card.between(measured, *pair) for pair in ("ab", "ca", "bc")] == [4, 7, 10]


def test_a_row_that_reaches_its_target_is_not_explained(released):
    better = copy.deepcopy(released)
    (entry,) = [one for one in better["results"] if (one["dataset"], one["split"]) == ("pbc", "TEST")]
    assert entry["metrics"]["ece"]["value"] > 0.005
    template = TEMPLATE.read_text("utf-8")
    assert "- *Calibration of PBC*" in render_card(template, better, CONFIG)
    entry["metrics"]["ece"] |= {"value": 0.004, "low": 0.003, "high": 0.005}
    text = render_card(template, better, CONFIG)
    assert "- *Calibration of PBC*" not in text and "Why rows miss their target" in text


def test_every_training_that_led_to_the_weights_is_named_in_order(released):
    first = {**released["training"], "command": "python train.py --first", "started_from": {"source": "weights.bin"}}
    second = {**released["training"], "command": "python train.py --second", "started_from": first}
    chain = {**released, "training": {**released["training"], "started_from": second}}
    text = render_card(TEMPLATE.read_text("utf-8"), chain, CONFIG)
    commands = f"```bash\npython train.py --first\npython train.py --second\n{released['training']['command']}\n```"
    assert commands in text and re.search(r"^\| 3 \| [\d,]+ \| ", text, re.MULTILINE)
    assert "It begins with the weights `weights.bin`.\n" in text
    assert "It begins" not in render_card(TEMPLATE.read_text("utf-8"), released, CONFIG)  # from scratch


@pytest.mark.parametrize("stages", [1, 2])
def test_the_card_tells_with_whose_weights_training_began(stages, released):
    told = {"source": "resnet50.safetensors", "sha256": "5" * 64, "learnt_from": "ImageNet-1k (a.tgz)"}
    for _ in range(stages):
        told = {**released["training"], "started_from": told}
    text = render_card(TEMPLATE.read_text("utf-8"), {**released, "training": told}, CONFIG)
    training = " ".join(text.partition("## Training")[2].split())
    weights = f"the weights `resnet50.safetensors`, SHA-256 `{'5' * 64}`, of a ResNet-50 that learnt from ImageNet-1k (a.tgz):"
    assert weights in training and "`THIRD_PARTY.md` names who made them, and their terms." in training


def test_stages_that_were_averaged_or_shown_each_image_twice_are_numbered(released):
    def render(*stages, sources=()):
        trainings = None
        for stage, source in itertools.zip_longest(stages, sources):
            start = {**(trainings or {}), "source": source or "weights.bin"}
            trainings = {**released["training"], "started_from": start, **stage}
        text = render_card(TEMPLATE.read_text("utf-8"), {**released, "training": trainings}, CONFIG)
        return " ".join(text.split())

    on = "python train.py --data_dir blood-cells pbc"
    blind = {"command": f"{on} --measure_splits validation --output_dir runs/blind"}
    tested = {"command": f"{on} --measure_splits validation test"}
    text = render(tested, tested, blind, blind)
    assert "Stages 1 and 2 of the [training](#training) were measured on it too, at the end or once shipped" in text
    assert "on record by then; stages 3 and 4 measured validation alone; which stage" in text
    assert "alone" not in render(tested, tested).partition("as published")[2].partition("Four things")[0]
    elsewhere = {"command": "python train.py --data_dir pbc"}  # has no TEST of Kaggle's
    assert "Stage 2 of the [training](#training) was measured on it too" in render(elsewhere, tested, blind)
    text = render(tested, blind, blind, sources=["weights.bin", "runs-1", "hub_model"])
    assert "Stages 1 and 2 of the [training](#training) were" in text and "; stage 3 measured validation alone" in text
    plain, mean = {"recipe": {"consistency": 0}}, {"averaged_with": [{"source": "other", "sha256": SHA256}]}
    twice = {"recipe": {"consistency": 12.0}}
    text = render(mean, mean, twice, twice | mean)
    assert "Stages 1, 2 and 4 each end with the mean of its own weights" in text
    assert "Stages 3 and 4 showed each image twice" in text and "weights were trained with two views at the end" in text
    assert "weights were trained in part with two views" in render(twice, plain)
    text = render(plain, twice)
    assert "Stage 2 showed each image twice" in text and "--average_with" not in text
    assert (
        "with the mean of" not in render(plain, plain)
        and "trained without two views" in render(plain)
        and "showed each image twice" not in render(plain, plain)
    )


def test_the_published_card_agrees_with_the_published_results(capsys):
    published = ROOT / "hub_model"
    if not (published / "eval_results.json").is_file():
        pytest.skip("no measured results yet: hub_model/eval_results.json does not exist")
    readme = ROOT / "README.md"
    more = ("--readme", str(readme)) if readme.is_file() else ()
    status = run(published, *more, "--check")
    output = capsys.readouterr()
    assert status == 0, output.out + output.err
