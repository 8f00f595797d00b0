"""One training over several processes: batch norm over all of their images, as one process with the whole batch computes it."""

import torch
import torch.distributed
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """Add a tensor up over all processes; its gradient is added up likewise, since each process's loss depends on each part."""

    @staticmethod
    def forward(ctx, part: Tensor) -> Tensor:
        total = part.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradient)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics, in training, are those of all processes' images together, on any kind of processor.

    PyTorch's own ``SyncBatchNorm`` refuses to run on a CPU. Gradients flow through the shared statistics as they do in one
    process. In evaluation mode it is a plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)  # (C,)
        variance, mean = variance.double(), mean.double()  # so that nothing is lost in the difference below
        number = torch.full_like(mean, x.numel() // x.shape[1])
        sums = torch.stack([number, number * mean, number * (variance + mean.square())])  # (3, C)
        number, total, squares = _SumOverProcesses.apply(sums)
        mean = total / number
        variance = squares / number - mean.square()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            unbiased = variance * number / (number - 1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt().float()
        shift = self.bias - mean.float() * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


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
