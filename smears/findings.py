"""Judge what an audit found: photographs under two labels, in two splits, or there several times."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from smears.likeness import COPY, SAME_CELLS, Link
from smears.survey import SurveyedImage

SAME_BYTES = "same bytes"
SAME_PIXELS = "same pixels"
LEARNT_FROM = {"train", "validation"}

# What can be said of a pair, the most serious first.
CONFLICT = "one photograph, two labels"
LEAK = "one photograph, learnt from and measured"
CELLS_CONFLICT = "same cells, two labels"
CELLS_LEAK = "same cells, learnt from and measured"
TWO_SPLITS = "in two splits that are not learnt from"
CELLS_TWICE = "same cells, shown twice"
EXACT = "same content twice"
NEAR = "copies of one photograph"
REASONS = (CONFLICT, LEAK, CELLS_CONFLICT, CELLS_LEAK, TWO_SPLITS, CELLS_TWICE, EXACT, NEAR)
SERIOUS = {CONFLICT, LEAK, CELLS_CONFLICT, CELLS_LEAK}


@dataclass(frozen=True)
class Finding:
    """Two images that stand for all pairs of their kind in the same one or two photographs.

    `reasons`: of `REASONS`, the most serious first. `evidence`: `SAME_BYTES`, `SAME_PIXELS`, `COPY` or `SAME_CELLS`.
    `first`, `second`: positions of the images. `images`: how many images the finding concerns.
    """

    reasons: tuple[str, ...]
    evidence: str
    first: int
    second: int
    images: int


@dataclass(frozen=True)
class Groups:
    """For each position, the position that stands for its photograph and the one that stands for its cells."""

    photos: tuple[int, ...]
    cells: tuple[int, ...]


def order_by_size(images: Sequence[SurveyedImage]) -> list[int]:
    """Order positions by how much of a picture they show, most first, then by path."""

    def key(position: int) -> tuple[float, str]:
        image = images[position]
        return -image.width * image.height * image.picture, image.file

    return sorted(range(len(images)), key=key)


def same_content(images: Sequence[SurveyedImage], field: str) -> list[list[int]]:
    """List the groups of positions, two or more, whose `sha256` or `pixels` agree."""
    groups = defaultdict(list)
    for position, image in enumerate(images):
        groups[getattr(image, field)].append(position)
    return [positions for positions in groups.values() if len(positions) > 1]


def group(images: Sequence[SurveyedImage], links: Iterable[Link]) -> Groups:
    """Join images by content and links, directly or through others; the largest picture stands for each group."""
    links = list(links)
    order = order_by_size(images)
    pairs = [(same[0], other) for same in same_content(images, "pixels") for other in same[1:]]
    pairs += [(link.first, link.second) for link in links if link.kind == COPY]
    photos = _joined(order, pairs)
    return Groups(photos, _joined(order, [*pairs, *((link.first, link.second) for link in links)]))


def _joined(order: Sequence[int], pairs: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Name for each position the one that comes first in the order among all that pairs join it to."""
    ends = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(pairs)), ends), shape=(len(order),) * 2)
    _, component = connected_components(graph, directed=False)
    first = {}
    for position in order:
        first.setdefault(component[position], position)
    return tuple(first[number] for number in component)


def judge(images: Sequence[SurveyedImage], links: Iterable[Link], groups: Groups) -> list[Finding]:
    """List the findings, the most serious first; see `REASONS`."""
    members = defaultdict(lambda: defaultdict(list))  # photo -> (split, label) -> positions, the largest picture first
    for position in order_by_size(images):
        members[groups.photos[position]][images[position].split, images[position].label].append(position)
    findings = []
    for places in members.values():
        for here, there in combinations(places, 2):
            if reasons := _reasons(here, there, CONFLICT, LEAK, TWO_SPLITS):
                pair = _closest(images, places[here], places[there])
                evidence, count = _evidence(images, *pair), len(places[here]) + len(places[there])
                findings.append(Finding(reasons, evidence, *pair, count))
        for positions in places.values():
            contents = _by_pixels(images, positions)
            for same in contents:
                if len(same) > 1:
                    findings.append(Finding((EXACT,), _evidence(images, *same[:2]), *same[:2], len(same)))
            if len(contents) > 1:
                findings.append(Finding((NEAR,), COPY, contents[0][0], contents[1][0], len(positions)))
    seen = set()
    for link in links:
        proven = (link.first, link.second)
        photos = tuple(groups.photos[position] for position in proven)
        if link.kind != SAME_CELLS or len(set(photos)) < 2 or frozenset(photos) in seen:
            continue
        seen.add(frozenset(photos))
        findings += _common_cells(*(members[photo] for photo in photos), proven)

    def seriousness(one: Finding) -> tuple[list[int], str, str]:
        ranks = [REASONS.index(reason) for reason in one.reasons]
        return [*ranks, len(REASONS)], images[one.first].file, images[one.second].file

    return sorted(findings, key=seriousness)


def _common_cells(here: dict, there: dict, proven: tuple[int, int]) -> list[Finding]:
    """Judge two photographs of the same cells, each (split, label) -> positions, that one pair of images proves."""
    findings, plain = [], {}
    for (place, positions), (other, others) in product(here.items(), there.items()):
        registered = proven[0] in positions and proven[1] in others
        pair, count = proven if registered else (positions[0], others[0]), len(positions) + len(others)
        if reasons := _reasons(place, other, CELLS_CONFLICT, CELLS_LEAK):
            findings.append(Finding(reasons, SAME_CELLS, *pair, count))
        # where nothing is wrong one pair stands for all, if possible of images with a split and a label
        plain.setdefault((place, other).count((None, None)), Finding((CELLS_TWICE,), SAME_CELLS, *pair, count))
    return findings or [plain[min(plain)]]


def _reasons(here: tuple, there: tuple, conflict: str, leak: str, shared: str | None = None) -> tuple[str, ...]:
    (split, label), (other_split, other_label) = here, there
    reasons = [conflict] if label and other_label and label != other_label else []
    if split and other_split and split != other_split:
        reasons.append(shared if LEARNT_FROM.isdisjoint((split, other_split)) else leak)
    return tuple(sorted(filter(None, reasons), key=REASONS.index))


def _closest(images: Sequence[SurveyedImage], here: list[int], there: list[int]) -> tuple[int, int]:
    """Choose a pair with the same content if there is one, else the largest pictures."""
    for field in ("sha256", "pixels"):
        known = {getattr(images[position], field): position for position in reversed(here)}
        for position in there:
            if (value := getattr(images[position], field)) in known:
                return known[value], position
    return here[0], there[0]


def _evidence(images: Sequence[SurveyedImage], first: int, second: int) -> str:
    if images[first].sha256 == images[second].sha256:
        return SAME_BYTES
    return SAME_PIXELS if images[first].pixels == images[second].pixels else COPY


def _by_pixels(images: Sequence[SurveyedImage], positions: Iterable[int]) -> list[list[int]]:
    groups = defaultdict(list)
    for position in positions:
        groups[images[position].pixels].append(position)
    return list(groups.values())
