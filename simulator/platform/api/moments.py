"""Moments for customers (客户朋友圈, fact sheet 3.5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from simulator.platform import fields
from simulator.platform.api.welcome import check_media, check_words
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import TEXTS, ApiError
from simulator.world.days import DAY_S
from simulator.world.media import MOMENT
from simulator.world.moments import DONE, Moment, MomentBook, Order, Publication, Reaction

API = Api()

_BODY_LIMIT = 8 << 20
"""100,000 userids do not fit into an ordinary body."""
_MAX_CHARS, _MAX_BYTES = 2_000, 4_000
_MOST = {"image": 9, "video": 1, "link": 1}
_SPAN_S = 30 * DAY_S
_LIST_PAGE = 20
_PAGE, _PAGE_DEFAULT = 1_000, 500
_RESULT_PAGE, _RESULT_DEFAULT = 5_000, 3_000
_NO_RESULT: dict[str, Any] = {
    "errcode": 0,
    "errmsg": "ok",
    "moment_id": "",
    "invalid_sender_list": {"user_list": [], "department_list": []},
    "invalid_external_contact_list": {"tag_list": []},
}


@API.post("externalcontact/add_moment_task", body_limit=_BODY_LIMIT, jobid="")
def add_moment_task(call: Call) -> Answer:
    """Begins a job. Without senders all staff get the task; without tags it is for all their customers.

    Members, departments and tags that do not exist are told of by the job's result. A body that is refused is no
    creation and counts for no limit.
    """
    book = call.corp.of(MomentBook)
    body = call.body
    text, attachments = _content(call)
    visible = fields.obj(body, "visible_range")
    senders = fields.obj(visible, "sender_list")
    staff = fields.texts(senders, "user_list", most=book.rules.senders_a_call)
    departments = fields.wholes(senders, "department_list", most=book.rules.senders_a_call)
    tags = fields.texts(fields.obj(visible, "external_contact_list"), "tag_list", most=book.rules.senders_a_call)
    errcode = book.objection(call.now_s, call.clock_s)
    if errcode:
        raise ApiError(errcode)
    everybody = not staff and not departments
    job = book.order(Order(text, attachments, staff, departments, tags, everybody), call.now_s)
    return {"jobid": job.jobid}


def _content(call: Call) -> tuple[str, list[dict[str, Any]]]:
    """Text, and nine images, one video or one link; at least one of the two."""
    body = call.body
    text = fields.text(fields.obj(body, "text"), "content", max_chars=_MAX_CHARS, max_bytes=_MAX_BYTES, too_long=45002)
    attachments = fields.objects(body, "attachments")
    if not text and not attachments:
        raise ApiError(41089 if body.get("attachments") is None else 41088)
    said, kinds = [text], Counter[str]()
    for attachment in attachments:
        kind = fields.text(attachment, "msgtype", required=True)
        if kind not in _MOST:
            raise ApiError(41065)
        kinds[kind] += 1
        content = fields.obj(attachment, kind, required=True)
        media_id = fields.text(content, "media_id", required=kind != "link")
        if kind == "link":
            fields.text(content, "url", required=True)
            said.append(fields.text(content, "title"))
        if media_id:
            check_media(call, media_id, "video" if kind == "video" else "image", MOMENT)
    if len(kinds) > 1:
        raise ApiError(41065)
    if any(count > _MOST[kind] for kind, count in kinds.items()):
        raise ApiError(41064)
    check_words(call, said)
    return text, attachments


@API.get("externalcontact/get_moment_task_result", status=0, result=_NO_RESULT)
def get_moment_task_result(call: Call) -> Answer:
    """How far a job is; unknown or older than a day: 40035 (the platform documents no code)."""
    jobid = call.query.get("jobid", "")
    if not jobid:
        raise ApiError(40058)
    book = call.corp.of(MomentBook)
    job = book.jobs.get(jobid)
    if job is None:
        raise ApiError(40035)
    status = book.job_status(job, call.now_s)
    result = _NO_RESULT
    if status == DONE:
        result = {
            "errcode": job.errcode,
            "errmsg": TEXTS[job.errcode],
            "moment_id": job.moment_id,
            "invalid_sender_list": {"user_list": job.wrong_staff, "department_list": job.wrong_departments},
            "invalid_external_contact_list": {"tag_list": job.wrong_tags},
        }
    return {"status": status, "type": "add_moment_task", "result": result}


@API.post("externalcontact/cancel_moment_task")
def cancel_moment_task(call: Call) -> Answer:
    """Whoever has not published cannot any more; what is published stays. Once more changes nothing."""
    _of_corp(call).cancelled = True
    return {}


@API.post("externalcontact/get_moment_list", moment_list=[])
def get_moment_list(call: Call) -> Answer:
    """Moments of at most 30 days, the corp's (0), staff's own (1), or both (2), oldest first."""
    body = call.body
    start_s, end_s = fields.whole(body, "start_time", least=0), fields.whole(body, "end_time", least=0)
    if not 0 <= end_s - start_s <= _SPAN_S:
        raise ApiError(40035)
    creator = fields.text(body, "creator")
    if creator and creator not in call.corp.people.staff:
        raise ApiError(40003)
    kind = fields.whole(body, "filter_type", default=2, least=0, most=2)
    limit = fields.clipped(body, "limit", default=_LIST_PAGE, most=_LIST_PAGE)
    found = [
        moment
        for moment in call.corp.of(MomentBook).between(start_s, end_s)
        if (kind == 2 or bool(moment.creator) == (kind == 1)) and (not creator or moment.creator == creator)
    ]
    scope = f"moments|{start_s}|{end_s}|{creator}|{kind}"
    shown, cursor = call.page(scope, found, fields.text(body, "cursor"), limit)
    return {"moment_list": [_moment(moment) for moment in shown], "next_cursor": cursor}


@API.post("externalcontact/get_moment_task", task_list=[])
def get_moment_task(call: Call) -> Answer:
    """Who has published a moment of the corp's; 41079 while the tasks are under way."""
    moment = _of_corp(call)
    limit = fields.clipped(call.body, "limit", default=_PAGE_DEFAULT, most=_PAGE)
    if call.now_s < moment.ready_s:
        raise ApiError(41079)
    scope = f"moment_task|{moment.moment_id}"
    shown, cursor = call.page(scope, list(moment.tasks.items()), fields.text(call.body, "cursor"), limit)
    tasks = [{"userid": userid, "publish_status": int(done is not None)} for userid, done in shown]
    return {"task_list": tasks, "next_cursor": cursor}


