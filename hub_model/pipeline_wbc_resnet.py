"""Our pipeline, ``pipeline(model=ID, trust_remote_code=True)``: photos of a smear in, cells and the differential count out."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import AutoImageProcessor, ImageClassificationPipeline

# F401: siblings of siblings. From a folder, transformers 4 takes along only what this file itself imports.
from .batch_statistics import BatchStatistics  # noqa: F401
from .cell_finding import find_cells
from .differential import cells_csv, count_cells, count_csv, report_json
from .error_adjustment import adjust  # noqa: F401
from .field_overlaps import describe_field, mark_repeats
from .folding import in_parts  # noqa: F401
from .head_fitting import flips_and_turns
from .image_reading import LARGEST, ImageError, image_name, read_image
from .sentences import say
from .smear_gate import why_no_smear

# Side of the square about a cell that the network sees, in sides of its box: of 1 to 2.5, tried on validation, 1.5 to 2 gave
# the likeliest labels over four laboratories.
WINDOW = 1.75
BATCH_SIZE = 8  # crops, where nobody asks for another number; from 16 on two cores wait for memory
READERS = 2  # threads that read and resize ahead of the network
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Wider than bfloat16's rounding was seen to move what is compared, on images of three laboratories, none of official TEST.
# Where less lies between the two likeliest classes, or to a threshold (energies in nats), an image is asked again in float32.
CLOSE, CLOSE_TO_ACCEPTANCE, CLOSE_TO_ENERGY = 0.06, 0.01, 0.1
ONE_CELL = ("views", "timeout")
FIELDS = ("laboratory", "reference_ranges", "white_cells_per_microlitre")


def crop_cell(image: Image.Image, box: Sequence[int], window: float = WINDOW) -> Image.Image:
    """Cut out the square that the network sees of a cell.

    Args:
        image: the upright field.
        box: (row_min, col_min, row_max, col_max), px, as ``find_cells`` gives it.
        window: side of the square, in sides of the box, the longer counting.

    Returns:
        The square about the middle of the box, with the field's mirror image where it reaches over the field's edge: one
        of the borders that training draws.
    """
    row_min, col_min, row_max, col_max = box
    side = max(2, round(max(row_max - row_min, col_max - col_min) * window))
    left, top = round((col_min + col_max - side) / 2), round((row_min + row_max - side) / 2)
    right, bottom = left + side, top + side
    inside = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
    beyond = [(max(-top, 0), max(bottom - image.height, 0)), (max(-left, 0), max(right - image.width, 0)), (0, 0)]
    return Image.fromarray(np.pad(np.asarray(inside.convert("RGB")), beyond, mode="reflect"))


class WbcClassificationPipeline(ImageClassificationPipeline):
    """Find the white blood cells in photos of a smear, name each or say that it is unidentified, and count them.

    It takes a photo, as a path, a PIL image, an array (H, W, 3), the bytes of a file or a stream of them, or several of one
    slide, and gives

    - ``images``: for each its ``name``, ``height`` and ``width`` in px, ``notes`` on what was done to it, ``refused``, why it
      is counted nowhere, or None, and its ``cells``. Of each cell: ``box`` (row_min, col_min, row_max, col_max), px of the
      upright photo; ``find_score``, 0..1; ``label``, the likeliest class, its ``score`` and the ``probabilities`` of all;
      ``energy``, in nats, low for images like those learnt from; ``verdict``, a class or "unidentified", and then the
      ``reason``; ``same_as``, [image, cell] where an earlier photo shows the same cell, else None; ``reviewed``, None:
      there a person's label goes before ``count`` is called again.
    - ``differential``: see ``differential.count_cells``.

    ``as_json``, ``cells_csv`` and ``count_csv`` write that answer as text.

    With ``one_cell=True`` each image is taken as one cell and named whole, and the answer to an image is a dictionary:

    - ``verdict``: a class's name, or ``"unidentified"``
    - ``reason``: why unidentified, ``"low confidence"`` or ``"unlike the images learnt from"``; otherwise None
    - ``confidence``: probability of the likeliest class, 0..1
    - ``energy`` as above
    - ``probabilities``: ``{"label": ..., "score": ...}`` for each class, the likeliest first

    Of several it gives a list; of a generator or another iterator an iterator, which takes the images as they are needed and
    holds no more than two batches of them, however many there are. They are read and resized by threads while the network
    computes. An image that cannot be read ends it with an ``ImageError`` when its turn comes.

    The thresholds stand in config.json; a model without them always gives its likeliest class.

    Args:
        one_cell: name each image as one cell.
        views: 8 averages the probabilities and the energy over the eight flips and quarter turns of the image, since a smear
            has no up. That takes eight times as long as 1, with which the thresholds were measured.
        batch_size: images or crops that go through the network at once, crops of one photo or of many.
        num_workers: with ``one_cell``, threads that read ahead.
        precision: of the convolutions: "float32", "bfloat16", or "auto", which is that of the weights; but with ``one_cell``,
            for an iterator and for more images than ``batch_size``, it is bfloat16 where the processor computes in it. That
            is quicker, and moves a probability in its second decimal at most; where that decides what an image is called, it
            is named again in float32.
        laboratory, reference_ranges, white_cells_per_microlitre: see ``differential.count_cells``.
        tell: of fields, is told after each photo how many were looked at and how many cells they show.
        timeout: with ``one_cell``, seconds to wait for an image from the network.

    Raises:
        ValueError: an option that does not fit; with ``one_cell`` alone, also an image that cannot be read. Otherwise such an
            image, and one that shows no smear, is listed as refused, and the rest goes on.
    """

    most_pixels = LARGEST  # of a photo

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        # The layout that convolutions are quickest in; the weights' values and names stay.
        self.model.to(memory_format=torch.channels_last)
        if self.image_processor is None:  # transformers 4.51 seeks one only for a configuration of its own
            config = self.model.config
            revision = getattr(config, "_commit_hash", None)
            self.image_processor = AutoImageProcessor.from_pretrained(config._name_or_path, revision=revision)

    def _sanitize_parameters(
        self,
        one_cell: bool | None = None,
        views: int | None = None,
        timeout: float | None = None,
        precision: str | None = None,
        laboratory: str | None = None,
        reference_ranges: Mapping[str, Sequence[float]] | None = None,
        white_cells_per_microlitre: float | None = None,
    ):
        if precision not in (None, "auto", *PRECISIONS):
            raise ValueError(f"precision is {precision!r}; expected 'auto', 'float32' or 'bfloat16'.")
        if views not in (None, 1, 8):
            raise ValueError(f"views is {views!r}; expected 1, or 8 for all flips and quarter turns.")
        if one_cell not in (None, True, False):
            raise ValueError(f"one_cell is {one_cell!r}; expected True or False.")
        count = {
            "laboratory": laboratory,
            "references": reference_ranges,
            "white_cells_per_microlitre": white_cells_per_microlitre,
        }
        asked = {"one_cell": one_cell, **count}
        kind = {} if precision is None else {"kind": PRECISIONS.get(precision)}
        return (
            {} if timeout is None else {"timeout": timeout},
            kind if views is None else {"views": views} | kind,
            {name: value for name, value in asked.items() if value is not None},
        )

    def __call__(self, inputs: Any, tell: Callable[[int, int], None] | None = None, **options: Any) -> Any:
        """Answer for a photo, or several of one slide; options as for the class."""
        batch_size = options.get("batch_size") or self._batch_size or BATCH_SIZE
        preprocess, forward, asked = self._sanitize_parameters(
            **{name: value for name, value in options.items() if name not in ("batch_size", "num_workers")}
        )
        asked = {**self._postprocess_params, **asked}
        if asked.pop("one_cell", False):
            if tell is not None:
                raise ValueError("tell is for fields; of images of one cell pass an iterator and count its answers.")
            sources = _each(inputs)
            if isinstance(inputs, Dataset) or (isinstance(sources, list) and sources and sources[0] is inputs):
                return super().__call__(inputs, **options)
            readers = options.get("num_workers") or self._num_workers or READERS
            preprocess, forward = {**self._preprocess_params, **preprocess}, {**self._forward_params, **forward}
            if forward.get("kind") is None and (not isinstance(sources, Sized) or len(sources) > batch_size):
                kind = self._kind_for_many()
                forward |= {"kind": kind, "again": kind != self.model.dtype}
            answers = self._name_each(sources, batch_size, readers, preprocess, forward)
            return answers if isinstance(inputs, Iterator) else list(answers)
        self.count([], **asked)  # an option that does not fit is told before the long part
        images, descriptions = [], []
        forward = {**self._forward_params, **forward}
        for image, description in self._look(_each(inputs), batch_size, forward, tell):
            images.append(image)
            descriptions.append(description)
        mark_repeats(images, descriptions)
        return {"images": images, "differential": self.count(images, **asked)}

    def count(self, images: Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
        """Count cells again, after a review or with other options; see ``differential.count_cells``."""
        config = self.model.config
        return count_cells(
            images,
            self._labels,
            negatives=config.negatives_label,
            confusion=config.usable_confusion(),
            model=self._identity(),
            **options,
        )

    @staticmethod
    def read(source: Any, name: str | None = None) -> Image.Image:
        """Read a photo as it is looked at, upright and RGB, to draw boxes on; errors call it by ``name``.

        Raises:
            ValueError: it cannot be read; the message says why.
        """
        return read_image(source, name).image

    @staticmethod
    def crop(image: Image.Image, box: Sequence[int]) -> Image.Image:
        """Cut out what the network sees of a cell, see ``crop_cell``."""
        return crop_cell(image, box)

    @staticmethod
    def why_no_smear(image: Image.Image) -> str | None:
        """Say why an upright RGB image shows no stained smear, or None where it does; fields are refused by it."""
        return why_no_smear(image)

    @staticmethod
    def find(image: Image.Image) -> list[dict[str, Any]]:
        """Find the white cells of an upright RGB field without naming them, see ``find_cells``."""
        return find_cells(image)

    def as_json(self, answer: Mapping[str, Any]) -> str:
        """Write an answer for fields, and its ``changes`` if it has any, after ``differential.schema.json``."""
        return report_json(answer["images"], answer["differential"], answer.get("changes"))

    def cells_csv(self, answer: Mapping[str, Any]) -> str:
        """Write a row for each cell of an answer for fields."""
        return cells_csv(answer["images"], self._labels)

    def count_csv(self, answer: Mapping[str, Any]) -> str:
        """Write a row for each class of an answer for fields."""
        return count_csv(answer["differential"])

    @property
    def _labels(self) -> list[str]:
        return [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]

    def _name_each(
        self,
        sources: Iterable[Any],
        batch_size: int,
        readers: int,
        preprocess: Mapping[str, Any],
        forward: Mapping[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """Give the answer to each image of one cell, in their order; while the network computes, threads read the next."""
        sources, ahead = enumerate(sources, 1), deque()
        threads = ThreadPoolExecutor(readers)
        try:
            while True:
                wanted = islice(sources, 2 * batch_size - len(ahead))
                ahead.extend(self._read_ahead(threads, source, number, preprocess) for number, source in wanted)
                if not ahead:
                    return
                pixels = [ahead.popleft().result()["pixel_values"] for _ in range(min(batch_size, len(ahead)))]
                for logits in self.forward({"pixel_values": torch.cat(pixels)}, **forward)["logits"]:
                    yield self.postprocess({"logits": logits[None]})
        finally:
            threads.shutdown(cancel_futures=True)

    def _read_ahead(
        self, threads: ThreadPoolExecutor, source: Any, number: int, preprocess: Mapping[str, Any]
    ) -> Future:
        """Have a thread read and resize an image; errors are raised by its result."""
        name = image_name(source, number)
        if isinstance(source, Image.Image):  # it may come again, or be at its next frame before a thread reads it
            try:
                source = read_image(source, name).image
            except ImageError as error:
                refused = Future()
                refused.set_exception(error)
                return refused
        return threads.submit(self.preprocess, source, name=name, **preprocess)

    def _look(
        self,
        sources: Iterable[Any],
        batch_size: int,
        forward: Mapping[str, Any],
        tell: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Give each photo's answer and description once its cells are named; cells of several photos share a batch."""
        found = 0
        photos: list[tuple[dict[str, Any], Any]] = []  # of which cells still wait
        waiting: list[tuple[dict[str, Any], Tensor]] = []
        for number, source in enumerate(sources, 1):
            photo = {"name": image_name(source, number), "height": None, "width": None, "notes": [], "refused": None}
            photo["cells"] = []
            description = None
            try:
                read = read_image(source, photo["name"])
                photo |= {"height": read.image.height, "width": read.image.width, "notes": read.notes}
                if reason := why_no_smear(read.image):
                    text = f"{photo['name']}: {reason}. Leave it out, or take the photo anew."
                    raise ImageError(say("image_no_smear", text, name=photo["name"], reason=reason))
            except ImageError as error:
                photo["refused"] = error.args[0]
            else:
                description = describe_field(read.image)
                for cell in find_cells(read.image):
                    photo["cells"].append(cell)
                    crop = crop_cell(read.image, cell["box"])
                    waiting.append((cell, super().preprocess(crop)["pixel_values"]))
            photos.append((photo, description))
            found += len(photo["cells"])
            if tell is not None:
                tell(number, found)
            while len(waiting) >= batch_size:
                self._name(waiting[:batch_size], forward)
                waiting = waiting[batch_size:]
            if not waiting:
                yield from photos
                photos = []
        if waiting:
            self._name(waiting, forward)
        yield from photos

    def _name(self, waiting: Sequence[tuple[dict[str, Any], Tensor]], forward: Mapping[str, Any]) -> None:
        """Put the answers of the network into cells, given each with its pixels (1, 3, H, W)."""
        logits = self.forward({"pixel_values": torch.cat([pixels for _, pixels in waiting])}, **forward)["logits"]
        labels = self.model.config.id2label
        for (cell, _), own in zip(waiting, logits, strict=True):
            probabilities, energy, verdict, reason = self._judge(own)
            label = labels[int(probabilities.argmax())]
            named = {labels[number]: value for number, value in enumerate(probabilities.tolist())}
            cell |= {"label": label, "score": named[label], "probabilities": named, "energy": energy}
            cell |= {"verdict": verdict, "reason": reason, "same_as": None, "reviewed": None}

    def preprocess(self, image: Any, timeout: float | None = None, name: str | None = None) -> dict[str, Tensor]:
        if not (isinstance(image, str) and image.startswith(("http://", "https://"))):  # these the library fetches
            image = read_image(image, name).image
        return super().preprocess(image, timeout=timeout)

    def _kind_for_many(self) -> torch.dtype:
        """Give the precision in which the convolutions name many images where nobody asks for one."""
        own = self.model.dtype
        quicker = own == torch.float32 and self.device.type == "cpu" and has_bfloat16()
        return torch.bfloat16 if quicker else own

    def _forward(
        self, model_inputs: dict[str, Tensor], views: int = 1, kind: torch.dtype | None = None, again: bool = False
    ) -> dict[str, Tensor]:
        pixels = model_inputs["pixel_values"]
        logits = self._ask(pixels, views, kind)
        if again and (doubtful := self._is_close(logits)).any():
            logits[doubtful] = self._ask(pixels[doubtful], views, None)
        return {"logits": logits}

    def _ask(self, pixels: Tensor, views: int, kind: torch.dtype | None) -> Tensor:
        """Give the logits (B, views, classes), by convolutions of that kind, or of the weights'."""
        seen = flips_and_turns(pixels if kind is None else pixels.to(kind))[:views]
        return torch.stack([self.model.forward_folded(view) for view in seen], dim=1)

    def _is_close(self, logits: Tensor) -> Tensor:
        """Say where a second decimal may decide (B,): between the likeliest two classes, or at a threshold."""
        probabilities = logits.softmax(dim=-1).mean(dim=1)
        first, second = probabilities.topk(2).values.unbind(dim=1)
        close, config = first - second < CLOSE, self.model.config
        if config.acceptance_threshold is not None:
            close |= (first - config.acceptance_threshold).abs() < CLOSE_TO_ACCEPTANCE
        if config.energy_threshold is not None:
            energy = self.model.energy(logits).mean(dim=1)
            close |= (energy - config.energy_threshold).abs() < CLOSE_TO_ENERGY
        return close

    def _judge(self, logits: Tensor) -> tuple[Tensor, float, str, str | None]:
        """Turn logits (views, classes) into probabilities (classes,), energy, verdict and reason."""
        logits = logits.double()
        probabilities = logits.softmax(dim=-1).mean(dim=0)
        energy = float(self.model.energy(logits).mean())
        return probabilities, energy, *self.model.decide(probabilities, energy)

    def postprocess(self, model_outputs: dict[str, Tensor], **count: Any) -> dict[str, Any]:
        probabilities, energy, verdict, reason = self._judge(model_outputs["logits"][0])
        scores = [
            {"label": self.model.config.id2label[number], "score": score}
            for number, score in enumerate(probabilities.tolist())
        ]
        scores.sort(key=lambda row: row["score"], reverse=True)
        return {
            "verdict": verdict,
            "reason": reason,
            "confidence": scores[0]["score"],
            "energy": energy,
            "probabilities": scores,
        }

    def _identity(self) -> dict[str, str | None]:
        """Tell which model answers: name, commit on the Hub, and the hash of its file of weights, if at hand and still used."""
        config = self.model.config
        name = config._name_or_path or None
        sha256 = None
        if name and (weights := Path(name) / "model.safetensors").is_file():
            if getattr(self.model, "as_stored", True):  # a class without it fits nothing
                sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
            name = Path(name).resolve().name
        return {"name": name, "revision": getattr(config, "_commit_hash", None), "sha256": sha256}


def has_bfloat16() -> bool:
    """Say whether the processor computes in bfloat16 natively."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _each(inputs: Any) -> Iterable[Any]:
    """Tell one photo from several; streams and tensors could be gone through as well, but are one."""
    one = isinstance(inputs, str | bytes | bytearray | memoryview | Path | Image.Image | Mapping)
    one = one or hasattr(inputs, "read") or hasattr(inputs, "__array__")
    return [inputs] if one or not isinstance(inputs, Iterable) else inputs
