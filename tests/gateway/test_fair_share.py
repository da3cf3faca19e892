"""Weighted fair shares."""

from candor.gateway.scheduling.fair_share import FairShares


def test_charges_count_by_weight() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("a")
    shares.join("b")
    shares.charge("a", 8.0, weight=4.0)
    shares.charge("b", 1.0)
    assert (shares.virtual_time("a"), shares.virtual_time("b")) == (2.0, 1.0)


def test_key_saves_nothing_up_while_away() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("busy")
    shares.charge("busy", 10.0)
    shares.join("new")
    assert shares.virtual_time("new") == 10.0


def test_key_escapes_no_charge_by_leaving() -> None:
    shares: FairShares[str] = FairShares()
    shares.join("patient")
    shares.join("greedy")
    shares.charge("greedy", 5.0)
    shares.leave("greedy")
    shares.join("greedy")
    assert shares.virtual_time("greedy") == 5.0


def test_keys_that_left_are_forgotten() -> None:
    shares: FairShares[int] = FairShares()
    shares.join(-1)
    for tenant in range(1000):
        shares.join(tenant)
        shares.charge(tenant, 1.0)
        shares.leave(tenant)
    shares.charge(-1, 2.0)
    shares.leave(-1)
    assert len(shares) == 0
