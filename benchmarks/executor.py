"""The governed executor against the simulator's own record of calls: what it uses, what it never does, what it costs.

    backlog   a million bulk actions, a storm of urgent ones and a stream of welcomes: share of the admissible used,
              calls over any limit, welcomes from the callback's arrival to the outcome
    fleet     the same with 20 processes that are killed, frozen and stopped by a plan
    send      messages to 100,000 people while the executors are killed: who was in which accepted request
    change    a limit that is raised and lowered at dated moments: when each process heeds it
    ban       word of a ban: how long a staff member and a corp still are called for
    overhead  calls a second of one process against a stub that answers at once
    memory    one process with a million queued actions behind a tiny limit

Prints JSON, progress to stderr. ``ok`` and the status say whether everything came out right (no call over a limit,
nobody reached twice, one outcome an action); ``missed`` names the promised figures that were not reached. Without a
name: all of them in a short form. Times are of this machine, whose cores every process, broker and platform share.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.harness import backlog as work
from benchmarks.harness.broker import Cluster
from benchmarks.harness.claim import say
from benchmarks.harness.executors import (
    UNLIMITED,
    Deed,
    Executors,
    Site,
    SiteFailed,
    ask,
    deeds,
    platform_limits,
    site,
    strikes,
    until,
    write_limits,
)
from benchmarks.harness.memory import watching
from benchmarks.harness.processes import cpu_seconds, machine
from benchmarks.harness.verdict import MASS_MESSAGE, Figures, Verdict, read_calls
from deploy.local.ports import free_ports
from siyu.events import ConfigRecord, GuardSignal, codec
from siyu.events.ids import staff_key
from siyu.limits import LimitRegistry, load_registry
from siyu.limits.source import records_of

LATENCY_MS = "10"
SLOW_MS = "40"
"""Answers so slow that calls at the same time, not a minute's budget, are what limits a corp."""
STRUCK_WITHIN_S = 6.0
"""Of the beginning of a send: that long its calls are under way."""
HEEDED_WITHIN_MS = 1_000
"""A dated change of a limit, in every process."""
_FEW = 20
_TAGGED = f"/cgi-bin/{work.TAG}"


class Wrong(RuntimeError):
    """Something did not come out as it must, so that a figure would mean nothing."""


def judge(
    s: Site,
    *,
    begin_ms: int | None = None,
    end_ms: int | None = None,
    registry: LimitRegistry | None = None,
    grace_ms: int = 0,
    people: set[str] | None = None,
) -> Figures:
    """The verdict over the whole record; limits of endpoints that were hardly called only where they were passed."""
    say("reading the record of calls")
    verdict = Verdict(registry or load_registry(s.limits), grace_ms=grace_ms)
    for call in read_calls(s.recorded()):
        verdict.add(call)
    found = verdict.figures(begin_ms=begin_ms, end_ms=end_ms, people=people)
    asked = {call_endpoint for call_endpoint, codes in found["errors"].items() if sum(codes.values()) >= _FEW}
    found["limits"] = [row for row in found["limits"] if row["over"] or asked.intersection(row["endpoints"])]
    return found


def admissible_used(verdict: Figures, endpoint: str, lane: str) -> Figures:
    """How much of what a lane may use was used, by the corps and by the address: the fullest is what held back."""
    rows = [row for row in verdict["limits"] if row["endpoints"] == [endpoint] and "used_of_lane" in row]
    by_limit: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["enforce"] == "admit":
            by_limit[row["limit"]].append(row["used_of_lane"][lane])
    means = {limit: round(sum(shares) / len(shares), 4) for limit, shares in by_limit.items()}
    return {
        "lane": lane,
        "by_limit": means,
        "held_back_by": max(means, key=lambda m: means[m]),
        "share": max(means.values()),
    }


def missed(**kept: bool) -> list[str]:
    """Names of the promises that were not kept."""
    return [name for name, is_kept in kept.items() if not is_kept]


