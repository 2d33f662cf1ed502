"""Callbacks of a scenario, sealed beforehand and kept in a file, so that a load test measures the receiver alone.

**The file.** The line ``SIYU-CALLBACKS 1\\n``; then frames, each a 4-byte big-endian length and as many bytes. The
first frame is a JSON object: ``seed``, ``start_s`` and ``endpoints``, a list of ``{"corp_id", "agent_id", "path",
"json"}``. Every other frame is one delivery: 2 bytes number of its endpoint, 2 bytes length of its query, the query,
the body. ``path`` and query together are what stands behind the base URL that a replay is given. Bodies are kept plain:
ciphertext in base64 would shrink by a quarter at most, and unpacking it would cost the sender more than reading it.

**What is in it.** Every callback once for every app that takes it, in order of business time: duplicates, delays and
losses belong to deliveries, not to what happened. The same plan, apps and seed give the same bytes: nonces and random
prefixes come from the seed, and an envelope's timestamp is the event's own time. Nothing answers a recorded world, so
what follows only from calls (transfers, welcome messages) is not in it.

**Old timestamps.** A receiver may refuse envelopes that are too old, as Siyu's ingest does: it answers 403
(``stale_timestamp``) beyond ``SIYU_MAX_CALLBACK_AGE_SECONDS``, 3,600 unless it is set, 0 for any age; the wall clock
counts. Either switch that off for the test or replay with ``fresh``: then each delivery is opened and sealed anew with
the apps' keys just before it is sent, which costs the sender about as much as the sending.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import uvloop

from simulator.apps import App
from simulator.callbacks import OtherEvent, wants_json
from simulator.delivery import Deliverer, DeliveryPolicy, body_of, query_of, takes
from simulator.metrics import SimulatorMetrics
from simulator.sender import Sender, Target
from simulator.settings import SimulatorSettings
from simulator.simulation import Planner, Simulation
from simulator.world.corp import Callback, CorpWorld
from simulator.world.relations import ContactChange
from siyu.ops.clock import wall_ms
from siyu.wecom.crypto import CallbackCrypto, Refused

_MAGIC = b"SIYU-CALLBACKS 1\n"
_LONGEST = 1 << 24
_CREATED = re.compile(rb"<CreateTime>(?:<!\[CDATA\[)?([0-9]{1,12})")
_ENCRYPTED = re.compile(rb"<Encrypt><!\[CDATA\[([^\]]*)\]\]></Encrypt>")
_AT_ONCE = 200


class BadRecording(ValueError):
    """A file that is no recording, ends too early, or cannot be replayed as asked; says why."""


class RecordedEndpoint(NamedTuple):
    """Whom a delivery is for. ``path``: with the URL's own query parameters."""

    corp_id: str
    agent_id: str
    path: str
    json: bool


class RecordedDelivery(NamedTuple):
    """One delivery: number of its endpoint, query and body as they go over the wire."""

    endpoint: int
    query: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recording has become."""

    deliveries: int
    file_bytes: int
    seconds: float
    """Wall time it took."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay has shown. Latencies count from the moment a delivery was due, so waiting in line is in them."""

    sent: int
    seconds: float
    per_second: float
    results: dict[str, int]
    """Deliveries by status, or by the reason why none came (timeout, unreachable, broken)."""
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    behind_ms: float
    """How late the sender was with the latest delivery: much, and the rate was more than it or the receiver can do."""


class _Still:
    """Business time just before a scenario's start."""

    def __init__(self, start_s: int) -> None:
        self._ms = (start_s - 1) * 1000

    def now_ms(self) -> int:
        return self._ms


class _Writer(Deliverer):
    """Takes callbacks as a deliverer does and writes them down instead."""

    def __init__(self, file: IO[bytes], apps: tuple[App, ...], *, seed: int, start_s: int, at_most: int) -> None:
        super().__init__(apps=(), policy=DeliveryPolicy(seed=seed), metrics=SimulatorMetrics())
        self.written = 0
        self.start_s = start_s
        self._file = file
        self._key = b"%d" % seed
        self._at_most = at_most
        self._timestamp = str(start_s)
        self._apps = [
            (
                n,
                app,
                wants_json(app.callback_url),
                CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id),
            )
            for n, app in enumerate(apps)
        ]
        endpoints = [
            RecordedEndpoint(app.corp_id, app.agent_id, _path(app), as_json) for _, app, as_json, _ in self._apps
        ]
        head = {"seed": seed, "start_s": start_s, "endpoints": [endpoint._asdict() for endpoint in endpoints]}
        file.write(_MAGIC + _frame(json.dumps(head).encode()))

    @property
    def full(self) -> bool:
        return 0 < self._at_most <= self.written

    def send(self, callback: Callback) -> None:
        created = _CREATED.search(callback.content)
        if created is not None:
            self._timestamp = created[1].decode()
        for number, app, as_json, crypto in self._apps:
            if self.full or app.corp_id != callback.corp_id or not takes(app, callback):
                continue
            drawn = hashlib.blake2b(b"%d" % self.written, digest_size=25, key=self._key).digest()
            nonce = str(10**9 + int.from_bytes(drawn[16:24]) % (9 * 10**9))
            sealed = crypto.encrypt(callback.content, timestamp=self._timestamp, nonce=nonce, random16=drawn[:16])
            query = query_of(sealed).encode()
            body = body_of(app, sealed, as_json=as_json, agent_first=drawn[24] < 128)
            self._file.write(_frame(number.to_bytes(2) + len(query).to_bytes(2) + query + body))
            self.written += 1


