"""Fact sheet 3.11: who the customers are, and how many came."""

import pytest

DAY_S = 86_400
MIDNIGHT_S = 1_760_025_600
"""00:00 in Beijing, some hours after the rig's start."""


@pytest.mark.covers("kf/customer/batchget")
async def test_customers_who_have_been_here_are_shown(kf):
    """3.11: batchget shows who was at an account, with the context of their last entry within 48 h when asked."""
    kfid = await kf.open()
    kf.desk.enter(kfid, "wmC1", kf.now_s, scene="a", scene_param="b", wechat_channels={"nickname": "视频号"})
    asked = {"external_userid_list": ["wmC1", "wmC2", "wmNobody"], "need_enter_session_context": 1}
    answer = await kf.ok("customer/batchget", **asked)
    (row,) = answer["customer_list"]
    person = kf.wecom.world.people.customer("wmC1")
    assert (row["external_userid"], row["nickname"], row["unionid"]) == ("wmC1", person.name, person.unionid)
    assert row["enter_session_context"] == {
        "scene": "a",
        "scene_param": "b",
        "wechat_channels": {"nickname": "视频号"},
    }
    assert answer["invalid_external_userid"] == ["wmC2", "wmNobody"]
    kf.wecom.advance(2 * DAY_S + 1)
    (later,) = (await kf.ok("customer/batchget", **asked))["customer_list"]
    assert "enter_session_context" not in later


@pytest.mark.covers("kf/customer/batchget")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, 40058),
        ({"external_userid_list": ["wm"] * 1 + [f"wm{n}" for n in range(100)]}, 40032),
        ({"external_userid_list": "wmC1"}, 40035),
        ({"external_userid_list": ["wmC1"], "need_enter_session_context": 2}, 40035),
    ],
)
async def test_wrong_customer_requests_are_refused(kf, body, errcode):
    """3.11: batchget takes 1 to 100 ids."""
    answer = await kf.post("customer/batchget", **body)
    assert (answer["errcode"], answer["customer_list"]) == (errcode, [])


@pytest.mark.covers("kf/get_corp_statistic", "kf/get_servicer_statistic")
async def test_figures_of_a_day_can_be_read_the_next_morning(kf):
    """3.11: a day's sessions, customers, messages and replies, for the account, the corp and the servicer."""
    kfid = await kf.open("s1")
    other = await kf.open()
    for customer in ("wmC1", "wmC1", "wmC2"):
        kf.write(kfid, customer)
    kf.write(other, "wmC2")
    human = {"open_kfid": kfid, "external_userid": "wmC1", "service_state": 3, "servicer_userid": "s1"}
    await kf.ok("service_state/trans", **human)
    kf.desk.answer(kfid, "wmC1", "s1", kf.now_s + 30, "您好")
    day = {"start_time": MIDNIGHT_S - DAY_S, "end_time": MIDNIGHT_S}
    assert (await kf.ok("get_corp_statistic", **day))["statistic_list"] == []
    kf.wecom.advance(MIDNIGHT_S + 7 * 3_600 - kf.now_s)
    (of_account,) = (await kf.ok("get_corp_statistic", open_kfid=kfid, **day))["statistic_list"]
    assert of_account["stat_time"] == MIDNIGHT_S - DAY_S
    figures = of_account["statistic"]
    assert (figures["session_cnt"], figures["customer_cnt"], figures["customer_msg_cnt"]) == (2, 2, 3)
    (of_corp,) = (await kf.ok("get_corp_statistic", **day))["statistic_list"]
    assert (of_corp["statistic"]["session_cnt"], of_corp["statistic"]["customer_cnt"]) == (3, 2)
    (of_servicer,) = (await kf.ok("get_servicer_statistic", servicer_userid="s1", **day))["statistic_list"]
    assert of_servicer["statistic"]["session_cnt"] == 1
    assert (of_servicer["statistic"]["reply_rate"], of_servicer["statistic"]["first_reply_average_sec"]) == (1.0, 30)
    (of_all,) = (await kf.ok("get_servicer_statistic", **day))["statistic_list"]
    assert of_all == of_servicer
    (of_idle,) = (await kf.ok("get_servicer_statistic", servicer_userid="s2", **day))["statistic_list"]
    assert "statistic" not in of_idle


@pytest.mark.covers("kf/get_corp_statistic", "kf/get_servicer_statistic")
@pytest.mark.parametrize("path", ["get_corp_statistic", "get_servicer_statistic"])
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"end_time": MIDNIGHT_S - DAY_S - 1}, 40035),
        ({"start_time": MIDNIGHT_S - 33 * DAY_S}, 40035),
        ({"start_time": MIDNIGHT_S - 200 * DAY_S, "end_time": MIDNIGHT_S - 190 * DAY_S}, 40035),
        ({"start_time": None}, 40058),
        ({"end_time": "1"}, 40035),
        ({"end_time": 10**30}, 40035),
        ({"open_kfid": "wkx"}, 95000),
    ],
)
async def test_wrong_spans_are_refused(kf, path, body, errcode):
    """3.11: a span of at most 31 days within the last 180."""
    day = {"start_time": MIDNIGHT_S - DAY_S, "end_time": MIDNIGHT_S}
    answer = await kf.post(path, **{**day, **body})
    assert (answer["errcode"], answer["statistic_list"]) == (errcode, [])


@pytest.mark.covers("kf/get_servicer_statistic")
async def test_a_servicer_has_to_exist(kf):
    """3.11: figures of somebody unknown are 60111."""
    day = {"start_time": MIDNIGHT_S - DAY_S, "end_time": MIDNIGHT_S, "servicer_userid": "nobody"}
    assert (await kf.post("get_servicer_statistic", **day))["errcode"] == 60111


async def test_the_same_seed_gives_the_same_ids(kf):
    """6: ids follow from the seed and the order of things."""

    async def story() -> list[str]:
        kf.rule()
        kfid = await kf.open()
        return [kfid, kf.write(kfid), kf.desk.enter(kfid, "wmC2", kf.now_s)]

    assert await story() == await story()
