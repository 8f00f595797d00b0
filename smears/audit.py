"""Audit a folder of images before anything is learnt from it.

    python -m smears.audit DIR [--out FOLDER] [--workers 2] [--pairs 72] [--strict]

Looks for exact and near duplicates, photographs of the same cells, copies across splits, one content under two labels,
unreadable files and half-unpacked archives, and counts images, photographs and sizes for each split and class. Prints a
table; writes `audit.json`, which lists everything, and `contact_sheet.jpg`, the suspicious pairs to look at, into FOLDER
(by default `audit/` and DIR's name, in the working folder). Nothing is changed in DIR, and nothing left out in silence.

The status is 0 when the audit ran, 2 when there was nothing to audit, and with --strict 1 when a label conflict, a leak
between splits or an unreadable file was found.
"""

import argparse
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smears.contact_sheet import SheetPair, draw_sheets
from smears.findings import REASONS, SERIOUS, Finding, Groups, group, judge, order_by_size, same_content
from smears.likeness import COPY, SAME_CELLS, Link, find_links
from smears.loading import DataError
from smears.survey import UNREADABLE, Fault, Survey, SurveyedImage, read_rgb, survey

logger = logging.getLogger(__name__)

SCHEMA = "smears-audit/1"
REPORT = "audit.json"
LISTED_FINDINGS = 10  # pairs on the screen; the sheet shows more
LISTED_FAULTS = 20  # rows on the screen for each kind; the JSON file has them all


@dataclass(frozen=True)
class Audit:
    """What an audit found; positions count the images of the survey.

    `not_compared`: positions of images that show too little for near duplicates to be found. `seconds`: wall time of
    the stages reading and comparing.
    """

    root: Path
    survey: Survey
    links: tuple[Link, ...]
    groups: Groups
    findings: tuple[Finding, ...]
    faults: tuple[Fault, ...]
    not_compared: tuple[int, ...]
    seconds: dict[str, float]


def audit(root: Path, workers: int = 2) -> Audit:
    """Audit a folder.

    Raises:
        DataError: the folder is missing, or holds no readable image.
    """
    started = time.perf_counter()
    surveyed = survey(root, workers)
    images = surveyed.images
    read_at = time.perf_counter()
    # images of one content are compared once
    first = {}
    for position in order_by_size(images):
        first.setdefault(images[position].pixels, position)
    order = list(first.values())

    def read(k: int) -> np.ndarray:
        return read_rgb((root / images[order[k]].file).read_bytes())

    found, unlike = find_links(len(order), read, workers=workers)
    links = tuple(sorted((_placed(link, order) for link in found), key=lambda link: (link.first, link.second)))
    not_compared = tuple(sorted(order[k] for k in unlike))
    groups = group(images, links)
    faults = [
        Fault("not compared", images[k].file, "It shows too few landmarks: only equal content would be noticed.")
        for k in not_compared
    ]
    return Audit(
        root=root,
        survey=surveyed,
        links=links,
        groups=groups,
        findings=tuple(judge(images, links, groups)),
        faults=tuple(sorted([*surveyed.faults, *faults], key=lambda fault: (fault.kind, fault.path, fault.reason))),
        not_compared=not_compared,
        seconds={"reading": read_at - started, "comparing": time.perf_counter() - read_at},
    )


def _placed(link: Link, order: Sequence[int]) -> Link:
    first, second = sorted((order[link.first], order[link.second]))
    return Link(**{**asdict(link), "first": first, "second": second})


def counts(audited: Audit) -> list[dict[str, Any]]:
    """Count images, photographs and groups of the same cells for each split and class.

    Returns:
        Rows with `split`, `label` (None where the path names none), `images`, `photos`, `cells` and
        `images_per_photo`, the fewest, the median and the most.
    """
    places = defaultdict(list)
    for position, image in enumerate(audited.survey.images):
        places[image.split, image.label].append(position)
    rows = []
    for (split, label), positions in sorted(places.items(), key=lambda item: [part or "" for part in item[0]]):
        copies = Counter(audited.groups.photos[position] for position in positions)
        rows.append(
            {
                "split": split,
                "label": label,
                "images": len(positions),
                "photos": len(copies),
                "cells": len({audited.groups.cells[position] for position in positions}),
                "images_per_photo": [min(copies.values()), float(np.median([*copies.values()])), max(copies.values())],
            }
        )
    return rows


