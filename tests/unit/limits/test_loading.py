"""What is refused, and where the message points; what survives a way through JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siyu.events import schemas_dir
from siyu.limits import LimitsError, load_registry, parse_registry

Folder = Callable[..., Path]

ENTRY = {
    "id": "mine",
    "scope": "corp_api",
    "window": "sliding 1 h",
    "amount": 5,
    "block": "window",
    "effective_from": "2026-01-01",
    "source": "s",
    "confidence": "c",
}
LINE = {name: 2 + at for at, name in enumerate(ENTRY)}
"""Line of each field when an entry is written down by `entries` as the first."""


def entries(*changed: dict[str, object]) -> str:
    """One entry a change of ENTRY; None leaves a field out. New fields stand last."""
    lines = ["limits:"]
    for change in changed:
        fields = {name: value for name, value in (ENTRY | change).items() if value is not None}
        for at, (name, value) in enumerate(fields.items()):
            lines.append(f"{'  - ' if at == 0 else '    '}{name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


LAST = 2 + len(ENTRY)
"""Line of the first field that an entry has beyond ENTRY's."""

REFUSED: list[tuple[str, dict[str, object], int, str]] = [
    ("an unknown scope", {"scope": "corp"}, LINE["scope"], "scope: Invalid enum value 'corp'"),
    ("an unknown window", {"window": "an hour"}, LINE["window"], "window: unknown window 'an hour'"),
    ("a window of nothing", {"window": "sliding 0 s"}, LINE["window"], "window: unknown window"),
    ("an amount of 0", {"amount": 0}, LINE["amount"], "amount: must be positive, not 0"),
    ("a negative amount", {"amount": -1}, LINE["amount"], "amount: must be positive"),
    ("an amount in words", {"amount": "many"}, LINE["amount"], "amount: Expected `int`, got `str`"),
    ("half an amount", {"amount": 0.5}, LINE["amount"], "amount: Expected `int`, got `float`"),
    ("no amount", {"amount": None}, LINE["id"], "amount: Object missing required field `amount`"),
    ("an unknown block", {"block": "week"}, LINE["block"], "block: Invalid enum value 'week'"),
    ("a misspelt field", {"efective_until": "2027-01-01"}, LAST, "efective_until: Object contains unknown field"),
    ("an unknown enforcement", {"enforce": "maybe"}, LAST, "enforce: Invalid enum value"),
    ("an id in capitals", {"id": "Mine"}, LINE["id"], "id: needs lower case"),
    ("no source", {"source": " "}, LINE["source"], "source: must say something"),
    ("no confidence", {"confidence": ""}, LINE["confidence"], "confidence: must say something"),
    ("no date", {"effective_from": "soon"}, LINE["effective_from"], "effective_from: 'soon' is neither a day nor"),
    ("a day that is none", {"effective_from": "2026-02-30"}, LINE["effective_from"], "effective_from: '2026-02-30'"),
    (
        "a time without a zone",
        {"effective_from": "2026-01-01T12:00:00"},
        LINE["effective_from"],
        "effective_from: '2026-01-01T12:00:00' has no zone",
    ),
    ("an end before the begin", {"effective_until": "2025-12-31"}, LAST, "effective_until: is not after"),
    ("an end at the begin", {"effective_until": "2026-01-01"}, LAST, "effective_until: is not after"),
    (
        "an endpoint nobody calls",
        {"endpoints": ["externalcontact/delete"]},
        LAST,
        "endpoints: 'externalcontact/delete' is not called by this system",
    ),
    ("an exception nobody calls", {"but_not": ["kf/send_msg"]}, LAST, "but_not: 'kf/send_msg' is not called"),
    (
        "an exception from named endpoints",
        {"but_not": ["message/send"], "endpoints": ["externalcontact/get"]},
        LAST,
        "but_not: excepts from every endpoint",
    ),
    (
        "an outside limit of what is called",
        {"outside": True, "endpoints": ["message/send"]},
        LAST,
        "outside: message/send is called by this system",
    ),
    ("an endpoint twice", {"endpoints": ["message/send", "message/send"]}, LAST, "endpoints: one stands twice"),
    ("a corp id that would split a key", {"corps": ["ww|x"]}, LAST, "corps: a corp id is empty or holds"),
    ("a sliding window that is paced", {"paced": True}, LAST, "paced: only a calendar quota"),
    ("a list without a request", {"field": "touser"}, LAST, "field: only scope request has lists"),
    ("a request scope with a window", {"scope": "request"}, LINE["window"], "window: the window request and the"),
    ("a request window with a scope", {"window": "request"}, LINE["window"], "window: the window request and the"),
    (
        "a request without a list",
        {"scope": "request", "window": "request", "endpoints": ["message/send"]},
        LINE["id"],
        "field: a limit of one request names the list",
    ),
    ("an override of nothing", {"overrides": "other"}, LAST, "overrides: there is no limit 'other'"),
    (
        "an override of another scope",
        {"scope": "app_api", "overrides": "minute"},
        LAST,
        "overrides: minute is of another scope",
    ),
    (
        "an override that is no more specific",
        {"overrides": "minute"},
        LAST,
        "overrides: minute holds for the same calls",
    ),
]


