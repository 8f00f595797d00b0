"""The parts of the tab for smear fields, as HTML: progress, count, cells to look through, photos with their boxes."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import page
from colours import NOT_COUNTED, ink_on, verdict_colours
from field_picture import told
from languages import Words
from review import DROPPED, UNIDENTIFIED, Slide, called

LINE = 1 / 300  # of a photo's longer side: a box's line
TEXT = 1 / 34  # of a photo's longer side: a label's height


def progress(done: int, total: int, cells: int, words: Words) -> str:
    """Return how far the count has come."""
    text = words["fields_counting"]
    if done < total:
        text = words("fields_busy", done=done + 1, total=total)
        if cells:
            text += f"; {words.many('fields_so_far', cells)}"
    return page.progress(done, total, text)


def waiting(ahead: int, total: int, words: Words) -> str:
    """Return how many counts of other visitors come first."""
    return page.progress(0, total, words("fields_waiting", number=ahead))


def counted(slide: Slide, words: Words) -> str:
    """Return what is read out when a count is through; to the eye the count itself says it."""
    cells = slide.answer["differential"]["cells"]["counted"]
    photos_ = words.many("in_photos", slide.answer["differential"]["images"]["counted"])
    return f'<p class="wbc-hidden" role="status">{escape(words.many("cells_counted", cells))} {escape(photos_)}.</p>'


def message(text: str, role: str = "status", first: str = "") -> str:
    """Return sentences in the progress bar's place, ``first``, which is HTML, before them; an alert is read out at once."""
    return f'<p class="wbc-note" role="{role}">{f"{first} " if first else ""}{escape(text)}</p>'


def aside(text: str, words: Words, wrong: bool = False) -> str:
    """Return what is said beside an option: how it was understood, or why it was not taken over; nothing for no text."""
    if not text:
        return ""
    if wrong:
        return f'<p class="wbc-note" role="alert">{escape(words("option_wrong", reason=text))}</p>'
    return f'<p class="wbc-small" role="status">{escape(text)}</p>'


def summary(slide: Slide, words: Words) -> str:
    """Return the count: whether it was reviewed, the table, and what to mind."""
    differential = slide.answer["differential"]
    cells, images = differential["cells"], differential["images"]
    photos_ = words.many("in_photos", images["counted"])
    facts = [f"{words.many('cells_counted', cells['counted'])} {photos_}"]
    for number, name in (
        (cells["repeated"], "facts_repeated"),
        (cells["dropped"], "facts_dropped"),
        (cells["reviewed"], "facts_reviewed"),
        (images["refused"], "facts_refused"),
    ):
        if number:
            facts.append(words.many(name, number))
    state = differential["review"]["state"]
    mark = state.replace(" ", "_")
    done = {"reviewed": "yes", "not reviewed": "no"}.get(state, "none")
    parts = [
        f'<div class="wbc-headline"><h2>{escape(words["differential"])}</h2>'
        f'<p class="wbc-mark" data-reviewed="{done}"><b>{escape(words[mark])}</b> '
        f"{escape(words.many(f'{mark}_why', slide.open))}</p></div>",
        f'<p class="wbc-facts">{escape("; ".join(facts))}.</p>',
    ]
    parts.append(f'<div class="wbc-rows">{_count_table(slide, words)}</div>')
    if any(row["adjusted_percent"] is not None for row in differential["rows"]):
        parts.append(f'<p class="wbc-small">{escape(words["adjusted_means"])}</p>')
    kept = [image for image in slide.images if image["refused"] is None]
    notes = [page.said(note, words, f"{image['name']}: ") for image in kept for note in image["notes"]]
    refused = [page.said(image["refused"], words) for image in slide.images if image["refused"] is not None]
    warnings = [page.said(warning, words) for warning in differential["warnings"]]
    for name, lines in (("warnings", warnings), ("refused", refused), ("notes", notes)):
        if lines:
            rows = "".join(f"<li>{line}</li>" for line in lines)
            parts.append(
                f'<div class="wbc-list" data-list="{name}"><h3>{escape(words[name])}</h3><ul>{rows}</ul></div>'
            )
    return f'<section class="wbc-count">{"".join(parts)}</section>'


