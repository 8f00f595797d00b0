"""Write the counts in the data set's card from its tables, so that none of them is typed by hand.

    python -m smears.dataset_card hub_dataset
    python -m smears.dataset_card hub_dataset --check

The first writes what stands between the markers of ``hub_dataset/README.md``; the second writes nothing and ends with status 1
if that would change it.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from smears.provenance import FLAGS, ImageRow, OverlapRow, PhotoRow, read_images, read_overlaps, read_photos

BEGIN, END = "<!-- counts:begin -->", "<!-- counts:end -->"
SPLITS = ("TRAIN", "TEST", "TEST_SIMPLE")
PARTS = ("train", "validation", "test")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[f"{value:,}" if isinstance(value, int) else str(value) for value in row] for row in rows]
    aligned = ["|---|" + "--:|" * (len(head) - 1)]
    return ["| " + " | ".join(head) + " |", *aligned, *("| " + " | ".join(row) + " |" for row in cells), ""]


def _images_and_photos(rows: Sequence[ImageRow], labels: Sequence[str]) -> list[str]:
    images = Counter(row.label for row in rows)
    photos = Counter(label for label, _ in {(row.label, row.photo) for row in rows if row.photo is not None})
    shown = [f"{images[label]:,} of {photos[label]}" for label in labels]
    return [*shown, f"{sum(images.values()):,} of {sum(photos.values())}"]


def counts(images: Sequence[ImageRow], photos: Sequence[PhotoRow], overlaps: Sequence[OverlapRow]) -> str:
    """Write every count that the card quotes, as Markdown."""
    labels = sorted({row.label for row in photos})
    traced = [row for row in images if row.photo is not None]
    copies = Counter(row.photo for row in traced if row.split != "TEST_SIMPLE")
    lines = [
        f"{len(images):,} files, {len({row.sha256 for row in images}):,} different contents, made from {len(photos)} photos. "
        f"{len(traced):,} files are traced to their photo, {len(images) - len(traced)} are unsure. Of the traced ones, the "
        f"weakest has {min(row.inliers for row in traced)} agreeing landmarks, {min(row.margin for row in traced)} more than "
        f"the best photo of other cells; the largest residual is {max(row.residual for row in traced)} grey levels of 255. "
        f"A photo has {min(copies.values())} to {max(copies.values())} copies in TRAIN or TEST.",
        "",
        "Images of photos, official split:",
        "",
        *_table(
            ["", *labels, "all"],
            [[split, *_images_and_photos([row for row in images if row.split == split], labels)] for split in SPLITS],
        ),
        "Images of photos, `clean_split`:",
        "",
        *_table(
            ["", *labels, "all"],
            [[part, *_images_and_photos([row for row in images if row.clean_split == part], labels)] for part in PARTS],
        ),
        "Photos in each `fold` (groups of overlapping photos are whole):",
        "",
        *_table(
            ["fold", *labels, "all"],
            [
                [str(fold), *(sum(row.fold == fold and row.label == label for row in photos) for label in labels)]
                + [sum(row.fold == fold for row in photos)]
                for fold in sorted({row.fold for row in photos})
            ],
        ),
        "Images with each flag:",
        "",
        *_table(
            ["flag", *SPLITS, "meaning"],
            [
                [
                    f"`{flag}`",
                    *(sum(flag in row.flags.split(";") for row in images if row.split == split) for split in SPLITS),
                ]
                + [meaning]
                for flag, meaning in FLAGS.items()
            ],
        ),
        *_overlap_lines(photos, overlaps),
    ]
    return "\n".join(lines).rstrip()


def _overlap_lines(photos: Sequence[PhotoRow], overlaps: Sequence[OverlapRow]) -> list[str]:
    split = {row.photo: row.split for row in photos}
    crossing = [row for row in overlaps if {split.get(row.photo_a), split.get(row.photo_b)} == {"TRAIN", "TEST"}]
    same_cell = sum(bool(row.shared_cells) for row in overlaps)
    groups = Counter(row.group for row in photos)
    rows = []
    for row in crossing:
        ends = {split[number]: f"{number:05d}" for number in (row.photo_a, row.photo_b)}
        labels = " and ".join(sorted({row.label_a.lower(), row.label_b.lower()}))
        rows.append(
            [ends["TEST"], ends["TRAIN"], row.inliers, row.residual, "yes" if row.shared_cells else "no", labels]
        )
    return [
        f"{len(overlaps)} pairs of photos overlap; in {same_cell} of them the same white cell stands in both. They tie "
        f"{sum(count for count in groups.values() if count > 1)} of the {len(photos)} photos into "
        f"{sum(count > 1 for count in groups.values())} groups. {len(crossing)} pairs cross the official split; "
        f"{sum('leak' in row.flags for row in photos)} TEST photos overlap a TRAIN photo, "
        f"{sum(row.split == 'TEST' and not row.clean_split for row in photos)} stand in a group with one:",
        "",
        *_table(["TEST photo", "TRAIN photo", "landmarks", "residual", "same white cell", "labels"], rows),
    ]


def render(folder: Path) -> str:
    """Return the card's text with fresh counts.

    Raises:
        ValueError: the card has no pair of markers.
        FileNotFoundError: the card or a table is missing.
    """
    card = (folder / "README.md").read_text(encoding="utf-8")
    if card.count(BEGIN) != 1 or card.count(END) != 1 or card.index(BEGIN) > card.index(END):
        raise ValueError(f"{folder / 'README.md'} needs one {BEGIN} and after it one {END}. Restore it from git.")
    head, _, rest = card.partition(BEGIN)
    block = counts(
        read_images(folder / "images.csv"), read_photos(folder / "photos.csv"), read_overlaps(folder / "overlaps.csv")
    )
    return f"{head}{BEGIN}\n{block}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the card, or check it."""
    parser = argparse.ArgumentParser(prog="python -m smears.dataset_card", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the data set's folder: README.md and its tables")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the card is not up to date")
    options = parser.parse_args()
    try:
        text = render(options.folder)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    path = options.folder / "README.md"
    if options.check:
        if text != path.read_text(encoding="utf-8"):
            sys.exit(
                f"{path} does not agree with the tables; write it with python -m smears.dataset_card {options.folder}"
            )
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
