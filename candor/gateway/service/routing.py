"""Which version of a model answers a request.

A request that names a version gets it.  A request that names only the model gets the primary or,
for a share of the images, the canary.  The same image of the same tenant always gets the same
version, whatever the verb.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from candor.contracts.names import VERSION_PATTERN, normalised, split_name, versioned

Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
_FRACTION_BYTES = 6  # of a digest: as many as a float holds exactly
_FRACTION_RANGE = 2.0 ** (8 * _FRACTION_BYTES)


class Route(BaseModel):
    """The roles of the versions of one model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: Version
    canary: Version | None = None
    weight: Share | None = None
    """Share of the requests without a version that the canary answers."""
    shadow: Version | None = None
    shadow_share: Share | None = None
    """Share of the primary's answers that the shadow is compared with."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for role, share in (("canary", "weight"), ("shadow", "shadow_share")):
            version = getattr(self, role)
            if (version is None) != (getattr(self, share) is None):
                raise ValueError(f"{role}, {share}: expected both or none, got one")
            if version == self.primary:
                raise ValueError(
                    f"{role}: expected another version than the primary, got {version!r}"
                )
        return self

    @property
    def versions(self) -> dict[str, str]:
        """The versions by role."""
        roles = {"primary": self.primary, "canary": self.canary, "shadow": self.shadow}
        return {role: version for role, version in roles.items() if version is not None}


class Routes:
    """Every model with its versions.  Without a route the first version is the primary.

    Args:
        models: as they are served, ``NAME`` or ``NAME@VERSION``; the first is of the default model.
        routes: by ``NAME``.
    Raises:
        ValueError: models or routes contradict themselves; names every contradiction.
    """

    def __init__(self, models: Sequence[str], routes: Mapping[str, Route]) -> None:
        self.models = tuple(models)
        self._routes = dict(routes)
        self._served_names: dict[str, list[str]] = {}
        for served_name in models:
            self._served_names.setdefault(split_name(served_name)[0], []).append(served_name)
        problems = [*self._contradictions(), *self._unknown_versions()]
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def names(self) -> tuple[str, ...]:
        """Models without their versions, the default first."""
        return tuple(self._served_names)

    @property
    def answering(self) -> tuple[str, ...]:
        """Served names that answer requests without a version; the service needs them all."""
        canaries = [
            versioned(name, route.canary)
            for name, route in self._routes.items()
            if route.canary is not None and route.weight
        ]
        return (*map(self._primary, self._served_names), *canaries)

    @property
    def primaries(self) -> dict[str, str]:
        """Served names by the name of a request without a version; empty for the default."""
        primaries = {name: self._primary(name) for name in self._served_names}
        return {"": primaries[self.names[0]], **primaries}

    def versions_of(self, name: str) -> tuple[str, ...]:
        """Served names of one model; empty where it is unknown."""
        return tuple(self._served_names.get(name, ()))

    def needs_image(self, wanted: str) -> bool:
        """Whether `find` or `shadow_of` need the key of a request for ``wanted``."""
        route = self._routes.get(split_name(wanted or self.names[0])[0])
        return route is not None and (route.canary is not None or route.shadow is not None)

    def find(self, wanted: str, key: bytes = b"") -> str | None:
        """The served name that answers a request for ``wanted``, None where it is unknown.

        Args:
            wanted: ``NAME``, ``NAME@VERSION``, or empty for the default model.
            key: of the request, see `request_key`; empty for the primary.
        """
        wanted = str(normalised(wanted)) or self.names[0]
        name, _ = split_name(wanted)
        if name not in self._served_names:
            return None
        if wanted != name:
            return wanted if wanted in self._served_names[name] else None
        route = self._routes.get(name)
        if key and route is not None and route.canary is not None:
            is_chosen = _fraction(key, f"canary of {name}") < (route.weight or 0.0)
            return versioned(name, route.canary if is_chosen else route.primary)
        return self._primary(name)

    def shadow_of(self, served_name: str, key: bytes) -> str | None:
        """The served name to compare this response of ``served_name`` with, if any."""
        name, version = split_name(served_name)
        route = self._routes.get(name)
        if route is None or route.shadow is None or version != route.primary:
            return None
        is_chosen = _fraction(key, f"shadow of {name}") < (route.shadow_share or 0.0)
        return versioned(name, route.shadow) if is_chosen else None

    def _primary(self, name: str) -> str:
        route = self._routes.get(name)
        return versioned(name, route.primary) if route else self._served_names[name][0]

    def _contradictions(self) -> Iterator[str]:
        for name, served_names in self._served_names.items():
            if len(served_names) != len(set(served_names)):
                yield f"models: expected each once, got one of {', '.join(served_names)} twice"
            if name in served_names and len(set(served_names)) > 1:
                others = ", ".join(one for one in served_names if one != name)
                yield (
                    "models: expected one without a version or all with one, got"
                    f" {name} beside {others}"
                )

    def _unknown_versions(self) -> Iterator[str]:
        for name, route in self._routes.items():
            served_names = self._served_names.get(name, [])
            for role, version in route.versions.items():
                if versioned(name, version) not in served_names:
                    known = ", ".join(one for one in served_names if one != name)
                    yield (
                        f"routes.{name}.{role}: expected a version in models"
                        f" ({known or 'none'}), got {version!r}"
                    )


def request_key(tenant: str, image: bytes) -> bytes:
    """SHA-256 over the tenant and the image as it was sent."""
    head = f"{len(tenant)}/{tenant}/".encode()
    return hashlib.sha256(head + hashlib.sha256(image).digest()).digest()


def _fraction(key: bytes, purpose: str) -> float:
    """A number in [0, 1) that the request always gets, another one for each purpose.

    Not by version: a canary that gets a larger share keeps the images it had.
    """
    digest = hashlib.sha256(purpose.encode() + b"/" + key).digest()
    return int.from_bytes(digest[:_FRACTION_BYTES], "big") / _FRACTION_RANGE