def started(s: Site, callbacks: int = 0) -> None:
    """Ingest and planner for the welcomes, where callbacks go to a port."""
    ingest = s.service("services.ingest", SIYU_PORT=str(callbacks))
    planner = s.service("services.planner")
    for service in (ingest, planner):
        service.check_alive()


def governed(o: argparse.Namespace, *, executors: int, plan: Callable[[float], Sequence[Deed]]) -> Figures:
    """Backlog, storm and welcomes on so many executors, to whom the plan's deeds are done while it is measured."""
    seconds = o.minutes * 60
    with ExitStack() as stack:
        s = stack.enter_context(site(shards=o.shards, corps=o.corps, rate=o.rate, keep=o.keep))
        (callbacks,) = free_ports(1)
        scenario = work.scenario(staff=o.staff, customers=o.customers, adds_per_second=o.welcomes)
        simulator = s.simulate(
            scenario,
            f"http://127.0.0.1:{callbacks}",
            SIYU_SIM_LATENCY_MILLISECONDS=LATENCY_MS,
            SIYU_SIM_CALLS_KEPT="1000",
        )
        started(s, callbacks)
        fleet = Executors(s, executors)
        stack.callback(fleet.stop)
        fleet.start().ready()
        say(f"{executors} executors ready; filling {o.actions:,} actions")
        s.tell("start", {})
        people = work.people_of(s, o.customers)
        began = time.monotonic()
        work.fill(s.bootstrap, work.tagging(people, o.actions, now_ms=work.business_ms(s), seed=o.seed))
        say(f"filled in {time.monotonic() - began:.0f} s; {seconds:.0f} s begin")
        begin_ms, began = work.business_ms(s), time.monotonic()
        stormed, told = False, 0.0

        def watch() -> None:
            nonlocal stormed, told
            simulator.check_alive()
            now = time.monotonic() - began
            if not stormed and now > seconds * 0.3:
                storm = work.tagging(
                    people, o.storm, now_ms=work.business_ms(s), seed=o.seed, lane="urgent", first=o.actions
                )
                stormed = work.fill(s.bootstrap, storm) == o.storm
                say(f"{now:7.1f} s: a storm of {o.storm:,} urgent actions")
            if now - told > 30:
                told = now
                calls = s.see("status")["calls"].get(work.TAG, 0)
                say(f"{now:7.1f} s: {calls:,} tags, executors {[round(m) for m in fleet.resident_mb()]} MB")

        fleet.play(plan(seconds), began, seconds, watch=watch)
        end_ms = work.business_ms(s)
        cpu = fleet.cpu_seconds()
        fleet.ready()
        fleet.stop()
        found = work.outcomes(Cluster(s.bootstrap))
        welcomes = s.see("status")["welcomes"]
        verdict = judge(s, begin_ms=begin_ms, end_ms=end_ms)
    expired = sum(count for (lane, status, _), count in found.ends.items() if (lane, status) == ("welcome", "expired"))
    used = admissible_used(verdict, work.TAG, "bulk")
    return {
        "executors": executors,
        "actions": o.actions,
        "minutes": o.minutes,
        "clock_rate": o.rate,
        "deeds": {kind: sum(deed.kind == kind for deed in fleet.done) for kind in ("kill", "freeze", "stop")},
        "admissible_used": used,
        "over": verdict["over"],
        "welcomes": {
            "issued": welcomes["issued"],
            "accepted": len(found.welcome_ms),
            "expired": expired,
            "p50_ms": found.share_ms(0.5),
            "p99_ms": found.share_ms(0.99),
            "most_ms": found.share_ms(1.0),
        },
        "outcomes": found.figures(),
        "executor_cpu_s": round(cpu, 1),
        "missed": missed(
            admissible_used=used["share"] >= 0.98,
            welcome_p99=0 < found.share_ms(0.99) < 3_000,
            no_welcome_expired=not expired,
        ),
        "verdict": verdict,
        "ok": verdict["ok"] and not found.more_than_one,
    }


