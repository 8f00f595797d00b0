"""The page of arithmetic says what its figures say; where one is committed, it is rendered from the committed figures."""

import json

import pytest
from conftest import REPOSITORY

from benchmarks import score_scale
from benchmarks.score_scale import compare, costs, judged, page

GROWTH = {"start_seconds": 9.0, "reading_processor_milliseconds": 4.0, "naming_processor_milliseconds": 3.0}


def made_up():
    rows = [(1000, 8.0, 1.5e9), (10_000, 8.4, 1.6e9), (100_000, 8.2, 1.7e9)]
    return {
        "source": "score.json",
        "machine": {"processor": "Some Processor", "cores": 2, "load_before": 0.1, "load_after": 0.4},
        "versions": {"ray": "2.0", "torch": "2.0"},
        "mean_bytes": 10_000,
        "side": 64,
        "chunk": 64,
        "nodes": {
            "images": 2000, "one_node_images_per_second": [19.0, 20.0, 25.0], "two_nodes_images_per_second": [36.0],
            "efficiency": 0.9, "reading_processor_milliseconds": 5.0, "naming_processor_milliseconds": 45.0,
        },
        "growth": [
            {"images": number, "milliseconds": cost, "peak_memory_bytes": memory, **GROWTH} for number, cost, memory in rows
        ],
    }  # fmt: skip


def test_the_arithmetic_follows_from_the_rates():
    text = " ".join(page(made_up()).split())
    assert "1e9" not in text and "not idle" not in text
    assert "20.0 images/s x 90% = 18.0 images/s" in text
    assert "10^9 images / 18.0 images/s = 15,432 core hours" in text  # 1e9 / 18 / 3600
    assert "**2.4 hours**" in text  # over 100 machines of 64 cores
    assert "173 MB/s within each machine" in text  # 150,528 bytes x 64 x 18
    assert "a core reads 0.18 MB/s" in text  # 10 kB x 18
    assert "450 chunks of 256 a second" in text  # 6,400 x 18 / 256
    assert "10.0 TB to read" in text and "an efficiency of 90%" in text
    assert "the network's arithmetic is 90% of the processor time" in text
    assert "| 10,000 | 8.40 | 1.050 | 4.00 + 3.00 | 9 | 1.60 |" in text


def test_a_busy_machine_is_told():
    report = made_up()
    report["machine"]["load_before"] = 7.5
    assert "**The machine was not idle** (load 7.5 on 2 cores)" in page(report)


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [
        (0.2, "5,000 a second are its limit: enough, with at least half of it to spare"),
        (2.0, "500 a second are its limit: **it is the bottleneck** soon unless chunks are larger; `--chunk 512`"),
        (4.0, "250 a second are its limit: **it is the bottleneck** unless chunks are larger; `--chunk 1024`"),
        (None, "is not measured"),
    ],
)
def test_the_driver_is_held_against_the_chunks_of_all_cores(milliseconds, told):
    report = made_up()
    if milliseconds is not None:
        report["driver"] = {"chunks": 2000, "processor_milliseconds": milliseconds, "chunks_per_second": 300.0}
    assert told in " ".join(page(report).split())


@pytest.mark.parametrize(
    ("last", "memory", "told"),
    [
        (
            8.2,
            1.9e9,
            ["10%: met, from 1.000 to 1.025 of the first. **Memory", "2 GB in all that was measured: met, 1.90 GB"],
        ),
        (
            7.0,
            1.9e9,
            ["10%: **not met**, from 0.875 to 1.000 of the first. It falls, so nothing in it grows"],
        ),
        (9.0, 2.1e9, ["10%: **not met**, from 1.000 to 1.125 of the first. It grows.", "**not met**, 2.10 GB at most"]),
    ],
)
def test_the_verdict_follows_from_the_figures(last, memory, told):
    rows = [
        {"images": 1000, "milliseconds": 8.0, "peak_memory_bytes": 1.5e9, **GROWTH},
        {"images": 9000, "milliseconds": last, "peak_memory_bytes": memory, **GROWTH},
    ]
    text = " ".join(judged(rows, []).split())
    assert all(part in text for part in told)
    rows = [row | {"middle_milliseconds": 7.0} for row in rows]
    assert "start and end out: 7.00, 7.00 ms, 1.000 to 1.000 of the first" in " ".join(judged(rows, []).split())


