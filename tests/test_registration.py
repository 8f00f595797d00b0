"""Images find the photo they were made from: drawn smears with known maps, and the tables for the Kaggle archive."""

import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from smears import provenance
from smears.alignment import describe
from smears.loading import content_hash
from smears.registration import build_index, find_overlaps, find_photo, group_photos, main

IMAGE_TABLE = "hub_dataset/images.csv"
OVERLAP_TABLE = "hub_dataset/overlaps.csv"
CROSSINGS = {(204, 277), (204, 276), (224, 264), (230, 257), (377, 400)}  # known from looking at the photos
# found besides: the first pair shares red cells at its edges, the others the neutrophil
NARROW_CROSSINGS = {(225, 264), (364, 409), (365, 408)}


def draw_field(seed, height=480, width=640):
    """Draw pale discs with darker rims, dust and one violet nucleus on a pale ground, (H, W, 3) uint8 RGB."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), (225, 222, 215), np.uint8)
    for _ in range(height * width // 5000):
        centre = tuple(int(v) for v in random.uniform((0, 0), (width, height)))
        axes = tuple(int(v) for v in random.uniform(22, 42, 2))
        angle = float(random.uniform(0, 180))
        shade = random.uniform(-12, 12)
        for share, colour in ((1.0, (190, 140, 140)), (0.85, (208, 165, 160)), (0.4, (222, 195, 188))):
            inner = tuple(max(1, int(axis * share)) for axis in axes)
            cv2.ellipse(image, centre, inner, angle, 0, 360, tuple(float(c + shade) for c in colour), -1, cv2.LINE_AA)
    for _ in range(height * width // 4000):
        spot = tuple(int(v) for v in random.uniform((0, 0), (width, height)))
        cv2.circle(image, spot, int(random.integers(2, 6)), (150, 120, 160), -1, cv2.LINE_AA)
    nucleus = tuple(int(v) for v in random.uniform((0.4 * width, 0.4 * height), (0.6 * width, 0.6 * height)))
    cv2.ellipse(image, nucleus, (50, 38), float(random.uniform(0, 180)), 0, 360, (120, 80, 180), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(random.normal(0, 16, (height, width, 1)).astype(np.float32), (0, 0), 1.5)[..., None]
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1) + 2 * grain, 30, 255).astype(np.uint8)


def copy_map(degrees, shift, flip):
    """Turn about the centre, then shift in pixels, after mirroring where asked; (2, 3), x and y of a 320x240 image."""
    turn = np.vstack([cv2.getRotationMatrix2D((159.5, 119.5), degrees, 1), (0, 0, 1)])
    turn[:2, 2] += shift
    mirrors = {
        "": np.eye(3),
        "left-right": [[-1, 0, 319], [0, 1, 0], [0, 0, 1]],
        "up-down": [[1, 0, 0], [0, -1, 239], [0, 0, 1]],
    }
    return (turn @ mirrors[flip])[:2]


def make_copy(photo, matrix):
    """Shrink a photo to 320x240, move it with black fill, stretch its contrast: how the archive's copies were made."""
    small = cv2.resize(photo, (320, 240), interpolation=cv2.INTER_AREA)
    moved = cv2.warpAffine(small, matrix, (320, 240)).astype(np.float32)
    return (moved * 255 / moved.max()).astype(np.uint8)


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture(scope="module")
def photos():
    """Eight fields; 30 and 31 are two exposures of one wide field, the second shifted, softer and darker."""
    drawn = {number: draw_field(number) for number in range(10, 16)}
    wide = draw_field(30, 600, 800)
    noise = np.random.default_rng(0).normal(0, 2, (480, 640, 1))
    drawn[30] = wide[:480, :640]
    drawn[31] = np.clip(cv2.GaussianBlur(wide[40:520, 24:664], (0, 0), 1.2) * 0.9 + noise, 0, 255).astype(np.uint8)
    return drawn


