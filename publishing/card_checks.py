"""The cards: a head that the Hub takes, the figures that were measured, a licence for each source of images.

All without the network: the Hub's own check of a head needs it.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCardData, ModelCardData, SpaceCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import model_index_to_eval_results
from packaging.version import InvalidVersion, Version

from evaluation.card import CardError, check_weights, render_card, results_table, validate_head
from evaluation.results import FILE_NAME, read_results
from publishing.composing import Composed
from publishing.faults import Fault
from publishing.licences import HUB_LICENCES, datasets_of, read_sources, unstated
from publishing.repositories import TIMM

HEADS = {
    "model": {"license": str, "library_name": str, "pipeline_tag": str, "tags": list},
    "dataset": {"license": str, "pretty_name": str, "configs": list, "task_categories": list, "tags": list},
    "space": {
        "title": str, "emoji": str, "colorFrom": str, "colorTo": str, "sdk": str, "sdk_version": str, "python_version": str,
        "app_file": str, "license": str,
    },
}  # fmt: skip
MAY = {
    "language": (str, list), "metrics": list, "model-index": list, "datasets": list, "base_model": (str, list),
    "widget": list, "model_name": str, "inference": (bool, dict), "size_categories": list, "dataset_info": (list, dict),
    "pinned": bool, "short_description": str, "models": list, "thumbnail": str, "license_name": str, "license_link": str,
}  # fmt: skip
DATA = {"model": ModelCardData, "dataset": DatasetCardData, "space": SpaceCardData}
TEXT_LISTS = ("tags", "metrics", "datasets", "models", "task_categories")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
RENDER = "Write the card anew: make card."
HEAD = "Correct the head between the two lines '---'."


def read_head(card: str) -> dict[str, Any]:
    """Read a card's YAML head.

    Raises:
        ValueError: there is none, or it is no mapping.
    """
    block = REGEX_YAML_BLOCK.match(card)
    if not block:
        raise ValueError("no YAML head between two lines '---' at its top")
    try:
        head = yaml.safe_load(block.group(2))
    except yaml.YAMLError as error:
        raise ValueError(f"a head that is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(head, dict):
        raise ValueError(f"a head that is {type(head).__name__}")
    return head


def check_head(composed: Composed) -> Iterator[Fault]:
    """Give what the Hub would refuse or misread in a card's head."""
    path = composed.folder / "README.md"
    if not path.is_file():
        return  # told among the files
    shown = composed.shown(path)
    try:
        head = read_head(path.read_text("utf-8", errors="replace"))
    except ValueError as error:
        yield Fault(shown, str(error), "the head that the Hub reads", HEAD)
        return
    kinds = HEADS[composed.kind.name]
    for key, kind in kinds.items():
        if key not in head:
            yield Fault(shown, f"no {key} in its head", f"a {kind.__name__}", HEAD)
    for key, value in head.items():
        kind = kinds.get(key) or MAY.get(key)
        if kind is None:
            yield Fault(shown, f"the key {key!r} in its head", "keys that the Hub knows", HEAD)
        elif not isinstance(value, kind) or value in ("", []):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            yield Fault(shown, f"{key} is {value!r}", f"a {names}", HEAD)
        elif key in TEXT_LISTS and (wrong := [item for item in value if not isinstance(item, str) or not item.strip()]):
            yield Fault(shown, f"{key} holds {wrong[0]!r}", "texts", HEAD)
    if isinstance(head.get("license"), str) and head["license"] not in HUB_LICENCES:
        yield Fault(shown, f"license is {head['license']!r}", "an identifier such as apache-2.0", HEAD)
    if composed.kind.name == "model":
        library = "timm" if composed.branch == TIMM else "transformers"
        for key, expected in {"pipeline_tag": "image-classification", "library_name": library}.items():
            if head.get(key, expected) != expected:
                yield Fault(shown, f"{key} is {head[key]!r}", f"{expected!r}, by which the Hub loads the model", HEAD)
    if composed.kind.name == "space":
        yield from _check_space_head(shown, composed.folder, head)
    try:
        DATA[composed.kind.name](
            **{key.replace("-", "_"): value for key, value in head.items() if key != "model-index"}
        )
        if index := head.get("model-index"):
            model_index_to_eval_results(index)
    except Exception as error:  # whatever huggingface_hub's reader makes of a wrong form
        yield Fault(shown, f"a head that huggingface_hub cannot read ({error})", "its form", HEAD)


