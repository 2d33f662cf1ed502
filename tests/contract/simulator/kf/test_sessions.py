"""Fact sheet 3.11: conversations as a state machine, moved by the API, by servicers and by time."""

import pytest

from simulator.world.kf_records import BOT, ENDED, HUMAN, NEW, QUEUE

HOUR_S = 3_600
pytestmark = pytest.mark.covers("kf/service_state/get", "kf/service_state/trans", "fact:6.16")


def trans(kf, kfid, state, servicer="s1", customer="wmC1"):
    body = {"open_kfid": kfid, "external_userid": customer, "service_state": state, "servicer_userid": servicer}
    return kf.post("service_state/trans", **body)


async def at(kf, kfid: str, state: int, customer: str = "wmC1") -> None:
    """Brings a new conversation into a state."""
    kf.write(kfid, customer)
    if state != NEW:
        assert (await trans(kf, kfid, state, customer=customer))["errcode"] == 0


async def test_a_conversation_begins_with_the_first_message(kf):
    """3.11: before the customer writes the state is 4; entering changes nothing, writing makes it 0."""
    kfid = await kf.open()
    assert await kf.state(kfid) == (ENDED, "")
    kf.desk.enter(kfid, "wmC1", kf.now_s)
    assert await kf.state(kfid) == (ENDED, "")
    kf.write(kfid)
    assert await kf.state(kfid) == (NEW, "")


ALLOWED = {(NEW, BOT), (NEW, QUEUE), (NEW, HUMAN), (NEW, ENDED), (BOT, QUEUE), (BOT, HUMAN), (BOT, ENDED)}
ALLOWED |= {(QUEUE, HUMAN), (QUEUE, ENDED), (HUMAN, ENDED)}


@pytest.mark.parametrize("before", range(5))
@pytest.mark.parametrize("after", range(5))
async def test_the_api_moves_a_conversation_forward_only(kf, before, after):
    """3.11: a step the states do not allow is 95016, any step out of an ended conversation 95013."""
    kfid = await kf.open("s1")
    await at(kf, kfid, before)
    expected = 0 if (before, after) in ALLOWED else 95013 if before == ENDED else 95016
    assert (await trans(kf, kfid, after))["errcode"] == expected
    assert (await kf.state(kfid))[0] == (before if expected else after)


async def test_a_human_conversation_goes_to_another_servicer(kf):
    """3.11: 3 to 3 hands over to somebody else; state/get names the servicer."""
    kfid = await kf.open("s1", "s2")
    await at(kf, kfid, HUMAN)
    assert await kf.state(kfid) == (HUMAN, "s1")
    assert (await trans(kf, kfid, HUMAN, "s2"))["errcode"] == 0
    assert await kf.state(kfid) == (HUMAN, "s2")


async def test_a_servicer_has_to_serve_and_to_be_on_duty(kf):
    """4.3: nobody named is 40058, no servicer 95014, one off duty 95019."""
    kfid = await kf.open("s1")
    kf.write(kfid)
    assert (await trans(kf, kfid, HUMAN, ""))["errcode"] == 40058
    assert (await trans(kf, kfid, HUMAN, "s2"))["errcode"] == 95014
    kf.desk.duty(kfid, "s1", on=False, now_s=kf.now_s)
    assert (await trans(kf, kfid, HUMAN))["errcode"] == 95019
    assert await kf.state(kfid) == (NEW, "")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"service_state": 5}, 40035),
        ({"service_state": "1"}, 40035),
        ({"service_state": None}, 40058),
        ({"external_userid": "wmNobody"}, 40096),
        ({"external_userid": None}, 40058),
        ({"open_kfid": "wkx"}, 95000),
    ],
)
async def test_wrong_state_requests_are_refused(kf, body, errcode):
    """3.11: what is missing, mistyped or unknown gets its errcode."""
    kfid = await kf.open()
    kf.write(kfid)
    asked = {"open_kfid": kfid, "external_userid": "wmC1", "service_state": 1}
    assert (await kf.post("service_state/trans", **{**asked, **body}))["errcode"] == errcode
    if "service_state" not in body:
        assert (await kf.post("service_state/get", **{**asked, **body}))["errcode"] == errcode


@pytest.mark.covers("event:kf/session_status_change", "kf/send_msg_on_event")
async def test_servicers_take_hand_over_end_and_reopen(kf):
    """2.5: session_status_change tells 1 taken, 2 transferred, 3 ended, 4 re-opened, with msg_code for 1 and 3."""
    kfid = await kf.open("s1", "s2")
    await at(kf, kfid, QUEUE)
    assert kf.desk.take(kfid, "wmC1", "s1", kf.now_s)
    assert kf.desk.hand_over(kfid, "wmC1", "s2", kf.now_s)
    assert kf.desk.end(kfid, "wmC1", kf.now_s)
    assert await kf.state(kfid) == (ENDED, "")
    assert kf.desk.answer(kfid, "wmC1", "s1", kf.now_s, "还在吗")
    assert await kf.state(kfid) == (HUMAN, "s1")
    taken, over, ended, again = await kf.events(kfid, "session_status_change")
    assert [event["change_type"] for event in (taken, over, ended, again)] == [1, 2, 3, 4]
    assert taken["new_servicer_userid"] == "s1"
    assert (over["old_servicer_userid"], over["new_servicer_userid"]) == ("s1", "s2")
    assert (ended["old_servicer_userid"], again["new_servicer_userid"]) == ("s2", "s1")
    assert ["msg_code" in event for event in (taken, over, ended, again)] == [True, False, True, False]
    for event in (taken, ended):
        body = {"code": event["msg_code"], "msgtype": "text", "text": {"content": "x"}}
        assert (await kf.post("send_msg_on_event", **body))["errcode"] == 0


