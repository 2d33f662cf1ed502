"""Fact sheet 3.10: get_bill_list's window, pages, filter after paging, refunds and rows that come late."""

import pytest

pytestmark = pytest.mark.covers("externalpay/get_bill_list", "fact:6.14")

START_S = 1_760_000_000
WINDOW = {"begin_time": START_S, "end_time": START_S + 1_000}


async def ask(wecom, **body):
    return await wecom.post("externalpay/get_bill_list", {**WINDOW, **body})


async def walk(wecom, **body):
    pages, cursor = [], None
    while True:
        answer = await ask(wecom, **body, **({"cursor": cursor} if cursor else {}))
        assert answer["errcode"] == 0
        pages.append(answer["bill_list"])
        if "next_cursor" not in answer:
            return pages
        cursor = answer["next_cursor"]
        assert cursor


async def test_pages_hold_everything_once_and_the_cursor_is_missing_only_at_the_end(wecom):
    """3.10: next_cursor is missing on the last page and only there."""
    wecom.clock.ms += 100_000
    pages = await walk(wecom, limit=3)
    assert [len(page) for page in pages] == [3, 3, 3, 1]
    assert [len(page) for page in await walk(wecom)] == [10]
    assert len({row["transaction_id"] for page in pages for row in page}) == 10


async def test_the_payee_filter_works_after_paging_so_pages_may_be_empty(wecom):
    """3.10: rows are filtered after the page was cut; an empty page is not the last."""
    wecom.clock.ms += 20_000
    pages = await walk(wecom, limit=2, payee_userid="s2")
    assert [len(page) for page in pages] == [0, 0, 0, 2]


async def test_a_row_that_comes_late_stands_among_older_ones(wecom):
    """3.10: a row stands at its pay_time, whenever it can first be read."""
    wecom.clock.ms += 20_000
    assert "42000200" not in [row["transaction_id"] for page in await walk(wecom) for row in page]
    wecom.clock.ms += 10_000
    times = [row["pay_time"] - START_S for page in await walk(wecom) for row in page]
    assert times == [0, 1, 2, 3, 3, 4, 5, 6, 7]


async def test_the_future_cannot_be_read(wecom):
    """3.10: a window that reaches into the future shows what has happened."""
    assert [row["out_trade_no"] for row in (await ask(wecom))["bill_list"]] == ["T0"]


async def test_a_refund_is_a_row_of_its_own_and_changes_the_collection(wecom):
    """3.10: bill_type 1 with the original out_trade_no; trade_state 1 becomes 3."""
    wecom.clock.ms += 49_000
    (before,) = (await ask(wecom, end_time=START_S))["bill_list"]
    assert (before["bill_type"], before["trade_state"], before["refund_list"]) == (0, 1, [])
    wecom.clock.ms += 1_000
    (after,) = (await ask(wecom, end_time=START_S))["bill_list"]
    assert (after["trade_state"], after["total_fee"], after["total_refund_fee"]) == (3, 1_000, 400)
    assert after["refund_list"] == [
        {
            "out_refund_no": "R1",
            "refund_userid": "s2",
            "refund_comment": "",
            "refund_reqtime": START_S + 50,
            "refund_status": 2,
            "refund_fee": 400,
        }
    ]
    (own,) = (await ask(wecom, begin_time=START_S + 50))["bill_list"]
    assert (own["bill_type"], own["out_trade_no"], own["out_refund_no"]) == (1, "T0", "R1")
    assert (own["total_refund_fee"], own["pay_time"], own["payee_userid"]) == (400, START_S + 50, "s2")
    assert "trade_state" not in own


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"end_time": START_S + 31 * 86_400 + 1}, 40035),
        ({"end_time": START_S - 1}, 40035),
        ({"begin_time": -1, "end_time": 0}, 40035),
        ({"limit": 1_001}, 40035),
        ({"limit": 0}, 40035),
        ({"limit": "10"}, 40035),
        ({"limit": True}, 40035),
        ({"begin_time": None}, 40058),
        ({"end_time": 1.5}, 40035),
        ({"payee_userid": "nobody"}, 60111),
        ({"payee_userid": 5}, 40035),
        ({"cursor": "guess"}, 50100),
        ({"cursor": "猜"}, 50100),
        ({"cursor": {}}, 40035),
    ],
)
async def test_wrong_requests_carry_an_empty_list(wecom, body, errcode):
    """3.10: every wrong field has its errcode, with an empty bill_list."""
    answer = await ask(wecom, **body)
    assert (answer["errcode"], answer["bill_list"]) == (errcode, [])


async def test_a_month_is_fine(wecom):
    """3.10: begin and end are at most a month apart."""
    assert (await ask(wecom, end_time=START_S + 31 * 86_400))["errcode"] == 0


async def test_a_cursor_belongs_to_its_window(wecom):
    """3.10: a cursor of another question is 50100."""
    wecom.clock.ms += 100_000
    cursor = (await ask(wecom, limit=2))["next_cursor"]
    assert (await ask(wecom, limit=2, cursor=cursor))["errcode"] == 0
    assert (await ask(wecom, limit=2, cursor=cursor, end_time=START_S + 999))["errcode"] == 50100
    assert (await ask(wecom, limit=2, cursor=cursor[:-2] + "AA"))["errcode"] == 50100


@pytest.mark.parametrize("sim_settings", [{"cursor_seconds": 60}], indirect=True)
async def test_a_cursor_expires(wecom):
    """3.10: a cursor is good for some time only."""
    wecom.clock.ms += 100_000
    cursor = (await ask(wecom, limit=2))["next_cursor"]
    wecom.clock.ms += 62_000
    assert (await ask(wecom, limit=2, cursor=cursor))["errcode"] == 50100
