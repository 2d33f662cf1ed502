"""The ledger holds nothing open for long past its deadline, and no id ends twice."""

from __future__ import annotations

from typing import get_args

import pytest

from siyu.audit.actions import ENDS, GRACE_MS, check_ledger
from siyu.audit.warehouse import Found
from siyu.events import ActionStatus

NOW = 1_790_913_600_000


def ledger(state: str, deadline_ms: int) -> Found:
    return [(("ww1", "a1"), {"state": state, "deadline_ms": deadline_ms})]


@pytest.mark.parametrize(
    ("state", "deadline_ms", "listed"),
    [
        ("waiting", NOW - GRACE_MS - 1, True),
        ("prepared", NOW - GRACE_MS - 1, True),
        ("in_doubt", NOW - GRACE_MS - 1, True),
        ("waiting", NOW - GRACE_MS, False),
        ("waiting", 0, False),  # no deadline
        ("accepted", 1, False),  # its results come in for days
    ],
)
def test_what_is_open_an_hour_past_its_deadline_is_listed(state: str, deadline_ms: int, listed: bool) -> None:
    section = check_ledger(ledger(state, deadline_ms), [], NOW)
    assert [difference.key for difference in section.differences] == ([("ww1", "a1")] if listed else [])


def test_two_outcomes_of_one_action_are_listed_whatever_their_corps() -> None:
    def ends(*keys: tuple[str, str]) -> Found:
        return [(key, {}) for key in keys]

    assert check_ledger([], ends(("ww1", "a1"), ("ww1", "a2")), NOW).clean
    assert check_ledger([], ends(("ww1", "a1"), ("ww2", "a1")), NOW).double == 1


def test_the_audit_knows_every_end_there_is() -> None:
    assert set(get_args(ActionStatus)) == ENDS
