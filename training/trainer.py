"""The Hugging Face Trainer with an exponential moving average of the weights that is validated, saved and resumed."""

import copy
import json
import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from training.consistency import VIEWS, divergence
from training.mixup import mix_images, mixed_loss
from training.width import images_of_steps, share_batch_norms, share_batches, share_of_loss

logger = logging.getLogger(__name__)

EMA_FILE = "ema.safetensors"
IDENTITY_FILE = "training.json"
STATE_FILE = "trainer_state.json"  # the Trainer writes it last: a checkpoint without it, or half of it, was cut off


def check_strengths(mixup: float, consistency: float) -> None:
    """Make sure that images can be mixed and held together this strongly.

    Raises:
        ValueError: a strength below 0 or without end, or both at once.
    """
    if not 0 <= mixup < float("inf"):
        raise ValueError(f"mixup is {mixup}; expected 0 (none) or a strength above it (0.2 is usual).")
    if not 0 <= consistency < float("inf"):
        raise ValueError(f"consistency is {consistency}; expected 0 (none) or a weight above it (12 is usual).")
    if mixup and consistency:
        raise ValueError("mixup and consistency: expected one of them; two views under other images are not one.")


class EmaTrainer(Trainer):
    """A Trainer that keeps a moving average of weights and batch-norm statistics and evaluates that average.

    The average starts after the first step, follows every later one, and is written into each checkpoint before the file that
    marks the checkpoint complete. The decay grows with the steps taken, min(decay, (1 + n) / (10 + n)), so that a short
    training is not an average of its first steps.

    Several processes (torchrun) share each batch, the last of an epoch with fewer images, too, its mean loss and its
    batch-norm statistics, so that they learn what one learns from the whole batch.

    Args:
        ema_decay: how much of the average stays at each step, 0 <= decay < 1; 0 keeps the last weights.
        draw: makes the pixels of a planned batch on the device, see ``training.device_views``; else they come as they are.
        mixup: how strongly training images are laid over each other, see ``training.mixup``; 0 leaves them alone. A process
            mixes its own images: where several share a batch, this is not what one process learns.
        consistency: weight of the divergence between the answers to the views of a draw, see ``training.consistency``; above
            0, each draw of ``train_dataset`` comes as that many rows of a batch.
    """

    def __init__(
        self,
        *args,
        ema_decay: float = 0.999,
        draw: Callable[[dict], dict] | None = None,
        mixup: float = 0.0,
        consistency: float = 0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.draw = draw
        check_strengths(mixup, consistency)
        self.mixup, self.consistency = mixup, consistency
        self._mixed = (-1, 0)  # step, and how many of its batches were mixed (gradient accumulation takes several)
        if not 0 <= ema_decay < 1:
            raise ValueError(f"ema_decay is {ema_decay}; expected 0 <= decay < 1 (0.999 is usual).")
        self.ema_decay = ema_decay
        # The Trainer sets it for language models; a configuration that refuses unknown keys would not load again.
        vars(self.model.config).pop("use_cache", None)
        self.ema = AveragedModel(self.model, multi_avg_fn=self._average, use_buffers=True)
        self.ema.n_averaged = self.ema.n_averaged.cpu()  # it is read at each step, which would stop an accelerator
        if self.args.world_size > 1:  # the average keeps plain norms: one process finishes it alone
            share_batch_norms(self.model)
        self.add_callback(_EachEpochAndStep(self))

    def _average(self, averages: list[torch.Tensor], currents: list[torch.Tensor], taken: torch.Tensor) -> None:
        if averages[0].is_floating_point():
            decay = min(self.ema_decay, (1 + int(taken)) / (10 + int(taken)))
            get_ema_multi_avg_fn(decay)(averages, currents, taken)
        else:  # the count of batches is no average
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    def update_average(self) -> None:
        """Take the current weights into the average."""
        self.ema.update_parameters(self.accelerator.unwrap_model(self.model))

    @property
    def samples_seen(self) -> int:
        """How many images all processes together have learnt from, those of a run that was resumed among them.

        Each view of a draw is one.
        """
        args, all_at_once = self.args, self._train_batch_size * self.args.world_size
        draws = images_of_steps(
            self.state.global_step, len(self.train_dataset), all_at_once, args.gradient_accumulation_steps,
            args.dataloader_drop_last,
        )  # fmt: skip
        return draws * (VIEWS if self.consistency else 1)

    def get_train_dataloader(self):
        """Give this process's share of the batches of one process, where there are several processes."""
        loader = super().get_train_dataloader()
        if self.args.world_size == 1:
            return loader
        return share_batches(loader, self.accelerator, self._train_batch_size * self.args.world_size)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Give the mean loss; in training over several processes scaled by this process's share of the step's images."""
        images = len(inputs["labels"])
        if model.training and self.mixup:
            loss, outputs = self._compute_mixed_loss(model, inputs)
        else:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and self.consistency:
            loss = loss + self.consistency * divergence(outputs.logits)
        if self.args.world_size > 1 and model.training:
            loss = loss * share_of_loss(images, self.accelerator)
        return (loss, outputs) if return_outputs else loss

    def _compute_mixed_loss(self, model, inputs):
        if self.state.global_step != self._mixed[0]:
            self._mixed = (self.state.global_step, 0)
        # A resumed training mixes the same.
        seed = (self.args.seed, *self._mixed, self.args.process_index)
        self._mixed = (self._mixed[0], self._mixed[1] + 1)
        pixels, partners, own = mix_images(inputs["pixel_values"], self.mixup, seed)
        outputs = model(pixel_values=pixels)
        smoothing = self.args.label_smoothing_factor
        return mixed_loss(outputs.logits, inputs["labels"], partners, own, smoothing), outputs

    def _prepare_inputs(self, inputs: dict) -> dict:
        """Bring a batch to the device, and make its pixels there where it is planned only."""
        inputs = super()._prepare_inputs(inputs)
        return self.draw(inputs) if self.draw is not None and "pixel_values" not in inputs else inputs

    @contextmanager
    def averaged_weights(self):
        """Put the averaged weights into the model for the length of a ``with`` block."""
        model = self.accelerator.unwrap_model(self.model)
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.ema.module.state_dict())
        try:
            yield model
        finally:
            model.load_state_dict(own)

    def evaluation_loop(self, *args, **kwargs):
        """Evaluate the averaged weights."""
        with self.averaged_weights():
            return super().evaluation_loop(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model, and beside it the average."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            save_file({name: tensor.contiguous() for name, tensor in self.ema.state_dict().items()}, folder / EMA_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        # The Trainer looks for the network's own tensor names; the file has those of the published format, which only
        # from_pretrained translates. Names that it does not find it passes over, and trains on from unlearnt weights.
        model = self.accelerator.unwrap_model(self.model if model is None else model)
        stored, report = type(model).from_pretrained(
            resume_from_checkpoint,
            config=copy.deepcopy(model.config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, with the rest
        )
        faults = {
            kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        }
        if any(faults.values()):
            raise ValueError(
                f"The weights in {resume_from_checkpoint} are not this network's: {faults}. Resume with the arguments that "
                "the training was started with, or name another --output_dir."
            )
        model.load_state_dict(stored.state_dict())
        self.ema.load_state_dict(load_file(Path(resume_from_checkpoint) / EMA_FILE))


class _EachEpochAndStep(TrainerCallback):
    """Tell the draws their epoch, and feed the moving average after each step, before an epoch's evaluation and checkpoint."""

    def __init__(self, trainer: EmaTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        # With several processes, accelerate passes the epoch to the sampler and not to the data set.
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.update_average()


class WallClock(TrainerCallback, ExportableState):
    """Count the seconds from first step to last, validation between epochs included, over every run; kept in the checkpoint."""

    def __init__(self, seconds: float = 0.0):
        self.seconds = seconds
        self._last = None

    def state(self) -> dict:
        """Return what the Trainer stores with its own state."""
        return {"args": {"seconds": self.seconds}, "attributes": {}}

    def on_train_begin(self, args, state, control, **kwargs):
        earlier = state.stateful_callbacks.get(type(self).__name__)  # of the run that is resumed
        if earlier:
            self.seconds = earlier["args"]["seconds"]
        self._last = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.perf_counter()
        self.seconds += now - self._last
        self._last = now


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None; those cut off while being written are named in the log."""
    steps = {path: path.name.removeprefix("checkpoint-") for path in Path(output_dir).glob("checkpoint-*")}
    for path in sorted(
        (path for path in steps if steps[path].isdecimal()), key=lambda path: int(steps[path]), reverse=True
    ):
        try:
            json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s was cut off while being written and is passed over", path)
        else:
            return path
    return None


def claim(output_dir: str | Path, identity: dict) -> None:
    """Write what a training is (JSON values) into its folder, or make sure that the folder belongs to this training.

    Raises:
        ValueError: the folder holds another training, or checkpoints of an unknown one.
    """
    folder = Path(output_dir)
    path = folder / IDENTITY_FILE
    identity = json.loads(json.dumps(identity))
    remedy = "Name another --output_dir, or repeat the arguments that the training was started with."
    if path.exists():
        begun = json.loads(path.read_text(encoding="utf-8"))
        for key in sorted(begun.keys() | identity.keys()):
            if begun.get(key) != identity.get(key):
                raise ValueError(
                    f"{folder} holds a training with {key} = {begun.get(key)!r}, now it is {identity.get(key)!r}. {remedy}"
                )
    elif newest_checkpoint(folder):
        raise ValueError(f"{folder} holds checkpoints and no {IDENTITY_FILE} that says what of. {remedy}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(identity, indent=2, sort_keys=True) + "\n", encoding="utf-8")
