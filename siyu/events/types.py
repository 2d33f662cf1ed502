"""The typed events: one frozen struct per Avro schema in ``schemas/avro``, field for field and in the same order.

Units, everywhere: ``*_ms`` epoch milliseconds UTC, ``*_fen`` integer fen, ``day`` a business day ``YYYY-MM-DD`` in
Asia/Shanghai. ``event_time_ms`` is business time (when it happened, as the platform says); ``received_at_ms`` and
``finished_at_ms`` are wall time of the process that wrote them.

``personal`` is the one field of a record that may hold personal data beyond the platform's opaque ids. It is an
envelope of its own so that it can be encrypted per person later (requirements R17) without touching the rest.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Base of everything that travels in a topic. People name the fields; the codec gives them by position, because
    CPython turns a call with more than 15 keywords into a dict first, and that takes a fifth of the decoding."""


ContactChange = Literal[
    "add",  # add_external_contact: both sides are friends
    "add_half",  # add_half_external_contact: the customer added, staff has not confirmed
    "edit",  # edit_external_contact: remark, phone or tags changed in the client
    "delete_by_staff",  # del_external_contact without Source
    "delete_by_transfer",  # del_external_contact with Source=DELETE_BY_TRANSFER
    "delete_by_customer",  # del_follow_user
    "transfer_fail",  # transfer_fail
    "archive_consent",  # msg_audit_approved
]
"""What happened to one relationship (fact sheet 2.1)."""

PaymentChange = Literal["paid", "refunded"]

RelationshipStatus = Literal[
    "none",  # nothing but edits or failures is known
    "half",  # customer added, staff has not confirmed
    "friend",
    "deleted_by_customer",  # one-way: staff still sees the customer
    "deleted_by_staff",
    "deleted_by_both",
    "transferred",  # removed from this staff member by on-job inheritance
]

ActionStatus = Literal[
    "done",  # WeCom accepted it
    "already_done",  # WeCom says it had been done before (41051): a repeat after a crash
    "expired",  # past its deadline, no call made (or none that could succeed in time)
    "rejected",  # WeCom refused this item for good; errcode says why
    "failed",  # a person has to look: permission, configuration, or retries used up
    "cancelled",  # an operator took it back before a call
    "suppressed",  # the person must not be contacted: a suppression or a withdrawn consent
    "blocked",  # the ban guard or the content linter did not let it through
]
"""The closed set of ends of an action."""

Lane = Literal["welcome", "urgent", "bulk", "sync"]


class RawCallback(Event, frozen=True):
    """What arrived at the edge, decrypted. Key: the typed event's key, or the corp id when there is none."""

    event_id: str
    corp_id: str
    agent_id: str
    event: str
    """``Event`` element, e.g. ``change_external_contact``; empty for plain messages."""
    change_type: str
    event_time_ms: int
    received_at_ms: int
    known: bool
    """False for a type nothing is typed for yet: kept here, counted, never refused."""
    personal: bytes
    """The decrypted XML or JSON, byte for byte."""


class ContactEvent(Event, frozen=True):
    """One change of one relationship. Key: ``corp_id|customer_id``."""

    event_id: str
    corp_id: str
    change: ContactChange
    staff_id: str
    customer_id: str
    event_time_ms: int
    received_at_ms: int
    state: str
    """``State``: the channel (contact-way state or acquisition-link channel); empty when absent."""
    welcome_code: str
    """Valid 20 s, once (fact sheet 3.4); empty when absent."""
    fail_reason: str
    """``FailReason`` of transfer_fail, else empty."""


