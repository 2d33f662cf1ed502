"""Moments: a job, a moment, staff who publish it, customers who can see it, and some who like it."""

import pytest

from simulator.world.media import MOMENT, MediaBook
from simulator.world.moments import MomentBook
from simulator.world.people import LEFT, NOT_ACTIVATED, Department
from simulator.world.tags import TagBook

from .conftest import CUSTOMERS, OVER_SCALE, PROMPT, START_S

TEXT = {"content": "秋天的第一杯奶茶"}
DAY_S = 86_400
JOB_S, DISPATCHING_S, PUBLISHING_S = 30, 10, 600
NO_RESULT = {
    "errcode": 0,
    "errmsg": "ok",
    "moment_id": "",
    "invalid_sender_list": {"user_list": [], "department_list": []},
    "invalid_external_contact_list": {"tag_list": []},
}
prompt = pytest.mark.parametrize("platform_rules", [PROMPT], indirect=True)
seen_by_all = pytest.mark.parametrize(
    "platform_rules",
    [{**PROMPT, "moments": {"seen_share": 1.0, "liked_share": 1.0, "commented_share": 1.0, "answered_share": 1.0}}],
    indirect=True,
)


def sent_by(*staff: str, tags: list[str] | None = None) -> dict:
    visible = {"sender_list": {"user_list": list(staff)}}
    if tags is not None:
        visible["external_contact_list"] = {"tag_list": tags}
    return visible


async def result(shop, jobid: str) -> dict:
    return await shop.wecom.get("externalcontact/get_moment_task_result", jobid=jobid)


async def create(shop, **body) -> str:
    """A moment whose tasks staff have; its id."""
    answer = await shop.call("add_moment_task", **{"text": TEXT, "visible_range": sent_by("s1"), **body})
    assert answer["errcode"] == 0, answer
    shop.advance(JOB_S)
    moment_id = (await result(shop, answer["jobid"]))["result"]["moment_id"]
    shop.advance(DISPATCHING_S)
    return moment_id


async def seen_by(shop, moment_id: str, userid: str = "s1") -> list[str]:
    answer = await shop.call("get_moment_send_result", moment_id=moment_id, userid=userid)
    assert answer["errcode"] == 0, answer
    return [row["external_userid"] for row in answer["customer_list"]]


async def listed(shop, **more) -> list[dict]:
    window = {"start_time": START_S, "end_time": START_S + DAY_S}
    return (await shop.call("get_moment_list", **window, **more))["moment_list"]


@pytest.mark.covers("externalcontact/add_moment_task", "externalcontact/get_moment_task_result")
async def test_a_job_starts_runs_and_makes_a_moment(shop):
    """3.5: add_moment_task gives a jobid; its result has status 1 start, 2 running, 3 done."""
    jobid = (await shop.call("add_moment_task", text=TEXT))["jobid"]
    answer = await result(shop, jobid)
    assert (answer["status"], answer["type"], answer["result"]) == (1, "add_moment_task", NO_RESULT)
    shop.advance(JOB_S - 1)
    assert (await result(shop, jobid))["status"] == 2
    shop.advance(1)
    answer = await result(shop, jobid)
    moment_id = answer["result"]["moment_id"]
    assert (answer["status"], answer["result"]) == (3, {**NO_RESULT, "moment_id": moment_id})
    assert moment_id.startswith("mom")
    assert [moment["moment_id"] for moment in await listed(shop)] == [moment_id]


@pytest.mark.covers("externalcontact/get_moment_task_result")
async def test_a_jobid_is_good_for_a_day(shop):
    """3.5: jobid valid 24 h."""
    jobid = (await shop.call("add_moment_task", text=TEXT))["jobid"]
    shop.advance(DAY_S - 1)
    assert (await result(shop, jobid))["status"] == 3
    shop.advance(1)
    answer = await result(shop, jobid)
    assert (answer["errcode"], answer["result"]) == (40035, NO_RESULT)
    assert (await result(shop, ""))["errcode"] == 40058


