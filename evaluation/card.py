"""Write the model card, and the README's table, from ``eval_results.json``, so that no number in them is typed by hand.

    python -m evaluation.card --template model_card.md --folder hub_model --readme README.md
    python -m evaluation.card --template model_card.md --folder hub_model --readme README.md --check

The first writes ``hub_model/README.md`` and the part of ``README.md`` between its markers; the second writes nothing,
shows the difference to what stands there and ends with status 1 if there is one.
"""

import argparse
import difflib
import functools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index

from evaluation import door_tables, evidence_tables
from evaluation.comparison import comparison_table
from evaluation.divisions import stages
from evaluation.entry import METRICS, OVER_CLASSES
from evaluation.figures import duration, figure, nats, percent, thousands
from evaluation.onnx_files import check_exports
from evaluation.results import FILE_NAME, read_results, weights_sha256, write_text
from evaluation.wanted import NEVER_SEEN, misses_target, recipes_table, wanted_table

MARKERS = "<!-- {}:begin -->", "<!-- {}:end -->"

# The Hub's name of each metric, where it has one, and what its table shows.
HUB_METRICS = {
    "accuracy": ("accuracy", "Accuracy"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "ece": ("expected_calibration_error", "Expected calibration error (15 bins)"),
    "nll": ("negative_log_likelihood", "Negative log-likelihood (nats)"),
    "brier": ("brier_score", "Brier score (sum over the classes)"),
    "aurc": ("aurc", "Area under the risk-coverage curve"),
}
EVIDENCE_TABLES = (
    "unseen_table", "distance_table", "few_labels_table", "heads_table", "corruption_table", "framing_table", "points_lost",
    "stranger_table", "anomaly_table", "finding_table", "gate_table", "counts_table", "missed_by_intervals",
)  # fmt: skip
DOOR_TABLES = ("doors_table", "pictures_of_doors", "onnx_table", "eight_bits", "onnx_speed")
HEAD = {"license": str, "library_name": str, "pipeline_tag": str, "tags": list, "metrics": list}
FIXED_HEAD = {"library_name": "transformers", "pipeline_tag": "image-classification"}
REPOSITORY_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class CardError(ValueError):
    """A card that cannot be written, or whose head the Hub would refuse or states other numbers than were measured."""


def results_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Write the table of results that the card and the README share, with the sentence that explains it.

    Parameters
    ----------
    entries
        The measurements of ``eval_results.json``, one row each.
    """
    lines = [
        "| images of | split | images | photos | accuracy | balanced accuracy | macro F1 | photos right |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for entry in entries:
        metrics, photos = entry["metrics"], entry["photo_level"]
        shares = " | ".join(figure(metrics[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1"))
        lines.append(
            f"| {entry['dataset']} | {entry['split']} | {thousands(entry['n_images'])} | {entry['n_photos']} "
            f"| {shares} | {photos['n_correct']} of {photos['n_photos']}: {figure(photos['accuracy'])} |"
        )
    levels = " or ".join(sorted({percent(entry["interval"]["level"], 0) for entry in entries}))
    overlap = any(entry["interval"]["unit"] == "overlap group" for entry in entries)
    lines += [
        "",
        f"In brackets: {levels} intervals that resample photos, not images, since copies of one photo stand or fall "
        f"together{'; photos of one slide, or of the same cells, are drawn as one' if overlap else ''}. A photo counts as "
        "right when the mean probability of its copies names its label (a field that shows cells of two classes counts once "
        "for each); that interval is Clopper and Pearson's, exact where photos are independent.",
    ]
    if any(set(entry["labels"]) - set(entry["recall"]) for entry in entries):
        lines[-1] += (
            " A class without images is left out of balanced accuracy; in macro F1 it counts as 0 once it is answered."
        )
    if any(entry["metrics"][name]["low"] is None for entry in entries for name in OVER_CLASSES):
        lines[-1] += (
            " A resample without one of the classes says nothing of these two; where most lack one, as where classes lie on "
            "one or two slides, no interval is given, and what other slides would show is open."
        )
    for entry in entries:
        if reasons := [f"{thousands(count)} images ({reason})" for reason, count in entry["left_out"].items()]:
            lines += ["", f"*{entry['split']}* of {entry['dataset']} leaves out {' and '.join(reasons)}."]
    return "\n".join(lines)


def eval_results(entries: Sequence[Mapping[str, Any]]) -> list[EvalResult]:
    """Turn measurements into the Hub's form, one ``EvalResult`` per metric and data set."""
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=re.sub(r"[^a-z0-9._/]+", "-", entry["dataset"].lower()).strip("-"),
            dataset_name=entry["dataset"],
            dataset_split=entry["split"],
            metric_type=HUB_METRICS[name][0],
            metric_name=HUB_METRICS[name][1],
            metric_value=entry["metrics"][name]["value"],
        )
        for entry in entries
        for name in METRICS
    ]


