"""The callback envelope's crypto (fact sheet 1.4, 1.5): a message comes out only if it is genuine, whole and ours.

Genuine: the signature is checked before anything is decoded, so the padding tells an attacker without the token
nothing. Whole: ciphertext, padding and length must fit to the byte. Ours: the receive id inside must be the expected
one. Every refusal is one exception with a short ``reason``; neither it nor any ``repr`` holds a key, a token or a
message.

    CallbackCryptoError
    ├── BadKey            the token or EncodingAESKey we were configured with cannot be used
    └── Refused           what arrived is refused; ``reason`` says why
        ├── BadSignature      bad_signature
        ├── BadBase64         bad_base64
        ├── BadCiphertext     bad_ciphertext      empty, or not whole blocks
        ├── BadPadding        bad_padding
        ├── BadLength         bad_length          the inner length field does not fit
        └── WrongReceiveId    wrong_receive_id    signed and encrypted with our keys, for somebody else
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from typing import ClassVar, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_KEY = re.compile(r"[A-Za-z0-9]{43}")
_TOKEN = re.compile(r"[A-Za-z0-9]{1,32}")
# PKCS#7 over blocks of 32, not AES's 16: pad values 17 to 32 are valid here and refused by most libraries.
_BLOCK = 32
_RANDOM = 16
_HEAD = _RANDOM + 4


class CallbackCryptoError(Exception):
    """Base of everything this module raises."""


class BadKey(CallbackCryptoError):
    """The token or the EncodingAESKey of a corp cannot be used. Names the field, never its value."""


class Refused(CallbackCryptoError):
    """A callback that is not accepted. ``reason`` is from the closed set in the module's docstring."""

    reason: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__(self.reason)


class BadSignature(Refused):
    """``msg_signature`` does not belong to these parameters and this ciphertext."""

    reason = "bad_signature"


class BadBase64(Refused):
    """The ciphertext is not strict base64."""

    reason = "bad_base64"


class BadCiphertext(Refused):
    """The ciphertext is empty or not a whole number of 32-byte blocks."""

    reason = "bad_ciphertext"


class BadPadding(Refused):
    """The decrypted text does not end in PKCS#7 padding of 1 to 32 bytes."""

    reason = "bad_padding"


class BadLength(Refused):
    """The decrypted text is too short for its head or for the length it claims."""

    reason = "bad_length"


class WrongReceiveId(Refused):
    """The message was meant for another corp or suite."""

    reason = "wrong_receive_id"


class SealedMessage(NamedTuple):
    """An encrypted message and what a sender puts beside it: query parameters of a callback, elements of a reply."""

    encrypt: str
    msg_signature: str
    timestamp: str
    nonce: str


class CallbackCrypto:
    """Opens and seals the messages of one corp × app. Safe to share between threads and tasks."""

    def __init__(self, token: str, aes_key: str, receive_id: str) -> None:
        """``aes_key`` is the 43-character EncodingAESKey; ``receive_id`` the corp id. Raises BadKey."""
        if not _TOKEN.fullmatch(token):
            raise BadKey("callback token needs 1 to 32 letters or digits")
        if not _KEY.fullmatch(aes_key):
            raise BadKey("EncodingAESKey needs exactly 43 letters or digits")
        # 43 characters carry 258 bits: published keys have non-zero spare bits, which this decoder drops silently.
        key = base64.b64decode(aes_key + "=")
        self._token = token.encode()
        self._cipher = Cipher(algorithms.AES(key), modes.CBC(key[:16]))
        self._receive_id = receive_id.encode()

    def __repr__(self) -> str:
        return f"CallbackCrypto(receive_id={self._receive_id.decode()!r})"

    def signature(self, timestamp: str, nonce: str, encrypted: str) -> str:
        """Lower-case hex SHA-1 over the four values sorted by their bytes."""
        parts = sorted((self._token, _bytes(timestamp), _bytes(nonce), _bytes(encrypted)))
        return hashlib.sha1(b"".join(parts), usedforsecurity=False).hexdigest()

    def decrypt(self, msg_signature: str, timestamp: str, nonce: str, encrypted: str) -> bytes:
        """The message. Raises the subclass of Refused that fits the first thing that is wrong."""
        expected = self.signature(timestamp, nonce, encrypted)
        if not hmac.compare_digest(expected.encode(), _bytes(msg_signature)):
            raise BadSignature
        try:
            ciphertext = binascii.a2b_base64(_bytes(encrypted), strict_mode=True)
        except binascii.Error:
            raise BadBase64 from None
        # Python's strict mode lets "AAAA====" and spare bits through; only one spelling of a ciphertext is accepted.
        if base64.b64encode(ciphertext) != _bytes(encrypted):
            raise BadBase64
        if not ciphertext or len(ciphertext) % _BLOCK:
            raise BadCiphertext
        decryptor = self._cipher.decryptor()
        return self._unwrap(decryptor.update(ciphertext) + decryptor.finalize())

    def encrypt(self, message: bytes, *, timestamp: str, nonce: str, random16: bytes | None = None) -> SealedMessage:
        """Seals a message as the platform does. ``random16`` defaults to fresh random bytes."""
        prefix = os.urandom(_RANDOM) if random16 is None else random16
        if len(prefix) != _RANDOM:
            raise ValueError(f"random16 needs {_RANDOM} bytes, got {len(prefix)}")
        plain = prefix + len(message).to_bytes(4, "big") + message + self._receive_id
        pad = _BLOCK - len(plain) % _BLOCK
        encryptor = self._cipher.encryptor()
        ciphertext = encryptor.update(plain + bytes([pad]) * pad) + encryptor.finalize()
        encrypted = base64.b64encode(ciphertext).decode()
        return SealedMessage(encrypted, self.signature(timestamp, nonce, encrypted), timestamp, nonce)

    def _unwrap(self, padded: bytes) -> bytes:
        pad = padded[-1]
        if not 1 <= pad <= _BLOCK or padded[-pad:] != bytes([pad]) * pad:
            raise BadPadding
        plain = padded[:-pad]
        if len(plain) < _HEAD:
            raise BadLength
        end = _HEAD + int.from_bytes(plain[_RANDOM:_HEAD], "big")
        if end > len(plain):
            raise BadLength
        if not hmac.compare_digest(plain[end:], self._receive_id):
            raise WrongReceiveId
        return plain[_HEAD:end]


def _bytes(text: str) -> bytes:
    # What arrives may hold lone surrogates; it must fail the signature, not the encoder.
    return text.encode("utf-8", "surrogatepass")
