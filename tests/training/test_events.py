"""What TensorBoard is shown, read back with its own reader; a run is the same without it."""

import contextlib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.tiny import assert_equal_runs, colours, config_of, new_network
from tools.small_disk import fill_up
from training.events import RunEvents
from training.loop import train

SCALARS = {"loss", "accuracy", "psi", "gradient_norm", "learning_rate"}


def run(folder, *, is_watched=True, stop_after=None):
    """The network, the state and all progress reported; resumes what is in ``folder``."""
    folder.mkdir(exist_ok=True)
    seen = []
    network, data = new_network(), colours()
    events = RunEvents(folder / "tensorboard", network, data.images(slice(4)), data.labels[:4])

    def report(progress):
        seen.append(progress)
        if is_watched:
            events(progress)

    with contextlib.closing(events):
        state = train(
            network, data, config_of(), run_dir=folder, report=report, stop_after=stop_after
        )
    return network, state, seen


def read(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events") / "run"
    return folder, *run(folder)


def test_watched_run_is_bit_equal_to_an_unwatched_one(watched, tmp_path):
    _, network, state, _ = watched
    other, other_state, _ = run(tmp_path / "run", is_watched=False)
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert_equal_runs(other, other_state, (network, state))
    assert network.training


def test_scalars_are_those_reported(watched):
    folder, _, _, seen = watched
    events = read(folder)
    assert set(events.Tags()["scalars"]) == SCALARS
    by_step = {progress.step: progress for progress in seen}
    for name in SCALARS:
        field = "cross_entropy" if name == "loss" else name
        written = events.Scalars(name)
        assert [event.step for event in written] == [3, 6, 9, 10, 12]
        for event in written:
            assert event.value == pytest.approx(getattr(by_step[event.step], field), rel=1e-6)
    assert all(progress.gradient_norm > 0 for progress in seen)


def test_explanations_are_drawn_at_each_epochs_end(watched):
    folder, *_ = watched
    images = read(folder).Images("explanations")
    assert [image.step for image in images] == [3, 6, 9, 12]
    # Two rows of four images of 8 x 6 pixels.
    assert {(image.height, image.width) for image in images} == {(16, 24)}
    assert images[0].encoded_image_string != images[-1].encoded_image_string


def test_resumed_run_shows_no_step_twice(tmp_path):
    """The first part goes on past its last checkpoint, as a killed run does."""
    folder = tmp_path / "run"
    run(folder, stop_after=5)
    checkpoint = (folder / "checkpoint.pt").read_bytes()
    run(folder, stop_after=7)
    (folder / "checkpoint.pt").write_bytes(checkpoint)
    *_, seen = run(folder)
    assert seen[0].step == 6
    for name in SCALARS:
        assert [event.step for event in read(folder).Scalars(name)] == [3, 6, 9, 10, 12]


def test_full_disk_ends_the_events_and_not_the_run(watched, disk, caplog, capfd):
    _, network, state, _ = watched
    fill_up(disk / "ballast")
    folder = disk.parent / "run"
    folder.mkdir()
    (folder / "tensorboard").symlink_to(disk)
    other, other_state, _ = run(folder)
    assert_equal_runs(other, other_state, (network, state))
    (said,) = [one.message for one in caplog.records if one.name == "training.events"]
    assert "no longer written (No space left on device); the training goes on" in said
    assert capfd.readouterr().err == ""
