"""What several gateways behind one address share: a Redis server, named by CANDOR_SHARED_URL.

Nothing depends on it.  While it does not answer, each gateway goes on with what it knows itself,
and asks again after a pause, so that no request waits for a server that is away.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from candor.contracts.secrets import Secret, without_secrets

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

_ANSWER_SECONDS = 0.25  # a request waits for it
_PAUSE_SECONDS = 5.0  # without questions to a server that did not answer
_log = logging.getLogger("gateway.shared")


class SharedMemory:
    """One Redis server; make and use it inside one event loop.

    Args:
        url: see `candor.gateway.config.settings.Settings.shared_url`.
        on_change: told whether the server answers, each time that this changes.
    """

    def __init__(self, url: Secret, on_change: Callable[[bool], None]) -> None:
        self._url = url
        self._on_change = on_change
        # Here, for a gateway that shares something: it brings the SDK of OpenTelemetry with it.
        from candor.gateway import redis_client

        self._redis = redis_client.connected(url.reveal(), _ANSWER_SECONDS)
        self._failures = (redis_client.RedisError, OSError, TimeoutError)
        self._is_there: bool | None = None
        self._resume_at = 0.0

    async def ask(self, question: Callable[["Redis"], Awaitable[T]]) -> T | None:
        """The answer, or None while the server is away."""
        if time.monotonic() < self._resume_at:
            return None
        try:
            async with asyncio.timeout(2 * _ANSWER_SECONDS):
                answer = await question(self._redis)
        except self._failures as err:
            self._resume_at = time.monotonic() + _PAUSE_SECONDS
            self._note(False, err)
            return None
        self._note(True)
        return answer

    async def close(self) -> None:
        await self._redis.aclose()

    def _note(self, is_there: bool, error: Exception | None = None) -> None:
        """One line of the log for each change, not for each request."""
        if is_there is self._is_there:
            return
        self._is_there = is_there
        self._on_change(is_there)
        if is_there:
            _log.info("%s answers: quotas and finished searches are shared", self._url)
        else:
            reason = without_secrets(" ".join(str(error).split())) or type(error).__name__
            _log.warning("%s does not answer, this gateway goes on alone: %s", self._url, reason)
