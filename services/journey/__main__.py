"""``python -m services.journey``: settings, then run."""

import sys

from services.journey.service import run
from services.journey.settings import Settings

sys.exit(run(Settings()))