@pytest.mark.covers("externalcontact/get_moment_task_result")
async def test_the_result_names_senders_and_tags_that_are_none(shop):
    """3.5: result has invalid_sender_list and invalid_external_contact_list; without any sender no moment_id."""
    shop.world.people.staff["s2"].status = LEFT
    shop.world.people.staff["s3"].status = NOT_ACTIVATED
    tag = shop.tag(["猫"], {"wmC1": ["猫"]})["猫"]
    senders = {"user_list": ["s1", "s2", "s3", "none"], "department_list": [1, 99]}
    visible = {"sender_list": senders, "external_contact_list": {"tag_list": [tag, "etNone"]}}
    jobids = [
        (await shop.call("add_moment_task", text=TEXT, visible_range=one))["jobid"]
        for one in (visible, sent_by("s2"), sent_by("s1", tags=["etNone"]))
    ]
    shop.advance(JOB_S)
    first, second, third = [(await result(shop, jobid))["result"] for jobid in jobids]
    assert first["errcode"] == 0
    assert first["invalid_sender_list"] == {"user_list": ["s2", "s3", "none"], "department_list": [99]}
    assert first["invalid_external_contact_list"] == {"tag_list": ["etNone"]}
    assert (second["errcode"], second["moment_id"]) == (40031, "")
    assert (third["errcode"], third["moment_id"]) == (40068, "")
    assert len(await listed(shop)) == 1


@pytest.mark.covers("externalcontact/add_moment_task")
async def test_a_rule_groups_tag_is_none_for_moments(shop):
    """3.5: tag_list: corp tags only."""
    _, [tag] = shop.world.of(TagBook).add(shop.now_s, [("猫", 0)], app="7", group_name="口味", strategy_id=1)
    jobid = (await shop.call("add_moment_task", text=TEXT, visible_range=sent_by("s1", tags=[tag.id])))["jobid"]
    shop.advance(JOB_S)
    found = (await result(shop, jobid))["result"]
    assert (found["errcode"], found["invalid_external_contact_list"]) == (40068, {"tag_list": [tag.id]})


@prompt
@pytest.mark.covers("externalcontact/get_moment_task", "externalcontact/get_moment_send_result")
async def test_nobody_sees_a_moment_before_staff_publish(shop):
    """3.5: like mass messages, staff must press publish; publish_status 0 or 1."""
    moment_id = await create(shop, visible_range=sent_by("s1", "s2"))
    tasks = (await shop.call("get_moment_task", moment_id=moment_id))["task_list"]
    assert tasks == [{"userid": "s1", "publish_status": 0}, {"userid": "s2", "publish_status": 0}]
    for name in ("get_moment_send_result", "get_moment_customer_list", "get_moment_comments"):
        assert await shop.code(name, moment_id=moment_id, userid="s1") == 41062
    shop.advance(PUBLISHING_S)
    tasks = (await shop.call("get_moment_task", moment_id=moment_id))["task_list"]
    assert [task["publish_status"] for task in tasks] == [1, 1]
    assert await seen_by(shop, moment_id, "s2") == CUSTOMERS[10:]
    assert "wmC30" not in await seen_by(shop, moment_id, "s1"), "who deleted s1 sees nothing of s1's"


@pytest.mark.covers("externalcontact/get_moment_task")
async def test_tasks_of_a_new_moment_are_still_under_way(shop):
    """4.3: 41079 still dispatching."""
    await shop.call("add_moment_task", text=TEXT, visible_range=sent_by("s1"))
    shop.advance(JOB_S)
    [moment] = await listed(shop)
    for name in ("get_moment_task", "get_moment_send_result"):
        assert await shop.code(name, moment_id=moment["moment_id"], userid="s1") == 41079
    shop.advance(DISPATCHING_S)
    assert await shop.code("get_moment_task", moment_id=moment["moment_id"]) == 0


@prompt
@pytest.mark.covers("externalcontact/add_moment_task")
async def test_a_moment_is_shown_to_customers_with_one_of_its_tags(shop):
    """3.5: external_contact_list.tag_list: corp tags."""
    ids = shop.tag(["猫", "狗", "鱼"], {"wmC1": ["猫"], "wmC2": ["狗"], "wmC3": ["鱼"]})
    moment_id = await create(shop, visible_range=sent_by("s1", tags=[ids["猫"], ids["狗"]]))
    shop.advance(PUBLISHING_S)
    assert await seen_by(shop, moment_id) == ["wmC1", "wmC2"]
    assert [moment["visible_type"] for moment in await listed(shop)] == [0]


@pytest.mark.covers("externalcontact/add_moment_task")
async def test_a_department_stands_for_everybody_in_it(shop):
    """3.5: sender_list.department_list, with the departments below; without senders all staff."""
    people = shop.world.people
    people.departments.update({2: Department(2, "华东", 1), 3: Department(3, "上海", 2), 4: Department(4, "华北", 1)})
    people.staff["s1"].departments, people.staff["s2"].departments = (3,), (4,)
    east = await create(shop, visible_range={"sender_list": {"department_list": [2]}})
    everybody = await create(shop, visible_range={})

    async def senders(moment_id: str) -> list[str]:
        return [task["userid"] for task in (await shop.call("get_moment_task", moment_id=moment_id))["task_list"]]

    assert await senders(east) == ["s1"]
    assert await senders(everybody) == ["s1", "s2", "s3"]


