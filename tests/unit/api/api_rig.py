"""The API over stores of the test's own: what the real ones would say is put in by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from services.api.http import Api
from services.api.metrics import ApiMetrics
from services.api.routes import World
from siyu.actions.errors import ActionsError
from siyu.actions.model import (
    ActionView,
    Admission,
    AdmittedLevel,
    AdmittedLimit,
    Count,
    Parts,
)
from siyu.actions.operations import Operations
from siyu.actions.store import Filter, Known
from siyu.events import Action, ActionOutcome, ControlRecord, QuotaState, codec, schemas_dir
from siyu.limits import load_registry
from siyu.ops.api_tokens import TokenFile, make_token
from siyu.ops.clock import wall_ms

TAG = "externalcontact/mark_tag"


BUSINESS_MS = 1_790_913_600_000


class Stopped:
    """A clock that stands."""

    def now_ms(self) -> int:
        return BUSINESS_MS

    def pace(self) -> float:
        return 1.0


@dataclass
class Stores:
    """In place of ClickHouse and Kafka."""

    actions: dict[str, Known] = field(default_factory=dict)
    outcomes: dict[str, ActionOutcome] = field(default_factory=dict)
    lanes: dict[str, Action] = field(default_factory=dict)
    words: dict[str, ControlRecord] = field(default_factory=dict)
    quotas: list[QuotaState] = field(default_factory=list)
    accepted: int = 0
    doubtful: int = 0
    appended: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)
    broken: ActionsError | None = None
    asked: Filter | None = None
    people: bool = False

    def find(self, action_id: str, *, corp_id: str = "", people: bool = False) -> Known | None:
        self._break()
        self.people = people
        known = self.actions.get(action_id)
        return known if known is not None and corp_id in ("", known.view.corp_id) else None

    def page(
        self, wanted: Filter, *, limit: int, cursor: str = "", people: bool = False
    ) -> tuple[list[ActionView], str | None]:
        self._break()
        self.asked, self.people = wanted, people
        return [known.view for known in self.actions.values()][:limit], "more" if len(self.actions) > limit else None

    def parts(self, corp_id: str, action_id: str, *, people: bool = False) -> Parts:
        done = Count(status="done", detail="ok", count=9_990)
        return Parts(
            chunks=[known.view for known in self.actions.values()], chunk_count=1, repeated_records=0, people=[done]
        )

    def doubtful_parts(self, corp_id: str, action_id: str) -> int:
        return self.doubtful

    def accepted_parts(self, corp_id: str, action_id: str) -> int:
        return self.accepted

    def outcome(self, *, action_id: str, subject: str, finished_at_ms: int) -> ActionOutcome | None:
        return self.outcomes.get(action_id)

    def queued(self, action_id: str, *, since_ms: int) -> tuple[Action, int] | None:
        self._break()
        action = self.lanes.get(action_id)
        return None if action is None else (action, wall_ms())

    def append(self, messages: Any) -> None:
        self._break()
        for topic, key, value, headers in messages:
            self.appended.append((topic, key, value, headers))
            if topic == "executor.control":
                self.words[key] = codec().decode_as(ControlRecord, value)

    def controls(self) -> list[ControlRecord]:
        return list(self.words.values())

    def _break(self) -> None:
        if self.broken is not None:
            raise self.broken


def view(action_id: str, **fields: Any) -> ActionView:
    whole = ActionView(
        action_id=action_id,
        corp_id="ww1",
        lane="bulk",
        endpoint=TAG,
        state="ended",
        status="failed",
        detail="permission",
        errcode=60011,
        calls=1,
        staff_id="s1",
        customer="#0123456789ab",
        campaign_id="c1",
        reason="tags@1",
        caused_by="e1",
        parent_id="",
        message_id="",
        created_ms=wall_ms() - 1000,
        not_before_ms=None,
        deadline_ms=None,
        due_ms=None,
        updated_at_ms=wall_ms(),
    )
    return msgspec.structs.replace(whole, **fields)


def known(action_id: str, **fields: Any) -> Known:
    limit = AdmittedLimit(id="m", window="sliding 1 min", used=1, amount=10, allowed=8, allowance_percent=100)
    level = AdmittedLevel(level=f"corp_api|ww1|{TAG}", limits=[limit])
    admission = Admission(at_ms=wall_ms(), lane="bulk", limits_revision="r1", levels=[level])
    return Known(view(action_id, **fields), "ww1|wm1", wall_ms(), admission)


def outcome(action_id: str) -> ActionOutcome:
    return ActionOutcome(
        action_id=action_id,
        lane="bulk",
        corp_id="ww1",
        endpoint=TAG,
        subject="ww1|wmPerson",
        staff_id="s1",
        customer_id="wmPerson",
        status="failed",
        errcode=60011,
        detail="permission",
        calls=1,
        reason="tags@1",
        caused_by="e1",
        created_ms=wall_ms() - 1000,
        deadline_ms=0,
        trigger_received_at_ms=0,
        finished_at_ms=wall_ms(),
        request=b'{"userid":"s1"}',
        response=b"",
        campaign_id="c1",
    )


@pytest.fixture
def stores() -> Stores:
    """Empty stores."""
    return Stores()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Metrics of the API under test."""
    return CollectorRegistry()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The tokens file."""
    return tmp_path / "tokens.yaml"


@pytest.fixture
def secrets(tokens: Path) -> dict[str, str]:
    """A token of each role."""
    return {"reader": make_token(tokens, "grafana", "reader"), "operator": make_token(tokens, "li.wei", "operator")}


@pytest.fixture
def api(stores: Stores, tokens: Path, secrets: dict[str, str], registry: CollectorRegistry) -> Api:
    """The application."""
    operations = Operations(
        store=stores,  # type: ignore[arg-type]
        records=stores,  # type: ignore[arg-type]
        clock=Stopped(),
        controls=stores.controls,
        quotas=lambda: stores.quotas,
    )
    limits = load_registry(schemas_dir() / "limits")
    return Api(World(operations, lambda: limits), TokenFile(tokens), ApiMetrics(registry), max_in_flight=4)


@pytest.fixture
async def anonymous(api: Api) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks without a token."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api.app), base_url="http://api") as client:
        yield client


@pytest.fixture
async def reader(api: Api, secrets: dict[str, str]) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks as a reader."""
    async with _client(api, secrets["reader"]) as client:
        yield client


@pytest.fixture
async def operator(api: Api, secrets: dict[str, str]) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks as an operator."""
    async with _client(api, secrets["operator"]) as client:
        yield client


def _client(api: Api, token: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api.app),
        base_url="http://api",
        headers={"Authorization": f"Bearer {token}"},
    )
