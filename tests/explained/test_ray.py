"""A job over images on a real Ray of this machine, one of whose actors is lost."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from candor.explained.job import LocalJob
from candor.explained.work import ExplanationWork
from candor.jobs.shared_work import work_until_done
from tests.explained.folders import content, local_job, make_images

pytest.importorskip("ray", reason="the extra ray is not installed")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class LosesAnActor:
    """The first actor that leases a block is killed while it has it."""

    job: LocalJob
    mark: Path

    @contextmanager
    def opened(self) -> Iterator[ExplanationWork]:
        with self.job.opened() as work:
            compute = work._compute

            def killed_once(block: object) -> object:
                try:
                    self.mark.touch(exist_ok=False)
                except FileExistsError:
                    return compute(block)  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
                return None

            work._compute = killed_once  # type: ignore[method-assign, assignment]
            yield work


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_job_on_ray_loses_an_actor_and_nothing_else(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from candor.jobs.ray_pool import LOCAL, work_on_ray

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    images = make_images(tmp_path / "images", 40)
    for name in ("alone", "ray"):
        job = local_job(images, tmp_path / name, model)
        with job.opened() as work:
            if name == "alone":
                work_until_done(work, lambda done: None)
            else:
                done: list[int] = []
                losing = LosesAnActor(job, tmp_path / "killed")
                work_on_ray(losing, work, address=LOCAL, actors=2, gpus=0.0, report=done.append)
                assert done == sorted(done)
                assert done[-1] == 42
            work.finish()
    assert (tmp_path / "killed").exists(), "no actor was lost"
    assert content(tmp_path / "ray") == content(tmp_path / "alone")
