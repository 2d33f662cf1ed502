"""Money adds up, and the same seed tells the same story."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.pay.ledger import Ledger, Promotion
from simulator.pay.merchant import Merchant, PlatformKeys, make_merchant
from simulator.pay.notify import NotifyPolicy, PayNotifier
from simulator.world.bills import COLLECTION, REFUND, Bill, BillBook
from simulator.world.corp import CorpWorld
from simulator.world.funds import FundFlows
from simulator.world.people import People
from simulator.world.relations import Relations
from simulator.world.schedule import Schedule

START_S = 1_760_000_000
DAY_S = 86_400
APPID = "wx1"


def corp_of(seed=1):
    return CorpWorld(
        "ww1",
        seed=seed,
        people=People.of_ids(seed, ["s1"], frozenset({"wm1"})),
        relations=Relations("ww1"),
        schedule=Schedule(),
        send=lambda callback: None,
    )


@given(st.integers(2, 10_000), st.integers(0, 9_999), st.lists(st.integers(1, 3_000), max_size=12))
def test_refunds_give_back_what_was_paid_in_money_and_never_more(total, off, parts):
    ledger = Ledger(corp_of())
    paid = ledger.add(
        mchid="19",
        appid=APPID,
        openid="o",
        customer_id="",
        out_trade_no="T1",
        amount_fen=total,
        time_s=START_S,
        trade_type="JSAPI",
        attach="",
    )
    if off % total:
        paid.promotions.append(Promotion("1", "n", "s", off % total, True))
    for number, part in enumerate([*parts, total]):
        left = paid.amount_fen - paid.gone_fen
        if left:
            ledger.add_refund(paid, out_refund_no=f"R{number}", amount_fen=min(part, left), time_s=START_S)
    assert sum(refund.amount_fen for refund in paid.refunds) == paid.amount_fen
    assert sum(refund.payer_fen for refund in paid.refunds) == paid.payer_fen
    assert all(0 <= refund.payer_fen <= refund.amount_fen for refund in paid.refunds)


bills = st.lists(
    st.tuples(st.integers(0, 4 * DAY_S), st.integers(1, 10**6), st.booleans(), st.sampled_from(["", "16001"])),
    min_size=1,
    max_size=40,
)


@given(bills, st.integers(0, 6 * DAY_S), st.integers(1, 9))
@settings(max_examples=60)
def test_pages_of_flows_hold_every_readable_row_once_and_balances_follow(made, now, limit):
    corp = corp_of()
    corp.of(BillBook).add(
        Bill(
            corp_id="ww1",
            bill_type=REFUND if refund else COLLECTION,
            transaction_id=f"{number:05d}",
            time_s=START_S + at,
            visible_ms=0,
            out_trade_no=f"T{number}",
            amount_fen=amount,
            payment_type=1,
            mch_id=mch_id,
        )
        for number, (at, amount, refund, mch_id) in enumerate(made)
    )

    def walk(now_s, limit):
        rows, after = [], None
        while True:
            page, after = corp.of(FundFlows).page(
                now_s=now_s, begin_s=0, end_s=1 << 40, mch_id="", after=after, limit=limit
            )
            rows += page
            if after is None:
                return rows

    early = walk(START_S + now, limit)
    assert all(row.time_s <= row.readable_s <= START_S + now for row in early)
    complete = walk(START_S + 10 * DAY_S, limit)
    assert complete == walk(START_S + 10 * DAY_S, 1_000)
    assert set(early) <= set(complete)
    assert len({row.request_no for row in complete}) == len(complete)
    assert sum(row.kind in (1, 3) for row in complete) == len(made)
    balances = {}
    for row in sorted(complete, key=lambda row: row.position):
        before = balances.get(row.mch_id, 10_000_000)
        assert row.balance_fen == before + (row.amount_fen if row.kind == 3 else -row.amount_fen)
        balances[row.mch_id] = row.balance_fen


KEYS = PlatformKeys.new(1)
CREDENTIALS = make_merchant(KEYS, seed=1, corp_id="ww1", number=1, appids=[APPID], notify_url="http://receiver/pay")


async def story(seed):
    """What a receiver gets of thirty payments and ten refunds, refusing every fourth delivery."""
    arrived, corp = [], corp_of(seed)

    async def post(url, headers, body):
        arrived.append((headers["Wechatpay-Signature"], body))
        return 500 if len(arrived) % 4 == 0 else 204

    policy = NotifyPolicy(duplicate_share=0.3, probe_share=0.2, concurrency=1)
    notifier = PayNotifier(post=post, signing_s=lambda: START_S, policy=policy)
    merchant = Merchant(CREDENTIALS, KEYS, notifier)
    for number in range(30):
        merchant.paid(
            corp, amount_fen=100 + number, time_s=START_S + number, out_trade_no=f"T{number}", external_userid="wm1"
        )
    for number in range(10):
        merchant.refunded(
            corp, out_trade_no=f"T{number}", amount_fen=50, time_s=START_S + 40, out_refund_no=f"R{number}"
        )
    now_s = START_S
    while not notifier.idle:
        now_s += 1
        corp.schedule.run_until(now_s)
        await notifier.settle()
    return arrived, notifier.counts


def test_the_same_seed_sends_the_same_bytes():
    one, counts = asyncio.run(story(1))
    two, _ = asyncio.run(story(1))
    other, _ = asyncio.run(story(2))
    assert one == two
    assert one != other
    assert (counts.submitted, counts.delivered, counts.given_up) == (40, 40, 0)
    assert counts.probes
    assert counts.duplicates
