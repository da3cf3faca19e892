"""`make bench`: every measure in one run, one table.  Imports the measures beside it."""

import argparse
import importlib
import json
import os
from pathlib import Path

from rich.console import Console

from tests.bench.table import Options, Row, as_json, print_table

# Modules with `measure(options) -> list[Row]`, in the order of the table.
MEASURES: tuple[str, ...] = ("engine", "explain", "radius", "audit", "served", "imagenet")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=MEASURES, nargs="+", default=MEASURES)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    options = Options(
        data_dir=Path(os.environ["CANDOR_DATA"]),
        reference_dir=Path(os.environ["CANDOR_REFERENCE"]),
        image_count=arguments.images,
        repeats=arguments.repeats,
        seed=arguments.seed,
    )
    rows: list[Row] = []
    for name in arguments.only:
        rows += importlib.import_module(f"tests.bench.{name}").measure(options)
    if arguments.json:
        print(json.dumps(as_json(rows), indent=2))
    else:
        print_table(rows, Console(width=180))


if __name__ == "__main__":
    main()