def record(
    path: Path,
    *,
    settings: SimulatorSettings,
    plan: Planner,
    apps: Iterable[App],
    start_s: int,
    seconds: int = 0,
    at_most: int = 0,
) -> Recorded:
    """Plays a scenario from ``start_s`` (epoch s) as fast as it goes and writes its callbacks into a file.

    ``seconds`` of business time, 0: to its end; ``at_most`` deliveries, 0: all. Raises ValueError for an open-ended
    scenario without either, CannotPlay, BadKey for keys that no app can have, OSError for the file.
    """
    began = time.monotonic()
    chosen = tuple(app for app in apps if app.callback_url)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb", buffering=1 << 20) as file:
            writer = _Writer(file, chosen, seed=settings.seed, start_s=start_s, at_most=at_most)
            simulation = Simulation(settings, plan=plan, clock=_Still(start_s), deliverer=writer)
            simulation.begin()
            if simulation.plan.open_ended and not seconds and not at_most:
                raise ValueError("the scenario has no end: say how many seconds or how many callbacks are recorded")
            _play(simulation, writer, seconds)
            written = writer.written
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Recorded(written, path.stat().st_size, round(time.monotonic() - began, 3))


def _play(simulation: Simulation, writer: _Writer, seconds: int) -> None:
    """Everything that happens in a world, in order of time and without waiting for any of it."""
    plan, schedule, corps = simulation.plan, simulation.schedule, simulation.corps
    story = plan.timeline()
    schedule.feed((event.time_s, partial(_tell, corps[event.corp_id], event)) for event in story)
    end_s = max(plan.ends_s, story[-1].time_s if story else 0)
    while not writer.full and (next_s := schedule.next_s) is not None:
        if seconds:
            end_s = writer.start_s + seconds - 1
        elif plan.open_ended:
            end_s = next_s
        if next_s > end_s:
            return
        schedule.run_until(end_s, _AT_ONCE)


def _tell(corp: CorpWorld, event: ContactChange | OtherEvent, _due_s: int) -> None:
    if isinstance(event, ContactChange):
        corp.happen(event)
    else:
        corp.emit(event.time_s, event.fields)


class Recording:
    """A file of deliveries. Iterating reads it from the beginning."""

    def __init__(self, path: Path) -> None:
        """Raises BadRecording, OSError."""
        self._path = path
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise BadRecording(f"{path} is no recording of callbacks")
            try:
                head: dict[str, Any] = json.loads(_read_frame(file, path) or b"")
                self.seed, self.start_s = int(head["seed"]), int(head["start_s"])
                self.endpoints = [
                    RecordedEndpoint(str(e["corp_id"]), str(e["agent_id"]), str(e["path"]), bool(e["json"]))
                    for e in head["endpoints"]
                ]
            except (ValueError, TypeError, KeyError) as error:
                raise BadRecording(f"{path}: its head cannot be read ({type(error).__name__})") from None
            self._first = file.tell()

    def __iter__(self) -> Iterator[RecordedDelivery]:
        """Raises BadRecording at the frame that is wrong."""
        with self._path.open("rb", buffering=1 << 20) as file:
            file.seek(self._first)
            while (frame := _read_frame(file, self._path)) is not None:
                end = 4 + int.from_bytes(frame[2:4])
                endpoint = int.from_bytes(frame[:2])
                if len(frame) < end or endpoint >= len(self.endpoints):
                    raise BadRecording(f"{self._path}: a delivery that makes no sense")
                yield RecordedDelivery(endpoint, frame[4:end].decode("ascii", "replace"), frame[end:])


