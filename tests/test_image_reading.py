"""Whatever a user calls a picture is read rightly, or refused with its name, the reason and the remedy."""

import io
import re
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from smear_drawings import draw_smear

from hub_model.image_reading import LARGEST, ImageError, read_image

DRAWN, _ = draw_smear("neutrophil", 3, (96, 72))
PICTURE = Image.fromarray(DRAWN)


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(source, **options):
    return np.asarray(read_image(source, **options).image)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_the_same_pixels_through_every_way_in(form, tmp_path):
    path = tmp_path / "field.any"
    path.write_bytes(saved(PICTURE, form))
    data = path.read_bytes()
    for source in (path, str(path), data, bytearray(data), io.BytesIO(data), Image.open(path), PICTURE, DRAWN):
        answer = read_image(source)
        assert answer.image.mode == "RGB" and not answer.notes
        assert (np.asarray(answer.image) == DRAWN).all()


def test_pictures_are_called_by_their_files_or_numbers(tmp_path):
    path = tmp_path / "köpfchen 7.png"
    PICTURE.save(path)
    assert read_image(path).name == read_image(Image.open(path)).name == "köpfchen 7.png"
    assert read_image(DRAWN).name == "image 1"
    assert read_image(DRAWN, "field 3").name == "field 3"


def test_arrays_of_every_usual_kind():
    grey = DRAWN[..., 1]
    assert (pixels(DRAWN / 255.0) == DRAWN).all()
    assert (pixels((DRAWN / 255.0).astype(np.float32)) == DRAWN).all()
    assert (pixels(grey) == grey[..., None]).all()
    assert (pixels(grey[..., None]) == grey[..., None]).all()
    assert (pixels(grey > 200) == np.where(grey > 200, 255, 0)[..., None]).all()
    assert (pixels(DRAWN[::-1, ::2]) == DRAWN[::-1, ::2]).all()  # not contiguous


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (DRAWN.astype(np.uint16) * 257, "the array is uint16; expected uint8"),
        (DRAWN.astype(float), r"reaches from \d+.0 to 2\d\d.0; expected 0 to 1"),
        (DRAWN / 255 - 0.5, "expected 0 to 1"),
        (np.full((64, 64, 3), np.nan), "from nan to nan; expected 0 to 1"),
        (DRAWN.transpose(2, 0, 1), r"shape \(3, 72, 96\); expected .* its channels last"),
        (DRAWN[None], r"shape \(1, 72, 96, 3\); expected .* Pass the pictures of a batch as a list"),
        (np.zeros((64, 64, 2), np.uint8), r"shape \(64, 64, 2\)"),
        (np.zeros((0, 64, 3), np.uint8), r"shape \(0, 64, 3\)"),
        (np.zeros((1, 1, 3), np.uint8), "1 x 1 px; expected 32 or more each side"),
    ],
)
def test_arrays_that_are_no_pictures(array, said):
    with pytest.raises(ImageError, match=f"image 1: .*{said}"):
        read_image(array)


