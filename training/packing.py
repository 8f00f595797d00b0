"""A training's images in one folder, to learn from on a machine that has not the folders they came from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from smears.loading import DataError

ABOUT = "pack.json"
SHARDS = 8  # files that each part is written to, so that it can travel in pieces


@dataclass(frozen=True)
class Pack:
    """What a folder holds.

    Attributes:
        fit: what is learnt.
        held: what is held out, of each laboratory.
        fingerprints: of each laboratory's images, by its name; of those left out, too.
    """

    fit: datasets.Dataset
    held: dict[str, datasets.Dataset]
    fingerprints: dict[str, str]


def write_pack(folder: str | Path, pack: Pack) -> None:
    """Write images, labels, boxes and groups; ``pack.json``, which says that all is there, last.

    Raises:
        DataError: the folder is not empty.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; expected a new folder for the images. Name another, or empty it.")
    pack.fit.save_to_disk(str(folder / "fit"), num_shards=min(SHARDS, len(pack.fit)))
    for lab, data in pack.held.items():
        data.save_to_disk(str(folder / "held" / lab), num_shards=1)
    (folder / ABOUT).write_text(json.dumps({"fingerprints": pack.fingerprints}, indent=2) + "\n", encoding="utf-8")


def read_pack(folder: str | Path, leave_out: Sequence[str] = ()) -> Pack:
    """Read what ``write_pack`` wrote, without the laboratories in ``leave_out``.

    Raises:
        DataError: no pack, half of one, or without such a laboratory.
    """
    folder = Path(folder)
    try:
        about: Mapping = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        fit = datasets.load_from_disk(str(folder / "fit"))
        held = {lab: datasets.load_from_disk(str(folder / "held" / lab)) for lab in about["fingerprints"]}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder} holds no whole pack ({error}); expected what `train.py --pack_to {folder}` writes. Write it again."
        ) from error
    if strange := sorted(set(leave_out) - held.keys()):
        raise DataError(f"--leave_out {strange[0]}: the pack has {', '.join(held)}.")
    if leave_out:
        labs = fit["lab"][:] if "lab" in fit.column_names else [*held] * len(fit)
        fit = fit.select(np.flatnonzero(~np.isin(labs, list(leave_out))))
        held = {lab: data for lab, data in held.items() if lab not in leave_out}
    if not len(fit):
        raise DataError(f"{folder}: nothing is left to learn from; leave out fewer laboratories.")
    return Pack(fit, held, {lab: about["fingerprints"][lab] for lab in held})
