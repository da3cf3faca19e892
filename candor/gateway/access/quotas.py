"""Limits of each tenant: requests per second, compute-seconds per minute and per day.

They hold for one gateway; `candor.gateway.access.shared_quotas` makes them hold for several.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError

_MAX_TENANTS = 10_000  # remembered at once; without keys a client may invent names
_MINUTE, _DAY = 60.0, 86400.0


class Quota(BaseModel):
    """Limits of one tenant; 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_second: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, strict=True)
    burst: int = Field(default=20, ge=1, strict=True)
    """Requests at once after a pause."""
    compute_seconds_per_minute: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, strict=True)
    compute_seconds_per_day: float = Field(default=0.0, ge=0.0, allow_inf_nan=False, strict=True)


class Limit(NamedTuple):
    """A token bucket as it is set.

    Attributes:
        what: in words.
        computes: its tokens are seconds of computing; else requests.
    """

    what: str
    capacity: float
    per_second: float
    computes: bool


def limits_of(quota: Quota) -> tuple[Limit, ...]:
    """Those of a tenant, requests last: what is refused for another reason counts as none."""
    rate, minute = quota.requests_per_second, quota.compute_seconds_per_minute
    day = quota.compute_seconds_per_day
    limits = (
        Limit(f"{minute:g} compute-seconds per minute", minute, minute / _MINUTE, True),
        Limit(f"{day:g} compute-seconds per day", day, day / _DAY, True),
        Limit(f"{rate:g} requests per second", float(quota.burst), rate, False),
    )
    return tuple(one for one in limits if one.per_second)


@dataclass(slots=True)
class _Bucket:
    """A token bucket: fills at a steady rate up to its capacity; its level may become negative."""

    limit: Limit
    level: float
    filled_at: float

    def fill(self, now: float) -> None:
        gained = (now - self.filled_at) * self.limit.per_second
        self.level = min(self.limit.capacity, self.level + gained)
        self.filled_at = now

    def seconds_until(self, level: float) -> float:
        """Until it has reached ``level``; 0 if it has."""
        return max(0.0, (level - self.level) / self.limit.per_second)


_Account = tuple[_Bucket, ...]


def _is_full(account: _Account, now: float) -> bool:
    for bucket in account:
        bucket.fill(now)
    return all(bucket.level >= bucket.limit.capacity for bucket in account)


class Quotas:
    """Accounts of all tenants.

    Compute time is charged afterwards, when it is known; a tenant with an overdrawn account is
    rejected until time has filled it again.

    Args:
        usual: the quota of tenants that are not in ``special``.
    """

    def __init__(
        self,
        usual: Quota,
        special: Mapping[str, Quota],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usual = usual
        self._special = dict(special)
        self._now = now
        self._accounts: dict[str, _Account] = {}

    def admit(self, tenant: str, *, computes: bool) -> None:
        """Counts one request.

        Args:
            computes: whether it may start searches.
        Raises:
            ServiceError: QUOTA_EXCEEDED, with the seconds after which it would be admitted.
        """
        for bucket in self._account(tenant):
            if not bucket.limit.computes:
                _require(bucket, 1.0, tenant)
                bucket.level -= 1.0
            elif computes:
                _require(bucket, 0.0, tenant)

    def charge(self, tenant: str, seconds: float) -> None:
        """Charges compute time to a tenant."""
        for bucket in self._account(tenant):
            bucket.level -= seconds if bucket.limit.computes else 0.0

    def quota_of(self, tenant: str) -> Quota:
        return self._special.get(tenant, self._usual)

    def _account(self, tenant: str) -> _Account:
        now = self._now()
        account = self._accounts.get(tenant)
        if account is None:
            self._make_room(now)
            account = tuple(
                _Bucket(limit, limit.capacity, now) for limit in limits_of(self.quota_of(tenant))
            )
            self._accounts[tenant] = account
        for bucket in account:
            bucket.fill(now)
        return account

    def _make_room(self, now: float) -> None:
        """Drops full accounts, which are like new ones, and the older half of the others."""
        if len(self._accounts) < _MAX_TENANTS:
            return
        kept = [(name, one) for name, one in self._accounts.items() if not _is_full(one, now)]
        self._accounts = dict(kept[-_MAX_TENANTS // 2 :])


def _require(bucket: _Bucket, level: float, tenant: str) -> None:
    wait = bucket.seconds_until(level)
    if wait > 0.0:
        raise exceeded(bucket.limit.what, tenant, wait)


def exceeded(what: str, tenant: str, retry_seconds: float) -> ServiceError:
    """QUOTA_EXCEEDED by the limit that ``what`` names."""
    description = f"expected at most {what} of {tenant!r}, got more"
    return ServiceError(
        ErrorCode.QUOTA_EXCEEDED,
        f"tenant: {description}",
        violations=[FieldViolation("tenant", description)],
        retry_seconds=retry_seconds,
    )
