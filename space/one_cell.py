"""The tab where one photo is dropped and one cell is named."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import page
from gradio.utils import get_upload_folder
from languages import I18N, Said, Words, words
from overlay import heat_layer, shown_photo, speaks_for
from PIL import Image
from reading import Picture, PictureError, read_upload
from smear_model import CellAnswer, SmearModel, most_confused, usual_window
from uploads import folder_of
from visits import Visits

EXAMPLES = Path(__file__).resolve().parent / "examples"
THUMBNAIL = 96  # px, the longer side at which densities are looked at
# Density of red light, between what red cells and empty ground of Kaggle's photos have and what white cells of PBC, Raabin and
# Chula have: the tests look at both.
NUCLEUS = 0.3
EMPTY, UNFOUND = "empty", "unfound"
# The slider sets a value that only the style sheet reads: the photo is not sent again.
SLIDER = """
element.addEventListener('input', event => {
  if (event.target.matches('[data-strength]'))
    event.target.closest('figure').style.setProperty('--strength', event.target.value / 100);
});
"""


def read_photo(sent: Mapping[str, Any] | None) -> Picture:
    """Read what a visitor or a client sent.

    Raises:
        PictureError: it cannot be used.
    """
    return read_upload(sent, (Path(get_upload_folder()), EXAMPLES))


def shortcoming(image: Image.Image, said: CellAnswer, model: SmearModel) -> str | None:
    """Tell what is wrong with a photo in which the fields' finder, which needs to see what surrounds a cell, finds none.

    Returns:
        ``EMPTY`` where nothing got a subtype's name and nothing is as dark as a nucleus: the finder alone misses some where the
        nucleus fills the photo, darkness alone a small cell in a field. A cell that was named is never doubted.
        ``UNFOUND`` where by its answer there is a white cell: it may fill the photo, or be small in a field in which the finder
        misses it. How often it finds none in cells cut out closely, and in others, is measured: ``overlooked`` of the framing
        in stress.py.
        None for any other photo, also one that is no smear, which has its own reason.
    """
    if said.no_smear is not None or model.count.find(image):
        return None
    if said.verdict not in model.subtypes and red_density(image) < NUCLEUS:
        return EMPTY
    return None if said.verdict == model.negatives else UNFOUND


def framing_note(wrong: str | None, model: SmearModel) -> list[Said]:
    """Say how wide a photo of one cell should be, where it is ``UNFOUND`` and that was measured."""
    window = usual_window(model.results)
    return [Said("note_unfound", {"window": window})] if window and wrong == UNFOUND else []


def red_density(image: Image.Image) -> float:
    """Give the density of red light, a natural logarithm, that 2 % of a photo exceed: nuclei hold much of it back, red cells
    little."""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    red = np.asarray(small, dtype=np.float64)[..., 0] + 1
    return float(np.quantile(np.log(np.quantile(red, 0.95) / red), 0.98))


def explain(picture: Picture, said: CellAnswer, model: SmearModel, speech: Words) -> str:
    """Return the answer as HTML."""
    verdict = reason = reason_in = means = None
    wrong = shortcoming(picture.image, said, model)
    if said.no_smear is not None:
        verdict, (reason, reason_in) = speech["no_smear"], speech.said(said.no_smear)
        why = reason.partition(": ")[2] or reason  # "no stained smear: it is grey"; that it is none stands above
        reason = f"{why[:1].upper()}{why[1:]}."
    elif wrong == EMPTY:
        verdict, reason = speech["no_cell"], speech["no_cell_why"]
    elif said.reason is not None:
        verdict, known = speech.label("unidentified"), f"reason_{said.reason}"
        least = speech.per_cent(model.network.config.acceptance_threshold or 0)
        reason, reason_in = (speech(known, least=least), None) if known in speech else speech.said(said.reason)
    elif said.verdict == model.negatives:
        verdict = speech("none_of_them", number=len(model.subtypes))
        means = speech["none_means"]
    values = speaks_for(said.evidence, list(said.probabilities).index(said.label))
    photo = shown_photo(picture.image)
    return page.answer(
        said.probabilities,
        photo,
        heat_layer(values, photo.size),
        bool(values.any()),
        [note.told(speech) for note in [*picture.notes, *framing_note(wrong, model)]],
        speech,
        verdict,
        reason,
        most_confused(model.results, said.label),
        means,
        reason_in,
    )


def build_one_cell(model: SmearModel, visits: Visits) -> gr.HTML:
    """Build the tab's content; gives the place of what stands there before an answer."""

    def show(sent: dict[str, Any] | None, request: gr.Request) -> tuple[gr.HTML, str]:
        speech = words(request)
        if sent is None:
            return gr.HTML(page.welcome(model.subtypes, speech), visible=True), ""
        try:
            picture = read_photo(sent)
            told = explain(picture, model.classify(picture.image), model, speech)
        except PictureError as error:
            told = page.problem(error.told(speech))
        finally:
            remember(sent, visits, request)
        return gr.HTML(visible=False), told

    with gr.Row(elem_classes="wbc-row"):
        with gr.Column(scale=4, min_width=300):
            photo = gr.Image(
                label=I18N("photo"),
                show_label=False,
                placeholder=I18N("photo_place"),
                sources=["upload", "clipboard", "webcam"],
                type="filepath",
                image_mode=None,
                height=312,
                buttons=[],
                elem_id="photo",
            )
            gr.HTML(I18N("examples"), elem_classes="wbc-examples-label")
            with gr.Row(elem_classes="wbc-examples"):
                for file in sorted(EXAMPLES.glob("*.png")):
                    example = gr.Button(I18N(f"name_{file.stem}"), icon=file, variant="secondary", min_width=60)
                    example.click(
                        partial(str, file), outputs=photo, api_visibility="private", show_progress="hidden", queue=False
                    )
        with gr.Column(scale=9, min_width=300, elem_classes="wbc-result"):
            # Apart from the answer: its words come once more in the reader's language, and must not put an answer away.
            welcome = gr.HTML(page.welcome(model.subtypes, words()))
            result = gr.HTML(elem_id="result", js_on_load=SLIDER)
    # preprocess=False: gradio's own reading would clip 16-bit grey and raise Pillow's errors at the visitor.
    photo.change(
        show,
        inputs=photo,
        outputs=[welcome, result],
        preprocess=False,
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_id="cell",
        concurrency_limit=1,
    )
    return welcome


def remember(sent: Mapping[str, Any] | None, visits: Visits, request: gr.Request | None) -> None:
    """Note a file that a visitor sent, so that it goes when the visitor does."""
    folder = folder_of((sent or {}).get("path") or "")
    if request is not None and request.session_hash and folder is not None:
        visits.keep(request.session_hash, folder)
