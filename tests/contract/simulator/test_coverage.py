"""Every endpoint, event and point of the fact sheet has a test, and docs/simulator-coverage.md says which."""

import subprocess
import sys
from pathlib import Path


def test_the_coverage_table_is_complete_and_up_to_date():
    script = Path(__file__).parents[2] / "coverage_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
