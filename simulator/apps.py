"""The apps that may call and are called back: one corp has one or more, each with keys and tokens of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from siyu.ops.corps import Corp

NOT_FOR_ORDINARY_APPS = frozenset({"change_contact"})
"""Only the address book's assistant and the like are told (fact sheet 2.7): apps that name the event."""


@dataclass(frozen=True, slots=True)
class App:
    """One app of one corp (fact sheet 1.1, 3.1). ``repr`` shows no secret."""

    corp_id: str
    agent_id: str
    secret: str = field(repr=False)
    callback_token: str = field(repr=False)
    callback_aes_key: str = field(repr=False)
    callback_url: str
    """Whole URL; empty: the app takes no callbacks."""
    events: frozenset[str] = frozenset()
    """``Event`` values it is sent; empty: all that a self-built app gets."""
    trusted_ips: frozenset[str] = frozenset()
    """Others get 60020; empty: the app was made before trusted addresses were asked for."""


def apps_of(corps: Iterable[Corp], callback_base: str) -> tuple[App, ...]:
    """The app of every corp of a corps file, called back at ``<base>/callback/wecom/<corp_id>``."""
    base = callback_base.rstrip("/")
    return tuple(
        App(
            corp.corp_id,
            corp.agent_id,
            corp.secret,
            corp.callback_token,
            corp.callback_aes_key,
            f"{base}/callback/wecom/{corp.corp_id}",
        )
        for corp in corps
    )
