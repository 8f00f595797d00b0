"""Write measured figures as a page, and compare them with earlier ones.

python -m benchmarks.table benchmarks/results.json --page benchmarks/README.md            # write the page
python -m benchmarks.table benchmarks/results.json --page benchmarks/README.md --check    # is it the one committed?
python -m benchmarks.table new.json --compare benchmarks/results.json                     # what moved
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.results import git_commit

MOVED = 0.10  # of a ratio, from which on it is told
SCHEMA_VERSION = 3
RESULT_KEYS = {
    "schema_version",
    "command",
    "commit",
    "machine",
    "versions",
    "settings",
    "peaks",
    "figures",
    "same_labels",
}
# By the end of a section's name.
NOTES = {
    "images through the network at once": "Our class computes them all at once, as timm and transformers do; our pipeline two "
    "at a time, in bfloat16 eight, which stay in a processor's caches.",
    "Many files": "Where the processor computes in bfloat16, our pipeline takes many files in it, unless told otherwise, "
    "as in the row that says float32.",
    "Most memory after one answer": "The libraries alone take more than what was wanted, before there is a model: most of it "
    "PyPI's torch, built for CUDA; then torch's compiler and Triton, which transformers imports itself and torchvision's "
    "`ops` besides, and SciPy, which transformers' losses import.",
}
FIGURE_KEYS = {"section", "what", "beside", "ratio", "value", "unit", "wanted", "possible", "batch"}
SPREAD_KEYS = {"median", "low", "high", "n"}


def check(results: Any) -> None:
    """Make sure that these are results of ``speed.py``.

    Raises:
        ValueError: they are not; the message says what is missing or strange.
    """
    if not isinstance(results, dict) or results.keys() != RESULT_KEYS:
        found = sorted(results) if isinstance(results, dict) else type(results).__name__
        raise ValueError(f"Expected results with {sorted(RESULT_KEYS)}, got {found}. Measure them with `make bench`.")
    if results["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {results['schema_version']}, expected {SCHEMA_VERSION}. Measure anew with `make bench`."
        )
    for one in results["figures"]:
        if one.keys() != FIGURE_KEYS or any(
            spread.keys() != SPREAD_KEYS for spread in (one["ratio"], one["value"], one["possible"] or one["ratio"])
        ):
            raise ValueError(f"A figure has other parts than expected: {one}. Measure anew with `make bench`.")


def read(path: Path) -> dict[str, Any]:
    """Read and check results.

    Raises:
        ValueError: the file holds something else.
        FileNotFoundError: there is none.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}. Measure anew with `make bench`.") from error
    try:
        check(results)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return results


def meets(one: Mapping[str, Any]) -> bool | None:
    """Say whether a figure is as wanted; None where nothing is."""
    wanted = one["wanted"]
    if wanted is None:
        return None
    reached = one[wanted["of"]]["median"]
    return wanted.get("at_least", reached) <= reached <= wanted.get("at_most", reached)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(values: Mapping[str, float]) -> str:
    middle = _number(values["median"])
    return middle if values["n"] == 1 else f"{middle} [{_number(values['low'])}, {_number(values['high'])}]"


def _wanted(one: Mapping[str, Any]) -> str:
    if one["wanted"] is None:
        return ""
    unit = "" if one["wanted"]["of"] == "ratio" else f" {one['unit']}"
    told = [
        f"{words} {_number(one['wanted'][bound])}{unit}"
        for bound, words in (("at_least", "at least"), ("at_most", "at most"))
        if bound in one["wanted"]
    ]
    return f"{', '.join(told)}: {'reached' if meets(one) else '**missed**'}"


