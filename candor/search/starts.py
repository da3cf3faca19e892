"""The starts of the radius search of solver `fast`, as a table, and where a search stands in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache

import torch
from torch import Tensor

from candor.search.goals import goal_code, is_explanation
from candor.search.state import SearchState
from candor.terms import Goal

SCOUTED_CLASSES = 4  # the likeliest other classes, one step for each
_LARGEST_SCOUTING = 8  # scouting takes at most one step of so many


class Point(Enum):
    """Where a start sets off.

    Attributes:
        SHORTEST_JUMP: the end of the shortest jump that scouting found.  Scouting evaluates the
            original image once for each of the likeliest other classes.  Where there are too few
            steps for it: the original image.
        ORIGINAL: the image as it came.
        BEST: the best image so far; where there is none, the search goes on where it is.
    """

    SHORTEST_JUMP = auto()
    ORIGINAL = auto()
    BEST = auto()


class Aim(Enum):
    """What the first steps of a start follow; its later ones follow the gap to the goal.

    Attributes:
        SCOUTED_CLASS: the class of the shortest jump that scouting found.
        LIKELIEST_CLASS: the likeliest wrong class that the search did not aim at last.
        SECOND_CLASS: likewise the second likeliest, as the network sees the point of departure.
        LOG_ODDS: down the log-odds of the label, in short steps.
        GOAL: the gap to the goal from the first step on.
    """

    SCOUTED_CLASS = auto()
    LIKELIEST_CLASS = auto()
    SECOND_CLASS = auto()
    LOG_ODDS = auto()
    GOAL = auto()


_CHOOSING = (Aim.LIKELIEST_CLASS, Aim.SECOND_CLASS)
_AT_A_CLASS = (Aim.SCOUTED_CLASS, *_CHOOSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One row of the table.

    Attributes:
        name: of the start, for instance in the ablation.
        point: where it sets off.
        aim: what its first steps follow.
        aimed_steps: how many steps follow the aim.
        share: of the steps, in proportion to the shares of the other starts, rounded down; the
            last start takes all that are left.
    """

    name: str
    point: Point
    aim: Aim
    aimed_steps: int
    share: int = 1


# An attack walks through these in order; docs/solver-fast.md has the ablation.
STARTS = (
    Start(name="scouted", point=Point.SHORTEST_JUMP, aim=Aim.SCOUTED_CLASS, aimed_steps=4),
    Start(name="likeliest", point=Point.ORIGINAL, aim=Aim.LIKELIEST_CLASS, aimed_steps=4),
    Start(name="log-odds", point=Point.ORIGINAL, aim=Aim.LOG_ODDS, aimed_steps=4),
    Start(name="second", point=Point.BEST, aim=Aim.SECOND_CLASS, aimed_steps=4),
    Start(name="final", point=Point.BEST, aim=Aim.GOAL, aimed_steps=0, share=2),
)
# BTR and confident have one boundary, whose tangent they follow from the image on.
_ONLY = Start(name="only", point=Point.ORIGINAL, aim=Aim.GOAL, aimed_steps=0)


@dataclass(frozen=True, slots=True)
class Leg:
    """Where each search of a batch stands; every field (B,).

    Attributes:
        is_scouting: bool, an attack at the original image whose deltas hold the shortest jump yet.
        is_restart: bool, an attack that returns to the original image and sets off anew.
        is_resumed: bool, an attack that returns to its best image.
        is_choosing: bool, an attack that chooses the class to aim at.
        is_aimed: bool, an attack that follows the gap to one class.
        is_descending: bool, an attack that follows the log-odds of its label.
        is_jump: bool, the step goes to the nearest point of the tangent itself.
        is_last: bool, the last start, in which a search may end early; never for explanations.
        rank: int64, of the class to choose among the wrong ones, 0 the likeliest.
        position: int64, steps since the start set off.
        aimed_left: int64, steps left that follow the aim; <= 0 where there are none.
        done: float32, the same as a share of the steps of the start, [0, 1).
    """

    is_scouting: Tensor
    is_restart: Tensor
    is_resumed: Tensor
    is_choosing: Tensor
    is_aimed: Tensor
    is_descending: Tensor
    is_jump: Tensor
    is_last: Tensor
    rank: Tensor
    position: Tensor
    aimed_left: Tensor
    done: Tensor


