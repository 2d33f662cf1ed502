"""Acquisition links (获客助手): who comes through them, what they cost, and what is told of it (fact sheet 2.4, 3.13).

A visitor opens the profile, asks to be a friend and, when the member's side says yes, is added with the channel as
State. Each person added that way costs one use of a balance that was paid for and expires. Where the platform's
documents are silent it is decided so: the use is spent when the friend is added, once per person and link; the package
that expires first is spent first; without balance the link takes nobody.

What concerns one link is told to the app that made it, since no other app can see the link; the balance concerns all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from simulator.world.corp import CorpWorld, Said
from simulator.world.days import day_start
from simulator.world.people import LEFT
from simulator.world.relations import MIN_GAP_S, ContactChange
from simulator.world.roster import Roster

DAY_S = 86_400
THROUGH_LINK = 16
"""add_way (fact sheet 3.2)."""
SILENT, SPOKE, UNKNOWN = 0, 1, 2
"""chat_status of a customer."""
_WHOLE_CORP, _CHOSEN = 1, 2
"""priority_type: customers go to a member who has them already, of the whole corp or of those chosen."""


class AcquisitionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``acquisition``."""

    uses: int = 1_000
    """Paid for when the world opens."""
    lasts_days: int = 730
    """Longer than a story, so that nobody is warned of what was never planned."""
    low_below: int = 20
    warn_days: tuple[int, ...] = (14, 7, 3, 2, 1)
    """Before a package expires."""
    links: int = 3_000
    """Of a corp, then 41095; the platform shows the number in its console only."""
    profile_events: bool = True
    """``open_profile`` is told to some industries only."""
    request_share: float = 0.75
    """Of the visitors: ask to be a friend."""
    request_within_s: int = 60
    accept_median_s: int = 600
    """Half of the members have accepted by then, where the link asks them to."""
    accept_share: float = 0.9
    told_messages: tuple[int, ...] = (3, 5, 10)
    """Customer messages that ``message_from_customer`` is told of."""
    chat_key_s: int = 1_800
    channel_bytes: int = 64


@dataclass(slots=True)
class Package:
    """Uses that were bought together. Seconds."""

    expires_s: int
    bought: int
    balance: int


@dataclass(slots=True)
class LinkCustomer:
    """Somebody who came through a link."""

    customer_id: str
    staff_id: str
    state: str
    received: int = 0
    """Messages the member got from them."""


@dataclass(slots=True)
class Link:
    """One link."""

    link_id: str
    agent_id: str
    """The app that made it, which alone sees it; empty: made in the console."""
    name: str
    created_s: int
    user_list: tuple[str, ...]
    department_list: tuple[int, ...] = ()
    skip_verify: bool = True
    priority_type: int = 0
    priority_userid_list: tuple[str, ...] = ()
    mark_source: bool = True
    came: dict[str, LinkCustomer] = field(default_factory=dict)
    """By external_userid, in order of coming."""
    visitors: dict[int, set[str]] = field(default_factory=dict)
    """Day → who opened the link."""
    added: dict[int, int] = field(default_factory=dict)
    """Day → new customers."""
    unavailable: bool = False
    """It was told that no member can take customers."""

    @property
    def url(self) -> str:
        return f"https://work.weixin.qq.com/ca/{self.link_id}"


@dataclass(frozen=True, slots=True)
class ChatKey:
    """What ``message_from_customer`` carries, and what it stands for. ``expires_s``: the last good second."""

    link_id: str
    agent_id: str
    staff_id: str
    customer_id: str
    state: str
    received: int
    expires_s: int


