"""Licences and citations: every library, data set and font is named with its licence, and the citation file is well formed."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError

import pytest
import yaml
from conftest import REPOSITORY

from evaluation.results import read_results
from publishing import licences, third_party
from publishing.licences import HUB_LICENCES, datasets_of, read_sources, unstated

TEXT = (REPOSITORY / "THIRD_PARTY.md").read_text("utf-8")
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_library_is_named_with_its_licence():
    names = re.findall(r"^(?:# .*\n)*([\w-]+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert len(names) > 30 and not third_party.missing(TEXT)
    rows = dict(re.findall(r"^\| ([\w-]+) \| (.+?) \| https://", TEXT, re.MULTILINE))
    assert set(names) <= rows.keys() and "mcp" in rows, "the Space's, too"
    assert {"torch", "timm", "gradio"} <= {name for name, licence in rows.items() if "Apache" in licence}
    assert not [name for name, licence in rows.items() if re.search("unknown|proprietary|AGPL", licence, re.IGNORECASE)]


def test_a_library_a_data_set_or_a_font_that_is_not_named_is_noticed(capsys, monkeypatch, tmp_path):
    without = "\n".join(line for line in TEXT.splitlines() if not re.match(r"\| (timm|\[WBC_Dataset)", line))
    absent = third_party.missing(without.replace("`space/fonts/DejaVuSans.ttf`", ""))
    assert absent == [
        "timm",
        "WBC_Dataset, Chulalongkorn University, Bangkok (500 fields)",
        "space/fonts/DejaVuSans.ttf",
    ]
    monkeypatch.setattr(third_party, "FILE", tmp_path / "THIRD_PARTY.md")
    assert third_party.main(["--check"]) == 1
    assert "does not name torch, torchvision" in capsys.readouterr().err
    assert third_party.main([]) == 0 and third_party.main(["--check"]) == 0


def test_a_package_that_states_no_licence_is_not_passed_over(monkeypatch, capsys):
    with pytest.raises(PackageNotFoundError):
        third_party.licence_of("no-such-package")
    monkeypatch.setattr(third_party, "metadata", lambda _: yaml.safe_load("{}") or _Bare())
    monkeypatch.setattr(third_party, "files_of", lambda _: [])
    with pytest.raises(ValueError, match="torch states no licence; expected one in its metadata"):
        third_party.licence_of("torch")
    assert third_party.main([]) == 2 and "states no licence" in capsys.readouterr().err


class _Bare(dict):
    """Metadata without any statement."""

    def get_all(self, name, default=None):
        return default


def test_every_data_set_that_was_measured_has_a_licence_and_the_card_says_so():
    results = read_results(REPOSITORY / "hub_model" / "eval_results.json")
    card = (REPOSITORY / "hub_model" / "README.md").read_text("utf-8")
    sources = read_sources()
    assert set(datasets_of(results)) == sources.keys() == {"blood-cells", "pbc", "raabin", "chula"}
    for source in sources.values():
        assert not unstated(card, source) and unstated(card.replace(source.licence, "?"), source)


def test_a_licence_counts_where_it_stands_with_the_link():
    source = read_sources()["chula"]
    assert not unstated(f"| [it]({source.link}) | MIT |", source)
    assert not unstated(f"See {source.link}.\n\n## Licence and citation\n\nThe images: MIT.\n", source)
    assert unstated(f"See {source.link}.\n\n## Use\n\nMIT\n", source)
    assert list(licences.licence_sections("# A\n\n## Licence\nx\n## B\ny\n")) == ["## Licence\nx\n"]


def test_the_licence_is_apache():
    text = (REPOSITORY / "LICENSE").read_text("utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text and len(text) > 11_000
    heads = [(REPOSITORY / folder / "README.md").read_text("utf-8") for folder in ("hub_model", "hub_dataset", "space")]
    assert all(re.search(r"^license: apache-2\.0$", head, re.MULTILINE) for head in heads)
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0" and PROJECT["license"].lower() in HUB_LICENCES


def test_the_citation_file_has_what_its_format_asks_for():
    assert {"cff-version", "message", "title", "authors", "type", "version", "references"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] == "software"
    assert CITATION["version"] == PROJECT["version"]
    for reference in [CITATION, *CITATION["references"]]:
        assert reference["type"] and reference["title"]
        for author in reference["authors"]:
            person = {"family-names", "given-names"} <= author.keys()
            assert person or author.keys() == {"name"} or author.keys() == {"alias"}
    for reference in CITATION["references"]:
        assert reference.get("url") or reference.get("doi")
        assert "doi" not in reference or re.fullmatch(r"10\.\d{4,9}/\S+", reference["doi"])


def test_the_citation_file_names_every_source():
    named = {reference.get("url") for reference in CITATION["references"]}
    assert {source.link for source in read_sources().values()} <= named
