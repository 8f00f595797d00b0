"""The tab with what was measured of the weights, from eval_results.json, its plots, limits and licence."""

from html import escape

import page
import texts
from languages import Words
from PIL import Image
from smear_model import SmearModel

PLOTS = ("blood-cells-test-confusion", "pbc-test-confusion", "blood-cells-test-reliability", "pbc-test-reliability")
WIDEST = 900  # px of a plot as it is shown


def about(model: SmearModel, words: Words) -> str:
    """Return the tab's content as HTML."""
    results = model.results.get("results", [])
    rows = []
    for entry in results:
        chosen = entry.get("selective") or {}
        values = [entry["metrics"][name] for name in ("accuracy", "balanced_accuracy")]
        values += [chosen.get(name) for name in ("coverage", "accuracy")]
        rows.append(
            [
                escape(entry["dataset"]),
                escape(entry["split"]),
                str(entry["n_images"]),
                str(entry["n_photos"]),
                *map(words.with_interval, values),
            ]
        )
    columns = ("data", "split", "images", "photos", "accuracy", "balanced", "named", "right")
    head = [words[f"about_column_{name}"] for name in columns]
    table = page.table(head, rows, words["about_results"]) if rows else f"<p>{escape(words['about_none'])}</p>"
    limits = "".join(f"<li>{escape(words[f'about_limit_{number}'])}</li>" for number in (1, 2, 3, 4))
    identity = model.identity
    weights = words(
        "foot_weights",
        name=" ".join(filter(None, (identity["name"], identity["revision"]))),
        sha256=identity["sha256"] or "",
        licence=texts.LICENCE,
    )
    return (
        f'<section class="wbc-about"><h2>{escape(words["about_title"])}</h2><p>{escape(words["about_text"])}</p>'
        f"<h3>{escape(words['about_results'])}</h3>{table}<p class='wbc-small'>{escape(words['about_intervals'])} "
        f"{escape(words['about_named'])}</p>"
        f"{_plots(model, words)}<h3>{escape(words['about_limits'])}</h3><ul>{limits}</ul>"
        f"<h3>{escape(words['about_licence'])}</h3><p>{escape(words['about_data'])}</p><p>{escape(weights)}</p></section>"
    )


def _plots(model: SmearModel, words: Words) -> str:
    figures = []
    for name in PLOTS:
        try:
            with Image.open(model.file(f"pictures/{name}.png")) as opened:
                plot = opened.convert("RGB")
        except OSError:  # the model brings none
            continue
        plot.thumbnail((WIDEST, WIDEST))
        data, _, kind = name.rpartition("-test-")
        text = words(f"about_{kind}", data=data)
        figures.append(
            f'<figure><img src="{page.as_url(plot)}" width="{plot.width}" height="{plot.height}" alt="{escape(text)}">'
            f"<figcaption>{escape(text)}</figcaption></figure>"
        )
    return f'<div class="wbc-plots">{"".join(figures)}</div>' if figures else ""
