"""The judgement of one account: what order and repeats cannot change, the ladder, and what people may say."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.guard.domain import MEMORY_MS, MOST_FACTS, Account, Turn, apply_delta, apply_signal, review, same_person
from siyu.events import GuardAudit, GuardSignal, GuardState, StaffDelta, schemas_dir
from siyu.events.business_time import business_day
from siyu.guard.rules import RuleBook, load_rules, parse_rules

BOOK: RuleBook = load_rules(schemas_dir() / "rules" / "guard.yaml")
RULES = BOOK.at(0).rules
CORP, STAFF = "ww1", "mei"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOON = 1_790_049_600_000  # 2026-09-22 12:00 in Shanghai


def signal(
    kind: str,
    at: int = NOON,
    signal_id: str = "",
    *,
    staff: str = STAFF,
    count: int = 1,
    campaign: str = "",
    author: str = "",
    reason: str = "",
    request: str = "",
    source: str = "test",
) -> GuardSignal:
    return GuardSignal(
        signal_id=signal_id or f"{kind}-{at}",
        corp_id=CORP,
        staff_id=staff,
        kind=kind,
        count=count,
        campaign_id=campaign,
        action_id=request,
        errcode=0,
        source=source,
        author=author,
        reason=reason,
        event_time_ms=at,
        written_at_ms=0,
    )


def delta(at: int, **counters: int) -> StaffDelta:
    return StaffDelta(CORP, STAFF, business_day(at), counters, at, at, f"event-{at}")


@dataclass
class Desk:
    """One account as its records and timers come in."""

    member: str = STAFF
    book: RuleBook = BOOK
    account: Account | None = None
    states: list[GuardState] = field(default_factory=list)
    audits: list[GuardAudit] = field(default_factory=list)
    tells: list[GuardSignal] = field(default_factory=list)
    results: list[str] = field(default_factory=list)

    def take(self, event: GuardSignal | StaffDelta) -> GuardState | None:
        if isinstance(event, StaffDelta):
            return self._took(apply_delta(self.account, event, self.book))
        return self._took(apply_signal(self.account, event, self.book))

    def wait(self, until: int) -> None:
        """Lets the time pass, looking when the account asks to be looked at."""
        while self.account is not None and 0 < self.account.review_ms <= until:
            self._took(review(self.account, CORP, self.member, self.book, self.account.review_ms))
        if self.account is not None:
            self._took(review(self.account, CORP, self.member, self.book, until))

    def say(self, kind: str, author: str, at: int, reason: str = "checked", request: str = "") -> str:
        """What became of a person's word: the newest audit's name and reason."""
        word_id = f"{kind}-{author}-{at}"
        self.take(signal(kind, at, word_id, staff=self.member, author=author, reason=reason, request=request))
        last = self.audits[-1]
        assert last.signal_id == word_id
        return f"{last.what}: {last.reason}"

    def _took(self, turn: Turn) -> GuardState | None:
        self.account = turn.account
        self.results.append(turn.result)
        self.states += [turn.state] if turn.state else []
        self.audits += turn.audits
        self.tells += turn.tells
        return turn.state

    @property
    def now(self) -> GuardState:
        return self.states[-1]

    @property
    def standing(self) -> tuple[str, int, int]:
        return self.now.standing, self.now.step, self.now.until_ms


def after(events: list[GuardSignal | StaffDelta], member: str = STAFF, book: RuleBook = BOOK) -> Desk:
    desk = Desk(member, book)
    for event in events:
        desk.take(event)
    return desk


# Order and repeats

STAFF_KINDS = ["ban", "unusable", "content", "complaint", "failure_account", "failure_relation"]
signs = st.builds(
    lambda kind, minutes, count: signal(kind, NOON + minutes * MINUTE, f"{kind}{minutes}", count=count),
    st.sampled_from(STAFF_KINDS),
    st.integers(0, 40 * 24 * 60),
    st.integers(1, 3),
)
touches = st.builds(
    lambda minutes, count: signal("touch", NOON + minutes * MINUTE, f"t{minutes}", count=count),
    st.integers(0, 300),
    st.sampled_from([5, 100, 9_000, 15_000]),
)
deltas = st.builds(
    lambda seconds, adds, lost: delta(NOON + seconds * SECOND, adds=adds, lost_by_customer=lost),
    st.integers(0, 5 * 3600),
    st.integers(0, 90),
    st.integers(0, 30),
)


def judged(desk: Desk, at: int) -> tuple[object, ...]:
    """How the account stands, whatever way it got there."""
    desk.wait(at)
    assert desk.account is not None
    return desk.account.published, desk.account.facts and [f.time_ms for f in desk.account.facts]


@given(st.lists(signs, min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_signs_in_any_order_and_number_come_to_the_same(events: list[GuardSignal], rng: random.Random) -> None:
    unique = list({event.signal_id: event for event in events}.values())
    shuffled = [*unique, *rng.sample(unique, len(unique) // 2)]
    rng.shuffle(shuffled)
    end = NOON + 41 * DAY
    assert judged(after(list(unique)), end) == judged(after(list(shuffled)), end)


@given(st.lists(st.one_of(touches, deltas), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_counts_in_any_order_come_to_the_same(events: list[GuardSignal | StaffDelta], rng: random.Random) -> None:
    unique = [e for e in events if isinstance(e, StaffDelta)] + list(
        {e.signal_id: e for e in events if isinstance(e, GuardSignal)}.values()
    )
    shuffled = list(unique)
    rng.shuffle(shuffled)
    end = NOON + 5 * HOUR
    assert judged(after(list(unique)), end) == judged(after(shuffled), end)


@given(st.lists(signs, min_size=1, max_size=12))
def test_a_repeat_leaves_the_very_same_account(events: list[GuardSignal]) -> None:
    desk = after(list(events))
    before, states = desk.account, len(desk.states)
    for event in events:
        desk.take(event)
    assert desk.account is before
    assert len(desk.states) == states


def test_a_touch_sent_again_with_more_counts_only_the_more() -> None:
    desk = after([signal("touch", NOON, "t", count=n) for n in (10, 25, 25, 10)])
    assert desk.account is not None
    assert [hour.touched for hour in desk.account.hours.values()] == [25]
    assert desk.results == ["applied", "applied", "duplicate", "duplicate"]


@given(st.lists(signs, min_size=1, max_size=20), st.integers(0, 60 * DAY))
def test_a_cool_down_never_lets_anything_out(events: list[GuardSignal], later: int) -> None:
    desk = after(list(events))
    desk.wait(NOON + later)
    for state in desk.states:
        assert (state.allowance_percent == 0) == (state.standing in ("cooling", "stopped"))
        assert (state.until_ms > 0) == (state.standing == "cooling")
        assert 0 <= state.allowance_percent <= 100
    assert [s.revision for s in desk.states] == list(range(1, len(desk.states) + 1))


# The ladder


def test_the_ladder_goes_1_7_15_days_and_then_stands_still() -> None:
    desk, at = Desk(), NOON
    for step, length in enumerate(RULES.ladder.steps_ms, 1):
        desk.take(signal("ban", at))
        assert desk.standing == ("cooling", step, at + length)
        desk.wait(at + length)
        assert desk.now.standing != "cooling"
        at += length + DAY
    desk.take(signal("ban", at))
    assert desk.standing == ("stopped", 4, 0)
    desk.wait(at + 400 * DAY)
    assert desk.standing == ("stopped", 4, 0)


@pytest.mark.parametrize(("clean_ms", "step"), [(RULES.ladder.reset_after_ms - 1, 2), (RULES.ladder.reset_after_ms, 1)])
def test_enough_clean_days_after_the_cool_down_begin_the_ladder_anew(clean_ms: int, step: int) -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    again = NOON + RULES.ladder.steps_ms[0] + clean_ms
    desk.wait(again - 1)
    desk.take(signal("ban", again))
    assert desk.standing == ("cooling", step, again + RULES.ladder.steps_ms[step - 1])


def test_the_step_is_forgotten_by_itself_once_the_days_were_clean() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    desk.wait(NOON + DAY + RULES.ladder.reset_after_ms)
    assert desk.standing == ("clear", 0, 0)
    assert desk.account is not None
    assert desk.account.review_ms == 0


def test_a_ban_during_a_cool_down_makes_it_longer_but_not_a_step_higher() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    desk.take(signal("ban", NOON + 20 * HOUR))
    assert desk.standing == ("cooling", 1, NOON + 20 * HOUR + DAY)


def test_a_late_ban_counts_as_if_it_had_come_in_time() -> None:
    second = NOON + 5 * DAY
    desk = after([signal("ban", second), signal("ban", NOON)])
    assert desk.standing == ("cooling", 2, second + 7 * DAY)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_over_simulated_months_the_ladder_is_what_the_rule_says(days: list[int]) -> None:
    """Against the rule written again, without facts and folds."""
    steps, reset = RULES.ladder.steps_ms, RULES.ladder.reset_after_ms
    desk, step, until, stopped = Desk(), 0, 0, False
    for day in sorted(set(days)):
        at = NOON + day * DAY
        desk.wait(at - 1)
        desk.take(signal("ban", at))
        if stopped:
            continue
        if at < until:
            until = max(until, at + steps[step - 1])
            continue
        step = 1 if step == 0 or at - until >= reset else step + 1
        stopped = step > len(steps)
        until = 0 if stopped else at + steps[step - 1]
    assert desk.standing == ("stopped" if stopped else "cooling", step, until)


def test_what_is_no_ban_pauses_without_a_step() -> None:
    desk = Desk()
    desk.take(signal("unusable", NOON))
    assert desk.standing == ("cooling", 0, NOON + DAY)
    desk.wait(NOON + DAY)
    assert desk.standing == ("clear", 0, 0)


# The score


def test_risk_shrinks_the_allowance_and_comes_down_with_time() -> None:
    desk = Desk()
    for n in range(6):
        desk.take(signal("complaint", NOON + n))
    assert (desk.now.standing, desk.now.allowance_percent, desk.now.reason) == ("watched", 50, "complaint")
    desk.wait(NOON + 8 * DAY)
    assert (desk.now.standing, desk.now.allowance_percent) == ("watched", 75)
    desk.wait(NOON + 30 * DAY)
    assert (desk.now.standing, desk.now.allowance_percent) == ("clear", 100)
    allowances = [state.allowance_percent for state in desk.states]
    assert allowances == [75, 50, 75, 100]


def test_a_score_at_the_top_is_an_incident_and_the_corp_is_told_once() -> None:
    desk = Desk()
    for n in range(20):
        desk.take(signal("complaint", NOON + n))
    assert (desk.now.standing, desk.now.step, desk.now.reason) == ("cooling", 1, "risk")
    assert [tell.kind for tell in desk.tells].count("staff_cooled") == 1
    assert all(tell.staff_id == "" for tell in desk.tells)


def test_after_the_incident_the_next_small_sign_is_no_incident() -> None:
    desk = Desk()
    for n in range(13):
        desk.take(signal("complaint", NOON + n))
    desk.wait(NOON + DAY + HOUR)
    desk.take(signal("complaint", NOON + DAY + HOUR))
    assert desk.now.standing == "watched"


def test_a_burst_of_adds_of_a_new_account_is_a_sign_and_of_an_old_one_is_not() -> None:
    def burst(desk: Desk) -> Desk:
        for n in range(61):
            desk.take(delta(NOON + n * 900, adds=1))
        return desk

    young, old = burst(Desk()), Desk()
    assert (young.now.standing, young.now.allowance_percent) == ("watched", 50)
    assert young.now.reason == "velocity.passive_adds_minute"
    old.take(signal("account_created", NOON - 31 * DAY))
    assert not burst(old).states


def test_sixty_adds_a_minute_are_not_too_many() -> None:
    desk = Desk()
    for n in range(60):
        desk.take(delta(NOON + n * 900, adds=1))
    assert not desk.states


def test_a_burst_across_two_minutes_is_seen() -> None:
    desk = Desk()
    for n in range(61):
        desk.take(delta(NOON + 30 * SECOND + n * 800, adds=1))
    assert desk.now.reason == "velocity.passive_adds_minute"


def test_losses_after_touch_are_a_sign_and_losses_without_touch_are_none() -> None:
    untouched = after([delta(NOON + n, lost_by_customer=1) for n in range(30)])
    assert not untouched.states
    few = after([signal("touch", NOON, "t", count=1_000), *(delta(NOON + n, lost_by_customer=1) for n in range(20))])
    assert not few.states
    many = after([signal("touch", NOON, "t", count=1_000), *(delta(NOON + n, lost_by_customer=1) for n in range(35))])
    assert (many.now.standing, many.now.allowance_percent, many.now.reason) == ("watched", 50, "deletions")


def test_a_touch_of_last_week_has_no_part_in_todays_losses() -> None:
    losses = [delta(NOON + n, lost_by_customer=1) for n in range(30)]
    long_ago = signal("touch", NOON - 4 * DAY, "t", count=100)
    assert not after([long_ago, *losses]).states
    yesterday = signal("touch", NOON - DAY, "t", count=100)
    assert after([yesterday, *losses]).states


def test_a_correction_takes_a_loss_back() -> None:
    desk = after([signal("touch", NOON, "t", count=100), delta(NOON, lost_by_customer=20)])
    assert desk.now.reason == "deletions"
    desk.take(delta(NOON + 1, lost_by_customer=-20))
    assert desk.now.standing == "clear"


def test_staff_who_write_together_for_one_campaign_slow_the_corp_down_but_do_not_stop_it() -> None:
    desk = Desk("")

    def write(number: int, at: int, campaign: str = "autumn") -> None:
        one = signal("staff_touch", at, f"{number}-{at}", staff="", campaign=campaign, source=f"guard:s{number}")
        desk.take(one)

    for n in range(49):
        write(n, NOON + n * SECOND)
    write(3, NOON + MINUTE)
    write(99, NOON, campaign="winter")
    assert not desk.states
    write(49, NOON + MINUTE)
    assert (desk.now.standing, desk.now.allowance_percent, desk.now.reason) == ("watched", 75, "concerted")
    for n in range(50, 400):
        write(n, NOON + 2 * MINUTE + n * 300)
    assert (desk.now.standing, desk.now.allowance_percent, desk.now.reason) == ("watched", 50, "concerted")
    for n in range(5_000):
        write(n, NOON + 4 * MINUTE + n * SECOND)
    assert (desk.now.standing, desk.now.allowance_percent) == ("watched", 50)


def test_many_banned_staff_are_an_incident_of_the_corp() -> None:
    corp = Desk("")
    for n in range(4):
        staff = Desk(f"s{n}")
        staff.take(signal("ban", NOON + n, staff=f"s{n}"))
        (told,) = staff.tells
        assert (told.kind, told.staff_id) == ("staff_banned", "")
        corp.take(told)
        corp.take(told)
    assert (corp.now.standing, corp.now.step, corp.now.reason) == ("cooling", 1, "risk")


def test_a_touch_in_a_campaign_is_told_the_corp_once() -> None:
    desk = after([signal("touch", NOON, "t", count=n, campaign="autumn") for n in (1, 2, 3)])
    assert [(t.kind, t.campaign_id, t.source) for t in desk.tells] == [("staff_touch", "autumn", "guard:mei")]


def test_refused_content_tells_campaign_and_corp_and_stops_the_campaign() -> None:
    desk = after([signal("content", campaign="autumn")])
    assert {(t.kind, t.staff_id) for t in desk.tells} == {("staff_content", ""), ("content", "~autumn")}
    (about,) = (t for t in desk.tells if t.staff_id)
    campaign = after([about], "~autumn")
    assert campaign.standing == ("stopped", 0, 0)


# What people say


def stopped(at: int = NOON) -> Desk:
    desk = Desk()
    assert desk.say("stop", "Ann", at, "complaints in the news") == "stopped: complaints in the news"
    assert desk.now.standing == "stopped"
    return desk


def test_a_lift_needs_a_second_person() -> None:
    desk = stopped()
    assert desk.say("lift_request", "Ann", NOON + 1, "clarified") == "lift_requested: clarified"
    assert desk.now.lift_requested_by == "Ann"
    assert desk.say("lift_approve", "Bob", NOON + 2, "") == "lift_approved: clarified"
    approval = desk.audits[-1]
    assert (approval.author, approval.second_author) == ("Ann", "Bob")
    assert approval.before.startswith("stopped")
    assert approval.after.startswith("clear")
    assert (desk.now.standing, desk.now.lift_requested_by) == ("clear", "")


@pytest.mark.parametrize("alias", ["Ann", "ann", " ANN ", "ＡＮＮ", "\tann\n"])
def test_the_same_person_cannot_approve_however_they_write_their_name(alias: str) -> None:
    desk = stopped()
    desk.say("lift_request", "Ann", NOON + 1)
    assert same_person("Ann", alias)
    before = desk.now
    assert desk.say("lift_approve", alias, NOON + 2) == "lift_refused: same_person"
    assert desk.now is before
    assert desk.audits[-1].before == desk.audits[-1].after


def test_words_that_change_nothing_are_refused_with_their_reason() -> None:
    desk = stopped()
    assert desk.say("lift_approve", "Bob", NOON + 1) == "lift_refused: nothing_requested"
    assert desk.say("lift_reject", "Bob", NOON + 2) == "lift_refused: nothing_requested"
    assert desk.say("lift_request", "Ann", NOON + 3, "  ") == "lift_refused: no_reason"
    assert desk.say("lift_request", "  ", NOON + 4) == "lift_refused: no_author"
    assert desk.say("stop", "Ann", NOON + 5, "") == "stop_refused: no_reason"
    desk.say("lift_request", "Ann", NOON + 6)
    assert desk.say("lift_approve", "", NOON + 7) == "lift_refused: no_author"
    assert desk.say("lift_approve", "Bob", NOON + 8, request="another") == "lift_refused: another_request"
    assert desk.now.standing == "stopped"
    free = Desk()
    assert free.say("lift_request", "Ann", NOON) == "lift_refused: nothing_to_lift"


def test_a_rejected_request_cannot_be_approved() -> None:
    desk = stopped()
    desk.say("lift_request", "Ann", NOON + 1)
    assert desk.say("lift_reject", "Bob", NOON + 2, "not yet") == "lift_rejected: not yet"
    assert desk.now.lift_requested_by == ""
    assert desk.say("lift_approve", "Bob", NOON + 3) == "lift_refused: nothing_requested"


def test_a_request_is_outdated_when_something_new_happened_after_it() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    desk.say("lift_request", "Ann", NOON + 1)
    desk.take(signal("ban", NOON + 2))
    assert desk.say("lift_approve", "Bob", NOON + 3) == "lift_refused: outdated"
    assert desk.now.standing == "cooling"
    desk.say("lift_request", "Ann", NOON + 4)
    assert desk.say("lift_approve", "Bob", NOON + 5).startswith("lift_approved")


def test_a_request_nobody_answers_expires() -> None:
    desk = stopped()
    desk.say("lift_request", "Ann", NOON + 1)
    desk.wait(NOON + 2 + RULES.lift.request_valid_ms)
    assert desk.audits[-1].what == "lift_expired"
    assert desk.now.lift_requested_by == ""
    assert desk.say("lift_approve", "Bob", NOON + 3 * DAY) == "lift_refused: nothing_requested"


def test_a_lift_covers_what_was_known_and_not_an_older_ban_that_comes_later() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    desk.say("lift_request", "Ann", NOON + MINUTE)
    desk.say("lift_approve", "Bob", NOON + 2 * MINUTE)
    assert desk.standing == ("clear", 1, 0)
    desk.take(signal("ban", NOON + SECOND, "late"))
    assert desk.standing == ("cooling", 1, NOON + SECOND + DAY)


def test_a_lifted_account_keeps_its_step() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON))
    desk.say("lift_request", "Ann", NOON + 1)
    desk.say("lift_approve", "Bob", NOON + 2)
    desk.take(signal("ban", NOON + HOUR))
    assert desk.standing == ("cooling", 2, NOON + HOUR + 7 * DAY)


def test_clean_days_after_the_ladders_stop_begin_with_the_lift() -> None:
    desk = Desk()
    for n in range(4):
        desk.take(signal("ban", NOON + n * 20 * DAY))
    stopped_at = NOON + 60 * DAY
    assert desk.standing == ("stopped", 4, 0)
    lifted = stopped_at + 100 * DAY
    desk.say("lift_request", "Ann", lifted - 1)
    desk.say("lift_approve", "Bob", lifted)
    desk.take(signal("ban", lifted + 29 * DAY))
    assert desk.standing == ("stopped", 4, 0)
    again = lifted + 50 * DAY
    desk.say("lift_request", "Ann", again - 1)
    desk.say("lift_approve", "Bob", again)
    desk.take(signal("ban", again + 31 * DAY))
    assert desk.now.step == 1


def test_a_word_said_twice_is_said_once() -> None:
    desk = stopped()
    audits = len(desk.audits)
    desk.take(signal("stop", NOON, f"stop-Ann-{NOON}", author="Ann", reason="complaints in the news"))
    assert desk.results[-1] == "duplicate"
    assert len(desk.audits) == audits


def test_stopping_what_is_stopped_is_audited_and_changes_nothing() -> None:
    desk = stopped()
    before = desk.now
    assert desk.say("stop", "Bob", NOON + 1, "again") == "stopped: again"
    assert desk.now is before


# Memory and bad input


def test_memory_is_bounded_and_what_was_forgotten_still_counts_for_the_ladder() -> None:
    desk = Desk()
    desk.take(signal("ban", NOON, "first"))
    for n in range(3 * MOST_FACTS):
        desk.take(signal("failure_relation", NOON + DAY + n * MINUTE))
    assert desk.account is not None
    assert len(desk.account.facts) <= MOST_FACTS
    desk.take(signal("ban", NOON, "first"))
    assert desk.results[-1] == "duplicate"
    desk.take(signal("ban", NOON + 5 * DAY))
    assert desk.now.step == 2


def test_a_ban_from_before_the_memory_still_stops_and_points_from_there_do_not_count() -> None:
    desk = Desk()
    for n in range(MOST_FACTS + 10):
        desk.take(signal("failure_relation", NOON + n * 5 * MINUTE))
    assert desk.account is not None
    edge, states = desk.account.horizon_ms, len(desk.states)
    assert edge > NOON
    desk.take(signal("complaint", NOON - DAY))
    assert desk.results[-1] == "too_late"
    assert len(desk.states) == states
    desk.take(signal("ban", NOON - DAY))
    assert desk.standing == ("cooling", 1, edge + DAY)


def test_after_sixty_days_a_sign_is_no_longer_kept() -> None:
    desk = after([signal("complaint", NOON), signal("complaint", NOON + MEMORY_MS)])
    assert desk.account is not None
    assert len(desk.account.facts) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        signal("nonsense"),
        signal("barred"),
        signal("content", staff="~"),
        signal("complaint", count=0),
        signal("complaint", at=0),
        signal("complaint", at=1 << 60),
        signal("complaint", signal_id="x" * 65),
        signal("complaint", reason="x" * 1001),
        signal("staff_touch"),
        signal("touch", staff=""),
    ],
    ids=lambda s: s.kind,
)
def test_a_wrong_signal_is_refused_without_its_data(wrong: GuardSignal) -> None:
    with pytest.raises(ValueError) as refused:
        apply_signal(None, wrong, BOOK)
    assert STAFF not in str(refused.value)
    assert wrong.kind not in str(refused.value)


def test_what_does_not_concern_the_guard_leaves_no_state() -> None:
    assert apply_delta(None, delta(NOON, orders=1, gross_fen=100), BOOK).result == "without_effect"
    uncredited = StaffDelta(CORP, "", business_day(NOON), {"adds": 1}, NOON, NOON, "e")
    assert apply_delta(None, uncredited, BOOK).result == "without_effect"


def test_a_decision_names_what_caused_it_and_a_word_does_not_take_the_blame_for_time() -> None:
    desk = Desk()
    for n in range(61):
        desk.take(delta(NOON + n * 900, adds=1))
    assert desk.audits[-1].signal_id == f"event-{NOON + 60 * 900}"
    cooled = Desk()
    cooled.take(signal("unusable", NOON))
    after_the_pause = NOON + 2 * DAY
    assert cooled.say("lift_request", "Ann", after_the_pause) == "lift_refused: nothing_to_lift"
    by_time, refused = cooled.audits[-2:]
    assert (by_time.what, by_time.author, by_time.signal_id) == ("cleared", "guard", "")
    assert (refused.author, refused.before) == ("Ann", refused.after)


FEW_ARE_MANY = parse_rules(
    (schemas_dir() / "rules" / "guard.yaml")
    .read_text(encoding="utf-8")
    .replace("{staff: 50,", "{staff: 3,")
    .replace("{staff: 200,", "{staff: 6,"),
    "guard.yaml",
)
writers = st.tuples(st.integers(0, 9), st.integers(0, 12 * 60))


@given(st.lists(writers, min_size=3, max_size=25), st.randoms(use_true_random=False))
def test_who_wrote_together_does_not_depend_on_the_order(events: list[tuple[int, int]], rng: random.Random) -> None:
    signs = [
        signal("staff_touch", NOON + s * SECOND, f"{n}-{s}", staff="", campaign="autumn", source=f"guard:s{n}")
        for n, s in events
    ]
    shuffled = [*signs, *signs[: len(signs) // 3]]
    rng.shuffle(shuffled)
    end = NOON + HOUR
    assert judged(after(list(signs), "", FEW_ARE_MANY), end) == judged(after(list(shuffled), "", FEW_ARE_MANY), end)
