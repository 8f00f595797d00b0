"""Two processes learn what one learns from twice the batch: train.py under torchrun, and the batch norm that makes it so."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from smear_drawings import write_class_folders
from transformers import AutoModelForImageClassification

import train as train_command
from training.width import SharedBatchNorm, ShareOfBatches, images_of_steps, share_batch_norms

EPOCHS, DRAWS = 2, 83
STEPS = EPOCHS * 11  # of 8 images, but each epoch's last, of 3: an epoch that ends unevenly is no less one curve
RECIPE = shlex.split(
    f"--sides 64 --phase_epochs {EPOCHS} --draws_per_epoch {DRAWS} --dataloader_num_workers 0 --logging_steps 1"
    " --statistics_batches 2 --bf16 False --use_cpu --seed 5 --measure_splits validation --learning_rate 5e-4"
)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def train(start, images, output, batch):
    """Run train.py; gives each step's record, and what the training left."""
    command = [*start, str(REPOSITORY / "train.py"), "--data_dir", str(images), "--output_dir", str(output), *RECIPE]
    command += ["--per_device_train_batch_size", str(batch)]
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    return [row for row in state["log_history"] if "loss" in row], done


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("width")
    images = root / "cells"
    write_class_folders(images, 10, size=(96, 72))
    one = train([sys.executable], images, root / "one", batch=8)
    two = train(TORCHRUN, images, root / "two", batch=4)
    return root, one, two


def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(runs):
    _, (one, _), (two, _) = runs
    assert [row["step"] for row in one] == [row["step"] for row in two] == list(range(1, STEPS + 1))
    # Rounding grows from step to step, how much differs between processors, and gradients feel it before the loss does.
    for name, grown in {"loss": 0.02, "grad_norm": 0.1, "learning_rate": 1e-6}.items():
        one_curve, two_curve = ([row[name] for row in rows] for rows in (one, two))
        np.testing.assert_allclose(two_curve[:3], one_curve[:3], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(two_curve, one_curve, rtol=grown, err_msg=name)
    assert np.ptp([row["loss"] for row in one]) > 0.1  # a curve, and not a line that any two runs share


def test_two_processes_end_with_the_model_of_one_written_once(runs):
    root, _, (_, done) = runs
    pixels = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = (
            AutoModelForImageClassification.from_pretrained(root / run / "model", trust_remote_code=False)(
                pixels
            ).logits
            for run in ("one", "two")
        )
    torch.testing.assert_close(two.softmax(-1), one.softmax(-1), rtol=0, atol=0.03)
    assert done.stderr.count("The finished model, its code and its figures stand in") == 1
    for run in ("one", "two"):
        training = json.loads((root / run / "model" / "eval_results.json").read_text())["training"]
        assert training["samples_seen"] == EPOCHS * DRAWS
        seconds = training["samples_seen"] / training["images_per_second"]
        assert training["wall_seconds"] == pytest.approx(seconds, rel=0.02, abs=0.06)  # it is rounded to a tenth


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_batches_of_one_and_no_image_twice(processes, drop_last):
    """Of 83 images in batches of 9: 2 are left, which 3 processes cannot share unless they are dropped."""
    order = torch.randperm(83, generator=torch.Generator().manual_seed(0)).tolist()
    expected = list(torch.utils.data.BatchSampler(order, 9, drop_last))
    if processes == 3 and not drop_last:
        with pytest.raises(ValueError, match="leave 2 for the last step .* Take --draws_per_epoch 81, or from 84 on"):
            ShareOfBatches(order, 9, drop_last, processes, 0)
        return
    shares = [list(ShareOfBatches(order, 9, drop_last, processes, rank)) for rank in range(processes)]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == expected
    for parts in zip(*shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("accumulated", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_images_are_counted_as_the_steps_take_them(accumulated, drop_last):
    """Against steps taken one by one from PyTorch's own batches."""
    batches = [len(batch) for batch in torch.utils.data.BatchSampler(range(83), 8, drop_last)]
    steps = [sum(batches[start : start + accumulated]) for start in range(0, len(batches), accumulated)] * 3
    for number in range(len(steps) + 1):
        assert images_of_steps(number, 83, 8, accumulated, drop_last) == sum(steps[:number])


def test_an_epoch_that_leaves_a_process_without_images_is_refused_before_training(tmp_path, monkeypatch):
    write_class_folders(tmp_path / "cells", 3, size=(96, 72))
    options = ["--draws_per_epoch", "81", "--per_device_train_batch_size", "4", "--output_dir", str(tmp_path / "out")]
    parsed = train_command.parse(["--data_dir", str(tmp_path / "cells"), *RECIPE, *options])
    monkeypatch.setattr(train_command.SmearTrainingArguments, "world_size", 2)
    with pytest.raises(ValueError, match="81 draws in batches of 8 leave 1 for the last step"):
        train_command.prepare(*parsed)
    assert not (tmp_path / "out").exists()


def test_shared_norms_of_one_process_are_plain_ones(tmp_path):
    """Values, gradients and statistics, against PyTorch's own batch norm."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        generator = torch.Generator().manual_seed(0)
        plain = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.3))
        shared = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6, eps=1e-3, momentum=0.3))
        shared.load_state_dict(plain.state_dict())
        weight = shared[1].weight
        share_batch_norms(shared)
        assert isinstance(shared[1], SharedBatchNorm) and shared[1].weight is weight
        for _ in range(3):
            x = 3 + torch.randn(4, 3, 8, 8, generator=generator)  # off zero, as activations are
            grown = torch.randn(4, 6, 6, 6, generator=generator)
            gradients = []
            for network in (plain, shared):
                network.zero_grad()
                (network(x) * grown).sum().backward()
                gradients.append([parameter.grad.clone() for parameter in network.parameters()])
            torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=2e-3)
        assert shared.state_dict().keys() == plain.state_dict().keys()
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(shared.state_dict()[name], tensor, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shared.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()