def validate_head(card: str, results: Mapping[str, Any]) -> None:
    """Check a card's YAML head without the network.

    Parameters
    ----------
    card
        The card's whole text.
    results
        As ``read_results`` gives them.

    Raises
    ------
    CardError
        (a ValueError) No head; a key of ``HEAD`` that is missing, empty or of another type; a library or task other
        than those of ``FIXED_HEAD``; a data set that is no repository id; a metric or a model-index that the results
        do not state.
    """
    block = REGEX_YAML_BLOCK.search(card)
    try:
        head = yaml.safe_load(block.group(2)) if block else None
    except yaml.YAMLError as error:
        raise CardError(f"The card's head is no valid YAML ({error}). Correct it in the template.") from error
    if not isinstance(head, dict):
        raise CardError(
            "The card has no YAML head; expected one between two lines '---' at its top. Add it to the template."
        )
    for key, kind in HEAD.items():
        value = head.get(key)
        items = value if isinstance(value, list) else [value]
        if (
            not isinstance(value, kind)
            or not all(isinstance(item, str) and item.strip() for item in items)
            or not items
        ):
            raise CardError(
                f"The head's {key} is {value!r}; expected {'a list of texts' if kind is list else 'a text'}. "
                "Set it in the template."
            )
    for key, value in FIXED_HEAD.items():
        if head[key] != value:
            raise CardError(f"The head's {key} is {head[key]!r}; expected {value!r}, by which the Hub loads the model.")
    if wrong := [name for name in head.get("datasets", []) if not REPOSITORY_ID.fullmatch(name)]:
        raise CardError(
            f"The head's datasets {wrong} are no repository ids; expected owner/name. Correct them in the template."
        )
    stated = {name for name, _ in HUB_METRICS.values()}
    if wrong := sorted(set(head["metrics"]) - stated):
        raise CardError(f"The head's metrics {wrong} are not measured; expected some of {sorted(stated)}.")
    expected = eval_results_to_model_index(results["model"]["name"], eval_results(results["results"]))
    if head.get("model-index") != expected:
        raise CardError(
            f"The head's model-index differs from {FILE_NAME}; expected the same numbers. Render the card again."
        )


def trained_with(runs: Sequence[Mapping[str, Any]], option: str) -> list[Mapping[str, Any]]:
    """Give the trainings of ``evidence`` whose command names an option."""
    return [run for run in runs if option in run["training"]["command"].split()]


def errors_of(measured: Mapping[str, Any], label: str) -> tuple[int, int]:
    """Count a measurement's errors: those in which ``label`` is the label or the answer, and all."""
    matrix, chosen = measured["confusion_matrix"], measured["labels"].index(label)
    wrong = [(row, column) for row in range(len(matrix)) for column in range(len(matrix)) if row != column]
    of_label = sum(matrix[row][column] for row, column in wrong if chosen in (row, column))
    return of_label, sum(matrix[row][column] for row, column in wrong)


def between(measured: Mapping[str, Any], one: str, other: str) -> int:
    """Count the images of two classes that were taken for the other of them."""
    matrix, first, second = measured["confusion_matrix"], *map(measured["labels"].index, (one, other))
    return matrix[first][second] + matrix[second][first]


def confusion_cells(config: Mapping[str, Any]) -> int:
    """Say on how many cells the configuration's confusion was counted."""
    tables = config.get("validation_confusion", {}).get("counts", {}).values()
    return sum(count for table in tables for row in table.values() for count in row.values())


