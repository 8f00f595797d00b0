"""The branch that stock timm loads: timm's ResNet-50 without its last two stages, the same weights under timm's names.

Pixels and labels come from the model folder's own files. The same folder gives the same bytes.
"""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf
from transformers import AutoModelForImageClassification

from hub_model.modeling_wbc_resnet import MINIMUM_SIZE, torchvision_names
from publishing.composing import Composed
from publishing.faults import Fault, FolderRefused
from publishing.repositories import LICENSE, TIMM

# timm counts a bottleneck's output as four times its channels and cannot leave a stage out, only make it empty.
NETWORK = {"layers": (3, 4, 0, 0), "channels": (64, 128, 128, 128)}
README = """---
license: {license}
library_name: timm
pipeline_tag: image-classification
tags:
- image-classification
- timm
- white-blood-cells
- medical
---

# {id}, for timm

The weights of [{id}](https://huggingface.co/{id}) as stock timm loads them: its ResNet-50 without the last two stages, which is
this network bit for bit. It names the white blood cell in a photo of a stained blood smear: {labels}.

**For research and teaching. Not a medical device, not for diagnosis.** What it was learnt from, how it was measured, where it
fails: the card of the [main branch](https://huggingface.co/{id}).

```python
import timm
import torch
from PIL import Image

model = timm.create_model("hf-hub:{id}@{branch}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    probabilities = model(transform(Image.open("cell.jpg").convert("RGB"))[None]).softmax(-1)
print(dict(zip(model.pretrained_cfg["label_names"], probabilities[0].tolist())))
```

Weights: {license}; code: Apache-2.0, see LICENSE. The data's licences stand on the main branch's card.
"""


def export(model: Composed, into: Path, license_id: str) -> Composed:
    """Write the branch for a composed model folder.

    Raises:
        FolderRefused: the folder's files make no such network, or it answers other than the folder does.
    """
    try:
        config = json.loads((model.folder / "config.json").read_text("utf-8"))
        processor = json.loads((model.folder / "preprocessor_config.json").read_text("utf-8"))
        labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
        network = timm.create_model("resnet50", num_classes=len(labels), **NETWORK)
        network.load_state_dict(torchvision_names(load_file(model.folder / "model.safetensors")))
        network.pretrained_cfg = network.default_cfg = describe(processor, len(labels), license_id)
    except Exception as error:  # whatever a damaged file gives
        raise FolderRefused([_fault(model, f"no export ({_first_line(error)})")]) from error
    save_for_hf(network, into, model_config={"label_names": labels}, safe_serialization=True)
    text = README.format(id=model.id, branch=TIMM, license=license_id, labels=", ".join(labels))
    (into / "README.md").write_text(text, "utf-8")
    (into / LICENSE).write_bytes((model.folder / LICENSE).read_bytes())
    branch = Composed(model.kind, model.id, into, f"{model.source} ({TIMM})", TIMM)
    if difference := largest_difference(model.folder, into):
        raise FolderRefused([_fault(model, f"an export whose logits differ by up to {difference:.2g}")])
    return branch


def describe(processor: dict[str, Any], classes: int, license_id: str) -> dict[str, Any]:
    """Give timm's record of the weights from the image processor's, in place of what timm knows of its own ResNet-50."""
    height, width = processor["size"]["height"], processor["size"]["width"]
    return {
        "architecture": "resnet50",
        "tag": "wbc",
        "custom_load": False,
        "num_classes": classes,
        "input_size": (3, height, width),
        "min_input_size": (3, MINIMUM_SIZE, MINIMUM_SIZE),
        "fixed_input_size": False,
        "pool_size": (height // 8, width // 8),
        "mean": tuple(processor["image_mean"]),
        "std": tuple(processor["image_std"]),
        "interpolation": Image.Resampling(processor["resample"]).name.lower(),
        # The image processor squashes the whole photo to the network's size.
        "crop_mode": "squash",
        "crop_pct": 1.0,
        "first_conv": "conv1",
        "classifier": "fc",
        "license": license_id,
    }


@torch.no_grad()
def largest_difference(folder: Path, exported: Path) -> float:
    """Compare the logits of a model folder and of its export on noise of two sizes."""
    stored = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False).eval()
    network = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(2, 3, *size, generator=generator) for size in ((224, 224), (96, 128))]
    return max((stored(x).logits - network(x)).abs().max().item() for x in noise)


def _fault(model: Composed, came: str) -> Fault:
    expected, remedy = "what stock timm loads, bit for bit", "Restore the folder from git, or compose it anew."
    return Fault(model.shown("model.safetensors"), came, expected, remedy)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
