"""``python -m candor.cli`` is `candor`; the script of that name starts here, too.

The base install has no command line: there the command names in one line what installs it.
"""

import sys

from candor.cli.missing import missing_package

try:
    from candor.cli.main import main
except ModuleNotFoundError as error:
    _MESSAGE = missing_package(error)

    def main() -> None:
        sys.exit(_MESSAGE)


if __name__ == "__main__":
    main()
