"""Whatever is sealed opens again; whatever was touched does not, and every refusal names its reason."""

import base64

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from siyu.wecom.crypto import (
    BadBase64,
    BadCiphertext,
    BadKey,
    BadLength,
    BadPadding,
    BadSignature,
    CallbackCrypto,
    CallbackCryptoError,
    Refused,
    WrongReceiveId,
)

TOKEN = "QDG6eK"
AES_KEY = "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C"
CORP = "wwcorp00000000001"
CRYPTO = CallbackCrypto(TOKEN, AES_KEY, CORP)
STAMP, NONCE = "1700000000", "n0nce"

alphanumeric = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))


def raw_seal(padded: bytes) -> str:
    """Encrypts bytes as they are, so that a test can say what stands inside."""
    key = base64.b64decode(AES_KEY + "=")
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def open_signed(encrypted: str) -> bytes:
    """Opens something that carries a right signature, whatever it is."""
    return CRYPTO.decrypt(CRYPTO.signature(STAMP, NONCE, encrypted), STAMP, NONCE, encrypted)


def pad(plain: bytes) -> bytes:
    count = 32 - len(plain) % 32
    return plain + bytes([count]) * count


@given(
    message=st.binary(max_size=600),
    random16=st.binary(min_size=16, max_size=16),
    token=alphanumeric.filter(lambda text: 1 <= len(text) <= 32),
    aes_key=st.text(st.sampled_from("ABCabc019zZ"), min_size=43, max_size=43),
    receive_id=st.text(max_size=40).filter(lambda text: text.isprintable()),
    timestamp=st.integers(0, 2**40).map(str),
    nonce=st.text(max_size=20),
)
def test_what_is_sealed_opens_again(
    message: bytes, random16: bytes, token: str, aes_key: str, receive_id: str, timestamp: str, nonce: str
) -> None:
    crypto = CallbackCrypto(token, aes_key, receive_id)
    sealed = crypto.encrypt(message, timestamp=timestamp, nonce=nonce, random16=random16)
    assert crypto.decrypt(sealed.msg_signature, timestamp, nonce, sealed.encrypt) == message


def test_sealing_twice_differs_but_opens_the_same() -> None:
    one = CRYPTO.encrypt(b"message", timestamp=STAMP, nonce=NONCE)
    two = CRYPTO.encrypt(b"message", timestamp=STAMP, nonce=NONCE)
    assert one.encrypt != two.encrypt
    assert open_signed(one.encrypt) == open_signed(two.encrypt) == b"message"


SEALED = CRYPTO.encrypt(b"<xml>hello</xml>", timestamp=STAMP, nonce=NONCE, random16=b"0123456789abcdef")


@pytest.mark.parametrize("position", range(len(SEALED.encrypt)))
def test_every_single_changed_character_of_the_ciphertext_is_refused(position: int) -> None:
    original = SEALED.encrypt[position]
    for replacement in "A", "B", "=", "+", " ", "\n":
        if replacement != original:
            tampered = SEALED.encrypt[:position] + replacement + SEALED.encrypt[position + 1 :]
            with pytest.raises(BadSignature):
                CRYPTO.decrypt(SEALED.msg_signature, STAMP, NONCE, tampered)


@given(
    field=st.sampled_from(["msg_signature", "timestamp", "nonce", "encrypt"]),
    position=st.integers(0, 10_000),
    replacement=st.characters(codec="utf-8"),
)
def test_every_single_changed_character_anywhere_is_refused(field: str, position: int, replacement: str) -> None:
    fields = SEALED._asdict()
    text = fields[field]
    position %= len(text)
    if text[position] == replacement:
        return
    fields[field] = text[:position] + replacement + text[position + 1 :]
    with pytest.raises(BadSignature):
        CRYPTO.decrypt(fields["msg_signature"], fields["timestamp"], fields["nonce"], fields["encrypt"])


