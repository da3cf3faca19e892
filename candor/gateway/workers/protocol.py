"""What a runtime that holds the networks must offer to the gateway."""

from typing import Literal, Protocol

Role = Literal["predict", "search"]

MAX_CALL_BYTES = 64 * 1024 * 1024  # one call to a worker, or its answer


class WorkerUnavailable(Exception):
    """No answer: the worker died, hangs or has not started yet.  The same call may work later."""


class WorkerDied(WorkerUnavailable):
    """The worker ended, or hung, while it worked on this very call, which may be the cause."""


class WorkerFault(Exception):
    """An answer that breaks the protocol.  The same call would fail again."""


class WorkerBackend(Protocol):
    """Calls to the workers of every model."""

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        """One answer for each item, in order; see `candor.contracts.worker` for both.

        Raises:
            WorkerUnavailable: the call may be repeated; `WorkerDied` where it was under way.
            WorkerFault: the call must not be repeated.
        """
