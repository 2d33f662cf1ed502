"""The seven published callbacks open, sign and (where the random prefix is known) seal to the byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from siyu.wecom.crypto import BadSignature, CallbackCrypto

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))


def crypto(vector: dict[str, Any]) -> CallbackCrypto:
    return CallbackCrypto(vector["token"], vector["aes_key"], vector["receive_id"])


def test_all_seven_are_here() -> None:
    assert [vector["name"] for vector in VECTORS] == ["V1", "V2", "V3", "V4", "V5", "V6", "V7"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_opens_to_the_published_message(vector: dict[str, Any]) -> None:
    opened = crypto(vector).decrypt(vector["signature"], vector["timestamp"], vector["nonce"], vector["encrypt"])
    assert opened == vector["message"].encode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_signs_as_published(vector: dict[str, Any]) -> None:
    assert crypto(vector).signature(vector["timestamp"], vector["nonce"], vector["encrypt"]) == vector["signature"]


@pytest.mark.parametrize(
    "vector", [vector for vector in VECTORS if "random16" in vector], ids=lambda vector: vector["name"]
)
def test_seals_to_the_published_bytes(vector: dict[str, Any]) -> None:
    sealed = crypto(vector).encrypt(
        vector["message"].encode(),
        timestamp=vector["timestamp"],
        nonce=vector["nonce"],
        random16=vector["random16"].encode(),
    )
    assert (sealed.encrypt, sealed.msg_signature) == (vector["encrypt"], vector["signature"])


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if "pad" in vector], ids=lambda vector: vector["name"])
def test_padding_is_of_32_byte_blocks(vector: dict[str, Any]) -> None:
    head_and_tail = 20 + len(vector["receive_id"])
    length = len(vector["message"].encode()) + head_and_tail
    assert 32 - length % 32 == vector["pad"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_one_vector_under_the_parameters_of_another_is_refused(vector: dict[str, Any]) -> None:
    other = next(o for o in VECTORS if o["nonce"] != vector["nonce"])
    with pytest.raises(BadSignature):
        crypto(vector).decrypt(vector["signature"], other["timestamp"], other["nonce"], vector["encrypt"])
