"""A training of one's own, published like the project's model: its folder with a card of its own, and its timm branch."""

import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.card import CardError, render_card
from evaluation.results import FILE_NAME, read_results, to_text
from publishing.checks import check_folders
from publishing.composing import Composed, add_license
from publishing.faults import Fault, FolderRefused, PublishingError
from publishing.file_checks import ABSOLUTE
from publishing.hub import Hub
from publishing.licences import HUB_LICENCES, datasets_of, read_sources
from publishing.releasing import Options, origin_of, release, staging
from publishing.repositories import KINDS, LICENSE, TIMM, check_name
from publishing.timm_branch import export

TREE = Path(__file__).resolve().parent.parent
TEMPLATE = Path(__file__).with_name("training_card.md")
KIND = KINDS["model"]


def publish_training(
    tree: Path,
    trained: Path,
    repo_id: str,
    hub: Hub,
    options: Options,
    license_id: str = "apache-2.0",
    data_licences: Sequence[str] = (),
) -> list[str]:
    """Check and push the folder of a finished training.

    Args:
        tree: the project.
        trained: the folder that train.py wrote.
        repo_id: NAMESPACE/NAME.
        license_id: of the weights.
        data_licences: DATA=LICENCE of the images that the project does not know.

    Returns:
        What was done, a line for each branch.

    Raises:
        PublishingError: nothing was pushed.
    """
    licences = read_licences(data_licences)
    check_license(license_id)
    with staging() as stage:
        composed = compose_training(tree, trained, repo_id, stage / "model", license_id, licences)
        folders = [composed, export(composed, stage / TIMM, license_id)]
        if faults := check_folders(folders):
            raise FolderRefused(faults)
        return release(folders, hub, options)


def publish_finished(
    trained: Path,
    repo_id: str,
    license_id: str,
    data_licences: Sequence[str],
    token: str | None = None,
    private: bool = False,
) -> list[str]:
    """Publish a training that has just come to its end; see ``publish_training``.

    Raises:
        PublishingError: nothing was pushed; the message names the command that tries it again.
    """
    namespace, _, name = repo_id.partition("/")
    options = Options(tag=None, message=f"Publish {name}", private=private, origin=origin_of(TREE))
    try:
        return publish_training(TREE, trained, repo_id, Hub(token), options, license_id, data_licences)
    except PublishingError as error:
        again = ["python", "publish.py", "--namespace", namespace, "--trained", str(trained), "--name", name]
        again += ["--private"] if private else []
        again += ["--license", license_id] if license_id != "apache-2.0" else []
        again += ["--data_license", *data_licences] if data_licences else []
        raise PublishingError(
            f"{error}\nThe model stands in {trained}; to try it again: {shlex.join(again)}"
        ) from error


def check_destination(
    asked: str, data: Sequence[str], license_id: str, data_licences: Sequence[str], token: str | None = None
) -> str:
    """Refuse before a training what would be refused after it: no rights, a name that is taken, images without licence.

    Args:
        asked: NAMESPACE/NAME, or NAME in the user's own namespace.
        data: what the images are called in the results: their folders, or their data set on the Hub.

    Returns:
        The repository, NAMESPACE/NAME.

    Raises:
        PublishingError: why it cannot be published.
    """
    check_license(license_id)
    licences = read_licences(data_licences)
    if missing := [name for name in data if name not in read_sources() and name not in licences]:
        raise PublishingError(_no_licence(missing))
    namespace, _, name = asked.rpartition("/")
    check_name(name, "--hub_model_id")
    if namespace:
        check_name(namespace, "--hub_model_id")
    hub = Hub(token)
    repo_id = f"{namespace or hub.account()}/{name}"
    if namespace:
        hub.account(namespace)
    standing = hub.look("model", repo_id)
    if not standing.ours:
        raise PublishingError(
            f"{repo_id} holds what was not published here (last commit: {standing.title!r}); expected an empty repository or "
            "one published here. Name another with --hub_model_id."
        )
    return repo_id


def check_license(license_id: str) -> None:
    """Refuse what is no licence that the Hub knows."""
    if license_id not in HUB_LICENCES:
        raise PublishingError(
            f"The licence is {license_id!r}; expected an identifier of the Hub such as apache-2.0, "
            "cc-by-4.0 or other. Correct it."
        )


def read_licences(entries: Sequence[str]) -> dict[str, str]:
    """Read the licence of each data set from DATA=LICENCE."""
    licences = {}
    for entry in entries:
        data, _, licence = entry.partition("=")
        if not data.strip() or not re.fullmatch(r"\S[^|\n]*", licence):
            raise PublishingError(
                f"--data_license {entry!r}; expected DATA=LICENCE, such as my_cells=cc-by-4.0. Correct it."
            )
        licences[data.strip()] = licence.strip()
    return licences


def compose_training(
    tree: Path, trained: Path, repo_id: str, into: Path, license_id: str, licences: Mapping[str, str]
) -> Composed:
    """Copy a training's folder and write its card.

    Raises:
        FolderRefused: it is not finished, or its images have no licence.
    """
    if not (trained / FILE_NAME).is_file():
        expected, remedy = "a training that has come to its end", "Let train.py finish: the same command goes on."
        raise FolderRefused([Fault(str(trained / FILE_NAME), "no such file", expected, remedy)])
    shutil.copytree(trained, into, ignore=shutil.ignore_patterns("__pycache__", "README.md"), symlinks=True)
    add_license(tree, into)
    composed = Composed(KIND, repo_id, into, str(trained))
    try:
        results = without_paths(read_results(into / FILE_NAME))
        results["model"]["name"] = repo_id
        if missing := [one for one in datasets_of(results) if one not in read_sources() and one not in licences]:
            raise FolderRefused(
                [Fault(composed.shown(FILE_NAME), f"images {missing[0]!r}", "their licence", _no_licence(missing))]
            )
        (into / FILE_NAME).write_text(to_text(results), "utf-8")
        config = json.loads((into / "config.json").read_text("utf-8"))
        template = TEMPLATE.read_text("utf-8")
        values = {
            "license_id": license_id,
            "sources": _sources(results, licences),
            "license_file": LICENSE,
            "branch": TIMM,
        }
        (into / "README.md").write_text(render_card(template, results, config | {"publishing": values}), "utf-8")
    except (CardError, OSError, ValueError) as error:
        remedy = "Train or measure it anew."
        raise FolderRefused([Fault(str(trained), str(error), "a finished training", remedy)]) from error
    return composed


def _sources(results: Mapping[str, Any], licences: Mapping[str, str]) -> list[dict[str, str]]:
    known = read_sources()
    rows = []
    for name in datasets_of(results):
        if name in known:
            source = known[name]
            rows.append({"name": name, "origin": f"[{source.title}]({source.link})", "licence": source.licence})
        else:
            rows.append({"name": name, "origin": "of whoever trained this model", "licence": licences[name]})
    return rows


def _no_licence(missing: Sequence[str]) -> str:
    return (
        f"The images {', '.join(missing)} have no licence that is known; expected one for the card, or a word such as "
        f"'private'. Give --data_license {missing[0]}=LICENCE."
    )


def without_paths(value: Any) -> Any:
    """Give results in which the absolute paths of a machine, as in commands, are cut to their last part."""
    if isinstance(value, dict):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    if isinstance(value, str):
        return ABSOLUTE.sub(lambda match: re.split(rb"[/\\]", match[0])[-1], value.encode("utf-8")).decode("utf-8")
    return value
