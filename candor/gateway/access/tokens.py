"""JSON Web Tokens of an OpenID Connect issuer, verified offline.

The issuer's public keys (JWKS) come from a file or over HTTPS.  They are fetched again when they
are old, or when a token names a key that is not among them.
"""

import asyncio
import logging
import time
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jwt

from candor.contracts import strict_json
from candor.contracts.names import tenant_name
from candor.contracts.proxies import open_url
from candor.contracts.secrets import shown_url
from candor.files.reading import read_file
from candor.gateway.access.keys import Identity, KeyFileError, Scope
from candor.gateway.pools import ISSUER

MAX_TOKEN_CHARS = 8192
_MAX_JWKS_BYTES = 1024 * 1024
_PART_BYTES = 64 * 1024
_FETCH_SECONDS = 5.0
_FRESH_SECONDS = 300.0  # a key that the issuer withdrew is trusted no longer than this
_REFETCH_SECONDS = 10.0  # between two fetches, however many tokens name unknown keys
_LEEWAY_SECONDS = 30.0  # between the issuer's clock and ours
_log = logging.getLogger("gateway.tokens")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects are not followed: keys come only from the address in the settings."""

    def redirect_request(self, *_: Any) -> None:
        return None


class BadToken(Exception):
    """The token is not valid; the client may see the message."""


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

    def check_file(self) -> None:
        """Raises: KeyFileError: the location is a file, and no set of keys can be read from it."""
        if "://" in self._location:
            return
        try:
            _read_keys(self._location)
        except (OSError, ValueError, jwt.PyJWTError) as err:
            reason = getattr(err, "strerror", None) or err
            raise KeyFileError(f"CANDOR_OIDC_JWKS: {self._location}: {reason}") from err

    async def find(self, key_id: str) -> jwt.PyJWK:
        """Raises: BadToken: the issuer has no such key, or cannot be reached."""
        if key_id not in self._keys or self._age() > _FRESH_SECONDS:
            await self._fetch()
        if self._age() > _FRESH_SECONDS:
            raise BadToken("the issuer's keys are not available now")
        if key_id not in self._keys:
            raise BadToken("key id: expected one of the issuer's, got another one")
        return self._keys[key_id]

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    async def _fetch(self) -> None:
        async with self._fetching:
            if time.monotonic() - self._tried_at < _REFETCH_SECONDS:
                return
            self._tried_at = time.monotonic()
            try:
                self._keys = await ISSUER.run(_read_keys, self._location)
            except (OSError, HTTPException, ValueError, jwt.PyJWTError) as err:
                _log.error("keys of the issuer from %s: %s", shown_url(self._location), err)
            else:
                self._fetched_at = time.monotonic()


def _read_keys(location: str) -> dict[str, jwt.PyJWK]:
    content = _read(location)
    if len(content) > _MAX_JWKS_BYTES:
        raise ValueError(f"expected at most {_MAX_JWKS_BYTES} bytes, got more")
    found = jwt.PyJWKSet.from_dict(strict_json.loads(content)).keys
    return {key.key_id: key for key in found if key.key_id and key.public_key_use in (None, "sig")}


def _read(location: str) -> bytes:
    if "://" not in location:
        return read_file(Path(location), _MAX_JWKS_BYTES)
    give_up, content = time.monotonic() + _FETCH_SECONDS, b""
    with open_url(location, _NoRedirects, seconds=_FETCH_SECONDS) as response:
        # In parts: an issuer that sends a byte now and then must not hold the thread for ever.
        while len(content) <= _MAX_JWKS_BYTES and (part := response.read1(_PART_BYTES)):
            content += part
            if time.monotonic() > give_up:
                raise TimeoutError(f"not received in {_FETCH_SECONDS:g} seconds")
    return content


class TokenReader:
    """Verifies signature, algorithm, issuer, audience and times of tokens.

    Args:
        algorithms: those accepted, whatever a token declares.
        tenant_claim: the claim with the tenant; a token without it has its subject as tenant.
        scope_claim: the claim with the scopes, a list or one text with blanks; scopes of other
            services are ignored.
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
        """The identity that a token proves.

        Raises:
            BadToken: the token is not valid.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise BadToken(f"expected at most {MAX_TOKEN_CHARS} characters, got {len(token)}")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._algorithms:
                raise BadToken(
                    f"algorithm: expected {', '.join(self._algorithms)}, got another one"
                )
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
            name=tenant_name(subject),
            tenant=tenant_name(str(claims.get(self._tenant_claim, subject))),
            scopes=_scopes(claims.get(self._scope_claim)),
        )


def _scopes(claim: Any) -> frozenset[Scope]:
    given = claim.split() if isinstance(claim, str) else claim
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    return frozenset(scope for scope in Scope if scope in names)
