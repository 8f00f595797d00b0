"""What follows the last step: a mean of weights, logits of what is held out, and a temperature folded into the linear layer."""

from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.utils.data import DataLoader, Dataset


@torch.no_grad()
def average_weights(model: nn.Module, others: Sequence[nn.Module]) -> None:
    """Replace the weights of ``model`` by the plain mean of its own and those of ``others``, networks of the same tensors.

    Networks that went on from common weights lie in one basin, where the mean often errs less than each of them ("model
    soups", Wortsman et al. 2022, arXiv:2203.05482). Linear layers are taken as they are, divided by a temperature or not, and
    batch-norm statistics are averaged too: of a mean, fit and estimate both anew.
    """
    theirs = [other.state_dict() for other in others]
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():  # the count of batches is no average
            tensor.copy_(torch.stack([tensor, *(other[name].to(tensor.device) for other in theirs)]).mean(dim=0))


@torch.no_grad()
def predict_logits(
    model: nn.Module, views: Dataset, batch_size: int = 64, workers: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Classify a dataset of ``pixel_values`` and ``labels``: logits (N, classes), float32, and labels (N,), on the CPU."""
    device = next(model.parameters()).device
    logits, labels = [], []
    for batch in DataLoader(views, batch_size, num_workers=workers):
        logits.append(model(batch["pixel_values"].to(device)).logits.cpu())
        labels.append(batch["labels"])
    return torch.cat(logits), torch.cat(labels)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the temperature, 0.05 to 20, that makes logits (N, classes) / T most likely for labels (N,) (Guo et al. 2017).

    Every image counts alike: of a small laboratory's few slides too little is known to give them more weight.

    Raises:
        ValueError: logits and labels do not match, or there are none.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise ValueError(
            f"Expected logits (N, classes) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(nn.functional.cross_entropy(logits / torch.exp(torch.tensor(log_temperature)), labels))

    bound = torch.log(torch.tensor(20.0)).item()
    return float(torch.exp(torch.tensor(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)))


@torch.no_grad()
def fold_temperature(linear: nn.Linear, temperature: float) -> None:
    """Divide a linear layer's weight and bias by a temperature, so that its softmax is calibrated through every door."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"The temperature is {temperature}; expected a positive number.")
    linear.weight /= temperature
    linear.bias /= temperature
