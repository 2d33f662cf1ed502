"""``python -m services.sync``: settings → build → run, nothing else."""

import sys

from services.sync.service import main

sys.exit(main())
