"""One training over several processes, as one process with the whole batch trains: its batches, its batch norms, its count."""

from collections.abc import Iterator

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Sampler

LOADING = (  # what a loader is made with, besides what it is to load
    "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator",
    "prefetch_factor", "persistent_workers", "in_order",
)  # fmt: skip


class ShareOfBatches(BatchSampler):
    """One process's share of the batches that one process alone would take, in their order, each image once.

    Shares differ by one image at most: that of the epoch's last batch, too, where fewer images are left than a batch holds.

    Args:
        sampler: the same in all processes.
        batch_size: images of all processes.
        drop_last: leave out a last batch with fewer images.
        processes: how many share.
        rank: which of them this is.

    Raises:
        ValueError: the last batch has fewer images than there are processes.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool, processes: int, rank: int):
        super().__init__(sampler, batch_size, drop_last)
        check_epoch(len(sampler), batch_size, drop_last, processes)
        self.processes, self.rank = processes, rank

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            edges = [len(batch) * rank // self.processes for rank in (self.rank, self.rank + 1)]
            yield batch[edges[0] : edges[1]]


def check_epoch(draws: int, batch_size: int, drop_last: bool, processes: int) -> None:
    """Make sure that every process has an image in each batch of an epoch.

    Raises:
        ValueError: the last batch has fewer images than there are processes; the message says what would fit.
    """
    left = 0 if drop_last else draws % batch_size
    if 0 < left < processes:
        raise ValueError(
            f"{draws} draws in batches of {batch_size} leave {left} for the last step of an epoch, and {processes} processes "
            f"share it: some would have none. Take --draws_per_epoch {draws - left}, or from {draws - left + processes} on."
        )


def share_batches(loader: DataLoader, accelerator: Accelerator, batch_size: int) -> DataLoader:
    """Load this process's share of each batch, instead of batches of its own that repeat images where an epoch ends unevenly.

    Args:
        loader: as ``accelerator`` prepared it.
        accelerator: of this process.
        batch_size: images of all processes.
    """
    sampler, drop_last = loader.get_sampler(), loader.batch_sampler.drop_last
    share = ShareOfBatches(sampler, batch_size, drop_last, accelerator.num_processes, accelerator.process_index)
    own = DataLoader(loader.dataset, batch_sampler=share, **{name: getattr(loader, name) for name in LOADING})
    return prepare_data_loader(  # of one process: it is shared already
        own, accelerator.device, num_processes=1, process_index=0, put_on_device=accelerator.device_placement, rng_types=[],
        non_blocking=accelerator.non_blocking,
    )  # fmt: skip


def share_of_loss(images: int, accelerator: Accelerator) -> Tensor:
    """Give the factor of a process's mean loss with which the mean over processes is the mean over all images.

    Args:
        images: of this process in this step; all processes ask at the same time.
        accelerator: of this process.
    """
    own = torch.tensor(float(images), device=accelerator.device)
    return own * accelerator.num_processes / accelerator.reduce(own.clone(), "sum")


def images_of_steps(steps: int, draws: int, batch_size: int, accumulated: int = 1, drop_last: bool = False) -> int:
    """Count the images of a training's first steps.

    Args:
        steps: of the optimiser.
        draws: images of an epoch.
        batch_size: images of a batch, of all processes.
        accumulated: batches of a step; an epoch's last step takes what is left.
        drop_last: whether a last batch with fewer images is left out.
    """
    batches = draws // batch_size if drop_last else -(-draws // batch_size)
    epochs, more = divmod(steps, max(1, -(-batches // accumulated)))
    of_epoch = min(draws, batches * batch_size)
    return epochs * of_epoch + min(of_epoch, more * accumulated * batch_size)


class _NormOverProcesses(torch.autograd.Function):
    """Normalise by the statistics of all processes' images, and let gradients flow through these as one process does.

    What touches each pixel is PyTorch's own batch norm of this process's images, forward and backward; what other processes'
    images change in it is, in each channel, a factor and a shift.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, number: Tensor, eps: float
    ):
        inverse = (variance + eps).rsqrt().to(weight.dtype)
        mean = mean.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, inverse, number)
        ctx.eps = eps
        return torch.nn.functional.batch_norm(x, mean, variance.to(weight.dtype), weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight, mean, inverse, number = ctx.saved_tensors
        # With the statistics of all given as this process's own: its sums of gradients, and gradients short of others' sums.
        into_x, into_weight, into_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        own = torch.stack([into_weight, into_bias]).double()
        everywhere = own.clone()
        torch.distributed.all_reduce(everywhere)
        own_number = x.numel() // x.shape[1]
        # Of this process's mean gradients, which were taken away, to those of all processes.
        by_weight, by_bias = own / own_number - everywhere / number
        factor = (weight * inverse.square() * by_weight).to(x.dtype)
        shift = (weight * inverse * by_bias - weight * inverse.square() * by_weight * mean).to(x.dtype)
        into_x = into_x.addcmul_(x, factor[:, None, None]).add_(shift[:, None, None])
        return into_x, into_weight, into_bias, None, None, None, None


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics, in training, are those of all processes' images together, on any kind of processor.

    PyTorch's own ``SyncBatchNorm`` refuses to run on a CPU. Gradients flow through the shared statistics as they do in one
    process. In evaluation mode it is a plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)  # (C,) of this process, of n, not n - 1
            mean, variance = mean.double(), variance.double()  # so that nothing is lost in the difference below
            number = torch.full_like(mean, x.numel() // x.shape[1])
            sums = torch.stack([number, number * mean, number * (variance + mean.square())])  # (3, C)
            torch.distributed.all_reduce(sums)
            number, total, squares = sums
            mean = total / number
            variance = squares / number - mean.square()
            self.num_batches_tracked.add_(1)
            unbiased = variance * number / (number - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        return _NormOverProcesses.apply(x, self.weight, self.bias, mean, variance, number, self.eps)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm inside a module, in place, by one that shares its statistics; parameters stay the same objects.

    On CUDA these are PyTorch's ``SyncBatchNorm``.
    """
    for name, child in module.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            share_batch_norms(child)
        elif child.weight.is_cuda:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            shared = SharedBatchNorm(child.num_features, child.eps, child.momentum, device="meta")
            shared.weight, shared.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(shared, buffer, getattr(child, buffer))
            setattr(module, name, shared.train(child.training))
