"""Rule groups of customer contact: who administers whose customers, with which rights (fact sheet 3.3).

A rule group below another one manages a part of what the upper one manages and has the upper one's rights. An app sees
only the groups it created.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.tags import TagBook

USER, PARTY = 1, 2
"""Type of a node of a range."""

BASE_RIGHTS = ("view_customer_list", "view_customer_data", "view_room_list", "contact_me", "join_room")
"""Every group has them; they cannot be taken away."""
RIGHTS = (
    *BASE_RIGHTS,
    "share_customer",
    "oper_resign_customer",
    "oper_resign_group",
    "send_customer_msg",
    "edit_welcome_msg",
    "view_behavior_data",
    "view_room_data",
    "send_group_msg",
    "room_deduplication",
    "rapid_reply",
    "onjob_customer_transfer",
    "edit_anti_spam_rule",
    "export_customer_list",
    "export_customer_data",
    "export_customer_group_list",
    "manage_customer_tag",
)

Node = tuple[int, str | int]
"""(USER, userid) or (PARTY, department id)."""


class StrategyRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``strategies`` of the rules (fact sheet 3.3)."""

    admins: int = 20
    nodes_a_call: int = 100
    nodes: int = 3_000
    depth: int = 5
    name_chars: int = 30
    """The platform documents no length; names of tags have this one."""
    page: int = 1_000


@dataclass(slots=True)
class Strategy:
    """One rule group. ``created_s``: epoch seconds."""

    id: int
    parent: int
    """0: none above."""
    name: str
    created_s: int
    app: str
    admins: list[str]
    rights: dict[str, bool]
    """Its own; those of a group with a parent are the parent's."""
    nodes: dict[Node, None]


class Strategies:
    """All rule groups of a corp."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("strategies", StrategyRules)
        self._corp = corp
        self._by_id: dict[int, Strategy] = {}
        self._made = 0

    def of_app(self, agent_id: str) -> list[Strategy]:
        """In order of their making."""
        return [strategy for strategy in self._by_id.values() if strategy.app == agent_id]

    def get(self, strategy_id: int, agent_id: str) -> Strategy:
        """Raises ApiError 40035 for one that is not there, or not this app's: the platform documents no code."""
        found = self._by_id.get(strategy_id)
        if found is None or found.app != agent_id:
            raise ApiError(40035)
        return found

    def rights(self, strategy: Strategy) -> dict[str, bool]:
        """All 21 of them, as they are in force."""
        while strategy.parent:
            strategy = self._by_id[strategy.parent]
        return strategy.rights

    def create(
        self,
        now_s: int,
        agent_id: str,
        *,
        name: str,
        parent: int,
        admins: list[str],
        rights: Mapping[str, bool],
        nodes: Iterable[Node],
    ) -> Strategy:
        """Raises ApiError 40035 for an unknown parent, too deep a tree, or a range beyond the parent's."""
        wanted = dict.fromkeys(nodes)
        depth = 1
        above = self.get(parent, agent_id) if parent else None
        while above is not None:
            depth += 1
            above = self._by_id.get(above.parent)
        if depth > self.rules.depth:
            raise ApiError(40035)
        self._check_nodes(parent, wanted)
        self._made += 1
        strategy = Strategy(self._made, parent, name, now_s, agent_id, admins, {}, wanted)
        self.grant(strategy, rights)
        self._by_id[strategy.id] = strategy
        return strategy

    def grant(self, strategy: Strategy, rights: Mapping[str, bool]) -> None:
        """Replaces the rights; those not named are granted, the base rights stay."""
        strategy.rights = {right: right in BASE_RIGHTS or rights.get(right, True) for right in RIGHTS}

    def manage(self, strategy: Strategy, nodes: Mapping[Node, None]) -> None:
        """Replaces the range. Raises ApiError 40035 when it goes beyond the parent's, or a group below goes beyond it.

        A range is part of the one above; what happens when the upper one shrinks the platform does not say.
        """
        self._check_nodes(strategy.parent, nodes)
        below = (child for child in self._by_id.values() if child.parent == strategy.id)
        if not all(self._within(child.nodes, nodes) for child in below):
            raise ApiError(40035)
        strategy.nodes = dict(nodes)

    def delete(self, strategy: Strategy) -> None:
        """Takes the groups below and its tags along; the platform documents nothing of them."""
        for child in [child for child in self._by_id.values() if child.parent == strategy.id]:
            self.delete(child)
        book = self._corp.of(TagBook)
        book.delete((), book.shown(strategy.id))
        del self._by_id[strategy.id]

    def covers(self, strategy_id: int, staff_id: str) -> bool:
        """Whether a staff member is in the range of a rule group that exists."""
        return self._within([(USER, staff_id)], self._by_id[strategy_id].nodes)

    def _check_nodes(self, parent: int, nodes: Mapping[Node, None]) -> None:
        if not nodes or len(nodes) > self.rules.nodes:
            raise ApiError(40035)
        if parent and not self._within(nodes, self._by_id[parent].nodes):
            raise ApiError(40035)

    def _within(self, nodes: Iterable[Node], outer: Mapping[Node, None]) -> bool:
        return all(node in outer or any((PARTY, party) in outer for party in self._parties(node)) for node in nodes)

    def _parties(self, node: Node) -> list[int]:
        """Departments a node is in, all the way up."""
        people = self._corp.people
        kind, which = node
        waiting = list(people.staff[str(which)].departments) if kind == USER else [int(which)]
        found: list[int] = []
        while waiting:
            party = people.departments.get(waiting.pop())
            if party is not None and party.id not in found:
                found.append(party.id)
                waiting.append(party.parent)
        return found
