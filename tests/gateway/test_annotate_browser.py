"""The annotation page as people use it, in a real headless Chromium."""

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from candor.contracts.annotations import FlipVerdict, Verdict
from candor.store.annotations import Annotations
from candor.store.engine import Store
from candor.store.flips import Flips
from tests.gateway.browser import PageServer, enter, page_server
from tests.store.stores import fill_flips

KEYS = {
    "1": Verdict.UNCHANGED,
    "2": Verdict.UNSURE,
    "3": Verdict.CHANGED,
    "ArrowLeft": Verdict.UNCHANGED,
    "ArrowDown": Verdict.UNSURE,
    "ArrowRight": Verdict.CHANGED,
}


@pytest.fixture(scope="module")
def server(filled_store: Store) -> Iterator[PageServer]:
    with page_server(CANDOR_STORE_URL=filled_store.address) as running:
        yield running


def shown_candidate(page: Page) -> int:
    return int(page.locator("input[name=candidate]").input_value())


def verdicts(store: Store, name: str) -> dict[int, Verdict]:
    said = Annotations(store).judgements()
    return {one.candidate: one.verdict for one in said if one.annotator == name}


def test_no_acknowledged_answer_is_lost_when_the_server_is_killed(
    browser: Browser, server: PageServer, filled_store: Store
) -> None:
    with browser.new_page() as page:
        enter(page, server.url, "ada")
        answered = page.locator("#answered")
        given: dict[int, Verdict] = {}
        for turn in range(20):
            key = list(KEYS)[turn % len(KEYS)]
            given[shown_candidate(page)] = KEYS[key]
            if turn == 8:  # dead before the answer is sent
                server.kill()
                page.keyboard.press(key)
                expect(page.locator("#status")).to_contain_text("Not saved yet")
                expect(answered).to_have_text("8")
                assert len(verdicts(filled_store, "ada")) == 8
            elif turn == 14:  # killed at any moment of the answer's way
                page.keyboard.press(key)
                server.kill()
                acknowledged = int(answered.inner_text())
                assert len(verdicts(filled_store, "ada")) >= acknowledged
            else:
                page.keyboard.press(key)
            if turn in (8, 14):
                server.start()
            expect(answered).to_have_text(str(turn + 1))
        assert len(given) == 20
        assert verdicts(filled_store, "ada") == given


def test_two_at_once_never_see_the_same_image(browser: Browser, server: PageServer) -> None:
    pages = [browser.new_context().new_page() for _ in range(2)]
    for page, name in zip(pages, ("bob", "eve"), strict=True):
        enter(page, server.url, name)
    seen: list[int] = []
    for turn in range(5):
        seen += map(shown_candidate, pages)
        for page in pages:  # both answers on their way at once
            page.keyboard.press("1")
        for page in pages:
            expect(page.locator("#answered")).to_have_text(str(turn + 1))
    assert len(set(seen)) == len(seen) == 10
    for page in pages:
        page.context.close()


def test_undo_by_key_shows_the_last_image_again(
    browser: Browser, server: PageServer, filled_store: Store
) -> None:
    with browser.new_page() as page:
        enter(page, server.url, "kim")
        first = shown_candidate(page)
        image = page.locator("#adversarial").get_attribute("src")
        page.keyboard.press("3")
        expect(page.locator("#answered")).to_have_text("1")
        page.keyboard.press("u")
        expect(page.locator("#answered")).to_have_text("0")
        assert shown_candidate(page) == first
        assert page.locator("#adversarial").get_attribute("src") == image
        expect(page.locator("#undo button")).to_be_disabled()
        page.get_by_role("button", name="Unchanged").click()
        expect(page.locator("#answered")).to_have_text("1")
        assert verdicts(filled_store, "kim") == {first: Verdict.UNCHANGED}
        # After a return the page is as it was.
        before = shown_candidate(page)
        page.reload()
        assert shown_candidate(page) == before


def test_page_needs_no_script_and_no_mouse(
    browser: Browser, server: PageServer, filled_store: Store
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = enter(context.new_page(), server.url, "eli")
        first = shown_candidate(page)
        for _ in range(2):  # past "Change annotator" to the first answer
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_load_state()
        expect(page.locator("#answered")).to_have_text("1")
        assert verdicts(filled_store, "eli") == {first: Verdict.UNCHANGED}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(
    browser: Browser, server: PageServer, scheme: str
) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    problems: list[str] = []
    with browser.new_context(color_scheme=scheme, **options) as context:
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        enter(page, server.url, "sam")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for verdict in ("Unchanged", "Unsure", "No longer"):
            button = page.get_by_role("button", name=verdict)
            expect(button).to_be_in_viewport(ratio=1)
            assert button.bounding_box()["height"] >= 44
        for image in ("#original", "#adversarial"):
            box = page.locator(image).bounding_box()
            assert box["width"] == pytest.approx(5 * 32 + 2)  # whole multiples, and the border
            assert box["width"] == pytest.approx(box["height"])
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = [int(part) for part in re.findall(r"\d+", colour)]
        assert (min(brightness) > 200) if scheme == "light" else (max(brightness) < 60)
        before = int(page.locator("#answered").inner_text())
        page.get_by_role("button", name="Unsure").tap()
        expect(page.locator("#answered")).to_have_text(str(before + 1))
    assert problems == []


def test_second_question_is_answered_by_keys_and_tells_only_image_and_class(
    browser: Browser, server: PageServer, filled_store: Store
) -> None:
    fill_flips(filled_store, "eote")
    with browser.new_page() as page:
        page.goto(f"{server.url}/annotate/flips")
        page.get_by_label("Your name").fill("flo")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        answered = page.locator("#answered")
        shown = page.get_by_role("img", name="the image to judge")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        first = shown.get_attribute("src")
        for turn, key in enumerate("yNun", start=1):
            expect(page.get_by_role("heading", name="Does this image show:")).to_be_visible()
            assert page.locator("main img").count() == 1
            assert not re.search("robust|explanation|origin|chang", page.inner_text("main"))
            page.keyboard.press(key)
            expect(answered).to_have_text(str(turn))
        expect(page.get_by_role("heading", name="No images left to judge")).to_be_visible()
        for turn in (3, 2, 1, 0):
            page.keyboard.press("z")
            expect(answered).to_have_text(str(turn))
        assert shown.get_attribute("src") == first
        page.get_by_role("button", name="No, not dog").press("Enter")
        expect(answered).to_have_text("1")
        (judged,) = Flips(filled_store).judged_images()
        assert judged.verdicts == {"flo": FlipVerdict.NO}
        for name in ("Yes: dog", "Unsure"):
            expect(page.get_by_role("button", name=name)).to_be_visible()
