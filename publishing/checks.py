"""All checks of composed folders, everything that is wrong told at once."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from publishing.alone import check_alone
from publishing.card_checks import check_figures, check_head, check_licences_of_tables, check_rendered
from publishing.composing import UNKNOWN_COMMIT, Composed
from publishing.faults import Fault
from publishing.file_checks import check_files
from publishing.repositories import KINDS, TIMM
from publishing.space_checks import check_space
from smears.dataset_card import render

logger = logging.getLogger(__name__)
CARD = "model_card.md"  # the source of the project's own card


def check_folders(folders: Iterable[Composed], tree: Path | None = None) -> list[Fault]:
    """Check composed folders.

    Args:
        folders: as ``composing`` makes them.
        tree: the project, where they are its own; its card is checked against its template, too.

    Returns:
        Everything that is wrong, nothing where they can be pushed.
    """
    faults: list[Fault] = []
    for composed in folders:
        logger.info("checking %s", composed.source)
        files = list(check_files(composed))
        faults += files
        faults += check_head(composed)
        if composed.branch == TIMM:
            continue
        if composed.kind.name == "model":
            faults += check_figures(composed)
            faults += check_project_card(tree) if tree else ()
        elif composed.kind.name == "dataset":
            faults += check_licences_of_tables(composed)
            faults += check_counts(composed)
        else:
            model = f"{composed.id.split('/')[0]}/{KINDS['model'].repository}"
            faults += check_space(composed, model, UNKNOWN_COMMIT)
        # With a file missing it would only fail once more, and with one too many it might run what nobody read.
        if composed.kind.name != "space" and not files:
            faults += check_alone(composed)
    return faults


def check_project_card(tree: Path) -> Iterable[Fault]:
    """Give where the project's card is not what its template makes of the figures."""
    folder = tree / KINDS["model"].folder
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return ()  # told where the folder is loaded
    return check_rendered(tree, tree / CARD, folder, config)


def check_counts(composed: Composed) -> Iterable[Fault]:
    """Give where the data set's card counts other than its tables."""
    card = composed.folder / "README.md"
    try:
        if render(composed.folder) == card.read_text("utf-8"):
            return
        came = "counts that are not the tables'"
    except (OSError, ValueError) as error:
        came = str(error).replace(f"{composed.folder}/", "")
    yield Fault(composed.shown(card), came, "the counts of the tables", "Write them anew: make card.")
