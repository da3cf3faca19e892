"""Whether an attack's goal holds, and how far it is from holding; over `candor.search.goals`."""

from collections.abc import Callable

import torch
from torch import Tensor

from candor.search.goals import gap_to_goal, goal_code, output_condition, without
from candor.terms import Goal

# Of logits (B, V), a number (B,) that an attack lowers.
Score = Callable[[Tensor], Tensor]


def holds(logits: Tensor, labels: Tensor, goal: Goal) -> Tensor:
    """(B,) bool: the outputs are what ``goal`` asks for; see `output_condition`.

    Args:
        logits: (B, V) float32.     labels: (B,) int64.
    """
    return output_condition(logits, torch.full_like(labels, goal_code(goal)), labels)


def goal_margin(logits: Tensor, labels: Tensor, goal: Goal) -> Tensor:
    """(B,) distance of the outputs from ``goal`` in logits, negative where it holds.

    See `gap_to_goal`.  Arguments as in `holds`.
    """
    return gap_to_goal(logits, torch.full_like(labels, goal_code(goal)), labels)


def margin_score(labels: Tensor, goal: Goal = Goal.ATTACK) -> Score:
    """`goal_margin` as a function of the logits alone."""
    return lambda logits: goal_margin(logits, labels, goal)


def other_class(logits: Tensor, classes: Tensor, rank: int = 1) -> Tensor:
    """(B,) int64: the ``rank``-th likeliest class beside ``classes`` (B,); 1 is the runner-up.

    Args:
        logits: (B, V).     rank: in [1, V - 1].
    """
    return without(logits, classes).argsort(dim=1, descending=True)[:, rank - 1]
