"""The card's tables of doors and ONNX files say what was measured, and nothing where nothing was."""

import pytest
from made_up import doors_report, onnx_reports

from evaluation.door_tables import difference, doors_table, eight_bits, onnx_speed, onnx_table, pictures_of_doors


def test_each_door_has_a_row_with_its_differences_and_what_it_may_differ_by():
    rows = doors_table({"doors": [doors_report()]}).splitlines()
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    same = "55 of 55 | below 1e-07 (at most 1e-06)"
    assert rows[2] == f"| our class | `from_pretrained(ID)` | {same} | {same} |"
    assert rows[3] == f"| Node | `onnx/model.onnx` | {same} | 54 of 55 | 2e-01 (at most 5e-01) |"
    assert pictures_of_doors({"doors": [doors_report()]}) == "5 of examples, 50 of pbc"


def test_the_files_have_their_opset_size_and_differences():
    rows = onnx_table({"onnx": onnx_reports()}).splitlines()
    assert len(rows) == 5 and len({row.count("|") for row in rows}) == 1
    assert rows[2] == "| `onnx/model.onnx` | 5.8 MB | 18 | pytorch 2.14.1 | PyTorch, noise | 20 | 20 | 7e-07 |"
    assert rows[3] == "| | | | | PyTorch, images | 205 | 205 | 7e-07 |"
    assert rows[4].startswith(
        "| `onnx/model_quantized.onnx` | 1.6 MB | 18 | onnx.quantize 0.1.0 | float, pbc held out to test on"
    )


def test_the_verdict_on_eight_bits_gives_what_was_lost():
    evidence = {"onnx": onnx_reports()}
    text = eight_bits(evidence)
    assert text.startswith("The 8-bit file is shipped: of accuracy it may lose at most 0.3 points on TEST.")
    assert "pbc 90.12 % → 90.04 %, 0.08 points lost [-0.12, 0.29]" in text
    evidence["onnx"][1]["test"]["pbc"]["lost"] = {"value": -0.08, "low": -0.29, "high": 0.12}
    assert "0.08 points gained [-0.12, 0.29]" in eight_bits(evidence)
    evidence["onnx"][1] |= {"shipped": False, "test": {}, "recipe": None}
    assert eight_bits(evidence) == (
        "The 8-bit file is **not** shipped: of accuracy it may lose at most 0.3 points on TEST. There, float "
        "→ 8 bits: nothing was measured. Its recipe, none of those tried, was chosen on validation."
    )
    assert eight_bits({"onnx": onnx_reports()[::2]}) == ""


def test_times_are_shares_of_pytorchs():
    text = onnx_speed({"onnx": onnx_reports()})
    assert "(Some Processor, median of 50 rounds) takes 40 ms through PyTorch, " in text
    assert text.endswith(
        "30 ms through `onnx/model.onnx` (0.75 of it) and 10 ms through `onnx/model_quantized.onnx` (0.25 of it)."
    )
    assert onnx_speed({"onnx": onnx_reports()[:2]}) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0, "below 1e-07"), (9.9e-8, "below 1e-07"), (1e-7, "1e-07"), (0.27, "3e-01")]
)
def test_a_difference_has_one_digit(value, text):
    assert difference(value) == text
