"""``python -m candor.gateway`` starts the gateway."""

import sys

from candor.gateway.main import main

sys.exit(main())