def _count_table(slide: Slide, words: Words) -> str:
    rows = slide.answer["differential"]["rows"]
    colours = verdict_colours([row["class"] for row in rows if row["class"] != UNIDENTIFIED])
    absolute = slide.answer["differential"]["white_cells_per_microlitre"] is not None
    head = ["class", "count", "percent", "interval", "adjusted", "usual", *(["absolute"] if absolute else [])]
    lines = []
    for row in rows:
        flag = ""
        if row["flag"]:
            flag = words[f"flag_{row['flag']}"]
            flag = flag if row["flag_sure"] else words("flag_unsure", flag=flag)
            flag = f' <span class="wbc-flag">{escape(flag)}</span>'
        usual = "" if row["reference"] is None else _whole("–".join(map(words.figure, row["reference"])))
        line = [
            f'<span data-class="{escape(row["class"])}">'
            f'<i class="wbc-dot" style="--subtype:{colours[row["class"]]}" aria-hidden="true"></i> '
            f"{escape(words.label(row['class']))}</span>",
            str(row["count"]),
            "" if row["percent"] is None else words.number(row["percent"]),
            _whole(_interval(row["interval"], words)),
            ""
            if row["adjusted_percent"] is None
            else _around(words.number(row["adjusted_percent"]), _interval(row["adjusted_interval"], words)),
            usual + flag,
        ]
        if absolute:
            around = row["per_microlitre_interval"]
            per = "" if row["per_microlitre"] is None else f"{row['per_microlitre']:.0f}"
            line.append(per if around is None else _around(per, f"{around[0]:.0f}–{around[1]:.0f}"))
        lines.append(line)
    return page.table([words[f"column_{name}"] for name in head], lines, words["differential"])


def _whole(text: str) -> str:
    """Keep an interval in one line; what stands around it may go to the next."""
    return f'<span class="wbc-whole">{text}</span>'


def _around(value: str, interval: str) -> str:
    return f"{value} {_whole(f'({interval})')}"


def _interval(limits: Any, words: Words) -> str:
    return "" if limits is None else "–".join(map(words.number, limits))


def gallery(slide: Slide, words: Words) -> str:
    """Return the cells by what they count as, the panel in which a person says what one is, and what was changed."""
    choices = slide.choices
    colours = {
        **verdict_colours([name for name in choices if name not in (UNIDENTIFIED, DROPPED)]),
        DROPPED: NOT_COUNTED,
    }
    buttons = "".join(
        f'<button type="button" data-to="{escape(name)}" style="--subtype:{colours[name]}" disabled>'
        f'<i class="wbc-dot" aria-hidden="true"></i>{escape(words.label(name))} <kbd>{key}</kbd></button>'
        for key, name in enumerate(choices, 1)
    )
    groups = "".join(
        f'<section class="wbc-group" data-group="{escape(name)}"><div class="wbc-heading">'
        f'<h4><i class="wbc-dot" style="--subtype:{colours[name]}" '
        f'aria-hidden="true"></i>{escape(words.label(name))} <span>{len(own)}</span>'
        f'</h4>{_all_right(name, own, words)}</div><ul class="wbc-cells">'
        f"{''.join(_cell(slide, number, place, cell, colours[name], words) for number, place, cell in own)}</ul></section>"
        for name, own in slide.groups().items()
    )
    undone = "" if slide.undone is None else f' data-undone="{slide.undone[0]}-{slide.undone[1]}"'
    return (
        f'<section class="wbc-review" data-slide="{slide.token}" data-taken="{slide.taken}"{undone}>'
        f"<h3>{escape(words['cells'])}</h3>"
        f'<p class="wbc-small">{escape(words("cells_hint", keys=len(choices)))}</p>'
        f'<div class="wbc-panel" role="group" aria-label="{escape(words["panel_label"])}">'
        f'<button type="button" class="wbc-big" data-big aria-expanded="false" disabled '
        f'aria-label="{escape(words["panel_enlarge"])}"></button>'
        f'<div><p class="wbc-told" role="status" data-end="{escape(words["panel_end"])}">'
        f"{escape(words['panel_none'])}</p>"
        f'<div class="wbc-choices">{buttons}</div></div></div>'
        f"{groups or _nothing(words)}{_log(slide, words)}</section>"
    )


def _all_right(name: str, own: Sequence[tuple[int, int, Mapping[str, Any]]], words: Words) -> str:
    """Return the button by which a person confirms what the network called the cells of a class, those nobody has named."""
    number = sum(cell["reviewed"] is None for *_, cell in own)
    if name in (UNIDENTIFIED, DROPPED) or not number:
        return ""
    told_ = words.many("group_all", number)
    label = f"{words.label(name)}: {told_}"
    return f'<button type="button" data-right="{escape(name)}" aria-label="{escape(label)}">{escape(told_)}</button>'


def _nothing(words: Words) -> str:
    return f'<p class="wbc-note">{escape(words["fields_no_cells"])}</p>'


def _cell(slide: Slide, number: int, place: int, cell: Mapping[str, Any], colour: str, words: Words) -> str:
    score = words.per_cent(cell["score"])
    likeliest = f"{words.label(cell['label'])}?"
    unsure = cell["verdict"] == UNIDENTIFIED
    sure = words["cell_yours"] if cell["reviewed"] else f"{likeliest} {score}" if unsure else score
    image = slide.images[number]["name"]
    name = words("cell_name", name=words.label(called(cell)), sure=sure, cell=place + 1, image=image)
    told_ = why = ""
    if cell["reviewed"]:  # else the name says it
        told_ = words(
            "panel_machine", verdict=words.label(cell["verdict"]), label=words.label(cell["label"]), percent=score
        )
    if unsure:
        reason = words.get(f"cell_reason_{cell['reason']}", cell["reason"] or "")
        told_ = f"{told_} {reason}".strip()
        why = f' title="{escape(f"{likeliest} {score}. {reason}")}"'
    spoken = f"{name}. {reason}" if unsure and not cell["reviewed"] else name
    shown = "✓" if cell["reviewed"] else f"{escape(likeliest)}<br>{escape(score)}" if unsure else escape(score)
    return (
        f'<li><button type="button" class="wbc-cell wbc-c{number}-{place}" data-cell="{number}-{place}" '
        f'data-score="{cell["score"]:.6f}" data-told="{escape(told_)}" data-name="{escape(name)}" '
        f'aria-label="{escape(spoken)}"{why} style="--subtype:{colour}"><span>{shown}</span></button></li>'
    )


