"""``python -m cli`` is `candor`, also where no script of that name is on the path."""

from cli.main import main

main()
