"""Read a picture that somebody sent: an upright 8-bit RGB image, or an error that says what to do."""

import base64
import io
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from languages import Said, SaidError
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
HEAVIEST = 50_000_000  # bytes of a file
LARGEST = 40_000_000  # pixels; a decoded picture of that size takes 120 MB
SMALLEST = 32  # px, the shorter side, as of a field


class PictureError(SaidError):
    """The picture cannot be used; the message says why and what to do."""


@dataclass
class Picture:
    """A picture that was read.

    Attributes:
        image: RGB, 8 bits, upright.
        notes: what a person should know was done to it.
    """

    image: Image.Image
    notes: list[Said] = field(default_factory=list)


def read_upload(upload: Mapping[str, Any] | None, folders: Iterable[Path]) -> Picture:
    """Read what gradio received: a file in one of ``folders``, or a data URL.

    gradio 6.31 lets a client name any path of this machine, so the path is held against the folders here.

    Raises:
        PictureError: as ``read_picture``; a path outside the folders counts as no picture.
    """
    path, url = (upload or {}).get("path"), (upload or {}).get("url") or ""
    if path and any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in folders):
        return read_picture(Path(path))
    if not path and url.startswith("data:"):
        return read_picture(io.BytesIO(decoded(url)))
    raise PictureError("picture_none")


def decoded(url: str) -> bytes:
    """Give the bytes in a data URL; white space in it means nothing: programs break base64 into lines.

    Raises:
        PictureError: they are too many, or written otherwise.
    """
    body = "".join(url.partition(",")[2].split())
    if len(body) > HEAVIEST * 4 / 3 + 4:  # base64 writes three bytes as four letters
        raise PictureError("picture_heavy", limit=HEAVIEST / 1e6)
    try:
        return base64.b64decode(body, validate=True)
    except ValueError as error:  # binascii's, or a letter that is not ASCII
        raise PictureError("picture_no_base64", reason=error) from error


def read_picture(source: Path | BinaryIO) -> Picture:
    """Read a file, or its bytes.

    Raises:
        PictureError: the file is no picture or is damaged, or the picture is too large or too small.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            # The header gives the size: refuse before the pixels are unpacked.
            if image.width * image.height > LARGEST:
                raise PictureError("picture_large", limit=LARGEST / 1e6)
            if min(image.size) < SMALLEST:
                raise PictureError("picture_small", width=image.width, height=image.height, limit=SMALLEST)
            image.load()
            frames = getattr(image, "n_frames", 1)
            return _to_rgb(image, frames)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("picture_large", limit=LARGEST / 1e6) from error
    except UnidentifiedImageError as error:
        raise PictureError("picture_unreadable") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        # Pillow's decoders raise any of these on broken data.
        raise PictureError("picture_damaged") from error


def _to_rgb(image: Image.Image, frames: int) -> Picture:
    notes = []
    # Cameras store a preview beside the photo in a JPEG (MPO); that is no second picture.
    if frames > 1 and image.format != "MPO":
        notes.append(Said("note_frames", {"frames": frames}))
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow's convert("RGB") would clip these to white without a word.
        notes += [Said("note_deep_grey"), Said("note_grey")]
        return Picture(_spread(image).convert("RGB"), notes)
    if image.mode in ("L", "LA", "1"):
        notes.append(Said("note_grey"))
    if image.mode == "CMYK":
        notes.append(Said("note_cmyk"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getextrema()[3][0] < 255:
            notes.append(Said("note_transparent"))
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return Picture(image.convert("RGB"), notes)


def _spread(image: Image.Image) -> Image.Image:
    """Spread grey values of any depth over 0..255; a picture of one value becomes black."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise PictureError("picture_no_numbers")
    low, high = values.min(), values.max()
    return Image.fromarray(np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))