def test_a_turned_photo_is_set_upright():
    """EXIF orientation 6 means: turn by a quarter clockwise to see it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = PICTURE.transpose(Image.Transpose.ROTATE_90)
    assert (pixels(saved(lying, "PNG", exif=exif)) == DRAWN).all()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "CMYK", "RGBA"])
def test_an_unpacked_tiff_is_upright_by_its_path_as_by_its_bytes(mode, turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    if mode == "I;16":
        stored = Image.fromarray(DRAWN[..., 1].astype(np.uint16) * 257)
    else:
        stored = PICTURE.quantize(64) if mode == "P" else PICTURE.convert(mode)
    path = tmp_path / "turned.tif"
    stored.save(path, exif=exif)
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    back |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    upright = stored if turn == 1 else stored.transpose(Image.Transpose[back[turn]])
    expected = pixels(upright)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), path.open("rb")):
        assert (pixels(source) == expected).all()


def test_transparency_lies_on_white():
    layer = PICTURE.convert("RGBA")
    layer.putalpha(Image.fromarray(np.where(np.arange(96) < 48, 0, 255).astype(np.uint8)[None].repeat(72, 0)))
    answer = read_image(saved(layer, "PNG"))
    seen = np.asarray(answer.image)
    assert (seen[:, :48] == 255).all() and (seen[:, 48:] == DRAWN[:, 48:]).all()
    assert answer.notes == ["transparent parts were laid on white"]
    layer.putalpha(255)
    assert read_image(saved(layer, "PNG")).notes == []


def test_grey_of_sixteen_bits_is_spread_not_clipped():
    values = np.linspace(1000, 5000, 64 * 48).reshape(48, 64).astype(np.uint16)
    answer = read_image(saved(Image.fromarray(values), "PNG"))
    seen = np.asarray(answer.image)[..., 0]
    assert seen.min() == 0 and seen.max() == 255
    assert np.abs(seen - (values - 1000) / 4000 * 255).max() <= 0.51
    assert "more than 8 bits" in answer.notes[0]


def test_palettes_grey_and_printing_colours():
    assert "a grey picture" in read_image(saved(PICTURE.convert("L"), "PNG")).notes[0]
    assert np.abs(pixels(saved(PICTURE.quantize(256), "PNG")).astype(int) - DRAWN).mean() < 8
    answer = read_image(saved(PICTURE.convert("CMYK"), "JPEG", quality=98))
    assert np.abs(np.asarray(answer.image).astype(int) - DRAWN).mean() < 8
    assert "CMYK" in answer.notes[0]


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_of_several_pictures_the_first_is_read_and_that_is_said(form):
    others = [Image.new("RGB", PICTURE.size, colour) for colour in ("red", "blue")]
    lossless = {"lossless": True} if form == "WEBP" else {}
    answer = read_image(saved(PICTURE, form, save_all=True, append_images=others, **lossless))
    assert answer.notes == ["the file holds 3 pictures; only the first was read"]
    assert np.abs(np.asarray(answer.image).astype(int) - DRAWN).mean() < 12  # GIF has 256 colours


@pytest.mark.parametrize("form", ["GIF", "TIFF"])
def test_of_an_opened_picture_the_one_it_stands_at_is_read_and_named(form):
    others = [Image.new("RGB", PICTURE.size, colour) for colour in ("red", "blue")]
    opened = Image.open(io.BytesIO(saved(PICTURE, form, save_all=True, append_images=others)))
    opened.seek(2)
    answer = read_image(opened)
    assert answer.notes == ["the file holds 3 pictures; only number 3 was read"]
    assert (np.asarray(answer.image) == (0, 0, 255)).all()


def test_sixteen_bits_of_colour_keep_their_upper_half():
    """A PNG of 16 bits a channel, written by hand: Pillow cannot."""
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in DRAWN)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 96, 72, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (pixels(png) == DRAWN).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM"])
def test_a_file_cut_short_is_refused(form, tmp_path):
    whole = saved(Image.effect_noise((200, 160), 80).convert("RGB"), form)
    path = tmp_path / "short.img"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"short\.img: .*(cut short|no picture).* (Copy|Open)"):
        read_image(path)


def bomb(width, height):
    """Only the head of a PNG that says it is so large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\0\0IDAT"


@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 9_000), (2**31 - 1, 1), (13_000, 13_000)])
def test_a_decompression_bomb_is_refused_by_its_head(size, recwarn):
    with pytest.raises(ImageError, match=rf"more than {LARGEST / 1e6:.0f} million pixels"):
        read_image(bomb(*size))
    assert not recwarn.list


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "GIF"])
def test_a_picture_that_was_closed_is_named_so(form, tmp_path):
    path = tmp_path / "closed.img"
    path.write_bytes(saved(PICTURE, form))
    with Image.open(path) as left:
        pass
    given_up = Image.open(path)
    given_up.close()
    loaded = Image.open(path)
    loaded.load()
    loaded.close()
    with path.open("rb") as stream:
        of_a_stream = Image.open(stream)
    for picture in (left, given_up, loaded, of_a_stream):
        with pytest.raises(
            ImageError, match=r"(closed\.img|image 1): the picture was closed before it was read\. Open it again"
        ):
            read_image(picture)
    if form != "GIF":  # which would have to look for further frames
        with Image.open(path) as read:
            read.load()
        assert read_image(read).name == "closed.img"  # its pixels are here


