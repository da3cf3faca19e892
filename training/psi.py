"""The integrating controller of the regulariser's weight.  (III-F, Eq. 15)  Imports nothing."""

import math
from dataclasses import dataclass
from enum import StrEnum


class PsiMode(StrEnum):
    ADAPTIVE = "adaptive"
    FIXED = "fixed"


class PsiFollows(StrEnum):
    """The images whose cross-entropy is compared with the loss target."""

    ALL = "all"  # attacked ones included
    CLEAN = "clean"  # those that no adversary met; all of a last batch that has none


# III-F: k_psi,0, k_psi, eps_better, eps_worse as "typically" used from IV-B14 on, and before.
TYPICAL_PARAMETERS = {"psi_min": 220.0, "psi_rate": 0.02, "clip_better": 1.0, "clip_worse": 0.01}
EARLY_PARAMETERS = {"psi_min": 0.01, "psi_rate": 0.02, "clip_better": 1.0, "clip_worse": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class PsiController:
    """psi = psi_min exp(psi_rate S), S the clipped sum of -ln(loss / loss_target).  (Eq. 15)

    Immutable: `updated` returns the next one; `integral` is the whole state.

    Attributes:
        psi_min: k_psi,0, the smallest weight, > 0.
        psi_rate: k_psi, > 0.
        clip_better: eps_better, the most one batch may raise the integral, > 0.
        clip_worse: eps_worse, the most one batch may lower it, > 0.
        loss_target: L_target, cross-entropy in nats, > 0.
        integral: S, never below 0.
    """

    psi_min: float = 220.0
    psi_rate: float = 0.02
    clip_better: float = 1.0
    clip_worse: float = 0.01
    loss_target: float = 1.5
    integral: float = 0.0

    def __post_init__(self) -> None:
        for name in ("psi_min", "psi_rate", "clip_better", "clip_worse", "loss_target"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name}: got {value!r}, allowed (0, inf)")
        if not 0.0 <= self.integral < math.inf:
            raise ValueError(f"integral: got {self.integral!r}, allowed [0, inf)")

    @property
    def psi(self) -> float:
        """Infinite where it exceeds every float."""
        try:
            return self.psi_min * math.exp(self.psi_rate * self.integral)
        except OverflowError:
            return math.inf

    def updated(self, loss: float) -> "PsiController":
        """The controller after one batch whose cross-entropy was ``loss`` (nats, > 0)."""
        change = -math.log(max(loss, 1e-12) / self.loss_target)
        change = min(max(change, -self.clip_worse), self.clip_better)
        return PsiController(
            psi_min=self.psi_min,
            psi_rate=self.psi_rate,
            clip_better=self.clip_better,
            clip_worse=self.clip_worse,
            loss_target=self.loss_target,
            integral=max(0.0, self.integral + change),
        )