def _check_space_head(shown: str, folder: Path, head: Mapping[str, Any]) -> Iterator[Fault]:
    if head.get("sdk") != "gradio":
        yield Fault(shown, f"sdk is {head.get('sdk')!r}", "'gradio'", HEAD)
    if head.get("python_version") != "3.11":
        came = f"python_version is {head.get('python_version')!r}"
        yield Fault(shown, came, "'3.11', in quotes; the Hub's own is too old for the libraries", HEAD)
    try:
        Version(str(head.get("sdk_version")))
    except InvalidVersion:
        yield Fault(shown, f"sdk_version is {head.get('sdk_version')!r}", "a version of gradio", HEAD)
    if not (folder / str(head.get("app_file"))).is_file():
        yield Fault(shown, f"app_file is {head.get('app_file')!r}", "a file of the folder", HEAD)
    for key in ("colorFrom", "colorTo"):
        if head.get(key) not in COLOURS:
            yield Fault(shown, f"{key} is {head.get(key)!r}", f"one of {', '.join(COLOURS)}", HEAD)
    if len(str(head.get("short_description", ""))) > 60:
        yield Fault(shown, "a short_description of more than 60 letters", "at most 60, as the Hub takes", HEAD)


def check_figures(composed: Composed) -> Iterator[Fault]:
    """Give where a model's card states other figures than were measured, or of other weights."""
    card, results = composed.folder / "README.md", composed.folder / FILE_NAME
    if not card.is_file() or not results.is_file():
        return
    try:
        measured = read_results(results)
        check_weights(composed.folder, measured)
    except ValueError as error:
        came = str(error).replace(f"{composed.folder}/", "")
        yield Fault(
            composed.shown(results),
            came,
            "what was measured on these weights",
            "Measure them: make measure, then make card.",
        )
        return
    text = card.read_text("utf-8", errors="replace")
    try:
        validate_head(text, measured)
    except CardError as error:
        yield Fault(composed.shown(card), str(error), f"the figures of {FILE_NAME}", RENDER)
    for row in results_table(measured["results"]).splitlines():
        if row.startswith("|") and row not in text:
            yield Fault(composed.shown(card), f"not the row '{row}'", f"each row of {FILE_NAME}", RENDER)
    known = read_sources()
    for name in datasets_of(measured):
        source = known.get(name)
        if source and unstated(text, source):
            came = f"nothing of {source.link} under {source.licence}"
            remedy = "Name source and licence in one line of the card."
            yield Fault(composed.shown(card), came, f"the licence of the images {name!r}", remedy)
        elif not source and not re.search(rf"^\| {re.escape(name)} \|.*\| \S.* \|$", data_section(text), re.MULTILINE):
            came, remedy = f"no licence of the images {name!r}", "Name it in publishing/sources.csv and in the card."
            yield Fault(composed.shown(card), came, "the licence of each source", remedy)


def data_section(card: str) -> str:
    """Give what a card says of its data, under the heading of this name."""
    return next((part for part in re.split(r"^## ", card, flags=re.MULTILINE) if part.startswith("Data\n")), "")


def check_rendered(tree: Path, template: Path, folder: Path, config: Mapping[str, Any]) -> Iterator[Fault]:
    """Give where the project's own card is not what its template makes of the figures."""
    shown = str((folder / "README.md").relative_to(tree))
    try:
        expected = render_card(template.read_text("utf-8"), read_results(folder / FILE_NAME), config)
    except (CardError, OSError, ValueError) as error:
        yield Fault(template.name, str(error).replace(f"{tree}/", ""), "a card made from it", RENDER)
        return
    stands = (folder / "README.md").read_text("utf-8", errors="replace") if (folder / "README.md").is_file() else ""
    if stands != expected:
        lines = zip(stands.splitlines(), expected.splitlines(), strict=False)
        number, (came, meant) = next(
            ((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1]), (0, ("another length", "the whole"))
        )
        yield Fault(shown, f"line {number}: {came[:100]!r}", f"{meant[:100]!r} as {FILE_NAME} has it", RENDER)


def check_licences_of_tables(composed: Composed) -> Iterator[Fault]:
    """Give what the data set's card does not say of the images behind its tables."""
    card, source = composed.folder / "README.md", read_sources()["blood-cells"]
    if card.is_file() and unstated(card.read_text("utf-8", errors="replace"), source):
        came = f"nothing of {source.link} under {source.licence} in its section on licences"
        yield Fault(composed.shown(card), came, "the licence of the images", "State it there.")
