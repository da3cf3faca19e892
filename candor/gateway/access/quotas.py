"""Limits of each tenant: requests per second, compute-seconds per minute and per day.

They hold for one gateway: several behind a load balancer count separately.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(slots=True)
class _Bucket:
    """A token bucket: fills at a steady rate up to its capacity; its level may become negative."""

    what: str
    capacity: float
    per_second: float
    level: float
    filled_at: float

    def fill(self, now: float) -> None:
        gained = (now - self.filled_at) * self.per_second
        self.level = min(self.capacity, self.level + gained)
        self.filled_at = now

    def seconds_until(self, level: float) -> float:
        """Until it has reached ``level``; 0 if it has."""
        return max(0.0, (level - self.level) / self.per_second)


@dataclass(slots=True)
class _Account:
    requests: _Bucket | None
    compute: tuple[_Bucket, ...]

    def buckets(self) -> Iterator[_Bucket]:
        if self.requests is not None:
            yield self.requests
        yield from self.compute

    def is_full(self, now: float) -> bool:
        for bucket in self.buckets():
            bucket.fill(now)
        return all(bucket.level >= bucket.capacity for bucket in self.buckets())


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
        account = self._account(tenant)
        for bucket in account.compute if computes else ():
            _require(bucket, 0.0, tenant)
        if account.requests is not None:
            _require(account.requests, 1.0, tenant)
            account.requests.level -= 1.0

    def charge(self, tenant: str, seconds: float) -> None:
        """Charges compute time to a tenant."""
        for bucket in self._account(tenant).compute:
            bucket.level -= seconds

    def _account(self, tenant: str) -> _Account:
        now = self._now()
        account = self._accounts.get(tenant)
        if account is None:
            self._make_room(now)
            account = _open(self._special.get(tenant, self._usual), now)
            self._accounts[tenant] = account
        for bucket in account.buckets():
            bucket.fill(now)
        return account

    def _make_room(self, now: float) -> None:
        """Drops full accounts, which are like new ones, and the older half of the others."""
        if len(self._accounts) < _MAX_TENANTS:
            return
        kept = [(name, one) for name, one in self._accounts.items() if not one.is_full(now)]
        self._accounts = dict(kept[-_MAX_TENANTS // 2 :])


def _open(quota: Quota, now: float) -> _Account:
    def bucket(what: str, capacity: float, per_second: float) -> _Bucket:
        return _Bucket(what, capacity, per_second, capacity, now)

    rate, minute = quota.requests_per_second, quota.compute_seconds_per_minute
    day = quota.compute_seconds_per_day
    compute = (
        bucket(f"{minute:g} compute-seconds per minute", minute, minute / _MINUTE)
        if minute
        else None,
        bucket(f"{day:g} compute-seconds per day", day, day / _DAY) if day else None,
    )
    return _Account(
        bucket(f"{rate:g} requests per second", float(quota.burst), rate) if rate else None,
        tuple(one for one in compute if one is not None),
    )


def _require(bucket: _Bucket, level: float, tenant: str) -> None:
    wait = bucket.seconds_until(level)
    if wait > 0.0:
        description = f"expected at most {bucket.what} of {tenant!r}, got more"
        raise ServiceError(
            ErrorCode.QUOTA_EXCEEDED,
            f"tenant: {description}",
            violations=[FieldViolation("tenant", description)],
            retry_seconds=wait,
        )