def leg_of(state: SearchState, starts: Sequence[Start] = STARTS) -> Leg:
    """Where each search stands in ``starts``, which attacks walk through; others have one start."""
    table = _columns(tuple(starts), state.goals.device)
    is_attack = state.goals == goal_code(Goal.ATTACK)
    place = _place_in(table, state, is_attack)
    start, is_scouting = place.start, place.is_scouting
    is_departing = is_attack & (place.position == 0) & ~is_scouting
    is_unscouted = is_departing & (state.steps == 0)
    is_restart = (is_departing & table.is_at_original[start]) | is_unscouted
    aimed_left = table.aimed_steps[start] - place.position
    is_near_departure = is_attack & (aimed_left > 0)
    return Leg(
        is_scouting=is_scouting,
        is_restart=is_restart,
        is_resumed=is_departing & table.is_at_best[start] & state.best_rmse.isfinite(),
        is_choosing=is_scouting | is_unscouted | (is_departing & table.is_choosing[start]),
        is_aimed=is_near_departure & table.is_at_a_class[start],
        is_descending=is_near_departure & table.is_down_the_odds[start],
        is_jump=is_scouting | is_restart | (state.steps == 0),
        is_last=table.is_final[start] & ~is_scouting & ~is_explanation(state.goals),
        rank=torch.where(is_scouting, state.steps, table.ranks[start]),
        position=place.position,
        aimed_left=aimed_left,
        done=place.position / place.steps.clamp_min(1),
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """A table of starts as tensors: its S rows, and after them the only start of other goals.

    Attributes:
        scouted_classes: 0 where no start needs scouting.
        share_count: of all rows together.
        start_of_slot: (share_count,) int64, the row that each share belongs to.
    """

    scouted_classes: int
    share_count: int
    start_of_slot: Tensor
    shares: Tensor
    shares_before: Tensor
    aimed_steps: Tensor
    ranks: Tensor
    is_final: Tensor
    is_at_original: Tensor
    is_at_best: Tensor
    is_choosing: Tensor
    is_at_a_class: Tensor
    is_down_the_odds: Tensor


@dataclass(frozen=True, slots=True)
class _Place:
    """In which start each search is and how far in it; every field (B,).

    Attributes:
        start: int64, row of `_Columns`; 0 while it scouts.
        is_scouting: bool.
        position, steps: int64, steps done since the start set off, and all that the start has.
    """

    start: Tensor
    is_scouting: Tensor
    position: Tensor
    steps: Tensor


def _place_in(table: _Columns, state: SearchState, is_attack: Tensor) -> _Place:
    scouting_steps = (state.step_counts // _LARGEST_SCOUTING).clamp_max(table.scouted_classes)
    scouting_steps = torch.where(is_attack, scouting_steps, 0)
    searching_steps = state.step_counts - scouting_steps
    since = state.steps - scouting_steps
    # The steps of one share, and in which of the shares each search is.
    length = (searching_steps // torch.where(is_attack, table.share_count, 1)).clamp_min(1)
    slot = (since.clamp_min(0) // length).clamp_max(table.share_count - 1)
    start = torch.where(is_attack, table.start_of_slot[slot], len(table.shares) - 1)
    before = table.shares_before[start] * length
    to_the_end, its_share = searching_steps - before, table.shares[start] * length
    return _Place(
        start=start,
        is_scouting=since < 0,
        position=(since - before).clamp_min(0),
        steps=torch.where(table.is_final[start], to_the_end, its_share),
    )


@cache
def _columns(starts: tuple[Start, ...], device: torch.device) -> _Columns:
    """The table on a device, kept for the next step.

    Raises:
        ValueError: there is no start.
    """
    if not starts:
        raise ValueError("starts: expected one or more, got none")
    rows = (*starts, _ONLY)
    slots = [row for row, start in enumerate(starts) for _ in range(start.share)]

    def column(values: Sequence[int | bool]) -> Tensor:
        return torch.tensor(values, device=device)

    is_scouted = any(start.point is Point.SHORTEST_JUMP for start in starts)
    return _Columns(
        scouted_classes=SCOUTED_CLASSES if is_scouted else 0,
        share_count=len(slots),
        start_of_slot=column(slots),
        shares=column([start.share for start in rows]),
        shares_before=column([*map(slots.index, range(len(starts))), 0]),
        aimed_steps=column([start.aimed_steps for start in rows]),
        ranks=column([int(start.aim is Aim.SECOND_CLASS) for start in rows]),
        is_final=column([row >= len(starts) - 1 for row in range(len(rows))]),
        is_at_original=column([start.point is Point.ORIGINAL for start in rows]),
        is_at_best=column([start.point is Point.BEST for start in rows]),
        is_choosing=column([start.aim in _CHOOSING for start in rows]),
        is_at_a_class=column([start.aim in _AT_A_CLASS for start in rows]),
        is_down_the_odds=column([start.aim is Aim.LOG_ODDS for start in rows]),
    )
