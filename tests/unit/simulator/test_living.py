"""A living world: possible, repeatable, as dense as it is said to be, and with effects that are really there."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from worlds_of_plans import Played

from simulator.scenario import CannotPlay
from simulator.scenario.file import load_scenario, parse_scenario
from simulator.scenario.living import planner_of
from simulator.scenario.shopping import Cycles
from simulator.world.bills import COLLECTION, REFUND, BillBook
from simulator.world.corp import Touch
from simulator.world.discipline import Discipline
from simulator.world.groups import Groups
from simulator.world.mass import MassBook
from simulator.world.notes import Notes
from simulator.world.people import LEFT
from simulator.world.relations import MIN_GAP_S, Relationship
from simulator.world.tills import Tills
from simulator.world.ways import Way, Ways

START = 1_760_000_000
HERE = str(Path(__file__).parent)
CORPS = ("ww1", "ww2")


def world(scenario: str, scale: float = 1.0, *, seed: int = 1, corps: tuple[str, ...] = CORPS, start: int = START):
    read = load_scenario(scenario) if "\n" not in scenario else parse_scenario(scenario, "test.yaml")
    return Played(planner_of(read, seed=seed, scale=scale, corps=corps, bill_lag_ms=3_000)(start))


@pytest.fixture(scope="module")
def neptune() -> Played:
    return world("neptune", 0.01).to_the_end()


def emitted(played: Played) -> Counter:
    return sum((corp.emitted for corp in played.corps.values()), Counter())


def test_same_seed_and_start_give_the_same_bytes_in_every_process():
    script = (
        f"import sys; sys.path.append({HERE!r})\n"
        "import hashlib\n"
        "from test_living import world\n"
        "print(hashlib.sha256(world('neptune', 0.002, seed=7).to_the_end().truth_bytes()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    here = hashlib.sha256(world("neptune", 0.002, seed=7).to_the_end().truth_bytes()).hexdigest()
    assert digests == {here}


def test_another_seed_is_another_story():
    stories = {world("neptune", 0.002, seed=seed).to_the_end().truth_bytes() for seed in (1, 2)}
    assert len(stories) == 2


def test_neptune_at_a_hundredth_plays_some_fifty_callbacks_a_second(neptune):
    assert 40 * 100 < len(neptune.sent) < 70 * 100
    kinds = {change for event, change in emitted(neptune) if event == "change_external_contact"}
    assert kinds >= {
        "add_external_contact",
        "add_half_external_contact",
        "edit_external_contact",
        "del_follow_user",
        "del_external_contact",
    }
    assert emitted(neptune)["change_external_chat", "update"]


def test_neptune_takes_in_what_it_is_said_to(neptune):
    paid = [b for c in neptune.corps.values() for b in c.of(BillBook).everything if b.bill_type == COLLECTION]
    twelve_days_yuan = 30e6 / 30 * 12 * 0.01
    assert sum(bill.amount_fen for bill in paid) / 100 == pytest.approx(twelve_days_yuan, rel=0.12)


def test_everything_that_happened_was_possible(neptune):
    for corp in neptune.corps.values():
        told: dict[tuple[str, str], Relationship] = {}
        for change in corp.changes:
            pair = (change.staff_id, change.customer_id)
            if pair not in told:
                opening = corp.relations.opening
                told[pair] = (opening and opening.relationship(*pair)) or Relationship()
            assert not told[pair].changed_s or change.time_s - told[pair].changed_s >= MIN_GAP_S
            told[pair].apply(change)  # raises for what the platform could never report


def test_things_happen_in_order_and_between_beginning_and_end(neptune):
    times = [change.time_s for change in neptune.corps["ww1"].changes]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] <= START + 100


def test_nobody_begins_anything_when_the_story_is_over():
    played = world("neptune", 0.005).to_the_end()
    before, sent = played.truth_bytes(), len(played.sent)
    played.until(START + 3 * 86_400)
    assert played.truth_bytes() == before
    assert len(played.sent) == sent


def test_every_kind_of_acquaintance_is_made(neptune):
    corp = neptune.corps["ww1"]
    adds = [c for c in corp.changes if c.change == "add"]
    assert {c.add_way for c in adds} >= {1, 3, 10, 16}
    prefixes = {c.state.split("-")[0] for c in adds}
    assert prefixes >= {"store", "parcel", "video", "link", ""}
    opening = corp.relations.opening
    assert opening is not None
    assert any(opening.followers_of(c.customer_id) for c in adds), "customers of several staff members"
    pairs = corp.relations.changed
    assert any(len(pair.episodes) > 1 for pair in pairs.values()), "who came back"
    assert {pair.status for pair in pairs.values()} >= {"friend", "half", "deleted_by_customer", "deleted_by_staff"}


def test_fifty_people_scan_one_code_in_one_second(neptune):
    scans = Counter(
        (c.time_s, c.staff_id) for corp in neptune.corps.values() for c in corp.changes if c.state == "poster-entrance"
    )
    assert list(scans.values()) == [50]


def test_refunds_come_later_and_never_exceed_what_was_paid(neptune):
    for order in neptune.truth()["orders"]:
        assert sum(r["amount_fen"] for r in order["refunds"]) <= order["gross_fen"]
        assert all(r["time_ms"] > order["pay_time_ms"] for r in order["refunds"])
    assert any(order["refunds"] for order in neptune.truth()["orders"])


def test_bills_name_collectors_payers_or_neither(neptune):
    bills = [b for c in neptune.corps.values() for b in c.of(BillBook).everything if b.bill_type == COLLECTION]
    assert any(b.staff_id and b.customer_id for b in bills)
    assert any(not b.staff_id and b.customer_id for b in bills)
    assert any(b.staff_id and not b.customer_id for b in bills)
    assert any(b.hidden for b in bills)
    assert len({b.transaction_id for b in bills}) == len({b.out_trade_no for b in bills}) == len(bills)


def test_groups_of_long_ago_hold_people_who_are_nobodys_customers(neptune):
    for corp in neptune.corps.values():
        groups = corp.of(Groups)
        assert len(groups.outside_members()) > 300
        assert all(group.now.owner in corp.people.staff for group in groups.all)


def test_edits_leave_tags_and_phones_behind(neptune):
    corp = neptune.corps["ww1"]
    notes = [corp.of(Notes).get(c.staff_id, c.customer_id) for c in corp.changes if c.change == "edit"]
    assert any(note.tags for note in notes)
    assert any(note.mobiles for note in notes)


def test_sales_of_the_truth_are_the_sales_of_the_bills(neptune):
    told = neptune.truth()["shopping"]
    for corp_id, corp in neptune.corps.items():
        paid = {b.out_trade_no: b.amount_fen for b in corp.of(BillBook).everything if b.bill_type == COLLECTION}
        assert {s["order_id"]: s["amount_fen"] for s in told[corp_id]["sales"]} == paid


def test_what_is_bought_runs_out_about_when_it_is_bought_again():
    shopping = load_scenario("neptune").shopping
    cycles = Cycles(shopping, seed=1, corp_id="ww1")
    cycles.welcome(0, 20_000)
    due = cycles.due(0.0, 90.0)
    rows = list(zip(due.days.tolist(), due.customers.tolist(), due.items.tolist(), due.numbers.tolist(), strict=True))
    assert rows == sorted(rows, key=lambda row: row[0])
    last: dict[int, tuple[float, int]] = {}
    for day, customer, item, number in rows:
        if customer in last:
            before, number_before = last[customer]
            assert number == number_before + 1
            depleted = cycles.depletes_on(customer, item, number_before)
            assert before < depleted
            assert abs(day - depleted) <= 0.151 * (depleted - before) / 0.7
        last[customer] = (day, number)
    assert len(last) == pytest.approx(20_000 * 0.04, rel=0.15)


def test_stretches_find_every_purchase_once():
    cycles = Cycles(load_scenario("neptune").shopping, seed=3, corp_id="ww1")
    cycles.welcome(0, 10_000)
    whole = cycles.due(0.0, 30.0)
    parts = [cycles.due(a / 4, a / 4 + 0.25) for a in range(120)]
    assert [d for part in parts for d in part.days.tolist()] == whole.days.tolist()


QUIET = """
population: {staff: 30, customers: 4000, second_share: 0.0, third_share: 0.0}
channels: [{kind: live_code, share: 1.0, state: "store-{store}"}]
story: {duration_s: 200, pace: 4320, adds_per_staff: 0, deleted_by_customer_per_1000: 0, deleted_by_staff_per_1000: 0,
  edits_per_staff: 0, chats_per_staff: 0, complaints_per_million: 0, leavers_per_1000: 0}
