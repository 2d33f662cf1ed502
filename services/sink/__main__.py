"""``python -m services.sink``: settings → build → run, nothing else."""

import sys

from services.sink.service import main

sys.exit(main())
