"""Fact sheet 3.11 and 2.5: what sync_msg shows, in pages, by token and by cursor, three days back."""

import pytest

DAY_S = 86_400
pytestmark = pytest.mark.covers("kf/sync_msg", "fact:6.16")


@pytest.mark.covers("event:kf_msg_or_event")
async def test_a_message_wakes_the_app_up_and_is_read_with_the_token(kf):
    """2.5: kf_msg_or_event has no FromUserName, and a token that opens sync_msg."""
    kfid = await kf.open()
    msgid = kf.write(kfid, content="在吗", menu_id="101")
    event = kf.wake_up()
    assert (event["Event"], event["OpenKfId"], event["CreateTime"]) == ("kf_msg_or_event", kfid, str(kf.now_s))
    assert "FromUserName" not in event
    answer = await kf.ok("sync_msg", open_kfid=kfid, token=event["Token"])
    (row,) = answer["msg_list"]
    assert row == {
        "msgid": msgid,
        "open_kfid": kfid,
        "external_userid": "wmC1",
        "send_time": kf.now_s,
        "origin": 3,
        "msgtype": "text",
        "text": {"content": "在吗", "menu_id": "101"},
    }
    assert answer["has_more"] == 0


async def test_a_token_lives_ten_minutes_and_belongs_to_its_account(kf):
    """2.5: a token older than 10 min, of another account or invented is 95007."""
    kfid, other = await kf.open(), await kf.open()
    kf.write(kfid)
    token = kf.wake_up()["Token"]
    assert (await kf.post("sync_msg", open_kfid=other, token=token))["errcode"] == 95007
    assert (await kf.post("sync_msg", open_kfid=kfid, token="ENCx"))["errcode"] == 95007
    kf.wecom.advance(600)
    assert (await kf.post("sync_msg", open_kfid=kfid, token=token))["errcode"] == 0
    kf.wecom.advance(1)
    assert (await kf.post("sync_msg", open_kfid=kfid, token=token))["errcode"] == 95007


async def test_without_a_token_calls_are_limited_strictly(kf):
    """3.11: sync_msg without token has strict limits of its own; with a token it has not."""
    kf.rule(untokened_per_minute=2)
    kfid = await kf.open()
    kf.write(kfid)
    codes = [(await kf.post("sync_msg", open_kfid=kfid))["errcode"] for _ in range(3)]
    assert codes == [0, 0, 45009]
    assert (await kf.post("sync_msg", open_kfid=kfid, token=kf.wake_up()["Token"]))["errcode"] == 0


async def test_the_cursor_goes_on_where_it_stopped(kf):
    """3.11: next_cursor comes always, also at the end, and what is written later follows behind it."""
    kfid = await kf.open()
    first = [kf.write(kfid) for _ in range(3)]
    token = kf.wake_up()["Token"]
    one = await kf.ok("sync_msg", open_kfid=kfid, token=token, limit=2)
    assert ([row["msgid"] for row in one["msg_list"]], one["has_more"]) == (first[:2], 1)
    two = await kf.ok("sync_msg", open_kfid=kfid, token=token, limit=2, cursor=one["next_cursor"])
    assert ([row["msgid"] for row in two["msg_list"]], two["has_more"]) == (first[2:], 0)
    end = await kf.ok("sync_msg", open_kfid=kfid, token=token, cursor=two["next_cursor"])
    assert (end["msg_list"], end["has_more"]) == ([], 0)
    later = kf.write(kfid)
    more = await kf.ok("sync_msg", open_kfid=kfid, cursor=end["next_cursor"])
    assert [row["msgid"] for row in more["msg_list"]] == [later]


@pytest.mark.covers("fact:6.10", "kf/send_msg")
async def test_a_page_may_be_empty_although_more_follows(kf):
    """3.11: what the API sent is not returned, so msg_list may be empty while has_more is 1."""
    kfid = await kf.open()
    kf.write(kfid)
    for _ in range(3):
        assert (await kf.text(kfid))["errcode"] == 0
    last = kf.write(kfid)
    pages, cursor = [], ""
    while not pages or pages[-1]["has_more"]:
        pages.append(await kf.ok("sync_msg", open_kfid=kfid, limit=2, cursor=cursor))
        cursor = pages[-1]["next_cursor"]
    assert [len(page["msg_list"]) for page in pages] == [1, 0, 1]
    assert [page["has_more"] for page in pages] == [1, 1, 0]
    assert pages[-1]["msg_list"][0]["msgid"] == last


