"""对外收款: what was collected and refunded, the flow of funds, and the merchant numbers (fact sheet 3.10)."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.bills import BillBook, ExternalPayRules
from simulator.world.funds import FundFlows, Projects, ReceivingMerchant, ReceivingMerchants

API = Api()

_MCH_ID_BYTES = 32


@API.post("externalpay/get_bill_list", bill_list=[])
def get_bill_list(call: Call) -> Answer:
    """Collections and refunds of a window of at most a month.

    ``next_cursor`` is missing on the last page, and only there. ``limit`` 1 to 1000, default 1000.
    """
    rules, body = allowed(call), call.body
    begin_s, end_s = _window(body, rules)
    limit = fields.whole(body, "limit", default=rules.bills_a_page, least=1, most=rules.bills_a_page)
    payee, cursor = fields.text(body, "payee_userid"), fields.text(body, "cursor")
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


@API.post("externalpay/get_payment_info", out_trade_no_list=[])
def get_payment_info(call: Call) -> Answer:
    """The orders of a collection project, one for each payment; 60237 for a project of another app."""
    allowed(call)
    project = call.corp.of(Projects).get(fields.text(call.body, "payment_id", required=True, max_bytes=128))
    if project is None:
        raise ApiError(60235)
    if project.agent_id != call.app.agent_id:
        raise ApiError(60237)
    return {"out_trade_no_list": list(project.orders)}


@API.post("externalpay/get_fund_flow", fund_flow_list=[])
def get_fund_flow(call: Call) -> Answer:
    """Movements of funds of at most 31 days, each with the balance after it.

    A day is complete after eleven o'clock on the next one; until then its rows come in bit by bit, so a reader that was
    too early has to read again. Nothing from before 2022-12-01 or older than three years: such windows are not refused
    but empty. ``next_cursor`` is missing on the last page. ``limit`` 1 to 200, default 100.
    """
    rules, body = allowed(call), call.body
    begin_s, end_s = _window(body, rules)
    limit = fields.whole(body, "limit", default=rules.flows_by_default, least=1, most=rules.flows_a_page)
    mch_id, cursor = fields.text(body, "mch_id", max_bytes=_MCH_ID_BYTES), fields.text(body, "cursor")
    if mch_id:
        _merchant(call, mch_id)
    scope = f"flows|{begin_s}|{end_s}|{mch_id}"
    after: tuple[int, str] | None = None
    if cursor:
        time_s, number = call.read_cursor(scope, cursor)
        after = (time_s, number)
    rows, position = call.corp.of(FundFlows).page(
        now_s=call.now_s, begin_s=begin_s, end_s=end_s, mch_id=mch_id, after=after, limit=limit
    )
    answer: Answer = {"fund_flow_list": [row.shown() for row in rows]}
    if position is not None:
        answer["next_cursor"] = call.write_cursor(scope, position)
    return answer


@API.post("externalpay/getmerchant")
def getmerchant(call: Call) -> Answer:
    """A merchant number, its binding (1 applying, 2 bound, 3 withdrawn) and, when bound, who may collect with it."""
    allowed(call)
    return _merchant(call, fields.text(call.body, "mch_id", required=True, max_bytes=_MCH_ID_BYTES)).shown()


@API.post("externalpay/set_mch_use_scope")
def set_mch_use_scope(call: Call) -> Answer:
    """Who may collect with a merchant number; replaces the scope. Tags of the address book are taken as they are."""
    allowed(call)
    merchant = _merchant(call, fields.text(call.body, "mch_id", required=True, max_bytes=_MCH_ID_BYTES))
    scope = fields.obj(call.body, "allow_use_scope", required=True)
    users, parties, tags = fields.texts(scope, "user"), fields.wholes(scope, "partyid"), fields.wholes(scope, "tagid")
    if not merchant.shown().get("allow_use_scope"):
        raise ApiError(60238)
    if any(userid not in call.corp.people.staff for userid in users):
        raise ApiError(60111)
    if any(party not in call.corp.people.departments for party in parties):
        raise ApiError(60123)
    merchant.users, merchant.parties, merchant.tags = users, parties, tags
    return {}


@API.post("externalpay/addmerchant")
def addmerchant(call: Call) -> Answer:
    """Obsolete: merchants are bound in the console."""
    raise ApiError(660014)


@API.post("externalpay/delmerchant")
def delmerchant(call: Call) -> Answer:
    """Obsolete: merchants are unbound in the console."""
    raise ApiError(660014)


def allowed(call: Call) -> ExternalPayRules:
    """The rules, for an app listed under 可调用接口的应用; others get 48002."""
    rules = call.corp.rules_of("externalpay", ExternalPayRules)
    if rules.agents and call.app.agent_id not in rules.agents:
        raise ApiError(48002)
    return rules


def _window(body: dict[str, Any], rules: ExternalPayRules) -> tuple[int, int]:
    begin_s, end_s = fields.whole(body, "begin_time"), fields.whole(body, "end_time")
    if not 0 <= begin_s <= end_s or end_s - begin_s > rules.window_s:
        raise ApiError(40035)
    return begin_s, end_s


def _merchant(call: Call, mch_id: str) -> ReceivingMerchant:
    merchant = call.corp.of(ReceivingMerchants).by_id.get(mch_id)
    if merchant is None:
        raise ApiError(660001)
    return merchant