@API.post("externalcontact/get_moment_customer_list", customer_list=[])
def get_moment_customer_list(call: Call) -> Answer:
    """Customers a member published a moment for, whether or not they had had their share already."""
    moment, userid, published = _published(call)
    limit = fields.clipped(call.body, "limit", default=_PAGE_DEFAULT, most=_PAGE)
    scope = f"moment_customers|{moment.moment_id}|{userid}"
    shown, cursor = call.page(scope, list(published.range), fields.text(call.body, "cursor"), limit)
    customers = [{"userid": userid, "external_userid": customer_id} for customer_id in shown]
    return {"customer_list": customers, "next_cursor": cursor}


@API.post("externalcontact/get_moment_send_result", customer_list=[])
def get_moment_send_result(call: Call) -> Answer:
    """Customers who can see what a member published."""
    moment, userid, published = _published(call)
    limit = fields.clipped(call.body, "limit", default=_RESULT_DEFAULT, most=_RESULT_PAGE)
    scope = f"moment_result|{moment.moment_id}|{userid}"
    shown, cursor = call.page(scope, list(published.visible), fields.text(call.body, "cursor"), limit)
    return {"customer_list": [{"external_userid": customer_id} for customer_id in shown], "next_cursor": cursor}


@API.post("externalcontact/get_moment_comments", comment_list=[], like_list=[])
def get_moment_comments(call: Call) -> Answer:
    """Comments on what a member published, and likes, so far."""
    _, _, published = _published(call)
    return {
        "comment_list": _reactions(published.comments, call.now_s),
        "like_list": _reactions(published.likes, call.now_s),
    }


def _of_id(call: Call) -> Moment:
    moment = call.corp.of(MomentBook).moments.get(fields.text(call.body, "moment_id", required=True))
    if moment is None:
        raise ApiError(41059)
    return moment


def _of_corp(call: Call) -> Moment:
    """A moment of the corp's; staff's own are no tasks (41061)."""
    moment = _of_id(call)
    if moment.creator:
        raise ApiError(41061)
    return moment


def _published(call: Call) -> tuple[Moment, str, Publication]:
    """What a member published: somebody without the task is 41060, one who has not published 41062."""
    moment = _of_id(call)
    userid = fields.text(call.body, "userid", required=True)
    if userid not in moment.tasks:
        raise ApiError(41060)
    if call.now_s < moment.ready_s:
        raise ApiError(41079)
    published = moment.tasks[userid]
    if published is None:
        raise ApiError(41062)
    return moment, userid, published


def _moment(moment: Moment) -> dict[str, Any]:
    """``creator`` is absent for moments made by an app, as with mass messages."""
    shown: dict[str, Any] = {
        "moment_id": moment.moment_id,
        "create_time": moment.created_s,
        "create_type": 1 if moment.creator else 0,
        "visible_type": 0 if moment.tags else 1,
    }
    if moment.creator:
        shown["creator"] = moment.creator
    if moment.text:
        shown["text"] = {"content": moment.text}
    for attachment in moment.attachments:
        kind = attachment["msgtype"]
        if kind == "image":
            shown.setdefault("image", []).append({"media_id": attachment["image"]["media_id"]})
        else:
            shown[kind] = attachment[kind]
    return shown


def _reactions(reactions: Iterable[Reaction], now_s: int) -> list[dict[str, Any]]:
    return [
        {"userid" if reaction.by_staff else "external_userid": reaction.who, "create_time": reaction.time_s}
        for reaction in reactions
        if reaction.time_s <= now_s
    ]
