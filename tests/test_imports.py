"""The rooms of design.md and the arrows between them, checked against every file's own imports."""

import ast
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

# Each room, and the rooms it may import. Every arrow goes down; nobody imports a script or the Space.
MAY_IMPORT = {
    "train": {"publishing", "training", "smears", "evaluation", "hub_model"},
    "validate": {"smears", "evaluation"},
    "cross_validate": {"smears", "evaluation"},
    "leave_one_out": {"smears", "evaluation", "hub_model"},
    "few_labels": {"smears", "evaluation", "hub_model"},
    "stress": {"smears", "evaluation", "hub_model"},
    "adapt": {"smears", "evaluation", "hub_model"},
    "measure_gate": {"smears", "evaluation", "hub_model"},
    "measure_overlaps": {"smears", "hub_model"},
    "measure_finding": {"smears", "evaluation", "hub_model"},
    "count_errors": {"smears", "evaluation", "hub_model"},
    "simulate_counts": {"smears", "evaluation", "hub_model"},
    "export_onnx": {"evaluation"},
    "quantize_onnx": {"smears", "evaluation"},
    "measure_doors": {"evaluation"},
    "publish": {"publishing"},
    "publishing": {"smears", "evaluation", "hub_model"},
    "score": {"scoring"},
    "scoring": {"hub_model"},
    "training": {"smears", "evaluation"},
    "smears": set(),
    "evaluation": set(),
    "hub_model": set(),
    "space": set(),
    "benchmarks": {"training", "smears", "evaluation", "hub_model"},
}
# Inside hub_model: each file, and the siblings it may import. The pipeline reaches the model through the auto classes.
SIBLINGS = {
    "__init__": set(),
    "configuration_wbc_resnet": set(),
    "batch_statistics": {"folding"},
    "head_fitting": {"batch_statistics", "folding", "sentences"},
    "folding": set(),
    "laboratory_fitting": {"batch_statistics", "head_fitting"},
    "tensor_names": set(),
    "modeling_wbc_resnet": {
        "batch_statistics",
        "configuration_wbc_resnet",
        "folding",
        "head_fitting",
        "laboratory_fitting",
        "sentences",
        "tensor_names",
    },
    "timm_wbc_resnet": {"configuration_wbc_resnet", "modeling_wbc_resnet", "tensor_names"},
    "pipeline_wbc_resnet": {
        "batch_statistics",
        "cell_finding",
        "differential",
        "error_adjustment",
        "field_overlaps",
        "folding",
        "head_fitting",
        "image_reading",
        "sentences",
        "smear_gate",
    },
    "cell_finding": set(),
    "differential": {"error_adjustment", "sentences"},
    "error_adjustment": set(),
    "field_overlaps": {"sentences"},
    "image_reading": {"sentences"},
    "sentences": set(),
    "smear_gate": {"cell_finding", "sentences"},
    "handler": set(),
}
# What a loaded file imports becomes a requirement of every user.
REMOTE_CODE = SIBLINGS.keys() - {"timm_wbc_resnet"}
EVERY_USER_HAS = {"torch", "transformers", "numpy", "scipy", "PIL"} | sys.stdlib_module_names


def imports(path):
    """List the imports of a file, also those inside functions: (line, dots before the name, module, names)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                name = node.args[0].value
                yield node.lineno, len(name) - len(name.lstrip(".")), name.lstrip("."), ()


def imported_roots(path, root):
    """List (line, first part of the absolute module name), relative imports resolved from the file's place."""
    package = path.relative_to(root).parent.parts
    for line, dots, module, names in imports(path):
        if not dots:
            yield line, module.split(".")[0]
            continue
        inside = package[: len(package) - (dots - 1)]
        for name in names if not module else (module,):
            yield line, (*inside, *name.split("."))[0]


def violations(root):
    """List what breaks the table in the repository at ``root``, as ``file:line: reason``."""
    found = []
    files = [path for path in root.glob("*.py")]
    files += [path for room in MAY_IMPORT for path in sorted((root / room).rglob("*.py"))]
    rooms = MAY_IMPORT.keys() | {path.stem for path in root.glob("*.py")}
    rooms |= {path.name for path in root.iterdir() if any(path.glob("*.py"))}
    for path in files:
        place = path.relative_to(root)
        room = place.parts[0].removesuffix(".py")
        if room not in MAY_IMPORT:
            found.append(f"{place}: no row in the table of rooms")
            continue
        # hub_model stands under another name where it is loaded, so it may not call itself by this one either.
        allowed = MAY_IMPORT[room] | ({room} - {"hub_model", "space"})
        for line, imported in imported_roots(path, root):
            by_sibling_rule = room == "hub_model" and imported == room
            if imported in rooms and imported not in allowed and not by_sibling_rule:
                found.append(f"{place}:{line}: {room} may not import {imported}")
        if room == "hub_model":
            found += [f"{place}:{line}: {reason}" for line, reason in breaks_in_hub_model(path)]
    return found