def render_card(template: str, results: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Fill in the card's template.

    The template sees ``model``, ``training``, ``versions``, ``results`` and ``evidence`` of ``eval_results.json``; ``config``;
    ``confusion_cells``, how many validation cells its confusion was counted on; ``entry(split, dataset=None)``, one
    measurement; ``recall_of(entry, label)``, the recall of a class whatever the case of its name; ``errors_of(entry,
    label)``, how many errors have to do with a class, and all; ``between(entry, one, other)``, those of two classes;
    ``weak_recalls(entries, least)``, classes often missed; ``strangers_of(part, taught)``, foreign pictures; ``misses(row,
    ...)``, whether one of these rows of the table of what was wanted misses its target; ``never_seen``, its rows of unseen
    laboratories;
    ``trained_with(runs, option)``, those of ``evidence`` whose command names it; ``stages``, the trainings that led to these
    weights, the first one first; ``always_wrong``, names of TEST photos; the tables ``results_table``, ``wanted_table``,
    ``recipes_table`` and ``trainings_list`` and, of ``evidence``, those of ``evaluation.evidence_tables`` and
    ``evaluation.door_tables``; and the filters ``percent``, ``figure``, ``nats``, ``thousands`` and ``duration``.

    Parameters
    ----------
    template
        A Jinja2 template with a YAML head, to which the model-index is added.
    results
        As ``read_results`` gives them.
    config
        The model's configuration, as in its config.json.

    Returns
    -------
    str
        The card's text.

    Raises
    ------
    CardError
        (a ValueError) A name that the results do not hold, a fault in the template, or a head that ``validate_head``
        refuses.
    """
    entries = results["results"]

    def entry(split: str, dataset: str | None = None) -> Mapping[str, Any]:
        found = [one for one in entries if one["split"] == split and dataset in (None, one["dataset"])]
        if len(found) != 1:
            have = [(one["dataset"], one["split"]) for one in entries]
            raise CardError(
                f"The template asks for split {split!r} of {dataset or 'the one data set that has it'}; found "
                f"{len(found)} such measurements in {have}. Measure it, or name the data set in the template."
            )
        return found[0]

    def recall_of(measured: Mapping[str, Any], label: str) -> Mapping[str, Any]:
        for name, value in measured["recall"].items():
            if name.casefold() == label.casefold():
                return value
        raise CardError(
            f"The template asks for the recall of {label!r}; measured are {list(measured['recall'])}. Correct one."
        )

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(percent=percent, figure=figure, nats=nats, thousands=thousands, duration=duration)
    try:
        text = environment.from_string(template).render(
            **{key: results[key] for key in ("model", "training", "versions", "results")},
            **{table: getattr(evidence_tables, table) for table in EVIDENCE_TABLES},
            **{table: getattr(door_tables, table) for table in DOOR_TABLES},
            evidence=results.get("evidence", {}),
            config=config,
            confusion_cells=confusion_cells(config),
            entry=entry,
            recall_of=recall_of,
            errors_of=errors_of,
            between=between,
            weak_recalls=evidence_tables.weak_recalls,
            strangers_of=evidence_tables.strangers_of,
            misses=functools.partial(misses_target, results),
            never_seen=NEVER_SEEN,
            trained_with=trained_with,
            stages=list(stages(results["training"])),
            results_table=results_table(entries),
            wanted_table=wanted_table(results),
            recipes_table=recipes_table(results),
            trainings_list=evidence_tables.trainings_list(results),
            always_wrong=evidence_tables.always_wrong(results),
        )
    except jinja2.TemplateError as error:
        raise CardError(
            f"The template cannot be filled in: {error}. Correct its name, or measure what it asks for."
        ) from error
    card = ModelCard(text)
    card.data.model_name, card.data.eval_results = results["model"]["name"], eval_results(entries)
    filled = str(card)
    validate_head(filled, results)
    return filled


def render_readme(readme: str, results: Mapping[str, Any]) -> str:
    """Put the table of results and that of published figures between the README's markers; leave the rest as it is.

    Raises
    ------
    CardError
        (a ValueError) The markers do not stand in the README once each, in order.
    """
    for name, table in (("results", results_table(results["results"])), ("comparison", comparison_table(results))):
        first, last = (marker.format(name) for marker in MARKERS)
        before, begin, rest = readme.partition(first)
        _, end, after = rest.partition(last)
        if not begin or not end or first in rest or last in before + after:
            raise CardError(
                f"The README does not hold the lines {first!r} and {last!r} once each, in this order. Add them where the "
                "table belongs."
            )
        readme = f"{before}{first}\n{table}\n{last}{after}"
    return readme


def check_weights(folder: Path, results: Mapping[str, Any]) -> None:
    """Refuse results, and ONNX files, of other weights than stand in ``folder``; a folder without weights passes.

    Raises
    ------
    CardError
        (a ValueError) The SHA-256 of model.safetensors is not the one in the results.
    ExportError, FileNotFoundError
        As in ``evaluation.onnx_files.check_exports``.
    """
    measured = results["model"]["sha256"]
    if (folder / "model.safetensors").is_file() and (found := weights_sha256(folder)) != measured:
        raise CardError(
            f"{folder / 'model.safetensors'} has SHA-256 {found}, but {FILE_NAME} was measured on {measured}; expected "
            "the same weights. Measure these."
        )
    if (folder / "model.safetensors").is_file():
        check_exports(folder, results.get("evidence", {}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the card; returns the exit status: 0 done, 1 differs, 2 cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", type=Path, required=True, help="the card's source, a Jinja2 template")
    parser.add_argument("--folder", type=Path, required=True, help=f"the model folder: {FILE_NAME} in, README.md out")
    parser.add_argument("--readme", type=Path, help="also the table of results in this file")
    parser.add_argument("--check", action="store_true", help="write nothing, show what differs")
    options = parser.parse_args(arguments)
    try:
        results = read_results(options.folder / FILE_NAME)
        check_weights(options.folder, results)
        config = json.loads((options.folder / "config.json").read_text("utf-8"))
        written = {options.folder / "README.md": render_card(options.template.read_text("utf-8"), results, config)}
        if options.readme:
            written[options.readme] = render_readme(options.readme.read_text("utf-8"), results)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    differs = False
    for path, text in written.items():
        stands = path.read_text("utf-8") if path.is_file() else ""
        if stands == text:
            continue
        differs = True
        if options.check:
            lines = difflib.unified_diff(
                stands.splitlines(), text.splitlines(), f"{path} as it stands", f"{path} as measured", lineterm=""
            )
            print("\n".join(lines))
        else:
            write_text(path, text)
            print(f"wrote {path}")
    if options.check and not differs:
        print(f"agrees with {FILE_NAME}: {', '.join(map(str, written))}")
    return 1 if options.check and differs else 0


if __name__ == "__main__":
    sys.exit(main())
