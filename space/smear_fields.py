"""The tab where the photos of a slide are dropped, its cells counted, and the count reviewed."""

import base64
import contextlib
import dataclasses
import io
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from html import escape
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import fields_page
import gradio as gr
import page
from gradio.utils import get_upload_folder
from languages import I18N, Words, words
from one_cell import EXAMPLES, remember
from PIL import Image
from reading import HEAVIEST
from report import cell_thumbnail, write_report
from review import Options, Slide
from smear_model import SmearModel
from turns import TICK, Cancelled, Line, Turn
from uploads import rename_as_sent
from visits import LONGEST as IDLE
from visits import Visit, Visits

LOG = logging.getLogger(__name__)
MOST_FILES = 200  # photos of one slide
LONGEST = 960  # px, the longer side of a photo as it is shown
CROP = 256  # px, the side of a cell as it is kept for fitting
# White cells in a microlitre. A smaller number is likelier one of thousands; none so high was ever counted in blood.
LEAST_TOTAL, MOST_TOTAL = 100, 1_000_000
AT_ONCE = 2  # counts that run; others wait
IN_LINE = 16  # visitors whose counts run or wait: each holds one of gradio's 40 threads
SAID = 5  # photos that were refused whose reasons are told at once
REVIEWERS = 4  # visitors whose steps are taken over at once
REVIEW = (Path(__file__).with_name("review.js")).read_text(encoding="utf-8")
POINT = """
element.addEventListener('click', event => {
  const box = event.target.closest('[data-cell]');
  if (box) document.dispatchEvent(new CustomEvent('wbc-cell', {detail: box.dataset.cell}));
});
watch('value', () => document.dispatchEvent(new CustomEvent('wbc-photos')));
"""
# What was said and is not in the list yet: a file that is asked for now has it in it, and so have cells that are taken now.
UNSENT = """() => {
  const asked = {};
  document.dispatchEvent(new CustomEvent('wbc-unsent', {detail: asked}));
  return asked;
}"""
# The file goes to the browser inside the answer: no copy of it lies on the server.
SAVE = """(file) => {
  if (!file) return;
  const link = document.createElement('a');
  const bytes = Uint8Array.from(atob(file.content), letter => letter.charCodeAt(0));
  link.href = URL.createObjectURL(new Blob([bytes], {type: file.type}));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


class FieldsError(ValueError):
    """The photos cannot be counted; the message says why and what to do."""


def sent_paths(
    sent: Sequence[Mapping[str, Any]] | None, extra: Iterable[Path] = (), speech: Words | None = None
) -> list[Path]:
    """Give the files that a client sent, or names: only such as lie in the upload folder or among the examples.

    Raises:
        FieldsError: none, too many, too heavy, or others; in the words of ``speech``, English without.
    """
    speech = speech or words()
    folders = [Path(get_upload_folder()).resolve(), EXAMPLES, *extra]
    paths = []
    for one in sent or []:
        if isinstance(one, dict):
            rename_as_sent(one)
        path = Path(one.get("path") or "") if isinstance(one, Mapping) else Path(str(one))
        if not (path.is_file() and any(path.resolve().is_relative_to(folder) for folder in folders)):
            raise FieldsError(speech["fields_none"])
        if path.stat().st_size > HEAVIEST:
            raise FieldsError(speech("fields_too_heavy", name=path.name, limit=HEAVIEST / 1e6))
        paths.append(path)
    if not paths:
        raise FieldsError(speech["fields_none"])
    if len(paths) > MOST_FILES:
        raise FieldsError(speech("fields_too_many", given=len(paths), files=MOST_FILES))
    return paths


def take_unsent(slide: Slide, asked: Any) -> None:
    """Take over what was said of a slide and may still be on its way, as ``UNSENT`` gives it; the caller holds its lock."""
    if isinstance(asked, Mapping) and asked.get("steps"):
        with contextlib.suppress(ValueError):  # no step of our page is refused
            slide.take(asked.get("slide"), asked["steps"])


class Counting:
    """A count that runs, or waits for its turn: how far it has come, and the slide when it is through."""

    line: ClassVar[Line] = Line(AT_ONCE)

    def __init__(self, model: SmearModel, paths: Sequence[Path], options: Options, cancelled: Event):
        self.model, self.paths, self.options, self.cancelled = model, paths, options, cancelled
        self.done = self.cells = 0
        self._turn: Turn | None = None

    @property
    def ahead(self) -> int:
        """How many counts must end before this one begins."""
        return self._turn.ahead if self._turn else 0

    def run(self) -> Slide:
        """Count, once it is this one's turn.

        Raises:
            Cancelled: as asked for.
            ValueError: an option that does not fit.
        """
        with self.line.join() as self._turn:
            self._turn.wait(self.cancelled)
            return self._count()

    def _count(self) -> Slide:
        def tell(done: int, cells: int) -> None:
            self.done, self.cells = done, cells

        given = {
            "white_cells_per_microlitre": self.options.white_cells_per_microlitre,
            "laboratory": self.options.laboratory,
            "reference_ranges": self.options.reference_ranges,
        }
        given = {name: value for name, value in given.items() if value is not None}
        answer = self.model.count(self._each(), tell=tell, **given)
        thumbnails, crops, fields = {}, {}, []
        for number, (path, image) in enumerate(zip(self.paths, answer["images"], strict=True)):
            self._stop_if_asked()
            fields.append(None)
            if image["refused"] is None:
                picture = self.model.count.read(path)
                fields[-1] = _small(picture)
                for place, cell in enumerate(image["cells"]):
                    thumbnails[number, place] = cell_thumbnail(picture, cell["box"])
                    crop = self.model.count.crop(picture, cell["box"]).resize((CROP, CROP), Image.Resampling.BICUBIC)
                    crops[number, place] = _jpeg(crop, 95)
        return Slide(self.model.count, answer, thumbnails, crops, fields, self.model.identity, self.options)

    def _each(self) -> Iterator[Path]:
        for path in self.paths:
            self._stop_if_asked()
            yield path

    def _stop_if_asked(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled


def _small(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.thumbnail((LONGEST, LONGEST))
    return _jpeg(picture, 80)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def read_total(text: str | None, speech: Words) -> float | None:
    """Read a total count per microlitre as it is typed, such as 7200 or 7,200 or 7 200; nothing is None.

    Raises:
        ValueError: it is no number, or none that blood has.
    """
    given = (text or "").strip()
    digits = "".join(given.split()).replace("'", "")
    if re.fullmatch(r"\d{1,3}([,.]\d{3})+", digits):  # a mark before each three digits
        digits = re.sub("[,.]", "", digits)
    if not digits:
        return None
    if not re.fullmatch(r"-?\d+([,.]\d*)?", digits):
        raise ValueError(speech("total_wrong", given=given))
    return checked_total(float(digits.replace(",", ".")), given, speech)


def checked_total(number: float, given: str, speech: Words) -> float:
    """Give a total count per microlitre back that blood may have.

    Raises:
        ValueError: blood has no such; ``given`` is what was typed.
    """
    if number < LEAST_TOTAL:
        raise ValueError(speech("total_few", given=given, least=LEAST_TOTAL))
    if number > MOST_TOTAL:
        raise ValueError(speech("total_many", given=given, most=f"{MOST_TOTAL:,}".replace(",", " ")))
    return number


def read_ranges(
    given: Mapping[str, tuple[float | None, float | None]], speech: Words
) -> tuple[dict[str, list[float]], str]:
    """Read usual ranges, per cent by class; an empty end sets no limit, two empty ends no range.

    Returns:
        Those that are ranges, and what is wrong with the others, in words.
    """
    ranges, wrong = {}, []
    for name, ends in given.items():
        if ends == (None, None):
            continue
        low, high = (usual if end is None else end for end, usual in zip(ends, (0.0, 100.0), strict=True))
        if 0 <= low <= high <= 100:
            ranges[name] = [low, high]
        else:
            wrong.append(
                speech("range_wrong", name=speech.label(name), low=speech.figure(low), high=speech.figure(high))
            )
    return ranges, " ".join(wrong)


def pdf(slide: Slide) -> bytes:
    """Write the report of a slide."""
    buffer = io.BytesIO()
    write_report(slide.answer, [], buffer, datetime.now(UTC), thumbnails=slide.thumbnails)
    return buffer.getvalue()


FILES = {
    "pdf": ("report.pdf", "application/pdf", pdf),
    "json": ("differential.json", "application/json", lambda slide: slide.count.as_json(slide.answer).encode()),
    "cells": ("cells.csv", "text/csv", lambda slide: slide.count.cells_csv(slide.answer).encode()),
    "count": ("count.csv", "text/csv", lambda slide: slide.count.count_csv(slide.answer).encode()),
}


def limit_text(model: SmearModel, speech: Words) -> str:
    """Return how many and how large photos may be."""
    text = speech("fields_limit", files=MOST_FILES, weight=HEAVIEST / 1e6, pixels=model.count.most_pixels / 1e6)
    return f'<p class="wbc-small">{text}</p>'


def build_smear_fields(model: SmearModel, visits: Visits) -> gr.HTML:
    """Build the tab's content and its events; gives the place of ``limit_text``."""
    usual = {row["class"]: row["reference"] for row in model.count.count([])["rows"] if row["reference"]}

    gr.HTML(I18N("fields_lead"), elem_classes="wbc-lead")
    limit = gr.HTML(limit_text(model, words()))
    with gr.Row(elem_classes="wbc-row"):
        with gr.Column(scale=3, min_width=300):
            files = gr.File(
                label=I18N("fields_photos"), file_count="multiple", file_types=["image"], height=170, elem_id="fields"
            )
        with gr.Column(scale=1, min_width=200, elem_classes="wbc-buttons"):
            example = gr.Button(I18N("fields_example"), elem_id="fields-example")
            cancel = gr.Button(I18N("fields_cancel"), variant="stop", visible=False, elem_id="fields-cancel")
            again = gr.Button(I18N("fields_again"), visible=False, elem_id="fields-again")
            back = gr.Button(I18N("fields_back"), visible=False, elem_id="fields-back")
    status = gr.HTML(elem_id="fields-status")
    with gr.Column(visible=False, elem_id="fields-result") as result:
        with gr.Row(elem_classes="wbc-row"):
            with gr.Column(scale=3, min_width=300):
                count = gr.HTML(elem_id="fields-count")
            with gr.Column(scale=1, min_width=220):
                total = gr.Textbox(label=I18N("total"), max_lines=1, max_length=12, elem_id="fields-total")
                total_said = gr.HTML(elem_id="fields-total-said")
                known = [(I18N("laboratory_any"), ""), *((name, name) for name in model.laboratories)]
                laboratory = gr.Dropdown(known, value="", label=I18N("laboratory"), elem_id="fields-laboratory")
                with gr.Accordion(I18N("ranges"), open=False, elem_id="fields-ranges"):
                    gr.HTML(I18N("ranges_hint"), elem_classes="wbc-small")
                    limits = []
                    for name, (low, high) in usual.items():
                        with gr.Row(elem_classes="wbc-range"):
                            for value, end in ((low, "low"), (high, "high")):
                                label = I18N(f"range_{end}_{name.lower()}")
                                limits.append(gr.Number(value, label=label, min_width=80))
                ranges_said = gr.HTML(elem_id="fields-ranges-said")
                with gr.Row(elem_classes="wbc-downloads"):
                    downloads = {
                        kind: gr.Button(I18N(f"download_{kind}"), size="sm", min_width=120, elem_id=f"download-{kind}")
                        for kind in FILES
                    }
        gallery = gr.HTML(elem_id="fields-cells", js_on_load=REVIEW)
        shown = gr.HTML(elem_id="fields-photos", js_on_load=POINT)
        pictures = gr.HTML(elem_id="fields-pictures")
    file = gr.JSON(visible=False)
    unsent = gr.JSON(visible=False)
    settings = [total, laboratory, *limits]
    private = {"api_visibility": "private", "show_progress": "hidden"}

    def box(open_: bool) -> gr.File:
        """Let the list of photos take some, or empty it and let it take none: what came during a count would be lost.

        It is empty when it opens; emptied once more, it would lose what comes while that answer is on its way.
        """
        return gr.File(interactive=True) if open_ else gr.File(value=None, interactive=False)

    unset = {
        total: "",
        laboratory: "",
        **dict(zip(limits, (end for ends in usual.values() for end in ends), strict=True)),
        total_said: "",
        ranges_said: "",
    }

    def run(sent: list[dict[str, Any]] | None, request: gr.Request) -> Iterator[dict[Any, Any]]:
        speech = words(request)
        if not sent:
            yield {status: ""}
            return
        yield {files: box(False)}
        visit = visits.of(request.session_hash)
        visit.cancelled.set()  # what still ran for this visitor
        cancelled = visit.cancelled = Event()
        try:
            paths = sent_paths(sent, speech=speech)
            counting = Counting(model, paths, Options(), cancelled)
            with ThreadPoolExecutor(1) as worker:
                future = worker.submit(counting.run)
                while not future.done():
                    ahead = counting.ahead
                    bar = fields_page.progress(counting.done, len(paths), counting.cells, speech)
                    hidden = gr.Button(visible=False)
                    yield {
                        files: box(False),
                        status: fields_page.waiting(ahead, len(paths), speech) if ahead else bar,
                        cancel: gr.Button(visible=True),
                        again: hidden,
                        back: hidden,
                        result: gr.Column(visible=False),
                    }
                    time.sleep(TICK * 5 if ahead else TICK)
                slide = future.result()
        except Cancelled:
            yield former(visit, speech("fields_cancelled", done=counting.done, total=len(paths)), speech)
            return
        except Exception as error:
            if not isinstance(error, ValueError | OSError):  # no photo and no option brings that about
                LOG.exception("a count broke down")
            failed = speech("fields_failed", reason=str(error) or type(error).__name__)
            yield former(visit, str(error) if isinstance(error, FieldsError) else failed, speech)
            return
        finally:
            for one in sent:  # nothing is needed of them any more, nor handed back as they came
                remember(one, visits, request)
            visits.forget_files(request.session_hash)
        refused = [image["refused"] for image in slide.images if image["refused"] is not None]
        if visit.slide is not None and len(refused) == len(slide.images):
            more = speech("fields_more", number=len(refused) - SAID) if len(refused) > SAID else ""
            yield former(visit, more, speech, " ".join(page.said(reason, speech) for reason in refused[:SAID]))
            return
        with visit.work:
            put_aside(visit, slide)
            visit.started_over = False
        yield {files: box(True), **shown_anew(visit, speech)}

    def put_aside(visit: Visit, following: Slide | None = None) -> None:
        """Keep the slide that another follows, or none, where a person has worked on it."""
        with visit.work:
            if visit.slide is not None:
                visit.untouched = visit.slide
            visit.slide = following
            keep_changed(visit)

    def keep_changed(visit: Visit) -> bool:
        """Let the slide that was put aside be brought back if something is changed in it; say whether that is so."""
        with visit.work:
            if visit.untouched is None or not visit.untouched.answer["changes"]:
                return False
            visit.former, visit.untouched = visit.untouched, None
            return True

    def shown_anew(visit: Visit, speech: Words) -> dict[Any, Any]:
        """Show the visit's slide with all that belongs to it, its options too."""
        slide = visit.slide
        options = slide.options
        said = dict(unset)
        if options.white_cells_per_microlitre is not None:
            said[total] = speech.figure(options.white_cells_per_microlitre)
        said[laboratory] = options.laboratory or ""
        if options.reference_ranges is not None:
            ends = [end for name in usual for end in options.reference_ranges.get(name, (None, None))]
            said |= dict(zip(limits, ends, strict=True))
        return {
            status: fields_page.counted(slide, speech),
            cancel: gr.Button(visible=False),
            again: gr.Button(visible=True),
            back: gr.Button(visible=visit.former is not None),
            result: gr.Column(visible=True),
            pictures: fields_page.pictures(slide),
            **said,
            **render(slide, speech),
        }

    def bring_back(request: gr.Request) -> dict[Any, Any]:
        visit, speech = visits.of(request.session_hash), words(request)
        visit.cancelled.set()
        with visit.work:
            back_, visit.former = visit.former, None
            if back_ is not None:
                put_aside(visit, back_)
                visit.started_over = False
        return over(visit, speech) if visit.slide is None else shown_anew(visit, speech)

    def former(visit: Visit, why: str, speech: Words, first: str = "") -> dict[Any, Any]:
        """Show the slide counted before, if there is one, after a count that came to nothing; ``first`` is HTML."""
        kept = visit.slide is not None
        text = f"{why} {speech['fields_former']}".strip() if kept else why
        return {
            files: box(True),
            status: fields_page.message(text, first=first) if text or first else "",
            cancel: gr.Button(visible=False),
            again: gr.Button(visible=kept),
            back: gr.Button(visible=visit.former is not None),
            result: gr.Column(visible=kept),
        }

    def over(visit: Visit, speech: Words) -> dict[Any, Any]:
        """Say that the visit has ended, where a page still shows what was deleted with it; not to who has just started over."""
        if visit.started_over:
            return {status: gr.skip()}
        text = speech("visit_over", minutes=IDLE // 60)
        return cleared() | {status: fields_page.message(text, "alert")}

    def cleared() -> dict[Any, Any]:
        hidden = {result: gr.Column(visible=False), **{one: gr.Button(visible=False) for one in (again, back, cancel)}}
        return {files: box(True), status: "", **hidden, pictures: "", gallery: "", shown: "", count: "", **unset}

    def render(slide: Slide, speech: Words) -> dict[Any, str]:
        return {
            count: fields_page.summary(slide, speech),
            gallery: fields_page.gallery(slide, speech),
            shown: fields_page.photos(slide, speech),
        }

    def change(request: gr.Request, event: gr.EventData) -> dict[Any, Any]:
        visit = visits.of(request.session_hash)
        asked = event._data if isinstance(event._data, dict) else {}
        with visit.work:
            slide, *put_away = visit.slide, visit.untouched, visit.former
        said = ""
        for aside in put_away:  # said of it before it was put aside
            if aside is not None:
                with aside.lock, contextlib.suppress(ValueError):
                    aside.take(asked.get("slide"), asked.get("steps"))
        shown_: dict[Any, Any] = {}
        if slide is not None:
            with slide.lock:
                try:
                    slide.take(asked.get("slide"), asked.get("steps"))
                except ValueError as error:  # the list comes all the same: the browser waits for it
                    said = fields_page.message("", first=f'<span lang="en">{escape(str(error))}</span>')
                shown_ = {status: said, **render(slide, words(request))}
        with visit.work:
            offered = {back: gr.Button(visible=True)} if keep_changed(visit) else {}
            if visit.slide is None:  # also where it was put aside meanwhile
                return over(visit, words(request)) | offered
            return (shown_ if visit.slide is slide else {status: gr.skip()}) | offered

    def set_options(*asked: Any, total_alone: bool = False) -> dict[Any, Any]:
        """Follow what was set; of the total alone where that changed, since it does so also when the page itself sets it."""
        *settings_, request = asked
        visit, speech = visits.of(request.session_hash), words(request)
        slide = visit.slide
        if slide is None:
            cleared_here = settings_ == [unset[setting] for setting in settings]
            return {status: gr.skip()} if cleared_here else over(visit, speech)
        total_, laboratory_, *ends = settings_
        said, wrong = "", False
        try:
            number = read_total(total_, speech)
            if number is not None:
                said = speech("total_means", number=speech.figure(number), billions=speech.figure(number / 1000))
        except ValueError as error:
            number, said, wrong = None, str(error), True
        if total_alone:
            with slide.lock:
                slide.set_options(dataclasses.replace(slide.options, white_cells_per_microlitre=number))
                return {count: fields_page.summary(slide, speech), total_said: fields_page.aside(said, speech, wrong)}
        given = dict(zip(usual, zip(ends[::2], ends[1::2], strict=True), strict=True))
        ranges, wrong_ranges = read_ranges(given, speech)
        changed = ranges != {name: list(limits) for name, limits in usual.items()}
        with slide.lock:
            slide.set_options(Options(number, laboratory_ or None, ranges if changed else None))
            return {
                count: fields_page.summary(slide, speech),
                total_said: fields_page.aside(said, speech, wrong),
                ranges_said: fields_page.aside(wrong_ranges, speech, True),
            }

    def save(kind: str, asked: Any, request: gr.Request) -> dict[Any, Any]:
        """Write a file, with what was said before it was asked for: that may still wait in the browser, or be on its way."""
        visit = visits.of(request.session_hash)
        slide = visit.slide
        if slide is None:
            return over(visit, words(request)) | {file: None}
        name, type_, write = FILES[kind]
        with slide.lock:
            take_unsent(slide, asked)
            return {file: {"name": name, "type": type_, "content": base64.b64encode(write(slide)).decode()}}

    def stop(request: gr.Request) -> None:
        visits.of(request.session_hash).cancelled.set()

    def start_over(request: gr.Request) -> dict[Any, Any]:
        visit = visits.of(request.session_hash)
        visit.cancelled.set()
        with visit.work:
            visit.started_over = True
            put_aside(visit)
        return cleared() | {back: gr.Button(visible=visit.former is not None)}

    def with_request(fn: Any) -> Any:
        """gradio hands the request to an argument that is annotated with it; these take any number before it."""

        def called(request: gr.Request, *values: Any) -> Any:
            return fn(*values, request)

        return called

    outputs = [files, status, cancel, again, back, result, pictures, count, gallery, shown, *unset]
    # They wait in our own line, where a visitor sees it and may cancel, not in gradio's.
    queue = {"concurrency_id": "fields-page", "concurrency_limit": IN_LINE}
    # "multiple": photos that come while the former answer's end is still on its way are not passed over.
    files.upload(run, inputs=files, outputs=outputs, preprocess=False, trigger_mode="multiple", **queue, **private)
    drawn = [{"path": str(path)} for path in sorted(EXAMPLES.glob("*.png"))]

    def run_drawn(request: gr.Request) -> Iterator[dict[Any, Any]]:
        yield from run(drawn, request)

    example.click(run_drawn, outputs=outputs, **queue, **private)
    cancel.click(stop, queue=False, **private)
    again.click(start_over, outputs=outputs, queue=False, **private)
    back.click(bring_back, outputs=outputs, queue=False, **private)
    # Each visitor's steps have numbers and their slide a lock, so that visitors need not wait for each other.
    order = {"concurrency_id": "review", "concurrency_limit": REVIEWERS}
    gallery.submit(change, outputs=outputs, trigger_mode="multiple", **order, **private)
    for setting in settings:
        # Of a text "input" tells of typing alone, not of what is pasted; "change" also of what is cleared here.
        (setting.change if setting is total else setting.input)(
            with_request(partial(set_options, total_alone=setting is total)),
            inputs=settings,
            outputs=outputs,
            trigger_mode="always_last",
            **order,
            **private,
        )
    for kind, button in downloads.items():

        def give(asked: Any, request: gr.Request, kind: str = kind) -> dict[Any, Any]:
            return save(kind, asked, request)

        saved = button.click(give, inputs=unsent, outputs=[file, *outputs], js=UNSENT, **order, **private)
        saved.then(None, inputs=file, js=SAVE)
    return limit
