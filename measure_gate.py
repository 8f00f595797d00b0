"""Measure hub_model/smear_gate.py: how many real smears it refuses, and how many pictures of anything else.

    python measure_gate.py blood-cells raabin chula pbc --photos hub_dataset/photos.csv --test_share pbc=0.2 --split_seed 3 \\
        --out gate.json
    python measure_gate.py blood-cells pbc --photos hub_dataset/photos.csv --test_share pbc=0.2 --split_seed 3 --held_out \\
        --strangers wallpapers=FOLDER --out gate_held_out.json

A laboratory is the Kaggle archive, a folder with a boxes.csv, or folders of classes. Official test photos, and the share that
training holds out, are looked at with ``--held_out`` only, and then nothing else of these laboratories. Where a laboratory has
boxes of its white cells, squares without one are measured as empty fields.

Pictures of anything else: photographs inside installed packages and drawings (evaluation/strangers.py), and the user's own
folders, named with ``--strangers NAME=FOLDER``. A share's interval is exact (Clopper and Pearson), as if pictures were
independent.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluation.command import read_shares
from evaluation.intervals import binomial_interval
from evaluation.results import provenance
from evaluation.strangers import draw_strangers
from hub_model.smear_gate import why_no_smear
from smears.fields import read_fields, read_tests
from smears.laboratories import divide, load_laboratory
from smears.loading import DataError
from smears.photos import find_photo_folder

STRANGER_SIDE = 256  # px
EMPTY_SIDE = (0.25, 0.6)  # of the field's shorter side
EMPTY_TRIES = 40  # squares tried in each field
SMALLEST_SIDE = 32  # px, of a picture
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("laboratories", type=Path, nargs="*", help="folders of smears")
    parser.add_argument("--photos", type=Path, help="CSV of photo and split: which are official test photos")
    parser.add_argument("--test_share", nargs="+", default=[], metavar="LAB=SHARE", help="held out, as training's")
    parser.add_argument("--split_seed", type=int, default=0, help="as training's")
    parser.add_argument("--held_out", action="store_true", help="measure what is held out, and not the rest")
    parser.add_argument("--strangers", nargs="+", default=[], metavar="NAME=FOLDER", help="pictures that show no smear")
    parser.add_argument("--count", type=int, default=60, help="of each kind of package photograph and drawing")
    parser.add_argument("--seed", type=int, default=0, help="of drawings and of empty squares")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    return parser.parse_args(argv)


def judge(pictures: Iterable[tuple[str, Image.Image]]) -> dict[str, Any]:
    """Ask the gate about each (name, picture): how many it refuses, why, and those that are the odd ones out."""
    reasons, names, seconds = Counter(), {True: [], False: []}, []
    for name, picture in pictures:
        begun = time.perf_counter()
        reason = why_no_smear(picture)
        seconds.append(time.perf_counter() - begun)
        names[reason is not None].append(name)
        if reason:
            reasons[reason] += 1
    refused, total = len(names[True]), len(seconds)
    if not total:
        raise DataError("There is no picture to judge. Name a folder that has some.")
    low, high = binomial_interval(refused, total)
    return {
        "pictures": total,
        "refused": refused,
        "share": round(refused / total, 4),
        "interval": [round(low, 4), round(high, 4)],
        "reasons": dict(reasons.most_common()),
        "odd": sorted(min(names.values(), key=len)),
        "milliseconds": {"median": round(1e3 * float(np.median(seconds)), 1), "slowest": round(1e3 * max(seconds), 1)},
    }


def _read(files: Iterable[tuple[str, Any]], what: str) -> Iterator[tuple[str, Image.Image]]:
    for name, source in tqdm(files, what, unit="picture"):
        with Image.open(source) as picture:
            yield name, picture.convert("RGB")


def read_laboratory(
    data_dir: Path, photos: Path | None, test_share: float, seed: int, held_out: bool
) -> tuple[list[Path], list[list[list[int]]]]:
    """List the files of a laboratory, and of each the boxes of its white cells, empty where they are not known."""
    if (data_dir / "boxes.csv").exists() or _is_archive(data_dir):
        files, boxes = read_fields(data_dir)
        tests = read_tests(photos, [file.stem for file in files])
        chosen = [place for place in range(len(files)) if (place in tests) == held_out]
        return [files[place] for place in chosen], [boxes[place] for place in chosen]
    parts = divide(load_laboratory(data_dir), test_share=test_share, seed=seed)
    names = [file for part in parts if (part == "test") == held_out for file in parts[part]["file"]]
    return [data_dir / name for name in sorted(names)], [[] for _ in names]


def _is_archive(data_dir: Path) -> bool:
    try:
        return find_photo_folder(data_dir) is not None
    except DataError:
        return False


def cut_empty(files: Sequence[Path], boxes: Sequence[list[list[int]]], seed: int) -> Iterator[tuple[str, Image.Image]]:
    """Cut a square without a white cell out of each field that has boxes and room for one."""
    rng = np.random.default_rng(seed)
    for file, given in zip(files, boxes, strict=True):
        if not given:
            continue
        with Image.open(file) as picture:
            field = picture.convert("RGB")
        for _ in range(EMPTY_TRIES):
            side = int(min(field.size) * rng.uniform(*EMPTY_SIDE))
            left, top = (int(rng.integers(0, length - side + 1)) for length in field.size)
            if side >= SMALLEST_SIDE and all(
                box[2] <= top or box[0] >= top + side or box[3] <= left or box[1] >= left + side for box in given
            ):
                yield f"{file.name} {top} {left} {side}", field.crop((left, top, left + side, top + side))
                break


def read_folder(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """Read the pictures of a folder, transparent ones on white, of 32 px or more each side."""
    for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # they are the user's own
            with Image.open(file) as picture:
                if min(picture.size) < SMALLEST_SIDE:
                    continue
                clear = picture.convert("RGBA")
        ground = Image.new("RGBA", clear.size, "white")
        ground.alpha_composite(clear)
        yield file.relative_to(folder).as_posix(), ground.convert("RGB")


def main(argv: Sequence[str] | None = None) -> None:
    """Read, judge, write, and print a table."""
    options = parse(argv)
    shares = read_shares(options.test_share)
    results: dict[str, Any] = provenance() | {"held_out": options.held_out}
    results |= {"smears": {}, "empty_fields": {}, "strangers": {}}
    for folder in map(Path.resolve, options.laboratories):  # the archive's photos are found under the real name
        files, boxes = read_laboratory(
            folder, options.photos, shares.get(folder.name, 0.0), options.split_seed, options.held_out
        )
        named = [(file.relative_to(folder).as_posix(), file) for file in files]
        results["smears"][folder.name] = judge(_read(named, folder.name))
        if any(boxes):
            results["empty_fields"][folder.name] = judge(cut_empty(files, boxes, options.seed))
    kinds: dict[str, list[tuple[str, Image.Image]]] = {}
    for kind, picture in draw_strangers(options.count, STRANGER_SIDE, options.seed) if options.count else ():
        kinds.setdefault(kind, []).append((f"{kind} {len(kinds.get(kind, ()))}", picture))
    results["strangers"] = {kind: judge(pictures) for kind, pictures in kinds.items()}
    for entry in options.strangers:
        name, _, folder = entry.partition("=")
        results["strangers"][name] = judge(read_folder(Path(folder)))
    if counts := results["strangers"].values():
        refused, total = (sum(count[key] for count in counts) for key in ("refused", "pictures"))
        low, high = binomial_interval(refused, total)
        results["all_strangers"] = {"pictures": total, "refused": refused, "share": round(refused / total, 4)}
        results["all_strangers"]["interval"] = [round(low, 4), round(high, 4)]
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for part in ("smears", "empty_fields", "strangers"):
        for name, count in results[part].items():
            low, high = (100 * bound for bound in count["interval"])
            share = f"{count['refused']:>6} of {count['pictures']:>6} refused, {100 * count['share']:.2f} % "
            print(f"{part:<12} {name:<36} {share}[{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
