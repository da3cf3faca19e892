"""Learning-rate schedules at their corners and in between."""

import pytest

from training.schedule import Schedule, learning_rate

ALL = pytest.mark.parametrize("schedule", list(Schedule))


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        (Schedule.ONE_CYCLE, 0.0, 0.1),
        (Schedule.ONE_CYCLE, 0.1, 0.55),
        (Schedule.ONE_CYCLE, 0.2, 1.0),
        (Schedule.ONE_CYCLE, 0.6, 0.5),
        (Schedule.ONE_CYCLE, 1.0, 0.0),
        (Schedule.STEPS, 0.0, 0.1),
        (Schedule.STEPS, 0.025, 0.55),
        (Schedule.STEPS, 0.05, 1.0),
        (Schedule.STEPS, 0.8499, 1.0),
        (Schedule.STEPS, 0.85, 0.1),
        (Schedule.STEPS, 0.9749, 0.1),
        (Schedule.STEPS, 0.975, 0.01),
    ],
)
def test_rate_at_its_corners(schedule, progress, factor):
    rate = learning_rate(schedule, peak=0.4, progress=progress)
    assert rate == pytest.approx(0.4 * factor, abs=1e-12)


@ALL
def test_rate_rises_to_its_peak_once_and_never_grows_again(schedule):
    rates = [learning_rate(schedule, peak=1.0, progress=step / 400) for step in range(400)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


@ALL
def test_rate_is_proportional_to_the_peak(schedule):
    for progress in (0.01, 0.3, 0.9):
        ratio = learning_rate(schedule, peak=3.0, progress=progress) / learning_rate(
            schedule, peak=1.0, progress=progress
        )
        assert ratio == pytest.approx(3.0)


def test_warm_up_of_the_papers_schedule_is_ten_of_two_hundred_epochs():
    rates = [learning_rate(Schedule.STEPS, peak=0.1, progress=e / 200) for e in range(200)]
    assert rates.index(pytest.approx(0.1)) == 10
    assert [e for e in range(11, 200) if rates[e] < 0.5 * rates[e - 1]] == [170, 195]


@pytest.mark.parametrize(
    ("schedule", "epochs", "drops"),
    [(Schedule.STEPS_IMAGENET, 65, [50, 60]), (Schedule.STEPS_COCO, 80, [55, 70])],
)
def test_schedules_of_the_larger_data_sets_step_at_the_papers_epochs(schedule, epochs, drops):
    rates = [learning_rate(schedule, peak=0.1, progress=e / epochs) for e in range(epochs)]
    assert rates[0] == pytest.approx(0.01)
    assert rates.index(pytest.approx(0.1)) == 10
    assert [e for e in range(11, epochs) if rates[e] < 0.5 * rates[e - 1]] == drops
