"""The moving average against a loop written out by hand, and checkpoints that are complete or passed over."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import build_model
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification, TrainerCallback, TrainingArguments

import training.trainer
from training.trainer import EMA_FILE, EmaTrainer, WallClock, claim, newest_checkpoint


class Blots(torch.utils.data.Dataset):
    """Eight noisy images of two colours; remembers in which epoch it was asked."""

    def __init__(self, side=32):
        self.epoch = 0
        self.asked = []
        noise = torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(0))
        self.pixels = noise + 0.1 * torch.arange(8).remainder(2).reshape(8, 1, 1, 1)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 8

    def __getitem__(self, row):
        self.asked.append(self.epoch)
        return {"pixel_values": self.pixels[row], "labels": row % 2}


class Recorder(TrainerCallback):
    """Keep the network's own weights and statistics as they stand after each step."""

    def __init__(self):
        self.states = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.states.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})


def small_network(seed=0):
    torch.manual_seed(seed)
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2)
    )


def make_trainer(folder, epochs=2, callbacks=(), images=None, network=None, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,  # two steps an epoch
        learning_rate=0.005,
        lr_scheduler_type="constant",
        save_strategy="epoch",
        logging_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
    )
    images = images or Blots()
    return EmaTrainer(
        model=network or small_network(),
        args=arguments,
        train_dataset=images,
        eval_dataset=Blots(),
        callbacks=list(callbacks),
        **options,
    )


def assert_resumed_ends_in_the_same_bits(folder, **options):
    """Train two epochs in one go, and in two parts, and compare the network."""
    whole, rest = Recorder(), Recorder()
    make_trainer(folder / "whole", epochs=2, callbacks=[whole], **options).train()
    make_trainer(folder / "parts", epochs=1, **options).train()
    make_trainer(folder / "parts", epochs=2, callbacks=[rest], **options).train(
        resume_from_checkpoint=str(folder / "parts" / "checkpoint-2")
    )
    assert len(whole.states) == 4 and len(rest.states) == 2
    for name, tensor in whole.states[-1].items():
        assert torch.equal(tensor, rest.states[-1][name]), name


def average_of(trainer):
    return trainer.ema.module.state_dict()


# The average


@pytest.mark.parametrize("decay", [0.9, 0.3, 0.0])
def test_the_average_is_the_documented_one(tmp_path, decay):
    # After n steps are in the average, the next is taken in with the decay min(decay, (1 + n) / (10 + n)).
    recorder = Recorder()
    trainer = make_trainer(tmp_path, epochs=4, callbacks=[recorder], ema_decay=decay)
    trainer.train()
    assert len(recorder.states) == 8
    expected = {name: tensor.double().numpy() for name, tensor in recorder.states[0].items()}
    for taken, state in enumerate(recorder.states[1:], start=1):
        keep = min(decay, (1 + taken) / (10 + taken))
        for name, tensor in state.items():
            new = tensor.double().numpy()
            counter = name.endswith("num_batches_tracked")
            expected[name] = new if counter else keep * expected[name] + (1 - keep) * new
    found = average_of(trainer)
    assert set(found) == set(expected)
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.double().numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    # Statistics and counters are there and moved, so that the comparison says something of them.
    assert any(name.endswith("running_var") for name in found)
    assert {int(found[name]) for name in found if name.endswith("num_batches_tracked")} == {8}
    moved = [name for name in found if not torch.equal(recorder.states[0][name], recorder.states[-1][name])]
    assert len(moved) == len(found)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_a_decay_that_is_none_is_refused(tmp_path, decay):
    with pytest.raises(ValueError, match=r"ema_decay is .*; expected 0 <= decay < 1 \(0\.999 is usual\)"):
        make_trainer(tmp_path, ema_decay=decay)


def test_the_averaged_weights_are_put_in_and_taken_out_again_also_after_an_error(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.9)
    trainer.train()
    own = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in average_of(trainer).items()}
    with trainer.averaged_weights() as model:
        assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, own[name]) for name, tensor in trainer.model.state_dict().items())
    with pytest.raises(KeyboardInterrupt), trainer.averaged_weights():
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, own[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in average_of(trainer).items())


def test_evaluation_and_prediction_are_the_averages(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.9)
    trainer.train()
    images = Blots()
    labels = torch.arange(8).remainder(2)
    with torch.no_grad():
        average = trainer.ema.module.eval()(images.pixels).logits
        own = trainer.model.eval()(images.pixels).logits
    loss = torch.nn.functional.cross_entropy
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(loss(average, labels)), abs=1e-5)
    assert abs(float(loss(average, labels) - loss(own, labels))) > 1e-3
    np.testing.assert_allclose(trainer.predict(images).predictions, average, atol=1e-5)


def test_training_is_the_same_with_and_without_the_average(tmp_path):
    recorders = [Recorder(), Recorder()]
    for recorder, decay in zip(recorders, (0.0, 0.99), strict=True):
        make_trainer(tmp_path / str(decay), callbacks=[recorder], ema_decay=decay).train()
    for one, two in zip(*(recorder.states for recorder in recorders), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


# Checkpoints


@pytest.mark.parametrize(
    "build", [small_network, lambda: build_model(("eosinophil", "neutrophil"))], ids=["stock", "ours"]
)
def test_a_training_goes_on_from_a_checkpoint_with_its_weights_and_average(tmp_path, build):
    # The stored names of our network's tensors are not its own.
    whole = make_trainer(tmp_path / "whole", epochs=4, images=Blots(64), network=build(), ema_decay=0.9)
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-4"  # after two of the four epochs
    stored = load_file(checkpoint / EMA_FILE)
    assert int(stored["n_averaged"]) == 4
    images = Blots(64)
    resumed = make_trainer(tmp_path / "resumed", epochs=4, images=images, network=build(), ema_decay=0.9)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert set(images.asked) == {2, 3}  # the data set is told which epoch it is in
    for part in ("model", "ema"):
        expected = getattr(whole, part).state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in getattr(resumed, part).state_dict().items())


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    make_trainer(tmp_path, epochs=1).train()
    torch.manual_seed(0)
    other = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32], depths=[1, 1, 1], layer_type="basic", num_labels=2)
    )
    with pytest.raises(
        ValueError, match="checkpoint-2 are not this network's.*missing_keys.*name another --output_dir"
    ):
        make_trainer(tmp_path, network=other).train(resume_from_checkpoint=newest_checkpoint(tmp_path))


