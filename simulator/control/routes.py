"""The HTTP side of ``/_sim/…``: reads the wish, does it, says what is so now. 400 names what is wrong with a wish.

Not of the platform: no token is asked for and no call is counted here. It listens where the platform does, so it
belongs on an address that only the tester reaches (``SIYU_SIM_HOST``, by default this machine alone).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from simulator.clock import BadClock, WorldClock
from simulator.control import views
from simulator.control.wishes import (
    BadWish,
    BlockWish,
    ClockChange,
    ComplaintWish,
    FaultWish,
    LossWish,
    StaffWish,
    TokenWish,
    known,
    read,
    whole,
)
from simulator.echo import verify_url
from simulator.pay.app import PayApp
from simulator.platform.calls import RecordedCall
from simulator.platform.endpoints import ENDPOINTS
from simulator.platform.faults import BadFault
from simulator.platform.gateway import Gateway
from simulator.scenario import CannotPlay
from simulator.sender import Sender
from simulator.simulation import NotIdle, Simulation
from simulator.world.corp import Complaint, CorpWorld
from simulator.world.discipline import Discipline
from simulator.world.people import Staff
from siyu.ops.clock import wall_ms

_BODY_LIMIT = 65_536
_PAGE_ROWS = 1_000
_MOST_ROWS = 10_000
_CATCH_UP_S = 60.0
"""How long a jump of the clock may keep its caller waiting for the world to follow."""
_TICK_S = 0.02
_FILE_READ_MS = 110
"""Our own reader looks at the clock file as often as everybody's: each 100 ms."""
_LINES_AT_ONCE = 5_000

_OTHERS = {"kafka_bootstrap", "state_dir", "instance"}
"""Settings every service has and the simulator makes no use of."""

Answerer = Callable[[Request], Awaitable[Response]]


class Unknown(LookupError):
    """Something that does not exist was named; says what."""


class NotNow(RuntimeError):
    """Possible at another time; says when."""


def _json(data: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(data), status, media_type="application/json")


def _answers(method: Answerer) -> Answerer:
    """What cannot be understood or done becomes a line that says so."""

    async def answered(request: Request) -> Response:
        try:
            return await method(request)
        except (BadWish, BadFault, BadClock) as error:
            return JSONResponse({"error": str(error)}, 400)
        except Unknown as error:
            return JSONResponse({"error": str(error)}, 404)
        except (NotNow, NotIdle, CannotPlay) as error:
            return JSONResponse({"error": str(error)}, 409)

    return answered


