"""What backs the card: reports are taken over whole, what contradicts them is refused, and the tables say what was measured."""

import copy
import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from made_up import (
    counts_report,
    doors_report,
    examples_report,
    few_labels_report,
    finding_reports,
    gate_report,
    heads_report,
    made_up_entry,
    made_up_results,
    onnx_reports,
    stress_report,
    unseen_report,
)
from scipy.stats import binomtest

from evaluation import collect
from evaluation.entry import ResultsError
from evaluation.evidence_tables import (
    TAUGHT,
    always_wrong,
    anomaly_table,
    corruption_table,
    counts_table,
    distance_table,
    few_labels_table,
    finding_table,
    framing_table,
    gate_table,
    heads_table,
    missed_by_intervals,
    points_lost,
    stranger_table,
    strangers_of,
    unseen_table,
    weak_recalls,
)
from evaluation.figures import figure
from evaluation.results import read_results, validate_results, without_folders, write_results
from evaluation.strangers import GROUND, PLATELETS, RED, draw_strangers
from evaluation.wanted import WANTED, Found, Wanted, misses_target, recipes_table, wanted_table


def training_folder(folder, seed, *entries):
    """Write a finished training's results."""
    results = made_up_results()
    results["training"] |= {"seed": seed}
    results["results"] = list(entries)
    write_results(folder / "eval_results.json", results)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A model repository whose results hold evidence of every kind."""
    write_results(tmp_path / "model" / "eval_results.json", made_up_results())
    seeds = [
        training_folder(
            tmp_path / f"seed-{n}",
            n,
            made_up_entry("TEST", n, "blood-cells"),
            made_up_entry("TEST_SIMPLE", n, "blood-cells"),
        )
        for n in (1, 2)
    ]
    eight = training_folder(tmp_path / "eight", 1, made_up_entry("TEST", 5, "pbc"))
    reports = {"unseen": unseen_report(), "few": few_labels_report(), "stress": stress_report()}
    reports |= {"fields": finding_reports()[0], "single": finding_reports()[1], "counts": counts_report()}
    reports |= {"gate": gate_report(), "heads": heads_report()}
    for name, report in reports.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    unseen, few, stress, *finding, counts, gate, heads = (tmp_path / f"{name}.json" for name in reports)
    words = [
        tmp_path / "model",
        "--official",
        *seeds,
        "--eight_classes",
        eight,
        "--unseen",
        f"the recipe={unseen}",
    ]
    collect.main([*map(str, words), "--few_labels", str(few), "--stress", str(stress), "--heads", str(heads)])
    collect.main([*map(str, [tmp_path / "model", "--finding", *finding, "--counts", counts, "--gate", gate])])
    collect.add_evidence(tmp_path / "model", {"examples": [examples_report()]})
    for name, report in {"doors": doors_report(), **{f"onnx-{n}": one for n, one in enumerate(onnx_reports())}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    onnx = sorted(tmp_path.glob("onnx-*.json"))
    collect.main([*map(str, [tmp_path / "model", "--onnx", *onnx, "--doors", tmp_path / "doors.json"])])
    return tmp_path / "model"


def test_every_kind_is_taken_over_and_one_kind_is_replaced_alone(folder, tmp_path):
    evidence = read_results(folder / "eval_results.json")["evidence"]
    assert [run["training"]["seed"] for run in evidence["official"]] == [1, 2]
    (report,) = evidence["unseen"]
    laboratories = report["runs"]["raabin"]["laboratories"]
    assert report["name"] == "the recipe"
    assert laboratories["raabin"]["plain"] == made_up_entry("plain", 0, "raabin") and "plain" not in laboratories["pbc"]
    collect.main([str(folder), "--official", str(tmp_path / "seed-2")])
    later = read_results(folder / "eval_results.json")["evidence"]
    assert later == evidence | {"official": evidence["official"][1:]}
    other = copy.deepcopy(later["official"])  # the same seed on other photos
    other[0]["training"]["n_photos"] += 1
    collect.add_evidence(folder, {"official": other + later["official"]})
    assert len(read_results(folder / "eval_results.json")["evidence"]["official"]) == 2
    collect.add_evidence(folder, {"official": later["official"]})
    assert "missed" not in later["finding"][0]["fields"] and "odd" not in later["finding"][1]  # lists of single images


def test_a_report_that_is_replaced_may_be_one_that_is_refused_now(folder):
    path = folder / "eval_results.json"
    results = read_results(path)
    old = copy.deepcopy(results)
    del old["evidence"]["examples"][0]["commit"]
    path.write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(ResultsError, match=r"examples\[0\] lacks \['commit'\]"):
        collect.add_evidence(folder, {"official": results["evidence"]["official"]})
    collect.add_evidence(folder, {"examples": results["evidence"]["examples"]})
    assert read_results(path) == results


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.update(gossip=[1]), "expected only the kinds official, "),
        (lambda e: e.update(official=[]), "evidence.official is \\[\\]; expected a list of one or more"),
        (lambda e: e["official"].append(e["official"][0]), "the seeds of evidence.official .* each of them once"),
        (lambda e: e["finding"][0]["fields"]["recall"].update(value=0.99), "three rising shares"),
        (lambda e: e["finding"][1].pop("laboratory"), "laboratory"),
        (lambda e: e["gate"][0]["smears"]["chula"].update(refused=51), "0 to 50"),
        (lambda e: e["counts"][0]["scenes"][0]["ways"]["laboratory named"].update(coverage=95), "a share"),
        (lambda e: e["counts"][0].update(weights_sha256="0" * 64), "of the weights that are shipped"),
        (lambda e: e["stress"][0]["model"].update(sha256="0" * 64), "of the weights that are shipped"),
        (lambda e: e["stress"].append(e["stress"][0]), r"the images of evidence.stress .* each of them once"),
        (lambda e: e["examples"][0].update(sha256="0" * 64), "of the weights that are shipped"),
        (lambda e: e["examples"][0]["pictures"][0]["answers"][0].update(score=87.5), "a probability"),
        (lambda e: e["onnx"][0].update(weights_sha256="0" * 64), "of the weights that are shipped"),
        (lambda e: e["onnx"][0].update(opset="18"), "opset is '18'; expected a whole number above 0"),
        (lambda e: e["onnx"][0]["parity"]["noise"].update(same_label=21), "same_label is 21; expected 0 to 20"),
        (lambda e: e["onnx"][1].update(shipped=False), "shipped is False; expected True, by what it lost on test"),
        (lambda e: e["onnx"][1]["test"]["pbc"]["lost"].update(value=0.31), "expected False, by what it lost on test"),
        (lambda e: e["onnx"][1].pop("tried"), r"onnx\[1\] lacks \['tried'\]"),
        (
            lambda e: e["onnx"][2]["milliseconds"].update(pytorch=0),
            "milliseconds.pytorch is 0; expected a number above 0",
        ),
        (lambda e: e["doors"][0].update(weights_sha256="0" * 64), "of the weights that are shipped"),
        (lambda e: e["doors"][0]["doors"]["Node"]["as_they_come"].update(difference=0.6), "0.5 or less, its tolerance"),
        (lambda e: e["doors"][0]["doors"]["Node"]["as_they_come"].update(n=0), "n is 0; expected a whole number"),
        (lambda e: e["doors"][0]["doors"]["Node"].update(comit="c"), r"Node has unknown keys \['comit'\]"),
        (lambda e: e["examples"][0].update(comit="c"), r"unknown keys \['comit'\]"),
        (lambda e: e["few_labels"][0]["others"].pop("after"), r"few_labels\[0\].raabin lacks \['after'\]"),
        (lambda e: e["heads"][0]["choices"][1].update(n_labelled=101), r"1 to 100, the most that were asked for"),
        (lambda e: e["heads"][0]["choices"][1].update(seed=0), r"the seeds of evidence.heads\[0\].choices .* once"),
        (
            lambda e: e["heads"][0]["choices"][0]["home"]["pbc"]["after"].update(low=0.8),
            "pbc.after .* three rising shares",
        ),
        (lambda e: e["heads"][0].update(apart="cell"), "expected group or photo"),
        (lambda e: e["heads"][0]["choices"][0].update(home={}), "the laboratories that were learnt from"),
        (lambda e: e["unseen"][0]["runs"]["raabin"]["laboratories"]["raabin"].pop("plain"), r"lacks \['plain'\]"),
        (lambda e: e["official"][0]["results"][0].update(n_images=5), "confusion_matrix"),
    ],
)
def test_evidence_that_contradicts_itself_is_refused(folder, spoil, message):
    results = read_results(folder / "eval_results.json")
    spoil(results["evidence"])
    with pytest.raises(ResultsError, match=message):
        validate_results(results)


def test_what_is_added_comes_behind_what_stands_there_and_no_name_twice(folder, tmp_path):
    words = [str(folder), "--add", "--unseen"]
    collect.main([*words, f"another recipe={tmp_path / 'unseen.json'}"])
    reports = read_results(folder / "eval_results.json")["evidence"]["unseen"]
    assert [report["name"] for report in reports] == ["the recipe", "another recipe"]
    assert reports[0]["runs"] == reports[1]["runs"]
    with pytest.raises(SystemExit, match="the names of evidence.unseen .* each of them once"):
        collect.main([*words, f"the recipe={tmp_path / 'unseen.json'}"])
    collect.main([str(folder), "--add_first", "--unseen", f"what counts={tmp_path / 'unseen.json'}"])
    reports = read_results(folder / "eval_results.json")["evidence"]["unseen"]
    assert [report["name"] for report in reports] == ["what counts", "the recipe", "another recipe"]


def test_what_is_no_report_is_refused_and_nothing_changes(folder, tmp_path):
    before = (folder / "eval_results.json").read_bytes()
    (tmp_path / "text").write_text("figures")
    for words, message in (
        (["--unseen", "no name"], "expected NAME=FILE"),
        (["--unseen", f"x={tmp_path / 'text'}"], "is no report of leave_one_out.py"),
        (["--stress", str(tmp_path / "nothing.json")], "is no report of stress.py"),
        (["--official", str(tmp_path)], "is no file; expected measured results"),
    ):
        with pytest.raises(SystemExit, match=message):
            collect.main([str(folder), *words])
    assert (folder / "eval_results.json").read_bytes() == before


# Tables


def test_wanted_figures_are_the_measured_ones_with_a_verdict(folder):
    results = read_results(folder / "eval_results.json")
    table = wanted_table(results)
    rows = {line.split(" | ")[0][2:]: line for line in table.splitlines()[2:]}
    assert len(rows) == len(WANTED)
    runs = results["evidence"]["official"]
    accuracies = [run["results"][0]["metrics"]["accuracy"]["value"] for run in runs]
    official = rows["official TEST, learnt from TRAIN photos only"]
    assert f"{50 * sum(accuracies):.1f} %, mean of 2 trainings" in official and "**below the floor**" in official
    right = [sum(run["results"][1]["confusion_matrix"][k][k] for k in range(6)) for run in runs]
    exact = [
        binomtest(one, run["results"][1]["n_images"]).proportion_ci() for one, run in zip(right, runs, strict=True)
    ]
    n = runs[0]["results"][1]["n_images"]
    each = ", ".join(f"{one} [{n * i.low:.0f}, {n * i.high:.0f}]" for one, i in zip(right, exact, strict=True))
    simple = rows["the same, TEST_SIMPLE images named rightly, of 71"]
    assert f"| {sum(right) / 2:g}, mean of 2 trainings: {each} |" in simple
    ways = results["evidence"]["unseen"][0]["runs"]["raabin"]["laboratories"]["raabin"]
    both = [100 * ways[way]["metrics"]["balanced_accuracy"]["value"] for way in ("plain", "re-estimated")]
    unseen = rows["raabin, never seen: balanced accuracy, plain → re-estimated, the better counts"]
    assert f"{both[0]:.1f} %" in unseen and f"→ {both[1]:.1f} %" in unseen
    assert "not measured" in rows["chula, never seen: balanced accuracy, plain → re-estimated, the better counts"]
    assert "8.0 % [3.0, 13.0] | 400 | floor reached" in rows["11 corruptions x 5, mean balanced error"]
    assert "2.5 % [-2.5, 7.5] | 40 | **below the floor**" in rows["pictures of no white cell accepted as one"]
    assert "97.0 % [96.0, 98.0] | 350 | floor reached" in rows["immature granulocytes against the five, AUROC"]


def test_every_recipe_on_train_alone_is_shown_and_the_first_one_counts(folder):
    results = read_results(folder / "eval_results.json")
    first, second = (run["training"] for run in results["evidence"]["official"])
    accuracies = [f"{figure(run['results'][0]['metrics']['accuracy'])}" for run in results["evidence"]["official"]]

    def counted():
        return wanted_table(results).splitlines()[2].split(" | ")[3]

    def rows():
        return [line[2:-2].split(" | ") for line in recipes_table(results).splitlines()[2:]]

    ((photos, shown, images, stages, of_test, of_photos),) = rows()
    assert (photos, shown, stages) == (f"{first['n_photos']} photos", "up to 224 px, in one view", "1")
    assert images == f"{first['samples_seen']:,}"
    assert of_test == counted() and of_test.endswith(f"mean of 2 trainings: {', '.join(accuracies)}")
    assert of_photos == wanted_table(results).splitlines()[3].split(" | ")[3]
    foreign = {"source": "a.st", "sha256": "5" * 64, "learnt_from": "ImageNet-1k (a.tgz)"}
    changes = [
        {"n_photos": first["n_photos"] - 1},
        {"n_photos": first["n_photos"], "resolutions": [112, 288]},
        {"resolutions": first["resolutions"], "command": "python train.py --consistency 12"},
        {
            "command": first["command"],
            "started_from": first | {"samples_seen": 1000, "started_from": {"source": "a.pth"}},
        },
        {"command": first["command"], "started_from": foreign},
        {"started_from": first | {"samples_seen": 1000, "started_from": foreign}},
    ]
    for change in changes:
        second |= change
        first_figure, second_figure = (row[4] for row in rows())
        assert first_figure == f"{accuracies[0].split(' [')[0]}, mean of 1 training: {accuracies[0]}" == counted()
        weights = [name for name in ("ImageNet-1k (a.tgz)", "a.pth") if name in json.dumps(change)]
        begun = f", on from weights of {weights[0]}" if weights else ""
        assert rows()[1][0].endswith(f" photos{begun}")
        assert second_figure == f"{accuracies[1].split(' [')[0]}, mean of 1 training{begun}: {accuracies[1]}"
    assert rows()[1][1:4] == ["up to 224 px, in one view", f"{second['samples_seen'] + 1000:,}", "2"]
    del results["evidence"]["official"][1]["results"][1]
    assert rows()[1][5] == "not measured"


def test_a_row_misses_its_target_where_it_was_measured_and_does_not_reach_it(folder):
    results = read_results(folder / "eval_results.json")
    verdicts = {row[0][2:]: row[-1] for line in wanted_table(results).splitlines()[2:] if (row := line.split(" | "))}
    for row, verdict in verdicts.items():
        assert misses_target(results, row) == (verdict in ("floor reached |", "**below the floor** |")), row
    assert misses_target(results, *verdicts) and not misses_target({"results": []}, *verdicts)
    with pytest.raises(ValueError, match="'a renamed row' is no row of what was wanted"):
        misses_target(results, "a renamed row")


def test_nothing_measured_makes_no_figure():
    bare = {"results": [], "evidence": {}}
    assert all(line.endswith("| not measured | | |") for line in wanted_table(bare).splitlines()[2:])


@pytest.mark.parametrize(
    ("less", "value", "verdict"),
    [
        (False, 0.9, "target reached"), (False, 0.8, "floor reached"), (False, 0.79, "**below the floor**"),
        (True, 0.9, "**below the floor**"), (True, 0.8, "floor reached"), (True, 0.7, "target reached"),
    ],
)  # fmt: skip
def test_a_floor_that_is_met_exactly_is_reached(less, value, verdict):
    floor, target = (0.8, 0.7) if less else (0.8, 0.9)
    wanted = Wanted("", floor, target, lambda _: None, less=less)
    assert wanted.verdict(Found(value, "", 1)) == verdict


def test_tables_are_whole_and_show_the_reports(folder):
    evidence = read_results(folder / "eval_results.json")["evidence"]
    parts = evidence["stress"][0]["parts"]
    tables = {
        "best at 75%: 60.0 %": unseen_table(evidence),
        "| raabin | **raabin, unseen** | 0.31 | 70.0 % → 72.0 % | 40.0 % → 60.0 % (75% new) |": distance_table(
            evidence
        ),
        "| raabin | pbc, held out | 0.10 | 70.0 % → 72.0 % | 40.0 % → 40.0 % (kept) |": distance_table(evidence),
        "100 images of 60 photos or slides": few_labels_table(evidence),
        "| raabin | photos alone | 100: 40 monocyte, 60 neutrophil; from 75% of the photos "
        "| 40.0 % → 85.0 %, n = 400 (85.0 % wanted: reached) | 80.0 % [75.0, 85.0]; 90.0 % [85.0, 95.0] "
        "| pbc 90.0 % → 70.0 %, n = 400; chula 80.0 % → 50.0 %, n = 400 | 50%, 100% |": heads_table(evidence),
        "| stain deposit | 10.0 % [5.0, 15.0] | 2.0 % | 4.0 % | 8.0 % | 16.0 % | 20.0 % |": corruption_table(
            parts["corruption"]
        ),
        "| pbc, TEST: 400, of 390 groups; found boxes, 3 without a box left out "
        "| 1 | 40.0 % [35.0, 45.0] | 39.0 [34.0, 44.0] | 80.0 % [75.0, 85.0] | 160 of 320 | 40.0 % [35.0, 45.0] |\n"
        "|  | 1.5 | 78.0 % [73.0, 83.0] | 1.0 [-4.0, 6.0] | 80.0 % [75.0, 85.0] | 312 of 320 | 15.0 % [10.0, 20.0] |\n"
        "|  | 1.75 | 79.0 % [74.0, 84.0] |  | 80.0 % [75.0, 85.0] | 316 of 320 | 2.5 % [-2.5, 7.5] |": framing_table(
            evidence
        ),
        "| noise | 40 | 1: 2.5 % [-2.5, 7.5] | 0: 0.0 % [0.0, 0.0] |": stranger_table(parts["strangers"]),
        "| immature granulocyte | 50 | 0.970 [0.960, 0.980] |": anomaly_table(parts["anomaly"]),
        "| pbc, test | 120 | laboratory named | 1.25 points | 95.0 % | 94.0 % to 95.0 % |": counts_table(evidence),
    }
    assert "| smears, held out: chula | 50 | 2 | 4.0 % [0.5, 13.7] |" in gate_table(evidence)
    found = f"| chula, official TEST photos: 60 | 100 {'| 90.0 % [80.0, 95.0] ' * 3}| 0.05 | 41 ms |"
    fields, single = finding_table(evidence).split("\n\n")
    assert found in fields and "| pbc, monocyte | 50 | 90.0 % | 80.0 % |" in single
    tables |= {"| chula: 60 |": fields, "| pbc | 100 | 90.0 % [80.0, 95.0] |": single}
    for shown, table in tables.items():
        assert shown in table, table
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) == 1, table


def test_heads_say_what_was_done_otherwise(folder):
    evidence = copy.deepcopy(read_results(folder / "eval_results.json")["evidence"])
    (report,) = evidence["heads"]
    report["checkpoint"]["command"] += " --consistency 12"
    assert "| raabin, two views | photos alone |" in heads_table(evidence)
    del report["labelled_share"]
    assert "| 100: 40 monocyte, 60 neutrophil |" in heads_table(evidence)
    report["not_found"] = 0
    assert "| raabin, cells found, two views | photos alone |" in heads_table(evidence)


def test_classes_whose_intervals_miss_the_truth_too_often_are_listed():
    def scene(lab, **coverage):
        classes = {name: {"coverage": value} for name, value in coverage.items()}
        return {"laboratory": lab, "cells": "test", "ways": {"laboratory named": {"classes": classes}}}

    scenes = [scene("here", a=0.95, b=0.8), scene("there", a=0.24, b=0.95, c=0.79)]
    assert missed_by_intervals({"counts": [{"scenes": scenes}]}, 0.8) == ["there, test: a (24.0 %), c (79.0 %)"]


def test_photos_named_wrongly_every_time_are_those_that_all_networks_share():
    def network(split, *wrong):
        photo_level = {"wrong": [{"photo": photo, "label": "a", "answer": "b"} for photo in wrong]}
        return {"results": [{"dataset": "blood-cells", "split": split, "photo_level": photo_level}]}

    shipped = network("TEST", "p3", "p1", "p2")
    assert always_wrong(shipped) == ["p1", "p2", "p3"]
    seeds = [network("TEST", "p2", "p3", "p9"), network("TEST", "p3", "p2"), network("validation")]
    assert always_wrong(shipped | {"evidence": {"official": seeds}}) == ["p2", "p3"]
    assert always_wrong(network("validation", "p1")) == []


def test_classes_that_are_often_missed_come_worst_first_with_what_they_were_taken_for():
    labels = ["a", "b", "c"]
    recalls = {label: {"value": value} for label, value in zip(labels, (0.8, 0.7, 0.5), strict=True)}
    entry = {
        "dataset": "here", "split": "TEST", "labels": labels, "recall": recalls,
        "confusion_matrix": [[8, 1, 1], [3, 7, 0], [1, 4, 5]],
    }  # fmt: skip
    found = [(one["label"], one["taken_for"], one["times"]) for one in weak_recalls([entry], 0.8)]
    assert found == [("c", "b", 4), ("b", "a", 3)]
    assert weak_recalls([entry | {"recall": {"a": recalls["a"]}}], 0.8) == []  # the others have no images


def test_foreign_pictures_are_counted_apart_by_whether_training_shows_their_kind():
    kinds = {
        kind: {"n": 10, "accepted": {"count": count}}
        for kind, count in (("fractal", 3), ("noise", 2), ("ground of pbc", 1), ("photograph of scikit-image", 1))
    }
    assert strangers_of({"kinds": kinds}, taught=True) == {"n": 20, "accepted": 3}
    assert strangers_of({"kinds": kinds}, taught=False) == {"n": 20, "accepted": 4}
    drawn = {kind for kind, _ in draw_strangers(1, 64, 0)} | {GROUND, RED, PLATELETS, "platelet"}
    assert set(TAUGHT) < drawn  # a kind that is renamed would count as one never shown


def test_what_closer_cuts_cost_is_told_from_least_to_most_of_the_laboratories_measured_so(folder):
    evidence = read_results(folder / "eval_results.json")["evidence"]
    assert points_lost(evidence, 1.0) == "39.0 to 39.0 points"
    other, without = (copy.deepcopy(evidence["stress"][0]) for _ in range(2))
    other["parts"]["framing"]["windows"][0]["lost"]["value"] = -0.012
    del without["parts"]["framing"]
    assert points_lost({"stress": [evidence["stress"][0], without, other]}, 1.0) == "-1.2 to 39.0 points"
    assert framing_table({"stress": [evidence["stress"][0], without]}) == framing_table(evidence)


def test_a_table_of_measured_corruptions_has_every_one(folder):
    evidence = copy.deepcopy(read_results(folder / "eval_results.json")["evidence"])
    del evidence["stress"][0]["parts"]["corruption"]["corruptions"]["bubble"]
    with pytest.raises(KeyError, match="bubble"):
        corruption_table(evidence["stress"][0]["parts"]["corruption"])


def test_reading_results_brings_in_no_network():
    """Whoever reads, checks or publishes figures waits for no torch."""
    words = "import sys, evaluation.results; sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], cwd=REPOSITORY, check=False).returncode == 0


def test_framing_without_a_figure_is_refused(folder):
    results = copy.deepcopy(read_results(folder / "eval_results.json"))
    del results["evidence"]["stress"][0]["parts"]["framing"]["windows"][1]["overlooked"]
    with pytest.raises(ValueError, match=r"parts\.framing\.windows\[1\] lacks \['overlooked'\]"):
        validate_results(results)


def test_a_commit_that_was_not_all_is_told(folder):
    evidence = read_results(folder / "eval_results.json")["evidence"]
    assert "`python few_labels.py --head`, commit ccccccc with uncommitted changes" in heads_table(evidence)
    assert "`python few_labels.py`, commit ccccccc\n" in few_labels_table(evidence)


def test_commands_name_no_folder_of_the_machine_they_ran_on():
    words = "python {}train.py --data_dir pbc runs/x --init_from {}hub_model"
    found = [{"command": words.format("/somewhere/clone/", "/else/"), "n": 3, "of": ["a/b"]}]
    assert without_folders(found) == [{"command": words.format("", ""), "n": 3, "of": ["a/b"]}]
    assert without_folders(words.format("../clone/", "../../else/")) == words.format("", "")
    assert (
        without_folders("x.py ../pbc --out=/a/b/c a/../b https://a.org/b/c")
        == "x.py pbc --out=c a/../b https://a.org/b/c"
    )
