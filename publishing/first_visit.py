"""What a stranger sees of a folder alone: a program of its own, which imports nothing of the project and has no network.

    python -I -B first_visit.py model FOLDER EMPTY        # EMPTY: a folder for what the libraries keep
    python -I -B first_visit.py dataset FOLDER EMPTY

Prints one line of JSON: what each door answered, or under "errors" why it did not.
"""

import importlib
import importlib.util
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIDE = 256  # px of the drawn picture
ONNX = ("model.onnx", "model_quantized.onnx", "model_int8.onnx")


def refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError("the network is blocked here")


@contextmanager
def door(name: str, errors: dict[str, str]) -> Iterator[None]:
    """Note under its name why a door did not open, and go on with the next."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        errors[name] = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def draw_cell() -> Any:
    """Draw a nucleus in its cytoplasm among red cells, the same each time."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    random = np.random.default_rng(0)
    image = Image.new("RGB", (SIDE, SIDE), (232, 222, 226))
    draw = ImageDraw.Draw(image)
    for x, y in random.integers(0, SIDE, (30, 2)):
        draw.ellipse((x - 18, y - 18, x + 18, y + 18), fill=(214, 158, 160))
    draw.ellipse((78, 78, 178, 178), fill=(196, 172, 206))
    for x, y in ((112, 112), (140, 116), (126, 144)):
        draw.ellipse((x - 22, y - 22, x + 22, y + 22), fill=(96, 58, 138))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), dtype=np.int16)
    return Image.fromarray((pixels + random.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8))


def visit_model(folder: Path, seen: dict[str, Any], empty: Path) -> None:
    """Load a model folder through each of its doors and show each the same picture."""
    sys.modules["timm"] = None  # what an import of an absent package meets
    import torch
    import transformers
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

    errors = seen["errors"]
    picture = draw_cell()
    pixels = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    seen["pixels"] = list(pixels["pixel_values"].shape)
    for name, trust in {"plain": False, "remote": True}.items():
        with door(name, errors):
            model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=trust)
            with torch.no_grad():
                logits = model(**pixels).logits[0]
            file = Path(sys.modules[type(model).__module__].__file__)
            seen[name] = {
                "logits": logits.tolist(),
                "label": model.config.id2label[logits.argmax().item()],
                "evidence": hasattr(model, "evidence"),
                "from the cache": file.is_relative_to(empty),
            }
    with door("plain pipeline", errors):
        answer = pipeline("image-classification", str(folder), trust_remote_code=False)(picture)
        seen["plain pipeline"] = answer[0]["label"]
    with door("pipeline", errors):
        count = pipeline(model=str(folder), trust_remote_code=True)
        seen["pipeline"] = count(picture, one_cell=True)["probabilities"][0]["label"]
        seen["cells"] = len(count(picture)["images"][0]["cells"])
    seen["cached"] = sorted(file.name for file in (empty / "hf_home").rglob("*_wbc_resnet.py"))
    seen["checkout"] = "hub_model" in sys.modules
    with door("handler", errors):
        if (folder / "handler.py").is_file():
            answer = import_file(folder / "handler.py").EndpointHandler(str(folder))({"inputs": picture})
            seen["handler"] = max(answer, key=lambda row: row["score"])["label"]
    for name in ONNX:
        with door(f"onnx/{name}", errors):
            if (folder / "onnx" / name).is_file():
                seen[f"onnx/{name}"] = run_onnx(folder / "onnx" / name, pixels["pixel_values"].numpy())
    with door("package", errors):
        visit_package(folder, seen)
    seen["transformers"] = transformers.__version__


def visit_package(folder: Path, seen: dict[str, Any]) -> None:
    """Import the folder as a package, without timm."""
    import torch

    sys.path.insert(0, str(folder.parent))
    modeling = importlib.import_module(f"{folder.name}.modeling_wbc_resnet")
    build = importlib.import_module(f"{folder.name}.timm_wbc_resnet").wbc_resnet24
    seen["built"] = list(build(num_classes=6, global_pool="avg").eval()(torch.zeros(1, 3, 64, 64)).shape)
    seen["label"] = modeling.WbcResNetForImageClassification.from_pretrained(folder).config.id2label[0]
    for asked in ({"pretrained": True}, {"features_only": True}, {"num_clases": 6}):
        try:
            build(**asked)
        except (ImportError, TypeError) as error:
            seen[next(iter(asked))] = f"{type(error).__name__}: {error}"


def import_file(path: Path) -> Any:
    """Import a file by its path, as an endpoint does."""
    spec = importlib.util.spec_from_file_location("handler", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_onnx(path: Path, pixels: Any) -> dict[str, Any]:
    """Run an exported network on pixels (1, 3, H, W), alone and twice in a batch: its logits, and of which weights it is."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = [entry.name for entry in session.get_inputs()]
    alone = session.run(["logits"], {name: pixels})[0]
    twice = session.run(["logits"], {name: np.concatenate([pixels, pixels])})[0]
    return {
        "logits": alone[0].tolist(),
        "in a batch": twice[1].tolist(),
        "weights": session.get_modelmeta().custom_metadata_map.get("weights_sha256"),
    }


def visit_dataset(folder: Path, seen: dict[str, Any], empty: Path) -> None:
    """Load each table that the card names."""
    from datasets import Image, get_dataset_config_names, load_dataset

    seen["tables"] = {}
    with door("card", seen["errors"]):
        for name in get_dataset_config_names(str(folder)):
            with door(name, seen["errors"]):
                table = load_dataset(str(folder), name, split="train", cache_dir=str(empty / "datasets"))
                images = [column for column, kind in table.features.items() if isinstance(kind, Image)]
                seen["tables"][name] = {"rows": len(table), "columns": table.column_names, "images": images}


VISITS: dict[str, Callable[[Path, dict[str, Any], Path], None]] = {"model": visit_model, "dataset": visit_dataset}


def main() -> None:
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    kind, folder, empty = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(empty / "hf_home")}
    seen: dict[str, Any] = {"errors": {}}
    with door("folder", seen["errors"]):
        VISITS[kind](folder, seen, empty)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
