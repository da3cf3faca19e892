"""Hosts and ports as text: IPv6 stands in brackets wherever a port follows."""

import pytest

from candor.contracts.addresses import (
    bare_host,
    checked_target,
    endpoint,
    is_loopback,
    is_unspecified,
    url,
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("::", "[::]:80"),
        ("2001:db8::7", "[2001:db8::7]:80"),
        ("fe80::1%eth0", "[fe80::1%eth0]:80"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"),
        ("candor.example", "candor.example:80"),
    ],
)
def test_a_port_follows_brackets_where_the_host_is_ipv6(host: str, expected: str) -> None:
    assert endpoint(host, 80) == expected
    assert url("https", host, 80) == f"https://{expected}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "[::1]:80", "host:80", "[host]", "[127.0.0.1]", "http://host", "::g"]
)
def test_a_host_has_no_port_and_is_named_where_it_has(host: str) -> None:
    with pytest.raises(ValueError, match="without a port") as caught:
        bare_host(host)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_loopback_in_every_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "::", "0.0.0.0", "::2", "fe80::1", "192.0.2.1", "loopback"])
def test_what_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_an_ipv4_address_within_ipv6_is_what_it_maps() -> None:
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:192.0.2.1")


def test_every_address_in_each_spelling() -> None:
    assert all(map(is_unspecified, ("", "::", "0.0.0.0", "0:0:0:0:0:0:0:0")))
    assert not any(map(is_unspecified, ("::1", "127.0.0.1", "localhost")))


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:8500", "[::1]:8500", "host:8500", "dns:///host:8500", "unix:/run/candor"],
)
def test_a_target_is_taken_as_it_is(target: str) -> None:
    assert checked_target(target) == target


@pytest.mark.parametrize(
    "target",
    [
        *("", "::1", "::1:8500", "fe80::1%eth0:8500", "http://[::1]:8500", "https://host:8500"),
        *("h:x", "h:0", "h:65536", "h:", "h:8_0", "dns:///h:x", "[::1]:99999"),
    ],
)
def test_a_target_that_cannot_be_read_is_named(target: str) -> None:
    with pytest.raises(ValueError, match=r"address: expected HOST:PORT.*\[::1\]:8500") as caught:
        checked_target(target)
    assert repr(target) in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "host:99999", "host:0", "host:-1", "host:abc", "host:\u0663", "host:", "host", ":8500", ":",
        "127.0.0.1", "[::1]", "ada:secret@host:1", "http://host:1", "grpc://host:1", "host:1/x",
    ],
)  # fmt: skip
def test_target_without_a_port_that_exists_is_refused(target: str) -> None:
    """gRPC takes port 99999 for 34463 and no port for 443."""
    with pytest.raises(ValueError, match="^address: expected HOST:PORT"):
        checked_target(target)
