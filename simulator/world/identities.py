"""Who is who behind the ids: unionid, phone and membership number of every customer, with planted doubles.

A *twin* is a second customer id of a person who has a first one: the two share exactly one sign (unionid, phone or
membership number), so that whoever merges people has something to find. A *shared phone* belongs to two people who are
not the same: a family's, and a trap for who merges by phone alone. Everything is arithmetic over the customer's index;
nothing is kept but the few planted cases. The platform says of a person what ``People.customer`` says; phones and
membership numbers are known to tills, remarks and shops, and to the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from simulator.world.idspace import IdSpace, NumberSpace, generator, key_of, stirred
from simulator.world.people import Customer

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sign = Literal["unionid", "phone", "member_number"]
SIGNS: tuple[Sign, ...] = ("unionid", "phone", "member_number")

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_GIVEN = "伟芳娜敏静强磊军洋勇艳杰娟涛明超霞平刚英华文玲辉健丽波桂兰鹏宇琳欣雨晨浩凯悦婷佳怡"


class Identified(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares of customers."""

    twins: Share = 0.004
    """Are the second id of somebody who has another."""
    shared_phones: Share = 0.002
    """Have the phone of somebody else."""
    phone_known: Share = 0.6
    member: Share = 0.4
    """Hold a membership card."""
    wecom: Share = 0.01
    """Use WeCom themselves (type 2): no unionid."""

    def __post_init__(self) -> None:
        if self.twins + self.shared_phones > 0.5:
            raise ValueError("twins and shared_phones: half of the customers at most")


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of one customer; empty where nothing is."""

    unionid: str
    phone: str
    member_number: str


class Identities:
    """The people of one corp. Customers are indexes below ``size``; the last of the first ``friends`` are planted."""

    def __init__(self, seed: int, corp_id: str, ids: IdSpace, *, friends: int, size: int, rates: Identified) -> None:
        self.ids = ids
        self.size = size
        self._rates = rates
        twins, phones = round(friends * rates.twins), round(friends * rates.shared_phones)
        plain = friends - twins - phones
        if plain < twins + phones:  # too few people for anybody to have a double
            twins, phones, plain = 0, 0, friends
        self._first_phone, self._first_twin, self._friends = plain, plain + phones, friends
        chance = generator(seed, corp_id, "identities")
        self._others = chance.choice(plain, size=twins + phones, replace=False) if twins + phones else np.empty(0, "i8")
        self._signs = chance.integers(0, len(SIGNS), size=twins)
        self._key = key_of(seed, corp_id, "people")
        group = IdSpace(key_of(seed, "union"), prefix="", words=1).id(key_of(seed) & 0xFFFF)[:6]
        self._unionids = IdSpace(key_of(seed, corp_id, "unionid"), prefix="oz" + group, words=2)
        self._phones = NumberSpace(key_of(seed, corp_id, "phone"), "199")
        self._members = NumberSpace(key_of(seed, corp_id, "member"), "6")
        self._shared = {"phone": set(self._others[:phones].tolist())}
        for sign in SIGNS:
            of_twins = self._others[phones:][self._signs == SIGNS.index(sign)]
            self._shared[sign] = self._shared.get(sign, set()) | set(of_twins.tolist())

    def customer(self, external_userid: str) -> Customer:
        """What the platform shows (``People.customer_of``); the id must be one of the corp's."""
        index = self.ids.index(external_userid)
        if index is None:
            raise KeyError(external_userid)
        bits = self._bits(self.person(index), "looks")
        wecom = self._is_wecom(index)
        name = _SURNAMES[bits % len(_SURNAMES)] + _GIVEN[(bits >> 8) % len(_GIVEN)]
        if bits >> 16 & 3:
            name += _GIVEN[(bits >> 20) % len(_GIVEN)]
        return Customer(
            external_userid,
            name,
            (bits >> 28) % 3,
            "" if wecom else self.signs(index).unionid,
            f"https://avatar.example/{bits:016x}/0",
            2 if wecom else 1,
            f"第{bits % 997}贸易公司" if wecom else "",
        )

    def signs(self, index: int) -> Signs:
        """What ties a customer to other records."""
        own: dict[Sign, int] = dict.fromkeys(SIGNS, index)
        planted: Sign | None = None
        if self._first_phone <= index < self._friends:
            planted = "phone"
            if index >= self._first_twin:
                planted = SIGNS[self._signs[index - self._first_twin]]
            own[planted] = int(self._others[index - self._first_phone])
        # Both sides of a planted case show the sign they share, or nobody could find it.
        phone = planted == "phone" or index in self._shared["phone"] or self._has(index, "phone")
        card = planted == "member_number" or index in self._shared["member_number"] or self._has(index, "card")
        return Signs(
            "" if self._is_wecom(index) else self._unionids.id(own["unionid"]),
            self._phones.number(own["phone"]) if phone else "",
            self._members.number(own["member_number"]) if card else "",
        )

    def index_of_unionid(self, unionid: str) -> int | None:
        """The (first) customer with this unionid; None when there is none."""
        index = self._unionids.index(unionid)
        return index if index is not None and index < self.size else None

    def person(self, index: int) -> int:
        """The first index of the person behind a customer."""
        twin = self._first_twin <= index < self._friends
        return int(self._others[index - self._first_phone]) if twin else index

    def planted(self) -> Iterator[tuple[int, int, Sign, bool]]:
        """(customer, other customer, the sign they share, whether they are the same person)."""
        for index in range(self._first_phone, self._friends):
            other = int(self._others[index - self._first_phone])
            if index < self._first_twin:
                yield index, other, "phone", False
            else:
                yield index, other, SIGNS[self._signs[index - self._first_twin]], True

    def truth(self) -> dict[str, Any]:
        """Every planted case, by columns; what nobody can find is left out."""
        rows = list(self.planted())
        return {
            "customer_id": self.ids.ids(np.array([row[0] for row in rows], dtype="i8")),
            "other_id": self.ids.ids(np.array([row[1] for row in rows], dtype="i8")),
            "sign": [row[2] for row in rows],
            "same_person": [row[3] for row in rows],
        }

    def _is_wecom(self, index: int) -> bool:
        planted = self._first_phone <= index < self._friends
        return not planted and index not in self._shared["unionid"] and self._chance(index, "wecom") < self._rates.wecom

    def _has(self, index: int, what: Literal["phone", "card"]) -> bool:
        return self._chance(index, what) < (self._rates.phone_known if what == "phone" else self._rates.member)

    def _chance(self, index: int, what: str) -> float:
        return (self._bits(index, what) >> 11) * 2.0**-53

    def _bits(self, index: int, what: str) -> int:
        return stirred(self._key ^ stirred(index + _PURPOSES[what]))


_PURPOSES = {what: number << 40 for number, what in enumerate(("looks", "wecom", "phone", "card"), start=1)}
