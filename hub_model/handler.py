"""Answers requests as Inference Endpoints and servers like them put them: a request's body in, what goes back as JSON out.

    handler = EndpointHandler("hub_model")
    handler({"inputs": picture})
    handler({"inputs": picture, "parameters": {"top_k": 2, "function_to_apply": "sigmoid"}})
    handler({"inputs": [field, another], "parameters": {"fields": True, "white_cells_per_microlitre": 7200}})

A picture is the bytes of its file, base64 text of them, bare or as a data URL, or a PIL image. It is one white cell, and the
answer is the list of ``{"label", "score"}`` that ``pipeline("image-classification")`` gives; a list of pictures gives a list of
such answers. With ``fields`` the pictures are fields of one slide, and the answer is their differential count, after
differential.schema.json.

A server loads this file by its path and puts the whole folder beside it, so the rest is reached through transformers alone.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import ImageClassificationPipeline, pipeline

MOST_PICTURES = 200  # in one request: the fields of a slide
BYTES_PER_PIXEL = 3  # of the heaviest file that is sensible, which is not packed at all
FUNCTIONS = ("softmax", "sigmoid", "none")
OF_A_CELL = {"top_k", "function_to_apply"}
OF_FIELDS = {"views", "laboratory", "reference_ranges", "white_cells_per_microlitre"}
OF_THE_SERVER = {"use_cache", "wait_for_model"}  # "options" of the hosted API, settled before a handler is called
HOW_TO_SEND = "Send the picture's bytes, or base64 text of them."


class EndpointHandler:
    """Name the cell in a picture, or count the cells of a slide's fields.

    Args:
        path: the folder of the model; this file's own where none is given.
    """

    def __init__(self, path: str = ""):
        folder = Path(path or Path(__file__).parent).resolve()
        self.slide = pipeline(model=str(folder), trust_remote_code=True)
        self.cell = ImageClassificationPipeline(
            model=self.slide.model, image_processor=self.slide.image_processor, device=self.slide.device
        )

    def __call__(self, data: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
        """Answer a request.

        Args:
            data: ``inputs``, a picture or a list of at most 200, and ``parameters`` or None. Of a cell: ``top_k``, how many
                labels to give, 5 if not told; ``function_to_apply`` to the logits, "softmax" (if not told), "sigmoid" or
                "none". With ``fields`` true, see the pipeline: ``views``, ``laboratory``, ``reference_ranges`` and
                ``white_cells_per_microlitre``.

        Raises:
            ValueError: the request is none of these, a picture is too large or cannot be read; of several fields, which are
                then listed as refused, only if none can. Servers make status 400 of it, with its text. Addresses and paths
                are refused so: nothing is fetched, and no file is opened.
        """
        parameters = _parameters(data)
        inputs = data["inputs"]
        many = isinstance(inputs, list | tuple)
        if many and not 1 <= len(inputs) <= MOST_PICTURES:
            raise ValueError(f"inputs has {len(inputs)} pictures; expected 1 to {MOST_PICTURES} in a request.")
        most_bytes = BYTES_PER_PIXEL * self.slide.most_pixels
        pictures = [_picture(one, number, most_bytes) for number, one in enumerate(inputs if many else [inputs], 1)]
        if parameters.pop("fields", False):
            return self._count(pictures, parameters)
        answers, pixels, most = [], 0, self.slide.most_pixels
        for number, picture in enumerate(pictures, 1):  # one at a time, since a small file may hold a large picture
            cell = self.slide.read(picture, f"image {number}")
            pixels += cell.width * cell.height
            if pixels > most:
                raise ValueError(
                    f"The first {number} pictures have {pixels / 1e6:.1f} million pixels together; expected at most "
                    f"{most / 1e6:.1f} million in a request for single cells. Send fewer, or crop them to their cells."
                )
            answers.append(self.cell(cell, **parameters))
        return answers if many else answers[0]

    def _count(self, pictures: list[bytes | Image.Image], parameters: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.slide(pictures, **parameters)
        if all(image["height"] is None for image in answer["images"]):
            raise ValueError(" ".join(image["refused"] for image in answer["images"]))
        return json.loads(self.slide.as_json(answer))


def _parameters(data: Any) -> dict[str, Any]:
    """Check what a request asks for, but not the pictures; give the parameters that were set."""
    if not isinstance(data, Mapping) or "inputs" not in data:
        raise ValueError(f"The request is {_short(data)}; expected an object with inputs and, if need be, parameters.")
    _refuse_unknown("The request", data, {"inputs", "parameters", "options"})
    for name in ("parameters", "options"):
        if not isinstance(data.get(name), Mapping | None):
            raise ValueError(f"{name} is {_short(data[name])}; expected an object, such as {{}}.")
    _refuse_unknown("options", data.get("options") or {}, OF_THE_SERVER)
    parameters = dict(data.get("parameters") or {})
    _refuse_unknown("parameters", parameters, {"fields"} | OF_A_CELL | OF_FIELDS)
    parameters = {name: value for name, value in parameters.items() if value is not None}
    fields = parameters.get("fields", False)
    if not isinstance(fields, bool):
        raise ValueError(f"fields is {_short(fields)}; expected true or false.")
    if astray := sorted(parameters.keys() & (OF_A_CELL if fields else OF_FIELDS)):
        remedy = "Each cell of a field comes with all probabilities." if fields else 'Ask for "fields": true with it.'
        raise ValueError(f"{astray[0]} does not belong to {'fields' if fields else 'a single cell'}. {remedy}")
    for name in ("top_k", "views"):
        number = parameters.get(name, 1)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} is {_short(number)}; expected a whole number above 0.")
    if "function_to_apply" in parameters and parameters["function_to_apply"] not in FUNCTIONS:
        function = _short(parameters["function_to_apply"])
        raise ValueError(f"function_to_apply is {function}; expected one of {', '.join(FUNCTIONS)}.")
    if not isinstance(parameters.get("laboratory", ""), str):
        raise ValueError(f"laboratory is {_short(parameters['laboratory'])}; expected a name.")
    return parameters


def _refuse_unknown(where: str, given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(str(name) for name in given.keys() - known):
        raise ValueError(f"{where} has {_short(unknown[0])}, which nothing reads; expected {', '.join(sorted(known))}.")


def _picture(source: Any, number: int, most_bytes: int) -> bytes | Image.Image:
    """Give the bytes of a picture's file, or the PIL image; text is never taken for an address or a path."""
    if isinstance(source, Image.Image):
        return source
    if not isinstance(source, str | bytes | bytearray | memoryview):
        raise ValueError(f"image {number} is {_short(source)}; expected a picture. {HOW_TO_SEND}")
    if len(source) > (most_bytes * 4 / 3 if isinstance(source, str) else most_bytes):
        raise ValueError(f"image {number} has more than {most_bytes / 1e6:.0f} million bytes. Crop or shrink it.")
    if not isinstance(source, str):
        return bytes(source)
    text = source.strip()
    head, comma, body = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if "://" in text[:64] or (head and not (comma and head.lower().endswith(";base64"))):
        raise ValueError(
            f"image {number} is {_short(text)}; addresses are not fetched, and a data URL must be base64. {HOW_TO_SEND}"
        )
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"image {number} is {_short(text)}, no base64 text ({error}); paths are not opened. {HOW_TO_SEND}"
        ) from error


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
