"""Images that worker processes decode on demand."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from candor.data.errors import ReadersFailed
from candor.data.images import Batch, Images, ImageSet, Plan

DRAWS = 4  # uniform numbers for the training view of one image
_TEST_CHUNK = 64
_MAX_WORKERS = 8
_BLOCK, _BLOCKS = 4096, 8  # bytes, and blocks of a large file that its digest reads
_AHEAD = 2  # batches of each process


class Decoder(Protocol):
    """Reads the images of one split by index; it is copied to worker processes.

    `central` and `drawn` return (C, H, W) integers of one dtype and raise `DataDamaged`.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what `central` returns."""

    def central(self, index: int) -> np.ndarray:
        """The view that a network is tested on."""

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        """A training view; ``draws`` is (`DRAWS`,) float64 in [0, 1), its only randomness."""

    def fingerprint(self, index: int) -> str:
        """What determines the image, without decoding it: `file_digest`, position in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyImages(Images):
    """Labelled images that stay on disk until a step needs them."""

    decoder: Decoder

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.decoder.shape

    def images(self, indices: Tensor | slice) -> Tensor:
        return self._on_unit_scale(self._central(indices))

    def training_batches(self, plan: Plan) -> Iterator[Batch]:
        tasks = (_Task(indices.tolist(), seed) for indices, seed in plan)
        for task, stored in _decoded(self.decoder, tasks, _worker_count()):
            yield Batch(stored, self.labels[task.indices])

    def digest(self, rows: Tensor | None = None) -> str:
        """SHA-256 over names, labels and fingerprints, not over all bytes, which can be 150 GB."""
        file_digest.cache_clear()  # files may have changed since the last call
        sha = hashlib.sha256(repr((self.shape, self.class_names)).encode())
        for index in range(len(self)) if rows is None else rows.tolist():
            name, label = self.identifiers[index], int(self.labels[index])
            sha.update(f"{name}\n{label}\n{self.decoder.fingerprint(index)}\n".encode())
        return sha.hexdigest()

    def held(self) -> ImageSet:
        """The same images in memory; each is decoded once, and training uses the test view."""
        own = {field.name: getattr(self, field.name) for field in fields(Images)}
        return ImageSet(**own, pixels=self._central(slice(None)))

    def _central(self, indices: Tensor | slice) -> Tensor:
        chosen = torch.arange(len(self))[indices].tolist()
        starts = range(0, len(chosen), _TEST_CHUNK)
        tasks = [_Task(chosen[start : start + _TEST_CHUNK], None) for start in starts]
        # Starting processes takes longer than decoding one chunk.
        workers = _worker_count() if len(tasks) > 1 else 0
        return torch.cat([stored for _, stored in _decoded(self.decoder, tasks, workers)])


@lru_cache(maxsize=2**16)  # COCO has many objects in one file
def file_digest(path: Path) -> str:
    """Size and SHA-256 of a file, of a large one by blocks that lie evenly in it.

    So two files that change places are seen without reading whole data sets.
    """
    size = path.stat().st_size
    sha = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _BLOCK * _BLOCKS:
            sha.update(file.read())
        else:
            for number in range(_BLOCKS):
                file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                sha.update(file.read(_BLOCK))
    return f"{size} {sha.hexdigest()}"


@dataclass(frozen=True, slots=True)
class _Task:
    """Images to decode into one batch; without a seed their test views."""

    indices: list[int]
    seed: int | None


def _views(decoder: Decoder, task: _Task) -> np.ndarray:
    """The images of a task, (B, C, H, W)."""
    if task.seed is None:
        return np.stack([decoder.central(index) for index in task.indices])
    generator = Generator().manual_seed(task.seed)
    shape = (len(task.indices), DRAWS)
    draws = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
    pairs = zip(task.indices, draws, strict=True)
    return np.stack([decoder.drawn(index, own) for index, own in pairs])


def _decoded(
    decoder: Decoder, tasks: Iterable[_Task], workers: int
) -> Iterator[tuple[_Task, Tensor]]:
    """Batches (B, C, H, W) in the order of ``tasks``, decoded ahead by ``workers`` processes.

    They travel through pipes: shared memory may be as small as the 64 MB of a container.

    Raises:
        DataDamaged: an image is damaged.
        ReadersFailed: a process ended, or none can be started.
    """
    if not workers:
        for task in tasks:
            yield task, torch.from_numpy(_views(decoder, task))
        return
    try:
        with _readers(decoder, workers) as pool:
            for task, decoded in _ahead(pool, iter(tasks), _AHEAD * workers):
                yield task, torch.from_numpy(decoded.result())
    except BrokenProcessPool as err:
        raise ReadersFailed(
            "data: a process that decodes images ended unexpectedly, perhaps for lack of memory"
        ) from err


@contextmanager
def _readers(decoder: Decoder, workers: int) -> Iterator[ProcessPoolExecutor]:
    try:
        pool = ProcessPoolExecutor(
            workers, _process_context(), initializer=_become_reader, initargs=(decoder,)
        )
        pool.submit(os.getpid)  # starts a process
    except OSError as err:
        raise ReadersFailed(
            f"data: the processes that decode images cannot be started: {err.strerror or err}; "
            "they need room in /dev/shm and in TMPDIR"
        ) from err
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ProcessPoolExecutor, tasks: Iterator[_Task], count: int
) -> Iterator[tuple[_Task, Future[np.ndarray]]]:
    """Tasks in order, ``count`` of them in work."""
    started: deque[tuple[_Task, Future[np.ndarray]]] = deque()
    for task in tasks:
        started.append((task, pool.submit(_read, task)))
        if len(started) > count:
            yield started.popleft()
    yield from started


_own: list[Decoder] = []  # of a reader process


def _become_reader(decoder: Decoder) -> None:
    """Ctrl-C is for the first process alone, and without it a reader ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _own.append(decoder)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(task: _Task) -> np.ndarray:
    return _views(_own[0], task)


def _process_context() -> BaseContext:
    """Workers are forked from a server process of one thread, which has imported this module.

    A copy of the calling process would hold the locks that its threads (a gRPC channel's,
    OpenMP's) held.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _worker_count() -> int:
    return min(_MAX_WORKERS, len(os.sched_getaffinity(0)))
