"""Search items of a request, as far as all verbs have the same fields."""

import functools
from collections.abc import Callable

from candor.contracts.worker import SearchItem
from candor.gateway.service.admission import SearchRequest


def item_maker(request: SearchRequest) -> Callable[..., SearchItem]:
    """Makes items with the steps, the seed and the solver of ``request``."""
    return functools.partial(
        SearchItem,
        step_count=request.steps,
        seed=request.seed,
        solver=request.solver,
        chunk_steps=1,  # the scheduler sets it anew for every chunk
    )
