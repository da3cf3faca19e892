"""Who may call what, the same for both doors.

Everything is refused that no rule names: what a door adds without a rule is for admins alone.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError
from candor.gateway.access.keys import PREFIX, Identity, KeyRing, Scope
from candor.gateway.access.quotas import Quotas
from candor.gateway.access.tokens import BadToken, KeySource, TokenReader
from candor.gateway.config.settings import Settings


class Anybody(Enum):
    """Rules beside the scopes."""

    OPEN = "open"  # without a key: health, where a key is entered, what all pages look like
    KNOWN = "known"  # any key


Rule = Scope | Anybody

# The whole path must match; the first that does counts.
_PATHS: tuple[tuple[str, Rule], ...] = (
    (r"/healthz/(live|ready)", Anybody.OPEN),
    (r"/v2/health/(live|ready)", Anybody.OPEN),
    (r"/(login|logout)", Anybody.OPEN),
    (r"/pages/[^/]+", Anybody.OPEN),  # styles, scripts and the sample image
    (r"/v1/predict", Scope.PREDICT),
    (r"/v1/models/[^/]+:predict", Scope.PREDICT),
    (r"/v2/models/[^/]+(/versions/[^/]+)?/infer", Scope.PREDICT),
    (r"/v1/(explain|explain/stream|probe|compare)", Scope.EXPLAIN),
    (r"/v1/models/[^/]+:explain", Scope.EXPLAIN),
    (r"/v1/reports(/.*|:.*)?", Scope.REPORT),
    (r"/v1/annotations:[a-z]+", Scope.ANNOTATE),
    (r"/annotate(/.*)?", Scope.ANNOTATE),
    (r"/v1/models(/[^/:]+)?", Anybody.KNOWN),
    (r"/v2(/models/[^/]+(/versions/[^/]+)?(/ready)?)?", Anybody.KNOWN),
    (r"/(docs|redoc|openapi\.json)?", Anybody.KNOWN),
)
_CANDOR = r"/candor\.v1\.CandorService/"
_OPEN_INFERENCE = r"/inference\.GRPCInferenceService/"
_METHODS: tuple[tuple[str, Rule], ...] = (
    (r"/grpc\.health\.v1\.Health/.*", Anybody.OPEN),
    (_OPEN_INFERENCE + "(ServerLive|ServerReady)", Anybody.OPEN),
    (_CANDOR + "Predict", Scope.PREDICT),
    (_OPEN_INFERENCE + "ModelInfer", Scope.PREDICT),
    (_CANDOR + "(Explain|ExplainStream|Probe|Compare)", Scope.EXPLAIN),
    (r"/candor\.v1\.ReportService/.*", Scope.REPORT),
    (_CANDOR + "(ListModels|GetModel)", Anybody.KNOWN),
    (_OPEN_INFERENCE + "(ModelReady|ServerMetadata|ModelMetadata)", Anybody.KNOWN),
    (r"/grpc\.reflection\.v1(alpha)?\.ServerReflection/.*", Anybody.KNOWN),
)


def rule_of_path(path: str) -> Rule:
    return _rule(_PATHS, path)


def rule_of_method(method: str) -> Rule:
    return _rule(_METHODS, method)


def _rule(rules: tuple[tuple[str, Rule], ...], name: str) -> Rule:
    return next((rule for pattern, rule in rules if re.fullmatch(pattern, name)), Scope.ADMIN)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says of itself.

    Attributes:
        authorization: the header or metadata of that name, empty without one.
        session: the key that a page's cookie holds.
        tenant: the tenant it names; believed only where nobody needs a key.
    """

    authorization: str = ""
    session: str = ""
    tenant: str = ""


class Authorizer:
    """Identity, scope and quota of every request.

    Raises:
        KeyFileError: on making it, the key file cannot be used.
    """

    def __init__(self, settings: Settings, quotas: Quotas) -> None:
        self._keys = KeyRing(Path(settings.keys_file)) if settings.keys_file else None
        self._tokens = _token_reader(settings) if settings.oidc_issuer else None
        self._quotas = quotas

    @property
    def needs_keys(self) -> bool:
        return self._keys is not None or self._tokens is not None

    async def admit(self, rule: Rule, credentials: Credentials) -> Identity | None:
        """Who asks; None where nobody has to say.

        Raises:
            ServiceError: UNAUTHENTICATED, PERMISSION_DENIED or QUOTA_EXCEEDED.
        """
        if rule is Anybody.OPEN:
            return None
        identity = await self.identify(credentials) if self.needs_keys else None
        if identity is not None and isinstance(rule, Scope) and not identity.may(rule):
            raise _denied(identity, rule)
        tenant = credentials.tenant if identity is None else identity.tenant
        self._quotas.admit(tenant, computes=rule is Scope.EXPLAIN)
        return identity

    async def identify(self, credentials: Credentials) -> Identity:
        """Raises: ServiceError: UNAUTHENTICATED."""
        kind, _, given = credentials.authorization.partition(" ")
        if credentials.authorization and kind.lower() != "bearer":
            raise unauthenticated("got another kind than Bearer")
        key = given.strip() or credentials.session
        if not key:
            raise unauthenticated("missing, allowed 'Bearer KEY'")
        if self._tokens is not None and not key.startswith(PREFIX):
            try:
                return await self._tokens.read(key)
            except BadToken as err:
                raise unauthenticated(f"token refused: {err}") from err
        identity = self._keys.find(key) if self._keys is not None else None
        if identity is None:
            raise unauthenticated("got a key that is not known")
        return identity


def unauthenticated(description: str) -> ServiceError:
    violation = FieldViolation("authorization", description)
    return ServiceError(
        ErrorCode.UNAUTHENTICATED, f"authorization: {description}", violations=[violation]
    )


def _denied(identity: Identity, scope: Scope) -> ServiceError:
    has = ", ".join(one for one in Scope if one in identity.scopes) or "none"
    description = f"got {has} of {identity.name!r}, needs {scope}"
    violation = FieldViolation("scope", description)
    return ServiceError(
        ErrorCode.PERMISSION_DENIED, f"scope: {description}", violations=[violation]
    )


def _token_reader(settings: Settings) -> TokenReader:
    return TokenReader(
        KeySource(settings.oidc_jwks),
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        algorithms=settings.oidc_algorithms,
        tenant_claim=settings.oidc_tenant_claim,
        scope_claim=settings.oidc_scope_claim,
    )
