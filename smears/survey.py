"""List what lies in a folder of images: every image with its split and label, and every fault as a row of its own."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from smears.loading import ARCHIVE_FOLDERS, IMAGE_ENDINGS, SPLIT_FOLDERS, DataError, check_image, content_hash
from smears.provenance import PHOTO_FOLDER

UNREADABLE = "unreadable"  # the kind of fault that `--strict` counts
PHOTOS = (PHOTO_FOLDER / "JPEGImages").as_posix()
# Images in each split folder of the Kaggle archive paultimothymooney/blood-cells, as its page publishes them.
ARCHIVE_COUNTS = {"TRAIN": 9957, "TEST": 2487, "TEST_SIMPLE": 71}
VOC_IMAGES = "jpegimages"  # the VOC layout keeps photos of all classes in this folder
PACKED = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file or folder; `path` is relative to the folder surveyed, "." for itself.

    `kind`: a few words to sort by; `reason`: what came, what was expected and the remedy.
    """

    kind: str
    path: str
    reason: str


@dataclass(frozen=True)
class SurveyedImage:
    """One readable image.

    `file`: path relative to the folder surveyed, with slashes. `split` and `label`: in lower case, None where the path
    names none. `width`, `height`: in pixels. `mode`: Pillow's name for the kind of pixels. `sha256`: 16 hexadecimal
    digits of the file's content; `pixels`: the same of size and decoded RGB values. `picture`: 0 to 1, the share of
    pixels that are not black fill.
    """

    file: str
    split: str | None
    label: str | None
    width: int
    height: int
    mode: str
    sha256: str
    pixels: str
    picture: float


@dataclass(frozen=True)
class Survey:
    """The images and the faults of a folder, each sorted by path."""

    images: tuple[SurveyedImage, ...]
    faults: tuple[Fault, ...]


