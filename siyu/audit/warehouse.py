"""ClickHouse's own words: the ``*_now`` views as rows, contradictions inside the tables, and how fresh rows were.

Plain HTTP and SQL. Times come back as epoch ms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2

from siyu.audit.errors import WarehouseError
from siyu.audit.model import COUNTERS, Key, Row

_TIMEOUT_S = 300.0

Found = list[tuple[Key, Row]]
"""Rows as they stand; a key may stand twice, which is what the audit looks for."""

_VERSIONED = {
    "relationship": ("corp_id", "staff_id", "customer_id", "revision"),
    "orders": ("corp_id", "order_id", "revision"),
    "order_history": ("corp_id", "order_id", "revision"),
    "staff_day": ("corp_id", "staff_id", "day", "revision"),
    "action_outcome": ("corp_id", "action_id"),
}
"""Columns that must tell two differing rows of a table apart. An action has one end only, so its id is enough."""

_FRESHNESS = {
    "relationship": ("received_at", ("corp_id", "staff_id", "customer_id", "revision")),
    "orders": ("received_at", ("corp_id", "order_id", "revision")),
    "staff_day": ("received_at", ("corp_id", "staff_id", "day", "revision")),
    "action_outcome": ("finished_at", ("corp_id", "action_id")),
}


class Warehouse:
    """Reads one database of one ClickHouse."""

    def __init__(self, url: str, database: str, user: str, password: str) -> None:
        """``url`` such as ``http://127.0.0.1:8123``."""
        self._url = url
        self._database = database
        headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
        self._http = httpx2.Client(timeout=_TIMEOUT_S, headers=headers)

    def close(self) -> None:
        """Frees the connection."""
        self._http.close()

    def relationships(self) -> Found:
        """By (corp, staff, customer)."""
        sql = """
            SELECT corp_id, staff_id, customer_id, status, toBool(staff_side), toBool(customer_side), channel,
                   toUnixTimestamp64Milli(first_added), toUnixTimestamp64Milli(event_time),
                   arrayMap((s, e, b) -> (toUnixTimestamp64Milli(s), toUnixTimestamp64Milli(e), b),
                            episodes_started, episodes_ended, episodes_ended_by)
            FROM relationship_now"""
        names = ("status", "staff_side", "customer_side", "channel", "first_added_ms", "event_time_ms")
        return [
            (
                (corp_id, staff_id, customer_id),
                {**dict(zip(names, rest, strict=True)), "episodes": [list(episode) for episode in episodes]},
            )
            for corp_id, staff_id, customer_id, *rest, episodes in self._rows(sql)
        ]

    def orders(self) -> Found:
        """By (corp, order)."""
        sql = """
            SELECT corp_id, order_id, customer_id, staff_id, credit_rule, toBool(paid),
                   toUnixTimestamp64Milli(pay_time), gross_fen, refunded_fen, net_fen, payment_type,
                   toUnixTimestamp64Milli(event_time),
                   arrayMap((i, t, a) -> (i, toUnixTimestamp64Milli(t), a),
                            refund_ids, refund_times, refund_amounts_fen)
            FROM orders_now"""
        money = ("gross_fen", "refunded_fen", "net_fen", "payment_type", "event_time_ms")
        names = ("customer_id", "staff_id", "credit_rule", "paid", "pay_time_ms", *money)
        return [
            (
                (corp_id, order_id),
                {**dict(zip(names, rest, strict=True)), "refunds": [list(refund) for refund in refunds]},
            )
            for corp_id, order_id, *rest, refunds in self._rows(sql)
        ]

    def staff_days(self) -> Found:
        """By (corp, staff, day). A day that was restated to nothing is the same as no row, and left out."""
        sql = f"SELECT corp_id, staff_id, toString(day), {', '.join(COUNTERS)} FROM staff_day_now"  # noqa: S608 names
        return [
            ((corp_id, staff_id, day), dict(zip(COUNTERS, counters, strict=True)))
            for corp_id, staff_id, day, *counters in self._rows(sql)
            if any(counters)
        ]

    def outcomes(self) -> Found:
        """Every end of an action or a part of one, by (corp, action)."""
        names = ("lane", "endpoint", "staff_id", "customer_id", "caused_by", "status", "errcode", "detail", "parent_id")
        sql = f"""
            SELECT corp_id, action_id, toUnixTimestamp64Milli(finished_at), {", ".join(names)}
            FROM action_outcome_now"""  # noqa: S608 names
        return [
            ((corp_id, action_id), {"finished_at_ms": finished_at, **dict(zip(names, rest, strict=True))})
            for corp_id, action_id, finished_at, *rest in self._rows(sql)
        ]

    def open_actions(self) -> tuple[Found, int]:
        """What the ledger has open and has no outcome, by (corp, action); and the newest business time (epoch ms) at
        which anything was asked for, 0 without actions."""
        sql = """
            SELECT corp_id, action_id, state, toUnixTimestamp64Milli(deadline)
            FROM action_now
            WHERE state != 'ended' AND (corp_id, action_id) NOT IN (SELECT corp_id, action_id FROM action_outcome)"""
        newest = """
            SELECT toUnixTimestamp64Milli(greatest(
                (SELECT max(created) FROM action), (SELECT max(created) FROM action_outcome)))"""
        found: Found = [
            ((corp_id, action_id), {"state": state, "deadline_ms": deadline_ms})
            for corp_id, action_id, state, deadline_ms in self._rows(sql)
        ]
        ((now_ms,),) = self._rows(newest)
        return found, now_ms

    def contradictions(self) -> list[tuple[str, Key]]:
        """(table, key) where a table holds rows that no reader could tell which of is right."""
        found = []
        for table, key in _VERSIONED.items():
            columns = ", ".join(f"toString({name})" for name in key)
            sql = f"""
                SELECT {columns} FROM {table} GROUP BY {", ".join(key)}
                HAVING uniqExact(cityHash64(toString(tuple(* EXCEPT (written_at))))) > 1"""  # noqa: S608 names
            found += [(table, tuple(row)) for row in self._rows(sql)]
        return found

    def freshness(self) -> dict[str, Row]:
        """Per table: rows, and seconds from arrival to being queryable (p50, p99, worst)."""
        measured = {}
        for table, (begin, key) in _FRESHNESS.items():
            # A batch that was written again after a crash was queryable since the first time.
            sql = f"""
                SELECT count(), quantileExact(0.5)(s), quantileExact(0.99)(s), max(s) FROM (
                    SELECT toFloat64(toUnixTimestamp64Milli(min(written_at)) - toUnixTimestamp64Milli(any({begin})))
                           / 1000 AS s
                    FROM {table} GROUP BY {", ".join(key)})"""  # noqa: S608 names
            ((rows, p50, p99, worst),) = self._rows(sql)
            if rows:
                measured[table] = {"rows": rows, "p50_s": p50, "p99_s": p99, "max_s": worst}
        return measured

    def welcome_latency(self) -> Row:
        """Welcomes that were sent, and seconds from the callback's arrival to WeCom's answer (p50, p99, worst)."""
        sql = """
            SELECT count(), quantileExact(0.5)(s), quantileExact(0.99)(s), max(s) FROM (
                SELECT toFloat64(toUnixTimestamp64Milli(finished_at) - toUnixTimestamp64Milli(trigger_received_at))
                       / 1000 AS s
                FROM action_outcome_now
                WHERE lane = 'welcome' AND status IN ('done', 'already_done'))"""
        ((sent, p50, p99, worst),) = self._rows(sql)
        return {"sent": sent, "p50_s": p50, "p99_s": p99, "max_s": worst} if sent else {"sent": 0}

    def _rows(self, sql: str) -> Iterator[list[Any]]:
        settings = {
            "database": self._database,
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_named_tuples_as_objects": "0",
        }
        try:
            answer = self._http.post(self._url, params=settings, content=f"{sql}\nFORMAT JSONCompactEachRow".encode())
        except httpx2.HTTPError as error:
            raise WarehouseError(
                f"ClickHouse at {self._url} does not answer ({type(error).__name__}). Is SIYU_CLICKHOUSE_URL right?"
            ) from None
        if answer.status_code != 200:
            # The engine's first line names the code and the table or column; it quotes the query, never a row.
            raise WarehouseError(f"ClickHouse refused a query: {answer.text.strip().splitlines()[0][:300]}")
        return (json.loads(line) for line in answer.text.splitlines() if line)