def report(audited: Audit) -> dict[str, Any]:
    """List everything for `audit.json`; all but `run` is the same for the same folder.

    Keys: `schema`; `run` (folder, images per second, seconds); `counts`, see `counts`; `sizes`; `summary`, the number of
    findings, pairs, by reason and by splits; `faults`; `images`, each with the file that stands for its `photo` and for
    its `cells`; `same_bytes` and `same_pixels`, lists of files; `photos` and `cells`, the groups of two and more;
    `links`, the pairs that prove the groups; `findings`, pairs, the most serious first.
    """
    images, groups = audited.survey.images, audited.groups

    def named(item: Link | Finding) -> dict[str, Any]:
        return {**asdict(item), "first": images[item.first].file, "second": images[item.second].file}

    def files(positions: Sequence[int]) -> list[str]:
        return [images[position].file for position in positions]

    by_photo, by_cells = defaultdict(list), defaultdict(list)
    for position, photo in enumerate(groups.photos):
        by_photo[photo].append(position)
        if photo == position:
            by_cells[groups.cells[photo]].append(photo)
    sizes = Counter((image.split, image.width, image.height, image.mode) for image in images)
    seconds = sum(audited.seconds.values())
    return {
        "schema": SCHEMA,
        "run": {
            "folder": str(audited.root),
            "images": len(images),
            "images_per_second": round(len(images) / max(seconds, 1e-3), 1),
            "seconds": {stage: round(spent, 1) for stage, spent in audited.seconds.items()},
        },
        "counts": counts(audited),
        "sizes": [
            {"split": split, "width": width, "height": height, "mode": mode, "images": count}
            for (split, width, height, mode), count in sorted(sizes.items(), key=lambda item: (-item[1], str(item[0])))
        ],
        "summary": summary(audited),
        "faults": [asdict(fault) for fault in audited.faults],
        "images": [
            {**asdict(image), "photo": images[photo].file, "cells": images[cells].file}
            for image, photo, cells in zip(images, groups.photos, groups.cells, strict=True)
        ],
        "same_bytes": [files(positions) for positions in same_content(images, "sha256")],
        "same_pixels": [files(positions) for positions in _resaved(images)],
        "photos": [
            {"photo": images[photo].file, "files": files(copies)}
            for photo, copies in by_photo.items()
            if len(copies) > 1
        ],
        "cells": [
            {"cells": images[cells].file, "photos": files(photos)}
            for cells, photos in by_cells.items()
            if len(photos) > 1
        ],
        "links": [named(link) for link in audited.links],
        "findings": [named(finding) for finding in audited.findings],
    }


def _resaved(images: Sequence[SurveyedImage]) -> list[list[int]]:
    """List the groups of one content in files of different bytes."""
    groups = same_content(images, "pixels")
    return [positions for positions in groups if len({images[position].sha256 for position in positions}) > 1]


def summary(audited: Audit) -> list[dict[str, Any]]:
    """Count the findings by reason and the pair of splits they join, the most serious first."""
    images = audited.survey.images
    pairs = Counter()
    for finding in audited.findings:
        splits = tuple(sorted({images[k].split or "" for k in (finding.first, finding.second)}))
        for reason in finding.reasons:
            pairs[reason, splits] += 1
    ordered = sorted(pairs.items(), key=lambda item: (REASONS.index(item[0][0]), item[0][1]))
    return [{"reason": reason, "splits": list(splits), "pairs": count} for (reason, splits), count in ordered]


def is_serious(audited: Audit) -> bool:
    """Say whether a label conflict, a leak between splits or an unreadable file was found."""
    return any(SERIOUS.intersection(finding.reasons) for finding in audited.findings) or any(
        fault.kind == UNREADABLE for fault in audited.faults
    )


def table(audited: Audit) -> str:
    """Lay the audit out for a screen."""
    images, groups = audited.survey.images, audited.groups
    lines = [f"{audited.root}: {len(images)} images", ""]
    lines += _columns(
        ("split", "class", "images", "photos", "of different cells", "images per photo: fewest, median, most"),
        [
            (
                row["split"] or "-",
                row["label"] or "-",
                row["images"],
                row["photos"],
                row["cells"],
                "{} {:g} {}".format(*row["images_per_photo"]),
            )
            for row in counts(audited)
        ],
    )
    lines += [f"all: {len(set(groups.photos))} photographs, {len(set(groups.cells))} of different cells", ""]
    sizes = Counter((image.width, image.height, image.mode) for image in images)
    lines += _columns(
        ("size", "pixels", "images"),
        [(f"{width} x {height}", mode, count) for (width, height, mode), count in sizes.most_common(LISTED_FAULTS)],
    )
    lines += [f"and {len(sizes) - LISTED_FAULTS} more sizes"] if len(sizes) > LISTED_FAULTS else []
    kinds = Counter(link.kind for link in audited.links)
    lines += [
        "",
        f"groups of files with the same bytes: {len(same_content(images, 'sha256'))}; "
        f"with the same pixels in other bytes: {len(_resaved(images))}",
        f"registered pairs: {kinds[COPY]} copies, {kinds[SAME_CELLS]} photographs of the same cells",
        "",
    ]
    rows = [
        (row["reason"], " ~ ".join(split or "-" for split in row["splits"]), row["pairs"]) for row in summary(audited)
    ]
    lines += (
        _columns(("what to look at", "splits", "pairs"), rows)
        if rows
        else ["No copies, no shared cells, no conflicts."]
    )
    serious = [finding for finding in audited.findings if SERIOUS.intersection(finding.reasons)]
    for finding in serious[:LISTED_FINDINGS]:
        first, second = images[finding.first].file, images[finding.second].file
        lines += [f"  {'; '.join(finding.reasons)}: {first} ~ {second}"]
    lines += [f"  and {len(serious) - LISTED_FINDINGS} more, in {REPORT}"] if len(serious) > LISTED_FINDINGS else []
    lines += [""]
    by_kind = defaultdict(list)
    for fault in audited.faults:
        by_kind[fault.kind].append(fault)
    for kind, faults in by_kind.items():
        lines += [f"{kind}: {len(faults)}", *(f"  {fault.path}: {fault.reason}" for fault in faults[:LISTED_FAULTS])]
        lines += [f"  and {len(faults) - LISTED_FAULTS} more, in {REPORT}"] if len(faults) > LISTED_FAULTS else []
    lines += [] if by_kind else ["No unreadable, foreign or misplaced file."]
    seconds = sum(audited.seconds.values())
    return "\n".join([*lines, f"{seconds:.0f} s, {len(images) / max(seconds, 1e-3):.1f} images/s"])


