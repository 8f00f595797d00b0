"""What the measuring scripts' command lines share: values that are refused at once, and one line for a fault."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch


def require_least(parser: argparse.ArgumentParser, options: argparse.Namespace, **least: int) -> None:
    """End the program with status 2 where an option that was given is below its least value, such as ``batch_size=1``."""
    for name, value in least.items():
        given = getattr(options, name)
        if given is not None and given < value:
            parser.error(f"--{name} is {given}; expected {value} or more")


def require_device(parser: argparse.ArgumentParser, device: str | None) -> None:
    """End the program with status 2 where nothing can be computed on a device; None is any."""
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {device} cannot be used ({str(error).splitlines()[0]}); leave it out, or name cpu")


def read_shares(entries: Sequence[str]) -> dict[str, float]:
    """Read the share of each laboratory from ``--test_share LAB=SHARE ...``.

    Raises
    ------
    ValueError
        An entry that is none.
    """
    shares = {}
    for entry in entries:
        lab, _, text = entry.rpartition("=")
        try:
            shares[lab] = float(text)
        except ValueError:
            lab = ""
        if not lab:
            raise ValueError(f"--test_share {entry}: expected LAB=SHARE, such as chula=0.2.")
    return shares


def without_token(words: Sequence[str]) -> list[str]:
    """Give a command of train.py without ``--hub_token``, however it was written: what is recorded is passed on."""
    parser = argparse.ArgumentParser(add_help=False)  # it knows a shortened name as train.py's does
    parser.add_argument("--hub_token", "--hub-token")
    return parser.parse_known_args(words)[1]


def run(measure: Callable[[argparse.Namespace], Any], options: argparse.Namespace) -> None:
    """Measure; a fault ends the program with status 1 and one line that names the remedy."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        measure(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
