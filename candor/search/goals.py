"""Goals and norms of a search as per-sample codes, and what its outputs are worth to a goal."""

import math

import torch
from torch import Tensor

from candor.terms import CONFIDENT_MARGIN, Goal, Norm

# A batch holds its goals and norms as the position in these tuples.
GOALS = tuple(Goal)
NORMS = tuple(Norm)
_CODES = {goal: code for code, goal in enumerate(GOALS)}
EXPLANATIONS = (Goal.EXPLAIN_FOR, Goal.EXPLAIN_AGAINST)
_EXPLANATION_CODES = tuple(map(_CODES.__getitem__, EXPLANATIONS))


def goal_code(goal: Goal) -> int:
    """Code of ``goal`` in a batch's ``goals`` tensor."""
    return _CODES[goal]


def norm_code(norm: Norm) -> int:
    """Code of ``norm`` in a batch's ``norms`` tensor."""
    return NORMS.index(norm)


def is_explanation(goals: Tensor) -> Tensor:
    """(B,) bool: the goal bounds the RMSE and improves the score (g_explain, Eq. 3)."""
    return (goals == _EXPLANATION_CODES[0]) | (goals == _EXPLANATION_CODES[1])


def ascent_sign(goals: Tensor) -> Tensor:
    """(B,) +1 where the search raises s_t (explain-for), -1 where it lowers it."""
    return torch.where(goals == _CODES[Goal.EXPLAIN_FOR], 1.0, -1.0)


def log_odds(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) log(s_t / (1 - s_t)) = y_t - log sum_{j != t} exp(y_j).

    Rises with s_t, its gradient has the direction of that of s_t, and it vanishes at neither end:
    the gradient of s_t itself is lost in float32 where s_t is near 0 or 1, that of log s_t near 1.

    Args:
        logits: (B, V) float32.     targets: (B,) int64.
    """
    return logits.gather(1, targets[:, None])[:, 0] - without(logits, targets).logsumexp(dim=1)


def without(logits: Tensor, classes: Tensor) -> Tensor:
    """(B, V) logits, those of ``classes`` (B,) int64 at minus infinity."""
    return logits.scatter(1, classes[:, None], float("-inf"))


def score(logits: Tensor, targets: Tensor, away_from: Tensor | None) -> Tensor:
    """(B,) what an explanation raises or lowers: the log-odds of the target.

    Against all other classes, or where it moves away from one class y against that class alone:
    log(s_t / s_y) = y_t - y_y.

    Args:
        logits: (B, V) float32.     targets: (B,) int64.
        away_from: (B,) int64, -1 where there is no such class; None where no search has one.
    """
    odds = log_odds(logits, targets)
    if away_from is None:
        return odds
    pairs = torch.stack([targets, away_from.clamp_min(0)], dim=1)
    own, other = logits.gather(1, pairs).unbind(1)
    return torch.where(away_from < 0, odds, own - other)


def score_and_gradient(
    logits: Tensor, targets: Tensor, away_from: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(B,) `score` and (B, V) its gradient by the logits, written out.

    That of the log-odds is 1 at the target and minus the softmax of the others; that of a pair of
    classes 1 and -1.  Arguments as of `score`.
    """
    others = without(logits, targets)
    rest = others.logsumexp(dim=1, keepdim=True)
    gradients = (others - rest).exp().neg().scatter(1, targets[:, None], 1.0)
    odds = (logits.gather(1, targets[:, None]) - rest)[:, 0]
    if away_from is None:
        return odds, gradients
    pairs = torch.stack([targets, away_from.clamp_min(0)], dim=1)
    own, other = logits.gather(1, pairs).unbind(1)
    signs = logits.new_tensor([[1.0, -1.0]]).expand(len(logits), 2)
    is_alone = away_from < 0
    of_pairs = torch.zeros_like(logits).scatter(1, pairs, signs)
    return (
        torch.where(is_alone, odds, own - other),
        torch.where(is_alone[:, None], gradients, of_pairs),
    )


def output_condition(logits: Tensor, goals: Tensor, targets: Tensor) -> Tensor:
    """(B,) bool: the outputs are what attack, BTR or confident asks for; False for explanations.

    attack     s_t - max_{j != t} s_j < 0                        (Eq. 2; logits order alike)
    btr        s_t < 1 / V                                       (Eq. 4)
    confident  max_{j != t} s_j - max_{q != j} s_q > 0.5         (III-H)

    Args:
        logits: (B, V) float32.     goals, targets: (B,) int64.
    """
    holds = torch.zeros_like(goals, dtype=torch.bool)
    if bool(is_explanation(goals).all()):
        return holds
    rival, rival_index = without(logits, targets).max(dim=1)
    own = logits.gather(1, targets[:, None])[:, 0]
    if _is_all_attack(goals):
        return own < rival
    log_share = own - logits.logsumexp(dim=1)
    shares = logits.softmax(dim=1)
    runner_up = without(shares, rival_index).amax(dim=1)
    margin = shares.gather(1, rival_index[:, None])[:, 0] - runner_up
    holds = torch.where(goals == _CODES[Goal.ATTACK], own < rival, holds)
    holds = torch.where(
        goals == _CODES[Goal.BTR], log_share < -torch.tensor(float(logits.shape[1])).log(), holds
    )
    return torch.where(goals == _CODES[Goal.CONFIDENT], margin > CONFIDENT_MARGIN, holds)


def _is_all_attack(goals: Tensor) -> bool:
    """Whether the softmax is not needed: an attack compares logits."""
    return bool((goals == _CODES[Goal.ATTACK]).all())


def gap_to_goal(logits: Tensor, goals: Tensor, targets: Tensor) -> Tensor:
    """(B,) how far the outputs are from `output_condition`: negative where it holds.

    attack     y_t - max_{j != t} y_j
    btr        log s_t + log V
    confident  log(0.5 + max_{q != j} s_q) - log max_{j != t} s_j

    On the scale of the logits, so that its gradient does not vanish where the softmax saturates.
    0 for explanations, which have no such boundary.

    Args:
        logits: (B, V) float32.     goals, targets: (B,) int64.
    """
    rival, rival_index = without(logits, targets).max(dim=1)
    own = logits.gather(1, targets[:, None])[:, 0]
    if _is_all_attack(goals):
        return own - rival
    log_shares = logits.log_softmax(dim=1)
    runner_up = without(log_shares, rival_index).amax(dim=1)
    led = (runner_up.exp() + CONFIDENT_MARGIN).log()
    log_share = log_shares.gather(1, targets[:, None])[:, 0]
    gaps = torch.zeros_like(own)
    gaps = torch.where(goals == _CODES[Goal.ATTACK], own - rival, gaps)
    gaps = torch.where(goals == _CODES[Goal.BTR], log_share + math.log(logits.shape[1]), gaps)
    rival_log_share = log_shares.gather(1, rival_index[:, None])[:, 0]
    return torch.where(goals == _CODES[Goal.CONFIDENT], led - rival_log_share, gaps)
