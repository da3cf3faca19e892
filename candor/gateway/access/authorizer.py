"""Identity, scope and quota of a request, the same for both transports."""

from dataclasses import dataclass
from pathlib import Path

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.gateway.access.keys import PREFIX, Identity, KeyRing, Scope
from candor.gateway.access.rules import Access, Rule
from candor.gateway.access.shared_quotas import SharedQuotas
from candor.gateway.access.tokens import BadToken, KeySource, TokenReader
from candor.gateway.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request claims about its sender.

    Attributes:
        authorization: the header or metadata of that name, empty without one.
        session: the key in the cookie of a browser session.
        tenant: the tenant it names; used only by a gateway that needs no keys.
    """

    authorization: str = ""
    session: str = ""
    tenant: str = ""


class Authorizer:
    """Decides whether a request is admitted.

    Raises:
        KeyFileError: on construction, if the key file cannot be used.
    """

    def __init__(self, settings: Settings, quotas: SharedQuotas) -> None:
        self._keys = KeyRing(Path(settings.keys_file)) if settings.keys_file else None
        self._tokens = _token_reader(settings) if settings.oidc_issuer else None
        self._quotas = quotas

    @property
    def needs_keys(self) -> bool:
        return self._keys is not None or self._tokens is not None

    async def admit(self, rule: Rule, credentials: Credentials) -> Identity | None:
        """The identity of the client; None for a public path or a gateway that needs no keys.

        Raises:
            ServiceError: UNAUTHENTICATED, PERMISSION_DENIED or QUOTA_EXCEEDED.
        """
        if rule is Access.PUBLIC:
            return None
        identity = await self.identify(credentials) if self.needs_keys else None
        if identity is not None and isinstance(rule, Scope) and not identity.may(rule):
            raise _denied(identity, rule)
        tenant = credentials.tenant if identity is None else identity.tenant
        await self._quotas.admit(tenant, computes=rule is Scope.EXPLAIN)
        return identity

    async def identify(self, credentials: Credentials) -> Identity:
        """Raises: ServiceError: UNAUTHENTICATED."""
        kind, _, given = credentials.authorization.partition(" ")
        if credentials.authorization and kind.lower() != "bearer":
            raise unauthenticated("expected the scheme Bearer, got another one")
        key = given.strip() or credentials.session
        if not key:
            raise unauthenticated("expected 'Bearer KEY', got nothing")
        if self._tokens is not None and not key.startswith(PREFIX):
            try:
                return await self._tokens.read(key)
            except BadToken as err:
                raise unauthenticated(f"token rejected: {err}") from err
        identity = self._keys.find(key) if self._keys is not None else None
        if identity is None:
            raise unauthenticated("the key is not known")
        return identity


def unauthenticated(description: str) -> ServiceError:
    violation = FieldViolation("authorization", description)
    return ServiceError(
        ErrorCode.UNAUTHENTICATED, f"authorization: {description}", violations=[violation]
    )


def _denied(identity: Identity, scope: Scope) -> ServiceError:
    has = ", ".join(one for one in Scope if one in identity.scopes) or "none"
    description = f"expected {scope}, got {has} of {identity.name!r}"
    violation = FieldViolation("scope", description)
    return ServiceError(
        ErrorCode.PERMISSION_DENIED, f"scope: {description}", violations=[violation]
    )


def _token_reader(settings: Settings) -> TokenReader:
    source = KeySource(settings.oidc_jwks.reveal())
    source.check_file()
    return TokenReader(
        source,
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        tenant_claim=settings.oidc_tenant_claim,
        scope_claim=settings.oidc_scope_claim,
    )
