"""Fact sheet 3.10: projects, the flow of funds and merchant numbers; get_bill_list has a file of its own."""

import itertools

import pytest

from simulator.world.bills import COLLECTION, REFUND, Bill, BillBook
from simulator.world.funds import Projects, ReceivingMerchants

START_S = 1_760_000_000
CORP_ID = "wwtest0000000001"
MCH_ID = "1900000001"
DAY_S = 86_400
MIDNIGHT_S = START_S - (START_S + 8 * 3_600) % DAY_S
"""The first second of the first day in Beijing."""


def later(wecom, seconds):
    wecom.advance(seconds)
    wecom._token = ""  # a token lives for two hours


async def flows(wecom, **body):
    asked = {"begin_time": MIDNIGHT_S, "end_time": MIDNIGHT_S + 30 * DAY_S, "limit": 200, **body}
    return await wecom.post("externalpay/get_fund_flow", asked)


def sale(wecom, number, time_s, amount_fen, *, refund_fen=0):
    common = {"corp_id": CORP_ID, "out_trade_no": f"F{number}", "payment_type": 1, "staff_id": "s1"}
    times = {"time_s": time_s, "visible_ms": time_s * 1000}
    made = [Bill(bill_type=COLLECTION, transaction_id=f"43{number}", amount_fen=amount_fen, **times, **common)]
    if refund_fen:
        times = {"time_s": time_s + 60, "visible_ms": (time_s + 60) * 1000}
        made.append(
            Bill(
                bill_type=REFUND,
                transaction_id=f"53{number}",
                amount_fen=refund_fen,
                out_refund_no=f"FR{number}",
                paid_fen=amount_fen,
                **times,
                **common,
            )
        )
    wecom.world.of(BillBook).add(made)


@pytest.mark.covers("externalpay/get_payment_info")
async def test_a_project_tells_its_orders_to_the_app_that_made_it(wecom):
    """3.10: out_trade_no_list, one order for each payment; another app gets 60237."""
    projects = wecom.world.of(Projects)
    own = projects.start(agent_id="1000002", staff_id="s1", amount_fen=500, description="tea")
    other = projects.start(agent_id="1000003", staff_id="s1", amount_fen=500)
    first = projects.collect(own, customer_id="wmC1", time_s=START_S + 10)
    second = projects.collect(own, customer_id="wmC2", time_s=START_S + 20)
    later(wecom, 30)
    answer = await wecom.post("externalpay/get_payment_info", {"payment_id": own})
    assert answer["out_trade_no_list"] == [first.out_trade_no, second.out_trade_no]
    listed = await wecom.post("externalpay/get_bill_list", {"begin_time": START_S, "end_time": START_S + 30})
    row = next(row for row in listed["bill_list"] if row["out_trade_no"] == second.out_trade_no)
    assert (row["external_userid"], row["payee_userid"], row["total_fee"]) == ("wmC2", "s1", 500)
    assert row["commodity_list"] == [{"description": "tea", "amount": 1}]
    for payment_id, errcode in ((other, 60237), ("pay0", 60235), ("", 40058), (5, 40035)):
        answer = await wecom.post("externalpay/get_payment_info", {"payment_id": payment_id})
        assert (answer["errcode"], answer["out_trade_no_list"]) == (errcode, [])
    with pytest.raises(ValueError, match="5000001 fen"):
        projects.start(agent_id="1000002", staff_id="s1", amount_fen=5_000_001)


@pytest.mark.covers("externalpay/get_fund_flow", "fact:6.12")
async def test_a_day_is_complete_after_eleven_on_the_next(wecom):
    """3.10: collections, refunds, fees and withdrawals; rows come in bit by bit until 11:00 on the next day."""
    for number in range(40):
        sale(wecom, number, START_S + number * 10, 10_000, refund_fen=1_000 if number < 10 else 0)
    later(wecom, MIDNIGHT_S + DAY_S + 3_600 - START_S)
    early = (await flows(wecom))["fund_flow_list"]
    later(wecom, 10 * 3_600)
    complete = (await flows(wecom, end_time=MIDNIGHT_S + DAY_S - 1))["fund_flow_list"]
    assert 0 < len(early) < len(complete)
    kinds = [row["transaction_type"] for row in complete]
    # Beside those of this test there are the rig's nine collections and one refund.
    assert (kinds.count(3), kinds.count(1), kinds.count(2)) == (49, 11, 1)
    assert {row["fund_flow_type"] for row in complete if row["transaction_type"] == 3} == {1}
    assert {row["fund_flow_type"] for row in complete if row["transaction_type"] != 3} == {2}
    (fee,) = (row for row in complete if row["transaction_type"] == 2)
    collected = sum(row["transaction_amount"] for row in complete if row["transaction_type"] == 3)
    returned = sum(row["transaction_amount"] for row in complete if row["transaction_type"] == 1)
    assert fee["transaction_amount"] == round((collected - returned) * 0.006)
    later(wecom, 5 * DAY_S)
    assert (await flows(wecom, end_time=MIDNIGHT_S + DAY_S - 1))["fund_flow_list"] == complete


