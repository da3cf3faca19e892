"""The parts of PNG and JPEG files, read before a decoder sees them.

What a decoder does not need decides nothing: large texts, colour profiles and damaged metadata are
left out, and bytes that only look like a marker do not count as one.  Both walks are linear in the
size of the file and end at a number of parts.
"""

import re
from collections.abc import Iterator

PNG_START, JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Pixels, palette, transparency and orientation.
_PNG_NEEDED = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"))
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
# Of the markers that a segment follows.  Neither stuffed bytes (00) and fill (FF) are markers, nor
# restarts (D0 to D7), nor the numbers below C0, which decoders skip without a segment.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")


class TooManyParts(ValueError):
    """A file has more chunks or segments than any image needs."""


def without_metadata(png: bytes, max_parts: int) -> bytes:
    """A PNG file without the chunks that its pixels do not need.

    What follows the last chunk that is whole stays, so that a damaged file is still damaged.

    Raises:
        TooManyParts: more than ``max_parts`` chunks.
    """
    kept = [PNG_START]
    position = len(PNG_START)
    for _ in range(max_parts):
        end = position + 12 + int.from_bytes(png[position : position + 4], "big")
        kind = png[position + 4 : position + 8]
        if len(kind) < 4 or end > len(png):
            return b"".join([*kept, png[position:]])
        if kind in _PNG_NEEDED:
            kept.append(png[position:end])
        if kind == b"IEND":
            return b"".join(kept)
        position = end
    raise TooManyParts


def scan_count(jpeg: bytes, max_parts: int) -> int:
    """Number of scans of a JPEG file up to its end marker.

    Raises:
        TooManyParts: more than ``max_parts`` segments.
    """
    return sum(marker == _JPEG_SCAN for marker in _markers(jpeg, max_parts))


def _markers(jpeg: bytes, max_parts: int) -> Iterator[int]:
    position = len(JPEG_START)
    for _ in range(max_parts):
        found = _JPEG_MARKER.search(jpeg, position)
        if found is None or found[1][0] == _JPEG_END:
            return
        yield found[1][0]
        start = found.end()
        # Of the segment after the marker; a scan's pixels follow it up to the next marker.
        position = start + max(2, int.from_bytes(jpeg[start : start + 2], "big"))
    raise TooManyParts
