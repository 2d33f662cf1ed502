"""Every text a customer would read is looked at, wherever it stands; a body nobody can read is itself a finding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siyu.content import RuleSet, TextAt, lint_payload, texts_of
from siyu.wecom.endpoints import ENDPOINTS

WELCOME = "externalcontact/send_welcome_msg"
BAD = "转发到朋友圈领红包"
BAD_RULE = "induced_sharing.reward_for_share"


def _body(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _places(endpoint: str, payload: Any, rules: RuleSet) -> list[tuple[str, str]]:
    return [(f.rule_id, f.path) for f in lint_payload(endpoint, _body(payload), rules)]


ATTACHMENTS = {
    "text": {"content": BAD},
    "attachments": [
        {"msgtype": "image", "image": {"media_id": "M1"}},
        {"msgtype": "link", "link": {"title": BAD, "desc": BAD, "url": "https://t.cn/a", "picurl": "https://e/p"}},
        {"msgtype": "miniprogram", "miniprogram": {"title": BAD, "appid": "wx1", "page": "/p"}},
    ],
}
IN_ATTACHMENTS = [
    (BAD_RULE, "$.text.content"),
    (BAD_RULE, "$.attachments[1].link.title"),
    (BAD_RULE, "$.attachments[1].link.desc"),
    (BAD_RULE, "$.attachments[2].miniprogram.title"),
    ("redirect.short_link", "$.attachments[1].link.url"),
]


@pytest.mark.parametrize("endpoint", [WELCOME, "externalcontact/add_msg_template", "externalcontact/add_moment_task"])
def test_text_links_and_mini_programs_are_read(rules: RuleSet, endpoint: str) -> None:
    assert sorted(_places(endpoint, ATTACHMENTS, rules)) == sorted(IN_ATTACHMENTS)


@pytest.mark.parametrize(
    ("endpoint", "payload", "path"),
    [
        ("externalcontact/transfer_customer", {"transfer_success_msg": BAD}, "$.transfer_success_msg"),
        ("externalcontact/add_contact_way", {"conclusions": {"text": {"content": BAD}}}, "$.conclusions.text.content"),
        ("externalcontact/group_welcome_template/add", {"text": {"content": BAD}}, "$.text.content"),
        ("message/send", {"msgtype": "text", "text": {"content": BAD}}, "$.text.content"),
        ("message/send", {"msgtype": "markdown", "markdown": {"content": BAD}}, "$.markdown.content"),
        ("message/send", {"msgtype": "textcard", "textcard": {"description": BAD}}, "$.textcard.description"),
        ("message/send", {"msgtype": "news", "news": {"articles": [{}, {"title": BAD}]}}, "$.news.articles[1].title"),
        (
            "message/send",
            {"template_card": {"main_title": {"title": "好", "desc": BAD}}},
            "$.template_card.main_title.desc",
        ),
        (
            "message/send",
            {"template_card": {"horizontal_content_list": [{"keyname": "a", "value": BAD}]}},
            "$.template_card.horizontal_content_list[0].value",
        ),
        (
            "message/send",
            {"template_card": {"select_list": [{"option_list": [{"text": "a"}, {"text": BAD}]}]}},
            "$.template_card.select_list[0].option_list[1].text",
        ),
    ],
)
def test_every_place_of_a_text_is_known(rules: RuleSet, endpoint: str, payload: Any, path: str) -> None:
    assert _places(endpoint, payload, rules) == [(BAD_RULE, path)]


def test_texts_come_with_their_places(rules: RuleSet) -> None:
    assert texts_of(
        WELCOME, {"text": {"content": "您好"}, "attachments": [{"link": {"url": "https://a.cn"}}]}, rules
    ) == [
        TextAt("$.text.content", "您好"),
        TextAt("$.attachments[0].link.url", "https://a.cn", "link"),
    ]


def test_an_endpoint_that_shows_nobody_a_text_has_no_findings(rules: RuleSet) -> None:
    assert lint_payload("externalcontact/mark_tag", b"not JSON", rules) == []
    assert texts_of("externalcontact/mark_tag", {"text": {"content": BAD}}, rules) == []


def test_every_endpoint_that_writes_to_people_is_known(rules: RuleSet) -> None:
    """Of the endpoints this system may call, those that create what somebody will read."""
    silent = {
        "remind_groupmsg_send", "resigned/transfer_customer", "groupchat/transfer", "groupchat/onjob_transfer",
        "add_corp_tag",
    }  # fmt: skip
    writing = {path for path, e in ENDPOINTS.items() if e.repeat in ("create", "once")}
    assert writing - {f"externalcontact/{name}" for name in silent} <= rules.payloads.keys()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"", "$"),
        (b"\xff\xfe", "$"),
        (b"[]", "$"),
        (b'"text"', "$"),
        (b"{", "$"),
        (b"[" * 200_000, "$"),
        (b'{"text":' * 50_000, "$"),
        (b'{"text":{"content":"a"},"text":{"content":"b"}}', "$"),
        (b'{"text":{"content":"a","content":"b"}}', "$"),
        (b'{"text":"a"}', "$.text"),
        (b'{"text":{"content":1}}', "$.text.content"),
        (b'{"attachments":{}}', "$.attachments"),
        (b'{"attachments":[3]}', "$.attachments[0]"),
        (b'{"attachments":[{"link":[]}]}', "$.attachments[0].link"),
    ],
)
def test_a_body_nobody_can_read_is_a_finding(rules: RuleSet, body: bytes, path: str) -> None:
    found = lint_payload(WELCOME, body, rules)

    assert [(f.rule_id, f.severity, f.path, f.span, f.matched) for f in found] == [
        ("payload.unreadable", "block", path, (0, 0), "")
    ]


def test_what_is_absent_or_null_is_nothing(rules: RuleSet) -> None:
    assert _places(WELCOME, {}, rules) == []
    assert _places(WELCOME, {"text": None, "attachments": None}, rules) == []


def test_an_escaped_text_is_read_like_any_other(rules: RuleSet) -> None:
    escaped = json.dumps({"text": {"content": BAD}}).encode()
    assert [f.rule_id for f in lint_payload(WELCOME, escaped, rules)] == [BAD_RULE]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["text", "content", "attachments", "link", "title", "url", "miniprogram"]), inner, max_size=3
    ),
    max_leaves=20,
)  # fmt: skip


@given(body=st.binary(max_size=100) | JSON.map(_body))
def test_any_body_gets_an_answer(rules: RuleSet, body: bytes) -> None:
    for finding in lint_payload(WELCOME, body, rules):
        assert finding.path.startswith("$")
