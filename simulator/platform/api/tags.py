"""Corp tags and strategy tags, managed (fact sheet 3.3, 6.18). Nothing written here is called back (1.7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from simulator.platform import fields
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.strategies import Strategies
from simulator.world.tags import Tag, TagBook, TagGroup

API = Api()

T = TypeVar("T", bound=Tag | TagGroup)

_IDS = 1_000
"""Ids a list of tags or groups may have (41111)."""


@API.post("externalcontact/get_corp_tag_list", tag_group=[])
def get_corp_tag_list(call: Call) -> Answer:
    """All tags, or those asked for by id, deleted ones too; group ids win over tag ids. An unknown id: 40068."""
    return {"tag_group": _listed(call, [0])}


@API.post("externalcontact/add_corp_tag")
def add_corp_tag(call: Call) -> Answer:
    """New tags in the group of this id or name; answers with the group and the tags that were made.

    Errors: 40068 unknown group, 40071 a name the group has, 40072 an empty or too long one, 40058 neither group nor
    tags given, 40126 too many tags.
    """
    _check_agent(call)
    return {"tag_group": _add(call, 0)}


@API.post("externalcontact/edit_corp_tag")
def edit_corp_tag(call: Call) -> Answer:
    """Another name or order for a tag or group of the app's own; of somebody else: 92000."""
    _check_agent(call)
    _edit(call, strategic=False)
    return {}


@API.post("externalcontact/del_corp_tag")
def del_corp_tag(call: Call) -> Answer:
    """Deletes tags and groups of the app's own, all or none; a group goes with its last tag."""
    _check_agent(call)
    _delete(call, strategic=False)
    return {}


@API.post("externalcontact/get_strategy_tag_list", tag_group=[])
def get_strategy_tag_list(call: Call) -> Answer:
    """Tags of one rule group, or of all those of the app; the rest as get_corp_tag_list."""
    strategies, own = call.corp.of(Strategies), call.app.agent_id
    strategy_id = fields.whole(call.body, "strategy_id", default=0, least=0)
    of = [strategies.get(strategy_id, own)] if strategy_id else strategies.of_app(own)
    return {"tag_group": _listed(call, [strategy.id for strategy in of])}


@API.post("externalcontact/add_strategy_tag")
def add_strategy_tag(call: Call) -> Answer:
    """New tags for one rule group, which must be the app's own (40035)."""
    strategy_id = fields.whole(call.body, "strategy_id", least=1)
    call.corp.of(Strategies).get(strategy_id, call.app.agent_id)
    return {"tag_group": _add(call, strategy_id)}


@API.post("externalcontact/edit_strategy_tag")
def edit_strategy_tag(call: Call) -> Answer:
    """As edit_corp_tag, for tags of rule groups."""
    _edit(call, strategic=True)
    return {}


@API.post("externalcontact/del_strategy_tag")
def del_strategy_tag(call: Call) -> Answer:
    """As del_corp_tag, for tags of rule groups."""
    _delete(call, strategic=True)
    return {}


def _check_agent(call: Call) -> None:
    """``agentid`` says for which app; a token speaks for one only, so any other is 301002, a nonsense one 40056."""
    given = fields.whole(call.body, "agentid", default=0)
    if given < 0:
        raise ApiError(40056)
    if given and str(given) != call.app.agent_id:
        raise ApiError(301002)


def _listed(call: Call, scopes: list[int]) -> list[dict[str, Any]]:
    """``scopes``: ids of the rule groups whose tags can be seen, 0 for the corp's. Raises ApiError 40068."""
    book = call.corp.of(TagBook)
    group_ids = fields.texts(call.body, "group_id", most=_IDS, too_many=41111)
    tag_ids = fields.texts(call.body, "tag_id", most=_IDS, too_many=41111)
    if not group_ids and not tag_ids:
        return [_shown(group, group.shown()) for scope in scopes for group in book.shown(scope)]
    wanted: dict[str, tuple[TagGroup, list[Tag]]] = {}
    for group_id in group_ids:
        group = _seen(book.group(group_id, or_gone=True), scopes)
        wanted[group_id] = group, [*group.shown(), *group.gone.values()]
    for tag_id in () if group_ids else tag_ids:
        tag = book.tag(tag_id, or_gone=True)
        group = _seen(tag.group if tag is not None else None, scopes)
        if tag is not None:
            wanted.setdefault(group.id, (group, []))[1].append(tag)
    return [_shown(group, tags, by_id=True) for group, tags in wanted.values()]


