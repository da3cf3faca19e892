"""The scheduler's decisions over thousands of simulated requests: overload, fairness, outages."""

import functools

import pytest

from candor.contracts.errors import ErrorCode
from candor.gateway.access.request_context import Priority
from tools.scenarios import overload
from tools.simulation import Crowd, Machine, Record, Simulation

SCENARIO = overload()
USUAL = Machine()
MACHINES = {
    "usual": USUAL,
    "slow": Machine(step_seconds=0.02, more_seconds=0.012),
    "uneven": Machine(noise=0.5),
    "one worker": Machine(workers=1),
    "with neighbours": Machine(slow=((30.0, 60.0, 1.4),)),
    "killed workers": Machine(kills=(25.0, 40.0)),
}


def crowd(rate: float, **fields: object) -> Crowd:
    values = {"end": SCENARIO.overload_seconds, "steps": SCENARIO.steps, **fields}
    return Crowd(rate=rate, deadline_seconds=SCENARIO.objective_seconds, **values)  # type: ignore[arg-type]


@functools.cache
def peak_of(machine: Machine, seed: int = 1) -> float:
    begin, end = SCENARIO.warming_seconds, SCENARIO.warming_seconds + SCENARIO.peak_seconds
    waiting = Crowd(callers=SCENARIO.peak_callers, end=end, steps=SCENARIO.steps)
    return Simulation(machine, [waiting], seed=seed).run().rate(begin, end)


def goodput(record: Record) -> float:
    return record.rate(SCENARIO.settling_seconds, SCENARIO.overload_seconds)


@pytest.mark.parametrize(
    ("name", "seed"), [*((name, 1) for name in MACHINES), ("usual", 2), ("uneven", 3)]
)
def test_overload_costs_no_goodput_and_makes_nothing_late(name: str, seed: int) -> None:
    machine = MACHINES[name]
    peak = peak_of(machine, seed)
    record = Simulation(machine, [crowd(SCENARIO.times * peak)], seed=seed).run()
    assert goodput(record) >= SCENARIO.goodput_share * peak
    assert record.late == record.shed == []
    assert record.slowest() <= SCENARIO.objective_seconds
    assert record.rejected.keys() == {ErrorCode.OVERLOADED}
    assert sum(record.rejected.values()) > 5 * len(record.answered)
    assert 1.0 <= min(record.delays) <= max(record.delays) <= SCENARIO.objective_seconds


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_load_that_can_be_served_is_served(share: float) -> None:
    record = Simulation(USUAL, [crowd(share * peak_of(USUAL))]).run()
    assert record.late == []
    assert not record.rejected


def test_clients_that_obey_the_delay_are_all_served_in_the_end() -> None:
    callers = Crowd(callers=200, end=120.0, steps=SCENARIO.steps)
    record = Simulation(USUAL, [callers]).run()
    assert record.late == []
    assert record.rate(20.0, 120.0) >= 0.9 * peak_of(USUAL)


def test_overload_by_one_tenant_has_no_other_rejected() -> None:
    peak = peak_of(USUAL)
    greedy, modest = crowd(10 * peak, tenant="greedy"), crowd(0.3 * peak, tenant="modest")
    record = Simulation(USUAL, [greedy, modest]).run()
    answered = sum(one.tenant == "modest" for one in record.answered)
    assert answered == record.arrived["modest"] > 50
    assert record.rate(20.0, 60.0, "greedy") >= 0.5 * peak
    assert record.late == []


def test_two_tenants_get_as_much_however_much_each_asks_for() -> None:
    peak = peak_of(USUAL)
    crowds = [crowd(3 * peak, tenant="less"), crowd(12 * peak, tenant="more")]
    record = Simulation(USUAL, crowds).run()
    less, more = (record.rate(20.0, 60.0, name) for name in ("less", "more"))
    assert 0.8 < less / more < 1.25
    assert record.late == []


