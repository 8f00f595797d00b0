"""Read what a user has as a picture, a path, bytes, a PIL image or an array, into upright RGB, or say why it cannot be used.

    for source in sources:
        try:
            picture = read_image(source)
        except ImageError as error:
            print(error)  # with the file's name and the remedy

Nothing is guessed in silence: what was done to a picture stands in its notes.
"""

import io
import os
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .sentences import say

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
# Pillow itself warns above; such a picture takes 0.27 GB as RGB. Four times the 20 megapixels of a microscope's camera.
LARGEST = 89_000_000  # pixels
SMALLEST_SIDE = 32  # px: a red cell would be about two pixels wide

TURN_TO_PNG = "Open it in an image viewer and export it as PNG."
_FILTERS = threading.Lock()  # warnings' filters are the whole process's, and pictures are read in threads


class ImageError(ValueError):
    """A picture cannot be used; the message names it, says why, and what to do.

    ``args[0]`` is a ``Sentence`` where a file may be at fault; ``str()`` of an error is plain text.
    """


@dataclass
class ReadImage:
    """A picture that was read.

    Attributes:
        image: RGB, 8 bits, upright; boxes are in its pixels.
        name: of the file, or "image 3" for what has none.
        notes: what was done to the picture that a person should know, in words.
    """

    image: Image.Image
    name: str
    notes: list[str] = field(default_factory=list)


def image_name(source: Any, number: int = 1) -> str:
    """Name a picture: the file's name, else "image" and its number."""
    named = getattr(source, "filename", None) or getattr(source, "name", None)  # of a PIL image, of a stream
    path = source if isinstance(source, str | os.PathLike) else named
    try:
        name = Path(os.fsdecode(path)).name if path else ""
    except (TypeError, ValueError):
        name = ""
    return name or f"image {number}"


def read_image(source: Any, name: str | None = None) -> ReadImage:
    """Read a picture.

    Args:
        source: a path; the bytes of a file, or a stream of them; a PIL image; an array, (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), of uint8, 0..255, of floating point, 0..1, or of bool.
        name: what to call it; None takes ``image_name``.

    Raises:
        ImageError: it is no picture, is damaged, has less than 32 px a side or more than 89 million pixels.
    """
    name = name or image_name(source)
    try:
        if isinstance(source, Image.Image):
            return _finish(source, name)
        if isinstance(source, np.ndarray):
            return _finish(_from_array(source, name), name)
        if hasattr(source, "read"):
            source = _read_stream(source, name)
        if isinstance(source, bytes | bytearray | memoryview):
            if not len(source):
                raise ImageError(f"{name}: there are no bytes. Send the file's content.")
            return _read_file(io.BytesIO(source), name)
        if isinstance(source, str | os.PathLike):
            return _read_file(_existing(source, name), name)
    except MemoryError as error:
        raise ImageError(f"{name}: the picture does not fit into memory. Crop or shrink it.") from error
    raise ImageError(
        f"{name}: {type(source).__name__} is no picture; expected a path, bytes, a PIL image or an array. Pass one of these."
    )


def _read_stream(stream: Any, name: str) -> Any:
    if isinstance(stream, io.TextIOBase):
        raise ImageError(f'{name}: the stream gives text; expected bytes. Open the file with "rb".')
    if getattr(stream, "closed", False):
        raise ImageError(f"{name}: the stream is closed. Open it again, and leave it open until it is read.")
    try:
        return stream.read()
    except MemoryError:
        raise
    except Exception as error:  # a stream may be anybody's
        raise ImageError(f"{name}: the stream cannot be read ({error!r}). Pass the file's bytes.") from error


def _existing(source: str | os.PathLike, name: str) -> Path:
    if str(source).startswith(("http://", "https://")):
        raise ImageError(f"{name}: addresses are not fetched. Download the picture first.")
    try:
        path = Path(os.fsdecode(source))
        if not os.fspath(source):
            raise ImageError(f"{name}: the path is empty. Name a picture.")
        if path.is_dir():
            raise ImageError(f"{name}: this is a folder. Name the pictures in it.")
        if not path.is_file():
            raise ImageError(f"{name}: there is no such file. Correct the path.")
        if not path.stat().st_size:
            text = f"{name}: the file is empty, 0 bytes. Copy it again from where it comes."
            raise ImageError(say("image_empty", text, name=name))
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # a name too long, a null character, no permission
        raise ImageError(f"{name}: the file cannot be opened ({error}). Correct the path.") from error
    return path


