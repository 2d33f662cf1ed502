"""What must hold of the executors' work when all has come to rest, from three witnesses: what was asked for, what they
published and remembered, and the platform's own record of calls.

* Every action, chunk and person has exactly one outcome, and nothing that was not asked for has any.
* Every person of every send was in exactly one request that the platform accepted, and is told so.
* A tag change or welcome that is said to be done was done; one that was done is not said to have been held back.
* Nothing is open in the ledger, no call was above any limit, no message is the platform's that nobody knows of.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from chaos_actions import CORPS, Asked

from benchmarks.harness.backlog import TAG
from benchmarks.harness.verdict import MASS_MESSAGE, Call, Verdict
from siyu.events import ActionOutcome, LedgerEntry
from siyu.limits import LimitRegistry

WELCOME = "externalcontact/send_welcome_msg"
_SENT = ("done", "already_done")
_UNSETTLED = ("prepared", "in_doubt", "accepted", "waiting", "body")


class Witnessed(Call, frozen=True):
    """A line of the record, with the welcome code it used up."""

    code: str = ""


@dataclass
class Acts:
    """What was seen, and what of it must not be."""

    sends: int = 0
    people: int = 0
    """Of all sends."""
    chunks: int = 0
    tags: int = 0
    welcomes: int = 0
    calls: int = 0
    in_doubt: int = 0
    """Chunks and actions that were in doubt at some time: what this run is about."""
    reached_not_once: int = 0
    """People in no accepted request or in several, or in one that nobody asked for."""
    outcomes_repeated: int = 0
    without_outcome: int = 0
    """Actions, and people of sends."""
    unasked: int = 0
    """Outcomes of what nobody asked for."""
    messages_not_known: int = 0
    """Messages of the platform that no chunk tells of, or that are told of and are not there."""
    said_undone: int = 0
    """Done, and said to have been held back; or said to be done, and not done."""
    left_open: int = 0
    """Entries of the ledger."""
    over: int = 0
    """Calls above a limit."""
    wrong: int = 0
    """What else the judge of calls finds: repeats of what makes something new, endpoints that are not documented."""

    @property
    def clean(self) -> bool:
        seen = ("sends", "people", "chunks", "tags", "welcomes", "calls", "in_doubt")
        return not any(count for name, count in asdict(self).items() if name not in seen)


def judge(
    asked: Asked,
    outcomes: Iterable[ActionOutcome],
    entries: Iterable[LedgerEntry],
    calls: Iterable[Witnessed],
    limits: LimitRegistry,
) -> Acts:
    """Compares the witnesses. ``entries``: all versions, in order."""
    found = Acts(sends=len(asked.people), people=len(asked.everybody))
    own = [outcome for outcome in outcomes if outcome.corp_id in CORPS]
    published = Counter(outcome.action_id for outcome in own)
    found.outcomes_repeated = sum(times - 1 for times in published.values())
    by_parent: dict[str, list[ActionOutcome]] = defaultdict(list)
    for outcome in own:
        by_parent[outcome.parent_id].append(outcome)
    roots = {outcome.action_id: outcome for outcome in by_parent[""] if outcome.endpoint in (MASS_MESSAGE, TAG)}
    found.without_outcome = len(asked.actions.keys() - roots.keys())
    found.unasked = len(roots.keys() - asked.actions.keys())

    verdict = Verdict(limits)
    accepted: list[Witnessed] = []
    for call in calls:
        verdict.add(call)
        if call.errcode == 0:
            accepted.append(call)
    figures = verdict.figures(people=asked.everybody)
    found.calls, found.over = figures["calls"], figures["over"]
    found.wrong = len(set(figures["wrong"]) - {"over", "people"})
    reached = figures["people"]
    found.reached_not_once = reached["more_than_once"] + reached["never"] + reached["unasked"]

    _sends(found, asked, by_parent, accepted)
    _tags(found, roots, accepted)
    _welcomes(found, [outcome for outcome in own if outcome.endpoint == WELCOME], accepted)
    _ledger(found, entries)
    return found


def _sends(
    found: Acts, asked: Asked, by_parent: Mapping[str, list[ActionOutcome]], accepted: Iterable[Witnessed]
) -> None:
    messages: Counter[str] = Counter()
    for send_id, people in asked.people.items():
        told: Counter[str] = Counter()
        for chunk in by_parent[send_id]:
            found.chunks += 1
            if chunk.message_id:
                messages[chunk.message_id] += 1
            told.update(person.customer_id for person in by_parent[chunk.action_id])
        found.without_outcome += len(people - told.keys())
        found.unasked += len(told.keys() - people)
        found.outcomes_repeated += sum(times - 1 for times in told.values())
    made = Counter(call.message_id for call in accepted if call.endpoint == MASS_MESSAGE)
    found.messages_not_known = sum(((made - messages) + (messages - made)).values())


def _tags(found: Acts, roots: Mapping[str, ActionOutcome], accepted: Iterable[Witnessed]) -> None:
    """Every change is one of its kind, so as many were done as there are requests that differ."""
    tags = [outcome for outcome in roots.values() if outcome.endpoint == TAG]
    found.tags = len(tags)
    said = sum(outcome.status in _SENT for outcome in tags)
    perhaps = sum(outcome.detail == "outcome_unknown" for outcome in tags)
    done = len({call.digest for call in accepted if call.endpoint == TAG})
    # A repeat of the same change is harmless, so after a crash it is simply made again, or not before its deadline.
    found.said_undone += max(0, said - done)
    expired = sum(outcome.status == "expired" for outcome in tags)
    found.said_undone += max(0, done - said - perhaps - expired)


def _welcomes(found: Acts, welcomes: list[ActionOutcome], accepted: Iterable[Witnessed]) -> None:
    """A code is used up by one call; a welcome whose call was accepted may at worst be unknown, never held back."""
    found.welcomes = len(welcomes)
    used = Counter(call.code for call in accepted if call.endpoint == WELCOME)
    found.reached_not_once += sum(times - 1 for times in used.values())
    for outcome in welcomes:
        code = json.loads(outcome.request)["welcome_code"]
        if outcome.status in _SENT:
            found.said_undone += code not in used
        elif outcome.detail != "outcome_unknown":
            found.said_undone += code in used


def _ledger(found: Acts, entries: Iterable[LedgerEntry]) -> None:
    state: dict[str, str] = {}
    doubted: set[str] = set()
    for entry in entries:
        state[entry.action_id] = entry.state
        if entry.state == "in_doubt":
            doubted.add(entry.action_id)
    found.in_doubt = len(doubted)
    found.left_open = sum(last in _UNSETTLED for last in state.values())


def read_calls(lines: Iterable[bytes]) -> Iterable[Witnessed]:
    """Of a record that ended in order. Raises msgspec.MsgspecError."""
    decode = msgspec.json.Decoder(Witnessed).decode
    return map(decode, lines)


def figures(acts: Acts) -> dict[str, Any]:
    """For the summary."""
    return asdict(acts)
