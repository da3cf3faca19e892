"""The console as people use it, in a real headless Chromium, over a gateway with a linear model."""

import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from google.protobuf import json_format
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect

from candor.contracts import api
from candor.gateway.access.keys import add_key
from candor.rpc.pb.candor.v1 import candor_pb2
from tests.gateway.browser import context_of_routes
from tests.gateway.linear_worker import CLASSES, SHAPE
from tests.gateway.servers import Servers, opened


@pytest.fixture
def page(browser: Browser, servers: Servers) -> Iterator[Page]:
    """At the first photograph, explained; a page that complains fails its test."""
    yield from explained(browser, str(servers.rest.base_url))


def explained(browser: Browser, url: str) -> Iterator[Page]:
    problems: list[str] = []
    permissions = ["clipboard-read", "clipboard-write"]
    with context_of_routes(browser, permissions=permissions) as context:
        opened = context.new_page()
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda said: problems.append(said.text) if is_problem(said) else None)
        opened.goto(url)
        expect(opened.locator("#status")).to_have_text("Done.")
        yield opened
    assert problems == []


def is_problem(said: ConsoleMessage) -> bool:
    return said.type == "error" and "the server responded with a status of 4" not in said.text


def choose(page: Page, name: str) -> Locator:
    """The result section, once it is of that class."""
    page.locator("#classes").get_by_role("button", name=name).click()
    expect(page.locator("#result-title")).to_have_text(f"What makes it more {name}")
    expect(page.locator("#status")).to_have_text("Done.")
    return page.locator("#result")


def downloaded(page: Page, name: str) -> bytes:
    link = page.get_by_role("link", name=name, exact=True)
    with page.expect_download() as download:
        # Not by the pointer: strips that fill above the link may move it from under a click.
        link.evaluate("link => link.click()")
    return Path(download.value.path()).read_bytes()


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def answer_of(page: Page) -> tuple[api.ExplainResponse, api.Explanation]:
    """The response that the page shows, and its explanation."""
    answer = api.ExplainResponse.model_validate_json(downloaded(page, "JSON"))
    return answer, answer.explanations[0]


def test_it_answers_before_anything_is_clicked(page: Page) -> None:
    answer, found = answer_of(page)
    first, second = answer.predictions_before[:2]
    assert found.target.index == second.index
    expect(page.locator("#prediction")).to_contain_text(
        f"The model predicts {first.name}, {first.confidence:.1%}".replace("%", " %")
    )
    expect(page.locator("#prediction")).to_contain_text(f"The runner-up is {second.name}")
    expect(page.locator("#result-title")).to_have_text(f"What makes it more {second.name}")
    expect(page.locator("#sweep button")).to_have_count(8)
    assert answer.median_radius is not None
    expect(page.locator("#card-title")).to_have_text(
        "About linear, version 1.2: accuracy 90.0 %, "
        f"median radius {answer.median_radius.value:.4f}"
    )
    assert found.radius_note
    expect(page.locator("#honesty")).to_have_text(found.radius_note)
    expect(page.locator("#twins")).to_be_hidden()  # there is no other model
    page.get_by_role("button", name="a rocket").click()
    expect(page.locator("#status")).to_have_text("Done.")
    assert answer_of(page)[0].input_png != answer.input_png


def test_every_number_and_image_is_the_answers(page: Page) -> None:
    result = choose(page, "frog")
    _, found = answer_of(page)
    expect(result.locator("#numbers")).to_contain_text(f"RMSE {found.rmse:.4f} of {found.rho:g}")
    expect(result.locator("#numbers")).to_contain_text(
        f"frog {found.confidence_before:.1%}".replace("%", " %")
    )
    row = result.locator("#bars tr.target")
    shown = [f"{share:.1%}".replace("%", " %") for share in row_of(found)]
    expect(row.locator("td")).to_have_text(shown)
    measures = result.locator("#measures")
    for number in (found.rho_1, found.rho_1_5, found.rmse, found.rho_inf):
        expect(measures).to_contain_text(f"{number:.4f}")
    expect(measures).to_contain_text(f"{found.sparsity:.1%}".replace("%", " %"))
    expect(measures.locator("dd").first).to_contain_text("yes" if found.flips else "no")
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


