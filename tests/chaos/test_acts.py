"""The judge of the executors' work accuses nobody whose work is whole, and misses nothing that is planted."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chaos_actions import CORPS, LIMITS, Asked
from chaos_verdict import WELCOME, Acts, Witnessed, judge

from benchmarks.harness.backlog import TAG, action
from benchmarks.harness.executors import write_limits
from benchmarks.harness.verdict import MASS_MESSAGE
from siyu.events import ActionOutcome, LedgerEntry
from siyu.limits import LimitRegistry, load_registry

CORP = CORPS[0]
NOON = 1_790_000_000_000
PEOPLE = ("anna", "bert", "carl")


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> LimitRegistry:
    folder: Path = tmp_path_factory.mktemp("limits")
    write_limits(folder, LIMITS)
    return load_registry(folder)


def outcome(action_id: str, endpoint: str, **changes: Any) -> ActionOutcome:
    plain = ActionOutcome(
        action_id=action_id,
        lane="bulk",
        corp_id=CORP,
        endpoint=endpoint,
        subject=CORP,
        staff_id="",
        customer_id="",
        status="done",
        errcode=0,
        detail="ok",
        calls=1,
        reason="",
        caused_by="",
        created_ms=NOON,
        deadline_ms=0,
        trigger_received_at_ms=0,
        finished_at_ms=NOON,
        request=b"",
        response=b"",
    )
    return msgspec.structs.replace(plain, **changes)


def entry(action_id: str, state: str) -> LedgerEntry:
    texts = dict.fromkeys(
        ("parent_id", "endpoint", "subject", "staff_id", "customer_id", "campaign_id", "reason", "caused_by"), ""
    )
    numbers = dict.fromkeys(
        ("errcode", "calls", "created_ms", "not_before_ms", "deadline_ms", "due_ms", "updated_at_ms", "admitted_at_ms"),
        0,
    )
    return LedgerEntry(
        action_id=action_id,
        lane="bulk",
        corp_id=CORP,
        state=state,  # type: ignore[arg-type]
        status="",
        detail="",
        message_id="",
        limits_revision="",
        admission=b"",
        memory=b"",
        **texts,  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )


def call(endpoint: str, at_ms: int = 0, **changes: Any) -> Witnessed:
    plain = Witnessed(NOON + at_ms, NOON + at_ms + 5, endpoint, CORP, "1000002", 0, "127.0.0.1")
    return msgspec.structs.replace(plain, **changes)


class Run:
    """A send to three people in two calls, a tag change and a welcome, all as it must be."""

    def __init__(self) -> None:
        self.asked = Asked()
        for action_id, endpoint in (("send", MASS_MESSAGE), ("tag", TAG)):
            self.asked.actions[action_id] = action(1, "bulk", CORP, endpoint, {}, now_ms=NOON, action_id=action_id)
        self.asked.people["send"] = frozenset(PEOPLE)
        self.outcomes = {
            "send": outcome("send", MASS_MESSAGE),
            "chunk0": outcome("chunk0", MASS_MESSAGE, parent_id="send", message_id="m0"),
            "chunk1": outcome("chunk1", MASS_MESSAGE, parent_id="send", message_id="m1"),
            "anna": outcome("anna", MASS_MESSAGE, parent_id="chunk0", customer_id="anna"),
            "bert": outcome("bert", MASS_MESSAGE, parent_id="chunk0", customer_id="bert"),
            "carl": outcome("carl", MASS_MESSAGE, parent_id="chunk1", customer_id="carl", status="expired"),
            "tag": outcome("tag", TAG),
            "welcome": outcome("welcome", WELCOME, lane="welcome", request=b'{"welcome_code": "code"}'),
        }
        self.more: list[ActionOutcome] = []
        self.entries = [
            entry("chunk0", "prepared"),
            entry("chunk0", "in_doubt"),
            entry("chunk0", "ended"),
            entry("send", "ended"),
        ]
        self.calls = {
            "m0": call(MASS_MESSAGE, persons=("anna", "bert"), message_id="m0", digest="1"),
            "m1": call(MASS_MESSAGE, persons=("carl",), message_id="m1", digest="2"),
            "tag": call(TAG, digest="3"),
            "welcome": call(WELCOME, code="code", digest="4"),
        }
        self.later: list[Witnessed] = []

    def judged(self, limits: LimitRegistry) -> Acts:
        calls = [*self.calls.values(), *self.later]
        return judge(self.asked, [*self.outcomes.values(), *self.more], self.entries, calls, limits)

    def end(self, name: str, **changes: Any) -> None:
        self.outcomes[name] = msgspec.structs.replace(self.outcomes[name], **changes)


def test_whole_work_is_clean_and_counted(limits: LimitRegistry) -> None:
    found = Run().judged(limits)
    assert found.clean
    seen = (found.sends, found.people, found.chunks, found.tags, found.welcomes, found.calls, found.in_doubt)
    assert seen == (1, 3, 2, 1, 1, 4, 1)


PLANTED: dict[str, tuple[str, Callable[[Run], object]]] = {
    "a person is in two accepted calls": (
        "reached_not_once",
        lambda run: run.later.append(call(MASS_MESSAGE, 10, persons=("anna",), message_id="m1", digest="5")),
    ),
    "a person is in none": ("reached_not_once", lambda run: run.calls.pop("m1")),
    "a stranger is in one": (
        "reached_not_once",
        lambda run: run.later.append(call(MASS_MESSAGE, 10, persons=("zoe",), message_id="m2", digest="5")),
    ),
    "a code is used up twice": (
        "reached_not_once",
        lambda run: run.later.append(call(WELCOME, 10, code="code", digest="6")),
    ),
    "an outcome comes twice": ("outcomes_repeated", lambda run: run.more.append(run.outcomes["bert"])),
    "a person has two": (
        "outcomes_repeated",
        lambda run: run.more.append(outcome("again", MASS_MESSAGE, parent_id="chunk1", customer_id="anna")),
    ),
    "an action has none": ("without_outcome", lambda run: run.outcomes.pop("tag")),
    "a person has none": ("without_outcome", lambda run: run.outcomes.pop("carl")),
    "nobody asked for an action": ("unasked", lambda run: run.more.append(outcome("other", TAG))),
    "nobody asked for a person": (
        "unasked",
        lambda run: run.more.append(outcome("zoe", MASS_MESSAGE, parent_id="chunk0", customer_id="zoe")),
    ),
    "a message that no chunk tells of": ("messages_not_known", lambda run: run.end("chunk1", message_id="")),
    "a message that is not the platform's": ("messages_not_known", lambda run: run.end("chunk1", message_id="m9")),
    "a tag change is said to be done and was not": ("said_undone", lambda run: run.calls.pop("tag")),
    "a tag change was done and is said to be refused": ("said_undone", lambda run: run.end("tag", status="rejected")),
    "a welcome is said to be done and was not": ("said_undone", lambda run: run.calls.pop("welcome")),
    "a welcome was done and is said to be late": ("said_undone", lambda run: run.end("welcome", status="expired")),
    "an entry is open": ("left_open", lambda run: run.entries.append(entry("chunk1", "prepared"))),
    "a call is above a limit": (
        "over",
        lambda run: run.later.extend(call("externalcontact/get", at * 100, digest="7") for at in range(401)),
    ),
    "an endpoint is not documented": ("wrong", lambda run: run.later.append(call("externalcontact/add_friend"))),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found(planted: str, limits: LimitRegistry) -> None:
    run = Run()
    name, plant = PLANTED[planted]
    plant(run)
    found = run.judged(limits)
    assert not found.clean
    assert asdict(found)[name] >= 1


def test_what_nobody_can_know_accuses_nobody(limits: LimitRegistry) -> None:
    run = Run()
    run.end("welcome", status="failed", detail="outcome_unknown")
    run.end("tag", status="failed", detail="outcome_unknown")
    assert run.judged(limits).clean
