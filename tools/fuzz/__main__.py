"""``python -m tools.fuzz`` sends hostile inputs to everything that reads any; ends in a table."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tools.fuzz import decoders, through_grpc, through_rest
from tools.fuzz.outcomes import Outcome
from tools.fuzz.target import Target, started
from tools.reliability import Row, print_table, write_section

_MAX_GROWN_MEGABYTES = 64.0
_SHARES = {"rest": 0.1, "grpc": 0.2, "decoders": 0.175}  # the last of each of four
_WORDS = {
    "images": "images to be decoded (atheris)",
    "wire": "messages of workers (atheris)",
    "artifacts": "model folders (atheris)",
    "workers": "items to both handlers (atheris)",
}


def main() -> int:
    """Exit code 1 where an input was answered wrongly or memory grew."""
    parser = argparse.ArgumentParser(prog="tools.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=22_000, help="inputs in all, about")
    parser.add_argument("--no-write", action="store_true", help="leave RELIABILITY.md alone")
    arguments = parser.parse_args()
    rows = [*run(arguments.cases)]
    print_table(rows, Console())
    if not arguments.no_write:
        write_section("fuzz", rows, "make fuzz")
    return int(not all(row.is_held for row in rows))


def run(case_count: int, names: Sequence[str] = decoders.NAMES) -> list[Row]:
    """One row a surface; ``names`` of the decoders among them."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with started(folder) as target:
            rows = _through_the_doors(target, case_count)
        for name in names:
            rows.append(_decoded(name, int(case_count * _SHARES["decoders"]), folder))
    return rows


def _through_the_doors(target: Target, case_count: int) -> list[Row]:
    rows = []
    for fuzz, share in ((through_rest.fuzz, "rest"), (through_grpc.fuzz, "grpc")):
        count = int(case_count * _SHARES[share])
        fuzz(target, count // 10)  # what is loaded and kept once is not growth
        before = target.megabytes()
        outcome = fuzz(target, count)
        rows.append(_row(outcome, target.megabytes() - before, is_well=target.is_well()))
    return rows


def _row(outcome: Outcome, grown: float, *, is_well: bool) -> Row:
    for complaint in outcome.wrong:
        print(complaint, file=sys.stderr)
    statuses = ", ".join(f"{count} {name}" for name, count in outcome.statuses.most_common(6))
    return Row(
        what=outcome.what,
        tried=outcome.tried,
        lost=outcome.lost,
        measured=f"{statuses}; memory {grown:+.0f} MB (allowed {_MAX_GROWN_MEGABYTES:.0f})",
        is_held=outcome.lost == 0 and is_well and grown <= _MAX_GROWN_MEGABYTES,
    )


def _decoded(name: str, count: int, folder: Path) -> Row:
    found = decoders.run(name, count, folder)
    grown, slowest = found.get("grown", 0.0), found.get("slowest", 0.0)
    is_held = found["code"] == 0 and grown <= _MAX_GROWN_MEGABYTES
    return Row(
        what=_WORDS[name],
        tried=int(found["tried"]),
        lost=int(found["code"] != 0),
        measured=f"slowest {slowest:.2f} s; memory {grown:+.0f} MB "
        f"(allowed {_MAX_GROWN_MEGABYTES:.0f})",
        is_held=is_held,
    )


if __name__ == "__main__":
    sys.exit(main())
