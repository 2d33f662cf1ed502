"""WeChat Pay in a simulator's process: its merchants' tills stand in every corp's world, its notices go out by HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx2

from simulator.pay.app import PayApp
from simulator.pay.merchant import open_merchants
from simulator.pay.notify import NotifyPolicy, PayNotifier
from simulator.simulation import Simulation
from simulator.world.corp import CorpWorld
from simulator.world.tills import Tills
from siyu.ops.clock import wall_ms


class PayProcess:
    """The application, and the client its notices are sent with. Inside one event loop."""

    def __init__(
        self, simulation: Simulation, merchants: Path, *, corps: Iterable[str], notify_base: str, seed: int
    ) -> None:
        """``merchants``: the file, made when missing. Notices go to ``<notify_base>/pay/wechat/<corp_id>``; if that is
        empty, nowhere. Raises MerchantsError."""
        policy = NotifyPolicy()
        base = notify_base.rstrip("/")
        urls = {corp_id: f"{base}/pay/wechat/{corp_id}" if base else "" for corp_id in corps}
        keys, credentials = open_merchants(merchants, seed=seed, corps=urls)
        self._client = httpx2.AsyncClient(timeout=policy.timeout_s, trust_env=False)
        self.notifier = PayNotifier(post=self._post, signing_s=lambda: wall_ms() // 1000, policy=policy)
        self.app = PayApp(
            credentials,
            keys,
            self.notifier,
            worlds=lambda: simulation.corps,
            now_ms=lambda: simulation.now_ms,
            clock_s=simulation.clock_s,
        )
        simulation.opened.append(self._place_tills)

    async def close(self) -> None:
        """Stops at once; notices that were not delivered are not."""
        await self.notifier.close()
        await self._client.aclose()

    def _place_tills(self, corps: Mapping[str, CorpWorld]) -> None:
        for merchant in self.app.merchants.values():
            if merchant.corp_id in corps:
                corps[merchant.corp_id].of(Tills).open.append(merchant)

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> int | None:
        try:
            response = await self._client.post(url, headers=dict(headers), content=body)
        except httpx2.HTTPError:
            return None
        return response.status_code
