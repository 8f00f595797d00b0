"""Set what was measured here beside what others published on the same images, each with how it was chosen."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.entry import is_count, require, require_keys, validate_entry
from evaluation.figures import commit, duration, figure, thousands

PUBLISHED = Path(__file__).with_name("published.csv")  # as the works state it; no interval is given by any of them
PROTOCOL_KEYS = {
    "split_by",
    "folds_run",
    "folds",
    "command",
    "seed",
    "commit",
    "dirty",
    "hardware",
    "recipe",
    "samples_seen",
    "resolutions",
    "wall_seconds",
    "n_photos_fitted",
    "result",
}
HOW_SPLIT = {
    "photo": "nothing: fixed schedule, each photo named by a network that saw none of its group",
    "file": "nothing, but copies of the same photos were learnt: the premium of a leak",
}
LABORATORY = "blood-cells"  # whose TEST the others measured on
OFFICIAL = {
    "TEST": "recipe, stage and mean on held-out photos; TEST of the stages before had been measured by then",
    "TEST, leak-free": "the same; TEST without the photos that overlap TRAIN, directly or through another",
}


def validate_protocol(protocol: Any) -> None:
    """Check the ``protocol`` of ``eval_results.json``: the cross-validations of ``cross_validate.py``.

    Raises
    ------
    ResultsError
        (a ValueError) Keys that are missing or unknown, counts that are none, a way of splitting that stands twice, a
        result that ``validate_entry`` refuses.
    """
    require(isinstance(protocol, list), "protocol", protocol, "a list of cross-validations")
    for number, run in enumerate(protocol):
        where = f"protocol[{number}]"
        require_keys(run, PROTOCOL_KEYS, where)
        require(run["split_by"] in HOW_SPLIT, f"{where}.split_by", run["split_by"], " or ".join(HOW_SPLIT))
        for key in ("folds_run", "folds", "samples_seen"):
            require(is_count(run[key]), f"{where}.{key}", run[key], "a whole number above 0")
        require(run["folds_run"] <= run["folds"], f"{where}.folds_run", run["folds_run"], f"at most {run['folds']}")
        validate_entry(run["result"], f"{where}.result")
    ways = [run["split_by"] for run in protocol]
    require(len(set(ways)) == len(ways), "the ways to split in protocol", ways, "each of them once")


def _photos(entry: Mapping[str, Any]) -> str:
    by_photo = entry["photo_level"]
    balanced = figure(by_photo["balanced_accuracy"])
    return f"{by_photo['n_correct']} of {by_photo['n_photos']}, {balanced}"


def _row(who: str, entry: Mapping[str, Any], measured_on: str, chosen: str) -> str:
    accuracy = figure(entry["metrics"]["accuracy"])
    return f"| **{who}** | {measured_on} | {accuracy} | {_photos(entry)} | {chosen} |"


def comparison_table(results: Mapping[str, Any], published: Path = PUBLISHED) -> str:
    """Write the table that sets ours beside others'.

    Parameters
    ----------
    results
        What ``read_results`` gives, with ``protocol`` where cross-validations were run.
    published
        CSV with the columns who, measured_on, accuracy, chosen.

    Returns
    -------
    str
        Markdown: the rows measured here first, then the published ones, then how the cross-validations were trained.
    """
    lines = [
        "| who | measured on | accuracy by image | photos right, balanced accuracy by photo | chosen |",
        "|---|---|--:|--:|---|",
    ]
    besides = sorted({entry["dataset"] for entry in results["results"]} - {LABORATORY})
    who = f"these weights, which learnt from {', '.join(besides)} besides" if besides else "these weights"
    for entry in results["results"]:
        if entry["dataset"] == LABORATORY and entry["split"] in OFFICIAL:
            on = f"official {entry['split']}: {thousands(entry['n_images'])} images"
            lines.append(_row(who, entry, on, OFFICIAL[entry["split"]]))
    protocol = sorted(results.get("protocol", ()), key=lambda run: list(HOW_SPLIT).index(run["split_by"]))
    for run in protocol:
        on = f"{run['folds_run']} of {run['folds']} folds by {run['split_by']}: {thousands(run['result']['n_images'])} images"
        source = _source(run)
        who = f"this network, shorter training{f', from {source}' if source else ''}"
        lines.append(_row(who, run["result"], on, HOW_SPLIT[run["split_by"]]))
    with published.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            lines.append(f"| {row['who']} | {row['measured_on']} | {row['accuracy']} | not told | {row['chosen']} |")
    if protocol:
        lines += ["", _how_trained(protocol)]
    return "\n".join(lines)


def _source(run: Mapping[str, Any]) -> str | None:
    """Name what training began with: a run of train.py, by its folder, or a file of weights."""
    path = Path(run["recipe"].get("init_from") or "")
    return (path.name == "model" and path.parent.name) or path.name or None


def _how_trained(protocol: list[Mapping[str, Any]]) -> str:
    texts = []
    for run in protocol:
        sides = " and ".join(str(side) for side in run["resolutions"])
        source = _source(run)
        start = f"starting from the weights {source}" if source else "from scratch"
        texts.append(
            f"by {run['split_by']}, {run['folds_run']} of {run['folds']} folds, trained {start}, "
            f"{thousands(run['samples_seen'])} augmented images each at {sides} px, "
            f"measured at {run['resolutions'][-1]} px, {duration(run['wall_seconds'])} of training, "
            f"seed {run['seed']}, commit {commit(run)}"
        )
    return (
        f"The networks of the folds are others than these weights: {'; '.join(texts)}; their commands stand in the "
        "[card](hub_model/README.md#reproduce). "
        "By file, copies of a photo fall into different folds; each was named by the network that had not learnt that copy, "
        "and a photo's mean is over its copies in the folds that were run."
    )
