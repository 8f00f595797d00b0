"""The repositories on the Hub: what each is called, which folder it is made from, and which files it may hold."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publishing.faults import PublishingError

NAMESPACE = "wbc-resnet"  # by which the project's own files call the repositories
LICENSE = "LICENSE"  # stands once, beside the scripts, and goes into every repository
TIMM = "timm"  # the branch of the model repository that stock timm loads
LARGEST = 10 * 1000 * 1000  # bytes of a file

MODEL_CODE = (
    "__init__.py", "batch_statistics.py", "cell_finding.py", "configuration_wbc_resnet.py", "differential.py",
    "differential.schema.json", "error_adjustment.py", "field_overlaps.py", "folding.py", "handler.py", "head_fitting.py",
    "image_reading.py", "laboratory_fitting.py", "modeling_wbc_resnet.py", "pipeline_wbc_resnet.py", "sentences.py",
    "smear_gate.py", "tensor_names.py", "timm_wbc_resnet.py",
)  # fmt: skip
MODEL_DATA = ("config.json", "preprocessor_config.json", "model.safetensors", "eval_results.json")
# What further doors bring. transformers.js calls 8 bits "quantized" or "int8".
MODEL_DOORS = (
    "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_int8.onnx",
    "onnx/resize.mjs",
)  # fmt: skip
SPACE_CODE = (
    "about.py", "app.py", "colours.py", "count_fields.py", "draw_examples.py", "endpoints.py", "favicon.png",
    "field_picture.py", "fields_page.py", "fonts/DejaVuSans-Bold.ttf", "fonts/DejaVuSans.ttf", "fonts/LICENSE",
    "guard.py", "laboratory.py", "languages.py", "metadata.py", "my_laboratory.py", "one_cell.py", "overlay.py", "page.css",
    "page.js", "page.py", "reading.py", "report.py", "requirements.txt", "review.js", "review.py", "sending.js",
    "smear_fields.py", "smear_model.py", "texts.py", "tools.py", "turns.py", "uploads.py", "visits.py",
)  # fmt: skip

EXAMPLES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")


@dataclass(frozen=True)
class Kind:
    """A kind of repository.

    Attributes:
        name: "model", "dataset" or "space".
        folder: of the project, that it is made from.
        repository: its name on the Hub, without the namespace.
        files: that it must hold, beside README.md and the licence.
        may: patterns of what it may hold besides.
        pictures: patterns of further pictures that it may hold where its README names them.
    """

    name: str
    folder: str
    repository: str
    files: tuple[str, ...]
    may: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()


PLOTS = tuple(
    f"pictures/*-{plot}.png" for plot in ("confusion", "reliability", "risk-coverage")
)  # the Space shows them
PICTURES = tuple(f"{folder}/*.{ending}" for folder in ("pictures", "examples") for ending in ("png", "jpg", "webp"))
KINDS: Mapping[str, Kind] = {
    "model": Kind("model", "hub_model", "wbc-resnet24", MODEL_CODE + MODEL_DATA, MODEL_DOORS + PLOTS, PICTURES),
    "dataset": Kind("dataset", "hub_dataset", "kaggle-photos", ("images.csv", "photos.csv", "overlaps.csv")),
    "space": Kind(
        "space",
        "space",
        "wbc-resnet24",
        (
            *SPACE_CODE,
            *(f"examples/{name}.png" for name in EXAMPLES),
        ),
    ),
}
TIMM_FILES = ("config.json", "model.safetensors")
OWN_IDS = re.compile(rf"\b{NAMESPACE}/({'|'.join(sorted({kind.repository for kind in KINDS.values()}))})(?![\w-])")


def version_of(tree: Path) -> str:
    """Read the project's version, the one place where it stands.

    Raises:
        PublishingError: it stands there in no form that makes a tag.
    """
    path = tree / "pyproject.toml"
    version = tomllib.loads(path.read_text("utf-8")).get("project", {}).get("version")
    return check_version(version, str(path))


def check_version(version: object, place: str) -> str:
    """Refuse what is no version: three numbers and perhaps a suffix, such as 1.2.0 or 1.2.0rc1."""
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+\.\d+([.-]?[a-z]+\d*)?", version):
        raise PublishingError(f"{place}: the version is {version!r}; expected three numbers such as 1.2.0. Correct it.")
    return version


def check_name(name: str, what: str) -> str:
    """Refuse what the Hub takes for no name of a namespace or a repository.

    Raises:
        PublishingError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,95}", name) or re.search(r"--|\.\.|[.-]$|\.git$", name):
        raise PublishingError(
            f"{what} {name!r} is no name on the Hub; expected letters, digits, '-', '_' or '.', such as {NAMESPACE}. "
            "Write it without the repository and without a slash."
        )
    return name
