"""Processor runtime: exactly-once steps over keyed state, on Kafka transactions and RocksDB."""

from siyu.stream.errors import CutOff, Fenced, ForeignStore, InputLost, StateError, StreamError, TopologyError
from siyu.stream.runtime import Runtime
from siyu.stream.types import Codec, Context, Processor, Record, Step, StreamSettings, Timer

__all__ = [
    "Codec",
    "Context",
    "CutOff",
    "Fenced",
    "ForeignStore",
    "InputLost",
    "Processor",
    "Record",
    "Runtime",
    "StateError",
    "Step",
    "StreamError",
    "StreamSettings",
    "Timer",
    "TopologyError",
]
