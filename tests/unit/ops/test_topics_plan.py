"""What `siyu topics apply` would do: it creates and grows, and refuses whatever could lose data."""

from __future__ import annotations

from pathlib import Path

import pytest

from siyu.events import schemas_dir
from siyu.ops.topics import Topic, TopicsError, load_topics, plan


def _wanted(name: str = "t", partitions: int = 4, **config: str) -> dict[str, Topic]:
    return {name: Topic(name, "customer", partitions, 1, {key.replace("_", "."): v for key, v in config.items()})}


def _kinds(wanted: dict[str, Topic], partitions: int, **config: str) -> list[str]:
    (name,) = wanted
    have = {key.replace("_", "."): value for key, value in config.items()}
    return [change.kind for change in plan(wanted, {name: partitions}, {name: have})]


def test_a_missing_topic_is_created_and_a_present_one_left_alone() -> None:
    wanted = _wanted(cleanup_policy="delete", retention_ms="100")
    assert [c.kind for c in plan(wanted, {}, {})] == ["create"]
    assert _kinds(wanted, 4, cleanup_policy="delete", retention_ms="100") == []


def test_retention_may_grow_and_never_shrinks() -> None:
    assert _kinds(_wanted(retention_ms="200"), 4, retention_ms="100") == ["config"]
    assert _kinds(_wanted(retention_ms="100"), 4, retention_ms="200") == ["refused"]
    assert _kinds(_wanted(retention_ms="100"), 4, retention_ms="-1") == ["refused"]
    assert _kinds(_wanted(max_message_bytes="1"), 4, max_message_bytes="2") == ["refused"]
    assert _kinds(_wanted(cleanup_policy="compact"), 4, cleanup_policy="delete") == ["refused"]
    assert _kinds(_wanted(min_insync_replicas="2"), 4, min_insync_replicas="1") == ["config"]


def test_partitions_of_a_keyed_topic_never_change_since_state_lives_by_partition() -> None:
    assert _kinds(_wanted(partitions=8), 4) == ["refused"]
    assert _kinds(_wanted(partitions=2), 4) == ["refused"]
    assert _kinds(_wanted("dlq.journey", partitions=8), 4) == ["partitions"]
    assert _kinds(_wanted("dlq.journey", partitions=2), 4) == ["refused"]


@pytest.mark.parametrize("profile", ["local", "production"])
def test_the_shipped_declaration_is_valid_and_co_partitions_what_is_joined(profile) -> None:
    topics = load_topics(schemas_dir() / "topics.yaml", profile)
    assert topics["contact.events"].partitions == topics["payment.events"].partitions
    for processor, source in (("journey", "contact.events"), ("performance", "staff.deltas")):
        assert topics[f"{processor}.changelog"].partitions == topics[source].partitions
        assert topics[f"{processor}.changelog"].config["cleanup.policy"] == "compact"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{key: k, partitions: {local: 1}, retention_days: x}", "topic t"),
        ("{key: k, partitions: {local: 1}, retention: 3}", "retention"),
        ("{partitions: {local: 1}, retention_days: 1}", "key"),
    ],
)
def test_a_wrong_declaration_is_refused_by_topic_and_field(tmp_path: Path, spec: str, says: str) -> None:
    path = tmp_path / "topics.yaml"
    path.write_text(
        "defaults: {replication: {local: 1}, min_insync_replicas: {local: 1}, max_message_bytes: 1}\n"
        f"topics: {{t: {spec}}}\n"
    )
    with pytest.raises(TopicsError, match=says):
        load_topics(path, "local")