def test_less_of_a_class_in_another_size_and_norm(page: Page) -> None:
    choose(page, "dog")
    page.get_by_label("less of it").check()
    expect(page.locator("#result-title")).to_have_text("What makes it less dog")
    expect(page.locator("#status")).to_have_text("Done.")
    page.get_by_label("Change by at most rho").fill("0.02")
    expect(page.locator("#numbers")).to_contain_text("of 0.02")
    _, found = answer_of(page)
    assert found.direction is api.Direction.AGAINST
    assert found.rmse <= found.rho == 0.02
    assert found.confidence_after < found.confidence_before
    page.get_by_label("rho is").select_option("l1.5")
    expect(page.locator("#numbers")).to_contain_text("rho_1.5 0.0")
    _, found = answer_of(page)
    assert found.norm == "l1.5"
    assert found.rho_1_5 <= 0.02


def test_why_this_and_not_that(page: Page) -> None:
    choose(page, "dog")
    page.get_by_label("Against").select_option("ship")
    expect(page.locator("#result-title")).to_have_text("What makes it more dog and less ship")
    _, found = answer_of(page)
    assert found.away_from is not None
    assert found.away_from.name == "ship"
    page.get_by_label("Against").select_option("dog")
    expect(page.locator("#away-error")).to_contain_text("away_from: expected")
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_label("Against").select_option("")
    expect(page.locator("#result-title")).to_have_text("What makes it more dog")
    expect(page.locator("#away-error")).to_be_empty()


def changed(page: Page) -> np.ndarray:
    """(H, W): whether a pixel of the explanation differs from the input."""
    answer, found = answer_of(page)
    return (pixels(found.image_png) != pixels(answer.input_png)).any(axis=2)


def test_a_box_by_pointer_and_by_keys_is_where_it_changes(page: Page) -> None:
    choose(page, "frog")
    page.get_by_label("box", exact=True).check()
    title = page.locator("#result-title")
    expect(title).to_have_text("What makes it more frog, changing only the box")
    state = page.locator("#region-state")
    expect(state).to_have_text("The box is 128 × 128 pixels, 64 from the left and 64 from the top.")
    board = page.locator("#board")
    at = board.bounding_box()
    page.mouse.move(at["x"] + 40, at["y"] + 1)
    page.mouse.down()
    page.mouse.move(at["x"] + 160, at["y"] + 160)
    page.mouse.up()
    expect(state).to_have_text("The box is 96 × 127 pixels, 32 from the left and 1 from the top.")
    board.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowDown")
    expect(state).to_have_text("The box is 96 × 133 pixels, 32 from the left and 0 from the top.")
    page.keyboard.press("Control+z")
    page.keyboard.press("Shift+ArrowUp")
    expect(state).to_have_text("The box is 96 × 121 pixels, 32 from the left and 0 from the top.")
    expect(page.locator("#status")).to_have_text("Done.")
    # The model sees columns 32 to 224 as six and the rows as eight: each 32 pixels of the picture.
    where = changed(page)
    assert where[:3, :3].all()
    assert not where[:, 4:].any()
    assert not where[5:].any()
    expect(page.locator("#measures")).to_contain_text("RMSE inside the region")
    page.get_by_label("everything but this").check()
    expect(title).to_contain_text("everything but the box")
    where = changed(page)
    assert not where[:3, :2].any()
    assert where[:, 4:].all()


def test_a_brush_by_pointer_and_by_keys_is_where_it_changes(page: Page) -> None:
    choose(page, "frog")
    page.get_by_label("brush", exact=True).check()
    expect(page.locator("#region-error")).to_contain_text("Nothing is painted yet")
    expect(page.locator("#result-title")).to_have_text("What makes it more frog")
    page.get_by_label("Width of the brush").fill("25")
    board = page.locator("#board")
    board.focus()
    for _ in range(16):
        page.keyboard.press("ArrowUp")
    page.keyboard.down("Space")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.up("Space")
    state = page.locator("#region-state")
    expect(state).to_have_text(
        "1 stroke is painted. The brush is 146 pixels from the left and 32 from the top."
    )
    title = page.locator("#result-title")
    expect(title).to_have_text("What makes it more frog, changing only the painted region")
    where = changed(page)
    assert where[0, 2:5].all()
    assert not where[3:].any()
    board.scroll_into_view_if_needed()
    at = board.bounding_box()
    page.mouse.move(at["x"] + 60, at["y"] + 300)
    page.mouse.down()
    page.mouse.move(at["x"] + 260, at["y"] + 300, steps=4)
    page.mouse.up()
    expect(state).to_contain_text("2 strokes are painted.")
    page.get_by_role("button", name="Undo").click()
    expect(state).to_contain_text("1 stroke is painted.")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#region-error")).to_contain_text("Nothing is painted yet")


