"""One rule and one wording for what a median radius says of explanations."""

import pytest

from candor.contracts.card import MetricCard
from candor.contracts.radius import NOT_MEASURED, median_radius_of, radius_note


def metric(name: str, count: int) -> MetricCard:
    return MetricCard(
        name=name, value=0.01, low=0.0, high=0.02, image_count=count, data="some", method="counted"
    )


@pytest.mark.parametrize(
    ("radius", "rmse", "words"),
    [
        (0.0024, 0.1, "RMSE 0.0024; what you see is noise to people"),
        (0.0049, 0.1, "noise"),
        (0.0051, 0.1, "people can read"),
        (0.0051, 0.2, "noise"),
        (None, 0.1, NOT_MEASURED),
    ],
)
def test_a_radius_below_a_twentieth_of_the_rmse_means_noise(
    radius: float | None, rmse: float, words: str
) -> None:
    assert words in radius_note(radius, rmse)


def test_of_several_measurements_the_one_of_most_images_counts() -> None:
    metrics = [metric("accuracy", 9), metric("median_radius", 3), metric("median_radius", 5)]
    assert median_radius_of(metrics) is metrics[2]
    assert median_radius_of(metrics[:1]) is None
