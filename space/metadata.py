"""Take out of a picture's file whatever does not make its pixels: who, when, where, with which camera, and all comments.

    clean = without_metadata(content)  # the bytes of a file; no pixel changes, none is encoded anew

What stays: how the picture is turned, its colour profile, its resolution. A file of a kind unknown here comes out empty, since
nobody knows what else it holds. Exiv2, the library
for this, and pyexiv2 are under the GPL, which would then hold for the Space.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator

from PIL import Image

ORIENTATION = 0x0112
# JPEG (ITU-T T.81): the next marker in coded data; 0 after 255 is data, 208 to 215 mark restarts.
MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
# PNG: of the chunks that may be left out, those that say how pixels are shown.
PNG_KEPT = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT", b"cICP"}
WEBP_KEPT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
# TIFF 6.0 and its supplements: where the pixels lie and how they are packed, coloured and turned.
TIFF_KEPT = {
    254,
    255,
    *range(256, 267),
    273,
    274,
    *range(277, 285),
    *range(288, 294),
    296,
    301,
    *range(317, 326),
    330,
    332,
    334,
}
TIFF_KEPT |= {*range(338, 344), 347, *range(512, 522), *range(529, 533), 34675}
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MOST_ENTRIES = 100_000  # tags of a TIFF, or parts of a JPEG: more were written to keep this program busy
SUB_DIRECTORIES = {330, 34665, 34853, 40965}


def without_metadata(content: bytes) -> bytes:
    """Give the bytes of a picture's file without what does not make its pixels; empty for a file that is no such picture."""
    for starts, clean in KINDS:
        if starts.match(content):
            try:
                return clean(content)
            except (ValueError, IndexError, struct.error):  # a head that cannot be followed
                return b""
    return b""


