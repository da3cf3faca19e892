"""A real headless Chromium, and a gateway process that serves pages and can be killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.gateway.servers import until

_EXPECT_MILLISECONDS = 20_000
_START_SECONDS = 60.0  # a process that imports everything, on a machine that does more than this
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips, with the reason, where there is no Chromium."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium; Debian's package is chromium")
    with sync_playwright() as playwright:
        expect.set_options(timeout=_EXPECT_MILLISECONDS)
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@contextmanager
def context_of_routes(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A context for pages with route handlers.

    A page polls, so that one of its requests may be with a handler when the test ends. Closed
    under it, the handler fails, and with it the next test, whichever that is.
    """
    with browser.new_context(**options) as context:
        try:
            yield context
        finally:
            for page in context.pages:
                page.unroute_all(behavior="ignoreErrors")
            context.unroute_all(behavior="ignoreErrors")


def enter(page: Page, url: str, name: str) -> Page:
    """Through the name form to the first candidate; back once the page's script listens."""
    page.goto(f"{url}/annotate")
    page.get_by_label("Your name").fill(name)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    expect(page.locator("#task")).to_be_visible()
    return page


class PageServer:
    """`python -m candor.gateway` on one port, without workers: pages need none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ,
            "CANDOR_GRPC_PORT": "0",
            "CANDOR_REST_PORT": str(self.port),
            "CANDOR_TORCHSERVE_ADDRESS": "127.0.0.1:1",
            "CANDOR_MODELS": '["none"]',
            "CANDOR_DRAIN_SECONDS": "0.1",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "candor.gateway"],
            env=self._environment,
            stdout=subprocess.DEVNULL,
        )
        until(self._answers, _START_SECONDS)

    def kill(self) -> None:
        """As the kernel or a power cut would: nothing is flushed or finished."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz/live", timeout=1).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def page_server(**environment: str) -> Iterator[PageServer]:
    """Running; killed or stopped by the time the block ends."""
    server = PageServer(environment)
    server.start()
    try:
        yield server
    finally:
        server.stop()