def _log(slide: Slide, words: Words) -> str:
    changes = slide.answer["changes"]
    rows = "".join(
        f"<li><time>{escape(change['time'])}</time> "
        f"{escape(words('log_row', cell=change['cell'] + 1, image=slide.images[change['image']]['name']))}: "
        f"{escape(words.label(change['from']))} → {escape(words.label(change['to']))}</li>"
        for change in reversed(changes)
    )
    rows = rows or f"<li>{escape(words['log_none'])}</li>"
    disabled = "" if slide.can_undo else " disabled"
    return (
        f'<section class="wbc-log"><h3>{escape(words["log"])}</h3>'
        f'<button type="button" data-undo{disabled}>{escape(words["undo"])}</button><ol>{rows}</ol></section>'
    )


def photos(slide: Slide, words: Words) -> str:
    """Return the photos with a box about each cell."""
    figures = "".join(
        _photo(slide, number, words) for number, image in enumerate(slide.images) if image["refused"] is None
    )
    return f'<section class="wbc-photos"><h3>{escape(words["photos"])}</h3><div>{figures}</div></section>'


def _photo(slide: Slide, number: int, words: Words) -> str:
    image = slide.images[number]
    wide, tall = image["width"], image["height"]
    labels = {row["class"] for row in slide.answer["differential"]["rows"]} - {UNIDENTIFIED}
    colours = verdict_colours(sorted(labels, key=slide.choices.index))
    boxes = "".join(_boxes(image, number, max(wide, tall), colours, words))
    name = f"{image['name']}: {words.many('white_cells', len(image['cells']))}"
    return (
        f'<figure><div class="wbc-field wbc-f{number}" style="aspect-ratio:{wide}/{tall}"><svg viewBox="0 0 {wide} {tall}" '
        f'role="img" aria-label="{escape(name)}">{boxes}</svg></div><figcaption>{escape(image["name"])}</figcaption></figure>'
    )


def _boxes(
    image: Mapping[str, Any], number: int, longer: int, colours: Mapping[str, str], words: Words
) -> Iterator[str]:
    line, size = max(1, longer * LINE), longer * TEXT
    for place, cell in enumerate(image["cells"]):
        name, _, counted = told(cell)
        colour = colours.get(name, NOT_COUNTED) if counted else NOT_COUNTED
        row_min, col_min, row_max, col_max = cell["box"]
        text = words.label(name) if counted or name == DROPPED else words["field_again"]
        if name == UNIDENTIFIED and not cell["reviewed"]:
            text = f"{words.label(cell['label'])}?"
        dash = f' stroke-dasharray="{4 * line:.0f}"' if name == UNIDENTIFIED else ""
        wide = 0.58 * size * len(text) + 0.5 * size
        left = min(max(0, col_min), max(0, image["width"] - wide))
        top = row_min - 1.3 * size if row_min > 1.3 * size else min(row_max, image["height"] - 1.3 * size)
        first = cell["same_as"] or (number, place)
        yield (
            f'<g data-cell="{first[0]}-{first[1]}"><rect x="{col_min}" y="{row_min}" width="{col_max - col_min}" '
            f'height="{row_max - row_min}" fill="transparent" stroke="#fff" stroke-width="{2.4 * line:.1f}"/>'
            f'<rect x="{col_min}" y="{row_min}" width="{col_max - col_min}" height="{row_max - row_min}" fill="none" '
            f'stroke="{colour}" stroke-width="{1.4 * line:.1f}"{dash}/>'
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" height="{1.3 * size:.0f}" fill="{colour}"/>'
            f'<text x="{left + 0.25 * size:.0f}" y="{top + 0.98 * size:.0f}" font-size="{size:.1f}" fill="{ink_on(colour)}">'
            f"{escape(text)}</text></g>"
        )


def pictures(slide: Slide) -> str:
    """Return a style sheet with every photo and every cell's picture: sent once, while what stands on them changes."""
    rules = [
        f'.wbc-c{number}-{place}{{background-image:url("{_url(data)}") !important}}'
        for (number, place), data in slide.thumbnails.items()
    ]
    rules += [
        f'.wbc-f{number}{{background-image:url("{_url(data)}") !important}}'
        for number, data in enumerate(slide.fields)
        if data is not None
    ]
    return f"<style>{''.join(rules)}</style>"


def _url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
