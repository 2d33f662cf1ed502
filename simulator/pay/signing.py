"""Signatures and ciphers of WeChat Pay v3 (fact sheet 3.15): RSA-SHA256 over lines, AES-256-GCM for what is secret.

Everything signed is a list of lines, each ended by a newline: of a request METHOD, URL, timestamp, nonce and body; of a
notification or an answer timestamp, nonce and body. The body is the bytes on the wire, never JSON written again.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

SCHEMA = "WECHATPAY2-SHA256-RSA2048"
"""Of the Authorization header, and of ``Wechatpay-Signature-Type``."""
PROBE_PREFIX = "WECHATPAY/SIGNTEST/"
"""What the signature of a probe begins with: it has to fail verification."""
ALGORITHM = "AEAD_AES_256_GCM"

_PARAMETER = re.compile(r'\s*([a-z_]+)="([^"]*)"\s*')
# Libraries judge a certificate by their own clock, which knows nothing of business time: good for all of both.
_VALID_FROM = datetime.datetime(2010, 1, 1, tzinfo=datetime.UTC)
_VALID_TO = datetime.datetime(2049, 12, 31, tzinfo=datetime.UTC)


class BadAuthorization(ValueError):
    """An Authorization header that does not have the schema and its five parameters."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parameters of an Authorization header."""

    mchid: str
    nonce: str
    timestamp: str
    serial: str
    signature: str


def parse_authorization(header: str) -> Authorization:
    """Reads the header; the parameters may stand in any order. Raises BadAuthorization."""
    schema, _, rest = header.partition(" ")
    if schema != SCHEMA:
        raise BadAuthorization(f"the schema is not {SCHEMA}")
    found: dict[str, str] = {}
    for part in rest.split(","):
        matched = _PARAMETER.fullmatch(part)
        if matched is None:
            raise BadAuthorization('not a list of name="value"')
        found[matched[1]] = matched[2]
    try:
        return Authorization(
            found["mchid"], found["nonce_str"], found["timestamp"], found["serial_no"], found["signature"]
        )
    except KeyError as missing:
        raise BadAuthorization(f"{missing.args[0]} is missing") from None


def lines(*parts: str | bytes) -> bytes:
    """What is signed: each part and a newline."""
    return b"".join((part if isinstance(part, bytes) else part.encode()) + b"\n" for part in parts)


def new_key() -> rsa.RSAPrivateKey:
    """A fresh RSA-2048 key: the one thing here that does not follow the seed, and is in no truth."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def sign(key: rsa.RSAPrivateKey, message: bytes) -> str:
    """RSA-SHA256 (PKCS#1 v1.5), base64."""
    return base64.b64encode(key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()


def verify(key: rsa.RSAPublicKey, message: bytes, signature: str) -> bool:
    """Whether a base64 signature is that of the message."""
    try:
        raw = base64.b64decode(signature, validate=True)
        key.verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True


def seal(key: bytes, plain: bytes, *, nonce: str, associated: str) -> str:
    """AES-256-GCM, base64, the tag in the last 16 bytes. ``nonce`` has 12 characters."""
    return base64.b64encode(AESGCM(key).encrypt(nonce.encode(), plain, associated.encode())).decode()


def unseal(key: bytes, ciphertext: str, *, nonce: str, associated: str) -> bytes:
    """The plaintext. Raises ValueError when anything was changed."""
    try:
        return AESGCM(key).decrypt(nonce.encode(), base64.b64decode(ciphertext, validate=True), associated.encode())
    except (InvalidTag, binascii.Error) as error:
        raise ValueError("the ciphertext is not whole, or not for this key") from error


def resource(key: bytes, plain: bytes, *, nonce: str, associated: str, original: str = "") -> dict[str, str]:
    """The ``resource`` object of a notification."""
    sealed = {
        "algorithm": ALGORITHM,
        "ciphertext": seal(key, plain, nonce=nonce, associated=associated),
        "associated_data": associated,
        "nonce": nonce,
    }
    return {"original_type": original, **sealed} if original else sealed


def signed_headers(
    key: rsa.RSAPrivateKey, serial: str, body: bytes, *, timestamp: int, nonce: str, probe: bool = False
) -> dict[str, str]:
    """The ``Wechatpay-…`` headers of a notification or an answer. A probe's signature is none."""
    signature = sign(key, lines(str(timestamp), nonce, body))
    if probe:
        signature = PROBE_PREFIX + signature[len(PROBE_PREFIX) :]
    return {
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature": signature,
        "Wechatpay-Signature-Type": SCHEMA,
        "Wechatpay-Timestamp": str(timestamp),
        "Wechatpay-Nonce": nonce,
    }


def token(*parts: object, length: int = 32) -> str:
    """Letters and digits that follow from the parts: nonces and ids that a seed decides."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=40).digest()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


def digits(*parts: object, length: int) -> str:
    """Decimal digits that follow from the parts."""
    digest = hashlib.blake2b("|".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return f"{int.from_bytes(digest, 'big') % 10**length:0{length}d}"


def certificate(key: rsa.RSAPrivateKey, name: str, serial: str) -> str:
    """A self-signed certificate of the key, PEM. ``serial``: 40 hexadecimal digits."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(int(serial, 16))
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_TO)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def certificate_times() -> tuple[int, int]:
    """From when to when certificates are good, epoch seconds."""
    return int(_VALID_FROM.timestamp()), int(_VALID_TO.timestamp())


def private_pem(key: rsa.RSAPrivateKey) -> str:
    """PKCS#8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem(key: rsa.RSAPublicKey) -> str:
    """SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def private_key(pem: str) -> rsa.RSAPrivateKey:
    """Reads PKCS#8. Raises ValueError for anything but an RSA key."""
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("not an RSA private key")
    return key


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value whatever its case, empty when absent."""
    return headers.get(name.lower(), "")
