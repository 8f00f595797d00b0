"""What machines are answered: the endpoints /classify, /differential and /report, which are MCP tools too."""

import base64
import json
import tempfile
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
import texts
from gradio.utils import get_upload_folder
from guard import ADDRESS
from one_cell import read_photo
from reading import PictureError
from review import Options
from smear_fields import Counting, FieldsError, pdf, sent_paths
from smear_model import SmearModel
from visits import Visits

NAME = {"anyOf": [{"type": "string"}, {"type": "null"}]}
MODEL = {"type": "object", "properties": {"name": {"type": "string"}, "revision": NAME, "sha256": {"type": "string"}}}
# What /classify answers, as a JSON schema for its clients.
ANSWER = {
    "title": "Answer",
    "type": "object",
    "properties": {
        "verdict": {"type": "string"},
        "reason": NAME,
        "label": {"type": "string"},
        "score": {"type": "number"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "notes": {"type": "array", "items": {"type": "string"}},
        "model": MODEL,
    },
}
# What a client may send. gradio's own schema of several files refers to a part that MCP clients do not get, and promises that
# addresses are fetched.
PHOTO = {
    "anyOf": [
        {"type": "string", "description": "a picture as a data URL: data:image/jpeg;base64,..."},
        {"type": "object", "properties": {"path": {"type": "string"}}, "description": "an uploaded file"},
    ]
}
PHOTOS = {"type": "array", "items": PHOTO}
# Of /differential; hub_model/differential.schema.json says what each field means.
DIFFERENTIAL = {
    "title": "wbc-differential/1",
    "type": "object",
    "properties": {
        "schema": {"const": "wbc-differential/1", "type": "string"},
        "differential": {"type": "object"},
        "images": {"type": "array", "items": {"type": "object"}},
        "changes": {"type": "array", "items": {"type": "object"}},
    },
}


def build_endpoints(model: SmearModel, visits: Visits) -> None:
    """Put the endpoints into the page that is being built; nothing of them is seen there."""

    def classify(photo: Mapping[str, Any] | str | None) -> dict[str, Any]:
        try:
            picture = read_photo(as_mapping(photo))
        except PictureError as error:
            raise gr.Error(str(error), print_exception=False) from error
        said = model.classify(picture.image)
        verdict, reason = said.verdict, said.reason
        if said.no_smear is not None:
            verdict, reason = "unidentified", said.no_smear
        return {
            "verdict": verdict,
            "reason": reason,
            "label": said.label,
            "score": said.probabilities[said.label],
            "probabilities": said.probabilities,
            "notes": picture.notes,
            "model": model.identity,
        }

    def slide_of(photos: Any, total: Any, laboratory: Any, ranges: Any) -> Any:
        try:
            if isinstance(ranges, str):
                ranges = json.loads(ranges) if ranges.strip() else None
            with tempfile.TemporaryDirectory(dir=get_upload_folder()) as folder:
                paths = sent_paths(unpacked(photos, Path(folder)))
                return Counting(
                    model, paths, Options(None if total == "" else total, laboratory or None, ranges), threading.Event()
                ).run()
        except json.JSONDecodeError as error:
            raise gr.Error(texts.API_RANGES.format(reason=error), print_exception=False) from error
        except (FieldsError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    # The names of the arguments are the tools' too.
    def differential(
        photos: Any, white_cells_per_microlitre: Any = None, laboratory: Any = "", reference_ranges: Any = ""
    ) -> dict[str, Any]:
        slide = slide_of(photos, white_cells_per_microlitre, laboratory, reference_ranges)
        return json.loads(model.count.as_json(slide.answer))

    def report(
        photos: Any,
        white_cells_per_microlitre: Any = None,
        laboratory: Any = "",
        reference_ranges: Any = "",
        request: gr.Request = None,
    ) -> str:
        slide = slide_of(photos, white_cells_per_microlitre, laboratory, reference_ranges)
        folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
        target = folder / f"report-{datetime.now(UTC):%Y-%m-%d}.pdf"
        target.write_bytes(pdf(slide))
        visits.of((request and request.session_hash) or folder.name).files.add(target)  # it goes with the visit
        return str(target)

    photo = gr.Image(label="photo", type="filepath", image_mode=None, visible=False)
    photos = gr.File(label="photos", file_count="multiple", visible=False)
    photo.api_info, photos.api_info = (lambda: PHOTO), (lambda: PHOTOS)
    photo.data_model = photos.data_model = None  # else gradio refuses data URLs before we see them
    total = gr.Number(label="white_cells_per_microlitre", value=None, visible=False)
    total.api_info = lambda: {
        "anyOf": [{"type": "number"}, {"type": "null"}],
        "description": "the total count, or null",
    }
    laboratory = gr.Textbox(label="laboratory", value="", visible=False)
    ranges = gr.Textbox(label="reference_ranges", value="", visible=False)
    answer, document = gr.JSON(label="answer", visible=False), gr.JSON(label="document", visible=False)
    answer.api_info, document.api_info = (lambda: ANSWER), (lambda: DIFFERENTIAL)
    written = gr.File(label="report", visible=False)
    slide = [photos, total, laboratory, ranges]
    # preprocess=False: gradio's own reading would clip 16-bit grey and raise Pillow's errors at the client.
    common = {"preprocess": False, "queue": True}
    fields = {"concurrency_id": "fields", "concurrency_limit": 2}
    classify.__doc__, differential.__doc__, report.__doc__ = (
        texts.API_CLASSIFY,
        texts.API_DIFFERENTIAL,
        texts.API_REPORT,
    )
    gr.on(
        [], classify, photo, answer, api_name="classify", api_description=texts.API_CLASSIFY,
        concurrency_id="cell", concurrency_limit=1, **common,
    )  # fmt: skip
    gr.on(
        [],
        differential,
        slide,
        document,
        api_name="differential",
        api_description=texts.API_DIFFERENTIAL,
        **fields,
        **common,
    )
    gr.on([], report, slide, written, api_name="report", api_description=texts.API_REPORT, **fields, **common)


def as_mapping(sent: Any) -> Mapping[str, Any]:
    """Give what a client sent as gradio writes it: ``path`` of an uploaded file, or ``url``.

    Raises:
        PictureError: the address of a picture, which is not fetched.
    """
    if isinstance(sent, str):
        sent = {"url": sent}
    if not isinstance(sent, Mapping):
        return {}
    address = sent.get("path") or sent.get("url") or ""
    if ADDRESS.match(str(address)):
        raise PictureError(texts.API_ADDRESS)
    return sent


def unpacked(sent: Any, folder: Path) -> list[Any]:
    """Write pictures that came inside data URLs into a folder; the others stay as they came."""
    if isinstance(sent, str | Mapping):
        sent = [sent]
    given = []
    for number, one in enumerate(map(as_mapping, sent or []), 1):
        url = None if one.get("path") else one.get("url")
        if isinstance(url, str) and url.startswith("data:"):
            head, _, body = url.partition(",")
            try:
                content = base64.b64decode(body, validate=True)
            except ValueError as error:
                raise FieldsError(texts.UNREADABLE) from error
            path = folder / f"photo-{number}.{head.partition('/')[2].partition(';')[0][:4] or 'png'}"
            path.write_bytes(content)
            given.append({"path": str(path)})
        else:
            given.append(one)
    return given
