"""``python -m services.executor``: settings, then run until SIGTERM or SIGINT."""

from __future__ import annotations

import sys

from services.executor.service import run
from services.executor.settings import Settings

sys.exit(run(Settings()))
