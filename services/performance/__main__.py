"""``python -m services.performance``: settings, then run."""

import sys

from services.performance.service import run
from services.performance.settings import Settings

sys.exit(run(Settings()))
