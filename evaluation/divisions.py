"""How a laboratory's photos were divided when a network, or one that it went on from, learnt from them."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
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
    try:
        found, _ = parser.parse_known_args(shlex.split(command))
    except ValueError as error:
        raise ValueError(f"The recorded command cannot be read ({error}): {command}") from error
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
    return now is not None and any(
        division(record.get("command", ""), lab) not in (None, now) for record in _forerunners(started_from)
    )


def check_unseen(started_from: Mapping[str, Any] | None, lab: str) -> str | None:
    """Hold a laboratory that shall be new to a network against what it, or what it went on from, is recorded to have learnt.

    Parameters
    ----------
    started_from
        As in ``learnt_before``; the record itself counts.
    lab
        The folder's name. Folders are told apart by nothing else: the same images under another name pass, also those that
        few_labels.py has copied to fit to.

    Returns
    -------
    The weights of which no record says what they learnt from, so that nobody can tell; None where all say it. Foreign weights
    say it by ``learnt_from``, the name of other data than the laboratory's.

    Raises
    ------
    ValueError
        One of them learnt from it.
    """
    unknown = None
    for record in _forerunners(started_from):
        command, source = record.get("command", ""), record.get("source", "the weights")
        if division(command, lab) is not None:
            raise ValueError(
                f"{source} learnt from {lab}, so that it is no laboratory never seen: {command}. Begin with weights that did "
                "not, or from scratch, without --init_from."
            )
        told = record.get("learnt_from", lab)  # of foreign weights
        if "--data_dir" not in command and lab in told:
            unknown = source
    return unknown


def stages(training: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a training and of those whose weights it went on from, the first one first."""
    if training and training.get("command"):  # a weights file has none
        yield from stages(training.get("started_from"))
        yield training


def _forerunners(record: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Give the records of the trainings behind a network, and of the networks that these were averaged with."""
    while record:
        yield record
        for companion in record.get("averaged_with") or ():
            yield from _forerunners(companion)
        record = record.get("started_from")
