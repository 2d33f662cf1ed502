"""Actions as ClickHouse knows them: the ledger's rows and the outcomes, one view of each action.

An outcome is the end of an action whatever the ledger's row says: the two come through two topics, so for a moment one
of them may be ahead. Any number of threads may ask at the same time; each takes a connection of its own.
"""

# ruff: noqa: S608 (only names of ours are put into a statement; every value is a parameter)

from __future__ import annotations

import base64
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from siyu.actions.errors import Invalid, Unavailable
from siyu.actions.model import (
    CHUNKS_SHOWN,
    OPEN_STATES,
    SENT,
    ActionView,
    Admission,
    AdmittedLevel,
    AdmittedLimit,
    Count,
    Parts,
    hashed,
)
from siyu.actions.quota import masked
from siyu.warehouse import WarehouseError, connect, error_code

_REPEATED = frozenset({"duplicate", "contradictory"})
"""``detail`` of the end of a record that brought an action which was known: no part of it."""
MOST = 500
"""Actions of one page."""

_BOTH = (
    "corp_id, action_id, parent_id, lane, endpoint, staff_id, customer_id, campaign_id, reason, caused_by, status, "
    "detail, errcode, calls, message_id, toUnixTimestamp64Milli(created) AS created_ms, "
    "toUnixTimestamp64Milli(deadline) AS deadline_ms"
)


def _outcomes(where: str, *more: str) -> str:
    """Outcomes with these columns, and ``more`` of them."""
    own = "'ended' AS state, toInt64(0) AS not_before_ms, toInt64(0) AS due_ms, " + (
        "toUnixTimestamp64Milli(finished_at) AS updated_at_ms"
    )
    return f"SELECT {', '.join((_BOTH, own, *more))} FROM action_outcome FINAL WHERE {where}"


def _ledger(where: str, *more: str) -> str:
    """Rows of the ledger with the same columns in the same order."""
    own = (
        "state, toUnixTimestamp64Milli(not_before) AS not_before_ms, toUnixTimestamp64Milli(due) AS due_ms, "
        "toUnixTimestamp64Milli(updated_at) AS updated_at_ms"
    )
    return f"SELECT {', '.join((_BOTH, own, *more))} FROM action FINAL WHERE {where}"


@dataclass(frozen=True)
class Known:
    """One action. ``subject`` and ``finished_at_ms`` say where its outcome lies in Kafka; 0: it has not ended."""

    view: ActionView
    subject: str
    finished_at_ms: int
    admission: Admission | None


@dataclass(frozen=True)
class Filter:
    """What to list. Empty and None: any. Times are business time, begin included."""

    corp_id: str = ""
    lane: str = ""
    endpoint: str = ""
    state: str = ""
    """One of the ledger's, or ``open`` for every one but ``ended``."""
    status: str = ""
    campaign_id: str = ""
    staff_id: str = ""
    parent_id: str | None = ""
    """Empty: whole actions only; None: parts too."""
    since_ms: int = 0


class _AdmissionLimit(msgspec.Struct):
    id: str
    window: str
    used: int
    amount: int
    allowed: int
    allowance_percent: int = 100


class _AdmissionLevel(msgspec.Struct):
    level: str
    limits: list[_AdmissionLimit]


class _Admission(msgspec.Struct):
    at_ms: int
    lane: str
    levels: list[_AdmissionLevel]


_decode_admission = msgspec.json.Decoder(_Admission).decode


