"""Fixtures of the gateway's tests."""

import pytest

from tests.gateway.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