@pytest.mark.parametrize(("change", "line", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_bad_entry_is_refused_with_file_line_and_field(
    folder: Folder, change: dict[str, object], line: int, message: str
) -> None:
    made = folder(entries(change))
    with pytest.raises(LimitsError) as refused:
        load_registry(made)
    assert str(refused.value).startswith(f"{made / 'more.yaml'}:{line}: {message}")


SECOND = len(ENTRY)
"""So many lines further down stands the second entry."""

PAIRS: list[tuple[str, dict[str, object], dict[str, object], str, str]] = [
    ("the same day", {}, {"amount": 6}, "effective_from", "mine has two versions from 2026-01-01"),
    (
        "the same moment written differently",
        {},
        {"effective_from": "2025-12-31T16:00:00+00:00"},
        "effective_from",
        "mine has two versions",
    ),
    ("another scope", {}, {"effective_from": "2026-02-01", "scope": "app_api"}, "scope", "mine had another scope"),
    (
        "another window",
        {},
        {"effective_from": "2026-02-01", "window": "sliding 61 min"},
        "window",
        "mine had another window before; give it another id",
    ),
]


@pytest.mark.parametrize(("first", "second", "field", "message"), [p[1:] for p in PAIRS], ids=[p[0] for p in PAIRS])
def test_versions_that_contradict_each_other_are_refused_at_the_later_one(
    folder: Folder, first: dict[str, object], second: dict[str, object], field: str, message: str
) -> None:
    made = folder(entries(first, second))
    with pytest.raises(LimitsError) as refused:
        load_registry(made)
    assert str(refused.value).startswith(f"{made / 'more.yaml'}:{LINE[field] + SECOND}: {field}: {message}")


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("2026-03-01", "overlaps with the version of mine before it"),
        ("2026-01-20", "leaves a gap behind the version of mine before it"),
    ],
)
def test_an_end_must_be_the_next_versions_begin(folder: Folder, until: str, message: str) -> None:
    made = folder(entries({"effective_until": until}, {"effective_from": "2026-02-01"}))
    with pytest.raises(LimitsError, match=message) as refused:
        load_registry(made)
    assert f"more.yaml:{LINE['effective_from'] + SECOND + 1}: effective_from" in str(refused.value)


def test_versions_may_stand_in_several_files_and_contradict_each_other_there_too(folder: Folder) -> None:
    made = folder(entries({}))
    (made / "other.yaml").write_text("# a comment\n" + entries({"amount": 7}), encoding="utf-8")
    with pytest.raises(LimitsError) as refused:
        load_registry(made)
    assert str(refused.value).startswith(f"{made / 'other.yaml'}:{LINE['effective_from'] + 1}: effective_from: ")


def test_an_override_of_an_override_is_refused(folder: Folder) -> None:
    corps = {"corps": ["ww1"]}
    made = folder(
        entries(
            {"id": "one", "overrides": "minute", **corps},
            {"id": "two", "overrides": "one", "endpoints": ["message/send"]},
        )
    )
    with pytest.raises(LimitsError, match="overrides: one overrides minute itself; name that"):
        load_registry(made)


