"""The controller of psi against Eq. 15 by hand."""

import dataclasses
import math

import pytest

from training.psi import PsiController


def test_psi_follows_equation_15():
    controller = PsiController(
        psi_min=220.0, psi_rate=0.02, clip_better=1.0, clip_worse=0.01, loss_target=1.5
    )
    # -ln(loss / 1.5): 0.4055 kept, 4.6 clipped to 1, -0.405 clipped to -0.01
    for loss, integral in [(1.0, math.log(1.5)), (0.015, math.log(1.5) + 1), (2.25, 1.395465)]:
        controller = controller.updated(loss)
        assert controller.integral == pytest.approx(integral, abs=1e-6)
        assert controller.psi == pytest.approx(220.0 * math.exp(0.02 * integral), rel=1e-6)


def test_loss_at_the_target_changes_nothing():
    controller = PsiController(integral=3.0)
    assert controller.updated(1.5).psi == controller.psi


@pytest.mark.parametrize(("loss", "change"), [(1e-9, 0.5), (0.0, 0.5), (1e9, -0.25)])
def test_one_batch_moves_the_integral_by_no_more_than_its_limits(loss, change):
    controller = PsiController(clip_better=0.5, clip_worse=0.25, integral=10.0)
    assert controller.updated(loss).integral == pytest.approx(10.0 + change)


def test_psi_never_falls_below_its_minimum():
    controller = PsiController(psi_min=7.0, clip_worse=5.0, integral=0.3)
    for _ in range(3):
        controller = controller.updated(100.0)
        assert (controller.integral, controller.psi) == (0.0, 7.0)
    assert controller.updated(0.75).psi > 7.0


def test_update_keeps_every_setting():
    before = PsiController(
        psi_min=3.0, psi_rate=0.1, clip_better=0.2, clip_worse=0.3, loss_target=0.9, integral=1.0
    )
    after = dataclasses.asdict(before.updated(0.5))
    assert after == dataclasses.asdict(before) | {"integral": pytest.approx(1.2)}


@pytest.mark.parametrize(
    "field", ["psi_min", "psi_rate", "clip_better", "clip_worse", "loss_target", "integral"]
)
@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_setting_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}: got .*allowed"):
        PsiController(**{field: value})
