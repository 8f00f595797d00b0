"""How a recorded command divided a laboratory, and whether forerunners learnt from what is held out now."""

import pytest

from evaluation.divisions import check_unseen, division, learnt_before

WIDE = "python train.py --data_dir data/kaggle pbc --validation_share .1 --split_seed 3 --test_share pbc=0.2 --sides 96 128"
PLAIN = "python train.py --data_dir kaggle"


@pytest.mark.parametrize(
    ("command", "lab", "expected"),
    [
        (WIDE, "pbc", (0.1, 3, 0.2)),
        (WIDE, "kaggle", (0.1, 3, 0.0)),
        (WIDE, "raabin", None),
        (PLAIN, "kaggle", (None, 0, 0.0)),
        ("python train.py --packed packs/four --leave_out pbc", "pbc", None),
        ("python few_labels.py runs/model --data_dir raabin --home kaggle pbc --split_seed 3", "pbc", (None, 3, 0.0)),
        ("python few_labels.py runs/model --data_dir raabin --home kaggle pbc --split_seed 3", "raabin", None),
        ("", "pbc", None),
    ],
)
def test_the_division_is_read_from_the_command(command, lab, expected):
    assert division(command, lab) == expected


def test_a_forerunner_under_another_division_has_learnt_from_what_is_held_out_now():
    first = {"command": PLAIN, "started_from": None}
    second = {"command": WIDE, "started_from": first}
    assert learnt_before(division(WIDE, "kaggle"), second, "kaggle")  # its forerunner did
    assert learnt_before(division(WIDE, "kaggle"), first, "kaggle")
    assert not learnt_before(division(WIDE, "pbc"), second, "pbc")
    assert not learnt_before(division(PLAIN, "kaggle"), first, "kaggle")
    assert not learnt_before(division(WIDE, "kaggle"), None, "kaggle")  # from scratch
    assert not learnt_before(division(WIDE, "kaggle"), {"source": "resnet50.safetensors"}, "kaggle")
    assert not learnt_before(None, second, "raabin")


def test_what_a_forerunner_learnt_from_is_no_laboratory_never_seen():
    first = {"source": "first", "command": PLAIN, "started_from": None}
    second = {"source": "second", "command": "python train.py --data_dir pbc", "started_from": first}
    assert check_unseen(second, "raabin") is None and check_unseen(None, "kaggle") is None
    with pytest.raises(
        ValueError, match="^first learnt from kaggle, so that it is no laboratory never seen: python train.py"
    ):
        check_unseen(second, "kaggle")
    third = {"source": "third", "command": "python train.py --data_dir chula", "averaged_with": [second]}
    with pytest.raises(ValueError, match="^second learnt from pbc"):
        check_unseen(third, "pbc")


@pytest.mark.parametrize("last", [{}, {"command": "python train.py --packed packs/four --leave_out raabin"}])
def test_weights_whose_folders_no_record_names_are_told(last):
    record = {"source": "network", "command": PLAIN, "started_from": {"source": "resnet50.safetensors"} | last}
    assert check_unseen(record, "raabin") == "resnet50.safetensors"
    told = {**record, "started_from": {"source": "resnet50.safetensors", "learnt_from": "ImageNet-1k (resnet.tgz)"}}
    assert check_unseen(told, "raabin") is None
    told["started_from"]["learnt_from"] = "pbc and raabin"
    assert check_unseen(told, "raabin") == "resnet50.safetensors" and check_unseen(told, "chula") is None
