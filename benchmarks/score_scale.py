"""How score.py grows: with the number of images, and with the number of machines; and what a thousand million cells would take.

    python benchmarks/score_scale.py hub_model --images blood-cells --out benchmarks/score.json --page docs/score.md

Links to the given images make as many as are asked for. ``--side`` shrinks what the network sees, so that what surrounds the
network, where growth would show, is most of the work; the rates for the page, and what score.py holds as it comes, are measured
at the model's own size. Machines are Ray's own test cluster: each node is held to one core of its own by the operating system.
Times are of a machine with nothing else to do, or they say little; processor seconds, which are told beside them, suffer less
from company. A short run, to see that all works: ``--sizes 1000 3000 --node_images 300 --held_images 300 --repeats 1``.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.table import compare_conditions, moved, reported, source_commit
from evaluation.results import without_folders
from hub_model.pipeline_wbc_resnet import has_bfloat16

ROOT = Path(__file__).resolve().parent.parent
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
CELLS = 10**9
FLAT, MOST_BYTES = 0.10, 2e9  # what the cost of an image may move by, and what a run may hold beyond Ray's store
# A driver that does nothing but hear of chunks: of one image each, of so few pixels.
DRIVER_CHUNKS, DRIVER_SIDE = 2000, 32


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", type=Path, help="the model's folder")
    add("--images", type=Path, required=True, help="folder of images of cells, of any depth")
    add(
        "--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="numbers of images whose cost is compared"
    )
    add("--side", type=int, default=64, help="px, what the network sees while growth is measured (default: 64)")
    add("--node_images", type=int, default=2000, help="images for one node and for two, at the model's own size")
    add("--held_images", type=int, default=2000, help="images of each kind of input whose memory is measured")
    add("--repeats", type=int, default=3, help="of one node and two; the median counts")
    add("--chunk", type=int, default=64, help="images of a chunk")
    add("--out", type=Path, required=True, help="a JSON file")
    add("--compare", type=Path, help="an earlier JSON file: say what moved (default: what --out held)")
    add("--page", type=Path, help="a Markdown file, rendered from the JSON file")
    add("--render_only", action="store_true", help="measure nothing; render --page from --out as it is")
    return parser.parse_args(arguments)


def link(images: Sequence[Path], number: int, folder: Path) -> None:
    """Fill a folder with links, a thousand to a subfolder."""
    for position, image in enumerate(islice(cycle(images), number)):
        place = folder / f"{position // 1000:04}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{position:07}{image.suffix}").symlink_to(image.resolve())


def shrunk(model: Path, side: int, folder: Path) -> Path:
    """Copy a model with another size in its image processor."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(model / name, folder / name)
    processor = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    processor["size"] = {"height": side, "width": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


class Memory(threading.Thread):
    """The largest memory of a process and all it started, without what they share in Ray's store, in bytes.

    Each page is counted once, in parts, among the processes that hold it (PSS); the store is shared memory in /dev/shm.
    """

    def __init__(self, process: psutil.Process):
        super().__init__(daemon=True)
        self.process, self.most, self.ended = process, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(2):
            total = 0
            for process in [self.process, *self.process.children(recursive=True)]:
                try:
                    total += private(process)
                except (psutil.Error, OSError, ValueError):
                    continue  # it ended meanwhile
            self.most = max(self.most, total)


def private(process: psutil.Process) -> int:
    """Give the share of a process in memory, without shared memory that holds Ray's store."""
    fields = {}
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, value = line.split(":")
        fields[name] = 1024 * int(value.split()[0])
    return fields["Pss"] - fields.get("Pss_Shmem", 0)


def command_for(inputs: Path, out: Path, model: Path, chunk: int) -> list[str]:
    command = [sys.executable, str(ROOT / "score.py"), str(inputs), "--out", str(out), "--model", str(model)]
    return [*command, "--chunk", str(chunk)]


def driver(options: argparse.Namespace, images: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Find out how many chunks a second the one process could hear of that deals them out, by its processor time a chunk."""
    model, out = shrunk(options.model, DRIVER_SIDE, folder / "driver-model"), folder / "driver-scores"
    link(images, DRIVER_CHUNKS, folder / "driver")
    command = command_for(folder / "driver", out, model, 1)
    command += ["--partition", "64"]  # few files to put together at the end
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    times = json.loads((out / "__score" / "times.json").read_text(encoding="utf-8"))
    (_, begun), (_, ended) = times["marks"][0], times["marks"][-1]
    heard = DRIVER_CHUNKS - 1
    return {
        "chunks": DRIVER_CHUNKS,
        "processor_milliseconds": 1000 * times["driver_seconds"] / heard,
        "chunks_per_second": heard / (ended - begun),
    }


def watched(command: Sequence[str], out: Path) -> dict[str, Any]:
    """Run score.py as a user would, by the command; give its seconds, its memory, and what it noted."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    memory = Memory(psutil.Process(process.pid))
    memory.start()
    if process.wait():
        sys.exit(f"error: {' '.join(command)} ended with {process.returncode}; see above.")
    memory.ended.set()
    times = json.loads((out / "__score" / "times.json").read_text(encoding="utf-8"))
    return {"whole_seconds": time.perf_counter() - started, "peak_memory_bytes": memory.most, "times": times}


def grow(options: argparse.Namespace, images: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Score each number of images; give the costs."""
    model, rows = shrunk(options.model, options.side, folder / "model"), []
    for number in options.sizes:
        link(images, number, folder / f"{number}")
        out = folder / f"scores-{number}"
        seen = watched(command_for(folder / f"{number}", out, model, options.chunk), out)
        rows.append({"images": number, **costs(seen.pop("times")), **seen})
        shutil.rmtree(folder / f"{number}")
        shutil.rmtree(out)
    return rows


def hold(options: argparse.Namespace, images: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Measure the memory of score.py as it comes, at the model's own size, by what it reads and keeps."""
    number, rows = options.held_images, []
    link(images, number, folder / "held")
    (folder / "tars").mkdir()
    for shard in range(3):
        with tarfile.open(folder / "tars" / f"{shard}.tar", "w") as archive:
            for position, image in enumerate(islice(cycle(images), number)):
                if position % 3 == shard:
                    archive.add(image, f"{position:07}{image.suffix}")
    for kind, inputs in (("files", folder / "held"), ("3 tars", folder / "tars")):
        for extra in ([], ["--embedding"]):
            out = folder / f"held-{kind}{''.join(extra)}"
            command = [
                sys.executable,
                str(ROOT / "score.py"),
                str(inputs),
                "--out",
                str(out),
                "--model",
                str(options.model),
            ]
            seen = watched([*command, *extra], out)
            rows.append(
                {"inputs": kind, "options": extra, "images": number, "peak_memory_bytes": seen["peak_memory_bytes"]}
            )
    return rows


def costs(times: dict[str, Any]) -> dict[str, float]:
    """Give milliseconds an image, of all and of the middle half, and processor milliseconds by stage.

    The clock runs from when the first chunk is begun to when the last is done: starting Ray and the libraries takes as long for
    a thousand images as for a million. The middle half leaves out also the network's first passes and, at the end, cores
    without a chunk.
    """
    marks, number, seconds = times["marks"], times["images"], times["seconds"]

    def reached(share: float) -> tuple[int, float]:
        return next((done, when) for done, when in marks if done >= share * number)

    (done, begun), (last, ended) = reached(0.25), reached(0.75)
    return {
        "milliseconds": 1000 * (marks[-1][1] - times["begun"]) / number,
        "middle_milliseconds": 1000 * (ended - begun) / max(1, last - done),
        "start_seconds": times["begun"],
        "reading_processor_milliseconds": 1000 * seconds["reading_cpu_seconds"] / number,
        "naming_processor_milliseconds": 1000 * seconds["naming_cpu_seconds"] / number,
    }


def nodes(options: argparse.Namespace, images: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Compare one node of one core with two, at the model's own size."""
    link(images, options.node_images, folder / "nodes")
    cores = sorted(os.sched_getaffinity(0))[:2]
    rates: dict[int, list[float]] = {1: [], 2: []}
    stages: list[dict[str, float]] = []  # of one node: a second one shares caches and memory with it
    for repeat in range(options.repeats):
        for count in (1, 2):
            out = folder / f"nodes-{count}-{repeat}"
            cost = on_nodes(options, folder / "nodes", out, cores[:count])
            rates[count].append(1000 / cost["milliseconds"])
            stages += [cost] if count == 1 else []
    one, two = (statistics.median(rates[count]) for count in (1, 2))
    report = {
        "images": options.node_images,
        "one_node_images_per_second": rates[1],
        "two_nodes_images_per_second": rates[2],
    }
    report["efficiency"] = two / (2 * one)
    report["stages_of"] = "one node"
    if has_bfloat16():
        bfloat16 = [
            on_nodes(
                options, folder / "nodes", folder / f"nodes-bfloat16-{repeat}", cores[:1], ["--precision", "bfloat16"]
            )
            for repeat in range(options.repeats)
        ]
        report["one_node_bfloat16_images_per_second"] = [1000 / cost["milliseconds"] for cost in bfloat16]
    for stage in ("reading", "naming"):
        name = f"{stage}_processor_milliseconds"
        report[name] = statistics.median(cost[name] for cost in stages)
    return report


def on_nodes(
    options: argparse.Namespace, inputs: Path, out: Path, cores: Sequence[int], extra: Sequence[str] = ()
) -> dict[str, float]:
    """Score on a test cluster whose nodes have one core each, held to it."""
    from ray.cluster_utils import Cluster

    everywhere = os.sched_getaffinity(0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200_000_000})
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})  # what a node starts inherits it
            cluster.add_node(num_cpus=1, object_store_memory=400_000_000)
        os.sched_setaffinity(0, everywhere)
        command = [*command_for(inputs, out, options.model, options.chunk), *extra]
        subprocess.run(
            command, env=os.environ | {"RAY_ADDRESS": cluster.address}, stdout=subprocess.DEVNULL, check=True
        )
    finally:
        os.sched_setaffinity(0, everywhere)
        cluster.shutdown()
    return costs(json.loads((out / "__score" / "times.json").read_text(encoding="utf-8")))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure growth and scaling."""
    images = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in ENDINGS)[:2000]
    if not images:
        sys.exit(f"error: {options.images} holds no {', '.join(ENDINGS)}. Name a folder of images of cells.")
    report: dict[str, Any] = {
        "command": without_folders(shlex.join(["python", *sys.argv])),
        "commit": source_commit(ROOT),
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "load_before": os.getloadavg()[0]},
        "versions": {"python": platform.python_version()},
        "mean_bytes": statistics.mean(path.stat().st_size for path in images),
        "side": options.side,
        "chunk": options.chunk,
    }
    for library in ("ray", "torch", "transformers", "pyarrow"):
        report["versions"][library] = __import__(library).__version__
    folder = Path(tempfile.mkdtemp(prefix="wbc-scale-"))
    try:
        report["nodes"] = nodes(options, images, folder)
        report["growth"] = grow(options, images, folder)
        report["held"] = hold(options, images, folder)
        report["driver"] = driver(options, images, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report["machine"]["load_after"] = os.getloadavg()[0]
    return report


def processor_name() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def judged(growth: Sequence[dict[str, Any]], held: Sequence[dict[str, Any]]) -> str:
    """Say whether the cost of an image is flat and the memory within its limit."""
    ratios = [row["milliseconds"] / growth[0]["milliseconds"] for row in growth]
    met = all(abs(ratio - 1) <= FLAT for ratio in ratios)
    text = f"**Cost of an image**, to be flat within {FLAT:.0%}: {'met' if met else '**not met**'}, from {min(ratios):.3f} to "
    text += f"{max(ratios):.3f} of the first."
    if max(ratios) > 1 + FLAT:
        text += " It grows."
    elif min(ratios) < 1 - FLAT:
        worked = [row["reading_processor_milliseconds"] + row["naming_processor_milliseconds"] for row in growth]
        text += f"""
It falls, so nothing in it grows with the number of images; its processor time falls to {min(worked) / worked[0]:.3f} of the
first. Likely, because a longer run shares among more images what comes once: each thread's first passes, images not in the
machine's caches yet, Ray's own processes starting beside it, and cores left without a chunk at the end."""
    middles = [row.get("middle_milliseconds") for row in growth]
    if all(middles):
        kept = [middle / middles[0] for middle in middles]
        text += f"""
The middle half of each run, which leaves start and end out: {", ".join(f"{middle:.2f}" for middle in middles)} ms,
{min(kept):.3f} to {max(kept):.3f} of the first."""
    most = max(row["peak_memory_bytes"] for row in [*growth, *held])
    text += f"""

**Memory beyond Ray's store**, to be at most {MOST_BYTES / 1e9:.0f} GB in all that was measured:
{"met" if most <= MOST_BYTES else "**not met**"}, {most / 1e9:.2f} GB at most."""
    if held:
        rows = "\n".join(
            f"| {row['inputs']} | {' '.join(f'`{option}`' for option in row['options'])} | {row['images']:,} | "
            f"{row['peak_memory_bytes'] / 1e9:.2f} |"
            for row in held
        )
        text += f"""
At the model's own size and with the options that score.py has by itself:

| inputs | options | images | GB beyond the store |
|---|---|--:|--:|
{rows}
"""
    return text


def driven(driver: dict[str, Any] | None, cells: float) -> str:
    """Say whether the driver can hear of all chunks where ``cells`` images a second are named."""
    heard = cells / 256
    text = f"all cores together end {heard:,.0f} chunks of 256 a second, and one process hears of each.\n   "
    if driver is None:
        return text + "How many it could hear of is not measured; larger chunks (`--chunk 4096`) ask less of it."
    most, chunk = 1000 / driver["processor_milliseconds"], 256
    while cells / chunk > most / 2:
        chunk *= 2
    made = driver["chunks_per_second"]
    text += f"""With chunks of one image it heard of {made:,.0f} a second on this machine, whose cores made them too;
   {driver["processor_milliseconds"]:.2f} ms of a core went to each, so that {most:,.0f} a second are its limit: """
    if heard <= most / 2:
        return text + "enough, with at least half of it to spare."
    soon = "" if heard > most else " soon"
    return (
        text
        + f"**it is the bottleneck**{soon}\n   unless chunks are larger; `--chunk {chunk}` leaves at least half of it to spare."
    )


def page(report: dict[str, Any]) -> str:
    """Write the page: what was measured, and the arithmetic for a thousand million cells."""
    growth, node = report["growth"], report["nodes"]
    reading, naming = node["reading_processor_milliseconds"], node["naming_processor_milliseconds"]
    one = statistics.median(node["one_node_images_per_second"])
    two = statistics.median(node["two_nodes_images_per_second"])
    core = one * node["efficiency"]  # images/s of a core beside others, by which all below goes
    core_hours = CELLS / core / 3600
    machines, cores = 100, 64
    hours = core_hours / (machines * cores)
    terabytes = CELLS * report["mean_bytes"] / 1e12
    base = growth[0]["milliseconds"]
    middle = f"median of {len(node['one_node_images_per_second'])}"
    stages_of = node.get("stages_of", "one node and two taken together, of which two are slower")
    anew = all("middle_milliseconds" in row for row in growth)
    start = "s until the first chunk is begun" if anew else "s until the first task is done"
    rows = "\n".join(
        f"| {row['images']:,} | {row['milliseconds']:.2f} | {row['milliseconds'] / base:.3f} | "
        f"{row['reading_processor_milliseconds']:.2f} + {row['naming_processor_milliseconds']:.2f} | "
        f"{row['start_seconds']:.0f} | {row['peak_memory_bytes'] / 1e9:.2f} |"
        for row in growth
    )
    busy = max(report["machine"]["load_before"], report["machine"]["load_after"])
    company = (
        f"\n**The machine was not idle** (load {busy:.1f} on {report['machine']['cores']} cores): clock times and ratios "
        "below say little, processor times more.\n"
        if busy > report["machine"]["cores"] + 1
        else ""
    )
    measured_by = f"; commit {report['commit'][:12]}, `{report['command']}`" if "commit" in report else ""
    quick = node.get("one_node_bfloat16_images_per_second")
    bfloat16 = (
        f"\nIn bfloat16 (`--precision bfloat16`) the same node does {statistics.median(quick):.1f} images/s, "
        f"{statistics.median(quick) / one:.2f} times as many."
        if quick
        else ""
    )
    return f"""# A thousand million cells

Rendered by `benchmarks/score_scale.py` from `{report["source"]}`; {report["machine"]["processor"]},
{report["machine"]["cores"]} cores; Ray {report["versions"]["ray"]}, PyTorch {report["versions"]["torch"]},
float32{measured_by}.
{company}
## What was measured

With the number of images (network at {report["side"]} px, so that what surrounds it counts; chunks of {report["chunk"]}):

| images | ms an image | against the first | processor ms, reading + naming | {start} | GB beyond the store |
|--:|--:|--:|--:|--:|--:|
{rows}

{judged(growth, report.get("held", []))}
Up to four cores share a process and its network, so that four more cores take one process more: most of that memory is
the libraries of one such process, and of Ray's own.

At the model's own size, a node of one core does {one:.1f} images/s, that is {1000 / one:.1f} ms an image; two nodes do
{two:.1f}: an efficiency of {node["efficiency"]:.0%} ({node["images"]:,} images, {middle}).
Of processor time an image takes {reading:.1f} ms to read, decode and resize and {naming:.1f} ms to name and write
({stages_of}).{bfloat16}

## The arithmetic

- A core beside others: {one:.1f} images/s x {node["efficiency"]:.0%} = {core:.1f} images/s. What two nodes of one machine
  lose is taken to be what many machines lose; more is not measured.
- 10^9 images / {core:.1f} images/s = {core_hours:,.0f} core hours.
- {machines} machines of {cores} such cores: **{hours:,.1f} hours**; one such machine: {hours * machines / 24:,.1f} days.
- Images of {report["mean_bytes"] / 1000:.1f} kB are {terabytes:,.1f} TB to read,
  {1e3 * terabytes * 8 / (hours * 3600):,.1f} Gbit/s over all machines.
- Pixels stay in the process that reads and names them. Where a GPU parts the two, they are
  150,528 bytes an image at 224 px, {150_528 * core * cores / 1e6:,.0f} MB/s within each machine, through shared memory.
- Results: about 0.1 kB a row, 0.1 TB; with the 512 features 2 kB a row, 2 TB. Files of results: {CELLS / 16384:,.0f}.

**What costs**: the network's arithmetic is {naming / (reading + naming):.0%} of the processor time, decoding and resizing the
rest. Cores are the bottleneck, until a machine's cores ask for more than its network card gives: at
{report["mean_bytes"] / 1000:.1f} kB an image, a core reads {core * report["mean_bytes"] / 1e6:.2f} MB/s.

**What changes first**

1. The driver: {driven(report.get("driver"), machines * cores * core)}
   It holds a number a chunk, {CELLS // 256:,} of them at 256.
2. The network in bfloat16 (`--precision bfloat16`) on processors that compute in it, or on GPUs (`--device cuda`): then
   decoding and resizing, {reading:.1f} ms of a core an image, is the bottleneck: an accelerator that names 5,000 images/s needs
   {5 * reading:.0f} cores beside it.
3. How images lie: a thousand million files take {CELLS / 1000:,.0f} listing requests at an object store, one after
   another, a day or more; {CELLS // 10_000:,} tars of 10,000 take minutes. Where there are fewer tars or Parquet files than
   cores, up to eight tasks read the same one, each naming chunks of its own; so there should be as many as cores.
"""


def compare(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """Say what moved by more than a tenth: cost of an image, memory, rates and efficiency; and what else is another."""
    machines = [{name: run["machine"][name] for name in ("processor", "cores")} for run in (new, old)]
    told = compare_conditions("another machine", *machines, "; costs may differ for that")
    settings = [
        {"side": run["side"], "chunk": run["chunk"], "images of nodes": run["nodes"]["images"]} for run in (new, old)
    ]
    told += compare_conditions("measured otherwise", *settings, "; costs may differ for that")
    told += compare_conditions("another version", new["versions"], old["versions"])
    now, then = numbers(new), numbers(old)
    told += [f"new: {name}" for name in now if name not in then]
    told += [line for name in now if name in then for line in moved(name, now[name], then[name])]
    return told + [f"gone: {name}" for name in then if name not in now]


def numbers(report: dict[str, Any]) -> dict[str, float]:
    """Give what is compared, by name."""
    node, growth = report["nodes"], report["growth"]
    found = {
        "one node, images a second": statistics.median(node["one_node_images_per_second"]),
        "two nodes, images a second": statistics.median(node["two_nodes_images_per_second"]),
        "two nodes, efficiency": node["efficiency"],
    }
    for stage in ("reading", "naming"):
        found[f"nodes, {stage}, processor ms an image"] = node[f"{stage}_processor_milliseconds"]
    for row in growth:
        name = f"{row['images']:,} images"
        found[f"{name}, ms an image"] = row["milliseconds"]
        found[f"{name}, cost against the first"] = row["milliseconds"] / growth[0]["milliseconds"]
        for stage in ("reading", "naming"):
            found[f"{name}, {stage}, processor ms an image"] = row[f"{stage}_processor_milliseconds"]
        found[f"{name}, GB beyond the store"] = row["peak_memory_bytes"] / 1e9
    for row in report.get("held", []):
        name = " ".join([row["inputs"], *row["options"]])
        found[f"{name}, GB beyond the store"] = row["peak_memory_bytes"] / 1e9
    if "one_node_bfloat16_images_per_second" in node:
        found["one node in bfloat16, images a second"] = statistics.median(node["one_node_bfloat16_images_per_second"])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if not options.render_only:
        try:
            earlier = reported(options.compare or options.out, needed=options.compare is not None)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        report = measure(options) | {"source": options.out.name}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if earlier is not None:
            for line in compare(report, earlier) or ["nothing moved by more than a tenth"]:
                print(line, file=sys.stderr)  # the report itself goes to standard output
    report = json.loads(options.out.read_text(encoding="utf-8"))
    if options.page:
        options.page.parent.mkdir(parents=True, exist_ok=True)
        options.page.write_text(page(report), encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
