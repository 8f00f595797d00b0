"""What a visit holds while it lasts: the fields' answer, its changes, and which files the visitor sent. Nothing outlives it."""

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uploads import forget_older

LONGEST = 3000  # seconds that nothing happened in, after which a visit is over: with SWEEP, within the hour
SWEEP = 300  # seconds between two looks for such visits
REMEMBERED = 10_000  # pages that were closed last


@dataclass
class Visit:
    """One visitor's page, from its first question until it is closed.

    Attributes:
        work: held while the visit is changed.
        cancelled: set to stop what runs.
        slide: the fields' count under review, or None.
        former: one before it in which something was changed, or None.
        untouched: the last one that was put aside with no change in it, of which a first one may still be on its way, or None.
        started_over: the visitor took the slide away, and none was counted since.
        laboratory: what the visitor's laboratory brought, by name.
        files: what was sent, or the folders that it lies in, to be deleted with the visit.
        waiting: the same of what questions brought that are not answered yet; ``Visits.forget_files`` leaves it.
    """

    work: threading.RLock = field(default_factory=threading.RLock)
    cancelled: threading.Event = field(default_factory=threading.Event)
    slide: Any = None
    former: Any = None
    untouched: Any = None
    started_over: bool = False
    laboratory: dict[str, Any] = field(default_factory=dict)
    files: set[Path] = field(default_factory=set)
    waiting: set[Path] = field(default_factory=set)
    touched: float = field(default_factory=time.monotonic)


class Visits:
    """The visits that last, by gradio's random name of each page."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._visits: dict[str, Visit] = {}
        self._left: OrderedDict[str, None] = OrderedDict()  # names of closed pages
        self._lock = threading.Lock()
        self._clock = clock
        self._swept = clock()

    def of(self, name: str) -> Visit:
        """Give the visit of this name, a new one if there is none."""
        now = self._clock()
        if now - self._swept > SWEEP:
            self.sweep()
        with self._lock:
            visit = self._visits.setdefault(name, Visit())
            visit.touched = now
            return visit

    def find(self, name: str) -> Visit | None:
        """Give the visit of this name, if there is one."""
        with self._lock:
            return self._visits.get(name)

    def expect(self, name: str, folders: Iterable[Path]) -> None:
        """Note what came with a question, to go with its visit if that is closed before the answer.

        Of a page that was closed nothing is noted and nothing deleted: its connection may only have broken, and whoever answers
        keeps or deletes what came.
        """
        with self._lock:
            if name in self._left and name not in self._visits:
                return
            visit = self._visits.setdefault(name, Visit())
            visit.touched = self._clock()
            # what is gone was answered
            visit.waiting = {folder for folder in visit.waiting.union(folders) if folder.is_dir()}

    def keep(self, name: str, path: Path) -> None:
        """Note a file that a visit sent, or its folder, to go with it: at once where the page was closed before its answer."""
        with self._lock:
            if name in self._visits or name not in self._left:  # a page whose connection broke comes back
                visit = self._visits.setdefault(name, Visit())
                visit.touched = self._clock()
                visit.waiting.discard(path)
                visit.files.add(path)
                return
            forgotten = self._only_of({path})
        _delete(forgotten)

    def leave(self, name: str) -> None:
        """Close the visit of a page that was closed, and let nothing of it be kept that is answered later."""
        with self._lock:
            self._left[name] = None
            while len(self._left) > REMEMBERED:
                self._left.popitem(last=False)
        self.close(name)

    def close(self, name: str) -> None:
        """Stop what a visit still does and forget it, with the files that it sent and no other visit did."""
        with self._lock:
            visit = self._visits.pop(name, None)
            if visit is None:
                return
            forgotten = self._only_of(visit.files | visit.waiting)
        visit.cancelled.set()
        _delete(forgotten)

    def forget_files(self, name: str) -> None:
        """Delete the files that a visit sent and no other visit did, but for those whose answer it waits for."""
        with self._lock:
            visit = self._visits.get(name)
            if visit is None:
                return
            sent, visit.files = visit.files, set()
            forgotten = self._only_of(sent)
        _delete(forgotten)

    def _only_of(self, paths: set[Path]) -> set[Path]:
        """Give those of the paths that no visit holds; under the lock."""
        return paths - set().union(*(visit.files | visit.waiting for visit in self._visits.values()))

    def sweep(self) -> None:
        """Close the visits that are over."""
        self._swept = self._clock()
        with self._lock:
            over = [name for name, visit in self._visits.items() if self._swept - visit.touched > LONGEST]
        for name in over:
            self.close(name)
        forget_older(LONGEST)  # also what came without a visit

    def keep_sweeping(self) -> None:
        """Look for such visits as long as the program runs, also where nobody comes any more."""

        def sweep() -> None:
            while True:
                time.sleep(SWEEP)
                self.sweep()

        threading.Thread(target=sweep, name="sweep visits", daemon=True).start()

    def __len__(self) -> int:
        return len(self._visits)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
