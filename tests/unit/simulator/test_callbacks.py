"""The plaintext of every event, element by element as the platform's samples, and when a delivery goes wrong."""

import pytest

from simulator.callbacks import OtherEvent, contact_fields, envelope
from simulator.callbacks import message as plaintext
from simulator.delivery import DeliveryPolicy, fate_of
from simulator.world.relations import ContactChange
from siyu.wecom.crypto import SealedMessage

HEAD = (
    "<xml><ToUserName><![CDATA[wwCORP]]></ToUserName><FromUserName><![CDATA[sys]]></FromUserName>"
    "<CreateTime>1403610513</CreateTime><MsgType><![CDATA[event]]></MsgType>"
)
PAIR = "<UserID><![CDATA[zhangsan]]></UserID><ExternalUserID><![CDATA[woAJ2G]]></ExternalUserID>"


def message(change: str, code: str = "", **fields: str) -> str:
    event = ContactChange(1403610513, "wwCORP", "zhangsan", "woAJ2G", change, **fields)
    return plaintext(event.corp_id, event.time_s, contact_fields(event, code)).decode()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("edit", "edit_external_contact"),
        ("delete_by_customer", "del_follow_user"),
        ("delete_by_staff", "del_external_contact"),
        ("archive_consent", "msg_audit_approved"),
        ("add", "add_external_contact"),
    ],
)
def test_changes_with_no_more_than_the_pair(change, kind):
    event = "<Event><![CDATA[change_external_contact]]></Event>"
    assert message(change) == f"{HEAD}{event}<ChangeType><![CDATA[{kind}]]></ChangeType>{PAIR}</xml>"


@pytest.mark.parametrize("change", ["add", "add_half"])
def test_state_and_welcome_code_stand_at_the_end_and_only_when_there_are_any(change):
    full = message(change, "WELCOMECODE", state="teststate")
    tail = "<State><![CDATA[teststate]]></State><WelcomeCode><![CDATA[WELCOMECODE]]></WelcomeCode></xml>"
    assert full.endswith(PAIR + tail)
    assert message(change).endswith(PAIR + "</xml>")


def test_a_transfer_is_a_deletion_with_its_source():
    assert message("delete_by_transfer").endswith(PAIR + "<Source><![CDATA[DELETE_BY_TRANSFER]]></Source></xml>")
    assert "<ChangeType><![CDATA[del_external_contact]]></ChangeType>" in message("delete_by_transfer")


def test_a_failed_transfer_names_its_reason_before_the_pair():
    text = message("transfer_fail", fail_reason="customer_refused")
    assert text.endswith(f"<FailReason><![CDATA[customer_refused]]></FailReason>{PAIR}</xml>")


def test_other_events_have_the_same_head():
    event = OtherEvent(1403610513, "wwCORP", (("Event", "change_external_tag"), ("Id", "et1")))
    tail = "<Event><![CDATA[change_external_tag]]></Event><Id><![CDATA[et1]]></Id></xml>"
    assert plaintext(event.corp_id, event.time_s, event.fields).decode() == HEAD + tail


def test_the_envelope_in_both_orders_the_platform_uses():
    sealed = SealedMessage("BASE64", "sig", "1", "2")
    agent, encrypt = "<AgentID><![CDATA[1000002]]></AgentID>", "<Encrypt><![CDATA[BASE64]]></Encrypt>"
    head = "<xml><ToUserName><![CDATA[CORPID]]></ToUserName>"
    assert envelope("CORPID", "1000002", sealed, agent_first=True).decode() == f"{head}{agent}{encrypt}</xml>"
    assert envelope("CORPID", "1000002", sealed, agent_first=False).decode() == f"{head}{encrypt}{agent}</xml>"


def test_the_seed_alone_decides_delays_and_duplicates():
    policy = DeliveryPolicy(seed=3)
    callbacks = [b"%d" % number for number in range(2_000)]
    fates = [fate_of(policy, callback) for callback in callbacks]
    assert fates == [fate_of(policy, callback) for callback in callbacks]
    assert fates != [fate_of(DeliveryPolicy(seed=4), callback) for callback in callbacks]
    assert all(0 <= fate.delay_s <= policy.shuffle_s for fate in fates)
    twice = [fate for fate in fates if fate.duplicate_delay_s is not None]
    assert 0.07 < len(twice) / len(fates) < 0.13
    assert all(fate.delay_s <= (fate.duplicate_delay_s or 0) for fate in twice)
