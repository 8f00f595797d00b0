"""What the Trainer reads: draws in fair turns that depend on their number alone, and plain views as users' images are seen."""

import io
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from smear_drawings import LABELS, draw_smear
from transformers import AutoImageProcessor
from transformers.image_utils import load_image

from evaluation.measure import open_image as decode
from training.views import GrowingResolution, PlainViews, TrainingDraws

# The two backends of an image processor differ by at most this, before the division by the deviation.
ONE_LEVEL = 1 / 255


@pytest.fixture(scope="module")
def processor():
    return AutoImageProcessor.from_pretrained(REPOSITORY / "hub_model")


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def make(rows, boxes=None):
    """Make a data set of rows (image array, label number, group)."""
    features = {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=list(LABELS))}
    columns = {
        "image": [encode(row[0]) for row in rows],
        "label": [row[1] for row in rows],
        "group": [row[2] for row in rows],
    }
    features["group"] = datasets.Value("string")
    if boxes:
        columns["boxes"] = boxes
        features["boxes"] = datasets.List(datasets.List(datasets.Value("int32")))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture(scope="module")
def smears():
    """Four classes of very different size: 6, 1, 2 and 3 photos with boxes."""
    rows, boxes = [], []
    for label, count in enumerate((6, 1, 2, 3)):
        for seed in range(count):
            image, box = draw_smear(LABELS[label], seed)
            rows.append((image, label, f"photo {label}-{seed}"))
            boxes.append([box])
    return make(rows, boxes)


def numbered(counts):
    """Make plain grey images whose level is their row; ``counts`` maps (label, group) to a number of files."""
    rows = []
    for (label, group), count in counts.items():
        for _ in range(count):
            rows.append((np.full((8, 8, 3), len(rows), np.uint8), label, group))
    return make(rows)


def tell_row(image, size, return_tensors):
    """Stand in for an image processor: give the grey level, which is the row that was drawn."""
    return {"pixel_values": torch.tensor([[float(image[0, 0, 0])]])}


def unchanged(pyramid, rng, side, boxes=None):
    """Stand in for an augmentation."""
    return pyramid[0].copy()


def drawn_rows(counts, size, seed=0):
    draws = TrainingDraws(numbered(counts), tell_row, GrowingResolution((64,), (1,)), size, unchanged, seed)
    return [(int(draw["pixel_values"]), draw["labels"]) for draw in (draws[k] for k in range(size))]


SMALL = GrowingResolution((64,), (3,))


# Balance


def test_the_classes_take_turns_exactly(smears, processor):
    draws = TrainingDraws(smears, processor, SMALL, 10)
    assert [draws[k]["labels"] for k in range(10)] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert len(draws) == 10


def test_a_draw_shows_an_image_of_the_class_that_it_names():
    counts = {(0, "a"): 3, (1, "b"): 1, (3, "c"): 2, (3, "d"): 5}
    labels = [label for (label, _), count in counts.items() for _ in range(count)]
    for row, label in drawn_rows(counts, 60):
        assert labels[row] == label


def test_the_groups_of_a_class_are_drawn_alike_however_many_files_they_have():
    # Class 0: one group of 30 files and two of one file. Each group is due a third of the draws, each file its group's share.
    counts = {(0, "many"): 30, (0, "single"): 1, (0, "alone"): 1, (1, "other"): 4}
    rows = Counter(row for row, label in drawn_rows(counts, 1800) if label == 0)
    groups = [sum(rows[k] for k in range(30)), rows[30], rows[31]]
    assert sum(groups) == 900
    assert all(abs(count - 300) < 4 * np.sqrt(900 * 2 / 9) for count in groups)  # four standard deviations
    assert all(0 < rows[k] < 30 for k in range(30))  # 10 expected


# What a draw depends on


def same(one, two):
    return torch.equal(one["pixel_values"], two["pixel_values"]) and one["labels"] == two["labels"]


def test_a_draw_depends_on_seed_epoch_and_number_alone(smears, processor):
    def draws(seed=7, epoch=2, **options):
        made = TrainingDraws(smears, processor, SMALL, 12, seed=seed, **options)
        made.set_epoch(epoch)
        return made

    first = draws()
    drawn = [first[k] for k in range(12)]
    second = draws(cache_mb=0)  # another instance, in another order, that remembers nothing
    assert all(same(second[k], drawn[k]) for k in reversed(range(12)))
    filled = draws()
    filled.fill_cache()
    filled.set_epoch(1)
    assert not any(same(filled[k], drawn[k]) for k in range(12))
    filled.set_epoch(2)
    assert all(same(filled[k], drawn[k]) for k in range(12))
    other = draws(seed=8)
    assert not any(same(other[k], drawn[k]) for k in range(12))
    assert not any(same(drawn[k], drawn[k + 4]) for k in range(8))  # the same class, another number


def test_global_random_states_play_no_part(smears, processor):
    draws = TrainingDraws(smears, processor, SMALL, 4)
    first = draws[1]
    np.random.seed(1)
    torch.manual_seed(1)
    assert same(draws[1], first)


def test_workers_give_what_the_main_process_gives(smears, processor):
    for epoch in (0, 2):
        batches = []
        for workers in (0, 2):
            draws = TrainingDraws(smears, processor, SMALL, 8, seed=3)
            draws.fill_cache()
            draws.set_epoch(epoch)
            batches.append(list(torch.utils.data.DataLoader(draws, 4, num_workers=workers)))
        for alone, shared in zip(*batches, strict=True):
            assert torch.equal(alone["pixel_values"], shared["pixel_values"])
            assert torch.equal(alone["labels"], shared["labels"])