def test_undo_takes_back_a_stroke_also_while_it_is_drawn_or_the_box_is_chosen(page: Page) -> None:
    choose(page, "frog")
    page.get_by_label("brush", exact=True).check()
    board, state = page.locator("#board"), page.locator("#region-state")
    board.focus()
    page.keyboard.down("Space")
    expect(state).to_contain_text("1 stroke is painted.")
    page.keyboard.press("Control+z")
    page.keyboard.press("ArrowRight")
    expect(state).to_contain_text("0 strokes are painted. The brush is 134 pixels")
    page.keyboard.up("Space")
    board.press("Space")
    page.get_by_label("box", exact=True).check()
    undo = page.get_by_role("button", name="Undo")
    undo.click()
    expect(undo).to_be_disabled()
    expect(state).to_have_text("The box is 128 × 128 pixels, 64 from the left and 64 from the top.")
    expect(page.locator("#status")).to_have_text("Done.")


def test_two_models_stand_side_by_side(browser: Browser) -> None:
    for servers in opened(models=("linear@1.2", "linear@2.0")):
        for page in explained(browser, str(servers.rest.base_url)):
            page.get_by_text("Two models side by side").click()
            page.get_by_label("Beside").select_option("linear@2.0")
            rows = page.locator("#twins tbody tr")
            expect(rows).to_have_count(2)
            expect(rows.nth(1)).to_contain_text("linear@2.0")
            for row in rows.all():
                expect(row).to_contain_text(re.compile(r"until RMSE 0\.\d{4}: |still so at RMSE 0"))
                expect(row.locator("img, canvas")).to_have_count(3)
            sees = [row.locator("td").first.inner_text() for row in rows.all()]
            assert sees[0] != sees[1]


def test_classes_that_share_a_name_are_told_apart_by_every_model(browser: Browser) -> None:
    def answer(route: Route) -> None:
        details = route.fetch().json()
        details["classes"] = ["crane", *details["classes"][1:-1], "crane"]
        route.fulfill(json=details)

    for servers in opened(models=("linear@1.2", "linear@2.0")):
        for page in explained(browser, str(servers.rest.base_url)):
            page.route("**/v1/models/*", answer)
            page.reload()
            expect(page.locator("#status")).to_have_text("Done.")
            page.locator("#classes button[data-index='4']").click()
            expect(page.get_by_label("Another class")).to_have_value("crane #4")
            page.get_by_text("Two models side by side").click()
            expect(page.locator("#twins tbody tr")).to_have_count(2)
            for row in page.locator("#twins tbody tr").all():
                expect(row.locator("td").nth(1)).to_contain_text("truck")
            page.get_by_label("Model", exact=True).select_option("linear@2.0")
            expect(page.locator("#numbers")).to_contain_text("version 2.0")
            assert answer_of(page)[1].target.index == 4


def test_sweep_and_grid_lead_to_their_explanations(page: Page) -> None:
    choose(page, "dog")
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
    expect(page.locator("#photographs button[aria-pressed=true]")).to_have_count(0)
    choose(page, "truck")
    page.get_by_label("box", exact=True).check()
    expect(page.locator("#result-title")).to_contain_text("changing only the box")
    page.get_by_label("Against").select_option("cat")
    expect(page.locator("#result-title")).to_contain_text("less cat")
    page.get_by_label("Change by at most rho").fill("0.03")
    expect(page.locator("#numbers")).to_contain_text("of 0.03")
    title = page.locator("#result-title").inner_text()
    numbers = page.locator("#numbers").inner_text().split(" · ")[:3]
    explanation = downloaded(page, "Explanation")
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert "picture=" in link
    with browser.new_page() as other:
        other.goto(link)
        expect(other.locator("#result-title")).to_have_text(title)
        assert other.locator("#numbers").inner_text().split(" · ")[:3] == numbers
        assert downloaded(other, "Explanation") == explanation
        other.reload()
        expect(other.locator("#result-title")).to_have_text(title)


