"""Composition root: settings in, a running simulator out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import uvicorn

from simulator.app import Control, build_app
from simulator.apps import apps_of
from simulator.clock import BadClock, ClockSetting, open_clock
from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.pay.process import PayProcess
from simulator.platform.gateway import Gateway
from simulator.retail_data import read_history
from simulator.scenario import CannotPlay, Plan
from simulator.scenario.day import plan_day
from simulator.scenario.file import load_scenario
from simulator.scenario.living import planner_of
from simulator.scenario.retail import opening_s, plan_retail
from simulator.settings import SimulatorSettings
from simulator.simulation import Planner, Simulation
from siyu.ops.clock import wall_ms
from siyu.ops.corps import load_corps
from siyu.ops.health import OpsServer
from siyu.ops.logging import get_logger


def planner(settings: SimulatorSettings, corps: tuple[str, ...]) -> tuple[Planner, int]:
    """The scenario the settings ask for, and where its business time begins (epoch ms)."""
    lag_ms = round(settings.bill_lag_seconds * 1000)

    if settings.data is not None:
        if settings.clock_file is None:
            raise CannotPlay("SIYU_SIM_DATA replays another time: name a clock file in SIYU_CLOCK_FILE")
        history = read_history(settings.data)

        def retail(start_s: int) -> Plan:
            return plan_retail(
                history,
                seed=settings.seed,
                corps=corps,
                staff_count=settings.staff,
                join_s=settings.join_seconds,
                start_s=start_s,
                bill_lag_ms=lag_ms,
            )

        return retail, opening_s(history) * 1000

    scenario = load_scenario(settings.scenario)
    if scenario.day is None:
        return (
            planner_of(scenario, seed=settings.seed, scale=settings.scale, corps=corps, bill_lag_ms=lag_ms),
            wall_ms(),
        )
    day = scenario.day
    told = settings.model_fields_set

    def invented_day(start_s: int) -> Plan:
        return plan_day(
            seed=settings.seed,
            corps=corps,
            staff_count=max(1, round((settings.staff if "staff" in told else day.staff) * settings.scale)),
            customer_count=max(
                1, round((settings.customers if "customers" in told else day.customers) * settings.scale)
            ),
            duration_s=settings.duration_seconds if "duration_seconds" in told else day.duration_s,
            start_s=start_s,
            bill_lag_ms=lag_ms,
            day=day,
        )

    return invented_day, wall_ms()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The process's own signal handlers stop everything in order; uvicorn's would end only the server."""
        yield


async def serve(settings: SimulatorSettings, stop: asyncio.Event) -> int:
    """Runs until ``stop``; returns the exit status. A scenario that breaks ends the process with 1."""
    log = get_logger()
    scenario = load_scenario(settings.scenario)
    settings = scenario.settings(settings)
    corps = load_corps(settings.corps)
    make_plan, begins_ms = planner(settings, tuple(corps))
    try:
        begin = ClockSetting.read(settings.clock, settings.clock_start)
    except BadClock as error:
        raise CannotPlay(str(error)) from None
    clock = open_clock(settings.clock_file, ClockSetting(begin.rate, begin.start_ms or begins_ms))
    metrics = SimulatorMetrics()
    apps = scenario.with_rules(apps_of(corps.values(), settings.callback_base))
    deliverer = Deliverer(
        apps=apps,
        metrics=metrics,
        policy=DeliveryPolicy(
            seed=settings.seed,
            duplicate_share=settings.duplicate_share,
            shuffle_s=settings.shuffle_seconds,
            timeout_s=settings.delivery_timeout_seconds,
            total=settings.delivery_total,
            retry_s=settings.retry_seconds,
            concurrency=settings.delivery_concurrency,
            retry_refused=settings.retry_refused,
            lost_share=settings.lost_share,
            burst_s=settings.burst_seconds,
            mute_after=settings.mute_after,
            mute_window_s=settings.mute_window_seconds,
            mute_s=settings.mute_seconds,
        ),
        clock_s=lambda: simulation.clock_s(),
    )
    simulation = Simulation(settings, plan=make_plan, clock=clock, deliverer=deliverer)
    gateway = Gateway(
        settings,
        apps,
        worlds=lambda: simulation.corps,
        now_ms=lambda: simulation.now_ms,
        clock_s=simulation.clock_s,
        metrics=metrics,
    )
    control = Control(gateway, simulation, clock=clock)
    control.parameters = msgspec.to_builtins(scenario)
    pay = None
    if settings.merchants is not None:
        pay = PayProcess(
            simulation, settings.merchants, corps=tuple(corps), notify_base=settings.pay_notify, seed=settings.seed
        )
        control.pay = pay.app
    try:
        listener = socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise OSError(f"port {settings.port} cannot be used ({error.strerror}): set SIYU_PORT") from None
    server = _Server(
        uvicorn.Config(
            build_app(control),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    ops = OpsServer(
        settings.metrics_host,
        settings.metrics_port,
        registry=metrics.registry,
        live=lambda: None,
        ready=lambda: None if server.started else "not listening yet",
    )
    log.info("simulator listens", host=settings.host, port=listener.getsockname()[1])
    if settings.autostart:
        control.begin()
    stopping = asyncio.create_task(stop.wait())
    status = 0
    try:
        begun = asyncio.create_task(control.begun.wait())
        await asyncio.wait({serving, stopping, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if control.playing is not None:
            await asyncio.wait({serving, stopping, control.playing}, return_when=asyncio.FIRST_COMPLETED)
            if control.playing.done() and (broken := control.playing.exception()) is not None:
                log.error("scenario broke", exc_info=broken)
                status = 1
        if status == 0:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done() and not stop.is_set():
            log.error("server ended", reason="server_ended")
            status = 1
    finally:
        stopping.cancel()
        if control.playing is not None:
            control.playing.cancel()
        await deliverer.close()
        if pay is not None:
            await pay.close()
        server.should_exit = True
        await asyncio.wait({serving})
        gateway.calls.close()
        ops.close()
    return status
