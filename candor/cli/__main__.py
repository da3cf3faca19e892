"""``python -m candor.cli`` is `candor`, also where no script of that name is on the path."""

from candor.cli.main import main

main()
