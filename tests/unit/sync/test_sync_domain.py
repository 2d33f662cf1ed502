from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.sync.domain import Config, Progress, Question, begin, failure, page_failed, page_read, tick

DAY = 86_400_000
START = 1_790_913_600_000
CONFIG = Config(
    since_ms=START - DAY,
    overlap_ms=600_000,
    window_ms=28 * DAY,
    ask_again_ms=10_000,
    asks=3,
    first_backoff_ms=1_000,
    longest_backoff_ms=60_000,
)


def ask(progress: Progress, business_ms: int = START, wall_ms: int = 0) -> tuple[Progress, Question]:
    progress, question = tick(progress, CONFIG, business_ms=business_ms, wall_ms=wall_ms)
    assert question is not None
    return progress, question


def read(
    progress: Progress, question: Question, cursor: str = "", business_ms: int = START
) -> tuple[Progress, Question | None]:
    return page_read(progress, CONFIG, question.action_id, cursor, business_ms=business_ms, wall_ms=0)


def test_the_first_window_begins_where_the_settings_say() -> None:
    progress, question = ask(begin("ww1", None, CONFIG))
    assert (question.begin_s, question.end_s, question.cursor) == ((START - DAY) // 1000, START // 1000, "")
    assert progress.through_ms == CONFIG.since_ms - 1


def test_the_last_page_moves_the_watermark_to_the_end_less_its_own_second() -> None:
    progress, question = ask(begin("ww1", None, CONFIG))
    progress, following = read(progress, question)
    assert following is None
    assert progress.through_ms == START - 1


def test_the_next_window_overlaps_the_one_before() -> None:
    _, question = ask(begin("ww1", START - 1, CONFIG), START + 5_000)
    assert question.begin_s * 1000 == START - CONFIG.overlap_ms
    assert question.end_s * 1000 == START + 5_000


def test_pages_are_asked_for_until_the_cursor_is_missing() -> None:
    progress, first = ask(begin("ww1", None, CONFIG))
    progress, second = read(progress, first, "C2")
    assert second is not None
    assert (second.cursor, second.begin_s, second.end_s) == ("C2", first.begin_s, first.end_s)
    assert second.action_id != first.action_id
    assert second.work_id == first.work_id
    assert progress.through_ms == CONFIG.since_ms - 1
    progress, none = read(progress, second)
    assert none is None
    assert progress.through_ms == START - 1


def test_a_jump_of_a_year_is_walked_window_by_window_without_waiting_for_ticks() -> None:
    now = START + 365 * DAY
    progress, question = ask(begin("ww1", START - 1, CONFIG), now)
    windows = [question]
    while True:
        progress, following = read(progress, question, business_ms=now)
        if following is None:
            break
        windows.append(question := following)
    assert progress.through_ms == now - 1
    assert len(windows) == 14
    assert all((w.end_s - w.begin_s) * 1000 <= 28 * DAY for w in windows)
    assert all(b.begin_s * 1000 == a.end_s * 1000 - CONFIG.overlap_ms for a, b in itertools.pairwise(windows))


def test_nothing_is_asked_while_business_time_stands_still() -> None:
    progress = begin("ww1", START - 1, CONFIG)
    assert tick(progress, CONFIG, business_ms=START, wall_ms=0) == (progress, None)


def test_without_an_answer_the_same_question_is_put_again_and_then_a_new_one() -> None:
    progress, first = ask(begin("ww1", None, CONFIG))
    asked = [first]
    for wall_ms in (9_999, 10_000, 20_000, 30_000):
        progress, question = tick(progress, CONFIG, business_ms=START, wall_ms=wall_ms)
        asked += [question] if question else []
    assert [question.action_id == first.action_id for question in asked] == [True, True, True, False]
    assert (asked[-1].begin_s, asked[-1].end_s) == (first.begin_s, first.end_s)


@pytest.mark.parametrize(
    ("status", "errcode", "meaning"),
    [
        ("expired", 0, "expired"),
        ("rejected", 40003, "rejected"),
        ("rejected", 50100, "cursor_invalid"),
        ("failed", 60268, "cursor_invalid"),
        ("failed", 48002, "failed"),
    ],
)
def test_what_an_outcome_without_a_page_means(status: str, errcode: int, meaning: str) -> None:
    assert failure(status, errcode) == meaning


def test_failures_in_a_row_make_the_pauses_grow_and_a_page_ends_them() -> None:
    progress = begin("ww1", None, CONFIG)
    pauses = []
    wall_ms = 0
    for _ in range(8):
        progress, question = ask(progress, wall_ms=wall_ms)
        progress = page_failed(progress, CONFIG, question.action_id, "failed", 48002, wall_ms=wall_ms)
        assert progress.through_ms == CONFIG.since_ms - 1
        pauses.append(progress.not_before_ms - wall_ms)
        assert tick(progress, CONFIG, business_ms=START, wall_ms=progress.not_before_ms - 1)[1] is None
        wall_ms = progress.not_before_ms
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    progress, question = ask(progress, wall_ms=wall_ms)
    progress, _ = read(progress, question)
    assert (progress.failures, progress.attempt) == (0, 0)


def test_an_invalid_cursor_begins_the_window_anew_at_once_but_not_for_ever() -> None:
    progress, first = ask(begin("ww1", None, CONFIG))
    progress, second = read(progress, first, "C2")
    assert second is not None
    progress = page_failed(progress, CONFIG, second.action_id, "cursor_invalid", 50100, wall_ms=0)
    progress, again = ask(progress)
    assert (again.begin_s, again.cursor) == (first.begin_s, "")
    assert again.action_id != first.action_id
    progress = page_failed(progress, CONFIG, again.action_id, "cursor_invalid", 50100, wall_ms=0)
    assert progress.not_before_ms > 0


def test_a_cursor_that_comes_again_is_a_failure_and_not_a_circle() -> None:
    progress, question = ask(begin("ww1", None, CONFIG))
    progress, second = read(progress, question, "C2")
    assert second is not None
    progress, third = read(progress, second, "C3")
    assert third is not None
    progress, none = read(progress, third, "C2")
    assert none is None
    assert progress.asked is None
    assert progress.failures == 1


def test_an_answer_to_another_question_changes_nothing() -> None:
    progress, question = ask(begin("ww1", None, CONFIG))
    other = replace(question, end_s=question.end_s - 1).action_id
    assert page_read(progress, CONFIG, other, "", business_ms=START, wall_ms=0) == (progress, None)
    assert page_failed(progress, CONFIG, other, "failed", 1, wall_ms=0) == progress


@given(st.integers(0, 60), st.integers(0, 60), st.text(max_size=3), st.integers(0, 3), st.sampled_from(["a", "b"]))
def test_an_id_depends_on_nothing_but_the_question(b: int, e: int, cursor: str, attempt: int, corp: str) -> None:
    question = Question(corp, b, e, cursor, attempt)
    assert question.action_id == Question(corp, b, e, cursor, attempt).action_id
    assert question.action_id != replace(question, attempt=attempt + 1).action_id
    assert question.action_id != replace(question, cursor=cursor + "x").action_id


class Reading(RuleBasedStateMachine):
    """A platform that lists bills in pages of two, and a world in which anything between us and it may go wrong."""

    config = replace(CONFIG, overlap_ms=5_000, window_ms=20_000, since_ms=START)

    def __init__(self) -> None:
        super().__init__()
        self.business_ms = START
        self.wall_ms = 0
        self.bills: list[int] = []
        self.emitted: set[int] = set()
        self.progress = begin("ww1", None, self.config)
        self.stored: int | None = None
        self.open: list[Question] = []
        self.answers: list[tuple[Question, list[int], str]] = []

    def _put(self, question: Question | None) -> None:
        if question is not None:
            assert question.end_s * 1000 <= self.business_ms
            assert (question.end_s - question.begin_s) * 1000 <= self.config.window_ms
            self.open.append(question)

    @rule(pause=st.integers(0, 60_000), rate=st.integers(1, 5))
    def time_passes(self, pause: int, rate: int) -> None:
        self.wall_ms += pause
        self.business_ms += pause * rate

    @rule(count=st.integers(1, 5), ago=st.integers(0, 4_000))
    def bills_happen(self, count: int, ago: int) -> None:
        # Up to the overlap late: listed when a window that should hold them may have been read already.
        second = (self.business_ms - min(ago, self.config.overlap_ms - 1_000)) // 1000 * 1000
        self.bills += [max(second, START)] * count

    @rule()
    def tick(self) -> None:
        self.progress, question = tick(self.progress, self.config, business_ms=self.business_ms, wall_ms=self.wall_ms)
        self._put(question)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def the_platform_answers(self, data: st.DataObject) -> None:
        """Any open question, in any order, as often as it likes; the end of a window does not belong to it."""
        question = data.draw(st.sampled_from(self.open))
        listed = [i for i, ms in enumerate(self.bills) if question.begin_s * 1000 <= ms < question.end_s * 1000]
        start = int(question.cursor or 0)
        cursor = str(start + 2) if start + 2 < len(listed) else ""
        self.answers.append((question, listed[start : start + 2], cursor))

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), keep=st.booleans())
    def an_answer_arrives(self, data: st.DataObject, keep: bool) -> None:
        answer = data.draw(st.sampled_from(self.answers))
        question, bills, cursor = answer
        self.emitted.update(bills)
        self.progress, following = page_read(
            self.progress,
            self.config,
            question.action_id,
            cursor,
            business_ms=self.business_ms,
            wall_ms=self.wall_ms,
        )
        self.stored = self.progress.through_ms
        self._put(following)
        if not keep:
            self.answers.remove(answer)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), reason=st.sampled_from(["failed", "expired", "cursor_invalid", "unreadable"]))
    def an_answer_is_a_failure(self, data: st.DataObject, reason: str) -> None:
        question = data.draw(st.sampled_from(self.open))
        self.progress = page_failed(
            self.progress,
            self.config,
            question.action_id,
            reason,
            0,
            wall_ms=self.wall_ms,  # type: ignore[arg-type]
        )

    @precondition(lambda self: self.answers)
    @rule()
    def answers_are_lost(self) -> None:
        self.answers.clear()

    @rule()
    def crash(self) -> None:
        self.progress = begin("ww1", self.stored, self.config)

    def _settled(self) -> set[int]:
        """Bills that the platform listed before the watermark came within the overlap of them."""
        return {i for i, ms in enumerate(self.bills) if ms <= self.progress.through_ms - self.config.overlap_ms}

    @invariant()
    def the_watermark_never_passes_an_unread_bill(self) -> None:
        assert self._settled() <= self.emitted

    def teardown(self) -> None:
        """Left in peace, it reads everything."""
        self.business_ms += self.config.overlap_ms * 2
        for _ in range(100_000):
            self.wall_ms += self.config.longest_backoff_ms
            self.tick()
            if self.progress.asked is None and self.progress.through_ms >= self.business_ms // 1000 * 1000 - 1:
                break
            while (asked := self.progress.asked) is not None:
                self.open = [asked.question]
                question = asked.question
                listed = [i for i, ms in enumerate(self.bills) if question.begin_s * 1000 <= ms < question.end_s * 1000]
                start = int(question.cursor or 0)
                cursor = str(start + 2) if start + 2 < len(listed) else ""
                self.emitted.update(listed[start : start + 2])
                self.progress, _ = page_read(
                    self.progress,
                    self.config,
                    question.action_id,
                    cursor,
                    business_ms=self.business_ms,
                    wall_ms=self.wall_ms,
                )
        else:
            raise AssertionError("did not come to an end")
        assert set(range(len(self.bills))) <= self.emitted


Reading.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestReading = Reading.TestCase