def _columns(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if cell.isdigit() else cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]


def choose_pairs(findings: Sequence[Finding], limit: int) -> list[Finding]:
    """Choose at most `limit` findings to look at: some of each reason, spread evenly, the most serious first."""
    by_reason = defaultdict(list)
    for finding in findings:
        by_reason[finding.reasons[0]].append(finding)
    share = limit // max(len(by_reason), 1)
    wanted = {reason: min(share, len(found)) for reason, found in by_reason.items()}
    for reason, found in by_reason.items():
        wanted[reason] += min(len(found) - wanted[reason], limit - sum(wanted.values()))
    return [
        found[k]
        for reason, found in by_reason.items()
        for k in np.linspace(0, len(found) - 1, wanted[reason]).astype(int).tolist()
    ]


def write_contact_sheet(audited: Audit, out: Path, limit: int) -> list[Path]:
    """Draw the pairs to look at, at most `limit`; the caption counts the others."""
    images, links = audited.survey.images, {(link.first, link.second): link for link in audited.links}
    chosen = choose_pairs(audited.findings, limit)
    shown, found = (Counter(one.reasons[0] for one in several) for several in (chosen, audited.findings))
    rest = "; ".join(f"{found[reason] - shown[reason]} {reason}" for reason in found if found[reason] > shown[reason])

    def line(image: SurveyedImage) -> str:
        return f"{image.split or '-'} / {image.label or '-'}: {image.file}"

    pairs = []
    for one in chosen:
        link = links.get((min(one.first, one.second), max(one.first, one.second)))
        proof = f" ({link.inliers} keypoints, residual {link.residual:.1f})" if link else ""
        reason = f"{'; '.join(one.reasons)}: {one.evidence}{proof}, {one.images} images"
        first, second = images[one.first], images[one.second]
        paths = (audited.root / image.file for image in (first, second))
        pairs.append(SheetPair(*paths, reason, line(first), line(second)))
    caption = f"{audited.root.resolve().name}: {len(chosen)} of {len(audited.findings)} pairs. "
    caption += f"Not shown: {rest}." if rest else "All are shown."
    return draw_sheets(pairs, lambda path: read_rgb(path.read_bytes()), out, caption)


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a folder; see the module's docstring. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m smears.audit", description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of images, at best SPLIT/CLASS/image.jpg")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="folder for the report; audit/ and DIR's name if not given"
    )
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--pairs", type=int, default=72, help="pairs on the contact sheet, at most")
    parser.add_argument(
        "--strict", action="store_true", help="status 1 for label conflicts, leaks and unreadable files"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    root = options.folder
    out = options.out or Path("audit") / (root.resolve().name or "root")
    if options.workers < 1 or options.pairs < 0:
        parser.error(f"--workers {options.workers} --pairs {options.pairs}: expected at least 1 worker and 0 pairs")
    if out.resolve().is_relative_to(root.resolve()):
        parser.error(f"--out {out} lies in {root}, and would be audited the next time; name a folder outside of it")
    try:
        audited = audit(root, options.workers)
    except DataError as error:
        parser.error(str(error))
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report(audited), indent=1, ensure_ascii=False)
    (out / REPORT).write_text(text + "\n", encoding="utf-8")
    sheets = write_contact_sheet(audited, out, options.pairs)
    print(table(audited))
    for file in (out / REPORT, *sheets):
        logger.info("wrote %s", file)
    return int(options.strict and is_serious(audited))


if __name__ == "__main__":
    raise SystemExit(main())