@prompt
@pytest.mark.covers("externalcontact/get_moment_customer_list", "externalcontact/get_moment_send_result")
async def test_a_customer_sees_four_moments_of_the_corp_a_month(shop):
    """5.4: corp-published at most 4 per customer per month; the range stays what it was meant to be."""
    moments = [await create(shop, visible_range=sent_by("s1" if n else "s2")) for n in range(5)]
    shop.advance(PUBLISHING_S)
    assert "wmC21" not in await seen_by(shop, moments[4]), "it was the fifth, for one of them was s2's"
    assert "wmC1" in await seen_by(shop, moments[4])
    meant = await shop.call("get_moment_customer_list", moment_id=moments[4], userid="s1")
    assert {"userid": "s1", "external_userid": "wmC21"} in meant["customer_list"]
    shop.advance(23 * DAY_S)
    november = await create(shop)
    shop.advance(PUBLISHING_S)
    assert "wmC21" in await seen_by(shop, november)


@pytest.mark.covers("externalcontact/get_moment_list")
async def test_a_customer_sees_three_personal_moments_a_day(shop):
    """5.4: personally published at most 3 per customer per day."""
    book = shop.world.of(MomentBook)
    moments = [book.personal(userid, "自己发的", shop.now_s) for userid in ("s1", "s1", "s2", "s1")]
    assert "wmC21" not in await seen_by(shop, moments[3])
    assert "wmC1" in await seen_by(shop, moments[3])
    shop.advance(DAY_S)
    tomorrow = book.personal("s1", "自己发的", shop.now_s)
    assert "wmC21" in await seen_by(shop, tomorrow)
    shop.world.people.staff["s1"].banned = True
    assert book.personal("s1", "自己发的", shop.now_s) == ""


@seen_by_all
@pytest.mark.covers("externalcontact/get_moment_comments")
async def test_customers_like_and_comment_as_time_goes_by(shop):
    """3.5: comment_list and like_list of external_userid or userid with create_time."""
    moment_id = await create(shop)
    shop.advance(PUBLISHING_S)
    about = {"moment_id": moment_id, "userid": "s1"}
    now = await shop.call("get_moment_comments", **about)
    assert (now["comment_list"], now["like_list"]) == ([], [])
    shop.advance(30 * DAY_S)
    later = await shop.call("get_moment_comments", **about)
    visible = set(await seen_by(shop, moment_id))
    assert {row["external_userid"] for row in later["like_list"]} == visible
    assert {row["external_userid"] for row in later["comment_list"] if "external_userid" in row} == visible
    assert [row["userid"] for row in later["comment_list"] if "userid" in row] == ["s1"] * len(visible)
    assert [row["create_time"] for row in later["like_list"]] == sorted(r["create_time"] for r in later["like_list"])
    assert {touch.customer_id for touch in shop.touches("moment")} == visible


@prompt
@pytest.mark.covers("externalcontact/get_moment_comments")
async def test_few_of_those_who_could_see_a_moment_do(shop):
    """5.4: what is visible is not yet seen: the same seed shows it to the same few."""
    moment_id = await create(shop, visible_range=sent_by("s1", "s2"))
    shop.advance(PUBLISHING_S)
    could = len(await seen_by(shop, moment_id, "s1")) + len(await seen_by(shop, moment_id, "s2"))
    assert 0 < len(shop.touches("moment")) < could / 2


@prompt
@pytest.mark.covers("externalcontact/cancel_moment_task")
async def test_cancelling_keeps_what_is_published(shop):
    """3.5: cancel_moment_task: whoever has not published cannot any more."""
    published = await create(shop)
    shop.advance(PUBLISHING_S)
    stopped = await create(shop)
    for moment_id in (published, stopped, stopped):
        assert await shop.code("cancel_moment_task", moment_id=moment_id) == 0
    shop.advance(DAY_S)
    assert "wmC1" in await seen_by(shop, published)
    tasks = (await shop.call("get_moment_task", moment_id=stopped))["task_list"]
    assert tasks == [{"userid": "s1", "publish_status": 0}]


