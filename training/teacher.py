"""A larger network that teaches ours: a timm model that had learnt from many other pictures before it learnt the same classes.

Beside the labels, ours learns what the teacher answers to each view (Hinton et al. 2015, arXiv:1503.02531; both see the same
view, as Beyer et al. 2022, arXiv:2106.05237, found to matter) and, through a linear layer of its own that is thrown away, the
features that the teacher answers from (Romero et al. 2015, arXiv:1412.6550).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, TimmWrapperConfig, TimmWrapperForImageClassification

from training.init_from import read_tensors

TEACHING = 3.0  # weight of what the teacher says beside that of the labels, usual


def build_teacher(
    labels: Sequence[str], architecture: str, side: int, weights: str | Path | None = None
) -> TimmWrapperForImageClassification:
    """Build a network that shall become a teacher: weights that learnt from other pictures, and a fresh linear layer.

    Args:
        labels: the classes that it shall name, in their order.
        architecture: timm's name of it, such as "tf_efficientnet_lite0".
        side: of the square that it shall see images as, px.
        weights: a file of its tensors; without one, those that timm fetches from the Hub.

    Raises:
        ValueError: timm knows no such network, or the weights cannot be had or do not fit.
    """
    if not timm.is_model(architecture):
        raise ValueError(
            f"--network {architecture}: timm has no such network; expected a name that timm.list_models() gives."
        )
    try:
        network = timm.create_model(architecture, pretrained=weights is None)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"--network {architecture}: its weights cannot be fetched ({error}). Name a file of them: --network_weights FILE."
        ) from error
    if weights is not None:
        network.load_state_dict(rename_alike(read_tensors(Path(weights)), network.state_dict(), weights))
    # Images are shown as ours are: all of them, squeezed to a square.
    seen = {"input_size": [3, side, side], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
    seen |= {name: list(network.pretrained_cfg[name]) for name in ("mean", "std")}
    network.reset_classifier(len(labels))
    names = dict(enumerate(labels))
    config = TimmWrapperConfig(
        architecture=architecture, num_labels=len(labels), id2label=names,
        label2id={label: number for number, label in names.items()}, pretrained_cfg=seen,
    )  # fmt: skip
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(network.state_dict())
    return model


def rename_alike(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Give a file's tensors a network's names: they have them, or stand in the same order with the same shapes.

    The second holds for EfficientNets saved by efficientnet_pytorch and what came of it.

    Raises:
        ValueError: neither.
    """
    if tensors.keys() == own.keys():
        return dict(tensors)
    theirs, ours = ([(name, tuple(tensor.shape)) for name, tensor in one.items()] for one in (tensors, own))
    for (name, shape), (other, wanted) in zip(theirs, ours, strict=False):
        if shape != wanted:
            raise ValueError(
                f"{source} holds {name} of shape {shape} where the network has {other} of {wanted}. Name the weights of this "
                "network, with its 1,000 classes: --network_weights FILE."
            )
    if len(theirs) != len(ours):
        raise ValueError(f"{source} holds {len(theirs)} tensors; expected the network's {len(ours)}. Name its weights.")
    return dict(zip(own, tensors.values(), strict=True))


class Teachers(nn.Module):
    """Finished teachers, one or more, asked about what our network sees; nothing of them is learnt any more.

    Args:
        folders: of each the folder, or its name on the Hub: a timm network.
        labels: the classes of our network, which must be theirs.
        processor: the image processor that makes our network's pixels.

    Raises:
        ValueError: no timm network, or other classes.
    """

    def __init__(self, folders: Sequence[str], labels: Sequence[str], processor: Any):
        super().__init__()
        self.networks, self.views = nn.ModuleList(), []
        own_mean, own_std = _columns(processor.image_mean, processor.image_std)
        for folder in folders:
            network = _load(folder, labels)
            self.networks.append(network.eval().requires_grad_(False).to(memory_format=torch.channels_last))
            seen = network.config.pretrained_cfg
            mean, std = _columns(seen["mean"], seen["std"])
            self.views.append((tuple(seen["input_size"][1:]), own_std / std, (own_mean - mean) / std))

    @property
    def width(self) -> int:
        """Length of all their features together."""
        return sum(network.timm_model.num_features for network in self.networks)

    def train(self, mode: bool = True) -> "Teachers":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Answer images (B, 3, H, W) as our processor normalises them: mean probabilities (B, classes), features (B, width)."""
        answers, features = [], []
        for network, (size, gain, offset) in zip(self.networks, self.views, strict=True):
            seen = pixels
            if pixels.shape[-2:] != size:
                seen = functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
            seen = (seen * gain.to(seen) + offset.to(seen)).contiguous(memory_format=torch.channels_last)
            timm_model = network.timm_model
            embedding = timm_model.forward_head(timm_model.forward_features(seen), pre_logits=True)
            answers.append(timm_model.get_classifier()(embedding).float().softmax(-1))
            features.append(functional.normalize(embedding.float(), dim=-1))
        return torch.stack(answers).mean(0), torch.cat(features, dim=-1)


def _columns(*values: Sequence[float]) -> list[Tensor]:
    """Give a value for each colour as (3, 1, 1)."""
    return [torch.tensor(value).view(3, 1, 1) for value in values]


def _load(folder: str, labels: Sequence[str]) -> TimmWrapperForImageClassification:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not isinstance(config, TimmWrapperConfig):
            raise ValueError(f"it is of the kind {config.model_type}")
        network = TimmWrapperForImageClassification.from_pretrained(folder, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--teacher {folder}: no timm network can be loaded there ({reason}); expected what train.py --network writes."
        ) from error
    theirs = [network.config.id2label[number] for number in range(network.config.num_labels)]
    if theirs != list(labels):
        raise ValueError(f"--teacher {folder} names {theirs}; expected the classes that are learnt, {list(labels)}.")
    return network


def taught_loss(logits: Tensor, features: Tensor, answers: Tensor, wanted: Tensor) -> Tensor:
    """Give how far a network is from its teachers, in nats and cosine distances, averaged over the images.

    Args:
        logits: (B, classes), its answers.
        features: (B, width), its features as the linear layer shows them.
        answers: (B, classes), the teachers' probabilities.
        wanted: (B, width), their features.
    """
    apart = functional.kl_div(logits.float().log_softmax(-1), answers, reduction="batchmean")
    return apart + (1 - functional.cosine_similarity(features.float(), wanted, dim=-1)).mean()
