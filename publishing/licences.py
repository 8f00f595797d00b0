"""The licences: which the Hub knows, under which each data set came, and whether a card says so."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).with_name("sources.csv")
# The Hub's identifiers, https://huggingface.co/docs/hub/repositories-licenses, without those of single models.
# fmt: off
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0", "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0",
    "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1",
    "lgpl-3.0", "isc", "lppl-1.3c", "ms-pl", "mpl-2.0", "odc-by", "odbl", "openrail++", "osl-3.0", "postgresql",
    "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr", "unknown", "other",
})
# fmt: on


@dataclass(frozen=True)
class Source:
    """A data set that images came from.

    Attributes:
        dataset: what the project calls it.
        title: its own name.
        link: where it is.
        licence: as a card states it.
        citation: how it wants to be named.
    """

    dataset: str
    title: str
    link: str
    licence: str
    citation: str


def read_sources() -> dict[str, Source]:
    """Read the data sets, by what the project calls them."""
    with SOURCES.open(newline="", encoding="utf-8") as stream:
        return {row["dataset"]: Source(**row) for row in csv.DictReader(stream)}


def datasets_of(results: Mapping) -> list[str]:
    """Name the data sets that a model was measured on, in order."""
    return list(dict.fromkeys(entry["dataset"] for entry in results["results"]))


def unstated(card: str, source: Source) -> bool:
    """Say whether a card leaves open where a data set is from or under which licence it came.

    Both stand in one line, or the link anywhere and the licence in the section that is about licences.
    """
    for line in card.splitlines():
        if source.link in line and source.licence in line:
            return False
    return source.link not in card or not any(source.licence in text for text in licence_sections(card))


def licence_sections(card: str) -> Iterator[str]:
    """Give the sections of a card whose heading speaks of a licence."""
    for section in re.split(r"^(?=#+ )", card, flags=re.MULTILINE):
        if re.match(r"#+ .*licen[cs]e", section, re.IGNORECASE):
            yield section