@pytest.mark.covers("externalcontact/get_moment_list")
async def test_the_list_tells_the_corps_moments_from_those_of_staff(shop):
    """3.5: get_moment_list: creator, filter_type; contents as they were given."""
    images = [{"msgtype": "image", "image": {"media_id": await shop.moment_media_id()}} for _ in range(2)]
    made = await create(shop, attachments=images)
    own = shop.world.of(MomentBook).personal("s2", "自己发的", shop.now_s)
    [by_corp] = await listed(shop, filter_type=0)
    assert by_corp == {
        "moment_id": made,
        "create_time": shop.now_s - DISPATCHING_S,
        "create_type": 0,
        "visible_type": 1,
        "text": TEXT,
        "image": [image["image"] for image in images],
    }
    [by_staff] = await listed(shop, filter_type=1)
    assert (by_staff["moment_id"], by_staff["creator"], by_staff["create_type"]) == (own, "s2", 1)
    assert await listed(shop) == [by_corp, by_staff]
    assert (await listed(shop, creator="s2"), await listed(shop, creator="s1")) == ([by_staff], [])
    for name in ("get_moment_task", "cancel_moment_task"):
        assert await shop.code(name, moment_id=own) == 41061, "one's own moment is no task"


@pytest.mark.covers("externalcontact/get_moment_list", "fact:6.10")
async def test_lists_come_in_pages(shop):
    """3.5: get_moment_list limit at most 20; next_cursor is empty at the end."""
    book = shop.world.of(MomentBook)
    moments = [book.personal("s2", str(number), shop.now_s) for number in range(25)]
    window = {"start_time": START_S, "end_time": START_S + DAY_S}
    first = await shop.call("get_moment_list", **window, limit=100)
    second = await shop.call("get_moment_list", **window, cursor=first["next_cursor"])
    assert [m["moment_id"] for page in (first, second) for m in page["moment_list"]] == moments
    assert ([len(page["moment_list"]) for page in (first, second)], second["next_cursor"]) == ([20, 5], "")
    for name in ("get_moment_send_result", "get_moment_customer_list"):
        about = {"moment_id": moments[0], "userid": "s2", "limit": 15}
        first = await shop.call(name, **about)
        second = await shop.call(name, **about, cursor=first["next_cursor"])
        shown = [row["external_userid"] for page in (first, second) for row in page["customer_list"]]
        assert (shown, second["next_cursor"]) == (CUSTOMERS[10:], "")


@pytest.mark.covers("externalcontact/add_moment_task", "fact:6.6")
async def test_ten_creations_a_minute(shop):
    """4.1: add_moment_task 10/min, then 45009 for a minute."""
    codes = [await shop.code("add_moment_task", text=TEXT) for _ in range(11)]
    assert codes == [0] * 10 + [45009]
    shop.advance(59)
    assert await shop.code("add_moment_task", text=TEXT) == 45009
    shop.advance(1)
    assert await shop.code("add_moment_task", text=TEXT) == 0


@pytest.mark.parametrize("platform_rules", [{"moments": {"running_jobs": 2}}], indirect=True)
@pytest.mark.covers("externalcontact/add_moment_task")
async def test_so_many_jobs_at_once(shop):
    """3.5: pending-job cap 41078; a job that is done makes room."""
    assert [await shop.code("add_moment_task", text=TEXT) for _ in range(3)] == [0, 0, 41078]
    shop.advance(JOB_S)
    assert await shop.code("add_moment_task", text=TEXT) == 0


@pytest.mark.parametrize("platform_rules", [{"moments": {"creations_a_month": 2}}], indirect=True)
@pytest.mark.covers("externalcontact/add_moment_task")
async def test_so_many_creations_a_month(shop):
    """3.5: 100,000 tasks per corp and month, then 41210."""
    assert [await shop.code("add_moment_task", text=TEXT) for _ in range(3)] == [0, 0, 41210]
    shop.advance(23 * DAY_S)
    assert await shop.code("add_moment_task", text=TEXT) == 0


@pytest.mark.parametrize("platform_rules", [{"moments": {"enabled": False}}], indirect=True)
async def test_a_corp_without_moments(shop):
    """4.3: 41211 moments not enabled."""
    assert await shop.code("add_moment_task", text=TEXT) == 41211


@pytest.mark.parametrize("platform_rules", [OVER_SCALE], indirect=True)
async def test_over_the_paid_scale_no_moment_is_made(shop):
    """5.1: over scale there is no proactive reach: 610023."""
    assert await shop.code("add_moment_task", text=TEXT) == 610023


IMAGE = {"msgtype": "image", "image": {"media_id": "$image"}}
VIDEO = {"msgtype": "video", "video": {"media_id": "$video"}}
LINK = {"msgtype": "link", "link": {"title": "t", "url": "https://e/u", "media_id": "$image"}}


