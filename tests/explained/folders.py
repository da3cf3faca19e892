"""Folders of images for jobs: good ones, and what is no image."""

from pathlib import Path

import numpy as np
from PIL import Image

from candor.contracts.explanation_jobs import ExplanationOptions
from candor.explained.job import JobPlace, LocalJob

OPTIONS = ExplanationOptions(solver="fast", steps=2, batch_size=4)
# Long enough for other blocks to come first, short enough to wait for the lost one's end.
LEASE_SECONDS = 1.0


def make_images(folder: Path, count: int) -> Path:
    """``count`` images in two folders, beside a text that says it is one and a file cut short."""
    generator = np.random.default_rng(8)
    for index in range(count):
        path = folder / ("a" if index % 2 else "b/c") / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 40, 3), np.uint8)).save(path)
    (folder / "b" / "no.jpg").write_text("no image")
    (folder / "cut.png").write_bytes(path.read_bytes()[:200])
    (folder / "notes.txt").write_text("no image, and does not say so")
    return folder


def local_job(images: Path, out: Path, model: Path) -> LocalJob:
    place = JobPlace(images=images, out=out, lease_seconds=LEASE_SECONDS)
    return LocalJob(place=place, options=OPTIONS, model=model)


def content(folder: Path) -> dict[str, bytes]:
    """Every result by its name."""
    files = [folder / "explanations.parquet", *folder.glob("blocks/**/*.*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
