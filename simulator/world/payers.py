"""Whose openid it is, as far as anybody has asked: an openid itself tells nobody. Pure."""

from __future__ import annotations

from simulator.world.corp import CorpWorld


class Payers:
    """Openids of one corp's customers that were given out by a call, or used in a story."""

    def __init__(self, corp: CorpWorld) -> None:
        self._corp = corp
        self._known: dict[tuple[str, str], str] = {}

    def openid(self, external_userid: str, appid: str) -> str:
        """The customer's openid at an appid; from now on :meth:`customer` knows whose it is."""
        openid = self._corp.people.openid(external_userid, appid)
        self._known[appid, openid] = external_userid
        return openid

    def customer(self, openid: str, appid: str) -> str:
        """The external_userid, empty when nobody has asked for this openid before."""
        return self._known.get((appid, openid), "")
