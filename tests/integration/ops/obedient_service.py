"""A service for the supervisor's tests: it answers as a real one does, and ends as it is told to.

What it is told stands in the file ``<state dir>/<worker>``: a number is the exit code to end with, ``deaf`` makes it
ignore SIGTERM, anything else is why it is not ready.
"""

import signal
import sys

from prometheus_client import CollectorRegistry, Counter

from siyu.ops.health import OpsServer
from siyu.ops.logging import configure_logging, get_logger
from siyu.ops.settings import ServiceSettings
from siyu.ops.signals import stop_event
from siyu.ops.workers.worker import this_worker

settings = ServiceSettings()
worker = this_worker()
assert worker is not None
configure_logging("obedient", settings.log_level)
stop = stop_event()
registry = CollectorRegistry()
Counter("obedient_turns", "Turns of the loop", ["kind"], registry=registry).labels("slow").inc(worker.number + 1)
not_ready: list[str] = []
ops = OpsServer(
    settings.metrics_host,
    settings.metrics_port,
    registry=registry,
    live=lambda: None,
    ready=lambda: not_ready[-1] if not_ready else None,
    listener=worker.listener,
)
get_logger().info("service_started", port=ops.port, instance=settings.instance)
order = settings.state_dir / str(worker.number)
while not stop.wait(0.02):
    if order.exists():
        told = order.read_text()
        order.unlink()
        if told.isdigit():
            sys.exit(int(told))
        if told == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        not_ready.append(told)
get_logger().info("service_stopped")
