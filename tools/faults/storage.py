"""A full disk below the store, and a damaged archive, under traffic."""

import os
import signal
import time

import httpx

from candor.contracts import api
from candor.contracts.secrets import Secret
from candor.stack.archives import build_archives
from candor.store.annotations import Annotations
from candor.store.engine import open_store
from tests.store.stores import fill
from tools.faults.site import Site
from tools.faults.traffic import Traffic, image
from tools.reliability import Row
from tools.small_disk import fill_up
from tools.small_models import SMALL_PLAIN_MODEL

_SAVED = 20  # verdicts before the disk is full, at most as many meanwhile, and again after
_RECOVERY_SECONDS = 30.0
_RELOAD_SECONDS = 120.0
_SECONDS = 60.0  # of one call
_ANNOTATOR: dict[str, object] = {"annotator": "faults"}
_REPORT: dict[str, object] = {"model": SMALL_PLAIN_MODEL, "image_count": 10}


def disk_full(site: Site) -> Row:
    """Verdicts and report jobs are rejected meanwhile; other requests are not affected."""
    store = open_store((site.stack.config.store_url or Secret()).reveal())
    fill(store, 4 * _SAVED)
    store.close()
    ballast = site.disk / "ballast"
    with Traffic(site.stack.grpc_address) as traffic:
        before, _ = _annotate(site)
        fill_up(ballast)
        meanwhile, verdict_status = _annotate(site)
        report_status = _request_reports(site)
        ballast.unlink()
        freed = time.monotonic()
        after, status = _annotate(site)
        created = _post(site, "reports", _REPORT).status_code
        seconds = time.monotonic() - freed
    saved, kept = before + meanwhile + after, _kept(site)
    lost = abs(saved - kept) + len(traffic.complaints)
    was_rejected = (verdict_status, report_status) == (503, 503)
    is_mended = (status, created) == (200, 200) and seconds <= _RECOVERY_SECONDS
    return Row(
        what="disk of the store full: verdicts and report jobs",
        tried=traffic.tried + saved + 3,
        lost=lost,
        measured=f"rejected with {verdict_status} and {report_status} (allowed 503), {kept} of "
        f"{saved} saved verdicts kept, saves again after {seconds:.1f} s "
        f"(allowed {_RECOVERY_SECONDS:.0f})",
        is_held=was_rejected and is_mended and not lost,
    )


def archive_damaged(site: Site) -> Row:
    """One model's weights are damaged and its worker has to load them; the other serves on."""
    archive = site.stack.config.archives_dir / f"{SMALL_PLAIN_MODEL}-predict"
    weights = archive / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"evil")
    worker = site.stack.worker_pid(SMALL_PLAIN_MODEL, "predict")
    with Traffic(site.stack.grpc_address) as traffic:
        os.kill(worker, signal.SIGKILL)
        rejected = _predict(site, SMALL_PLAIN_MODEL)
        message = rejected.json().get("error", {}).get("message", "")
        build_archives(site.stack.config.models_dir, site.stack.config.archives_dir)
        is_mended = weights.read_bytes() == whole
        mended = time.monotonic()
        while (status := _predict(site, SMALL_PLAIN_MODEL).status_code) == 503:
            if time.monotonic() > mended + _RELOAD_SECONDS:
                break
        seconds = time.monotonic() - mended
    is_named = rejected.status_code == 503 and SMALL_PLAIN_MODEL in message
    return Row(
        what="archive of one model damaged, its worker killed",
        tried=traffic.tried,
        lost=len(traffic.complaints),
        measured=f"{SMALL_PLAIN_MODEL} rejected with {rejected.status_code} (expected 503), the "
        f"archive rebuilt, serves again after {seconds:.1f} s (allowed {_RELOAD_SECONDS:.0f})",
        is_held=is_named and is_mended and status == 200 and not traffic.complaints,
    )


def _annotate(site: Site) -> tuple[int, int]:
    """Verdicts saved, at most `_SAVED`, and the last status."""
    response = _post(site, "annotations:next", _ANNOTATOR)
    for saved in range(_SAVED):
        if response.status_code != 200:
            return saved, response.status_code
        verdict = {"candidate": response.json()["task"]["candidate"], "verdict": "unsure"}
        response = _post(site, "annotations:answer", {**_ANNOTATOR, **verdict})
    return _SAVED, response.status_code


def _request_reports(site: Site) -> int:
    """Until one is rejected; the first may fit into a page that is there."""
    for _ in range(_SAVED):
        status = _post(site, "reports", _REPORT).status_code
        if status != 200:
            return status
    return status


def _kept(site: Site) -> int:
    """Verdicts on disk, read by a process that never wrote them."""
    store = open_store((site.stack.config.store_url or Secret()).reveal())
    try:
        return len(Annotations(store).judgements())
    finally:
        store.close()


def _predict(site: Site, model: str) -> httpx.Response:
    request = api.PredictRequest(model=model, image=image(0))
    return _post(site, "predict", request.model_dump(mode="json", exclude_none=True))


def _post(site: Site, path: str, body: dict[str, object]) -> httpx.Response:
    return httpx.post(
        f"{site.stack.rest_url}/v1/{path}", json=body, timeout=_SECONDS, trust_env=False
    )
