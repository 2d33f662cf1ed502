"""Corp tags and strategy tags: groups of named tags, who made them, and what becomes of them (fact sheet 3.3, 6.18).

Group names are unique in a corp (strategy tags: in their strategy), tag names in their group, no group is empty, and an
app changes only what it made. What people change in the console is called back (2.3); what apps change is not (1.7).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.opaque import opaque_id

CONSOLE = ""
"""Stands for the agent id of who made a tag, when a person did."""


class TagRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``tags`` of the rules (fact sheet 3.3)."""

    most_tags: int = 10_000
    """Corp tags; strategy tags have as many again for each strategy, the platform documents no number for them."""
    name_chars: int = 30
    marks_a_pair: int = 3_000
    """Tags that one staff member may have put on one customer."""
    marks_a_call: int = 1_000
    most_order: int = 2**32 - 1


@dataclass(slots=True)
class Tag:
    """One tag. ``order``: the greater, the earlier it is shown."""

    id: str
    name: str
    order: int
    created_s: int
    app: str
    """Agent id of the app that made it, or CONSOLE."""
    group: TagGroup
    deleted: bool = False


@dataclass(slots=True)
class TagGroup:
    """A group and its tags by id, in order of their making."""

    id: str
    name: str
    order: int
    created_s: int
    app: str
    strategy_id: int = 0
    """0: corp tags."""
    tags: dict[str, Tag] = field(default_factory=dict)
    gone: dict[str, Tag] = field(default_factory=dict)
    """Deleted ones: they can still be asked for by id."""
    deleted: bool = False

    def shown(self) -> list[Tag]:
        """Its tags as they are shown: the greatest order first, then the oldest."""
        return sorted(self.tags.values(), key=lambda tag: -tag.order)

    def named(self, name: str) -> Tag | None:
        """The tag of this name."""
        return next((tag for tag in self.tags.values() if tag.name == name), None)