def _read_file(source: Path | io.BytesIO, name: str) -> ReadImage:
    try:
        # opened here: of a path Pillow maps an unpacked TIFF into memory by its turned size, which garbles it
        with source.open("rb") if isinstance(source, Path) else source as stream:
            with _FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked before decoding
                opened = Image.open(stream, formats=FORMATS)
            with opened as image:
                return _finish(image, name)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        text = f"{name}: more than {LARGEST / 1e6:.0f} million pixels. Crop or shrink it."
        raise ImageError(say("image_bomb", text, name=name, most=f"{LARGEST / 1e6:.0f}")) from error
    except UnidentifiedImageError as error:
        formats = ", ".join(FORMATS)
        text = f"{name}: this is no picture that can be read ({formats}). {TURN_TO_PNG}"
        raise ImageError(say("image_unreadable", text, name=name, formats=formats)) from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read the file. Allow it, or copy the file.") from error
    except Exception as error:  # on a broken head Pillow raises anything
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    why = str(error) or type(error).__name__
    text = f"{name}: the file is damaged or cut short ({why}). Copy or export it again."
    return ImageError(say("image_damaged", text, name=name, why=why))


def _from_array(values: np.ndarray, name: str) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or not values.size:
        remedy = (
            "Pass the pictures of a batch as a list." if values.ndim == 4 else "Pass one picture, its channels last."
        )
        raise ImageError(
            f"{name}: the array has shape {values.shape}; expected (height, width), or (height, width, 3) in RGB. {remedy}"
        )
    if values.dtype == bool or np.issubdtype(values.dtype, np.floating):
        low, high = (values.min(), values.max()) if np.isfinite(values).all() else (np.nan, np.nan)
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"{name}: the array of {values.dtype} reaches from {low} to {high}; expected 0 to 1. Scale it, or pass uint8."
            )
        values = np.rint(values * 255.0).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ImageError(
            f"{name}: the array is {values.dtype}; expected uint8, 0 to 255. Divide it by its full scale and multiply by 255."
        )
    return Image.fromarray(np.ascontiguousarray(values))


def _finish(image: Image.Image, name: str) -> ReadImage:
    """Check the size, which the header tells, decode, and convert to upright RGB."""
    if image.width * image.height > LARGEST:
        text = f"{name}: {image.width} x {image.height} px are more than {LARGEST / 1e6:.0f} million pixels. Crop or shrink it."
        values = {"name": name, "width": image.width, "height": image.height, "most": f"{LARGEST / 1e6:.0f}"}
        raise ImageError(say("image_large", text, **values))
    if min(image.size) < SMALLEST_SIDE:
        text = f"{name}: {image.width} x {image.height} px; expected {SMALLEST_SIDE} or more each side. Take a larger picture."
        values = {"name": name, "width": image.width, "height": image.height, "least": SMALLEST_SIDE}
        raise ImageError(say("image_small", text, **values))
    stream = getattr(image, "fp", None)
    # an opened picture's tiles are those that are still to be decoded
    closed = bool(getattr(image, "tile", None)) and (stream is None or getattr(stream, "closed", False))
    try:
        image.load()
        frames = getattr(image, "n_frames", 1)
        upright = ImageOps.exif_transpose(image)
        # MPO: a camera's preview is no second picture
        return _to_rgb(upright, name, frames if image.format != "MPO" else 1, image.tell())
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # on broken data Pillow raises anything
        if closed or "closed image" in str(error):
            raise ImageError(
                f"{name}: the picture was closed before it was read. Open it again, and leave it open until it is read."
            ) from error
        raise _damaged(name, error) from error


def _to_rgb(image: Image.Image, name: str, frames: int, frame: int) -> ReadImage:
    which = f"number {frame + 1}" if frame else "the first"
    text = f"the file holds {frames} pictures; only {which} was read"
    notes: list[str] = [say("note_frames", text, frames=frames, frame=frame + 1)] if frames > 1 else []
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow's own conversion would clip these to white without a word
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            text = f"{name}: the picture holds values that are no numbers. Export it again as 8-bit PNG."
            raise ImageError(say("image_no_numbers", text, name=name))
        low, high = float(values.min()), float(values.max())
        values = np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
        text = "grey of more than 8 bits: its darkest to brightest values were spread over 8 bits"
        notes.append(say("note_deep_grey", text))
        return ReadImage(Image.fromarray(values).convert("RGB"), name, notes)
    if image.mode in ("L", "LA", "La", "1"):
        text = "a grey picture: the model has learnt from coloured stains, trust its answers less"
        notes.append(say("note_grey", text))
    if image.mode == "CMYK":
        notes.append(say("note_cmyk", "printing colours (CMYK) were converted to RGB and may be off"))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getextrema()[3][0] < 255:
            notes.append(say("note_transparent", "transparent parts were laid on white"))
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return ReadImage(image.convert("RGB"), name, notes)
