"""Fact sheet 5.6: members who add too fast or are complained about are banned, and their corp with them."""

import pytest

from simulator.world.corp import Complaint
from simulator.world.discipline import Discipline
from simulator.world.relations import ContactChange

START_S = 1_760_000_000
DAY_S, WEEK_S = 86_400, 7 * 86_400


class Everybody:
    """As many customers as anybody needs."""

    def __contains__(self, customer_id: object) -> bool:
        return True


@pytest.fixture
def discipline(office) -> Discipline:
    office.world.people.known = Everybody()
    office.world.people.staff["s1"].joined_s = START_S - 10 * DAY_S
    return office.world.of(Discipline)


def add(office, number: int, at_s: int, *, active: bool = False, staff: str = "s1", change="add", way: int = 1) -> bool:
    oper = staff if active else ""
    event = ContactChange(START_S + at_s, office.world.corp_id, staff, f"wmX{number}", change, add_way=way, oper=oper)
    return office.world.happen(event)


def adds(office, count: int, *, every_s: float = 0, begin: int = 0, **how) -> int:
    """How many of them happened."""
    return sum(add(office, begin + n, round(begin + n * every_s), **how) for n in range(count))


def may(office, at_s: int, staff: str = "s1") -> bool:
    return office.world.people.staff[staff].may_reach(START_S + at_s)


def complain(office, customers: int, at_s: int, staff: str = "s1", first: int = 0) -> None:
    for number in range(first, first + customers):
        office.world.complain(Complaint(START_S + at_s, staff, f"wmX{number}"))


def test_a_new_member_may_be_added_sixty_times_a_minute(office, discipline):
    """5.6: the 61st passive add within a minute bans a new account for 24 h; during the ban nobody can be added."""
    assert adds(office, 60) == 60
    assert may(office, 1)
    assert add(office, 60, 59)
    assert not may(office, 60)
    assert not add(office, 61, 60)
    assert not may(office, 59 + DAY_S - 1)
    assert may(office, 59 + DAY_S)
    assert add(office, 61, 59 + DAY_S)


def test_sixty_one_over_more_than_a_minute_are_fine(office, discipline):
    """5.6: the window of a minute slides: one add a second never bans."""
    assert adds(office, 180, every_s=1) == 180
    assert may(office, 180)


def test_a_new_member_may_add_forty_times_an_hour(office, discipline):
    """5.6: the 41st active add within an hour bans a new account."""
    assert adds(office, 41, every_s=80, active=True) == 41
    assert not may(office, 3_201)
    (ban,) = discipline.bans
    assert (ban.reason, ban.until_s - ban.time_s) == ("new active hour", DAY_S)


def test_the_second_ban_is_a_week(office, discipline):
    """5.6: bans for pace are 24 h, then 7 × 24 h."""
    for begin in (0, 2 * DAY_S, 12 * DAY_S):
        adds(office, 61, begin=begin)
    assert [ban.until_s - ban.time_s for ban in discipline.bans] == [DAY_S, WEEK_S, WEEK_S]


def test_an_old_account_is_only_warned(office, discipline):
    """5.6: an account of more than 30 days is not banned for pace; its screen warns at 200 active adds a day."""
    office.world.people.staff["s1"].joined_s = START_S - 31 * DAY_S
    assert adds(office, 200) == 200
    assert adds(office, 201, every_s=100, begin=1_000, active=True) == 201
    assert may(office, 2 * DAY_S)
    assert [warning.pace for warning in discipline.warnings] == ["mature active day"]


def test_adds_that_are_nobodys_doing_do_not_count(office, discipline):
    """5.6: customers assigned by an administrator, and the second half of a half add, are no adds of the member."""
    assert adds(office, 61, way=202) == 61
    assert may(office, 1)
    assert sum(add(office, n, 100, change="add_half") for n in range(100, 160)) == 60
    assert sum(add(office, n, 110) for n in range(100, 160)) == 60
    assert may(office, 111)


def test_the_pace_can_be_asked(office, discipline):
    """5.6: how many adds a member made of late is there for the truth."""
    adds(office, 7, every_s=60)
    assert discipline.pace_of("s1", "passive", DAY_S, START_S + 400) == 7
    assert discipline.pace_of("s1", "active", DAY_S, START_S + 400) == 0


