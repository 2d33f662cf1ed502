"""Rule groups of customer contact, managed one call at a time (fact sheet 3.3)."""

from __future__ import annotations

from typing import Any

from simulator.platform import fields
from simulator.platform.api.contacts import check_staff
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.strategies import PARTY, RIGHTS, USER, Node, Strategies, Strategy

API = Api()

_SERIAL = 1
"""Calls at once of those that write: a second one gets 45033."""


@API.post("externalcontact/customer_strategy/list", strategy=[])
def list_strategies(call: Call) -> Answer:
    """Rule groups that the app created. ``next_cursor`` is absent on the last page (fact sheet 6.10)."""
    strategies = call.corp.of(Strategies)
    found = [{"strategy_id": strategy.id} for strategy in strategies.of_app(call.app.agent_id)]
    return _page(call, "strategies", "strategy", found)


@API.post("externalcontact/customer_strategy/get")
def get_strategy(call: Call) -> Answer:
    """One of the app's rule groups, with the 21 rights in force; any other id: 40035."""
    strategy = _own(call)
    return {
        "strategy": {
            "strategy_id": strategy.id,
            "parent_id": strategy.parent,
            "strategy_name": strategy.name,
            "create_time": strategy.created_s,
            "admin_list": strategy.admins,
            "privilege": call.corp.of(Strategies).rights(strategy),
        }
    }


@API.post("externalcontact/customer_strategy/get_range", range=[])
def get_range(call: Call) -> Answer:
    """Members and departments that a rule group manages."""
    strategy = _own(call)
    found = [
        {"type": USER, "userid": which} if kind == USER else {"type": PARTY, "partyid": which}
        for kind, which in strategy.nodes
    ]
    return _page(call, f"range|{strategy.id}", "range", found)


@API.post("externalcontact/customer_strategy/create", concurrency=_SERIAL)
def create_strategy(call: Call) -> Answer:
    """A new rule group. One below another has a part of its range and the rights of it, whatever ``privilege`` says."""
    body, strategies = call.body, call.corp.of(Strategies)
    strategy = strategies.create(
        call.now_s,
        call.app.agent_id,
        name=fields.text(body, "strategy_name", required=True, max_chars=strategies.rules.name_chars),
        parent=fields.whole(body, "parent_id", default=0, least=0),
        admins=_admins(call, required=True),
        rights=_rights(body),
        nodes=_nodes(call, "range", required=True),
    )
    return {"strategy_id": strategy.id}


@API.post("externalcontact/customer_strategy/edit", concurrency=_SERIAL)
def edit_strategy(call: Call) -> Answer:
    """Replaces name, administrators and rights where given; ``range_add`` and ``range_del`` change the range."""
    body, strategies = call.body, call.corp.of(Strategies)
    strategy = _own(call)
    name = fields.text(body, "strategy_name", max_chars=strategies.rules.name_chars)
    admins = _admins(call, required=False)
    rights = _rights(body)
    come, go = _nodes(call, "range_add"), _nodes(call, "range_del")
    if come or go:
        nodes = {**strategy.nodes, **dict.fromkeys(come)}
        strategies.manage(strategy, {node: None for node in nodes if node not in go})
    strategy.name = name or strategy.name
    strategy.admins = admins or strategy.admins
    if rights:
        strategies.grant(strategy, rights)
    return {}


@API.post("externalcontact/customer_strategy/del", concurrency=_SERIAL)
def delete_strategy(call: Call) -> Answer:
    """Deletes a rule group with those below it and its tags."""
    call.corp.of(Strategies).delete(_own(call))
    return {}


def _own(call: Call) -> Strategy:
    return call.corp.of(Strategies).get(fields.whole(call.body, "strategy_id", least=1), call.app.agent_id)


def _page(call: Call, scope: str, name: str, found: list[dict[str, Any]]) -> Answer:
    most = call.corp.of(Strategies).rules.page
    limit = fields.whole(call.body, "limit", default=most, least=1, most=most)
    shown, cursor = call.page(scope, found, fields.text(call.body, "cursor"), limit)
    return {name: list(shown), **({"next_cursor": cursor} if cursor else {})}


def _admins(call: Call, *, required: bool) -> list[str]:
    most = call.corp.of(Strategies).rules.admins
    admins = fields.texts(call.body, "admin_list", required=required, most=most, too_many=40031)
    for staff_id in admins:
        check_staff(call, staff_id)
    return admins


def _rights(body: fields.Body) -> dict[str, bool]:
    given = fields.obj(body, "privilege")
    return {right: fields.flag(given, right) for right in RIGHTS if right in given}


def _nodes(call: Call, name: str, *, required: bool = False) -> list[Node]:
    """Members (60111 for an unknown one) and departments (60123); at most 100 a call."""
    found: list[Node] = []
    most = call.corp.of(Strategies).rules.nodes_a_call
    for node in fields.objects(call.body, name, required=required, most=most):
        if fields.whole(node, "type") == USER:
            staff_id = fields.text(node, "userid", required=True)
            check_staff(call, staff_id)
            found.append((USER, staff_id))
        elif node["type"] == PARTY:
            party = fields.whole(node, "partyid")
            if party not in call.corp.people.departments:
                raise ApiError(60123)
            found.append((PARTY, party))
        else:
            raise ApiError(40035)
    return found