class AcquisitionBook:
    """All links of one corp, its balance, and who came."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._roster = corp.of(Roster)
        self.rules = corp.rules_of("acquisition", AcquisitionRules)
        self.links: dict[str, Link] = {}
        """Those that exist, by id."""
        self.packages: list[Package] = []
        """Those that have not expired, the first to expire first."""
        self._opened = False
        self._made = 0
        self._through: dict[tuple[str, str], str] = {}
        """(member, customer) → the link they came through last."""
        self._asking: set[tuple[str, str]] = set()
        """(link, customer) whose request is under way."""
        self._keys: dict[str, ChatKey] = {}
        corp.happened.append(self._relationship_changed)
        corp.said.append(self._said)
        self._roster.left.append(self._member_left)

    def open(self, now_s: int) -> None:
        """The package the world opens with begins to count at the first thing that happens or is asked."""
        if not self._opened:
            self._opened = True
            if self.rules.uses:
                self.buy(self.rules.uses, self.rules.lasts_days, now_s, tell=False)

    @property
    def balance(self) -> int:
        """Uses that are left."""
        return sum(package.balance for package in self.packages)

    @property
    def total(self) -> int:
        """Uses of all packages that have not expired, as they were bought."""
        return sum(package.bought for package in self.packages)

    def buy(self, uses: int, lasts_days: int, time_s: int, *, tell: bool = True) -> None:
        """The corp pays for more: they end at a midnight, and are warned of as it comes nearer."""
        self.open(time_s)
        before = self.balance
        package = Package(day_start(time_s) + lasts_days * DAY_S, uses, uses)
        self.packages.append(package)
        self.packages.sort(key=lambda p: p.expires_s)
        for days in self.rules.warn_days:
            warn_s = package.expires_s - days * DAY_S
            if warn_s > time_s:
                self._corp.schedule.at(warn_s, lambda due_s: self._warn(package, due_s))
        self._corp.schedule.at(package.expires_s, lambda due_s: self._expire(package, due_s))
        if tell:
            self._balance_changed(before, time_s)

    def create(
        self,
        name: str,
        time_s: int,
        *,
        agent_id: str = "",
        user_list: Sequence[str] = (),
        department_list: Sequence[int] = (),
        skip_verify: bool = True,
        priority_type: int = 0,
        priority_userid_list: Sequence[str] = (),
        mark_source: bool = True,
    ) -> Link | None:
        """A new link, of which nobody is told; None when the corp has as many as it may."""
        self.open(time_s)
        if len(self.links) >= self.rules.links:
            return None
        self._made += 1
        seed = f"{self._corp.seed}|{self._corp.corp_id}|link|{self._made}"
        link_id = "cawc" + hashlib.blake2b(seed.encode(), digest_size=7).hexdigest()
        link = self.links[link_id] = Link(
            link_id,
            agent_id,
            name,
            time_s,
            tuple(user_list),
            tuple(department_list),
            skip_verify,
            priority_type,
            tuple(priority_userid_list),
            mark_source,
        )
        return link

    def delete(self, link_id: str, time_s: int, *, tell: bool = True) -> bool:
        """A link ends; ``tell``: in the console. Who came through it stays."""
        link = self.links.pop(link_id, None)
        if link is None:
            return False
        if tell:
            self._tell_of(link, time_s, "delete_link")
        return True

    def visit(self, link_id: str, customer_id: str, channel: str, time_s: int, *, requests: bool | None = None) -> bool:
        """Somebody opens ``<link>?customer_channel=<channel>``; what follows, follows by itself.

        ``requests``: whether they ask to be a friend, where the story has decided that. False when the link takes
        nobody: it is gone, nobody can take customers, or there is no balance.
        """
        self.open(time_s)
        link = self.links.get(link_id)
        if link is None or customer_id not in self._corp.people.known:
            return False
        link.visitors.setdefault(day_start(time_s), set()).add(customer_id)
        if self.balance <= 0 or not self._check_available(link, time_s):
            return False
        state = channel.encode("utf-8", "ignore")[: self.rules.channel_bytes].decode("utf-8", "ignore")
        if self.rules.profile_events:
            self._tell_of(link, time_s, "open_profile", State=state)
        chance = self._corp.random("visit", link_id, customer_id, time_s)
        asks = chance.random() < self.rules.request_share if requests is None else requests
        asks_s = time_s + chance.randint(1, self.rules.request_within_s)
        if asks and (link_id, customer_id) not in self._asking:
            self._asking.add((link_id, customer_id))
            self._corp.schedule.at(asks_s, lambda due_s: self._request(link, customer_id, state, due_s))
        return True

    def members(self, link: Link) -> list[str]:
        """Whom the link leads to, in its order: the members it names, then those of its departments."""
        staff = self._corp.people.staff
        named = (userid for userid in link.user_list if userid in staff)
        departments = [d for d in link.department_list if d in self._corp.people.departments]
        return list(dict.fromkeys([*named, *(self._roster.members_of(departments) if departments else ())]))

    def chat(self, chat_key: str, agent_id: str, now_s: int) -> ChatKey | None:
        """What a key stands for; None when it is unknown to this app or too old."""
        found = self._keys.get(chat_key)
        return found if found is not None and found.agent_id == agent_id and now_s <= found.expires_s else None

    def chat_status(self, came: LinkCustomer) -> int:
        """Whether the customer has written; nobody knows of one the member lost before they did."""
        if came.received:
            return SPOKE
        pair = self._corp.relations.get(came.staff_id, came.customer_id)
        return SILENT if pair is not None and pair.staff_side else UNKNOWN

    def _available(self, link: Link, now_s: int) -> list[str]:
        staff = self._corp.people.staff
        return [u for u in self.members(link) if staff[u].may_reach(now_s) and self._roster.room(u) > 0]

    def _check_available(self, link: Link, time_s: int) -> bool:
        """Tells when the last member has become unable to take customers, once until one can again."""
        available = bool(self._available(link, time_s))
        if not available and not link.unavailable:
            self._tell_of(link, time_s, "link_unavailable")
        link.unavailable = not available
        return available

    def _request(self, link: Link, customer_id: str, state: str, due_s: int) -> None:
        staff_id = self._chosen(link, customer_id, due_s) if link.link_id in self.links else ""
        if not staff_id or self.balance <= 0:
            self._asking.discard((link.link_id, customer_id))
            return
        pair = self._corp.relations.get(staff_id, customer_id)
        if pair is not None and pair.friend:
            # They are friends: the link shows them their chat.
            self._asking.discard((link.link_id, customer_id))
            return
        self._tell_of(link, due_s, "friend_request", State=state)
        chance = self._corp.random("accepts", link.link_id, customer_id, due_s)
        if link.skip_verify:
            accepts_s = due_s + 1
        elif chance.random() < self.rules.accept_share:
            accepts_s = due_s + max(1, round(self.rules.accept_median_s * math.exp(chance.gauss(0.0, 1.0))))
        else:
            self._asking.discard((link.link_id, customer_id))
            return
        self._corp.schedule.at(accepts_s, lambda later_s: self._add(link, staff_id, customer_id, state, later_s))

    def _chosen(self, link: Link, customer_id: str, now_s: int) -> str:
        """The member a visitor is led to: one who has them already where the link says so, else any who can."""
        if link.priority_type in (_WHOLE_CORP, _CHOSEN):
            friends = {s for s, pair in self._corp.relations.followers_of(customer_id) if pair.friend}
            if link.priority_type == _CHOSEN:
                friends &= set(link.priority_userid_list)
            staff = self._corp.people.staff
            kept = [s for s in sorted(friends) if s in staff and staff[s].status != LEFT]
            if kept:
                return kept[0]
        available = self._available(link, now_s)
        return self._corp.random("led to", link.link_id, customer_id, now_s).choice(available) if available else ""

    def _add(self, link: Link, staff_id: str, customer_id: str, state: str, due_s: int) -> None:
        self._asking.discard((link.link_id, customer_id))
        if self.balance <= 0 or self._roster.room(staff_id) <= 0:
            return
        member = self._corp.people.staff.get(staff_id)
        if member is None or not member.may_reach(due_s):
            return
        event = ContactChange(
            due_s,
            self._corp.corp_id,
            staff_id,
            customer_id,
            "add",
            state=state,
            welcome=True,
            add_way=THROUGH_LINK,
        )
        if any(barred(event) for barred in self._corp.bars):
            return
        if not self._corp.relations.can(event):
            pair = self._corp.relations.get(staff_id, customer_id)
            if pair is not None and not pair.friend:
                # Something else happened to the pair in this second.
                again = partial(self._add, link, staff_id, customer_id, state)
                self._corp.schedule.at(due_s + MIN_GAP_S, again)
            return
        new = customer_id not in link.came
        # Before the change: who hears of it may look the customer up.
        link.came[customer_id] = LinkCustomer(customer_id, staff_id, state)
        self._through[staff_id, customer_id] = link.link_id
        self._corp.happen(event)
        day_s = day_start(due_s)
        link.added[day_s] = link.added.get(day_s, 0) + 1
        if new:
            self._spend(due_s)
        if self._roster.room(staff_id) <= 0 and link.link_id in self.links:
            self._check_available(link, due_s)

    def _spend(self, time_s: int) -> None:
        before = self.balance
        for package in self.packages:
            if package.balance:
                package.balance -= 1
                break
        self._balance_changed(before, time_s)

    def _expire(self, package: Package, due_s: int) -> None:
        before = self.balance
        self.packages.remove(package)
        self._balance_changed(before, due_s)

    def _warn(self, package: Package, due_s: int) -> None:
        if package.balance:
            expires, uses = str(package.expires_s), str(package.balance)
            self._tell(due_s, "quota_expire_soon", ExpireTime=expires, ExpireQuotaNum=uses)

    def _balance_changed(self, before: int, time_s: int) -> None:
        after, low = self.balance, self.rules.low_below
        if before > 0 and after == 0:
            self._tell(time_s, "balance_exhausted")
        elif before >= low > after:
            self._tell(time_s, "balance_low")
        elif before == 0 and after > 0:
            self._tell(time_s, "balance_increased")

    def _relationship_changed(self, change: ContactChange) -> None:
        self.open(change.time_s)

    def _member_left(self, userid: str, time_s: int) -> None:
        for link in self.links.values():
            if userid in link.user_list or link.department_list:
                self._check_available(link, time_s)

    def _said(self, said: Said) -> None:
        if not said.by_customer:
            return
        link = self.links.get(self._through.get((said.staff_id, said.customer_id), ""))
        came = link.came.get(said.customer_id) if link is not None else None
        if link is None or came is None or came.staff_id != said.staff_id:
            return
        came.received += 1
        if came.received == 1:
            who = {"UserID": said.staff_id, "ExternalUserID": said.customer_id}
            self._tell_of(link, said.time_s, "customer_start_chat", before=who)
        if came.received in self.rules.told_messages:
            self._tell_of(link, said.time_s, "message_from_customer", ChatKey=self._key(link, came, said.time_s))

    def _key(self, link: Link, came: LinkCustomer, time_s: int) -> str:
        while self._keys:  # in order of time: the oldest first
            oldest = next(iter(self._keys))
            if self._keys[oldest].expires_s >= time_s:
                break
            del self._keys[oldest]
        seed = f"{self._corp.seed}|{link.link_id}|{came.customer_id}|{came.received}|{time_s}"
        key = hashlib.blake2b(seed.encode(), digest_size=24).hexdigest()
        self._keys[key] = ChatKey(
            link.link_id,
            link.agent_id,
            came.staff_id,
            came.customer_id,
            came.state,
            came.received,
            time_s + self.rules.chat_key_s,
        )
        return key

    def _tell_of(
        self, link: Link, time_s: int, change: str, *, before: dict[str, str] | None = None, **more: str
    ) -> None:
        fields = {**(before or {}), "LinkId": link.link_id, **{name: value for name, value in more.items() if value}}
        self._tell(time_s, change, only_agent=link.agent_id, **fields)

    def _tell(self, time_s: int, change: str, *, only_agent: str = "", **fields: str) -> None:
        named = [("Event", "customer_acquisition"), ("ChangeType", change), *fields.items()]
        self._corp.emit(time_s, named, only_agent=only_agent)
