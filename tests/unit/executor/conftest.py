from collections.abc import Callable

import pytest

from siyu.events import Action, schemas_dir
from siyu.wecom.errors import ErrorTable, load_error_tables

WELCOME = "externalcontact/send_welcome_msg"


@pytest.fixture(scope="session")
def table() -> ErrorTable:
    return load_error_tables(schemas_dir() / "rules" / "wecom-errors.yaml").at(2_000_000_000_000)


@pytest.fixture
def action() -> Callable[..., Action]:
    def make(**changes: object) -> Action:
        fields: dict[str, object] = {
            "action_id": "a1",
            "lane": "welcome",
            "corp_id": "ww1",
            "endpoint": WELCOME,
            "subject": "ww1|c1",
            "staff_id": "s1",
            "customer_id": "c1",
            "payload": b'{"welcome_code": "w"}',
            "reason": "r@1",
            "caused_by": "e1",
            "created_ms": 1_000_000,
            "not_before_ms": 0,
            "deadline_ms": 1_020_000,
            "trigger_received_at_ms": 0,
        }
        return Action(**(fields | changes))  # type: ignore[arg-type]

    return make