@given(message=st.binary(max_size=200), bit=st.integers(0, 10_000))
def test_a_flipped_bit_that_carries_a_right_signature_never_opens_to_the_message(message: bytes, bit: int) -> None:
    ciphertext = bytearray(base64.b64decode(CRYPTO.encrypt(message, timestamp=STAMP, nonce=NONCE).encrypt))
    # The first 16 bytes are a random prefix that nothing depends on; all else counts.
    bit = 128 + bit % ((len(ciphertext) - 16) * 8)
    ciphertext[bit // 8] ^= 1 << bit % 8
    try:
        opened = open_signed(base64.b64encode(bytes(ciphertext)).decode())
    except Refused:
        return
    assert opened != message


@pytest.mark.parametrize(
    "encrypted", ["!", "AAA", "AA=A", "A A=", "AAAA\n", "AAAA====", "é", "\ud800", "==", "AAAA-_==", "AAB="]
)
def test_what_is_not_strict_base64_is_refused(encrypted: str) -> None:
    with pytest.raises(BadBase64):
        open_signed(encrypted)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 33, 48, 80])
def test_what_is_not_whole_blocks_is_refused(size: int) -> None:
    with pytest.raises(BadCiphertext):
        open_signed(base64.b64encode(bytes(size)).decode())


@pytest.mark.parametrize(
    "padded",
    [
        b"x" * 31 + b"\x00",
        b"x" * 31 + b"\x21",
        b"x" * 31 + b"\xff",
        b"x" * 29 + b"\x02\x03\x03",
        b"x" * 32 + b"\x1f" + b"\x20" * 31,
    ],
    ids=["zero", "33", "255", "uneven", "uneven-32"],
)
def test_wrong_padding_is_refused(padded: bytes) -> None:
    with pytest.raises(BadPadding):
        open_signed(raw_seal(padded))


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"r" * 19,
        b"r" * 16 + (5).to_bytes(4, "big") + b"four",
        b"r" * 16 + (2**32 - 1).to_bytes(4, "big") + b"message" + CORP.encode(),
    ],
    ids=["empty", "head cut", "one too many", "huge"],
)
def test_a_length_that_does_not_fit_is_refused(plain: bytes) -> None:
    with pytest.raises(BadLength):
        open_signed(raw_seal(pad(plain)))


@pytest.mark.parametrize("receive_id", ["", CORP[:-1], CORP + "1", CORP.upper(), "wwother"])
def test_a_message_for_somebody_else_is_refused(receive_id: str) -> None:
    sealed = CallbackCrypto(TOKEN, AES_KEY, receive_id).encrypt(b"message", timestamp=STAMP, nonce=NONCE)
    with pytest.raises(WrongReceiveId):
        CRYPTO.decrypt(sealed.msg_signature, STAMP, NONCE, sealed.encrypt)


@pytest.mark.parametrize("signature", ["", "é" * 40, "\ud800", SEALED.msg_signature.upper(), SEALED.msg_signature[:-1]])
def test_strange_signatures_are_refused_not_crashed_on(signature: str) -> None:
    with pytest.raises(BadSignature):
        CRYPTO.decrypt(signature, STAMP, NONCE, SEALED.encrypt)


@pytest.mark.parametrize("key", ["", "A" * 42, "A" * 44, "A" * 42 + "=", "A" * 42 + "+", "é" * 43])
def test_an_unusable_key_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(BadKey) as caught:
        CallbackCrypto(TOKEN, key, CORP)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("token", ["", "A" * 33, "not-letters", "空"])
def test_an_unusable_token_is_refused_without_being_quoted(token: str) -> None:
    with pytest.raises(BadKey) as caught:
        CallbackCrypto(token, AES_KEY, CORP)
    assert not token or token not in str(caught.value)


def test_neither_repr_nor_a_refusal_holds_a_secret() -> None:
    with pytest.raises(Refused) as caught:
        open_signed(raw_seal(b"secret text of the message" + b"!" * 6))
    for text in repr(CRYPTO), repr(caught.value), str(caught.value):
        assert TOKEN not in text
        assert AES_KEY not in text
        assert "secret text" not in text
    assert caught.value.__context__ is None


def test_every_refusal_has_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in Refused.__subclasses__() if kind.__module__ == Refused.__module__]
    assert sorted(reasons) == [
        "bad_base64",
        "bad_ciphertext",
        "bad_length",
        "bad_padding",
        "bad_signature",
        "wrong_receive_id",
    ]
    assert issubclass(BadKey, CallbackCryptoError)
    assert not issubclass(BadKey, Refused)


def test_a_random_prefix_of_a_wrong_size_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        CRYPTO.encrypt(b"", timestamp=STAMP, nonce=NONCE, random16=b"short")
