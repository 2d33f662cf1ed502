"""The tills outside the bill list: the WeChat Pay merchants at which a corp's customers pay (fact sheet 3.15)."""

from __future__ import annotations

from typing import Protocol

from simulator.world.corp import CorpWorld


class Till(Protocol):
    """A merchant (``simulator.pay.merchant.Merchant``)."""

    def paid(
        self, corp: CorpWorld, *, amount_fen: int, time_s: int, out_trade_no: str, external_userid: str = ""
    ) -> str:
        """Somebody pays; the transaction id."""
        ...

    def refunded(self, corp: CorpWorld, *, out_trade_no: str, amount_fen: int, time_s: int, out_refund_no: str) -> str:
        """Money goes back; the refund's id. Raises ValueError."""
        ...


class Tills:
    """The merchants of one corp, put in by whoever opens the world; without any, everybody pays into the bill list."""

    def __init__(self, _corp: CorpWorld) -> None:
        self.open: list[Till] = []