def test_memory_is_judged_by_the_most_and_shown_for_each_kind_of_input():
    report = made_up()
    kinds = [("files", [], 1.8e9), ("3 tars", ["--embedding"], 2.2e9)]
    report["held"] = [
        {"inputs": kind, "options": options, "images": 2000, "peak_memory_bytes": memory}
        for kind, options, memory in kinds
    ]
    text = page(report)
    assert "**not met**, 2.20 GB at most" in text
    assert "| files |  | 2,000 | 1.80 |" in text and "| 3 tars | `--embedding` | 2,000 | 2.20 |" in text
    later = json.loads(json.dumps(report))
    later["held"][1]["peak_memory_bytes"] = 1.7e9
    assert compare(later, report) == ["moved: 3 tars --embedding, GB beyond the store: 2.2 → 1.7 (-23 %)"]


def test_the_gain_of_bfloat16_is_told_where_it_was_measured():
    report = made_up()
    assert "bfloat16 (`" not in page(report).partition("## The arithmetic")[0]
    report["nodes"]["one_node_bfloat16_images_per_second"] = [50.0, 40.0, 45.0]
    assert "the same node does 45.0 images/s, 2.25 times as many" in " ".join(page(report).split())


def test_the_cost_of_an_image_counts_from_the_first_chunk_that_was_begun():
    marks = [[64 * number, 30.0 + number] for number in range(1, 11)]
    times = {"images": 640, "begun": 29.0, "marks": marks}
    times["seconds"] = {"reading_cpu_seconds": 6.4, "naming_cpu_seconds": 12.8}
    cost = costs(times)
    assert cost["start_seconds"] == 29.0
    assert cost["milliseconds"] == pytest.approx(1000 * 11 / 640)
    assert cost["middle_milliseconds"] == pytest.approx(1000 * 5 / 320)  # from the third chunk to the eighth
    assert (cost["reading_processor_milliseconds"], cost["naming_processor_milliseconds"]) == pytest.approx((10, 20))


def test_what_moved_since_the_figures_that_are_overwritten_is_told():
    old, new = made_up(), made_up()
    assert compare(new, old) == []
    new["growth"][2] |= {"milliseconds": 8.2 * 1.05, "peak_memory_bytes": 2.55e9}
    new["nodes"]["efficiency"] = 0.72
    new["machine"]["cores"], new["machine"]["load_before"] = 4, 3.0
    new["growth"][1]["images"] = 20_000
    told = compare(new, old)
    assert told[0] == "another machine: cores is 4, was 2; costs may differ for that"
    assert "moved: two nodes, efficiency: 0.9 → 0.72 (-20 %)" in told
    assert "moved: 100,000 images, GB beyond the store: 1.7 → 2.55 (+50 %)" in told
    assert [line for line in told if line.startswith("moved")] == told[-7:-5]
    assert "new: 20,000 images, ms an image" in told and "gone: 10,000 images, ms an image" in told


def test_the_command_compares_before_it_overwrites(tmp_path, monkeypatch, capsys):
    out, earlier = tmp_path / "score.json", made_up()
    earlier["nodes"]["efficiency"] = 0.6
    out.write_text(json.dumps(earlier))
    monkeypatch.setattr(score_scale, "measure", lambda options: made_up())
    score_scale.main(["hub_model", "--images", "cells", "--out", str(out)])
    told = capsys.readouterr()
    assert told.err == "moved: two nodes, efficiency: 0.6 → 0.9 (+50 %)\n"
    assert json.loads(told.out) == json.loads(out.read_text()) == made_up()
    with pytest.raises(SystemExit, match=r"absent\.json"):
        score_scale.main(["m", "--images", "cells", "--out", str(out), "--compare", str(tmp_path / "absent.json")])


def test_the_committed_page_is_that_of_the_committed_figures():
    figures, written = REPOSITORY / "benchmarks" / "score.json", REPOSITORY / "docs" / "score.md"
    if not figures.is_file():
        pytest.skip("benchmarks/score.json is absent: write it with benchmarks/score_scale.py")
    assert written.read_text(encoding="utf-8") == page(json.loads(figures.read_text(encoding="utf-8")))
