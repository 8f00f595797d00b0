"""A run on Ray Data: what is left to do, the two stages over it, partitions put together as they fill, and what came out."""

import contextlib
import json
import logging
import math
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when ray is imported: no word of a run leaves the machine
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a task without a GPU would warn
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray warns of what its own actor pool does, in every run
# Else Ray's processes give way to all others, and a run beside one that computes too would hardly start.
os.environ.setdefault("RAY_worker_niceness", "0")  # noqa: SIM112

import pyarrow as pa
import ray
from pyarrow import fs as arrow_fs
from tqdm import tqdm

from scoring.access import token_there
from scoring.locations import ScoringError
from scoring.manifest import ARCHIVE, Folder, Manifest, partitions
from scoring.results import UNFINISHED, Tally, merge, read_tally, remove, unmerge, write_whole
from scoring.stages import Namer, ReadingNamer, Task, Work, read_chunks

logger = logging.getLogger(__name__)

# Of an actor and of a task that reads for it, where they are two: most of a core's time goes to the network.
ACTOR_CORES, READER_CORES = 0.75, 0.25
# Of a process that does both, each with a core: PyTorch and the network take it 0.8 GB, however many share them.
MOST_THREADS = 4
STORE_BYTES = 1 << 30  # pixels on their way from tasks to actors; a chunk of 256 is 39 MB
LEVEL_TOLD = b"Set ray log level from environment variable"  # by which Ray tells of RAY_BACKEND_LOG_LEVEL, set above
PIXELS_WAITING = 2  # chunks of pixels that a task may be ahead by, 39 MB each
TOLD_WAITING = 1 << 20  # chunks that are done and not heard of yet: a hundred bytes each
MOST_SHARING = 8  # tasks that go through the same archive, each for chunks of its own
MOST_TASKS = 50_000
MERGES_AT_ONCE = 16
MERGES_END_SECONDS = 60
MOST_MARKS = 4000
LOOKS_AT_ONCE = 16
UNMERGES_AT_ONCE = 4  # each holds a row group or two, of 64 MB with features
ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def unsaid(words: bytes) -> Iterator[None]:
    """Keep lines with these words out of what is written to the standard error meanwhile, by C++ too; the rest comes after."""
    with tempfile.TemporaryFile() as heard:
        kept = os.dup(2)
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            heard.seek(0)
            for line in heard:
                if words not in line:
                    os.write(2, line)


