"""Check the folders hub_model/, space/ and hub_dataset/ and push each to the Hub as one commit.

    python publish.py --namespace NAME              # NAME/wbc-resnet24 with its branch timm, NAME/kaggle-photos, the Space
    python publish.py --namespace NAME --dry-run    # the same checks, and what would be pushed; writes nothing
    python publish.py --namespace NAME --what model,dataset --private
    python publish.py --namespace NAME --trained runs/mine/model --name my-cells    # a training of yours

The token is HF_TOKEN or that of ``hf auth login``; HF_ENDPOINT names another Hub. Each folder is checked alone first, in an
empty directory without network; whatever is wrong is listed, and then nothing is pushed. The Space is pinned to the model's
commit, the version in pyproject.toml becomes the tag. A second run with nothing changed pushes nothing, and one that was
interrupted is simply run again.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from publishing.faults import FolderRefused, PublishingError
from publishing.hub import Hub
from publishing.releasing import ORDER, UNCHANGED, Options, origin_of, publish_project
from publishing.repositories import check_name, check_version, version_of
from publishing.training import publish_training

ROOT = Path(__file__).resolve().parent
REHEARSED = "Nothing was written; this is what would be:"
SECRET_NEEDED = (
    "The Space needs a secret HF_TOKEN that may read the private model: set it in the Space's settings on the Hub."
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the program with status 2 on options that do not fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--namespace", required=True, help="user or organisation on the Hub")
    parser.add_argument("--what", type=_kinds, default=ORDER, help=f"some of {','.join(ORDER)}; left out: all")
    parser.add_argument("--private", action="store_true", help="new repositories are private")
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help="check and compare, write nothing")
    parser.add_argument("--replace", action="store_true", help="also over what somebody else pushed, in one commit")
    parser.add_argument("--version", help="tag of this publication; left out: that of pyproject.toml")
    parser.add_argument("--message", help="first line of the commits; left out: 'Version ...'")
    parser.add_argument("--trained", type=Path, help="model/ of a finished training, published in place of the project")
    parser.add_argument("--name", help="of its repository; left out: that of the training's folder")
    parser.add_argument(
        "--data_license", nargs="+", default=[], metavar="DATA=LICENCE", help="of images that the project does not know"
    )
    parser.add_argument("--license", default="apache-2.0", help="of a training's weights, as the Hub calls it")
    options = parser.parse_args(argv)
    if not options.trained and (options.name or options.data_license or options.license != "apache-2.0"):
        parser.error("--name, --data_license and --license go with --trained")
    if options.trained and (options.what != ORDER or options.version):
        parser.error("--what and --version are the project's; leave them out with --trained")
    return options


def _kinds(text: str) -> tuple[str, ...]:
    asked = [name for name in text.replace(",", " ").split()]
    if not asked or set(asked) - set(ORDER):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {','.join(ORDER)}")
    return tuple(name for name in ORDER if name in asked)


def publish(options: argparse.Namespace) -> list[str]:
    """Publish what the options say; returns what was done.

    Raises:
        PublishingError: why not; nothing is half done.
    """
    check_name(options.namespace, "--namespace")
    hub = Hub()
    hub.account(options.namespace)
    how = {"private": options.private, "dry_run": options.dry_run, "replace": options.replace}
    if options.trained:
        name = options.name or options.trained.resolve().parent.name or options.trained.name
        repo_id = f"{options.namespace}/{check_name(name, '--name')}"
        how["message"] = options.message or f"Publish {name}"
        choices = Options(tag=None, origin=origin_of(ROOT), **how)
        return publish_training(ROOT, options.trained, repo_id, hub, choices, options.license, options.data_license)
    version = check_version(options.version, "--version") if options.version else version_of(ROOT)
    choices = Options(tag=f"v{version}", message=options.message or f"Version {version}", origin=origin_of(ROOT), **how)
    return publish_project(ROOT, options.namespace, options.what, hub, choices)


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; returns the exit status: 0 done, 1 refused, 130 interrupted."""
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("httpx", "httpx2", "timm"):
        logging.getLogger(library).setLevel(logging.WARNING)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # whoever ends it leaves the Hub and the disk as they were
    try:
        done = publish(options)
    except FolderRefused as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        print(f"{len(error.faults)} faults; nothing was pushed.", file=sys.stderr)
        return 1
    except PublishingError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "Interrupted. Each repository is as it was or whole; the same command goes on from there.", file=sys.stderr
        )
        return 130
    pushed = not all(line.endswith(UNCHANGED) for line in done)  # a tag that was set stands behind it
    print(REHEARSED if options.dry_run else "Published:" if pushed else "Nothing was pushed:")
    print("\n".join(done))
    if options.private and "space" in options.what and not options.trained:
        print(SECRET_NEEDED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
