"""Callbacks opened and sealed by a client library that shares no line with us: wechatpy's enterprise crypto."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from wechatpy.enterprise.crypto import WeChatCrypto
from wechatpy.enterprise.exceptions import InvalidCorpIdException
from wechatpy.exceptions import InvalidSignatureException

from simulator.delivery import Deliverer, DeliveryPolicy
from simulator.metrics import SimulatorMetrics
from simulator.sender import Answer
from simulator.world.corp import Callback
from siyu.wecom.crypto import BadSignature, CallbackCrypto, WrongReceiveId

VECTORS = json.loads((Path(__file__).parents[2] / "wecom" / "vectors.json").read_text(encoding="utf-8"))
BY_NAME = {vector["name"]: vector for vector in VECTORS}
V1 = BY_NAME["V1"]


def theirs(vector, **other) -> WeChatCrypto:
    made = {**vector, **other}
    return WeChatCrypto(made["token"], made["aes_key"], made["receive_id"])


def ours(vector, **other) -> CallbackCrypto:
    made = {**vector, **other}
    return CallbackCrypto(made["token"], made["aes_key"], made["receive_id"])


class Posted:
    def __init__(self) -> None:
        self.posts: list[tuple[dict[str, str], str]] = []

    async def post(self, target, query, body, *, timeout_s) -> Answer:
        self.posts.append((dict(part.split("=") for part in query.split("&")), body.decode()))
        return Answer(200)

    async def close(self) -> None:
        pass


@pytest.mark.covers("fact:6.1")
async def test_it_opens_every_callback_the_simulator_sends(app):
    """1.3: envelope, signature and ciphertext are what an independent library takes, for every length of padding."""
    network = Posted()
    deliverer = Deliverer(
        apps=[app("http://r/")],
        policy=DeliveryPolicy(shuffle_s=0, duplicate_share=0),
        metrics=SimulatorMetrics(),
        sender=network,
    )
    messages = [f"<xml>门店{'x' * n}</xml>" for n in range(64)]
    for message in messages:
        deliverer.send(Callback(V1["receive_id"], "change_external_contact", message.encode()))
    await deliverer.wait_idle()
    await deliverer.close()
    library = theirs(V1)
    opened = [
        library.decrypt_message(body, query["msg_signature"], query["timestamp"], query["nonce"])
        for query, body in network.posts
    ]
    assert sorted(text if isinstance(text, str) else text.decode() for text in opened) == sorted(messages)


@pytest.mark.covers("fact:6.1")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_it_opens_the_published_vectors_as_we_do(vector):
    """1.10: both implementations read the same message out of each published ciphertext."""
    library = theirs(vector)
    given = vector["signature"], vector["timestamp"], vector["nonce"], vector["encrypt"]
    opened = library.check_signature(*given)
    text = opened if isinstance(opened, str) else opened.decode()
    assert text == vector["message"] == ours(vector).decrypt(*given).decode()


@pytest.mark.covers("fact:6.1")
@pytest.mark.parametrize("length", range(96, 130))
def test_we_open_what_it_seals(length):
    """1.6: a passive reply of an independent library is accepted, at every padding from 1 to 32."""
    message = "<xml>" + "A" * (length - 11) + "</xml>"
    reply = ElementTree.fromstring(theirs(V1).encrypt_message(message, "461056294", "1411525903"))
    opened = ours(V1).decrypt(
        reply.findtext("MsgSignature") or "",
        reply.findtext("TimeStamp") or "",
        reply.findtext("Nonce") or "",
        reply.findtext("Encrypt") or "",
    )
    assert opened.decode() == message


@pytest.mark.covers("fact:6.1")
def test_a_full_block_of_padding_when_the_text_is_aligned():
    """1.5: a full 32 is added when the plaintext is a multiple of 32 already (vector V6)."""
    vector = BY_NAME["V6"]
    assert (16 + 4 + len(vector["message"]) + len(vector["receive_id"])) % 32 == 0
    sealed = ours(vector).encrypt(
        vector["message"].encode(), timestamp=vector["timestamp"], nonce=vector["nonce"], random16=b"1234567890123456"
    )
    assert (sealed.encrypt, sealed.msg_signature) == (vector["encrypt"], vector["signature"])
    opened = theirs(vector).check_signature(sealed.msg_signature, sealed.timestamp, sealed.nonce, sealed.encrypt)
    assert opened in (vector["message"], vector["message"].encode())


@pytest.mark.covers("fact:6.1")
def test_both_refuse_another_corps_message():
    """1.5: a receive id that is not the expected one is refused."""
    sealed = ours(V1, receive_id="wwanother").encrypt(b"<xml/>", timestamp="1409659813", nonce="1372623149")
    given = sealed.msg_signature, sealed.timestamp, sealed.nonce, sealed.encrypt
    with pytest.raises(WrongReceiveId):
        ours(V1).decrypt(*given)
    with pytest.raises(InvalidCorpIdException):
        theirs(V1).check_signature(*given)


@pytest.mark.covers("fact:6.1")
@pytest.mark.parametrize("part", range(4))
def test_both_refuse_a_signature_that_does_not_fit(part):
    """1.4: the signature covers token, timestamp, nonce and ciphertext; any other value of one of them breaks it."""
    given = [V1["signature"], V1["timestamp"], V1["nonce"], V1["encrypt"]]
    given[part] = given[part][:-1] + ("1" if given[part][-1] != "1" else "2")
    with pytest.raises(BadSignature):
        ours(V1).decrypt(*given)
    with pytest.raises(InvalidSignatureException):
        theirs(V1).check_signature(*given)
    with pytest.raises(InvalidSignatureException):
        theirs(V1, token="another").check_signature(V1["signature"], V1["timestamp"], V1["nonce"], V1["encrypt"])
