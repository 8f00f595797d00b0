"""Train the 24-layer ResNet on labelled smear images, measure it, and write the folder that every door loads.

Four classes from scratch, from the unpacked Kaggle archive ``paultimothymooney/blood-cells`` (the commands of the shipped
weights stand in the model card):

    python train.py --data_dir blood-cells

The same after a kill, from the newest complete checkpoint: the same command again.

Your own cells, a folder for each class, starting from the shipped weights:

    python train.py --data_dir my_cells --init_from hub_model --output_dir runs/mine

From a dataset of the Hub, from ResNet-50's weights, which ``make imagenet`` fetches, in two processes:

    torchrun --nproc_per_node 2 train.py --dataset_name NAME --init_from runs/resnet50.safetensors --output_dir runs/hub

Where the folders are not at hand, as on a machine lent for an hour: all that is learnt from and held out, packed here, ...

    python train.py --data_dir blood-cells --pack_to packed
    python train.py --packed packed --output_dir runs/packed

With ``--push_to_hub --hub_model_id ME/my-cells --data_license my_cells=cc-by-4.0`` the finished folder is checked and published
as publish.py does it.
"""

import difflib
import logging
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import datasets
import torch
from transformers import AutoImageProcessor, HfArgumentParser, TrainingArguments, set_seed

from evaluation.command import read_shares, without_token
from evaluation.labels import read_label_map
from evaluation.measure import load_config, measure_slices
from evaluation.metrics import ClassificationReport
from evaluation.results import (
    SCHEMA_VERSION,
    environment,
    git_commit,
    hardware,
    read_results,
    weights_sha256,
    write_results,
)
from evaluation.slices import MEASURED
from hub_model.configuration_wbc_resnet import WbcResNetConfig
from hub_model.modeling_wbc_resnet import MINIMUM_SIZE, WbcResNetForImageClassification
from hub_model.pipeline_wbc_resnet import has_bfloat16
from publishing.faults import PublishingError
from publishing.training import check_destination, publish_finished
from smears.laboratories import (
    BASOPHIL,
    basophil_photos,
    cut_cells,
    divide,
    is_archive,
    load_laboratory,
    rename_classes,
)
from smears.loading import DataError, fingerprint, load_folder, load_hub
from smears.photos import boxes_on_copies, name_photos, photos_at_hand, photos_behind
from smears.splits import VALIDATION_SHARE, hold_out
from training.augment import Augmentation, read_augmentation
from training.consistency import VIEWS
from training.device_views import DevicePhotos, PlannedDraws, Planner, collate, fits
from training.finish import average_weights, fit_temperature, fold_temperature, predict_logits
from training.init_from import describe_weights, init_from, load_companion
from training.operating_points import choose_operating_points
from training.packing import Pack, read_pack, write_pack
from training.trainer import EmaTrainer, WallClock, check_strengths, claim, newest_checkpoint
from training.views import GrowingResolution, PlainViews, TrainingDraws
from training.width import check_epoch

ROOT = Path(__file__).parent
HUB_MODEL = ROOT / "hub_model"
FEWEST_TO_CALIBRATE = 100  # a handful that are all named rightly would make every answer certain
RECORDED_ARGUMENTS = (
    "per_device_train_batch_size",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "label_smoothing_factor",
    "max_grad_norm",
    "bf16",
)
logger = logging.getLogger("train")


