"""Templates of the welcome in groups: kept, read, replaced, deleted."""

import pytest

from simulator.platform.api.group_welcome import GroupWelcomes

TEXT = {"content": "欢迎 %NICKNAME%"}
LINK = {"title": "t", "url": "https://e/u", "picurl": "https://e/p", "desc": "d"}


async def add(shop, **body) -> str:
    answer = await shop.call("group_welcome_template/add", **{"text": TEXT, **body})
    assert answer["errcode"] == 0, answer
    return answer["template_id"]


async def content_of(shop, template_id: str) -> dict:
    answer = await shop.call("group_welcome_template/get", template_id=template_id)
    return {name: value for name, value in answer.items() if name != "errmsg"}


@pytest.mark.covers(
    "externalcontact/group_welcome_template/add",
    "externalcontact/group_welcome_template/get",
    "externalcontact/group_welcome_template/edit",
)
async def test_a_template_reads_as_it_was_written(shop):
    """3.4: text with %NICKNAME% and one of image, link, miniprogram, file, video; edit replaces all of it."""
    image = {"media_id": await shop.media_id()}
    template_id = await add(shop, image=image, agentid=1000002, notify=0)
    assert await content_of(shop, template_id) == {"errcode": 0, "text": TEXT, "image": image}
    assert await shop.code("group_welcome_template/edit", template_id=template_id, link=LINK) == 0
    assert await content_of(shop, template_id) == {"errcode": 0, "link": LINK}


@pytest.mark.covers("externalcontact/group_welcome_template/add")
async def test_of_several_attachments_one_counts(shop):
    """3.4: image|link|miniprogram|file|video: one; of several the first in this order."""
    template_id = await add(shop, link=LINK, file={"media_id": await shop.media_id("file")})
    assert await content_of(shop, template_id) == {"errcode": 0, "text": TEXT, "link": LINK}


@pytest.mark.covers("externalcontact/group_welcome_template/del")
async def test_a_deleted_template_is_gone(shop):
    """3.4: group_welcome_template/del."""
    template_id = await add(shop)
    assert await shop.code("group_welcome_template/del", template_id=template_id) == 0
    for name in ("get", "edit", "del"):
        assert await shop.code(f"group_welcome_template/{name}", template_id=template_id, text=TEXT) == 40035


@pytest.mark.parametrize("platform_rules", [{"group_welcome": {"most": 2}}], indirect=True)
@pytest.mark.covers("externalcontact/group_welcome_template/add")
async def test_a_corp_has_so_many_templates(shop):
    """3.4: count limit 41055; a deleted one makes room."""
    first, _ = await add(shop), await add(shop)
    assert await shop.code("group_welcome_template/add", text=TEXT) == 41055
    await shop.code("group_welcome_template/del", template_id=first)
    await add(shop)


@pytest.mark.covers("externalcontact/group_welcome_template/edit", "externalcontact/group_welcome_template/del")
async def test_a_template_of_another_app_can_only_be_read(shop):
    """4.3: 41058 no edit right."""
    template = shop.world.of(GroupWelcomes).add("1000003", {"text": TEXT}, notify=False)
    assert await content_of(shop, template.template_id) == {"errcode": 0, "text": TEXT}
    for name in ("edit", "del"):
        assert await shop.code(f"group_welcome_template/{name}", template_id=template.template_id, text=TEXT) == 41058


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"text": None}, 41089),
        ({"text": {"content": ""}}, 41089),
        ({"text": "hi"}, 40035),
        ({"text": {"content": "你" * 1_001}}, 45002),
        ({"text": {"content": "高利贷"}}, 40201),
        ({"image": {}}, 40058),
        ({"image": {"media_id": "none"}}, 40007),
        ({"link": "u"}, 40035),
        ({"link": {"title": "t"}}, 40058),
        ({"agentid": "1000002"}, 40035),
        ({"agentid": 1000003}, 301002),
        ({"notify": 2}, 40035),
    ],
)
async def test_a_wrong_template_is_none(shop, body, errcode):
    """3.4: text, one attachment, agentid, notify 0 or 1; 4.3: 301002 not the caller's app."""
    assert await shop.code("group_welcome_template/add", **{"text": TEXT, **body}) == errcode
    assert shop.world.of(GroupWelcomes).templates == {}


@pytest.mark.parametrize("name", ["get", "edit", "del"])
async def test_a_missing_template_id(shop, name):
    """4.3: 40058 required parameter missing."""
    assert await shop.code(f"group_welcome_template/{name}", text=TEXT) == 40058
