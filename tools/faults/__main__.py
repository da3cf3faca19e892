"""``python -m tools.faults`` injects one fault after another into a real service; ends in a table.

Needs root, to mount a small disk, and Debian's libfaketime.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tools.faults.befall import FAULTS, befall
from tools.faults.site import started
from tools.reliability import print_table, write_section


def main() -> int:
    """Exit code 1 where a fault cost what was promised."""
    parser = argparse.ArgumentParser(prog="tools.faults", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=sorted(FAULTS), help="faults by name")
    parser.add_argument("--no-write", action="store_true", help="leave RELIABILITY.md alone")
    arguments = parser.parse_args()
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as scratch, started(Path(scratch)) as site:
        for name in arguments.only or FAULTS:
            rows.append(befall(site, name))
            console.print(
                f"{name}: lost {rows[-1].lost}; {rows[-1].measured}",
                highlight=False,
                soft_wrap=True,
            )
    print_table(rows, console)
    if not (arguments.no_write or arguments.only):
        write_section("faults", rows, "make faults")
    return int(not all(row.is_held for row in rows))


if __name__ == "__main__":
    sys.exit(main())
