"""What the benchmarks compare with, and that each of their commands runs."""

import json
from pathlib import Path

import pytest
import torch

from candor.search.batch import plan_goal, run_searches
from candor.search.goals import log_odds
from candor.search.solvers import SOLVERS
from candor.terms import Goal, Norm, SearchStatus
from tests.fixtures.audit import small_data, small_network
from tools.bench import autoattack, gpu, norms
from tools.bench.baseline import plain_network, plain_radii
from tools.bench.curve import projected_ascent
from tools.bench.curve import rows_of as curve_rows
from tools.bench.engine import Case
from tools.bench.engine import rows_of as engine_rows
from tools.bench.machine import instruction_sets, precisions


@pytest.mark.parametrize("goal", [Goal.ATTACK, Goal.BTR])
def test_plain_loop_finds_the_radii_of_solver_paper(goal: Goal) -> None:
    network = small_network()
    data = small_data(network, 8)
    images, labels = data.images(slice(None)), data.labels
    plain, is_unresolved = plain_radii(plain_network(network), images, labels, goal, steps=60)
    paper = run_searches(network, images, plan_goal(goal, labels, steps=60), solver="paper")
    statuses = [status is SearchStatus.UNRESOLVED for status in paper.statuses]
    assert is_unresolved.tolist() == statuses
    found = ~is_unresolved
    assert found.any()
    torch.testing.assert_close(plain[found], paper.rmse[found].float(), rtol=1e-3, atol=1e-6)


def test_norms_are_compared_at_the_confidence_of_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "_OTHERS", (Norm.L1_5,))
    network = small_network()
    images = small_data(network, 6).images(slice(None))
    targets = (network(images).argmax(1) + 1) % 4
    plain = norms.explained(network, images, targets, Norm.L2, torch.full((6,), 0.1))
    wanted = log_odds(plain.logits_after, targets)
    rhos, is_reached = norms.matching_rhos(network, images, targets, Norm.L1_5, wanted)
    assert is_reached.any()
    for factor, is_enough in ((1.0, True), (0.95, False)):
        result = norms.explained(network, images, targets, Norm.L1_5, factor * rhos)
        odds = log_odds(result.logits_after, targets)
        assert bool(((odds >= wanted - 1e-4) == is_enough)[is_reached].all())
    two_of_forty_eight = torch.zeros(1, 3, 8, 6)
    two_of_forty_eight[0, :, 2, 3], two_of_forty_eight[0, 0, 5, 5] = 0.4, -0.5
    assert norms.core_share(two_of_forty_eight).tolist() == [pytest.approx(2 / 48)]
    rows = norms.rows_of("small", network, images, targets)
    assert [row.norm for row in rows] == [Norm.L2, Norm.L1_5]
    assert rows[1].n == int(is_reached.sum())
    assert "| small | l1.5 |" in norms.section(rows)


def test_engine_is_measured_beside_network_and_plain_loop() -> None:
    network = small_network()
    images = small_data(network, 5).images(slice(None))
    case = Case(
        "small", "float32", plain_network(network), network, images, images.new_zeros(5).long()
    )
    rows = engine_rows(case, 2, steps=2)
    assert [row.measure.rpartition(", ")[2] for row in rows] == [
        "of the network alone",
        "over the plain loop",
    ] * len(SOLVERS)
    for row in rows:
        assert "float32, batch 5" in row.measure
        assert row.baseline is not None
        assert row.ours > 0 < row.baseline
        assert row.n == 2
        assert "of processor time" in row.detail


def test_curve_ends_no_lower_than_the_plain_loops_and_inside_rho() -> None:
    network = small_network()
    images = small_data(network, 6).images(slice(None))
    targets = (network(images).argmax(1) + 1) % 4
    few, many = curve_rows(network, images, targets, (2, 12))
    assert few.ours <= many.ours
    assert many.is_met, many
    found = projected_ascent(network, images, targets, 6) - images
    assert float(found.square().mean(dim=(1, 2, 3)).sqrt().max()) <= 0.1 * (1 + 1e-5)


def test_autoattack_comes_to_the_verdicts_of_the_library_alone() -> None:
    network = small_network()
    data = small_data(network, 6)
    images, labels = data.images(slice(None)), data.labels
    time, accuracy, verdicts = autoattack.rows_of(network, network, images, labels, seed=3)
    assert time.ours > 0
    assert time.n == accuracy.n == 6
    assert "Engstrom2019Robustness" in accuracy.detail
    assert 0.0 <= accuracy.ours <= 100.0
    assert verdicts.n > 0
    assert verdicts.is_met, verdicts


def test_command_for_a_gpu_runs_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(
        ["--device", "cpu", "--sizes", "2", "--steps", "1", "--repeats", "1", "--eager", "--json"]
    )
    first, _, rows = capsys.readouterr().out.partition("\n")
    assert f"torch {torch.__version__}" in first
    # float32 and where there is one bfloat16, every solver twice.
    assert len(json.loads(rows)) == 2 * len(SOLVERS) * len(precisions(torch.device("cpu")))


def test_a_gpu_that_is_not_there_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--device: expected a GPU that torch sees, got cuda" in capsys.readouterr().err


def test_instruction_sets_are_read_and_missing_ones_are_no_error(tmp_path: Path) -> None:
    source = tmp_path / "cpuinfo"
    source.write_text("processor: 0\nflags\t: fpu avx2 avx512f amx_bf16\nflags\t: fpu avx2\n")
    assert instruction_sets(source) == ("avx2", "avx512f", "amx_bf16")
    assert instruction_sets(tmp_path / "none") == ()
