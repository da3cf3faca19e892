"""Names that models are served by.

A model with one version in its folder is served as ``NAME``, one with several as ``NAME@VERSION``
each.
"""

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
VERSION_PATTERN = r"^[0-9]+(\.[0-9]+){0,2}$"
SERVED_PATTERN = f"{NAME_PATTERN[:-1]}(@{VERSION_PATTERN[1:-1]})?$"


def split_name(served: str) -> tuple[str, str]:
    """Name and version, the latter empty where ``served`` has none."""
    name, _, version = served.partition("@")
    return name, version


def versioned(name: str, version: str) -> str:
    """The name of one version."""
    return f"{name}@{version}"


def version_order(version: str) -> tuple[int, ...]:
    """Sorts versions by their numbers: 1.9 before 1.10."""
    return tuple(int(number) for number in version.split("."))


def runtime_name(served: str, role: str) -> str:
    """What the runtime calls a worker of this model: safe in a URL and as a folder.

    No two models share one, for an underscore is in no model's name.
    """
    return f"{served.replace('@', '_')}-{role}"
