"""Merchants of WeChat Pay (fact sheet 3.15): who they are, their keys, and what happens at their tills.

A system under test gets ``merchants.yaml``::

    merchants:
      - mchid: "1900000109"            # the merchant number
        corp_id: ww…                   # the corp whose customers pay here
        appids: [wx…]                  # bound: an openid of the payer belongs to one of them
        apiv3_key: …                   # 32 characters: key of every `resource`
        serial_no: …                   # of the merchant's API certificate, for the Authorization header
        private_key: |                 # PKCS#8 PEM: signs the merchant's calls
        notify_url: http://…           # where notices of payments and refunds go; empty: nowhere
        platform_serial: …             # of the platform certificate, which GET /v3/certificates gives out
        platform_certificate: |        # PEM
        public_key_id: PUB_KEY_ID_…    # serial of notices signed by the WeChat Pay public key
        public_key: |                  # PEM

Beside it lies ``merchants.platform.yaml`` with the platform's private keys, for the simulator alone. Both are made at
the first start and read at every later one, so that restarts and recorded notices keep their keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from simulator.pay import signing
from simulator.pay.coupons import CouponBook
from simulator.pay.gifts import GiftBook
from simulator.pay.ledger import Ledger, PayRules, Refund, Transaction
from simulator.pay.notify import COUPON_RETRY_S, PayNotifier
from simulator.pay.refunds import RefundStatus, refund_end
from simulator.pay.vouchers import Voucher, VoucherBook
from simulator.world.corp import CorpWorld


class MerchantsError(ValueError):
    """A merchants file that cannot be used. Names the field, never a value."""


class MerchantCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the merchants file. ``repr`` shows no secret."""

    mchid: str
    corp_id: str
    appids: tuple[str, ...]
    apiv3_key: str
    serial_no: str
    private_key: str
    notify_url: str = ""
    platform_serial: str = ""
    platform_certificate: str = ""
    public_key_id: str = ""
    public_key: str = ""

    def __repr__(self) -> str:
        return f"MerchantCredentials(mchid={self.mchid!r}, corp_id={self.corp_id!r})"


@dataclass(frozen=True, slots=True)
class PlatformKeys:
    """The platform's two key pairs: of its certificate, and the one of which merchants know the public key alone."""

    certificate_key: rsa.RSAPrivateKey = field(repr=False)
    certificate_serial: str
    certificate_pem: str = field(repr=False)
    public_key: rsa.RSAPrivateKey = field(repr=False)
    public_key_id: str

    @classmethod
    def new(cls, seed: int) -> PlatformKeys:
        """Fresh keys; their names follow the seed."""
        return cls.of(signing.new_key(), signing.new_key(), seed)

    @classmethod
    def of(cls, certificate_key: rsa.RSAPrivateKey, public_key: rsa.RSAPrivateKey, seed: int) -> PlatformKeys:
        """Keys that exist already."""
        serial = _serial(seed, "platform")
        pem = signing.certificate(certificate_key, "Tenpay.com Root CA", serial)
        key_id = "PUB_KEY_ID_0" + signing.digits(seed, "public-key", length=30)
        return cls(certificate_key, serial, pem, public_key, key_id)

    def signer(self, *, public_key: bool) -> tuple[rsa.RSAPrivateKey, str]:
        """The key that signs, and the serial that names it."""
        if public_key:
            return self.public_key, self.public_key_id
        return self.certificate_key, self.certificate_serial


def make_merchant(
    keys: PlatformKeys, *, seed: int, corp_id: str, number: int, appids: Sequence[str], notify_url: str
) -> MerchantCredentials:
    """Merchant ``number`` of a corp with a fresh key; its number, serial and APIv3 key follow the seed."""
    mchid = "19" + signing.digits(seed, "mchid", corp_id, number, length=8)
    return MerchantCredentials(
        mchid=mchid,
        corp_id=corp_id,
        appids=tuple(appids),
        apiv3_key=signing.token(seed, "apiv3", mchid),
        serial_no=_serial(seed, mchid),
        private_key=signing.private_pem(signing.new_key()),
        notify_url=notify_url,
        platform_serial=keys.certificate_serial,
        platform_certificate=keys.certificate_pem,
        public_key_id=keys.public_key_id,
        public_key=signing.public_pem(keys.public_key.public_key()),
    )


