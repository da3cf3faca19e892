"""Threads for what would hold the event loop: a pool for each kind of work.

What is slow in one pool, a locked store or a large image, then holds nothing of another kind.
Threads are started when they are needed, so a pool without work costs nothing.
"""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from candor.contracts.errors import ErrorCode, ServiceError

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_SECONDS = 5.0
SMALL_BYTES = 256 * 1024  # parsed, copied or encoded in a few milliseconds


class Pool:
    """Threads for one kind of work.

    Args:
        name: of the work, in the error of a call that found no thread.
        threads: calls done at once; the others wait for one of them.
        wait_seconds: the longest wait for a thread; None: as long as the caller waits.
    """

    def __init__(self, name: str, threads: int, wait_seconds: float | None = None) -> None:
        self._name = name
        self._wait_seconds = wait_seconds
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"candor {name}")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``work``, done in a thread with the context of the caller.

        A call whose caller stops waiting does not begin any more.

        Raises:
            ServiceError: MODEL_NOT_READY: every thread is held for too long; nothing was done.
        """
        context = contextvars.copy_context()
        working = self._threads.submit(context.run, functools.partial(work, *args, **kwargs))
        result = asyncio.wrap_future(working)
        try:
            await asyncio.wait({result}, timeout=self._wait_seconds)
        except asyncio.CancelledError:
            result.cancel()
            raise
        if not result.done() and working.cancel():  # it has not begun
            raise ServiceError(
                ErrorCode.MODEL_NOT_READY,
                f"{self._name}: does not answer; nothing was changed",
                retry_seconds=_RETRY_SECONDS,
            )
        return await result


async def run_if_large(
    pool: Pool, size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """The result of ``work``: what handles few bytes is done at once and waits for no large one.

    Args:
        size: bytes that ``work`` handles.
    """
    if size <= SMALL_BYTES:
        return work(*args, **kwargs)
    return await pool.run(work, *args, **kwargs)


STORE = Pool("store", 8, wait_seconds=5.0)
"""Queries and transactions of the database."""
PREDICTED_IMAGES = Pool("images to predict", 4)
"""Images of predictions, decoded apart from all others: somebody waits for a fast answer."""
IMAGES = Pool("images", 4)
"""Images of other requests, decoded."""
BODIES = Pool("bodies", 4)
"""JSON and base64 of requests, read."""
CHUNKS = Pool("chunks", 4)
"""Messages to and from workers, packed and read."""
PICTURES = Pool("pictures", 4)
"""PNGs of answers, encoded."""
ANSWERS = Pool("answers", 4)
"""JSON of answers, written."""
FILES = Pool("files", 4, wait_seconds=5.0)
"""Files of reports, read."""
ISSUER = Pool("issuer", 1)
"""Public keys of the issuer of tokens, fetched."""
UPKEEP = Pool("upkeep", 2)
"""Certificates read again, and what ends with the gateway."""
