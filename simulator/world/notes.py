"""What staff note about customers: remark, description, company, phone numbers, tags (fact sheet 3.2, 3.3).

Notes belong to one staff member and one customer. They stay when the customer leaves (the contact remains readable) and
are gone when the staff side ends: who is added again begins with an empty page. The platform documents nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from simulator.platform.errors import ApiError
from simulator.world.corp import CorpWorld
from simulator.world.relations import ContactChange
from simulator.world.tags import TagBook

_NOTHING: tuple[str, ...] = ()


@dataclass(slots=True)
class Note:
    """One staff member's page on one customer."""

    remark: str = ""
    description: str = ""
    company: str = ""
    mobiles: Sequence[str] = _NOTHING
    picture: str = ""
    """media_id of the remark's picture."""
    tags: dict[str, None] = field(default_factory=dict)
    """Ids of corp and strategy tags, in the order of their marking; deleted ones are passed over when read."""
    personal: Sequence[str] = _NOTHING
    """Names of the staff member's own tags."""


class Notes:
    """All notes of a corp; a pair without a note has none kept."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._notes: dict[tuple[str, str], Note] = {}
        corp.happened.append(self._changed)

    def get(self, staff_id: str, customer_id: str) -> Note:
        """To be read only."""
        return self._notes.get((staff_id, customer_id), _EMPTY)

    def write(
        self,
        staff_id: str,
        customer_id: str,
        *,
        remark: str = "",
        description: str = "",
        company: str = "",
        mobiles: Sequence[str] | None = None,
        picture: str = "",
    ) -> None:
        """Overwrites what is given; empty text and None leave things as they are."""
        note = self._notes.setdefault((staff_id, customer_id), Note())
        note.remark = remark or note.remark
        note.description = description or note.description
        note.company = company or note.company
        note.picture = picture or note.picture
        if mobiles is not None:
            note.mobiles = tuple(mobile for mobile in mobiles if mobile)

    def mark(self, staff_id: str, customer_id: str, add: Iterable[str], remove: Iterable[str]) -> None:
        """Takes tags away, then adds some: a tag in both lists is there afterwards (the platform documents nothing).

        Raises ApiError 40144 when the customer would have too many; nothing is changed then.
        """
        book = self._corp.of(TagBook)
        before = self.get(staff_id, customer_id).tags
        gone = set(remove)
        after = {tag_id: None for tag_id in before if tag_id not in gone and tag_id in book.tags}
        after.update(dict.fromkeys(add))
        if len(after) > book.rules.marks_a_pair:
            raise ApiError(40144)
        if after or before:
            self._notes.setdefault((staff_id, customer_id), Note()).tags = after

    def edit_in_client(
        self,
        now_s: int,
        staff_id: str,
        customer_id: str,
        *,
        remark: str = "",
        description: str = "",
        company: str = "",
        mobiles: Sequence[str] | None = None,
        add_tags: Iterable[str] = (),
        remove_tags: Iterable[str] = (),
        personal: Sequence[str] | None = None,
    ) -> bool:
        """A staff member edits the page on their phone: edit_external_contact is called back (fact sheet 2.1).

        False when there is no such contact, or something happened to the pair less than 2 s ago. Raises ApiError 40144.
        """
        edit = ContactChange(now_s, self._corp.corp_id, staff_id, customer_id, "edit")
        if not self._corp.relations.can(edit):
            return False
        self.mark(staff_id, customer_id, add_tags, remove_tags)
        self.write(staff_id, customer_id, remark=remark, description=description, company=company, mobiles=mobiles)
        if personal is not None:
            self._notes[staff_id, customer_id].personal = tuple(dict.fromkeys(personal))
        return self._corp.happen(edit)

    def _changed(self, event: ContactChange) -> None:
        if event.change in ("delete_by_staff", "delete_by_transfer"):
            self._notes.pop((event.staff_id, event.customer_id), None)


_EMPTY = Note()
