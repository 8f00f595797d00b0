"""What a fresh process costs: seconds from its start to the first answer, resident memory, and memory over many images."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.timing import figure, ratios

DROP = Path("/proc/sys/vm/drop_caches")
TORCH = "torch alone"
LIBRARIES = "the libraries alone: torch, torchvision, transformers' pipeline"
# The most resident memory of this program, in bytes. (What getrusage tells counts that of the process which started it.)
RESIDENT = """
def resident():
    with open("/proc/self/status") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
"""
# Each prints the time, since the epoch, at which it was ready, and its memory.
HEAD = """
import sys, time
folder, image = sys.argv[1:3]
"""
TAIL = """
ready = time.time()
{after}
print(ready, resident())
"""
PROGRAMS = {
    TORCH: ("import torch", ""),
    LIBRARIES: (
        "import torch, torchvision\nfrom transformers import ImageClassificationPipeline, pipeline\n"
        "from transformers import AutoModelForImageClassification, AutoImageProcessor",
        "",
    ),
    "the plain door": (
        "from transformers import pipeline\n"
        "classify = pipeline('image-classification', folder, trust_remote_code=False, device='cpu')",
        "classify(image)",
    ),
    "our pipeline": (
        "from transformers import pipeline\n"
        "classify = pipeline(model=folder, trust_remote_code=True, device='cpu', one_cell=True)",
        "classify(image)",
    ),
}
STREAM = """
import sys
from transformers import pipeline
folder, image, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
classify = pipeline(model=folder, trust_remote_code=True, device="cpu", one_cell=True)
for answer in classify(image for _ in range(number)):
    pass
print(resident())
"""
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1"}


def _run(program: str, *arguments: Any) -> list[float]:
    """Run a program of Python in a fresh process; gives the numbers that it prints last.

    Raises:
        RuntimeError: it ended with an error.
    """
    command = [sys.executable, "-c", RESIDENT + program, *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"A fresh process failed: {done.stderr[-2000:]}")
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


def drop_caches() -> None:
    """Make the system forget what it has read of files, which only root may.

    Raises:
        PermissionError: somebody else runs this.
    """
    os.sync()
    DROP.write_text("3\n")


def measure_start(folder: Path, image: Path, repeats: int, drop: bool = False) -> list[dict[str, Any]]:
    """Time imports and loading in fresh processes, and read their memory after one answer.

    Args:
        drop: let the files be read from the disk each time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    memory: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(repeats):
        for name, (ready, after) in PROGRAMS.items():
            if drop:
                drop_caches()
            begun = time.time()
            at, resident = _run(HEAD + ready + TAIL.format(after=after), folder, image)
            seconds[name].append(at - begun)
            memory[name].append(resident / 1e6)
    files = "files from the disk" if drop else "files in the system's cache"
    section = f"A fresh process: imports and loading, {files}"
    plain = "the plain door"
    figures = []
    for name, times in seconds.items():
        if name != LIBRARIES:
            most = {"of": "value", "at_most": 5.0} if name == plain else None
            figures.append(figure(section, name, LIBRARIES, ratios(times, seconds[LIBRARIES]), times, "s", most))
    if not drop:
        for name, sizes in memory.items():
            if name != LIBRARIES:
                most = {"of": "value", "at_most": 700.0} if name == plain else None
                ratio = ratios(sizes, memory[LIBRARIES])
                figures.append(figure("Most memory after one answer", name, LIBRARIES, ratio, sizes, "MB", most))
    return figures


def measure_memory(folder: Path, image: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Read how much memory a stream of more images takes than one of fewer, each in a fresh process."""
    few, many = ([size / 1e6 for size in _run(STREAM, folder, image, number)] for number in numbers)
    what, beside = (f"a stream of {number:,} images" for number in reversed(numbers))
    wanted = {"of": "ratio", "at_most": 1.1}
    return [figure("Most memory over a stream", what, beside, ratios(many, few), many, "MB", wanted)]
