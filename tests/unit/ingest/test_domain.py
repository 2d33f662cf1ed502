"""What a request gets, decided from its parts: genuine ones pass, every other has one reason."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import STATUS, Endpoint, receive, verify_url
from siyu.wecom.crypto import CallbackCrypto, Refused, SealedMessage

CORP = "wwcorp00000000001"
NOW_S = 1_700_000_000
NOW_MS = NOW_S * 1000 + 321
CRYPTO = CallbackCrypto("QDG6eK", "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", CORP)
ENDPOINT = Endpoint(CORP, CRYPTO, 3600)
MESSAGE = (
    f"<xml><ToUserName>{CORP}</ToUserName><CreateTime>{NOW_S - 5}</CreateTime><Event>change_external_contact</Event>"
    "<ChangeType>add_external_contact</ChangeType><UserID>zhangsan</UserID><ExternalUserID>wm1</ExternalUserID></xml>"
).encode()


def seal(message: bytes = MESSAGE, *, timestamp: int | str = NOW_S, crypto: CallbackCrypto = CRYPTO) -> SealedMessage:
    return crypto.encrypt(message, timestamp=str(timestamp), nonce="n0nce")


def query(sealed: SealedMessage, **changed: str | None) -> bytes:
    parameters = {"msg_signature": sealed.msg_signature, "timestamp": sealed.timestamp, "nonce": sealed.nonce}
    merged = {name: value for name, value in (parameters | changed).items() if value is not None}
    return urlencode(merged).encode()


def body(encrypted: str) -> bytes:
    return f"<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt><AgentID>7</AgentID></xml>".encode()


def refusal(query_string: bytes, request_body: bytes, endpoint: Endpoint = ENDPOINT) -> str:
    with pytest.raises(Refused) as caught:
        receive(endpoint, query_string, request_body, NOW_MS)
    assert caught.value.reason in STATUS
    return caught.value.reason


def test_a_genuine_delivery_is_typed_and_stamped() -> None:
    sealed = seal()
    callback = receive(ENDPOINT, query(sealed), body(sealed.encrypt), NOW_MS)
    assert callback.contact is not None
    assert callback.raw.personal == MESSAGE
    assert (callback.raw.received_at_ms, callback.raw.agent_id) == (NOW_MS, "7")
    assert callback.key == f"{CORP}|wm1"


def test_the_same_delivery_as_json() -> None:
    sealed = seal()
    json_body = f'{{"tousername":"{CORP}","encrypt":"{sealed.encrypt}","agentid":"7"}}'.encode()
    xml_callback = receive(ENDPOINT, query(sealed), body(sealed.encrypt), NOW_MS)
    assert receive(ENDPOINT, query(sealed), json_body, NOW_MS) == xml_callback


def test_an_own_parameter_of_the_configured_url_does_not_matter() -> None:
    sealed = seal()
    assert receive(ENDPOINT, query(sealed) + b"&shop=1&shop=2", body(sealed.encrypt), NOW_MS).raw.known


def test_a_url_is_verified_by_the_bare_plaintext() -> None:
    sealed = seal(b"1616140317555161061")
    assert verify_url(ENDPOINT, query(sealed, echostr=sealed.encrypt), NOW_MS) == b"1616140317555161061"


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
def test_a_missing_parameter(name: str) -> None:
    sealed = seal()
    assert refusal(query(sealed, **{name: None}), body(sealed.encrypt)) == "bad_query"


@pytest.mark.parametrize("name", ["msg_signature", "timestamp", "nonce"])
def test_a_parameter_given_twice(name: str) -> None:
    sealed = seal()
    doubled = query(sealed) + f"&{name}={quote(getattr(sealed, name))}".encode()
    assert refusal(doubled, body(sealed.encrypt)) == "bad_query"


def test_a_missing_echostr() -> None:
    with pytest.raises(Refused, match="bad_query"):
        verify_url(ENDPOINT, query(seal()), NOW_MS)


@pytest.mark.parametrize("timestamp", ["", "now", "-1700000000", "170000000", "17000000000", "1700000000.0", "٣" * 10])
def test_a_timestamp_that_is_none(timestamp: str) -> None:
    sealed = seal(timestamp=timestamp)
    assert refusal(query(sealed), body(sealed.encrypt)) == "bad_query"


def test_far_too_many_parameters() -> None:
    sealed = seal()
    assert refusal(query(sealed) + b"&a=1" * 100, body(sealed.encrypt)) == "bad_query"


@pytest.mark.parametrize("field", ["msg_signature", "timestamp", "nonce"])
def test_a_changed_parameter(field: str) -> None:
    sealed = seal()
    changed = {"msg_signature": "0" * 40, "timestamp": str(NOW_S + 1), "nonce": "other"}[field]
    assert refusal(query(sealed, **{field: changed}), body(sealed.encrypt)) == "bad_signature"


def test_a_digit_moved_from_the_nonce_to_the_timestamp_does_not_freshen_an_old_callback() -> None:
    # "1" + "1600000000" and "11" + "600000000" have the same concatenation, so the same signature.
    # (Sorted by their bytes, the ciphertext must not come between the two parts; this random keeps it behind both.)
    sealed = CRYPTO.encrypt(MESSAGE, timestamp="1600000000", nonce="15", random16=bytes(16))
    moved = query(sealed, nonce="151", timestamp="600000000")
    assert CRYPTO.signature("600000000", "151", sealed.encrypt) == sealed.msg_signature
    assert refusal(moved, body(sealed.encrypt)) == "bad_query"


def test_a_body_that_is_no_envelope() -> None:
    assert refusal(query(seal()), b"<html>") == "bad_envelope"


def test_a_doctype_outside_and_inside() -> None:
    sealed = seal()
    assert refusal(query(sealed), b"<!DOCTYPE xml>" + body(sealed.encrypt)) == "forbidden_markup"
    inside = seal(b'<!DOCTYPE xml [<!ENTITY a "b">]><xml><Event>&a;</Event></xml>')
    assert refusal(query(inside), body(inside.encrypt)) == "forbidden_markup"


def test_somebody_elses_message() -> None:
    other = CallbackCrypto("QDG6eK", "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C", "wwother")
    sealed = seal(crypto=other)
    assert refusal(query(sealed), body(sealed.encrypt)) == "wrong_receive_id"


@pytest.mark.parametrize("garbage", ["!!!", "AAAA====", "AAA", "中文"])
def test_garbage_for_base64(garbage: str) -> None:
    signature = CRYPTO.signature(str(NOW_S), "n", garbage)
    sealed = SealedMessage(garbage, signature, str(NOW_S), "n")
    assert refusal(query(sealed), body(garbage)) == "bad_base64"


@pytest.mark.parametrize(("age", "fresh"), [(0, True), (3600, True), (-3600, True), (3602, False), (-3602, False)])
def test_the_window_is_open_on_both_sides(age: int, fresh: bool) -> None:
    sealed = seal(timestamp=NOW_S - age)
    if fresh:
        assert receive(ENDPOINT, query(sealed), body(sealed.encrypt), NOW_S * 1000).raw.known
    else:
        assert refusal(query(sealed), body(sealed.encrypt)) == "stale_timestamp"
        with pytest.raises(Refused, match="stale_timestamp"):
            verify_url(ENDPOINT, query(sealed, echostr=sealed.encrypt), NOW_MS)


def test_a_window_of_zero_lets_any_age_pass() -> None:
    sealed = seal(timestamp=1_400_000_000)
    endpoint = ENDPOINT._replace(max_age_seconds=0)
    assert receive(endpoint, query(sealed), body(sealed.encrypt), NOW_MS).raw.known


def test_an_old_callback_with_a_wrong_signature_is_told_only_about_the_signature() -> None:
    sealed = seal(timestamp=1_400_000_000)
    assert refusal(query(sealed, msg_signature="0" * 40), body(sealed.encrypt)) == "bad_signature"


@given(
    query_string=st.binary(max_size=60)
    | st.text("msg_signature=&timestamp0123456789%nonce", max_size=60).map(str.encode),
    request_body=st.binary(max_size=60),
)
def test_nothing_unsigned_ever_passes(query_string: bytes, request_body: bytes) -> None:
    assert STATUS[refusal(query_string, request_body)] in {400, 403}


@given(message=st.binary(max_size=200), random16=st.binary(min_size=16, max_size=16))
def test_every_genuine_message_passes_or_holds_markup(message: bytes, random16: bytes) -> None:
    sealed = CRYPTO.encrypt(message, timestamp=str(NOW_S), nonce="n0nce", random16=random16)
    assert receive(ENDPOINT, query(sealed), body(sealed.encrypt), NOW_MS).raw.personal == message
