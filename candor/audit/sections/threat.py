"""The threat model of an audit, in fields and in words."""

from typing import Literal

from candor.audit.plan import Frozen


class ThreatModel(Frozen):
    """What the attacker wants, may do and knows.

    Attributes:
        norm: the distance that is minimised.
        unit: of every distance; the other one is always shown beside it.
        lower, upper: limits of a pixel.
        quantisation: what happens to an image's pixel values.
        goals: what counts as success, one sentence a goal.
        knowledge, access, capability: of the attacker.
        excluded: what the audit does not look at.
    """

    norm: Literal["L2"] = "L2"
    unit: str = "RMSE on the [0, 1] pixel scale; L2 = RMSE * sqrt(C*H*W)"
    lower: float = 0.0
    upper: float = 1.0
    quantisation: str = (
        "Distances are of float32 images; whether each still succeeds after rounding to 8 bits "
        "is recorded beside it."
    )
    goals: dict[str, str] = {
        "attack": "The true class is no longer the most likely one (untargeted, Eq. 2).",
        "btr": "The true class is less likely than 1/V, no better than random (Eq. 4).",
    }
    knowledge: str = (
        "White box: weights, architecture, preprocessing and training are known; the network is "
        "differentiated as it is. Where they ran, Square saw outputs only, the hard-label attack "
        "predictions only."
    )
    access: str = "Digital: pixel values are set directly, one image at a time."
    capability: str = (
        "Any change of the pixels inside the box; the report gives the smallest one found, and "
        "success within fixed L2 budgets where attacks of such budgets ran."
    )
    excluded: tuple[str, ...] = (
        "training-time poisoning",
        "physical-world changes",
        "norms other than L2",
        "attacks on the service that hosts the model",
    )


WORDS = (
    "An attacker who knows everything about the model looks, image by image, for the smallest "
    "change (L2) of the pixels, within [0, 1], that makes the model lose the true class (attack) "
    "or rate it no better than chance (BTR). A radius is the smallest change any of the attacks "
    "found, so it is an upper bound on the true robustness: a better attack can only lower it."
)
