"""微信客服: what accounts, conversations and their log are made of, and the rules and habits (fact sheet 3.11).

Epoch seconds of business time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from simulator.world.days import DAY_S

NEW, BOT, QUEUE, HUMAN, ENDED = range(5)


class KfRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``kf`` of the platform's rules. Seconds, bytes, counts.

    The sheet has 10 min, 48 h, 5 messages, 20 s, 3 days, 2048 bytes and pages of 1000 and 100 from two sources each;
    how many calls without token are "strict", the limits of accounts and servicers, and how often a taken message
    fails are undocumented there.
    """

    token_s: int = 600
    history_s: int = 3 * DAY_S
    page: int = 1_000
    untokened_per_minute: int = 10
    untokened_per_hour: int = 200
    window_s: int = 48 * 3_600
    """A customer's last message allows sending for so long; silent longer, the conversation ends."""
    messages_per_window: int = 5
    event_code_s: int = 20
    queue_code_s: int = 48 * 3_600
    text_bytes: int = 2_048
    recall_s: int = 120
    """WeChat's own limit for taking a message back."""
    deliver_s: int = 1
    """From a taken send to its delivery or failure."""
    unsafe_share: float = 0.002
    """Of delivered messages, refused by safety (fail_type 13)."""
    verified: bool = True
    """Whether the corp is verified (else fail_type 8)."""
    accounts: int = 5_000
    accounts_page: int = 100
    name_chars: int = 16
    scene_bytes: int = 32
    servicers: int = 2_000
    servicers_a_call: int = 100
    departments: int = 20
    customers_a_call: int = 100
    statistic_days_a_call: int = 31
    statistic_days: int = 180
    statistic_ready_s: int = 6 * 3_600
    """Seconds after midnight (UTC+8) from which yesterday's figures can be read (fact sheet 6, point 12)."""


class KfHabits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``kf_habits``: how servicers behave. Seconds and shares; the platform has no say in it."""

    take_median_s: int = 60
    answer_median_s: int = 45
    spread: float = 0.8
    """Of the logarithm of both times."""
    silent_share: float = 0.05
    """Of customers' messages that nobody answers."""
    quiet_end_s: int = 1_800
    """The servicer ends a conversation so long after the last message."""
    look_again_s: int = 600
    """With nobody on duty the queue is looked at again after so long."""


@dataclass(slots=True)
class Account:
    """One 客服账号."""

    open_kfid: str
    name: str
    avatar: str
    managed: bool = True
    """The corp lets the API manage it; else 48007 and no callbacks."""
    deleted: bool = False
    servicers: dict[str, None] = field(default_factory=dict)
    """Members by name, in the order they were added."""
    departments: dict[int, None] = field(default_factory=dict)
    off_duty: dict[str, int] = field(default_factory=dict)
    """Servicer → stop_type (0 stopped, 1 paused) of those who are not receiving."""
    rows: list[Row] = field(default_factory=list)
    first: int = 0
    """Position of ``rows[0]`` since the account was opened."""


@dataclass(frozen=True, slots=True)
class Row:
    """A message or event of an account's log."""

    time_s: int
    content: dict[str, Any]
    unseen: bool = False
    """Sent through the API: never shown by sync_msg."""


@dataclass(slots=True)
class Session:
    """One customer at one account."""

    open_kfid: str
    customer_id: str
    state: int = ENDED
    servicer: str = ""
    entered_s: int = 0
    scene: str = ""
    scene_param: str = ""
    wechat_channels: dict[str, Any] = field(default_factory=dict)
    written_s: int = 0
    """The customer's last message; 0: never."""
    sent: int = 0
    """Messages through the API since then."""
    greeted_s: int = 0
    """A welcome code was given."""
    refuses: bool = False
    """The customer does not take messages of this account."""
    rejected: bool = False
    """The servicer does not take this customer's messages."""
    said_s: int = 0
    """The last message of anybody."""
    watched: bool = False
    """Its end by silence stands in the schedule."""
    answered: bool = True
    """The conversation's first human reply has been given or is not due."""
    stint: int = 0
    """Counts changes of state, so that a habit's late step finds out that its cause is gone."""


@dataclass(slots=True)
class Code:
    """Allows one message in answer to an event."""

    open_kfid: str
    customer_id: str
    expires_s: int
    used: bool = False


Fate = Literal["", "delivered", "failed"]


@dataclass(slots=True)
class Sent:
    """The truth about one message through the API."""

    msgid: str
    open_kfid: str
    customer_id: str
    time_s: int
    msgtype: str
    on_event: bool
    fate: Fate = ""
    fail_type: int = -1


@dataclass(slots=True)
class Tally:
    """One day of one account, or of one servicer at it."""

    sessions: int = 0
    messages: int = 0
    bot_sessions: int = 0
    replied: int = 0
    first_reply_s: int = 0
    customers: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        self.sessions += other.sessions
        self.messages += other.messages
        self.bot_sessions += other.bot_sessions
        self.replied += other.replied
        self.first_reply_s += other.first_reply_s
        self.customers |= other.customers
        self.rejected |= other.rejected

    @property
    def empty(self) -> bool:
        return not (self.sessions or self.messages or self.customers or self.rejected)