class Control:
    """Everything of ``/_sim/…``."""

    def __init__(self, gateway: Gateway, simulation: Simulation, *, clock: WorldClock | None = None) -> None:
        """``clock``: the one to be moved; without it the clock can only be read."""
        self.gateway = gateway
        self.simulation = simulation
        self.clock = clock
        self.playing: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()
        self.pay: PayApp | None = None
        """WeChat Pay, where there are merchants."""
        self.parameters: dict[str, Any] = {}
        """The scenario file as it was read."""
        self._moving = asyncio.Lock()
        self._final = b""

    def begin(self) -> None:
        """Raises NotIdle or CannotPlay."""
        self.simulation.begin()
        self.playing = asyncio.create_task(self._play())
        self.begun.set()

    async def _play(self) -> None:
        """The scenario, and then a world that lives on: what calls have begun is to end some time. The truth of the
        scenario stays what it was."""
        await self.simulation.play()
        self._final = msgspec.json.encode(self.simulation.truth())
        while True:
            done = self.simulation.advance(self.simulation.now_ms // 1000)
            await asyncio.sleep(_TICK_S if done else 0)

    # ------------------------------------------------------------------ the scenario and what is true

    async def start(self, request: Request) -> Response:
        """Begins the scenario; 409 when it has begun already, or cannot at this time of the clock."""
        self.begin()
        return _json({"state": self.simulation.state})

    async def status(self, request: Request) -> Response:
        """Where everything stands: counts only, nothing that grows with the world."""
        totals: Counter[str] = Counter()
        for (endpoint, _), count in self.gateway.call_counts.items():
            totals[endpoint] += count
        simulation = self.simulation
        delivered = simulation.deliverer.counts
        status = simulation.status(totals)
        status["callbacks"].update(waiting=delivered.waiting, lost=delivered.lost)
        return _json(
            {
                **status,
                "seed": simulation.plan.seed,
                "clock": self._clock_view(),
                "errors": self.gateway.broken,
                "world": views.world(simulation.corps, simulation.now_ms // 1000),
            }
        )

    async def scenario(self, request: Request) -> Response:
        """What is played: its parameters and the platform's rules where they differ from the documented ones."""
        plan = self.simulation.plan
        return _json(
            {
                "scenario": plan.scenario,
                "seed": plan.seed,
                "corps": list(plan.corps),
                "parameters": self.parameters,
                "rules": plan.rules,
                "settings": self.gateway.settings.model_dump(mode="json", exclude=_OTHERS),
                "replay_from_s": plan.replay_from_s,
                "open_ended": plan.open_ended,
                "endpoints": sorted(ENDPOINTS),
            }
        )

    async def truth(self, request: Request) -> Response:
        """404 until the scenario has begun; then what has happened so far, final when it is done."""
        self._begun()
        return Response(self._final, media_type="application/json") if self._final else _json(self.simulation.truth())

    async def truth_part(self, request: Request) -> Response:
        """One part of the truth, page by page; ``customer`` and ``staff`` select rows."""
        self._begun()
        query = request.query_params
        known(query, "corp", "customer", "staff", "offset", "limit")
        part = request.path_params["part"]
        page = views.truth_page(
            self.simulation,
            part,
            corp_id=self._corp_of(query["corp"]).corp_id if query.get("corp") else "",
            customer=query.get("customer", ""),
            staff=query.get("staff", ""),
            offset=whole(query, "offset", 0),
            limit=whole(query, "limit", _PAGE_ROWS, least=1, most=_MOST_ROWS),
        )
        if page is None:
            whole_parts = sorted({*views.LAZY_PARTS, *self.simulation.truth()})
            raise Unknown(f"the truth has no part {part!r}; there are {', '.join(whole_parts)}")
        rows, following = page
        return _json({"part": part, "rows": rows, "next_offset": following})

    # ------------------------------------------------------------------ the clock

    async def read_clock(self, request: Request) -> Response:
        """What time it is in there, and how fast it passes."""
        return _json(self._clock_view())

    async def move_clock(self, request: Request) -> Response:
        """Another pace, or a jump; answers when it is in force and the world has followed (or after a minute)."""
        wish = read(await _body(request), ClockChange)
        if self.clock is None:
            raise NotNow("this clock cannot be moved from here")
        if self.simulation.plan.replay_from_s and self.simulation.state != "done":
            raise NotNow("a replay moves the clock by itself until it is done")
        async with self._moving:
            if wish.advance_s is not None:
                begins_ms = self.clock.advance(_milliseconds(wish.advance_s))
            else:
                begins_ms = self.clock.set_rate(wish.rate if wish.rate is not None else 0.0)
            if self.clock.file is not None:
                await asyncio.sleep(max(0, begins_ms - wall_ms() + _FILE_READ_MS) / 1000)
            caught_up = await self._caught_up()
        return _json({**self._clock_view(), "caught_up": caught_up})

    async def _caught_up(self) -> bool:
        """Whether all that was due when the clock had moved has happened."""
        target_s = self.simulation.now_ms // 1000
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                while self.simulation.state != "idle" and not self.simulation.advance(target_s):  # noqa: ASYNC110
                    await asyncio.sleep(0)  # calls are answered meanwhile
        except TimeoutError:
            return False
        return True

    def _clock_view(self) -> dict[str, Any]:
        now_ms = self.simulation.now_ms
        rate = self.clock.rate if self.clock is not None else None
        return {
            "business_ms": now_ms,
            "beijing": views.beijing(now_ms),
            "platform_s": round(self.simulation.clock_s(), 3),
            "rate": rate,
            "mode": "fixed" if rate is None else "stepped" if not rate else "real" if rate == 1 else "compressed",
            "file": str(self.clock.file) if self.clock is not None and self.clock.file else "",
        }

    # ------------------------------------------------------------------ what goes wrong on purpose

    async def list_faults(self, request: Request) -> Response:
        """The faults in force."""
        return _json({"faults": views.faults(self.gateway, self.simulation.clock_s())})

    async def add_fault(self, request: Request) -> Response:
        """Puts one in force."""
        wish = read(await _body(request), FaultWish)
        if wish.corp_id:
            self._corp_of(wish.corp_id)
        fault = self.gateway.faults.add(wish.fault(self.simulation.clock_s()))
        return _json({"number": fault.number}, 201)

    async def end_fault(self, request: Request) -> Response:
        """Ends one by its number."""
        number = request.path_params["number"]
        if not self.gateway.faults.remove(number):
            raise Unknown(f"no fault {number} is in force")
        return _json({"ended": 1})

    async def end_faults(self, request: Request) -> Response:
        """Ends all of them."""
        standing = [fault.number for fault in self.gateway.faults.standing]
        for number in standing:
            self.gateway.faults.remove(number)
        return _json({"ended": len(standing)})

    async def block(self, request: Request) -> Response:
        """45009 for a corp and an API, as if its limit had been passed."""
        wish = read(await _body(request), BlockWish)
        scope, endpoints = self._blockable(wish)
        for endpoint in endpoints:
            self.gateway.throttle.block(scope, endpoint, self.simulation.clock_s() + wish.seconds)
        return _json({"blocked": len(endpoints)}, 201)

    async def lift_block(self, request: Request) -> Response:
        """Ends the block of a corp and an API, however it began."""
        scope, endpoints = self._blockable(read(await _body(request), BlockWish))
        return _json({"lifted": sum(self.gateway.throttle.lift(scope, endpoint) for endpoint in endpoints)})

    def _blockable(self, wish: BlockWish) -> tuple[str, list[str]]:
        self._corp_of(wish.corp_id)
        if wish.endpoint != "*" and wish.endpoint not in ENDPOINTS and wish.endpoint != "gettoken":
            raise Unknown(f"no endpoint {wish.endpoint!r}")
        endpoints = ["gettoken", *sorted(ENDPOINTS)] if wish.endpoint == "*" else [wish.endpoint]
        return "corp:" + wish.corp_id, endpoints

    async def withdraw_tokens(self, request: Request) -> Response:
        """The platform's early invalidation: calls with them get 40014 from now on."""
        wish = read(await _body(request), TokenWish)
        self._corp_of(wish.corp_id)
        self.gateway.tokens.withdraw(wish.corp_id, wish.agent_id)
        return _json({"withdrawn": True})

    async def ban(self, request: Request) -> Response:
        """The platform takes a staff member's customer functions away, for a time or for good."""
        wish = read(await _body(request), StaffWish)
        member = self._member(wish.corp_id, wish.staff_id)
        now_s, discipline = self.simulation.now_ms // 1000, self._corp_of(wish.corp_id).of(Discipline)
        discipline.lift(wish.staff_id, now_s)
        discipline.ban(wish.staff_id, now_s, seconds=wish.seconds, reason="control")
        return _json({"banned": True, "until_s": member.banned_until_s})

    async def pardon(self, request: Request) -> Response:
        """Lifts a ban."""
        wish = read(await _body(request), StaffWish)
        self._member(wish.corp_id, wish.staff_id)
        self._corp_of(wish.corp_id).of(Discipline).lift(wish.staff_id, self.simulation.now_ms // 1000)
        return _json({"banned": False})

    async def complain(self, request: Request) -> Response:
        """A customer reports a staff member; what follows from it is the world's affair."""
        wish = read(await _body(request), ComplaintWish)
        self._begun()
        corp = self._corp_of(wish.corp_id)
        self._member(wish.corp_id, wish.staff_id)
        if wish.customer_id not in corp.people.known:
            raise Unknown("no such customer_id in this corp")
        corp.complain(Complaint(self.simulation.now_ms // 1000, wish.staff_id, wish.customer_id, wish.ref))
        return _json({"complaints": len(corp.complaints)}, 201)

    async def lose_callbacks(self, request: Request) -> Response:
        """From now on this share of the callbacks is never sent."""
        wish = read(await _body(request), LossWish)
        self.simulation.deliverer.lost_share = wish.share
        return _json({"lost_share": wish.share})

    # ------------------------------------------------------------------ what was seen

    async def calls(self, request: Request) -> Response:
        """Calls in order of arrival.

        ``since`` (number of the first), ``since_ms`` (wall time), ``endpoint``, ``corp``, ``errcode`` select;
        ``limit`` 0 means all there are; ``format=jsonl`` downloads them, one a line.
        """
        query = request.query_params
        known(query, "since", "since_ms", "endpoint", "corp", "errcode", "limit", "format")
        since, since_ms = whole(query, "since", 0), whole(query, "since_ms", 0)
        errcode = whole(query, "errcode", 0, least=-1) if "errcode" in query else None
        limit = whole(query, "limit", 0)
        endpoint, corp_id = query.get("endpoint"), query.get("corp")

        def wanted(call: RecordedCall) -> bool:
            return (
                call.time_ms >= since_ms
                and endpoint in (None, call.endpoint)
                and corp_id in (None, call.corp_id)
                and errcode in (None, call.errcode)
            )

        log = self.gateway.calls
        shape = query.get("format", "json")
        if shape not in ("json", "jsonl"):
            raise BadWish("format: json or jsonl")
        if shape == "jsonl":
            # A copy of references: the log goes on growing while it is sent.
            numbered = list(log.since(since))
            return StreamingResponse(
                _lines(iter(numbered), wanted, limit),
                media_type="application/x-ndjson",
                headers={"Content-Disposition": 'attachment; filename="calls.jsonl"'},
            )
        rows, following = views.select_calls(log.since(since), wanted, limit)
        return _json(
            {
                "counts": views.counts(self.gateway),
                "total": log.total,
                "kept_from": log.total - len(log),
                "calls": rows,
                "next": log.total if following is None else following,
            }
        )

    async def quotas(self, request: Request) -> Response:
        """What every corp has used of every API's limits."""
        return _json({"quotas": views.quotas(self.gateway, self.simulation.clock_s())})

    async def callbacks(self, request: Request) -> Response:
        """How delivery goes, and the newest callbacks: never what they say about people."""
        known(request.query_params, "limit")
        limit = whole(request.query_params, "limit", 100, least=1, most=1_000)
        deliverer = self.simulation.deliverer
        delivered = deliverer.counts
        return _json(
            {
                "submitted": delivered.submitted,
                "waiting": delivered.waiting,
                "delivered": delivered.delivered,
                "dropped": delivered.dropped,
                "lost": delivered.lost,
                "duplicates": delivered.duplicates,
                "attempts": delivered.attempts,
                "retries": delivered.retries,
                "lost_share": deliverer.lost_share,
                "events": views.events(self.simulation.corps),
                "recent": views.deliveries(deliverer.journal.newest_first(), limit),
            }
        )

    async def payments(self, request: Request) -> Response:
        """WeChat Pay's side: merchants, what became of notices, and the newest calls (``limit``)."""
        known(request.query_params, "limit")
        limit = whole(request.query_params, "limit", 100, least=1, most=_MOST_ROWS)
        if self.pay is None:
            raise Unknown("there are no merchants: name a file in SIYU_SIM_MERCHANTS")
        return _json(views.payments(self.pay, limit))

    async def verify_urls(self, request: Request) -> Response:
        """Asks every callback URL what the admin console asks before it saves a configuration (fact sheet 1.2)."""
        sender = Sender(concurrency=1)
        try:
            found = [await verify_url(app, sender) for app in self.gateway.apps if app.callback_url]
        finally:
            await sender.close()
        return _json({"urls": [{**asdict(one), "saved": one.saved} for one in found]})

    async def page(self, request: Request) -> Response:
        """The page that shows all of this."""
        html = files("simulator.control").joinpath("page.html").read_text(encoding="utf-8")
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
        }
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)

    # ------------------------------------------------------------------ what all of them need

    def _begun(self) -> None:
        if self.simulation.state == "idle":
            raise Unknown("the scenario has not begun: POST /_sim/start")

    def _corp_of(self, corp_id: str) -> CorpWorld:
        corp = self.simulation.corps.get(corp_id)
        if corp is None:
            raise Unknown(f"no corp {corp_id!r}; there are {', '.join(self.simulation.corps)}")
        return corp

    def _member(self, corp_id: str, staff_id: str) -> Staff:
        # The worlds are made anew when the scenario begins: what was done to one before would be gone.
        self._begun()
        member = self._corp_of(corp_id).people.staff.get(staff_id)
        if member is None:
            raise Unknown("no such staff_id in this corp")
        return member

    def routes(self) -> list[Route]:
        """Every path of ``/_sim``."""
        table: list[tuple[str, str, Answerer]] = [
            ("GET", "/_sim", self.page),
            ("GET", "/_sim/", self.page),
            ("POST", "/_sim/start", self.start),
            ("GET", "/_sim/status", self.status),
            ("GET", "/_sim/scenario", self.scenario),
            ("GET", "/_sim/truth", self.truth),
            ("GET", "/_sim/truth/{part}", self.truth_part),
            ("GET", "/_sim/clock", self.read_clock),
            ("POST", "/_sim/clock", self.move_clock),
            ("GET", "/_sim/faults", self.list_faults),
            ("POST", "/_sim/faults", self.add_fault),
            ("DELETE", "/_sim/faults", self.end_faults),
            ("DELETE", "/_sim/faults/{number:int}", self.end_fault),
            ("POST", "/_sim/blocks", self.block),
            ("DELETE", "/_sim/blocks", self.lift_block),
            ("POST", "/_sim/tokens/withdraw", self.withdraw_tokens),
            ("POST", "/_sim/staff/ban", self.ban),
            ("POST", "/_sim/staff/pardon", self.pardon),
            ("POST", "/_sim/complaints", self.complain),
            ("POST", "/_sim/callbacks/loss", self.lose_callbacks),
            ("GET", "/_sim/callbacks", self.callbacks),
            ("POST", "/_sim/callbacks/verify", self.verify_urls),
            ("GET", "/_sim/pay", self.payments),
            ("GET", "/_sim/calls", self.calls),
            ("GET", "/_sim/quotas", self.quotas),
        ]
        return [Route(path, _answers(method), methods=[verb]) for verb, path, method in table]


async def _body(request: Request) -> bytes:
    content = bytearray()
    try:
        async for part in request.stream():
            content += part
            if len(content) > _BODY_LIMIT:
                raise BadWish(f"the body is longer than {_BODY_LIMIT:,} bytes")
    except ClientDisconnect:
        raise BadWish("the body is incomplete") from None
    return bytes(content)


def _milliseconds(seconds: float) -> int:
    if not 0 < seconds < 1e12:
        raise BadWish("advance_s: more than 0 seconds")
    return round(seconds * 1000)


def _lines(
    numbered: Iterator[tuple[int, RecordedCall]], wanted: Callable[[RecordedCall], bool], limit: int
) -> Iterator[bytes]:
    """JSON lines, some thousand a chunk."""
    left = limit
    while True:
        most = min(left, _LINES_AT_ONCE) if limit else _LINES_AT_ONCE
        rows: list[dict[str, Any]] = []
        for number, call in numbered:
            if wanted(call):
                rows.append(views.numbered_call(number, call))
                if len(rows) == most:
                    break
        if rows:
            yield msgspec.json.Encoder().encode_lines(rows)
        left -= len(rows)
        if len(rows) < most or (limit and not left):
            return
