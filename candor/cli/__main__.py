"""``python -m candor.cli`` is `candor`; the script of that name starts here, too.

The base install has no command line: there the command says in one line what brings it.
"""

import sys

try:
    from candor.cli.main import main
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] in ("candor", "training"):
        raise
    _MISSING = error.name

    def main() -> None:
        sys.exit(f"candor: the package {_MISSING} is missing; pip install 'candor[all]' brings it")


if __name__ == "__main__":
    main()