def backlog(o: argparse.Namespace) -> Figures:
    return governed(o, executors=o.executors, plan=lambda seconds: [])


def fleet(o: argparse.Namespace) -> Figures:
    return governed(o, executors=o.executors, plan=lambda seconds: deeds(o.seed, o.executors, seconds, o.every))


def send(o: argparse.Namespace) -> Figures:
    """Rounds of one large send each, to people of their own, executors killed all the while; then business time runs
    ahead until nobody's outcome is open."""
    customers = o.people * o.rounds
    with ExitStack() as stack:
        s = stack.enter_context(site(shards=o.shards, rate=o.rate, keep=o.keep))
        habits = {"never_share": 0.0, "median_s": 20, "spread": 0.5}
        s.simulate(
            work.scenario(staff=o.staff, customers=customers, habits=habits),
            SIYU_SIM_LATENCY_MILLISECONDS=str(o.latency),
            SIYU_SIM_CALLS_KEPT="1000",
        )
        crew = Executors(s, o.executors)
        stack.callback(crew.stop)
        crew.start().ready()
        s.tell("start", {})
        (corp_id,) = s.corps
        who = [customer for _, customer in work.people_of(s, customers).pairs[corp_id]]
        if len(set(who)) < customers:
            raise Wrong(f"{len(set(who))} of {customers} people are there")
        # An answer that is lost leaves the executor in doubt, as a crash behind the call does.
        s.tell("faults", {"endpoint": MASS_MESSAGE, "share": o.lost, "after_effect": True})
        began = time.monotonic()
        seconds = o.rounds * o.seconds
        plan = strikes(o.seed, o.executors, o.rounds, o.seconds, o.strikes, within_s=STRUCK_WITHIN_S)
        sent = 0

        def watch() -> None:
            nonlocal sent
            if sent < o.rounds and time.monotonic() - began >= sent * o.seconds:
                now_ms = work.business_ms(s)
                part = who[sent * o.people : (sent + 1) * o.people]
                made = work.send_to(
                    sent, corp_id, part, f"Message {sent}.", now_ms=now_ms, harvest_until_ms=now_ms + o.harvest * 1000
                )
                work.fill(s.bootstrap, [made])
                sent += 1
                say(f"{time.monotonic() - began:7.1f} s: send {sent} to {len(part):,}")

        crew.play(plan, began, seconds, watch=watch)
        s.tell("faults", None, method="DELETE")
        crew.ready()
        say("no more deeds; waiting until everything is known")
        cluster, wanted = Cluster(s.bootstrap), {f"bench-bulk-{number:08d}" for number in range(o.rounds)}
        until(lambda: wanted <= set(work.outcomes(cluster).published), "outcomes of the sends", o.patience)
        crew.stop()
        found = work.outcomes(cluster)
        verdict = judge(s, people=set(who))
    done = crew.done
    return {
        "people": customers,
        "rounds": o.rounds,
        "deeds": {kind: sum(deed.kind == kind for deed in done) for kind in ("kill", "freeze", "stop")},
        "reached": verdict["people"],
        "repeated": verdict["repeated"],
        "outcomes": found.figures(),
        "verdict": verdict,
        "ok": verdict["ok"] and not found.more_than_one,
    }


