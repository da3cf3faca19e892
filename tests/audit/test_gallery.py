"""The gallery of an audit: which images are in it, and that it is a part of the signed report."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from torch import nn

from candor.audit.errors import AuditStopped
from candor.audit.ledger import PARTS_FOLDER
from candor.audit.plan import Shard
from candor.audit.report.schema import Report
from candor.audit.report.signing import verify_folder
from candor.audit.run import Progress
from candor.audit.sections.comparison import Other, read_other
from candor.audit.session import PreparedAudit, compute, finish
from candor.audit.stage import Subject
from candor.data.images import ImageSet
from tests.fixtures.audit import TINY, card, plan_for, small_network

KEY = Ed25519PrivateKey.generate()
_IMAGES = 3  # of each part


def _prepared(network: nn.Module, data: ImageSet, **counts: int) -> PreparedAudit:
    budget = TINY.model_copy(
        update={"explanation_images": 0, "gallery_images": _IMAGES, "steps": 10} | counts
    )
    plan = plan_for(data, ("clean", "paper", "explanations"), image_count=20, budget=budget)
    return PreparedAudit(subject=Subject(network=network, card=card()), dataset=data, plan=plan)


def _compute(
    folder: Path, prepared: PreparedAudit, other: Other | None, stop_at: int | None = None
) -> None:
    """``stop_at``: the part of the gallery before which the audit is stopped."""
    seen = 0

    def report(progress: Progress) -> None:
        nonlocal seen
        seen += progress.stage == "gallery"
        if seen == stop_at:
            raise AuditStopped

    assert compute(prepared, folder, shard=Shard(), report=report, other=other) == 0


@pytest.fixture(scope="module")
def other(data: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Other:
    folder = tmp_path_factory.mktemp("other")
    _compute(folder, _prepared(small_network(seed=2), data, gallery_images=0), None)
    assert finish(folder, KEY, None).gallery is None
    assert not (folder / "gallery").exists()
    return read_other(folder)


@pytest.fixture(scope="module")
def audited(
    network: nn.Module, data: ImageSet, other: Other, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("audited")
    _compute(folder, _prepared(network, data), other)
    return folder, finish(folder, KEY, other)


def _falls(folder: Path) -> dict[int, tuple[bool, float]]:
    """Whether no radius was found, and the radius or its bound, by index in the data set."""
    rows = pq.read_table(folder / "ledger.parquet").to_pylist()
    return {
        row["index"]: (row["status"] != "found", row["radius_rmse"] or row["lower_bound_rmse"])
        for row in rows
        if row["goal"] == "attack" and row["status"] != "already_wrong"
    }


def _shown(folder: Path) -> list[dict[str, object]]:
    text = (folder / "gallery" / "gallery-index.js").read_text()
    return json.loads(text.partition("=")[2].rstrip(";\n"))


def test_it_has_the_images_that_fall_first_and_last_and_the_largest_disagreements(
    audited: tuple[Path, Report], other: Other
) -> None:
    folder, report = audited
    falls = _falls(folder)
    ordered = [f"{index}.png" for index in sorted(falls, key=lambda index: falls[index])]
    assert len(ordered) > 2 * _IMAGES
    assert falls[int(ordered[-1].removesuffix(".png"))][0], "one that no attack resolved"
    parts: dict[str, list[str]] = {}
    for row in _shown(folder):
        for title in row["choices"]["part"]:
            parts.setdefault(title, []).append(row["texts"]["name"])
    differs = f"differs most from {other.name}"
    assert parts["falls first"] == ordered[:_IMAGES]
    assert parts["falls last"] == ordered[: -_IMAGES - 1 : -1]
    theirs = {
        f"{record.position}.png": record.lower_bound if record.radius is None else record.radius
        for record in other.records
        if record.goal == "attack"
    }
    ours = {f"{index}.png": radius for index, (_, radius) in falls.items()}
    gaps = {name: abs(ours.get(name, 0.0) - theirs[name]) for name in theirs}
    assert set(parts[differs]) == set(sorted(gaps, key=lambda name: -gaps[name])[:_IMAGES])
    assert report.gallery is not None
    assert {part.title: part.image_count for part in report.gallery.parts} == {
        "falls first": _IMAGES,
        "falls last": _IMAGES,
        differs: _IMAGES,
    }
    facts = {row["texts"]["name"]: dict(row["facts"]) for row in _shown(folder)}
    assert facts[ordered[0]]["radius"] == f"RMSE {ours[ordered[0]]:.3g}"
    assert facts[ordered[-1]]["radius"] == f"above RMSE {ours[ordered[-1]]:.3g}"
    assert all(f"radius of {other.name}" in one for one in facts.values())


def test_each_image_is_explained_within_rho(audited: tuple[Path, Report]) -> None:
    folder = audited[0] / "gallery"
    rho = card().recommended_rho
    for row in _shown(audited[0]):
        sides = (
            (folder / row["images"][side]).read_bytes() for side in ("original", "explanation")
        )
        before, after = (np.asarray(Image.open(io.BytesIO(png))) / 255.0 for png in sides)
        assert 0 < np.sqrt(np.square(after - before).mean()) <= rho
        assert row["texts"]["status"] in (
            "is now the target",
            "target is likelier",
            "target is not likelier",
        )


def test_the_report_links_it_and_its_signature_covers_every_file(
    audited: tuple[Path, Report],
) -> None:
    folder, report = audited
    assert '<a href="gallery/index.html">' in (folder / "report.html").read_text()
    files = {str(path.relative_to(folder)) for path in (folder / "gallery").rglob("*.*")}
    verdict = verify_folder(folder)
    assert verdict.is_genuine
    assert files == {name for name in verdict.files if name.startswith("gallery/")}
    assert len(files) == 4 + 2 * report.gallery.image_count
    image = folder / sorted(name for name in files if name.endswith(".png"))[0]
    content = image.read_bytes()
    image.write_bytes(content + b"x")
    name = str(image.relative_to(folder))
    assert verify_folder(folder).problems == (f"{name}: changed since it was signed",)
    image.write_bytes(content)


def test_stopped_within_its_gallery_an_audit_goes_on_and_leaves_the_same(
    audited: tuple[Path, Report], network: nn.Module, data: ImageSet, other: Other, folder: Path
) -> None:
    prepared = _prepared(network, data)
    with pytest.raises(AuditStopped):
        _compute(folder, prepared, other, stop_at=2)
    (kept,) = (folder / PARTS_FOLDER).glob("gallery-*")
    before = kept.stat().st_mtime_ns
    _compute(folder, prepared, other)
    assert kept.stat().st_mtime_ns == before
    report = finish(folder, KEY, other)
    assert report.gallery == audited[1].gallery
    for path in (audited[0] / "gallery").rglob("*.*"):
        assert (folder / path.relative_to(audited[0])).read_bytes() == path.read_bytes()
    assert re.search(r"gallery 0 min \d+ s", (folder / "report.html").read_text())
