"""How fast the page is: measured against a page that is started for it, and as it stands in the tree."""

import json
import shutil

import pytest
from conftest import REPOSITORY
from space_fixtures import EXAMPLES

from benchmarks import space_speed, table

SHIPPED = REPOSITORY / "hub_model"


def test_the_95th_percentile_is_the_time_that_95_in_100_do_not_exceed():
    assert space_speed.percentile_95([float(n) for n in range(100, 0, -1)]) == 95
    assert space_speed.percentile_95([float(n) for n in range(40)]) == 37
    assert space_speed.percentile_95([3.0]) == 3


def test_a_page_that_is_started_is_measured(tmp_path, monkeypatch, capsys):
    for name, value in (("WARM_UP", 1), ("ROUNDS", 1), ("ASKED", 2), ("VISITORS", 2), ("COUNTS", 1), ("MEANWHILE", 1)):
        monkeypatch.setattr(space_speed, name, value)
    (tmp_path / "fields").mkdir()
    for path in sorted(EXAMPLES.glob("*.png"))[:3]:
        shutil.copy(path, tmp_path / "fields")
    out, rendered = tmp_path / "space.json", tmp_path / "space.md"
    space_speed.main([str(SHIPPED), "--fields", str(tmp_path / "fields"), "--out", str(out), "--page", str(rendered)])
    report = json.loads(out.read_text())
    what = [one["what"] for one in report["figures"]]
    assert what[0] == "ready after its start" and "3 fields counted" in what and len(what) == 6
    assert all(one["value"]["low"] > 0 and one["ratio"]["low"] > 0 for one in report["figures"])
    printed = capsys.readouterr().out
    for line in rendered.read_text().splitlines():
        if line.endswith(("reached |", "**missed** |")):
            assert (
                f"{'reached' if 'reached' in line else 'missed'}: {line.split(' | ')[0].removeprefix('| ')}" in printed
            )


def test_a_folder_without_photos_is_named(tmp_path):
    with pytest.raises(SystemExit, match="holds no photos"):
        space_speed.main([str(SHIPPED), "--fields", str(tmp_path), "--out", str(tmp_path / "space.json")])


def test_the_committed_page_is_what_was_measured():
    committed = table.reported(REPOSITORY / "benchmarks" / "space.json")
    assert space_speed.compare(committed, committed) == []
    assert (REPOSITORY / "benchmarks" / "space.md").read_text(encoding="utf-8") == space_speed.page(committed)
    slower = json.loads(json.dumps(committed))
    for spread in slower["figures"][1]["ratio"], slower["figures"][1]["value"]:
        spread["median"] *= 2
    assert any("moved" in line and "+100 %" in line for line in space_speed.compare(slower, committed))
