"""What stays on this machine goes through no proxy; other hosts keep it."""

import re
import urllib.request
from pathlib import Path

import pytest

from candor.contracts import proxies

LOCAL = (
    "127.0.0.1:8500",
    "127.8.9.1",
    "localhost:8500",
    "LocalHost.:8500",
    "candor.localhost:80",
    "[::1]:8500",
    "[::ffff:127.0.0.1]:8500",
    "0.0.0.0:8500",
    "dns:///localhost:8500",
    "dns://8.8.8.8/localhost:8500",
    "ipv4:127.0.0.1:8500",
    "ipv6:[::1]:8500",
    "ipv6:%5B::1%5D:8500",
    "unix:/run/candor.sock",
    "http://127.0.0.1:8080/predictions/x",
    "http://[::1]:8080",
    "https://ada:secret@localhost/keys",
)
REMOTE = (
    "candor.example.org:8500",
    "10.0.0.7:8500",
    "localhost.example.org:8500",
    "dns:///candor.example.org:8500",
    "dns://127.0.0.1/candor.example.org:8500",
    "[2001:db8::1]:8500",
    "https://issuer.example.org/127.0.0.1/keys",
    "https://127.0.0.1@issuer.example.org/keys",
)


@pytest.mark.parametrize("target", LOCAL)
def test_loopback_goes_through_no_proxy(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    assert proxies.channel_options(target) == (("grpc.enable_http_proxy", 0),)
    assert _proxies(target) == []


@pytest.mark.parametrize("target", REMOTE)
def test_other_hosts_keep_the_proxy(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    assert proxies.channel_options(target) == ()
    assert _proxies(target) == ["http://proxy:1"]


def _proxies(target: str) -> list[str]:
    opened = proxies.opener(target)
    kinds = [one for one in opened.handlers if isinstance(one, urllib.request.ProxyHandler)]
    return [one.proxies["http"] for one in kinds if "http" in one.proxies]


def test_every_channel_of_ours_asks_whether_it_stays_here() -> None:
    """A channel without the options of this module goes through ``grpc_proxy``."""
    root = Path(__file__).parents[2]
    direct = re.compile(r"(?<!def )\b(?:in)?secure_channel\(")
    calls = [
        (path, match)
        for folder in ("candor", "handlers", "tools", "training")
        for path in (root / folder).rglob("*.py")
        if "pb" not in path.parts and path.name != "proxies.py"
        for match in direct.finditer(path.read_text())
    ]
    assert len(calls) >= 5
    for path, match in calls:
        assert "channel_options" in path.read_text(), f"{path}: {match[0]}"
