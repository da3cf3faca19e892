"""The gateway's fixtures, for clients that are not ours."""

from tests.gateway.conftest import doors, png

__all__ = ["doors", "png"]