async def test_a_servicers_message_is_read_with_origin_5(kf):
    """3.11: what servicers write in the client has origin 5 and their userid."""
    kfid = await kf.open("s1")
    await at(kf, kfid, HUMAN)
    msgid = kf.desk.answer(kfid, "wmC1", "s1", kf.now_s, "您好")
    row = (await kf.rows(kfid))[-1]
    assert (row["msgid"], row["origin"], row["servicer_userid"]) == (msgid, 5, "s1")
    assert row["text"] == {"content": "您好"}


async def test_48_hours_of_silence_end_a_conversation(kf):
    """3.11: a customer silent for 48 h ends the conversation, and a new message begins another."""
    kfid = await kf.open("s1")
    await at(kf, kfid, HUMAN)
    kf.wecom.advance(24 * HOUR_S)
    kf.write(kfid)
    kf.wecom.advance(48 * HOUR_S)
    assert await kf.state(kfid) == (HUMAN, "s1")
    kf.wecom.advance(1)
    assert await kf.state(kfid) == (ENDED, "")
    assert [event["change_type"] for event in await kf.events(kfid, "session_status_change")] == [3]
    kf.write(kfid)
    assert await kf.state(kfid) == (NEW, "")


@pytest.mark.covers("event:kf/reject_customer_msg_switch_change")
async def test_a_servicer_shuts_a_customer_out(kf):
    """2.5: reject_customer_msg_switch_change tells the switch; meanwhile the customer's messages arrive nowhere."""
    kfid = await kf.open("s1")
    await at(kf, kfid, HUMAN)
    assert kf.desk.reject(kfid, "wmC1", on=True, now_s=kf.now_s)
    assert kf.write(kfid) == ""
    assert kf.desk.reject(kfid, "wmC1", on=False, now_s=kf.now_s)
    assert kf.write(kfid)
    events = await kf.events(kfid, "reject_customer_msg_switch_change")
    assert [event["reject_switch"] for event in events] == [1, 0]
    assert events[0]["servicer_userid"] == "s1"


async def test_servicers_take_answer_and_end_by_themselves(kf):
    """3.11: staff on duty take customers from the queue, answer them and end what has gone quiet."""
    kf.rule(habits={"silent_share": 0.0})
    kfid = await kf.open("s1", "s2")
    kf.desk.duty(kfid, "s1", on=False, now_s=kf.now_s)
    await at(kf, kfid, QUEUE)
    kf.wecom.advance(3 * HOUR_S)
    assert await kf.state(kfid) == (ENDED, "")
    rows = [row for row in await kf.rows(kfid) if row["origin"] == 5]
    assert [row["servicer_userid"] for row in rows] == ["s2"]
    changes = await kf.events(kfid, "session_status_change")
    assert [event["change_type"] for event in changes] == [1, 3]


async def test_a_queue_waits_for_somebody_on_duty(kf):
    """3.11: with everybody off duty the customer stays in the queue until somebody comes."""
    kf.rule(habits={})
    kfid = await kf.open("s1")
    kf.desk.duty(kfid, "s1", on=False, now_s=kf.now_s)
    await at(kf, kfid, QUEUE)
    kf.wecom.advance(HOUR_S)
    assert await kf.state(kfid) == (QUEUE, "")
    kf.desk.duty(kfid, "s1", on=True, now_s=kf.now_s)
    kf.wecom.advance(600)
    assert await kf.state(kfid) == (HUMAN, "s1")


async def test_customers_are_worlds_apart_at_two_accounts(kf):
    """3.11: the same customer has a conversation of their own at each account."""
    one, other = await kf.open(), await kf.open()
    kf.write(one)
    assert await kf.state(one) == (NEW, "")
    assert await kf.state(other) == (ENDED, "")
    assert (await kf.text(other))["errcode"] == 95031


@pytest.mark.covers("kf/servicer/del")
async def test_a_servicer_who_is_taken_off_leaves_their_customers_in_the_queue(kf):
    """3.11: conversations of a servicer who was removed go back to the queue."""
    kfid = await kf.open("s1")
    await at(kf, kfid, HUMAN)
    await kf.ok("servicer/del", open_kfid=kfid, userid_list=["s1"])
    assert await kf.state(kfid) == (QUEUE, "")
