"""``python -m tools.images`` builds both images here and explains a photograph through them.

Needs root, and of Debian buildah, crun, debootstrap, iproute2 and util-linux; everything it makes
stays in out/images, so that a second run takes a fraction of the first.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image as Picture
from rich.console import Console
from rich.table import Table

from tools.images import build
from tools.images.build import Builder, Image
from tools.images.scenes import SCENES, Row, play
from tools.images.shell import OUT, ImagesError, require_tools


def main() -> int:
    """Exit code 0 where everything held, 1 where not, 2 where it could not be tried."""
    parser = argparse.ArgumentParser(prog="tools.images", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="make the base and all steps anew")
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no container behind
    try:
        require_tools()
        if parser.parse_args().fresh:
            shutil.rmtree(OUT, ignore_errors=True)
        for row in _checked():
            print(f"{'held' if row.holds else 'FAILED'}: {row.what}: {row.found}", flush=True)
            rows.append(row)
    except ImagesError as err:
        print(f"images-check: {err}", file=sys.stderr)
        return 2
    _print_table(rows)
    return 0 if all(row.holds for row in rows) else 1


def _checked() -> Iterator[Row]:
    OUT.mkdir(parents=True, exist_ok=True)
    build.fetch_wheels()
    wheel, client = build.install_client()
    yield from _client_rows(wheel, client)
    builder = Builder()
    try:
        digest = builder.base_digest()
        gateway, worker = (builder.build(name, digest) for name in build.IMAGES)
        yield from map(_image_row, (gateway, worker))
        photograph = _photograph()
        for scene in SCENES:
            yield from play(scene, gateway, worker, client / "bin" / "python", photograph)
    finally:
        builder.close()


def _client_rows(wheel: Path, client: Path) -> Iterator[Row]:
    kilobytes, found = wheel.stat().st_size / 1000, build.torch_folders(client)
    installed = build.megabytes(client)
    text = f"wheel {kilobytes:.0f} kB, installed with what it needs and pip {installed:.0f} MB"
    yield Row("client-only install has no torch", text, not found)


def _image_row(image: Image) -> Row:
    is_worker = image.name == "worker"
    what = f"candor-{image.name} builds and has {'torch' if is_worker else 'no torch'}"
    text = f"{image.megabytes:.0f} MB, of which the base {build.megabytes(build.BASE):.0f} MB"
    return Row(what, text, bool(image.torch_folders) == is_worker)


def _photograph() -> Path:
    path = OUT / "photograph.png"
    gradient = Picture.linear_gradient("L").resize((64, 48))
    turned = gradient.transpose(Picture.Transpose.ROTATE_180)
    Picture.merge("RGB", (gradient, turned, gradient)).save(path)
    return path


def _print_table(rows: list[Row]) -> None:
    table = Table("checked", "found", "held", title="make images-check")
    for row in rows:
        table.add_row(row.what, row.found, "yes" if row.holds else "NO")
    Console(width=140).print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main())