@pytest.mark.covers("externalpay/get_fund_flow")
async def test_the_balance_follows_from_row_to_row(wecom):
    """3.10: account_balance is kept over days, withdrawals included, and every request_no is there once."""
    for day in range(12):
        for number in range(5):
            sale(wecom, f"{day:02d}{number}", START_S + day * DAY_S + number, 100_000 + day)
    later(wecom, 14 * DAY_S)
    pages, cursor = [], ""
    while True:
        answer = await flows(wecom, limit=7, **({"cursor": cursor} if cursor else {}))
        pages.append(answer["fund_flow_list"])
        if "next_cursor" not in answer:
            break
        cursor = answer["next_cursor"]
    rows = [row for page in pages for row in page]
    assert all(len(page) == 7 for page in pages[:-1])
    assert len({row["request_no"] for row in rows}) == len(rows)
    assert rows == sorted(rows, key=lambda row: (row["timestamp"], row["request_no"]))
    for before, after in itertools.pairwise(rows):
        sign = 1 if after["fund_flow_type"] == 1 else -1
        assert after["account_balance"] == before["account_balance"] + sign * after["transaction_amount"]
    withdrawn = [row for row in rows if row["transaction_type"] == 4]
    assert 5 <= len(withdrawn) <= 14
    assert {row["operator_userid"] for row in withdrawn} == {"s1"}
    assert (await flows(wecom, mch_id=MCH_ID, limit=200))["fund_flow_list"] == rows[:200]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"end_time": MIDNIGHT_S + 31 * DAY_S + 1}, 40035),
        ({"end_time": MIDNIGHT_S - 1}, 40035),
        ({"begin_time": 10**30, "end_time": 10**30}, 0),
        ({"begin_time": None}, 40058),
        ({"limit": 201}, 40035),
        ({"limit": "1"}, 40035),
        ({"mch_id": "1"}, 660001),
        ({"mch_id": 1}, 40035),
        ({"mch_id": "1" * 33}, 40035),
        ({"cursor": "guess"}, 50100),
        ({"begin_time": 1_600_000_000, "end_time": 1_600_000_001}, 0),
    ],
)
@pytest.mark.covers("externalpay/get_fund_flow")
async def test_wrong_windows_carry_an_empty_list(wecom, body, errcode):
    """3.10: at most 31 days, limit ≤ 200; nothing from before 2022-12-01."""
    answer = await flows(wecom, **body)
    assert (answer["errcode"], answer["fund_flow_list"]) == (errcode, [])


@pytest.mark.covers("externalpay/getmerchant", "externalpay/set_mch_use_scope")
async def test_the_scope_of_a_merchant_number_can_be_set_and_read(wecom):
    """3.10: bind_status, merchant_name and allow_use_scope, which is told only while the number is bound."""
    asked = {"mch_id": MCH_ID}
    answer = await wecom.post("externalpay/getmerchant", asked)
    assert (answer["errcode"], answer["bind_status"], answer["mch_id"]) == (0, 2, MCH_ID)
    scope = {"user": ["s1", "s2"], "partyid": [1], "tagid": [7]}
    for wrong, errcode in (
        ({"allow_use_scope": None}, 40058),
        ({"allow_use_scope": []}, 40035),
        ({"allow_use_scope": {"user": ["nobody"]}}, 60111),
        ({"allow_use_scope": {"partyid": [99]}}, 60123),
        ({"allow_use_scope": {"partyid": ["1"]}}, 40035),
        ({"mch_id": "1"}, 660001),
        ({"mch_id": ""}, 40058),
    ):
        body = {**asked, "allow_use_scope": scope, **wrong}
        assert (await wecom.post("externalpay/set_mch_use_scope", body))["errcode"] == errcode, wrong
    body = {**asked, "allow_use_scope": scope}
    assert (await wecom.post("externalpay/set_mch_use_scope", body))["errcode"] == 0
    assert (await wecom.post("externalpay/getmerchant", asked))["allow_use_scope"] == scope
    assert (await wecom.post("externalpay/getmerchant", {"mch_id": "1"}))["errcode"] == 660001
    wecom.world.of(ReceivingMerchants).by_id[MCH_ID].bind_status = 3
    assert "allow_use_scope" not in await wecom.post("externalpay/getmerchant", asked)
    assert (await wecom.post("externalpay/set_mch_use_scope", body))["errcode"] == 60238


@pytest.mark.parametrize("path", ["externalpay/addmerchant", "externalpay/delmerchant"])
@pytest.mark.covers("externalpay/addmerchant", "externalpay/delmerchant")
async def test_binding_by_call_is_obsolete(wecom, path):
    """3.10: addmerchant and delmerchant are 660014."""
    assert (await wecom.post(path, {"mch_id": MCH_ID}))["errcode"] == 660014


@pytest.mark.parametrize("platform_rules", [{"externalpay": {"agents": ["1000009"]}}], indirect=True)
@pytest.mark.covers("externalpay/get_bill_list", "externalpay/get_fund_flow", "externalpay/getmerchant")
async def test_an_app_that_is_not_listed_may_not_ask(wecom):
    """3.10: the app must be listed under 可调用接口的应用."""
    window = {"begin_time": START_S, "end_time": START_S}
    for path in ("get_bill_list", "get_fund_flow", "getmerchant", "set_mch_use_scope", "get_payment_info"):
        assert (await wecom.post(f"externalpay/{path}", window))["errcode"] == 48002
