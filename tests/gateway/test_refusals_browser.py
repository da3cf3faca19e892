"""Pages tell the truth about every refusal, and lose no answer, in a real headless Chromium."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from candor.contracts.annotations import Verdict
from candor.gateway.access.keys import add_key, revoke_key
from candor.gateway.access.quotas import Quota
from candor.store.annotations import Annotations
from candor.store.engine import Store
from tests.gateway.browser import PageServer, context_of_routes, enter, page_server
from tests.gateway.servers import Servers, opened

ANSWER, UNDO = "**/v1/annotations:answer", "**/v1/annotations:undo"
Handler = Callable[[Route], None]


def refuses(status: int, code: str = "") -> Handler:
    """An error response of the service where there is a code, else the page of a proxy."""
    error = {"code": code, "message": "no", "request_id": "r", "retry_seconds": 30}
    body = json.dumps({"error": error}) if code else "<html>sorry</html>"
    kind = "application/json" if code else "text/html"
    return lambda route: route.fulfill(status=status, body=body, content_type=kind)


REFUSALS: dict[str, Handler] = {
    "no key": refuses(401, "UNAUTHENTICATED"),
    "wrong key": refuses(403, "PERMISSION_DENIED"),
    "conflict": refuses(409, "CONFLICT"),
    "too large for a proxy": refuses(413),
    "quota": refuses(429, "QUOTA_EXCEEDED"),
    "internal": refuses(500, "INTERNAL"),
    "bad gateway": refuses(502),
    "store away": refuses(503, "MODEL_NOT_READY"),
    "a proxy's own page": refuses(200),
    "other JSON": lambda route: route.fulfill(status=200, json={}),
    "no network": lambda route: route.abort("connectionrefused"),
}


@pytest.fixture(scope="module")
def server(filled_store: Store) -> Iterator[PageServer]:
    with page_server(CANDOR_STORE_URL=filled_store.address) as running:
        yield running


def _intercept(context: BrowserContext) -> None:
    """From the first request on: switched on later, it may miss a request that follows at once."""
    context.route("**/*", lambda route: route.continue_())


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    problems: list[str] = []
    with context_of_routes(browser) as context:
        _intercept(context)
        opened_page = context.new_page()
        opened_page.on("pageerror", lambda error: problems.append(str(error)))
        yield opened_page
    assert problems == []


def verdict_of(store: Store, name: str, candidate: int) -> Verdict | None:
    said = Annotations(store).judgements()
    found = [one.verdict for one in said if (one.annotator, one.candidate) == (name, candidate)]
    return found[0] if found else None


def candidate_of(page: Page) -> int:
    return int(page.locator("input[name=candidate]").input_value())


def test_refused_answer_is_not_called_saved_and_is_sent_again(
    page: Page, server: PageServer, filled_store: Store
) -> None:
    enter(page, server.url, "ada")
    for count, (name, refuse) in enumerate(REFUSALS.items()):
        candidate = candidate_of(page)
        page.route(ANSWER, refuse)
        page.keyboard.press("3")
        expect(page.locator("#status"), name).to_contain_text("Not saved yet: ")
        expect(page.locator("#status")).not_to_contain_text("undefined")
        expect(page.locator("#answered")).to_have_text(str(count))
        has_key_link = page.locator("#enter-key").is_visible()
        assert has_key_link == (name in ("no key", "wrong key"))
        assert verdict_of(filled_store, "ada", candidate) is None
        page.unroute(ANSWER)
        page.get_by_role("button", name="Send again now").click()
        expect(page.locator("#status")).to_have_text("Saved: changed.")
        expect(page.locator("#answered")).to_have_text(str(count + 1))
        assert verdict_of(filled_store, "ada", candidate) is Verdict.CHANGED


def test_waiting_answer_survives_a_reload(
    page: Page, server: PageServer, filled_store: Store
) -> None:
    enter(page, server.url, "bea")
    candidate = candidate_of(page)
    page.route(ANSWER, REFUSALS["no network"])
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("kept in this browser")
    page.unroute(ANSWER)
    page.reload()
    expect(page.locator("#answered")).to_have_text("1")
    expect(page.locator("#status")).to_have_text("Saved: unchanged.")
    assert verdict_of(filled_store, "bea", candidate) is Verdict.UNCHANGED


def test_offline_is_named_and_the_answer_is_sent_when_it_ends(
    page: Page, server: PageServer, filled_store: Store
) -> None:
    enter(page, server.url, "cas")
    candidate = candidate_of(page)
    page.context.set_offline(True)
    page.keyboard.press("2")
    expect(page.locator("#status")).to_contain_text("Not saved yet: This device is offline.")
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_text("Saved: unsure.")
    assert verdict_of(filled_store, "cas", candidate) is Verdict.UNSURE


def test_answer_that_can_never_be_saved_stays_named(page: Page, server: PageServer) -> None:
    enter(page, server.url, "dan")
    page.route(ANSWER, refuses(400, "INVALID_INPUT"))
    page.keyboard.press("3")
    expect(page.locator("#lost")).to_contain_text("Not saved (changed): no")
    page.unroute(ANSWER)
    expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")
    page.keyboard.press("1")
    expect(page.locator("#status")).to_have_text("Saved: unchanged.")
    expect(page.locator("#answered")).to_have_text("1")
    expect(page.locator("#lost")).to_contain_text("Not saved (changed)")


def test_waiting_answer_can_be_given_up(page: Page, server: PageServer) -> None:
    enter(page, server.url, "eli")
    page.route(ANSWER, REFUSALS["quota"])
    page.keyboard.press("3")
    page.get_by_role("button", name="Do not send this answer").click()
    expect(page.locator("#status")).to_have_text("Not sent again.")
    page.reload()
    expect(page.locator("#answered")).to_have_text("0")


@pytest.mark.parametrize("refusal", ["no key", "quota", "internal", "no network"])
def test_refused_undo_says_so(page: Page, server: PageServer, refusal: str) -> None:
    name = f"fay {refusal}"
    enter(page, server.url, name)
    page.keyboard.press("1")
    expect(page.locator("#answered")).to_have_text("1")
    page.route(UNDO, REFUSALS[refusal])
    page.keyboard.press("u")
    expect(page.locator("#status")).to_contain_text("Not taken back: ")
    expect(page.locator("#answered")).to_have_text("1")


def test_lost_answer_to_an_undo_is_found_out(page: Page, server: PageServer) -> None:
    enter(page, server.url, "gus")
    page.keyboard.press("1")
    expect(page.locator("#answered")).to_have_text("1")

    def undo_but_lose_the_response(route: Route) -> None:
        route.fetch()
        route.abort("connectionreset")

    page.route(UNDO, undo_but_lose_the_response)
    page.keyboard.press("u")
    expect(page.locator("#status")).to_have_text("Taken back.")
    expect(page.locator("#answered")).to_have_text("0")


def test_revoked_key_loses_no_answer(
    browser: Browser, filled_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    key = add_key(keys, "one", "tenant", ["annotate"])
    for servers in opened_with_keys(filled_store, str(keys)):
        with context_of_routes(browser) as context:
            _intercept(context)
            page = context.new_page()
            log_in(page, servers, key)
            page.get_by_label("Your name").fill("hal")
            with page.expect_navigation():
                page.keyboard.press("Enter")
            candidate = candidate_of(page)
            revoke_key(keys, "one")
            page.keyboard.press("1")
            expect(page.locator("#status")).to_contain_text("no longer valid")
            log_in(page, servers, add_key(keys, "two", "tenant", ["annotate"]))
            expect(page.locator("#status")).to_have_text("Saved: unchanged.")
            assert verdict_of(filled_store, "hal", candidate) is Verdict.UNCHANGED
            # A wrong key is refused on the page where it is entered.
            page.goto(f"{servers.rest.base_url}/login?next=/annotate")
            page.get_by_label("Key").fill("wrong")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).not_to_be_empty()


def opened_with_keys(store: Store, keys: str) -> Iterator[Servers]:
    yield from opened(store_url=store.address, keys_file=keys)


def log_in(page: Page, servers: Servers, key: str) -> None:
    page.goto(f"{servers.rest.base_url}/login?next=/annotate")
    page.get_by_label("Key").fill(key)
    with page.expect_navigation():
        page.keyboard.press("Enter")


CUT_STREAM = 'event: progress\ndata: {"step": 1, "step_count": 2, "queue_position": 1}\n\n'
CONSOLE_REFUSALS: dict[str, Handler] = {
    **REFUSALS,
    "a stream that ends early": lambda route: route.fulfill(
        status=200, body=CUT_STREAM, content_type="text/event-stream"
    ),
}


def test_console_says_why_and_shows_no_other_answer(page: Page, servers: Servers) -> None:
    page.goto(str(servers.rest.base_url))
    expect(page.locator("#prediction")).to_contain_text("The model predicts")
    frog = page.locator("#classes").get_by_role("button", name="frog")
    for name, refuse in CONSOLE_REFUSALS.items():
        frog.click()
        expect(page.locator("#result")).to_be_visible()
        page.route("**/v1/explain/stream", refuse)
        page.locator("#classes").get_by_role("button", name="ship").click()
        expect(page.locator("#error"), name).to_contain_text("Not done: ")
        expect(page.locator("#error")).not_to_contain_text("undefined")
        expect(page.locator("#status")).to_be_empty()
        expect(page.locator("#result")).to_be_hidden()
        assert page.locator("#enter-key").is_visible() == (name in ("no key", "wrong key"))
        page.unroute("**/v1/explain/stream")


def test_refused_model_is_not_shown_as_chosen(page: Page, servers: Servers) -> None:
    page.goto(str(servers.rest.base_url))
    expect(page.locator("#prediction")).to_contain_text("The model predicts")
    page.evaluate("document.getElementById('model').add(new Option('gone'))")
    page.locator("#model").select_option("gone")
    expect(page.locator("#error")).to_contain_text("Not done: ")
    expect(page.locator("#model")).to_have_value("linear")


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("picture=cat&rho=0.05&target=frog", "The link's target: expected the index of a class"),
        ("picture=cat&rho=0.05&target=99", "expected an index below 5, got 99"),
        (
            "picture=cat&rho=much&target=1",
            "The link's rho: expected a number in (0, 1], got much",
        ),
        ("picture=a%25b&rho=0.05&target=1", "The link's picture: expected base64"),
    ],
)
def test_damaged_link_is_named(page: Page, servers: Servers, link: str, said: str) -> None:
    page.goto(f"{servers.rest.base_url}#{link}")
    expect(page.locator("#error")).to_contain_text(said)
    expect(page.locator("#error")).not_to_contain_text("defined")


def test_answer_cut_on_the_way_is_not_called_another_servers(
    page: Page, server: PageServer
) -> None:
    enter(page, server.url, "ida")
    # The promise that the page waits for fails as it does where the connection breaks in a body.
    failing = "Response.prototype.json = () => Promise.reject(new TypeError('network error'));"
    page.evaluate(f"() => {{ {failing} }}")
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text(
        "Not saved yet: The connection ended before the whole answer."
    )


def test_form_refused_without_a_script_is_sent_again(browser: Browser, filled_store: Store) -> None:
    quota = Quota(requests_per_second=0.001, burst=30)
    for servers in opened(store_url=filled_store.address, quota=quota):
        with browser.new_context(java_script_enabled=False) as context:
            page = context.new_page()
            page.goto(f"{servers.rest.base_url}/annotate")
            page.get_by_label("Your name").fill("jan")
            page.get_by_role("button", name="Start").click()
            while servers.rest.get("/v1/models").status_code != httpx.codes.TOO_MANY_REQUESTS:
                pass
            page.locator("button[value=changed]").click()
            expect(page.get_by_role("heading", name="Not saved")).to_be_visible()
            refused = candidate_of(page)
            assert verdict_of(filled_store, "jan", refused) is None
            servers.gateway._parts.authorizer._quotas._own._accounts.clear()
            page.get_by_role("button", name="Send again").click()
            expect(page.locator("#task, #done").locator("visible=true")).to_have_count(1)
            assert verdict_of(filled_store, "jan", refused) is Verdict.CHANGED
