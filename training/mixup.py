"""Two images laid over each other, and the loss that expects the classes of both in their shares (mixup)."""

import numpy as np
import torch
from torch import Tensor, nn


def mix_images(pixels: Tensor, strength: float, seed: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Lay the next image of the batch over each (Zhang et al. 2018, arXiv:1710.09412), in a share of its own for each.

    Args:
        pixels: (N, 3, H, W), normalised, in random order.
        strength: of the Beta distribution, above 0, that the shares are drawn from: 0.2 leaves most images nearly alone, 1
            draws all shares equally often.
        seed: of the shares.

    Returns:
        The mixed pixels; for each image the row of the one laid over it, (N,); and the share that it keeps itself, (N,), 0.5
        to 1.
    """
    shares = np.random.default_rng(seed).beta(strength, strength, len(pixels))
    own = torch.tensor(np.maximum(shares, 1 - shares), dtype=pixels.dtype, device=pixels.device)
    partners = torch.arange(len(pixels), device=pixels.device).roll(1)
    weight = own.reshape(-1, 1, 1, 1)
    return weight * pixels + (1 - weight) * pixels[partners], partners, own


def mixed_loss(logits: Tensor, labels: Tensor, partners: Tensor, own: Tensor, smoothing: float = 0.0) -> Tensor:
    """Average the cross entropy over the batch, of each image to its own class and to its partner's, in their shares.

    Args:
        logits: (N, classes).
        labels: (N,), of the images before they were mixed.
        partners, own: as ``mix_images`` gives them.
        smoothing: share of label smoothing.
    """
    to_own, to_partner = (
        nn.functional.cross_entropy(logits.float(), target, label_smoothing=smoothing, reduction="none")
        for target in (labels, labels[partners])
    )
    return (own.float() * to_own + (1 - own.float()) * to_partner).mean()
