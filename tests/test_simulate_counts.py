"""Simulated counts: with a classifier that never errs, and with one whose errors are known, what must come out is known."""

import csv
import hashlib
import json

import numpy as np
import pytest

import simulate_counts

LABELS = ["eosinophil", "lymphocyte", "monocyte", "neutrophil", "basophil", "other"]


WEIGHTS = hashlib.sha256(b"weights").hexdigest()


def write_cells(path, wrong=0, each=20, lab="here", split="test"):
    """Write held-out cells, of each class `wrong` called neutrophils and as many unidentified."""
    with path.open("w", newline="") as stream:
        columns = ["lab", "split", "group", "class", "outcome", "verdict", "label", "weights"]
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for name in LABELS:
            for number in range(each):
                verdict = "neutrophil" if number < wrong else "unidentified" if number < 2 * wrong else name
                label = name if verdict == "unidentified" else verdict
                row = {
                    "lab": lab,
                    "split": split,
                    "group": f"{name}{number}",
                    "class": name,
                    "verdict": verdict,
                    "label": label,
                    "weights": WEIGHTS[:12],
                }
                writer.writerow(row | {"outcome": f"{name}?" if verdict == "unidentified" else verdict})
        writer.writerow(
            {
                "lab": lab,
                "split": split,
                "group": "x",
                "class": "other",
                "outcome": "not found",
                "weights": WEIGHTS[:12],
            }
        )
    return path


def write_model(folder, counts):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    config = {"id2label": {str(n): name for n, name in enumerate(LABELS)}, "negatives_label": "other"}
    config["validation_confusion"] = {"labels": LABELS, "counts": counts}
    (folder / "config.json").write_text(json.dumps(config if counts else {}))
    return folder


def simulate(tmp_path, cells, counts, *options):
    out = tmp_path / "counts.json"
    arguments = [str(write_model(tmp_path / "model", counts)), "--cells", str(cells), "--out", str(out)]
    simulate_counts.main([*arguments, "--draws", "30", "--workers", "1", *options])
    report = json.loads(out.read_text())
    assert report["weights_sha256"] == WEIGHTS and report["command"].startswith("python ")
    return report["scenes"]


def test_a_classifier_that_never_errs_counts_the_drawn_cells(tmp_path):
    sure = {name: {name: 10_000} for name in LABELS}
    scene, anew = simulate(tmp_path, write_cells(tmp_path / "cells.csv"), {"here": sure, "there": sure})
    assert anew["cells"] == "all held-out cells" and anew["ways"]["laboratory named"]["coverage"] >= 0.9
    assert scene["held_out_cells"] == dict.fromkeys(LABELS, 20) and scene["cells"] == "test"
    alone, named = scene["ways"]["sampling alone"], scene["ways"]["laboratory named"]
    assert alone["largest_mean_error"] == 0
    assert named["largest_mean_error"] < 0.8  # the prior's pull
    assert alone["coverage"] >= 0.93 and named["coverage"] >= 0.9


def test_errors_that_are_known_are_taken_back(tmp_path):
    """A fifth of each class is called neutrophil: the plain count is far off, and its intervals do not hold."""
    known = {name: {name: 1200, "neutrophil": 400, f"{name}?": 400} for name in LABELS}
    known["neutrophil"] = {"neutrophil": 1600, "neutrophil?": 400}
    cells = write_cells(tmp_path / "cells.csv", wrong=4)
    scene, _ = simulate(tmp_path, cells, {"here": known, "there": {name: {name: 2000} for name in LABELS}})
    alone, named, unnamed, unknown = (scene["ways"][way] for way in scene["ways"])
    assert alone["largest_mean_error"] > 4 and alone["coverage"] < 0.8
    assert named["largest_mean_error"] < 3 and named["coverage"] > 0.9
    assert unnamed["coverage"] > 0.9  # the outcomes tell which laboratory it is
    assert unknown["coverage"] < named["coverage"]


def test_without_test_cells_errors_are_counted_anew(tmp_path):
    cells = write_cells(tmp_path / "cells.csv", split="validation", wrong=4)
    counts = {"here": {name: {name: 30} for name in LABELS}}  # wrong, and not used: only their numbers are
    (scene,) = simulate(tmp_path, cells, counts)
    assert scene["cells"] == "all held-out cells" and sum(scene["held_out_cells"].values()) == 120
    assert scene["ways"].keys() == {"sampling alone", "laboratory named", "laboratory not named"}
    assert scene["ways"]["laboratory named"]["coverage"] > 0.85 > scene["ways"]["sampling alone"]["coverage"]
    anew = simulate_counts.count_anew(
        simulate_counts.read_cells(cells, WEIGHTS), counts["here"], np.random.default_rng(0)
    )
    assert {name: sum(row.values()) for name, row in anew.items()} == dict.fromkeys(LABELS, 30)
    assert anew["monocyte"]["neutrophil"] > 0 and anew["monocyte"].keys() <= {"monocyte", "monocyte?", "neutrophil"}


def test_slides_are_drawn_by_their_truth(tmp_path):
    pool = simulate_counts.read_cells(write_cells(tmp_path / "cells.csv"), WEIGHTS)
    slides = list(simulate_counts.draw_slides(pool, LABELS, 300, 200, 1))
    shares = np.array([[truth[name] for name in LABELS] for truth, _, _ in slides])
    counts = np.array([[drawn[name] for name in LABELS] for _, drawn, _ in slides])
    assert (counts.sum(1) == 200).all() and np.allclose(shares.sum(1), 1)
    usual = np.array([simulate_counts.USUAL[name] for name in LABELS])
    assert np.abs(shares.mean(0) - usual / usual.sum()).max() < 0.03
    deviation = (counts / 200 - shares) / np.sqrt(shares * (1 - shares) / 200 + 1e-12)
    assert np.sqrt((deviation[shares > 0.02] ** 2).mean()) == pytest.approx(1, abs=0.1)  # binomial
    again = list(simulate_counts.draw_slides(pool, LABELS, 300, 200, 1))
    assert again == slides


@pytest.mark.parametrize(
    ("text", "counts", "said"),
    [
        ("lab,split\nhere,test\n", {"here": {}}, "lists no cells with"),
        ("", {"here": {}}, "lists no cells with"),
        (None, None, "no validation_confusion in its config.json"),
    ],
)
def test_what_cannot_be_simulated(text, counts, said, tmp_path, capsys):
    cells = write_cells(tmp_path / "cells.csv")
    if text is not None:
        cells.write_text(text)
    with pytest.raises(SystemExit, match=said):
        simulate(tmp_path, cells, counts)


def test_cells_that_other_weights_named_are_refused(tmp_path):
    cells = write_cells(tmp_path / "cells.csv")
    cells.write_text(cells.read_text().replace(WEIGHTS[:12], "0" * 12))
    with pytest.raises(SystemExit, match="cells that the weights '0{12}' named; expected those of the model"):
        simulate(tmp_path, cells, {"here": {}})
