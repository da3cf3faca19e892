"""Which engine searches run on is learnt from the search worker and said everywhere."""

import logging
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect
from prometheus_client import CollectorRegistry

from candor.contracts.worker import DescribeAnswer
from tests.gateway.linear_worker import CARD
from tests.gateway.servers import Servers, opened

_LOOKS = 20
COMPILED = {"engine": "compiled", "precision": "bfloat16"}


@pytest.fixture(scope="module")
def watched() -> Iterator[Servers]:
    """A gateway whose worker says what it is told to say."""
    yield from opened()


def said_by(servers: Servers, **fields: str) -> None:
    """From now on the search worker says this of itself."""
    servers.backend.described["search"] = DescribeAnswer(card=CARD, **fields)  # type: ignore[arg-type]


def until_served(servers: Servers, **fields: str) -> dict[str, str]:
    for _ in range(_LOOKS):
        found = {name: served(servers)[name] for name in fields}
        if found == fields:
            return found
        servers.wait(servers.gateway.service.ready())
    raise AssertionError(f"expected {fields}, got {found}")


def served(servers: Servers) -> dict[str, str]:
    response: httpx.Response = servers.rest.get("/v1/models/linear")
    body: dict[str, str] = response.json()
    return body


def gauges(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    labels = [("eager", "float32"), ("compiled", "bfloat16")]
    return {
        (engine, precision): registry.get_sample_value(
            "candor_engine", {"model": "linear", "engine": engine, "precision": precision}
        )
        or 0.0
        for engine, precision in labels
    }


def test_a_change_of_engine_is_served_counted_and_logged(
    watched: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    registry = watched.gateway.metrics.registry
    said_by(watched)
    until_served(watched, engine="eager", precision="float32")
    assert gauges(registry) == {("eager", "float32"): 1, ("compiled", "bfloat16"): 0}
    with caplog.at_level(logging.INFO, "gateway.served"):
        said_by(watched, **COMPILED)
        until_served(watched, **COMPILED)
    assert gauges(registry) == {("eager", "float32"): 0, ("compiled", "bfloat16"): 1}
    assert "linear: searches run compiled, in bfloat16" in caplog.text
    details = watched.client.get_model()
    assert (details.engine, details.precision) == ("compiled", "bfloat16")


def test_why_searches_are_not_compiled_is_logged_once(
    watched: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "gateway.served"):
        said_by(watched, note="the compiler was ended by SIGKILL")
        until_served(watched, engine="eager")
        for _ in range(3):
            watched.wait(watched.gateway.service.ready())
    line = "linear: searches stay uncompiled: the compiler was ended by SIGKILL"
    assert caplog.text.count(line) == 1


def test_the_console_says_which_engine_runs(watched: Servers, browser: Browser) -> None:
    said_by(watched, **COMPILED)
    until_served(watched, **COMPILED)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(str(watched.rest.base_url))
        expect(page.locator("#engine")).to_have_text("searches run compiled, in bfloat16")
        said_by(watched)
        until_served(watched, engine="eager", precision="float32")
        page.locator("#classes").get_by_role("button", name="frog").click()
        expect(page.locator("#status")).to_have_text("Done.")
        expect(page.locator("#engine")).to_have_text("searches run eager, in float32")
