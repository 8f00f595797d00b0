"""Three pictures of one measurement for a model card: confusion matrix, reliability diagram, risk-coverage curve.

Each function takes what was measured and gives a matplotlib figure, 7 inches wide, whose text can be read at 700 px; ``save``
writes the same bytes for the same figure. Colours are those of Okabe and Ito, which the colour-blind can tell apart, and of
one hue from pale to dark.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from evaluation.intervals import group_bootstrap
from evaluation.metrics import BINS, reliability
from evaluation.selective import operating_point, risk_at, risk_coverage

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#767676"
DPI = 200  # 1400 px: sharp where a card shows it at 700 px on a dense display
RIGHT = (0.95, 0.99)  # shares of right answers that operating points are marked for
STEPS = 400  # coverages at which a curve is drawn
STYLE = {"font.family": "DejaVu Sans", "font.size": 10.5, "axes.spines.top": False, "axes.spines.right": False}


def _title(axes: Axes, what: str, entry: Mapping[str, Any], more: str | None = None) -> None:
    where = f"{entry['dataset']}, {entry['split']}: {entry['n_images']:,} images of {entry['n_photos']:,} photos"
    lines = [*wrap(where, 75), *([more] if more else [])]
    axes.set_title(what, loc="left", fontsize=12.5, fontweight="bold", pad=10 + 14 * len(lines))
    text = "\n".join(lines).replace("$", r"\$")  # dollar signs would start a formula
    axes.annotate(text, (0, 1), (0, 6), "axes fraction", "offset points", va="bottom", color=GREY)


def _interval(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['interval']['level']:.0f} % interval over {entry['interval']['unit']}s"


def _with_interval(name: str, found: Mapping[str, float]) -> str:
    return f"{name} {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def confusion_picture(entry: Mapping[str, Any]) -> Figure:
    """Draw the confusion matrix: in each cell the images, their share of the row (which is the colour), and its interval.

    Classes without images have no row; answers that are never right and were never given have no column.

    Parameters
    ----------
    entry
        As ``evaluation.summary.summarise`` gives it.
    """
    matrix = np.array(entry["confusion_matrix"])
    rows = np.flatnonzero(matrix.sum(axis=1))
    columns = np.flatnonzero((matrix.sum(axis=0) > 0) | (matrix.sum(axis=1) > 0))
    counts = matrix[np.ix_(rows, columns)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    labels = entry["labels"]
    width = max(7.0, 2.2 + 0.85 * len(columns))
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 1.8 + 0.9 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(counts):
            dark = shares[row, column] > 0.55
            colour = "white" if dark else "black" if count else GREY
            place = {"ha": "center", "color": colour}
            if not count:
                axes.text(column, row, "0", va="center", **place)
                continue
            bounds = [100 * entry["confusion_shares"][name][rows[row]][columns[column]] for name in ("low", "high")]
            axes.text(column, row - 0.1, f"{count:,}", va="bottom", fontsize=12, **place)
            axes.text(column, row, f"{100 * shares[row, column]:.1f} %", va="center", fontsize=10, **place)
            axes.text(column, row + 0.13, "[{:.0f}, {:.0f}]".format(*bounds), va="top", fontsize=9, **place)
        axes.set_xticks(range(len(columns)), [labels[k] for k in columns], rotation=30 if len(columns) > 6 else 0)
        captions = [f"{labels[k]}\n{entry['recall'][labels[k]]['n_photos']:,} photos" for k in rows]
        axes.set_yticks(range(len(rows)), [caption.replace("\n1 photos", "\n1 photo") for caption in captions])
        axes.set_xlabel(f"answer\n(images, their share of the row, and its {_interval(entry)})")
        axes.set_ylabel("label")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        # White gaps between the cells.
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
        _title(axes, "Labels and answers", entry)
    return figure


def reliability_picture(
    probabilities: np.ndarray, references: np.ndarray, groups: Sequence[str], entry: Mapping[str, Any]
) -> Figure:
    """Draw the share of right answers against the probability that came with them, and how many images are behind each point.

    Parameters
    ----------
    probabilities
        (N, classes).
    references
        Class numbers, (N,).
    groups
        The group of overlapping photos of each image, (N,), over which the intervals are.
    entry
        What ``evaluation.summary.summarise`` made of them.
    """
    probabilities = np.asarray(probabilities, np.float64)
    count, sure, right = reliability(probabilities, references)
    filled = np.flatnonzero(count)
    bootstrap = {key: entry["interval"][key] for key in ("resamples", "level", "seed")}
    low, high = group_bootstrap(
        lambda weights: reliability(probabilities, references, weights=weights)[2][:, filled],
        len(references),
        groups,
        **bootstrap,
    )
    ece = entry["metrics"]["ece"]
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 6.6), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="as often right as sure")
        upper.vlines(sure[filled], low, high, color=BLUE, alpha=0.35, linewidth=5, label=_interval(entry))
        upper.plot(sure[filled], right[filled], "o-", color=BLUE, linewidth=1.5, markersize=6, label="this model")
        upper.set_ylabel("share of right answers")
        upper.set_ylim(-0.02, 1.02)
        upper.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        bars = lower.bar((np.arange(BINS) + 0.5) / BINS, count, width=0.9 / BINS, color=BLUE, alpha=0.75)
        lower.bar_label(bars, [f"{int(n):,}" if n else "" for n in count], fontsize=8, padding=1)
        lower.set_ylabel("images")
        lower.set_ylim(0, 1.2 * count.max())
        lower.set_xlim(-0.01, 1.01)
        lower.set_xlabel("probability of the answer")
        lower.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        lower.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        _title(upper, "Reliability: how often answers of a probability are right", entry, _with_interval("ECE", ece))
    return figure


def risk_coverage_picture(
    probabilities: np.ndarray, references: np.ndarray, groups: Sequence[str], entry: Mapping[str, Any]
) -> Figure:
    """Draw the share of wrong answers against the share of images answered, the surest first, with operating points.

    Parameters
    ----------
    probabilities, references, groups, entry
        As in ``reliability_picture``.
    """
    probabilities = np.asarray(probabilities, np.float64)
    _, coverage, risk = risk_coverage(probabilities, references)
    grid = np.linspace(1 / STEPS, 1, STEPS)
    grid = grid[grid >= coverage[0] - 1e-9]  # fewer images than the surest ones cannot be answered
    bootstrap = {key: entry["interval"][key] for key in ("resamples", "level", "seed")}
    low, high = group_bootstrap(
        lambda weights: risk_at(grid, *risk_coverage(probabilities, references, weights)[1:]),
        len(references),
        groups,
        **bootstrap,
    )
    aurc = entry["metrics"]["aurc"]
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 5.6), layout="constrained")
        axes = figure.subplots()
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.2, linewidth=0, label=_interval(entry))
        axes.plot(grid, risk_at(grid, coverage, risk), color=BLUE, linewidth=2, label="this model")
        axes.axhline(risk[-1], color=GREY, linestyle="--", linewidth=1, label="if sureness said nothing")
        for share, marker in zip(RIGHT, "sD", strict=True):
            found = operating_point(probabilities, references, share)
            label = f"{100 * share:.0f} % right: at no coverage"
            if found:
                threshold, answered, right = found
                label = f"{100 * share:.0f} % right: {100 * answered:.0f} % answered, p ≥ {threshold:.3f}"
                axes.vlines(answered, 0, 1 - right, color=VERMILION, linewidth=1, linestyle=":")
            place = (found[1], 1 - found[2]) if found else (np.nan, np.nan)
            axes.plot(
                *place, marker, color=VERMILION, markersize=8, linestyle="none", label=label, clip_on=False, zorder=3
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(1.15 * float(high.max()), 0.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.set_xlabel("share of images answered, the surest first")
        axes.set_ylabel("share of these answers that are wrong")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        _title(axes, "Risk and coverage: answering only when sure", entry, _with_interval("AURC", aurc))
    return figure


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG: 1400 px wide, and the same bytes for the same figure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})
