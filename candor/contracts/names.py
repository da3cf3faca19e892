"""Names under which models are served.

A model with one version in its folder is served as ``NAME``, each version of a model with several
as ``NAME@VERSION``.
"""

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
VERSION_PATTERN = r"^[0-9]+(\.[0-9]+){0,2}$"
SERVED_PATTERN = f"{NAME_PATTERN[:-1]}(@{VERSION_PATTERN[1:-1]})?$"


def split_name(served: str) -> tuple[str, str]:
    """Name and version; the version is empty if ``served`` names none."""
    name, _, version = served.partition("@")
    return name, version


def versioned(name: str, version: str) -> str:
    """The name under which one version is served."""
    return f"{name}@{version}"


def version_order(version: str) -> tuple[int, ...]:
    """The key that sorts versions by their numbers: 1.9 before 1.10."""
    return tuple(int(number) for number in version.split("."))


def runtime_name(served: str, role: str) -> str:
    """The runtime's name for a worker of this model, valid in a URL and as a folder.

    It is unique, because no model's name contains an underscore.
    """
    return f"{served.replace('@', '_')}-{role}"
