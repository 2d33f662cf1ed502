"""Keys that access tokens are encrypted with in Kafka, and how: AES-256-GCM over the token, with everything else the
record says as authenticated data. A record that was altered, or moved to another corp, cannot be opened.

``SIYU_TOKEN_KEYS`` names a JSON file, ``{key id: base64 of 32 bytes}``. The greatest id (in the order of text)
encrypts, every key opens. Without that setting each corp's key is derived from its app secret, so all executors with
the same corps file understand each other: whoever has that file could ask WeCom for a token anyway.

``python -m services.executor.key_ring FILE`` makes the file, or adds a key to it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from siyu.events import WecomToken
from siyu.ops.clock import wall_ms
from siyu.ops.corps import Corp

SETTING = "SIYU_TOKEN_KEYS"
KEY_BYTES = 32
NONCE_BYTES = 12
_FINGERPRINT_DIGITS = 16


class KeyRingError(ValueError):
    """A key file that cannot be used; names the setting and the key id, never a key."""


class CannotOpen(Exception):
    """A token record that must not be used. ``reason``: ``unknown_key`` or ``altered``."""

    def __init__(self, reason: Literal["unknown_key", "altered"]) -> None:
        super().__init__(reason)
        self.reason = reason


class KeyRing:
    """Seals and opens token records. Its ``repr`` shows key ids only."""

    def __init__(self, keys: Mapping[str, bytes], *, of_corp: Mapping[str, str] | None = None) -> None:
        """``of_corp``: the key id that encrypts for a corp; without it the greatest does. Raises KeyRingError."""
        if not keys:
            raise KeyRingError(f"{SETTING}: there is no key")
        for key_id, key in keys.items():
            if not key_id or len(key) != KEY_BYTES:
                raise KeyRingError(f"{SETTING}: key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}")
        self._ciphers = {key_id: AESGCM(_derived(key, b"siyu token cipher")) for key_id, key in keys.items()}
        self._marks = {key_id: _derived(key, b"siyu token fingerprint") for key_id, key in keys.items()}
        self._newest = max(keys)
        self._of_corp = dict(of_corp or {})

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self._ciphers)})"

    def fingerprint(self, corp_id: str, agent_id: str, token: str) -> str:
        """Tells one token from another to those who hold the ring, and tells nothing to others (HMAC-SHA256)."""
        told = hmac.new(self._marks[self._key_of(corp_id)], _bound(corp_id, agent_id, token), hashlib.sha256)
        return told.hexdigest()[:_FINGERPRINT_DIGITS]

    def seal(self, record: WecomToken, token: str, nonce: bytes) -> WecomToken:
        """The record with the token inside. ``nonce``: 12 random bytes, never used twice. A word of refusal seals an
        empty text, so that nobody without the ring can forge one."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        key_id = self._key_of(record.corp_id)
        ciphertext = self._ciphers[key_id].encrypt(nonce, token.encode(), _said(record))
        return msgspec.structs.replace(record, key_id=key_id, nonce=nonce, ciphertext=ciphertext)

    def open(self, record: WecomToken) -> str:
        """The token inside. Raises CannotOpen; it says nothing about the content."""
        cipher = self._ciphers.get(record.key_id)
        if cipher is None:
            raise CannotOpen("unknown_key")
        try:
            return cipher.decrypt(record.nonce, record.ciphertext, _said(record)).decode()
        except (InvalidTag, ValueError):  # ValueError: a nonce of a wrong length, or no text
            raise CannotOpen("altered") from None

    def _key_of(self, corp_id: str) -> str:
        return self._of_corp.get(corp_id, self._newest)


def load_key_ring(path: Path | None, corps: Iterable[Corp]) -> KeyRing:
    """The ring of ``SIYU_TOKEN_KEYS``; derived from the corps' secrets when it is not set. Raises KeyRingError."""
    if path is not None:
        return KeyRing(_read(path))
    keys = {}
    of_corp = {}
    for corp in corps:
        key = _derived(corp.secret.encode(), b"siyu token key of " + _bound(corp.corp_id, corp.agent_id))
        # Named after the key itself, so that a changed secret is another key and not a broken one.
        key_id = "corp-" + _derived(key, b"siyu token key id")[:8].hex()
        keys[key_id], of_corp[corp.corp_id] = key, key_id
    return KeyRing(keys, of_corp=of_corp)


def generate_key_ring(path: Path, wall_ms: int) -> str:
    """Writes a file with one fresh key, or adds one to the file that is there, readable by its owner only; returns the
    key's id, made of the time. Raises KeyRingError when there is a file that is none."""
    keys = _read(path) if path.exists() else {}
    made = datetime.datetime.fromtimestamp(wall_ms / 1000, datetime.UTC)
    key_id = made.strftime("k%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    if any(key_id <= known for known in keys):
        raise KeyRingError(f"{SETTING}={path}: a new key would not be the newest: {max(keys)!r} is greater")
    keys[key_id] = secrets.token_bytes(KEY_BYTES)
    text = msgspec.json.format(msgspec.json.encode({k: base64.b64encode(v).decode() for k, v in keys.items()}))
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text + b"\n")
        draft.replace(path)
    except OSError as error:
        raise KeyRingError(f"{SETTING}={path}: {error.strerror}") from None
    return key_id


def _read(path: Path) -> dict[str, bytes]:
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except OSError as error:
        raise KeyRingError(
            f"{SETTING}={path}: {error.strerror}; make one with python -m services.executor.key_ring"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise KeyRingError(f"{SETTING}={path}: not a JSON object of key ids and base64") from None
    keys = {}
    for key_id, text in raw.items():
        try:
            keys[key_id] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise KeyRingError(f"{SETTING}={path}: key {key_id!r} is not base64") from None
        if len(keys[key_id]) != KEY_BYTES:
            raise KeyRingError(f"{SETTING}={path}: key {key_id!r} has {len(keys[key_id])} bytes, not {KEY_BYTES}")
    if not keys:
        raise KeyRingError(f"{SETTING}={path}: there is no key in it")
    return keys


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(key)


def _said(record: WecomToken) -> bytes:
    """What a record says in the open, and must not be altered."""
    return _bound(
        record.corp_id,
        record.agent_id,
        record.kind,
        record.fingerprint,
        str(record.issued_at_ms),
        str(record.expires_at_ms),
    )


def _bound(*parts: str) -> bytes:
    """Length-prefixed: no two lists of parts are the same bytes."""
    return "".join(f"{len(part)}:{part}" for part in parts).encode()


def main() -> int:
    """Makes or extends the file named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python -m services.executor.key_ring FILE", file=sys.stderr)  # noqa: T201
        return 2
    try:
        key_id = generate_key_ring(Path(sys.argv[1]), wall_ms())
    except KeyRingError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    print(f"{sys.argv[1]}: added {key_id}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