def test_complaints_climb_a_ladder(office, discipline):
    """5.6: five customers' complaints are a short ban, then a short one without appeal, then one for good."""
    complain(office, 4, 0)
    complain(office, 1, 1, first=3)  # somebody a second time
    assert may(office, 1)
    complain(office, 1, 2, first=4)
    assert not may(office, 3)
    assert may(office, 2 + DAY_S)
    complain(office, 5, 2 * DAY_S)
    assert not may(office, 2 * DAY_S + WEEK_S - 1)
    assert may(office, 2 * DAY_S + WEEK_S)
    complain(office, 5, 20 * DAY_S)
    assert not may(office, 1_000 * DAY_S)
    assert [ban.step for ban in discipline.bans] == [1, 2, 3]


def test_old_complaints_are_forgotten(office, discipline):
    """5.6: complaints far apart make no ban."""
    for week in range(6):
        complain(office, 1, week * (WEEK_S + 1), first=week)
    assert discipline.bans == []


def test_only_the_first_ban_can_be_appealed(office, discipline):
    """5.6: an administrator may appeal against the ladder's first step, not against the second or a ban for pace."""
    complain(office, 5, 0)
    assert discipline.appeal("s1", START_S + 10)
    assert may(office, 10)
    complain(office, 5, DAY_S)
    assert not discipline.appeal("s1", START_S + DAY_S)
    assert not may(office, DAY_S)
    assert not discipline.appeal("s2", START_S)


def test_a_ban_can_be_lifted(office, discipline):
    """5.6: lifting gives customer contact back at once, whatever took it."""
    discipline.ban("s1", START_S, reason="plug-in")
    assert not may(office, 1_000 * DAY_S)
    assert discipline.lift("s1", START_S + 5)
    assert not discipline.lift("s1", START_S + 5)
    assert may(office, 5)
    assert discipline.bans[0].lifted_s == START_S + 5
    assert discipline.ban("nobody", START_S) is None


def test_a_banned_wechat_takes_customer_contact_along(office, discipline):
    """5.6: the ban of a member's own WeChat holds until it is lifted; contact comes back within 24 h after."""
    assert discipline.ban_wechat("s1", START_S)
    assert not may(office, 1_000 * DAY_S)
    back_s = discipline.lift_wechat("s1", START_S + 100)
    assert START_S + 100 < back_s <= START_S + 100 + DAY_S
    office.wecom.advance(back_s - START_S - 1)
    assert not may(office, back_s - START_S - 1)
    office.wecom.advance(1)
    assert may(office, back_s - START_S)


@pytest.mark.covers("fact:6.20")
async def test_enough_banned_members_get_the_corp_banned(office):
    """4.3: a banned corp gets 301007 for every call of every app."""
    office.rule(discipline={"corp_bans": 2})
    discipline = office.world.of(Discipline)
    discipline.ban("s1", START_S)
    assert (await office.send())["errcode"] == 0
    discipline.ban("s2", START_S)
    assert discipline.corp_banned_s == START_S
    for agent in ("1000002", "1000003"):
        assert (await office.send(agent))["errcode"] == 301007
    assert discipline.lift_corp()
    assert (await office.send())["errcode"] == 0


def test_thresholds_are_rules(office):
    """5.6: every number is data of the scenario."""
    pace = {"name": "slow", "who": "mature", "kind": "passive", "most": 1, "window_s": 10}
    office.rule(discipline={"paces": [pace], "pace_bans_s": [60]})
    office.world.people.known = Everybody()
    assert adds(office, 3) == 2
    assert may(office, 61)


async def test_bans_and_presses_and_sends_stand_in_the_truth(office, discipline):
    """5.6: a ban by hand is a ban like any other: in the truth with its reason and end."""
    wish = {"corp_id": office.world.corp_id, "staff_id": "s1", "seconds": 60}
    assert (await office.wecom.client.post("/_sim/staff/ban", json=wish)).status_code == 200
    (row,) = (await office.wecom.client.get("/_sim/truth/bans")).json()["rows"]
    assert (row["staff_id"], row["reason"], row["until_s"]) == ("s1", "control", START_S + 60)
    assert not may(office, 59)
    assert may(office, 60)
    for part in ("card_presses", "kf_sends"):
        assert (await office.wecom.client.get(f"/_sim/truth/{part}")).json()["rows"] == []