def read_rgb(data: bytes) -> np.ndarray:
    """Decode an image file's bytes to (H, W, 3) uint8 RGB, without turning it as its camera tag may ask."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def survey(root: Path, workers: int = 2) -> Survey:
    """Read every file below a folder.

    Splits are the folders that `smears.loading.SPLIT_FOLDERS` names, at any depth; labels are the folders in them, or,
    where no folder names a split, the first folders that tell images apart.

    Raises:
        DataError: the folder is missing, or holds no readable image.
    """
    if not root.is_dir():
        packed = root.is_file() and root.suffix.lower() in PACKED
        remedy = (
            "Unpack it and name the folder it is unpacked to." if packed else "Name the folder that holds the images."
        )
        raise DataError(f"{root} is no folder. {remedy}")
    files, folders, faults = _walk(root)
    paths = [file for file in files if PurePosixPath(file).suffix.lower() in IMAGE_ENDINGS]
    faults += _foreign(set(files) - set(paths))
    places = _places(paths)

    def read(file: str) -> tuple[SurveyedImage | None, list[Fault]]:
        return _read(root, file, *places[file])

    images = []
    with ThreadPoolExecutor(workers) as pool:
        for image, found in tqdm(pool.map(read, paths), "reading", len(paths), unit="image"):
            images += [image] if image else []
            faults += found
    if not images:
        listed = "; ".join(f"{fault.path}: {fault.reason}" for fault in faults[:3])
        raise DataError(
            f"{root} holds no readable image ({', '.join(sorted(IMAGE_ENDINGS))}). Unpack the archive and name the folder "
            f"that holds the images.{' Found there: ' + listed if listed else ''}"
        )
    faults += [*_layout(images, folders), *_archive(root, images), *_same_content(images)]
    return Survey(tuple(images), tuple(sorted(faults, key=lambda fault: (fault.kind, fault.path, fault.reason))))


def _walk(root: Path) -> tuple[list[str], list[str], list[Fault]]:
    """List files and folders, sorted, and what cannot be entered or is left out."""
    files, folders, faults, entered = [], [], [], {os.path.realpath(root)}

    def relative(path: str | Path) -> str:
        return Path(path).relative_to(root).as_posix()

    def refused(error: OSError) -> None:
        faults.append(Fault(UNREADABLE, relative(error.filename), f"{error.strerror}. Allow reading it, or remove it."))

    for here, below, names in os.walk(root, onerror=refused, followlinks=True):
        folders.append(relative(here))
        if not below and not names:
            faults.append(Fault("empty folder", relative(here), "It holds nothing. Fill it or remove it."))
        for name in sorted(below):
            path = os.path.join(here, name)
            if name[0] == ".":
                faults.append(
                    Fault("left out", relative(path), "A hidden folder, not audited. Rename it if it matters.")
                )
            elif os.path.realpath(path) in entered:
                faults.append(
                    Fault("left out", relative(path), "A link to a folder that is audited already. Remove it.")
                )
            else:
                entered.add(os.path.realpath(path))
                continue
            below.remove(name)
        below.sort()
        for name in names:
            path = Path(here, name)
            if path.is_file():
                files.append(relative(path))
            else:
                faults.append(
                    Fault(
                        UNREADABLE,
                        relative(path),
                        "A link to nothing. Fetch the file it stands for, or remove the link.",
                    )
                )
    return sorted(files), sorted(folders), faults


def _foreign(files: Iterable[str]) -> list[Fault]:
    """Make one row of all files in a folder that share an ending which no image has."""
    counted = Counter((str(PurePosixPath(file).parent), PurePosixPath(file).suffix.lower()) for file in files)
    return [
        Fault(
            "no image",
            folder,
            f"{count} file(s) {ending or 'without ending'}, not audited. "
            + ("Unpack and audit again." if ending in PACKED else "Save images as PNG or JPEG; move others away."),
        )
        for (folder, ending), count in counted.items()
    ]


def _places(files: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
    """Read split and label of each file from its folders."""
    folders = {file: PurePosixPath(file).parts[:-1] for file in files}
    splits = any(name.lower() in SPLIT_FOLDERS for parts in folders.values() for name in parts)
    shared = len(os.path.commonprefix(list(folders.values()))) if folders else 0
    deepest = max(map(len, folders.values()), default=0)
    first = shared if shared < deepest else max(0, shared - 1)  # one class alone is a class, too
    places = {}
    for file, parts in folders.items():
        depth = next((k for k, name in enumerate(parts) if name.lower() in SPLIT_FOLDERS), None)
        split = SPLIT_FOLDERS[parts[depth].lower()] if depth is not None else None
        below = parts[depth + 1 :] if depth is not None else () if splits else parts[first:]
        places[file] = split, below[0].lower() if below and below[0].lower() != VOC_IMAGES else None
    return places


def _read(root: Path, file: str, split: str | None, label: str | None) -> tuple[SurveyedImage | None, list[Fault]]:
    try:
        data = (root / file).read_bytes()
        check_image("It", data)
        with Image.open(BytesIO(data)) as image:
            mode, frames = image.mode, getattr(image, "n_frames", 1)
        pixels = read_rgb(data)
    except OSError as error:
        return None, [Fault(UNREADABLE, file, f"{error.strerror or error}. Allow reading it, or fetch it again.")]
    except ValueError as error:
        # Pillow names the place in memory, which is another each time
        said = re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))
        return None, [Fault(UNREADABLE, file, said if data else "It is empty (0 bytes). Fetch it again or remove it.")]
    height, width = pixels.shape[:2]
    seen = content_hash(f"{width}x{height}".encode() + pixels.tobytes())
    picture = round(float((pixels.max(axis=2) > 0).mean()), 4)
    surveyed = SurveyedImage(file, split, label, width, height, mode, content_hash(data), seen, picture)
    several = Fault("several frames", file, f"It holds {frames} frames; the first is audited. Save each as a file.")
    return surveyed, [several] if frames > 1 else []


def _layout(images: Sequence[SurveyedImage], folders: Sequence[str]) -> list[Fault]:
    """Find images without a place, folders without images, and splits or classes that others have and one has not."""
    faults, classes = [], defaultdict(set)
    homeless = Counter()
    filled, spelled = set(), defaultdict(set)
    splits = {image.split for image in images if image.split}
    for image in images:
        folder = PurePosixPath(image.file).parent
        filled.update({str(folder), *map(str, folder.parents)})
        if image.label:
            classes[image.split].add(image.label)
        homeless[str(folder), image.split, image.label] += 1
    for (folder, split, label), count in homeless.items():
        if splits and not split:
            reason = f"{count} image(s) outside the split folders, audited without split and label."
            faults.append(
                Fault("no split", folder, reason + " Move them into SPLIT/CLASS/ or leave them for reference.")
            )
        elif not label and PurePosixPath(folder).name.lower() != VOC_IMAGES:
            reason = f"{count} image(s) outside class folders, audited without label."
            faults.append(
                Fault("no label", folder, reason + " Move them into " + ("SPLIT/CLASS/." if split else "CLASS/."))
            )
    every = set().union(*classes.values())
    for split, having in classes.items():
        for label in sorted(every - having if split else ()):
            reason = (
                f"No image of the class {label!r}, which other splits show. Add some, or drop the class everywhere."
            )
            faults.append(Fault("class missing", split, reason))
    for folder in folders:
        path = PurePosixPath(folder)
        depth = next((k for k, name in enumerate(path.parts) if name.lower() in SPLIT_FOLDERS), None)
        if depth is None:
            continue
        if depth == len(path.parts) - 1:
            spelled[str(path.parent), SPLIT_FOLDERS[path.name.lower()]].add(path.name)
        elif depth == len(path.parts) - 2:
            spelled[str(path.parent), path.name.lower()].add(path.name)
        if folder not in filled and depth >= len(path.parts) - 2:
            faults.append(
                Fault("no image", folder, "A split or class folder without a readable image. Fill or remove it.")
            )
    for (parent, name), names in spelled.items():
        if len(names) > 1:
            reason = f"{', '.join(sorted(names))} all name {name!r}, and are counted as one. Put them into one folder."
            faults.append(Fault("named twice", parent, reason))
    if splits and "train" not in splits:
        reason = (
            f"Only {', '.join(sorted(splits))}, no train. Unpack the archive again, or name the folder of all splits."
        )
        faults.append(Fault("split missing", ".", reason))
    return faults


def _archive(root: Path, images: Sequence[SurveyedImage]) -> list[Fault]:
    """Say what of the Kaggle archive is missing, where a part of it is there."""
    top = next((name for name in ("dataset-master", "dataset2-master") if (root / name).is_dir()), None)
    if top is None:
        return []
    below = Counter(parent.as_posix() for image in images for parent in PurePosixPath(image.file).parents)
    expected = {PHOTOS: 1, **{f"{ARCHIVE_FOLDERS[0]}/{split}": n for split, n in ARCHIVE_COUNTS.items()}}
    return [
        Fault(
            "half unpacked",
            folder,
            f"{below[folder]} image(s); the archive 'blood-cells', of which {top} is here, has "
            + (f"{count}. " if count > 1 else "its photos there. ")
            + "Unpack it again, and mind the free space.",
        )
        for folder, count in expected.items()
        if below[folder] < count
    ]


def _same_content(images: Sequence[SurveyedImage]) -> list[Fault]:
    """Find classes of one split whose every image stands under another class as well."""
    contents = defaultdict(set)
    for image in images:
        if image.label:
            contents[image.split, image.label].add(image.pixels)
    return [
        Fault(
            "same content",
            f"{split or '.'}: {label}",
            f"All its {len(content)} image(s) also stand under {other!r}. One of the two folders is a copy: fetch it again.",
        )
        for (split, label), content in contents.items()
        for (other_split, other), others in contents.items()
        if split == other_split and label != other and content <= others
    ]
