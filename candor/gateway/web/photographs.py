"""The photographs with which the console starts; `tools.photographs` makes their files."""

from typing import NamedTuple


class Photograph(NamedTuple):
    """One of them.

    Attributes:
        name: in links.
        shows: what people see on it, for those who do not see it.
    """

    name: str
    shows: str

    @property
    def file(self) -> str:
        """Its name under `/pages/`."""
        return f"photograph-{self.name}.jpg"


# The first is explained before anything is asked.
PHOTOGRAPHS = (
    Photograph("cat", "a cat"),
    Photograph("horse", "the silhouette of a horse"),
    Photograph("rocket", "a rocket on its launch pad"),
    Photograph("coffee", "a cup of coffee"),
    Photograph("astronaut", "an astronaut"),
)
