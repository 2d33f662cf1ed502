"""Everything an operator can do about actions, once, for the command line and the API.

Reading: ClickHouse first, which is behind by a second or so; an action it does not know is looked for in its lane.
Writing: a control record, or an action that repeats another; each is on all in-sync replicas when the method returns,
and doing it again changes nothing more. What an operator decides on may be a second old, so the executor has the last
word: a cancel that comes too late cancels nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from siyu.actions import control, quota, retry
from siyu.actions.control import Verdict
from siyu.actions.errors import Invalid, NotFound, Refused
from siyu.actions.model import (
    ActionDetail,
    ActionPage,
    ActionView,
    ControlView,
    Parts,
    Pauses,
    QuotaList,
    hashed,
)
from siyu.actions.records import Records
from siyu.actions.store import ActionStore, Filter
from siyu.events import ControlRecord, QuotaState, codec
from siyu.ops.clock import Clock, wall_ms
from siyu.wecom.endpoints import quota_scope

AUTHOR_HEADER, REASON_HEADER = "operator", "operator.reason"
"""Headers of an action that somebody repeated: who, and why."""


@dataclass(frozen=True)
class Operations:
    """One view of one cluster. Methods raise ActionsError and may be called from any thread."""

    store: ActionStore
    records: Records
    clock: Clock
    controls: Callable[[], list[ControlRecord]]
    """The newest word about each thing, taken back ones included."""
    quotas: Callable[[], list[QuotaState]]
    look_back_ms: int = 86_400_000
    """How far back lanes are searched for an action that ClickHouse does not know, wall time; 0: not at all."""
    written: Callable[[ControlRecord], None] = lambda _: None
    """Told of each control record once Kafka has it."""

    # Reading

    def show(self, action_id: str, *, corp_id: str = "", people: bool = False) -> ActionDetail:
        """Everything about one action. Raises NotFound."""
        known = self.store.find(action_id, corp_id=corp_id, people=people)
        if known is None:
            view = self._queued(action_id, corp_id, people)
            return ActionDetail(
                action=view,
                admission=None,
                parts=Parts(chunks=[], chunk_count=0, repeated_records=0, people=[]),
                controls=self._words_about(view),
                repeats=[],
            )
        return ActionDetail(
            action=known.view,
            admission=known.admission,
            parts=self.store.parts(known.view.corp_id, action_id, people=people),
            controls=self._words_about(known.view),
            repeats=[
                repeat
                for repeat in (self._known_repeats(known.view, people=people) if known.view.state == "ended" else [])
                if repeat is not None
            ],
        )

    def page(self, wanted: Filter, *, limit: int, cursor: str = "", people: bool = False) -> ActionPage:
        """Some actions that the ledger or the outcomes know, newest first."""
        actions, following = self.store.page(wanted, limit=limit, cursor=cursor, people=people)
        return ActionPage(actions=actions, next_cursor=following)

    def pauses(self) -> Pauses:
        """The pauses in force, oldest first."""
        now = wall_ms()
        in_force = [c for c in self.controls() if c.kind == "pause" and control.holds(c, now)]
        return Pauses(pauses=[control_view(c) for c in sorted(in_force, key=lambda c: (c.written_at_ms, c.id))])

    def quota(
        self, *, corp_id: str = "", endpoint: str = "", everything: bool = False, people: bool = False
    ) -> QuotaList:
        """What has been used of the limits. Raises Refused when a figure cannot be read."""
        try:
            return quota.select(
                self.quotas(),
                at_ms=wall_ms(),
                business_ms=self.clock.now_ms(),
                corp_id=corp_id,
                endpoint=endpoint,
                everything=everything,
                people=people,
            )
        except ValueError as error:
            raise Refused("quota_unreadable", str(error)) from None

    # Writing

    def retry(
        self,
        action_id: str,
        *,
        corp_id: str = "",
        author: str,
        reason: str,
        deadline_ms: int | None = None,
        known_not_done: bool = False,
    ) -> ActionView:
        """Makes an action that repeats one that ended without being done; the new one's view. ``deadline_ms``:
        business time; None: as long as the first had.

        Doing it twice makes one repeat, until that one has ended.
        """
        control.check_words(reason, author)
        known = self.store.find(action_id, corp_id=corp_id)
        if known is None:
            view = self._queued(action_id, corp_id, people=False)
            raise Refused("not_ended", f"it is {view.state}: an action is repeated once it has ended")
        view = known.view
        retry.check_repeatable(view, known_not_done=known_not_done)
        accepted = self.store.accepted_parts(view.corp_id, action_id)
        if accepted:
            raise Refused(
                "parts_accepted",
                f"WeCom accepted, or may have accepted, {accepted} parts of it: repeat the other parts",
            )
        number = retry.next_number(self._known_repeats(view))
        outcome = self.records.outcome(action_id=action_id, subject=known.subject, finished_at_ms=known.finished_at_ms)
        if outcome is None:
            raise Refused("request_gone", "its request is not kept any more: action.outcomes reaches back 30 days")
        action = retry.make_repeat(outcome, number, now_ms=self.clock.now_ms(), deadline_ms=deadline_ms)
        self.records.append(
            [
                (
                    f"actions.{action.lane}",
                    quota_scope(action.corp_id, action.endpoint),
                    codec().encode(action),
                    {AUTHOR_HEADER: author, REASON_HEADER: reason},
                )
            ]
        )
        return retry.queued_view(action, hashed(action.customer_id), wall_ms())

    def cancel(self, action_id: str, *, corp_id: str = "", author: str, reason: str) -> ControlView:
        """Takes one action back before its call. Of one under way what has not left stays here: the other chunks of a
        send, and the repeat of a call in doubt."""
        control.check_words(reason, author)
        known = self.store.find(action_id, corp_id=corp_id)
        view = known.view if known is not None else self._queued(action_id, corp_id, people=False)
        if view.state == "ended":
            raise Refused("already_ended", f"it has ended as {view.status}")
        if view.parent_id:
            raise Refused("part_of_another", f"it is a part of {view.parent_id}: cancel that")
        return self._write(
            control.cancel_record(
                action_id=action_id, corp_id=view.corp_id, reason=reason, author=author, wall_ms=wall_ms()
            )
        )

    def cancel_scope(
        self, *, corp_id: str = "", lane: str = "", campaign_id: str = "", author: str, reason: str
    ) -> ControlView:
        """Takes back what a campaign has and will have, or what a corp or lane has waiting now. Raises Invalid."""
        return self._write(
            control.cancel_record(
                corp_id=corp_id,
                lane=lane,
                campaign_id=campaign_id,
                reason=reason,
                author=author,
                wall_ms=wall_ms(),
            )
        )

    def settle(self, action_id: str, verdict: Verdict, *, corp_id: str = "", author: str, reason: str) -> ControlView:
        """Says what became of an action in doubt, or of every chunk in doubt of a send, where no endpoint can tell."""
        control.check_words(reason, author)
        known = self.store.find(action_id, corp_id=corp_id)
        if known is None:
            raise NotFound("action_not_found", "no action in doubt has this id")
        if known.view.state != "in_doubt" and not self.store.doubtful_parts(known.view.corp_id, action_id):
            raise Refused("not_in_doubt", f"it is {known.view.status or known.view.state}: nothing is in doubt")
        return self._write(
            control.settle_record(
                action_id=action_id,
                corp_id=known.view.corp_id,
                verdict=verdict,
                reason=reason,
                author=author,
                wall_ms=wall_ms(),
            )
        )

    def pause(
        self,
        *,
        corp_id: str = "",
        lane: str = "",
        campaign_id: str = "",
        everything: bool = False,
        author: str,
        reason: str,
        for_ms: int = 0,
    ) -> ControlView:
        """Holds back what it covers, for so long (wall time; 0: until it is resumed). A pause of the same things again
        replaces the one before. Raises Invalid."""
        if not (corp_id or lane or campaign_id) and not everything:
            raise Invalid("corp_id", "say what to pause: a corp, a lane, a campaign, or everything")
        if everything and (corp_id or lane or campaign_id):
            raise Invalid("everything", "everything leaves no room for a corp, a lane or a campaign")
        now = wall_ms()
        return self._write(
            control.pause_record(
                corp_id=corp_id,
                lane=lane,
                campaign_id=campaign_id,
                reason=reason,
                author=author,
                wall_ms=now,
                expires_ms=now + for_ms if for_ms else 0,
            )
        )

    def resume(self, pause_id: str, *, author: str, reason: str) -> ControlView:
        """Takes a pause back. Raises NotFound when it is not in force."""
        control.check_words(reason, author)
        now = wall_ms()
        for record in self.controls():
            if record.id == pause_id and record.kind == "pause" and control.holds(record, now):
                return self._write(control.resume_record(record, reason=reason, author=author, wall_ms=now))
        raise NotFound("pause_not_found", "no pause with this id is in force")

    def _write(self, record: ControlRecord) -> ControlView:
        self.records.append([control.message_of(record)])
        self.written(record)
        return control_view(record)

    def _queued(self, action_id: str, corp_id: str, people: bool) -> ActionView:
        found = None
        if self.look_back_ms:
            found = self.records.queued(action_id, since_ms=wall_ms() - self.look_back_ms)
        if found is None or corp_id not in ("", found[0].corp_id):
            raise NotFound("action_not_found", "neither the ledger, the outcomes nor the lanes have this action")
        action, appended_ms = found
        customer = action.customer_id if people else hashed(action.customer_id)
        return retry.queued_view(action, customer, appended_ms)

    def _words_about(self, view: ActionView) -> list[ControlView]:
        """Controls in force that hold it, and those that named it."""
        now = wall_ms()
        about = []
        for record in self.controls():
            named = record.action_id == view.action_id and record.corp_id in ("", view.corp_id)
            covering = (
                not record.action_id
                and view.state != "ended"
                and control.covers(record, corp_id=view.corp_id, lane=view.lane, campaign_id=view.campaign_id)
            )
            # A campaign that was cancelled explains an end, too.
            cause = record.kind == "cancel" and view.status == "cancelled" and record.campaign_id == view.campaign_id
            if control.holds(record, now) and (named or covering or (cause and bool(record.campaign_id))):
                about.append(record)
        return [control_view(record) for record in sorted(about, key=lambda record: record.written_at_ms)]

    def _known_repeats(self, view: ActionView, *, people: bool = False) -> list[ActionView | None]:
        """The first repeats, up to one nothing is known of."""
        found: list[ActionView | None] = []
        while len(found) < retry.MOST_REPEATS:
            known = self.store.find(
                retry.repeat_id(view.action_id, len(found) + 1), corp_id=view.corp_id, people=people
            )
            found.append(known.view if known is not None else None)
            if known is None:
                break
        return found


def control_view(record: ControlRecord) -> ControlView:
    """As people see it."""
    return ControlView(
        id=record.id,
        kind=record.kind,
        corp_id=record.corp_id,
        lane=record.lane,
        campaign_id=record.campaign_id,
        action_id=record.action_id,
        verdict=record.verdict,
        reason=record.reason,
        author=record.author,
        expires_ms=record.expires_ms or None,
        written_at_ms=record.written_at_ms,
    )
