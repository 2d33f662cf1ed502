"""`siyu suppress` on the real broker, and what an executor's table makes of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner, Result

from deploy.local.kafka import LocalKafka
from deploy.local.ports import free_ports
from services.executor.suppression import TOPIC, SuppressionTable, suppression_key
from siyu.events import Suppression, codec, schemas_dir
from siyu.ops.tables import TopicTables
from siyu.ops.topics import load_topics
from siyu.suppress_cli import BadPeople, app, parse_people

pytestmark = pytest.mark.integration

WHY = ("--reason", "asked at the till", "--source", "shop")


@pytest.fixture
def siyu(kafka: LocalKafka) -> Callable[..., Result]:
    """`siyu suppress …` against the session's broker."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    declared = load_topics(schemas_dir() / "topics.yaml", "local")[TOPIC]
    try:
        # As declared: the broker is the session's, and another test compares it with the declaration.
        admin.create_topics([NewTopic(TOPIC, declared.partitions, 1, config=declared.config)])[TOPIC].result(30)
    except KafkaException as error:
        if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise
    return lambda *words, **given: CliRunner().invoke(
        app, [*words, "--kafka-bootstrap", kafka.bootstrap], catch_exceptions=False, **given
    )


async def known(kafka: LocalKafka) -> SuppressionTable:
    """The table of an executor that begins now."""
    table, stop = SuppressionTable(), asyncio.Event()
    tables = TopicTables(kafka.bootstrap, "test")
    tables.follow(TOPIC, table.apply)
    running = asyncio.create_task(tables.run(stop))
    await tables.caught_up()
    stop.set()
    await running
    return table


def test_a_person_is_suppressed_shown_and_lifted(
    kafka: LocalKafka, siyu: Callable[..., Result], unique_name: Callable[[str], str]
) -> None:
    corp, person = unique_name("ww"), unique_name("wm")
    who = ("--corp", corp, "--customer", person)
    asked = siyu("show", *who)
    assert (asked.exit_code, "nothing forbids" in asked.output) == (1, True)

    added = siyu("add", *who, *WHY)
    assert added.exit_code == 0
    assert "1 added; 0 stood there already" in added.output
    assert person not in added.output
    assert asyncio.run(known(kafka)).suppressed(corp, person)
    asked = siyu("show", *who)
    assert asked.exit_code == 0
    assert f"{person} must not be contacted" in asked.output
    assert "asked at the till (shop)" in asked.output
    assert "0 added; 1 stood there already" in siyu("add", *who, *WHY).output

    removed = siyu("remove", *who, *WHY)
    assert "1 removed; 0 did not stand there" in removed.output
    assert not asyncio.run(known(kafka)).suppressed(corp, person)
    assert siyu("show", *who).exit_code == 1


def test_a_file_of_people_is_written_once_each_and_none_is_printed(
    kafka: LocalKafka, siyu: Callable[..., Result], unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    corp = unique_name("ww")
    people = [f"wm{number:05}" for number in range(2500)]
    file = tmp_path / "people.txt"
    file.write_text("﻿# asked by letter\n" + "\n".join(people) + f"\n\n  {people[0]}  \n", encoding="utf-8")
    added = siyu("add", "--corp", corp, "--file", str(file), *WHY)
    assert added.exit_code == 0
    assert "2,500 added; 0 stood there already" in added.output
    assert "wm0" not in added.output
    table = asyncio.run(known(kafka))
    assert all(table.suppressed(corp, person) for person in people)
    assert not table.suppressed(corp, "wm02500")
    removed = siyu("remove", "--corp", corp, "--file", "-", *WHY, input="wm00001\nwm99999\n")
    assert "1 removed; 1 did not stand there" in removed.output
    assert not asyncio.run(known(kafka)).suppressed(corp, "wm00001")


@pytest.mark.parametrize("command", ["add", "remove"])
def test_a_persons_word_counts_although_another_machines_clock_is_ahead(
    kafka: LocalKafka, siyu: Callable[..., Result], unique_name: Callable[[str], str], command: str
) -> None:
    corp = unique_name("ww")
    early = Suppression(corp, "wm1", int(command == "remove"), "r", "crm", 4_000_000_000_000, 0)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(TOPIC, key=suppression_key(early), value=codec().encode(early))
    producer.produce(TOPIC, key=b"k", value=b"what nobody can read")
    assert producer.flush(30) == 0
    assert siyu(command, "--corp", corp, "--customer", "wm1", *WHY).exit_code == 0
    assert asyncio.run(known(kafka)).suppressed(corp, "wm1") == (command == "add")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--corp", "ww1", *WHY), "either --customer or --file"),
        (("--corp", "ww1", "--customer", "wm1", "--file", "x", *WHY), "either --customer or --file"),
        (("--corp", "a|b", "--customer", "wm1", *WHY), "--corp"),
        (("--corp", "ww1", "--customer", "wm 1", *WHY), "--customer: no id"),
        (("--corp", "ww1", "--file", "no-such-file", *WHY), "no-such-file: No such file"),
        (("--corp", "ww1", "--customer", "wm1", "--reason", " ", "--source", "s"), "--reason"),
        (("--corp", "ww1", "--customer", "wm1", "--reason", "r", "--source", "a|b"), "--source"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    siyu: Callable[..., Result], words: tuple[str, ...], says: str
) -> None:
    refused = siyu("add", *words)
    assert refused.exit_code == 2
    assert says in refused.output
    assert "wm1" not in refused.output
    assert "wm 1" not in refused.output


def test_a_broker_that_is_away_is_told_in_a_line() -> None:
    (port,) = free_ports(1)
    words = ["add", "--corp", "ww1", "--customer", "wm1", *WHY, "--kafka-bootstrap", f"127.0.0.1:{port}"]
    refused = CliRunner().invoke(app, words, catch_exceptions=False)
    assert refused.exit_code == 2
    assert "does not answer" in refused.output


@pytest.mark.parametrize("line", ["wm1,wm2", "wm 1", "a|b", "x" * 129, "wm\x001"])
def test_a_line_that_is_no_id_is_named_by_its_number_only(line: str) -> None:
    with pytest.raises(BadPeople, match="line 3") as caught:
        parse_people(["# people", "wm0", line], "line {}")
    assert line not in str(caught.value)


def test_a_list_of_nobody_is_refused() -> None:
    with pytest.raises(BadPeople, match="names nobody"):
        parse_people(["", "# nobody"], "line {}")
