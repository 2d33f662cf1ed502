import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The stage and the worker's processor are modules of this folder, which is no package.
sys.path.append(str(Path(__file__).parent))

from stream_stage import Stage

from deploy.local.kafka import LocalKafka


@pytest.fixture
def stage(kafka: LocalKafka, unique_name: Callable[[str], str], tmp_path: Path) -> Iterator[Stage]:
    """One processor with a name of its own; members that still run at the end are ended."""
    stage = Stage(kafka.bootstrap, unique_name("counts"), tmp_path)
    try:
        yield stage
    finally:
        stage.close()
