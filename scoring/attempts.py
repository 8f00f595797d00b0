"""What ends the process that looks at it: an image that does so again and again becomes a row with its error.

The engine starts a process that died anew, and what it was doing with it, for ever; one image that a decoder dies of, or for
whose pixels a machine has no memory, would hold up a run of a thousand million. So each chunk leaves a note while it is done.
Where notes say that it was begun ``TIMES`` times and never ended, its images are looked at one at a time, each noted before;
and one at which the process ended ``TIMES_ALONE`` times then is left out. Kills from outside seldom come to the same image so
often. Where it ended ``TIMES_ELSEWHERE`` times in one start and no image was being looked at, such as in the network, no image
is to blame and the run ends with a word about memory.
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator

from scoring.locations import Location, ScoringError
from scoring.results import remove, write_whole

TIMES = 2
TIMES_ALONE = 3
TIMES_ELSEWHERE = 5
_one_at_a_time = threading.Lock()  # of threads that share a process, or a death would be counted to an image of each


class Attempt:
    """A try at a chunk.

    Parameters
    ----------
    place, path
        Where the note stands.
    start
        The start of the program that this try belongs to.

    Raises
    ------
    ScoringError
        The process ended too often in this start, and at no image.
    """

    def __init__(self, place: Location, path: str, start: str = ""):
        self.place, self.path, self.start = place, path, start
        before = self._read()
        self.begun = before.get("begun", 0) + 1
        self.ends = Counter({int(number): times for number, times in before.get("ends", {}).items()})
        self.elsewhere = before.get("elsewhere", 0) if before.get("start") == start else 0
        if before.get("at") is not None:
            self.ends[before["at"]] += 1
        elif before.get("start") == start and before["begun"] > TIMES:  # earlier, nobody noted what was looked at
            self.elsewhere += 1
        self._note(None)
        if self.elsewhere >= TIMES_ELSEWHERE:
            raise ScoringError(
                f"{path}: the process ended {self.elsewhere} times while this chunk was done, and at none of its images. Is "
                "there memory enough? Start again on a machine with more, or with a smaller --chunk and another --out."
            )

    def _read(self) -> dict:
        try:
            with self.place.filesystem.open_input_stream(self.path) as stream:
                return json.loads(stream.read())
        except (OSError, ValueError):
            return {}

    def _note(self, at: int | None) -> None:
        note = {"begun": self.begun, "at": at, "ends": self.ends, "start": self.start, "elsewhere": self.elsewhere}
        write_whole(self.place, self.path, json.dumps(note).encode())

    def ends_processes(self, number: int) -> bool:
        """Say whether the image of this number, counted in the chunk, is to be left out."""
        return self.ends[number] >= TIMES_ALONE

    @contextlib.contextmanager
    def looking_at(self, number: int) -> Iterator[None]:
        """Note that an image is being looked at, where the chunk has been begun too often."""
        if self.begun <= TIMES:
            yield
            return
        with _one_at_a_time:
            self._note(number)
            try:
                yield
            finally:
                self._note(None)

    def end(self) -> None:
        """Take the note away: the chunk is done."""
        remove(self.place, [self.path])
