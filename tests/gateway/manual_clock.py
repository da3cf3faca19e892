"""A clock that moves only when every task waits for it, so that no test waits for real time."""

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

T = TypeVar("T")
_REAL_SECONDS = 60.0  # that a scenario may take at most, on a machine with other work, too


class ManualClock:
    """Implements `candor.gateway.clock.Clock`; tasks that sleep are woken in order of time.

    `run` runs a scenario in an event loop of its own.  Whenever no task can go on, the clock jumps
    to the next moment for which a task waits.
    """

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0.0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), future))
        await future

    async def wait(
        self, futures: AbstractSet[asyncio.Future[Any]], seconds: float
    ) -> set[asyncio.Future[Any]]:
        ended = asyncio.ensure_future(asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION))
        timer = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait({ended, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            timer.cancel()
        return {future for future in futures if future.done()}

    async def advance(self, seconds: float) -> None:
        """Lets time pass for every task."""
        await self.sleep(seconds)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns at the first moment at which every task waits and ``holds()`` is true."""
        future = asyncio.get_running_loop().create_future()
        self._conditions.append((holds, future))
        await future

    async def settle(self) -> None:
        """Returns once every other task waits, without any time passing."""
        await self.until(lambda: True)

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """The result of ``scenario``, which fails where all tasks wait for ever."""

        async def bounded() -> T:
            async with asyncio.timeout(_REAL_SECONDS):
                return await scenario

        with asyncio.Runner(loop_factory=self._make_loop) as runner:
            return runner.run(bounded())

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_IdleSelector(self._when_idle))

    def _when_idle(self) -> bool:
        """Lets one task go on; False where none waits for the clock."""
        return self._release_condition() or self._wake_next()

    def _release_condition(self) -> bool:
        for condition in self._conditions:
            holds, future = condition
            if future.done() or holds():
                self._conditions.remove(condition)
                if not future.done():
                    future.set_result(None)
                return True
        return False

    def _wake_next(self) -> bool:
        while self._sleepers:
            moment, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                self._now = moment
                future.set_result(None)
                return True
        return False


class _IdleSelector(selectors.DefaultSelector):
    """Calls ``when_idle`` instead of waiting, as long as that lets a task go on."""

    def __init__(self, when_idle: Callable[[], bool]) -> None:
        super().__init__()
        self._when_idle = when_idle

    def select(self, timeout: float | None = None) -> Any:
        # The loop waits only when no callback is ready.
        is_idle = timeout is None or timeout > 0
        return super().select(0 if is_idle and self._when_idle() else timeout)
