"""What ends the process that looks at it: an image that does so again and again becomes a row with its error.

The engine starts a process that died anew, and what it was doing with it, for ever; one image that a decoder dies of, or for
whose pixels a machine has no memory, would hold up a run of a thousand million. So each chunk leaves a note while it is done.
Where notes say that it was begun ``TIMES`` times and never ended, its images are looked at one at a time, each noted before;
and one at which the process ended ``TIMES_ALONE`` times then is left out. Kills from outside seldom come to the same image so
often. What dies elsewhere, such as in the network, is tried for ever.
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator

from scoring.locations import Location
from scoring.results import remove, write_whole

TIMES = 2
TIMES_ALONE = 3
_one_at_a_time = threading.Lock()  # of threads that share a process, or a death would be counted to an image of each


class Attempt:
    """A try at a chunk.

    Parameters
    ----------
    place, path
        Where the note stands.
    """

    def __init__(self, place: Location, path: str):
        self.place, self.path = place, path
        before = self._read()
        self.begun = before.get("begun", 0) + 1
        self.ends = Counter({int(number): times for number, times in before.get("ends", {}).items()})
        if before.get("at") is not None:
            self.ends[before["at"]] += 1
        self._note(None)

    def _read(self) -> dict:
        try:
            with self.place.filesystem.open_input_stream(self.path) as stream:
                return json.loads(stream.read())
        except (OSError, ValueError):
            return {}

    def _note(self, at: int | None) -> None:
        note = {"begun": self.begun, "at": at, "ends": self.ends}
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
