"""Searches of the linear model, and schedulers for them."""

from typing import Any

import numpy as np

from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.clock import Clock
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.gateway.workers.codec import SearchOutcome
from candor.terms import Goal
from tests.gateway.linear_worker import SHAPE

VALUE_COUNT = 3 * 32 * 32  # so that the first chunk is 4 steps
IMAGE = np.random.default_rng(5).random(SHAPE, dtype=np.float32)


def explain(steps: int = 30, target: int = 1, seed: int = 0, rho: float = 0.04) -> SearchItem:
    """An item of an explanation; `target` often stands for the client."""
    return SearchItem(
        goal=Goal.EXPLAIN_FOR, target=target, rho=rho, step_count=steps, seed=seed, chunk_steps=1
    )


def scheduler_of(backend: Any, clock: Clock, **options: Any) -> SearchScheduler:
    return SearchScheduler(
        backend, "linear", SchedulerOptions(value_count=VALUE_COUNT, **options), clock=clock
    )


async def outcome_of(
    scheduler: SearchScheduler,
    item: SearchItem,
    tenant: str = "",
    priority: Priority = Priority.EXPLAIN,
) -> SearchOutcome:
    """Submits one search and waits for it; cancelling this ends the search."""
    scheduler.check_room(1)
    search = scheduler.submit(item, {"image": IMAGE}, tenant=tenant, priority=priority)
    try:
        return await search.future
    finally:
        search.future.cancel()
