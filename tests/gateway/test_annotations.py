"""The annotation API and pages over real HTTP; the browser has its own file."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from candor.contracts.annotations import FlipVerdict, Verdict
from candor.store.annotations import Annotations
from candor.store.engine import Store, open_store
from candor.store.flips import Flips
from tests.gateway.servers import opened
from tests.store.stores import candidate, fill_flips


@pytest.fixture(scope="module")
def rest(filled_store: Store) -> Iterator[httpx.Client]:
    for servers in opened(store_url=filled_store.address, annotators_per_image=2):
        yield servers.rest


@pytest.fixture
def browser(rest: httpx.Client) -> Iterator[httpx.Client]:
    """A client of its own cookies."""
    with httpx.Client(base_url=rest.base_url, follow_redirects=True) as client:
        yield client


def verdicts(store: Store) -> dict[tuple[str, int], Verdict]:
    said = Annotations(store).judgements()
    return {(one.annotator, one.candidate): one.verdict for one in said}


def ask(rest: httpx.Client, verb: str, **fields: Any) -> dict[str, Any]:
    response = rest.post(f"/v1/annotations:{verb}", json=fields)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def rejected(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "INVALID_INPUT"
    assert error["request_id"] == response.headers["x-request-id"]
    return {item["field"]: item["description"] for item in error["violations"]}


def shown_candidate(page: str) -> int:
    found = re.search(r'name="candidate" value="(\d+)"', page)
    assert found, page
    return int(found[1])


# --- the API -----------------------------------------------------------------------------------


def test_answer_is_in_the_store_when_it_is_acknowledged(
    rest: httpx.Client, filled_store: Store
) -> None:
    state = ask(rest, "next", annotator="api")
    task = state["task"]
    image = base64.b64decode(task["adversarial_png"])
    assert image == candidate(task["candidate"] - 1).adversarial_png
    after = ask(rest, "answer", annotator="api", candidate=task["candidate"], verdict="unchanged")
    assert (after["answered"], after["waiting"]) == (1, state["waiting"] - 1)
    said = {
        (one.annotator, one.candidate): one.verdict
        for one in Annotations(filled_store).judgements()
    }
    assert said["api", task["candidate"]] is Verdict.UNCHANGED
    undone = ask(rest, "undo", annotator="api")
    assert (undone["task"], undone["answered"]) == (task, 0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "annotator"),
        ({"annotator": " \n "}, "annotator"),
        ({"annotator": "a\u0000b"}, "annotator"),
        ({"annotator": "a" * 61}, "annotator"),
        ({"annotator": "a", "candidate": 0}, "candidate"),
        ({"annotator": "a", "candidate": 2**40}, "candidate"),
        ({"annotator": "a", "candidate": 1, "verdict": "perhaps"}, "verdict"),
        ({"annotator": "a", "candidate": 1, "verdict": "unsure", "more": 1}, "more"),
        ({"annotator": "a", "candidate": 10_000, "verdict": "unsure"}, "candidate"),
    ],
)
def test_bad_fields_are_named(rest: httpx.Client, fields: dict[str, Any], field: str) -> None:
    assert field in rejected(rest.post("/v1/annotations:answer", json=fields))


def test_bodies_that_are_too_long_or_no_json_are_rejected(rest: httpx.Client) -> None:
    kind = {"content-type": "application/json"}
    for body, message in (
        (b"{", "not JSON"),
        (b"[" * 3000, "nested too deeply"),
        (b" " * 5000, "above 4096"),
        (b"\xff", "expected UTF-8"),
        (b"[]", "expected an object"),
    ):
        fields = rejected(rest.post("/v1/annotations:next", content=body, headers=kind))
        assert message in fields["request"]


def test_only_json_is_accepted_so_that_other_sites_need_permission(rest: httpx.Client) -> None:
    body = '{"annotator": "mallory"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = rest.post("/v1/annotations:next", content=body, headers={"content-type": kind})
        assert "expected content type application/json" in rejected(response)["request"]


def test_api_is_described(rest: httpx.Client) -> None:
    paths = rest.get("/openapi.json").json()["paths"]
    body = paths["/v1/annotations:answer"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["properties"]["verdict"]["enum"] == list(Verdict)
    assert not any(path.startswith("/annotate") for path in paths)


# --- pages without a script --------------------------------------------------------------------


def test_forms_alone_are_enough(browser: httpx.Client, filled_store: Store) -> None:
    assert "Enter your name" in browser.get("/annotate").text
    page = browser.post("/annotate/name", data={"annotator": "Zoë & <i>co</i>"}).text
    assert "Zoë &amp; &lt;i&gt;co&lt;/i&gt;" in page
    assert "<i>" not in page
    first = shown_candidate(page)
    fields = {"candidate": first, "verdict": "changed"}
    page = browser.post("/annotate/answer", data=fields).text
    assert shown_candidate(page) != first
    assert '<span id="answered">1</span>' in page
    said = {
        (one.annotator, one.candidate): one.verdict
        for one in Annotations(filled_store).judgements()
    }
    assert said["Zoë & <i>co</i>", first] is Verdict.CHANGED
    assert shown_candidate(browser.post("/annotate/undo").text) == first
    assert "Enter your name" in browser.post("/annotate/leave").text


def test_page_forbids_what_it_does_not_need(browser: httpx.Client) -> None:
    response = browser.get("/annotate")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    cookie = browser.post(
        "/annotate/name", data={"annotator": "ada"}, follow_redirects=False
    ).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/annotate" in cookie


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\x07b"])
def test_bad_name_is_reported_on_the_form(browser: httpx.Client, name: str) -> None:
    response = browser.post("/annotate/name", data={"annotator": name})
    assert response.status_code == 400
    assert "annotator: " in response.text
    assert "Enter your name" in browser.get("/annotate").text


def test_bad_answer_is_reported_beside_the_task(browser: httpx.Client) -> None:
    browser.post("/annotate/name", data={"annotator": "bea"})
    for fields, reason in (
        ({}, "candidate: "),
        ({"candidate": "99999", "verdict": "unsure"}, "candidate: "),
        ({"candidate": "x" * 9000}, "request: body above 4096 bytes"),
        ({f"f{one}": "1" for one in range(9)}, "request: expected a form of at most 8 fields"),
    ):
        response = browser.post("/annotate/answer", data=fields)
        assert response.status_code == 400
        assert f"Not saved: {reason}" in response.text
        assert shown_candidate(response.text)


@pytest.mark.parametrize("cookie", ["", "%ff", "%00", "%20", "a" * 200])
def test_broken_cookie_is_no_annotator(rest: httpx.Client, cookie: str) -> None:
    response = rest.get("/annotate", headers={"cookie": f"candor_annotator={cookie}"})
    assert "Enter your name" in response.text


# --- the second question -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Store]]:
    """A gateway whose store has images of the second question alone."""
    store = open_store(str(tmp_path_factory.mktemp("flips") / "store.sqlite"))
    fill_flips(store, "eoteo")
    for servers in opened(store_url=store.address, annotators_per_image=9):
        yield servers.rest, store
    store.close()


def test_flips_have_the_same_three_verbs(asked: tuple[httpx.Client, Store]) -> None:
    rest, store = asked

    def say(verb: str, **fields: Any) -> dict[str, Any]:
        response = rest.post(f"/v1/flips:{verb}", json={"annotator": "api", **fields})
        assert response.status_code == 200, response.text
        state: dict[str, Any] = response.json()
        return state

    task = say("next")["task"]
    assert task.keys() == {"image", "target", "shown_png"}
    after = say("answer", image=task["image"], verdict="yes")
    assert (after["answered"], after["waiting"]) == (1, 4)
    assert Flips(store).judged_images()[0].verdicts == {"api": FlipVerdict.YES}
    assert say("undo")["task"] == task


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"annotator": "a", "image": 1, "verdict": "unchanged"}, "verdict"),
        ({"annotator": "a", "candidate": 1, "verdict": "yes"}, "candidate"),
        ({"annotator": "a", "image": True, "verdict": "yes"}, "image"),
        ({"annotator": "a", "image": 99, "verdict": "yes"}, "image"),
    ],
)
def test_bad_fields_of_flips_are_named(
    asked: tuple[httpx.Client, Store], fields: dict[str, Any], field: str
) -> None:
    assert field in rejected(asked[0].post("/v1/flips:answer", json=fields))


def test_forms_go_on_with_the_second_question(asked: tuple[httpx.Client, Store]) -> None:
    rest, store = asked
    with httpx.Client(base_url=rest.base_url, follow_redirects=True) as client:
        # No pair of images waits, so the page of the first question leads to the second.
        page = client.post("/annotate/name", data={"annotator": "form"})
        assert page.url.path == "/annotate/flips"
        assert "Does this image show: " in page.text
        found = re.search(r'name="image" value="(\d+)"', page.text)
        assert found
        client.post("/annotate/flips/answer", data={"image": found[1], "verdict": "no"})
        bad = client.post("/annotate/flips/answer", data={"image": "x", "verdict": "no"})
        assert bad.status_code == 400
        assert "Not saved: image: " in bad.text
        left = client.post("/annotate/flips/leave")
        assert left.url.path == "/annotate/flips"
        assert 'action="/annotate/flips/name"' in left.text
    said = [one.verdicts for one in Flips(store).judged_images()]
    assert {"form": FlipVerdict.NO} in said


def test_there_are_no_pages_without_a_store() -> None:
    for servers in opened():
        assert servers.rest.get("/annotate").status_code == 404
        assert servers.rest.get("/annotate/flips").status_code == 404
        assert servers.rest.post("/v1/annotations:next", json={}).status_code == 404
