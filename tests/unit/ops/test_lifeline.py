"""Brokers that are away are waited for; brokers that others find are not."""

import threading

import pytest
from prometheus_client import CollectorRegistry

from deploy.local.ports import free_ports
from services.sink.metrics import SinkMetrics
from services.sink.service import Sink, SinkStopped
from services.sink.settings import Settings
from siyu.ops.lifeline import Lifeline, brokers_answer


class Line:
    def __init__(self) -> None:
        self.now, self.others_answered, self.asked = 0.0, True, 0
        self.lifeline = Lifeline({}, patience_s=20, ask=self.ask, now=lambda: self.now)

    def ask(self, _config: object) -> bool:
        self.asked += 1
        return self.others_answered

    def failed_at(self, now: float) -> bool:
        self.now = now
        return self.lifeline.is_cut()


def test_cut_when_others_have_been_answered_all_the_while() -> None:
    line = Line()
    assert [line.failed_at(t) for t in (100, 106, 112, 119, 120, 125)] == [False, False, False, False, False, True]


def test_brokers_that_answer_nobody_are_waited_for() -> None:
    line = Line()
    line.others_answered = False
    assert not any(line.failed_at(t) for t in range(0, 600, 6))


def test_an_answer_to_us_or_a_refusal_to_others_begins_anew() -> None:
    line = Line()
    assert not line.failed_at(100)
    line.lifeline.holds()
    assert not line.failed_at(121)
    line.others_answered = False
    assert not line.failed_at(130)
    line.others_answered = True
    assert not line.failed_at(145)
    assert line.failed_at(166)


def test_others_are_asked_every_few_seconds_at_most() -> None:
    line = Line()
    for tenth in range(100):
        line.failed_at(100 + tenth / 10)
    assert line.asked == 2


def test_quiet_is_the_time_since_an_answer() -> None:
    line = Line()
    line.now = 30
    assert line.lifeline.quiet_s == 30
    line.lifeline.holds()
    assert line.lifeline.quiet_s == 0


def test_where_nobody_listens_nobody_answers() -> None:
    (port,) = free_ports(1)
    assert not brokers_answer({"bootstrap.servers": f"127.0.0.1:{port}"})


def test_an_idle_sink_that_has_lost_brokers_which_are_there_ends_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("SIYU_KAFKA_BOOTSTRAP", f"127.0.0.1:{port}")
    sink = Sink(Settings(), SinkMetrics(CollectorRegistry()), threading.Event())
    sink._lifeline = Lifeline({}, patience_s=0, ask=lambda _: True)
    with pytest.raises(SinkStopped) as stopped:
        sink.run()
    assert (stopped.value.reason, stopped.value.exit_code) == ("cut_off", 75)
