from collections.abc import Callable

from services.executor.governor import Claim
from services.executor.site import LANES, LaneState, Site, Staged
from services.executor.work import Ask, Work
from siyu.events import Lane


class Nobody:
    """Stands for an action under way; a site never looks into one."""


def ask(key: str, deadline_ms: int = 0) -> Ask:
    return Ask(
        key=key,
        endpoint="externalcontact/remark",
        payload=b"{}",
        lane="bulk",
        deadline_ms=deadline_ms,
        claim=Claim("ww1", "1", "externalcontact/remark"),
        durable=False,
        timeout_ms=1_000,
    )


WORK: Work = Nobody()  # type: ignore[assignment]


def keys(state: LaneState) -> list[str]:
    return [entry[3].key for entry in sorted(state.asks, key=lambda entry: entry[:2])]


def staged(lane: Lane) -> Staged:
    return Staged(WORK, ask(lane), None, lane)  # type: ignore[arg-type]


def test_what_may_start_starts_by_lane_and_then_by_turn() -> None:
    site = Site("ww1", "externalcontact/remark")
    for lane in ("sync", "bulk", "urgent", "welcome", "bulk"):
        site.lane(lane).ready.append(staged(lane))
    assert site.ready == 5
    started = [site.pop_ready() for _ in range(6)]
    assert [one.lane if one else None for one in started] == ["welcome", "urgent", "bulk", "bulk", "sync", None]
    assert LANES == ("welcome", "urgent", "bulk", "sync")


def test_asks_of_actions_under_way_go_by_deadline_and_those_without_one_last() -> None:
    state = LaneState()
    for number, deadline_ms in enumerate((0, 300, 100, 0, 100)):
        state.put(number, WORK, ask(f"a{number}", deadline_ms))
    assert keys(state) == ["a2", "a4", "a1", "a0", "a3"]


def test_what_a_narrow_limit_holds_back_waits_in_line_again_at_its_time() -> None:
    state = LaneState()
    state.hold(200, 1, WORK, ask("late"))
    state.hold(100, 2, WORK, ask("soon"))
    assert state.waiting() == 2
    state.release(99)
    assert keys(state) == []
    state.release(100)
    assert keys(state) == ["soon"]
    state.release(500)
    assert sorted(keys(state)) == ["late", "soon"]
    assert (len(state.held), state.waiting()) == (0, 2)


def test_a_lane_that_holds_a_thousand_back_takes_no_more_up() -> None:
    state = LaneState()
    for number in range(999):
        state.hold(1, number, WORK, ask(f"h{number}"))
    crowded = [state.crowded]
    state.hold(1, 999, WORK, ask("h999"))
    crowded.append(state.crowded)
    state.release(1)
    crowded.append(state.crowded)
    assert crowded == [False, True, False]


def busy(change: Callable[[Site], object]) -> Site:
    site = Site("ww1", "externalcontact/remark")
    assert site.idle
    change(site)
    return site


def test_a_site_is_idle_only_when_nothing_waits_runs_or_is_about_to() -> None:
    changes: list[Callable[[Site], object]] = [
        lambda site: site.lane("bulk").backlog.push(1, 0),
        lambda site: site.lane("bulk").put(1, WORK, ask("a")),
        lambda site: site.lane("bulk").hold(1, 1, WORK, ask("a")),
        lambda site: site.lane("bulk").ready.append(staged("bulk")),
        lambda site: site.started(),
        lambda site: setattr(site, "staged", 1),
    ]
    assert not any(busy(change).idle for change in changes)


def test_what_is_reserved_ahead_follows_what_starts_during_a_commit() -> None:
    site = Site("ww1", "externalcontact/remark")
    least = site.room()
    assert least > 0
    for _ in range(12):
        for _ in range(100):
            site.started()
        site.committed()
    fast = site.room()
    assert fast > 100
    for _ in range(12):
        site.committed()
    assert site.room() == least
    site.staged = least
    assert site.room() == 0