shopping:
  buyers_share: 0.3
  refunds: {share: 0}
  items: [{name: tea, share: 1, cycle_days: 15, price_fen: [1000, 5000]}]
effects:
  reach_buy_lift: 0.10
  reply: 0.3
  strategies: [{mark: "#B", buy_lift: 0.15}]
  churn: {first: 0.05, each: 0.0}
  complaints: {first: 0.02, each: 0.0}
  timing: {late_share: 0.0, buy_median_s: 3600, delete_median_s: 600, reply_median_s: 600}
"""


def touched(content: str, customers: int = 2_000) -> Played:
    """A world in which the first customers are written to after ten seconds."""
    played = world(QUIET, corps=("ww1",))
    corp = played.corps["ww1"]
    opening = corp.relations.opening
    assert opening is not None
    played.until(START + 10)
    for staff_id, customer_id in opening.pairs(0, customers):
        corp.touch(Touch(START + 10, "mass", staff_id, customer_id, "msg1", content))
    return played.until(START + 200)


def test_touches_cause_what_is_planted_and_the_truth_counts_it():
    played = touched("新品 #B")
    effects = played.truth()["effects"]["ww1"]
    (tally,) = effects["touches"]
    assert (tally["kind"], tally["strategy"], tally["touches"]) == ("mass", "#B", 2_000)
    assert tally["purchases"] == pytest.approx(2_000 * 0.25, rel=0.15)
    assert tally["replies"] == pytest.approx(2_000 * 0.3, rel=0.15)
    assert tally["deletions"] == pytest.approx(2_000 * 0.05, rel=0.4)
    assert tally["complaints"] == pytest.approx(2_000 * 0.02, rel=0.6)
    assert tally["purchases_to_come"] == 0
    assert len(effects["caused"]) == tally["purchases"]
    paid = {b.out_trade_no for b in played.corps["ww1"].of(BillBook).everything}
    assert {row["order_id"] for row in effects["caused"]} <= paid
    assert len(effects["anyway"]) == tally["purchases_anyway"] > 0
    assert len(played.corps["ww1"].complaints) == tally["complaints"]
    gone = [c for c in played.corps["ww1"].changes if c.change == "delete_by_customer"]
    assert len(gone) == tally["deletions"]


def test_what_would_have_happened_anyway_happens_with_and_without_touches():
    def own(played: Played) -> set[tuple[str, int]]:
        truth = played.truth()
        caused = {row["order_id"] for row in truth["effects"]["ww1"]["caused"]}
        return {
            (sale["order_id"], sale["amount_fen"])
            for sale in truth["shopping"]["ww1"]["sales"]
            if sale["order_id"] not in caused and sale["customer_id"]
        }

    with_touches, without = touched("#B"), world(QUIET, corps=("ww1",)).to_the_end()
    assert own(with_touches) == own(without)


def test_the_same_calls_make_the_same_world():
    assert touched("#B").truth_bytes() == touched("#B").truth_bytes()
    assert touched("#B").truth_bytes() != touched("").truth_bytes()


def test_one_message_that_reaches_somebody_twice_makes_two_orders_at_most_and_never_one_number_twice():
    played = world(QUIET.replace("reach_buy_lift: 0.10", "reach_buy_lift: 1.0"), corps=("ww1",))
    corp = played.corps["ww1"]
    staff_id, customer_id = corp.relations.opening.pairs(0, 1)[0]
    for _ in range(3):
        corp.touch(Touch(START + 1, "group", staff_id, customer_id, "msg1", ""))
    played.until(START + 200)
    caused = played.truth()["effects"]["ww1"]["caused"]
    assert len({row["order_id"] for row in caused}) == len(caused) >= 1


class Till:
    """A merchant that notes what it is told."""

    def __init__(self) -> None:
        self.payments: list[dict] = []
        self.refunds: list[dict] = []

    def paid(self, corp, **payment) -> str:
        self.payments.append(payment)
        return "42"

    def refunded(self, corp, **refund) -> str:
        self.refunds.append(refund)
        return "50"


def test_with_a_till_a_share_of_purchases_is_paid_there_and_not_in_the_bill_list():
    played, till = world("neptune", 0.01), Till()
    for corp in played.corps.values():
        corp.of(Tills).open.append(till)
    played.to_the_end()
    sold = [s for sales in played.truth()["shopping"].values() for s in sales["sales"]]
    by_pay = {s["order_id"] for s in sold if s["channel"] == "pay"}
    assert by_pay == {p["out_trade_no"] for p in till.payments}
    assert len(by_pay) / len(sold) == pytest.approx(0.15 * 0.5, rel=0.4)
    bills = {b.out_trade_no for c in played.corps.values() for b in c.of(BillBook).everything}
    assert not bills & by_pay
    assert {r["out_trade_no"] for r in till.refunds} <= by_pay


def test_bans_come_in_the_scenario_of_that_name():
    played = world("ban").to_the_end()
    bans = [ban for corp in played.corps.values() for ban in corp.of(Discipline).bans]
    assert len({ban.staff_id for ban in bans}) >= 2
    assert any(ban.step >= 2 for ban in bans)
    for corp in played.corps.values():
        for ban in corp.of(Discipline).bans:
            until = ban.until_s or START + 120
            assert not any(
                c.change == "add" and c.staff_id == ban.staff_id and ban.time_s < c.time_s < until for c in corp.changes
            )


def test_a_tag_storm_is_a_hundred_edits_a_second_while_customers_come():
    played = world("tag-storm").to_the_end()
    changes = [c for c in played.changes if START + 30 <= c.time_s < START + 90]
    assert sum(c.change == "edit" for c in changes) > 60 * 80
    assert sum(c.change == "add" and c.welcome for c in changes) > 300


def test_posters_bring_whole_seconds_of_customers():
    played = world("poster").to_the_end()
    scans = Counter(c.time_s for c in played.changes if c.state.startswith("poster-"))
    assert sorted(scans.values()) == [50] * 8 + [200]


def test_a_live_room_brings_ten_times_as_many():
    played = world("livestream-burst").to_the_end()
    adds = Counter((c.time_s - START) // 10 for c in played.changes if c.change == "add")
    before = sum(adds[slot] for slot in range(4)) / 4
    during = sum(adds[slot] for slot in range(5, 10)) / 5
    assert during > 6 * before
    assert any(c.state == "live-room-1111" for c in played.changes)


def test_people_come_by_the_codes_a_system_makes_and_the_rest_of_the_story_stays():
    with_code, without = world("neptune", 0.01, corps=("ww1",)), world("neptune", 0.01, corps=("ww1",)).to_the_end()
    corp = with_code.corps["ww1"]
    corp.of(Ways).add(
        lambda config_id: Way(config_id, START, type=1, scene=2, users=["s00001"], state="of-the-api"), START
    )
    with_code.to_the_end()
    came = [c for c in corp.changes if c.state == "of-the-api"]
    assert len(came) > 10
    assert {c.staff_id for c in came} == {"s00001"}
    others = {(c.time_s, c.pair) for c in corp.changes if c.change == "add" and c.state != "of-the-api"}
    same = {(c.time_s, c.pair) for c in without.changes if c.change == "add"}
    assert len(others & same) > 0.98 * len(same)


REAL_PACE = """
population: {staff: 20, customers: 2000, newcomers: 1000}
story: {adds_per_staff: 5, leavers_per_1000: 40, edits_per_staff: 2}
shopping:
  buyers_share: 0.5
  items: [{name: tea, share: 1, cycle_days: 10, price_fen: [1000, 5000]}]
