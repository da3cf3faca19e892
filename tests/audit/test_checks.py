"""The masking panel: networks that hide their gradients trip the right checks."""

import torch
from torch import Tensor, nn

from candor.audit.report.schema import Check
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.sections.checks import Panel, run_checks
from candor.audit.sections.probes import panel
from candor.audit.sections.summary import Evidence, ensemble_areas, share
from candor.audit.stage import Batch, Subject
from tests.fixtures.audit import CLASSES, TINY, card, plan_for, small_data, small_network

IMAGES = 5
STAGES = ("ddn", "fmn", "pgd", "square", "label-only")
BUDGET = TINY.model_copy(update={"square_queries": 100, "label_queries": 200, "descent_steps": 30})


class Quantised(nn.Module):
    """A network behind an input rounded to eight levels: no gradient reaches the pixels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images * 7).round() / 7)
        return logits


class Saturated(nn.Module):
    """Logits pressed through a steep tanh: right nearly everywhere, flat in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.tanh(1e4 * (logits - logits.mean(dim=1, keepdim=True)))


class Noisy(nn.Module):
    """A network whose outputs differ every time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + 0.01 * torch.randn_like(logits)


def _verdicts(
    network: nn.Module, *, image_count: int = IMAGES, **others: nn.Module
) -> dict[int, Check]:
    data = small_data(small_network(), 24)
    indices = [index for index in range(24) if index % 7][:image_count]
    chosen = torch.tensor(indices)
    images = data.images(chosen)
    batch = Batch(
        positions=range(image_count),
        indices=indices,
        identifiers=[str(index) for index in indices],
        images=images,
        labels=network(images).argmax(1),
        seed=0,
    )
    subject = Subject(network=network, card=card(), **others)
    clean = [
        {"position": row, "is_correct": True, "is_above_chance": True, "label": 0}
        for row in range(image_count)
    ]
    evidence = Evidence(
        rows={"clean": clean},
        records={name: ATTACK_STAGES[name].run(subject, batch, BUDGET) for name in STAGES},
        naive=1 / len(CLASSES),
        pixel_count=images[0].numel(),
        seed=0,
    )
    found = run_checks(
        Panel(
            evidence=evidence,
            plan=plan_for(
                data, ("clean", *STAGES, "panel"), image_count=image_count, budget=BUDGET
            ),
            rows=panel(subject, batch, BUDGET),
            accuracy=share([True] * image_count),
            areas=ensemble_areas(evidence),
            smoothing=None,
        )
    )
    assert [check.number for check in found] == list(range(1, 21))
    return {check.number: check for check in found}


def test_smooth_network_trips_nothing_about_gradients() -> None:
    checks = _verdicts(small_network())
    for number in (5, 6, 7, 8, 14, 15, 16):
        assert checks[number].verdict == "pass", checks[number]
    assert {checks[12].verdict, checks[18].verdict, checks[20].verdict} == {"not-applicable"}


def test_relu_network_is_called_piecewise_linear() -> None:
    check = _verdicts(small_network(nn.ReLU()))[15]
    assert check.verdict == "warn"
    assert f"kinks no gradient sees): {IMAGES}" in check.evidence


def test_quantised_input_has_no_gradient_and_yields_to_attacks_without_one() -> None:
    checks = _verdicts(Quantised(small_network()))
    assert checks[15].verdict == "fail"
    assert f"zero gradients: {IMAGES}" in checks[15].evidence
    assert checks[6].verdict == "fail"
    assert checks[7].verdict == "fail"
    assert checks[11].verdict == "fail"


def test_saturated_network_has_no_gradient_and_survives_the_whole_box() -> None:
    checks = _verdicts(Saturated(small_network()))
    assert checks[15].verdict == "fail"
    assert checks[7].verdict == "fail"
    assert checks[8].verdict == "fail"


def test_random_outputs_fail() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        check = _verdicts(Noisy(small_network()))[15]
    assert check.verdict == "fail"


def test_too_few_images_pass_nothing_that_compares_attacks() -> None:
    checks = _verdicts(small_network(), image_count=2)
    for number in (5, 6, 7, 13, 14, 15, 16, 17):
        assert checks[number].verdict == "warn"
        assert "too few images to pass" in checks[number].evidence


def test_transfer_and_ablation_are_judged_where_models_are_given() -> None:
    other = small_network(seed=1)
    checks = _verdicts(small_network(), independent=other, undefended=other)
    assert checks[12].verdict in ("pass", "warn")
    assert checks[18].verdict in ("pass", "fail")