def test_boxes_reach_the_augmentation(smears, processor):
    seen = []

    def record(pyramid, rng, side, boxes=None):
        seen.append((pyramid[0].tobytes(), boxes))
        return pyramid[0].copy()

    draws = TrainingDraws(smears, processor, SMALL, 40, augmentation=record)
    for k in range(40):
        draws[k]
    truth = {np.asarray(decode(row["image"])).tobytes(): row["boxes"] for row in smears}
    assert all(boxes == truth[image] for image, boxes in seen) and len({image for image, _ in seen}) > 8


# Sides


def test_the_side_grows_by_epoch_and_stays_beyond_the_end():
    resolution = GrowingResolution((64, 96, 128), (2, 1, 3))
    assert resolution.total_epochs == 6
    assert [resolution.side(epoch) for epoch in range(9)] == [64, 64, 96, 128, 128, 128, 128, 128, 128]


@pytest.mark.parametrize(
    ("sides", "epochs"), [((64,), (1, 2)), ((64, 96), (1,)), ((), ()), ((64, 96), (1, 0)), ((64,), (-1,))]
)
def test_phases_that_do_not_fit_are_refused(sides, epochs):
    with pytest.raises(ValueError, match="must be lists of the same length, epochs at least 1"):
        GrowingResolution(sides, epochs)


def test_a_draw_has_the_side_of_its_epoch(smears, processor):
    draws = TrainingDraws(smears, processor, GrowingResolution((64, 80), (1, 1)), 4)
    for epoch, side in enumerate((64, 80, 80)):
        draws.set_epoch(epoch)
        assert draws[0]["pixel_values"].shape == (3, side, side)
        assert draws[0]["pixel_values"].dtype == torch.float32


def test_a_draw_is_the_augmented_image_through_the_processor_that_ships(smears, processor):
    draws = TrainingDraws(smears, processor, SMALL, 4, augmentation=unchanged)
    row = smears[6]  # the one photo of class 1
    expected = by_hand(decode(row["image"]), processor, 64)
    found = draws[1]["pixel_values"].numpy()
    assert np.abs(found - expected).max() <= ONE_LEVEL / min(processor.image_std) + 1e-5


# Plain views


def by_hand(image, processor, side):
    """Resize with Pillow, scale to 0-1, take off the mean, divide by the deviation: (3, side, side)."""
    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), float) / 255
    return ((pixels - processor.image_mean) / processor.image_std).transpose(2, 0, 1)


def test_a_plain_view_is_the_processors_and_training_does_not_change_its_size(smears, processor):
    TrainingDraws(smears, processor, SMALL, 4)[0]
    views = PlainViews(smears, processor)
    assert len(views) == len(smears) == 12
    for row in (0, 6, 11):
        found = views[row]
        assert found["labels"] == smears[row]["label"]
        expected = by_hand(decode(smears[row]["image"]), processor, 224)
        assert np.abs(found["pixel_values"].numpy() - expected).max() <= ONE_LEVEL / min(processor.image_std) + 1e-5


def test_a_view_is_what_the_pipeline_makes_of_the_same_file(tmp_path, smears, processor):
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 80}), ("WEBP", {"quality": 80})):
        path = tmp_path / f"cell.{kind.lower()}"
        path.write_bytes(encode(draw_smear("monocyte", 5)[0], kind, **options)["bytes"])
        row = {"image": [{"path": str(path), "bytes": None}], "label": [2]}
        data = datasets.Dataset.from_dict(row, features=smears.select_columns(["image", "label"]).features)
        expected = processor(load_image(str(path)), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(PlainViews(data, processor)[0]["pixel_values"], expected, rtol=0, atol=0)


# Decoding


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(orientation):
    upright = draw_smear("eosinophil", 2)[0]
    # How the camera stored it, so that the tag turns it back (EXIF 2.3, table 6).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(np.ascontiguousarray(stored), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(found), upright)


def test_grey_palette_cmyk_and_opaque_images_keep_what_they_show():
    image = Image.fromarray(draw_smear("eosinophil", 2)[0])
    colours = np.asarray(image).astype(int)
    grey = np.asarray(image.convert("L"))
    assert np.array_equal(np.asarray(decode(encode(image.convert("L")))), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(np.asarray(decode(encode(image.convert("LA")))), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(np.asarray(decode(encode(image.convert("RGBA")))), colours)
    palette = image.quantize(64)
    assert np.array_equal(np.asarray(decode(encode(palette))), np.asarray(palette.convert("RGB")))
    cmyk = np.asarray(decode(encode(image.convert("CMYK"), "TIFF")))
    assert np.abs(cmyk - colours).max() <= 1
    assert decode(encode(image.convert("1"))).mode == "RGB"


def test_transparency_is_read_as_the_pipeline_reads_it(tmp_path):
    image = draw_smear("eosinophil", 2)[0]
    alpha = np.zeros(image.shape[:2], np.uint8)
    alpha[:, 30:60], alpha[:, 60:] = 128, 255
    entry = encode(np.dstack([image, alpha]))
    (tmp_path / "cell.png").write_bytes(entry["bytes"])
    np.testing.assert_array_equal(np.asarray(decode(entry)), np.asarray(load_image(str(tmp_path / "cell.png"))))


def test_an_image_is_read_from_a_path_or_from_bytes(tmp_path):
    image = draw_smear("lymphocyte", 2)[0]
    entry = encode(image)
    path = tmp_path / "cell.png"
    path.write_bytes(entry["bytes"])
    for source in (entry, {"path": str(path), "bytes": None}, {"path": "gone.png", "bytes": entry["bytes"]}):
        np.testing.assert_array_equal(np.asarray(decode(source)), image)