def _seen(group: TagGroup | None, scopes: list[int]) -> TagGroup:
    if group is None or group.strategy_id not in scopes:
        raise ApiError(40068)
    return group


def _shown(group: TagGroup, tags: Iterable[Tag], *, by_id: bool = False) -> dict[str, Any]:
    """A group with some of its tags; whether they are deleted is said to those who asked by id."""
    shown: dict[str, Any] = {
        "group_id": group.id,
        "group_name": group.name,
        "create_time": group.created_s,
        "order": group.order,
    }
    if group.strategy_id:
        shown["strategy_id"] = group.strategy_id
    if by_id:
        shown["deleted"] = group.deleted
    shown["tag"] = [
        {
            "id": tag.id,
            "name": tag.name,
            "create_time": tag.created_s,
            "order": tag.order,
            **({"deleted": tag.deleted} if by_id else {}),
        }
        for tag in tags
    ]
    return shown


def _add(call: Call, strategy_id: int) -> dict[str, Any]:
    body, book = call.body, call.corp.of(TagBook)
    group_id, group_name = fields.text(body, "group_id"), fields.text(body, "group_name")
    order = _order(book, body) if body.get("order") is not None else None
    tags = [
        (fields.text(tag, "name"), _order(book, tag))
        for tag in fields.objects(body, "tag", required=True, most=book.rules.most_tags, too_many=41111)
    ]
    if not group_id and not group_name:
        raise ApiError(40058)
    group = _seen(book.group(group_id), [strategy_id]) if group_id else None
    group, made = book.add(
        call.now_s,
        tags,
        app=call.app.agent_id,
        group=group,
        group_name=group_name,
        order=order,
        strategy_id=strategy_id,
    )
    return _shown(group, made)


def _order(book: TagBook, of: fields.Body) -> int:
    return fields.whole(of, "order", default=0, least=0, most=book.rules.most_order)


def _edit(call: Call, *, strategic: bool) -> None:
    body, book = call.body, call.corp.of(TagBook)
    an_id, name = fields.text(body, "id", required=True), fields.text(body, "name")
    order = _order(book, body) if body.get("order") is not None else None
    found: Tag | TagGroup | None = book.tag(an_id) or book.group(an_id)
    what = _existing(found, strategic)
    _check_own(call, what)
    if name:
        book.rename(what, name)
    if order is not None:
        what.order = order


def _delete(call: Call, *, strategic: bool) -> None:
    body, book = call.body, call.corp.of(TagBook)
    tag_ids = fields.texts(body, "tag_id", most=_IDS, too_many=41111)
    group_ids = fields.texts(body, "group_id", most=_IDS, too_many=41111)
    if not tag_ids and not group_ids:
        raise ApiError(41111)
    tags = [_existing(book.tag(tag_id), strategic) for tag_id in tag_ids]
    groups = [_existing(book.group(group_id), strategic) for group_id in group_ids]
    for group in groups:
        _check_own(call, group)
    # A group that others have put tags into is not one app's to take away.
    for tag in (*tags, *(tag for group in groups for tag in group.tags.values())):
        _check_own(call, tag)
    book.delete(tags, groups)


def _existing(what: T | None, strategic: bool) -> T:
    if what is None or bool((what.group if isinstance(what, Tag) else what).strategy_id) != strategic:
        raise ApiError(40068)
    return what


def _check_own(call: Call, what: Tag | TagGroup) -> None:
    if what.app != call.app.agent_id:
        raise ApiError(92000)
