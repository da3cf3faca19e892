"""A gallery of 5,000 images in a real Chromium, opened from the disk."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.explained.rows import ExplanationRow
from tests.gallery.rows import CLASSES, COUNT, NAMES, fill

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ExplanationRow]]:
    folder = tmp_path_factory.mktemp("explained")
    found = fill(folder)
    (folder / "page-0099.html").write_text("of an earlier, longer gallery")
    result = CliRunner().invoke(build_app(), ["gallery", str(folder)])
    assert result.exit_code == 0, result.output
    assert not (folder / "page-0099.html").exists()
    return folder, found


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(viewport={"width": 1200, "height": 900}) as opened:
        opened.set_offline(True)
        yield opened


@pytest.fixture
def page(context: BrowserContext, rows: tuple[Path, list[ExplanationRow]]) -> Iterator[Page]:
    """At the first page; a page that complains, or asks for anything but files, fails its test."""
    problems: list[str] = []
    with context.new_page() as opened:
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("console", lambda message: problems.append(message.text))
        opened.on("request", lambda sent: sent.url.startswith("file:") or problems.append(sent.url))
        opened.goto((rows[0] / "index.html").as_uri())
        yield opened
    assert [text for text in problems if not text.startswith("data:,")] == []


def names(page: Page, count: int = 60) -> list[str]:
    """Of the entries, once the page has so many."""
    expect(page.locator("#cards li")).to_have_count(count)
    return page.locator("#cards h2").all_inner_texts()


def expected_names(rows: list[ExplanationRow]) -> list[str]:
    """As the page shows them: what turns the writing direction is a sign."""
    return [row.image.replace("\u202e", "\ufffd") for row in rows]


def test_the_first_page_is_there_without_a_script_and_only_its_images_are_read(
    browser: Browser, rows: tuple[Path, list[ExplanationRow]]
) -> None:
    folder, known = rows
    assert len(list(folder.glob("page-*.html"))) + 1 == -(-COUNT // 60)
    with browser.new_context(java_script_enabled=False) as context, context.new_page() as page:
        page.goto((folder / "index.html").as_uri())
        assert names(page) == expected_names(known[:60])
        expect(page.locator("#filters")).to_be_hidden()
        page.get_by_role("navigation", name="Pages", exact=True).get_by_text("Next").click()
        expect(page).to_have_url(re.compile("page-0002.html$"))
        assert names(page) == expected_names(known[60:120])
        page.get_by_role("link", name="Last").first.click()
        assert names(page, COUNT % 60) == expected_names(known[-(COUNT % 60) :])
    text = (folder / "index.html").read_text()
    assert text.count('loading="lazy"') == text.count("<img ") > 100
    assert set(re.findall(r'(?:src|href)="(?!images/|page-|"|data:,)([^"]*)', text)) == {
        "gallery.css",
        "gallery.js",
        "gallery-index.js",
    }


def test_each_entry_says_what_it_was_is_and_was_asked_for(
    page: Page, rows: tuple[Path, list[ExplanationRow]]
) -> None:
    card = page.locator("#cards li").nth(6)
    row = rows[1][6]
    for text in (
        f"it was {row.class_name} {row.class_confidence:.1%}".replace("%", " %"),
        f"it is now {row.after_name} {row.after_confidence:.1%}".replace("%", " %"),
        "is now the target",
        "RMSE 0.08, L1 0.01, L1.5 0.05, Linf 0.5",
        "asked forL1.5 0.05",
        "25.0 %",
        f"RMSE {row.radius:.3g}",
    ):
        assert text in card.text_content().replace("\n", " ").replace("  ", " ")
    assert (
        page.locator("#cards img").first.evaluate(
            "image => image.decode().then(() => image.naturalWidth)"
        )
        == 8
    )
    unread = page.locator("#cards li").nth(9)
    expect(unread).to_contain_text("not explained")
    expect(unread).to_contain_text("expected a PNG, got <i>text</i>")
    expect(unread.locator("img").first).to_be_hidden()


def test_filters_and_order_reach_over_all_pages_and_are_in_the_address(
    page: Page, rows: tuple[Path, list[ExplanationRow]]
) -> None:
    found = [
        row
        for row in rows[1]
        if row.target_name == "dog" and row.flips and 0.2 <= row.confidence_after <= 0.9
    ]
    found.sort(key=lambda row: row.radius_above or row.radius, reverse=True)
    assert len(found) > 120
    page.get_by_label("Target", exact=True).select_option("dog")
    page.get_by_label("Status").select_option("is now the target")
    page.get_by_label("Confidence from, %").fill("20")
    page.get_by_label("Confidence to, %").fill("90")
    page.get_by_label("Order").select_option("radius, largest first")
    count = page.get_by_role("status")
    expect(count).to_have_text(re.compile(f"^{len(found)} of 5,000 explanations, page 1 of"))
    assert names(page) == expected_names(found[:60])
    page.get_by_role("link", name="Next").first.press("Enter")
    expect(count).to_contain_text("page 2 of")
    expect(count).to_be_focused()
    assert names(page) == expected_names(found[60:120])
    page.reload()
    assert names(page) == expected_names(found[60:120])
    expect(page.get_by_label("Order")).to_have_value("-radius")
    page.get_by_role("button", name="Show all").press("Enter")
    expect(count).to_have_text("5,000 explanations, page 1 of 84")
    assert names(page) == expected_names(rows[1][:60])
    page.get_by_label("Name has").fill("IMAGE 4999")
    expect(count).to_have_text("1 of 5,000 explanations, page 1 of 1")
    expect(page.locator("#cards")).to_contain_text("not explained")


def test_names_are_text_whatever_they_hold(page: Page) -> None:
    hostile = CLASSES[2]
    page.get_by_label("It was").select_option(hostile)
    page.get_by_label("Order").select_option("confidence, lowest first")
    assert set(page.locator("#cards li figure:first-child bdi").all_text_contents()) == {hostile}
    assert (
        page.evaluate("[...document.querySelectorAll('#cards b, #cards i, #cards script')].length")
        == 0
    )
    page.goto(page.url.partition("#")[0] + "#was=nothing&page=-7&sort=x&from=x")
    assert len(names(page)) == 60
    assert NAMES[0] in page.locator("#cards").text_content()


def test_a_phone_a_printer_and_the_dark_have_it_whole(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_label("Name has").fill("image 499")
    expect(page.locator("#cards li")).to_have_count(11)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"preload": False})  # it may fetch no file
        assert found.violations_count == 0, found.generate_report()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == "rgb(21, 24, 28)"
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator("#filters")).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_its_colours_are_those_of_the_service_pages() -> None:
    ours, theirs = (
        re.findall(r"--\w+: #\w+", (REPOSITORY / name).read_text().partition("* {")[0])
        for name in ("candor/gallery/page/gallery.css", "candor/gateway/web/pages/base.css")
    )
    assert len(ours) == 14, "light and dark"
    assert [colour for colour in theirs if colour in ours] == ours


def test_a_folder_without_a_table_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(build_app(), ["gallery", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "explanations.parquet" in result.stderr
