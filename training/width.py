"""One training over several processes: batch norm over all of their images, as one process with the whole batch computes it."""

import torch
import torch.distributed
from torch import Tensor, nn


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