class PaymentEvent(Event, frozen=True):
    """Money that moved. Key: ``corp_id|customer_id``, or ``corp_id|~<order_id>`` when nobody knows the customer."""

    event_id: str
    corp_id: str
    change: PaymentChange
    customer_id: str
    """Empty when the source does not name the payer."""
    order_id: str
    """``out_trade_no``. A refund carries its payment's."""
    refund_id: str
    """``out_refund_no``; empty for a payment."""
    staff_id: str
    """Who collected (or refunded); empty when nobody did, e.g. a mini-program order."""
    amount_fen: int
    """Paid, or refunded by this refund; always positive."""
    event_time_ms: int
    received_at_ms: int
    source: str
    """``externalpay`` for 对外收款 bills."""
    payment_type: int
    """Fact sheet 3.10: 0 chat, 1 QR code, 2 live room, 3 album, 14 transfer, 15 mini program."""
    personal: bytes
    """JSON of remark, contact_info and commodity_list, empty when there is none."""


class RelationshipFact(Event, frozen=True):
    """The relationship as it stands: absolute, written again with a higher revision when it changes."""

    corp_id: str
    staff_id: str
    customer_id: str
    revision: int
    status: RelationshipStatus
    staff_side: bool
    """The staff member has the customer."""
    customer_side: bool
    """The customer has the staff member."""
    channel: str
    """``state`` of the first event of the current (else last) episode that carried one."""
    first_added_ms: int
    """0 when never friends."""
    episodes_started_ms: list[int]
    """Begin of each period as friends, by event time."""
    episodes_ended_ms: list[int]
    """End of each, 0 while it lasts."""
    episodes_ended_by: list[str]
    """``customer``, ``staff``, ``transfer`` or empty while it lasts."""
    event_time_ms: int
    """Of the newest event this row rests on."""
    received_at_ms: int
    """Arrival of the event that caused this revision."""
    caused_by: str
    """Its event id."""


class OrderFact(Event, frozen=True):
    """An order as it stands: absolute, written again with a higher revision when it changes."""

    corp_id: str
    order_id: str
    customer_id: str
    revision: int
    staff_id: str
    """Who is credited; empty when nobody can be."""
    credit_rule: Literal["collector", "owner", "refunder", "none"]
    """collector: staff who collected; owner: friend at pay time; refunder: payment unknown; none: nobody."""
    paid: bool
    """False while only refunds are known."""
    pay_time_ms: int
    """0 while the payment is unknown."""
    gross_fen: int
    refunded_fen: int
    refund_ids: list[str]
    refund_times_ms: list[int]
    refund_amounts_fen: list[int]
    payment_type: int
    event_time_ms: int
    received_at_ms: int
    caused_by: str


class StaffDelta(Event, frozen=True):
    """A change of one staff member's day. Key: ``corp_id|staff_id``. Counted exactly once by the transaction."""

    corp_id: str
    staff_id: str
    day: str
    counters: dict[str, int]
    """Changes by name of a counter of :class:`StaffDaySnapshot`; only those that changed."""
    event_time_ms: int
    received_at_ms: int
    caused_by: str


class StaffDaySnapshot(Event, frozen=True):
    """A staff member's day as it stands: absolute, written again with a higher revision when it changes."""

    corp_id: str
    staff_id: str
    """Empty: the row of what nobody can be credited with."""
    day: str
    revision: int
    adds: int
    half_adds: int
    lost_by_customer: int
    lost_by_staff: int
    lost_by_transfer: int
    orders: int
    gross_fen: int
    refunds: int
    refunded_fen: int
    unknown_customer_orders: int
    """Part of ``orders`` whose payer nobody knows."""
    unknown_customer_gross_fen: int
    unmatched_refunds: int
    """Refunds without a known payment: apart from ``refunds`` until the payment is known."""
    unmatched_refund_fen: int
    event_time_ms: int
    received_at_ms: int
    caused_by: str


STAFF_COUNTERS: tuple[str, ...] = (
    "adds",
    "half_adds",
    "lost_by_customer",
    "lost_by_staff",
    "lost_by_transfer",
    "orders",
    "gross_fen",
    "refunds",
    "refunded_fen",
    "unknown_customer_orders",
    "unknown_customer_gross_fen",
    "unmatched_refunds",
    "unmatched_refund_fen",
)
"""Names that may stand in :attr:`StaffDelta.counters`."""


