"""A Dockerfile as a list of instructions."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its text on one line, continuation marks and comments removed."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return self.text.split()

    @property
    def exec_form(self) -> list[str] | None:
        """The command where it is written as a JSON list, else None."""
        start = self.text.find("[")
        return json.loads(self.text[start:]) if start >= 0 else None


@dataclass(frozen=True, slots=True)
class Stage:
    """Instructions from one FROM to the next; ``name`` is empty where it has none."""

    base: str
    name: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[Instruction]:
        return [found for found in self.instructions if found.name == name]


def read(path: Path) -> tuple[list[Instruction], list[Stage]]:
    """What stands before the first FROM, and the stages."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    before: list[Instruction] = []
    stages: list[Stage] = []
    for line in filter(None, joined.split("\n")):
        name, _, text = line.partition(" ")
        if name == "FROM":
            base, *alias = text.split()
            stages.append(Stage(base, alias[-1] if alias else "", []))
        else:
            instructions = stages[-1].instructions if stages else before
            instructions.append(Instruction(name, text.strip()))
    return before, stages
