"""The benchmark in a very small setting, its page, and its comparison with earlier figures. No time is asserted."""

import copy
import json
import re
from itertools import pairwise

import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from benchmarks import accelerator, peak, speed, table, timing
from benchmarks.measures import Possible, build_field, find_best_batch
from benchmarks.peak import Product
from benchmarks.subjects import multiply_adds
from benchmarks.timing import ratios, side_by_side, spread

COMMITTED = REPOSITORY / "benchmarks" / "results.json"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the command writes of the shipped weights: results, page."""
    out = tmp_path_factory.mktemp("bench")
    threads = torch.get_num_threads()
    only = ["--only", "stages", "field", "start", "--repeats", "1", "--images", "2", "--field", "480", "640"]
    try:
        speed.main([str(REPOSITORY / "hub_model"), "--out", str(out / "r.json"), "--page", str(out / "p.md"), *only])
    finally:
        torch.set_num_threads(threads)
    return out / "r.json", (out / "p.md").read_text(encoding="utf-8")


def made_up(ratio=0.5, value=20.0, **changes):
    one = {
        "section": "One image", "what": "ours", "beside": "theirs", "unit": "ms",
        "ratio": {"median": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "n": 5},
        "value": {"median": value, "low": value - 1, "high": value + 1, "n": 5},
        "wanted": {"of": "ratio", "at_most": 0.5}, "possible": None, "batch": None,
    }  # fmt: skip
    results = {
        "schema_version": table.SCHEMA_VERSION, "command": "python -m benchmarks.speed", "commit": "c" * 40,
        "machine": {"cpu": "Some Processor", "cores": 2, "memory_gb": 24.2, "bfloat16": True, "load_before": 0.0},
        "versions": {"torch": "2.15.0"}, "settings": {"threads": 2, "repeats": 5, "images": "2 JPEG", "turns": "in turns"},
        "peaks": {"float32": {"way": "NumPy, 1024x1024", "billions_a_second": 200.0}},
        "figures": [one], "same_labels": None,
    }  # fmt: skip
    return results | changes


def test_the_command_writes_what_it_promises(measured):
    path, page = measured
    results = table.read(path)
    assert {one["section"] for one in results["figures"]} == {
        "The stages of one answer",
        "A whole field",
        "A fresh process: imports and loading, files in the system's cache",
        "Most memory after one answer",
    }
    stages = [one["what"] for one in results["figures"] if one["section"] == "The stages of one answer"]
    assert stages == ["decode", "resize and normalise", "network", "postprocess", "serialise", "all of it"]
    for one in results["figures"]:
        for part in ("ratio", "value"):
            assert 0 < one[part]["low"] <= one[part]["median"] <= one[part]["high"] < float("inf")
    assert page == table.page(results)
    assert f"{results['machine']['cores']} cores" in page and results["commit"][:12] in page


def test_the_committed_page_says_what_was_measured():
    if not COMMITTED.is_file():
        pytest.skip("benchmarks/results.json does not exist yet: `make bench` writes it")
    table.main([str(COMMITTED), "--page", str(COMMITTED.with_name("README.md")), "--check"])


def test_a_page_that_was_changed_by_hand_is_told(tmp_path):
    results, page = tmp_path / "r.json", tmp_path / "p.md"
    results.write_text(json.dumps(made_up()))
    table.main([str(results), "--page", str(page)])
    table.main([str(results), "--page", str(page), "--check"])
    page.write_text(page.read_text().replace("0.5", "0.4"))
    with pytest.raises(SystemExit, match="is not what .* says; render it anew"):
        table.main([str(results), "--page", str(page), "--check"])


def test_the_page_shows_median_quartiles_and_what_was_wanted():
    page = table.page(made_up())
    assert "| ours | 20 [19, 21] ms | 0.5 [0.49, 0.51] | theirs | at most 0.5: reached |" in page
    shares = made_up()
    shares["figures"][0]["possible"] = {"median": 0.625, "low": 0.6, "high": 0.64, "n": 5}
    assert "| ours | 20 [19, 21] ms | 0.5 [0.49, 0.51] | theirs | 62 % | at most 0.5: reached |" in table.page(shares)
    assert "200 billion multiply-adds a second in float32 (NumPy, 1024x1024)" in table.page(shares)
    assert "at most 0.5: **missed**" in table.page(made_up(ratio=0.6))
    assert "Other work ran" not in page
    busy = made_up()
    busy["machine"]["load_before"] = 3.0
    assert "Other work ran on the machine meanwhile (load 3.0 before)" in table.page(busy)
    way = {"same": 1999, "share": 0.9995, "largest_difference": 0.012}
    labels = {"images": 2000, "what": "TEST", "ways": {"bfloat16": way}}
    assert "| bfloat16 | 1,999 of 2,000: 99.95 % | 0.01 |" in table.page(made_up(same_labels=labels))


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ({"of": "ratio", "at_most": 0.5}, True),
        ({"of": "ratio", "at_least": 0.51}, False),
        ({"of": "value", "at_most": 19}, False),
        ({"of": "value", "at_least": 20}, True),
        ({"of": "ratio", "at_least": 0.45, "at_most": 0.55}, True),
        ({"of": "ratio", "at_least": 0.55, "at_most": 0.65}, False),
        ({"of": "ratio", "at_least": 0.35, "at_most": 0.45}, False),
        (None, None),
    ],
)
def test_what_is_wanted_is_held_against_ratio_or_value(wanted, reached):
    (one,) = made_up()["figures"]
    assert table.meets(one | {"wanted": wanted}) is reached


def test_comparing_names_what_moved_by_more_than_a_tenth():
    old = made_up()
    assert table.compare(made_up(ratio=0.54), old) == []  # 8 %
    assert table.compare(made_up(value=90.0), old) == []  # another machine's milliseconds say nothing
    assert table.compare(made_up(ratio=0.6), old) == ["moved: One image: ours / theirs: 0.5 → 0.6 (+20 %)"]
    assert table.compare(made_up(ratio=0.4), old) == ["moved: One image: ours / theirs: 0.5 → 0.4 (-20 %)"]


def test_comparing_names_other_machines_and_figures_that_come_and_go():
    new = copy.deepcopy(made_up(versions={"torch": "2.16.0"}))
    new["machine"]["cpu"] = "Another Processor"
    new["figures"][0]["what"] = "something new"
    assert table.compare(new, made_up()) == [
        "another machine: cpu is Another Processor, was Some Processor; ratios may differ for that",
        "another version: torch is 2.16.0, was 2.15.0",
        "new: One image: something new / theirs",
        "gone: One image: ours / theirs",
    ]


def test_a_run_of_some_parts_is_compared_in_these_only():
    old = made_up()
    old["figures"].append(old["figures"][0] | {"section": "Many files"})
    old["same_labels"] = {"images": 2, "what": "some", "ways": {}}
    new = made_up(ratio=0.6)
    assert len(table.compare(new, old)) == 3
    new["command"] += " --only latency"
    assert table.compare(new, old) == ["moved: One image: ours / theirs: 0.5 → 0.6 (+20 %)"]


def test_a_section_says_what_its_rows_leave_out():
    results = made_up()
    results["figures"][0]["section"] = "8 images through the network at once"
    assert "two at a time" in table.page(results).replace("\n", " ") and "two at a time" not in table.page(made_up())


def test_a_figure_is_compared_though_its_best_batch_is_another():
    old, new = made_up(), made_up(ratio=0.7)
    for run, batch in ((old, 4), (new, 8)):
        run["figures"][0] |= {"what": "theirs, at its best batch", "batch": batch}
    assert table.compare(new, old) == [
        "moved: One image: theirs, at its best batch / theirs: 0.5 → 0.7 (+40 %)",
        "another batch: One image: theirs, at its best batch: 8, was 4",
    ]
    assert "| theirs, at its best batch (8) | 20 [19, 21] ms |" in table.page(new)
    named = [one["what"] for one in table.read(COMMITTED)["figures"]] if COMMITTED.is_file() else []
    assert not [name for name in named if re.search(r"batch \d", name)]


def test_the_best_batch_is_the_one_with_the_lowest_median_once_warm(monkeypatch):
    """A first call that is slow and a lucky round decide nothing."""
    seconds = {2: [9, 2, 2, 0.1, 2, 2], 4: [9, 1, 1, 1, 7, 1], 8: [9, 3, 3, 3, 3, 3]}
    clock, left = [0.0], {batch: iter(times) for batch, times in seconds.items()}

    def run(batch):
        clock[0] += next(left[batch])

    monkeypatch.setattr(timing, "rest", lambda: None)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    assert find_best_batch(run, list(seconds), rounds=5) == 4


def test_the_accelerators_figures_are_compared_with_those_they_overwrite(tmp_path):
    committed = table.reported(REPOSITORY / "benchmarks" / "accelerator.json")
    assert accelerator.compare(committed, committed) == []
    new = copy.deepcopy(committed)
    row = next(one for one in new["figures"] if one["what"] == "our Trainer, images drawn on the device")
    row["ratio"]["median"] = 1.5 * row["ratio"]["median"]
    new["machine"]["cores"] = 3
    told = accelerator.compare(new, committed)
    assert len(told) == 2 and told[0].startswith("another machine: cores is 3, was ")
    assert re.fullmatch(r"moved: .*: our Trainer, images drawn on the device / .* \(\+50 %\)", told[1])
    assert table.reported(tmp_path / "new.json", needed=False) is None
    with pytest.raises(FileNotFoundError):
        table.reported(tmp_path / "new.json")
    (tmp_path / "new.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        table.reported(tmp_path / "new.json", needed=False)


def test_the_accelerators_page_says_what_was_measured_and_what_was_missed():
    committed = table.reported(REPOSITORY / "benchmarks" / "accelerator.json")
    page = accelerator.page(committed)
    assert (REPOSITORY / "benchmarks" / "accelerator.md").read_text(encoding="utf-8") == page
    assert "at least 0.95: **missed**" in page and "Not reached: that loading never starves the network" in page


def test_the_command_compares(tmp_path, capsys):
    for name, ratio in (("old", 0.5), ("new", 0.7)):
        (tmp_path / f"{name}.json").write_text(json.dumps(made_up(ratio)))
    table.main([str(tmp_path / "new.json"), "--compare", str(tmp_path / "old.json")])
    assert capsys.readouterr().out == "moved: One image: ours / theirs: 0.5 → 0.7 (+40 %)\n"
    table.main([str(tmp_path / "new.json"), "--compare", str(tmp_path / "new.json")])
    assert capsys.readouterr().out == "nothing moved by more than a tenth\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("[]", "Expected results with .* got list"),
        (json.dumps(made_up(schema_version=0)), "schema_version is 0, expected 3"),
        (json.dumps(made_up(figures=[{"what": "ours"}])), "A figure has other parts than expected"),
    ],
)
def test_what_are_no_results_is_refused(text, reason, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(SystemExit, match=reason):
        table.main([str(tmp_path / "r.json")])


def test_a_folder_without_images_is_refused(tmp_path):
    arguments = [str(REPOSITORY / "hub_model"), "--out", str(tmp_path / "r.json"), "--data_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="has no folder TRAIN; expected the unpacked Kaggle archive"):
        speed.main(arguments)


def turns(monkeypatch, names, **options):
    """Give what side_by_side calls, in its order; "-" stands for a rest and "|" for a new round."""
    called = []
    monkeypatch.setattr(timing, "rest", lambda: called.append("-"))
    subjects = {name: lambda name=name: called.append(name) for name in names}
    seconds = side_by_side(subjects, each_round=lambda: called.append("|"), **options)
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(names, options["repeats"])
    return "".join(called)


def test_every_subject_comes_behind_every_other_after_a_rest_and_a_run_of_its_own(monkeypatch):
    """In one order, whoever stood behind ONNX Runtime was slowed by its threads in every round."""
    called = turns(monkeypatch, "abcd", repeats=40, warm_up=2)
    first, *rounds = re.split(r"\|", called)[1:]
    assert first.startswith("aabbccdd-")
    rounds = [first[8:], *rounds]
    assert len(rounds) == 40
    order = [re.sub(r"-(.)\1", r"\1", text) for text in rounds]  # a rest, and twice the same
    assert all(sorted(text) == list("abcd") for text in order)
    behind = {pair for text in order for pair in pairwise(text)}
    assert behind == {(one, other) for one in "abcd" for other in "abcd" if one != other}
    assert {text[0] for text in order} == set("abcd")
    assert turns(monkeypatch, "abcd", repeats=40, warm_up=2) == called
    assert turns(monkeypatch, "abcd", repeats=40, warm_up=2, seed=1) != called
    assert set(turns(monkeypatch, "ab", repeats=3, warm_up=0, lead_in=0).split("|")[1:]) <= {"-a-b", "-b-a"}


class SpinningThreads:
    """A clock to which this process's other threads compute, on one processor, until a given second."""

    def __init__(self, until):
        self.now, self.until = 0.0, until

    def perf_counter(self):
        return self.now

    def process_time(self):
        return min(self.now, self.until)

    def sleep(self, seconds):
        self.now += seconds


