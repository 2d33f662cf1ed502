"""Tokens: a hundred processes, one owner, one topic. The topic is a list here, and the time is ours."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.executor import token_owner
from services.executor.key_ring import KeyRing
from services.executor.token_owner import NEVER_MS, Renewals, TokenOwner
from services.executor.token_rules import TokenRules, TokenRulesError, load_token_rules
from services.executor.token_table import TokenRecordError, TokenTable, key_of
from siyu.events import CodecError, WecomToken, codec, schemas_dir
from siyu.ops.corps import Corp
from siyu.wecom.client import Answer, NotSent, Result
from siyu.wecom.errors import ErrorTable

CORP = Corp(corp_id="ww1", agent_id="1", secret="the-app-secret", callback_token="t", callback_aes_key="k" * 43)
RING = KeyRing({"k1": b"k" * 32})
RULES = load_token_rules(schemas_dir() / "rules" / "tokens.yaml").at(2_000_000_000_000)
START_MS = 1_790_000_000_000
LIFE_MS = 7_200_000


def nonces() -> Callable[[], bytes]:
    numbers = itertools.count()
    return lambda: next(numbers).to_bytes(12, "big")


def issue(number: int, expires_in: int = 7200) -> Answer:
    body = {"errcode": 0, "access_token": f"token-{number}", "expires_in": expires_in}
    return Answer(0, json.dumps(body).encode(), 0.0)


def error(errcode: int) -> Callable[[int], Result]:
    return lambda number: Answer(errcode, b'{"errcode": %d}' % errcode, 0.0)


def unreachable(number: int) -> Result:
    return NotSent("connection_refused", 0.0)


class World:
    """A topic, the processes that follow it, WeCom's gettoken, and the time."""

    def __init__(self, errors: ErrorTable, processes: int = 3) -> None:
        self.now_ms = START_MS
        self.log: list[WecomToken] = []
        self.tables = [TokenTable({"ww1": CORP}, RING, RULES) for _ in range(processes)]
        self.asked: list[int] = []
        self.answers: list[Callable[[int], Result]] = []
        self.gate: asyncio.Event | None = None
        self.renewals: list[str] = []
        self.lost = False
        self.complete = True
        self.nonce = nonces()
        self.owner = TokenOwner(
            [CORP],
            self.tables[0],
            RING,
            RULES,
            fetch=self.fetch,
            publish=self.publish,
            errors=lambda: errors,
            wall_ms=lambda: self.now_ms,
            nonce=self.nonce,
            may_ask=lambda: self.complete,
            renewed=lambda corp_id, result: self.renewals.append(result),
        )

    async def fetch(self, corp: Corp) -> Result:
        assert corp is CORP
        self.asked.append(self.now_ms)
        number = len(self.asked)
        if self.gate is not None:
            await self.gate.wait()
        return self.answers.pop(0)(number) if self.answers else issue(number)

    async def publish(self, records: list[WecomToken]) -> None:
        await asyncio.sleep(0)
        if not self.lost:
            self.write(*records)

    def write(self, *records: WecomToken) -> None:
        for record in records:
            self.log.append(record)
            for table in self.tables:
                table.apply(key_of(record), codec().encode(record))

    def refuse(self, token: str) -> list[WecomToken]:
        """Every process is refused with this token; what they have to say."""
        said = [table.refused("ww1", token, wall_ms=self.now_ms, nonce=self.nonce()) for table in self.tables]
        return [record for record in said if record is not None]

    def current(self) -> str | None:
        (token,) = {table.current("ww1", self.now_ms) for table in self.tables}
        return token

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        owner = asyncio.create_task(self.owner.run(stop))
        try:
            await self.settle()
            yield
        finally:
            stop.set()
            await owner

    async def settle(self) -> None:
        """Until the owner has done what it wants to do now."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def later(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        await self.settle()


@pytest.fixture
def world(table: ErrorTable, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(token_owner, "_LOOK_S", 0)
    return World(table)


# -- the owner --------------------------------------------------------------------------------------------------------


async def test_one_request_brings_every_process_the_token(world: World) -> None:
    async with world.running():
        await world.later(1000)
    assert world.current() == "token-1"
    assert len(world.asked) == 1
    assert world.renewals == ["ok"]


async def test_renewed_early_while_the_old_one_still_serves(world: World) -> None:
    async with world.running():
        await world.later(LIFE_MS * 90 // 100 - 1)
        assert len(world.asked) == 1
        world.gate = asyncio.Event()
        await world.later(1)
        assert world.current() == "token-1"
        await world.later(1000)
        assert len(world.asked) == 2
        world.gate.set()
        await world.settle()
        assert world.current() == "token-2"
    assert len(world.asked) == 2


async def test_an_expired_token_is_not_used(world: World) -> None:
    async with world.running():
        world.answers = [unreachable] * 100
        await world.later(LIFE_MS - 1)
        assert world.current() == "token-1"
        await world.later(1)
        assert world.current() is None


async def test_a_token_that_many_processes_were_refused_with_is_renewed_once(
    table: ErrorTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_owner, "_LOOK_S", 0)
    world = World(table, processes=100)
    async with world.running():
        await world.later(60_000)
        notices = world.refuse("token-1")
        assert len(notices) == 100
        assert world.current() is None
        for notice in notices:
            world.write(notice)
            await world.settle()
        assert world.current() == "token-2"
        assert len(world.asked) == 2
        assert world.refuse("token-1") == []
        await world.later(60_000)
    assert len(world.asked) == 2


async def test_a_refusal_of_an_older_token_renews_nothing(world: World) -> None:
    async with world.running():
        await world.later(60_000)
        early, late, *_ = world.refuse("token-1")
        world.write(early)
        await world.settle()
        world.write(late)
        await world.later(60_000)
        assert world.current() == "token-2"
    assert len(world.asked) == 2


async def test_the_same_token_handed_out_again_is_used_again(world: World) -> None:
    world.answers = [lambda number: issue(7), lambda number: issue(7)]
    async with world.running():
        await world.later(60_000)
        world.write(*world.refuse("token-7"))
        await world.settle()
        assert len(world.asked) == 2
        assert world.current() == "token-7"


async def test_a_platform_that_refuses_what_it_hands_out_is_asked_ever_more_slowly(world: World) -> None:
    async with world.running():
        for _ in range(3600):
            token = world.current()
            if token is not None:
                world.write(*world.refuse(token))
            await world.later(1000)
    pauses = [later - earlier for earlier, later in itertools.pairwise(world.asked)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 60_000
    assert len(world.asked) <= 65


async def test_a_wrong_secret_is_not_hammered(world: World) -> None:
    world.answers = [error(40001)] * 100
    async with world.running():
        for _ in range(360):
            await world.later(10_000)
        failure = world.owner.failure("ww1")
    assert failure is not None
    assert failure.final
    assert failure.errcode == 40001
    assert failure.retry_at_ms > world.now_ms
    assert 2 <= len(world.asked) <= 14
    assert set(world.renewals) == {"refused"}


@pytest.mark.parametrize(("errcode", "final"), [(40013, True), (60020, True), (45009, False), (-1, False)])
async def test_who_must_act_is_told_from_the_platforms_answer(world: World, errcode: int, final: bool) -> None:
    world.answers = [error(errcode)]
    async with world.running():
        failure = world.owner.failure("ww1")
        assert failure is not None
        assert (failure.errcode, failure.final) == (errcode, final)
        await world.later(failure.retry_at_ms - world.now_ms)
        assert world.owner.failure("ww1") is None
        assert world.current() == "token-2"


async def test_a_banned_address_waits(world: World) -> None:
    world.answers = [error(45009)] * 100
    async with world.running():
        for _ in range(360):
            await world.later(10_000)
    assert 2 <= len(world.asked) <= 10


async def test_an_unreachable_platform_is_asked_again_ever_more_slowly_and_then_works(world: World) -> None:
    world.answers = [unreachable] * 3 + [error(-1)]
    async with world.running():
        for _ in range(40):
            await world.later(250)
    assert world.current() == "token-5"
    assert world.renewals == ["no_answer"] * 3 + ["refused", "ok"]
    assert [later - earlier for earlier, later in itertools.pairwise(world.asked)] == [500, 1000, 2000, 4000]


async def test_a_token_that_came_ends_the_growing_of_the_pauses(world: World) -> None:
    world.answers = [unreachable, unreachable, issue, unreachable]
    async with world.running():
        await world.later(500)
        await world.later(1000)
        assert world.current() == "token-3"
        await world.later(LIFE_MS)
        failure = world.owner.failure("ww1")
        assert failure is not None
        assert failure.retry_at_ms == world.now_ms + RULES.unanswered.first_ms


async def test_a_platform_that_hands_out_dying_tokens_is_not_asked_as_fast_as_it_answers(world: World) -> None:
    world.answers = [lambda number: issue(number, expires_in=1)] * 100
    async with world.running():
        for _ in range(100):
            await world.later(100)
    assert 2 <= len(world.asked) <= 11


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode":0}',
        b'{"errcode":0,"access_token":"","expires_in":7200}',
        b'{"errcode":0,"access_token":"t","expires_in":0}',
        b'{"errcode":0,"access_token":7,"expires_in":7200}',
        b'{"errcode":0,"access_token":"\\ud800","expires_in":7200}',
        b'{"errcode":0,"access_token":"' + b"x" * 513 + b'","expires_in":7200}',
    ],
)
async def test_an_answer_without_a_usable_token_is_no_token(world: World, body: bytes) -> None:
    world.answers = [lambda number: Answer(0, body, 0.0)]
    async with world.running():
        assert world.current() is None
        assert world.log == []
        await world.later(500)
        assert world.current() == "token-2"


async def test_a_life_beyond_all_times_is_a_long_one(world: World) -> None:
    world.answers = [lambda number: issue(number, expires_in=1 << 62)]
    async with world.running():
        assert world.current() == "token-1"
        await world.later(86_400_000)
        assert world.current() == "token-1"


async def test_a_successor_does_not_ask_for_a_token_that_is_there(table: ErrorTable, world: World) -> None:
    async with world.running():
        pass
    successor = World(table)
    successor.now_ms = world.now_ms + 60_000
    successor.write(*world.log)
    async with successor.running():
        assert successor.asked == []
        assert successor.current() == "token-1"


async def test_nothing_is_asked_before_the_table_is_complete(world: World) -> None:
    world.complete = False
    async with world.running():
        await world.later(1000)
        assert world.asked == []
        world.complete = True
        await world.settle()
        assert len(world.asked) == 1


async def test_a_record_that_never_comes_back_counts_as_lost(world: World) -> None:
    world.lost = True
    async with world.running():
        await world.later(RULES.seen_within_ms - 1)
        assert len(world.asked) == 1
        world.lost = False
        await world.later(1)
        assert len(world.asked) == 2
        assert world.current() == "token-2"


async def test_whoever_cannot_write_does_not_go_on(world: World) -> None:
    class ShardLost(Exception):
        pass

    async def fenced(records: list[WecomToken]) -> None:
        raise ShardLost

    world.owner._publish = fenced
    with pytest.raises(ShardLost):
        await world.owner.run(asyncio.Event())


async def test_a_stop_ends_a_request_that_is_under_way(world: World) -> None:
    world.gate = asyncio.Event()
    async with world.running():
        assert len(world.asked) == 1
    assert world.log == []


async def test_nothing_shows_a_token_or_a_secret(world: World) -> None:
    async with world.running():
        await world.later(1000)
        held = world.tables[0].issue("ww1")
        shown = [repr(held), repr(world.log), repr(world.tables[0]), repr(world.owner), repr(vars(world.owner))]
        shown += [repr(vars(world.tables[0])), codec().encode(world.log[0]).decode("latin-1")]
        shown.append(repr(token_owner._decode(issue(1).body)))
    assert held is not None
    assert held.token == "token-1"
    for text in shown:
        assert "token-1" not in text
        assert "the-app-secret" not in text


# -- the table --------------------------------------------------------------------------------------------------------


def sealed(token: str = "token-1", issued_at_ms: int = START_MS, ring: KeyRing = RING, **changes: object) -> WecomToken:
    corp_id, agent_id = str(changes.get("corp_id", "ww1")), str(changes.get("agent_id", "1"))
    fields: dict[str, object] = {
        "corp_id": "ww1",
        "agent_id": "1",
        "kind": "token",
        "fingerprint": ring.fingerprint(corp_id, agent_id, token),
        "key_id": "",
        "nonce": b"",
        "ciphertext": b"",
        "issued_at_ms": issued_at_ms,
        "expires_at_ms": issued_at_ms + LIFE_MS,
        "written_at_ms": issued_at_ms,
    }
    return ring.seal(WecomToken(**(fields | changes)), token, b"n" * 12)  # type: ignore[arg-type]


def give(table: TokenTable, record: WecomToken) -> None:
    table.apply(key_of(record), codec().encode(record))


@pytest.fixture
def tokens() -> TokenTable:
    return TokenTable({"ww1": CORP}, RING, RULES)


def test_the_token_that_was_written_last_is_the_current_one(tokens: TokenTable) -> None:
    give(tokens, sealed("token-2", START_MS + 5))
    give(tokens, sealed("token-1", START_MS))
    assert tokens.current("ww1", START_MS) == "token-1"


def test_another_apps_token_is_none_of_ours(tokens: TokenTable) -> None:
    give(tokens, sealed(agent_id="2"))
    give(tokens, sealed(corp_id="ww9"))
    assert tokens.current("ww1", START_MS) is None
    assert tokens.current("ww9", START_MS) is None


@pytest.mark.parametrize("reason", ["unknown_key", "altered"])
def test_a_record_that_cannot_be_opened_is_refused_and_the_token_before_it_stays(
    tokens: TokenTable, reason: str
) -> None:
    give(tokens, sealed("token-1"))
    foreign = KeyRing({"k9" if reason == "unknown_key" else "k1": b"x" * 32})
    with pytest.raises(TokenRecordError, match=reason):
        give(tokens, sealed("token-2", START_MS + 1, foreign))
    assert tokens.current("ww1", START_MS + 1) == "token-1"


def test_a_refusal_that_was_forged_changes_nothing(tokens: TokenTable) -> None:
    give(tokens, sealed("token-1"))
    held = tokens.issue("ww1")
    assert held is not None
    forged = sealed("", START_MS, KeyRing({"k1": b"x" * 32}), kind="refused", fingerprint=held.fingerprint)
    with pytest.raises(TokenRecordError):
        give(tokens, forged)
    assert tokens.current("ww1", START_MS) == "token-1"


@pytest.mark.parametrize("token", ["", "x" * 513])
def test_a_token_of_no_possible_length_is_refused(tokens: TokenTable, token: str) -> None:
    with pytest.raises(TokenRecordError, match="empty or too long"):
        give(tokens, sealed(token))


def test_a_record_under_another_key_is_refused(tokens: TokenTable) -> None:
    with pytest.raises(TokenRecordError, match="key"):
        tokens.apply(b"ww1|2|token", codec().encode(sealed()))
    with pytest.raises(CodecError):
        tokens.apply(b"ww1|1|token", b"no record")


def test_a_refusal_that_comes_before_its_token_holds(tokens: TokenTable) -> None:
    other = TokenTable({"ww1": CORP}, RING, RULES)
    give(other, sealed("token-1"))
    refusal = other.refused("ww1", "token-1", wall_ms=START_MS, nonce=b"n" * 12)
    assert refusal is not None
    give(tokens, refusal)
    give(tokens, sealed("token-1"))
    assert tokens.current("ww1", START_MS) is None
    give(tokens, sealed("token-1", START_MS + 1))
    assert tokens.current("ww1", START_MS + 1) == "token-1"


def test_a_record_that_is_read_again_brings_no_refused_token_back(tokens: TokenTable) -> None:
    other = TokenTable({"ww1": CORP}, RING, RULES)
    refusals = []
    for number in (1, 2):
        give(other, sealed(f"token-{number}", START_MS + number))
        refusals.append(other.refused("ww1", f"token-{number}", wall_ms=START_MS, nonce=b"n" * 12))
    of_the_first, of_the_second = refusals
    assert of_the_first is not None
    assert of_the_second is not None
    give(tokens, sealed("token-2", START_MS + 2))
    give(tokens, of_the_second)
    give(tokens, of_the_first)
    give(tokens, sealed("token-2", START_MS + 2))
    assert tokens.current("ww1", START_MS + 2) is None


def test_a_refusal_is_reported_once_and_again_when_it_got_lost(tokens: TokenTable) -> None:
    give(tokens, sealed("token-1"))

    def refused(after_ms: int) -> WecomToken | None:
        return tokens.refused("ww1", "token-1", wall_ms=START_MS + after_ms, nonce=b"n" * 12)

    assert refused(0) is not None
    assert refused(1) is None
    assert tokens.current("ww1", START_MS + 1) is None
    assert tokens.current("ww1", START_MS + RULES.report_again_ms) == "token-1"
    assert refused(RULES.report_again_ms) is not None
    assert tokens.refused("ww1", "another", wall_ms=START_MS, nonce=b"n" * 12) is None
    assert tokens.refused("ww9", "token-1", wall_ms=START_MS, nonce=b"n" * 12) is None


def test_a_tombstone_takes_a_token_away(tokens: TokenTable) -> None:
    give(tokens, sealed("token-1"))
    tokens.apply(b"ww9|1|token", None)
    assert tokens.current("ww1", START_MS) == "token-1"
    tokens.apply(b"ww1|1|token", None)
    assert tokens.current("ww1", START_MS) is None


async def test_whoever_waits_is_told_of_the_next_token_and_of_none_before(tokens: TokenTable) -> None:
    give(tokens, sealed("token-1"))
    waiting = [asyncio.ensure_future(tokens.wait("ww1")) for _ in range(3)]
    waiting[0].cancel()
    await asyncio.sleep(0)
    refusal = tokens.refused("ww1", "token-1", wall_ms=START_MS, nonce=b"n" * 12)
    assert refusal is not None
    give(tokens, refusal)
    await asyncio.sleep(0)
    assert not waiting[1].done()
    give(tokens, sealed("token-2", START_MS + 1))
    await asyncio.gather(*waiting[1:])
    assert tokens.current("ww1", START_MS + 1) == "token-2"


# -- any order --------------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """Follows the log at its own pace."""

    table: TokenTable = field(default_factory=lambda: TokenTable({"ww1": CORP}, RING, RULES))
    read: int = 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 20_000)),
        st.tuples(st.just("read"), st.integers(0, 4)),
        st.tuples(st.just("use"), st.integers(0, 4)),
        st.tuples(st.just("own"), st.just(0)),
        st.tuples(st.just("invalidate"), st.just(0)),
    ),
    max_size=120,
)


@given(steps=STEPS)
def test_whatever_the_order_a_refused_token_is_renewed_once_and_the_others_never(
    steps: list[tuple[str, int]],
) -> None:
    log: list[WecomToken] = []
    processes = [Process() for _ in range(5)]
    renewals = Renewals(RULES)
    owner = processes[0]
    nonce = nonces()
    now_ms = START_MS
    valid: str | None = None
    fetched: list[str] = []

    def read(process: Process, most: int = 1) -> None:
        for record in log[process.read : process.read + most]:
            give(process.table, record)
            process.read += 1

    def use(process: Process) -> None:
        token = process.table.current("ww1", now_ms)
        if token is not None and token != valid:
            notice = process.table.refused("ww1", token, wall_ms=now_ms, nonce=nonce())
            assert notice is not None
            assert process.table.current("ww1", now_ms) is None
            log.append(notice)

    def own() -> None:
        nonlocal valid
        if renewals.due_ms("ww1", owner.table.issue("ww1"), now_ms) <= now_ms:
            renewals.asked("ww1")
            assert renewals.due_ms("ww1", owner.table.issue("ww1"), now_ms) == NEVER_MS
            valid = f"token-{len(fetched)}"
            fetched.append(valid)
            record = sealed(valid, now_ms)
            log.append(record)
            renewals.written("ww1", (record.fingerprint, record.issued_at_ms), now_ms)

    for what, value in steps:
        if what == "wait":
            now_ms += value
        elif what == "read":
            read(processes[value])
            if value == 0:
                read(owner, len(log))  # a table that is not complete does not ask: see may_ask
        elif what == "use":
            use(processes[value])
        elif what == "own":
            read(owner, len(log))
            own()
        else:
            valid = None

    refused = {(r.fingerprint, r.issued_at_ms) for r in log if r.kind == "refused"}
    assert len(fetched) <= 1 + len(refused)
    # Everything is read, everybody uses what there is, and the owner does what is due: then all is well.
    for _ in range(4):
        for process in processes:
            read(process, len(log))
            use(process)
        now_ms += RULES.young.longest_ms + RULES.seen_within_ms
        read(owner, len(log))
        own()
    for process in processes:
        read(process, len(log))
    assert valid is not None
    assert {process.table.current("ww1", now_ms) for process in processes} == {valid}
    refused = {(r.fingerprint, r.issued_at_ms) for r in log if r.kind == "refused"}
    assert len(fetched) == 1 + len(refused)


# -- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"renew_after_percent": 100}, "renew_after_percent"),
        ({"between_ms": 0}, "between_ms"),
        ({"young": {"first_ms": 2, "longest_ms": 1}}, "young"),
        ({"refused": {"first_ms": 0, "longest_ms": 1}}, "refused"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_their_place(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    version = msgspec.to_builtins(RULES) | change
    path = tmp_path / "tokens.yaml"
    path.write_text(yaml.safe_dump({"versions": [version]}))
    with pytest.raises(TokenRulesError, match=says):
        load_token_rules(path)


def test_versions_of_the_rules_follow_each_other(tmp_path: Path) -> None:
    first: dict[str, object] = msgspec.to_builtins(RULES)
    second = first | {"version": "next", "effective_from": "2030-01-01", "between_ms": 2000}
    path = tmp_path / "tokens.yaml"
    path.write_text(yaml.safe_dump({"versions": [first, second]}))
    rules = load_token_rules(path)
    begins_ms = 1_893_427_200_000  # 2030-01-01 00:00 in Asia/Shanghai
    between: list[TokenRules] = [rules.at(begins_ms - 1), rules.at(begins_ms)]
    assert [version.between_ms for version in between] == [1000, 2000]
    path.write_text(yaml.safe_dump({"versions": [second, first]}))
    with pytest.raises(TokenRulesError, match="ascending"):
        load_token_rules(path)
    path.write_text("versions: []")
    with pytest.raises(TokenRulesError, match="no version"):
        load_token_rules(path)
    with pytest.raises(TokenRulesError, match="No such file"):
        load_token_rules(tmp_path / "missing.yaml")
