"""What the 24-layer white-blood-cell ResNet is made of, and what its classes are called."""

import difflib
import inspect

from transformers import PretrainedConfig


class WbcResNetConfig(PretrainedConfig):
    """Configuration of the 24-layer ResNet.

    The fields carry the names and the meaning of ``transformers.ResNetConfig``, and ``model_type`` is ``"resnet"``, so that
    one ``config.json`` describes the network to transformers' own class and to ours.

    Args:
        num_channels: channels of an input image, 3 for RGB.
        embedding_size: output channels of the 7x7 stem.
        hidden_sizes: output channels of each stage, each a multiple of 4.
        depths: bottleneck blocks in each stage.
        layer_type: ``"bottleneck"``; no other block is offered.
        hidden_act: ``"relu"``; no other activation is offered.
        downsample_in_first_stage: must be False, as in torchvision's ResNet-50.
        downsample_in_bottleneck: must be False: the stride sits on the 3x3 convolution ("ResNet v1.5").
        **kwargs: the fields every ``PretrainedConfig`` has (``id2label``, ``auto_map``, ...).

    Raises:
        ValueError: for a key that nothing reads (a typo would otherwise be stored in silence), or for a value that the
            network does not offer.
    """

    model_type = "resnet"

    # Keys of PretrainedConfig that are not attributes of a fresh instance on every supported version of the library.
    _library_keys = frozenset(
        {
            "attn_implementation",
            "auto_map",
            "commit_hash",
            "custom_pipelines",
            "experts_implementation",
            "model_type",
            "name_or_path",
            "num_labels",
            "out_features",
            "out_indices",
            "output_attentions",
            "quantization_config",
            "reshape_last_stage",
            "stage_names",
            "torch_dtype",
            "transformers_version",
            "use_return_dict",
        }
    )

    def __init__(
        self,
        num_channels=3,
        embedding_size=64,
        hidden_sizes=(256, 512),
        depths=(3, 4),
        layer_type="bottleneck",
        hidden_act="relu",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        **kwargs,
    ):
        self._refuse_unknown(kwargs)
        fixed = {
            "layer_type": (layer_type, "bottleneck"),
            "hidden_act": (hidden_act, "relu"),
            "downsample_in_first_stage": (downsample_in_first_stage, False),
            "downsample_in_bottleneck": (downsample_in_bottleneck, False),
        }
        for name, (value, offered) in fixed.items():
            if value != offered:
                raise ValueError(f"{name}={value!r} is not offered by this network; leave it at {offered!r}.")
        for name, value in (("depths", depths), ("hidden_sizes", hidden_sizes)):
            if not isinstance(value, list | tuple):
                raise ValueError(f"{name} is {value!r}; expected a list of whole numbers, one for each stage.")
        for name, value in (("num_channels", num_channels), ("embedding_size", embedding_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a whole number above 0.")
        if any(not isinstance(size, int) or size < 4 for size in hidden_sizes):
            raise ValueError(f"hidden_sizes is {hidden_sizes!r}; expected whole numbers, 4 or more.")
        if len(depths) != len(hidden_sizes) or not depths:
            raise ValueError(
                f"depths {tuple(depths)} and hidden_sizes {tuple(hidden_sizes)} must name the same stages, one number each."
            )
        if len(depths) > 4 or min(depths) < 1:
            raise ValueError(f"depths is {tuple(depths)}; expected one to four stages of at least one block each.")
        if any(size % 4 for size in hidden_sizes):
            raise ValueError(
                f"hidden_sizes {tuple(hidden_sizes)} must be multiples of 4: a bottleneck is a quarter wide."
            )
        self.num_channels = num_channels
        self.embedding_size = embedding_size
        self.hidden_sizes = list(hidden_sizes)
        self.depths = list(depths)
        self.layer_type = layer_type
        self.hidden_act = hidden_act
        self.downsample_in_first_stage = downsample_in_first_stage
        self.downsample_in_bottleneck = downsample_in_bottleneck
        super().__init__(**kwargs)
        if self.id2label and sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"id2label must number its classes 0, 1, 2, ...; got {self.id2label!r}.")
        if self.id2label and len(set(self.id2label.values())) < len(self.id2label):
            raise ValueError(f"id2label must name each class once; got {self.id2label!r}.")

    def _refuse_unknown(self, kwargs):
        library = {key.lstrip("_") for key in vars(PretrainedConfig())} | self._library_keys
        for key in kwargs:
            # Keys with a leading underscore are the library's own bookkeeping.
            if key.startswith("_") or key in library:
                continue
            own = list(inspect.signature(WbcResNetConfig).parameters)[:-1]  # the last one is **kwargs
            close = difflib.get_close_matches(key, [*own, *sorted(library)], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"Unknown configuration key {key!r} (value {kwargs[key]!r}): nothing reads it.{hint}")
