"""Answer the pictures that the model's page shows, so that its visitors see results also where nobody hosts the model.

    python -m evaluation.examples hub_model

names each picture of ``hub_model/examples`` through the plain door and writes the answers into ``eval_results.json``, from
which the card's head takes them (``widget``). The pictures are the Space's drawings; no photograph is among them.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import pipeline

from evaluation.collect import add_evidence
from evaluation.results import provenance, weights_sha256, without_folders

FOLDER = "examples"


def answer_examples(folder: Path) -> dict[str, Any]:
    """Name each picture of a model's examples.

    Returns
    -------
    dict
        ``sha256`` of the weights; ``pictures``, each with its ``file`` in the model's folder, its own ``sha256``, and the
        ``answers``, the likeliest first: ``label`` and ``score``, a probability, 0..1.

    Raises
    ------
    ValueError
        There are no pictures.
    """
    files = sorted((folder / FOLDER).glob("*.png"))
    if not files:
        raise ValueError(
            f"{folder / FOLDER} holds no PNG; expected the pictures that the model's page shows. Copy some in."
        )
    classify = pipeline("image-classification", str(folder), trust_remote_code=False)
    pictures = [
        {
            "file": path.relative_to(folder).as_posix(),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "answers": [{"label": row["label"], "score": round(row["score"], 4)} for row in classify(str(path))],
        }
        for path in files
    ]
    return {"sha256": weights_sha256(folder), "pictures": pictures}


def main(arguments: Sequence[str] | None = None) -> None:
    """Name the pictures and write the answers down; a fault ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.examples", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the model repository's folder")
    options = parser.parse_args(arguments)
    measured_by = provenance()
    try:
        add_evidence(options.folder, {"examples": [answer_examples(options.folder) | without_folders(measured_by)]})
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