@dataclass
class DataArguments:
    """Which images."""

    data_dir: list[str] = field(
        default_factory=list,
        metadata={"help": "folder: the unpacked archive, SPLIT/CLASS/, or CLASS/; several: a laboratory each"},
    )
    dataset_name: str | None = field(default=None, metadata={"help": "instead of data_dir: a dataset of the Hub"})
    dataset_revision: str | None = field(default=None, metadata={"help": "commit or tag of dataset_name"})
    packed: str | None = field(default=None, metadata={"help": "instead of data_dir: a folder that --pack_to wrote"})
    leave_out: list[str] = field(
        default_factory=list, metadata={"help": "with --packed: laboratories not to learn from"}
    )
    pack_to: str | None = field(
        default=None,
        metadata={"help": "write the images, divided, into this folder, to learn from elsewhere; and stop"},
    )
    train_on: str = field(
        default="auto",
        metadata={
            "help": "fit the 'photos' behind the Kaggle copies or the 'images' as they lie; 'auto': photos if at hand",
            "choices": ["auto", "photos", "images"],
        },
    )
    validation_share: float = field(
        default=VALIDATION_SHARE, metadata={"help": "share of the photos held out where no validation split is given"}
    )
    split_seed: int = field(default=0, metadata={"help": "which photos are held out"})
    test_share: list[str] = field(
        default_factory=list, metadata={"help": "LAB=SHARE: held out of a laboratory to measure on, besides"}
    )
    labels: list[str] = field(
        default_factory=list, metadata={"help": "the classes, in their order; left out: all there are, by alphabet"}
    )
    label_map: list[str] = field(default_factory=list, metadata={"help": "FOLDER=CLASS: folders that are one class"})
    cache_mb: int = field(default=2048, metadata={"help": "decoded images kept in memory, MiB; on a device all"})
    measure_splits: list[str] = field(
        default_factory=lambda: list(MEASURED), metadata={"help": "what is measured at the end, of what there is"}
    )

    def __post_init__(self):
        if [bool(self.data_dir), bool(self.dataset_name), bool(self.packed)].count(True) != 1:
            raise ValueError("Name the images: one of --data_dir FOLDER, --dataset_name ID and --packed FOLDER.")
        if self.leave_out and not self.packed:
            raise ValueError("--leave_out goes with --packed; else name the other laboratories alone with --data_dir.")
        if self.packed and (self.pack_to or self.labels or self.label_map or self.test_share):
            raise ValueError(
                "--packed images are named and divided already: leave out --pack_to, --labels, --label_map and --test_share."
            )
        divided = (self.validation_share, self.split_seed, self.train_on) != (VALIDATION_SHARE, 0, "auto")
        if self.packed and divided:
            raise ValueError(
                "--packed images are divided already: give --validation_share, --split_seed and --train_on with --pack_to."
            )
        if self.dataset_name and self.train_on == "photos":
            raise ValueError("--train_on photos needs the Kaggle archive as --data_dir; use --train_on images.")
        if strange := sorted(set(self.measure_splits) - set(MEASURED)):
            raise ValueError(f"--measure_splits {strange[0]}: expected some of {', '.join(MEASURED)}.")
        if self.dataset_name and (self.labels or self.label_map or self.test_share):
            raise ValueError(
                "--labels, --label_map and --test_share go with --data_dir, one folder for each laboratory."
            )
        if self.is_collection and self.train_on == "images":
            raise ValueError("--train_on images goes with one --data_dir; several laboratories learn from photos.")

    @property
    def is_collection(self) -> bool:
        """Whether the images are those of laboratories, under common class names."""
        several = len(self.data_dir) > 1 or bool(self.label_map or self.test_share)
        return several or (bool(self.labels) and self.train_on != "images")


