"""`make bench`: every measure in one run, one table."""

import importlib

from rich.console import Console

from tools.bench.table import Row, options_of, parser, print_table, show

# Modules with `measure(options) -> list[Row]`, in the order of the table.
MEASURES: tuple[str, ...] = ("engine", "explain", "radius", "audit", "served", "imagenet")


def main() -> None:
    command = parser("make bench", __doc__)
    command.add_argument("--only", choices=MEASURES, nargs="+", default=MEASURES)
    arguments = command.parse_args()
    options = options_of(arguments)
    rows: list[Row] = []
    for name in arguments.only:
        measured = importlib.import_module(f"tools.bench.{name}").measure(options)
        print_table(measured, Console(width=180, stderr=True))  # whatever becomes of the rest
        rows += measured
    show(rows, arguments)


if __name__ == "__main__":
    main()
