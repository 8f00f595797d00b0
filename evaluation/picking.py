"""Pick images evenly from files and folders, so that the same folders give the same images."""

from collections.abc import Sequence
from pathlib import Path

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def pick_images(sources: Sequence[Path], count: int) -> list[Path]:
    """Pick ``count`` images or fewer, each source giving as many as the others where it has them.

    Parameters
    ----------
    sources
        Image files, and folders that are searched to their ground. Hidden files are passed over.
    count
        How many at most.

    Returns
    -------
    list
        Paths, in the order of the sources and then of their names, evenly spaced in each.

    Raises
    ------
    ValueError
        A source that is missing or holds no image; fewer images asked for than there are sources.
    """
    if count < len(sources):
        raise ValueError(f"{count} images were asked for from {len(sources)} sources; expected one of each or more.")
    found = []
    for source in sources:
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if _is_image(path))
        if not files:
            raise ValueError(
                f"{source} is no image and no folder with images ({', '.join(sorted(ENDINGS))}). Name another."
            )
        found.append(files)
    shares = dict.fromkeys(range(len(found)), 0)
    left = min(count, sum(map(len, found)))
    while left:  # the small ones give all they have, the others share what is left
        open_ones = [number for number in shares if shares[number] < len(found[number])]
        for number in open_ones[:left]:
            shares[number] += 1
        left -= min(left, len(open_ones))
    return [
        files[place * len(files) // shares[number]]
        for number, files in enumerate(found)
        for place in range(shares[number])
    ]


def picked(sources: Sequence[Path], images: Sequence[Path]) -> dict[Path, int]:
    """Count how many of the picked images each source gave."""
    return {source: sum(image.is_relative_to(source) for image in images) for source in sources}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.name[0] != "." and path.is_file()