@dataclass
class RecipeArguments:
    """How they are learnt."""

    init_from: str | None = field(
        default=None, metadata={"help": "folder of a checkpoint, or a ResNet-50 weights file; else from scratch"}
    )
    sides: list[int] | None = field(
        default=None, metadata={"help": "input side of each phase, px; left out: 112 160 224, or that of --init_from"}
    )
    phase_epochs: list[int] | None = field(
        default=None, metadata={"help": "epochs of each phase; left out: 12 9 7, or 5 from a checkpoint"}
    )
    draws_per_epoch: int | None = field(
        default=None, metadata={"help": "augmented images in an epoch; left out: 6400, or 1000 from a checkpoint"}
    )
    ema_decay: float = field(
        default=0.998, metadata={"help": "of the moving average of the weights; 0 keeps the last ones"}
    )
    statistics_batches: int = field(
        default=40, metadata={"help": "batches that re-estimate the batch-norm statistics at the end"}
    )
    average_with: list[str] = field(
        default_factory=list,
        metadata={"help": "folders of checkpoints, averaged as they lie there with the trained weights at the end"},
    )
    augment: list[str] = field(
        default_factory=list, metadata={"help": "NAME=VALUE: how far images are changed, see training/augment.py"}
    )
    negatives: str | None = field(
        default=None,
        metadata={"help": "the class that also says 'no white cell here', and learns it from every laboratory"},
    )
    ground_share: float = field(
        default=0.45, metadata={"help": "how often that class shows red cells, platelets and empty ground"}
    )
    oddity_share: float = field(default=0.1, metadata={"help": "how often it shows a picture that is no smear"})
    oddity_stain_share: float = field(
        default=0.0, metadata={"help": "how often such a picture takes on the colours of a smear"}
    )
    exchange_share: float = field(
        default=0.0, metadata={"help": "how often an image takes on the colours of another laboratory's image"}
    )
    draw_on: str = field(
        default="auto",
        metadata={
            "help": "who makes the augmented pixels: the 'host' or the 'device'; 'auto': a GPU, if all photos fit it",
            "choices": ["auto", "host", "device"],
        },
    )
    mixup: float = field(
        default=0.0, metadata={"help": "how strongly images are laid over each other, see training/mixup.py; 0: never"}
    )
    consistency: float = field(
        default=0.0,
        metadata={
            "help": "each image is drawn twice, changed in two ways; weight of what the two answers differ by, see "
            "training/consistency.py; 0: drawn once"
        },
    )
    class_balance: float = field(
        default=1.0, metadata={"help": "1: every class is drawn equally often; 0: as often as its images lie there"}
    )

    @property
    def adjusts_a_checkpoint(self) -> bool:
        """Whether training starts from finished weights of this network and needs to adjust them only."""
        return self.init_from is not None and Path(self.init_from).is_dir()

    def fill_in(self) -> None:
        """Choose what was left out: a training from scratch, or a few minutes from a checkpoint."""
        if self.sides is None:
            self.sides = [own_side(self.init_from)] if self.adjusts_a_checkpoint else [112, 160, 224]
            if self.phase_epochs is None:
                self.phase_epochs = [5] if self.adjusts_a_checkpoint else [12, 9, 7]
        if self.phase_epochs is None:
            raise ValueError(f"--sides {self.sides} came without --phase_epochs: say how many epochs each side gets.")
        if self.draws_per_epoch is None:
            self.draws_per_epoch = 1000 if self.adjusts_a_checkpoint else 6400

    def __post_init__(self):
        for name in ("ground_share", "oddity_share", "oddity_stain_share", "exchange_share", "class_balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} {getattr(self, name)}: expected a share from 0 to 1.")
        check_strengths(self.mixup, self.consistency)
        if self.negatives and self.class_balance < 1:
            raise ValueError(
                "--class_balance below 1 counts images, and --negatives draws without any: leave out one of them."
            )
        if self.ground_share + self.oddity_share > 1:
            raise ValueError(
                f"--ground_share {self.ground_share} and --oddity_share {self.oddity_share}: expected at most 1 together."
            )


def own_side(checkpoint: str) -> int:
    """Give the input side that a checkpoint's image processor makes, in px.

    Raises:
        FileNotFoundError, ValueError: the folder holds no model, no such processor, or one that makes no squares.
    """
    load_config(checkpoint)  # of a folder that holds no model at all this is told, not what else it lacks
    remedy = "Save the processor that the model was made with there, or name the side: --sides 224 --phase_epochs 5."
    try:
        size = AutoImageProcessor.from_pretrained(checkpoint, trust_remote_code=False).size
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--init_from {checkpoint}: its image processor cannot be read ({reason}); expected a preprocessor_config.json "
            f"that says the input side. {remedy}"
        ) from error
    if not size or not size.get("height") or size["height"] != size.get("width"):
        raise ValueError(
            f"--init_from {checkpoint}: the size in its preprocessor_config.json is {size and dict(size)}; expected a square, "
            f"its height and width alike. {remedy}"
        )
    return size["height"]


def has_bf16(on_cpu: bool) -> bool:
    """Say whether the processor that will train computes in bfloat16 natively."""
    if on_cpu:
        return has_bfloat16()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(repr=False)  # the library's own leaves out the token