async def test_history_is_three_days(kf):
    """3.11: rows older than three days are gone, for an old cursor too."""
    kfid = await kf.open()
    kf.write(kfid)
    start = (await kf.ok("sync_msg", open_kfid=kfid, limit=1))["next_cursor"]
    kf.write(kfid, content="second")
    kf.wecom.advance(DAY_S)
    third = kf.write(kfid, content="third")
    kf.wecom.advance(2 * DAY_S + 1)
    assert [row["msgid"] for row in await kf.rows(kfid)] == [third]
    behind = await kf.ok("sync_msg", open_kfid=kfid, cursor=start)
    assert [row["msgid"] for row in behind["msg_list"]] == [third]


async def test_a_page_is_cut_down_to_a_thousand(kf):
    """3.11: limit above 1000 is cut down to it."""
    kfid = await kf.open()
    for _ in range(1_001):
        kf.write(kfid)
    answer = await kf.ok("sync_msg", open_kfid=kfid, limit=5_000)
    assert (len(answer["msg_list"]), answer["has_more"]) == (1_000, 1)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"open_kfid": None}, 40058),
        ({"open_kfid": "wkx"}, 95000),
        ({"open_kfid": 5}, 40035),
        ({"cursor": "guess"}, 50100),
        ({"cursor": 5}, 40035),
        ({"token": ["x"]}, 40035),
        ({"limit": "9"}, 40035),
        ({"voice_format": 2}, 40035),
    ],
)
async def test_wrong_sync_requests_carry_an_empty_list(kf, body, errcode):
    """3: an error body of sync_msg still has its empty list."""
    kfid = await kf.open()
    answer = await kf.post("sync_msg", **{"open_kfid": kfid, **body})
    assert (answer["errcode"], answer["msg_list"]) == (errcode, [])


async def test_a_cursor_belongs_to_its_account(kf):
    """6: a cursor of one account is refused for another."""
    one, other = await kf.open(), await kf.open()
    cursor = (await kf.ok("sync_msg", open_kfid=one))["next_cursor"]
    assert (await kf.post("sync_msg", open_kfid=other, cursor=cursor))["errcode"] == 50100


async def test_a_deleted_account_can_still_be_read(kf):
    """3.11: deleting an account ends its conversations; what had happened stays for three days."""
    kfid = await kf.open()
    msgid = kf.write(kfid)
    await kf.ok("account/del", open_kfid=kfid)
    assert [row["msgid"] for row in await kf.rows(kfid)] == [msgid]
    assert kf.write(kfid) == ""


async def test_customers_write_more_than_text(kf):
    """3.11: a customer's picture or place has its type and content."""
    kfid = await kf.open()
    kf.write(kfid, msgtype="image", media_id="M1")
    kf.write(kfid, msgtype="location", latitude=23.1, longitude=113.3, name="店", address="路")
    image, place = await kf.rows(kfid)
    assert (image["msgtype"], image["image"]) == ("image", {"media_id": "M1"})
    assert place["location"]["latitude"] == 23.1


@pytest.mark.covers("event:kf/user_recall_msg", "event:kf/servicer_recall_msg")
async def test_messages_are_recalled_by_those_who_wrote_them(kf):
    """3.11: user_recall_msg and servicer_recall_msg name the message; after two minutes it is too late."""
    kfid = await kf.open("s1")
    asked = kf.write(kfid)
    await kf.ok("service_state/trans", open_kfid=kfid, external_userid="wmC1", service_state=3, servicer_userid="s1")
    answered = kf.desk.answer(kfid, "wmC1", "s1", kf.now_s, "好的")
    assert kf.desk.recall(asked, kf.now_s)
    assert not kf.desk.recall(asked, kf.now_s)
    assert kf.desk.recall(answered, kf.now_s + 120)
    late = kf.write(kfid)
    assert not kf.desk.recall(late, kf.now_s + 121)
    (by_customer,) = await kf.events(kfid, "user_recall_msg")
    (by_servicer,) = await kf.events(kfid, "servicer_recall_msg")
    assert (by_customer["recall_msgid"], by_customer["external_userid"]) == (asked, "wmC1")
    assert (by_servicer["recall_msgid"], by_servicer["servicer_userid"]) == (answered, "s1")
