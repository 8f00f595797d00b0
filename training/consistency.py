"""What the network says of one image changed in two ways should be one answer: the views of a draw, and how far they differ."""

import torch
from torch import Tensor

VIEWS = 2  # of each draw; AugMix shows three, at half as much again of the computing


def divergence(logits: Tensor, views: int = VIEWS) -> Tensor:
    """Give the Jensen-Shannon divergence of the answers to the views of a draw, in nats, averaged over the draws.

    As AugMix (Hendrycks et al. 2020, arXiv:1912.02781), whose weight of it beside the cross entropy is 12: the mean over
    the views of the Kullback-Leibler divergence of their mean answer from each. It is 0 where all views get the same answer
    and log(views) at most.

    Args:
        logits: (draws * views, classes), the views of a draw one after the other.
        views: how many each draw has.

    Raises:
        ValueError: the rows are no whole number of draws.
    """
    if len(logits) % views:
        raise ValueError(f"{len(logits)} answers came; expected {views} for each draw, one after the other.")
    logs = logits.float().log_softmax(-1).reshape(-1, views, logits.shape[-1])
    mean = torch.logsumexp(logs, dim=1, keepdim=True) - torch.log(torch.tensor(float(views)))
    return (logs.exp() * (logs - mean)).sum(-1).mean()
