"""How a corp's bills are read so that none is missed: (progress, what happened, now) → (progress, next question). Pure.

Bills are asked for in windows of business time, page by page. Only a window whose last page has been read, and whose
events Kafka has, moves ``through_ms``; that alone outlives the process. A crash, a lost, repeated, late or failed
answer therefore leads to reading again, never to a gap. Windows overlap, because the platform may list a bill later
than it happened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from siyu.events.ids import stable_id

CURSOR_INVALID = frozenset({50100, 60268})
"""The platform's word for: begin with the first page again (fact sheet 4.3)."""


@dataclass(frozen=True)
class Config:
    """Business time unless it says wall."""

    since_ms: int
    """Where the very first window begins."""
    overlap_ms: int
    """How much of what was read is read again; at most half of ``window_ms``."""
    window_ms: int
    """Longest window."""
    ask_again_ms: int
    """Wall time after which a question without an answer is put again."""
    asks: int
    """How often a question is put before its window is given up and begun anew."""
    first_backoff_ms: int
    """Wall time; doubles with every failure in a row."""
    longest_backoff_ms: int


@dataclass(frozen=True)
class Question:
    """One page. The same question has the same id, so that putting it twice asks once."""

    corp_id: str
    begin_s: int
    end_s: int
    cursor: str
    attempt: int
    """Counts the windows given up in a row: a new attempt is a new question even in the same second."""

    @property
    def work_id(self) -> str:
        """Id of the window."""
        return stable_id("sync.bills", self.corp_id, self.begin_s, self.end_s, self.attempt)

    @property
    def action_id(self) -> str:
        """Id of the page."""
        return stable_id("sync.bills", self.corp_id, self.begin_s, self.end_s, self.cursor, self.attempt)


@dataclass(frozen=True)
class Asked:
    """The page of a window that is waited for."""

    question: Question
    seen: frozenset[str]
    """Cursors of the window so far: one that comes again would lead in a circle."""
    asked_at_ms: int
    """Wall time."""
    times: int


@dataclass(frozen=True)
class Progress:
    """Where the reading of one corp's bills stands."""

    corp_id: str
    through_ms: int
    """Every bill up to and including this business time has been read. All that needs to outlive a crash."""
    asked: Asked | None = None
    attempt: int = 0
    failures: int = 0
    """In a row."""
    not_before_ms: int = 0
    """Wall time."""


def begin(corp_id: str, through_ms: int | None, config: Config) -> Progress:
    """Progress after a start: of what was in flight nothing is known and nothing is needed."""
    return Progress(corp_id, config.since_ms - 1 if through_ms is None else through_ms)


def tick(progress: Progress, config: Config, *, business_ms: int, wall_ms: int) -> tuple[Progress, Question | None]:
    """Time has passed: the question to put now, if any."""
    asked = progress.asked
    if asked is None:
        return _new_window(progress, config, business_ms, wall_ms)
    if wall_ms - asked.asked_at_ms < config.ask_again_ms:
        return progress, None
    if asked.times < config.asks:
        again = replace(asked, asked_at_ms=wall_ms, times=asked.times + 1)
        return replace(progress, asked=again), asked.question
    # Whoever answers may have answered already and never will again under this id.
    return _new_window(_given_up(progress, wall_ms), config, business_ms, wall_ms)


def page_read(
    progress: Progress, config: Config, action_id: str, next_cursor: str, *, business_ms: int, wall_ms: int
) -> tuple[Progress, Question | None]:
    """A page was answered, and Kafka has all its events."""
    asked = progress.asked
    if asked is None or asked.question.action_id != action_id:
        return progress, None
    if next_cursor:
        if next_cursor in asked.seen:
            return page_failed(progress, config, action_id, "cursor_repeated", 0, wall_ms=wall_ms), None
        question = replace(asked.question, cursor=next_cursor)
        following = Asked(question, asked.seen | {next_cursor}, wall_ms, 1)
        return replace(progress, asked=following), question
    read = Progress(progress.corp_id, max(progress.through_ms, _through(asked.question)))
    if asked.question.end_s - asked.question.begin_s < config.window_ms // 1000:
        return read, None
    # The window was cut short by its length, so there is more to read at once.
    return _new_window(read, config, business_ms, wall_ms)


Failure = Literal["cursor_invalid", "cursor_repeated", "unreadable", "expired", "rejected", "failed"]


def failure(status: str, errcode: int) -> Failure:
    """What an outcome without a page means."""
    if errcode in CURSOR_INVALID:
        return "cursor_invalid"
    if status == "expired":
        return "expired"
    return "rejected" if status == "rejected" else "failed"


def page_failed(
    progress: Progress, config: Config, action_id: str, reason: Failure, errcode: int, *, wall_ms: int
) -> Progress:
    """No page came of it: the window begins anew, after a pause that grows with the failures."""
    if progress.asked is None or progress.asked.question.action_id != action_id:
        return progress
    restart_at_once = reason == "cursor_invalid" and progress.failures == 0
    pause = 0 if restart_at_once else _backoff(progress.failures, config)
    return replace(_given_up(progress, wall_ms), not_before_ms=wall_ms + pause)


def _new_window(progress: Progress, config: Config, business_ms: int, wall_ms: int) -> tuple[Progress, Question | None]:
    if wall_ms < progress.not_before_ms:
        return progress, None
    begin_s = max(config.since_ms, progress.through_ms + 1 - config.overlap_ms) // 1000
    end_s = min(business_ms // 1000, begin_s + config.window_ms // 1000)
    question = Question(progress.corp_id, begin_s, end_s, "", progress.attempt)
    if _through(question) <= progress.through_ms:
        return progress, None
    return replace(progress, asked=Asked(question, frozenset(), wall_ms, 1)), question


def _through(question: Question) -> int:
    # Bills have whole seconds, and whether the end of a window belongs to it is not documented: its last second is only
    # counted as read by the next window.
    return question.end_s * 1000 - 1


def _given_up(progress: Progress, wall_ms: int) -> Progress:
    return replace(
        progress, asked=None, attempt=progress.attempt + 1, failures=progress.failures + 1, not_before_ms=wall_ms
    )


def _backoff(failures: int, config: Config) -> int:
    return min(config.longest_backoff_ms, config.first_backoff_ms << min(failures, 20))
