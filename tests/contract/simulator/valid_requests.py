"""A valid request for every endpoint, in an order in which each finds what it needs: seeds of the fuzz test.

``$name`` stands for what the world was prepared with (``prepared``) or an earlier answer gave (``keeps``: name → path
into the answer). ``codes``: errcodes that the request may get all the same, where success needs a story of its own.
Whoever adds an endpoint adds its request here; the fuzz test fails without.
"""

import copy
import struct
from dataclasses import dataclass, field
from typing import Any

from simulator.world.funds import Projects
from simulator.world.groups import Groups
from simulator.world.payers import Payers
from simulator.world.relations import ContactChange

START_S = 1_760_000_000
DAY_S = 86_400


@dataclass
class Valid:
    """One request. ``upload``: bytes of a file, sent as a form."""

    path: str
    body: dict[str, Any] | None = None
    query: dict[str, str] = field(default_factory=dict)
    upload: bytes | None = None
    keeps: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = (0,)


def post(path: str, *, keeps: dict[str, str] | None = None, codes: tuple[int, ...] = (0,), **body: Any) -> Valid:
    return Valid(path, body, keeps=keeps or {}, codes=codes)


def get(path: str, *, codes: tuple[int, ...] = (0,), **query: str) -> Valid:
    return Valid(path, query=query, codes=codes)


def png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 64, 64) + bytes(9)


EC = "externalcontact/"
LINK = {"msgtype": "link", "link": {"title": "t", "picurl": "https://e/p", "desc": "d", "url": "https://e/u"}}
IMAGE = {"msgtype": "image", "image": {"media_id": "$media"}}
MINI = {"msgtype": "miniprogram", "miniprogram": {"title": "t", "pic_media_id": "$media", "appid": "wx1", "page": "/p"}}
WINDOW = {"start_time": START_S - 7 * DAY_S, "end_time": START_S + 1_000}
PAIR = {"userid": "s1", "external_userid": "wmC1"}
TEXT = {"content": "你好"}
CARD = {
    "card_type": "button_interaction",
    "main_title": {"title": "清理客户", "desc": "20"},
    "horizontal_content_list": [{"keyname": "批次", "value": "B-01"}],
    "task_id": "task-1",
    "button_list": [{"text": "已处理", "style": 1, "key": "done"}, {"text": "跳过", "style": 2, "key": "skip"}],
}
WAY = {"remark": "店", "style": 1, "skip_verify": True, "state": "qr-9", "user": ["s1"], "party": []}
CONCLUSIONS = {"text": TEXT, "link": LINK["link"]}
JOIN_WAY = {
    "scene": 2,
    "remark": "群",
    "auto_create_room": 1,
    "room_base_name": "群",
    "room_base_id": 10,
    "chat_id_list": ["$chat"],
    "state": "g1",
}
RANGE = [{"type": 1, "userid": "s1"}, {"type": 2, "partyid": 1}]
VISIBLE = {
    "sender_list": {"user_list": ["s1"], "department_list": [1]},
    "external_contact_list": {"tag_list": ["$tag"]},
}
LINK_BODY = {
    "link_name": "门店",
    "range": {"user_list": ["s1"], "department_list": [1]},
    "skip_verify": True,
    "priority_option": {"priority_type": 1, "priority_userid_list": ["s1"]},
}
FUND_WINDOW = {"begin_time": START_S - 7 * DAY_S, "end_time": START_S}
UNION = {"unionid": "$unionid", "openid": "$openid"}
MCH_ID = "1900000001"
APPID = "wx0000000000000001"
ORDER = {"appid": APPID, "mchid": MCH_ID, "out_trade_no": "T00001"}
APPLICATION = {
    "business_license_info": {
        "business_license_copy_open_wx_pay_media_id": "$scan",
        "business_license_number": "91310000000000000X",
        "merchant_name": "店",
        "legal_person": "李",
        "company_address": "a",
    },
    "id_card_info": {
        "id_card_copy_open_wx_pay_media_id": "$scan",
        "id_card_national_open_wx_pay_media_id": "$scan",
        "id_card_name": "李",
        "id_card_number": "310000000000000000",
        "id_card_valid_time_begin": "2020-01-01",
        "id_card_valid_time": "2040-01-01",
    },
    "contact_info": {"contact_type": "LEGAL", "mobile_phone": "13800000001", "contact_email": "a@e.example"},
    "account_info": {"account_bank": "b", "account_name": "n", "bank_address_code": "1", "account_number": "1"},
    "sales_scene_info": {"store_name": "店"},
}
KF = {"open_kfid": "$kf"}

