"""Who works now, and who waits behind: first come, first served."""

import threading
import time
from typing import Self

TICK = 0.2  # seconds between two looks at whether it is one's turn, or at how far something has come


class Cancelled(Exception):
    """The visitor wants no answer any more."""


class Turn:
    """A place in a line, from ``Line.join`` until it is left; as a context it is left at the end."""

    def __init__(self, line: "Line"):
        self._line = line

    @property
    def ahead(self) -> int:
        """How many must leave before this one may begin; 0 where it may, or has left."""
        return self._line._ahead(self)

    def wait(self, stop: threading.Event) -> None:
        """Wait until it may begin.

        Raises:
            Cancelled: ``stop`` was set.
        """
        while True:
            if stop.is_set():
                raise Cancelled
            if not self.ahead:
                return
            time.sleep(TICK)

    def leave(self) -> None:
        """Let the next one begin; a second time does nothing."""
        self._line._leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Line:
    """Those who work, ``at_once`` of them, and behind them those who wait, as they came."""

    def __init__(self, at_once: int = 1):
        self._at_once = at_once
        self._turns: list[Turn] = []
        self._lock = threading.Lock()

    def join(self) -> Turn:
        """Take the last place."""
        turn = Turn(self)
        with self._lock:
            self._turns.append(turn)
        return turn

    def _ahead(self, turn: Turn) -> int:
        with self._lock:
            return max(0, self._turns.index(turn) + 1 - self._at_once) if turn in self._turns else 0

    def _leave(self, turn: Turn) -> None:
        with self._lock:
            if turn in self._turns:
                self._turns.remove(turn)
