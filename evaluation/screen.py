"""A measurement as a table for the screen."""

from collections.abc import Mapping
from typing import Any

from evaluation.entry import METRICS
from evaluation.figures import figure, nats, percent, thousands

METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "ece": "ECE (15 bins)",
    "nll": "NLL, nats",
    "brier": "Brier, 0 to 2",
    "aurc": "AURC",
}
SHARES = ("accuracy", "balanced_accuracy", "macro_f1")


def as_table(entry: Mapping[str, Any]) -> str:
    """Lay out a measurement for the screen: each figure with its interval, of the images and of the photos."""
    photos, interval = entry["photo_level"], entry["interval"]
    rows = [
        ("", f"{thousands(entry['n_images'])} images", f"{thousands(photos['n_photos'])} photos (mean of the copies)")
    ]
    for name in METRICS:
        show = figure if name in SHARES else nats
        rows.append((METRIC_NAMES[name], show(entry["metrics"][name]), show(photos[name])))
    for label, of_images in entry["recall"].items():
        of_photos = photos["recall"][label]
        shown = [f"{figure(level)}  n = {thousands(level['n'])}" for level in (of_images, of_photos)]
        rows.append((f"recall {label}", *shown))
    labels = entry["labels"]
    for k, label in enumerate(labels):
        if label in entry["recall"]:
            answers = [
                ", ".join(
                    f"{thousands(count)} {name}"
                    for name, count in zip(labels, level["confusion_matrix"][k], strict=True)
                    if count
                )
                for level in (entry, photos)
            ]
            rows.append((f"{label} was called", *answers))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    title = (
        f"{entry['dataset']}, {entry['split']}  (in brackets: {percent(interval['level'], 0)} intervals over "
        f"{interval['n_units']} {interval['unit']}s; photo-level accuracy: Clopper and Pearson's)"
    )
    notes = [f"left out: {thousands(count)} images, {reason}" for reason, count in entry["left_out"].items()]
    return "\n".join([title, *notes, *lines])
