"""Every attack against the closed form of a linear model, and what is believed of an attack."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from candor.attacks.batching import PaddedBatches
from candor.attacks.candidates import Candidates
from candor.attacks.carlini_wagner import carlini_wagner
from candor.attacks.ddn import ddn
from candor.attacks.fgsm import fgsm
from candor.attacks.fmn import fmn
from candor.attacks.gradients import score_gradients
from candor.attacks.pgd import pgd
from candor.attacks.projection import random_start
from candor.attacks.verification import Status, tighten, verify
from candor.audit.plan import Budget
from candor.audit.records import AttackRecord
from candor.audit.sections.attacks import ATTACK_STAGES, solver_stage
from candor.audit.stage import Batch, Subject
from candor.search.solvers import SOLVERS
from candor.search.state import rmse
from candor.terms import Goal
from tests.fixtures.audit import SHAPE, TINY, card
from tests.search.linear import LinearClassifier, nearest_rmse

STEPS = 60
Attack = Callable[[nn.Module, Tensor, Tensor], Candidates]


def _random_pgd(network: nn.Module, images: Tensor, labels: Tensor) -> Candidates:
    return pgd(network, images, labels, 4.0, steps=STEPS)


ATTACKS: dict[str, Attack] = {
    "ddn": partial(ddn, goal=Goal.ATTACK, steps=STEPS),
    "fmn": partial(fmn, goal=Goal.ATTACK, steps=STEPS),
    "cw": partial(carlini_wagner, goal=Goal.ATTACK, steps=150),
    "fgsm": partial(fgsm, eps=4.0),
    "pgd": _random_pgd,
}


_COUNTS = {"cw": (3,)}  # 900 steps of Adam a batch


@pytest.fixture(scope="module")
def linear() -> LinearClassifier:
    """Two classes, so that every descent knows the nearest boundary's direction."""
    return LinearClassifier(SHAPE, 2)


def _sure(network: LinearClassifier, count: int) -> tuple[Tensor, Tensor]:
    """Images L2 1.5 from undecided grey: inside the box, outside a solver's last step."""
    generator = torch.Generator().manual_seed(1)
    grey = 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator)
    labels = torch.arange(count) % 2
    direction = network.head.weight[labels] - network.head.weight[1 - labels]
    direction = (direction / direction.norm(dim=1, keepdim=True)).view(-1, *SHAPE)
    offset = network(grey).gather(1, labels[:, None]) - network(grey).gather(1, 1 - labels[:, None])
    length = (network.head.weight[0] - network.head.weight[1]).norm()
    # Straight onto the boundary, then 1.5 away from it.
    onto = grey - (offset / length)[:, :, None, None] * direction
    return (onto + 1.5 * direction).clamp(0.05, 0.95), labels


@pytest.mark.parametrize(
    ("name", "count"), [(name, count) for name in ATTACKS for count in _COUNTS.get(name, (1, 3, 8))]
)
def test_attack_comes_within_a_hundredth_of_the_closed_form(
    linear: LinearClassifier, name: str, count: int
) -> None:
    images, labels = _sure(linear, count)
    proposed = ATTACKS[name](linear, images, labels)
    ends = verify(
        linear, images, labels, Goal.ATTACK, tighten(linear, images, labels, Goal.ATTACK, proposed)
    )
    exact = nearest_rmse(linear, images, labels)
    for end, distance in zip(ends, exact.tolist(), strict=True):
        assert end.status is Status.FOUND
        assert end.radius is not None
        assert distance * (1 - 1e-6) <= end.radius <= 1.01 * distance


@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_comes_within_a_hundredth_of_the_closed_form(
    linear: LinearClassifier, solver: str
) -> None:
    images, labels = _sure(linear, 8)
    records = solver_stage(solver).run(_subject(linear), _batch(images, labels), _long())
    exact = nearest_rmse(linear, images, labels).tolist()
    radii = [record.radius for record in records if record.goal is Goal.ATTACK]
    for radius, distance in zip(radii, exact, strict=True):
        assert distance * (1 - 1e-6) <= radius <= 1.01 * distance


