"""The page at ``/_sim``: one file, nothing from elsewhere, both languages, and only fields that the JSON has."""

import re
from html.parser import HTMLParser

import pytest


class Parsed(HTMLParser):
    """Ids, tags that are open at the end, and addresses of things to load."""

    VOID = ("meta", "input", "link", "img", "br", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.script = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name == "src" or (tag == "link" and name == "href"):
                self.loads.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.script += data


@pytest.fixture
async def page(sim):
    response = await sim.client.get("/_sim")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert (await sim.client.get("/_sim/")).text == response.text
    return response.text


async def test_it_is_whole_and_loads_nothing(page):
    parsed = Parsed(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.loads == []
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", page)


async def test_what_comes_from_outside_is_text_and_never_markup(page):
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page)


async def test_it_looks_for_elements_that_exist(page):
    parsed = Parsed(page)
    wanted = set(re.findall(r'(?:\$|submitted|graph)\("([a-z]+)"', parsed.script))
    assert wanted
    assert wanted <= set(parsed.ids)


async def test_labels_are_in_both_languages(page):
    heads = re.findall(r"<h[123][^>]*>(.*?)</h[123]>", page)
    assert len(heads) >= 7
    for head in heads:
        assert re.search(r"[A-Za-z]{4}", head), head
        assert re.search(r"[\u4e00-\u9fff]{2}", head), head


async def test_every_field_it_shows_is_in_the_json(sim, page):
    sim.happen(at_s=0)
    await sim.call("externalcontact/list", userid="s1")
    await sim.tell("faults", {"errcode": -1, "endpoint": "x"})
    status, callbacks = await sim.ask("status"), await sim.ask("callbacks", limit=40)
    calls = await sim.ask("calls", since=9007199254740991, limit=1)
    quotas, faults = await sim.ask("quotas"), await sim.ask("faults")
    script = Parsed(page).script
    sources = {
        "status": status,
        "clock": status["clock"],
        "callbacks": callbacks,
        "calls": calls,
        "quota": quotas["quotas"][0],
        "fault": faults["faults"][0],
        "entry": callbacks["recent"][0],
        "event": callbacks["events"][0],
    }
    for name, source in sources.items():
        used = set(re.findall(rf"\b{name}\.([a-z_]+)\b(?!\()", script)) - {"target", "length", "sort", "map"}
        assert used, name
        assert used <= set(source), name
    shown = re.search(r"const fields = \[\[\"staff\".*?\]\];", script, re.DOTALL)
    assert set(re.findall(r'\["([a-z_]+)",', shown[0])) <= set(status["world"][0])
    assert calls["calls"] == []