@pytest.mark.covers("externalcontact/add_moment_task")
@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"text": None, "attachments": [IMAGE] * 9}, 0),
        ({"attachments": [VIDEO]}, 0),
        ({"attachments": [LINK]}, 0),
        ({"text": {"content": "x" * 2_000}}, 0),
        ({"text": {"content": "x" * 2_001}}, 45002),
        ({"text": {"content": "你" * 1_334}}, 45002),
        ({"text": {"content": "网络赌博"}}, 40201),
        ({"text": None}, 41089),
        ({"text": None, "attachments": []}, 41088),
        ({"attachments": [IMAGE] * 10}, 41064),
        ({"attachments": [VIDEO] * 2}, 41064),
        ({"attachments": [LINK] * 2}, 41064),
        ({"attachments": [IMAGE, LINK]}, 41065),
        ({"attachments": [{"msgtype": "miniprogram"}]}, 41065),
        ({"attachments": [{"msgtype": "image"}]}, 40058),
        ({"attachments": [{"msgtype": "link", "link": {"title": "t"}}]}, 40058),
        ({"attachments": [{"msgtype": "video", "video": {"media_id": "$image"}}]}, 40007),
        ({"attachments": "image"}, 40035),
        ({"visible_range": []}, 40035),
        ({"visible_range": {"sender_list": {"user_list": "s1"}}}, 40035),
        ({"visible_range": {"sender_list": {"department_list": ["1"]}}}, 40035),
        ({"visible_range": {"sender_list": {"user_list": [f"u{n}" for n in range(100_000)]}}}, 0),
        ({"visible_range": {"sender_list": {"user_list": [f"u{n}" for n in range(100_001)]}}}, 40032),
    ],
)
async def test_what_a_moment_may_be(shop, body, errcode):
    """3.5: text at most 2000 chars or 4000 bytes; 9 images or 1 video or 1 link; at most 100,000 members."""
    media = {kind: shop.world.of(MediaBook).add(kind, MOMENT, b"x", "", "x", shop.now_s) for kind in ("image", "video")}
    if isinstance(body.get("attachments"), list):
        body = {**body, "attachments": [filled(attachment, media) for attachment in body["attachments"]]}
    answer = await shop.call("add_moment_task", **{"text": TEXT, **body})
    assert (answer["errcode"], bool(answer["jobid"])) == (errcode, errcode == 0)


def filled(attachment: dict, media: dict) -> dict:
    kind = attachment["msgtype"]
    content = dict(attachment.get(kind, {}))
    if "media_id" in content:
        content["media_id"] = media[content["media_id"].removeprefix("$")].media_id
    return {"msgtype": kind, kind: content} if content else attachment


@pytest.mark.parametrize(
    ("name", "body", "errcode"),
    [
        ("get_moment_task", {"moment_id": "momNone"}, 41059),
        ("get_moment_task", {"moment_id": None}, 40058),
        ("get_moment_task", {"moment_id": 7}, 40035),
        ("get_moment_task", {"cursor": "no"}, 50100),
        ("cancel_moment_task", {"moment_id": "momNone"}, 41059),
        ("get_moment_customer_list", {"moment_id": "momNone"}, 41059),
        ("get_moment_customer_list", {"userid": None}, 40058),
        ("get_moment_customer_list", {"userid": "s2"}, 41060),
        ("get_moment_send_result", {"userid": "s2"}, 41060),
        ("get_moment_send_result", {"limit": "5"}, 40035),
        ("get_moment_comments", {"userid": "s2"}, 41060),
        ("get_moment_list", {}, 40058),
        ("get_moment_list", {"start_time": 0, "end_time": 30 * DAY_S + 1}, 40035),
        ("get_moment_list", {"start_time": 5, "end_time": 4}, 40035),
        ("get_moment_list", {"start_time": 0, "end_time": 1, "filter_type": 3}, 40035),
        ("get_moment_list", {"start_time": 0, "end_time": 1, "creator": "none"}, 40003),
        ("get_moment_list", {"start_time": 0, "end_time": 1, "cursor": "none"}, 50100),
    ],
)
@prompt
async def test_wrong_questions(shop, name, body, errcode):
    """4.3: 41059 moment id, 41060 user; 40003, 40035, 40058 and 50100."""
    moment_id = await create(shop)
    shop.advance(PUBLISHING_S)
    assert await shop.code(name, **{"moment_id": moment_id, "userid": "s1", **body}) == errcode
