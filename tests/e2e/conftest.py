import sys
from pathlib import Path

# Modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))
