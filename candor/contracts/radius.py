"""What the median attack radius of a model says of its explanations: one rule, one wording.

The median radius is the RMSE at which an attack has changed half of the model's right predictions.
It stands on the card as a metric of that name, and this sentence beside every explanation.
"""

from collections.abc import Iterable

from candor.contracts.card import MetricCard

MEDIAN_RADIUS = "median_radius"
# An explanation spends its whole RMSE on one confidence.  A model that changes its mind at a
# twentieth of it is convinced long before a person can see anything; the rest is more of the same.
# At rho 0.1, by the radii on their cards, cifar10-plain changes its mind at a 28th, and its
# explanations are ripples; cifar10-robust (at a quarter) shows objects.  Of the numbers between, a
# twentieth spares the robust networks of large images, whose radii are smaller in RMSE: one that
# withstands L2 3 at 224 x 224 withstands 0.0077.
NOISE_SHARE = 1 / 20
NOT_MEASURED = "How small a change makes this model change its mind has not been measured."


def median_radius_of(metrics: Iterable[MetricCard]) -> MetricCard | None:
    """The median radius among the metrics of a card, of several the one of the most images."""
    found = [metric for metric in metrics if metric.name == MEDIAN_RADIUS]
    return max(found, key=lambda metric: metric.image_count, default=None)


def value_of(metric: MetricCard | None) -> float | None:
    """The RMSE of a median radius, if there is one."""
    return None if metric is None else metric.value


def is_noise(radius: float, rmse: float) -> bool:
    """The rule: whether explanations of ``rmse`` of a model of that median radius are noise."""
    return radius < NOISE_SHARE * rmse


def radius_note(radius: float | None, rmse: float) -> str:
    """What to expect of explanations of ``rmse``, in one sentence for people.

    Args:
        radius: median attack radius of the model, RMSE; None where it was not measured.
        rmse: of the explanation, or the largest that it may have; smaller ones show less, not
            more, so what the model's card recommends is the least that makes sense.
    """
    if radius is None:
        return NOT_MEASURED
    flips = f"This model changes its mind at RMSE {radius:.2g}"
    if is_noise(radius, rmse):
        return f"{flips}; what you see is noise to people."
    return f"{flips}, far enough away for explanations that people can read."
