"""Who is there: staff in departments, and customers, whose attributes follow from the seed and their id alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

ACTIVE, DISABLED, NOT_ACTIVATED, LEFT = 1, 2, 4, 5
"""Status of a staff member (fact sheet 2.7)."""

_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = "伟芳娜敏静强磊军洋勇艳杰娟涛明超霞平刚英华文玲辉健"


@dataclass(slots=True)
class Staff:
    """A member of a corp. Times in epoch seconds."""

    userid: str
    name: str
    departments: tuple[int, ...] = (1,)
    status: int = ACTIVE
    left_s: int = 0
    """When they left; 0: still here."""
    joined_s: int = 0
    """When the account was made; 0: long ago. New accounts are watched more closely (fact sheet 5.6)."""
    last_login_s: int = 0
    """0: logs in as people do; else the last time they did (a year without: 40205)."""
    banned_until_s: int = 0
    """The platform has taken customer functions away until then (fact sheet 5.6)."""
    banned: bool = False
    """For good, or until somebody lifts it."""
    contact_cap: int = 0
    """Customers this member may have; 0: the corp's rule (fact sheet 5.2)."""

    def may_reach(self, now_s: int) -> bool:
        """Active and not banned."""
        return self.status == ACTIVE and not self.banned and now_s >= self.banned_until_s


@dataclass(frozen=True, slots=True)
class Customer:
    """What the platform shows of a person."""

    external_userid: str
    name: str
    gender: int
    unionid: str
    avatar: str
    type: int = 1
    """1 WeChat, 2 WeCom."""
    corp_name: str = ""
    """Type 2 only."""


@dataclass(frozen=True, slots=True)
class Department:
    """A node of the corp's tree; 1 is the root."""

    id: int
    name: str
    parent: int


@dataclass(slots=True)
class People:
    """Staff and customers of one corp.

    ``known`` answers whether an external_userid exists; with millions of customers that is arithmetic, not a set.
    """

    seed: int
    staff: dict[str, Staff]
    known: Container[str]
    departments: dict[int, Department] = field(default_factory=dict)
    customer_of: Callable[[str], Customer] | None = None
    """Instead of the attributes made here: worlds that plant identities know better."""
    id_of_unionid: Callable[[str], str | None] | None = None
    """The customer of a unionid, where that can be told without a search through all of them."""

    @classmethod
    def of_ids(cls, seed: int, staff_ids: Iterable[str], known: Container[str]) -> People:
        """Staff of one department, named after their ids."""
        return cls(
            seed,
            {userid: Staff(userid, "店员" + userid[-3:]) for userid in staff_ids},
            known,
            {1: Department(1, "零售", 0)},
        )

    @property
    def serving(self) -> Sequence[str]:
        """Staff with customer contact, who have not left."""
        return [userid for userid, member in self.staff.items() if member.status != LEFT]

    def customer(self, external_userid: str) -> Customer:
        """What anybody with a right to may see of a customer that exists."""
        if self.customer_of is not None:
            return self.customer_of(external_userid)
        digest = hashlib.blake2b(f"{self.seed}|{external_userid}".encode(), digest_size=16).digest()
        return Customer(
            external_userid,
            _SURNAMES[digest[0] % len(_SURNAMES)] + _GIVEN[digest[1] % len(_GIVEN)] + _GIVEN[digest[2] % len(_GIVEN)],
            digest[3] % 3,
            "oz" + digest[4:].hex(),
            f"https://avatar.example/{digest[4:8].hex()}/0",
        )

    def openid(self, external_userid: str, appid: str) -> str:
        """The person's openid at an official account or mini program."""
        unionid = self.customer(external_userid).unionid
        return "o" + hashlib.blake2b(f"{appid}|{unionid}".encode(), digest_size=13).hexdigest() + "A"
