"""What a picture's file holds beside its pixels goes, and no pixel changes."""

import io

import numpy as np
import pytest
from conftest import REPOSITORY  # noqa: F401
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin
from space_fixtures import EXAMPLES, metadata

SECRETS = (b"Mueller", b"PATIENT", b"1950")


def exif(turn: int = 1) -> Image.Exif:
    """EXIF with a name in a plain tag, in the camera's own part, and a place."""
    made = Image.Exif()
    made[0x0112], made[0x010E], made[0x013B] = turn, "PATIENT Mueller 1950", "Mueller"
    made.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0PATIENT Mueller"
    made.get_ifd(0x8825)[1], made.get_ifd(0x8825)[2] = "N", (48.0, 8.0, 0.0)
    return made


def written(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.copy().save(stream, kind, **options)  # saving leaves an encoder's settings in the image
    return stream.getvalue()


def cell() -> Image.Image:
    return Image.open(EXAMPLES / "monocyte.png").convert("RGB").resize((96, 80))


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", "PATIENT Mueller 1950")
    info.add_itxt("XML:com.adobe.xmp", "PATIENT Mueller")
    info.add_text("Author", "Mueller", zip=True)
    return info


def tags() -> TiffImagePlugin.ImageFileDirectory_v2:
    made = TiffImagePlugin.ImageFileDirectory_v2()
    made[270], made[315], made[700] = "PATIENT Mueller 1950", "Mueller", b"<x>PATIENT Mueller</x>"
    return made


XMP = b"<x:xmpmeta>PATIENT Mueller 1950</x:xmpmeta>"


def files() -> dict[str, bytes]:
    """Files with a name in every place that the format has for one."""
    image, grey = cell(), cell().convert("L")

    def frames() -> dict:
        return {"save_all": True, "append_images": [image.rotate(90)]}

    deep = Image.fromarray(np.asarray(grey, np.uint16) * 255)
    jpeg = {"exif": exif(6), "comment": "PATIENT Mueller", "xmp": XMP, "quality": 90}
    made = {
        "jpeg": written(image, "JPEG", **jpeg),
        "progressive jpeg": written(image, "JPEG", progressive=True, **jpeg),
        "printing jpeg": written(image.convert("CMYK"), "JPEG", **jpeg),
        "jpeg with two pictures": written(image, "MPO", **jpeg, **frames()),
        "jpeg with a tail": written(image, "JPEG", **jpeg) + b"PATIENT Mueller",
        "png": written(image, "PNG", pnginfo=texts(), exif=exif(8)),
        "palette png": written(image.quantize(16), "PNG", pnginfo=texts(), transparency=3),
        "deep png": written(deep, "PNG", pnginfo=texts()),
        "webp": written(image, "WEBP", exif=exif(3), xmp=XMP, lossless=True),
        "plain webp": written(image, "WEBP"),
        "gif": written(image, "GIF", comment=b"PATIENT Mueller 1950", **frames()),
        "tiff": written(image, "TIFF", tiffinfo=tags()),
        "packed tiff": written(image, "TIFF", tiffinfo=tags(), compression="tiff_lzw"),
        "tiff with exif": written(image, "TIFF", exif=exif(6)),
        "large tiff": written(image, "TIFF", tiffinfo=tags(), big_tiff=True),
        "tiff with two pictures": written(image, "TIFF", tiffinfo={270: "PATIENT Mueller", 315: "Mueller"}, **frames()),
        "deep tiff": written(deep, "TIFF", tiffinfo=tags()),
        "printing tiff": written(image.convert("CMYK"), "TIFF", tiffinfo=tags()),
        "bmp": written(image, "BMP"),
        "ppm": b"P6\n# PATIENT Mueller 1950\n96 80\n# Mueller\n255\n" + image.tobytes(),
    }
    return made


@pytest.mark.parametrize("name", files())
def test_nothing_but_pixels_is_left(name):
    content = files()[name]
    if name not in ("bmp", "plain webp"):
        assert any(secret in content for secret in SECRETS), "the test's own file holds a name"
    clean = metadata.without_metadata(content)
    assert not [secret for secret in SECRETS if secret in clean]
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(clean)) as after:
        assert (after.mode, after.size) == (before.mode, before.size)
        if name != "jpeg with two pictures":
            assert getattr(after, "n_frames", 1) == getattr(before, "n_frames", 1)
        left = after.getexif()
        if not name.endswith(("tiff", "tiff with exif", "tiff with two pictures")):
            assert set(left) <= {0x0112} and not left.get_ifd(0x8769) and not left.get_ifd(0x8825)
        assert left.get(0x0112, 1) == before.getexif().get(0x0112, 1)
        assert not {"comment", "xmp", "Description", "Author", "XML:com.adobe.xmp"} & set(after.info)
        upright = [np.asarray(ImageOps.exif_transpose(image).convert("RGB")) for image in (before, after)]
        np.testing.assert_array_equal(*upright)


def test_a_colour_profile_stays():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        clean = metadata.without_metadata(written(cell(), kind, icc_profile=profile))
        assert Image.open(io.BytesIO(clean)).info["icc_profile"] == profile


@pytest.mark.parametrize("name", files())
def test_a_file_cut_short_stays_one_and_holds_no_name(name):
    """A reader says then what is wrong; whatever is cut, nothing slips through and nothing fails."""
    content = files()[name]
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        clean = metadata.without_metadata(content[: int(share * len(content))])
        assert not [secret for secret in SECRETS if secret in clean], share


def test_noise_does_not_fail():
    random = np.random.default_rng(1)
    for name, content in files().items():
        for _ in range(40):
            broken = bytearray(content)
            for place in random.integers(0, min(len(broken), 600), 6):
                broken[place] = random.integers(256)
            clean = metadata.without_metadata(bytes(broken))
            assert isinstance(clean, bytes) and len(clean) <= len(content) + 64, name


@pytest.mark.parametrize(
    "content", [b"", b"no picture, but PATIENT Mueller", b"\0\0\0\x18ftypheic" + b"PATIENT" * 40, b"%PDF-1.4"]
)
def test_what_is_no_picture_comes_out_empty(content):
    assert metadata.without_metadata(content) == b""
