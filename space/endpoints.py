"""What machines are answered: the endpoints /classify, /differential and /report, which are MCP tools too."""

import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
import texts
import uploads
from gradio.utils import get_upload_folder
from guard import ADDRESS
from languages import WORDS, words
from one_cell import EMPTY, EXAMPLES, framing_note, read_photo, shortcoming
from reading import HEAVIEST, PictureError, decoded
from review import Options
from smear_fields import MOST_FILES, Counting, FieldsError, checked_total, pdf, sent_paths
from smear_model import SmearModel
from visits import Visits

UNIDENTIFIED, NO_CELL = "unidentified", "no white cell"
LONGEST_VALUE = 60  # characters of what came that an error repeats; it may be a whole picture
# Copied from the API page it works as it stands.
EXAMPLE = {"path": "examples/neutrophil.png"}
NAME = {"anyOf": [{"type": "string"}, {"type": "null"}]}
MODEL = {"type": "object", "properties": {"name": {"type": "string"}, "revision": NAME, "sha256": {"type": "string"}}}
# What a client may send. gradio's own schema of several files refers to a part that MCP clients do not get, and promises that
# addresses are fetched.
PHOTO = {
    "anyOf": [
        {"type": "string", "description": "a picture as a data URL: data:image/jpeg;base64,..."},
        {
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "description": "an uploaded file, or a drawing to try",
        },
    ]
}
PHOTOS = {"anyOf": [{"type": "array", "items": PHOTO}, *PHOTO["anyOf"]]}
TOTAL = {"anyOf": [{"type": "number"}, {"type": "null"}]}
RANGE = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
# Of /differential, where the model brings no differential.schema.json.
DIFFERENTIAL = {
    "title": "wbc-differential/1",
    "type": "object",
    "required": ["schema", "differential", "images"],
    "properties": {
        "schema": {"const": "wbc-differential/1", "type": "string"},
        "differential": {"type": "object"},
        "images": {"type": "array", "items": {"type": "object"}},
        "changes": {"type": "array", "items": {"type": "object"}},
    },
}
FILE = {"title": "Report", "type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}}


def answer_schema(model: SmearModel) -> dict[str, Any]:
    """Say what /classify answers, as a JSON schema for its clients."""
    properties = {
        "verdict": {"type": "string", "enum": [*model.labels, UNIDENTIFIED, NO_CELL]},
        "reason": NAME,
        "label": {"type": "string", "enum": model.labels},
        "score": {"type": "number"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "notes": {"type": "array", "items": {"type": "string"}},
        "model": MODEL,
    }
    return {"title": "Answer", "type": "object", "required": list(properties), "properties": properties}


def result_schemas(model: SmearModel) -> dict[str, dict[str, Any]]:
    """Say what each endpoint answers as a tool, by the endpoint's name: JSON schemas."""
    try:
        differential = json.loads(model.file("differential.schema.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        differential = DIFFERENTIAL
    return {"/classify": answer_schema(model), "/differential": differential, "/report": FILE}


def spelt_out(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Give a JSON schema as gradio's API page reads one: references followed, kinds one by one, no words between."""
    if "$ref" in schema:
        return spelt_out(parts[schema["$ref"].rpartition("/")[2]], parts)
    if isinstance(schema.get("type"), list):
        return {"anyOf": [spelt_out({**schema, "type": kind}, parts) for kind in schema["type"]]}
    spelt = {"type": schema["type"]} if "type" in schema else {}
    if "const" in schema:
        spelt = {"const": schema["const"], "type": "string"}
    if "enum" in schema:
        named = [{"type": "string", "enum": [one for one in schema["enum"] if one is not None]}]
        spelt = {"anyOf": [*named, {"type": "null"}]} if None in schema["enum"] else named[0]
    if "properties" in schema:
        spelt["properties"] = {name: spelt_out(one, parts) for name, one in schema["properties"].items()}
    elif isinstance(schema.get("additionalProperties"), Mapping) and spelt.get("type") == "object":
        spelt["additionalProperties"] = spelt_out(schema["additionalProperties"], parts)
    if "items" in schema and spelt.get("type") == "array":
        spelt["items"] = spelt_out(schema["items"], parts)
    return spelt


class RequestError(ValueError):
    """What a program sent is no picture that can be taken; the message says why, in English."""


def parameter(made: gr.components.Component, schema: Mapping[str, Any], told: str, example: Any) -> None:
    """Have an unseen component say what an endpoint takes from it, in gradio's list of the API and on its page."""
    made.api_info = lambda: {**schema, "description": told, "additional_description": told}
    made.example_inputs = lambda: example  # gradio's own are photos of buses
    made.data_model = None  # else gradio refuses data URLs before we see them


def describe(function: Callable[..., Any], text: str, parameters: Mapping[str, str]) -> None:
    """Write a docstring as gradio reads it for MCP: a line for each parameter."""
    function.__doc__ = "\n".join([text, "", "Args:", *(f"    {name}: {told}" for name, told in parameters.items())])


def build_endpoints(model: SmearModel, visits: Visits) -> None:
    """Put the endpoints into the page that is being built; nothing of them is seen there."""

    def classify(photo: Mapping[str, Any] | str | None) -> dict[str, Any]:
        try:
            picture = read_photo(as_mapping(photo))
        except (PictureError, RequestError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        finally:
            uploads.forget(photo)
        said = model.classify(picture.image)
        verdict, reason = said.verdict, said.reason
        wrong = shortcoming(picture.image, said, model)
        if said.no_smear is not None:
            verdict, reason = UNIDENTIFIED, said.no_smear
        elif wrong == EMPTY:
            verdict, reason = NO_CELL, texts.API_NO_CELL
        notes = [*picture.notes, *framing_note(wrong, model)]
        return {
            "verdict": verdict,
            "reason": reason,
            "label": said.label,
            "score": said.probabilities[said.label],
            "probabilities": said.probabilities,
            "notes": [note.told(WORDS["en"]) for note in notes],
            "model": model.identity,
        }

    def slide_of(photos: Any, total: Any, laboratory: Any, ranges: Any) -> Any:
        try:
            if isinstance(total, (int, float)) and total > 0:  # else the count says it
                checked_total(total, str(total), words())
            if not isinstance(laboratory, str | None):
                known = ", ".join(model.laboratories) or "none"
                raise FieldsError(texts.API_LABORATORY_KIND.format(came=brief(laboratory), laboratories=known))
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
        finally:
            uploads.forget(photos)

    # The names of the arguments are the tools' too.
    def differential(
        photos: Any, white_cells_per_microlitre: Any = None, laboratory: Any = "", reference_ranges: Any = None
    ) -> dict[str, Any]:
        slide = slide_of(photos, white_cells_per_microlitre, laboratory, reference_ranges)
        return json.loads(model.count.as_json(slide.answer))

    def report(
        photos: Any,
        white_cells_per_microlitre: Any = None,
        laboratory: Any = "",
        reference_ranges: Any = None,
    ) -> str:
        slide = slide_of(photos, white_cells_per_microlitre, laboratory, reference_ranges)
        folder = uploads.new_folder()
        target = folder / f"report-{datetime.now(UTC):%Y-%m-%d}.pdf"
        target.write_bytes(pdf(slide))
        # A visit of its own, in which nothing happens: the tools' callers share one that may last for days.
        visits.of(folder.name).files.add(folder)
        return str(target)

    one = texts.API_PHOTO.format(weight=HEAVIEST / 1e6)
    told = {
        "photo": one,
        "photos": texts.API_PHOTOS.format(files=MOST_FILES) + one,
        "white_cells_per_microlitre": texts.API_TOTAL,
        "laboratory": texts.API_LABORATORY.format(laboratories=", ".join(model.laboratories) or "none"),
        "reference_ranges": texts.API_REFERENCE.format(labels=", ".join(model.labels)),
    }
    laboratories = {"anyOf": [{"type": "string", "enum": ["", *model.laboratories]}, {"type": "null"}]}
    ranges = {
        "anyOf": [
            {"type": "object", "additionalProperties": RANGE},
            {"type": "null"},
        ]
    }
    # gradio.Image and File would have the page show how to fetch a picture from elsewhere.
    photo, photos, total, reference = (gr.JSON(label=name, visible=False) for name in told if name != "laboratory")
    laboratory = gr.Textbox(label="laboratory", value="", visible=False)
    for made, schema, example in (
        (photo, PHOTO, EXAMPLE),
        (photos, PHOTOS, [EXAMPLE, {"path": "examples/monocyte.png"}]),
        (total, TOTAL, 7200),
        (laboratory, laboratories, ""),
        (reference, ranges, {"monocyte": [2, 8]}),
    ):
        parameter(made, schema, told[made.label], example)
    slide = [photos, total, laboratory, reference]
    answer, document = gr.JSON(label="answer", visible=False), gr.JSON(label="document", visible=False)
    answered = answer_schema(model)
    counted = result_schemas(model)["/differential"]
    counted = spelt_out(counted, counted.get("$defs", {}))
    answer.api_info, document.api_info = (lambda: answered), (lambda: counted)
    written = gr.File(label="report", visible=False)
    # preprocess=False: gradio's own reading would clip 16-bit grey and raise Pillow's errors at the client.
    common = {"preprocess": False, "queue": True}
    cell, fields = (
        {"concurrency_id": "cell", "concurrency_limit": 1},
        {"concurrency_id": "fields", "concurrency_limit": 2},
    )
    names = texts.API_CLASSIFY.format(negatives=model.negatives or "other", unidentified=UNIDENTIFIED, nothing=NO_CELL)
    of_one = {"photo": told.pop("photo")}
    for function, takes, gives, text, parameters, place in (
        (classify, [photo], answer, names, of_one, cell),
        (differential, slide, document, texts.API_DIFFERENTIAL, told, fields),
        (report, slide, written, texts.API_REPORT, told, fields),
    ):
        describe(function, text, parameters)
        gr.on([], function, takes, gives, api_name=function.__name__, api_description=text, **place, **common)


def as_mapping(sent: Any) -> Mapping[str, Any]:
    """Give what a client sent as gradio writes it: ``path`` of an uploaded file, or ``url``.

    Raises:
        RequestError: the address of a picture, which is not fetched, or the path of no upload, or something of another kind.
    """
    if sent is None:
        return {}
    if isinstance(sent, str):
        if not (sent.startswith(("data:", "examples/")) or ADDRESS.match(sent)):
            raise RequestError(texts.API_NO_PICTURE)
        sent = {"url": sent}
    if not (isinstance(sent, Mapping) and all(isinstance(sent.get(name), str | None) for name in ("path", "url"))):
        raise RequestError(texts.API_PHOTO_KIND.format(came=brief(sent)))
    address = sent.get("path") or sent.get("url") or ""
    if ADDRESS.match(address):
        raise RequestError(texts.API_ADDRESS)
    if address.startswith("examples/"):
        drawings = {f"examples/{path.name}": str(path) for path in sorted(EXAMPLES.glob("*.png"))}
        if address not in drawings:
            raise RequestError(texts.API_NO_DRAWING.format(came=brief(address), drawings=", ".join(drawings)))
        return {"path": drawings[address]}
    if sent.get("path"):
        folders = (Path(get_upload_folder()).resolve(), EXAMPLES)
        try:
            path = Path(address).resolve()
            there = path.is_file() and any(map(path.is_relative_to, folders))
        except (OSError, ValueError):  # no file can have that name
            there = False
        if not there:
            raise RequestError(texts.API_NOT_THERE)  # the same for a file that is none of theirs
    return sent


def unpacked(sent: Any, folder: Path) -> list[Any]:
    """Write pictures that came inside data URLs into a folder; the others stay as they came.

    Raises:
        FieldsError: no list.
        RequestError: one is of another kind.
        PictureError: the base64 of one is none.
    """
    if isinstance(sent, str | Mapping):
        sent = [sent]
    if not isinstance(sent, list | tuple | None):
        raise FieldsError(texts.API_PHOTOS_KIND.format(came=brief(sent)))
    given = []
    for number, one in enumerate(map(as_mapping, sent or []), 1):
        url = None if one.get("path") else one.get("url") or ""
        if url and url.startswith("data:"):
            content = decoded(url)
            ending = re.match(r"data:image/([a-z0-9]{1,4})", url, re.IGNORECASE)
            path = folder / f"photo-{number}.{ending[1].lower() if ending else 'png'}"
            path.write_bytes(content)
            given.append({"path": str(path)})
        else:
            given.append(one)
    return given


def brief(value: Any) -> str:
    """Write a value that came, for an error: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
