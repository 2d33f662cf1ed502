"""A world that has been going on for years before the story begins: who knows whom, since when, through which channel.

Twenty thousand staff and eight million customers take some 200 MB of columns and half a minute. A customer is an index:
first the friends of the opening, then people who are in groups only, then those who will come later; ids, names and
traits follow by arithmetic (``idspace.py``, ``identities.py``). Columns know times as days before the story's first
midnight, so that they are made once per process, whenever the story begins. Times are epoch seconds, days Beijing's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from simulator.world.identities import Identified, Identities, Share
from simulator.world.idspace import Ids, IdSpace, KnownIds, generator, key_of
from simulator.world.people import Department, People, Staff
from simulator.world.relations import Episode, Relationship
from siyu.events.business_time import business_day_start_ms

DAY_S = 86_400
_MOST_CUSTOMERS = 50_000_000
_MOST_PER_STAFF = 20_000
"""Friends of one member, which no popularity exceeds (fact sheet 5.2)."""

_ADD_WAYS = {"live_code": 1, "parcel_card": 1, "video_account": 10, "acquisition_link": 16, "counter": 1, "card": 3}
Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_CUSTOMERS)]
Kind = Literal["live_code", "parcel_card", "video_account", "acquisition_link", "counter", "card"]


_COUNTS = ("staff", "customers", "newcomers", "group_only")


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A way in which customers find staff."""

    kind: Kind
    share: Share
    """Of the adds; shares of all channels are made to sum up to 1."""
    state: Annotated[str, msgspec.Meta(max_length=30)] = ""
    """What callbacks carry, ``{number}`` and ``{store}`` filled in; at most 30 characters (fact sheet 3.3)."""
    numbers: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 1
    """So many codes, batches or links of the kind."""
    welcome: Share = 0.9
    """Of the adds come with a welcome code; the others meet a console welcome or a chat that has begun."""

    def __post_init__(self) -> None:
        try:
            longest = self.state.format(number=self.numbers, store=99_999)
        except (KeyError, IndexError, ValueError):
            raise ValueError("state: only {number} and {store} are filled in") from None
        if len(longest) > 30:
            raise ValueError("state: longer than 30 characters once filled in")

    @property
    def add_way(self) -> int:
        """Fact sheet 3.2."""
        return _ADD_WAYS[self.kind]


