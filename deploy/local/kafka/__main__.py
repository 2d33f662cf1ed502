"""`python -m deploy.local.kafka --data-dir DIR --port PORT`: in the foreground until SIGTERM or Ctrl-C."""

import argparse
import signal
import sys
import time
from pathlib import Path

from deploy.local.errors import LocalStackError
from deploy.local.kafka.broker import LocalKafka, train
from deploy.local.kafka.jars import DEFAULT_CACHE, kafka_version

WATCH_S = 0.5
STOPPING = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.kafka", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("var/kafka"), help="kept between starts (%(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="clients connect here (%(default)s)")
    parser.add_argument("--controller-port", type=int, help="for the node itself (any free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE, help="where the jars are kept (%(default)s)")
    parser.add_argument(
        "--resolve-only",
        action="store_true",
        help="only make the first start quick: fetch the jars, archive their classes, then end",
    )
    asked = parser.parse_args()
    if asked.resolve_only:
        try:
            train(asked.cache_dir.expanduser())
        except LocalStackError as refused:
            print(refused, file=sys.stderr)
            return 1
        return 0

    for number in STOPPING:
        signal.signal(number, _stop)

    kafka = LocalKafka(
        asked.data_dir, asked.port, asked.controller_port, asked.host, cache_dir=asked.cache_dir.expanduser()
    )
    began = time.monotonic()
    try:
        kafka.start()
        kafka.wait_ready()
        print(f"Kafka {kafka_version()} ready on {kafka.bootstrap} in {time.monotonic() - began:.1f} s", flush=True)
        while kafka.exit_status is None:
            time.sleep(WATCH_S)
        print(f"Kafka ended by itself with status {kafka.exit_status}; see {kafka.log_file}", file=sys.stderr)
        return 1
    except LocalStackError as refused:
        print(refused, file=sys.stderr)
        return 1
    finally:
        kafka.stop()


def _stop(*_: object) -> None:
    """Leave by way of `finally`, also in the middle of a start; what comes after the first signal is not heard."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