@pytest.mark.parametrize("name", ["autoattack", "square", "label-only"])
def test_library_and_blind_attacks_never_pass_below_the_closed_form(
    linear: LinearClassifier, name: str
) -> None:
    images, labels = _sure(linear, 3)
    # L2 0.18 from the boundary, within every budget.
    images = images - 0.88 * (images - _mirror(linear, images, labels))
    exact = nearest_rmse(linear, images, labels).tolist()
    records = ATTACK_STAGES[name].run(_subject(linear), _batch(images, labels), _long())
    found = [record for record in records if record.status is Status.FOUND]
    assert len(found) == len(records) or name != "autoattack"
    assert found
    for record in found:
        assert exact[record.position] * (1 - 1e-6) <= record.radius
        assert record.radius * images[0].numel() ** 0.5 <= record.eps_l2


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.BTR])
@pytest.mark.parametrize("attack", [ddn, fmn, carlini_wagner])
def test_what_an_attack_proposes_is_in_the_box_and_reaches_the_goal(
    subject: Subject, attack: Callable[..., Candidates], goal: Goal
) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(8, *SHAPE, generator=generator)
    labels = subject.network(images).argmax(1)
    kept = images.clone()
    proposed = attack(subject.network, images, labels, goal, 40)
    assert torch.equal(images, kept)
    assert bool(((proposed.images >= 0) & (proposed.images <= 1)).all())
    ends = verify(subject.network, images, labels, goal, proposed)
    for end, is_found in zip(ends, proposed.is_found.tolist(), strict=True):
        assert end.status is (Status.FOUND if is_found else Status.UNRESOLVED)
    # FMN's first steps, L2 1, are coarse for images this small, and BTR lies farther out.
    assert int(proposed.is_found.sum()) >= (5 if attack is fmn else 8)


def test_images_stay_within_the_budget(subject: Subject) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(8, *SHAPE, generator=generator)
    labels = subject.network(images).argmax(1)
    start = random_start(images, 0.3, range(8))
    for found in (
        fgsm(subject.network, images, labels, 0.3),
        pgd(subject.network, images, labels, 0.3, steps=10, start=start),
    ):
        lengths = rmse(found.images, images) * images[0].numel() ** 0.5
        assert bool((lengths <= 0.3 * (1 + 1e-5)).all())
        assert bool(((found.images >= 0) & (found.images <= 1)).all())


def test_an_image_that_is_adversarial_only_in_its_batch_does_not_count() -> None:
    class BatchTrap(nn.Module):
        """Says the other class whenever it sees more than one image."""

        def forward(self, images: Tensor) -> Tensor:
            logits = torch.tensor([1.0, 0.0]).repeat(len(images), 1)
            return logits.flip(1) if len(images) > 1 else logits

    images, labels = torch.rand(3, *SHAPE), torch.zeros(3, dtype=torch.int64)
    proposed = Candidates(
        images=images.flip(0),
        is_found=torch.tensor([True, True, False]),
        lower_bounds=torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        steps=torch.ones(3, dtype=torch.int64),
    )
    ends = verify(BatchTrap(), images, labels, Goal.ATTACK, proposed)
    statuses = [end.status for end in ends]
    assert statuses == [Status.UNVERIFIED, Status.UNVERIFIED, Status.UNRESOLVED]
    assert [end.lower_bound for end in ends] == [0.1, 0.2, 0.3]
    assert all(end.radius is None for end in ends)


