"""The same seed gives the same story: who sends, publishes, sees and likes, and when."""

from simulator.world.caps import Caps
from simulator.world.corp import CorpWorld
from simulator.world.days import days_in_month, month_of, week_of
from simulator.world.mass import MassBook
from simulator.world.moments import MomentBook, Order
from simulator.world.people import People
from simulator.world.relations import ContactChange, Relations
from simulator.world.schedule import Schedule

from .conftest import START_S

STAFF = [f"s{number:03d}" for number in range(200)]
DAY_S = 86_400


def story(seed: int) -> tuple[object, ...]:
    """A mass message, a reminder and a moment of 200 staff with three customers each, over three days."""
    schedule = Schedule()
    customers = {staff: [f"wm{staff}{number}" for number in range(3)] for staff in STAFF}
    known = frozenset(c for own in customers.values() for c in own)
    world = CorpWorld(
        "ww1",
        seed=seed,
        people=People.of_ids(seed, STAFF, known),
        relations=Relations("ww1"),
        schedule=schedule,
        send=lambda callback: None,
    )
    for staff, own in customers.items():
        for customer in own:
            assert world.happen(ContactChange(START_S, "ww1", staff, customer, "add"))
    mass, moments = world.of(MassBook), world.of(MomentBook)
    message = mass.create("single", customers, text="新品", attachments=[], allow_select=True, now_s=START_S + 10)
    job = moments.order(Order("新品", [], [], [], [], everybody=True), START_S + 10)
    while not schedule.run_until(START_S + DAY_S):
        pass
    before = sum(bool(task.sent_s) for task in message.tasks.values())
    assert mass.remind(message, START_S + DAY_S)
    while not schedule.run_until(START_S + 3 * DAY_S):
        pass
    sent = {task.userid: (task.sent_s, task.statuses) for task in message.tasks.values()}
    liked = {
        userid: (done.published_s, tuple(done.likes), tuple(done.comments), tuple(done.visible)) if done else None
        for userid, done in moments.moments[job.moment_id].tasks.items()
    }
    return message.msgid, job.moment_id, before, sent, liked, tuple(world.touches)


def test_the_same_seed_is_the_same_story():
    """6.8: who confirms, when, and what customers do with it follows from the seed alone."""
    assert story(1) == story(1)
    assert story(1)[3:] != story(2)[3:]


def test_most_staff_confirm_some_never_and_a_reminder_moves_half_of_those():
    """3.4: staff confirm late or never; a reminder helps."""
    _, _, before, sent, _, _ = story(3)
    after = sum(bool(sent_s) for sent_s, _ in sent.values())
    assert 160 < before < 195
    assert before < after < 200
    assert len({sent_s for sent_s, _ in sent.values()}) > 100, "not all at once"


def test_periods_are_beijings():
    """5.5: as many a month as it has days, 7 a week, 1 a day; in Beijing's calendar."""
    last_second = 1_761_926_399  # 2025-10-31 23:59:59 in Beijing, a Friday
    assert (days_in_month(last_second), days_in_month(last_second + 1)) == (31, 30)
    assert month_of(last_second + 1) == month_of(last_second) + 1
    sunday = last_second + 2 * DAY_S
    assert (week_of(sunday), week_of(sunday + 1)) == (week_of(last_second), week_of(last_second) + 1)
    caps = Caps("month")
    assert [caps.take("wm1", last_second) for _ in range(32)] == [True] * 31 + [False]
    assert [caps.take("wm1", last_second + 1) for _ in range(31)] == [True] * 30 + [False]
    assert caps.take("wm2", last_second), "a straggler counts in the new month"
