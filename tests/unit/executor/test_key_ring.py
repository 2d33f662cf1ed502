import base64
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.key_ring import CannotOpen, KeyRing, KeyRingError, generate_key_ring, load_key_ring
from siyu.events import WecomToken
from siyu.ops.corps import Corp

NOW_MS = 1_790_000_000_000
TOKEN = "the-access-token"
OLD, NEW = b"o" * 32, b"n" * 32


def corp(corp_id: str = "ww1", agent_id: str = "1", secret: str = "the-app-secret") -> Corp:
    return Corp(corp_id=corp_id, agent_id=agent_id, secret=secret, callback_token="t", callback_aes_key="k" * 43)


def record(**changes: object) -> WecomToken:
    fields: dict[str, object] = {
        "corp_id": "ww1",
        "agent_id": "1",
        "kind": "token",
        "fingerprint": "f",
        "key_id": "",
        "nonce": b"",
        "ciphertext": b"",
        "issued_at_ms": 1,
        "expires_at_ms": 2,
        "written_at_ms": 3,
    }
    return WecomToken(**(fields | changes))  # type: ignore[arg-type]


@given(token=st.text(max_size=600), nonce=st.binary(min_size=12, max_size=12))
def test_what_was_sealed_can_be_opened_and_does_not_show(token: str, nonce: bytes) -> None:
    ring = KeyRing({"k1": OLD})
    sealed = ring.seal(record(), token, nonce)
    assert ring.open(sealed) == token
    assert len(token) < 3 or token.encode() not in sealed.ciphertext


def test_the_newest_key_seals_and_every_key_opens() -> None:
    before, after = KeyRing({"k1": OLD}), KeyRing({"k1": OLD, "k2": NEW})
    old = before.seal(record(), TOKEN, b"1" * 12)
    new = after.seal(record(), TOKEN, b"1" * 12)
    assert (old.key_id, new.key_id) == ("k1", "k2")
    assert after.open(old) == after.open(new) == TOKEN
    with pytest.raises(CannotOpen, match="unknown_key"):
        before.open(new)


@pytest.mark.parametrize(
    "change",
    [
        {"corp_id": "ww2"},
        {"agent_id": "2"},
        {"kind": "refused"},
        {"fingerprint": "g"},
        {"issued_at_ms": 2},
        {"expires_at_ms": 1 << 50},
        {"nonce": b"2" * 12},
        {"nonce": b""},
        {"ciphertext": b""},
        {"ciphertext": b"x" * 40},
    ],
)
def test_a_record_that_was_altered_cannot_be_opened(change: dict[str, object]) -> None:
    ring = KeyRing({"k1": OLD})
    sealed = ring.seal(record(), TOKEN, b"1" * 12)
    fields = {name: getattr(sealed, name) for name in sealed.__struct_fields__}
    with pytest.raises(CannotOpen, match="altered"):
        ring.open(WecomToken(**(fields | change)))


def test_ids_that_join_to_the_same_text_are_told_apart() -> None:
    ring = KeyRing({"k1": OLD})
    sealed = ring.seal(record(corp_id="a", agent_id="bc"), TOKEN, b"1" * 12)
    with pytest.raises(CannotOpen):
        ring.open(record(corp_id="ab", agent_id="c", key_id="k1", nonce=sealed.nonce, ciphertext=sealed.ciphertext))
    assert ring.fingerprint("a", "bc", TOKEN) != ring.fingerprint("ab", "c", TOKEN)


def test_a_fingerprint_tells_tokens_apart_only_for_those_who_hold_the_ring() -> None:
    ring = KeyRing({"k1": OLD})
    assert ring.fingerprint("ww1", "1", TOKEN) == KeyRing({"k1": OLD}).fingerprint("ww1", "1", TOKEN)
    assert ring.fingerprint("ww1", "1", TOKEN) != ring.fingerprint("ww1", "1", TOKEN + "x")
    assert ring.fingerprint("ww1", "1", TOKEN) != KeyRing({"k1": NEW}).fingerprint("ww1", "1", TOKEN)
    assert len(ring.fingerprint("ww1", "1", TOKEN)) == 16


def test_a_file_is_made_readable_by_its_owner_only_and_a_second_key_seals_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ring.json"
    first = generate_key_ring(path, NOW_MS)
    before = load_key_ring(path, [])
    second = generate_key_ring(path, NOW_MS + 1)
    after = load_key_ring(path, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(json.loads(path.read_text())) == {first, second}
    assert before.seal(record(), TOKEN, b"1" * 12).key_id == first
    assert after.seal(record(), TOKEN, b"1" * 12).key_id == second
    assert after.open(before.seal(record(), TOKEN, b"1" * 12)) == TOKEN


def test_a_key_that_would_not_be_the_newest_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    generate_key_ring(path, NOW_MS)
    before = path.read_bytes()
    with pytest.raises(KeyRingError, match="would not be the newest"):
        generate_key_ring(path, NOW_MS - 1000)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"k1": 7}', "not a JSON object"),
        (b"{}", "no key in it"),
        (b'{"k1": "not base64 at all!"}', "key 'k1' is not base64"),
        (b'{"k1": "c2hvcnQ="}', "key 'k1' has 5 bytes, not 32"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named_with_its_setting_and_without_its_content(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "ring.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyRingError) as caught:
        load_key_ring(path, [corp()])
    assert "SIYU_TOKEN_KEYS" in str(caught.value)
    assert says in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)
    assert "not base64 at all" not in str(caught.value)


def test_without_a_file_executors_with_the_same_corps_understand_each_other() -> None:
    one, other = load_key_ring(None, [corp(), corp("ww2")]), load_key_ring(None, [corp("ww2"), corp()])
    sealed = one.seal(record(), TOKEN, b"1" * 12)
    assert other.open(sealed) == TOKEN
    assert load_key_ring(None, [corp()]).open(sealed) == TOKEN
    with pytest.raises(CannotOpen, match="unknown_key"):
        load_key_ring(None, [corp(secret="another"), corp("ww2")]).open(sealed)


def test_a_corp_is_sealed_with_its_own_key() -> None:
    ring = load_key_ring(None, [corp(), corp("ww2")])
    assert ring.seal(record(), TOKEN, b"1" * 12).key_id != ring.seal(record(corp_id="ww2"), TOKEN, b"1" * 12).key_id


def test_nothing_shows_a_key_or_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"
    path.write_text(json.dumps({"k1": base64.b64encode(OLD).decode()}))
    for ring in (load_key_ring(path, []), load_key_ring(None, [corp()])):
        sealed = ring.seal(record(), TOKEN, b"1" * 12)
        for shown in (repr(ring), str(ring), repr(sealed)):
            for secret in (TOKEN, "the-app-secret", OLD.decode(), base64.b64encode(OLD).decode(), OLD.hex()):
                assert secret not in shown


@pytest.mark.parametrize("keys", [{}, {"": OLD}, {"k1": b"short"}])
def test_a_ring_without_a_usable_key_is_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(KeyRingError, match="SIYU_TOKEN_KEYS"):
        KeyRing(keys)


def test_a_nonce_has_its_length() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        KeyRing({"k1": OLD}).seal(record(), TOKEN, b"short")


def test_the_command_makes_a_file_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "ring.json"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "services.executor.key_ring", *words], capture_output=True, text=True, check=False
        )

    made = command(str(path))
    (key_id,) = json.loads(path.read_text())
    assert (made.returncode, made.stdout) == (0, f"{path}: added {key_id}\n")
    path.write_text("[]")
    assert command(str(path)).returncode == 2
    assert command().returncode == 2