def test_streams_that_give_no_bytes_are_named_so(tmp_path):
    path = tmp_path / "field.png"
    PICTURE.save(path)
    stream = path.open("rb")
    stream.close()
    with pytest.raises(ImageError, match=r"field\.png: the stream is closed\. Open it again"):
        read_image(stream)
    with path.open() as text, pytest.raises(ImageError, match=r'field\.png: the stream gives text; .*with "rb"'):
        read_image(text)
    with pytest.raises(ImageError, match="image 1: the stream gives text"):
        read_image(io.StringIO(str(path)))  # no path either

    class Broken:
        def read(self):
            raise RuntimeError("the line is cut")

    with pytest.raises(
        ImageError, match="image 1: the stream cannot be read .*the line is cut.* Pass the file's bytes"
    ):
        read_image(Broken())


def test_a_tag_of_the_wrong_type_is_refused():
    """A JPEG turned by its EXIF, whose description is a number: setting it upright, Pillow writes the tags anew."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    entries = struct.pack("<HHII", 0x010E, 5, 1, 38) + entries
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<III", 0, 1, 3)
    with pytest.raises(ImageError, match=r"damaged or cut short \(.+\)\. Copy or export it again"):
        read_image(saved(PICTURE, "JPEG", exif=exif))


@pytest.mark.parametrize("error", [TypeError("'int' object"), AttributeError("x"), AssertionError(), RuntimeError()])
@pytest.mark.parametrize("step", ["open", "load", "exif_transpose"])
def test_whatever_pillow_raises_is_said_with_the_name(step, error, monkeypatch, tmp_path):
    PICTURE.save(tmp_path / "odd.png")

    def fail(*_, **__):
        raise error

    place = {"open": Image, "load": PngImageFile, "exif_transpose": ImageOps}[step]
    monkeypatch.setattr(place, step, fail)
    why = re.escape(str(error)) or type(error).__name__
    with pytest.raises(ImageError, match=rf"odd\.png: the file is damaged or cut short \({why}\)"):
        read_image(tmp_path / "odd.png")


def test_readers_in_threads_leave_the_warnings_filters_alone(monkeypatch):
    """Each leaves its filter in place while another reads, unless they wait for each other."""
    before, really = list(warnings.filters), Image.open
    inside, most = [], []

    def slow(*args, **options):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return really(*args, **options)

    monkeypatch.setattr(Image, "open", slow)
    data = saved(PICTURE, "BMP")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_image, [data] * 60))
    assert warnings.filters == before and max(most) == 1


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "notes.jpg").write_text("These are notes, not a picture.")
    (tmp_path / "empty.png").touch()
    (tmp_path / "one.png").write_bytes(saved(Image.new("RGB", (1, 1)), "PNG"))
    (tmp_path / "drawing.eps").write_bytes(saved(PICTURE, "EPS"))  # Pillow would start another program for it
    (tmp_path / "album").mkdir()
    for name, said in {
        "notes.jpg": "this is no picture that can be read .*export it as PNG",
        "empty.png": "the file is empty, 0 bytes",
        "one.png": "1 x 1 px; expected 32",
        "drawing.eps": "this is no picture that can be read",
        "album": "this is a folder",
        "absent.png": "there is no such file",
        "http://x/a.png": "addresses are not fetched",
    }.items():
        with pytest.raises(ImageError, match=f"^{name.rpartition('/')[2]}: {said}"):
            read_image(name if "/" in name else tmp_path / name)
    with pytest.raises(ImageError, match="image 1: the path is empty"):
        read_image("")


@pytest.mark.parametrize("source", [b"", 7, None, {"path": "x"}, "a\0b", "x" * 5000, object()])
def test_whatever_else_is_refused_as_well(source):
    with pytest.raises(ImageError):
        read_image(source)


def test_the_picture_given_stays_as_it_is():
    image, array = PICTURE.convert("L"), DRAWN.copy()
    before = image.tobytes()
    read_image(image)
    read_image(array).image.putpixel((0, 0), (1, 2, 3))
    assert image.mode == "L" and image.tobytes() == before and (array == DRAWN).all()
