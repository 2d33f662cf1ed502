import sys
from pathlib import Path

# The helper of these tests is a module of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))
