"""``python -m gateway`` starts the gateway.  Imports `gateway.main` only."""

import sys

from gateway.main import main

sys.exit(main())