@pytest.fixture(scope="module")
def photo_paths(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    return [write_image(folder / f"BloodImage_{number:05d}.png", photo) for number, photo in photos.items()]


@pytest.fixture(scope="module")
def index(photo_paths):
    return build_index(photo_paths)


@pytest.fixture(scope="module")
def grouped(index):
    return group_photos(index, [(pair.photo_a, pair.photo_b) for pair in find_overlaps(index)])


@pytest.mark.parametrize("flip", ["", "left-right", "up-down"])
@pytest.mark.parametrize(("number", "degrees", "shift"), [(10, 0, (0, 0)), (12, 17, (25, -18)), (15, -29, (-30, 12))])
def test_a_copy_finds_its_photo_and_its_map(photos, grouped, number, degrees, shift, flip):
    truth = copy_map(degrees, shift, flip)
    match = find_photo(make_copy(photos[number], truth), grouped)
    assert (match.photo, match.group, match.reason) == (number, number, "")
    assert match.registration.mirrored == bool(flip)
    assert match.margin > 0
    corners = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1]])
    assert np.linalg.norm(corners @ (match.registration.matrix - truth).T, axis=1).max() < 2


def test_a_foreign_image_is_unsure(grouped):
    match = find_photo(make_copy(draw_field(99), copy_map(9, (8, 5), "")), grouped)
    assert (match.photo, match.group) == (None, None)
    assert match.reason


def test_an_image_without_landmarks_is_unsure(grouped):
    match = find_photo(np.full((240, 320, 3), 200, np.uint8), grouped)
    assert (match.photo, match.registration, match.reason) == (None, None, "no photo registers")


def test_photos_of_the_same_cells_are_found_with_their_shift(index, grouped):
    (pair,) = find_overlaps(index)
    assert (pair.photo_a, pair.photo_b) == (30, 31)
    np.testing.assert_allclose(pair.registration.matrix, [[1, 0, 12], [0, 1, 20]], atol=1)
    assert dict(zip(grouped.numbers, grouped.groups, strict=True)) == {n: n for n in range(10, 16)} | {30: 30, 31: 30}


def test_groups_join_through_a_photo_in_between(index):
    groups = group_photos(index, [(14, 15), (11, 12), (12, 14)]).groups
    assert groups == (10, 11, 11, 13, 11, 11, 30, 31)
    with pytest.raises(ValueError, match=r"photos \(14, 77\) overlap, expected photos of the index"):
        group_photos(index, [(14, 77)])


@pytest.mark.parametrize("number", [30, 31])
def test_the_pixels_decide_between_two_exposures_of_the_same_cells(photos, grouped, number):
    match = find_photo(make_copy(photos[number], copy_map(-12, (10, 6), "left-right")), grouped)
    assert (match.photo, match.group) == (number, 30)


def test_a_copy_is_not_given_to_the_other_exposure_where_its_own_photo_is_missing(photos, photo_paths):
    index = build_index(photo_paths[:-1])
    match = find_photo(make_copy(photos[31], copy_map(5, (0, 0), "")), index)
    assert match.photo is None
    assert match.registration.inliers > 15
    assert "the frames agree" in match.reason


def test_wrong_images_are_refused():
    with pytest.raises(TypeError, match="dtype float64, expected uint8"):
        describe(np.zeros((240, 320, 3)))
    with pytest.raises(TypeError, match="dtype str, expected uint8"):
        describe("field.png")
    with pytest.raises(ValueError, match=r"shape \(240, 320\), expected \(height, width, 3\)"):
        describe(np.zeros((240, 320), np.uint8))


def test_wrong_photos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no photos came, expected at least one"):
        build_index([])
    nameless = write_image(tmp_path / "field.png", draw_field(1))
    with pytest.raises(ValueError, match="field.png has no number, expected digits"):
        build_index([nameless])
    blank = write_image(tmp_path / "blank_1.png", np.full((240, 320, 3), 200, np.uint8))
    with pytest.raises(ValueError, match="1 photos show no keypoint, expected smear fields"):
        build_index([blank])
    with pytest.raises(ValueError, match=r"photo numbers \[1\] come more than once"):
        build_index([blank, blank])
    broken = tmp_path / "broken_2.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken_2.jpg \(10 bytes\) holds no image, expected JPEG or PNG"):
        build_index([broken])


