"""What follows the last step: logits of what is held out, and a temperature folded into the linear layer."""

from collections import Counter

import datasets
import torch
from scipy.optimize import minimize_scalar
from torch import nn
from torch.utils.data import DataLoader, Dataset


@torch.no_grad()
def predict_logits(model: nn.Module, views: Dataset, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Classify a dataset of ``pixel_values`` and ``labels``: logits (N, classes), float32, and labels (N,), on the CPU."""
    device = next(model.parameters()).device
    logits, labels = [], []
    for batch in DataLoader(views, batch_size, num_workers=2):
        logits.append(model(batch["pixel_values"].to(device)).logits.cpu())
        labels.append(batch["labels"])
    return torch.cat(logits), torch.cat(labels)


def equal_weights(data: datasets.Dataset) -> torch.Tensor:
    """Weigh images (N,) so that every laboratory (column ``lab``, if there is one) counts alike; the weights sum to N."""
    if "lab" not in data.column_names:
        return torch.ones(len(data), dtype=torch.float64)
    labs = data["lab"][:]
    counts = Counter(labs)
    return torch.tensor([len(labs) / len(counts) / counts[lab] for lab in labs], dtype=torch.float64)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    """Find the temperature, 0.05 to 20, that makes logits (N, classes) / T most likely for labels (N,) (Guo et al. 2017).

    Args:
        weights: how much each image counts, (N,); None counts all alike.

    Raises:
        ValueError: logits and labels do not match, or there are none.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise ValueError(
            f"Expected logits (N, classes) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    logits = logits.double()
    weights = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights

    def loss(log_temperature: float) -> float:
        scaled = logits / torch.exp(torch.tensor(log_temperature))
        return float((weights * nn.functional.cross_entropy(scaled, labels, reduction="none")).mean())

    bound = torch.log(torch.tensor(20.0)).item()
    return float(torch.exp(torch.tensor(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)))


@torch.no_grad()
def fold_temperature(linear: nn.Linear, temperature: float) -> None:
    """Divide a linear layer's weight and bias by a temperature, so that its softmax is calibrated through every door."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"The temperature is {temperature}; expected a positive number.")
    linear.weight /= temperature
    linear.bias /= temperature
