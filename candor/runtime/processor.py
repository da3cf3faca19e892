"""What this machine computes with, as far as compiled code depends on it."""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
_NAMES, _FLAGS = ("model name", "Processor"), ("flags", "Features")  # x86, Arm


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor.

    Attributes:
        name: as the system gives it.
        instruction_sets: every flag of it, sorted; empty where the system does not say.
        capability: the widest instructions that torch uses on it.
    """

    name: str
    instruction_sets: tuple[str, ...]
    capability: str


def this_processor(source: Path = CPU_INFO) -> Processor:
    """The first processor of this machine; all of them are taken for equal."""
    try:
        lines = source.read_text().splitlines()
    except OSError:
        lines = []
    name = _first(lines, _NAMES) or platform.processor() or platform.machine()
    flags = tuple(sorted(set(_first(lines, _FLAGS).split())))
    return Processor(name, flags, torch.backends.cpu.get_cpu_capability())


def _first(lines: list[str], keys: tuple[str, ...]) -> str:
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() in keys), "")