class Population(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is there when the story begins, over all corps."""

    staff: Annotated[int, msgspec.Meta(ge=1, le=99_999)]
    customers: Count
    """Friends of somebody."""
    newcomers: Count = 0
    """Not known yet: those who may come during the story."""
    group_only: Count = 0
    """In customer groups, and nobody's friend."""
    group_size: Annotated[int, msgspec.Meta(ge=3, le=500)] = 120
    """Members of a group; half of its customers are nobody's friend, as long as there are such people."""
    staff_per_store: Annotated[int, msgspec.Meta(ge=1)] = 10
    stores_per_region: Annotated[int, msgspec.Meta(ge=1)] = 100
    popularity_spread: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.7
    """Sigma of the logarithm of how many customers a member has."""
    second_share: Share = 0.12
    """Of customers have a second staff member too,"""
    third_share: Share = 0.02
    """and of all a third."""
    colleague_share: Share = 0.7
    """Of second and third ones are of the same store."""
    years: Annotated[float, msgspec.Meta(gt=0, le=10)] = 3.0
    """How long ago the first add was; there were more from year to year."""
    identities: Identified = Identified()

    def __post_init__(self) -> None:
        if self.third_share > self.second_share:
            raise ValueError("third_share: not above second_share")
        if self.customers + self.newcomers + self.group_only > _MOST_CUSTOMERS:
            raise ValueError(f"more than {_MOST_CUSTOMERS} people")

    def scaled(self, scale: float) -> Population:
        """A part of it, or a multiple; whoever there was stays one at least."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return msgspec.structs.replace(
            self, **{name: max(1, round(count * scale)) if count else 0 for name, count in counts.items()}
        )

    def of_corp(self, number: int, corps: int) -> Population:
        """What corp ``number`` of so many has of it: equal parts, and one staff member at least."""
        parts = {name: _part(getattr(self, name), number, corps) for name in _COUNTS}
        return msgspec.structs.replace(self, **{**parts, "staff": max(1, parts["staff"])})


def _part(count: int, number: int, parts: int) -> int:
    return count // parts + (number < count % parts)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Channels picked for many adds."""

    kinds: npt.NDArray[np.uint8]
    """Position among the channels."""
    numbers: npt.NDArray[np.uint16]


class Channels:
    """The channels of a scenario, picked by their shares."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.all = tuple(channels)
        shares = np.array([channel.share for channel in self.all])
        self._edges = np.cumsum(shares / shares.sum())
        self._counts = np.array([channel.numbers for channel in self.all])

    def pick(self, chance: np.random.Generator, count: int) -> Chosen:
        """Channels for ``count`` adds."""
        kinds = np.minimum(np.searchsorted(self._edges, chance.random(count)), len(self.all) - 1)
        numbers = (chance.random(count) * self._counts[kinds]).astype(np.uint16)
        return Chosen(kinds.astype(np.uint8), numbers)

    def state(self, kind: int, number: int, store: int) -> str:
        """What the callback carries."""
        return self.all[kind].state.format(number=number + 1, store=store + 1)


@dataclass(frozen=True)
class Columns:
    """One corp's acquaintances by position, in order of (staff member, customer id)."""

    population: Population
    channels: Channels
    staff_ids: tuple[str, ...]
    ids: IdSpace
    first_of_staff: npt.NDArray[np.int64]
    """Where each staff member's positions begin; one more at the end."""
    customers: npt.NDArray[np.int32]
    staff: npt.NDArray[np.int32]
    before_s: npt.NDArray[np.uint32]
    """Seconds from the add to the story's first midnight."""
    kinds: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.uint16]
    first_of_customer: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    """By customer, and then staff member: where the pair is found."""
    popularity: npt.NDArray[np.float64]
    """By staff member: cumulated weights."""

    @property
    def size(self) -> int:
        """Customers who exist or will: their indexes are below it."""
        return self.population.customers + self.population.group_only + self.population.newcomers

    def store_of(self, staff: int) -> int:
        """Number of a staff member's store, from 0."""
        return staff // self.population.staff_per_store

    def colleague(self, chance: np.random.Generator, staff: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Somebody of each one's store, who may be the same person again."""
        return _colleagues(chance, staff, self.population.staff_per_store, len(self.staff_ids))


def make_columns(
    seed: int, corp_id: str, population: Population, channels: Sequence[Channel], *, first_number: int = 1
) -> Columns:
    """Decides who knows whom. ``first_number``: of the corp's first staff member, whose id is made of it."""
    chance = generator(seed, corp_id, "opening")
    staff_count, customer_count = population.staff, population.customers
    ids = IdSpace(key_of(seed, corp_id, "customer"), prefix="wm", words=3)
    popularity = _popularity(chance, population)

    first = _popular(chance, popularity, customer_count)
    with_second = np.flatnonzero(chance.random(customer_count) < population.second_share).astype(np.int32)
    with_third = with_second[chance.random(len(with_second)) * population.second_share < population.third_share]
    staff_parts, customer_parts = [first], [np.arange(customer_count, dtype=np.int32)]
    for people in (with_second, with_third):
        anybody = _popular(chance, popularity, len(people))
        colleague = _colleagues(chance, first[people], population.staff_per_store, staff_count)
        near = chance.random(len(people)) < population.colleague_share
        staff_parts.append(np.where(near, colleague, anybody).astype(np.int32))
        customer_parts.append(people)
    staff = np.concatenate(staff_parts)
    customers = np.concatenate(customer_parts)
    del first, staff_parts, customer_parts

    # One number holds staff member and the order of ids: a single sort, of what would be 9 million tuples.
    order = np.lexsort((ids.order(customers), staff))
    staff, customers = staff[order], customers[order]
    del order
    if len(staff):
        # Who was drawn twice for one customer knows them once.
        fresh = np.concatenate(([True], (staff[1:] != staff[:-1]) | (customers[1:] != customers[:-1])))
        staff, customers = staff[fresh], customers[fresh]
    chosen = channels_of(channels).pick(chance, len(staff))
    by_customer = np.argsort(customers, kind="stable").astype(np.int32)
    return Columns(
        population=population,
        channels=channels_of(channels),
        staff_ids=tuple(f"s{number:05d}" for number in range(first_number, first_number + staff_count)),
        ids=ids,
        first_of_staff=np.searchsorted(staff, np.arange(staff_count + 1)),
        customers=customers,
        staff=staff,
        before_s=_before_s(chance, len(staff), population.years),
        kinds=chosen.kinds,
        numbers=chosen.numbers,
        first_of_customer=np.concatenate(([0], np.cumsum(np.bincount(customers, minlength=customer_count)))).astype(
            np.int32
        ),
        positions=by_customer,
        popularity=popularity,
    )


def channels_of(channels: Sequence[Channel]) -> Channels:
    """The channels, or the one of a world that names none."""
    return Channels(channels or (Channel(kind="counter", share=1.0),))


def _popularity(chance: np.random.Generator, population: Population) -> npt.NDArray[np.float64]:
    weights = np.exp(chance.normal(0.0, population.popularity_spread, population.staff))
    mean = population.customers * (1 + population.second_share + population.third_share) / population.staff
    most = weights.mean() * _MOST_PER_STAFF * 0.8 / max(mean, 1.0)
    return np.cumsum(np.minimum(weights, most))


def _popular(chance: np.random.Generator, popularity: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int32]:
    at = np.searchsorted(popularity, chance.random(count) * popularity[-1], side="right")
    chosen: npt.NDArray[np.int32] = np.minimum(at, len(popularity) - 1).astype(np.int32)
    return chosen


def _colleagues(
    chance: np.random.Generator, staff: npt.NDArray[Any], staff_per_store: int, count: int
) -> npt.NDArray[Any]:
    store = staff // staff_per_store * staff_per_store
    size = np.minimum(staff_per_store, count - store)
    colleague: npt.NDArray[Any] = store + (chance.random(len(staff)) * size).astype(staff.dtype)
    return colleague


def _before_s(chance: np.random.Generator, count: int, years: float) -> npt.NDArray[np.uint32]:
    """Within the opening hours of some day before the story's first."""
    days = 1 + ((1 - chance.random(count) ** 0.7) * years * 365).astype(np.uint32)
    return (days * np.uint32(DAY_S) - hours_s(chance, count).astype(np.uint32)).astype(np.uint32)


def hours_s(chance: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """So many seconds of a day in which shops are open, from 9 to 22 o'clock, most of them in the afternoon."""
    return np.asarray((9.0 + 13.0 * chance.beta(2.0, 1.6, count)) * 3600)


class Acquaintances:
    """The relationships of one corp before the story (``relations.Opening``)."""

    def __init__(self, columns: Columns, start_s: int) -> None:
        self.columns = columns
        self._midnight_s = business_day_start_ms(start_s * 1000) // 1000
        self._numbers = {staff_id: number for number, staff_id in enumerate(columns.staff_ids)}

    def customers_of(self, staff_id: str) -> Sequence[str]:
        number = self._numbers.get(staff_id)
        if number is None:
            return ()
        start, end = self.columns.first_of_staff[number : number + 2]
        return Ids(self.columns.ids, self.columns.customers[start:end])

    def number_of(self, staff_id: str) -> int | None:
        """Position among the corp's staff when the story begins; None for who came later."""
        return self._numbers.get(staff_id)

    def followers_of(self, customer_id: str) -> Sequence[str]:
        columns = self.columns
        return [columns.staff_ids[columns.staff[at]] for at in self._positions(customer_id)]

    def relationship(self, staff_id: str, customer_id: str) -> Relationship | None:
        columns, number = self.columns, self._numbers.get(staff_id)
        for at in self._positions(customer_id):
            if columns.staff[at] == number:
                return self.at(int(at))
        return None

    def at(self, position: int) -> Relationship:
        """The relationship at a position of the columns."""
        columns = self.columns
        kind = int(columns.kinds[position])
        since_s = self._midnight_s - int(columns.before_s[position])
        state = columns.channels.state(
            kind, int(columns.numbers[position]), columns.store_of(int(columns.staff[position]))
        )
        return Relationship(
            staff_side=True,
            customer_side=True,
            episodes=[Episode(since_s, state, add_way=columns.channels.all[kind].add_way)],
            arriving_channel=state,
            changed_s=since_s,
        )

    def pairs(self, start: int, count: int) -> Sequence[tuple[str, str]]:
        columns = self.columns
        part = slice(start, start + count)
        customers = columns.ids.ids(columns.customers[part])
        return [(columns.staff_ids[staff], c) for staff, c in zip(columns.staff[part].tolist(), customers, strict=True)]

    def __len__(self) -> int:
        return len(self.columns.customers)

    @property
    def people_count(self) -> int:
        """Distinct customers."""
        return self.columns.population.customers

    def _positions(self, customer_id: str) -> npt.NDArray[np.int32]:
        columns = self.columns
        index = columns.ids.index(customer_id)
        if index is None or index >= columns.population.customers:
            return columns.positions[:0]
        start, end = columns.first_of_customer[index : index + 2]
        return columns.positions[start:end]


@dataclass(frozen=True)
class Opened:
    """One corp when the story begins."""

    columns: Columns
    acquaintances: Acquaintances
    people: People
    identities: Identities


def opened(seed: int, corp_id: str, columns: Columns, start_s: int) -> Opened:
    """The corp's people, and what they have known of each other until ``start_s``."""
    population = columns.population
    identities = Identities(
        seed,
        corp_id,
        columns.ids,
        friends=population.customers,
        size=columns.size,
        rates=population.identities,
    )
    staff, departments = _organisation(seed, corp_id, columns)
    met = population.customers + population.group_only
    people = People(
        seed,
        staff,
        KnownIds(columns.ids, columns.size),
        departments,
        customer_of=identities.customer,
        id_of_unionid=partial(id_of_unionid, identities, range(met).__contains__),
    )
    return Opened(columns, Acquaintances(columns, start_s), people, identities)


def id_of_unionid(identities: Identities, met: Callable[[int], bool], unionid: str) -> str | None:
    """The customer with a unionid, if the corp has ``met`` the person of that index."""
    index = identities.index_of_unionid(unionid)
    return identities.ids.id(index) if index is not None and met(index) else None


_ROOT = 1
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_GIVEN = "伟芳娜敏静强磊军洋勇艳杰娟涛明超霞平刚英华文玲辉健"


def _organisation(seed: int, corp_id: str, columns: Columns) -> tuple[dict[str, Staff], dict[int, Department]]:
    """Stores below regions below the root. Departments are numbered region by region, each store behind its region."""
    population = columns.population
    departments = {_ROOT: Department(_ROOT, "零售", 0)}
    stores = -(-len(columns.staff_ids) // population.staff_per_store)
    store_ids = []
    for store in range(stores):
        if store % population.stores_per_region == 0:
            region = len(departments) + 1
            departments[region] = Department(region, f"大区{store // population.stores_per_region + 1:02d}", _ROOT)
        number = len(departments) + 1
        departments[number] = Department(number, f"门店{store + 1:05d}", region)
        store_ids.append(number)
    letters = generator(seed, corp_id, "staff").integers(0, 1 << 30, len(columns.staff_ids)).tolist()
    staff = {
        userid: Staff(
            userid,
            _SURNAMES[bits % len(_SURNAMES)] + _GIVEN[bits // 32 % len(_GIVEN)] + _GIVEN[bits // 1024 % len(_GIVEN)],
            (store_ids[columns.store_of(number)],),
        )
        for number, (userid, bits) in enumerate(zip(columns.staff_ids, letters, strict=True))
    }
    return staff, departments
