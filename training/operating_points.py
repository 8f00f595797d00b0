"""Where a finished model is sure enough to answer, and where a picture is too unlike those it learnt from."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from evaluation.selective import risk_coverage


@dataclass(frozen=True)
class OperatingPoints:
    """What ``config.json`` keeps of them.

    Attributes:
        acceptance_threshold: least probability of the top label of an accepted answer, 0 to 1.
        acceptance_risk: share of wrong answers among the accepted ones that was asked for, 0 to 1.
        energy_threshold: largest energy, -logsumexp(logits), of a picture like those learnt from.
        energy_accept_rate: share of the white cells held out that lie below it, 0 to 1.
    """

    acceptance_threshold: float
    acceptance_risk: float
    energy_threshold: float
    energy_accept_rate: float


def choose_operating_points(
    logits: torch.Tensor,
    labels: torch.Tensor,
    negatives: int | None = None,
    risk: float = 0.01,
    accept_rate: float = 0.99,
) -> OperatingPoints:
    """Choose both thresholds on images held out: the most answers at this risk, the least energy at this rate.

    Energy is Liu et al. 2020 (arXiv:2010.03759) at temperature 1, of logits that the fitted temperature has already
    divided. The class ``negatives`` counts among the answers, but only white cells say what energy is usual.

    Args:
        logits: (N, classes).
        labels: class numbers, (N,).
        negatives: number of the class "none of these", or None.
        risk: share of wrong answers among the accepted.
        accept_rate: share of the white cells that are to lie below the energy threshold.

    Raises:
        ValueError: no threshold keeps the risk, or the images are too few to tell; shares outside (0, 1).
    """
    if not 0 < risk < 1 or not 0 < accept_rate < 1:
        raise ValueError(f"risk is {risk} and accept_rate {accept_rate}; expected shares above 0 and below 1.")
    logits = logits.double()
    if len(labels) * risk < 1:
        raise ValueError(
            f"{len(labels)} images were held out; a share of {risk:.1%} wrong needs {math.ceil(1 / risk)} or more to be seen."
        )
    references = labels.numpy()
    thresholds, _, risks = risk_coverage(logits.softmax(-1).numpy(), references)
    kept = np.flatnonzero(risks <= risk + 1e-12)
    if not len(kept):
        raise ValueError(
            f"No threshold leaves {risk:.1%} of the answers wrong or fewer: the surest answers of the {len(labels)} images "
            "held out are wrong. Train longer, or hold out more images."
        )
    cells = np.ones(len(references), bool) if negatives is None else references != negatives
    energy = -torch.logsumexp(logits, dim=-1).numpy()
    return OperatingPoints(
        acceptance_threshold=float(thresholds[kept[-1]]),
        acceptance_risk=risk,
        energy_threshold=float(np.quantile(energy[cells], accept_rate, method="inverted_cdf")),
        energy_accept_rate=accept_rate,
    )