def test_two_overrides_that_could_both_hold_are_refused_only_while_they_meet_in_time(folder: Folder) -> None:
    one = {"id": "one", "overrides": "minute", "corps": ["ww1", "ww2"], "effective_until": "2026-02-01"}
    two = {"id": "two", "overrides": "minute", "corps": ["ww2"]}
    with pytest.raises(LimitsError, match=r"more\.yaml:\d+: overrides: one holds for the same calls"):
        load_registry(folder(entries(one, two)))
    load_registry(folder(entries(one, two | {"effective_from": "2026-02-01"})))


def test_a_large_call_is_cut_by_one_list_only(folder: Folder) -> None:
    request: dict[str, object] = {"scope": "request", "window": "request", "endpoints": ["message/send"]}
    more = [request | {"id": "users", "field": "touser"}, request | {"id": "parties", "field": "toparty"}]
    with pytest.raises(LimitsError, match="primary: parties is what a large call to message/send is cut by"):
        load_registry(folder(entries(*more)))
    registry = load_registry(folder(entries(more[0], more[1] | {"primary": False, "amount": 3})))
    in_force = registry.at(registry.changes_ms[-1])
    assert in_force.request_limit("ww1", "message/send") == 5
    assert in_force.request_limit("ww1", "message/send", "toparty") == 3
    assert in_force.request_limit("ww1", "message/send", "totag") is None


@pytest.mark.parametrize(
    ("found", "instead", "message"),
    [
        ("bulk: 0.8", "bulk: 1.1", r"base\.yaml:19: bulk: a share above 0 and at most 1, not 1.1"),
        ("bulk: 0.8, ", "", r"base\.yaml:19: bulk: Object missing required field"),
        ("edge_ms: 5000", "edge_ms: 0", r"base\.yaml:22: edge_ms: must be positive"),
        ("rate_floor: 0.1", "rate_floor: 0", r"base\.yaml:26: rate_floor: a share above 0"),
        ("rate_after_error: 0.5", "rate_after_error: 1", r"base\.yaml:23: rate_after_error: 1 would change nothing"),
        ("concurrent", "sliding 2 h", r"base\.yaml:1: limits: .* has no limit of calls at the same time"),
        ("amount: 100", "amount: 100\n    enforce: observe", r"base\.yaml:1: limits: .* no limit of calls in a window"),
        (
            "amount: 100",
            "amount: 100\n    effective_until: 2026-01-01",
            r"base\.yaml:6: effective_until: .* from 2026-01-01 on",
        ),
        ("amount: 100", "amount: 100\n    amount: 200", r"base\.yaml:6: amount: stands twice"),
        ("amount: 100", "amount: [", r"base\.yaml:\d+: not YAML: "),
        ("limits:", "limit:", r"base\.yaml:1: limit: Object contains unknown field"),
        ("limits:", "? [a]\n: b\nlimits:", r"base\.yaml:1: a field's name must be a word"),
    ],
)
def test_a_base_that_would_let_everything_through_is_refused(
    folder: Folder, base_text: str, found: str, instead: str, message: str
) -> None:
    assert found in base_text
    with pytest.raises(LimitsError, match=message):
        load_registry(folder(base=base_text.replace(found, instead, 1)))


def test_a_later_version_that_uncovers_an_endpoint_is_refused_at_its_date(folder: Folder) -> None:
    uncovering = entries({"id": "minute", "window": "sliding 1 min", "but_not": ["message/send"]})
    made = folder(uncovering)
    with pytest.raises(LimitsError) as refused:
        load_registry(made)
    assert str(refused.value) == (
        f"{made / 'more.yaml'}:{LINE['effective_from']}: effective_from: message/send has no limit of calls in a "
        "window from 2026-01-01 on"
    )


def test_headroom_and_margins_are_needed(folder: Folder, base_text: str) -> None:
    limits_only, _, rest = base_text.partition("headroom:")
    with pytest.raises(LimitsError, match="headroom: no version of it in any file"):
        load_registry(folder(base=limits_only))
    with pytest.raises(LimitsError, match="margins: no version of it in any file"):
        load_registry(folder(base=base_text.partition("margins:")[0]))
    assert "margins:" in rest


