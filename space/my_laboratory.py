"""The tab where a laboratory sees what the model knows, and fits it to its own stain and camera."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from html import escape
from threading import Event
from typing import Any

import gradio as gr
import page
from laboratory import FEW_IMAGES, SIDE, WANTED, Cell, Laboratory, LaboratoryError, Tell, validated
from languages import I18N, Words, words
from one_cell import read_photo, remember
from reading import PictureError
from review import UNIDENTIFIED
from smear_fields import MOST_FILES, SAVE, UNSENT, FieldsError, sent_paths, take_unsent
from smear_model import SmearModel, held_out
from turns import TICK, Cancelled, Line
from visits import LONGEST as IDLE
from visits import Visits

NO_LABEL = ""
IN_LINE = 6  # visitors whose cells are taken, or fitted to, or who wait: each holds one of gradio's 40 threads
MOST_NAMED = 3  # photos in a sentence
HOW = ("slides", "found", "views")  # of what was fitted before, what is said beside the laboratory's name
FITS = Line()  # one fit at a time has the cores


def knowledge(model: SmearModel, speech: Words) -> str:
    """Return the laboratories that the model has learnt from, and how it does on what was held out of each."""
    rows = []
    for entry in held_out(model.results.get("results", [])):
        accuracy = entry["metrics"]["balanced_accuracy"]
        rows.append(
            [
                escape(entry["dataset"]),
                escape(speech.get(f"lab_{entry['dataset']}", "")),
                str(entry["n_images"]),
                speech.with_interval(accuracy),
            ]
        )
    head = [speech[f"lab_column_{name}"] for name in ("name", "source", "images", "accuracy")]
    table = page.table(head, rows, speech["lab_knows"]) if rows else ""
    return (
        f'<section class="wbc-knows"><h2>{escape(speech["lab_knows"])}</h2>{table}'
        f'<p class="wbc-small">{escape(speech["lab_outside"])}</p>{_strangers(model, speech)}'
        f"{_fitted_before(model, speech)}</section>"
    )


def _strangers(model: SmearModel, speech: Words) -> str:
    """Say how networks of this kind did in laboratories that they had never seen, as measured."""
    rows = []
    evidence = model.results.get("evidence", {}).get("unseen") or []
    for run in (evidence[0]["runs"] if evidence else {}).values():
        for name in run["unseen"]:
            ways = run["laboratories"][name]
            values = [100 * ways[way]["metrics"]["balanced_accuracy"]["value"] for way in ("plain", "re-estimated")]
            rows.append([escape(name), *map(speech.number, values)])
    if not rows:
        return ""
    head = [speech[f"lab_column_{name}"] for name in ("name", "plain", "new")]
    return f"<h3>{escape(speech['lab_strange'])}</h3>{page.table(head, rows, speech['lab_strange'])}"


def fitted_networks(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say what fitting to a few labelled cells did for networks that had never seen a laboratory, as measured.

    Args:
        results: as eval_results.json holds them.

    Returns:
        Of each laboratory its ``name``; whether its labelled and its other cells may share ``slides``, whether the cells
        were ``found`` in photos of more, and whether the network was asked for one answer to two ``views``; ``labelled``,
        cells at most; ``others`` and ``home``, the balanced accuracy before and after, 0..1, on its other cells and in the
        laboratories learnt from: means over the choices of cells, and over those laboratories.
    """
    rows = []
    for report in results.get("evidence", {}).get("heads") or []:
        choices = report["choices"]

        def mean(pairs: list[Mapping[str, Any]]) -> tuple[float, float]:
            return tuple(sum(pair[when]["value"] for pair in pairs) / len(pairs) for when in ("before", "after"))

        rows.append(
            {
                "name": report["laboratory"],
                "slides": report["apart"] == "photo",
                "found": report["not_found"] is not None,
                "views": "--consistency" in report["checkpoint"]["command"].split(),
                "labelled": max(choice["n_labelled"] for choice in choices),
                "others": mean([choice["others"] for choice in choices]),
                "home": mean([pair for choice in choices for pair in choice["home"].values()]),
            }
        )
    return rows


