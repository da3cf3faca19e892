"""What a budget of accuracy implies for a fine-tuning.  Pure; imports nothing of torch."""

import math
import re

# RMSE an attack may have for each point of the budget.  L2 adversarial training of a ResNet-50 on
# CIFAR-10 costs 2.5, 4.4 and 13.6 points at L2 0.25, 0.5 and 1.0, which are RMSE 0.0045, 0.0090 and
# 0.0180 (Engstrom et al., the "robustness" library): 0.0013 to 0.0020 a point.
_EPS_PER_POINT = 0.0015
_MOST_EPS = 0.03
# L_adv begins with this share of the loss target; psi then rises by itself.
_FIRST_SHARE = 0.1
_PSI_BOUNDS = (1e-12, 1e12)  # of `TrainConfig`
_SLOWEST_RATE, _RISE = 0.02, 12.0  # k_psi of III-F; rate times steps of a whole run, at least
_AVERAGED, _MOST_AVERAGED = 20.0, 0.999  # steps of a run over those averaged; most decay
_BUDGET = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?(%?)")


def budget_share(text: str) -> float:
    """The share of the test images that may be lost, from "3%" or "0.03".

    Raises:
        ValueError: another form, or not between 0 and 1.
    """
    found = _BUDGET.fullmatch(text.strip())
    share = 0.0 if found is None else float(found[1]) / (100.0 if found[2] else 1.0)
    if not 0.0 < share < 1.0:
        raise ValueError(
            "accuracy_budget: expected a share of the test images between 0 and 1, such as 3% or "
            f"0.03, got {text[:100]!r}"
        )
    return share


def doubtful_loss(accuracy: float, class_count: int) -> float:
    """Cross-entropy (nats) of a classifier that is right this often and knows no more than that.

    h(p) = -p ln p - (1 - p) ln((1 - p) / (V - 1)): it gives its class the probability p, the others
    an equal part of the rest, and is calibrated.  No answer whose likeliest class has probability p
    has a larger entropy (Fano's inequality; Cover and Thomas, Elements of Information Theory 2.10).

    L_adv makes networks about so doubtful: the paper's N4 was trained to 1.5 nats and has 68.7 %,
    where h is 1.31; a ResNet-20 trained here to 1.365 has 63.0 %, where h is 1.47.

    Args:
        accuracy: p in (1/V, 1]; at 1/V it is ln V.
        class_count: V, at least 2.
    Raises:
        ValueError: an argument is out of range.
    """
    if class_count < 2:
        raise ValueError(f"class_count: expected at least 2, got {class_count!r}")
    if not 1.0 / class_count <= accuracy <= 1.0:
        raise ValueError(f"accuracy: expected [{1 / class_count:g}, 1], got {accuracy!r}")
    doubt = 1.0 - accuracy
    if doubt <= 0.0:
        return 0.0
    return -accuracy * math.log(accuracy) - doubt * math.log(doubt / (class_count - 1))


def loss_target(accuracy: float, budget: float, class_count: int) -> float:
    """L_target of Eq. 15 for a network that may lose ``budget`` of its ``accuracy``.

    `doubtful_loss` of what has to remain.  psi rises while the training loss is below it, which
    is while the network is surer than it must be to keep that accuracy, and falls above it.

    Raises:
        ValueError: no accuracy above chance remains; the message names the budget.
    """
    room = accuracy - 1.0 / class_count
    if room <= 0.0:
        raise ValueError(
            f"data: expected images of which the model gets more than {1 / class_count:.1%} right "
            f"(chance of {class_count} classes), got {accuracy:.1%}; are the folders named as the "
            "model's classes?"
        )
    if budget >= room:
        raise ValueError(
            f"accuracy_budget: expected less than {room:.1%}, what the model's {accuracy:.1%} are "
            f"above chance ({1 / class_count:.1%}), got {budget:.1%}"
        )
    return doubtful_loss(accuracy - budget, class_count)


def attack_eps(budget: float) -> float:
    """RMSE of the attacks in training: 0.0015 for each point of the budget, at most 0.03."""
    return min(100.0 * budget * _EPS_PER_POINT, _MOST_EPS)


def first_psi(target: float, penalty: float) -> float:
    """psi_min: the weight with which L_adv is a tenth of the loss target before the first step.

    Eq. 9 is a mean over pixels, so the same psi weighs less the larger the images are; the paper's
    220 is for CIFAR-10 alone.

    Args:
        target: nats.     penalty: Eq. 9 of the network as it came, without psi; 0 where it is flat.
    """
    low, high = _PSI_BOUNDS
    return min(max(_FIRST_SHARE * target / max(penalty, 1e-30), low), high)


def psi_rate(step_count: int) -> float:
    """k_psi with which psi can rise in a run of so many steps: the paper's, or 12 over the steps.

    A batch whose loss is half of the target adds 0.7 to the integral of Eq. 15, so a whole run of
    such batches multiplies psi by 4,000 at least.
    """
    return max(_SLOWEST_RATE, _RISE / step_count)


def weight_average(step_count: int) -> float:
    """Decay of the averaged weights of a run of so many steps: over its last twentieth.

    None of a run so short that its first steps would stay in it.
    """
    return min(max(0.0, 1.0 - _AVERAGED / step_count), _MOST_AVERAGED)