class SmearTrainingArguments(TrainingArguments):
    """The Trainer's arguments, with this network's defaults."""

    output_dir: str = field(
        default="runs/wbc-resnet24", metadata={"help": "checkpoints, and the finished folder in model/"}
    )
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 64
    learning_rate: float | None = field(
        default=None, metadata={"help": "at its highest; left out: 2e-3, or 3e-4 from a checkpoint"}
    )
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.05
    label_smoothing_factor: float = 0.05
    max_grad_norm: float = 5.0
    bf16: bool | None = field(default=None, metadata={"help": "bfloat16 autocast; left out: where the machine has it"})
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int = 2
    logging_steps: float = 25
    dataloader_num_workers: int = 2
    remove_unused_columns: bool = False
    label_names: list[str] = field(default_factory=lambda: ["labels"])
    report_to: str = "none"
    push_to_hub: bool = field(
        default=False, metadata={"help": "publish the finished folder, checked, as one commit, and nothing else"}
    )
    hub_license: str = field(default="apache-2.0", metadata={"help": "of the published weights, as the Hub calls it"})
    data_license: list[str] = field(
        default_factory=list, metadata={"help": "DATA=LICENCE: of images that the project does not know, for the card"}
    )

    def __post_init__(self):
        if self.num_train_epochs != 3:  # the library's default: nobody asked for it
            raise ValueError(
                "--num_train_epochs is not read: --phase_epochs says how many epochs each input side gets."
            )
        if self.resume_from_checkpoint:
            raise ValueError(
                "--resume_from_checkpoint is not read: the same command goes on from its newest checkpoint."
            )
        if self.load_best_model_at_end:
            raise ValueError("--load_best_model_at_end is not read: the moving average at the end is the model.")
        if self.hub_strategy != "every_save" or self.hub_always_push or self.hub_revision:
            raise ValueError(
                "--hub_strategy, --hub_always_push and --hub_revision are not read: the finished folder is pushed, once."
            )
        # Kept from the Trainer, which would upload every checkpoint, a pickle among them, and write a card of its own.
        self.publish, self.push_to_hub = self.push_to_hub, False
        if not torch.accelerator.is_available():
            self.use_cpu, self.dataloader_pin_memory = True, False
        if self.bf16 is None:
            self.bf16 = has_bf16(on_cpu=self.use_cpu)
        super().__post_init__()

    def __getstate__(self) -> dict:
        """Give what is pickled, into each checkpoint by the Trainer: all but the token."""
        return vars(self) | {"hub_token": None}


def parse(argv: list[str] | None = None) -> tuple[DataArguments, RecipeArguments, SmearTrainingArguments]:
    """Read the command line.

    Raises:
        ValueError: an option nobody knows, or values that do not fit.
    """
    parser = HfArgumentParser(
        (DataArguments, RecipeArguments, SmearTrainingArguments), description=__doc__.partition("\n")[0]
    )
    _, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]  # what follows may be a token
        close = difflib.get_close_matches(name, parser._option_string_actions, n=1)
        hint = f" Did you mean {close[0]}?" if close else " --help lists what there is."
        raise ValueError(f"There is no option {name}.{hint}")
    data, recipe, arguments = parser.parse_args_into_dataclasses(argv)
    recipe.fill_in()
    if arguments.learning_rate is None:
        arguments.learning_rate = 3e-4 if recipe.adjusts_a_checkpoint else 2e-3
    return data, recipe, arguments


def load_images(arguments: DataArguments, known: list[str] | None = None):
    """Load, check and trace the images.

    Args:
        arguments: which images.
        known: the classes of the checkpoint that training starts from; of images that show no other classes, these stay.

    Returns:
        The splits of each laboratory, by its name; the part to fit, the part to show progress on, and the part to calibrate on.
    """
    if arguments.packed:
        pack = read_pack(arguments.packed, arguments.leave_out)
        held = datasets.concatenate_datasets(list(pack.held.values()))
        laboratories = {lab: datasets.DatasetDict(validation=data) for lab, data in pack.held.items()}
        return laboratories, pack.fit, held, held
    if arguments.is_collection:
        return load_collection(arguments)
    folder = arguments.data_dir[0] if arguments.data_dir else None
    splits = load_folder(folder) if folder else load_hub(arguments.dataset_name, arguments.dataset_revision)
    splits = name_photos(splits)
    if "train" not in splits:
        raise DataError(
            f"Found the splits {sorted(splits)} and no 'train' to learn from. Add one, or name its folder alone."
        )
    if known and not arguments.labels and set(splits["train"].features["label"].names) <= set(known):
        logger.info("the classes stay those of the checkpoint: %s (--labels says otherwise)", ", ".join(known))
    else:
        known = arguments.labels
    if known:
        splits = datasets.DatasetDict({name: rename_classes(data, known) for name, data in splits.items()})
    fit = splits["train"]
    if "validation" not in splits:
        fit, splits["validation"] = hold_out(fit, arguments.validation_share, arguments.split_seed)
    shown = splits["validation"]
    train_on = arguments.train_on
    if train_on == "auto":
        train_on = "photos" if folder and photos_at_hand(fit, folder) else "images"
        logger.info("training on the %s (--train_on says otherwise)", train_on)
    if train_on == "photos":
        fit, shown = (photos_behind(part, folder) for part in (fit, shown))
    elif folder and photos_at_hand(fit, folder):
        fit = boxes_on_copies(fit, folder)  # so that copies give close crops as their photos do
    source = arguments.dataset_name or Path(folder).resolve().name
    return {source: splits}, fit, shown, splits["validation"]


