"""A sentence in English that also says which one it is, and with what: so that a page can say it in its reader's language.

    warning = say("few_cells", f"Only {number} cells were counted.", number=number)
    warning  # a str: in JSON, in a report, in a log, pickled, nothing is changed
    warning.which, warning.values  # "few_cells", {"number": 12}

Whoever only reads needs none of this; a page looks ``which`` up in its own texts, and shows the English where it has none.
"""

from collections.abc import Mapping
from typing import Any


class Sentence(str):
    """A sentence in English.

    Attributes:
        which: one name for the same sentence with other values; None where it has none.
        values: what a translation puts in: numbers, names, or further sentences. Three names mean something to the page:
            ``number`` decides between singular and plural, ``label`` is a class, ``labels`` pairs of a class and a number.
    """

    which: str | None
    values: Mapping[str, Any]

    def __new__(cls, text: str, which: str | None = None, values: Mapping[str, Any] | None = None) -> "Sentence":
        made = super().__new__(cls, text)
        made.which, made.values = which, dict(values or {})
        return made

    def __copy__(self) -> "Sentence":
        return self  # nothing in it changes

    def __deepcopy__(self, memo: Mapping) -> "Sentence":
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Pickle the text alone: whoever reads it may have no code of this folder, which on the Hub has a name of its own."""
        return str, (str(self),)


def say(which: str, text: str, /, **values: Any) -> Sentence:
    """Give the sentence ``text``, finished, in English, and with it which one it is and the values that it was made with."""
    return Sentence(text, which, values)
