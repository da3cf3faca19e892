"""What is wrong with a file is said by its name, to a request and to a reader of a data set."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from candor.contracts import limits
from candor.images.decode import (
    FILE_FORMATS,
    FILE_LIMITS,
    REQUEST_LIMITS,
    UnusableImage,
    open_image,
)


def saved(kind: str, **options: object) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format=kind, **options)
    return buffer.getvalue()


PNG, JPEG, WEBP = saved("PNG"), saved("JPEG"), saved("WEBP")
FTYP = b"\0\0\0\x18ftyp%s\0\0\0\0mif1"


def through_text(content: bytes) -> bytes:
    return content.decode(errors="replace").encode()


def of_precision(jpeg: bytes, bits: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:place] + bytes([bits]) + jpeg[place + 1 :]


WRONG = {
    "truncated PNG": (PNG[:-40], "a PNG that is truncated"),
    "PNG cut in its header": (PNG[:20], "a PNG that is truncated"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "a JPEG that is truncated"),
    "JPEG cut in its header": (JPEG[:30], "a JPEG that is truncated"),
    "truncated WebP": (WEBP[: len(WEBP) // 2], "a WebP that is truncated"),
    "WebP cut in its header": (WEBP[:14], "a WebP that is truncated"),
    "damaged PNG": (PNG[:60] + b"\0" * 30 + PNG[90:], "a PNG that is damaged"),
    "JPEG of 12 bits": (of_precision(JPEG, 12), "a JPEG that is of 12 bits, which is not supp"),
    "lossless JPEG": (JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), "a JPEG that is lossless"),
    "HEIC": (FTYP % b"heic", "a HEIC"),
    "AVIF": (FTYP % b"avif", "an AVIF"),
    "HEIF": (FTYP % b"mif1", "a HEIF"),
    "film": (FTYP.replace(b"mif1", b"isom") % b"mp42", "a film"),
    "TIFF": (saved("TIFF"), "a TIFF or a camera's raw file"),
    "big TIFF": (b"II+\0\x08\0\0\0" + bytes(20), "a TIFF ("),
    "raw of Fuji": (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
    "GIF": (saved("GIF"), "a GIF"),
    "JPEG XL": (b"\xff\x0a" + bytes(range(40)), "a JPEG XL"),
    "JPEG XL in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "a JPEG XL"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "a JPEG 2000"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG"),
    "SVG without a declaration": (b"<svg/>", "an SVG"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    "HTML page": (b"\n<!DOCTYPE html><html><body>404", "an HTML page"),
    "HTML with a mark of its encoding": (b"\xef\xbb\xbf<html>", "an HTML page"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "a Git LFS pointer",
    ),
    "JSON": (b'{"error": "Access denied"}', 'JSON that begins \'{"error"'),
    "base64": (base64.b64encode(PNG), "base64 text of a PNG instead of its bytes"),
    "base64 in lines": (base64.encodebytes(JPEG), "base64 text of a JPEG instead of its bytes"),
    "data URI": (b"data:image/png;base64," + base64.b64encode(PNG), "a data URI ('image/png;base"),
    "PNG through text": (through_text(PNG), "a PNG whose bytes were damaged by passing through"),
    "JPEG through text": (through_text(JPEG), "a JPEG whose bytes were damaged by passing"),
    "WebP through text": (through_text(WEBP), "a WebP whose bytes were damaged by passing"),
    "PNG as Latin-1": (PNG.decode("latin-1").encode(), "a PNG that was converted from Latin-1"),
    "JPEG as Latin-1": (JPEG.decode("latin-1").encode(), "a JPEG that was converted from Latin-1"),
    "PNG with other line ends": (PNG.replace(b"\r\n", b"\n"), "a PNG whose line ends"),
    "text": (b"Access denied\nsecond line", "text that begins 'Access denied'"),
    "text of UTF-16": ("no image".encode("utf-16"), "text that begins 'no image'"),
    "zero bytes": (bytes(5000), "nothing but zero bytes"),
    "noise": (b"\x01\x9f\xfe" * 50, "data of an unknown format"),
    "HTML page in an older encoding": (
        "<html><title>Seite nicht verf\u00fcgbar".encode("latin-1"),
        "an HTML page",
    ),
    "HTML page without its first tag": (b"\n <head><title>403 Forbidden", "an HTML page"),
    "HTML page with a NUL": (b"<!DOCTYPE html>\0<p>", "an HTML page"),
    "LFS pointer of the first version": (
        b"version https://hawser.github.com/spec/v1\n",
        "a Git LFS pointer",
    ),
    "annex pointer": (b"../.git/annex/objects/x/SHA256E-s1--a.jpg", "a git-annex pointer"),
    "response with its headers": (b"HTTP/1.1 200 OK\r\n\r\n" + PNG, "a response of HTTP"),
    "PNG in a form": (b"--abc\r\nContent-Type: image/png\r\n\r\n" + PNG, "a PNG behind 34 other"),
    "JPEG behind a line end": (b"\r\n" + JPEG, "a JPEG behind 2 other bytes"),
    "PNG behind a byte order mark": (b"\xef\xbb\xbf" + PNG, "a PNG behind 3 other bytes"),
    "icon": (b"\0\0\1\0\1\0" + bytes(30), "an icon (ICO)"),
    "AppleDouble": (b"\0\5\x16\7" + bytes(40), "what macOS writes beside a file"),
    ".DS_Store": (b"\0\0\0\1Bud1" + bytes(40), "what macOS writes into folders"),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt ", "a sound (WAV)"),
    "film of WebM": (b"\x1a\x45\xdf\xa3" + bytes(20), "a film (WebM"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(20), "a 7z archive"),
    "tar": (b"a.jpg".ljust(257, b"\0") + b"ustar\0" + bytes(100), "a tar archive"),
    "DDS": (b"DDS " + bytes(40), "a DDS image"),
    "ZIP": (b"PK\x03\x04" + bytes(30), "a ZIP archive"),
}


@pytest.mark.parametrize(("content", "name"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("is_request", [True, False], ids=["request", "file"])
def test_what_a_file_is_instead_is_named(content: bytes, name: str, is_request: bool) -> None:
    formats, bounds = (
        (limits.IMAGE_FORMATS, REQUEST_LIMITS) if is_request else (FILE_FORMATS, FILE_LIMITS)
    )
    with pytest.raises(UnusableImage) as caught:
        open_image(content, formats=formats, limits=bounds)
    message = str(caught.value)
    assert message.startswith(f"expected {' or '.join(formats)}, got {name}")
    assert f"{len(content)} bytes" in message


def test_an_empty_file_is_named() -> None:
    with pytest.raises(UnusableImage, match="^expected one PNG or JPEG or WEBP image, got 0 bytes"):
        open_image(b"", formats=limits.IMAGE_FORMATS, limits=REQUEST_LIMITS)


def test_a_format_works_where_it_is_supported_and_is_named_elsewhere() -> None:
    bmp = saved("BMP")
    assert open_image(bmp, formats=FILE_FORMATS, limits=FILE_LIMITS).size == (48, 32)
    with pytest.raises(UnusableImage, match="^expected PNG or JPEG or WEBP, got a BMP "):
        open_image(bmp, formats=limits.IMAGE_FORMATS, limits=REQUEST_LIMITS)
    with pytest.raises(UnusableImage, match="got a BMP that is truncated"):
        open_image(bmp[:100], formats=FILE_FORMATS, limits=FILE_LIMITS)


@pytest.mark.parametrize("start", [b"", PNG[:8], JPEG[:4], b"RIFF\0\0\0\0WEBP", b"II*\0", b"\xef"])
def test_naming_ends_for_any_bytes(start: bytes) -> None:
    random = np.random.default_rng(1)
    for size in (1, 7, 100, 5000):
        with pytest.raises(UnusableImage):
            open_image(start + random.bytes(size), formats=FILE_FORMATS, limits=FILE_LIMITS)
