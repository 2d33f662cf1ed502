"""Brings a Kafka cluster to what ``schemas/topics.yaml`` declares, without ever being able to lose data.

It creates topics, lengthens retention and raises limits. It never deletes a topic, never shortens retention and never
changes the partition count of a keyed topic: a key's state lives in the changelog partition of the same number, so
more partitions would cut keys off from their state. Such differences are shown as refused and need a migration.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

Profile = Literal["local", "production"]
_DAY_MS = 86_400_000
# A local store that sat unused for longer than this is rebuilt, since tombstones may be gone (design §6).
_TOMBSTONES_DAYS = 7
_KEYS = {"key", "value", "partitions", "retention_days", "compact", "max_message_bytes"}


class TopicsError(ValueError):
    """A topics file that cannot be used, or a cluster that does not answer."""


@dataclass(frozen=True)
class Topic:
    """One declared topic, for one profile."""

    name: str
    key: str
    partitions: int
    replication: int
    config: dict[str, str]

    @property
    def keyed_state(self) -> bool:
        """Whether the partition number of a key carries meaning; dead letters are the only topics where it does not."""
        return not self.name.startswith("dlq.")


@dataclass(frozen=True)
class Change:
    """One difference between the cluster and the declaration."""

    topic: str
    kind: Literal["create", "config", "partitions", "refused"]
    what: str
    config: dict[str, str]
    partitions: int

    def __str__(self) -> str:
        sign = {"create": "+", "config": "~", "partitions": "~", "refused": "!"}[self.kind]
        return f"{sign} {self.topic}: {self.what}"


def load_topics(path: Path, profile: Profile) -> dict[str, Topic]:
    """Reads and validates the declaration. Raises TopicsError naming the topic and the field."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults, declared = raw["defaults"], raw["topics"]
        replication = int(defaults["replication"][profile])
        min_insync = int(defaults["min_insync_replicas"][profile])
        default_max_bytes = int(defaults["max_message_bytes"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise TopicsError(f"{path}: {type(error).__name__}: {error}") from None
    topics: dict[str, Topic] = {}
    for name, spec in declared.items():
        try:
            unknown = set(spec) - _KEYS
            if unknown:
                raise TopicsError(f"unknown fields {sorted(unknown)}")
            config = {
                "min.insync.replicas": str(min_insync),
                "max.message.bytes": str(int(spec.get("max_message_bytes", default_max_bytes))),
            }
            if spec.get("compact"):
                config["cleanup.policy"] = "compact"
                config["delete.retention.ms"] = str(_TOMBSTONES_DAYS * _DAY_MS)
            else:
                config["cleanup.policy"] = "delete"
                config["retention.ms"] = str(int(spec["retention_days"]) * _DAY_MS)
            topics[name] = Topic(name, str(spec["key"]), int(spec["partitions"][profile]), replication, config)
        except (TopicsError, KeyError, TypeError, ValueError) as error:
            raise TopicsError(f"{path}: topic {name}: {type(error).__name__}: {error}") from None
    return topics


def plan(wanted: dict[str, Topic], partitions: dict[str, int], configs: dict[str, dict[str, str]]) -> list[Change]:
    """What to do, from what is wanted and what the cluster has (partition counts and configs by topic)."""
    changes: list[Change] = []
    for topic in wanted.values():
        if topic.name not in partitions:
            what = f"{topic.partitions} partitions × {topic.replication}, {topic.config['cleanup.policy']}"
            changes.append(Change(topic.name, "create", what, topic.config, topic.partitions))
            continue
        have = partitions[topic.name]
        if have < topic.partitions and not topic.keyed_state:
            changes.append(Change(topic.name, "partitions", f"{have} → {topic.partitions}", {}, topic.partitions))
        elif have != topic.partitions:
            what = f"has {have} partitions, {topic.partitions} declared: would move keys away from their state"
            changes.append(Change(topic.name, "refused", what, {}, have))
        allowed: dict[str, str] = {}
        for setting, value in topic.config.items():
            current = configs[topic.name].get(setting)
            if current == value:
                continue
            if _may_lose(setting, current, value):
                what = f"{setting} {current} → {value}: would lose data or refuse records accepted today"
                changes.append(Change(topic.name, "refused", what, {}, have))
            else:
                allowed[setting] = value
        if allowed:
            what = ", ".join(f"{k} {configs[topic.name].get(k)} → {v}" for k, v in allowed.items())
            changes.append(Change(topic.name, "config", what, allowed, have))
    return changes


def _may_lose(setting: str, current: str | None, wanted: str) -> bool:
    if setting in ("retention.ms", "delete.retention.ms", "max.message.bytes"):
        if current is None:
            return False
        return int(current) == -1 or int(wanted) < int(current) if int(wanted) != -1 else False
    return setting == "cleanup.policy"


class Cluster:
    """The Kafka cluster, as far as topics go."""

    def __init__(self, bootstrap: str, *, timeout_seconds: float = 15.0) -> None:
        self._bootstrap = bootstrap
        self._timeout = timeout_seconds
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def difference(self, wanted: dict[str, Topic]) -> list[Change]:
        """Compares; raises TopicsError when the cluster does not answer."""
        try:
            metadata = self._admin.list_topics(timeout=self._timeout)
            partitions = {name: len(metadata.topics[name].partitions) for name in wanted if name in metadata.topics}
            resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in partitions]
            described = self._admin.describe_configs(resources, request_timeout=self._timeout) if resources else {}
            configs = {
                resource.name: {entry.name: str(entry.value) for entry in future.result().values()}
                for resource, future in described.items()
            }
        except KafkaException as error:
            raise TopicsError(f"Kafka at {self._bootstrap} does not answer: {error.args[0]}") from None
        return plan(wanted, partitions, configs)

    def apply(self, changes: list[Change], wanted: dict[str, Topic]) -> None:
        """Carries out all but the refused. A topic that somebody else created meanwhile is no error."""
        creates = [c for c in changes if c.kind == "create"]
        futures: dict[str, Any] = {}
        if creates:
            new = [
                NewTopic(
                    c.topic,
                    num_partitions=c.partitions,
                    replication_factor=wanted[c.topic].replication,
                    config=c.config,
                )
                for c in creates
            ]
            futures |= self._admin.create_topics(new, request_timeout=self._timeout)
        grow = [NewPartitions(c.topic, c.partitions) for c in changes if c.kind == "partitions"]
        if grow:
            futures |= self._admin.create_partitions(grow, request_timeout=self._timeout)
        alter = [
            ConfigResource(
                ConfigResource.Type.TOPIC,
                c.topic,
                incremental_configs=[
                    ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                    for name, value in c.config.items()
                ],
            )
            for c in changes
            if c.kind == "config"
        ]
        if alter:
            altered = self._admin.incremental_alter_configs(alter, request_timeout=self._timeout)
            futures |= {resource.name: future for resource, future in altered.items()}
        for name, future in futures.items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise TopicsError(f"topic {name}: {error.args[0]}") from None
        self._wait_visible(changes, wanted)

    def _wait_visible(self, changes: list[Change], wanted: dict[str, Topic]) -> None:
        """The controller acknowledges a change before the brokers show it; who looks in between finds the old state."""
        changed = {c.topic: wanted[c.topic] for c in changes if c.kind != "refused"}
        deadline = time.monotonic() + self._timeout
        while unseen := {c.topic for c in self.difference(changed) if c.kind != "refused"}:
            if time.monotonic() > deadline:
                raise TopicsError(f"changed, but not shown by the brokers yet: {', '.join(sorted(unseen))}")
            time.sleep(0.1)
