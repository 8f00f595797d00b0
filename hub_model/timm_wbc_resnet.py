"""The network for timm: importing this module registers ``wbc_resnet24``.

    import timm
    import hub_model.timm_wbc_resnet

    model = timm.create_model("wbc_resnet24", pretrained=True)

What timm wants to know of the weights is read from the files beside this one: the labels from config.json, the pixels
from preprocessor_config.json. This module is never loaded as remote code, which would register the name twice.
"""

import json
from pathlib import Path

from torch import Tensor, nn

from .configuration_wbc_resnet import WbcResNetConfig
from .modeling_wbc_resnet import MINIMUM_SIZE, WbcResNet
from .tensor_names import torchvision_names

try:
    from PIL import Image
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

    timm_missing = None
except ImportError as error:
    timm_missing = error

    def generate_default_cfgs(cfgs):
        return cfgs

    def register_model(entrypoint):
        return entrypoint


FOLDER = Path(__file__).parent
TIMM_ONLY = ("features_only", "out_indices", "feature_cls", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def _pretrained_cfg() -> dict:
    """Gather timm's record of the published weights; before the first training there are none and it stays bare."""
    cfg = {"first_conv": "conv1", "classifier": "fc"}
    config, processor, weights = (
        FOLDER / name for name in ("config.json", "preprocessor_config.json", "model.safetensors")
    )
    if timm_missing or not (config.is_file() and processor.is_file() and weights.is_file()):
        return {**cfg, "num_classes": -1}  # timm's "unknown": the network's own default holds, not timm's 1000
    config = WbcResNetConfig.from_json_file(config)
    processor = json.loads(processor.read_text())
    height, width = processor["size"]["height"], processor["size"]["width"]
    return {
        **cfg,
        "file": str(weights),
        "num_classes": config.num_labels,
        "label_names": tuple(config.id2label[number] for number in range(config.num_labels)),
        "input_size": (config.num_channels, height, width),
        "min_input_size": (config.num_channels, MINIMUM_SIZE, MINIMUM_SIZE),
        "mean": tuple(processor["image_mean"]),
        "std": tuple(processor["image_std"]),
        "interpolation": Image.Resampling(processor["resample"]).name.lower(),
        # The image processor squashes the whole photo to the network's size.
        "crop_mode": "squash",
        "crop_pct": 1.0,
    }


default_cfgs = generate_default_cfgs({"wbc_resnet24": _pretrained_cfg()})


def network_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the network's names, whether they come from model.safetensors or from timm's own checkpoints."""
    stored = any(name.startswith("resnet.") for name in state_dict)
    return torchvision_names(state_dict) if stored else state_dict


def _rename_before_loading(module, state_dict, *_):
    renamed = network_names(state_dict)
    if renamed is not state_dict:
        state_dict.clear()
        state_dict.update(renamed)


@register_model
def wbc_resnet24(pretrained: bool = False, **kwargs) -> nn.Module:
    """Build the 24-layer ResNet.

    Args:
        pretrained: load the model.safetensors beside this file. With another ``num_classes`` the linear layer starts
            fresh; with another ``in_chans`` timm adapts the first convolution.
        **kwargs: the arguments of ``WbcResNet``, and with timm installed what ``build_model_with_cfg`` takes, such as
            ``features_only``: then the network answers with a list of maps, (B, 64, H/2, W/2), (B, 256, H/4, W/4) and
            (B, 512, H/8, W/8).

    Raises:
        ImportError: timm is not installed and more than the plain network was asked for.
        ValueError: dropout was asked for, which this network does not have.
    """
    # timm's train.py always passes drop_rate, 0.0 unless asked otherwise.
    if rate := kwargs.pop("drop_rate", 0.0):
        raise ValueError(f"drop_rate={rate} is not offered by this network; leave it at 0.")
    if timm_missing:
        asked = [name for name, value in {"pretrained": pretrained, **kwargs}.items() if value]
        if needs_timm := [name for name in asked if name in ("pretrained", *TIMM_ONLY)]:
            raise ImportError(
                f"wbc_resnet24({', '.join(needs_timm)}) needs timm: pip install timm. Without it, load the trained "
                "model with AutoModelForImageClassification.from_pretrained(this folder)."
            ) from timm_missing
        return WbcResNet(**kwargs)
    model = build_model_with_cfg(
        WbcResNet,
        "wbc_resnet24",
        pretrained,
        pretrained_filter_fn=network_names,
        feature_cfg={"out_indices": (0, 1, 2)},
        **kwargs,
    )
    # timm's checkpoint_path passes no filter function, yet model.safetensors carries transformers' names.
    model.register_load_state_dict_pre_hook(_rename_before_loading)
    return model