def change(o: argparse.Namespace) -> Figures:
    """A limit of 10 s is raised tenfold and lowered again at dated moments of a registry that comes over Kafka."""
    low, high = 100, 1_000
    with ExitStack() as stack:
        s = stack.enter_context(site(shards=o.shards, corps=o.corps, keep=o.keep))
        base = {**UNLIMITED, "corp_api_concurrency": 5, "pace_concurrency": 4}
        write_limits(s.limits, base)
        write_short_limit(s.limits, [("2020-01-01", low)])
        s.simulate(
            work.scenario(staff=o.staff, customers=o.customers),
            SIYU_SIM_LATENCY_MILLISECONDS=LATENCY_MS,
            **platform_limits(UNLIMITED),
            SIYU_SIM_CALLS_KEPT="1000",
        )
        crew = Executors(s, o.executors)
        stack.callback(crew.stop)
        crew.start().ready()
        s.tell("start", {})
        people = work.people_of(s, o.customers)
        work.fill(s.bootstrap, work.tagging(people, o.actions, now_ms=work.business_ms(s), seed=o.seed))
        now_ms = work.business_ms(s)
        raised_ms, lowered_ms = (now_ms // 1000 + 40) * 1000, (now_ms // 1000 + 80) * 1000
        dated = s.folder / "dated"
        write_limits(dated, base)
        write_short_limit(dated, [("2020-01-01", low), (iso(raised_ms), high), (iso(lowered_ms), low)])
        registry = load_registry(dated)
        put_in_force(s, registry)
        say("the dated registry is in force; watching it for two minutes")
        until(lambda: work.business_ms(s) > lowered_ms + 30_000, "both moments", 180, check=s.check_alive)
        crew.stop()
        verdict = judge(s, registry=registry, grace_ms=HEEDED_WITHIN_MS)
        calls: dict[str, list[int]] = defaultdict(list)
        for call in read_calls(s.calls_file):
            if call.endpoint == work.TAG:
                calls[call.corp_id].append(call.business_ms)
    allowed = low * registry.at(raised_ms).headroom["bulk"]
    heeded: dict[str, dict[str, int]] = {}
    for corp_id, arrivals in sorted(calls.items()):
        arrivals.sort()
        past = [at for n, at in enumerate(arrivals) if _within(arrivals, n, 10_000) > allowed]
        if not past:
            raise Wrong("a corp never used what its limit was raised to")
        heeded[corp_id] = {
            "raised_after_ms": past[0] - raised_ms,
            "lowered_after_ms": max(past[-1] - lowered_ms, 0),
        }
    return {
        "claim": "a change dated T is heeded at T, give or take a second, in every process",
        "processes": o.executors,
        "corps": heeded,
        "over": verdict["over"],
        "missed": missed(
            raised=all(0 <= found["raised_after_ms"] <= HEEDED_WITHIN_MS for found in heeded.values()),
            lowered=all(found["lowered_after_ms"] <= HEEDED_WITHIN_MS for found in heeded.values()),
        ),
        "verdict": verdict,
        "ok": verdict["ok"],
    }


def _within(arrivals: Sequence[int], number: int, length_ms: int) -> int:
    """Arrivals in the window that ends with this one."""
    count = 0
    while number - count >= 0 and arrivals[number - count] > arrivals[number] - length_ms:
        count += 1
    return count


def iso(ms: int) -> str:
    """A moment with its zone."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds")


def write_short_limit(folder: Path, versions: Sequence[tuple[str, int]]) -> None:
    """A limit of tag changes in 10 s, by begin and amount."""
    entry = {
        "id": "bench_short",
        "scope": "corp_api",
        "window": "sliding 10 s",
        "block": "none",
        "endpoints": [work.TAG],
        "source": "benchmark",
        "confidence": "benchmark",
    }
    limits = [{**entry, "effective_from": begins, "amount": amount} for begins, amount in versions]
    (folder / "bench.yaml").write_text(json.dumps({"limits": limits}))


def put_in_force(s: Site, registry: LimitRegistry) -> None:
    """As ``siyu limits apply`` does."""
    producer = Producer({"bootstrap.servers": s.bootstrap, "partitioner": "murmur2_random", "log_level": 0})
    records: Sequence[ConfigRecord] = records_of(
        registry, author="benchmark", reason="benchmark", written_at_ms=time.time_ns() // 1_000_000
    )
    for record in records:
        producer.produce("config", codec().encode(record), f"{record.kind}|{record.id}")
    if producer.flush(30):
        raise Wrong("the registry was not acknowledged")


def ban(o: argparse.Namespace) -> Figures:
    """Tag changes for many; then word that a staff member is banned, and that a corp is."""
    with ExitStack() as stack:
        s = stack.enter_context(site(shards=o.shards, corps=2, keep=o.keep))
        s.simulate(
            work.scenario(staff=o.staff, customers=o.customers),
            SIYU_SIM_LATENCY_MILLISECONDS=SLOW_MS,
            SIYU_SIM_CALLS_KEPT="1000",
        )
        s.service("services.guard")
        crew = Executors(s, o.executors)
        stack.callback(crew.stop)
        crew.start().ready()
        s.tell("start", {})
        people = work.people_of(s, o.customers)
        # Half of the actions for one member, so that there always is one for them.
        banned_corp, other_corp = s.corps
        staff_id = people.pairs[other_corp][0][0]
        theirs = [pair for pair in people.pairs[other_corp] if pair[0] == staff_id]
        people.pairs[other_corp] = [
            *people.pairs[other_corp],
            *(theirs * (len(people.pairs[other_corp]) // len(theirs))),
        ]
        work.fill(s.bootstrap, work.tagging(people, o.actions, now_ms=work.business_ms(s), seed=o.seed))
        time.sleep(20)
        told = {"staff": tell_ban(s, other_corp, staff_id), "corp": tell_ban(s, banned_corp, "")}
        say("word of both bans is out; watching for 90 s")
        until(lambda: work.business_ms(s) > told["corp"] + 90_000, "90 s", 120, check=s.check_alive)
        crew.stop()
        ends = work.outcomes(Cluster(s.bootstrap))
        verdict = judge(s)
        last = {"staff": 0, "corp": 0, "others": 0}
        before = {"staff": 0, "corp": 0}
        others: list[int] = []
        for call in read_calls(s.calls_file):
            if call.endpoint != work.TAG:
                continue
            whose = "corp" if call.corp_id == banned_corp else "staff" if call.staff_id == staff_id else "others"
            last[whose] = max(last[whose], call.business_ms)
            if whose == "others":
                others.append(call.business_ms)
            elif call.business_ms < told[whose]:
                before[whose] += 1
    stopped = {whose: round((last[whose] - at) / 1000, 2) for whose, at in told.items()}
    others.sort()
    pauses = [(after - before) / 1000 for before, after in itertools.pairwise(others)]
    return {
        "claim": "word of a ban stops a staff member within 5 s and a corp within 60 s, and nobody else",
        "calls_before": before,
        "last_call_s_after": stopped,
        "others_went_on_s": round((last["others"] - told["corp"]) / 1000, 1),
        "others_longest_pause_s": round(max(pauses, default=0.0), 2),
        "over": verdict["over"],
        "outcomes": ends.figures(),
        "missed": missed(
            staff=stopped["staff"] <= 5,
            corp=stopped["corp"] <= 60,
            others=last["others"] > told["corp"] + 60_000 and max(pauses, default=0.0) <= 5,
        ),
        "ok": verdict["ok"] and not ends.more_than_one and all(before.values()),
    }


def tell_ban(s: Site, corp_id: str, staff_id: str) -> int:
    """Puts word of a ban out; returns when (business ms)."""
    now_ms = work.business_ms(s)
    signal = GuardSignal(
        signal_id=f"benchmark-{corp_id}-{staff_id}",
        corp_id=corp_id,
        staff_id=staff_id,
        kind="ban",
        count=1,
        campaign_id="",
        action_id="",
        errcode=0,
        source="operator",
        author="benchmark",
        reason="benchmark",
        event_time_ms=now_ms,
        written_at_ms=time.time_ns() // 1_000_000,
    )
    producer = Producer({"bootstrap.servers": s.bootstrap, "partitioner": "murmur2_random", "log_level": 0})
    producer.produce("guard.signals", codec().encode(signal), staff_key(corp_id, staff_id))
    if producer.flush(30):
        raise Wrong("the signal was not acknowledged")
    return now_ms


def invented(corps: Sequence[str], staff: int, customers: int) -> work.People:
    """People of no world: the stub knows nobody."""
    names = [(f"staff{n % staff:05d}", f"wmAJ2GCAAAXtWyujaWJH{n:012d}") for n in range(customers)]
    return work.People(dict.fromkeys(corps, names), {corp: [f"etAJ2GCAAA{n:022d}" for n in range(8)] for corp in corps})


def overhead(o: argparse.Namespace) -> Figures:
    """One process works off a backlog as fast as it can. What is measured is the stretch from the first tenth to the
    last: start-up, reading ahead and the end are apart."""
    with site(shards=o.shards, corps=o.corps, limits=UNLIMITED, keep=o.keep) as s, s.stubbed():
        people = invented(s.corps, o.staff, o.customers)
        work.fill(s.bootstrap, work.tagging(people, o.actions, now_ms=work.business_ms(s), seed=o.seed))
        crew = Executors(s, 1).start()
        service = crew.all[0]
        try:

            def calls() -> int:
                counted: dict[str, int] = ask(f"{s.base_url}/_stub")
                return counted.get(_TAGGED, 0)

            def passed(share: float) -> tuple[float, float, float, float, int]:
                until(lambda: calls() >= o.actions * share, f"{share:.0%} of the calls", 600, check=service.check_alive)
                pids = service.pid, s.platform_pid, s.broker_pid
                used = [cpu_seconds(pid) for pid in pids]
                return time.monotonic(), used[0], used[1], used[2], calls()

            first, last = passed(0.1), passed(0.9)
            done = last[4] - first[4]
            resident = crew.resident_mb()[0]
            until(lambda: calls() >= o.actions, "all calls", 600, check=service.check_alive)
        finally:
            crew.stop()
        found = work.outcomes(Cluster(s.bootstrap))
    each = [round((b - a) / done * 1e6, 1) for a, b in zip(first[1:4], last[1:4], strict=True)]
    return {
        "claim": "one process makes 1,500 calls a second and more, everything included",
        "calls": done,
        "per_second": round(done / (last[0] - first[0])),
        "cpu_us_each": {"executor": each[0], "stub": each[1], "broker": each[2]},
        "resident_mb": resident,
        "outcomes": found.figures(),
        "missed": missed(per_second=done / (last[0] - first[0]) >= 1_500),
        "ok": not found.more_than_one,
    }


def memory(o: argparse.Namespace) -> Figures:
    """One process takes everything in that waits, while a tiny limit lets hardly anything out."""
    tiny = {"corp_api_minute": 60, "pace_staff_mark_tag": 60}
    with site(shards=o.shards, corps=o.corps, limits=tiny, keep=o.keep) as s, s.stubbed():
        people = invented(s.corps, o.staff, o.customers)
        work.fill(s.bootstrap, work.tagging(people, o.actions, now_ms=work.business_ms(s), seed=o.seed))
        crew = Executors(s, 1).start()
        try:
            service = crew.all[0]
            crew.ready()
            with watching(service.pid) as seen:
                began = time.monotonic()
                waiting = 0.0

                def taken_in() -> bool:
                    nonlocal waiting
                    now = crew.total("siyu_executor_waiting")
                    if now > waiting:
                        say(f"{time.monotonic() - began:7.1f} s: {now:,.0f} queued, {seen.resident[-1]:.0f} MB")
                    waiting = max(waiting, now)
                    return waiting >= 0.99 * float(o.actions)

                until(taken_in, "everything queued", 900, check=service.check_alive)
                seconds = time.monotonic() - began
                time.sleep(20)
                settled = sorted(seen.resident[-40:])
        finally:
            crew.stop()
    return {
        "claim": "a million queued actions stay below 400 MB resident",
        "queued": round(waiting),
        "seconds": round(seconds, 1),
        "resident_mb": {"settled": settled[len(settled) // 2], "most": max(seen.resident), "first": seen.resident[0]},
        "share_mb": seen.share[-1],
        "missed": missed(resident=max(seen.resident) < 400),
        "ok": waiting > 0,
    }


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name")

    def command(measure: Callable[[argparse.Namespace], Figures], **defaults: Any) -> None:
        one = commands.add_parser(measure.__name__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        one.set_defaults(measure=measure)
        one.add_argument("--seed", type=int, default=1, help="of the actions and of the deeds")
        one.add_argument("--keep", type=Path, help="a folder for logs, states and the record of calls, which stays")
        for name, (value, what) in defaults.items():
            one.add_argument(f"--{name}", type=type(value), default=value, help=what)

    def crowd(staff: int, customers: int) -> dict[str, tuple[Any, str]]:
        return {"staff": (staff, "members, over all corps"), "customers": (customers, "their friends, over all corps")}

    governed = {
        "actions": (1_000_000, "bulk actions"),
        "minutes": (10.0, "of wall time that are measured"),
        "rate": (1.0, "business seconds a second of wall time"),
        "corps": (2, "that have actions"),
        "welcomes": (5.0, "adds with a welcome code a second"),
        "storm": (6_000, "urgent actions at once, in between"),
        **crowd(300, 60_000),
    }
    command(backlog, **governed, executors=(2, "processes"), shards=(32, "partitions"))
    command(
        fleet,
        **governed,
        executors=(20, "processes"),
        shards=(32, "partitions"),
        every=(8.0, "seconds between two deeds, in the mean"),
    )
    command(
        send,
        people=(100_000, "of one send"),
        rounds=(3, "sends, one after the other, each to others"),
        seconds=(60.0, "from one send to the next"),
        strikes=(9, "kills and freezes in each round"),
        executors=(2, "processes"),
        shards=(8, "partitions"),
        staff=(200, "members"),
        latency=(400.0, "ms that a call takes at most"),
        lost=(0.2, "share of the accepted whose answer is lost"),
        rate=(10.0, "business seconds a second of wall time"),
        harvest=(900, "business seconds until whoever has not confirmed never will"),
        patience=(600.0, "seconds for everything to be known"),
    )
    command(
        change,
        actions=(100_000, "bulk actions"),
        corps=(4, "with a backlog each"),
        executors=(4, "processes"),
        shards=(32, "partitions"),
        **crowd(40, 4_000),
    )
    command(
        ban, actions=(100_000, "bulk actions"), executors=(2, "processes"), shards=(8, "partitions"), **crowd(40, 4_000)
    )
    command(
        overhead,
        actions=(100_000, "bulk actions"),
        corps=(4, "one scope each"),
        shards=(8, "partitions"),
        **crowd(300, 60_000),
    )
    command(
        memory,
        actions=(1_000_000, "bulk actions"),
        corps=(1, "one scope each"),
        shards=(1, "partitions, which share what a process takes in"),
        **crowd(20_000, 500_000),
    )
    return parser


_SHORT = {
    "backlog": ["--actions", "100000", "--minutes", "3"],
    "fleet": ["--actions", "100000", "--minutes", "3", "--executors", "6"],
    "send": ["--people", "20000", "--rounds", "1"],
    "change": [],
    "ban": [],
    "overhead": [],
    "memory": [],
}


def main() -> int:
    parser = _arguments()
    asked = parser.parse_args()
    runs = [asked] if asked.name else [parser.parse_args([name, *short]) for name, short in _SHORT.items()]
    described, status, found = machine(), 0, {}
    for options in runs:
        try:
            found[options.name] = options.measure(options)
        except (SiteFailed, Wrong) as failed:
            print(f"{options.name}: {failed}", file=sys.stderr)
            status = 1
            continue
        if not found[options.name]["ok"]:
            status = 1
    print(json.dumps({**found, "machine": described}, indent=2, ensure_ascii=False))
    return status


if __name__ == "__main__":
    sys.exit(main())
