"""`python -m gateway` is `zap-gateway`."""

import sys

from gateway.cli import main

sys.exit(main())
