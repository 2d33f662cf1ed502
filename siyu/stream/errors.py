"""Why a processor stops. Everything else is waited for, retried or written as a dead letter.

StreamError
├── TopologyError      topics missing, not co-partitioned or not compacted: fix the topics, then start
├── ForeignStore       the disk holds another topology's state: remove it, the changelog rebuilds it
├── StateError         a state this version cannot read: deploy the version that wrote it
├── InputLost          the input no longer holds the committed offset: records would be skipped
├── Fenced             another process runs under our ids: this one is the zombie and must end
└── CutOff             our clients have lost brokers that answer others: a restart finds them again
"""

from __future__ import annotations


class StreamError(Exception):
    """A processor cannot go on. ``exit_code`` is what a service should exit with (sysexits.h)."""

    exit_code = 1


class TopologyError(StreamError):
    """Topics do not fit the processor."""

    exit_code = 78


class ForeignStore(StreamError):
    """The state directory belongs to another topology."""

    exit_code = 78


class StateError(StreamError):
    """A stored state cannot be decoded by this version of the processor."""

    exit_code = 78


class InputLost(StreamError):
    """The committed offset lies outside what the input topic still holds."""

    exit_code = 78


class CutOff(StreamError):
    """Kafka's client library has lost the brokers, though they are there (``siyu.ops.lifeline``)."""

    exit_code = 75


class Fenced(StreamError):
    """A newer process has taken over our transactional.id or group.instance.id, or our transaction expired."""

    exit_code = 75
