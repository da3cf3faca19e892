"""Which instruction sets are tried on which processor, and what is said of the others."""

import os
from pathlib import Path

import pytest

from tools import isa
from tools.isa import Isa

SSE = frozenset({"sse4_1"})
AVX2 = SSE | {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AMX = AVX512 | {"amx_tile", "amx_int8", "amx_bf16"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (frozenset(), ["unset-unset"]),
        (SSE, ["default-SSE41"]),
        (AVX2, ["default-SSE41", "avx2-AVX2"]),
        (AVX512, ["default-SSE41", "avx2-AVX2", "avx512-AVX512_CORE"]),
        (
            AMX,
            ["default-SSE41", "avx2-AVX2", "avx512-AVX512_CORE", "avx512-AVX512_CORE_AMX"],
        ),
    ],
)
def test_every_value_that_the_machine_has_is_tried(
    flags: frozenset[str], expected: list[str]
) -> None:
    assert [one.name for one in isa.chosen_sets(flags, is_product=False)] == expected


def test_the_product_has_every_pair() -> None:
    assert len(isa.chosen_sets(AMX, is_product=True)) == len(isa.ATEN) * len(isa.ONEDNN)


def test_what_is_skipped_is_said_with_the_reason() -> None:
    assert list(isa.absent(AVX512)) == [
        "ONEDNN_MAX_CPU_ISA=AVX512_CORE_AMX: this processor has no amx_bf16, amx_int8, amx_tile"
    ]
    assert len(list(isa.absent(frozenset()))) == len(isa.ATEN) + len(isa.ONEDNN)
    assert list(isa.absent(AMX)) == []


def test_flags_are_read_on_x86_alone(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: sse4_1 avx2\nprocessor : 1\nflags : sse4_1\n")
    assert isa.cpu_flags(path, "x86_64") == {"sse4_1", "avx2"}
    assert isa.cpu_flags(path, "aarch64") == frozenset()
    assert isa.cpu_flags(tmp_path / "none", "x86_64") == frozenset()


def test_the_environment_keeps_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    changed = Isa("", "AVX2").environment()
    assert "ATEN_CPU_CAPABILITY" not in changed
    assert changed["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert changed["PATH"] == os.environ["PATH"]


def test_a_failing_test_fails_the_run_and_is_named(tmp_path: Path) -> None:
    tests = tmp_path / "test_sets.py"
    tests.write_text(
        "import os\n\n\ndef test_set():\n    assert os.environ['ATEN_CPU_CAPABILITY'] == 'avx2'\n"
    )
    failed = isa.run(Isa("default", ""), ["-c", os.devnull, str(tests)], tmp_path)
    assert not failed.is_passed
    assert "test_set" in failed.summary
    assert (tmp_path / "default-unset.txt").is_file()


def test_a_set_that_torch_does_not_use_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isa, "_CAPABILITY", "print('VSX')")
    outcome = isa.run(Isa("default", ""), [], tmp_path)
    assert (outcome.is_passed, outcome.summary) == (
        False,
        "torch: expected the kernels of default, got VSX",
    )


def test_the_named_tests_exist() -> None:
    assert [name for name in isa.TESTS if not (isa.REPOSITORY / name).exists()] == []
