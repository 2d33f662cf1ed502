import sys
from pathlib import Path

# The parts of the chaos run are modules of this folder, which is no package: chaos.py is run as a script.
sys.path.append(str(Path(__file__).parent))
