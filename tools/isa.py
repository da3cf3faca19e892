"""``python -m tools.isa`` runs the numerical tests under several instruction sets.

Kernels of torch and of oneDNN round differently with every width of a vector, so what a test
promises must hold for each.  ATEN_CPU_CAPABILITY chooses torch's own kernels, ONEDNN_MAX_CPU_ISA
those of convolutions and matrix products.  By default every value that this machine has is tried
once, narrow with narrow and wide with wide; with --product every pair.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[1]
OUT_DIR = REPOSITORY / "out" / "isa"
TESTS = (
    *(f"tests/{room}" for room in ("attacks", "explainers", "nets", "robustness")),
    *(f"tests/{room}" for room in ("runtime", "search")),
    *(
        f"tests/training/test_{name}.py"
        for name in ("adversaries", "finite_difference", "optimizer", "psi", "regularizers", "step")
    ),
)
# Flags of /proc/cpuinfo that a value needs, narrow sets first.
ATEN: Mapping[str, frozenset[str]] = {
    "default": frozenset(),
    "avx2": frozenset({"avx2", "fma"}),
    "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"}),
}
ONEDNN: Mapping[str, frozenset[str]] = {
    "SSE41": frozenset({"sse4_1"}),
    "AVX2": frozenset({"avx2"}),
    "AVX512_CORE": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "AVX512_CORE_AMX": frozenset({"amx_tile", "amx_int8", "amx_bf16"}),
}
_CAPABILITY = "import torch; print(torch.backends.cpu.get_cpu_capability())"


@dataclass(frozen=True, slots=True)
class Isa:
    """Values of both variables; empty where a variable is left alone."""

    aten: str
    onednn: str

    @property
    def name(self) -> str:
        return f"{self.aten or 'unset'}-{self.onednn or 'unset'}"

    def environment(self) -> dict[str, str]:
        chosen = {"ATEN_CPU_CAPABILITY": self.aten, "ONEDNN_MAX_CPU_ISA": self.onednn}
        kept = {name: text for name, text in os.environ.items() if name not in chosen}
        return {**kept, **{name: text for name, text in chosen.items() if text}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the tests ended under one instruction set.

    Attributes:
        summary: pytest's last line, or what went wrong before.
    """

    isa: Isa
    is_passed: bool
    summary: str
    seconds: float


def main() -> int:
    """Exit code 0 where the tests pass under every set that this machine has, else 1."""
    parser = argparse.ArgumentParser(prog="tools.isa", description=__doc__)
    parser.add_argument("--product", action="store_true", help="every pair of the two variables")
    parser.add_argument("tests", nargs="*", default=TESTS, help="instead of the numerical tests")
    arguments = parser.parse_args()
    console = Console(width=160)
    flags = cpu_flags()
    for line in absent(flags):
        console.print(f"skipped: {line}", markup=False)
    outcomes = []
    for isa in chosen_sets(flags, is_product=arguments.product):
        console.print(f"running: {isa.name}", markup=False)
        outcomes.append(run(isa, arguments.tests))
    _print_table(outcomes, console)
    return int(not all(outcome.is_passed for outcome in outcomes))


def cpu_flags(path: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> frozenset[str]:
    """What an x86-64 processor says it can do; nothing on other machines."""
    if (machine or platform.machine()) not in ("x86_64", "AMD64") or not path.is_file():
        return frozenset()
    lines = path.read_text().splitlines()
    texts = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(texts, "").split())


def absent(flags: frozenset[str]) -> Iterator[str]:
    """One line for each value that is not tried here, with the reason."""
    for variable, values in (("ATEN_CPU_CAPABILITY", ATEN), ("ONEDNN_MAX_CPU_ISA", ONEDNN)):
        for value, needed in values.items():
            missing = sorted(needed - flags)
            if not flags:
                yield f"{variable}={value}: not an x86-64 processor that says its flags"
            elif missing:
                yield f"{variable}={value}: this processor has no {', '.join(missing)}"


def chosen_sets(flags: frozenset[str], *, is_product: bool) -> list[Isa]:
    """The sets to try, the narrowest first; only the machine's own where it says no flags."""
    if not flags:
        return [Isa("", "")]
    aten = [value for value, needed in ATEN.items() if needed <= flags]
    onednn = [value for value, needed in ONEDNN.items() if needed <= flags]
    if is_product:
        return [Isa(*pair) for pair in product(aten, onednn)]
    length = max(len(aten), len(onednn))
    return [
        Isa(aten[min(place, len(aten) - 1)], onednn[min(place, len(onednn) - 1)])
        for place in range(length)
    ]


def run(isa: Isa, tests: Sequence[str], out_dir: Path = OUT_DIR) -> Outcome:
    """The tests in a process of their own; all that pytest prints goes into ``out_dir``."""
    started = time.perf_counter()
    used = _python(isa, "-c", _CAPABILITY)
    if isa.aten and used.strip().lower() != isa.aten:
        summary = f"torch: expected the kernels of {isa.aten}, got {used.strip()}"
        return Outcome(isa=isa, is_passed=False, summary=summary, seconds=0.0)
    marked = "not slow and not gpu and not wheel"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked]
    done = subprocess.run(
        [*command, *tests], env=isa.environment(), cwd=REPOSITORY, capture_output=True, text=True
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / f"{isa.name}.txt").write_text(done.stdout + done.stderr)
    lines = (done.stdout + done.stderr).splitlines() or [""]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return Outcome(
        isa=isa,
        is_passed=done.returncode == 0,
        summary="\n".join([*failed, lines[-1]]),
        seconds=time.perf_counter() - started,
    )


def _python(isa: Isa, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=isa.environment(), capture_output=True, text=True, check=True
    ).stdout


def _print_table(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "passed", "seconds", "summary")
    for outcome in outcomes:
        passed = "yes" if outcome.is_passed else "no"
        isa = (outcome.isa.aten or "unset", outcome.isa.onednn or "unset")
        table.add_row(*isa, passed, f"{outcome.seconds:.0f}", outcome.summary)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
