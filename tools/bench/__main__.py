"""`make bench`: every measure in one run, one table."""

import importlib

import torch
from rich.console import Console

from tools.bench.machine import description
from tools.bench.table import Row, options_of, parser, print_table, show

# Modules with `measure(options) -> list[Row]`, in the order of the table.
MEASURES: tuple[str, ...] = (
    "engine",
    "explain",
    "curve",
    "radius",
    "audit",
    "served",
    "imagenet",
    "autoattack",
)


def main() -> None:
    command = parser("make bench", __doc__)
    command.add_argument("--only", choices=MEASURES, nargs="+", default=MEASURES)
    arguments = command.parse_args()
    options = options_of(arguments)
    Console(stderr=True).print(description(torch.device("cpu")), soft_wrap=True)
    rows: list[Row] = []
    for name in arguments.only:
        measured = importlib.import_module(f"tools.bench.{name}").measure(options)
        print_table(measured, Console(width=180, stderr=True))  # whatever becomes of the rest
        rows += measured
    show(rows, arguments)


if __name__ == "__main__":
    main()