def tables(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Render figures as the lines of Markdown tables, one for each section."""
    lines = []
    for section in dict.fromkeys(one["section"] for one in figures):
        rows = [one for one in figures if one["section"] == section]
        shares = any(one.get("possible") for one in rows)
        notes = [note for end, note in NOTES.items() if section.endswith(end)]
        lines += [
            f"## {section}",
            "",
            *(line for note in notes for line in (note, "")),
            f"| what | value | ratio | beside |{' of the peak |' if shares else ''} wanted |",
        ]
        lines.append(f"|---|--:|--:|---|{'--:|' if shares else ''}---|")
        for one in rows:
            batch = f" ({one['batch']})" if one.get("batch") else ""
            cells = [
                one["what"] + batch,
                f"{_spread(one['value'])} {one['unit']}",
                _spread(one["ratio"]),
                one["beside"],
            ]
            if shares:
                cells.append(f"{100 * one['possible']['median']:.0f} %" if one.get("possible") else "")
            lines.append(f"| {' | '.join([*cells, _wanted(one)])} |")
        lines.append("")
    return lines


def page(results: Mapping[str, Any]) -> str:
    """Render results as Markdown."""
    machine, settings = results["machine"], results["settings"]
    lines = [
        "# What it costs",
        "",
        "Rendered by `python -m benchmarks.table` from `results.json`, which `make bench` measures anew. A ratio is formed in",
        "each round from what was timed in the same round; shown are its median and, in brackets, its quartiles. Compare",
        "ratios: the values beside them are this machine's, and those of two tables were timed at two times, each with more or",
        "less of the caches and of the processor's clock to itself.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {settings['threads']} threads"
        f"{', computes in bfloat16' if machine['bfloat16'] else ''}; "
        + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
        + f". {settings['repeats']} rounds, images: {settings['images']}; commit {results['commit'][:12]}, "
        + f"`{results['command']}`.",
        "",
        f"Timed {settings['turns']}.",
        "",
    ]
    if machine["load_before"] > 0.5:
        lines += [
            f"Other work ran on the machine meanwhile (load {machine['load_before']:.1f} before): the values are too slow, the "
            "ratios less sure.",
            "",
        ]
    if results["peaks"]:
        told = " and ".join(
            f"{_number(peak['billions_a_second'])} billion multiply-adds a second in {kind} ({peak['way']})"
            for kind, peak in results["peaks"].items()
        )
        lines += [
            "**Of the peak**: the network's multiply-adds a second, over those of a matrix product of the same type at its "
            f"best, the fastest of several sizes and libraries in this run: {told}. What an image costs besides the network "
            "counts as lost.",
            "",
        ]
    lines += tables(results["figures"])
    labels = results["same_labels"]
    if labels is not None:
        lines += [
            "## Does a quicker way name the same cells?",
            "",
            f"Top label beside plain transformers in float32 on {labels['images']:,} images ({labels['what']}), by the weights "
            "of that commit. Wanted of a default: the same on 99.9 %.",
            "",
            "| way | same top label | largest difference of a probability |",
            "|---|--:|--:|",
        ]
        for name, way in labels["ways"].items():
            same = f"{way['same']:,} of {labels['images']:,}: {100 * way['share']:.2f} %"
            lines.append(f"| {name} | {same} | {way['largest_difference']:.1g} |")
        lines.append("")
    return "\n".join(lines)


def source_commit(root: Path) -> str:
    """Name the commit that is checked out, to be asked before anything is measured; a copy may have none."""
    try:
        return git_commit(root)["commit"]
    except RuntimeError:
        return "unknown"


def reported(path: Path, needed: bool = True) -> dict[str, Any] | None:
    """Read an earlier report of another command, before it is overwritten; None where there is none and none is needed.

    Raises:
        ValueError: the file is no JSON.
        FileNotFoundError: there is none, and it is needed.
    """
    if not needed and not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}. Name another file with --compare or --out.") from error


def moved(name: str, now: float, then: float) -> list[str]:
    """Say that a number moved, if it did by more than a tenth."""
    if then == now or (then and abs(now / then - 1) <= MOVED):
        return []
    by = f" ({100 * (now / then - 1):+.0f} %)" if then else ""
    return [f"moved: {name}: {_number(then)} → {_number(now)}{by}"]


def compare_conditions(words: str, new: Mapping[str, Any], old: Mapping[str, Any], so: str = "") -> list[str]:
    """Say what is another by name; ``words`` come before the name, ``so`` behind."""
    return [
        f"{words}: {name} is {new.get(name)}, was {old.get(name)}{so}"
        for name in sorted(new.keys() | old.keys())
        if new.get(name) != old.get(name)
    ]


def compare_figures(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which ratios of figures moved by more than a tenth, which best batch is another, and which came and went."""
    now, then = ({(one["section"], one["what"], one["beside"]): one for one in figures} for figures in (new, old))
    told = []
    for key, one in now.items():
        name = f"{key[0]}: {key[1]} / {key[2]}"
        if key not in then:
            told.append(f"new: {name}")
            continue
        told += moved(name, one["ratio"]["median"], then[key]["ratio"]["median"])
    batches = [{key[:2]: one.get("batch") for key, one in figures.items()} for figures in (now, then)]
    for key in batches[0]:
        if key in batches[1] and batches[0][key] != batches[1][key]:
            told.append(f"another batch: {key[0]}: {key[1]}: {batches[0][key]}, was {batches[1][key]}")
    return told + [f"gone: {key[0]}: {key[1]} / {key[2]}" for key in then if key not in now]


def compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[str]:
    """Say which ratios moved by more than a tenth, which figures came and went, and what else is another.

    Of a run of some parts only (``--only``), their sections are compared.
    """
    kept = ("cpu", "cores", "bfloat16")
    machines = [{name: run["machine"][name] for name in kept} for run in (new, old)]
    so = "; ratios may differ for that"
    told = compare_conditions("another machine", *machines, so)
    told += compare_conditions("measured otherwise", new["settings"], old["settings"], so)
    part = any(word.startswith("--only") for word in new["command"].split())
    if old["same_labels"] is not None and new["same_labels"] is None and not part:
        told.append("gone: the count of equal labels, which needs --data_dir")
    told += compare_conditions("another version", new["versions"], old["versions"])
    measured = {one["section"] for one in new["figures"]}
    then = [one for one in old["figures"] if not part or one["section"] in measured]
    return told + compare_figures(new["figures"], then)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the JSON that speed.py wrote")
    parser.add_argument("--page", type=Path, help="write the figures there, as Markdown")
    parser.add_argument("--check", action="store_true", help="do not write: fail where the page says something else")
    parser.add_argument("--compare", type=Path, help="earlier results: say what moved")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        results = read(options.results)
        if options.page and options.check:
            if not options.page.is_file() or options.page.read_text(encoding="utf-8") != page(results):
                sys.exit(f"error: {options.page} is not what {options.results} says; render it anew without --check.")
        elif options.page:
            options.page.write_text(page(results), encoding="utf-8")
        if options.compare:
            for line in compare(results, read(options.compare)) or ["nothing moved by more than a tenth"]:
                print(line)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
