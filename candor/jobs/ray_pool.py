"""Shared work on a Ray cluster: a job of Ray Data with a pool of actors.

What Ray schedules are turns, not parts of the work: an actor that has a turn leases the next free
block.  So actors of any number and speed share the work, with other workers, too, and an actor that
is lost costs its block, which another leases when its lease has ended.
"""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import numpy as np
import ray

from candor.jobs.shared_work import SharedWork

LOCAL = "local"  # instead of an address: a Ray of its own on this machine
_MOST_TASKS = 1000  # of one pass; each has one turn or more
_PAUSE_SECONDS = 0.5


class Job(Protocol):
    """What a worker needs to take part; it is copied to the actors."""

    def opened(self) -> AbstractContextManager[SharedWork]:
        """The worker's part in the work."""


class Turns:
    """An actor: it opens its part once, and does a block at every turn."""

    def __init__(self, job: Job) -> None:
        self._opened = ExitStack()
        self._work = self._opened.enter_context(job.opened())

    def __call__(self, turns: dict[str, Any]) -> dict[str, Any]:
        return {"is_done": np.array([self._work.work_one() for _ in turns["turn"]])}


def work_on_ray(
    job: Job,
    work: SharedWork,
    *,
    address: str,
    actors: int,
    gpus: float,
    report: Callable[[int], None],
) -> None:
    """Take turns on a cluster until nothing is left.

    Args:
        job: opened by every actor; ``work`` is this process's part, which only looks.
        address: of the cluster, or `LOCAL`.
        actors: at most so many at once, >= 1.     gpus: of each actor.
        report: takes the parts done so far.
    Raises:
        ConnectionError: there is no such cluster.
        ray.exceptions.RayError: an actor's error.
    """
    options: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )
    try:
        while blocks := work.blocks_left():
            _pass(job, blocks, actors, gpus, lambda: report(work.count - work.left()))
            if work.blocks_left() == blocks:  # leased to workers elsewhere, or lost
                time.sleep(_PAUSE_SECONDS)
        report(work.count)
    finally:
        ray.shutdown()


def _pass(job: Job, turns: int, actors: int, gpus: float, tick: Callable[[], None]) -> None:
    """One turn for each block; a turn that finds none free does nothing."""
    items = [{"turn": turn} for turn in range(turns)]
    dataset = ray.data.from_items(items, override_num_blocks=min(turns, _MOST_TASKS)).map_batches(
        Turns,
        fn_constructor_args=(job,),
        batch_size=1,
        concurrency=(1, actors),
        num_cpus=0 if gpus else 1,
        num_gpus=gpus or None,
    )
    for _ in dataset.iter_rows():
        tick()