def open_merchants(
    path: Path, *, seed: int, corps: Mapping[str, str], appids: Sequence[str] = ("wx0000000000000001",)
) -> tuple[PlatformKeys, tuple[MerchantCredentials, ...]]:
    """Reads the two files, or makes them with one merchant per corp. ``corps``: corp id → notify URL.

    Raises MerchantsError for a file that is there and cannot be used.
    """
    secret_path = path.with_name(path.stem + ".platform" + path.suffix)
    if path.exists() and secret_path.exists():
        return _read(path, secret_path)
    keys = PlatformKeys.new(seed)
    merchants = tuple(
        make_merchant(keys, seed=seed, corp_id=corp_id, number=1, appids=appids, notify_url=url)
        for corp_id, url in corps.items()
    )
    _write(
        secret_path,
        {
            "seed": seed,
            "certificate_key": signing.private_pem(keys.certificate_key),
            "public_key": signing.private_pem(keys.public_key),
        },
    )
    _write(path, {"merchants": [msgspec.to_builtins(merchant) for merchant in merchants]})
    return keys, merchants


class _Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    seed: int
    certificate_key: str
    public_key: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    merchants: list[MerchantCredentials]


def _read(path: Path, secret_path: Path) -> tuple[PlatformKeys, tuple[MerchantCredentials, ...]]:
    try:
        secrets = msgspec.convert(yaml.safe_load(secret_path.read_text(encoding="utf-8")), type=_Secrets)
        found = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), type=_File)
        keys = PlatformKeys.of(
            signing.private_key(secrets.certificate_key), signing.private_key(secrets.public_key), secrets.seed
        )
    except (OSError, yaml.YAMLError, msgspec.ValidationError, ValueError) as error:
        # Neither parser quotes values of fields; keys' errors do not quote keys.
        reason = error if isinstance(error, msgspec.ValidationError) else type(error).__name__
        raise MerchantsError(f"merchants file {path}: {reason}") from None
    for merchant in found.merchants:
        if len(merchant.apiv3_key.encode()) != _APIV3_KEY_BYTES:
            raise MerchantsError(f"merchants file {path}: merchant {merchant.mchid}: apiv3_key needs 32 bytes")
    return keys, tuple(found.merchants)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)


def _serial(seed: int, name: str) -> str:
    """40 hexadecimal digits, the first not 0: libraries print serials without leading zeros."""
    digest = signing.digits(seed, "serial", name, length=46)
    return f"5{int(digest) % 16**39:039X}"


_APIV3_KEY_BYTES = 32


