"""A connection to Redis: what of `candor.gateway.shared` needs its client, slow to import."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

__all__ = ["RedisError", "connected"]


def connected(url: str, answer_seconds: float) -> Redis:
    """Connects with the first question; no question is asked twice.

    Args:
        url: redis:// or rediss://.
        answer_seconds: the longest wait for a connection, and for an answer.
    """
    return Redis.from_url(
        url,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
    )
