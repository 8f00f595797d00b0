"""Name the white blood cells of an archive of images, on all cores of this machine or on a Ray cluster, into Parquet files.

A folder with all below it; patterns, Parquet files (a column of bytes, or datasets' {bytes, path}) and WebDataset tars; an
address that pyarrow or fsspec opens:

    python score.py my_cells --out scores
    python score.py 'lab*/**/*.png' cells.parquet shards/*.tar --out scores --embedding
    python score.py s3://bucket/cells --out s3://bucket/scores

Whenever it is ended, by whatever, the same command goes on; each image stands once in the result. An image that cannot be read
is a row with its error. Photos of fields, of which each cell is to be found and named:

    python score.py my_fields --fields --out counted

On a cluster whose machines have the libraries of requirements.txt and reach the images:

    RAY_ADDRESS=head:6379 python score.py s3://bucket/cells --out s3://bucket/scores

The result, with any reader of Parquet:

    python -c "import pandas; print(pandas.read_parquet('scores').verdict.value_counts())"
"""

import argparse
import hashlib
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scoring.access import show_token_where_asked
from scoring.locations import ScoringError, locate, without_secrets
from scoring.manifest import alone, list_once, open_folder
from scoring.results import Tally
from scoring.stages import Work, read_model

SHIPPED = Path(__file__).resolve().parent / "hub_model"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="folder, file, pattern or address of images, .parquet or .tar")
    add("--out", required=True, help="folder or address of the result; begun anew or gone on with")
    add("--model", default=str(SHIPPED), help="a model's folder as train.py saves it; left out: the shipped weights")
    add("--fields", action="store_true", help="images are fields: find each white cell and name it")
    add("--embedding", action="store_true", help="keep the network's 512 features of each cell")
    add("--column", help="of Parquet files, the column of images, where it does not show by itself")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the network computes (default: cpu)")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the network; bfloat16 is faster on processors that have it and moves probabilities (default: float32)",
    )
    add("--chunk", type=int, help="images done at a time, what an ended run loses (default: 256; of fields 8)")
    add("--partition", type=int, default=16384, help="image files that share a file of results (default: 16384)")
    add("--retry_errors", action="store_true", help="read again what ended with an error in an earlier start")
    add("--fail_on_errors", action="store_true", help="end with status 3 where an image could not be read")
    options = parser.parse_args(arguments)
    if options.chunk is None:
        options.chunk = 8 if options.fields else 256
    if options.chunk < 1 or options.partition < options.chunk:
        parser.error(
            f"--chunk {options.chunk} --partition {options.partition}: expected 1 or more, and no partition below a chunk"
        )
    return options


def asked_of(options: argparse.Namespace, files: dict[str, bytes]) -> dict[str, Any]:
    """Give what decides the result, which a restart must ask again."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(hashlib.sha256(files[name]).digest())
    kept = ("fields", "embedding", "column", "precision", "chunk", "partition")
    inputs = [locate(address).address for address in options.inputs]
    return {"inputs": inputs, "model": digest.hexdigest(), **{name: getattr(options, name) for name in kept}}


def counted(endings: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.items())


def told(whole: Tally, options: argparse.Namespace, ignored: dict[str, int], rate: str) -> str:
    """Write the summary of a run."""
    lines = [
        f"{whole.images:,} images, {whole.errors:,} of them with an error, in {without_secrets(options.out)}{rate}"
    ]
    if options.fields:
        lines.append(f"{whole.cells:,} cells found")
    verdicts = sorted(whole.verdicts.items(), key=lambda row: -row[1])
    lines += [f"  {verdict:<16}{count:>12,}  {count / whole.cells:6.1%}" for verdict, count in verdicts]
    lines += [f"  error: {error if path in error else f'{path}: {error}'}" for path, error in whole.examples]
    if whole.errors > len(whole.examples):
        lines.append(f"  and {whole.errors - len(whole.examples):,} more; they stand in the column error")
    if ignored:
        lines.append(f"left out, neither image nor archive: {counted(ignored)}")
    if whole.left_out:
        lines.append(f"left out of archives, or with them, being no images: {counted(whole.left_out)}")
        lines += [f"  holds no image: {path}" for path in whole.empty]
    return "\n".join(lines)


def score(options: argparse.Namespace) -> Tally:
    """List, read, name, write; then tell what came out."""
    files = read_model(options.model)
    asked = asked_of(options, files)
    folder = open_folder(options.out)
    with alone(folder):
        with tqdm(desc="listing", unit=" files", leave=False, delay=2) as bar:
            manifest = list_once(folder, asked, options.partition, lambda count: bar.update(count - bar.n))
        show_token_where_asked()
        from scoring.engine import engine, run  # Ray takes seconds to import: faults above are told first

        work = Work(
            tuple(asked["inputs"]), folder.place.address, options.chunk, options.partition, options.fields,
            options.embedding, options.column, options.precision, options.device,
        )  # fmt: skip
        started = time.perf_counter()
        with engine():
            progress = run(folder, manifest, work, files, options.retry_errors)
    seconds, here = time.perf_counter() - started, progress.here
    rate = f"; {here:,} of them now, in {seconds:,.0f} s" if here or progress.marks else "; nothing was left to do"
    print(told(progress.whole, options, manifest.ignored, rate))
    return progress.whole


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    try:
        whole = score(options)
    except (ScoringError, OSError) as error:
        sys.exit(f"error: {without_secrets(str(error))}")
    except KeyboardInterrupt:
        print("\nended; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception:  # of the engine or of this program; whose message may hold an address with its key
        sys.exit(
            f"{without_secrets(traceback.format_exc())}"
            "error: the run broke off where no fault was foreseen, see above. What is done is kept: the same command goes on."
        )
    if options.fail_on_errors and whole.errors:
        sys.exit(3)


if __name__ == "__main__":
    main()
