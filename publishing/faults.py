"""What stands against publishing: faults of a folder, and what the Hub refuses; each is one line with its remedy."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One reason why a folder is not pushed.

    Attributes:
        file: the file, as the user knows it.
        came: what was found.
        expected: what should stand there.
        remedy: what to do, a sentence.
    """

    file: str
    came: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.came.rstrip('.')}; expected {self.expected}. {self.remedy}"


class PublishingError(RuntimeError):
    """Nothing more is pushed; the message names what came, what was expected and the remedy."""


class FolderRefused(PublishingError):
    """A folder has faults, so that nothing was pushed.

    Attributes:
        faults: all that were found.
    """

    def __init__(self, faults: Sequence[Fault]):
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, faults)))
