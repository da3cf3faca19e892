"""The numbers that decide how one model's searches are scheduled."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """Limits and lengths of the searches of one model.

    Attributes:
        value_count: C*H*W of the model's images.
        worker_count: chunks computed at once, each by a worker of its own.
        max_batch: searches in one chunk.
        max_waiting: searches beyond those that all workers hold at once.
        chunk_seconds: length of a chunk that brings a search its first result.
        short_steps: a search of at most so many steps counts as short, see
            `candor.gateway.scheduling.policy`.
        worker_retry_seconds: how long jobs outlive workers that are away.
        objective_seconds: how long a request that is admitted may take to its whole result, see
            `candor.gateway.scheduling.queue_limits`.
    """

    value_count: int
    worker_count: int = 1
    max_batch: int = 32
    max_waiting: int = 512
    chunk_seconds: float = 0.1
    short_steps: int = 40
    worker_retry_seconds: float = 60.0
    objective_seconds: float = 30.0
