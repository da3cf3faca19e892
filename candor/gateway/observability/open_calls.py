"""The calls in progress of both transports, and how those that outlive a drain end.

A gateway that stops owes every client an answer with which it can go to another one, which is
MODEL_NOT_READY with a delay.  A cancelled task would leave the client with whatever its library
makes of that.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from candor.gateway.workers.retry import shutting_down


class OpenCalls:
    """Calls whose handlers run, and responses that are still being sent."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._client_ports: Counter[int] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts the call of the current task while the context lasts.

        Raises:
            ServiceError: MODEL_NOT_READY: `end` has ended it, or something that it awaited was
                cancelled, although nobody had cancelled the call itself.
        """
        task = asyncio.current_task()
        assert task is not None, "a call runs in a task"
        self._running.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError as err:
            # A subclass says that the client has gone.
            if type(err) is asyncio.CancelledError and self._was_ended(task):
                raise shutting_down() from err
            raise
        finally:
            self._running.discard(task)
            self._ended.discard(task)
            self._note_idle()

    def sending(self, client_port: int) -> Callable[[object], None]:
        """Counts a call of that client until the function that it returns is called."""
        self._client_ports[client_port] += 1
        self._idle.clear()
        return lambda _: self._sent(client_port)

    def client_ports(self) -> Collection[int]:
        """Ports of the clients, as far as they are known, whose calls are open."""
        return self._client_ports.keys()

    async def wait(self, seconds: float) -> None:
        """Returns when no call is open, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass

    async def end(self, seconds: float) -> None:
        """Answers every open call with MODEL_NOT_READY; waits at most ``seconds`` for that."""
        for task in self._running:
            self._ended.add(task)
            task.cancel()
        await self.wait(seconds)

    def _sent(self, client_port: int) -> None:
        self._client_ports[client_port] -= 1
        if not self._client_ports[client_port]:
            del self._client_ports[client_port]
        self._note_idle()

    def _note_idle(self) -> None:
        if not self._running and not self._client_ports:
            self._idle.set()

    def _was_ended(self, task: "asyncio.Task[Any]") -> bool:
        if task in self._ended:
            task.uncancel()
            return True
        return task.cancelling() == 0
