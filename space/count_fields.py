"""Count the white cells in photos of a smear: a report, the figures behind it, and the photos with their cells drawn in.

python space/count_fields.py my_fields --out my_count
python space/count_fields.py a.jpg b.jpg --out my_count --title "Slide 17" --total 7200 --laboratory pbc

Folders are read with all that is in them. Writes report.pdf, report.json, cells.csv, count.csv and fields/ into a new folder.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import texts
from colours import verdict_colours
from field_picture import draw_field_picture
from report import cell_thumbnail, write_report
from smear_model import chosen_model, pinned_revision
from transformers import pipeline

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", help="photos of one slide, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--model", help="a folder, or a model's name on the Hub")
    parser.add_argument("--title", default="", help="what the slide is called; no name of a patient")
    parser.add_argument("--total", type=float, metavar="N", help="white cells in a microlitre, for absolute counts")
    parser.add_argument("--laboratory", help="whose errors apply, of those that the model knows")
    return parser.parse_args(arguments)


def list_photos(paths: Sequence[Path]) -> list[Path]:
    """List files, and of folders the photos in them.

    Raises:
        ValueError: a folder holds none.
    """
    photos = []
    for path in paths:
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            if not found:
                raise ValueError(texts.COUNT_NO_FILES.format(path=path, endings=", ".join(ENDINGS)))
        photos += found
    return photos


def count_fields(options: argparse.Namespace) -> None:
    """Count, and write what was found.

    Raises:
        ValueError, OSError: nothing to count, no such model, an option that does not fit, a folder that is not empty.
    """
    photos = list_photos(options.photos)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ValueError(texts.COUNT_EXISTS.format(folder=options.out))
    model = chosen_model(options.model)
    revision = None if Path(model).is_dir() else pinned_revision(model)
    count = pipeline(model=model, revision=revision, trust_remote_code=True, device="cpu")
    answer = count(photos, laboratory=options.laboratory, white_cells_per_microlitre=options.total)
    (options.out / "fields").mkdir(parents=True)
    (options.out / "report.json").write_text(count.as_json(answer), encoding="utf-8")
    (options.out / "cells.csv").write_text(count.cells_csv(answer), encoding="utf-8")
    (options.out / "count.csv").write_text(count.count_csv(answer), encoding="utf-8")
    colours = verdict_colours(count.model.config.id2label.values())
    thumbnails = {}  # of a photo its cells alone are kept: unpacked it takes three bytes a pixel
    for number, (photo, image) in enumerate(zip(photos, answer["images"], strict=True)):
        if image["refused"] is None:
            picture = count.read(photo)
            for place, cell in enumerate(image["cells"]):
                thumbnails[number, place] = cell_thumbnail(picture, cell["box"])
            drawn = draw_field_picture(picture, image["cells"], colours)
            drawn.save(options.out / "fields" / f"{number + 1:03d}-{photo.stem}.png")
    write_report(answer, [], options.out / "report.pdf", datetime.now(UTC), options.title, thumbnails)
    for row in answer["differential"]["rows"]:
        percent = "" if row["percent"] is None else f"{row['percent']:6.1f} %"
        print(f"{row['class']:<16}{row['count']:>6}{percent:>10}")
    print("\n".join(answer["differential"]["warnings"]))
    print(texts.COUNT_WROTE.format(folder=options.out))


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        count_fields(parse(arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