REQUESTS: list[Valid] = [
    Valid("media/upload", query={"type": "image"}, upload=png(), keeps={"media": "media_id"}),
    Valid("media/uploadimg", upload=png()),
    Valid(
        "media/upload_attachment",
        query={"media_type": "image", "attachment_type": "1"},
        upload=png(),
        keeps={"moment_media": "media_id"},
    ),
    get("media/get", media_id="$media"),
    get("getcallbackip"),
    get("get_api_domain_ip"),
    # Address book
    get("user/get", userid="s1"),
    get("user/simplelist", department_id="1", fetch_child="1"),
    get("user/list", department_id="1"),
    post("user/list_id", cursor="", limit=10),
    get("department/list", id="1"),
    get("department/simplelist", id="1"),
    get("department/get", id="1"),
    # Customers
    get(EC + "get_follow_user_list"),
    get(EC + "list", userid="s1"),
    get(EC + "get", external_userid="wmC1", cursor=""),
    post(EC + "batch/get_by_user", userid_list=["s1", "s2"], cursor="", limit=50),
    post(EC + "contact_list", cursor="", limit=1_000),
    post(EC + "convert_to_openid", external_userid="wmC1", keeps={"openid": "openid"}),
    post(
        EC + "remark",
        **PAIR,
        remark="李",
        description="d",
        remark_company="c",
        remark_mobiles=["13800000001"],
        remark_pic_mediaid="$media",
    ),
    post(
        EC + "add_corp_tag",
        group_name="等级",
        order=1,
        tag=[{"name": "金", "order": 1}, {"name": "银"}],
        keeps={"group": "tag_group.group_id", "tag": "tag_group.tag.0.id", "tag2": "tag_group.tag.1.id"},
    ),
    post(EC + "get_corp_tag_list", tag_id=["$tag"], group_id=["$group"]),
    post(EC + "edit_corp_tag", id="$tag2", name="铜", order=2),
    post(EC + "mark_tag", **PAIR, add_tag=["$tag"], remove_tag=["$tag2"]),
    post(
        EC + "add_contact_way",
        type=1,
        scene=2,
        **WAY,
        is_exclusive=False,
        conclusions=CONCLUSIONS,
        keeps={"way": "config_id"},
    ),
    post(EC + "get_contact_way", config_id="$way"),
    post(EC + "update_contact_way", config_id="$way", **WAY),
    post(EC + "list_contact_way", **WINDOW, cursor="", limit=100),
    post(EC + "close_temp_chat", **PAIR, codes=(0, 40035, 84061, 48002)),
    post(
        EC + "customer_strategy/create",
        strategy_name="规则",
        parent_id=0,
        admin_list=["s1"],
        privilege={"view_customer_list": True},
        range=RANGE,
        keeps={"strategy": "strategy_id"},
    ),
    post(EC + "customer_strategy/list", cursor="", limit=10),
    post(EC + "customer_strategy/get", strategy_id="$strategy"),
    post(EC + "customer_strategy/get_range", strategy_id="$strategy", cursor="", limit=10),
    post(
        EC + "customer_strategy/edit",
        strategy_id="$strategy",
        strategy_name="新",
        admin_list=["s1"],
        privilege={"share_customer": True},
        range_add=[{"type": 1, "userid": "s2"}],
        range_del=[{"type": 1, "userid": "s1"}],
    ),
    post(
        EC + "add_strategy_tag",
        strategy_id="$strategy",
        group_name="规则",
        tag=[{"name": "A", "order": 1}],
        keeps={"stag": "tag_group.tag.0.id", "sgroup": "tag_group.group_id"},
    ),
    post(EC + "get_strategy_tag_list", strategy_id="$strategy", tag_id=["$stag"]),
    post(EC + "edit_strategy_tag", id="$stag", name="B", order=2),
    # Messages
    post(EC + "send_welcome_msg", welcome_code="$welcome", text=TEXT, attachments=[LINK, IMAGE, MINI]),
    post(
        EC + "add_msg_template",
        chat_type="single",
        external_userid=["wmC1", "wmC2"],
        sender="s1",
        allow_select=False,
        text=TEXT,
        attachments=[IMAGE, LINK],
        tag_filter={"group_list": [{"tag_list": ["$tag"]}]},
        keeps={"msg": "msgid"},
    ),
    post(EC + "add_msg_template", chat_type="group", sender="s1", chat_id_list=["$chat"], text=TEXT),
    post(EC + "get_groupmsg_list_v2", chat_type="single", **WINDOW, creator="s1", filter_type=2, limit=50, cursor=""),
    post(EC + "get_groupmsg_task", msgid="$msg", limit=500, cursor="", codes=(0, 41063)),
    post(EC + "get_groupmsg_send_result", msgid="$msg", userid="s1", limit=500, cursor="", codes=(0, 41063)),
    post(EC + "remind_groupmsg_send", msgid="$msg", codes=(0, 41063)),
    post(EC + "cancel_groupmsg_send", msgid="$msg", codes=(0, 41063)),
    post(
        EC + "group_welcome_template/add",
        text={"content": "欢迎 %NICKNAME%"},
        link=LINK["link"],
        agentid=1000002,
        notify=1,
        keeps={"template": "template_id"},
    ),
    post(EC + "group_welcome_template/edit", template_id="$template", text=TEXT, image={"media_id": "$media"}),
    post(EC + "group_welcome_template/get", template_id="$template"),
    # Moments
    post(
        EC + "add_moment_task",
        text=TEXT,
        attachments=[{"msgtype": "image", "image": {"media_id": "$moment_media"}}],
        visible_range=VISIBLE,
        keeps={"job": "jobid"},
    ),
    get(EC + "get_moment_task_result", jobid="$job"),
    post(EC + "get_moment_list", **WINDOW, creator="s1", filter_type=2, cursor="", limit=20),
    post(EC + "get_moment_task", moment_id="$moment", cursor="", limit=100, codes=(0, 41059)),
    post(
        EC + "get_moment_customer_list",
        moment_id="$moment",
        userid="s1",
        cursor="",
        limit=100,
        codes=(0, 41059, 41060, 41062),
    ),
    post(
        EC + "get_moment_send_result",
        moment_id="$moment",
        userid="s1",
        cursor="",
        limit=100,
        codes=(0, 41059, 41060, 41062),
    ),
    post(EC + "get_moment_comments", moment_id="$moment", userid="s1", codes=(0, 41059, 41060, 41062)),
    post(EC + "cancel_moment_task", moment_id="$moment", codes=(0, 41059)),
    # Inheritance and groups
    post(
        EC + "transfer_customer",
        handover_userid="s2",
        takeover_userid="s3",
        external_userid=["wmC2"],
        transfer_success_msg="您好",
    ),
    post(EC + "transfer_result", handover_userid="s2", takeover_userid="s3", cursor=""),
    post(EC + "get_unassigned_list", page_size=1_000, cursor=""),
    post(
        EC + "resigned/transfer_customer",
        handover_userid="s2",
        takeover_userid="s3",
        external_userid=["wmC2"],
        codes=(40097,),
    ),
    post(EC + "resigned/transfer_result", handover_userid="s2", takeover_userid="s3", cursor="", codes=(0, 40097)),
    post(EC + "groupchat/onjob_transfer", chat_id_list=["$chat2"], new_owner="s2"),
    post(EC + "groupchat/transfer", chat_id_list=["$chat"], new_owner="s2"),
    post(EC + "groupchat/list", status_filter=0, owner_filter={"userid_list": ["s1"]}, cursor="", limit=10),
    post(EC + "groupchat/get", chat_id="$chat", need_name=1),
    post(EC + "opengid_to_chatid", opengid="$opengid"),
    post(EC + "groupchat/add_join_way", **JOIN_WAY, keeps={"join": "config_id"}),
    post(EC + "groupchat/get_join_way", config_id="$join"),
    post(EC + "groupchat/update_join_way", config_id="$join", **JOIN_WAY),
    # Statistics
    post(EC + "get_user_behavior_data", userid=["s1"], partyid=[1], **WINDOW),
    post(
        EC + "groupchat/statistic",
        day_begin_time=START_S - 5 * DAY_S,
        day_end_time=START_S - DAY_S,
        owner_filter={"userid_list": ["s1"]},
        order_by=2,
        order_asc=0,
        offset=0,
        limit=100,
    ),
    post(
        EC + "groupchat/statistic_group_by_day",
        day_begin_time=START_S - 5 * DAY_S,
        day_end_time=START_S - DAY_S,
        owner_filter={"userid_list": ["s1"]},
    ),
    # Identities
    post(EC + "unionid_to_external_userid", **UNION),
    post("idconvert/unionid_to_external_userid", **UNION, subject_type=0),
    post("service/externalcontact/unionid_to_external_userid_3rd", **UNION, corpid="$corp", codes=(0, 48002)),
    post("corpgroup/unionid_to_external_userid", **UNION, corpid="$corp", codes=(0, 48002)),
    post("corpgroup/unionid_to_pending_id", **UNION),
    post("corpgroup/batch/external_userid_to_pending_id", external_userid=["wmC1"], chat_id="$chat"),
    # Payments
    post(
        "externalpay/get_bill_list",
        begin_time=START_S,
        end_time=START_S + 100,
        payee_userid="s1",
        cursor="",
        limit=10,
    ),
    post("externalpay/get_payment_info", payment_id="$project"),
    post("externalpay/get_fund_flow", **FUND_WINDOW, mch_id=MCH_ID, cursor="", limit=100),
    post("externalpay/getmerchant", mch_id=MCH_ID),
    post(
        "externalpay/set_mch_use_scope",
        mch_id=MCH_ID,
        allow_use_scope={"user": ["s1"], "partyid": [1], "tagid": []},
    ),
    post("externalpay/addmerchant", mch_id="1900000002", merchant_name="x", codes=(660014,)),
    post("externalpay/delmerchant", mch_id=MCH_ID, codes=(660014,)),
    post(
        "miniapppay/create_order",
        **ORDER,
        description="tea",
        amount={"total": 1_000, "currency": "CNY"},
        payer={"openid": "$payer"},
        attach="shelf-3",
        time_expire="2025-10-09T18:00:00+08:00",
        keeps={"prepay": "prepay_id"},
    ),
    post("miniapppay/get_order", **ORDER),
    post("miniapppay/get_sign", appid=APPID, prepay_id="$prepay", nonce="n0nce", timestamp=START_S, sign_type="RSA"),
    post("miniapppay/close_order", **ORDER, codes=(0, 60236)),
    post(
        "miniapppay/refund",
        **ORDER,
        out_refund_no="R1",
        reason="damaged",
        amount={"refund": 400, "total": 1_000, "currency": "CNY"},
        codes=(0, 60236, 60239, 60240, 60243, 720501),
    ),
    post("miniapppay/get_refund_detail", mchid=MCH_ID, out_refund_no="R1", codes=(0, 720501, 720510, 60243)),
    post("miniapppay/get_bill", mchid=MCH_ID, bill_date="2025-10-08", bill_type="ALL", tar_type="GZIP"),
    Valid("miniapppay/upload_image", upload=png(), keeps={"scan": "open_wx_pay_media_id"}),
    post(
        "miniapppay/apply_mch",
        out_request_no="A1",
        organization_type=2,
        merchant_short_name="店",
        userid="s1",
        business_id=1,
        owner=True,
        **APPLICATION,
    ),
    post("miniapppay/get_applyment_status", out_request_no="A1"),
    # Customer service
    post("kf/account/add", name="客服", media_id="$media", keeps={"kf": "open_kfid"}),
    post("kf/account/list", offset=0, limit=100),
    post("kf/account/update", **KF, name="新客服", media_id="$media"),
    post("kf/add_contact_way", **KF, scene="s1"),
    post("kf/servicer/add", **KF, userid_list=["s1"], department_id_list=[1]),
    get("kf/servicer/list", open_kfid="$kf"),
    post("kf/service_state/get", **KF, external_userid="wmC1", codes=(0, 95011, 95013, 40096, 610004, 84061)),
    post(
        "kf/service_state/trans",
        **KF,
        external_userid="wmC1",
        service_state=3,
        servicer_userid="s1",
        codes=(0, 95013, 95016, 95018, 95019, 95014, 40096, 610004, 84061),
    ),
    post("kf/sync_msg", **KF, cursor="", token="", limit=1_000, voice_format=0),
    post(
        "kf/send_msg",
        **KF,
        touser="wmC1",
        msgid="m-1",
        msgtype="text",
        text=TEXT,
        codes=(0, 95002, 95013, 95018, 95031, 40096, 610004, 84061),
    ),
    post("kf/send_msg_on_event", code="none", msgid="m-2", msgtype="text", text=TEXT, codes=(0, 40035, 95007, 41050)),
    post("kf/customer/batchget", external_userid_list=["wmC1"], need_enter_session_context=1),
    post("kf/get_corp_statistic", **KF, start_time=START_S - 5 * DAY_S, end_time=START_S - DAY_S),
    post(
        "kf/get_servicer_statistic",
        **KF,
        servicer_userid="s1",
        start_time=START_S - 5 * DAY_S,
        end_time=START_S - DAY_S,
    ),
    # Messages to staff
    post(
        "message/send",
        touser="s1|s2",
        toparty="1",
        msgtype="text",
        agentid=1000002,
        text=TEXT,
        safe=0,
        enable_duplicate_check=1,
        duplicate_check_interval=1800,
        keeps={"app_msg": "msgid"},
    ),
    post(
        "message/send",
        touser="s1",
        msgtype="template_card",
        agentid=1000002,
        template_card=CARD,
        keeps={"code": "response_code"},
    ),
    post("message/send", touser="@all", msgtype="markdown", agentid=1000002, markdown=TEXT),
    post(
        "message/send",
        touser="s1",
        msgtype="news",
        agentid=1000002,
        news={"articles": [{"title": "t", "description": "d", "url": "https://e/u", "picurl": "https://e/p"}]},
    ),
    post(
        "message/send",
        touser="s1",
        msgtype="textcard",
        agentid=1000002,
        textcard={"title": "t", "description": "d", "url": "https://e/u", "btntxt": "b"},
    ),
    post(
        "message/update_template_card",
        userids=["s1"],
        partyids=[1],
        tagids=[],
        atall=0,
        agentid=1000002,
        response_code="$code",
        button={"replace_name": "已处理"},
    ),
    post("message/recall", msgid="$app_msg"),
    # Acquisition links
    post(EC + "customer_acquisition/create_link", **LINK_BODY, keeps={"link": "link.link_id"}),
    post(EC + "customer_acquisition/list_link", cursor="", limit=100),
    post(EC + "customer_acquisition/get", link_id="$link"),
    post(EC + "customer_acquisition/update_link", link_id="$link", **LINK_BODY),
    post(EC + "customer_acquisition/customer", link_id="$link", cursor="", limit=100),
    post(EC + "customer_acquisition/statistic", link_id="$link", **WINDOW),
    post(EC + "customer_acquisition/get_chat_info", chat_key="none", codes=(0, 41201)),
    get(EC + "customer_acquisition_quota"),
]

