"""The 24-layer ResNet that names the white blood cell in a photograph of a stained smear.

It is the first 23 layers of ResNet-50 and one linear layer: a 7x7 convolution, max pooling, 3 + 4 bottleneck blocks of three
convolutions each (1 + 1 + 9 + 12 = 23), global average pooling, and the linear layer. The shortcut projections and the
normalisations are not counted, as in "ResNet-50".
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

# F401: a sibling of a sibling; see pipeline_wbc_resnet.py.
from .batch_statistics import BatchStatistics
from .configuration_wbc_resnet import WbcResNetConfig
from .folding import folded_features
from .head_fitting import HeadFitting
from .laboratory_fitting import LaboratoryFitting
from .sentences import say  # noqa: F401
from .tensor_names import RenamedTensors, register

# px; below it the 8x8 feature map is smaller than the receptive field's core and says nothing of a cell
MINIMUM_SIZE = 64

UNIDENTIFIED = "unidentified"
LOW_CONFIDENCE = "low confidence"
UNLIKE = "unlike the images learnt from"


class Bottleneck(nn.Module):
    """A 1x1, 3x3, 1x1 residual block, He et al. 2016, with the stride on the 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        width = out_channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.act(x + shortcut)


def initialise(module: nn.Module) -> None:
    """Give one module its starting weights: Kaiming for convolutions, zero gamma on each block's last norm.

    With gamma zero a residual block starts as the identity (Goyal et al. 2017, arXiv:1706.02677).
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.zeros_(module.running_mean)
        nn.init.ones_(module.running_var)
        nn.init.zeros_(module.num_batches_tracked)  # from_pretrained leaves what a file lacks uninitialised
        nn.init.constant_(module.weight, 0.0 if getattr(module, "ends_block", False) else 1.0)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


class WbcResNet(nn.Module):
    """The network alone, with timm's verbs and torchvision's parameter names.

    Args:
        num_classes: outputs of the linear layer; 0 leaves the layer out and ``forward`` gives the 512 features.
        in_chans: channels of an input image.
        stem_channels: output channels of the 7x7 stem.
        hidden_sizes: output channels of each stage.
        depths: bottleneck blocks in each stage.
        global_pool: ``"avg"``, or ``""`` to keep the map of features.
    """

    def __init__(
        self,
        num_classes: int = 4,
        in_chans: int = 3,
        stem_channels: int = 64,
        hidden_sizes: tuple[int, ...] = (256, 512),
        depths: tuple[int, ...] = (3, 4),
        global_pool: str = "avg",
    ):
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = hidden_sizes[-1]
        self.conv1 = nn.Conv2d(in_chans, stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.feature_info = [{"num_chs": stem_channels, "reduction": 2, "module": "act1"}]
        in_channels, reduction = stem_channels, 4
        self.stage_names = []
        for number, (out_channels, depth) in enumerate(zip(hidden_sizes, depths, strict=True), start=1):
            stride = 1 if number == 1 else 2
            reduction *= stride
            blocks = [Bottleneck(in_channels, out_channels, stride)]
            blocks += [Bottleneck(out_channels, out_channels) for _ in range(depth - 1)]
            name = f"layer{number}"
            self.add_module(name, nn.Sequential(*blocks))
            self.stage_names.append(name)
            self.feature_info.append({"num_chs": out_channels, "reduction": reduction, "module": name})
            in_channels = out_channels
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.bn3.ends_block = True
        self.apply(initialise)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer (an identity when ``num_classes`` is 0)."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh linear layer with ``num_classes`` outputs; 0 leaves it out."""
        if num_classes < 0:
            raise ValueError(f"num_classes is {num_classes}; expected 0 (no linear layer) or more.")
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ValueError(f"global_pool={global_pool!r} is not offered; use 'avg' or ''.")
            self.global_pool = global_pool
        self.num_classes = num_classes
        like = {"device": self.conv1.weight.device, "dtype": self.conv1.weight.dtype}
        self.fc = nn.Linear(self.num_features, num_classes, **like) if num_classes else nn.Identity()
        initialise(self.fc)

    def forward_features(self, x: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into the map of features (B, 512, ceil(H/8), ceil(W/8)).

        Values of ``x`` are normalised pixels as the image processor gives them.

        Raises:
            TypeError: ``x`` is no tensor of floating point numbers.
            ValueError: the shape is not (B >= 1, in_chans, H >= 64, W >= 64).
        """
        self._check(x)
        x = self.act1(self.bn1(self.conv1(x)))  # (B, 64, H/2, W/2)
        x = self.maxpool(x)  # (B, 64, H/4, W/4)
        for name in self.stage_names:
            x = getattr(self, name)(x)  # (B, 256, H/4, W/4), then (B, 512, H/8, W/8)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the features (B, 512, h, w) and classify: (B, classes), or (B, 512) with ``pre_logits``."""
        if self.global_pool == "avg":
            x = x.mean(dim=(2, 3))  # (B, 512)
        elif not pre_logits and self.num_classes:
            raise ValueError(
                "global_pool='' keeps the map of features; classify with pre_logits=True or global_pool='avg'."
            )
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into logits (B, classes)."""
        return self.forward_head(self.forward_features(x), pre_logits=self.num_classes == 0)

    def forward_folded(self, x: Tensor) -> Tensor:
        """Do what ``forward`` does in evaluation mode, in less time and to within rounding, see ``folding``.

        The convolutions compute in the precision of ``x``, whatever the weights are stored in; pooling and linear layer in
        that of the weights.
        """
        self._check(x)
        features = folded_features(self, x).to(self.conv1.weight.dtype)
        return self.forward_head(features, pre_logits=self.num_classes == 0)

    def _check(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"Expected a tensor of images (B, {self.in_chans}, H, W), got {type(x).__name__}.")
        if not torch.is_floating_point(x):
            raise TypeError(
                f"Expected floating point pixel values, got {x.dtype}. Pass the image through the image processor, "
                "which rescales and normalises it."
            )
        if x.ndim != 4 or x.shape[1] != self.in_chans:
            raise ValueError(
                f"Expected images of shape (B, {self.in_chans}, H, W), got {tuple(x.shape)}. "
                "Convert each image to RGB, channels first, and stack them."
            )
        if x.shape[0] == 0:
            raise ValueError(f"Expected at least one image, got an empty batch of shape {tuple(x.shape)}.")
        if min(x.shape[2:]) < MINIMUM_SIZE:
            raise ValueError(
                f"Expected images of at least {MINIMUM_SIZE}x{MINIMUM_SIZE} px, got {x.shape[2]}x{x.shape[3]}. "
                "Resize them first."
            )


@dataclass
class WbcImageClassifierOutput(ModelOutput):
    """What the model answers.

    Attributes:
        loss: cross entropy in nats, a scalar; only with labels.
        logits: (B, classes). Their softmax is the probability of each class.
        evidence: (B, classes, H/8, W/8), only on request. Its mean over places plus the linear layer's bias is the logit.
        hidden_states: the map of features (B, 512, H/8, W/8) as a tuple of one, only on request.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    evidence: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class WbcResNetForImageClassification(BatchStatistics, HeadFitting, LaboratoryFitting, RenamedTensors, PreTrainedModel):
    """The network as a Hugging Face model: ``pixel_values`` in, ``logits`` and on request the evidence map out.

    The stored tensor names are those of ``transformers.ResNetForImageClassification``, which loads the same folder.
    """

    config_class = WbcResNetConfig
    main_input_name = "pixel_values"
    _no_split_modules = ["Bottleneck"]
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer itself divides when it accumulates

    def __init__(self, config: WbcResNetConfig):
        super().__init__(config)
        self.network = WbcResNet(
            num_classes=config.num_labels,
            in_chans=config.num_channels,
            stem_channels=config.embedding_size,
            hidden_sizes=tuple(config.hidden_sizes),
            depths=tuple(config.depths),
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialise(module)

    @property
    def num_features(self) -> int:
        """Length of the embedding, 512."""
        return self.network.num_features

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """Turn images (B, 3, H, W) into the map of features (B, 512, H/8, W/8)."""
        return self.network.forward_features(pixel_values)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool features (B, 512, h, w) and classify: (B, classes), or the embedding (B, 512) with ``pre_logits``."""
        return self.network.forward_head(features, pre_logits=pre_logits)

    def forward_folded(self, pixel_values: Tensor) -> Tensor:
        """Give the logits (B, classes) of ``forward`` in evaluation mode, in less time and to within rounding.

        The batch norms are folded into the convolutions; what watches modules, hooks for one, sees nothing of it. Pixels in
        bfloat16 make the convolutions compute in it, and the logits come in the precision of the weights.
        """
        return self.network.forward_folded(pixel_values)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.network.get_classifier()

    def reset_classifier(self, id2label: dict[int, str]) -> None:
        """Put a fresh linear layer for these classes, numbered from 0, and name them in the configuration.

        The thresholds were found with the old layer and are dropped.
        """
        if sorted(id2label) != list(range(len(id2label))) or not id2label:
            raise ValueError(f"id2label must number its classes 0, 1, 2, ...; got {id2label!r}.")
        self.network.reset_classifier(len(id2label))
        self.as_stored = False
        self.config.drop_operating_point()
        self.config.id2label = dict(id2label)
        self.config.label2id = {label: number for number, label in id2label.items()}

    def evidence(self, features: Tensor) -> Tensor:
        """Say how much each place speaks for each class: features (B, 512, h, w) to evidence (B, classes, h, w).

        Since the pooling is a mean and the classifier linear, the mean of a class's map plus its bias is its logit: a class
        activation map (Zhou et al. 2016, arXiv:1512.04150) without hooks or gradients. In units of logits.
        """
        return torch.einsum("bkhw,ck->bchw", features, self.get_classifier().weight)

    def energy(self, logits: Tensor) -> Tensor:
        """Turn logits (..., classes) into the energy (...) in nats, low for images like those learnt from.

        It is -logsumexp(logits) (Liu et al. 2020, arXiv:2010.03759).
        """
        return -logits.logsumexp(dim=-1)

    def decide(self, probabilities: Tensor, energy: float) -> tuple[str, str | None]:
        """Give the answer for one image at the operating point of the configuration.

        Args:
            probabilities: (classes,), 0..1.
            energy: as ``energy`` gives it.

        Returns:
            The name of the likeliest class and None; or ``"unidentified"`` and the reason, ``"unlike the images learnt from"``
            (an energy above ``energy_threshold``) or ``"low confidence"`` (a probability below ``acceptance_threshold``). A
            threshold that the configuration lacks stops no answer.
        """
        config, top = self.config, int(probabilities.argmax())
        if config.energy_threshold is not None and energy > config.energy_threshold:
            return UNIDENTIFIED, UNLIKE
        if config.acceptance_threshold is not None and float(probabilities[top]) < config.acceptance_threshold:
            return UNIDENTIFIED, LOW_CONFIDENCE
        return config.id2label[top], None

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_evidence: bool = False,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> WbcImageClassifierOutput | tuple:
        """Classify images.

        Args:
            pixel_values: (B, 3, H, W), normalised by the image processor, H and W at least 64 px.
            labels: (B,) class numbers; with them the output carries the loss.
            output_evidence: add the evidence map (B, classes, H/8, W/8).
            output_hidden_states: add the map of features (B, 512, H/8, W/8).
            return_dict: False gives a tuple.

        Raises:
            TypeError: ``pixel_values`` is not floating point.
            ValueError: ``pixel_values`` has another shape.
        """
        features = self.forward_features(pixel_values)  # (B, 512, H/8, W/8)
        logits = self.forward_head(features)  # (B, classes)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = WbcImageClassifierOutput(
            loss=None if labels is None else nn.functional.cross_entropy(logits.float(), labels),
            logits=logits,
            evidence=self.evidence(features) if output_evidence else None,
            hidden_states=(features,) if output_hidden_states else None,
        )
        if return_dict is None:
            return_dict = self.config.return_dict
        return output if return_dict else output.to_tuple()


register("WbcResNetForImageClassification")
