"""How a laboratory's photos were divided when a network, or one that it went on from, learnt from them."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.command import read_shares

Division = tuple[float | None, int, float]  # validation share (None: the default), split seed, test share


def division(command: str, lab: str) -> Division | None:
    """Read from a recorded command by which shares and seed it divided a laboratory; None where it names none of it.

    Parameters
    ----------
    command
        Of train.py (the laboratory among ``--data_dir``) or few_labels.py (among ``--home``).
    lab
        The folder's name.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    for name in ("data_dir", "home", "test_share"):
        parser.add_argument(f"--{name}", nargs="+", default=[])
    parser.add_argument("--validation_share", type=float)
    parser.add_argument("--split_seed", type=int, default=0)
    found, _ = parser.parse_known_args(shlex.split(command))
    if lab not in {Path(folder).name for folder in (found.home or found.data_dir)}:
        return None
    return found.validation_share, found.split_seed, read_shares(found.test_share).get(lab, 0.0)


def learnt_before(now: Division | None, started_from: Mapping[str, Any] | None, lab: str) -> bool:
    """Say whether a forerunner learnt from a laboratory under another division, and so from part of what is held out now.

    Parameters
    ----------
    now
        By which the laboratory is divided for the measurement; None where nothing is held out of it.
    started_from
        The record of the training that the network began with, and in it of those before; None from scratch.
    lab
        The folder's name.
    """
    while started_from and now:
        earlier = division(started_from.get("command", ""), lab)
        if earlier not in (None, now):
            return True
        started_from = started_from.get("started_from")
    return False
