"""Media: what is uploaded can be sent and fetched for three days, in its own scene."""

import struct

import pytest

UPLOADS = [
    ("media/upload", {"type": "image"}),
    ("media/uploadimg", {}),
    ("media/upload_attachment", {"media_type": "image", "attachment_type": "1"}),
]
DAY_S = 86_400


async def fetch(shop, media_id: str):
    query = {"access_token": await shop.wecom.token(), "media_id": media_id}
    return await shop.wecom.client.get("/cgi-bin/media/get", params=query)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9)


def jpeg(width: int, height: int) -> bytes:
    about = b"\xff\xe0" + struct.pack(">H", 16) + bytes(14)
    return b"\xff\xd8" + about + b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)


def mp4(seconds: int) -> bytes:
    header = struct.pack(">IIIII", 0, 0, 0, 1_000, seconds * 1_000) + bytes(80)
    return struct.pack(">I4s", 16, b"ftyp") + bytes(8) + struct.pack(">I4s", 8 + len(header), b"mvhd") + header


@pytest.mark.covers("media/upload", "media/get")
async def test_an_upload_comes_back_byte_for_byte(shop):
    """3.4: media/upload gives a temporary media_id; what it stands for can be fetched."""
    content = bytes(range(256)) * 40 + b"\r\n--\r\n\r\n--x--\r\n" + b"\n\r"
    answer = await shop.upload(content=content, type="file")
    assert (answer["errcode"], answer["type"], answer["created_at"]) == (0, "file", str(shop.now_s))
    response = await fetch(shop, answer["media_id"])
    assert response.content == content
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''%E5%9B%BE%201.png"
    assert response.headers["error-code"] == "0"


@pytest.mark.covers("media/upload", "media/get")
async def test_a_media_id_lives_three_days(shop):
    """3.4: temporary, 3-day media_id; afterwards 40007."""
    media_id = await shop.media_id()
    image = {"sender": "s1", "attachments": [{"msgtype": "image", "image": {"media_id": media_id}}]}
    shop.advance(3 * DAY_S - 1)
    assert (await fetch(shop, media_id)).content == b"picture"
    assert await shop.code("add_msg_template", **image) == 0
    shop.advance(1)
    assert (await fetch(shop, media_id)).json()["errcode"] == 40007
    assert await shop.code("add_msg_template", **image) == 40007


@pytest.mark.covers("media/upload", "media/upload_attachment")
async def test_media_are_good_for_their_own_scene_and_kind(shop):
    """3.4: mixing the two kinds of media_id: 40007 or 41072."""
    moment = (await shop.upload("media/upload_attachment", media_type="image", attachment_type="1"))["media_id"]
    message, video = await shop.media_id(), await shop.media_id("video")

    async def in_message(media_id: str) -> int:
        attachments = [{"msgtype": "image", "image": {"media_id": media_id}}]
        return await shop.code("add_msg_template", sender="s1", attachments=attachments)

    async def in_moment(media_id: str) -> int:
        return await shop.code("add_moment_task", attachments=[{"msgtype": "image", "image": {"media_id": media_id}}])

    assert [await in_message(one) for one in (message, moment, video, "none")] == [0, 41072, 40007, 40007]
    assert [await in_moment(one) for one in (moment, message, "none")] == [0, 41072, 40007]


@pytest.mark.covers("media/upload_attachment")
async def test_an_album_upload_is_none_for_moments(shop):
    """3.4: attachment_type 1 moments, 2 album."""
    answer = await shop.upload("media/upload_attachment", media_type="image", attachment_type="2")
    assert (answer["errcode"], answer["type"], answer["created_at"]) == (0, "image", shop.now_s)
    attachments = [{"msgtype": "image", "image": {"media_id": answer["media_id"]}}]
    assert await shop.code("add_moment_task", attachments=attachments) == 41072


@pytest.mark.covers("media/uploadimg")
async def test_an_image_gets_an_address_that_stays(shop):
    """3.4: media/uploadimg gives a permanent URL, which a message may show."""
    first, second = (await shop.upload("media/uploadimg"))["url"], (await shop.upload("media/uploadimg"))["url"]
    assert first != second
    shop.advance(300 * DAY_S)
    attachments = [{"msgtype": "image", "image": {"pic_url": first}}]
    assert await shop.code("add_msg_template", sender="s1", attachments=attachments) == 0


