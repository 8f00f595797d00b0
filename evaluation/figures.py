"""Figures as people read them, written the same in the card, in the README and on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any


def percent(value: float, decimals: int = 1) -> str:
    """Write a share as a percentage: 0.9161 as ``91.6 %``."""
    return f"{100 * value:.{decimals}f} %"


def figure(measured: Mapping[str, float | None], decimals: int = 1) -> str:
    """Write a share with its interval: ``91.6 % [86.2, 95.9]``, or ``91.6 % [no interval]``."""
    if measured["low"] is None:
        return f"{percent(measured['value'], decimals)} [no interval]"
    low, high = (f"{100 * measured[bound]:.{decimals}f}" for bound in ("low", "high"))
    return f"{percent(measured['value'], decimals)} [{low}, {high}]"


def nats(measured: Mapping[str, float]) -> str:
    """Write a log-likelihood, or another figure that is no share, with its interval: ``0.271 [0.180, 0.395]``."""
    return f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"


def thousands(value: float) -> str:
    """Write a count with its thousands apart: ``1,446,980``."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Write a time span in the two units that matter: ``1 h 13 min``, ``4 min 5 s``, ``42 s``."""
    whole = round(seconds)
    if whole >= 3600:
        hours, minutes = divmod(round(whole / 60), 60)
        return f"{hours} h {minutes} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def commit(made: Mapping[str, Any]) -> str:
    """Write the commit that something was made at: ``7e79f2e``, or ``7e79f2e with uncommitted changes``."""
    return made["commit"][:7] + (" with uncommitted changes" if made["dirty"] else "")


def folded(summary: str, lines: Sequence[str]) -> str:
    """Write lines of Markdown that open at a click on ``summary``; nothing where there are none."""
    return "\n".join([f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"]) if lines else ""
