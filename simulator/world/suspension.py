"""Apps that staff do not use lose their rights, and get them back (fact sheet 2.8 and 6, point 20).

Two ladders per app, each a warning with the second it takes effect, the effect, and the way back:

* the app itself: ``inactive_alert`` → ``close_inactive_agent`` (every call gets 48006) → ``reopen_inactive_agent``;
* its customer data: ``low_active_alert`` → ``low_active`` (reads of customers get 48011) → ``active_restored``.

Only the app concerned is told. Staff opening the app in time undoes a warning; the platform has no event for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

import msgspec

from simulator.world.corp import CorpWorld

_DAY_S = 86_400


class SuspensionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section ``suspension``. The sheet has the events from one source and the codes; no length is documented."""

    warning_s: int = 7 * _DAY_S
    """From a warning to its effect."""
    customer_data: tuple[str, ...] = (
        "externalcontact/list",
        "externalcontact/get",
        "externalcontact/batch/get_by_user",
        "externalcontact/contact_list",
        "externalcontact/groupchat/get",
        "externalcontact/groupchat/list",
        "externalcontact/get_unassigned_list",
        "externalcontact/get_user_behavior_data",
        "externalcontact/groupchat/statistic*",
        "kf/customer/batchget",
    )
    """Patterns of the endpoints that 48011 keeps shut: reads of customers and their groups."""


Stage = Literal["", "warned", "shut"]


@dataclass(slots=True)
class Standing:
    """Where one app stands on both ladders. A warning counts only as long as its number is the last."""

    app: Stage = ""
    data: Stage = ""
    app_warnings: int = 0
    data_warnings: int = 0


class Suspension:
    """The ladders of all apps of one corp. Begun by the story or by hand, never by itself."""

    def __init__(self, corp: CorpWorld) -> None:
        self.rules = corp.rules_of("suspension", SuspensionRules)
        self.apps: dict[str, Standing] = {}
        self._corp = corp
        corp.refusals.append(self._refuses)

    def standing(self, agent_id: str) -> Standing:
        """Of one app."""
        return self.apps.setdefault(agent_id, Standing())

    def warn_inactive(self, agent_id: str, now_s: int) -> bool:
        """``inactive_alert``: the app will be closed. False when it is closed or warned already."""
        standing = self.standing(agent_id)
        if standing.app:
            return False
        standing.app = "warned"
        standing.app_warnings += 1
        effect_s = now_s + self.rules.warning_s
        self._tell(agent_id, now_s, "inactive_alert", effect_s)
        self._corp.schedule.at(effect_s, partial(self._close_if_still, agent_id, standing.app_warnings))
        return True

    def close(self, agent_id: str, now_s: int) -> bool:
        """``close_inactive_agent``: 48006 from now on. False when it is closed already."""
        standing = self.standing(agent_id)
        if standing.app == "shut":
            return False
        standing.app = "shut"
        self._tell(agent_id, now_s, "close_inactive_agent")
        return True

    def reopen(self, agent_id: str, now_s: int) -> bool:
        """``reopen_inactive_agent``: an administrator opened it again. False when it was not closed."""
        standing = self.standing(agent_id)
        if standing.app != "shut":
            return False
        standing.app = ""
        self._tell(agent_id, now_s, "reopen_inactive_agent")
        return True

    def warn_low(self, agent_id: str, now_s: int) -> bool:
        """``low_active_alert``: customer data will be withheld. False when it is, or is announced, already."""
        standing = self.standing(agent_id)
        if standing.data:
            return False
        standing.data = "warned"
        standing.data_warnings += 1
        effect_s = now_s + self.rules.warning_s
        self._tell(agent_id, now_s, "low_active_alert", effect_s)
        self._corp.schedule.at(effect_s, partial(self._withhold_if_still, agent_id, standing.data_warnings))
        return True

    def withhold(self, agent_id: str, now_s: int) -> bool:
        """``low_active``: reads of customers get 48011 from now on. False when they do already."""
        standing = self.standing(agent_id)
        if standing.data == "shut":
            return False
        standing.data = "shut"
        self._tell(agent_id, now_s, "low_active")
        return True

    def restore(self, agent_id: str, now_s: int) -> bool:
        """``active_restored``: staff use the app again. False when nothing was withheld."""
        standing = self.standing(agent_id)
        if standing.data != "shut":
            return False
        standing.data = ""
        self._tell(agent_id, now_s, "active_restored")
        return True

    def used(self, agent_id: str, now_s: int) -> None:
        """Staff opened the app: warnings are void and withheld data comes back; a closed app takes an administrator."""
        standing = self.standing(agent_id)
        if standing.app == "warned":
            standing.app = ""
        if standing.data == "warned":
            standing.data = ""
        self.restore(agent_id, now_s)

    def _close_if_still(self, agent_id: str, number: int, due_s: int) -> None:
        standing = self.standing(agent_id)
        if standing.app == "warned" and standing.app_warnings == number:
            self.close(agent_id, due_s)

    def _withhold_if_still(self, agent_id: str, number: int, due_s: int) -> None:
        standing = self.standing(agent_id)
        if standing.data == "warned" and standing.data_warnings == number:
            self.withhold(agent_id, due_s)

    def _refuses(self, agent_id: str, endpoint: str, _now_s: int) -> int:
        standing = self.apps.get(agent_id)
        if standing is None:
            return 0
        if standing.app == "shut":
            return 48006
        withheld = standing.data == "shut" and any(fnmatchcase(endpoint, p) for p in self.rules.customer_data)
        return 48011 if withheld else 0

    def _tell(self, agent_id: str, now_s: int, event: str, effect_s: int = 0) -> None:
        fields = [("Event", event), ("AgentID", agent_id)]
        if effect_s:
            fields.append(("EffectTime", str(effect_s)))
        self._corp.emit(now_s, fields, only_agent=agent_id)
