"""Seeds of random numbers, derived so that batch, order and process have no part in them."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """The seed of one purpose, for instance of (seed of the run, purpose, index of the image).

    Returns:
        The first 32 bits of the SHA-256 of the parts joined by "/": torch's generator on the CPU
        reads no more of its seed.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "little")
