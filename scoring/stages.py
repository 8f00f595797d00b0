"""The two stages that Ray Data runs: images are read into pixels, and named, and their rows written.

On processors an actor does both, a few images at a time, with as many threads as share its process; a GPU is fed by tasks on
the cores beside it.

A chunk, some hundred images of one partition, is one row of the data set, so that it stays whole on its way; its result is one
file of a name that the list decides. To do a chunk twice, as when a machine dies, writes the same file twice.
"""

import functools
import hashlib
import io
import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from scoring.attempts import TIMES_ALONE, Attempt
from scoring.locations import Found, Location, locate, read_input, without_secrets
from scoring.manifest import Folder, read_listed
from scoring.reading import Item, check_unchanged, read_archive, read_file
from scoring.results import Tally, row_schema, write_rows

# Eight images of 224 px: more at once take memory, in each thread, and fewer would fold the norms more often; a GPU wants many.
PIXELS_AT_ONCE = 8 * 224 * 224
ON_A_GPU = 32
TOGETHER = 256  # vectors of features
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
DONE = pa.schema(
    [("partition", pa.string()), ("chunk", pa.int32()), ("tally", pa.string())]
    + [(f"{stage}_{kind}_seconds", pa.float64()) for stage in ("reading", "naming") for kind in ("wall", "cpu")]
)


class Task(NamedTuple):
    """What one task does: chunks ``first`` to ``end`` of a partition; of an archive, of which only reading tells the end, each
    ``every``-th from ``first`` on, but none that is ``done``."""

    partition: str
    first: int = 0
    end: int = 0
    done: frozenset[int] = frozenset()
    every: int = 1


class End(NamedTuple):
    """How a chunk ended: whether it is the partition's last; see ``Tally`` for what was left out on the way."""

    last: bool
    left_out: Mapping[str, int] = {}
    empty: Sequence[str] = ()


@dataclass(frozen=True)
class Work:
    """What all tasks share; see score.py's options. ``start`` tells this start of the program from others."""

    inputs: tuple[str, ...]
    out: str
    chunk: int
    partition: int
    fields: bool
    embedding: bool
    column: str | None
    precision: str
    device: str
    start: str = field(default_factory=lambda: secrets.token_hex(8))

    def folder(self) -> Folder:
        return Folder(locate(self.out))