def test_a_rest_outlasts_threads_that_spin_on(caplog, monkeypatch):
    clock = SpinningThreads(until=0.3)
    monkeypatch.setattr(timing, "time", clock)
    timing.rest()
    assert 0.3 < clock.now < 0.4 and not caplog.records


def test_a_rest_that_finds_no_end_says_so(caplog, monkeypatch):
    clock = SpinningThreads(until=60)
    monkeypatch.setattr(timing, "time", clock)
    timing.rest()
    assert clock.now == pytest.approx(timing.LONGEST_REST, abs=0.1)
    assert "what is timed now is too slow" in caplog.text


def test_ratios_are_formed_in_each_round():
    # The second round was ten times slower for both sides: the ratio does not see it.
    assert ratios([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == [0.5, 0.5, 0.5]
    assert spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 5}
    assert spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0, "n": 1}
    with pytest.raises(ValueError, match="There are no values"):
        spread([])


def test_multiply_adds_are_those_that_the_literature_gives():
    """4.1 billion for ResNet-50 at 224 px (He et al. 2016, table 1, gives 3.8 with the stride on the first convolution)."""
    network = ResNetForImageClassification(ResNetConfig()).eval()
    assert multiply_adds(network, torch.zeros(1, 3, 224, 224)) == pytest.approx(4.09e9, rel=0.01)
    layer = torch.nn.Conv2d(4, 6, 3, groups=2, bias=False)
    assert multiply_adds(torch.nn.Sequential(layer), torch.zeros(2, 4, 8, 8)) == 2 * 6 * 6 * 6 * (2 * 9)


