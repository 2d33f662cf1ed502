"""``siyu sim``: what it prints, its exit codes, and a simulator that somebody else's system can be pointed at."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import yaml
from typer.testing import CliRunner

from deploy.local.ports import free_ports
from siyu.cli import app
from siyu.ops.clock import FileClock
from siyu.ops.corps import load_corps


@pytest.fixture
def siyu(monkeypatch, tmp_path):
    """Runs the command line in an empty folder."""
    for name in [name for name in os.environ if name.startswith("SIYU_")]:
        monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    runner = CliRunner()
    return lambda *args: runner.invoke(app, ["sim", *map(str, args)])


@pytest.fixture
def start(launch, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``siyu sim run`` as a process in a folder of its own."""
    return lambda *args, **environment: launch(
        "siyu", "sim", "run", *args, cwd=tmp_path, **{"SIYU_METRICS_PORT": "0", **environment}
    )


def until_listening(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if '"simulator listens"' in line:
            return lines
    raise AssertionError("".join(lines) + process.stderr.read())


@pytest.mark.parametrize("command", [[], ["run"], ["scenarios"], ["record"], ["replay"], ["verify"]])
def test_every_command_explains_itself(siyu, command):
    result = siyu(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_shipped_scenarios_are_listed_with_what_they_are_about(siyu):
    result = siyu("scenarios")
    assert result.exit_code == 0
    for name in ("demo", "neptune", "livestream-burst", "tag-storm", "lossy", "ban", "poster"):
        assert name in result.output


def test_a_file_of_ones_own_is_checked_with_line_and_field(siyu, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("about: a day of mine\nday:\n  staff: 5\n")
    bad.write_text("about: a day of mine\nday:\n  staff: 5\n  stuff: 6\n")
    result = siyu("scenarios", "--check", good)
    assert (result.exit_code, "good" in result.output) == (0, True)
    result = siyu("scenarios", "--check", good, "--check", bad)
    assert result.exit_code == 1
    assert "bad.yaml:4" in result.output
    assert "stuff" in result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--scenario", "tomorrow"], "tomorrow"),
        (["--clock", "fast"], "real, stepped and xN"),
        (["--clock-start", "soon"], "ISO 8601"),
        (["--scale", "0"], "scale"),
        (["--port", "70000"], "port"),
        (["--corps", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_with_code_2(start, corps, args, said):
    named = args if "--corps" in args else [*args, "--corps", str(corps)]
    process = start("--port", "0", *named)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said in errors
    assert len(errors.strip().splitlines()) == 1


def test_it_runs_alone_with_a_corp_it_makes_itself(start, receiver, tmp_path):
    """Nothing but a port: keys are made and printed, the page answers, calls and callbacks work, a signal ends it."""
    base, paths = receiver
    (port,) = free_ports(1)
    options = ["--port", str(port), "--callback-base", base, "--scale", "0.05", "--clock", "x5"]
    process = start(*options, "--calls-file", "calls.jsonl", SIYU_SIM_SHUFFLE_SECONDS="0.1")
    shown = "".join(until_listening(process))
    (corp,) = load_corps(tmp_path / "corps.yaml").values()
    assert corp.secret in shown
    assert yaml.safe_load((tmp_path / "corps.yaml").read_text())["corps"][0]["corp_id"] == corp.corp_id
    assert f"http://127.0.0.1:{port}/_sim" in shown
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert "企业微信模拟器" in client.get("/_sim").text
        query = {"corpid": corp.corp_id, "corpsecret": corp.secret}
        token = client.get("/cgi-bin/gettoken", params=query).json()["access_token"]
        listed = client.get("/cgi-bin/externalcontact/get_follow_user_list", params={"access_token": token}).json()
        assert len(listed["follow_user"]) == 10
        assert client.get("/_sim/clock").json()["rate"] == 5.0
        assert client.get("/_sim/scenario").json()["parameters"]["day"]["staff"] == 200
        deadline = time.monotonic() + 90
        while not paths and time.monotonic() < deadline:
            time.sleep(0.1)
        assert paths[0].startswith(f"/callback/wecom/{corp.corp_id}?msg_signature=")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 2


def test_wechat_pay_is_there_when_merchants_are(start, corps, receiver, tmp_path):
    """Keys are made, calls need signatures, and what customers pay at the till is told to the merchant's URL."""
    base, paths = receiver
    (port,) = free_ports(1)
    merchants = tmp_path / "merchants.yaml"
    pay = ["--merchants", str(merchants), "--pay-notify", base]
    options = ["--port", str(port), "--corps", str(corps), "--scenario", "livestream-burst", "--clock", "x5"]
    until_listening(start(*options, *pay, "--callback-base", base))
    (merchant,) = yaml.safe_load(merchants.read_text())["merchants"]
    assert merchant["corp_id"] == "wwtest0000000001"
    assert merchant["notify_url"] == f"{base}/pay/wechat/wwtest0000000001"
    answer = httpx2.get(f"http://127.0.0.1:{port}/v3/certificates", trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (401, "SIGN_ERROR")
    deadline = time.monotonic() + 90
    while "/pay/wechat/wwtest0000000001" not in paths and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "/pay/wechat/wwtest0000000001" in paths
    response = httpx2.get(f"http://127.0.0.1:{port}/_sim/pay", trust_env=False)
    shown = response.json()
    assert shown["merchants"] == [{"mchid": merchant["mchid"], "corp_id": "wwtest0000000001"}]
    assert shown["notices"]["attempts"] >= 1
    assert [(call["status"], call["code"]) for call in shown["calls"]] == [(401, "SIGN_ERROR")]
    assert shown["errors"] == 0
    assert merchant["apiv3_key"] not in response.text


def test_a_stepped_clock_is_shared_through_its_file(start, corps, tmp_path):
    """Services that read the file see the step when the simulator does."""
    (port,) = free_ports(1)
    clock_file = tmp_path / "var" / "clock.json"
    options = ["--port", str(port), "--corps", str(corps), "--wait", "--clock", "stepped"]
    until_listening(
        start(*options, "--clock-start", "2026-01-01T09:00:00", "--clock-file", str(clock_file), "--scale", "0.05")
    )
    service = FileClock(clock_file)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        first = client.get("/_sim/clock").json()
        assert (first["beijing"], first["mode"]) == ("2026-01-01T09:00:00+08:00", "stepped")
        assert service.now_ms() == first["business_ms"]
        moved = client.post("/_sim/clock", json={"advance_s": 86_400}).json()
        assert moved["beijing"] == "2026-01-02T09:00:00+08:00"
        time.sleep(0.15)
        assert service.now_ms() == moved["business_ms"]
        assert client.get("/_sim/status").json()["state"] == "idle"


def test_callbacks_are_recorded_and_replayed(siyu, corps, receiver, tmp_path):
    base, paths = receiver
    recording = tmp_path / "day.callbacks"
    made = siyu("record", recording, "--corps", corps, "--scale", "0.05", "--at-most", "200", "--start", "2026-01-01")
    assert made.exit_code == 0, made.output
    assert "200 callbacks" in made.output
    again = tmp_path / "again.callbacks"
    siyu("record", again, "--corps", corps, "--scale", "0.05", "--at-most", "200", "--start", "2026-01-01")
    assert again.read_bytes() == recording.read_bytes(), "the same seed and start are the same bytes"
    sent = siyu("replay", recording, "--to", base, "--rate", "2000", "--connections", "8")
    assert sent.exit_code == 0, sent.output
    assert "200 sent" in sent.output
    assert len(paths) == 200
    sealed_anew = siyu("replay", recording, "--to", base, "--fresh", "--corps", corps, "--at-most", "5")
    assert sealed_anew.exit_code == 0, sealed_anew.output
    nobody = siyu("replay", recording, "--to", "http://127.0.0.1:1", "--at-most", "3")
    assert nobody.exit_code == 1
    assert siyu("replay", corps, "--to", base).exit_code == 2
    assert siyu("replay", tmp_path / "none", "--to", base).exit_code == 2


def test_callback_urls_are_verified_before_anything_is_sent(siyu, corps, receiver, start):
    """A receiver that cannot answer the echo is told why; a simulator that runs says the same."""
    base, _ = receiver
    result = siyu("verify", "--corps", corps, "--callback-base", base)
    assert result.exit_code == 1
    assert "status 501" in result.output
    nobody = siyu("verify", "--corps", corps, "--callback-base", "http://127.0.0.1:1")
    assert nobody.exit_code == 1
    assert "no connection" in nobody.output
    (port,) = free_ports(1)
    until_listening(start("--port", str(port), "--corps", str(corps), "--callback-base", base, "--wait"))
    answer = httpx2.post(f"http://127.0.0.1:{port}/_sim/callbacks/verify", trust_env=False).json()
    assert [(url["saved"], url["problem"][:10]) for url in answer["urls"]] == [(False, "status 501")]


def test_what_a_scenario_file_says_of_the_clock_holds_unless_it_is_said_otherwise(start, corps, tmp_path):
    """Options that nobody gave overrule nothing."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("about: mine\nday: {staff: 5, customers: 20}\nclock: {mode: stepped, start: '2026-03-01'}\n")
    for options, mode in ((("--wait",), "stepped"), (("--wait", "--clock", "x9"), "compressed")):
        (port,) = free_ports(1)
        process = start("--port", str(port), "--corps", str(corps), "--scenario", str(mine), *options)
        until_listening(process)
        clock = httpx2.get(f"http://127.0.0.1:{port}/_sim/clock", trust_env=False).json()
        assert (clock["mode"], clock["beijing"][:10]) == (mode, "2026-03-01")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
