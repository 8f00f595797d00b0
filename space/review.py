"""A slide's count under review: a person names cells anew or drops them, and takes it back; the count follows."""

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

DROPPED, UNIDENTIFIED = "dropped", "unidentified"


@dataclass
class Options:
    """What a visitor may say about a slide; see the pipeline's ``count``."""

    white_cells_per_microlitre: float | None = None
    laboratory: str | None = None
    reference_ranges: dict[str, list[float]] | None = None


@dataclass
class Slide:
    """The answer for the fields of one slide, what is changed in it, and how its cells look.

    Attributes:
        count: the pipeline.
        answer: ``images``, ``differential`` and ``changes``, as they are kept and reported.
        thumbnails: JPEG of each cell, by the numbers of its image and of itself in it.
        crops: JPEG of each cell as the network is shown it, by the same numbers.
        fields: JPEG of each image, made smaller; None for one that was refused.
        model: name, revision and SHA-256 of the weights.
        token: which slide it is, for the browser.
        taken: number of the last step that was taken over from the browser.
        undone: the cell whose change the last step took back, or None.
    """

    count: Any
    answer: dict[str, Any]
    thumbnails: dict[tuple[int, int], bytes]
    crops: dict[tuple[int, int], bytes]
    fields: list[bytes | None]
    model: Mapping[str, str | None]
    options: Options = field(default_factory=Options)
    lock: threading.Lock = field(default_factory=threading.Lock)
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    taken: int = 0
    undone: tuple[int, int] | None = None
    _before: list[list[tuple[int, int, str | None]]] = field(default_factory=list)  # of each thing that was done

    def __post_init__(self) -> None:
        self.answer.setdefault("changes", [])
        self.answer["differential"]["model"] = dict(self.model)

    @property
    def images(self) -> Sequence[Mapping[str, Any]]:
        return self.answer["images"]

    @property
    def open(self) -> int:
        """Unidentified cells that nobody looked at."""
        return self.answer["differential"]["review"]["unseen"]

    @property
    def choices(self) -> list[str]:
        """What a cell can be named: every class in clinical order, "unidentified", "dropped"."""
        return [*(row["class"] for row in self.answer["differential"]["rows"]), DROPPED]

    def cell(self, image: int, place: int) -> dict[str, Any]:
        """Give a cell.

        Raises:
            ValueError: there is none with these numbers.
        """
        if not (0 <= image < len(self.images) and 0 <= place < len(self.images[image]["cells"])):
            raise ValueError(f"There is no cell {place} in image {image}.")
        return self.images[image]["cells"][place]

    def cells(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Give each cell once, at its first sight: numbers of the image and of the cell, and the cell."""
        for number, image in enumerate(self.images):
            for place, cell in enumerate(image["cells"]):
                if cell["same_as"] is None:
                    yield number, place, cell

    def groups(self) -> dict[str, list[tuple[int, int, dict[str, Any]]]]:
        """Sort the cells as they are looked through: unidentified, the classes in clinical order, the dropped ones; in each the
        surest first."""
        names = self.choices
        order = [UNIDENTIFIED, *(name for name in names if name not in (UNIDENTIFIED, DROPPED)), DROPPED]
        found = {name: [] for name in order}
        for number, place, cell in self.cells():
            found[called(cell)].append((number, place, cell))
        for own in found.values():
            own.sort(key=lambda one: (-one[2]["score"], one[0], one[1]))
        return {name: own for name, own in found.items() if own}

    def take(self, token: str | None, steps: Sequence[Mapping[str, Any]]) -> None:
        """Do what a person said in the browser since the last answer, in order, and count once.

        Args:
            token: the slide that they saw; steps for another are left undone.
            steps: each with its ``number``, which rises through a visit, and either ``cell``, such as "0-1" for cell 1 of image
                0, and ``to``, or ``right``, a class, and ``cells`` of it that nobody named and that are right, or ``undo``. One
                that was taken over already is left out: the browser sends again what nobody answered.

        Raises:
            ValueError: no steps, no such cell or no such choice; the steps before are done.
        """
        if token != self.token:
            return
        changes = len(self.answer["changes"])
        try:
            for step in steps:
                number = int(step["number"])
                if number <= self.taken:
                    continue
                self.taken, self.undone = number, None
                if step.get("undo"):
                    self.undone = self._undo()
                elif "right" in step:
                    self._confirm(str(step["right"]), {str(cell) for cell in step["cells"]})
                else:
                    image, _, place = str(step.get("cell")).partition("-")
                    self._change(int(image), int(place), str(step.get("to")))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"The steps are {steps!r}; expected a list of what was said.") from error
        finally:
            if len(self.answer["changes"]) > changes:
                self.recount()

    def change(self, image: int, place: int, to: str) -> None:
        """Name a cell, drop it, or say that it stays unidentified; count anew and log it.

        A cell that an earlier photo shows is changed there. Nothing happens where the same was said before.

        Raises:
            ValueError: no such cell, or no such choice.
        """
        if self._change(image, place, to):
            self.recount()

    def undo(self) -> None:
        """Take the last change back that was not taken back yet; nothing happens if there is none."""
        if self._undo() is not None:
            self.recount()

    def _change(self, image: int, place: int, to: str) -> bool:
        """Change a cell without counting; say whether it is another now."""
        if to not in self.choices:
            raise ValueError(f"{to!r} is no choice; expected one of {self.choices}.")
        cell = self.cell(image, place)
        if cell["same_as"] is not None:
            image, place = cell["same_as"]
            cell = self.cell(image, place)
        if cell["reviewed"] == to:
            return False
        self._before.append([self._name(image, place, to)])
        return True

    def _confirm(self, name: str, seen: Set[str]) -> None:
        """Say of the cells of a class that were seen, and that nobody named, that they are of it; taken back at once."""
        if name in (UNIDENTIFIED, DROPPED) or name not in self.choices:
            raise ValueError(f"{name!r} is no class of which all cells can be right.")
        unnamed = [(image, place) for image, place, cell in self.groups().get(name, []) if cell["reviewed"] is None]
        own = [(image, place) for image, place in unnamed if f"{image}-{place}" in seen]
        if own:
            self._before.append([self._name(image, place, name) for image, place in own])

    def _name(self, image: int, place: int, to: str) -> tuple[int, int, str | None]:
        """Name a cell and log it; give what is needed to take it back."""
        cell = self.cell(image, place)
        before = cell["reviewed"]
        self._log(image, place, called(cell), to)
        cell["reviewed"] = to
        return image, place, before

    def _undo(self) -> tuple[int, int] | None:
        """Take back what was done last, without counting; give its first cell, None if nothing was done."""
        if not self._before:
            return None
        done = self._before.pop()
        for image, place, before in reversed(done):
            cell = self.cell(image, place)
            self._log(image, place, cell["reviewed"], before or cell["verdict"])
            cell["reviewed"] = before
        return done[0][:2]

    @property
    def can_undo(self) -> bool:
        return bool(self._before)

    def set_options(self, options: Options) -> None:
        """Count with other options.

        Raises:
            ValueError: one of them does not fit; the old ones stay.
        """
        before, self.options = self.options, options
        try:
            self.recount()
        except ValueError:
            self.options = before
            raise

    def recount(self) -> None:
        """Count the cells as they are called now."""
        differential = self.count.count(self.images, **_given(self.options))
        differential["model"] = dict(self.model)
        self.answer["differential"] = differential

    def _log(self, image: int, place: int, before: str, after: str) -> None:
        time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.answer["changes"].append({"image": image, "cell": place, "from": before, "to": after, "time": time})


def called(cell: Mapping[str, Any]) -> str:
    """Say what a cell counts as now."""
    return cell["reviewed"] or cell["verdict"]


def _given(options: Options) -> dict[str, Any]:
    names = {
        "white_cells_per_microlitre": options.white_cells_per_microlitre,
        "laboratory": options.laboratory,
        "references": options.reference_ranges,
    }
    return {name: value for name, value in names.items() if value is not None}
