"""The console over the real service: TorchServe, its workers and a Chromium."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.stack.supervisor import Stack
from tests.gateway.browser import chromium

_PATIENCE_MILLISECONDS = 90_000  # the first comparison imports captum


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with chromium() as browser, browser.new_page() as opened:
        opened.goto(stack.rest_url)
        yield opened


def test_the_console_explains_and_compares_the_sample(page: Page) -> None:
    page.locator("#classes button").nth(1).click()
    expect(page.locator("#status")).to_have_text("Done.")
    with page.expect_download() as download:
        # Not by the pointer: strips that fill above the link may move it from under a click.
        page.get_by_role("link", name="JSON").evaluate("link => link.click()")
    answer = api.ExplainResponse.model_validate_json(Path(download.value.path()).read_bytes())
    (found,) = answer.explanations
    assert found.rmse <= found.rho
    assert found.confidence_after > found.confidence_before
    expect(page.locator("#numbers")).to_contain_text(f"RMSE {found.rmse:.4f} of {found.rho:g}")
    page.get_by_text("All classes").click()
    expect(page.locator("#grid button")).to_have_count(10)
    page.get_by_text("Compare with other methods").click()
    rows = page.locator("#compare tbody tr")
    expect(rows).to_have_count(len(api.Method), timeout=_PATIENCE_MILLISECONDS)
    expect(page.locator("#error")).to_be_empty()


def test_compare_is_the_same_through_both_transports(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    request = api.CompareRequest(image=images[0], target=api.ClassRef(index=3), solver="fast")
    answer = client.compare(request)
    body = request.model_dump(mode="json", exclude_none=True)
    response = httpx.post(f"{stack.rest_url}/v1/compare", json=body, timeout=120)
    again = api.CompareResponse.model_validate_json(response.content)
    for one, other in zip(answer.methods, again.methods, strict=True):
        assert one.method is other.method
        assert one.energy_share == pytest.approx(other.energy_share, abs=1e-3)
        assert one.cosine == pytest.approx(other.cosine, abs=1e-3)
    assert again.explanation.from_cache
