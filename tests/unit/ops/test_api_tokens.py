"""Tokens of the API: shown once, kept as hashes, and a broken file changes nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from siyu.ops.api_tokens import TokenFile, TokensError, hash_of, make_token, read_tokens


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.yaml"


def test_a_token_stands_nowhere_and_its_file_is_for_its_owner(path: Path) -> None:
    token = make_token(path, "li.wei", "operator")
    assert token not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    who = read_tokens(path)[hash_of(token)]
    assert (who.name, who.role) == ("li.wei", "operator")


def test_no_two_tokens_are_the_same_and_no_name_has_two(path: Path) -> None:
    assert make_token(path, "a", "reader") != make_token(path, "b", "reader")
    with pytest.raises(TokensError, match="a has a token"):
        make_token(path, "a", "operator")
    assert [who.name for who in read_tokens(path).values()] == ["a", "b"]


def test_an_operator_may_what_a_reader_may_and_not_the_other_way_round(path: Path) -> None:
    tokens = [make_token(path, role, role) for role in ("reader", "operator")]
    reader, operator = (read_tokens(path)[hash_of(token)] for token in tokens)
    assert operator.may("reader")
    assert operator.may("operator")
    assert reader.may("reader")
    assert not reader.may("operator")


@pytest.mark.parametrize(("name", "role"), [("", "reader"), ("a b", "reader"), ("x" * 65, "reader"), ("a", "root")])
def test_names_and_roles_that_are_none_are_refused(path: Path, name: str, role: str) -> None:
    with pytest.raises(TokensError):
        make_token(path, name, role)
    assert not path.exists()


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"name": "a", "role": "reader"}, "exactly the fields"),
        ({"name": "a", "role": "reader", "sha256": "ab"}, "sha256"),
        ({"name": "a", "role": "root", "sha256": "0" * 64}, "role"),
        ({"name": 7, "role": "reader", "sha256": "0" * 64}, "name"),
        ("a", "exactly the fields"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_entry_and_field(path: Path, entry: object, field: str) -> None:
    path.write_text(yaml.safe_dump({"tokens": [entry]}))
    with pytest.raises(TokensError, match=f"token 1.*{field}"):
        read_tokens(path)


@pytest.mark.parametrize("content", ["", "- a", "tokens: 7", "tokens: [", "tokens:\n  a: b"])
def test_a_file_without_a_list_of_tokens_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(TokensError):
        read_tokens(path)


def test_a_file_that_broke_leaves_the_last_good_tokens_in_force(path: Path) -> None:
    token = make_token(path, "a", "reader")
    told: list[str] = []
    tokens = TokenFile(path, told.append)
    path.write_text("tokens: [")
    assert tokens.who(token) is not None
    assert len(told) == 1
    assert tokens.who(token) is not None
    assert len(told) == 1, "one word for one broken file"
    other = "siyu_other"
    path.write_text(yaml.safe_dump({"tokens": [{"name": "b", "role": "reader", "sha256": hash_of(other)}]}))
    assert tokens.who(token) is None
    assert tokens.who(other) is not None
    assert tokens.problem is None


def test_without_a_file_nobody_is_anybody() -> None:
    tokens = TokenFile(None)
    assert len(tokens) == 0
    assert tokens.who("") is None
