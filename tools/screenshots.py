"""`make screenshots`: the pages as they are, into docs/.  Uses what the browser tests use."""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.stack.archives import DEFAULT_MODEL, PLAIN_MODEL
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack
from tests.gateway.browser import chromium, enter, page_server
from tools.small_models import SMALL_MODEL

_REPOSITORY = Path(__file__).resolve().parents[1]
_DOCS = _REPOSITORY / "docs"
_MODEL = _REPOSITORY / "model_store" / SMALL_MODEL
_SLOW_MILLISECONDS = 120_000  # a sweep on a machine that does other things too


def main() -> None:
    with chromium() as browser:
        _console(browser)
        with tempfile.TemporaryDirectory() as folder:
            _annotations(browser, str(Path(folder) / "store.sqlite"))
            _gallery(browser, Path(folder))


def _console(browser: Browser) -> None:
    """The first photograph, explained by the shipped model and beside its plain twin."""
    with (
        Stack(StackConfig(models=(DEFAULT_MODEL, PLAIN_MODEL))) as stack,
        browser.new_page(viewport={"width": 1120, "height": 900}) as page,
    ):
        page.goto(stack.rest_url)
        _await_answer(page)
        _toggle(page, ("card", "#facts dt"), ("grid", "img"), ("compare", "tbody img"))
        page.screenshot(path=_DOCS / "console.png", full_page=True)
        _toggle(page, ("card", "summary"), ("grid", "summary"), ("compare", "summary"))
        _draw_region(page)
        _toggle(page, ("twins", "tbody img"))
        page.locator("h1").scroll_into_view_if_needed()
        page.screenshot(path=_DOCS / "console-region.png", full_page=True)


def _await_answer(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Done.", timeout=_SLOW_MILLISECONDS)
    expect(page.locator("#sweep img").last).to_be_visible(timeout=_SLOW_MILLISECONDS)
    expect(page.locator("#sweep")).not_to_have_attribute("aria-busy", "true")


def _toggle(page: Page, *parts: tuple[str, str]) -> None:
    """Opens or closes each, and waits for what is to be seen in it."""
    for name, part in parts:
        page.locator(f"#{name} summary").click()
        last = page.locator(f"#{name} {part}").last
        expect(last).to_be_visible(timeout=_SLOW_MILLISECONDS)


def _draw_region(page: Page) -> None:
    """Only the lower half of the picture may change, and few pixels of it."""
    page.get_by_label("box", exact=True).check()
    at = page.locator("#board").bounding_box()
    assert at is not None
    page.mouse.move(at["x"] + 10, at["y"] + 150)
    page.mouse.down()
    page.mouse.move(at["x"] + 310, at["y"] + 310)
    page.mouse.up()
    expect(page.locator("#result-title")).to_contain_text("the box", timeout=_SLOW_MILLISECONDS)
    page.get_by_label("rho is").select_option("l1.5")
    expect(page.locator("#numbers")).to_contain_text("rho_1.5", timeout=_SLOW_MILLISECONDS)
    _await_answer(page)


def _annotations(browser: Browser, store: str) -> None:
    """Both questions, about small searches of the shipped model."""
    for command, count, steps in ((("candidates",), 16, 200), (("annotations", "ask"), 10, 60)):
        arguments = [*command, "--model", str(_MODEL), "--images", str(count), "--store", store]
        result = CliRunner().invoke(build_app(), [*arguments, "--steps", str(steps)])
        if result.exit_code:
            raise SystemExit(result.output)
    with page_server(CANDOR_STORE_URL=store) as server, browser.new_page() as page:
        page.set_viewport_size({"width": 800, "height": 760})
        _judge(page, server.url)
        page.screenshot(path=_DOCS / "annotate.png")
        page.goto(f"{server.url}/annotate/flips")
        expect(page.locator("#shown")).to_be_visible()
        page.screenshot(path=_DOCS / "annotate-flips.png")


def _judge(page: Page, url: str) -> None:
    """Two answers by key, so that there is some progress to see."""
    enter(page, url, "Ada")
    for turn in (1, 2):
        page.keyboard.press("1")
        expect(page.locator("#answered")).to_have_text(str(turn))
    expect(page.locator("#task")).to_be_visible()


def _gallery(browser: Browser, folder: Path) -> None:
    """That of a small audit of the small robust model."""
    out = folder / "audit"
    counts = {"panel": 0, "smoothing": 0, "clever": 0, "explanation": 0, "gallery": 9}
    options = [word for name, count in counts.items() for word in (f"--{name}-images", str(count))]
    arguments = ["audit", "--model", str(_MODEL), "--quick"]
    arguments += ["--images", "40", "--attacks", "fast", "--no-compile", *options]
    arguments += ["--out", str(out), "--key", str(folder / "key.pem")]
    result = CliRunner().invoke(build_app(), arguments)
    if result.exit_code:
        raise SystemExit(result.output)
    with browser.new_page(viewport={"width": 1120, "height": 980}) as page:
        page.goto((out / "gallery" / "index.html").as_uri())
        page.wait_for_function("[...document.images].slice(0, 12).every((one) => one.complete)")
        page.screenshot(path=_DOCS / "gallery.png")


if __name__ == "__main__":
    main()