def load_collection(arguments: DataArguments):
    """Load several laboratories under common class names; returns as ``load_images``."""
    label_map = read_label_map(arguments.label_map)
    shares = read_shares(arguments.test_share)
    loaded = {Path(folder).resolve().name: (folder, load_laboratory(folder)) for folder in arguments.data_dir}
    if len(loaded) < len(arguments.data_dir):
        raise DataError(f"--data_dir {' '.join(arguments.data_dir)}: two folders have one name; rename one.")
    if strange := sorted(shares.keys() - loaded.keys()):
        raise DataError(f"--test_share {strange[0]}: there is no such laboratory; expected one of {sorted(loaded)}.")
    names = {
        label_map.get(name, name) for _, splits in loaded.values() for name in splits["train"].features["label"].names
    }
    labels = arguments.labels or sorted(names)
    laboratories, fit = {}, []
    for lab, (folder, splits) in loaded.items():
        # Divided by the folder's own classes, a laboratory is divided alike whatever they are called here.
        splits = divide(splits, arguments.validation_share, shares.get(lab, 0.0), arguments.split_seed)
        splits = {name: rename_classes(data, labels, label_map) for name, data in splits.items()}
        fit.append(splits["train"])
        if is_archive(splits["train"]) and BASOPHIL in labels:
            fit.append(basophil_photos(folder, splits["train"]))
        splits = {name: data if name == "train" else cut_cells(data) for name, data in splits.items()}
        laboratories[lab] = datasets.DatasetDict(splits)
    fit = datasets.concatenate_datasets(fit)
    held = datasets.concatenate_datasets([splits["validation"] for splits in laboratories.values()])
    return laboratories, fit, held, held


def find_fingerprints(arguments: DataArguments, laboratories: Mapping[str, datasets.DatasetDict]) -> dict[str, str]:
    """Give the fingerprint of each laboratory's images, by its name; of a pack those of all that it was made from."""
    if arguments.packed:
        return read_pack(arguments.packed, arguments.leave_out).fingerprints
    return {lab: fingerprint(splits) for lab, splits in laboratories.items()}


def pack_images(arguments: DataArguments) -> None:
    """Write what would be learnt from and what would be held out into a folder of its own."""
    laboratories, fit, _, _ = load_images(arguments)
    held = {lab: splits["validation"] for lab, splits in laboratories.items()}
    write_pack(arguments.pack_to, Pack(fit, held, find_fingerprints(arguments, laboratories)))
    logger.info("%d images to learn from stand in %s: --packed reads them", len(fit), arguments.pack_to)


def build_model(labels: list[str], source: str | None) -> WbcResNetForImageClassification:
    """Build the network for these classes, from scratch or from other weights."""
    config = WbcResNetConfig(id2label=dict(enumerate(labels)), label2id={label: n for n, label in enumerate(labels)})
    model = WbcResNetForImageClassification(config)
    if source:
        init_from(model, source)
    return model.to(memory_format=torch.channels_last)


def validation_metrics(report: ClassificationReport, prediction) -> dict[str, float]:
    """Turn the Trainer's logits into the few figures of a progress line."""
    logits = torch.tensor(prediction.predictions, dtype=torch.float64)
    figures = report.compute(predictions=logits.softmax(-1).tolist(), references=prediction.label_ids.tolist())
    return {name: figures[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "ece")}