"""


def test_at_the_real_pace_things_happen_day_after_day_in_shop_hours():
    played = world(REAL_PACE, corps=("ww1",))
    assert played.plan.open_ended
    played.until(START + 10 * 86_400)
    corp = played.corps["ww1"]
    adds = [c for c in corp.changes if c.change == "add"]
    days = Counter((c.time_s + 8 * 3_600) // 86_400 for c in adds)
    assert len(days) == pytest.approx(10, abs=1)
    # Who answers a half add, or comes back, may do so at night.
    in_shops = sum(9 <= (c.time_s + 8 * 3_600) % 86_400 / 3_600 <= 22 for c in adds)
    assert in_shops > 0.9 * len(adds)
    paid = [b for b in corp.of(BillBook).everything if b.bill_type == COLLECTION]
    # A thousand buyers of the beginning buy once in ten days each; newcomers and strangers add to that.
    assert 950 < len(paid) < 1_600
    assert any(member.status == LEFT for member in corp.people.staff.values())


def test_refunds_of_a_long_story_come_up_to_ninety_days_later():
    played = world(REAL_PACE.replace("buyers_share", "refunds: {share: 0.5, median_days: 30}\n  buyers_share"))
    played.until(START + 95 * 86_400)
    waits = []
    for corp in played.corps.values():
        book = corp.of(BillBook).everything
        paid = {b.out_trade_no: b.time_s for b in book if b.bill_type == COLLECTION}
        waits += [(b.time_s - paid[b.out_trade_no]) / 86_400 for b in book if b.bill_type == REFUND]
    assert 60 < max(waits) <= 90.01


def test_newcomers_run_out_without_breaking_anything():
    short = REAL_PACE.replace("newcomers: 1000", "newcomers: 3")
    played = world(short, corps=("ww1",)).until(START + 3 * 86_400)
    assert len({c.customer_id for c in played.changes}) > 3


def test_a_world_without_customers_lives():
    played = world("population: {staff: 2, customers: 0, newcomers: 50}\nshopping: {buyers_share: 0}\n", corps=("ww1",))
    played.until(START + 2 * 86_400)
    assert played.changes


def test_more_staff_than_ids_can_name_is_refused():
    with pytest.raises(CannotPlay, match="staff members"):
        world("neptune", 5.0)


def test_a_message_sent_through_the_platform_reaches_people_who_react():
    played = world("neptune", 0.005, corps=("ww1",))
    corp = played.corps["ww1"]
    played.until(START + 5)
    staff = corp.people.serving[:20]
    corp.of(MassBook).create(
        "single",
        {staff_id: list(corp.relations.customers_of(staff_id)) for staff_id in staff},
        text="回来看看 #B",
        attachments=(),
        allow_select=False,
        now_s=START + 5,
    )
    played.to_the_end()
    (tally,) = played.truth()["effects"]["ww1"]["touches"]
    assert tally["kind"] == "mass"
    assert tally["strategy"] == "#B"
    assert tally["touches"] > 1_000
    assert tally["purchases"] + tally["purchases_to_come"] == pytest.approx(0.05 * tally["touches"], rel=0.3)
