"""A living world: who is there at the beginning, and what they do from then on, day by day. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.scenario import CannotPlay, Plan
from simulator.scenario.file import Scenario
from simulator.world.opening import Columns, Population, make_columns, opened

_MOST_STAFF = 99_999
"""Ids of staff have five digits, so that they sort as they are numbered."""


def planner_of(
    scenario: Scenario, *, seed: int, scale: float, corps: Sequence[str], bill_lag_ms: int
) -> Callable[[int], Plan]:
    """Plans for any start (epoch seconds); who knows whom is decided once. Raises CannotPlay."""
    if scenario.population is None:
        raise CannotPlay(f"scenario {scenario.name}: has no population")
    everybody = scenario.population.scaled(scale)
    if everybody.staff > _MOST_STAFF:
        raise CannotPlay(f"SIYU_SIM_SCALE={scale}: {everybody.staff} staff members, {_MOST_STAFF} at most")
    worlds: dict[str, Columns] = {}
    first_number = 1
    for number, corp_id in enumerate(corps):
        part: Population = everybody.of_corp(number, len(corps))
        worlds[corp_id] = make_columns(seed, corp_id, part, scenario.channels, first_number=first_number)
        first_number += part.staff

    def plan(start_s: int) -> Plan:
        openings = {corp_id: opened(seed, corp_id, columns, start_s) for corp_id, columns in worlds.items()}
        return Plan(
            scenario=scenario.name,
            seed=seed,
            corps=tuple(corps),
            staff={corp_id: columns.staff_ids for corp_id, columns in worlds.items()},
            customers={corp_id: frozenset() for corp_id in corps},
            contacts=(),
            others=(),
            bills=(),
            openings={corp_id: world.acquaintances for corp_id, world in openings.items()},
            people={corp_id: world.people for corp_id, world in openings.items()},
            rules=scenario.platform,
            ends_s=start_s + scenario.story.duration_s,
            open_ended=not scenario.story.duration_s,
        )

    return plan
