"""What the 24-layer white-blood-cell ResNet is made of, and what its classes are called."""

import difflib
import inspect
import math

from transformers import PretrainedConfig


class WbcResNetConfig(PretrainedConfig):
    """Configuration of the 24-layer ResNet.

    The fields carry the names and the meaning of ``transformers.ResNetConfig``, and ``model_type`` is ``"resnet"``, so that
    one ``config.json`` describes the network to transformers' own class and to ours. The fields after them say what the
    network's answers are worth; they are stored when they are set, and transformers' own class keeps them unread.

    Args:
        num_channels: channels of an input image, 3 for RGB.
        embedding_size: output channels of the 7x7 stem.
        hidden_sizes: output channels of each stage, each a multiple of 4.
        depths: bottleneck blocks in each stage.
        layer_type: ``"bottleneck"``; no other block is offered.
        hidden_act: ``"relu"``; no other activation is offered.
        downsample_in_first_stage: must be False, as in torchvision's ResNet-50.
        downsample_in_bottleneck: must be False: the stride sits on the 3x3 convolution ("ResNet v1.5").
        acceptance_threshold: least probability, 0..1, at which the likeliest class is given as the answer.
        acceptance_risk: share of wrong answers, 0..1, among those given on validation at that threshold, at most.
        energy_threshold: largest energy, ``-logsumexp(logits)`` in nats, of an image that is like those learnt from.
        energy_accept_rate: share of validation's white cells, 0..1, whose energy is not above that threshold.
        negatives_label: the class that means "none of the others": other cells, empty ground, no smear.
        validation_confusion: how the pipeline errs on validation cells: ``counts``, by laboratory, class and outcome (see
            ``error_adjustment``), and ``labels``, ``acceptance_threshold`` and ``energy_threshold`` as they were then.
        **kwargs: the fields every ``PretrainedConfig`` has (``id2label``, ``auto_map``, ...).

    A threshold comes with the share that was measured at it, or not at all. Thresholds belong to the linear layer they were
    found with: asking for another number of classes drops them.

    Raises:
        ValueError: for a key that nothing reads (a typo would otherwise be stored in silence), for a value that the
            network does not offer, and as ``check_operating_point``.
    """

    model_type = "resnet"

    # On the class, so that a configuration without them has transformers' own fields and no others.
    acceptance_threshold = None
    acceptance_risk = None
    energy_threshold = None
    energy_accept_rate = None
    negatives_label = None
    validation_confusion = None

    _operating_point = (
        "acceptance_threshold",
        "acceptance_risk",
        "energy_threshold",
        "energy_accept_rate",
        "negatives_label",
        "validation_confusion",
    )

    # Keys of PretrainedConfig that are not attributes of a fresh instance on every supported version of the library.
    _library_keys = frozenset(
        {
            "attn_implementation",
            "auto_map",
            "commit_hash",
            "custom_pipelines",
            "dtype",
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
        acceptance_threshold=None,
        acceptance_risk=None,
        energy_threshold=None,
        energy_accept_rate=None,
        negatives_label=None,
        validation_confusion=None,
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
        given = {
            "acceptance_threshold": acceptance_threshold,
            "acceptance_risk": acceptance_risk,
            "energy_threshold": energy_threshold,
            "energy_accept_rate": energy_accept_rate,
            "negatives_label": negatives_label,
            "validation_confusion": validation_confusion,
        }
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
        super().__init__(**kwargs)
        labels, number = kwargs.get("id2label"), kwargs.get("num_labels")
        if labels is not None and number not in (None, len(labels)):
            self.drop_operating_point()
        if self.id2label and sorted(self.id2label) != list(range(len(self.id2label))):
            raise ValueError(f"id2label must number its classes 0, 1, 2, ...; got {self.id2label!r}.")
        if self.id2label and len(set(self.id2label.values())) < len(self.id2label):
            raise ValueError(f"id2label must name each class once; got {self.id2label!r}.")
        self.check_operating_point()

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Build a configuration from a dictionary; ``kwargs`` replace what stands there."""
        if not isinstance(config_dict, dict):
            raise ValueError(f"The configuration is {config_dict!r}; expected an object of named fields.")
        before = config_dict.get("id2label")
        answer = super().from_dict(config_dict, **kwargs)
        # The library writes kwargs into the finished configuration, behind the constructor's checks.
        config = answer[0] if isinstance(answer, tuple) else answer
        if before is not None and len(before) != len(config.id2label):
            config.drop_operating_point()
        config.check_operating_point()
        return answer

    def check_operating_point(self) -> None:
        """Check the thresholds, what was measured at them, and the class for negatives; call it after setting them.

        Raises:
            ValueError: a share outside 0..1, an energy that is no finite number, a threshold without its share
                or the other way round, a class that is not there.
        """
        for name in ("acceptance_threshold", "acceptance_risk", "energy_accept_rate"):
            value = getattr(self, name)
            if value is not None and not (_is_finite(value) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value!r}; expected a number from 0 to 1.")
        if self.energy_threshold is not None and not _is_finite(self.energy_threshold):
            raise ValueError(f"energy_threshold is {self.energy_threshold!r}; expected a finite number, in nats.")
        for names in (("acceptance_threshold", "acceptance_risk"), ("energy_threshold", "energy_accept_rate")):
            missing = [name for name in names if getattr(self, name) is None]
            if len(missing) == 1:
                raise ValueError(f"{missing[0]} is missing: {' and '.join(names)} are given together or not at all.")
        if self.negatives_label is not None and self.negatives_label not in self.id2label.values():
            raise ValueError(
                f"negatives_label is {self.negatives_label!r}; expected one of the classes {list(self.id2label.values())}. "
                "Call it as it is called there, or pass negatives_label=None."
            )
        if self.validation_confusion is not None:
            _check_confusion(self.validation_confusion)

    def usable_confusion(self) -> dict[str, dict[str, dict[str, int]]] | None:
        """Give the counts of ``validation_confusion``, or None where they were counted with other classes or thresholds."""
        counted = self.validation_confusion
        if counted is None:
            return None
        labels = [self.id2label[number] for number in range(len(self.id2label))]
        now = {"labels": labels, **{name: getattr(self, name) for name in _THRESHOLDS}}
        return counted["counts"] if all(counted[name] == value for name, value in now.items()) else None

    def drop_operating_point(self) -> None:
        """Forget the thresholds, what was measured at them, and the class for negatives."""
        for name in self._operating_point:
            vars(self).pop(name, None)

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


def _check_confusion(confusion):
    keys = ["labels", *_THRESHOLDS, "counts"]
    if not isinstance(confusion, dict) or sorted(confusion) != sorted(keys):
        raise ValueError(f"validation_confusion is {confusion!r}; expected an object with {', '.join(keys)}.")
    labels, tables = confusion["labels"], confusion["counts"]
    good = isinstance(labels, list) and isinstance(tables, dict)
    good = good and all(
        isinstance(table, dict)
        and set(table) <= set(labels)
        and all(
            isinstance(row, dict)
            and set(row) <= {*labels, *(f"{label}?" for label in labels)}
            and all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in row.values())
            for row in table.values()
        )
        for table in tables.values()
    )
    if not good:
        raise ValueError(
            f"validation_confusion has the counts {tables!r}; expected numbers of cells by laboratory, class and outcome, "
            f"classes {labels!r}. Count them anew with count_errors.py."
        )


_THRESHOLDS = ("acceptance_threshold", "energy_threshold")


def _is_finite(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
