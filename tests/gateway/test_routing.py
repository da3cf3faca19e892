"""Routes: which request gets which version, and which settings are rejected."""

import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from candor.gateway.config.settings import Settings
from candor.gateway.service.routing import Route, Routes, request_key

MODELS = ("linear@1.2", "linear@1.3", "linear@2.0", "other")
KEYS = [request_key("acme", number.to_bytes(4, "big")) for number in range(4000)]


def routes(**fields: Any) -> Routes:
    return Routes(MODELS, {"linear": Route(primary="1.2", **fields)})


def share(found: list[str | None], wanted: str) -> float:
    return sum(one == wanted for one in found) / len(found)


def test_without_a_route_the_first_version_answers_and_any_can_be_named() -> None:
    plain = Routes(MODELS, {})
    assert plain.find("") == plain.find("linear") == plain.find("linear", KEYS[0]) == "linear@1.2"
    assert plain.find("linear@2.0", KEYS[0]) == "linear@2.0"
    assert plain.find("other") == "other"
    for unknown in ("linear@9", "linear@", "other@1", "cubic", "@1.2", "linear@1.2@1.2"):
        assert plain.find(unknown) is None
    assert not plain.needs_image("")
    assert plain.answering == ("linear@1.2", "other")


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.5, 1.0])
def test_canary_gets_its_share_of_images(weight: float) -> None:
    found = [routes(canary="2.0", weight=weight).find("linear", key) for key in KEYS]
    # Four standard errors of a share of 4000; none at 0 and 1.
    error = 4 * (weight * (1 - weight) / len(KEYS)) ** 0.5
    assert abs(share(found, "linear@2.0") - weight) <= error
    assert set(found) <= {"linear@1.2", "linear@2.0"}


def test_the_same_request_always_finds_the_same_version() -> None:
    # From a definition of its own: SHA-256 of purpose and key, its first 48 bits as a fraction.
    for key in KEYS[:50]:
        digest = hashlib.sha256(b"canary of linear/" + key).digest()
        place = int.from_bytes(digest[:6], "big") / 2**48
        wanted = "linear@2.0" if place < 0.5 else "linear@1.2"
        assert routes(canary="2.0", weight=0.5).find("linear", key) == wanted


def test_a_larger_share_keeps_the_images_it_had() -> None:
    small, large = (routes(canary="2.0", weight=weight) for weight in (0.1, 0.3))
    had = [key for key in KEYS if small.find("linear", key) == "linear@2.0"]
    assert had
    assert all(large.find("linear", key) == "linear@2.0" for key in had)


def test_tenant_and_image_both_count() -> None:
    assert request_key("a", b"b") == request_key("a", b"b")
    assert len({request_key(*pair) for pair in (("a", b"b"), ("ab", b""), ("", b"ab"))}) == 3


def test_a_version_named_is_never_exchanged() -> None:
    routed = routes(canary="2.0", weight=1.0)
    assert routed.find("linear", KEYS[0]) == "linear@2.0"
    assert routed.find("linear@1.2", KEYS[0]) == "linear@1.2"
    assert routed.find("linear") == "linear@1.2", "without an image: the primary"


def test_shadow_follows_the_primary_alone_and_independently_of_the_canary() -> None:
    routed = routes(canary="1.3", weight=0.5, shadow="2.0", shadow_share=0.5)
    found = [routed.shadow_of("linear@1.2", key) for key in KEYS]
    assert abs(share(found, "linear@2.0") - 0.5) < 0.04
    assert all(routed.shadow_of("linear@1.3", key) is None for key in KEYS)
    on_primary = [key for key in KEYS if routed.find("linear", key) == "linear@1.2"]
    assert (
        abs(share([routed.shadow_of("linear@1.2", k) for k in on_primary], "linear@2.0") - 0.5)
        < 0.05
    )
    assert routed.answering == ("linear@1.2", "other", "linear@1.3")
    assert routed.needs_image("linear@1.2")
    assert not routed.needs_image("other")


@pytest.mark.parametrize(
    ("models", "route", "message"),
    [
        (MODELS, {"primary": "9"}, r"routes.linear.primary: expected .*linear@1.2.*, got '9'"),
        (
            MODELS,
            {"primary": "1.2", "canary": "9", "weight": 0.1},
            r"routes.linear.canary: expected .*, got '9'",
        ),
        (
            MODELS,
            {"primary": "1.2", "canary": "1.3"},
            "canary, weight: expected both or none",
        ),
        (
            MODELS,
            {"primary": "1.2", "weight": 0.1},
            "canary, weight: expected both or none",
        ),
        (MODELS, {"primary": "1.2", "shadow": "1.3"}, "shadow, shadow_share: expected both"),
        (
            MODELS,
            {"primary": "1.2", "shadow": "1.2", "shadow_share": 1},
            "shadow: expected another .*, got '1.2'",
        ),
        (MODELS, {"primary": "1.2", "canary": "1.3", "weight": 1.5}, "weight"),
        (MODELS, {"primary": "1.2", "canary": "1.3", "weight": float("nan")}, "weight"),
        (MODELS, {"primary": "latest"}, "primary"),
        (MODELS, {"primary": "1.2", "cannary": "1.3"}, "cannary"),
        (MODELS, {"canary": "1.2", "weight": 0.1}, "primary"),
        (("linear",), {"primary": "1.2"}, r"routes.linear.primary: .*\(none\), got '1.2'"),
        (("linear", "linear@1.2"), None, "models: expected .*, got linear beside linear@1.2"),
        (("linear@1.2", "linear@1.2"), None, "models: expected each once, got one of .* twice"),
        (("Linear",), None, "models"),
        (("linear@new",), None, "models"),
        ((), None, "models"),
    ],
)
def test_settings_that_contradict_themselves_are_named(
    models: tuple[str, ...], route: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings(models=models, routes={"linear": route} if route else {})


def test_routes_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDOR_MODELS", '["linear@1.2", "linear@2.0"]')
    monkeypatch.setenv("CANDOR_ROUTES", '{"linear": {"primary": "2.0"}}')
    assert Settings().make_routes().find("") == "linear@2.0"
