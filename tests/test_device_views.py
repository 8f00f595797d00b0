"""Views made on a device, here the processor, against those that the host makes of the same draws, and against OpenCV."""

from dataclasses import replace

import cv2
import datasets
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from smear_drawings import draw_smear
from transformers import AutoImageProcessor

from training import device_views
from training.augment import Augmentation, Degradation, halvings, read_augmentation
from training.device_views import DevicePhotos, PlannedDraws, Planner, canvas_side, collate
from training.views import GrowingResolution, TrainingDraws

GREY_LEVELS = 0.225 * 255  # of one unit of normalised pixels
STILL = {"degrade_share": 0}
STRONG = read_augmentation(
    ["mixing=.1", "grey_share=.1", "streak=6", "pixelate=5", "blur=2.5", "stain=.5", "gamma=.4", "degrade_share=1"]
)


@pytest.fixture(scope="module")
def processor():
    return AutoImageProcessor.from_pretrained(REPOSITORY / "hub_model")


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """Two laboratories' photos with a box each, one class of which also says that there is no white cell."""
    folder = tmp_path_factory.mktemp("smears")
    columns = {name: [] for name in ("image", "label", "group", "lab", "boxes", "cells", "others")}
    for number in range(12):
        kind = ("neutrophil", "monocyte")[number % 2]
        image, box = draw_smear(kind, number, (320, 240) if number < 6 else (256, 256))
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        values = (str(path), number % 2, str(number), "one" if number < 6 else "two", [box], [box], [])
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    boxes = datasets.List(datasets.List(datasets.Value("int32")))
    features = {
        "image": datasets.Image(decode=False),
        "label": datasets.ClassLabel(names=["neutrophil", "monocyte", "other"]),
    }
    features |= {name: datasets.Value("string") for name in ("group", "lab")}
    features |= dict.fromkeys(("boxes", "cells", "others"), boxes)
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def both(smears, processor, side, augmentation, **options):
    """Give the draws of the host, the same ones planned, and what shows these."""
    resolution = GrowingResolution((side,), (1,))
    host = TrainingDraws(smears, processor, resolution, 24, augmentation, seed=3, negatives=2, **options)
    planned = PlannedDraws(
        smears, processor, resolution, 24, Planner(**vars(augmentation)), seed=3, negatives=2, **options
    )
    photos = DevicePhotos(planned.fill_cache(), processor.image_mean, processor.image_std, torch.device("cpu"))
    return host, planned, photos


@pytest.mark.parametrize("side", [96, 224])
@pytest.mark.parametrize("exchange_share", [0.0, 1.0])
def test_the_device_shows_what_the_host_shows(smears, processor, side, exchange_share):
    host, planned, photos = both(smears, processor, side, Augmentation(**STILL), exchange_share=exchange_share)
    entries = [planned[number] for number in range(24)]
    shown = photos(collate(entries))
    expected = [host[number] for number in range(24)]
    assert shown["labels"].tolist() == [entry["labels"] for entry in expected]
    pixels = torch.stack([entry["pixel_values"] for entry in expected])
    assert shown["pixel_values"].shape == (24, 3, side, side)
    apart = (shown["pixel_values"] - pixels).abs().mean(dim=(1, 2, 3)) * GREY_LEVELS
    moved = (pixels - pixels.roll(2, -1)).abs().mean(dim=(1, 2, 3)) * GREY_LEVELS
    assert apart.mean() < 1.5 and apart.mean() < moved.mean() / 3


def test_the_device_degrades_each_draw_as_the_host_does(smears, processor, monkeypatch):
    host, planned, _ = both(smears, processor, 96, replace(STRONG, degrade_share=0.5))
    done, planning = [], []
    monkeypatch.setattr(Degradation, "__call__", lambda self, image, rng: done.append(self) or image)
    monkeypatch.setattr(planned, "_pack", lambda plan, canvas: planning.append(plan.degradation) or {})
    for number in range(24):
        host[number], planned[number]
    assert done == planning and len(set(done)) > 12
    assert all(any(getattr(one, name) for one in done) for name in ("blur", "coarse", "grain", "jpeg"))


def test_pictures_that_are_no_smear_come_as_the_host_draws_them(smears, processor):
    host, planned, photos = both(smears, processor, 96, Augmentation(), ground_share=0.0, oddity_share=1.0)
    odd = [number for number in range(24) if "oddity" in planned[number]]
    assert len(odd) == 8  # a third of the draws: the class has no images of its own
    shown = photos(collate([planned[number] for number in odd]))["pixel_values"]
    expected = torch.stack([host[number]["pixel_values"] for number in odd])
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)


