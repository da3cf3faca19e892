"""Small files of every kind whose pixels a reader can get wrong, drawn here."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 80
_STEPS = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def every_file() -> dict[str, bytes]:
    """By name; none of them is square, or of the size of a model."""
    return {**_png_files(), **_turned_files(), **_jpeg_files(), **_webp_files()}


def _colour() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    return Image.fromarray(values).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def _layered() -> Image.Image:
    layered = _colour()
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    layered.putalpha(Image.fromarray(ramp))
    return layered


def _deep() -> np.ndarray:
    return (np.arange(HEIGHT * WIDTH, dtype=np.uint16) * 17).reshape(HEIGHT, WIDTH)


def _png_files() -> dict[str, bytes]:
    colour, layered, deep = _colour(), _layered(), Image.fromarray(_deep())
    plain = saved(colour)
    profile = b"a\0\0" + zlib.compress(bytes(3000))
    modes = {f"mode_{mode}.png": saved(layered.convert(mode)) for mode in ("1", "L", "LA", "P")}
    chunks = {
        "gamma": with_chunk(plain, b"gAMA", struct.pack(">I", 100_000)),
        "srgb": with_chunk(plain, b"sRGB", b"\0"),
        "profile": with_chunk(plain, b"iCCP", profile),
        "video": with_chunk(plain, b"cICP", bytes((9, 16, 0, 1))),
        "animated": saved(colour, save_all=True, append_images=[colour.rotate(180)]),
    }
    return {
        **modes,
        "rgb.png": plain,
        "rgba.png": saved(layered),
        "palette_alpha.png": saved(colour.convert("P"), transparency=bytes(range(256))),
        "palette_key.png": saved(colour.convert("P"), transparency=3),
        "grey_key.png": saved(colour.convert("L"), transparency=120),
        "rgb_key.png": saved(colour, transparency=colour.getpixel((0, 0))),
        "palette_2_bits.png": saved(colour.quantize(4), bits=2),
        "grey_16_bits.png": saved(deep),
        "grey_16_bits_key.png": with_chunk(saved(deep), b"tRNS", struct.pack(">H", 17 * 999)),
        "grey_12_bits.png": saved(Image.fromarray(_deep() >> 4)),
        "rgb_16_bits.png": _raw_png(np.stack([_deep()] * 3, axis=2).astype(">u2")),
        "rgba_16_bits.png": _raw_png(np.stack([_deep()] * 4, axis=2).astype(">u2")),
        "interlaced.png": _raw_png(np.asarray(colour), is_interlaced=True),
        **{f"{name}.png": content for name, content in chunks.items()},
    }


def _turned_files() -> dict[str, bytes]:
    files = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
            files[f"turned_{orientation}.{ending}"] = saved(_colour(), kind, exif=exif)
    return files


def _jpeg_files() -> dict[str, bytes]:
    colour = _colour()
    cmyk = saved(colour.convert("CMYK"), "JPEG")
    transform = cmyk.index(b"Adobe") + 11
    many = saved(colour, "MPO", save_all=True, append_images=[colour.rotate(180)])
    return {
        "grey.jpg": saved(colour.convert("L"), "JPEG"),
        "progressive.jpg": saved(colour, "JPEG", progressive=True),
        **{f"subsampled_{i}.jpg": saved(colour, "JPEG", subsampling=i) for i in range(3)},
        "rgb.jpg": saved(colour, "JPEG", keep_rgb=True),
        "cmyk.jpg": cmyk,
        "ycck.jpg": cmyk[:transform] + b"\2" + cmyk[transform + 1 :],
        "profile.jpg": saved(colour, "JPEG", icc_profile=bytes(3000)),
        "two_photographs.jpg": many,
    }


def _webp_files() -> dict[str, bytes]:
    colour, layered = _colour(), _layered()
    return {
        "lossy.webp": saved(colour, "WEBP"),
        "lossless.webp": saved(colour, "WEBP", lossless=True),
        "alpha.webp": saved(layered, "WEBP"),
        "alpha_lossless.webp": saved(layered, "WEBP", lossless=True),
        "animated.webp": saved(layered, "WEBP", save_all=True, append_images=[colour.rotate(180)]),
        "profile.webp": saved(colour, "WEBP", icc_profile=bytes(3000)),
    }


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    return png[:33] + _chunk(kind, body) + png[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))


def _raw_png(values: np.ndarray, *, is_interlaced: bool = False) -> bytes:
    """PNGs that Pillow cannot write: (H, W, 3 or 4) of 8 or 16 bits, Adam7."""
    height, width, channels = values.shape
    colour = {3: 2, 4: 6}[channels]
    steps = _STEPS if is_interlaced else ((0, 0, 1, 1),)
    parts = [values[top::down, left::across] for left, top, across, down in steps]
    lines = b"".join(b"\0" + line.tobytes() for part in parts for line in part)
    head = struct.pack(
        ">IIBBBBB", width, height, 8 * values.itemsize, colour, 0, 0, int(is_interlaced)
    )
    return b"".join([
        b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(lines)),
        _chunk(b"IEND", b""),
    ])  # fmt: skip