def test_tenants_that_come_later_make_no_one_late() -> None:
    peak = peak_of(USUAL)
    first = crowd(10 * peak, tenant="first")
    later = [crowd(peak, tenant=f"{one}", begin=20.0) for one in range(8)]
    record = Simulation(USUAL, [first, *later]).run()
    assert len(record.late) <= 3
    # What the first tenant was promised while it was alone is more than its share by then.
    assert {search.tenant for search in record.shed} <= {"first"}
    assert goodput(record) >= SCENARIO.goodput_share * peak
    wasted = sum(search.taken for search in record.shed)
    assert wasted < 0.15 * SCENARIO.steps * len(record.answered)
    served = [record.rate(30.0, 60.0, f"{one}") for one in range(8)]
    assert max(served) < 2 * min(served)


@pytest.mark.parametrize("priority", [Priority.PROBE, Priority.REPORT])
def test_no_service_class_starves(priority: Priority) -> None:
    peak = peak_of(USUAL)
    urgent = crowd(5 * peak)
    waiting = Crowd(
        callers=1, end=50.0, steps=100, priority=priority, deadline_seconds=float("inf")
    )
    alone = Simulation(USUAL, [waiting]).run()
    record = Simulation(USUAL, [urgent, Crowd(**{**fields(waiting), "tenant": "patient"})]).run()
    got = record.rate(0.0, 60.0, "patient")
    assert 0.02 * alone.rate(0.0, 50.0) < got
    assert goodput(record) >= SCENARIO.goodput_share * peak


def fields(one: Crowd) -> dict[str, object]:
    return {name: getattr(one, name) for name in Crowd.__dataclass_fields__}


def test_short_searches_pass_long_ones_by() -> None:
    peak = peak_of(USUAL)
    short = Crowd(rate=0.5 * peak, end=60.0, steps=20, tenant="short")
    record = Simulation(USUAL, [crowd(5 * peak), short]).run()
    seconds = [one.ended - one.arrived for one in record.answered if one.tenant == "short"]
    assert len(seconds) == record.arrived["short"]
    assert sorted(seconds)[len(seconds) // 2] < 2.0


def test_outage_of_every_worker_costs_only_its_time() -> None:
    kills = tuple(moment for start in (25.0, 28.1, 31.2) for moment in (start, start))
    machine = Machine(kills=kills)  # nobody computes for nine seconds
    peak = peak_of(USUAL)
    record = Simulation(machine, [crowd(10 * peak)]).run()
    assert record.late == []
    assert goodput(record) >= SCENARIO.goodput_share * peak * (40.0 - 9.3) / 40.0


def test_deadline_that_no_machine_meets_is_no_overload() -> None:
    hasty = Crowd(rate=1.0, begin=5.0, end=20.0, deadline_seconds=0.05)
    record = Simulation(USUAL, [Crowd(callers=1, end=4.0), hasty]).run()
    assert record.rejected.keys() == {ErrorCode.TIMEOUT}
    assert record.late == []


def test_chunks_grow_while_nobody_new_comes_and_are_short_again_for_a_newcomer() -> None:
    quiet = Machine(workers=1, noise=0.0)
    alone = Crowd(callers=1, end=0.1, steps=2000, deadline_seconds=float("inf"))
    newcomer = Crowd(callers=1, begin=3.0, end=3.1, steps=2000, deadline_seconds=float("inf"))
    lengths = Simulation(quiet, [alone, newcomer]).run().lengths
    before = [seconds for began, seconds in lengths if 1.0 < began < 3.0]
    assert min(before) > 0.25  # grown
    first_after = next(seconds for began, seconds in lengths if began >= 3.0)
    assert first_after < 0.2
    assert max(seconds for began, seconds in lengths if began > 5.0) > 0.25


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Simulation(USUAL, [crowd(20.0, end=15.0)], seed=3).run() for _ in range(2)]
    assert runs[0].answered == runs[1].answered
    assert runs[0].rejected == runs[1].rejected
