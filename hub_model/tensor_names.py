"""One set of weights under two sets of names: stored as transformers', in the network as torchvision's.

transformers 5 keeps a table of renamings and follows it when it loads and saves; here our own goes in. transformers 4 has no
such table, so there the two methods of ``RenamedTensors`` do the same.
"""

import re
from collections.abc import Mapping

from torch import Tensor
from transformers.utils.versions import require_version

try:
    from transformers.conversion_mapping import register_checkpoint_conversion_mapping
    from transformers.core_model_loading import WeightRenaming
except ImportError:  # transformers 4, which from 4.51 on takes the names as an argument
    require_version(
        "transformers>=4.51,<5",
        "Install transformers 5 (`pip install 'transformers>=5,<6'`), or load the same folder without trust_remote_code: "
        "AutoModelForImageClassification.from_pretrained(ID) gives the same logits.",
    )
    register_checkpoint_conversion_mapping = WeightRenaming = None

# Stored (left) and in the network (right). (\d+) is a block's number.
STORED_NAMES = [
    ("resnet.embedder.embedder.convolution", "conv1"),
    ("resnet.embedder.embedder.normalization", "bn1"),
    ("classifier.1", "fc"),
]
for _stage in range(4):
    _theirs, _ours = rf"resnet.encoder.stages.{_stage}.layers.(\d+)", rf"layer{_stage + 1}.(\d+)"
    for _conv in range(3):
        STORED_NAMES.append((f"{_theirs}.layer.{_conv}.convolution", f"{_ours}.conv{_conv + 1}"))
        STORED_NAMES.append((f"{_theirs}.layer.{_conv}.normalization", f"{_ours}.bn{_conv + 1}"))
    STORED_NAMES.append((f"{_theirs}.shortcut.convolution", f"{_ours}.downsample.0"))
    STORED_NAMES.append((f"{_theirs}.shortcut.normalization", f"{_ours}.downsample.1"))


def torchvision_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename stored tensors (transformers' ResNet names) to the network's names (torchvision's).

    Raises:
        KeyError: a tensor's name is in no row of the table.
    """
    return _renamed(state_dict, STORED_NAMES, f"transformers' ResNet; expected names like {STORED_NAMES[0][0]!r}")


def transformers_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the network's tensors to the names they are stored by.

    Raises:
        KeyError: a tensor's name is in no row of the table.
    """
    table = [(ours, theirs) for theirs, ours in STORED_NAMES]
    return _renamed(state_dict, table, f"this network; expected names like {STORED_NAMES[0][1]!r}")


def _renamed(state_dict: Mapping[str, Tensor], table: list[tuple[str, str]], of: str) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state_dict.items():
        for old, new in table:
            if match := re.fullmatch(rf"{old}\.(\w+)", name):
                renamed[".".join([re.sub(r"\(\\d\+\)", match.group(1), new), match.group(match.lastindex)])] = tensor
                break
        else:
            raise KeyError(f"{name!r} is no tensor of {of}.")
    return renamed


class RenamedTensors:
    """Of a model whose ``network`` has torchvision's names: loaded from, and saved under, transformers' names."""

    base_model_prefix = "network"

    if register_checkpoint_conversion_mapping is None:
        base_model_prefix = (
            ""  # else transformers 4 takes the stored names for those of a part, and puts this before them
        )

        @classmethod
        def from_pretrained(cls, *args, **kwargs):
            """Load a model, see ``transformers.PreTrainedModel.from_pretrained``."""
            names = {f"^{theirs}(?=\\.)": "network." + ours.replace(r"(\d+)", r"\1") for theirs, ours in STORED_NAMES}
            return super().from_pretrained(*args, key_mapping=names, **kwargs)

        def save_pretrained(self, save_directory, is_main_process=True, state_dict=None, **kwargs):
            """Save the model, see ``transformers.PreTrainedModel.save_pretrained``."""
            own = {name.removeprefix("network."): tensor for name, tensor in (state_dict or self.state_dict()).items()}
            super().save_pretrained(save_directory, is_main_process, transformers_names(own), **kwargs)


def register(model_class: str) -> None:
    """Have transformers 5 rename the tensors of the class of this name, whose ``network`` has torchvision's names."""
    if register_checkpoint_conversion_mapping is not None:
        # A second copy of this file (another revision of the remote code) registers the same table: hence overwrite.
        register_checkpoint_conversion_mapping(
            model_class,
            [WeightRenaming(theirs, f"network.{ours}") for theirs, ours in STORED_NAMES],
            overwrite=True,
        )
