"""The parts of PNG, JPEG and WebP files, read before a decoder sees them.

What a decoder does not need decides nothing: texts, colour profiles, EXIF, XMP, further images of
one file and damaged metadata are left out, and bytes that only look like a marker do not count as
one.  Of the metadata one number is used, the orientation in EXIF.  All walks are linear in the size
of the file and end at a number of parts.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Pixels, palette and transparency.
_PNG_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_JPEG_SCAN, _JPEG_END, _JPEG_COMMENT = 0xDA, 0xD9, 0xFE
_JPEG_APPLICATION = range(0xE0, 0xF0)
# Colour space and transform of the values; shorter ones say nothing to a decoder.
_JPEG_NEEDED = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_JPEG_EXIF = 0xE1
# Of the markers that a segment follows.  Neither stuffed bytes (00) and fill (FF) are markers, nor
# restarts (D0 to D7), nor the numbers below C0, which decoders skip without a segment.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_WEBP_NEEDED = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"))
_WEBP_METADATA_FLAGS = 0x2C  # of VP8X: colour profile, EXIF, XMP
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LOSSLESS = frozenset((0xC3, 0xC7, 0xCB, 0xCF))
_EXIF_START = b"Exif\0\0"
_ORIENTATION = 0x0112  # EXIF's number of the tag
_UPRIGHT = 1


class TooManyParts(ValueError):
    """A file has more chunks or segments than any image needs."""


class Bare(NamedTuple):
    """A file without its metadata.

    Attributes:
        content: the file as a decoder may read it.
        orientation: EXIF's number, 1 to 8; 1 where the file names none that can be read.
        scan_count: scans of a JPEG up to its end marker, else 0.
    """

    content: bytes
    orientation: int = _UPRIGHT
    scan_count: int = 0


class _Segment(NamedTuple):
    """A marker of a JPEG and what follows it: bytes ``start`` to ``end``, the marker included."""

    marker: int
    start: int
    end: int


def bare(content: bytes, max_parts: int) -> Bare:
    """The file without metadata; one of another format, or without parts, as it is.

    What follows the last part that is whole stays, so that a damaged file is still damaged.

    Raises:
        TooManyParts: more than ``max_parts`` chunks or segments.
    """
    if content.startswith(PNG_START):
        return _bare_png(content, max_parts)
    if content.startswith(JPEG_START):
        return _bare_jpeg(content, max_parts)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _bare_webp(content, max_parts)
    return Bare(content)


def is_cut(content: bytes, max_parts: int) -> bool:
    """Whether a PNG, JPEG, WebP or BMP ends before its last part.

    Raises:
        TooManyParts: see `bare`.
    """
    if content.startswith(PNG_START):
        kinds = [kind for kind, _, _ in _chunks(content, max_parts)]
        return kinds[-1:] != [b"IEND"]
    if content.startswith(JPEG_START):
        ends = [one.marker for one in _segments(content, max_parts)]
        return ends[-1:] != [_JPEG_END]
    if content.startswith(b"BM"):
        return int.from_bytes(content[2:6], "little") > len(content)
    return len(content) < 12 or 8 + int.from_bytes(content[4:8], "little") > len(content)


def unusual_jpeg(jpeg: bytes, max_parts: int) -> str:
    """How a JPEG is coded where decoders cannot read that; empty where they can.

    Raises:
        TooManyParts: see `bare`.
    """
    for one in _segments(jpeg, max_parts):
        if one.marker in _JPEG_FRAMES:
            if one.marker in _JPEG_LOSSLESS:
                return "lossless"
            depth = jpeg[one.start + 4 : one.start + 5]
            return "" if depth in (b"\x08", b"") else f"of {depth[0]} bits"
    return ""


def orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none.

    Only its entry is read: the values of others may overlap, which makes 64 KiB gigabytes.
    """
    tiff = exif.removeprefix(_EXIF_START)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return _UPRIGHT
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for entry in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHI4s", tiff, entry)
            if tag == _ORIENTATION:
                number = _number(order, kind, value)
                return number if number in range(1, 9) else _UPRIGHT
    except struct.error:  # the table ends beyond the file
        return _UPRIGHT
    return _UPRIGHT


