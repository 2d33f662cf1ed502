from collections.abc import Callable
from pathlib import Path

from siyu.limits import LimitRegistry, load_registry
from siyu.limits.difference import difference

Folder = Callable[..., Path]

MORE = """\
limits:
  - {id: minute, scope: corp_api, window: sliding 1 min, amount: 50, block: window, effective_from: 2026-02-01,
     source: s, confidence: c}
"""


def told(old: LimitRegistry, new: LimitRegistry) -> list[str]:
    return [str(change) for change in difference(old, new)]


def test_a_version_that_comes_and_goes_is_told_with_its_date(folder: Folder) -> None:
    plain, more = load_registry(folder()), load_registry(folder(MORE))
    words = "scope corp_api, amount 50, window sliding 1 min, counts calls, block window"
    (came,) = told(plain, more)
    (went,) = told(more, plain)
    assert came.startswith("+ minute from 2026-02-01: scope corp_api")
    assert went.startswith("- minute from 2026-02-01: scope corp_api")
    for word in words.split(", "):
        assert word in came


def test_a_version_that_says_something_else_is_told_by_its_fields(folder: Folder, base_text: str) -> None:
    plain = load_registry(folder())
    changed = load_registry(
        folder(base=base_text.replace("amount: 100", "amount: 90").replace("bulk: 0.8", "bulk: 0.7"))
    )
    assert told(plain, changed) == [
        "~ minute from 2020-01-01: amount 100 → 90",
        "~ headroom from 2020-01-01: bulk 0.8 → 0.7",
    ]


def test_an_end_is_told(folder: Folder) -> None:
    other = MORE.replace("minute,", "second_minute,")
    plain = load_registry(folder(other))
    ends = load_registry(folder(other.replace("source", "effective_until: 2026-03-01, source")))
    assert told(plain, ends) == ["~ second_minute from 2026-02-01: effective_until – → 2026-03-01"]


def test_equal_registries_differ_in_nothing(folder: Folder) -> None:
    assert told(load_registry(folder()), load_registry(folder())) == []