def _fitted_before(model: SmearModel, speech: Words) -> str:
    rows = [
        [
            escape(", ".join([row["name"], *(speech[f"lab_cells_{how}"] for how in HOW if row[how])])),
            str(row["labelled"]),
            *(" → ".join(speech.number(100 * value) for value in row[where]) for where in ("others", "home")),
        ]
        for row in fitted_networks(model.results)
    ]
    if not rows:
        return ""
    title = speech["lab_fitted_before"]
    table = page.table([speech[f"lab_column_{name}"] for name in ("name", "labelled", "others", "home")], rows, title)
    return f'<h3>{escape(title)}</h3>{table}<p class="wbc-small">{escape(speech["lab_fitted_means"])}</p>'


def cells_table(laboratory: Laboratory | None, model: SmearModel, speech: Words) -> str:
    """Return how many cells of each class there are."""
    counts = laboratory.counts if laboratory else dict.fromkeys(model.labels, 0)
    rows = [
        [
            escape(speech.label(name)),
            str(number),
            escape(speech("lab_few", wanted=WANTED)) if 0 < number < WANTED else "",
        ]
        for name, number in counts.items()
    ]
    rows.append([escape(speech["lab_unlabelled"]), str(laboratory.unlabelled if laboratory else 0), ""])
    return page.table([speech[f"lab_column_{name}"] for name in ("class", "cells", "mind")], rows, speech["lab_cells"])


def statistics_text(found: Mapping[str, Any], speech: Words) -> str:
    """Return what re-estimating found: distance, rule, answers before and after."""
    names = list(dict.fromkeys([*found["before"], *found["after"]]))
    rows = [
        [escape(speech.label(name)), str(found["before"].get(name, 0)), str(found["after"].get(name, 0))]
        for name in names
    ]
    head = [speech[f"lab_column_{name}"] for name in ("class", "before", "after")]
    rule = "lab_rule_yes" if found["suggested_share"] else "lab_rule_no"
    few = f'<p class="wbc-note">{escape(speech["lab_few_images"])}</p>' if found["images"] < FEW_IMAGES else ""
    text = speech(
        "lab_statistics",
        images=found["images"],
        distance=speech.figure(found["distance"]),
        share=f"{100 * found['share']:.0f}",
    )
    old = f'<p class="wbc-note">{escape(speech["lab_thresholds"])}</p>'
    said = f'<p role="status">{escape(text)} {escape(speech[rule])}</p>'
    return f"{said}{few}{page.table(head, rows, speech['lab_answers'])}{old}"


def fit_text(found: Mapping[str, Any], model: SmearModel, speech: Words) -> str:
    """Return what fitting to the labelled cells gains, by cross-validation, and what it costs elsewhere, as measured."""
    rows = fitted_networks(model.results)
    cost = ""
    if rows:
        before, after = (sum(row["home"][when] for row in rows) / len(rows) for when in (0, 1))
        text = speech("lab_cost", before=speech.number(100 * before), after=speech.number(100 * after))
        cost = f'<p class="wbc-note">{escape(text)}</p>'
    cost += f'<p class="wbc-note">{escape(speech["lab_home"])}</p>'
    if found["left_out"]:
        named = ", ".join(f"{speech.label(label)} ({number})" for label, number in found["left_out"].items())
        cost += f'<p class="wbc-note">{escape(speech("lab_left_out", classes=named))}</p>'
    if unseen := [label for label in model.labels if label not in found["labels"]]:
        named = ", ".join(speech.label(label) for label in unseen)
        cost += f'<p class="wbc-note">{escape(speech("lab_unseen_classes", classes=named))}</p>'
    tried = found["validation"]
    if tried is None:
        text = speech("lab_untried", n=found["n"])
        why = f'<p class="wbc-note">{page.said(found["why_not"], speech)}</p>'
        return f'<p class="wbc-gain" role="status">{escape(text)}</p>{why}{cost}'
    rows = [
        [
            escape(speech.label(name)),
            str(row["n"]),
            f"{100 * row['before'] / row['n']:.0f}",
            f"{100 * row['after'] / row['n']:.0f}",
        ]
        for name, row in tried["classes"].items()
    ]
    head = [speech[f"lab_column_{name}"] for name in ("class", "cells", "right_before", "right_after")]
    shares = validated(tried)
    gain = speech("lab_fit", **{when: speech.with_interval(share) for when, share in shares.items()})
    if shares["after"]["value"] <= shares["before"]["value"]:
        gain = f"{gain} {speech['lab_no_gain']}"
    means = speech(
        "lab_fit_means",
        n=found["n"],
        folds=tried["folds"],
        share=f"{100 * found['share']:.0f}",
        seconds=speech.figure(found["seconds"]),
    )
    return (
        f'<p class="wbc-gain" role="status">{escape(gain)}</p><p>{escape(means)}</p>'
        f"{page.table(head, rows, speech['lab_gain'])}{cost}"
    )


