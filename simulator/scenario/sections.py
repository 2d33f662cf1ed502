"""The sections of a scenario's ``platform`` part, and the rules each of them is read as (``CorpWorld.rules_of``).

Named and not imported: the families that own the rules import much that a scenario file needs nothing of.
"""

from __future__ import annotations

from importlib import import_module

import msgspec

SECTIONS = {
    "acquisition": "simulator.world.acquisition:AcquisitionRules",
    "archive": "simulator.platform.api.archive:ArchiveRules",
    "card_habits": "simulator.world.messages:CardHabits",
    "contact_ways": "simulator.world.ways:WayRules",
    "contacts": "simulator.platform.api.contacts:ContactRules",
    "content": "simulator.platform.api.welcome:ContentRules",
    "directory": "simulator.platform.api.directory:DirectoryRules",
    "discipline": "simulator.world.discipline:DisciplineRules",
    "externalpay": "simulator.world.funds:ExternalPayRules",
    "group_welcome": "simulator.platform.api.group_welcome:GroupWelcomeRules",
    "groups": "simulator.world.groups:GroupRules",
    "habits": "simulator.world.habits:Habits",
    "identity": "simulator.world.unionids:IdentityRules",
    "kf": "simulator.world.kf:KfRules",
    "kf_habits": "simulator.world.kf:KfHabits",
    "mass": "simulator.world.mass:MassRules",
    "media": "simulator.world.media:MediaRules",
    "messages": "simulator.world.messages:MessageRules",
    "miniapppay": "simulator.world.miniorders:MiniPayRules",
    "moments": "simulator.world.moments:MomentRules",
    "network": "simulator.platform.api.directory:NetworkRules",
    "pay": "simulator.pay.ledger:PayRules",
    "read_lag": "simulator.platform.api.contacts:ReadLag",
    "scale": "simulator.world.scale:ScaleRules",
    "staff": "simulator.world.roster:StaffRules",
    "statistics": "simulator.world.statistics:StatisticsRules",
    "strategies": "simulator.world.strategies:StrategyRules",
    "suspension": "simulator.world.suspension:SuspensionRules",
    "tags": "simulator.world.tags:TagRules",
    "transfers": "simulator.world.transfers:TransferRules",
    "welcome": "simulator.platform.api.welcome:WelcomeRules",
}


def rules_of_section(name: str) -> type[msgspec.Struct]:
    """The rules a section is read as. Raises KeyError for a name that is none."""
    module, rules = SECTIONS[name].split(":")
    found: type[msgspec.Struct] = getattr(import_module(module), rules)
    return found