def test_a_point_on_the_boundary_may_be_lost_by_rounding(linear: LinearClassifier) -> None:
    images, labels = _sure(linear, 8)
    proposed = ATTACKS["fmn"](linear, images, labels)
    tight = tighten(linear, images, labels, Goal.ATTACK, proposed)
    ends = verify(linear, images, labels, Goal.ATTACK, tight)
    for end, image, label in zip(ends, images, labels, strict=True):
        assert end.rounded_radius is not None
        assert end.image_sha256 is not None
        assert abs(end.rounded_radius - (end.radius or 0.0)) < 0.5 / 255
        assert end.holds_rounded in (True, False)
        assert int(linear(image[None]).argmax(1)) == int(label)
    assert not all(end.holds_rounded for end in ends)


def test_already_wrong_is_distance_zero(linear: LinearClassifier) -> None:
    images, labels = _sure(linear, 4)
    proposed = ATTACKS["ddn"](linear, images, 1 - labels)
    ends = verify(linear, images, 1 - labels, Goal.ATTACK, proposed)
    assert {(end.status, end.radius) for end in ends} == {(Status.ALREADY_WRONG, 0.0)}


# Padded batches leave nothing to rounding.  A solver's batch is not padded: its image may be moved
# outward by a first nudge of 1.0005 when it is settled, and by another when it is verified alone.
_LARGEST_CHANGE = dict.fromkeys(("ddn", "fmn", "pgd", "square", "label-only"), 1e-6)
_LARGEST_CHANGE |= dict.fromkeys(SOLVERS, 1.0005**2 - 1)


@pytest.mark.parametrize("name", _LARGEST_CHANGE)
def test_an_image_goes_its_own_way_in_any_batch(subject: Subject, name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(4, *SHAPE, generator=generator)
    labels = subject.network(images).argmax(1)
    stage = ATTACK_STAGES[name]
    whole = stage.run(subject, _batch(images, labels), TINY)
    for size in (1, 3):
        parts = []
        for start in range(0, 4, size):
            part = slice(start, start + size)
            batch = _batch(images[part], labels[part], first=start)
            parts += stage.run(subject, batch, TINY)
        _assert_alike(whole, parts, _LARGEST_CHANGE[name])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_padded_batches_give_every_image_the_outputs_and_gradients_of_a_whole_batch(
    subject: Subject, count: int
) -> None:
    images = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(6))
    padded = PaddedBatches(subject.network)

    def evaluated(part: Tensor) -> tuple[Tensor, Tensor]:
        logits, _, gradients = score_gradients(padded, part, lambda logits: logits[:, 0])
        return logits, gradients

    for found, expected in zip(evaluated(images[:count]), evaluated(images), strict=True):
        torch.testing.assert_close(found, expected[:count], rtol=1e-6, atol=1e-7)


def _assert_alike(
    whole: list[AttackRecord], parts: list[AttackRecord], largest_change: float
) -> None:
    found = {record.key: record for record in parts}
    assert len(found) == len(whole) == len(parts)
    for record in whole:
        other = found[record.key]
        assert record.status is other.status
        if record.radius is not None:
            assert other.radius == pytest.approx(record.radius, rel=largest_change)


def _mirror(network: LinearClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """The nearest point on the boundary."""
    direction = network.head.weight[labels] - network.head.weight[1 - labels]
    direction = (direction / direction.norm(dim=1, keepdim=True)).view(-1, *SHAPE)
    distance = nearest_rmse(network, images, labels) * images[0].numel() ** 0.5
    return images - distance[:, None, None, None] * direction


def _subject(network: nn.Module) -> Subject:
    return Subject(network=network, card=card())


def _batch(images: Tensor, labels: Tensor, *, first: int = 0) -> Batch:
    positions = range(first, first + len(labels))
    return Batch(
        positions=positions,
        indices=positions,
        identifiers=[str(position) for position in positions],
        images=images,
        labels=labels,
        seed=0,
    )


def _long() -> Budget:
    changes = {"steps": 450, "descent_steps": 100, "square_queries": 300, "label_queries": 400}
    return TINY.model_copy(update=changes)