def finish_model(
    trainer: EmaTrainer,
    draws: TrainingDraws,
    validation: PlainViews,
    batches: int,
    companions: Sequence[WbcResNetForImageClassification] = (),
) -> tuple[WbcResNetForImageClassification, float]:
    """Take the averaged weights, refresh their statistics at the final size, calibrate, and find the operating point.

    Args:
        trainer: after its last step.
        draws: what it learnt from.
        validation: what is held out.
        batches: how many batches estimate the statistics.
        companions: checkpoints whose weights are averaged with the trained ones.

    Returns:
        The model, with its thresholds in the configuration, and the temperature that its linear layer was divided by.
    """
    model, workers = trainer.ema.module, max(2, trainer.args.dataloader_num_workers)
    average_weights(model, companions)
    draws.set_epoch(draws.resolution.total_epochs)  # beyond training: draws it has not seen, at the size that ships
    loader = torch.utils.data.DataLoader(
        draws,
        trainer.args.per_device_train_batch_size
        * trainer.args.world_size,  # however many processes shared a step's images
        shuffle=True,
        num_workers=workers,
        collate_fn=trainer.data_collator,
        generator=torch.Generator().manual_seed(trainer.args.seed),
    )
    # The running averages of training lag behind the weights, and behind averaged weights they never followed at all
    # ("precise batch norm", Wu & Johnson 2021, arXiv:2105.07576).
    model.reestimate_statistics(trainer._prepare_inputs(batch)["pixel_values"] for batch in islice(loader, batches))
    logits, labels = predict_logits(model.eval(), validation, workers=workers)
    temperature = 1.0
    if len(labels) >= FEWEST_TO_CALIBRATE:
        temperature = fit_temperature(logits, labels)
    else:
        logger.warning(
            "%d images were held out, too few for a temperature (%d): probabilities stay as they were learnt",
            len(labels), FEWEST_TO_CALIBRATE,
        )  # fmt: skip
    fold_temperature(model.get_classifier(), temperature)
    config = model.config
    config.drop_operating_point()
    names = [config.id2label[number] for number in range(config.num_labels)]
    if draws.negatives is not None:
        config.negatives_label = names[draws.negatives]
    try:
        points = choose_operating_points(logits / temperature, labels, draws.negatives)
    except ValueError as error:
        logger.warning("the model gets no operating point and answers always: %s", error)
    else:
        for name, value in asdict(points).items():
            setattr(config, name, value)
    config.check_operating_point()
    return model, temperature


def save_folder(model: WbcResNetForImageClassification, processor, folder: Path) -> None:
    """Write the model repository: weights, configuration for both doors, processor, and the code our door loads."""
    model.config.auto_map = {
        "AutoConfig": "configuration_wbc_resnet.WbcResNetConfig",
        "AutoModelForImageClassification": "modeling_wbc_resnet.WbcResNetForImageClassification",
    }
    model.config.custom_pipelines = {
        "wbc-classification": {
            "impl": "pipeline_wbc_resnet.WbcClassificationPipeline",
            "pt": ["AutoModelForImageClassification"],
            "type": "image",
        }
    }
    model.to(memory_format=torch.contiguous_format).save_pretrained(folder)
    # The library writes our class's name, which whoever runs no remote code does not know; auto_map names it already.
    model.config.architectures = ["ResNetForImageClassification"]
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    for source in [*HUB_MODEL.glob("*.py"), *HUB_MODEL.glob("*.schema.json")]:
        if source.resolve() != (folder / source.name).resolve():
            shutil.copy2(source, folder / source.name)


def identify(source: str | Path) -> dict[str, str]:
    """Say which weights a checkpoint's folder holds, by the name that its own record gives them."""
    path = Path(source) / "eval_results.json"
    name = read_results(path)["model"]["name"] if path.is_file() else Path(source).name
    return {"source": name, "sha256": weights_sha256(source)}


def ancestry(source: str | None) -> dict | None:
    """Give which weights are started from, or averaged with, with the record of their training if their folder has one."""
    if source is None:
        return None
    path = Path(source) / "eval_results.json"
    if not path.is_file():
        return identify(source) if Path(source).is_dir() else describe_weights(source)
    return identify(source) | read_results(path)["training"]