def test_wrong_folders_and_tables_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder, expected the archive root to hold dataset-master"):
        provenance.list_photos(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder, expected the archive root to hold dataset2-master"):
        provenance.list_images(tmp_path)
    (tmp_path / "dataset-master/dataset-master/JPEGImages").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="JPEGImages holds no photo"):
        provenance.list_photos(tmp_path)
    (tmp_path / "dataset2-master/dataset2-master/images/TRAIN").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="TRAIN holds no image"):
        provenance.list_images(tmp_path)
    (tmp_path / "dataset-master/dataset-master/labels.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"labels.csv has columns \['a', 'b'\], expected Image and Category"):
        provenance.read_labels(tmp_path)
    with pytest.raises(ValueError, match="expected .*'file', 'sha256', 'photo', 'group', 'inliers'"):
        provenance.read_registrations(tmp_path / "dataset-master/dataset-master/labels.csv")


@pytest.fixture
def archive(photos, tmp_path):
    """An archive as Kaggle's, with copies of 12 and 31, a foreign image, and one file twice in a folder."""
    root = tmp_path / "archive"
    for number in (10, 12, 30, 31):
        write_image(root / provenance.PHOTO_FOLDER / f"JPEGImages/BloodImage_{number:05d}.png", photos[number])
    lines = [",Image,Category", ",10,NEUTROPHIL", ',12,"NEUTROPHIL, EOSINOPHIL"', ",30,", ",31,MONOCYTE"]
    (root / provenance.PHOTO_FOLDER / "labels.csv").write_text("\r\n".join(lines))
    images = root / provenance.IMAGE_FOLDER
    write_image(images / "TRAIN/MONOCYTE/_0_1.png", make_copy(photos[31], copy_map(8, (4, 9), "")))
    write_image(images / "TRAIN/NEUTROPHIL/_0_1.png", draw_field(98, 240, 320))
    write_image(images / "TEST/NEUTROPHIL/_0_1.png", make_copy(photos[12], copy_map(-8, (4, 9), "up-down")))
    shown = write_image(images / "TEST_SIMPLE/NEUTROPHIL/_0_1.png", make_copy(photos[12], copy_map(0, (0, 0), "")))
    shutil.copy(shown, shown.with_name("_0_2.png"))
    return root


def test_the_command_writes_both_tables_and_goes_on_after_an_interruption(archive, tmp_path):
    found = tmp_path / "found"
    out = found / "registrations.csv"
    main([str(archive), "--out", str(found), "--workers", "1"])
    rows = provenance.read_registrations(out)
    assert [(row.file, row.photo, row.group) for row in rows] == [
        ("TRAIN/MONOCYTE/_0_1.png", 31, 30),
        ("TRAIN/NEUTROPHIL/_0_1.png", None, None),
        ("TEST/NEUTROPHIL/_0_1.png", 12, 12),
        ("TEST_SIMPLE/NEUTROPHIL/_0_1.png", 12, 12),
        ("TEST_SIMPLE/NEUTROPHIL/_0_2.png", 12, 12),
    ]
    for row, truth in ((rows[0], copy_map(8, (4, 9), "")), (rows[2], copy_map(-8, (4, 9), "up-down"))):
        corners = np.array([(0, 0, 1), (319, 0, 1), (0, 239, 1), (319, 239, 1)])
        assert np.abs(corners @ row.matrix.T - corners @ truth.T).max() < 1.5  # px
        assert row.frame > 0.95 and row.margin >= 15
    (pair,) = provenance.read_overlaps(found / "overlaps.csv")
    assert (pair.photo_a, pair.photo_b, pair.label_a, pair.label_b) == (30, 31, "", "MONOCYTE")

    written = out.read_bytes()
    first, second, half = written.splitlines()[1:4]
    out.unlink()
    kept = first.replace(b",31,30,", b",31,30,9") + b"\n"  # a number that a second look would not give
    provenance.unfinished(out).write_bytes(kept + second + b"\n" + half[:25])
    main([str(archive), "--out", str(found), "--workers", "1"])
    assert out.read_bytes() == written.replace(first + b"\n", kept)
    assert not provenance.unfinished(out).exists()


@pytest.fixture(scope="module")
def kaggle(data_root):
    root = data_root / "blood-cells"
    if not root.is_dir():
        pytest.skip(f"the Kaggle archive is absent: expected it at {root}")
    return root


@pytest.fixture(scope="module")
def table(pytestconfig):
    return provenance.read_images(pytestconfig.rootpath / IMAGE_TABLE)


@pytest.fixture(scope="module")
def overlaps(pytestconfig):
    return provenance.read_overlaps(pytestconfig.rootpath / OVERLAP_TABLE)


@pytest.fixture(scope="module")
def official(kaggle):
    """The photos of TRAIN and TEST by the rule that the archive was made by."""
    labels = provenance.read_labels(kaggle)
    present = {provenance.photo_number(path) for path in provenance.list_photos(kaggle)}
    single = [number for number, label in labels.items() if label and "," not in label and number in present]
    assert len(single) == 351
    order = np.random.RandomState(10).permutation(351)
    test = {single[k] for k in order[:71]}
    return {"TEST": test, "TRAIN": set(single) - test}, labels


def test_every_image_of_the_archive_stands_in_the_table_once(kaggle, table):
    images = provenance.list_images(kaggle)
    known = {row.file: row for row in table}
    assert len(table) == len(known) == len(images) == 12515
    for image in images:
        row = known[f"{image.split}/{image.label}/{image.path.name}"]
        assert (row.sha256, row.split, row.label) == (
            content_hash(image.path.read_bytes()), image.split, image.label.lower(),
        )  # fmt: skip
    assert sum(row.photo is not None and row.margin > 0 for row in table) >= 0.995 * len(table)


def test_the_table_agrees_with_the_rule_and_the_labels_of_the_official_split(table, official):
    photos_of, labels = official
    for row in table:
        if row.photo is not None:
            assert row.photo in photos_of["TRAIN" if row.split == "TRAIN" else "TEST"], row
            assert row.label.upper() == labels[row.photo], row


def test_the_splits_show_as_many_photos_of_each_subtype_as_published(table):
    shown = {(row.split, row.label, row.photo) for row in table if row.photo is not None}
    counts = Counter((split, label) for split, label, _ in shown)
    names = ("neutrophil", "eosinophil", "lymphocyte", "monocyte")
    assert [counts["TRAIN", name] for name in names] == [159, 75, 27, 16]
    assert [counts["TEST", name] for name in names] == [48, 13, 6, 4]
    assert len({photo for split, _, photo in shown if split == "TEST_SIMPLE"}) == 69


def test_the_overlaps_hold_the_known_ones(overlaps, official):
    pairs = {(row.photo_a, row.photo_b): row for row in overlaps}
    assert len(pairs) >= 26
    assert set(pairs) >= CROSSINGS
    conflict = pairs[206, 278]
    assert (conflict.label_a, conflict.label_b) == ("LYMPHOCYTE", "MONOCYTE")
    photos_of, _ = official
    crossing = {
        pair for pair in pairs if len(set(pair) & photos_of["TEST"]) == len(set(pair) & photos_of["TRAIN"]) == 1
    }
    assert crossing == CROSSINGS | NARROW_CROSSINGS


def test_groups_in_the_table_are_those_of_the_overlaps(table, overlaps):
    group = {row.photo: row.group for row in table if row.photo is not None}
    assert all(number <= photo for photo, number in group.items())
    for row in overlaps:
        assert row.photo_a not in group or row.photo_b not in group or group[row.photo_a] == group[row.photo_b]


def test_a_sample_of_the_images_registers_to_the_photo_in_the_table(kaggle, table, overlaps):
    random = np.random.default_rng(7)
    known = {row.file: row for row in table}
    images = provenance.list_images(kaggle)
    sample = [images[k] for k in random.choice(len(images), 20, replace=False)]
    rows = [known[f"{image.split}/{image.label}/{image.path.name}"] for image in sample]
    paths = {provenance.photo_number(path): path for path in provenance.list_photos(kaggle)}
    pairs = [(row.photo_a, row.photo_b) for row in overlaps]
    # the photos sought, those of the same cells and twenty more stand for all, to keep the test short
    wanted = {row.photo for row in rows} | set(random.choice(sorted(paths), 20, replace=False).tolist())
    wanted |= {number for pair in pairs for number in pair if wanted & set(pair)}
    pairs = [pair for pair in pairs if set(pair) <= wanted]
    index = group_photos(build_index([paths[number] for number in sorted(wanted)]), pairs)
    found = [find_photo(provenance.read_image(image.path), index) for image in sample]
    assert [match.photo for match in found] == [row.photo for row in rows]
    assert [match.registration.inliers for match in found] == pytest.approx([row.inliers for row in rows], abs=5)
    maps = np.array([match.registration.matrix for match in found])
    corners = np.array([(0, 0, 1), (320, 0, 1), (0, 240, 1), (320, 240, 1)])
    differences = corners @ (maps - np.array([row.matrix for row in rows])).transpose(0, 2, 1)
    assert np.abs(differences).max() < 2  # px