def test_a_share_of_the_peak_is_a_rate_over_a_rate():
    class Networks:
        timm_50 = torch.nn.Conv2d(3, 8, 1)  # 24 multiply-adds a pixel
        timm_18 = torch.nn.Conv2d(3, 4, 1)
        ours = torch.nn.Conv2d(3, 2, 1)

    possible = Possible({"float32": Product(lambda: None, 6000, "a product", seconds=0.5)}, Networks, side=10)
    assert possible.share("timm, ResNet-50", [1.0, 2.0], images=4) == pytest.approx([0.8, 0.4])  # 2400 x 4 of 12000
    assert possible.share("timm, ResNet-18", [1.0]) == pytest.approx([0.1])
    assert possible.share("our pipeline", [1.0]) == pytest.approx([0.05])


def test_the_peak_is_the_fastest_of_the_products(monkeypatch):
    """Of products that do the same, the one with the most multiply-adds a second, whatever the machine."""
    taken = {"slow": 4.0, "fast": 1.0, "large": 3.0}
    products = [Product(lambda: None, 1000 if way == "large" else 500, way) for way in taken]
    monkeypatch.setattr(peak, "products", lambda kind: products)
    monkeypatch.setattr(peak, "side_by_side", lambda subjects, rounds: {way: [taken[way]] * 2 for way in subjects})
    found = peak.find_peaks(bfloat16=False)
    assert list(found) == ["float32"] and (found["float32"].way, found["float32"].seconds) == ("fast", 1.0)


def test_products_are_those_of_the_same_matrices(monkeypatch):
    monkeypatch.setattr(peak, "SIZES", (64,))
    for kind, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1.0)):
        results = [torch.as_tensor(one.run()).float().flatten() for one in peak.products(kind)]
        assert len(results) == (4 if kind == torch.float32 else 2)
        for result in results[1:]:
            torch.testing.assert_close(result.sort().values, results[0].sort().values, rtol=0.02, atol=tolerance)


def test_a_large_field_is_filled_to_its_edges():
    field = build_field([Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")], size=(100, 150))
    assert field.size == (150, 100)
    assert {colour for _, colour in field.getcolors()} == {(255, 0, 0), (0, 0, 255)}
