"""The parts of the page that are not ready-made components, as HTML. Every text that comes from outside is escaped."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import texts
from colours import VIRIDIS, subtype_colours
from languages import Words, for_script
from PIL import Image

CSS = Path(__file__).with_name("page.css")
SCRIPTS = tuple(Path(__file__).with_name(name) for name in ("page.js", "sending.js"))
# The way to the API page stands in our own foot; the page's own colours are too pale to read.
FOOT = """
footer:not(.wbc-footer) { display: none !important; }
.wbc-footer [data-api] { text-decoration: underline; text-underline-offset: 2px; }
.api-docs :is(.url, .snippet, .post, .api-name, .highlight, .desc) { color: var(--body-text-color) !important; }
.api-docs .snippets { flex-wrap: wrap !important; row-gap: 8px; }
"""
STRENGTH = 85  # per cent of the overlay, to begin with


def script(heaviest: int, most: int) -> str:
    """Return what the browser runs once the page stands, for photos of ``heaviest`` bytes, ``most`` at once."""
    spoken, given = json.dumps(for_script()), json.dumps({"heaviest": heaviest, "most": most})
    # gradio shows I18N in navigator.language, and so do these; what is not spoken here is English in both.
    chosen = (
        f"const spoken = {spoken}, asked = navigator.language.slice(0, 2), language = asked in spoken ? asked : 'en';"
    )
    run = "".join(f"({path.read_text(encoding='utf-8')})(given);" for path in SCRIPTS)
    return f"() => {{{chosen} const given = {{language, say: spoken[language], ...{given}}}; {run}}}"


def header(words: Words) -> str:
    """Return the title, what the page does, and what it is not for."""
    return (
        f'<header class="wbc-header"><h1>{escape(words["title"])}</h1>'
        f"<p>{escape(words['lead'])} <strong>{escape(words['purpose'])}</strong></p></header>"
    )


def welcome(labels: Iterable[str], words: Words) -> str:
    """Return what stands in the answer's place before there is one: the subtypes and how to know them."""
    rows = "".join(
        f'<li style="--subtype:{colour}"><i class="wbc-dot" aria-hidden="true"></i><span><b>{escape(words.label(label))}</b> '
        f"{escape(morphology(label, words)[0])}</span></li>"
        for label, colour in subtype_colours(labels).items()
    )
    return (
        f'<section class="wbc-welcome"><h2>{escape(words["welcome"])}</h2><ul>{rows}</ul>'
        f"<p>{escape(words['welcome_hint'])}</p></section>"
    )


def morphology(label: str, words: Words) -> tuple[str, str]:
    """Give the two lines on nucleus and cytoplasm by which a class is known; empty for a class unknown here."""
    return words.get(f"nucleus_{label.lower()}", ""), words.get(f"cytoplasm_{label.lower()}", "")


def examples_label(words: Words) -> str:
    """Return the line over the example pictures, which says that they are drawings."""
    return f'<p class="wbc-examples-label">{escape(words["examples"])}</p>'


def problem(message: str) -> str:
    """Return a message in the answer's place."""
    return f'<section class="wbc-problem" role="alert"><p>{escape(message)}</p></section>'


def said(sentence: str, words: Words, before: str = "") -> str:
    """Return a sentence of the model, ``before`` it what it is about; where it stays English it is read out as that."""
    text, language = words.said(sentence)
    told = escape(text) if language is None else f'<span lang="{language}">{escape(text)}</span>'
    return escape(before) + told


def remark(text: str, language: str | None = None) -> str:
    """Return a note beside an answer; of a language other than the reader's its name, so that it is read out in that."""
    spoken = f' lang="{language}"' if language else ""
    return f'<p class="wbc-note"{spoken}>{escape(text)}</p>'


def answer(
    probabilities: Mapping[str, float],
    photo: Image.Image,
    heat: Image.Image,
    looked: bool,
    notes: Iterable[str],
    words: Words,
    verdict: str | None = None,
    reason: str | None = None,
    confused: tuple[int, str | None, float] | None = None,
    means: str | None = None,
    reason_in: str | None = None,
) -> str:
    """Return the answer: the name, how sure, every class's bar, how to know the class, and where the network looked.

    Args:
        probabilities: of each label, 0..1, in the order in which they shall stand; the largest is the likeliest.
        photo: as it was looked at.
        heat: the evidence, of the same size, transparent where there is none.
        looked: whether any place of the evidence map stands out.
        notes: what was done to the photo before, in words.
        words: of the reader's language.
        verdict: what the answer is called; None for the likeliest label's name.
        reason: in words, why the verdict is not the likeliest label; None if it is.
        confused: of the likeliest label, as ``smear_model.most_confused`` gives it.
        means: in words, what the verdict means; None where it says that itself.
        reason_in: the language of the reason where it is not the reader's, such as "en".
    """
    colours = subtype_colours(sorted(probabilities))
    label = max(probabilities, key=lambda key: probabilities[key])
    name, score = words.label(label), probabilities[label]
    sure = words("sure" if reason is None else "likeliest", name=name, percent=words.per_cent(score))
    bars = "".join(
        f'<li style="--subtype:{colours[key]}" data-label="{escape(key)}"{" class=wbc-first" if key == label else ""}>'
        f'<span class="wbc-label"><i class="wbc-dot" aria-hidden="true"></i>{escape(words.label(key))}</span>'
        f'<span class="wbc-value">{escape(words.per_cent(value))}</span>'
        f'<span class="wbc-track" aria-hidden="true"><i style="width:{100 * value:.2f}%"></i></span></li>'
        for key, value in probabilities.items()
    )
    remarks = [remark(reason, reason_in)] if reason is not None else [remark(words["doubtful"])] if score < 0.5 else []
    if means is not None:
        remarks.append(remark(means))
    remarks = "".join([*remarks, *map(remark, notes)])
    return (
        f'<section class="wbc-answer" role="status" style="--subtype:{colours[label]}">'
        f'<div class="wbc-verdict"><h2 class="wbc-name">{escape(verdict or name)}</h2>'
        f'<p class="wbc-sure">{escape(sure)}</p>{remarks}'
        f'<ul class="wbc-bars" aria-label="{escape(words["probabilities"])}">{bars}</ul></div>'
        f"{_figure(photo, heat, name, looked, words)}{_known_by(label, confused, words)}</section>"
    )


