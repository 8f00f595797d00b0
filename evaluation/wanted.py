"""Set what was measured beside what was wanted before: floors and targets, reached or missed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evaluation.divisions import stages
from evaluation.figures import figure, percent, thousands
from evaluation.intervals import binomial_interval

LABORATORIES = ("blood-cells", "pbc", "raabin", "chula")
NEVER_SEEN = [f"{lab}, never seen: balanced accuracy, plain → re-estimated, the better counts" for lab in LABORATORIES]


@dataclass(frozen=True)
class Found:
    """A measured figure.

    Attributes
    ----------
    value
        What is compared with floor and target.
    text
        How it reads, with its interval.
    n
        How many images.
    unit
        What they are, where they are no images.
    """

    value: float
    text: str
    n: int
    unit: str = ""


@dataclass(frozen=True)
class Wanted:
    """A figure, and what it should be.

    Attributes
    ----------
    what
        Of what.
    floor, target
        Below (or, if ``less`` is better, above) the floor nothing ships.
    find
        Takes it from the results; None where it has not been measured.
    less
        Whether less is better.
    counts
        Whether these are counts, not shares.
    """

    what: str
    floor: float
    target: float
    find: Callable[[Mapping[str, Any]], Found | None]
    less: bool = False
    counts: bool = False

    def write(self, value: float) -> str:
        """Write a floor or a target."""
        if self.counts:
            return f"{value:g}"
        return f"{100 * value:g} %"

    def verdict(self, found: Found) -> str:
        """Say whether floor and target are reached."""
        sign = -1 if self.less else 1
        if sign * found.value >= sign * self.target:
            return "target reached"
        return "floor reached" if sign * found.value >= sign * self.floor else "**below the floor**"


def _entry(results: Mapping[str, Any], dataset: str, split: str) -> Mapping[str, Any] | None:
    return next((one for one in results if (one["dataset"], one["split"]) == (dataset, split)), None)


def _shipped(dataset: str, split: str, pick: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Callable:
    def find(results: Mapping[str, Any]) -> Found | None:
        entry = _entry(results["results"], dataset, split)
        measured = pick(entry) if entry else None
        return measured and Found(measured["value"], figure(measured), entry["n_images"])

    return find


def _metric(name: str) -> Callable:
    return lambda entry: entry["metrics"][name]


def _accuracy_at(share: str) -> Callable:
    return lambda entry: entry.get("selective", {}).get("accuracy_at", {}).get(share)


def recipe_of(training: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what tells trainings on TRAIN alone apart.

    How many photos they learnt from and with whose weights they began, at which side they ended, how often they were shown an
    image at once, and in how many trainings, one on from the other.
    """
    views = "in two views" if "--consistency" in training["command"].split() else "in one view"
    side = f"up to {max(training['resolutions'])} px"
    return f"{training['n_photos']} photos{_begun(training)}", side, views, str(len(list(stages(training))))


def _begun(training: Mapping[str, Any]) -> str:
    """Say with whose weights the first of the trainings began that led to this one; nothing where it began from scratch."""
    foreign = next(stages(training)).get("started_from")
    return f", on from weights of {foreign.get('learnt_from', foreign['source'])}" if foreign else ""


