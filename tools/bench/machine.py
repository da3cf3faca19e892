"""The machine that a benchmark ran on, and the precisions that it has."""

import os
import platform
from pathlib import Path

import torch

from candor.contracts.api import Precision
from candor.runtime.compiled import has_bfloat16
from candor.runtime.processor import CPU_INFO, this_processor

FLOAT32: Precision = "float32"
BFLOAT16: Precision = "bfloat16"
# Flags of /proc/cpuinfo that decide the speed of a network, narrow sets first.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def instruction_sets(source: Path = CPU_INFO) -> tuple[str, ...]:
    """Those of ``_FLAGS`` that the processor has; none where the system does not tell."""
    found = this_processor(source).instruction_sets
    return tuple(flag for flag in _FLAGS if flag in found)


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """float32, and bfloat16 where the device has instructions for it."""
    return (FLOAT32, BFLOAT16) if has_bfloat16(device) else (FLOAT32,)


def has_amx() -> bool:
    """Whether matrices of bfloat16 have units of their own."""
    return "amx_bf16" in instruction_sets()


def cores() -> str:
    """Number and name of the processor's cores, and its instruction sets, for a table."""
    sets = ", ".join(instruction_sets()) or "instruction sets unknown"
    return f"{os.cpu_count()} cores of {this_processor().name} ({sets})"


def description(device: torch.device) -> str:
    """One line: device, instruction sets, threads, precisions, torch."""
    name = this_processor().name
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, host {name}"
    sets = " ".join(instruction_sets()) or "instruction sets unknown"
    return (
        f"{name}; {sets}; {torch.get_num_threads()} threads; {', '.join(precisions(device))}; "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )
