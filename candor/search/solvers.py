"""Solvers by name.  Imports siblings and torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from candor.search import paper
from candor.search.state import SearchState


@dataclass(frozen=True, slots=True)
class Solver:
    """A solver: how a batch advances by so many steps, and which of its searches are finished."""

    advance: Callable[[nn.Module, SearchState, int], SearchState]
    is_finished: Callable[[SearchState], Tensor]


SOLVERS: Mapping[str, Solver] = {"paper": Solver(paper.advance, paper.is_finished)}