@pytest.mark.parametrize("platform_rules", [{"media": {"images_a_day": 2, "images_a_month": 5}}], indirect=True)
@pytest.mark.covers("media/uploadimg")
async def test_images_are_limited_a_day_and_a_month(shop):
    """4.1: uploadimg 1000 a day, 3000 a month; a day's block ends with the day, a month's after 30 days."""

    async def codes(count: int) -> list[int]:
        return [(await shop.upload("media/uploadimg"))["errcode"] for _ in range(count)]

    assert await codes(3) == [0, 0, 45009]
    shop.advance(DAY_S)
    assert await codes(3) == [0, 0, 45009]
    shop.advance(DAY_S)
    assert await codes(2) == [0, 45009]
    shop.advance(29 * DAY_S)
    assert await codes(1) == [45009], "another month, but 30 days are not over"
    shop.advance(DAY_S)
    assert await codes(2) == [0, 0]


@pytest.mark.parametrize(
    ("path", "query", "size", "errcode"),
    [
        ("media/upload", {"type": "image"}, 10 << 20, 0),
        ("media/upload", {"type": "image"}, (10 << 20) + 1, 45001),
        ("media/upload", {"type": "voice"}, (2 << 20) + 1, 45001),
        ("media/uploadimg", {}, (2 << 20) + 1, 45001),
        ("media/upload_attachment", {"media_type": "file", "attachment_type": "1"}, 10 << 20, 0),
        ("media/upload_attachment", {"media_type": "file", "attachment_type": "1"}, (10 << 20) + 1, 41080),
        ("media/upload", {"type": "file"}, 33 << 20, 40206),
    ],
)
async def test_files_have_greatest_sizes(shop, path, query, size, errcode):
    """3.4: image, video and file of moments at most 10 MB (41080); other sizes as usual in the field (45001)."""
    assert (await shop.upload(path, content=bytes(size), **query))["errcode"] == errcode


@pytest.mark.parametrize(
    ("kind", "content", "errcode"),
    [
        ("image", png(1_440, 1_080), 0),
        ("image", png(1_080, 1_440), 0),
        ("image", png(1_441, 1_000), 41081),
        ("image", jpeg(1_081, 1_081), 41081),
        ("image", jpeg(1_080, 1_080), 0),
        ("image", b"\xff\xd8\xff\xe0\x00", 0),
        ("image", b"\x89PNG\r\n\x1a\n", 0),
        ("video", mp4(30), 0),
        ("video", mp4(31), 41082),
        ("video", b"mvhd", 0),
    ],
)
@pytest.mark.covers("media/upload_attachment")
async def test_moments_take_small_images_and_short_videos(shop, kind, content, errcode):
    """3.4: moment video at most 30 s; 4.3: 41081 resolution, 41082 duration."""
    query = {"media_type": kind, "attachment_type": "1"}
    assert (await shop.upload("media/upload_attachment", content=content, **query))["errcode"] == errcode


@pytest.mark.parametrize(("path", "query"), UPLOADS)
@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b"{}"),
        ("", b""),
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x--\r\n"),
        ("multipart/form-data; boundary=x", b"\xff\x00--x\r\n--x\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="media"\r\n\r\nabc\r\n--x--'),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="media"; filename="a"\r\n\r\n\r\n--x--',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\nabc\r\n--x--',
        ),
    ],
)
async def test_a_body_without_a_file(shop, path, query, content_type, content):
    """3.4: uploads are multipart bodies with a part named media; without one there is nothing to keep."""
    query = {"access_token": await shop.wecom.token(), **query}
    headers = {"content-type": content_type}
    answer = await shop.wecom.client.post(f"/cgi-bin/{path}", params=query, content=content, headers=headers)
    assert answer.json()["errcode"] == 41005


@pytest.mark.parametrize(
    ("path", "query", "errcode"),
    [
        ("media/upload", {}, 40004),
        ("media/upload", {"type": "music"}, 40004),
        ("media/upload_attachment", {"attachment_type": "1"}, 40004),
        ("media/upload_attachment", {"media_type": "voice", "attachment_type": "1"}, 40004),
        ("media/upload_attachment", {"media_type": "image"}, 40035),
        ("media/upload_attachment", {"media_type": "image", "attachment_type": "3"}, 40035),
    ],
)
async def test_an_upload_says_what_it_is(shop, path, query, errcode):
    """3.4: type, media_type and attachment_type are in the query."""
    assert (await shop.upload(path, **query))["errcode"] == errcode


@pytest.mark.covers("media/get")
async def test_an_unknown_media_id(shop):
    """4.3: 40007 bad or expired media_id, as JSON."""
    for media_id in ("", "none"):
        assert (await fetch(shop, media_id)).json()["errcode"] == 40007