def commit_or_unknown() -> dict[str, str | bool]:
    """Say which commit runs, before it can change; a copy without git has none to name, see ``git_commit``."""
    try:
        return git_commit(ROOT)
    except RuntimeError as error:
        logger.warning("the figures will name no commit: %s", error)
        return {"commit": "unknown", "dirty": True}


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Attributes:
        laboratories: the splits of each laboratory, by its name.
        data_fingerprint: of each of them, in their order, with a space between.
        fit: what is learnt.
        shown: what progress is shown on.
        calibration: what the temperature is fitted on.
        model: the network.
        companions: the networks that its weights are averaged with at the end.
        averaged_with: the records of the trainings that made these.
        started_from: the record of the training that made the weights it begins with, see ``ancestry``.
        resolution: the input side for each epoch.
        augmentation: how an image is changed.
        destination: the repository that the finished model goes to, if any.
    """

    laboratories: dict[str, datasets.DatasetDict]
    data_fingerprint: str
    fit: datasets.Dataset
    shown: datasets.Dataset
    calibration: datasets.Dataset
    model: WbcResNetForImageClassification
    companions: list[WbcResNetForImageClassification]
    averaged_with: list[dict | None]
    started_from: dict | None
    resolution: GrowingResolution
    augmentation: Augmentation
    destination: str | None


def prepare(data_arguments: DataArguments, recipe: RecipeArguments, arguments: SmearTrainingArguments) -> Prepared:
    """Do all that a wrong option or a bad file can stop: load images, build the network, claim the output folder.

    Raises:
        ValueError, FileNotFoundError, PublishingError: naming what came, what was expected, and the remedy.
    """
    resolution = GrowingResolution(tuple(recipe.sides), tuple(recipe.phase_epochs))
    if min(recipe.sides) < MINIMUM_SIZE:
        raise ValueError(f"--sides {recipe.sides}: the network takes {MINIMUM_SIZE} px and more.")
    if recipe.init_from and not Path(recipe.init_from).exists():
        raise FileNotFoundError(
            f"There is no {recipe.init_from} to start from (--init_from): a folder or a weights file. ResNet-50's weights: "
            "make imagenet"
        )
    together = arguments.train_batch_size * arguments.world_size
    check_epoch(recipe.draws_per_epoch, together, arguments.dataloader_drop_last, arguments.world_size)
    augmentation = read_augmentation(recipe.augment)
    destination = None
    if arguments.publish and arguments.should_save:
        places = data_arguments.data_dir or ([data_arguments.packed] if data_arguments.packed else [])
        folders = [Path(folder).resolve().name for folder in places]
        destination = check_destination(
            arguments.hub_model_id or Path(arguments.output_dir).name, folders or [data_arguments.dataset_name],
            arguments.hub_license, arguments.data_license, arguments.hub_token,
        )  # fmt: skip
    earlier = load_config(recipe.init_from) if recipe.adjusts_a_checkpoint else None
    known = [earlier.id2label[number] for number in range(earlier.num_labels)] if earlier else None
    laboratories, fit, shown, calibration = load_images(data_arguments, known)
    if recipe.draw_on == "auto":
        recipe.draw_on = "device" if arguments.device.type == "cuda" and fits(fit, arguments.device) else "host"
    labels = fit.features["label"].names
    if recipe.negatives is None and getattr(earlier, "negatives_label", None) in labels:
        recipe.negatives = earlier.negatives_label  # or it would unlearn what is no white cell
    if recipe.negatives and recipe.negatives not in labels:
        raise ValueError(f"--negatives {recipe.negatives}: there is no such class; expected one of {labels}.")
    if recipe.exchange_share and len(laboratories) < 2:
        raise ValueError("--exchange_share needs a second laboratory to take colours from; name it with --data_dir.")
    for lab, splits in laboratories.items():
        for name in set(data_arguments.measure_splits) & splits.keys():
            if len(set(splits[name]["group"])) < 2:
                raise ValueError(
                    f"{lab}: the split {name!r} shows one photo or slide; two are needed to measure. Hold out a larger "
                    "share, or leave it out of --measure_splits."
                )
    model = build_model(labels, recipe.init_from)
    finished = (Path(arguments.output_dir) / "model").resolve()
    if finished in (Path(folder).resolve() for folder in recipe.average_with):
        raise ValueError(
            f"--average_with {finished}: the mean is written there, in place of what it is made of. Copy that folder first."
        )
    companions = [load_companion(model, folder) for folder in recipe.average_with]
    averaged_with = [ancestry(folder) for folder in recipe.average_with]
    started_from = ancestry(recipe.init_from)
    data = " ".join(find_fingerprints(data_arguments, laboratories).values())
    identity = {"labels": labels, "data": data, "images": len(fit), "seed": arguments.seed}
    identity |= asdict(recipe) | {name: getattr(arguments, name) for name in RECORDED_ARGUMENTS}
    del identity["average_with"]  # it begins after the last step, so that a finished training can be averaged later
    for name in ("mixup", "consistency"):
        if not getattr(recipe, name):
            del identity[name]  # which a training that was begun before there was any does not name
    if arguments.should_save:
        claim(arguments.output_dir, identity)
    return Prepared(
        laboratories, data, fit, shown, calibration, model, companions, averaged_with, started_from,
        resolution, augmentation, destination,
    )  # fmt: skip


def main() -> None:
    """Fit, finish, measure, save."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        data_arguments, recipe, arguments = parse()
        if data_arguments.pack_to:
            pack_images(data_arguments)
            return
        set_seed(arguments.seed)
        ready = prepare(data_arguments, recipe, arguments)
    except (ValueError, FileNotFoundError, PublishingError) as error:
        sys.exit(f"error: {error}")
    commit = commit_or_unknown()
    cv2.setNumThreads(1)
    arguments.num_train_epochs = ready.resolution.total_epochs
    labels = ready.fit.features["label"].names
    processor = AutoImageProcessor.from_pretrained(HUB_MODEL)
    processor.size = {"height": recipe.sides[-1], "width": recipe.sides[-1]}  # what training ends on is what ships
    on_device = recipe.draw_on == "device"
    augmentation = Planner(**vars(ready.augmentation)) if on_device else ready.augmentation
    draws = (PlannedDraws if on_device else TrainingDraws)(
        ready.fit, processor, ready.resolution, recipe.draws_per_epoch, augmentation,
        seed=arguments.seed, cache_mb=data_arguments.cache_mb,
        negatives=labels.index(recipe.negatives) if recipe.negatives else None,
        ground_share=recipe.ground_share, oddity_share=recipe.oddity_share, oddity_stain_share=recipe.oddity_stain_share,
        exchange_share=recipe.exchange_share, class_balance=recipe.class_balance, views=VIEWS if recipe.consistency else 1,
    )  # fmt: skip
    photos = draws.fill_cache()
    trainer = EmaTrainer(
        model=ready.model,
        args=arguments,
        train_dataset=draws,
        eval_dataset=PlainViews(ready.shown, processor),
        data_collator=collate,
        draw=DevicePhotos(photos, processor.image_mean, processor.image_std, arguments.device) if on_device else None,
        processing_class=processor,
        compute_metrics=partial(validation_metrics, ClassificationReport(labels)),
        callbacks=[clock := WallClock()],
        ema_decay=recipe.ema_decay,
        mixup=recipe.mixup,
        consistency=recipe.consistency,
    )
    del photos
    trainer.train(resume_from_checkpoint=newest_checkpoint(arguments.output_dir))
    if not trainer.is_world_process_zero():
        return

    model, temperature = finish_model(
        trainer, draws, PlainViews(ready.calibration, processor), recipe.statistics_batches, ready.companions
    )
    folder = Path(arguments.output_dir) / "model"
    save_folder(model, processor, folder)
    samples_seen = trainer.samples_seen
    training = {
        "command": shlex.join(["python", *without_token(sys.argv)]),
        "seed": arguments.seed,
        **commit,
        "hardware": hardware(arguments.device.type),
        "wall_seconds": round(clock.seconds, 1),
        "images_per_second": round(samples_seen / clock.seconds, 1),
        "samples_seen": samples_seen,
        "resolutions": recipe.sides,
        "data_fingerprint": ready.data_fingerprint,
        "n_images": len(ready.fit),
        "n_photos": len(set(ready.fit["photo"])),
        "temperature": temperature,
        "started_from": ready.started_from,
        "averaged_with": ready.averaged_with,
        "recipe": asdict(recipe) | {name: getattr(arguments, name) for name in RECORDED_ARGUMENTS},
    }
    # The one place where the test images are looked at: after everything is fixed.
    measured = [
        entry
        for source, splits in ready.laboratories.items()
        for name in data_arguments.measure_splits
        if name in splits
        for entry in measure_slices(folder, splits, name, source)
    ]
    name = arguments.hub_model_id or Path(arguments.output_dir).name
    model_entry = {"name": name, "parameters": model.num_parameters(), "sha256": weights_sha256(folder)}
    results = {
        "schema_version": SCHEMA_VERSION,
        "model": model_entry,
        "training": training,
        "versions": environment(),
        "results": measured,
    }
    write_results(folder / "eval_results.json", results)
    for entry in measured:
        photos = entry["photo_level"]
        logger.info(
            "%s, %s: accuracy %.4f on %d images, %d of %d photos", entry["dataset"], entry["split"],
            entry["metrics"]["accuracy"]["value"], entry["n_images"], photos["n_correct"], photos["n_photos"],
        )  # fmt: skip
    logger.info("The finished model, its code and its figures stand in %s", folder)
    if ready.destination:
        try:
            done = publish_finished(
                folder, ready.destination, arguments.hub_license, arguments.data_license,
                token=arguments.hub_token, private=bool(arguments.hub_private_repo),
            )  # fmt: skip
        except PublishingError as error:
            sys.exit(f"error: {error}")
        logger.info("%s", "\n".join(done))


if __name__ == "__main__":
    main()