ENDS: list[Valid] = [
    post(EC + "del_strategy_tag", tag_id=["$stag"], group_id=["$sgroup"]),
    post(EC + "customer_strategy/del", strategy_id="$strategy"),
    post(EC + "del_corp_tag", tag_id=["$tag"], group_id=["$group"]),
    post(EC + "del_contact_way", config_id="$way"),
    post(EC + "group_welcome_template/del", template_id="$template"),
    post(EC + "groupchat/del_join_way", config_id="$join"),
    post(EC + "customer_acquisition/delete_link", link_id="$link"),
    post("kf/servicer/del", **KF, userid_list=["s1"], department_id_list=[1]),
    post("kf/account/del", **KF),
]
"""What ends things: last, so that everything else has found them."""


def prepared(wecom: Any) -> dict[str, Any]:
    """Friends, groups and a welcome code; what they are called."""
    world, now_s = wecom.world, wecom.clock.now_ms() // 1000
    for staff, customer in (("s1", "wmC1"), ("s2", "wmC2"), ("s1", "wmC2")):
        change = ContactChange(now_s - 100, world.corp_id, staff, customer, "add", "qr-1")
        assert world.happen(change)
    greeted = ContactChange(now_s, world.corp_id, "s3", "wmC1", "add", "qr-1", True)
    assert world.happen(greeted)
    groups = world.of(Groups)
    chat = groups.create("s1", ["s2", "s3", "wmC1"], now_s - 50)
    other = groups.create("s1", ["s2", "wmC2"], now_s - 50)
    projects = world.of(Projects)
    project = projects.start(agent_id=wecom.corp.agent_id, staff_id="s1", amount_fen=500, description="tea")
    chat_ids = [made if isinstance(made, str) else made.chat_id for made in (chat, other)]
    return {
        "corp": world.corp_id,
        "welcome": world.welcomes.issued[-1].code,
        "chat": chat_ids[0],
        "chat2": chat_ids[1],
        "opengid": groups.opengid(chat_ids[0]),
        "unionid": world.people.customer("wmC1").unionid,
        "moment": "momNone",
        "project": project,
        "payer": world.of(Payers).openid("wmC1", APPID),
    }


def filled(value: Any, names: dict[str, Any]) -> Any:
    """A copy with every ``$name`` replaced."""
    if isinstance(value, str) and value.startswith("$"):
        return copy.deepcopy(names[value[1:]])
    if isinstance(value, dict):
        return {key: filled(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, names) for inner in value]
    return value


def kept(answer: Any, path: str) -> Any:
    """What stands at ``a.0.b`` of an answer."""
    for step in path.split("."):
        answer = answer[int(step)] if step.isdigit() else answer[step]
    return answer


FORM = "multipart/form-data; boundary=fuzz"


def form(content: bytes) -> bytes:
    """A file as the upload endpoints take it."""
    head = b'--fuzz\r\nContent-Disposition: form-data; name="media"; filename="a.png"; filelength=%d\r\n' % len(content)
    return head + b"Content-Type: image/png\r\n\r\n" + content + b"\r\n--fuzz--\r\n"
