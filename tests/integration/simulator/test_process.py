"""``python -m simulator`` as a process: over real sockets, stopped by a signal, refusing what cannot be run."""

import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from deploy.local.ports import free_ports
from siyu.ops.clock import wall_ms, write_segments


def test_it_plays_over_real_sockets_and_ends_on_a_signal(start, receiver, tmp_path):
    base, paths = receiver
    port, ops = free_ports(2)
    truth_file, clock_file = tmp_path / "truth.json", tmp_path / "var" / "clock.json"
    process = start(
        SIYU_PORT=str(port),
        SIYU_METRICS_PORT=str(ops),
        SIYU_CLOCK_FILE=str(clock_file),
        SIYU_SIM_CALLBACK_BASE=base,
        SIYU_SIM_STAFF="5",
        SIYU_SIM_CUSTOMERS="60",
        SIYU_SIM_DURATION_SECONDS="10",
        SIYU_SIM_SHUFFLE_SECONDS="0.2",
        SIYU_SIM_WELCOME_SECONDS="1",
        SIYU_SIM_TRUTH_FILE=str(truth_file),
    )
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        line = process.stdout.readline()
        assert '"simulator listens"' in line, line or process.stderr.read()
        assert clock_file.exists(), "the first segment is written by whoever starts first"
        assert client.get("/_sim/status").json()["state"] == "idle"
        assert client.get("/_sim/truth").status_code == 404
        assert client.post("/_sim/start").json() == {"state": "playing"}
        assert client.post("/_sim/start").status_code == 409
        query = {"corpid": "wwtest0000000001", "corpsecret": "s1"}
        assert client.get("/cgi-bin/gettoken", params=query).json()["errcode"] == 0
        for line in process.stdout:
            if '"scenario done"' in line:
                break
        status = client.get("/_sim/status").json()
        assert status["state"] == "done"
        assert status["callbacks"]["delivered"] == status["callbacks"]["planned"]
        assert len(paths) == status["callbacks"]["attempts"]
        assert all(path.startswith("/callback/wecom/wwtest0000000001?msg_signature=") for path in paths)
        assert client.get("/_sim/truth").content == truth_file.read_bytes()
        assert httpx2.get(f"http://127.0.0.1:{ops}/readyz", trust_env=False).status_code == 200
        metrics = httpx2.get(f"http://127.0.0.1:{ops}/metrics", trust_env=False).text
        assert 'siyu_simulator_deliveries_total{result="accepted"}' in metrics
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SIYU_CORPS": "nowhere.yaml"}, "set SIYU_CORPS"),
        ({"SIYU_SIM_DATA": "nowhere.csv"}, "SIYU_CLOCK_FILE"),
        ({"SIYU_SIM_DATA": "nowhere.csv", "SIYU_CLOCK_FILE": "clock.json"}, "nowhere.csv: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(start, environment, said):
    process = start(SIYU_METRICS_PORT="0", SIYU_PORT="0", **environment)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


def test_an_old_clock_file_is_refused_in_one_line(start, tmp_path):
    data = tmp_path / "retail.csv"
    columns = "InvoiceNo,StockCode,Quantity,InvoiceDate,UnitPrice,CustomerID"
    data.write_text(f"{columns}\n1,A,1,2010-12-01 08:26:00,2.00,17850\n")
    write_segments(tmp_path / "clock.json", [{"wall_ms": wall_ms(), "business_ms": 1_323_406_202_000, "rate": 1.0}])
    process = start(
        SIYU_METRICS_PORT="0", SIYU_PORT="0", SIYU_SIM_DATA=str(data), SIYU_CLOCK_FILE=str(tmp_path / "clock.json")
    )
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "remove the old clock file" in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_taken_port_names_its_setting(start):
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as taken:
        process = start(SIYU_METRICS_PORT="0", SIYU_PORT=str(taken.server_address[1]))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "SIYU_PORT" in errors


def test_help_lists_the_settings():
    command = [sys.executable, "-m", "simulator", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "SIYU_SIM_SEED" in shown.stdout
    assert "SIYU_CLOCK_FILE" not in shown.stderr
