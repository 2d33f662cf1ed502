"""What the tests of the API share is in ``api_rig``."""

import sys
from pathlib import Path

# Modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))

from api_rig import anonymous, api, operator, reader, registry, secrets, stores, tokens

__all__ = ["anonymous", "api", "operator", "reader", "registry", "secrets", "stores", "tokens"]