@contextlib.contextmanager
def engine(store_bytes: int = STORE_BYTES) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster that RAY_ADDRESS names; one that this process has joined is used."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        # The cluster's machines have the libraries, not this repository.
        options["runtime_env"] = {
            "py_modules": [str(ROOT / "scoring"), str(ROOT / "hub_model")],
            "excludes": ["pictures", "onnx", "*.safetensors", "__pycache__"],
        }
    else:
        if not token_there():
            # Else Ray would leave one in the home folder, and every cluster started there later would ask for it.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        # "local", or it would join whatever Ray already runs on this machine, and be refused
        options |= {"address": "local", "num_cpus": cores}
        options |= {"object_store_memory": store_bytes, "include_dashboard": False}
    try:
        with unsaid(LEVEL_TOLD):
            ray.init(**options)
    except Exception as error:  # Ray raises Exception itself where its processes do not come up in time
        if type(error) is not Exception:
            raise
        raise ScoringError(
            f"Ray does not start ({' '.join(str(error).split())}). Start again when less else runs here, and if that does not "
            "help, look into the newest logs below /tmp/ray."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@dataclass
class Progress:
    """How far a run is.

    Attributes
    ----------
    whole
        All that is done, of this start and earlier ones.
    chunks
        Of each partition under way, the numbers of its chunks that are done.
    ends
        How many chunks a partition has, once that is known.
    lasts
        Of each archive under way, the chunks that were said to be its last, where it was read to its end.
    sums
        Images and errors of each partition under way.
    anew
        Partitions that are there, with errors, and are to be replaced once they are done again.
    found
        How many images earlier starts had done.
    seconds
        What this start's took, by stage and kind.
    started, marks
        When, and how many images of this start were done how many seconds later.
    begun
        How many seconds later the first chunk of this start was begun.
    driver_seconds
        Processor time of this process from the first mark to the last.
    """

    whole: Tally = field(default_factory=Tally)
    chunks: dict[str, set[int]] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    lasts: dict[str, set[int]] = field(default_factory=dict)
    sums: dict[str, tuple[int, int]] = field(default_factory=dict)
    anew: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    found: int = 0
    started: float = field(default_factory=time.perf_counter)
    marks: list[tuple[int, float]] = field(default_factory=list)
    begun: float | None = None
    driver_seconds: float = 0.0
    _processor: float | None = None

    @property
    def here(self) -> int:
        """How many images this start has done, those included of which it heard nothing because the engine failed."""
        return self.whole.images - self.found

    def note(self, name: str, number: int, tally: Tally) -> None:
        """Count a chunk that is done."""
        self.chunks[name].add(number)
        self.whole.add(tally)
        images, errors = self.sums.get(name, (0, 0))
        self.sums[name] = (images + tally.images, errors + tally.errors)
        if tally.last and name.startswith(ARCHIVE):
            self.ends[name] = max(self.ends.get(name, 0), number + 1)
            self.lasts.setdefault(name, set()).add(number)

    def is_whole(self, name: str) -> bool:
        """Say whether all chunks of a partition are done, and none but its last was said to be that."""
        end = self.ends.get(name)
        return end is not None and len(self.chunks[name]) == end and self.lasts.get(name, set()) <= {end - 1}

    def go_on_from(self, earlier: "Progress") -> None:
        """Take over what belongs to the start, after the engine failed in it."""
        for name in ("found", "seconds", "started", "marks", "begun", "driver_seconds"):
            setattr(self, name, getattr(earlier, name))

    def mark(self, took: float) -> None:
        """Note how many images are done and when, after a chunk that ``took`` so many seconds; of a long run, every second,
        fourth, ... note is kept."""
        now, before, self._processor = time.perf_counter() - self.started, self._processor, time.process_time()
        self.driver_seconds += 0.0 if before is None else self._processor - before
        self.begun = min(now - took, now if self.begun is None else self.begun)
        self.marks.append((self.here, now))
        if len(self.marks) > MOST_MARKS:
            self.marks = self.marks[:-1:2] + self.marks[-1:]


def plan(
    folder: Folder, manifest: Manifest, work: Work, retry_errors: bool, cores: float, anew: Iterable[str] = ()
) -> tuple[list[Task], Progress]:
    """Compare the list with what is there, and give the tasks that are left.

    Parameters
    ----------
    retry_errors
        Do again the chunks that ended with errors.
    cores
        For how many the work is to be parted.
    anew
        Partitions that this start is doing again, begun before the engine failed.
    """
    place, progress = folder.place, Progress(anew=set(anew))
    listed = dict(partitions(manifest, work.partition))
    names = list(listed)
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        tallies = pool.map(lambda name: read_tally(place, folder.partition(name)), names)
        for name, tally in zip(names, tallies, strict=True):
            if tally is None or (listed[name] and tally.images != listed[name]) or name in progress.anew:
                progress.chunks[name] = set()
            elif retry_errors and tally.errors:
                progress.anew.add(name)
                progress.chunks[name] = set()
            else:
                progress.whole.add(tally)
    if progress.anew:  # all but what had errors stays done; the partition itself stays until another takes its place
        with ThreadPoolExecutor(UNMERGES_AT_ONCE) as pool:
            places = {name: partial(folder.chunk, name) for name in progress.anew}
            list(pool.map(lambda name: unmerge(place, folder.partition(name), work.chunk, places[name]), places))
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        chunks = _standing(folder, "chunks")
        there = []
        for path, tally in zip(chunks, pool.map(lambda path: read_tally(place, path), chunks), strict=True):
            name, _, number = Path(path).stem.rpartition("-")
            if name not in progress.chunks or tally is None or (retry_errors and tally.errors):
                remove(place, [path])
                continue
            there.append((name, int(number), tally))
        ends = {name: number for name, number, _ in sorted(there, key=lambda row: row[1])}
        for name, number, tally in there:
            # Of an archive that could not be read on here, and could by another task.
            if not listed[name] and tally.last and number < ends[name]:
                remove(place, [folder.chunk(name, number)])
            else:
                progress.note(name, number, tally)
    tasks, left = [], 0
    for name in progress.chunks:
        if listed[name]:
            progress.ends[name] = math.ceil(listed[name] / work.chunk)
            left += progress.ends[name] - len(progress.chunks[name])
    # Short tasks share out the work evenly, and few of them burden the engine little.
    length = max(1, min(math.ceil(work.partition / work.chunk), int(left / (8 * max(1, cores)))), left // MOST_TASKS)
    archives = {
        name
        for name, done in progress.chunks.items()
        if not listed[name] and (name not in progress.ends or len(done) < progress.ends[name])
    }
    sharing = min(MOST_SHARING, max(1, math.ceil(cores / max(1, len(archives)))))
    for name, done in progress.chunks.items():
        if not listed[name]:
            if name in archives:
                turns = min(sharing, progress.ends[name] - len(done)) if name in progress.ends else sharing
                tasks += [Task(name, turn, done=frozenset(done), every=turns) for turn in range(turns)]
            continue
        chunk = 0
        while chunk < progress.ends[name]:
            if chunk in done:
                chunk += 1
                continue
            end = chunk + 1
            while end < progress.ends[name] and end not in done and end - chunk < length:
                end += 1
            tasks.append(Task(name, chunk, end))
            chunk = end
    return tasks, progress


class Unfinished(Exception):
    """All tasks are done, and do not make these partitions whole: tasks that shared an archive read it to different ends."""


def run(
    folder: Folder, manifest: Manifest, work: Work, files: Mapping[str, bytes], retry_errors: bool = False
) -> Progress:
    """Do what is left of a run, and give what all its starts have done.

    What Ray itself does not mend, such as the loss of too many machines at once, is mended by looking again at what is left,
    as long as that becomes less.

    Raises
    ------
    ScoringError
        An archive has changed since it was listed, or is read to another end each time.
    ray.exceptions.RayError
        The engine failed, twice without anything done between.
    """
    resources = ray.cluster_resources()
    threads = threads_a_process([node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]])
    cores, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    if work.device == "cuda" and not gpus:
        raise ScoringError("--device cuda: Ray finds no GPU. Leave --device out, or start Ray with one.")
    actors = int(gpus) if work.device == "cuda" else max(1, int(cores))
    before: int | None = None
    earlier: Progress | None = None
    while True:
        tasks, progress = plan(folder, manifest, work, retry_errors, cores, earlier.anew if earlier else ())
        if earlier is None:
            progress.found = progress.whole.images
        else:
            progress.go_on_from(earlier)
        retry_errors, earlier = False, progress
        try:
            _work_through(tasks, progress, folder, manifest, work, files, actors, cores, threads)
            break
        except ray.exceptions.RayError as error:
            if (cause := _own(error)) is not None:
                raise cause from error
            if isinstance(error, ray.exceptions.UserCodeException) or (
                before is not None and progress.whole.images <= before
            ):
                raise
            before = progress.whole.images
            logger.warning("Ray failed (%s); going on with what is left.", str(error).strip().splitlines()[-1])
        except Unfinished as error:
            if before is not None and progress.whole.images <= before:
                raise ScoringError(
                    f"{', '.join(error.args[0][:3])}: an archive was read to another end each time. Look whether it can be "
                    "read to its end; the same command goes on from here."
                ) from error
            before = progress.whole.images
            logger.warning("%d archives could not be read to their end; reading them again.", len(error.args[0]))
    remove(folder.place, _stray(folder))
    write_whole(folder.place, f"{folder.run}/summary.json", json.dumps(asdict(progress.whole), indent=2).encode())
    times = {"images": progress.here, "seconds": progress.seconds, "driver_seconds": progress.driver_seconds}
    times |= {"begun": progress.begun, "marks": progress.marks}
    write_whole(folder.place, f"{folder.run}/times.json", json.dumps(times).encode())
    return progress


def threads_a_process(cores: Sequence[float]) -> int:
    """Choose how many threads share a process, so that as few of the machines' cores as can be are left over.

    Parameters
    ----------
    cores
        Of each machine.
    """
    return max(
        range(1, MOST_THREADS + 1), key=lambda threads: (sum(own // threads for own in cores) * threads, threads)
    )


def _own(error: BaseException) -> ScoringError | None:
    """Find the fault of ours behind one of Ray's."""
    told = re.search(rf"\b{ScoringError.__name__}: (.+)$", str(error), re.MULTILINE)  # all that comes back from a task
    return ScoringError(told.group(1)) if told else None


def _stray(folder: Folder) -> list[str]:
    """List chunks that came after their partition was done, from tasks that were done twice, and notes of such tasks."""
    return [path for part in ("chunks", "begun") for path in _standing(folder, part)]


def _standing(folder: Folder, part: str) -> list[str]:
    """List the files of a folder of the run that have their names; another start may still be writing others."""
    selector = arrow_fs.FileSelector(f"{folder.run}/{part}", allow_not_found=True)
    return [info.path for info in folder.place.filesystem.get_file_info(selector) if UNFINISHED not in info.base_name]


def _work_through(
    tasks: Sequence[Task], progress: Progress, folder: Folder, manifest: Manifest, work: Work, files: Mapping[str, bytes],
    actors: int, cores: float, threads: int,
) -> None:  # fmt: skip
    """Run the stages over the tasks; put a partition together once its last chunk is done, and an archive that tasks share once
    all of them are.

    Raises
    ------
    Unfinished
        Some are not whole then.
    """
    merging: dict[Any, str] = {}
    merged: set[str] = set()
    shared = {task.partition for task in tasks if task.every > 1}
    join = ray.remote(num_cpus=0, max_retries=-1)(merge)

    def put_together(name: str) -> None:
        if name not in merged and progress.is_whole(name):
            paths = [folder.chunk(name, number) for number in sorted(progress.chunks[name])]
            merging[join.remote(folder.place, folder.partition(name), paths, progress.sums[name])] = name
            merged.add(name)

    def finish(all_of_them: bool) -> None:
        while merging and (all_of_them or len(merging) >= MERGES_AT_ONCE):
            [ready], _ = ray.wait(list(merging), num_returns=1)
            name = merging.pop(ready)
            ray.get(ready)
            progress.anew.discard(name)

    try:
        for name in progress.chunks:
            put_together(name)
            finish(False)
        if tasks:
            with Bar(manifest, progress) as bar:
                for done in _stream(tasks, work, files, actors, cores, threads, parted=work.device != "cpu"):
                    partition, chunk = done["partition"], done["chunk"]
                    if chunk in progress.chunks[partition]:
                        continue  # done twice, since a machine was lost; written once
                    progress.note(partition, chunk, Tally(**json.loads(done["tally"])))
                    for name, value in done.items():
                        if name.endswith("_seconds"):
                            progress.seconds[name] = progress.seconds.get(name, 0.0) + value
                    progress.mark(done["reading_wall_seconds"] + done["naming_wall_seconds"])
                    if partition not in shared:
                        put_together(partition)
                        finish(False)
                    bar.show()
        for name in shared:
            put_together(name)
        finish(True)
    except ray.exceptions.RayError:
        if merging:  # else one of them would take away chunks while the next look at what is left counts them
            ended, _ = ray.wait(list(merging), num_returns=len(merging), timeout=MERGES_END_SECONDS)
            for one in ended:
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.get(one)
                    progress.anew.discard(merging[one])
        raise
    if left := sorted(progress.chunks.keys() - merged):
        raise Unfinished(left)


def _stream(
    tasks: Sequence[Task], work: Work, files: Mapping[str, bytes], actors: int, cores: float, threads: int, parted: bool
) -> Iterator[dict]:
    """Give what is known of each chunk when it is done; ``parted``: tasks of their own read for the actors, as for a GPU."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Less than any row: each chunk is a block of its own and is heard of when it is done, not when its task is.
    context.target_max_block_size = 1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it would print comes as an exception, too
    # In a list, so that an actor or a task gets the reference, and can ask for it again when it is started anew.
    common = ray.put({"tasks": list(tasks), "work": work, "files": dict(files)})
    # Ray Data looks every 0.1 s, and holds up a task that has so many blocks waiting; a data set keeps what the context says
    # when it is made.
    context._max_num_blocks_in_streaming_gen_buffer = PIXELS_WAITING if parted else TOLD_WAITING
    # Blocks that are there already: ray.data.range would ask a whole core for making them, and the actors hold the cores.
    numbers = ray.data.from_arrow([pa.table({"id": [number]}) for number in range(len(tasks))])
    if not parted:
        processes = max(1, actors // threads)
        pool = ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=processes,
            initial_size=processes,
            max_tasks_in_flight_per_actor=2 * threads,
            max_concurrent_calls_per_actor=threads,
            enable_true_multi_threading=True,
        )
        options = {"batch_size": 1, "batch_format": "pyarrow", "compute": pool, "num_cpus": threads}
        yield from numbers.map_batches(ReadingNamer, fn_constructor_kwargs={"common": [common]}, **options).iter_rows()
        return
    pixels = numbers.map_batches(
        read_chunks,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"common": [common]},
        num_cpus=READER_CORES,
        compute=ray.data.TaskPoolStrategy(size=max(1, math.ceil(cores if work.fields else cores / 2))),
    )
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors)
    named = pixels.map_batches(
        Namer,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_kwargs={"common": [common]},
        compute=pool,
        num_cpus=ACTOR_CORES,
        **({"num_gpus": 1} if work.device == "cuda" else {}),
    )
    yield from named.iter_rows()


class Bar:
    """Images done, their rate, the time left; where archives keep their number to themselves, a guess by their size."""

    def __init__(self, manifest: Manifest, progress: Progress):
        self.manifest, self.progress = manifest, progress

    def __enter__(self):
        total = None if self.manifest.archives else self.manifest.files
        interval = 0.5 if sys.stderr.isatty() else 10
        done = self.progress.whole.images
        self.bar = tqdm(
            total=total, initial=done, unit=" images", mininterval=interval, smoothing=0.05, dynamic_ncols=True
        )
        self.bar.set_description("starting")
        return self

    def show(self) -> None:
        whole, manifest = self.progress.whole, self.manifest
        self.bar.set_description(refresh=False)
        if manifest.archives and whole.bytes:
            listed = manifest.file_bytes + manifest.archive_bytes
            self.bar.total = max(whole.images, round(whole.images * listed / whole.bytes))
        self.bar.update(whole.images - self.bar.n)
        if self.progress.whole.errors:
            self.bar.set_postfix_str(f"{self.progress.whole.errors} errors", refresh=False)

    def __exit__(self, *fault):
        self.bar.close()
