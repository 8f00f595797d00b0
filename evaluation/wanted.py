"""Set what was measured beside what was wanted before: floors and targets, reached or missed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from evaluation.figures import figure, percent, thousands
from evaluation.intervals import binomial_interval

LABORATORIES = ("blood-cells", "pbc", "raabin", "chula")


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
    """Say what tells trainings on TRAIN alone apart: how many photos they learnt from, at which side they ended, how often they
    were shown an image at once, and in how many trainings, one on from the other."""
    views = "in two views" if "--consistency" in training["command"].split() else "in one view"
    stages, start = 1, training.get("started_from")
    while start and start.get("command"):
        stages, start = stages + 1, start.get("started_from")
    told = f"{stages} stages" if stages > 1 else ""
    return f"{training['n_photos']} photos", f"up to {max(training['resolutions'])} px", views, told


def _recipes(results: Mapping[str, Any], split: str) -> dict[str, list[Mapping[str, Any]]]:
    """Give what the trainings on TRAIN alone measured, by recipe, in their order, each told by its photos and what differs.

    Those of the first recipe, the one decided last, count; the others show what was tried before.
    """
    recipes = {}
    for run in results.get("evidence", {}).get("official", ()):
        if entry := _entry(run["results"], "blood-cells", split):
            recipes.setdefault(recipe_of(run["training"]), []).append(entry)
    differs = [len(set(values)) > 1 for values in zip(*recipes, strict=True)]
    differs[:1] = [True]  # photos are always told
    return {
        ", ".join(value for value, told in zip(recipe, differs, strict=True) if told and value): entries
        for recipe, entries in recipes.items()
    }


def _of_recipes(
    recipes: Mapping[str, Sequence[Mapping[str, Any]]],
    value: Callable[[Mapping[str, Any]], float],
    write: Callable[[float], str],
    write_one: Callable[[Mapping[str, Any]], str],
) -> Found | None:
    """Set the mean of the first recipe beside each of its trainings and beside the means of the others."""
    if not recipes:
        return None
    means = {recipe: fmean(map(value, entries)) for recipe, entries in recipes.items()}
    (first, entries), *others = recipes.items()
    trainings = f"{len(entries)} training{'' if len(entries) == 1 else 's'}"
    of = f"{trainings} on {first}" if others else trainings
    told = [f"{write(means[first])}, mean of {of}: {', '.join(map(write_one, entries))}"]
    told += [f"on {recipe} {write(means[recipe])}, mean of {len(each)}" for recipe, each in others]
    return Found(means[first], "; ".join(told), entries[0]["n_images"])


def _official(results: Mapping[str, Any]) -> Found | None:
    accuracy = _metric("accuracy")
    return _of_recipes(
        _recipes(results, "TEST"),
        lambda entry: accuracy(entry)["value"],
        percent,
        lambda entry: figure(accuracy(entry)),
    )


def _official_photos(results: Mapping[str, Any]) -> Found | None:
    def right(entry: Mapping[str, Any]) -> int:
        return sum(row[k] for k, row in enumerate(entry["confusion_matrix"]))

    def bounded(entry: Mapping[str, Any]) -> str:
        low, high = (entry["n_images"] * bound for bound in binomial_interval(right(entry), entry["n_images"]))
        return f"{right(entry)} [{low:.0f}, {high:.0f}]"

    return _of_recipes(_recipes(results, "TEST_SIMPLE"), right, "{:g}".format, bounded)


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
    Wanted("official TEST, learnt from TRAIN photos only", 0.89, 0.92, _official),
    Wanted("the same, TEST_SIMPLE images named rightly, of 71", 64, 67, _official_photos, counts=True),
    Wanted("these weights, official TEST", 0.90, 0.93, _shipped("blood-cells", "TEST", _metric("accuracy"))),
    Wanted("five folds by photo, balanced accuracy by photo", 0.85, 0.90, _folds),
    Wanted("this network on PBC's eight classes, a random fifth", 0.980, 0.989, _eight_classes),
    *(
        Wanted(f"{lab}, never seen: balanced accuracy, plain → re-estimated, the better counts", floor, target, _unseen(lab))
        for lab, floor, target in zip(LABORATORIES, (0.55, 0.70, 0.50, 0.40), (0.75, 0.88, 0.80, 0.60), strict=True)
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
