"""对外收款: what was collected and refunded (fact sheet 3.10)."""

from __future__ import annotations

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.bills import BillBook

API = Api()

_MONTH_S = 31 * 86_400
_MAX_BILLS = 1_000


@API.post("externalpay/get_bill_list", bill_list=[])
def get_bill_list(call: Call) -> Answer:
    """Collections and refunds of a window of at most a month.

    ``next_cursor`` is missing on the last page, and only there. ``limit`` 1 to 1000, default 1000.
    """
    body = call.body
    begin_s, end_s = fields.whole(body, "begin_time"), fields.whole(body, "end_time")
    limit = fields.whole(body, "limit", default=_MAX_BILLS, least=1, most=_MAX_BILLS)
    payee, cursor = fields.text(body, "payee_userid"), fields.text(body, "cursor")
    if not 0 <= begin_s <= end_s or end_s - begin_s > _MONTH_S:
        raise ApiError(40035)
    if payee and payee not in call.corp.people.staff:
        raise ApiError(60111)
    scope = f"bills|{begin_s}|{end_s}|{payee}"
    after = tuple(call.read_cursor(scope, cursor)) if cursor else None
    rows, position = call.corp.of(BillBook).page(
        now_ms=call.now_ms, begin_s=begin_s, end_s=end_s, after=after, limit=limit, payee=payee
    )
    answer: Answer = {"bill_list": rows}
    if position is not None:
        answer["next_cursor"] = call.write_cursor(scope, position)
    return answer
