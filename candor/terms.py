"""The terms of the method that every room shares: goals, ends of a search, solvers, step counts.

Sections are those of arXiv 1906.02896.
"""

from enum import StrEnum


class Goal(StrEnum):
    """What a search looks for.

    Attributes:
        ATTACK: the smallest perturbation after which another class than the label leads (III-A1).
        BTR: the smallest after which the label is no more likely than chance, 1/V (III-A2).
        EXPLAIN_FOR: an image within rho that makes the target more likely (IV).
        EXPLAIN_AGAINST: an image within rho that makes the target less likely (IV).
        CONFIDENT: an image whose wrong class leads by `CONFIDENT_MARGIN` (III-H).
    """

    ATTACK = "attack"
    BTR = "btr"
    EXPLAIN_FOR = "explain_for"
    EXPLAIN_AGAINST = "explain_against"
    CONFIDENT = "confident"


class SearchStatus(StrEnum):
    """How a search ended.

    Attributes:
        FOUND: the goal holds at the reported image.
        UNRESOLVED: it never held; the largest RMSE visited is a lower bound of the radius.
        ALREADY_WRONG: it held for the unchanged image.
    """

    FOUND = "found"
    UNRESOLVED = "unresolved"
    ALREADY_WRONG = "already_wrong"


class Norm(StrEnum):
    """How the size of a perturbation is measured: rho_p = (mean |delta|^p)^(1/p), in (0, 1].

    The mean is over all C H W pixels and colours, so that one number means much the same in every
    norm.  The smaller p, the fewer pixels an explanation changes.

    Attributes:
        L1: p = 1, the mean absolute change.
        L1_5: p = 1.5 (arXiv 2205.07972).
        L2: p = 2, the RMSE.
        LINF: p = infinity, the largest change.
    """

    L1 = "l1"
    L1_5 = "l1.5"
    L2 = "l2"
    LINF = "linf"


class NotFinite(ValueError):
    """A number that has to be finite is NaN or infinite; the message says which one."""


SOLVERS = ("paper", "fast")
DEFAULT_SOLVER = "fast"  # whoever asks for the first time should not wait for 450 steps
PAPER_STEPS = 450  # N of Algorithm 1
FAST_EXPLAIN_STEPS = 8
FAST_RADIUS_STEPS = 52  # at most: most searches end sooner

IMPERCEPTIBLE_RMSE = 0.01  # IV-B: "virtually imperceptible" on CIFAR-10
CONFIDENT_MARGIN = 0.5  # III-H: how far an annotation candidate's class must lead


def default_steps(solver: str, *, explains: bool) -> int:
    """Steps of a search that states none: of an explanation, or of a radius."""
    if solver != "fast":
        return PAPER_STEPS
    return FAST_EXPLAIN_STEPS if explains else FAST_RADIUS_STEPS
