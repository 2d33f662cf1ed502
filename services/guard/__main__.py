"""``python -m services.guard``: settings, then run."""

import sys

from services.guard.service import run
from services.guard.settings import Settings

sys.exit(run(Settings()))
