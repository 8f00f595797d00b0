"""Write the card's tables of the doors: how far each lies from plain transformers, and what the ONNX files are."""

from collections.abc import Mapping
from typing import Any

from evaluation.figures import percent, thousands

SMALLEST = 1e-7  # of a difference worth a number: what float32 can tell in a probability


def difference(value: float) -> str:
    """Write a difference with one digit: ``3e-04``; ``below 1e-07`` for none."""
    return f"{value:.0e}" if value >= SMALLEST else f"below {SMALLEST:.0e}"


def doors_table(evidence: Mapping[str, Any]) -> str:
    """Write how far each door's answers lie from plain transformers'.

    Parameters
    ----------
    evidence
        See ``evaluation.evidence``; with ``doors``.
    """
    report = evidence["doors"][0]
    lines = [
        "| door | | at the network's size: same label | largest difference of a probability | as they come: same label "
        "| largest difference |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, door in report["doors"].items():
        cells = [
            f"{door[sent]['same_label']} of {door[sent]['n']} | {_bounded(door[sent])}"
            for sent in ("at_network_size", "as_they_come")
        ]
        lines.append(f"| {name} | {door['how']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _bounded(found: Mapping[str, Any]) -> str:
    return f"{difference(found['difference'])} (at most {found['tolerance']:.0e})"


def pictures_of_doors(evidence: Mapping[str, Any]) -> str:
    """Name what was sent through the doors: ``5 of examples, 50 of pbc``."""
    return ", ".join(f"{thousands(count)} of {name}" for name, count in evidence["doors"][0]["pictures"].items())


def onnx_table(evidence: Mapping[str, Any]) -> str:
    """Write what the ONNX files are, and how far their answers lie from PyTorch's, or from the float file's.

    Parameters
    ----------
    evidence
        See ``evaluation.evidence``; with ``onnx``.
    """
    lines = [
        "| file | size | opset | made by | compared with | images | same label | largest difference of a probability |",
        "|---|--:|--:|---|---|--:|--:|--:|",
    ]
    for report in evidence["onnx"]:
        parts = {f"PyTorch, {name}": found for name, found in report.get("parity", {}).items()}
        parts |= {f"float, {lab} held out to test on": found for lab, found in report.get("test", {}).items()}
        if "file" not in report:
            continue
        shown = f"| `{report['file']}` | {report['bytes'] / 1e6:.1f} MB | {report['opset']} | {report['producer']} "
        for name, found in parts.items():
            same = f"{thousands(found['n'])} | {thousands(found['same_label'])} | {difference(found['scores'])}"
            lines.append(f"{shown}| {name} | {same} |")
            shown = "| | | | "
    return "\n".join(lines)


def eight_bits(evidence: Mapping[str, Any]) -> str:
    """Say what 8 bits cost and whether the file is shipped; empty where none was made."""
    found = [report for report in evidence["onnx"] if "recipe" in report]
    if not found:
        return ""
    (report,) = found
    lost = "; ".join(
        f"{lab} {percent(one['float']['accuracy'], 2)} → {percent(one['int8']['accuracy'], 2)}, {_points(one['lost'])}"
        for lab, one in report["test"].items()
    )
    verdict = "is shipped" if report["shipped"] else "is **not** shipped"
    return (
        f"The 8-bit file {verdict}: of accuracy it may lose at most {report['most_lost']} points on TEST. "
        f"There, float → 8 bits: {lost or 'nothing was measured'}. Its recipe, "
        f"{report['recipe'] or 'none of those tried'}, was chosen on validation."
    )


def _points(lost: Mapping[str, float]) -> str:
    """Write points of accuracy that were lost, or gained where fewer than none were, with their interval."""
    if lost["value"] < 0:
        return f"{-lost['value']:.2f} points gained [{-lost['high']:.2f}, {-lost['low']:.2f}]"
    return f"{lost['value']:.2f} points lost [{lost['low']:.2f}, {lost['high']:.2f}]"


def onnx_speed(evidence: Mapping[str, Any]) -> str:
    """Say how fast the files are, as shares of PyTorch's time; empty where nobody timed them."""
    found = [report for report in evidence["onnx"] if "milliseconds" in report]
    if not found:
        return ""
    (report,) = found
    times = dict(report["milliseconds"])
    unit = times.pop("pytorch")
    others = " and ".join(f"{time:.0f} ms through `{file}` ({time / unit:.2f} of it)" for file, time in times.items())
    return (
        f"One image on one thread ({report['hardware']['cpu']}, median of {report['rounds']} rounds) takes {unit:.0f} ms "
        f"through PyTorch, {others}."
    )
