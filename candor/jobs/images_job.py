"""Computes a job that explains the images of a folder."""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from candor.audit.session import BadOption, option
from candor.contracts.explanation_jobs import (
    CreateExplanationJobRequest,
    ExplanationJobProgress,
    ExplanationJobResult,
)
from candor.data.registry import default_data_dir
from candor.explained.gallery import write_pages
from candor.explained.images import find_images
from candor.explained.job import JobPlace, LocalJob, target_index
from candor.explained.plan import PlanError
from candor.explained.rows import TABLE_FILE
from candor.explained.work import ExplanationWork, Summary
from candor.files.writing import is_full, replacing
from candor.jobs.lease import Lease
from candor.jobs.outcome import files_of
from candor.jobs.progress import WAITS_FOR_SPACE, Pace
from candor.jobs.shared_work import work_until_done
from candor.models.folder import read_card
from candor.stack.archives import model_folder

ARCHIVE_FILE = "explanations.zip"
IMAGES_FOLDER = "images"  # of a folder of data
_PAGES = ("index.html", "page-*.html", "*.css", "*.js", "blocks/*/*.png")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files are the same archive


def images_root(data_dir: Path | None) -> Path:
    """Where the folders are that a job may name."""
    return (data_dir or default_data_dir()) / IMAGES_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesJob:
    """One job of a worker.

    Attributes:
        out: folder of its results.
        images: see `images_root`.
        store: address of the store, by which its blocks are leased.
        work_name: of its blocks in the store.
    """

    request: CreateExplanationJobRequest
    out: Path
    models_dir: Path
    images: Path
    store: str
    work_name: str
    lease_seconds: float

    def compute(self, lease: Lease, wait_for_space: Callable[[], None]) -> ExplanationJobResult:
        """Explain what is left, then write the gallery and the archive.

        Args:
            lease: of the job; says when it has to stop.
            wait_for_space: returns when the disk has some.
        Raises:
            BadOption: the model, the folder or the target is missing or does not fit.
            AuditStopped: the job has to stop.
        """
        request, job = self.request, self._job()
        with option("model", request.model):
            card = read_card(job.model)
        if not job.place.images.is_dir():
            expected = f"expected a folder in {IMAGES_FOLDER}/ of the worker's data"
            raise BadOption("folder", f"{expected}, got {request.folder!r}")
        with option("folder", request.folder):
            find_images(job.place.images)
        with option("target", str(request.target)):
            target_index(request.target, card.classes)
        try:
            return self._run(job, lease, wait_for_space)
        except PlanError:  # another version of model or code, or other images: it would not fit
            job.place.forget()
            shutil.rmtree(self.out)
            return self._run(job, lease, wait_for_space)

    def _job(self) -> LocalJob:
        place = JobPlace(
            images=self.images / self.request.folder,
            out=self.out,
            store=self.store,
            work_name=self.work_name,
            lease_seconds=self.lease_seconds,
        )
        return LocalJob(
            place=place,
            options=self.request,
            model=model_folder(self.models_dir, self.request.model),
            served=self.request.model,
        )

    def _run(
        self, job: LocalJob, lease: Lease, wait_for_space: Callable[[], None]
    ) -> ExplanationJobResult:
        with job.opened(check=lease.check) as work:
            progress = _Progress(work, lease)
            while True:
                try:
                    work_until_done(work, progress.report, pause=lease.pause)
                    progress.report(work.count, "gallery")
                    summary = work.finish()
                    write_pages(self.out)
                    _write_archive(self.out)
                    return _result(self.out, summary)
                except OSError as err:
                    if not is_full(err):
                        raise
                    progress.report(work.count - work.left(), WAITS_FOR_SPACE)
                    wait_for_space()


class _Progress:
    """Reports what is done of a job."""

    def __init__(self, work: ExplanationWork, lease: Lease) -> None:
        self._count = work.count
        self._lease = lease
        self._pace = Pace()

    def report(self, done: int, stage: str = "explain") -> None:
        """Raises: AuditStopped: the job has to stop."""
        progress = ExplanationJobProgress(
            fraction=done / self._count,
            stage=stage,
            images_done=done,
            image_count=self._count,
            seconds_left=self._pace.seconds_left(done, self._count),
        )
        self._lease.report(progress)


def _write_archive(out: Path) -> None:
    """The table, the pages and the images, as one file that unpacks to a gallery."""
    paths = [out / TABLE_FILE, *(path for name in _PAGES for path in sorted(out.glob(name)))]
    with replacing(out / ARCHIVE_FILE) as stream, zipfile.ZipFile(stream, "w") as archive:
        for path in paths:
            entry = zipfile.ZipInfo(path.relative_to(out).as_posix(), _EPOCH)
            archive.writestr(entry, path.read_bytes())


def _result(out: Path, summary: Summary) -> ExplanationJobResult:
    return ExplanationJobResult(
        files=tuple(files_of(out, (TABLE_FILE, ARCHIVE_FILE))),
        image_count=summary.images,
        error_count=summary.errors,
        flip_count=summary.flips,
        median_radius=summary.median_radius,
    )