class Action(Event, frozen=True):
    """A call that WeCom should get. Key: the quota scope, ``corp_id|endpoint group`` (``ids.quota_scope``)."""

    action_id: str
    """Deterministic: the same intent always has the same id."""
    lane: Lane
    corp_id: str
    endpoint: str
    """Path below the base URL, e.g. ``externalcontact/send_welcome_msg``."""
    subject: str
    """Key of the outcome: customer key, staff key or corp id."""
    staff_id: str
    customer_id: str
    payload: bytes
    """JSON body of the call. May hold personal data: part of the envelope of R17."""
    reason: str
    """Rule id and version, e.g. ``welcome.default@2026-01-01``."""
    caused_by: str
    """Event id, or the id of the work item."""
    created_ms: int
    """Business time."""
    not_before_ms: int
    """0: at once."""
    deadline_ms: int
    """Business time after which the call must not start; 0: none."""
    trigger_received_at_ms: int
    """Wall time at which the triggering event arrived; 0 when there is none."""
    campaign_id: str = ""
    """What it belongs to; campaigns and staff members share a bulk lane fairly. Empty: the reason's rule."""


class ActionOutcome(Event, frozen=True):
    """How an action ended. Key: the action's subject."""

    action_id: str
    lane: Lane
    corp_id: str
    endpoint: str
    subject: str
    staff_id: str
    customer_id: str
    status: ActionStatus
    errcode: int
    """Last errcode of WeCom; 0 when it accepted or was not called."""
    detail: str
    """Machine-readable reason from a closed set, e.g. ``deadline_passed``; never text from the platform."""
    calls: int
    """HTTP calls made for it."""
    reason: str
    caused_by: str
    created_ms: int
    deadline_ms: int
    trigger_received_at_ms: int
    finished_at_ms: int
    """Wall time."""
    request: bytes
    """The action's payload, so that whoever asked can go on from the outcome alone."""
    response: bytes
    """JSON body of the answer for reads; empty for writes. Personal data: part of the envelope of R17."""
    campaign_id: str = ""
    parent_id: str = ""
    """The action this is a part of: a chunk's send, a person's chunk, a repeated record's. Empty: it is whole."""
    message_id: str = ""
    """The platform's id of what the call made (``msgid``, ``jobid``, ``config_id``); empty when it made nothing."""


LedgerState = Literal[
    "waiting",  # durable, but its time has not come
    "prepared",  # a call may go out or has gone out
    "in_doubt",  # a call may have been carried out; nothing is repeated before that is settled
    "accepted",  # WeCom took it; its results come in
    "ended",  # its outcome is published
    "body",  # not an action: the unchanging part of one, kept apart because it is large
]


class LedgerEntry(Event, frozen=True):
    """What the executor remembers of one action. Topic ``action.ledger``; key: the action id; partition: the shard."""

    action_id: str
    parent_id: str
    lane: Lane
    corp_id: str
    endpoint: str
    subject: str
    staff_id: str
    customer_id: str
    campaign_id: str
    reason: str
    caused_by: str
    state: LedgerState
    status: str
    """An :data:`ActionStatus` once it has ended, before that empty."""
    detail: str
    errcode: int
    calls: int
    message_id: str
    created_ms: int
    not_before_ms: int
    deadline_ms: int
    due_ms: int
    """Business time at which it is looked at again; 0: when something happens."""
    updated_at_ms: int
    """Wall time."""
    admitted_at_ms: int
    """Business time of the newest admission; 0: never admitted."""
    limits_revision: str
    """Of the limits that admitted it, so that the decision can be evaluated again."""
    admission: bytes
    """JSON: each level with what was used and allowed at the newest admission."""
    memory: bytes
    """The machine's own state, empty once ended. Personal data: part of the envelope of R17."""
    origin: str = ""
    """``topic/partition/offset`` of the record that brought the action: tells reading it again from a repeat."""


