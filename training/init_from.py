"""Where training starts: the first 23 layers of a ResNet-50, or an earlier checkpoint of this network."""

import hashlib
import logging
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

STEM_AND_STAGES = ("conv1.", "bn1.", "layer1.", "layer2.")
DEEPER_STAGES = ("layer3.", "layer4.")
LINEAR = ("fc.",)
# A counter that no forward pass reads (the momentum is fixed); checkpoints older than PyTorch 0.4.1 lack it.
COUNTER = ".num_batches_tracked"


def init_from(model: PreTrainedModel, source: str | Path) -> list[str]:
    """Start ``model`` from ``source`` and return the names of the tensors that were loaded.

    Args:
        model: the classifier; ``model.network`` carries torchvision's parameter names.
        source: a folder with config.json and model.safetensors (this network or transformers' ResNet), or a file of
            ResNet-50 weights (``load_resnet50``).

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the weights do not fit.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(
            f"There is no {source}. Expected a folder with config.json and model.safetensors, or a ResNet-50 weights "
            "file (.safetensors, .pth). Fetch a model from the Hub first: hf download ID --local-dir FOLDER. ResNet-50's "
            "weights: make imagenet"
        )
    return load_folder(model, source) if source.is_dir() else load_resnet50(model, source)


def load_folder(model: PreTrainedModel, folder: str | Path) -> list[str]:
    """Take over stem and stages of the checkpoint in ``folder``, and of the linear layer the classes of the same name.

    Classes that the checkpoint does not know keep their starting weights, and a warning names them. Stages three and four,
    which a whole ResNet-50 has, are left out.

    Raises:
        ValueError: a file is missing, or a tensor is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    stored = _read_checkpoint(type(model), folder)
    tensors = stored.network.state_dict()
    theirs, ours = _labels(stored), _labels(model)
    known = set(ours) & set(theirs) if stored.num_features == model.num_features else set()
    if fresh := [label for label in ours if label not in known]:
        logger.warning("The labels of %s are %s: %s start from weights of their own here.", folder, theirs, fresh)
    if not known:
        return _copy(tensors, model.network, STEM_AND_STAGES, DEEPER_STAGES + LINEAR, folder)
    linear = model.network.state_dict()
    for name in ("fc.weight", "fc.bias"):
        rows = [
            tensors[name][theirs.index(label)] if label in known else linear[name][n] for n, label in enumerate(ours)
        ]
        tensors[name] = torch.stack(rows)
    return _copy(tensors, model.network, STEM_AND_STAGES + LINEAR, DEEPER_STAGES, folder)


def describe_weights(path: str | Path) -> dict[str, str]:
    """Say which weights a file holds: its name, its SHA-256, and what they learnt from, where a ``.safetensors`` file says it.

    Args:
        path: a file that ``init_from`` takes; ``training.imagenet`` writes one that says what its weights learnt from.

    Returns:
        ``source``, ``sha256`` and, where it is said, ``learnt_from``.
    """
    path = Path(path)
    with path.open("rb") as stream:
        record = {"source": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
        if "learnt_from" in told:
            record["learnt_from"] = told["learnt_from"]
    return record


def load_companion(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Read a checkpoint of ``model``'s own classes and sizes, to be averaged with it, see ``training.finish``.

    Raises:
        ValueError: it has other classes, another order of them, or tensors of other shapes.
    """
    stored = _read_checkpoint(type(model), Path(folder))
    if _labels(stored) != _labels(model):
        raise ValueError(
            f"{folder} names {_labels(stored)}, the training {_labels(model)}: weights are averaged class by class. Name a "
            "checkpoint of the same classes in the same order."
        )
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, tensor in stored.state_dict().items():
        if ours.get(name) != tensor.shape:
            raise ValueError(
                f"{name} in {folder} has shape {tuple(tensor.shape)}, for which the network has no place. Name a checkpoint of "
                "this network."
            )
    return stored


def load_resnet50(model: nn.Module, path: str | Path) -> list[str]:
    """Load ResNet-50's stem, stage one and stage two, key by key, and return the names that were loaded.

    Args:
        model: the classifier, or its network alone.
        path: weights of timm's or torchvision's ResNet-50, ``.safetensors`` or ``.pth``; the tensors may stand under
            ``"state_dict"`` or ``"model"``. Stages three and four and the linear layer are left out.

    Raises:
        ValueError: the file cannot be read, or a tensor is missing, unexpected or of another shape. The model is then
            unchanged.
    """
    path = Path(path)
    network = getattr(model, "network", model)
    return _copy(_read(path), network, STEM_AND_STAGES, DEEPER_STAGES + LINEAR, path)


def _read_checkpoint(kind: type[PreTrainedModel], folder: Path) -> PreTrainedModel:
    """Load a folder with all its tensors, or say what it lacks."""
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} holds no {name}; expected a folder that save_pretrained wrote.")
    try:
        stored, report = kind.from_pretrained(folder, output_loading_info=True)
    except (RuntimeError, SafetensorError, ValueError, TypeError, OSError) as error:
        raise ValueError(
            f"{folder} is no checkpoint of this network or of transformers' ResNet that fits its config.json: {error}"
        ) from error
    for problem in ("missing_keys", "unexpected_keys"):
        if report[problem]:
            raise ValueError(
                f"{folder / 'model.safetensors'} does not fit the config.json beside it: {problem.replace('_', ' ')} "
                f"{sorted(report[problem])}. Save the checkpoint again with save_pretrained."
            )
    return stored


def _labels(model: PreTrainedModel) -> list[str]:
    return [label for _, label in sorted(model.config.id2label.items())]


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise ValueError(f"{path} is no weights file; expected .safetensors, .pth, .pt or .bin.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read as a file of tensors ({error}). It may be cut short: fetch it again. A pickle that "
            "holds more than tensors is not opened: save its state_dict alone."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return content[key]
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a state_dict of named tensors.")
    return content


def _copy(
    tensors: dict[str, Tensor],
    network: nn.Module,
    prefixes: Iterable[str],
    left_out: Iterable[str],
    source: Path,
) -> list[str]:
    """Check every tensor, then copy those whose names start with one of ``prefixes`` into ``network``."""
    remedy = (
        "Expected the names and shapes of a ResNet-50 with bottleneck blocks, as torchvision.models.resnet50 and "
        "timm.create_model('resnet50') have; choose such a checkpoint."
    )
    wanted = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(tuple(prefixes))}
    for name, tensor in wanted.items():
        if name not in tensors:
            if name.endswith(COUNTER):
                continue
            raise ValueError(f"{source} lacks {name!r}; expected shape {tuple(tensor.shape)}, got nothing. {remedy}")
        got = getattr(tensors[name], "shape", None)
        if got != tensor.shape:
            raise ValueError(
                f"{name!r} in {source} has shape {got and tuple(got)}; expected {tuple(tensor.shape)}. {remedy}"
            )
    for name, tensor in tensors.items():
        if name not in wanted and not name.startswith(tuple(left_out)):
            got = getattr(tensor, "shape", None)
            raise ValueError(
                f"{source} holds {name!r} of shape {got and tuple(got)}, for which the network has no place. {remedy}"
            )
    loaded = [name for name in wanted if name in tensors]
    with torch.no_grad():
        for name in loaded:
            wanted[name].copy_(tensors[name])
    logger.info("Loaded %d tensors from %s.", len(loaded), source)
    return loaded