class ActionStore:
    """Reads one database. Every method raises Unavailable when ClickHouse does not answer."""

    def __init__(
        self,
        url: str,
        *,
        user: str = "default",
        password: str = "",
        database: str = "siyu",
        timeout_s: int = 30,
    ) -> None:
        self._url = url
        self._login: dict[str, Any] = {
            "user": user,
            "password": password,
            "database": database,
            "timeout_s": timeout_s,
        }
        self._idle: queue.LifoQueue[Client] = queue.LifoQueue()

    def close(self) -> None:
        """Closes the connections nobody uses now."""
        while True:
            try:
                self._idle.get_nowait().close()
            except queue.Empty:
                return

    def check(self) -> None:
        """Raises Unavailable when ClickHouse does not answer or lacks the tables."""
        self._rows("SELECT 1 FROM action WHERE 0 UNION ALL SELECT 1 FROM action_outcome WHERE 0")

    def find(self, action_id: str, *, corp_id: str = "", people: bool = False) -> Known | None:
        """One action; None: neither the ledger nor the outcomes have it. Raises Invalid when several corps have it."""
        where = "action_id = {id:String}" + (" AND corp_id = {corp:String}" if corp_id else "")
        names = {"id": action_id, "corp": corp_id}
        admitted = ("admission", "limits_revision", "toUnixTimestamp64Milli(admitted_at) AS admitted_at_ms")
        ledger = self._rows(_ledger(where, "subject", *admitted), names)
        ended = self._rows(_outcomes(where, "subject"), names)
        corps = sorted({row["corp_id"] for row in (*ledger, *ended)})
        if len(corps) > 1:
            raise Invalid("corp_id", f"several corps have this action: {', '.join(corps)}; say which")
        if not corps:
            return None
        kept = ledger[0] if ledger else None
        row = ended[0] if ended else kept
        assert row is not None
        view = _view(row, people)
        if kept is not None and ended:
            view = msgspec.structs.replace(view, not_before_ms=kept["not_before_ms"] or None)
        return Known(
            view,
            row["subject"],
            row["updated_at_ms"] if ended else 0,
            _admission(kept, people) if kept is not None else None,
        )

    def page(
        self, wanted: Filter, *, limit: int, cursor: str = "", people: bool = False
    ) -> tuple[list[ActionView], str | None]:
        """The newest actions first, and the cursor of the rest; None: there is none. Raises Invalid.

        A page may hold fewer than ``limit`` although there are more: the cursor alone tells.
        """
        if not 1 <= limit <= MOST:
            raise Invalid("limit", f"a page has 1 to {MOST} actions")
        conditions, names = _conditions(wanted)
        if cursor:
            names |= _read_cursor(cursor)
            conditions.append(
                "(created, toString(corp_id), action_id) < "
                "(fromUnixTimestamp64Milli({before_ms:Int64}), {before_corp:String}, {before_id:String})"
            )
        where = " AND ".join(conditions) or "1"
        place = "corp_id, action_id, toUnixTimestamp64Milli(created) AS created_ms"
        branches = []
        if wanted.state in ("", "ended"):
            # Without FINAL: what a list asks for never changes in an outcome, and a copy is passed over below.
            branches.append(f"SELECT {place}, 1 AS ended FROM action_outcome WHERE {where}")
        if wanted.state != "ended" and not wanted.status:
            state = "state != 'ended'" if wanted.state in ("", "open") else "state = {state:String}"
            branches.append(f"SELECT {place}, 0 AS ended FROM action FINAL WHERE {where} AND {state}")
            names["state"] = wanted.state
        if not branches:
            return [], None
        # An action may be in both for a moment: twice the number is enough to fill the page.
        most = 2 * limit + 1
        places = self._rows(
            f"SELECT * FROM ({' UNION ALL '.join(branches)}) "
            f"ORDER BY created_ms DESC, corp_id DESC, action_id DESC, ended DESC LIMIT {most}",
            names,
        )
        whole = self._whole(places)
        page: dict[tuple[str, str], ActionView] = {}
        last: Mapping[str, Any] | None = None
        for row in places:
            key = (row["corp_id"], row["action_id"])
            if len(page) == limit and key not in page:
                return list(page.values()), _cursor(last) if last is not None else None
            last = row
            known = whole.get(key)
            # What the ledger has open although it has ended is no open action; its end is listed for itself.
            if known is not None and (row["ended"] or known["state"] != "ended"):
                page[key] = _view(known, people)
        return list(page.values()), _cursor(last) if len(places) == most and last is not None else None

    def parts(self, corp_id: str, action_id: str, *, people: bool = False) -> Parts:
        """What an action fell into. The chunks of a send are in the ledger; the persons (or groups) below it, or below
        its chunks, have an outcome each and nothing before that."""
        names = {"corp": corp_id, "id": action_id}
        of = "corp_id = {corp:String}"
        in_ledger = f"SELECT action_id FROM action WHERE {of} AND parent_id = {{id:String}}"
        found = {row["action_id"]: row for row in self._rows(_ledger(f"{of} AND parent_id = {{id:String}}"), names)}
        if found:  # an outcome takes the place of the ledger's row
            ended = self._rows(_outcomes(f"{of} AND parent_id = {{id:String}} AND action_id IN ({in_ledger})"), names)
            found |= {row["action_id"]: row for row in ended}
        repeated = [key for key, row in found.items() if row["detail"] in _REPEATED]
        for key in repeated:
            del found[key]
        chunks = sorted(found.values(), key=lambda row: (-row["created_ms"], row["action_id"]))
        below = f"{of} AND parent_id IN ({in_ledger} UNION ALL SELECT {{id:String}}) AND action_id NOT IN ({in_ledger})"
        counted = self._rows(
            f"SELECT status, detail, count() AS n FROM ({_outcomes(below)}) "
            "GROUP BY status, detail ORDER BY n DESC, status, detail",
            names,
        )
        return Parts(
            chunks=[_view(row, people) for row in chunks[:CHUNKS_SHOWN]],
            chunk_count=len(chunks),
            repeated_records=len(repeated),
            people=[Count(status=row["status"], detail=row["detail"], count=row["n"]) for row in counted],
        )

    def doubtful_parts(self, corp_id: str, action_id: str) -> int:
        """How many chunks of it are in doubt."""
        where = "corp_id = {corp:String} AND parent_id = {id:String} AND state = 'in_doubt'"
        rows = self._rows(_ledger(where), {"corp": corp_id, "id": action_id})
        return sum(row["state"] == "in_doubt" for row in self._whole(rows).values())

    def accepted_parts(self, corp_id: str, action_id: str) -> int:
        """How many parts of it, and parts of those, WeCom has accepted or may have accepted."""
        below = (
            "SELECT action_id FROM action_outcome WHERE corp_id = {corp:String} AND parent_id = {id:String} "
            "UNION ALL SELECT action_id FROM action WHERE corp_id = {corp:String} AND parent_id = {id:String} "
            "UNION ALL SELECT {id:String}"
        )
        of = f"corp_id = {{corp:String}} AND parent_id IN ({below})"
        (row,) = self._rows(
            "SELECT uniqExact(action_id) AS n FROM ("
            f"SELECT action_id FROM action_outcome FINAL WHERE {of} AND status IN {{sent:Array(String)}} UNION ALL "
            f"SELECT action_id FROM action FINAL WHERE {of} AND state IN ('prepared', 'in_doubt', 'accepted'))",
            {"corp": corp_id, "id": action_id, "sent": sorted(SENT)},
        )
        return int(row["n"])

    def _whole(self, places: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Everything about these actions; of one in both tables its outcome."""
        if not places:
            return {}
        # Bound by the client, into the body: a thousand ids are too much for parameters in a URL.
        names = {
            "corps": tuple({row["corp_id"] for row in places}),
            "ids": tuple({row["action_id"] for row in places}),
        }
        where = "corp_id IN %(corps)s AND action_id IN %(ids)s"
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for select in (_ledger, _outcomes):
            found |= {(row["corp_id"], row["action_id"]): row for row in self._rows(select(where), names)}
        return found

    def _rows(self, sql: str, names: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
        with self._client() as client:
            return list(client.query(sql, parameters=dict(names or {})).named_results())

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            client = self._idle.get_nowait()
        except queue.Empty:
            try:
                client = connect(self._url, **self._login)
            except WarehouseError:
                raise Unavailable("clickhouse_unavailable", "ClickHouse does not answer") from None
        try:
            yield client
        except ClickHouseError as error:
            client.close()
            code = error_code(error)
            if code is None:  # it is away, or was: the other connections are no better
                self.close()
            what = "does not answer" if code is None else f"refuses (code {code}); are the migrations applied?"
            raise Unavailable("clickhouse_unavailable", f"ClickHouse {what}") from error
        except BaseException:
            client.close()
            raise
        self._idle.put(client)


def _conditions(wanted: Filter) -> tuple[list[str], dict[str, Any]]:
    conditions = []
    names: dict[str, Any] = {}
    for column in ("corp_id", "lane", "endpoint", "status", "campaign_id", "staff_id", "parent_id"):
        value = getattr(wanted, column)
        if value or (column == "parent_id" and value is not None):
            conditions.append(f"{column} = {{{column}:String}}")
            names[column] = value
    if wanted.state not in ("", "open", "ended", *OPEN_STATES):
        raise Invalid("state", f"a state is one of open, ended, {', '.join(OPEN_STATES)}")
    if wanted.since_ms:
        conditions.append("created >= fromUnixTimestamp64Milli({since_ms:Int64})")
        names["since_ms"] = wanted.since_ms
    return conditions, names


def _view(row: Mapping[str, Any], people: bool) -> ActionView:
    return ActionView(
        action_id=row["action_id"],
        corp_id=row["corp_id"],
        lane=row["lane"],
        endpoint=row["endpoint"],
        state=row["state"],
        status=row["status"] or None,
        detail=row["detail"],
        errcode=row["errcode"],
        calls=row["calls"],
        staff_id=row["staff_id"],
        customer=row["customer_id"] if people else hashed(row["customer_id"]),
        campaign_id=row["campaign_id"],
        reason=row["reason"],
        caused_by=row["caused_by"],
        parent_id=row["parent_id"],
        message_id=row["message_id"],
        created_ms=row["created_ms"],
        not_before_ms=row["not_before_ms"] or None,
        deadline_ms=row["deadline_ms"] or None,
        due_ms=row["due_ms"] or None,
        updated_at_ms=row["updated_at_ms"],
    )


def _admission(row: Mapping[str, Any], people: bool) -> Admission | None:
    """None when it was never admitted."""
    if not row["admission"]:
        return None
    try:
        return read_admission(row["admission"].encode(), row["limits_revision"], people=people)
    except ValueError:
        # It was written by a release that explains otherwise; what the rest of the row says is still true.
        return Admission(
            at_ms=row["admitted_at_ms"] or None, lane=row["lane"], limits_revision=row["limits_revision"], levels=[]
        )


def read_admission(explained: bytes, limits_revision: str, *, people: bool = False) -> Admission:
    """``LedgerEntry.admission`` for people. Raises ValueError when it is none."""
    read = _decode_admission(explained)
    return Admission(
        at_ms=read.at_ms or None,
        lane=read.lane,
        limits_revision=limits_revision,
        levels=[
            AdmittedLevel(
                level=level.level if people else masked(level.level),
                limits=[
                    AdmittedLimit(
                        id=limit.id,
                        window=limit.window,
                        used=limit.used,
                        amount=limit.amount,
                        allowed=limit.allowed,
                        allowance_percent=limit.allowance_percent,
                    )
                    for limit in level.limits
                ],
            )
            for level in read.levels
        ],
    )


def _cursor(row: Mapping[str, Any]) -> str:
    place = msgspec.json.encode([row["created_ms"], row["corp_id"], row["action_id"]])
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _read_cursor(cursor: str) -> dict[str, Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_ms, corp_id, action_id = msgspec.json.decode(
            base64.b64decode(padded, altchars=b"-_", validate=True), type=tuple[int, str, str]
        )
    except (ValueError, msgspec.DecodeError):
        raise Invalid("cursor", "not a cursor of this list; begin anew without one") from None
    if not 0 <= created_ms <= 1 << 50:
        raise Invalid("cursor", "not a cursor of this list; begin anew without one")
    return {"before_ms": created_ms, "before_corp": corp_id, "before_id": action_id}