def test_no_folder_and_no_text_are_refused(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(LimitsError, match=r"there is no \*\.yaml in it"):
        load_registry(tmp_path / "nothing")
    (folder() / "more.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LimitsError, match=r"more\.yaml: not UTF-8"):
        load_registry(tmp_path / "limits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limits: &a [*a]", r"more\.yaml:1: an alias; write it out"),
        ("limits: &a\n  - id: x\nmargins: *a", r"more\.yaml:\d: an alias; write it out"),
        ("limits: " + "[" * 5000 + "]" * 5000, r"more\.yaml:1: "),
        (f"limits:\n  - id: {'9' * 5000}", r"more\.yaml:2: id: not a value that can be read"),
        ("limits: !!python/object:os.system x", r"more\.yaml:1: "),
        ("limits: 2026-01-01", r"more\.yaml:1: limits: Expected `array`"),
        ("- limits", r"more\.yaml:1: Expected `object`"),
        (entries({"effective_from": "9999-12-31T23:59:59+00:00"}), r"more\.yaml:7: effective_from: .* is neither"),
        (entries({"effective_from": "0001-01-01"}), r"more\.yaml:7: effective_from: '0001-01-01' is before 1970"),
    ],
    ids=["itself", "twice", "deep", "digits", "tag", "date", "list", "too late", "too early"],
)
def test_strange_yaml_is_refused_like_any_other(folder: Folder, text: str, message: str) -> None:
    with pytest.raises(LimitsError, match=message):
        load_registry(folder(text))


SHIPPED_LINES = (schemas_dir() / "limits" / "endpoints.yaml").read_text(encoding="utf-8").splitlines()
PIECES = [
    "",
    " ",
    "- ",
    ":",
    "[",
    "}",
    "&a",
    "*a",
    "!!",
    "#",
    "%",
    "|",
    "0",
    "-1",
    "1e999",
    "~",
    "limits:",
    "2026-01-01",
    "限",
]


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SHIPPED_LINES) - 1),
            st.integers(0, 40),
            st.integers(0, 40),
            st.sampled_from(PIECES),
        ),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    folder: Folder, damages: list[tuple[int, int, int, str]]
) -> None:
    lines = list(SHIPPED_LINES)
    for line, begin, length, piece in damages:
        lines[line] = lines[line][:begin] + piece + lines[line][begin + length :]
    made = folder("\n".join(lines))
    registry, refusal = None, ""
    try:
        registry = load_registry(made)
    except LimitsError as error:
        refusal = str(error)
    if registry is None:
        assert refusal.startswith(f"{made}/")
    else:
        assert parse_registry(registry.to_json()) == registry


# -- JSON -------------------------------------------------------------------------------------------------------------


def test_the_shipped_registry_comes_back_from_json_as_it_was() -> None:
    registry = load_registry(schemas_dir() / "limits")
    again = parse_registry(registry.to_json())
    assert (again, again.revision, again.to_json()) == (registry, registry.revision, registry.to_json())
    for moment in (0, *registry.changes_ms):
        assert again.at(moment) == registry.at(moment)


def test_a_revision_is_of_the_content_not_of_how_it_is_written(folder: Folder) -> None:
    revision = load_registry(folder(entries({}))).revision
    same = yaml.safe_load(entries({"effective_from": "2025-12-31T16:00:00Z", "window": "sliding 60 min"}))
    assert load_registry(folder(yaml.safe_dump(same, sort_keys=True))).revision == revision
    assert load_registry(folder()).revision != revision
    assert load_registry(folder(entries({"amount": 6}))).revision != revision
    assert load_registry(folder(entries({"note": "a word"}))).revision != revision


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "limits: not JSON"),
        (b"[]", r"limits JSON \$: Expected `object`"),
        (b'{"limits": [{"id": "x"}]}', r"limits JSON \$\.limits\[0\]\.\w+: \w+: Object missing required field"),
        (b"{}", r"limits JSON \$: headroom: no version"),
    ],
)
def test_json_that_is_no_registry_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(LimitsError, match=message):
        parse_registry(content)


def test_json_is_checked_like_the_files(folder: Folder) -> None:
    document = json.loads(load_registry(folder()).to_json())
    document["limits"][1]["amount"] = -3
    with pytest.raises(LimitsError, match=r"limits JSON \$\.limits\[1\]\.amount: amount: must be positive, not -3"):
        parse_registry(json.dumps(document).encode())