class QuotaState(Event, frozen=True):
    """What has been used of the limits of one level. Topic ``quota.state``; key: the level; partition: the shard."""

    level: str
    """E.g. ``corp_api|<corp>|<endpoint>``."""
    corp_id: str
    endpoint: str
    shard: int
    state: bytes
    """For the next owner."""
    view: bytes
    """JSON, for people: each window with used, limit and lane shares, and what is frozen until when."""
    updated_at_ms: int


class QuotaLease(Event, frozen=True):
    """A word between shards about a level they share. Topic ``quota.leases``; partition: the shard it is meant for."""

    kind: Literal["ask", "grant", "settle"]
    level: str
    holder: str
    """The asking shard's incarnation: a successor must not use what its predecessor was granted."""
    shard: int
    """The asking shard."""
    request: int
    calls: int
    unused: int
    start_by_ms: int
    """Business time after which a granted call must not start."""
    written_at_ms: int


class ConfigRecord(Event, frozen=True):
    """A validated, dated piece of configuration. Topic ``config``; key: ``kind|id``."""

    kind: str
    id: str
    revision: str
    effective_from_ms: int
    value: bytes
    """JSON."""
    author: str
    reason: str
    written_at_ms: int


class ControlRecord(Event, frozen=True):
    """A word of an operator to every executor. Topic ``executor.control``; key: its id."""

    id: str
    kind: Literal["pause", "cancel", "settle"]
    corp_id: str
    """Empty: every corp; so with ``lane`` and ``campaign_id``."""
    lane: str
    campaign_id: str
    action_id: str
    verdict: str
    """Of ``settle``: ``done`` or ``not_done``."""
    reason: str
    author: str
    active: int
    """0: taken back."""
    expires_ms: int
    """Wall time; 0: holds until taken back."""
    written_at_ms: int


class Suppression(Event, frozen=True):
    """Whether a person may be contacted at all. Topic ``suppressions``; key: ``corp|customer|source|active``, so that
    compaction keeps the newest word of each kind and source."""

    corp_id: str
    customer_id: str
    active: int
    """1: must not be contacted; 0: may be again."""
    reason: str
    source: str
    event_time_ms: int
    written_at_ms: int


class WecomToken(Event, frozen=True):
    """The access token of one corp and app, encrypted; or word that WeCom refused one. Topic ``wecom.tokens``; key:
    ``corp|agent|kind``."""

    corp_id: str
    agent_id: str
    kind: Literal["token", "refused"]
    fingerprint: str
    """Tells tokens apart without showing them."""
    key_id: str
    nonce: bytes
    ciphertext: bytes
    issued_at_ms: int
    """Wall time, as are the other two."""
    expires_at_ms: int
    written_at_ms: int


class GuardSignal(Event, frozen=True):
    """Something that says an account is at risk, or a person's word about it. Topic ``guard.signals``; key: staff, or
    the corp with an empty staff id."""

    signal_id: str
    corp_id: str
    staff_id: str
    kind: str
    count: int
    campaign_id: str
    action_id: str
    errcode: int
    source: str
    author: str
    reason: str
    event_time_ms: int
    written_at_ms: int


class GuardState(Event, frozen=True):
    """How far an account is trusted now. Topic ``guard.state``; key: staff, or the corp with an empty staff id."""

    corp_id: str
    staff_id: str
    standing: Literal["clear", "watched", "cooling", "stopped"]
    step: int
    """Of the cool-down ladder; 0: none."""
    until_ms: int
    """Business time at which a cool-down ends; 0: none, or only by a person."""
    allowance_percent: int
    """Of the limits that are ours to shrink; 0: nothing goes out."""
    risk_milli: int
    reason: str
    lift_requested_by: str
    revision: int
    updated_ms: int
    """Business time."""


class GuardAudit(Event, frozen=True):
    """One decision about an account. Topic ``guard.audit``; key: staff, or the corp with an empty staff id."""

    audit_id: str
    corp_id: str
    staff_id: str
    what: str
    author: str
    second_author: str
    reason: str
    before: str
    after: str
    signal_id: str
    at_ms: int
    """Business time."""
