"""Put a finished training into the model repository: ``python -m evaluation.release runs/wbc-resnet24/model hub_model``.

Cross-validations and evidence in the repository's ``eval_results.json`` are of other weights and stay there; what was measured
on the weights that are replaced goes with them.
"""

import argparse
import shutil
import sys
from pathlib import Path

from evaluation.evidence import OF_THE_SHIPPED_WEIGHTS
from evaluation.results import FILE_NAME, read_results, write_results

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def release(trained: Path, repository: Path) -> None:
    """Copy weights, configuration and figures.

    Raises
    ------
    FileNotFoundError, ResultsError
        The training is not finished, or one of the two results is refused by ``evaluation.results``; nothing is copied.
    """
    results, here = read_results(trained / FILE_NAME), repository / FILE_NAME
    kept = {}
    if here.is_file():
        before = read_results(here)
        kept = {key: before[key] for key in ("protocol", "evidence") if before.get(key)}
        results["model"]["name"] = before["model"]["name"]  # the published one, not the run
        if (before["model"]["sha256"] != results["model"]["sha256"]) and "evidence" in kept:
            stay = kept["evidence"].keys() - set(OF_THE_SHIPPED_WEIGHTS)
            kept["evidence"] = {kind: found for kind, found in kept["evidence"].items() if kind in stay}
    for name in FILES:
        if not (trained / name).is_file():
            raise FileNotFoundError(f"{trained / name} is no file; expected a training that has come to its end.")
    for name in FILES:
        shutil.copy2(trained / name, repository / name)
    write_results(here, results | kept)


def main() -> None:
    """Release a folder; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.release", description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path, help="model/ of a finished training")
    parser.add_argument("repository", type=Path, help="the model repository's folder")
    options = parser.parse_args()
    try:
        release(options.trained, options.repository)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