def replay(
    path: Path,
    base_url: str,
    *,
    rate: float = 0.0,
    connections: int = 64,
    timeout_s: float = 5.0,
    at_most: int = 0,
    fresh: Iterable[App] = (),
) -> Replayed:
    """Sends a recording, each delivery at its time of a steady ``rate`` a second whatever the answers are.

    ``rate`` 0: as fast as ``connections`` allow. ``fresh``: apps with whose keys deliveries are sealed anew, so that
    their timestamps are of now. Nothing is sent twice. Raises BadRecording, BadUrl, OSError.
    """
    recording = Recording(path)
    targets = [
        Target(base_url.rstrip("/") + e.path, content_type="application/json" if e.json else "text/xml")
        for e in recording.endpoints
    ]
    deliveries = iter(recording) if not at_most else islice(recording, at_most)
    if known := tuple(fresh):
        deliveries = _fresh(recording, deliveries, known)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_replay(deliveries, targets, rate, connections, timeout_s))


async def _replay(
    deliveries: Iterator[RecordedDelivery], targets: list[Target], rate: float, connections: int, timeout_s: float
) -> Replayed:
    # A loop's own time stands still between its turns and counts whole milliseconds.
    clock = time.perf_counter
    sender = Sender(concurrency=connections)
    results: Counter[str] = Counter()
    latencies = array("d")
    numbers = iter(range(1 << 62))
    behind = 0.0
    began = clock()

    async def work() -> None:
        nonlocal behind
        for delivery in deliveries:
            due = began + next(numbers) / rate if rate else clock()
            if (early := due - clock()) > 0:
                await asyncio.sleep(early)
            sent = clock()
            target = targets[delivery.endpoint]
            answer = await sender.post(target, delivery.query, delivery.body, timeout_s=timeout_s)
            latencies.append(clock() - min(due, sent))
            behind = max(behind, sent - due)
            results[answer.failure or str(answer.status)] += 1

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(connections):
                workers.create_task(work())
    except BaseExceptionGroup as group:
        # One worker met the frame that is wrong; the others were only stopped.
        raise group.exceptions[0] from None
    finally:
        await sender.close()
    seconds = clock() - began
    ordered = sorted(latencies)
    return Replayed(
        sent=len(ordered),
        seconds=round(seconds, 3),
        per_second=round(len(ordered) / seconds, 1),
        results=dict(results),
        p50_ms=_share_ms(ordered, 0.50),
        p99_ms=_share_ms(ordered, 0.99),
        slowest_ms=_share_ms(ordered, 1.0),
        behind_ms=round(behind * 1000, 2),
    )


def _fresh(
    recording: Recording, deliveries: Iterable[RecordedDelivery], apps: tuple[App, ...]
) -> Iterator[RecordedDelivery]:
    known = {(app.corp_id, app.agent_id): app for app in apps}
    chosen: list[tuple[App, CallbackCrypto]] = []
    for endpoint in recording.endpoints:
        app = known.get((endpoint.corp_id, endpoint.agent_id))
        if app is None:
            raise BadRecording(f"no keys for app {endpoint.agent_id} of {endpoint.corp_id}: it cannot be sealed anew")
        chosen.append((app, CallbackCrypto(app.callback_token, app.callback_aes_key, app.corp_id)))
    for delivery in deliveries:
        app, crypto = chosen[delivery.endpoint]
        as_json = recording.endpoints[delivery.endpoint].json
        old = dict(part.split("=", 1) for part in delivery.query.split("&"))
        try:
            encrypted = _encrypted(delivery.body, as_json=as_json)
            content = crypto.decrypt(old["msg_signature"], old["timestamp"], old["nonce"], encrypted)
        except (Refused, KeyError, ValueError):
            raise BadRecording(f"app {app.agent_id} of {app.corp_id}: recorded with other keys than these") from None
        sealed = crypto.encrypt(content, timestamp=str(wall_ms() // 1000), nonce=old["nonce"])
        head = delivery.body.find(b"<AgentID>"), delivery.body.find(b"<Encrypt>")
        body = body_of(app, sealed, as_json=as_json, agent_first=head[0] < head[1])
        yield RecordedDelivery(delivery.endpoint, query_of(sealed), body)


def _encrypted(body: bytes, *, as_json: bool) -> str:
    if as_json:
        return str(json.loads(body)["encrypt"])
    found = _ENCRYPTED.search(body)
    if found is None:
        raise ValueError("no Encrypt")
    return found[1].decode()


def _path(app: App) -> str:
    """What stands behind the address in an app's URL."""
    rest = app.callback_url.partition("://")[2]
    address = re.match(r"[^/?]*", rest)
    assert address is not None
    return rest[address.end() :]


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(4) + content


def _read_frame(file: IO[bytes], path: Path) -> bytes | None:
    head = file.read(4)
    if not head:
        return None
    length = int.from_bytes(head)
    content = file.read(length) if len(head) == 4 and length <= _LONGEST else b""
    if len(content) < max(length, 1):
        raise BadRecording(f"{path} ends in the middle of a delivery")
    return content


def _share_ms(ordered: list[float], share: float) -> float:
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 2) if ordered else 0.0
