"""A run whose numbers are no longer finite ends, before anything of it is written."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Diverged(ValueError):
    """A run's loss, gradient or weights are NaN or infinite; the last checkpoint stays."""


def check_step(place: str, **values: float) -> None:
    """Raises Diverged where one of a step's ``values`` is not finite.

    Args:
        place: which step it is, for the message.
    """
    if all(map(math.isfinite, values.values())):
        return
    named = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())
    raise Diverged(
        f"diverged at {place}: {named}; the checkpoint of before is kept and no model is written, "
        "a lower peak_learning_rate may help"
    )


def check_state(place: str, state: Mapping[str, Any]) -> None:
    """Raises Diverged where a tensor in ``state``, of a network or an optimizer, is not finite."""
    for name, tensor in _tensors(state):
        if not bool(tensor.isfinite().all()):
            bad = tensor[~tensor.isfinite()][0].item()
            raise Diverged(
                f"diverged at {place}: {name} holds {bad:g}; the checkpoint of before is kept and "
                "no model is written"
            )


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}" if name else str(key))