def _figure(photo: Image.Image, heat: Image.Image, name: str, looked: bool, words: Words) -> str:
    scale = ",".join(f"rgb({','.join(f'{value:.0f}' for value in point)})" for point in VIRIDIS)
    return (
        f'<figure class="wbc-figure" style="--strength:{STRENGTH / 100}"><div class="wbc-layers">'
        f'<img class="wbc-photo" src="{as_url(photo)}" width="{photo.width}" height="{photo.height}" '
        f'alt="{escape(words("looked_alt", name=name))}">'
        f'<img class="wbc-overlay" src="{as_url(heat)}" width="{heat.width}" height="{heat.height}" alt=""></div>'
        f'<figcaption><p class="wbc-caption"><b>{escape(words["looked"])}</b>'
        f'<span class="wbc-scale" aria-hidden="true">{escape(words["less"])}'
        f'<i style="background:linear-gradient(90deg,{scale})"></i>{escape(words["more"])}</span></p>'
        f'<label class="wbc-strength">{escape(words["strength"])}'
        f'<input type="range" min="0" max="100" value="{STRENGTH}" data-strength></label>'
        f"<p>{escape(words['explanation' if looked else 'explanation_empty'])}</p></figcaption></figure>"
    )


def _known_by(label: str, confused: tuple[int, str | None, float] | None, words: Words) -> str:
    lines = [line for line in morphology(label, words) if line]
    if confused is not None:
        number, other, share = confused
        lines.append(
            words("never_confused", n=number)
            if other is None
            else words("confused", n=number, percent=words.per_cent(share), other=words.label(other))
        )
    if not lines:
        return ""
    rows = "".join(f"<p>{escape(line)}</p>" for line in lines)
    title = f"{words['look_for']}: {words.label(label)}"
    return f'<div class="wbc-known"><h3>{escape(title)}</h3>{rows}</div>'


def footer(identity: Mapping[str, str | None], risk: float | None, words: Words, measured: Sequence[Any] = ()) -> str:
    """Return what to expect, which weights answer, under which licence, and what becomes of the photos.

    Args:
        identity: ``name``, ``revision`` and ``sha256`` of the weights.
        risk: the most wrong answers, 0..1, among those that the model gave on validation; None if it answers always.
        words: of the reader's language.
        measured: of each laboratory what was ``named`` of its held-out images, and what of those ``right``, 0..1.
    """
    name = " ".join(filter(None, (identity["name"], identity["revision"])))
    sha256 = identity["sha256"] or ""
    weights = words("foot_weights", name=name, sha256=sha256[:12], licence=texts.LICENCE)
    if risk is None:
        choice = words["foot_always"]
    elif measured:
        wrong, named = [1 - one.right for one in measured], [one.named for one in measured]
        spans = {"wrong": words.span(min(wrong), max(wrong)), "named": words.span(min(named), max(named))}
        choice = words("foot_measured", number=len(measured), **spans)
    else:
        choice = words("foot_unidentified", risk=words.per_cent(risk))
    return (
        f'<footer class="wbc-footer"><p><strong>{escape(words["purpose"])}</strong> {escape(choice)} '
        f'{escape(words["foot_privacy"])}</p><p title="SHA-256 {escape(sha256)}">{escape(weights)} '
        f'<button type="button" data-api>{escape(words["foot_api"])}</button></p></footer>'
    )


def progress(done: int, total: int, text: str) -> str:
    """Return how far something has come, ``done`` of ``total``, as a bar with words."""
    return (
        f'<div class="wbc-progress"><progress max="{total}" value="{done}" aria-label="{escape(text)}"></progress>'
        f'<p role="status">{escape(text)}</p></div>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table; its first column heads the rows. Cells are HTML already."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{value}</td>" for value in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<div class="wbc-wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="wbc-table">'
        f'<caption class="wbc-hidden">{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def as_url(image: Image.Image) -> str:
    """Write a picture into an address: inside the page, not in a file, so that nothing of it stays on the server."""
    buffer = io.BytesIO()
    kind = "png" if image.mode == "RGBA" else "jpeg"
    image.save(buffer, kind, **({} if kind == "png" else {"quality": 88}))
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
