import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# Modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))

from fake_wecom import FakeWecom


@pytest.fixture
async def wecom() -> AsyncIterator[FakeWecom]:
    server = FakeWecom()
    await server.start()
    yield server
    await server.stop()