def test_the_trainer_adds_nothing_to_the_configuration_that_ships(tmp_path):
    network = build_model()
    before = set(network.config.to_dict())
    trainer = make_trainer(tmp_path, network=network)
    for model in (trainer.model, trainer.ema.module):
        assert set(model.config.to_dict()) == before
        model.save_pretrained(tmp_path / "model")
        type(network).from_pretrained(tmp_path / "model")  # our class refuses keys that it does not know


def test_the_data_set_is_told_each_epoch(tmp_path):
    images = Blots()
    make_trainer(tmp_path, epochs=3, images=images).train()
    assert images.asked == [0] * 8 + [1] * 8 + [2] * 8


def make_checkpoint(folder: Path, step: int, state: str | None = '{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_the_newest_checkpoint_is_that_of_the_most_steps(tmp_path):
    for step in (900, 1000, 99):
        make_checkpoint(tmp_path, step)
    assert newest_checkpoint(tmp_path) == newest_checkpoint(str(tmp_path)) == tmp_path / "checkpoint-1000"


@pytest.mark.parametrize("state", [None, "", '{"global_step": 10, "log_hist'], ids=["missing", "empty", "half"])
def test_checkpoints_that_were_cut_off_are_passed_over_and_named(tmp_path, caplog, state):
    whole = make_checkpoint(tmp_path, 10, json.dumps({"global_step": 10}))
    make_checkpoint(tmp_path, 20, state)
    make_checkpoint(tmp_path, 30, state)
    with caplog.at_level(logging.WARNING, "training.trainer"):
        assert newest_checkpoint(tmp_path) == whole
    assert [record.getMessage().split("/")[-1] for record in caplog.records] == [
        f"checkpoint-{step} was cut off while being written and is passed over" for step in (30, 20)
    ]


def test_what_is_no_checkpoint_is_left_alone(tmp_path, caplog):
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-notes.txt").write_text("the second run")
    assert newest_checkpoint(tmp_path) is None and not caplog.records
    assert newest_checkpoint(tmp_path / "not there yet") is None
    assert newest_checkpoint(make_checkpoint(tmp_path, 10).parent) == tmp_path / "checkpoint-10"


# The clock


def test_the_clock_counts_the_seconds_of_every_run_and_not_the_pause_between(tmp_path, monkeypatch):
    now = iter(range(10_000))  # each look at the clock is a second later
    monkeypatch.setattr(training.trainer, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    clock = WallClock()
    make_trainer(tmp_path, epochs=2, callbacks=[clock]).train()
    assert clock.seconds == 4  # four steps, one look each
    for _ in range(500):
        next(now)
    resumed = WallClock()
    make_trainer(tmp_path, epochs=3, callbacks=[resumed]).train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    assert resumed.seconds == 6
    finished = WallClock()
    make_trainer(tmp_path, epochs=3, callbacks=[finished]).train(resume_from_checkpoint=newest_checkpoint(tmp_path))
    assert finished.seconds == 6  # nothing was left to do


def test_a_folder_belongs_to_one_training(tmp_path):
    begun = {"seed": 0, "labels": ["monocyte", "neutrophil"], "learning_rate": 2e-3}
    claim(tmp_path, begun)
    claim(tmp_path, begun)  # the same command again
    for key, value in {"seed": 1, "labels": ["wasp", "yak"], "learning_rate": 9.0}.items():
        with pytest.raises(ValueError, match=f"holds a training with {key} = .*Name another --output_dir"):
            claim(tmp_path, begun | {key: value})


def test_checkpoints_of_an_unknown_training_are_not_gone_on_with(tmp_path):
    make_checkpoint(tmp_path, 5)
    with pytest.raises(ValueError, match=r"no training\.json that says what of"):
        claim(tmp_path, {"seed": 0})


def test_two_processes_draw_the_epochs_that_one_draws(tmp_path):
    """accelerate passes the epoch of a sharded loader to its sampler alone; every process must still be told."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from test_trainer import Blots, make_trainer\n"
        "images = Blots()\n"
        "trainer = make_trainer(sys.argv[3], epochs=3, images=images)\n"
        "trainer.train()\n"
        "assert trainer.args.world_size == 2\n"
        "answer = sys.argv[3] + f'-asked-{trainer.args.process_index}'\n"
        "open(answer, 'w').write(str(sorted(set(images.asked))))\n"
    )
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29617",
        str(script),
    ]
    tests = Path(__file__).parent
    done = subprocess.run(
        [*run, str(tests), str(tests.parent), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    # The answers are written after training; how the processes part afterwards is torchrun's affair.
    answers = {path.name: path.read_text() for path in tmp_path.glob("out-asked-*")}
    assert answers == {"out-asked-0": "[0, 1, 2]", "out-asked-1": "[0, 1, 2]"}, done.stderr[-3000:]
