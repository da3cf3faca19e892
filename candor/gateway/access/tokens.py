"""JSON Web Tokens of an OpenID Connect issuer, verified offline.

The issuer's public keys (JWKS) come from a file or over HTTPS and are fetched again when they are
old, or when a token names one that is not among them.
"""

import asyncio
import json
import logging
import re
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import jwt

from candor.gateway.access.keys import Identity, Scope
from candor.gateway.access.request_context import MAX_TENANT_CHARS

MAX_TOKEN_CHARS = 8192
_MAX_JWKS_BYTES = 1024 * 1024
_FETCH_SECONDS = 5.0
_FRESH_SECONDS = 300.0  # a key the issuer withdrew is believed no longer than this
_REFETCH_SECONDS = 10.0  # between two fetches, however many tokens name keys nobody knows
_LEEWAY_SECONDS = 30.0  # between the issuer's clock and ours
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_log = logging.getLogger("gateway.tokens")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The keys come from the address in the settings or not at all."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


class BadToken(Exception):
    """The token proves nothing; the message may be told to the caller."""


class KeySource:
    """The issuer's public keys by their id.

    Args:
        location: path of a JWKS file or its https:// address (http:// on loopback only).
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = -float("inf")
        self._fetching = asyncio.Lock()

    async def find(self, key_id: str) -> jwt.PyJWK:
        """Raises: BadToken: the issuer has no such key, or cannot be asked."""
        if key_id not in self._keys or self._age() > _FRESH_SECONDS:
            await self._fetch()
        if self._age() > _FRESH_SECONDS:
            raise BadToken("the issuer's keys cannot be had now")
        if key_id not in self._keys:
            raise BadToken("key id: not one of the issuer's")
        return self._keys[key_id]

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    async def _fetch(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._tried_at < _REFETCH_SECONDS:
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = await asyncio.to_thread(_read_keys, self._location)
            except (OSError, URLError, ValueError, jwt.PyJWTError) as err:
                _log.error("keys of the issuer from %s: %s", self._location, err)
            else:
                self._fetched_at = time.monotonic()


def _read_keys(location: str) -> dict[str, jwt.PyJWK]:
    content = _read(location)
    if len(content) > _MAX_JWKS_BYTES:
        raise ValueError(f"got more than the {_MAX_JWKS_BYTES} bytes allowed")
    found = jwt.PyJWKSet.from_dict(json.loads(content)).keys
    return {key.key_id: key for key in found if key.key_id and key.public_key_use in (None, "sig")}


def _read(location: str) -> bytes:
    if "://" not in location:
        return Path(location).read_bytes()
    with _OPENER.open(location, timeout=_FETCH_SECONDS) as response:
        return bytes(response.read(_MAX_JWKS_BYTES + 1))


class TokenReader:
    """Whose token it is, once signature, algorithm, issuer, audience and times are right.

    Args:
        algorithms: those allowed, whatever a token says of itself.
        tenant_claim: names the tenant; the subject where a token has no such claim.
        scope_claim: scopes, as one text with blanks or a list; others than ours are ignored.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        issuer: str,
        audience: str,
        algorithms: tuple[str, ...],
        tenant_claim: str,
        scope_claim: str,
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._tenant_claim = tenant_claim
        self._scope_claim = scope_claim

    async def read(self, token: str) -> Identity:
        """Raises: BadToken."""
        if len(token) > MAX_TOKEN_CHARS:
            raise BadToken(f"got {len(token)} characters, allowed {MAX_TOKEN_CHARS}")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._algorithms:
                raise BadToken(f"algorithm: allowed {', '.join(self._algorithms)}")
            key = await self._source.find(str(header.get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError) as err:
            raise BadToken(str(err)[:200]) from err
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = str(claims["sub"])
        return Identity(
            name=_shortened(subject),
            tenant=_shortened(str(claims.get(self._tenant_claim, subject))),
            scopes=_scopes(claims.get(self._scope_claim)),
        )


def _shortened(text: str) -> str:
    return _UNPRINTABLE.sub("", text)[:MAX_TENANT_CHARS]


def _scopes(claim: Any) -> frozenset[Scope]:
    given = claim.split() if isinstance(claim, str) else claim
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    return frozenset(scope for scope in Scope if scope in names)
