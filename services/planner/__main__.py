"""``python -m services.planner``: settings, then run."""

import sys

from services.planner.service import run
from services.planner.settings import Settings

sys.exit(run(Settings()))