def _number(order: str, kind: int, value: bytes) -> int:
    """Of TIFF's kinds byte, short and long; 0 of others."""
    form = {1: "B", 3: "H", 4: "I"}.get(kind)
    return 0 if form is None else int(struct.unpack_from(order + form, value)[0])


def _bare_png(png: bytes, max_parts: int) -> Bare:
    kept, turned, position = [PNG_START], _UPRIGHT, len(PNG_START)
    for kind, start, end in _chunks(png, max_parts):
        position = end
        if kind in _PNG_NEEDED:
            kept.append(png[start:end])
        if kind == b"eXIf" and _is_whole(png[start:end]):
            turned = orientation(png[start + 8 : end - 4])
        if kind == b"IEND":
            return Bare(b"".join(kept), turned)
    return Bare(b"".join([*kept, png[position:]]), turned)


def _chunks(png: bytes, max_parts: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every whole chunk up to the last."""
    position = len(PNG_START)
    for _ in range(max_parts):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        kind = png[position + 4 : position + 8]
        if len(kind) < 4 or end > len(png):
            return
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise TooManyParts


def _is_whole(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _bare_jpeg(jpeg: bytes, max_parts: int) -> Bare:
    segments = list(_segments(jpeg, max_parts))
    scan_count = sum(one.marker == _JPEG_SCAN for one in segments)
    kept, turned, position = [], _UPRIGHT, 0
    for one in segments:
        if one.marker == _JPEG_SCAN:
            break  # decoders pass over what is between scans
        body = jpeg[one.start + 4 : one.end]
        if one.marker == _JPEG_EXIF and body.startswith(_EXIF_START) and turned == _UPRIGHT:
            turned = orientation(body)
        if _is_metadata(one.marker, body) and one.end <= len(jpeg):
            kept.append(jpeg[position : one.start])
            position = one.end
    return Bare(b"".join([*kept, jpeg[position:]]), turned, scan_count)


def _is_metadata(marker: int, body: bytes) -> bool:
    if marker in _JPEG_NEEDED:
        start, least = _JPEG_NEEDED[marker]
        return not (body.startswith(start) and len(body) >= least)
    return marker in _JPEG_APPLICATION or marker == _JPEG_COMMENT


def _segments(jpeg: bytes, max_parts: int) -> Iterator[_Segment]:
    """Every segment up to the end marker, which is the last one where the file has it."""
    position = len(JPEG_START)
    for _ in range(max_parts):
        found = _JPEG_MARKER.search(jpeg, position)
        if found is None:
            return
        marker, start = found[1][0], found.end()
        # Of the segment after the marker; a scan's pixels follow it up to the next marker.
        position = start + max(2, int.from_bytes(jpeg[start : start + 2], "big"))
        yield _Segment(marker, found.start(), position)
        if marker == _JPEG_END:
            return
    raise TooManyParts


def _bare_webp(webp: bytes, max_parts: int) -> Bare:
    kept, turned, position = [], _UPRIGHT, 12
    last = min(len(webp), 8 + int.from_bytes(webp[4:8], "little"))
    for _ in range(max_parts):
        size = int.from_bytes(webp[position + 4 : position + 8], "little")
        end = position + 8 + size + size % 2
        if position + 8 > last or position + 8 + size > last:
            break
        kind, body = webp[position : position + 4], webp[position + 8 : position + 8 + size]
        if kind == b"EXIF" and turned == _UPRIGHT:
            turned = orientation(body)
        if kind == b"VP8X" and body:
            body = bytes([body[0] & ~_WEBP_METADATA_FLAGS]) + body[1:]
        if kind in _WEBP_NEEDED:
            kept.append(kind + size.to_bytes(4, "little") + body + b"\0" * (size % 2))
        position = end
    else:
        raise TooManyParts
    return Bare(_riff(kept, webp, position), turned)


def _riff(kept: list[bytes], webp: bytes, position: int) -> bytes:
    """The file of the chunks ``kept``; what it lacks from ``position`` on, it still lacks."""
    stated = 8 + int.from_bytes(webp[4:8], "little")
    rest = webp[position : min(len(webp), stated)]
    size = 4 + sum(map(len, kept)) + max(0, stated - position)
    return b"".join([b"RIFF", min(size, 2**32 - 2).to_bytes(4, "little"), b"WEBP", *kept, rest])