class TagBook:
    """All tags of a corp. Times are epoch seconds; orders run from 0 to 2^32 - 1."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("tags", TagRules)
        self.groups: dict[str, TagGroup] = {}
        """Those that exist, by id, in order of their making."""
        self.tags: dict[str, Tag] = {}
        """Those that exist, by id."""
        self._corp = corp
        self._gone_groups: dict[str, TagGroup] = {}
        self._gone_tags: dict[str, Tag] = {}
        self._made = 0
        self._count: dict[int, int] = {}

    def shown(self, strategy_id: int = 0) -> list[TagGroup]:
        """The groups of the corp (or of one strategy) as they are shown: the greatest order first, then the oldest."""
        of_it = (group for group in self.groups.values() if group.strategy_id == strategy_id)
        return sorted(of_it, key=lambda group: -group.order)

    def group(self, group_id: str, *, or_gone: bool = False) -> TagGroup | None:
        """The group; ``or_gone``: also a deleted one."""
        found = self.groups.get(group_id)
        return found or (self._gone_groups.get(group_id) if or_gone else None)

    def tag(self, tag_id: str, *, or_gone: bool = False) -> Tag | None:
        """The tag; ``or_gone``: also a deleted one."""
        found = self.tags.get(tag_id)
        return found or (self._gone_tags.get(tag_id) if or_gone else None)

    def add(
        self,
        now_s: int,
        names: Sequence[tuple[str, int]],
        *,
        app: str,
        group: TagGroup | None = None,
        group_name: str = "",
        order: int | None = None,
        strategy_id: int = 0,
    ) -> tuple[TagGroup, list[Tag]]:
        """New tags (name, order) in ``group``, or in the group of this name, which is made when there is none.

        ``order`` is the group's, taken from who made it only. Names given twice make one tag. Raises ApiError 40071 for
        a name the group has, 40072 for an empty or too long one, 40126 for too many tags; nothing is made then.
        """
        wanted = dict(reversed(names))  # of those that say a name twice the first counts
        wanted = {name: wanted[name] for name, _ in names}
        if group is None:
            group = next(
                (g for g in self.groups.values() if (g.strategy_id, g.name) == (strategy_id, group_name)), None
            )
        if group is None:
            self.check_name(group_name)
        for name in wanted:
            self.check_name(name)
            if group is not None and group.named(name) is not None:
                raise ApiError(40071)
        if not wanted:
            raise ApiError(40063)
        if self._count.get(strategy_id, 0) + len(wanted) > self.rules.most_tags:
            raise ApiError(40126)
        if group is None:
            group = TagGroup(self._id(strategy_id), group_name, order or 0, now_s, app, strategy_id)
            self.groups[group.id] = group
        elif order is not None and group.app == app:
            group.order = order
        made = [Tag(self._id(strategy_id), name, at, now_s, app, group) for name, at in wanted.items()]
        for tag in made:
            group.tags[tag.id] = self.tags[tag.id] = tag
        self._count[strategy_id] = self._count.get(strategy_id, 0) + len(made)
        return group, made

    def rename(self, what: Tag | TagGroup, name: str) -> None:
        """Raises ApiError 40071 when another one has the name, 40072 for an empty or too long one."""
        if name == what.name:
            return
        self.check_name(name)
        if isinstance(what, Tag):
            taken = what.group.named(name) is not None
        else:
            taken = any((g.strategy_id, g.name) == (what.strategy_id, name) for g in self.groups.values())
        if taken:
            raise ApiError(40071)
        what.name = name

    def delete(self, tags: Iterable[Tag], groups: Iterable[TagGroup]) -> list[TagGroup]:
        """Deletes; returns the groups that went, those included that lost their last tag."""
        went: list[TagGroup] = []
        for tag in tags:
            if not tag.deleted:
                self._drop(tag)
                if not tag.group.tags:
                    went.append(self._drop_group(tag.group))
        for group in groups:
            if not group.deleted:
                for tag in list(group.tags.values()):
                    self._drop(tag)
                went.append(self._drop_group(group))
        return went

    def check_name(self, name: str) -> None:
        """Raises ApiError 40072 for an empty or too long name."""
        if not 0 < len(name) <= self.rules.name_chars:
            raise ApiError(40072)

    # What people do in the console, with its callbacks (fact sheet 2.3). StrategyId is sent to the platform's own
    # customer-contact app only, so none of our apps is told it.

    def create_in_console(
        self, now_s: int, group_name: str, names: Sequence[str], *, strategy_id: int = 0
    ) -> tuple[TagGroup, list[Tag]]:
        """New tags; one event for the group if it is new, and one for each tag. Raises as :meth:`add`."""
        known = set(self.groups)
        group, made = self.add(
            now_s, [(name, 0) for name in names], app=CONSOLE, group_name=group_name, strategy_id=strategy_id
        )
        if group.id not in known:
            self._tell(now_s, group, "create")
        for tag in made:
            self._tell(now_s, tag, "create")
        return group, made

    def edit_in_console(self, now_s: int, what: Tag | TagGroup, name: str) -> None:
        """A new name, with its event. Raises as :meth:`rename`."""
        self.rename(what, name)
        self._tell(now_s, what, "update")

    def delete_in_console(self, now_s: int, what: Tag | TagGroup) -> None:
        """One event. A group takes its tags along silently.

        The platform documents nothing of the group whose last tag is deleted: here its own event follows the tag's.
        """
        if isinstance(what, TagGroup):
            self.delete((), (what,))
            self._tell(now_s, what, "delete")
            return
        went = self.delete((what,), ())
        self._tell(now_s, what, "delete")
        for group in went:
            self._tell(now_s, group, "delete")

    def shuffle_in_console(self, now_s: int, ids: Sequence[str], *, group: TagGroup | None = None) -> None:
        """Puts the tags of a group, or all groups, into the order of ``ids``; one event, whose Id is the group's."""
        place = {an_id: len(ids) - n for n, an_id in enumerate(ids)}
        things: Iterable[Tag | TagGroup] = group.tags.values() if group is not None else self.groups.values()
        for thing in things:
            thing.order = place.get(thing.id, 0)
        self._corp.emit(
            now_s,
            [("Event", "change_external_tag"), ("Id", group.id if group else ""), ("ChangeType", "shuffle")],
        )

    def _tell(self, now_s: int, what: Tag | TagGroup, change: str) -> None:
        kind = "tag" if isinstance(what, Tag) else "tag_group"
        self._corp.emit(
            now_s,
            [("Event", "change_external_tag"), ("Id", what.id), ("TagType", kind), ("ChangeType", change)],
        )

    def _id(self, strategy_id: int) -> str:
        self._made += 1
        return opaque_id(self._corp, "st" if strategy_id else "et", self._made)

    def _drop(self, tag: Tag) -> None:
        tag.deleted = True
        del self.tags[tag.id]
        del tag.group.tags[tag.id]
        self._gone_tags[tag.id] = tag.group.gone[tag.id] = tag
        self._count[tag.group.strategy_id] -= 1

    def _drop_group(self, group: TagGroup) -> TagGroup:
        group.deleted = True
        del self.groups[group.id]
        self._gone_groups[group.id] = group
        return group
