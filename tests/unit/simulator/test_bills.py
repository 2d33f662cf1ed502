"""The bill list: nothing is lost between pages, nothing shows too early, and pages may be short."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.world.bills import COLLECTION, REFUND, Bill, BillBook

START = 1_700_000_000


def book_of(bills):
    book = BillBook()
    book.add(bills)
    return book


def collection(number: int, *, at: int = 0, lag_ms: int = 0, staff: str = "s1", hidden: bool = False) -> Bill:
    return Bill(
        corp_id="ww1",
        bill_type=COLLECTION,
        transaction_id=f"42{number:04d}",
        time_s=START + at,
        visible_ms=(START + at) * 1000 + lag_ms,
        out_trade_no=f"T{number}",
        amount_fen=1_000,
        payment_type=1,
        customer_id="c1",
        staff_id=staff,
        hidden=hidden,
    )


def refund(number: int, of: Bill, *, at: int, amount_fen: int, status: int = 2) -> Bill:
    return Bill(
        corp_id="ww1",
        bill_type=REFUND,
        transaction_id=f"50{number:04d}",
        time_s=START + at,
        visible_ms=(START + at) * 1000,
        out_trade_no=of.out_trade_no,
        amount_fen=amount_fen,
        payment_type=1,
        staff_id="s2",
        out_refund_no=f"R{number}",
        refund_status=status,
        paid_fen=of.amount_fen,
    )


def walk(book: BillBook, *, limit: int, now_ms: int, begin: int = 0, end: int = 1_000, payee: str = "") -> list[list]:
    pages, after = [], None
    while True:
        rows, after = book.page(
            now_ms=now_ms, begin_s=START + begin, end_s=START + end, after=after, limit=limit, payee=payee
        )
        pages.append(rows)
        if after is None:
            return pages


rows = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20_000), st.sampled_from(["s1", "s2"]), st.booleans()))


@given(
    rows, st.integers(1, 7), st.integers(0, 100), st.integers(0, 60), st.integers(0, 60), st.sampled_from(["", "s2"])
)
def test_all_pages_together_are_exactly_what_is_visible_and_asked_for(made, limit, now, begin, end, payee):
    bills = [
        collection(n, at=at, lag_ms=lag, staff=staff, hidden=hidden) for n, (at, lag, staff, hidden) in enumerate(made)
    ]
    now_ms = (START + now) * 1000
    pages = walk(book_of(bills), limit=limit, now_ms=now_ms, begin=begin, end=end, payee=payee)
    expected = sorted(
        (b.time_s, b.transaction_id)
        for b in bills
        if b.visible_ms <= now_ms
        and START + begin <= b.time_s <= START + end
        and not b.hidden
        and payee in ("", b.staff_id)
    )
    assert [(r["pay_time"], r["transaction_id"]) for page in pages for r in page] == expected
    assert all(len(page) <= limit for page in pages)


def test_a_filtered_page_may_be_empty_and_is_not_the_end():
    bills = [collection(n, staff="s1") for n in range(4)] + [collection(9, at=1, staff="s2")]
    pages = walk(book_of(bills), limit=2, now_ms=(START + 5) * 1000, payee="s2")
    assert [len(page) for page in pages] == [0, 0, 1]


def test_rows_outside_the_visible_range_take_their_place_on_the_page():
    bills = [collection(1, hidden=True), collection(2, hidden=True), collection(3)]
    book = book_of(bills)
    assert [len(page) for page in walk(book, limit=2, now_ms=(START + 5) * 1000)] == [0, 1]
    assert book.total == 1


def test_a_row_appears_only_after_its_lag():
    book = book_of([collection(1, lag_ms=3_000)])
    assert walk(book, limit=10, now_ms=START * 1000 + 2_999) == [[]]
    assert book.visible(START * 1000 + 2_999) == 0
    assert len(walk(book, limit=10, now_ms=START * 1000 + 3_000)[0]) == 1
    assert book.visible(START * 1000 + 3_000) == 1
    assert book.last_visible_ms == START * 1000 + 3_000


def test_a_refund_is_a_row_of_its_own_and_turns_the_collection_from_1_to_3():
    paid = collection(1)
    book = book_of([paid, refund(1, paid, at=10, amount_fen=300), refund(2, paid, at=20, amount_fen=200)])
    (before,) = walk(book, limit=10, now_ms=(START + 9) * 1000)[0]
    assert (before["trade_state"], before["refund_list"], before["total_refund_fee"]) == (1, [], 0)
    after, own = walk(book, limit=10, now_ms=(START + 10) * 1000)[0]
    assert (after["trade_state"], after["total_refund_fee"]) == (3, 300)
    assert [r["out_refund_no"] for r in after["refund_list"]] == ["R1"]
    assert own["bill_type"] == 1
    assert (own["out_trade_no"], own["out_refund_no"]) == ("T1", "R1")
    assert own["total_refund_fee"] == 300
    assert own["payee_userid"] == "s2"
    assert "trade_state" not in own
    assert "commodity_list" not in own


def test_a_rejected_refund_is_listed_and_never_counts():
    paid = collection(1)
    book = book_of([paid, refund(1, paid, at=10, amount_fen=300, status=6)])
    (row,) = walk(book, limit=10, now_ms=(START + 50) * 1000)[0]
    assert (row["trade_state"], row["total_refund_fee"]) == (1, 0)
    assert [r["refund_status"] for r in row["refund_list"]] == [6]
    assert book.total == 1


def test_payer_and_payee_are_absent_when_nobody_knows_them():
    unknown = Bill("ww1", COLLECTION, "420001", START, START * 1000, "T1", 500, 15)
    (row,) = walk(book_of([unknown]), limit=10, now_ms=START * 1000)[0]
    assert "external_userid" not in row
    assert "payee_userid" not in row
    assert row["miniprogram_info"]["appid"]
