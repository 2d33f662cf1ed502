"""`python -m deploy.local.clickhouse --data-dir DIR --port PORT`: in the foreground until SIGTERM or Ctrl-C."""

import argparse
import fcntl
import logging
import os
import sys
from pathlib import Path
from typing import IO

from deploy.local.errors import DataFolderInUse, LocalStackError
from deploy.local.ports import check_free

STOP_GRACE_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.clickhouse", description=__doc__)
    parser.add_argument(
        "--data-dir", type=Path, default=Path("var/clickhouse"), help="kept between starts (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=8123, help="HTTP interface (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--queued-writes", type=int, default=64, help="how many may wait for the one writer (%(default)s)"
    )
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        check_free("ClickHouse", asked.host, asked.port, "SIYU_CLICKHOUSE_URL / --port")
        asked.data_dir.mkdir(parents=True, exist_ok=True)
        with (asked.data_dir / "lock").open("w") as lock:
            _lock(lock, asked.data_dir)
            _serve(asked)
    except LocalStackError as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def _lock(lock: IO[str], folder: Path) -> None:
    """Held until the process ends, however it ends. The engine refuses a second process too, but in many lines."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as held:
        raise DataFolderInUse("ClickHouse", folder) from held


def _serve(asked: argparse.Namespace) -> None:
    # Business days are computed explicitly in Asia/Shanghai; the server itself runs in UTC like the official image.
    os.environ["TZ"] = "UTC"
    # Loading the engine takes a second: what can be refused without it has been refused by now.
    import uvicorn

    from deploy.local.clickhouse.engine import Engine
    from deploy.local.clickhouse.http import HttpInterface

    spool = asked.data_dir / "spool"
    spool.mkdir(exist_ok=True)
    engine = Engine(asked.data_dir / "engine")
    try:
        print(f"ClickHouse {engine.version} (chdb) on http://{asked.host}:{asked.port}", flush=True)
        uvicorn.run(
            HttpInterface(engine, spool, queued_writes=asked.queued_writes),
            host=asked.host,
            port=asked.port,
            http="httptools",
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
    finally:
        engine.close()


if __name__ == "__main__":
    sys.exit(main())
