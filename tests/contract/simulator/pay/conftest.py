"""WeChat Pay beside the small platform: a merchant, a receiver of notices, and the independent library as a client."""

import asyncio
import functools
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import requests
from wechatpayv3 import WeChatPay, WeChatPayType

from simulator.pay import signing
from simulator.pay.app import PayApp
from simulator.pay.merchant import Merchant, MerchantCredentials, PlatformKeys, make_merchant
from simulator.pay.notify import NotifyPolicy, PayNotifier

START_S = 1_760_000_000
CORP_ID = "wwtest0000000001"
APPID = "wx0000000000000001"
NOTIFY_URL = "http://receiver/pay"


loaded = functools.cache(signing.private_key)


@dataclass
class Arrived:
    """One POST to the merchant."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def probe(self) -> bool:
        return self.headers["Wechatpay-Signature"].startswith("WECHATPAY/SIGNTEST/")


@dataclass
class Pay:
    """What a test talks to."""

    wecom: Any
    app: PayApp
    notifier: PayNotifier
    credentials: MerchantCredentials
    client: httpx2.AsyncClient
    arrived: list[Arrived] = field(default_factory=list)
    answers: list[int | None] = field(default_factory=list)
    """What the receiver answers next; 204 when there is nothing left."""

    @property
    def merchant(self) -> Merchant:
        return self.app.merchants[self.credentials.mchid]

    @property
    def corp(self) -> Any:
        return self.wecom.world

    @property
    def now_s(self) -> int:
        return self.wecom.clock.ms // 1000

    def openid(self, external_userid: str = "wmC1") -> str:
        return self.corp.people.openid(external_userid, APPID)

    def paid(self, out_trade_no: str = "T202611200001", amount_fen: int = 10_000, **more: Any) -> str:
        who = {} if "openid" in more else {"external_userid": "wmC1"}
        return self.merchant.paid(
            self.corp, amount_fen=amount_fen, time_s=self.now_s, out_trade_no=out_trade_no, **{**who, **more}
        )

    async def pass_time(self, seconds: int) -> None:
        """Second by second, so that what one delivery plans is due in the same walk."""
        for _ in range(seconds):
            self.wecom.advance(1)
            await self.notifier.settle()

    def sign(self, method: str, url: str, body: bytes, **changed: str) -> dict[str, str]:
        timestamp, nonce = changed.get("timestamp", str(int(time.time()))), "n" * 32
        key = loaded(self.credentials.private_key)
        signature = changed.get("signature") or signing.sign(key, signing.lines(method, url, timestamp, nonce, body))
        mchid = changed.get("mchid", self.credentials.mchid)
        serial = changed.get("serial", self.credentials.serial_no)
        return {
            "Authorization": f'{signing.SCHEMA} mchid="{mchid}",nonce_str="{nonce}",timestamp="{timestamp}",'
            f'serial_no="{serial}",signature="{signature}"',
            "Accept": "application/json",
            "Content-Type": "application/json",
        }

    async def call(self, method: str, url: str, body: Any = None, **changed: str) -> tuple[int, Any]:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = self.sign(method, url, content, **changed)
        response = await self.client.request(method, url, content=content, headers=headers)
        text = response.headers.get("content-type", "").startswith("application/json")
        return response.status_code, response.json() if text else response.content

    async def get(self, url: str) -> Any:
        status, answer = await self.call("GET", url)
        assert status == 200, answer
        return answer

    async def post(self, url: str, body: Any) -> Any:
        status, answer = await self.call("POST", url, body)
        assert status == 200, answer
        return answer

    async def refused(self, method: str, url: str, body: Any = None) -> tuple[int, str]:
        status, answer = await self.call(method, url, body)
        assert status >= 400, answer
        return status, answer["code"]

    def opened(self, arrived: Arrived) -> dict[str, Any]:
        resource = arrived.json["resource"]
        plain = signing.unseal(
            self.credentials.apiv3_key.encode(),
            resource["ciphertext"],
            nonce=resource["nonce"],
            associated=resource["associated_data"],
        )
        return json.loads(plain)


@pytest.fixture(scope="session")
def pay_keys() -> PlatformKeys:
    return PlatformKeys.new(1)


@pytest.fixture(scope="session")
def pay_credentials(pay_keys: PlatformKeys) -> MerchantCredentials:
    return make_merchant(
        pay_keys, seed=1, corp_id=CORP_ID, number=1, appids=[APPID, "wx0000000000000002"], notify_url=NOTIFY_URL
    )


@pytest.fixture
def notify_policy(request: pytest.FixtureRequest) -> NotifyPolicy:
    """Parametrise indirectly with a dict to change some."""
    faultless = {"duplicate_share": 0, "shuffle_s": 0, "probe_share": 0}
    return NotifyPolicy(**{**faultless, **getattr(request, "param", {})})


@pytest.fixture
async def pay(wecom, pay_keys, pay_credentials, notify_policy):
    arrived: list[Arrived] = []
    answers: list[int | None] = []

    async def post(url, headers, body):
        arrived.append(Arrived(url, dict(headers), body))
        return answers.pop(0) if answers else 204

    notifier = PayNotifier(post=post, signing_s=lambda: int(time.time()), policy=notify_policy)
    app = PayApp(
        [pay_credentials],
        pay_keys,
        notifier,
        worlds=lambda: wecom.simulation.corps,
        now_ms=wecom.clock.now_ms,
        clock_s=lambda: wecom.clock.ms / 1000,
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://pay") as client:
        yield Pay(wecom, app, notifier, pay_credentials, client, arrived, answers)
    assert app.broken == 0
    await notifier.close()


@pytest.fixture
def library(pay, monkeypatch):
    """The independent library, its HTTP carried to the application; ``library(certificates=True)`` fetches them."""

    async def ask(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        scope = {
            "type": "http",
            "method": request.method,
            "scheme": "https",
            "path": request.path_url.partition("?")[0],
            "raw_path": request.path_url.partition("?")[0].encode(),
            "query_string": request.path_url.partition("?")[2].encode(),
            "headers": [
                (name.lower().encode(), value.encode() if isinstance(value, str) else value)
                for name, value in {**request.headers, "Host": "api.mch.weixin.qq.com"}.items()
            ],
        }
        body = request.body or b""
        parts = [{"type": "http.request", "body": body.encode() if isinstance(body, str) else body}]
        sent: list[dict[str, Any]] = []

        async def receive():
            return parts.pop(0)

        async def send(message):
            sent.append(message)

        await pay.app(scope, receive, send)
        headers = {name.decode().title(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, sent[1]["body"]

    def carry(self, request, **_):
        response = requests.Response()
        # The library is synchronous; the application is not, and its loop is the one that waits for this call.
        loop = asyncio.new_event_loop()
        try:
            response.status_code, headers, response._content = loop.run_until_complete(ask(request))
        finally:
            loop.close()
        response.headers.update(headers)
        response.request, response.url, response.encoding = request, request.url, "utf-8"
        return response

    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", carry)
    given = pay.credentials

    def make(*, certificates: bool = False) -> WeChatPay:
        known = {} if certificates else {"public_key": given.public_key, "public_key_id": given.public_key_id}
        return WeChatPay(
            wechatpay_type=WeChatPayType.JSAPI,
            mchid=given.mchid,
            private_key=given.private_key,
            cert_serial_no=given.serial_no,
            apiv3_key=given.apiv3_key,
            appid=APPID,
            notify_url=NOTIFY_URL,
            **known,
        )

    return make
