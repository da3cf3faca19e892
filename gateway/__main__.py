"""``python -m gateway`` starts the gateway."""

import sys

from gateway.main import main

sys.exit(main())
