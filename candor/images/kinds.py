"""What a file is that cannot be read as an image, said so that a person knows what to do."""

import base64
import binascii
import json
from collections.abc import Callable, Mapping

from candor.images import metadata

_MARK = "\ufffd".encode()  # what is written in place of bytes that are no text
_TEXT_BYTES = 4096
_SHOWN_CHARS = 40
_STARTS: Mapping[bytes, str] = {
    metadata.PNG_START: "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "a GIF",
    b"GIF89a": "a GIF",
    b"BM": "a BMP",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"FUJIFILMCCD-RAW": "a camera's raw file",
    b"IIRO": "a camera's raw file",
    b"IIRS": "a camera's raw file",
    b"IIU\0": "a camera's raw file",
    b"II*\0": "a TIFF or a camera's raw file (DNG, NEF, ARW, CR2)",
    b"MM\0*": "a TIFF or a camera's raw file (DNG, NEF, ARW, CR2)",
    b"II+\0": "a TIFF",
    b"MM\0+": "a TIFF",
    b"8BPS": "a Photoshop file",
    b"\0\0\1\0": "an icon (ICO)",
    b"\0\0\2\0": "a cursor (CUR)",
    b"icns": "an icon of macOS (ICNS)",
    **dict.fromkeys((b"P2\n", b"P3\n", b"P5\n", b"P6\n"), "a PNM image"),
    b"DDS ": "a DDS image",
    b"II\xbc\1": "a JPEG XR",
    b"BPG\xfb": "a BPG image",
    b"FLIF": "a FLIF image",
    b"\1\xda\0": "an SGI image",
    b"\1\xda\1": "an SGI image",
    b"SIMPLE  =": "a FITS image",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile (WMF)",
    b"%!PS": "a PostScript file",
    b"\0\5\x16\7": "what macOS writes beside a file (AppleDouble, ._name)",
    b"\0\0\0\1Bud1": "what macOS writes into folders (.DS_Store)",
    b"[InternetShortcut]": "a link to a web page (.url)",
    b"L\0\0\0\1\x14\2\0": "a shortcut of Windows (.lnk)",
    b"\x1a\x45\xdf\xa3": "a film (WebM or Matroska)",
    b"OggS": "a film or a sound (Ogg)",
    b"ID3": "a sound (MP3)",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"qoif": "a QOI image",
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "an empty ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a document of an older Office",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3\0": "an SQLite database",
    b"\x7fELF": "a program",
    b"MZ": "a program of Windows",
    b"HTTP/": "a response of HTTP, headers and all",
    b"\x93NUMPY": "a NumPy array",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG whose line ends were converted by a text transfer",
    b"\xc2\x89PNG": "a PNG that was converted from Latin-1 to UTF-8 as if it were text",
    b"\xc3\xbf\xc3\x98": "a JPEG that was converted from Latin-1 to UTF-8 as if it were text",
}
# Of the ISO base media format, after "ftyp".
_BRANDS: Mapping[bytes, str] = {
    **dict.fromkeys((b"avif", b"avis"), "an AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "a HEIC"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), "a HEIF (HEIC or AVIF)"),
    b"crx ": "a camera's raw file (CR3)",
}
_RIFF: Mapping[bytes, str] = {b"WAVE": "a sound (WAV)", b"AVI ": "a film (AVI)"}
_TEXTS: Mapping[str, str] = {
    "version https://git-lfs.github.com/spec/": "a Git LFS pointer (run `git lfs pull`)",
    "version https://hawser.github.com/spec/": "a Git LFS pointer (run `git lfs pull`)",
    "version http://git-media.io/": "a Git LFS pointer (run `git lfs pull`)",
    **dict.fromkeys(
        ("/annex/objects/", "../.git/annex/objects/", ".git/annex/objects/"),
        "a git-annex pointer (run `git annex get`)",
    ),
    "<!doctype html": "an HTML page",
    **dict.fromkeys(("<html", "<head", "<body", "<title", "<script", "<meta"), "an HTML page"),
    "<svg": "an SVG",
    "<!doctype svg": "an SVG",
}
SUPPORTED = {"PNG": "a PNG", "JPEG": "a JPEG", "WEBP": "a WebP", "BMP": "a BMP"}


def kind_of(content: bytes) -> str:
    """What a file is by its content, with an article: "a GIF", "an HTML page".

    Linear in the size of the file.
    """
    for kind in (_by_start, _by_container, _passed_through_text, _by_text, _after_others):
        found = kind(content)
        if found:
            return found
    return "data of an unknown format" if content.strip(b"\0") else "nothing but zero bytes"


def _by_start(content: bytes) -> str:
    found = next((kind for start, kind in _STARTS.items() if content.startswith(start)), "")
    return SUPPORTED.get(found, found)


def _by_container(content: bytes) -> str:
    if content.startswith(b"RIFF"):
        if content[8:12] in _RIFF:
            return _RIFF[content[8:12]]
        return "a WebP" if content[8:12] == b"WEBP" and not _is_marked(content) else ""
    if content[4:8] == b"ftyp":
        brands = [content[8:12], *(content[at : at + 4] for at in range(16, 64, 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "a film (MP4)")
    if content[257:262] == b"ustar":
        return "a tar archive"
    return "a DICOM file" if content[128:132] == b"DICM" else ""


def _is_marked(content: bytes) -> bool:
    """Whether bytes were replaced; by chance a file of 8 MiB has two marks once in ten times."""
    return content.startswith(_MARK) or content.count(_MARK, 0, 2**16) > 2


def _passed_through_text(content: bytes) -> str:
    if not _is_marked(content):
        return ""
    names = {b"PNG\r": "a PNG", b"JFIF": "a JPEG", b"Exif": "a JPEG", b"WEBP": "a WebP"}
    kind = next((name for sign, name in names.items() if sign in content[:64]), "data")
    return f"{kind} whose bytes were damaged by passing through text (UTF-8 marks in it)"


def _by_text(content: bytes) -> str:
    text = _text_of(content)
    if not text:
        return ""
    lower = text.lower()
    checks: tuple[Callable[[str], str], ...] = (_data_uri, _base64, _json)
    found = next((kind for start, kind in _TEXTS.items() if lower.startswith(start)), "")
    if not found and lower.startswith(("<?xml", "<!--")):
        found = next((_TEXTS[tag] for tag in ("<svg", "<html") if tag in lower), "an XML file")
    found = found or next((kind for check in checks if (kind := check(text))), "")
    return found or f"text that begins {text[:_SHOWN_CHARS].splitlines()[0]!r}"


def _after_others(content: bytes) -> str:
    """A page in an older encoding; an image behind other bytes, as of a form or a response."""
    start = content[:_TEXT_BYTES].lstrip().lower()
    tags = (tag.encode() for tag, kind in _TEXTS.items() if kind == "an HTML page")
    if start.startswith(tuple(tags)):
        return "an HTML page"
    for sign in (metadata.PNG_START, b"\xff\xd8\xff"):
        place = content.find(sign, 0, _TEXT_BYTES)
        if place > 0:
            return f"{SUPPORTED[_STARTS[sign]]} behind {place} other bytes"
    return ""


def _text_of(content: bytes) -> str:
    """The beginning of a text; empty where it is none."""
    part = content[:_TEXT_BYTES]
    encoding = "utf-16" if part.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        # Up to three bytes: the end may cut a character.
        text = part.decode(encoding, errors="strict" if len(part) == len(content) else "ignore")
    except UnicodeDecodeError:
        return ""
    is_text = all(one.isprintable() or one in "\t\r\n\f" for one in text)
    return text.strip() if is_text and len(text) * 4 >= len(part) else ""


def _data_uri(text: str) -> str:
    if not text.lower().startswith("data:"):
        return ""
    return f"a data URI ({text[5:_SHOWN_CHARS].partition(',')[0]!r}) instead of the bytes in it"


def _base64(text: str) -> str:
    """The text of an image in base64; any word without blanks could be base64 of something."""
    letters = "".join(text.split())
    for decode in (base64.b64decode, base64.urlsafe_b64decode):
        try:
            start = decode(letters[: len(letters) // 4 * 4])
        except (binascii.Error, ValueError):
            continue
        kind = _by_start(start) or _by_container(start)
        if kind and len(start) > 8:
            return f"base64 text of {kind} instead of its bytes"
    return ""


def _json(text: str) -> str:
    if not text.startswith(("{", "[")):
        return ""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        if len(text) < _TEXT_BYTES // 2:
            return ""
    return f"JSON that begins {text[:_SHOWN_CHARS].splitlines()[0]!r}"
