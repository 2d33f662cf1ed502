"""App messages to staff, their cards, and taking them back (fact sheet 3.12).

Texts too long are cut as the sheet says for ``text``; titles and descriptions of text cards and news likewise, a
markdown too long is 45002. A msgtype that does not exist is 40035, as the sheet names no code for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simulator.platform import fields
from simulator.platform.api.welcome import check_media
from simulator.platform.endpoint import Answer, Api, Call
from simulator.platform.errors import ApiError
from simulator.world.discipline import Discipline
from simulator.world.media import MESSAGE
from simulator.world.messages import EVERYBODY, INTERACTIVE, MessageBook, MessageRules, Recipients

API = Api()
ALWAYS = (Discipline,)

_TASK_ID = re.compile(r"[0-9A-Za-z_\-@]*")


@API.post("message/send", invaliduser="", invalidparty="", invalidtag="", unlicenseduser="")
def send(call: Call) -> Answer:
    """Sends one message. Recipients who do not exist are named in the answer, which is 0 unless all of them are so.

    With ``enable_duplicate_check`` the same call within the interval is answered as the first was and sends nothing.
    A member past 30 a minute or 1,000 an hour of this app gets nothing, and nobody is told.
    ``unlicenseduser`` stays empty: interface licences are asked of providers' apps, these are a corp's own.
    """
    body, book = call.body, call.corp.of(MessageBook)
    rules = book.rules
    _check_agent(call)
    kind = fields.text(body, "msgtype", required=True)
    if kind not in _CONTENTS:
        raise ApiError(40035)
    fields.whole(body, "safe", default=0, least=0, most=2)
    fields.flag(body, "enable_id_trans")
    checked = fields.flag(body, "enable_duplicate_check")
    interval_s = fields.whole(
        body, "duplicate_check_interval", default=rules.duplicate_default_s, least=0, most=rules.duplicate_most_s
    )
    recipients = _recipients(call, book)
    content = _CONTENTS[kind](call, fields.obj(body, kind, required=True), rules)
    if checked and (answer := book.repeated(call.app.agent_id, body, interval_s, call.now_s)) is not None:
        return answer
    if kind == "template_card" and (task_id := content.get("task_id")):
        book.cards.check_task(call.app.agent_id, task_id)
    message, code = book.send(call.app.agent_id, recipients.members, kind, content, call.now_s)
    answer = {**_invalid(recipients), "unlicenseduser": "", "msgid": message.msgid}
    if code:
        answer["response_code"] = code
    if checked:
        book.remember(call.app.agent_id, body, call.now_s, message.msgid, answer)
    return answer


@API.post("message/update_template_card", invaliduser=[])
def update_template_card(call: Call) -> Answer:
    """Closes a card's buttons under another name, or puts another card in its place, for some recipients or all.

    Who did not get the card is in ``invaliduser``. A request that is refused leaves the response code good.
    """
    body, book = call.body, call.corp.of(MessageBook)
    _check_agent(call)
    users = fields.texts(body, "userids", most=book.rules.users)
    parties = fields.wholes(body, "partyids", most=book.rules.parties)
    tags = fields.wholes(body, "tagids", most=book.rules.tags)
    everybody = fields.flag(body, "atall")
    code = fields.text(body, "response_code", required=True)
    message = book.cards.message_of(call.app.agent_id, code, call.now_s)
    if not (users or parties or tags or everybody):
        raise ApiError(82001)
    replace_name, card = "", None
    if body.get("template_card") is not None:
        card = _template_card(call, fields.obj(body, "template_card"), book.rules, replaces=message.content)
        if task_id := card.get("task_id"):
            book.cards.check_task(call.app.agent_id, task_id, message.msgid)
    else:
        replace_name = fields.text(fields.obj(body, "button", required=True), "replace_name", required=True)
    chosen = tuple(message.received)
    missing: tuple[str, ...] = ()
    if not everybody:
        meant = book.resolve(call.app.agent_id, users, list(map(str, parties)), list(map(str, tags)))
        got = message.received
        chosen = tuple(staff_id for staff_id in meant.members if staff_id in got)
        missing = tuple(staff_id for staff_id in users if staff_id not in got)
        if not chosen:
            raise ApiError(81013, empties={"invaliduser": [staff_id.lower() for staff_id in missing]})
    book.cards.update(code, chosen, call.now_s, card=card, replace_name=replace_name)
    return {"invaliduser": [staff_id.lower() for staff_id in missing]}


@API.post("message/recall")
def recall(call: Call) -> Answer:
    """Takes a message of this app back within 24 h."""
    call.corp.of(MessageBook).recall(call.app.agent_id, fields.text(call.body, "msgid", required=True), call.now_s)
    return {}


def _check_agent(call: Call) -> None:
    if str(fields.whole(call.body, "agentid", missing=40056)) != call.app.agent_id:
        raise ApiError(301002)


def _recipients(call: Call, book: MessageBook) -> Recipients:
    rules = book.rules
    lists = []
    for name, most in (("touser", rules.users), ("toparty", rules.parties), ("totag", rules.tags)):
        found = list(dict.fromkeys(filter(None, fields.text(call.body, name).split("|"))))
        if len(found) > most:
            raise ApiError(40032)
        lists.append(found)
    users, parties, tags = lists
    if EVERYBODY in users:
        users, parties, tags = [EVERYBODY], [], []
    if not (users or parties or tags):
        raise ApiError(82001)
    recipients = book.resolve(call.app.agent_id, users, parties, tags)
    if not recipients.members:
        raise ApiError(81013, empties=_invalid(recipients))
    return recipients


def _invalid(recipients: Recipients) -> dict[str, Any]:
    return {
        "invaliduser": "|".join(recipients.invalid_users),
        "invalidparty": "|".join(recipients.invalid_parties),
        "invalidtag": "|".join(recipients.invalid_tags),
    }


# Contents: each reader answers what arrives.

Content = dict[str, Any]


def _cut(text: str, most_bytes: int) -> str:
    """At most so many bytes, no character torn."""
    return text.encode()[:most_bytes].decode(errors="ignore")


def _text(_call: Call, content: Content, rules: MessageRules) -> Content:
    return {"content": _cut(fields.text(content, "content", required=True), rules.text_bytes)}


def _markdown(_call: Call, content: Content, rules: MessageRules) -> Content:
    fields.text(content, "content", required=True, max_bytes=rules.markdown_bytes, too_long=45002)
    return content


def _media(kind: str) -> Callable[[Call, Content, MessageRules], Content]:
    def read(call: Call, content: Content, rules: MessageRules) -> Content:
        check_media(call, fields.text(content, "media_id", required=True), kind, MESSAGE)
        if kind == "video":
            return content | _cut_texts(content, rules, title=False, description=False)
        return content

    return read


def _cut_texts(content: Content, rules: MessageRules, *, title: bool, description: bool) -> Content:
    """Title and description, cut; each needed or not."""
    return {
        "title": _cut(fields.text(content, "title", required=title), rules.title_bytes),
        "description": _cut(fields.text(content, "description", required=description), rules.description_bytes),
    }


def _textcard(_call: Call, content: Content, rules: MessageRules) -> Content:
    fields.text(content, "url", required=True, max_bytes=rules.url_bytes)
    fields.text(content, "btntxt")
    return content | _cut_texts(content, rules, title=True, description=True)


def _articles(content: Content, rules: MessageRules) -> list[Content]:
    return fields.objects(content, "articles", required=True, most=rules.articles, too_many=45008)


def _news(_call: Call, content: Content, rules: MessageRules) -> Content:
    articles = []
    for article in _articles(content, rules):
        url = fields.text(article, "url", max_bytes=rules.url_bytes)
        appid, pagepath = fields.text(article, "appid"), fields.text(article, "pagepath")
        if not url and not (appid and pagepath):
            raise ApiError(40058)
        fields.text(article, "picurl")
        articles.append(article | _cut_texts(article, rules, title=True, description=False))
    return {"articles": articles}


def _mpnews(call: Call, content: Content, rules: MessageRules) -> Content:
    articles = []
    for article in _articles(content, rules):
        check_media(call, fields.text(article, "thumb_media_id", required=True), "image", MESSAGE)
        fields.text(article, "content", required=True, max_bytes=_MPNEWS_BYTES, too_long=45002)
        for name in ("author", "content_source_url", "digest"):
            fields.text(article, name)
        articles.append(article | {"title": _cut(fields.text(article, "title", required=True), rules.title_bytes)})
    return {"articles": articles}


_MPNEWS_BYTES = 666 << 10
_NOTICE_ITEMS = 10


def _miniprogram_notice(_call: Call, content: Content, _rules: MessageRules) -> Content:
    fields.text(content, "appid", required=True)
    fields.text(content, "title", required=True)
    for name in ("page", "description"):
        fields.text(content, name)
    fields.flag(content, "emphasis_first_item")
    for item in fields.objects(content, "content_item", most=_NOTICE_ITEMS):
        fields.text(item, "key", required=True)
        fields.text(item, "value", required=True)
    return content


def _sent_card(call: Call, content: Content, rules: MessageRules) -> Content:
    return _template_card(call, content, rules)


_CONTENTS: dict[str, Callable[[Call, Content, MessageRules], Content]] = {
    "text": _text,
    "image": _media("image"),
    "voice": _media("voice"),
    "video": _media("video"),
    "file": _media("file"),
    "textcard": _textcard,
    "news": _news,
    "mpnews": _mpnews,
    "markdown": _markdown,
    "miniprogram_notice": _miniprogram_notice,
    "template_card": _sent_card,
}


# Template cards


def _template_card(
    call: Call, card: Content, rules: MessageRules, *, replaces: Mapping[str, Any] | None = None
) -> Content:
    """Checks a card; the one that ``replaces`` another keeps its task_id when it names none."""
    kind = fields.text(card, "card_type", required=True)
    if kind not in _CARDS:
        raise ApiError(40035)
    title = fields.text(fields.obj(card, "main_title"), "title")
    fields.text(fields.obj(card, "main_title"), "desc")
    subtitle = fields.text(card, "sub_title_text")
    if not (title or (subtitle and kind == "text_notice")):
        raise ApiError(40058)
    for name, texts in _PLAIN_PARTS.items():
        part = fields.obj(card, name)
        for text in texts:
            fields.text(part, text)
    _check_lists(call, card, rules)
    _CARDS[kind](card, rules)
    _check_card_action(card, required=kind in ("text_notice", "news_notice"))
    if kind in INTERACTIVE and not call.app.callback_url:
        raise ApiError(43012)
    return card | _task_id(card, rules, needed=kind in INTERACTIVE or bool(card.get("action_menu")), replaces=replaces)


_PLAIN_PARTS = {
    "source": ("icon_url", "desc"),
    "emphasis_content": ("title", "desc"),
    "quote_area": ("url", "title", "quote_text"),
}


def _task_id(card: Content, rules: MessageRules, *, needed: bool, replaces: Mapping[str, Any] | None) -> dict[str, str]:
    """42014: characters or length; 42016: missing."""
    task_id = fields.text(card, "task_id", max_bytes=rules.task_id_bytes, too_long=42014)
    if not _TASK_ID.fullmatch(task_id):
        raise ApiError(42014)
    task_id = task_id or str((replaces or {}).get("task_id", ""))
    if needed and not task_id:
        raise ApiError(42016)
    return {"task_id": task_id} if task_id else {}


def _check_lists(call: Call, card: Content, rules: MessageRules) -> None:
    for row in fields.objects(card, "horizontal_content_list", most=rules.horizontals):
        fields.text(row, "keyname", required=True)
        fields.text(row, "value")
        kind = fields.whole(row, "type", default=0, least=0, most=3)
        if kind == 1:
            fields.text(row, "url", required=True)
        elif kind == 2:
            check_media(call, fields.text(row, "media_id", required=True), "file", MESSAGE)
        elif kind == 3:
            fields.text(row, "userid", required=True)
    for jump in fields.objects(card, "jump_list", most=rules.jumps):
        fields.text(jump, "title", required=True)
        _check_target(jump, fields.whole(jump, "type", default=0, least=0, most=2))
    if card.get("action_menu") is not None:
        menu = fields.obj(card, "action_menu")
        fields.text(menu, "desc")
        for action in fields.objects(menu, "action_list", required=True, most=rules.menu_actions):
            fields.text(action, "text", required=True)
            fields.text(action, "key", required=True, max_bytes=rules.key_bytes)


def _check_card_action(card: Content, *, required: bool) -> None:
    """A press on the card itself: type 1 an address, 2 a mini program; notices need one."""
    action = fields.obj(card, "card_action", required=required)
    if action:
        _check_target(action, fields.whole(action, "type", default=0, least=1 if required else 0, most=2))


def _check_target(part: Content, kind: int) -> None:
    url, appid = fields.text(part, "url"), fields.text(part, "appid")
    fields.text(part, "pagepath")
    if (kind == 1 and not url) or (kind == 2 and not appid):
        raise ApiError(40058)


def _check_text_notice(_card: Content, _rules: MessageRules) -> None:
    """Nothing beyond what all cards have."""


def _check_news_notice(card: Content, _rules: MessageRules) -> None:
    """A picture, or a picture with text beside it."""
    image, area = fields.obj(card, "card_image"), fields.obj(card, "image_text_area")
    if not image and not area:
        raise ApiError(40058)
    if image:
        fields.text(image, "url", required=True)
    if area:
        fields.text(area, "image_url", required=True)
    for row in fields.objects(card, "vertical_content_list", most=_VERTICALS):
        fields.text(row, "title", required=True)
        fields.text(row, "desc")


_VERTICALS = 4


def _check_buttons(card: Content, rules: MessageRules) -> None:
    for button in fields.objects(card, "button_list", required=True, most=rules.buttons):
        fields.text(button, "text", required=True)
        fields.whole(button, "style", default=1)
        opens = fields.whole(button, "type", default=0, least=0, most=1)
        fields.text(button, "key", required=not opens, max_bytes=rules.key_bytes)
        fields.text(button, "url", required=bool(opens))
    if card.get("button_selection") is not None:
        _check_question(fields.obj(card, "button_selection"), rules, rules.selection_options)


def _check_vote(card: Content, rules: MessageRules) -> None:
    checkbox = fields.obj(card, "checkbox", required=True)
    fields.whole(checkbox, "mode", default=0, least=0, most=1)
    _check_question(checkbox, rules, rules.checkbox_options)
    _check_submit(card, rules)


def _check_multiple(card: Content, rules: MessageRules) -> None:
    selects = fields.objects(card, "select_list", required=True, most=rules.selects)
    for select in selects:
        _check_question(select, rules, rules.select_options)
    _check_distinct(select["question_key"] for select in selects)
    _check_submit(card, rules)


def _check_question(question: Content, rules: MessageRules, most: int) -> None:
    fields.text(question, "question_key", required=True, max_bytes=rules.key_bytes)
    fields.text(question, "title")
    fields.text(question, "selected_id")
    fields.flag(question, "disable")
    options = fields.objects(question, "option_list", required=True, most=most)
    for option in options:
        fields.text(option, "id", required=True, max_bytes=rules.option_id_bytes)
        fields.text(option, "text", required=True)
        fields.flag(option, "is_checked")
    _check_distinct(option["id"] for option in options)


def _check_submit(card: Content, rules: MessageRules) -> None:
    button = fields.obj(card, "submit_button", required=True)
    fields.text(button, "text", required=True)
    fields.text(button, "key", required=True, max_bytes=rules.key_bytes)


def _check_distinct(ids: Iterable[str]) -> None:
    found = list(ids)
    if len(set(found)) < len(found):
        raise ApiError(40035)


_CARDS: dict[str, Callable[[Content, MessageRules], None]] = {
    "text_notice": _check_text_notice,
    "news_notice": _check_news_notice,
    "button_interaction": _check_buttons,
    "vote_interaction": _check_vote,
    "multiple_interaction": _check_multiple,
}
