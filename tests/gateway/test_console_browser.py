"""The console as people use it, in a real headless Chromium, over a gateway with a linear model."""

import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from candor.contracts import api
from candor.gateway.access.keys import add_key
from candor.rpc.pb.candor.v1 import candor_pb2
from tests.gateway.linear_worker import CLASSES, SHAPE
from tests.gateway.servers import Servers, opened


@pytest.fixture
def page(browser: Browser, servers: Servers) -> Iterator[Page]:
    """At the sample image, predicted; a page that complains fails its test."""
    problems: list[str] = []
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        opened = context.new_page()
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.goto(str(servers.rest.base_url))
        expect(opened.locator("#prediction")).to_contain_text("The model predicts")
        yield opened
    assert problems == []


def choose(page: Page, name: str) -> Locator:
    """The result section, once it is of that class."""
    page.locator("#classes").get_by_role("button", name=name).click()
    expect(page.locator("#result-title")).to_have_text(f"What makes it more {name}")
    expect(page.locator("#status")).to_have_text("Done.")
    return page.locator("#result")


def downloaded(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("link", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def test_the_sample_is_explained_and_every_number_is_the_answers(page: Page) -> None:
    result = choose(page, "frog")
    answer = api.ExplainResponse.model_validate_json(downloaded(page, "JSON"))
    (found,) = answer.explanations
    expect(result.locator("#numbers")).to_contain_text(f"RMSE {found.rmse:.4f} of {found.rho:g}")
    expect(result.locator("#numbers")).to_contain_text(
        f"frog {found.confidence_before:.1%}".replace("%", " %")
    )
    row = result.locator("#bars tr.target")
    shown = [f"{share:.1%}".replace("%", " %") for share in row_of(found)]
    expect(row.locator("td")).to_have_text(shown)
    before, after = pixels(downloaded(page, "Input")), pixels(downloaded(page, "Explanation"))
    assert downloaded(page, "Explanation") == found.image_png
    change = after - before
    drawn = np.rint(127.5 + 127.5 * change / np.abs(change).max())
    difference = pixels(downloaded(page, "Difference"))
    assert np.abs(difference - drawn).max() <= 1
    width = page.locator("#before").bounding_box()["width"]
    assert width - 2 == 320 // SHAPE[2] * SHAPE[2], "whole multiples, and the border"


def row_of(found: api.Explanation) -> tuple[float, float]:
    return found.confidence_before, found.confidence_after


def test_less_of_a_class_and_another_rho(page: Page) -> None:
    choose(page, "dog")
    page.get_by_label("less of it").check()
    expect(page.locator("#result-title")).to_have_text("What makes it less dog")
    expect(page.locator("#status")).to_have_text("Done.")
    page.get_by_label("Change by RMSE").fill("0.02")
    expect(page.locator("#numbers")).to_contain_text("of 0.02")
    (found,) = api.ExplainResponse.model_validate_json(downloaded(page, "JSON")).explanations
    assert found.direction is api.Direction.AGAINST
    assert found.rmse <= found.rho == 0.02
    assert found.confidence_after < found.confidence_before


def test_sweep_and_grid_lead_to_their_explanations(page: Page) -> None:
    choose(page, "dog")
    page.get_by_text("Sweep of rho").click()
    tiles = page.locator("#sweep button")
    expect(tiles).to_have_count(8)
    tiles.nth(1).click()
    expect(page.locator("#numbers")).to_contain_text("of 0.025")
    page.get_by_text("All classes").click()
    tiles = page.locator("#grid button")
    expect(tiles).to_have_count(len(CLASSES))
    tiles.filter(has_text="ship").first.click()
    expect(page.locator("#result-title")).to_have_text("What makes it more ship")


def test_other_methods_stand_beside_it(page: Page) -> None:
    choose(page, "dog")
    page.get_by_text("Compare with other methods").click()
    rows = page.locator("#compare tbody tr")
    expect(rows).to_have_count(len(api.Method))
    for row, name in zip(rows.all(), ("Adversarial", "Grad-CAM", "LIME", "Integrated", "Gradient"),
                         strict=True):  # fmt: skip
        expect(row).to_contain_text(name)
        expect(row.locator("img")).to_have_count(2)
        expect(row.locator("td").nth(2)).to_have_text(re.compile(r"^\d+\.\d %$"))
    expect(page.locator("#moved")).to_contain_text("of RMSE 0.0")


def test_the_address_brings_everything_back(browser: Browser, page: Page, png: bytes) -> None:
    page.locator("#file").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": png})
    expect(page.locator("#result")).to_be_hidden()
    choose(page, "truck")
    page.get_by_label("Change by RMSE").fill("0.03")
    expect(page.locator("#numbers")).to_contain_text("of 0.03")
    numbers = page.locator("#numbers").inner_text().split(" · ")[:3]
    explanation = downloaded(page, "Explanation")
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert "picture=" in link
    with browser.new_page() as other:
        other.goto(link)
        expect(other.locator("#result-title")).to_have_text("What makes it more truck")
        assert other.locator("#numbers").inner_text().split(" · ")[:3] == numbers
        assert downloaded(other, "Explanation") == explanation
        other.reload()
        expect(other.locator("#result-title")).to_have_text("What makes it more truck")


def test_the_lines_to_copy_ask_the_same(page: Page, servers: Servers) -> None:
    choose(page, "dog")
    image = downloaded(page, "Input")
    (found,) = api.ExplainResponse.model_validate_json(downloaded(page, "JSON")).explanations
    curl = shlex.split(page.locator("#line-curl").inner_text())
    assert curl[:3] == ["curl", "-F", "image=@candor-input.png"]
    fields = curl[4].removeprefix("request=")
    by_curl = httpx.post(curl[5], files={"image": image, "request": (None, fields)}).json()
    assert by_curl["explanations"][0]["confidence_after"] == found.confidence_after
    printf, grpcurl = page.locator("#line-grpcurl").inner_text().split(" | ")
    asked = json_format.Parse(
        json.dumps({**json.loads(shlex.split(printf)[1]), "image": {}}), candor_pb2.ExplainRequest()
    )
    asked.image.encoded = image
    assert shlex.split(grpcurl)[4] == servers.client_address
    by_grpc = servers.stub.Explain(asked).explanations[0]
    assert by_grpc.confidence_after == found.confidence_after
    page.get_by_role("button", name="Copy the candor command").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("candor explain candor-input.png --target dog --rho 0.05 ")


def test_what_is_no_image_is_reported_and_the_console_continues(page: Page) -> None:
    choose(page, "dog")
    notes = {"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"}
    page.locator("#file").set_input_files(notes)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("image.encoded")
    expect(alert).to_contain_text("INVALID_INPUT")
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="Sample image").click()
    expect(page.locator("#prediction")).to_contain_text("The model predicts")
    expect(alert).to_be_empty()


def test_a_link_to_no_class_is_reported(page: Page) -> None:
    page.evaluate("location.hash = 'model=linear&target=99&rho=0.05&picture=sample'")
    expect(page.get_by_role("alert")).to_contain_text("expected an index below 5, got 99")


def test_everything_goes_by_keyboard(page: Page) -> None:
    first = page.locator("#classes button").first
    for _ in range(12):
        page.keyboard.press("Tab")
        if first.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Done.")
    page.keyboard.press("Tab")
    for _ in range(3):  # the rest of the classes
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#result-title")).to_contain_text("What makes it less")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#numbers")).to_contain_text("of 0.055")
    page.locator("#reveal").focus()
    page.keyboard.press("Home")
    assert page.locator("#after").evaluate("image => image.style.clipPath") != ""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#after")).to_be_hidden()
    expect(page.locator("#after")).to_be_visible()
    for name in ("Sweep of rho", "All classes", "Compare with other methods"):
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("details[open]").filter(has_text=name)).to_have_count(1)
        page.keyboard.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser: Browser, servers: Servers, scheme: str) -> None:
    size = {"width": 390, "height": 844}
    problems: list[str] = []
    with browser.new_context(color_scheme=scheme, viewport=size, has_touch=True) as context:
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(str(servers.rest.base_url))
        choose(page, "ship")
        for name, parts in (("Sweep of rho", "#sweep button"), ("All classes", "#grid button"),
                            ("Compare with other methods", "#compare tbody tr")):  # fmt: skip
            page.get_by_text(name).click()
            expect(page.locator(parts).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#classes button").first.bounding_box()["height"] >= 44
        for unlabelled in ("input:not([id])", "img:not([alt])"):
            expected = 2 if unlabelled.startswith("input") else 0  # radios stand in their labels
            expect(page.locator(unlabelled)).to_have_count(expected)
        colours = page.evaluate(
            "[...document.querySelectorAll('body, button, pre, #numbers')].map(one => {"
            " const style = getComputedStyle(one);"
            " return [style.color, style.backgroundColor]; })"
        )
        paper = brightness(colours[0][1])
        assert paper > 200 if scheme == "light" else paper < 60
    assert problems == []


def brightness(colour: str) -> float:
    return float(np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]))


def test_a_key_is_entered_once_and_named_in_the_lines(browser: Browser, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys"
    key = add_key(keys_file, "ann", "acme", ["predict", "explain"])
    for protected in opened(keys_file=str(keys_file)):
        with browser.new_context() as context:
            page = context.new_page()
            page.goto(str(protected.rest.base_url))
            page.get_by_label("Key").fill(key)
            page.keyboard.press("Enter")
            choose(page, "dog")
            for name in ("curl", "grpcurl"):
                line = page.locator(f"#line-{name}").inner_text()
                assert '-H "authorization: Bearer $CANDOR_KEY"' in line
                assert key not in line
            page.get_by_role("button", name="Log out").click()
            expect(page.get_by_label("Key")).to_be_visible()


def test_nothing_foreign_runs(servers: Servers) -> None:
    answer = servers.rest.get("/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|style=|onclick|https?://", answer.text)
    for name in re.findall(r"/pages/[\w.]+", answer.text):
        assert servers.rest.get(name).status_code == 200
    assert servers.rest.get("/pages/../settings.py").status_code == 404
    assert servers.rest.get("/pages/console.html").status_code == 404
