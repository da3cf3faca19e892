"""`make screenshots`: the pages as they are, into docs/.  Uses what the browser tests use."""

import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from cli.main import build_app
from tests.gateway.browser import chromium, enter, page_server

_REPOSITORY = Path(__file__).resolve().parents[1]
_DOCS = _REPOSITORY / "docs"
_MODEL = _REPOSITORY / "model_store" / "cifar10-resnet20"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        store = str(Path(folder) / "store.sqlite")
        arguments = ["candidates", "--model", str(_MODEL), "--images", "16", "--steps", "200"]
        result = CliRunner().invoke(build_app(), [*arguments, "--store", store])
        if result.exit_code:
            raise SystemExit(result.output)
        with page_server(CANDOR_STORE_URL=store) as server, browser.new_page() as page:
            page.set_viewport_size({"width": 800, "height": 760})
            _annotate(page, server.url)
            page.screenshot(path=_DOCS / "annotate.png")


def _annotate(page: Page, url: str) -> None:
    """Two answers by key, so that there is some progress to see."""
    enter(page, url, "Ada")
    for turn in (1, 2):
        page.keyboard.press("1")
        expect(page.locator("#answered")).to_have_text(str(turn))
    expect(page.locator("#task")).to_be_visible()


if __name__ == "__main__":
    main()