def build_my_laboratory(model: SmearModel, visits: Visits) -> tuple[gr.HTML, gr.HTML]:
    """Build the tab's content and its events; gives the places of the visitor's cells and of what the model knows."""
    gr.HTML(I18N("lab_lead"), elem_classes="wbc-lead")
    with gr.Row(elem_classes="wbc-row"):
        with gr.Column(scale=1, min_width=300):
            choices = [
                (I18N("lab_no_label"), NO_LABEL),
                *((I18N(f"name_{name.lower()}"), name) for name in model.labels),
            ]
            label = gr.Dropdown(choices, value=NO_LABEL, label=I18N("lab_label"), elem_id="lab-label")
            files = gr.File(
                label=I18N("lab_files"), file_count="multiple", file_types=["image"], height=150, elem_id="lab-files"
            )
            slide = gr.Button(I18N("lab_slide"), elem_id="lab-slide")
            clear = gr.Button(I18N("lab_clear"), elem_id="lab-clear")
        with gr.Column(scale=2, min_width=300):
            cells = gr.HTML(cells_table(None, model, words()), elem_id="lab-cells")
            status = gr.HTML(elem_id="lab-status")
    with gr.Row(elem_classes="wbc-row"):
        with gr.Column(min_width=300):
            estimate = gr.Button(I18N("lab_estimate"), variant="primary", elem_id="lab-estimate")
            estimated = gr.HTML(elem_id="lab-estimated")
        with gr.Column(min_width=300):
            fit = gr.Button(I18N("lab_fit_button"), variant="primary", elem_id="lab-fit")
            fitted = gr.HTML(elem_id="lab-fitted")
    cancel = gr.Button(I18N("fields_cancel"), variant="stop", visible=False, elem_id="lab-cancel")
    take = gr.Button(I18N("lab_download"), visible=False, elem_id="lab-download")
    knows = gr.HTML(knowledge(model, words()), elem_id="lab-knows")
    file = gr.JSON(visible=False)
    had = gr.Number(0, visible=False)  # cells that the page shows: of a visit that has ended none are left
    unsent = gr.JSON(visible=False)
    outputs = [files, had, cells, status, estimated, fitted, take, cancel]
    private = {"api_visibility": "private", "show_progress": "hidden"}
    # They wait in our own lines, where a visitor sees it and may cancel, not in gradio's.
    heavy = private | {"concurrency_id": "laboratory", "concurrency_limit": IN_LINE}
    light = private | {"concurrency_id": "laboratory-cells", "concurrency_limit": IN_LINE}

    def of(request: gr.Request) -> Laboratory:
        kept = visits.of(request.session_hash).laboratory
        return kept.setdefault("laboratory", Laboratory(model))

    def shown(laboratory: Laboratory, speech: Words) -> dict[Any, Any]:
        return {
            had: len(laboratory.cells),
            cells: cells_table(laboratory, model, speech),
            estimated: statistics_text(laboratory.statistics, speech) if laboratory.statistics else "",
            fitted: fit_text(laboratory.fit, model, speech) if laboratory.fit else "",
            take: gr.Button(visible=laboratory.network is not None),
            cancel: gr.Button(visible=bool(laboratory.stops)),
        }

    def note(text: str) -> str:
        """Show what is said: of several lines the further ones, of what was sent, as a list; these are HTML."""
        first, *more = text.split("\n")
        rows = "".join(f"<li>{line}</li>" for line in more)
        told = f"<p>{escape(first)}</p>{f'<ul>{rows}</ul>' if rows else ''}"
        return f'<div class="wbc-note" role="status">{told}</div>' if text else ""

    def work(
        request: gr.Request, step: Callable[[Laboratory, Tell], str], place: gr.HTML, words_: Mapping[str, str]
    ) -> Iterator[dict[Any, Any]]:
        """Do a step when it is its turn, meanwhile show how far it has come in ``place``, and then what there is now.

        What a visitor asks for is done one after another, so that what is shown last is what holds: who presses a button while
        files are still read fits to those too. ``step`` gives what is to be said; ``words_`` names the texts for how far it
        is and for a cancelled one.
        """
        speech, kept = words(request), visits.of(request.session_hash).laboratory
        laboratory = of(request)
        turns, stop, come = [laboratory.line.join()], Event(), [0, 1]
        laboratory.stops.add(stop)

        def tell(done: int, total: int) -> None:
            if stop.is_set():
                raise Cancelled
            come[:] = done, total

        def done() -> dict[Any, Any]:
            with turns[0]:
                try:
                    turns[0].wait(stop)
                    if place is status:
                        text = step(laboratory, tell)
                    else:
                        with FITS.join() as turn:
                            turns.append(turn)
                            turn.wait(stop)
                            text = step(laboratory, tell)
                except LaboratoryError as error:
                    text = error.told(speech)
                except Cancelled:
                    still = [speech["lab_still"]] if laboratory.network is not None and place is not status else []
                    text = " ".join([speech[words_["cancelled"]], *still])
                finally:
                    laboratory.stops.discard(stop)
                if kept.get("laboratory") is not laboratory:  # it was forgotten meanwhile
                    return shown(kept.setdefault("laboratory", Laboratory(model)), speech) | {place: ""}
                said = {status: note(text)} if text or place is status else {}
                return shown(laboratory, speech) | said

        with ThreadPoolExecutor(1) as worker:
            future = worker.submit(done)
            try:
                if place is not status:
                    yield {status: ""}  # it was said of what came before
                while not future.done():
                    ahead = sum(turn.ahead for turn in turns)
                    part, total = come
                    text = (
                        speech("lab_waiting", number=ahead)
                        if ahead
                        else speech(words_["busy"], percent=100 * part // total)
                    )
                    yield {place: page.progress(part, total, text), cancel: gr.Button(visible=True)}
                    time.sleep(TICK)
            finally:
                stop.set()  # without effect where it is through; else the visitor is gone
        yield future.result()

    def over(shown_: float, request: gr.Request) -> str:
        """Say that the visit has ended, where the page still shows cells that were deleted with it."""
        laboratory = of(request)
        lost = shown_ and not laboratory.cells and not laboratory.stops
        return words(request)("visit_over", minutes=IDLE // 60) if lost else ""

    def fitting(step: Callable[..., Any], place: gr.HTML) -> Callable[[float, gr.Request], Iterator[dict[Any, Any]]]:
        def run(shown_: float, request: gr.Request) -> Iterator[dict[Any, Any]]:
            if ended := over(shown_, request):
                yield shown(of(request), words(request)) | {status: note(ended)}
                return

            def silent(laboratory: Laboratory, tell: Tell) -> str:
                step(laboratory, tell)
                return ""

            yield from work(request, silent, place, {"busy": "lab_busy", "cancelled": "lab_cancelled"})

        return run

    taking = {"busy": "lab_reading", "cancelled": "lab_not_taken"}

    def added(laboratory: Laboratory, speech: Words, add: Callable[[], tuple[int, int]]) -> str:
        was_fitted = laboratory.network is not None
        new, changed = add()
        text = [speech("lab_added", number=new)]
        if changed:
            text.append(speech("lab_changed", number=changed))
        if was_fitted and laboratory.network is None:
            text.append(speech["lab_forgotten"])
        return " ".join(text)

    def add_files(sent: list[dict[str, Any]] | None, name: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        speech = words(request)

        def read(laboratory: Laboratory, tell: Tell) -> str:
            new, told, several = [], [], []
            if len(sent or []) > MOST_FILES:
                return speech("lab_too_many_files", given=len(sent), files=MOST_FILES)
            try:
                paths = sent_paths(sent, speech=speech)
            except FieldsError as error:
                return str(error)
            for number, path in enumerate(paths):
                tell(number, len(paths))
                try:
                    picture = read_photo({"path": str(path)})
                except PictureError as error:
                    told.append(escape(f"{path.name}: {error.told(speech)}"))
                    continue
                if reason := model.count.why_no_smear(picture.image):
                    why = page.said(reason, speech, f"{path.name}: ")
                    told.append(f"{why}. {escape(speech['lab_leave_out'])}")
                    continue
                told += [escape(f"{path.name}: {note.told(speech)}") for note in picture.notes]
                if name and len(model.count.find(picture.image)) > 1:  # one label cannot be of all
                    several.append(path.name)
                new.append(Cell(picture.image.resize((SIDE, SIDE)), name or None, f"{path.name} {path.parent.name}"))
            try:
                text = added(laboratory, speech, lambda: laboratory.add(new))
            except LaboratoryError as error:
                return "\n".join([error.told(speech), *told])
            if several:
                named = ", ".join([*several[:MOST_NAMED], *["…"] * (len(several) > MOST_NAMED)])
                text += " " + speech("lab_several", number=len(several), photos=named)
            return "\n".join([text, *told])

        try:
            yield {files: None}
            yield from work(request, read, status, taking)
        finally:
            for one in sent or []:
                remember(one, visits, request)
            visits.forget_files(request.session_hash)

    def add_slide(asked: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
        speech = words(request)

        def take_over(laboratory: Laboratory, tell: Tell) -> str:
            reviewed = visits.of(request.session_hash).slide
            if reviewed is None:
                return speech["lab_no_slide"]
            with reviewed.lock:
                take_unsent(reviewed, asked)
                text = added(laboratory, speech, lambda: laboratory.add_slide(reviewed))
                unnamed = sum(
                    cell["reviewed"] is None and cell["verdict"] != UNIDENTIFIED for *_, cell in reviewed.cells()
                )
                return " ".join([text, *([speech("lab_unnamed", number=unnamed)] if unnamed else [])])

        yield from work(request, take_over, status, taking)

    def forget(request: gr.Request) -> dict[Any, Any]:
        stop(request)
        visits.of(request.session_hash).laboratory.clear()
        return {files: None, status: ""} | shown(of(request), words(request))

    def stop(request: gr.Request) -> None:
        for one in list(of(request).stops):
            one.set()

    def save(shown_: float, request: gr.Request) -> dict[str, str]:
        if ended := over(shown_, request):
            raise gr.Error(ended, print_exception=False)
        try:
            content = of(request).folder()
        except LaboratoryError as error:
            raise gr.Error(error.told(words(request)), print_exception=False) from error
        return {"name": "adapted.zip", "type": "application/zip", "content": base64.b64encode(content).decode()}

    files.upload(add_files, inputs=[files, label], outputs=outputs, preprocess=False, trigger_mode="multiple", **light)
    slide.click(add_slide, inputs=unsent, outputs=outputs, js=UNSENT, **light)
    clear.click(forget, outputs=outputs, **light)
    estimate.click(fitting(Laboratory.reestimate, estimated), inputs=had, outputs=outputs, **heavy)
    fit.click(fitting(Laboratory.fit_to_labels, fitted), inputs=had, outputs=outputs, **heavy)
    cancel.click(stop, queue=False, **private)
    take.click(save, inputs=had, outputs=file, **light).then(None, inputs=file, js=SAVE)
    return cells, knows