def _turned(content: bytes) -> bytes:
    """Give an EXIF block that says how the picture is turned, and nothing else; empty for an upright one."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            turn = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow's readers raise what they like on broken heads; reading the pixels will tell
        return b""
    if turn not in range(2, 9):
        return b""
    block = Image.Exif()
    block[ORIENTATION] = turn
    return block.tobytes()


def _jpeg(content: bytes) -> bytes:
    turn = _turned(content)
    parts = [content[:2]]
    if turn:
        parts.append(b"\xff\xe1" + struct.pack(">H", len(turn) + 2) + turn)
    at = 2
    while (marker := MARKER.search(content, at)) is not None:
        kind, after = content[marker.end() - 1], marker.end()
        if len(parts) > MOST_ENTRIES:
            raise ValueError("no camera writes that many parts")
        if kind == 0xD9:  # the end; behind it cameras put further pictures, with their own EXIF
            return b"".join([*parts, b"\xff\xd9"])
        (length,) = struct.unpack_from(">H", content, after)
        body = content[after + 2 : after + length]
        # Of the applications' parts: size and density, without a preview; the colour profile; how colours are coded.
        kept = not 0xE0 <= kind <= 0xEF and kind != 0xFE
        if kind == 0xE0 and body.startswith(b"JFIF\0"):
            kept, body = True, body[:12] + b"\0\0"
        kept = (
            kept or (kind == 0xE2 and body.startswith(b"ICC_PROFILE\0")) or (kind == 0xEE and body.startswith(b"Adobe"))
        )
        at = after + length
        if kept:
            parts.append(bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body)
        if kind == 0xDA:  # coded data follow, up to the next marker
            following = MARKER.search(content, at)
            end = len(content) if following is None else following.start()
            parts.append(content[at:end])
            at = end
    return b"".join(parts)


def _png(content: bytes) -> bytes:
    turn, parts, at = _turned(content)[6:], [content[:8]], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if kind == b"IDAT" and turn:
            parts.append(_chunk(b"eXIf", turn))
            turn = b""
        if kind[:1].isupper() or kind in PNG_KEPT:
            parts.append(content[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    from zlib import crc32

    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc32(kind + body))


def _webp(content: bytes) -> bytes:
    turn, parts, at = _turned(content), [], 12
    while at + 8 <= len(content):
        kind, (length,) = content[at : at + 4], struct.unpack_from("<I", content, at + 4)
        end = at + 8 + length + length % 2
        chunk = content[at:end]
        if kind == b"VP8X":  # bit 3: EXIF follows; bit 2: XMP
            chunk = chunk[:8] + bytes((chunk[8] & ~0b1100 | (0b1000 if turn else 0),)) + chunk[9:]
        if kind in WEBP_KEPT:
            parts.append(chunk)
        at = end
    if turn:
        parts.append(b"EXIF" + struct.pack("<I", len(turn)) + turn + b"\0" * (len(turn) % 2))
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(content: bytes) -> bytes:
    flags = content[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    parts = [content[:at]]
    while at < len(content):
        start, kind = at, content[at]
        if kind == 0x2C:  # a picture
            flags = content[at + 9]
            at = _blocks(content, at + 11 + (3 << (flags & 7) + 1 if flags & 128 else 0))
            kept = True
        elif kind == 0x21:  # an extension: how a picture is shown, how often all are; comments and XMP go
            kept = content[at + 1] == 0xF9 or content[at + 3 : at + 14] == b"NETSCAPE2.0"
            at = _blocks(content, at + 2)
        else:
            parts.append(b"\x3b")
            break
        if kept:
            parts.append(content[start:at])
    return b"".join(parts)


def _blocks(content: bytes, at: int) -> int:
    """Say where a row of blocks ends, each with its length before it, the last one empty."""
    while at < len(content) and content[at]:
        at += content[at] + 1
    return at + 1


def _tiff(content: bytes) -> bytes:
    """Directories are made shorter where they stand, and what left them is overwritten: no offset of pixels moves."""
    file = bytearray(content)
    order = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", content, 2)[0] == 43
    offset, number = ("Q", "Q") if big else ("I", "H")
    entry, wide = order + "HH" + offset + f"{8 if big else 4}s", 8 if big else 4
    width = {"I": 4, "Q": 8}
    waiting, seen = [(struct.unpack_from(order + offset, content, 8 if big else 4)[0], True)], set()

    def values(form: str, body: bytes) -> Iterator[int]:
        yield from (one for (one,) in struct.iter_unpack(order + form, body[: len(body) // width[form] * width[form]]))

    entries = 0
    while waiting:
        at, keep = waiting.pop()
        if at in seen or not 0 < at < len(file):
            continue
        seen.add(at)
        (count,) = struct.unpack_from(order + number, content, at)
        first = at + struct.calcsize(number)
        size = struct.calcsize(entry)
        kept, entries = [], entries + count
        if entries > MOST_ENTRIES:
            raise ValueError("no camera writes that many tags")
        for place in range(first, first + count * size, size):
            tag, kind, length, value = struct.unpack_from(entry, content, place)
            weight = TIFF_SIZES.get(kind, 1) * length
            there = int.from_bytes(value, "little" if order == "<" else "big")
            body = content[there : there + weight] if weight > wide else value[:weight]
            stays = keep and tag in TIFF_KEPT
            if tag in SUB_DIRECTORIES and length <= MOST_ENTRIES:
                waiting += [(below, stays) for below in values("Q" if TIFF_SIZES.get(kind) == 8 else "I", body)]
            if stays:
                kept.append(content[place : place + size])
            elif weight > wide:
                file[there : there + weight] = bytes(len(body))
        following = first + count * size
        link = content[following : following + wide]
        waiting += [(below, keep) for below in values(offset, link)]
        shorter = struct.pack(order + number, len(kept)) + b"".join(kept) + link
        file[at : following + len(link)] = shorter.ljust(following + len(link) - at, b"\0")
    return bytes(file)


def _pnm(content: bytes) -> bytes:
    """Portable pixmaps have comments in their heads, those written as text anywhere."""
    if content[1:2] in b"123":
        return re.sub(rb"#[^\n]*", b"", content)
    words, at = [content[:2]], 2
    while len(words) < (3 if content[1:2] == b"4" else 4):
        word = re.compile(rb"(?:\s|#[^\n]*\n)*([^\s#]+)").match(content, at)
        if word is None:
            raise ValueError("the head is cut short")
        words.append(word[1])
        at = word.end()
    return b"\n".join([b" ".join(words), content[at + 1 :]])


def _bmp(content: bytes) -> bytes:
    return content  # it holds a size and pixels


KINDS: list[tuple[re.Pattern[bytes], Callable[[bytes], bytes]]] = [
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"P[1-6]\s"), _pnm),
    (re.compile(rb"BM"), _bmp),
]