def test_the_lines_to_copy_ask_the_same(page: Page, servers: Servers, tmp_path: Path) -> None:
    choose(page, "dog")
    page.get_by_label("brush", exact=True).check()
    page.locator("#board").press("Space")
    expect(page.locator("#result-title")).to_contain_text("changing only the painted region")
    image, mask = downloaded(page, "Picture"), downloaded(page, "Region")
    (tmp_path / "candor-picture.jpg").write_bytes(image)
    (tmp_path / "candor-region.png").write_bytes(mask)
    _, found = answer_of(page)
    curl = arguments(page.locator("#line-curl").inner_text(), tmp_path)
    assert curl[:3] == ["curl", "-F", "image=@candor-picture.jpg"]
    fields = curl[4].removeprefix("request=")
    by_curl = httpx.post(curl[5], files={"image": image, "request": (None, fields)}).json()
    assert by_curl["explanations"][0]["confidence_after"] == found.confidence_after
    printf, grpcurl = page.locator("#line-grpcurl").inner_text().split(" | ")
    written = subprocess.check_output(["bash", "-c", printf], cwd=tmp_path, text=True)
    asked = json_format.Parse(written, candor_pb2.ExplainRequest())
    assert shlex.split(grpcurl)[4] == servers.client_address
    by_grpc = servers.stub.Explain(asked).explanations[0]
    assert by_grpc.confidence_after == found.confidence_after
    page.get_by_role("button", name="Copy the candor command").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(
        "candor explain candor-picture.jpg --target dog --rho 0.05 --mask candor-region.png "
    )


def arguments(line: str, folder: Path) -> list[str]:
    """What a shell makes of a command, without running it."""
    words = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {line}"], cwd=folder, text=True)
    return words.split("\0")[:-1]


def test_what_is_no_image_is_reported_and_the_console_continues(page: Page) -> None:
    choose(page, "dog")
    notes = {"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"}
    page.locator("#file").set_input_files(notes)
    alert = page.locator("#error")
    expect(alert).to_contain_text("image.encoded")
    expect(alert).to_contain_text("INVALID_INPUT")
    expect(page.locator("#result")).to_be_hidden()
    page.get_by_role("button", name="a cup of coffee").click()
    expect(page.locator("#prediction")).to_contain_text("The model predicts")
    expect(alert).to_be_empty()


def test_a_link_to_no_class_is_reported(page: Page) -> None:
    page.evaluate("location.hash = 'model=linear&target=99&rho=0.05&picture=cat'")
    expect(page.locator("#error")).to_contain_text("expected an index below 5, got 99")


def test_everything_goes_by_keyboard(page: Page) -> None:
    def tab_to(selector: str) -> Locator:
        wanted = page.locator(selector).first
        for _ in range(40):
            page.keyboard.press("Tab")
            if wanted.evaluate("one => one === document.activeElement"):
                return wanted
        raise AssertionError(f"Tab does not reach {selector}")

    page.locator("body").evaluate("body => body.focus()")
    second = tab_to("#photographs button:nth-child(2)")
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("Done.")
    tab_to("input[name=tool]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#result-title")).to_contain_text("changing only the box")
    tab_to("#board")
    tab_to("input[name=side]")
    tab_to("#card summary")
    page.keyboard.press("Enter")
    expect(page.locator("#facts")).to_contain_text("1000 images of made/up")
    tab_to("#classes button:nth-child(2)")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("Done.")
    tab_to("input[name=direction]")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#result-title")).to_contain_text("What makes it less")
    tab_to("#rho")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#numbers")).to_contain_text("of 0.055")
    tab_to("#reveal")
    page.keyboard.press("Home")
    assert page.locator("#after").evaluate("image => image.style.clipPath") != ""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#after")).to_be_hidden()
    expect(page.locator("#after")).to_be_visible()
    for name in ("grid", "compare"):
        tab_to(f"#{name} summary")
        page.keyboard.press("Enter")
        expect(page.locator(f"#{name}")).to_have_attribute("open", "")
        page.keyboard.press("Enter")


def test_axe_finds_nothing_in_light_and_dark_and_on_a_phone(
    browser: Browser, servers: Servers
) -> None:
    for page in explained(browser, str(servers.rest.base_url)):
        choose(page, "ship")
        for name, parts in (("All classes", "#grid button"), ("About linear", "#facts dt"),
                            ("Compare with other methods", "#compare tbody tr")):  # fmt: skip
            page.get_by_text(name).click()
            expect(page.locator(parts).first).to_be_visible()
        page.get_by_label("brush", exact=True).check()
        for width, scheme in ((1120, "light"), (1120, "dark"), (390, "light")):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            paper = page.locator("body").evaluate("one => getComputedStyle(one).backgroundColor")
            assert brightness(paper) > 200 if scheme == "light" else brightness(paper) < 60
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for strip in ("#sweep .strip", "#grid .strip"):
            assert page.locator(strip).evaluate("one => one.scrollWidth > one.clientWidth")
        assert page.locator("#classes button").first.bounding_box()["height"] >= 44


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
    for name in re.findall(r"/pages/[\w.-]+", answer.text):
        assert servers.rest.get(name).status_code == 200
    assert servers.rest.get("/pages/../settings.py").status_code == 404
    assert servers.rest.get("/pages/console.html").status_code == 404
