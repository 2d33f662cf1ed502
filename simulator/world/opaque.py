"""Opaque ids as the platform hands them out: a prefix that tells the kind, then 30 characters (fact sheet 0)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.world.corp import CorpWorld


def opaque_id(corp: CorpWorld, prefix: str, *parts: object) -> str:
    """``prefix`` and 30 hexadecimal digits that follow from the seed, the corp and ``parts`` alone."""
    return f"{prefix}{corp.random('id', prefix, *parts).getrandbits(120):030x}"