class Spent:
    """Seconds since it was made or asked last, of the clock and of this thread's processor."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.thread_time()

    def __call__(self) -> tuple[float, float]:
        before = self.wall, self.cpu
        self.wall, self.cpu = time.perf_counter(), time.thread_time()
        return self.wall - before[0], self.cpu - before[1]


def unpack(files: Mapping[str, bytes], read: Any) -> Any:
    """Put the model's files into a folder for as long as ``read`` looks at it."""
    with tempfile.TemporaryDirectory(prefix="wbc-model-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return read(folder)


def _shared(common: Sequence[Any]) -> tuple[list[Task], Work, dict[str, bytes]]:
    import ray

    return itemgetter("tasks", "work", "files")(ray.get(common[0]))


@functools.lru_cache(maxsize=1)
def _processor(content: bytes) -> Any:
    import torch
    from transformers import AutoImageProcessor

    torch.set_num_threads(1)  # a task has one core, and small pictures gain nothing from more
    processor = unpack({MODEL_FILES[1]: content}, AutoImageProcessor.from_pretrained)
    if not processor.do_resize or getattr(processor, "do_center_crop", None) or getattr(processor, "do_pad", None):
        raise ValueError(
            f"The image processor is {processor}; expected one that resizes and neither crops nor pads, as train.py saves it."
        )
    return processor


def _seen(items: Iterable[Item], processor: Any, fields: bool, attempt: Attempt) -> Iterator[tuple[dict, list]]:
    """Look at images; give the row of each, without answers, and the pixels of its cells, (1, 3, H, W) uint8 each."""
    for number, item in enumerate(items):
        if attempt.ends_processes(number):
            fault = f"looking at it has ended the process {TIMES_ALONE} times. Open it in an image viewer and export it as PNG."
            item = replace(item, data=None, error=f"{_name(item)}: {fault}")
        with attempt.looking_at(number):
            row, crops = look(item, fields)
            pixels = [_resized(crop, processor) for crop in crops]  # sizes differ: one at a time
        yield row, pixels


def _resized(image: Any, processor: Any) -> np.ndarray:
    """Turn an image into pixels (1, 3, H, W), uint8: without rescaling, so that a pixel takes a byte on its way."""
    pixels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"].numpy()
    if pixels.dtype != np.uint8:
        raise ValueError(f"The image processor gives {pixels.dtype} before rescaling; expected uint8.")
    return pixels


def read_chunks(batch: pa.Table, common: Sequence[Any]) -> Iterator[pa.Table]:
    """Do a reading task: give its chunks, each as one row of pixels and of what is known about them.

    Parameters
    ----------
    batch
        The numbers of tasks, in the column ``id``.
    common
        A reference to what all share, alone in a list: ``tasks``, ``work`` and the model's ``files``, content by name.

    Raises
    ------
    ScoringError
        An archive has changed since it was listed.
    """
    tasks, work, files = _shared(common)
    processor, folder = _processor(files[MODEL_FILES[1]]), work.folder()
    for number in batch["id"].to_pylist():
        task = tasks[number]
        spent = Spent()
        for chunk, items, ended in _chunks(task, work):
            attempt = Attempt(folder.place, folder.begun(task.partition, chunk), work.start)
            rows, crops = [], []
            for row, seen in _seen(items, processor, work.fields, attempt):
                rows.append(row)
                crops += seen
            attempt.end()
            pixels = np.concatenate(crops) if crops else np.zeros((0, 3, 1, 1), np.uint8)  # (cells, 3, H, W)
            wall, cpu = spent()
            last, left_out, empty = ended()
            yield pa.table(
                {
                    "partition": [task.partition],
                    "chunk": pa.array([chunk], pa.int32()),
                    "last": [last],
                    "left_out": [json.dumps(left_out)],
                    "empty": pa.array([empty], pa.list_(pa.string())),
                    "rows": [json.dumps(rows)],
                    "pixels": pa.array([pixels.tobytes()], pa.large_binary()),
                    "shape": pa.array([list(pixels.shape)], pa.list_(pa.int64())),
                    "wall": [wall],
                    "cpu": [cpu],
                }
            )
            spent()  # what the engine made it wait is not the chunk's


def _chunks(task: Task, work: Work) -> Iterator[tuple[int, Iterator[Item], Callable[[], End]]]:
    """Give the chunks of a task: number, images, to be gone through, and what tells then how the chunk ended."""
    kind, number = task.partition.split("-")
    folder = work.folder()
    if kind == "files":
        listed = read_listed(folder, "files", int(number))
        places = {root: read_input(work.inputs[root]).place for root in {root for root, _ in listed}}
        for chunk in range(task.first, task.end):
            part = listed[chunk * work.chunk : (chunk + 1) * work.chunk]
            last = (chunk + 1) * work.chunk >= len(listed)
            items = (read_file(places[root], _whole(places[root], found)) for root, found in part)
            yield chunk, items, lambda last=last: End(last)
        return
    from scoring.manifest import ARCHIVES_A_FILE

    root, found = read_listed(folder, "archives", int(number) // ARCHIVES_A_FILE)[int(number) % ARCHIVES_A_FILE]
    place = read_input(work.inputs[root]).place
    found = _whole(place, found)
    check_unchanged(place, found)
    left_out: Counter = Counter()
    items = read_archive(place, found, work.column, left_out)
    upcoming = [next(items, None)]  # only what comes next tells whether a chunk is the last
    empty = [] if upcoming[0] else [place.shown(found.path)]

    def part() -> Iterator[Item]:
        for _ in range(work.chunk):
            if upcoming[0] is None:
                return
            yield upcoming[0]
            upcoming[0] = next(items, None)

    def ended() -> End:
        return End(upcoming[0] is None, dict(left_out), empty)

    chunk = 0
    while chunk == 0 or upcoming[0] is not None:
        if chunk in task.done or chunk % task.every != task.first:
            for _ in part():
                pass
        else:
            yield chunk, part(), ended
        left_out.clear()  # what is left out after an image, and before the first one, is counted with its chunk
        chunk += 1


def _whole(place: Location, found: Found) -> Found:
    return found if found.path else found._replace(path=place.path)


def _name(item: Item) -> str:
    return item.member or (item.path if item.row is None else f"{item.path}, row {item.row}")


def look(item: Item, fields: bool) -> tuple[dict[str, Any], list[Any]]:
    """Decode an image; give its row, without the network's answers, and the pictures that the network shall see.

    The row's ``found`` lists the box and the score of each cell of a field, and one None for an image of one cell.
    """
    from hub_model.image_reading import ImageError, read_image

    error = item.error and without_secrets(item.error)  # of a storage, it may repeat an address
    row = {"path": item.path, "member": item.member, "row": item.row, "error": error, "found": []}
    row["bytes"] = len(item.data or b"")
    row |= {"sha256": None, "width": None, "height": None, "notes": []}
    if item.data is None:
        return row, []
    row["sha256"] = hashlib.sha256(item.data).hexdigest()
    name = _name(item)
    if fields:
        from hub_model.cell_finding import find_cells
        from hub_model.pipeline_wbc_resnet import crop_cell
        from hub_model.smear_gate import why_no_smear
    try:
        read = read_image(item.data, name)
        row |= {"width": read.image.width, "height": read.image.height, "notes": read.notes}
        if not fields:
            row["found"] = [None]
            return row, [read.image]
        if reason := why_no_smear(read.image):
            raise ImageError(f"{name}: {reason}. Leave it out, or take the photo anew.")
    except ImageError as error:
        row["error"] = str(error)
        return row, []
    cells = find_cells(read.image)
    row["found"] = [[*map(int, cell["box"]), float(cell["find_score"])] for cell in cells]
    return row, [crop_cell(read.image, cell["box"]) for cell in cells]


class Namer:
    """The network in an actor of its own: names the cells of a chunk and writes its rows.

    Parameters
    ----------
    common
        As for ``read_chunks``.
    """

    def __init__(self, common: Sequence[Any]):
        import torch

        from hub_model.modeling_wbc_resnet import WbcResNetForImageClassification

        _, work, files = _shared(common)
        self.work, self.device = work, torch.device(work.device)
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # a thread a core, each with images of its own, beats all on one image
        self.processor = _processor(files[MODEL_FILES[1]])
        model = unpack(files, WbcResNetForImageClassification.from_pretrained).eval()
        self.model = model.to(self.device, memory_format=torch.channels_last)
        if work.precision == "bfloat16":
            classifier = model.get_classifier()
            model.network.to(torch.bfloat16)
            classifier.to(torch.float32)
        labels = model.config.id2label
        self.labels = [labels[number] for number in range(len(labels))]
        self.schema = row_schema(self.labels, work.fields, work.embedding, model.num_features)
        self.folder = work.folder()
        self._come_first()

    def _come_first(self) -> None:
        """Do what a process does once, such as to load what reads images, before its first chunk and not in it."""
        from PIL import Image

        drawn, stream = Image.new("RGB", (64, 64)), io.BytesIO()
        drawn.save(stream, "JPEG")
        look(Item("drawn.jpg", data=stream.getvalue()), self.work.fields)
        pixels = _resized(drawn, self.processor)
        for number in (1, max(1, 3 * PIXELS_AT_ONCE // pixels.size)):
            list(self.answers(np.repeat(pixels, number, axis=0)))

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Name what ``read_chunks`` gives, and write it."""
        for position, chunk in enumerate(batch.drop_columns("pixels").to_pylist()):
            spent = Spent()
            packed = batch["pixels"][position].as_buffer()  # not copied
            pixels = np.frombuffer(packed, np.uint8).reshape(chunk["shape"])  # (cells, 3, H, W)
            end = End(chunk["last"], json.loads(chunk["left_out"]), chunk["empty"])
            tally = self.write(chunk["partition"], chunk["chunk"], json.loads(chunk["rows"]), self.answers(pixels), end)
            yield done(chunk["partition"], chunk["chunk"], tally, (chunk["wall"], chunk["cpu"]), spent())

    def write(
        self, partition: str, chunk: int, rows: Sequence[dict[str, Any]], answers: Iterable[dict[str, Any]], end: End
    ) -> Tally:
        """Write the rows of a chunk with the answers about their cells, in the same order."""
        tally = Tally(last=end.last, left_out=dict(end.left_out), empty=list(end.empty))
        answers = iter(answers)
        written = [self._row(row, answers, tally) for row in rows]
        place = self.schema.get_field_index("embedding")
        if place < 0:
            table = pa.Table.from_pylist(written, self.schema)
        else:  # one block of numbers, not a list in each row
            vectors = [row.pop("embedding", None) for row in written]
            block = np.zeros((len(written), self.model.num_features), np.float32)
            for number, vector in enumerate(vectors):
                if vector is not None:
                    block[number] = vector
            column = pa.FixedSizeListArray.from_arrays(
                block.ravel(),
                type=self.schema.field(place).type,
                mask=pa.array([vector is None for vector in vectors], pa.bool_()),
            )
            table = pa.Table.from_pylist(written, self.schema.remove(place)).add_column(
                place, self.schema.field(place), column
            )
        write_rows(self.folder.place, self.folder.chunk(partition, chunk), table, tally)
        return tally

    def answers(self, pixels: np.ndarray) -> Iterator[dict[str, Any]]:
        """Name cells, given as the image processor leaves them before rescaling, (N, 3, H, W) uint8; as our pipeline does."""
        import torch

        from hub_model.folding import folded_features

        exact = {"enabled": True, "deterministic": True, "allow_tf32": False, "fp32_precision": "ieee"}
        at_once = max(1, PIXELS_AT_ONCE // max(1, pixels.shape[2] * pixels.shape[3]))
        if self.device.type != "cpu":
            at_once *= ON_A_GPU
        network, kind = self.model.network, self.model.network.conv1.weight.dtype
        for start in range(0, len(pixels), at_once):
            with torch.inference_mode(), torch.backends.cudnn.flags(**exact):
                part = torch.from_numpy(pixels[start : start + at_once].copy()).to(self.device)
                seen = self.processor(part, do_resize=False, return_tensors="pt")["pixel_values"]
                seen = seen.to(self.device, kind, memory_format=torch.channels_last)
                features = folded_features(network, seen)  # (B, 512, H/8, W/8)
                embeddings = network.forward_head(features.float(), pre_logits=True)  # (B, 512)
                logits = network.get_classifier()(embeddings).double().cpu()  # (B, classes)
                energies, embeddings = self.model.energy(logits).tolist(), embeddings.cpu().numpy()
            for own, energy, embedding in zip(logits.softmax(dim=-1), energies, embeddings, strict=True):
                verdict, reason = self.model.decide(own, energy)
                probabilities = dict(zip(self.labels, own.tolist(), strict=True))
                answer = {"label": self.labels[int(own.argmax())], "probabilities": probabilities}
                answer |= {"verdict": verdict, "reason": reason, "energy": energy}
                yield answer | ({"embedding": embedding} if self.work.embedding else {})

    def _row(self, row: dict[str, Any], answers: Iterator[dict[str, Any]], tally: Tally) -> dict[str, Any]:
        """Put the answers about an image into its row, and count them."""
        found, tally.images = row.pop("found"), tally.images + 1
        tally.bytes += row.pop("bytes")
        cells = [next(answers) for _ in found]
        for cell in cells:
            tally.cells += 1
            tally.verdicts[cell["verdict"]] = tally.verdicts.get(cell["verdict"], 0) + 1
        if row["error"] is not None:
            tally.errors += 1
            tally.examples += [[row["path"], row["error"]]] if len(tally.examples) < 5 else []
            return row
        if not self.work.fields:
            return row | cells[0]
        boxes = ({"box": box, "find_score": score} for *box, score in found)
        return row | {"cells": [place | cell for place, cell in zip(boxes, cells, strict=True)]}


class ReadingNamer(Namer):
    """Both stages in one process: the network leaves reading no core of its own, and each process costs memory.

    Several threads may call it at once; they share the network and nothing that changes.
    """

    def __init__(self, common: Sequence[Any]):
        super().__init__(common)
        self.common = common

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Do tasks, given as to ``read_chunks``; of a chunk's pixels no more are held than the network sees at once."""
        tasks, work, _ = _shared(self.common)
        for number in batch["id"].to_pylist():
            task = tasks[number]
            spent = Spent()
            for chunk, items, ended in _chunks(task, work):
                yield self._chunk(task.partition, chunk, items, ended, spent)
                spent()  # what the engine made it wait is not the chunk's

    def _chunk(
        self, partition: str, chunk: int, items: Iterable[Item], ended: Callable[[], End], spent: Spent
    ) -> pa.Table:
        attempt = Attempt(self.folder.place, self.folder.begun(partition, chunk), self.work.start)
        rows: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        waiting: list[np.ndarray] = []
        keep = shelf(self.model.num_features)

        def name() -> None:
            for answer in self.answers(np.concatenate(waiting)):
                answers.append(answer | ({"embedding": keep(answer["embedding"])} if self.work.embedding else {}))
            waiting.clear()

        reading, naming = np.zeros(2), np.zeros(2)  # seconds of the clock and of the processor
        for row, seen in _seen(items, self.processor, self.work.fields, attempt):
            rows.append(row)
            waiting += seen
            if sum(one.size for one in waiting) >= 3 * PIXELS_AT_ONCE:
                reading += spent()
                name()
                naming += spent()
        end = ended()
        reading += spent()
        if waiting:
            name()
        tally = self.write(partition, chunk, rows, answers, end)
        attempt.end()
        naming += spent()
        return done(partition, chunk, tally, reading, naming)


def shelf(width: int) -> Callable[[np.ndarray], np.ndarray]:
    """Give a function that copies a vector to where many lie together.

    Each in a place of its own, they would keep apart what is free between them: the network's maps come and go in the same
    memory, and a process would take half as much again.
    """
    places: Iterator[np.ndarray] = iter(())

    def keep(vector: np.ndarray) -> np.ndarray:
        nonlocal places
        place = next(places, None)
        if place is None:
            places = iter(np.empty((TOGETHER, width), np.float32))
            place = next(places)
        place[:] = vector
        return place

    return keep


def done(partition: str, chunk: int, tally: Tally, reading: Sequence[float], naming: Sequence[float]) -> pa.Table:
    """Tell of a chunk that is done: what it holds, and the seconds that it took."""
    values = (partition, chunk, json.dumps(vars(tally)), *reading, *naming)
    return pa.table({name: [value] for name, value in zip(DONE.names, values, strict=True)}, schema=DONE)


def read_model(folder: str | os.PathLike) -> dict[str, bytes]:
    """Read the files of a model that the stages need, so that other machines need no copy of its folder.

    Raises
    ------
    FileNotFoundError
        One is missing.
    """
    missing = [name for name in MODEL_FILES if not Path(folder, name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; expected a model as train.py saves it. Name its folder with --model."
        )
    return {name: Path(folder, name).read_bytes() for name in MODEL_FILES}