def test_the_same_draws_give_the_same_pixels_and_others_others(smears, processor):
    _, planned, photos = both(smears, processor, 96, STRONG, exchange_share=0.5)
    first, again = (photos(collate([planned[number] for number in range(8)]))["pixel_values"] for _ in range(2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    planned.set_epoch(1)
    assert (photos(collate([planned[number] for number in range(8)]))["pixel_values"] - first).abs().mean() > 0.1


def test_strong_changes_leave_pixels_that_an_image_can_have(smears, processor):
    _, planned, photos = both(smears, processor, 96, STRONG, exchange_share=1.0)
    shown = photos(collate([planned[number] for number in range(24)]))["pixel_values"]
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    levels = (shown * std + mean) * 255
    assert shown.isfinite().all() and levels.min() > -0.01 and levels.max() < 255.01
    torch.testing.assert_close(levels, levels.round(), atol=0.01, rtol=0)


def test_photos_are_decoded_alike_by_one_process_and_by_several(smears, processor, monkeypatch):
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(device_views.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        planned = PlannedDraws(
            smears, processor, GrowingResolution((96,), (1,)), 4, Planner(), exchange_share=1.0, seed=0
        )
        photos = planned.fill_cache()
        found.append((photos.pixels, photos.sizes, planned.place, planned._colours))
    assert found[0][1:3] == found[1][1:3]
    assert torch.equal(found[0][0], found[1][0])
    for row, colours in found[0][3].items():
        np.testing.assert_array_equal(colours.mean, found[1][3][row].mean)


def test_plain_views_are_put_together_as_pytorch_does():
    batch = collate(
        [{"pixel_values": torch.zeros(3, 4, 4), "labels": 1}, {"pixel_values": torch.ones(3, 4, 4), "labels": 0}]
    )
    assert batch["pixel_values"].shape == (2, 3, 4, 4) and batch["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("side", [64, 96, 128, 160, 224])
def test_the_canvas_is_larger_than_the_input_and_holds_whole_blocks(side):
    assert side * 1.3 < canvas_side(side) < side * 1.6 and canvas_side(side) % 16 == 0


# Degrading, against OpenCV


@pytest.fixture
def picture():
    image = draw_smear("neutrophil", 4, (320, 320))[0]
    return image, torch.from_numpy(image).permute(2, 0, 1)[None].float()


def as_image(pixels):
    return pixels[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_a_blur_is_opencvs(picture, sigma):
    image, pixels = picture
    expected = cv2.GaussianBlur(image, (0, 0), sigma).astype(float)
    assert np.abs(as_image(device_views.blur(pixels, torch.tensor([sigma]))) - expected).max() < 1


@pytest.mark.parametrize("coarse", [1.0, 2.0, 3.3, 5.0])
def test_coarse_pixels_are_opencvs_to_their_edges(picture, coarse):
    image, pixels = picture
    number = round(320 / coarse)
    small = cv2.resize(image, (number, number), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (320, 320), interpolation=cv2.INTER_NEAREST).astype(float)
    assert np.abs(as_image(device_views.coarsen(pixels, torch.tensor([coarse]))) - expected).mean() < 1.2


@pytest.mark.parametrize("quality", [20, 40, 70, 95])
def test_a_jpeg_round_trip_loses_what_libjpeg_loses(picture, quality):
    image, pixels = picture
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    found = as_image(device_views.jpeg(pixels, torch.tensor([float(quality)])))
    lost = np.abs(expected - image).mean()
    assert abs(np.abs(found - image).mean() - lost) < 0.1 * lost and np.abs(found - expected).mean() < 0.5 * lost


def test_each_image_is_changed_by_its_own_amount(picture):
    pair = picture[1].repeat(2, 1, 1, 1)
    for change, values in (
        (device_views.blur, (0.3, 3.0)),
        (device_views.coarsen, (1.0, 6.0)),
        (device_views.jpeg, (95.0, 10.0)),
    ):
        little, much = (change(pair, torch.tensor(values)) - pair).abs().mean(dim=(1, 2, 3)).tolist()
        assert little < much / 2


def test_halvings_are_read_where_a_view_is_small(smears, processor):
    planned = PlannedDraws(smears, processor, GrowingResolution((64,), (1,)), 4, Planner(scale=(0.5, 0.5)))
    planned.fill_cache()
    levels = {planned.place[content][0] for content in planned.contents}
    assert len(halvings(np.zeros((240, 320, 3), np.uint8))) == 2
    drawn = [entry["level"] for entry in (planned[number] for number in range(4)) if "level" in entry]
    assert any(level not in levels for level in drawn)


def test_what_does_not_fit_stays_on_the_host(smears, monkeypatch):
    cpu = torch.device("cpu")
    assert device_views.fits(smears, cpu)
    needed = sum(np.prod(cv2.imread(row["image"]["path"]).shape[:2]) * 4 * 4 / 3 for row in smears)
    for share, expected in ((2.2, True), (1.8, False)):  # half of what is free may be taken
        pages = {"SC_PAGE_SIZE": 1, "SC_AVPHYS_PAGES": int(needed * share)}
        monkeypatch.setattr(device_views.os, "sysconf", pages.get)
        assert device_views.fits(smears, cpu) is expected
    monkeypatch.undo()
    monkeypatch.setattr(device_views.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert not device_views.fits(smears, cpu)