def _by_recipe(results: Mapping[str, Any]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Give the trainings on TRAIN alone, by recipe, in their order: those of the first one, decided last, count."""
    recipes = {}
    for run in results.get("evidence", {}).get("official", ()):
        recipes.setdefault(recipe_of(run["training"]), []).append(run)
    return recipes


def _right(entry: Mapping[str, Any]) -> int:
    return sum(row[k] for k, row in enumerate(entry["confusion_matrix"]))


def _right_within(entry: Mapping[str, Any]) -> str:
    low, high = (entry["n_images"] * bound for bound in binomial_interval(_right(entry), entry["n_images"]))
    return f"{_right(entry)} [{low:.0f}, {high:.0f}]"


def _accuracy(entry: Mapping[str, Any]) -> float:
    return entry["metrics"]["accuracy"]["value"]


# Of a split: what is compared, how its mean is written, and how one training's is, with its interval.
OF_TRAIN_ALONE = {
    "TEST": (_accuracy, percent, lambda entry: figure(entry["metrics"]["accuracy"])),
    "TEST_SIMPLE": (_right, "{:g}".format, _right_within),
}


def _of_trainings(runs: Sequence[Mapping[str, Any]], split: str) -> Found | None:
    """Set the mean of trainings beside each of them."""
    value, write, write_one = OF_TRAIN_ALONE[split]
    entries = [entry for run in runs if (entry := _entry(run["results"], "blood-cells", split))]
    if not entries:
        return None
    mean = fmean(map(value, entries))
    trainings = f"{len(entries)} training{'' if len(entries) == 1 else 's'}"
    trainings += _begun(runs[0]["training"])
    return Found(
        mean, f"{write(mean)}, mean of {trainings}: {', '.join(map(write_one, entries))}", entries[0]["n_images"]
    )


def _official(split: str) -> Callable:
    def find(results: Mapping[str, Any]) -> Found | None:
        recipes = list(_by_recipe(results).values())
        return _of_trainings(recipes[0], split) if recipes else None

    return find


def recipes_table(results: Mapping[str, Any]) -> str:
    """Write every recipe that learnt from TRAIN alone and whose TEST was read, the one that counts first.

    Parameters
    ----------
    results
        What ``evaluation.results.read_results`` gives.
    """
    lines = [
        "| learnt from | shown | images shown | trainings, one on from another | TEST, by image | TEST_SIMPLE images right |",
        "|---|---|--:|--:|---|---|",
    ]
    for (photos, side, views, trainings), runs in _by_recipe(results).items():
        counts = (sum(stage["samples_seen"] for stage in stages(run["training"])) for run in runs)
        shown = " or ".join(dict.fromkeys(map(thousands, counts)))
        both = (_of_trainings(runs, split) for split in OF_TRAIN_ALONE)
        figures = " | ".join(found.text if found else "not measured" for found in both)
        lines.append(f"| {photos} | {side}, {views} | {shown} | {trainings} | {figures} |")
    return "\n".join(lines)


def _folds(results: Mapping[str, Any]) -> Found | None:
    for run in results.get("protocol", ()):
        if run["split_by"] == "photo" and run["folds_run"] == run["folds"]:
            measured = run["result"]["photo_level"]["balanced_accuracy"]
            return Found(measured["value"], figure(measured), run["result"]["n_photos"], " photos")
    return None


def _eight_classes(results: Mapping[str, Any]) -> Found | None:
    for run in results.get("evidence", {}).get("eight_classes", ()):
        if entry := _entry(run["results"], "pbc", "TEST"):
            measured = entry["metrics"]["accuracy"]
            return Found(measured["value"], figure(measured), entry["n_images"])
    return None


def _unseen(lab: str) -> Callable:
    def find(results: Mapping[str, Any]) -> Found | None:
        for report in results.get("evidence", {}).get("unseen", ())[:1]:
            for run in report["runs"].values():
                if run["unseen"] == [lab]:
                    ways = {way: run["laboratories"][lab][way] for way in ("plain", "re-estimated")}
                    measured = [entry["metrics"]["balanced_accuracy"] for entry in ways.values()]
                    text = " → ".join(figure(one) for one in measured)
                    return Found(max(one["value"] for one in measured), text, ways["plain"]["n_images"])
        return None

    return find


def _stress(part: str, pick: Callable[[Mapping[str, Any]], Found | None]) -> Callable:
    def find(results: Mapping[str, Any]) -> Found | None:
        for report in results.get("evidence", {}).get("stress", ()):
            if part in report["parts"] and (found := pick(report["parts"][part])):
                return found
        return None

    return find


def _share(key: str) -> Callable:
    return lambda part: Found(part[key]["value"], figure(part[key]), part["n_images"])


def _strangers(part: Mapping[str, Any]) -> Found:
    counted = part["all"]
    return Found(counted["accepted"]["value"], figure(counted["accepted"]), counted["n"])


def _anomaly(name: str) -> Callable:
    def pick(part: Mapping[str, Any]) -> Found | None:
        areas = part["anomalies"].get(name)
        return areas and Found(
            areas["not_a_cell"]["value"], figure(areas["not_a_cell"]), areas["n"] + part["n_familiar"]
        )

    return pick


WANTED = (
    Wanted("official TEST, learnt from TRAIN photos only", 0.89, 0.92, _official("TEST")),
    Wanted("the same, TEST_SIMPLE images named rightly, of 71", 64, 67, _official("TEST_SIMPLE"), counts=True),
    Wanted("these weights, official TEST", 0.90, 0.93, _shipped("blood-cells", "TEST", _metric("accuracy"))),
    Wanted("five folds by photo, balanced accuracy by photo", 0.85, 0.90, _folds),
    Wanted("this network on PBC's eight classes, a random fifth", 0.980, 0.989, _eight_classes),
    *(
        Wanted(what, floor, target, _unseen(lab))
        for lab, what, floor, target in zip(
            LABORATORIES, NEVER_SEEN, (0.55, 0.70, 0.50, 0.40), (0.75, 0.88, 0.80, 0.60), strict=True
        )
    ),
    Wanted("calibration error, TEST", 0.06, 0.03, _shipped("blood-cells", "TEST", _metric("ece")), less=True),
    Wanted("calibration error, PBC held out", 0.015, 0.005, _shipped("pbc", "TEST", _metric("ece")), less=True),
    Wanted("right among the surest 75 %, TEST", 0.98, 0.99, _shipped("blood-cells", "TEST", _accuracy_at("0.75"))),
    Wanted("right among the surest 85 %, TEST", 0.98, 0.99, _shipped("blood-cells", "TEST", _accuracy_at("0.85"))),
    Wanted("right among the surest 95 %, PBC held out", 0.98, 0.997, _shipped("pbc", "TEST", _accuracy_at("0.95"))),
    Wanted("pictures of no white cell accepted as one", 0.02, 0.005, _stress("strangers", _strangers), less=True),
    Wanted("immature granulocytes against the five, AUROC", 0.95, 0.99, _stress("anomaly", _anomaly("ig"))),
    Wanted("erythroblasts against the five, AUROC", 0.95, 0.99, _stress("anomaly", _anomaly("erythroblast"))),
    Wanted("11 corruptions x 5, mean balanced error", 0.09, 0.06, _stress("corruption", _share("mean")), less=True),
    Wanted("answers unchanged under a flip or turn", 0.97, 0.99, _stress("symmetry", _share("same_on_average"))),
    Wanted("answers unchanged under all eight", 0.97, 0.99, _stress("symmetry", _share("same_under_all"))),
)  # fmt: skip


def wanted_table(results: Mapping[str, Any]) -> str:
    """Write the table of what was wanted and what was measured; what has not been measured says so.

    Parameters
    ----------
    results
        What ``evaluation.results.read_results`` gives.
    """
    lines = ["| | floor | target | measured | images | |", "|---|--:|--:|--:|--:|---|"]
    for one in WANTED:
        found, bounds = one.find(results), f"{one.write(one.floor)} | {one.write(one.target)}"
        if found is None:
            lines.append(f"| {one.what} | {bounds} | not measured | | |")
        else:
            lines.append(
                f"| {one.what} | {bounds} | {found.text} | {thousands(found.n)}{found.unit} | {one.verdict(found)} |"
            )
    return "\n".join(lines)


def misses_target(results: Mapping[str, Any], *rows: str) -> bool:
    """Say whether one of these rows of ``WANTED`` was measured and misses its target.

    Raises
    ------
    ValueError
        There is no such row.
    """
    wanted = {one.what: one for one in WANTED}
    if strange := [row for row in rows if row not in wanted]:
        raise ValueError(f"{strange[0]!r} is no row of what was wanted; expected some of {list(wanted)}.")
    found = {row: wanted[row].find(results) for row in rows}
    return any(one and wanted[row].verdict(one) != "target reached" for row, one in found.items())
