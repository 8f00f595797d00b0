"""The parts of the page that are not ready-made components, as HTML. Every text that comes from outside is escaped."""

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import texts
from colours import VIRIDIS, subtype_colours
from PIL import Image

CSS = Path(__file__).with_name("page.css")


def human(label: str) -> str:
    """Turn a label into words: ``"EOSINOPHIL"`` becomes ``"Eosinophil"``."""
    return label.replace("_", " ").strip().capitalize()


def per_cent(probability: float) -> str:
    """Write a probability with one decimal, never rounded up to certainty or down to impossibility."""
    if probability >= 0.9995:
        return ">99.9%"
    if probability < 0.0005:
        return "<0.1%"
    return f"{100 * probability:.1f}%"


def header() -> str:
    """Return the title, what the page does, and what it is not for."""
    return (
        f'<header class="wbc-header"><h1>{escape(texts.TITLE)}</h1>'
        f"<p>{escape(texts.LEAD)}</p><p><strong>{escape(texts.PURPOSE)}</strong></p></header>"
    )


def welcome(labels: Iterable[str]) -> str:
    """Return what stands in the answer's place before there is one: the subtypes and how to know them."""
    rows = "".join(
        f'<li style="--subtype:{colour}"><i class="wbc-dot" aria-hidden="true"></i><span><b>{escape(human(label))}</b> '
        f"{escape(texts.SUBTYPES.get(label.upper(), ''))}</span></li>"
        for label, colour in subtype_colours(labels).items()
    )
    return (
        f'<section class="wbc-welcome"><h2>{escape(texts.WELCOME)}</h2><ul>{rows}</ul>'
        f"<p>{escape(texts.WELCOME_HINT)}</p></section>"
    )


def examples_label() -> str:
    """Return the line over the example pictures, which says that they are drawings."""
    return f'<p class="wbc-examples-label">{escape(texts.EXAMPLES)}</p>'


def problem(message: str) -> str:
    """Return a message in the answer's place."""
    return f'<section class="wbc-problem" role="alert"><p>{escape(message)}</p></section>'


def answer(
    probabilities: Mapping[str, float],
    overlay: Image.Image,
    looked: bool,
    notes: Iterable[str],
    verdict: str | None = None,
    reason: str | None = None,
) -> str:
    """Return the answer: the name, how sure, every subtype's bar, and where the network looked.

    Args:
        probabilities: of each label, 0..1, in the order in which they shall stand; the largest is the likeliest.
        overlay: the photograph with the evidence over it.
        looked: whether any place of the evidence map stands out.
        notes: what was done to the picture before.
        verdict: what the answer is called; None for the likeliest label's name.
        reason: why the verdict is not the likeliest label, as the model says it; None if it is.
    """
    colours = subtype_colours(sorted(probabilities))
    label = max(probabilities, key=lambda key: probabilities[key])
    name, score = human(label), probabilities[label]
    verdict, sure, percent = verdict or name, texts.SURE, per_cent(score)
    bars = "".join(
        f'<li style="--subtype:{colours[key]}" data-label="{escape(key)}"{" class=wbc-first" if key == label else ""}>'
        f'<span class="wbc-label"><i class="wbc-dot" aria-hidden="true"></i>{escape(human(key))}</span>'
        f'<span class="wbc-value">{escape(per_cent(value))}</span>'
        f'<span class="wbc-track" aria-hidden="true"><i style="width:{100 * value:.2f}%"></i></span></li>'
        for key, value in probabilities.items()
    )
    remarks = [texts.DOUBTFUL] if score < 0.5 else []
    if reason is not None:
        sure, remarks = texts.LIKELIEST, [texts.REASONS.get(reason, reason)]
    remarks = "".join(f'<p class="wbc-note">{escape(note)}</p>' for note in (*remarks, *notes))
    scale = ",".join(f"rgb({','.join(f'{value:.0f}' for value in point)})" for point in VIRIDIS)
    explanation = texts.EXPLANATION if looked else texts.EXPLANATION_EMPTY
    return (
        f'<section class="wbc-answer" role="status" style="--subtype:{colours[label]}">'
        f'<div class="wbc-verdict"><h2 class="wbc-name">{escape(verdict)}</h2>'
        f'<p class="wbc-sure">{escape(sure.format(name=name, percent=percent))}</p>{remarks}'
        f'<ul class="wbc-bars" aria-label="{escape(texts.PROBABILITIES)}">{bars}</ul></div>'
        f'<figure class="wbc-figure"><img class="wbc-overlay" src="{_as_url(overlay)}" width="{overlay.width}" '
        f'height="{overlay.height}" alt="{escape(texts.LOOKED_ALT.format(name=name))}">'
        f'<figcaption><p class="wbc-caption"><b>{escape(texts.LOOKED)}</b>'
        f'<span class="wbc-scale" aria-hidden="true">{escape(texts.SCALE[0])}'
        f'<i style="background:linear-gradient(90deg,{scale})"></i>{escape(texts.SCALE[1])}</span></p>'
        f"<p>{escape(explanation)}</p></figcaption></figure></section>"
    )


def footer(model: str, revision: str | None, sha256: str, risk: float | None = None) -> str:
    """Return what to expect, which weights answer, under which licence, and what becomes of the pictures.

    Args:
        model: name of the weights.
        revision: of the model on the Hub.
        sha256: of the weights.
        risk: the most wrong answers, 0..1, among those that the model gave on validation; None if it answers always.
    """
    name = " ".join(filter(None, (model, revision)))
    weights = texts.FOOTER_WEIGHTS.format(name=name, sha256=sha256[:12], licence=texts.LICENCE)
    choice = texts.FOOTER_CHOICE if risk is None else texts.FOOTER_UNIDENTIFIED.format(risk=per_cent(risk))
    return (
        f'<footer class="wbc-footer"><p>{escape(choice)} {escape(texts.FOOTER_PRIVACY)}</p>'
        f'<p title="sha256 {escape(sha256)}">{escape(weights)}</p></footer>'
    )


def _as_url(image: Image.Image) -> str:
    # Inside the page, not in a file: nothing of the picture stays on the server.
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