def breaks_in_hub_model(path):
    """List (line, reason) for what breaks the rules of files that are loaded as remote code."""
    if path.stem not in SIBLINGS:
        yield 1, "no row in the table of siblings"
        return
    for line, dots, module, _ in imports(path):
        top = module.split(".")[0]
        if dots:
            if dots > 1 or not module or "." in module:
                yield line, "import siblings only as `from .name import x`"
            elif module not in SIBLINGS[path.stem]:
                yield line, f"{path.stem} may not import its sibling {module}"
        elif top == "hub_model":
            yield line, "import siblings only as `from .name import x`"
        elif path.stem in REMOTE_CODE and top not in EVERY_USER_HAS:
            yield line, f"remote code imports {top}, which every user would have to install"


def test_every_arrow_goes_down():
    assert violations(REPOSITORY) == []


def test_transformers_own_reader_finds_nothing_more():
    """It reads lines, docstrings included, where the check above reads the syntax tree."""
    from transformers.dynamic_module_utils import get_imports, get_relative_imports

    for name in sorted(REMOTE_CODE):
        path = REPOSITORY / "hub_model" / f"{name}.py"
        if path.is_file():
            assert set(get_imports(path)) <= EVERY_USER_HAS, name
            assert set(get_relative_imports(path)) <= SIBLINGS[name], name


def test_what_is_loaded_first_names_all_it_needs():
    """From a folder, transformers 4 takes along only the siblings that the file itself imports, not theirs."""
    for first in ("configuration_wbc_resnet", "modeling_wbc_resnet", "pipeline_wbc_resnet"):
        path = REPOSITORY / "hub_model" / f"{first}.py"
        named = {module for _, dots, module, _ in imports(path) if dots}
        assert named == SIBLINGS[first]
        assert named == named.union(*(SIBLINGS[sibling] for sibling in named)), first


def test_the_table_has_no_circle():
    for arrows in (MAY_IMPORT, SIBLINGS):
        left = dict(arrows)
        while ground := [room for room, below in left.items() if not below & left.keys()]:
            for room in ground:
                del left[room]
        assert not left, f"these import each other: {sorted(left)}"


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("smears/a.py", "import training.ema", "smears/a.py:1: smears may not import training"),
        (
            "smears/a.py",
            "\ndef f():\n    from evaluation import metrics",
            "smears/a.py:3: smears may not import evaluation",
        ),
        ("evaluation/a.py", "from ..smears import splits", "evaluation/a.py:1: evaluation may not import smears"),
        ("evaluation/deep/a.py", "from ... import smears", "evaluation/deep/a.py:1: evaluation may not import smears"),
        ("training/a.py", "import hub_model.modeling_wbc_resnet", "training/a.py:1: training may not import hub_model"),
        ("training/a.py", "import train", "training/a.py:1: training may not import train"),
        ("train.py", "from space import app", "train.py:1: train may not import space"),
        ("validate.py", "import os, score", "validate.py:1: validate may not import score"),
        (
            "space/app.py",
            "import importlib\nimportlib.import_module('hub_model')",
            "space/app.py:2: space may not import hub",
        ),
        (
            "space/app.py",
            "try:\n    import smears\nexcept ImportError:\n    pass",
            "space/app.py:2: space may not import smears",
        ),
        ("space/app.py", "import tools", "space/app.py:1: space may not import tools"),
        ("tools.py", "", "tools.py: no row in the table of rooms"),
        ("hub_model/handler.py", "import smears", "hub_model/handler.py:1: hub_model may not import smears"),
        ("hub_model/handler.py", "from .differential import x", "handler may not import its sibling differential"),
        ("hub_model/modeling_wbc_resnet.py", "from . import configuration_wbc_resnet", "only as `from .name import x`"),
        ("hub_model/modeling_wbc_resnet.py", "from .a.b import x", "only as `from .name import x`"),
        ("hub_model/modeling_wbc_resnet.py", "from hub_model.configuration_wbc_resnet import x", "only as `from .name"),
        ("hub_model/modeling_wbc_resnet.py", "import timm", "remote code imports timm"),
        ("hub_model/configuration_wbc_resnet.py", "from .modeling_wbc_resnet import x", "may not import its sibling"),
        ("hub_model/helpers.py", "", "hub_model/helpers.py:1: no row in the table of siblings"),
    ],
)
def test_a_planted_violation_is_reported(file, code, reason, tmp_path):
    for room in ("smears", "evaluation", "training", "hub_model", "space"):
        (tmp_path / room).mkdir()
    (tmp_path / "tools.py").touch()
    planted = tmp_path / Path(file)
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(code)
    assert any(reason in found for found in violations(tmp_path)), violations(tmp_path)


def test_allowed_imports_are_not_reported(tmp_path):
    files = {
        "train.py": "import torch\nfrom hub_model.modeling_wbc_resnet import A\nfrom smears import splits\nimport training.ema",
        "training/__init__.py": "",
        "training/ema.py": "from evaluation import metrics\nfrom . import augment\nimport training.augment",
        "smears/__init__.py": "from .splits import x",
        "evaluation/__init__.py": "",
        "hub_model/modeling_wbc_resnet.py": "import re, torch\nfrom .configuration_wbc_resnet import A\nfrom torch.nn import B",
        "hub_model/timm_wbc_resnet.py": "import timm\nfrom .modeling_wbc_resnet import A",
        "space/app.py": "import gradio\nimport report\nfrom transformers import pipeline",
        "space/report.py": "import fpdf",
        "tests/test_a.py": "import train, space.app",
    }
    for file, code in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    assert violations(tmp_path) == []
