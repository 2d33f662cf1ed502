"""A state reads back as it was written, in this version or an older one, or not at all."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.stream import Processor, StateError
from siyu.stream.state import TIMED, StateCodec, due_times


class Basket(msgspec.Struct):
    items: dict[str, int]
    note: str | None = None


def codec(version: int, upgrades: dict[int, object] | None = None) -> StateCodec[Basket]:
    return StateCodec(
        Processor(
            name="baskets",
            inputs=("in",),
            outputs=frozenset(),
            codec=msgspec.json,
            step=lambda key, record, state, ctx: state,
            state_type=Basket,
            state_version=version,
            dead_letters="dlq.baskets",
            upgrades=upgrades or {},  # type: ignore[arg-type]
        )
    )


TIMERS = st.dictionaries(st.text(), st.integers(0, 2**62), max_size=5)


@given(st.dictionaries(st.text(), st.integers(-(2**63), 2**63 - 1)), st.none() | st.text(), st.integers(1, 255), TIMERS)
def test_reads_what_it_wrote(items: dict[str, int], note: str | None, version: int, timers: dict[str, int]) -> None:
    basket = Basket(items, note)
    data = codec(version).encode(basket, timers)
    assert codec(version).decode(data) == (basket, timers)
    assert sorted(due_times(data) if data[0] == TIMED else ()) == sorted(timers.values())


def test_too_many_timers_are_refused() -> None:
    with pytest.raises(ValueError, match="too many timers"):
        codec(1).encode(Basket({}), {str(n): n for n in range(20_000)})


def test_older_versions_pass_through_every_upgrade() -> None:
    stored = codec(1).encode(Basket({"pen": 1}))
    double = {1: lambda old: {**old, "items": {k: v * 2 for k, v in old["items"].items()}}}
    rename = {2: lambda old: {**old, "note": "was 2"}}
    assert codec(3, {**double, **rename}).decode(stored)[0] == Basket({"pen": 2}, "was 2")
    timed = codec(1).encode(Basket({"pen": 1}), {"remind": 5})
    assert codec(3, {**double, **rename}).decode(timed) == (Basket({"pen": 2}, "was 2"), {"remind": 5})


@pytest.mark.parametrize("upgrades", [{}, {1: lambda old: old}])
def test_missing_upgrade_is_refused(upgrades: dict[int, object]) -> None:
    with pytest.raises(StateError, match="upgrade"):
        codec(3, upgrades).decode(codec(1).encode(Basket({})))


def test_newer_version_is_refused() -> None:
    with pytest.raises(StateError, match="deploy the version that wrote it"):
        codec(1).decode(codec(2).encode(Basket({})))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x01",
        b"\x00\x01\xc1",
        b"\x07\x01\x80",
        b"\x00\x01\x81\xa5items\x01",
        b"\x01\x01\x00",
        b"\x01\x01\x00\x05\x81",
    ],
)
def test_damaged_state_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(StateError) as refused:
        codec(1).decode(data)
    assert "items" not in str(refused.value)