class Merchant:
    """A merchant as the platform knows it, and its till: where the world's people pay."""

    def __init__(self, credentials: MerchantCredentials, keys: PlatformKeys, notifier: PayNotifier) -> None:
        self.mchid = credentials.mchid
        self.corp_id = credentials.corp_id
        self.appids = credentials.appids
        self.serial_no = credentials.serial_no
        self.notify_url = credentials.notify_url
        self.apiv3_key = credentials.apiv3_key.encode()
        self.verifier = signing.private_key(credentials.private_key).public_key()
        self.keys = keys
        self.notifier = notifier

    def paid(
        self,
        corp: CorpWorld,
        *,
        amount_fen: int,
        time_s: int,
        out_trade_no: str,
        external_userid: str = "",
        openid: str = "",
        appid: str = "",
        attach: str = "",
        goods_tag: str = "",
        trade_type: str = "JSAPI",
    ) -> str:
        """Somebody pays; returns the transaction id.

        The payer is named by ``external_userid`` (the world knows who it is) or ``openid``; ``appid`` defaults to the
        merchant's first. The best coupon they hold is used by itself, as WeChat does it, and a running pay-gift
        activity gives what it promises; each with its notice. Raises ValueError for what cannot be.
        """
        appid = appid or self.appids[0]
        if appid not in self.appids:
            raise ValueError(f"appid {appid} is not bound to merchant {self.mchid}")
        if not external_userid and not openid:
            raise ValueError("a payment needs external_userid or openid")
        owned = self._ids(corp, external_userid) if external_userid else {appid: openid}
        transaction = corp.of(Ledger).add(
            mchid=self.mchid,
            appid=appid,
            openid=openid or owned[appid],
            customer_id=external_userid,
            out_trade_no=out_trade_no,
            amount_fen=amount_fen,
            time_s=time_s,
            trade_type=trade_type,
            attach=attach,
            goods_tag=goods_tag,
        )
        coupons = corp.of(CouponBook)
        used = coupons.redeem(self.mchid, owned, transaction)
        self._notify(
            corp,
            self.notify_url,
            time_s,
            event_type="TRANSACTION.SUCCESS",
            original_type="transaction",
            summary="支付成功",
            content=transaction.shown(),
        )
        if used is not None:
            self._notify(
                corp,
                coupons.callback_url(used.stock.creator),
                time_s,
                event_type="COUPON.USE",
                original_type="coupon",
                summary="用券成功",
                content=used.shown(time_s, consumed=True),
                retry_s=COUPON_RETRY_S,
            )
        for voucher in corp.of(GiftBook).reward(self.mchid, transaction):
            self._voucher_sent(corp, voucher, time_s)
        return transaction.transaction_id

    def refunded(
        self,
        corp: CorpWorld,
        *,
        out_trade_no: str,
        amount_fen: int,
        time_s: int,
        out_refund_no: str,
        reason: str = "",
        status: RefundStatus = "SUCCESS",
    ) -> str:
        """The merchant gives money back in their own back office; returns the refund's id. Raises ValueError."""
        ledger = corp.of(Ledger)
        transaction = ledger.order(self.mchid, out_trade_no)
        if transaction is None:
            raise ValueError(f"order {out_trade_no} of {self.mchid} was never paid")
        refund = ledger.add_refund(
            transaction, out_refund_no=out_refund_no, amount_fen=amount_fen, time_s=time_s, reason=reason
        )
        self._end_refund(corp, transaction, refund, status, time_s)
        return refund.refund_id

    def process(self, corp: CorpWorld, transaction: Transaction, refund: Refund) -> None:
        """Plans how a refund that the API accepted ends."""
        chance = corp.random("refund", self.mchid, refund.out_refund_no)
        takes_s, status = refund_end(corp.rules_of("pay", PayRules), chance)
        corp.schedule.at(refund.created_s + takes_s, partial(self._end_refund, corp, transaction, refund, status))

    def take_voucher(self, corp: CorpWorld, *, stock_id: str, openid: str, appid: str, time_s: int) -> Voucher | None:
        """Somebody takes a merchant coupon on a page of the merchant (mini-program plug-in or H5); None: cannot."""
        voucher = corp.of(VoucherBook).take(stock_id, openid=openid, appid=appid, time_s=time_s)
        if voucher is not None:
            self._voucher_sent(corp, voucher, time_s)
        return voucher

    def _ids(self, corp: CorpWorld, external_userid: str) -> dict[str, str]:
        """appid → openid of one person, at every appid of this merchant."""
        return {appid: corp.people.openid(external_userid, appid) for appid in self.appids}

    def _end_refund(
        self, corp: CorpWorld, transaction: Transaction, refund: Refund, status: RefundStatus, time_s: int
    ) -> None:
        refund.status = status
        refund.ended_s = time_s
        if status == "SUCCESS":
            corp.of(CouponBook).returned(transaction, refund)
        self._notify(
            corp,
            refund.notify_url or self.notify_url,
            time_s,
            event_type=f"REFUND.{status}",
            original_type="refund",
            summary=_REFUND_SUMMARIES[status],
            content=transaction.refund_notice(refund),
        )

    def _voucher_sent(self, corp: CorpWorld, voucher: Voucher, time_s: int) -> None:
        self._notify(
            corp,
            corp.of(VoucherBook).callback_url(voucher.stock.belong),
            time_s,
            event_type="COUPON.SEND",
            original_type="busifavor",
            summary="商家券领券通知",
            content=voucher.sent_notice(),
            retry_s=COUPON_RETRY_S,
        )

    def _notify(
        self,
        corp: CorpWorld,
        url: str,
        time_s: int,
        *,
        event_type: str,
        original_type: str,
        summary: str,
        content: Mapping[str, object],
        retry_s: tuple[int, ...] | None = None,
    ) -> None:
        more = {} if retry_s is None else {"retry_s": retry_s}
        self.notifier.notify(
            corp,
            self,
            url=url,
            time_s=time_s,
            event_type=event_type,
            original_type=original_type,
            summary=summary,
            content=content,
            **more,
        )


_REFUND_SUMMARIES = {"SUCCESS": "退款成功", "CLOSED": "退款关闭", "ABNORMAL": "退款异常", "PROCESSING": "退款处理中"}


def merchants_of(
    credentials: Iterable[MerchantCredentials], keys: PlatformKeys, notifier: PayNotifier
) -> dict[str, Merchant]:
    """By merchant number."""
    return {entry.mchid: Merchant(entry, keys, notifier) for entry in credentials}
