"""Write the tables of the ``evidence`` in ``eval_results.json``: unseen laboratories, a few labels, stress."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.corruptions import CORRUPTIONS
from evaluation.divisions import division, learnt_before
from evaluation.figures import commit, duration, figure, folded, nats, percent, thousands
from evaluation.slices import TITLES

STATES = ("before", "after")
LEARNT = "†"
FOOTNOTE = (
    f"{LEARNT} Of what is held out of this laboratory here, the weights that the network went on from had learnt a part, under "
    "another division: the figure flatters."
)
# Kinds of foreign pictures that training shows too, in draws and windows of its own (``training.oddities``, --negatives).
TAUGHT = (
    "printed page", "noise", "gradient", "stripes", "checkerboard", "plain colour", "ground", "red cells", "platelets",
    "platelet",
)  # fmt: skip
NAMES = {"ig": "immature granulocyte"}  # PBC's folders


def always_wrong(results: Mapping[str, Any], dataset: str = "blood-cells", split: str = "TEST") -> list[str]:
    """Name the photos that the shipped weights and every network of ``evidence.official`` name wrongly, in order."""
    runs = [results, *results.get("evidence", {}).get("official", ())]
    entries = [one for run in runs for one in run["results"] if (one["dataset"], one["split"]) == (dataset, split)]
    wrong = [{row["photo"] for row in entry["photo_level"]["wrong"]} for entry in entries]
    return sorted(set.intersection(*wrong)) if wrong else []


def weak_recalls(entries: Sequence[Mapping[str, Any]], least: float) -> list[dict[str, Any]]:
    """List the classes of measurements whose recall is below ``least``, the worst first.

    Returns
    -------
    list of dict
        ``dataset``, ``split``, ``label``, its ``recall``, the wrong answer that came most often, ``taken_for``, and how many
        ``times`` it came.
    """
    found = []
    for entry in entries:
        for label, recall in entry["recall"].items():
            if recall["value"] < least:
                row = dict(zip(entry["labels"], entry["confusion_matrix"][entry["labels"].index(label)], strict=True))
                del row[label]
                answer = max(row, key=row.get)
                found.append(
                    {key: entry[key] for key in ("dataset", "split")}
                    | {"label": label, "recall": recall, "taken_for": answer, "times": row[answer]}
                )
    return sorted(found, key=lambda one: one["recall"]["value"])


def strangers_of(part: Mapping[str, Any], taught: bool) -> dict[str, int]:
    """Count the foreign pictures of kinds that training shows as no white cell, or that it does not, and those accepted.

    Parameters
    ----------
    part
        ``parts.strangers`` of a report of ``stress.py``.
    taught
        Which of the two.
    """
    found = [row for kind, row in part["kinds"].items() if (kind.partition(" of ")[0] in TAUGHT) == taught]
    return {"n": sum(row["n"] for row in found), "accepted": sum(row["accepted"]["count"] for row in found)}


def trainings_list(results: Mapping[str, Any]) -> str:
    """List the commands that trained the networks of rows that are not the shipped one's: Markdown, a line for each.

    Parameters
    ----------
    results
        What ``evaluation.results.read_results`` gives.
    """
    evidence = results.get("evidence", {})
    lines = []
    for kind, title in (("official", "TRAIN photos only"), ("eight_classes", "eight classes")):
        for run in evidence.get(kind, ()):
            step, steps = run["training"], []
            while step and "command" in step:
                steps.append(f"`{step['command']}`, commit {commit(step)}")
                step = step.get("started_from")
            lines.append(f"- {title}: {'; on from '.join(steps)}")
    lines += [
        f"- folds by {run['split_by']}: `{run['command']}`, commit {commit(run)}" for run in results.get("protocol", ())
    ]
    lines += [
        f"- with a few labelled cells, {_fitted(report)}: `{report['checkpoint']['command']}`, "
        "at a commit that the report does not name"
        for report in evidence.get("heads", ())
        if report.get("checkpoint")
    ]
    lines = list(dict.fromkeys(lines))
    return folded(f"Commands that trained the other networks: {len(lines)}", lines)


def unseen_table(evidence: Mapping[str, Any]) -> str:
    """Write what was tried on laboratories left out: balanced accuracy, plain → with re-estimated statistics.

    Parameters
    ----------
    evidence
        See ``evaluation.evidence``; with ``unseen``.

    Returns
    -------
    str
        Markdown: a row for each thing that was tried, then how each was trained.
    """
    reports = evidence["unseen"]
    labs = list(
        dict.fromkeys(lab for report in reports for run in report["runs"].values() for lab in run["laboratories"])
    )
    lines = [f"| tried | {' | '.join(f'{lab}, unseen' for lab in labs)} |", f"|---|{'--:|' * len(labs)}"]
    notes = []
    for report in reports:
        cells = []
        for lab in labs:
            runs = [run for run in report["runs"].values() if run["unseen"] == [lab]]
            cells.append(_both_ways(runs[0]["laboratories"][lab]) if runs else "not tried")
        lines.append(f"| {report['name']} | {' | '.join(cells)} |")
        for run in report["runs"].values():
            training = run["training"]
            sides = ", ".join(map(str, training["resolutions"]))
            note = (
                f"{report['name']}, without {' and '.join(run['unseen'])}: {thousands(training['samples_seen'])} images at "
                f"{sides} px{_begun(training['started_from'])}, seed {training['seed']}, commit {commit(training)}, "
                f"`{run['command']}`"
            )
            notes.append(f"- {note}")
    notes = list(dict.fromkeys(notes))
    return "\n".join([*lines, "", folded(f"How each network was trained: {len(notes)}", notes)])


def _begun(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return ", from scratch"
    if "sha256" not in source:
        return f", on from {source['source']}"
    weights = f"weights {source['sha256'][:12]}"
    if "command" in source:
        return f", on from {weights}"
    return (
        f", on from {weights}, {source['source']}{', of ' + source['learnt_from'] if 'learnt_from' in source else ''}"
    )


def _both_ways(found: Mapping[str, Any]) -> str:
    plain, new = (figure(found[way]["metrics"]["balanced_accuracy"]) for way in ("plain", "re-estimated"))
    best = max(found["shares"], key=lambda share: found["shares"][share])
    return f"{plain} → {new}; best at {float(best):.0%}: {percent(found['shares'][best])}"


def distance_table(evidence: Mapping[str, Any]) -> str:
    """Write what can be seen of a laboratory without labels beside what re-estimating (→) did, of the first report.

    Held-out photos that a network's forerunners learnt from are marked.
    """
    lines = [
        "| learnt without | laboratory | distance | mean confidence, plain → a quarter new "
        "| balanced accuracy, plain → as the rule says |",
        "|---|---|--:|--:|--:|",
    ]
    for run in evidence["unseen"][0]["runs"].values():
        training = run["training"]
        for lab, found in run["laboratories"].items():
            shown = f"**{lab}, unseen**" if lab in run["unseen"] else f"{lab}, held out"
            if learnt_before(division(training["command"], lab), training.get("started_from"), lab):
                shown += LEARNT
            surer = " → ".join(percent(found["confidence"][share]) for share in ("0.00", "0.25"))
            share = f"{found['suggested_share']:.2f}"
            right = " → ".join(percent(found["shares"][one]) for one in ("0.00", share))
            right += f" ({float(share):.0%} new)" if float(share) else " (kept)"
            lines.append(f"| {' and '.join(run['unseen'])} | {shown} | {found['distance']:.2f} | {surer} | {right} |")
    return _with_footnote(lines)


def _with_footnote(lines: Sequence[str]) -> str:
    marked = any(LEARNT in line for line in lines)
    return "\n".join([*lines, "", FOOTNOTE] if marked else lines)


def few_labels_table(evidence: Mapping[str, Any]) -> str:
    """Write what a few labelled cells of an unseen laboratory gain there, and what they cost at home."""
    lines = [
        "| laboratory | labelled | its other photos, before → after | at home, before → after | training |",
        "|---|--:|--:|---|--:|",
    ]
    for report in evidence["few_labels"]:
        home = []
        for lab, pair in report["home"].items():
            before = learnt_before(division(report["command"], lab), report["fitted"].get("started_from"), lab)
            n = thousands(pair["after"]["n_images"])
            home.append(f"{lab}{LEARNT if before else ''} {_before_after(pair)}, n = {n}")
        n = report["others"]["after"]["n_images"]
        lines.append(
            f"| {report['laboratory']} | {report['n_labelled']} images of {report['n_groups_labelled']} photos or slides "
            f"| {_before_after(report['others'])}, n = {thousands(n)} | {'; '.join(home)} "
            f"| {duration(report['fitted']['wall_seconds'])} |"
        )
    commands = [f"- `{report['command']}`, commit {commit(report)}" for report in evidence["few_labels"]]
    return "\n".join([_with_footnote(lines), "", folded(f"Commands of these rows: {len(commands)}", commands)])


def _before_after(pair: Mapping[str, Any]) -> str:
    return " → ".join(figure(pair[when]["metrics"]["balanced_accuracy"]) for when in STATES)


# Balanced accuracy that at most 100 labelled cells were to bring.
WANTED_AFTER_FITTING = {"blood-cells": 0.85, "pbc": 0.85, "raabin": 0.85}


def heads_table(evidence: Mapping[str, Any]) -> str:
    """Write what fitting statistics and last layer to a few labelled cells gains in an unseen laboratory, and costs at home."""
    kept = {"group": "slides, or photos", "photo": "photos alone"}
    lines = [
        "| laboratory | kept apart | labelled cells | its other cells, before → after | after, each choice "
        "| at home, before → after | new statistics |",
        "|---|---|---|--:|---|---|--:|",
    ]
    for report in evidence["heads"]:
        choices = report["choices"]
        others = [choice["others"] for choice in choices]
        home = "; ".join(
            f"{lab} {_means([choice['home'][lab] for choice in choices])}, n = {thousands(pair['n'])}"
            for lab, pair in choices[0]["home"].items()
        )
        new = ", ".join(f"{choice['share']:.0%}" for choice in choices)
        labelled = ", ".join(f"{count} {name}" for name, count in choices[0]["labelled"].items())
        if (share := report.get("labelled_share", 0.5)) != 0.5:  # older reports, of half of them, do not say it
            labelled += f"; from {share:.0%} of the photos"
        lines.append(
            f"| {_fitted(report)} | {kept[report['apart']]} "
            f"| {choices[0]['n_labelled']}: {labelled} "
            f"| {_means(others)}, n = {thousands(others[0]['n'])}{_judged(report['laboratory'], others)} "
            f"| {'; '.join(figure(pair['after']) for pair in others)} "
            f"| {home} | {new} |"
        )
    commands = [f"- `{report['command']}`, commit {commit(report)}" for report in evidence["heads"]]
    return "\n".join([*lines, "", folded(f"Commands of these rows: {len(commands)}", commands)])


def _fitted(report: Mapping[str, Any]) -> str:
    """Name what a last layer was fitted to, and the network where it was trained otherwise."""
    marks = [", cells found"] * (report["not_found"] is not None)
    marks += [", two views"] * ("--consistency" in report["checkpoint"]["command"].split())
    return report["laboratory"] + "".join(marks)


def _judged(laboratory: str, others: list[Mapping[str, Any]]) -> str:
    if laboratory not in WANTED_AFTER_FITTING:
        return ""
    wanted = WANTED_AFTER_FITTING[laboratory]
    reached = sum(pair["after"]["value"] for pair in others) / len(others) >= wanted
    return f" ({percent(wanted)} wanted: {'reached' if reached else '**missed**'})"


def _means(pairs: list[Mapping[str, Any]]) -> str:
    means = (sum(pair[when]["value"] for pair in pairs) / len(pairs) for when in STATES)
    return " → ".join(percent(mean) for mean in means)


def corruption_table(part: Mapping[str, Any]) -> str:
    """Write the balanced error for each corruption and severity.

    Parameters
    ----------
    part
        ``parts.corruption`` of a report of ``stress.py``.
    """
    lines = [
        "| balanced error | mean | severity 1 | 2 | 3 | 4 | 5 |",
        "|---|--:|--:|--:|--:|--:|--:|",
        f"| clean | {figure(part['clean'])} | | | | | |",
    ]
    for name in CORRUPTIONS:
        found = part["corruptions"][name]
        single = " | ".join(percent(error) for error in found["severities"])
        lines.append(f"| {name.replace('_', ' ')} | {figure(found['mean'])} | {single} |")
    return "\n".join([*lines, f"| **mean of the {5 * len(CORRUPTIONS)}** | **{figure(part['mean'])}** | | | | | |"])


def framing_table(evidence: Mapping[str, Any]) -> str:
    """Write what cells are taken for that were cut out more closely and less, of each laboratory that was measured so."""
    lines = [
        "| cells of | square, in sides of the box | balanced accuracy | points lost beside {usual:g} | sure enough "
        "| of these rightly | no cell found in it |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for report in evidence["stress"]:
        part = report["parts"].get("framing")
        if part is None:
            continue
        lines[0] = lines[0].format(usual=part["usual"])
        boxes = " or ".join(how for how in ("annotated", "found") if part[how])
        left = f", {thousands(part['not_found'])} without a box left out" if part["not_found"] else ""
        counts = f"{thousands(part['n_images'])}, of {thousands(part['n_groups'])} groups; {boxes} boxes{left}"
        lab = f"{report['dataset']}, {TITLES.get(report['split'], report['split'])}: {counts}"
        for row in part["windows"]:
            named, right = (round(row[key]["value"] * part["n_images"]) for key in ("named", "right"))
            lost = "" if row["window"] == part["usual"] else figure(row["lost"]).replace(" %", "")
            lines.append(
                f"| {lab} | {row['window']:g} | {figure(row['balanced_accuracy'])} | {lost} | {figure(row['named'])} "
                f"| {thousands(right)} of {thousands(named)} | {figure(row['overlooked'])} |"
            )
            lab = ""
    return "\n".join(lines)


def points_lost(evidence: Mapping[str, Any], window: float) -> str:
    """Say what cutting cells out as squares of this side costs, from the laboratory where it costs least to where most."""
    lost = [
        100 * row["lost"]["value"]
        for report in evidence["stress"]
        for row in report["parts"].get("framing", {"windows": ()})["windows"]
        if row["window"] == window
    ]
    return f"{min(lost):.1f} to {max(lost):.1f} points"


def stranger_table(part: Mapping[str, Any]) -> str:
    """Write how many pictures without a white cell were taken for one.

    Parameters
    ----------
    part
        ``parts.strangers`` of a report of ``stress.py``.
    """
    rules = {"accepted": "named and accepted", "accepted_and_familiar": "of these, with a usual energy"}
    rules = {rule: title for rule, title in rules.items() if rule in part["all"]}
    lines = [f"| pictures of | number | {' | '.join(rules.values())} |", f"|---|--:|{'--:|' * len(rules)}"]
    for kind, counted in [*part["kinds"].items(), ("**all**", part["all"])]:
        shares = " | ".join(f"{counted[rule]['count']}: {figure(counted[rule])}" for rule in rules)
        lines.append(f"| {kind.replace('_', ' ')} | {thousands(counted['n'])} | {shares} |")
    return "\n".join(lines)


def anomaly_table(part: Mapping[str, Any]) -> str:
    """Write how well cells of other kinds are told from the model's white cells.

    Parameters
    ----------
    part
        ``parts.anomaly`` of a report of ``stress.py``.
    """
    titles = {"not_a_cell": "1 - probability of the five", "energy": "energy", "energy_of_cells": "energy of the five"}
    lines = [
        f"| area under the ROC curve | images | {' | '.join(titles.values())} |",
        f"|---|--:|{'--:|' * len(titles)}",
    ]
    for name, areas in part["anomalies"].items():
        shown = NAMES.get(name, name)
        lines.append(f"| {shown} | {thousands(areas['n'])} | {' | '.join(nats(areas[score]) for score in titles)} |")
    return "\n".join(lines)


def finding_table(evidence: Mapping[str, Any]) -> str:
    """Write how many white cells were found in fields of each laboratory, and how many finds were none."""
    lines = [
        "| fields of | boxes | found, by the middle | contested boxes too | by half the area | false finds a field | time |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for report in evidence["finding"]:
        for part, name in (("fields", ""), ("official_test_photos", ", official TEST photos")):
            if found := report.get(part):
                shares = [figure(found[key]) for key in ("recall", "recall_with_contested", "recall_by_overlap")]
                lines.append(
                    f"| {report['laboratory']}{name}: {thousands(found['fields'])} | {thousands(found['boxes'])} "
                    f"| {' | '.join(shares)} | {found['false_per_field']:.2f} | {found['milliseconds']['median']:.0f} ms |"
                )
    singles = [report for report in evidence["finding"] if "classes" in report]
    if singles:
        lines += [
            "",
            "| single-cell images of | images | exactly one find in the middle | and no other |",
            "|---|--:|--:|--:|",
        ]
    for report in singles:
        shares = [figure(report[key]) for key in ("one_find_in_the_middle", "and_no_other")]
        lines.append(f"| {report['laboratory']} | {thousands(report['images'])} | {' | '.join(shares)} |")
        for name, row in report["classes"].items():
            each = [f"{percent(row[key] / row['images'])}" for key in ("middle", "middle_alone")]
            lines.append(f"| {report['laboratory']}, {name} | {thousands(row['images'])} | {' | '.join(each)} |")
    return "\n".join(lines)


def counts_table(evidence: Mapping[str, Any]) -> str:
    """Write how far simulated differentials were off, and how often their intervals held the truth."""
    lines = [
        "| cells of | held-out cells | whose errors apply | mean error at most | interval holds the truth | by class |",
        "|---|--:|---|--:|--:|---|",
    ]
    for report in evidence["counts"]:
        for scene in report["scenes"]:
            for way, found in scene["ways"].items():
                covered = [row["coverage"] for row in found["classes"].values()]
                lines.append(
                    f"| {scene['laboratory']}, {scene['cells']} | {thousands(sum(scene['held_out_cells'].values()))} | {way} "
                    f"| {found['largest_mean_error']:.2f} points | {percent(found['coverage'])} "
                    f"| {percent(min(covered))} to {percent(max(covered))} |"
                )
    return "\n".join(lines)


def missed_by_intervals(evidence: Mapping[str, Any], least: float) -> list[str]:
    """List the classes whose intervals, though the laboratory was named, held the truth in less than ``least`` of the draws."""
    missed = []
    for report in evidence["counts"]:
        for scene in report["scenes"]:
            classes = scene["ways"]["laboratory named"]["classes"]
            rows = [f"{name} ({percent(row['coverage'])})" for name, row in classes.items() if row["coverage"] < least]
            if rows:
                missed.append(f"{scene['laboratory']}, {scene['cells']}: {', '.join(rows)}")
    return missed


def gate_table(evidence: Mapping[str, Any]) -> str:
    """Write how many smears were refused as none, and how many pictures of anything else."""
    lines = ["| pictures of | number | refused | |", "|---|--:|--:|--:|"]
    titles = {"smears": "smears", "empty_fields": "smears without a white cell", "strangers": "no smear"}
    for report in evidence["gate"]:
        held = ", held out" if report["held_out"] else ""
        for part, title in titles.items():
            for name, count in report[part].items():
                low, high = count["interval"]
                share = figure({"value": count["share"], "low": low, "high": high})
                lines.append(
                    f"| {title}{held}: {name} | {thousands(count['pictures'])} | {count['refused']} | {share} |"
                )
    return "\n".join(lines)
