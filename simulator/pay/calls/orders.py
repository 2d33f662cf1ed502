"""Payments and refunds: queries, refunds that take their time (fact sheet 3.15), and the files of bills."""

from __future__ import annotations

from simulator.pay import fields, signing
from simulator.pay.errors import PayError
from simulator.pay.files import PATH, Files
from simulator.pay.ledger import Ledger, Refund, Transaction
from simulator.pay.routes import Answer, File, PayCall, Routes
from simulator.pay.times import rfc3339

ROUTES = Routes()


@ROUTES.on("GET", "/v3/pay/transactions/id/{transaction_id}")
def by_transaction_id(call: PayCall) -> Answer:
    """A payment by WeChat Pay's number."""
    call.own_mchid(_mchid(call))
    found = call.corp.of(Ledger).transaction(call.merchant.mchid, call.path["transaction_id"])
    return _known(found).shown()


@ROUTES.on("GET", "/v3/pay/transactions/out-trade-no/{out_trade_no}")
def by_out_trade_no(call: PayCall) -> Answer:
    """A payment by the merchant's number."""
    call.own_mchid(_mchid(call))
    return _known(call.corp.of(Ledger).order(call.merchant.mchid, call.path["out_trade_no"])).shown()


@ROUTES.on("POST", "/v3/refund/domestic/refunds")
def refund(call: PayCall) -> Answer:
    """Asks for a refund; the answer says PROCESSING, and a notice how it ended.

    The same ``out_refund_no`` again shows the refund as it stands. One that ended ABNORMAL or CLOSED is asked for anew
    under another number: the fact sheet names no call that revives it.
    """
    body, rules = call.body, call.rules
    transaction_id = fields.text(body, "transaction_id", most=32)
    out_trade_no = fields.number_text(body, "out_trade_no", least=6, most=32, required=not transaction_id)
    out_refund_no = fields.number_text(body, "out_refund_no", most=64)
    reason = fields.text(body, "reason", most=80)
    notify_url = fields.text(body, "notify_url", most=256)
    account = fields.text(body, "funds_account", most=32)
    amount = fields.obj(body, "amount", required=True)
    refund_fen = fields.whole(amount, "refund", least=1)
    total_fen = fields.whole(amount, "total", least=1)
    fields.choice(amount, "currency", frozenset({"CNY"}), default="CNY")
    call.limit(f"refund|{call.merchant.mchid}", rules.refunds_per_second, 1)
    ledger, mchid = call.corp.of(Ledger), call.merchant.mchid
    found = ledger.transaction(mchid, transaction_id) if transaction_id else ledger.order(mchid, out_trade_no)
    transaction = _known(found)
    if out_trade_no and transaction.out_trade_no != out_trade_no:
        raise PayError("PARAM_ERROR", "transaction_id and out_trade_no name different payments")
    if total_fen != transaction.amount_fen:
        raise PayError("PARAM_ERROR", "amount.total is not the payment's")
    known = ledger.refund(mchid, out_refund_no)
    if known is not None:
        if known[0] is not transaction or known[1].amount_fen != refund_fen:
            raise PayError("INVALID_REQUEST", "out_refund_no was used for another refund")
        return transaction.refund_shown(known[1])
    if call.now_s - transaction.time_s > rules.refund_within_s:
        raise PayError("INVALID_REQUEST", "the payment is more than a year old")
    if len(transaction.refunds) >= rules.refunds_per_order:
        raise PayError("INVALID_REQUEST", "the payment has had as many refunds as it may have")
    if refund_fen > transaction.amount_fen - transaction.gone_fen:
        raise PayError("NOT_ENOUGH", "more than is left of the payment")
    last_s = max((earlier.created_s for earlier in transaction.refunds), default=None)
    if last_s is not None and call.now_s - last_s < rules.refund_per_order_s:
        raise PayError("FREQUENCY_LIMITED", "one refund a minute of one payment")
    made = ledger.add_refund(
        transaction,
        out_refund_no=out_refund_no,
        amount_fen=refund_fen,
        time_s=call.now_s,
        reason=reason,
        notify_url=notify_url,
        funds_account=account,
    )
    call.merchant.process(call.corp, transaction, made)
    return transaction.refund_shown(made)


@ROUTES.on("GET", "/v3/refund/domestic/refunds/{out_refund_no}")
def query_refund(call: PayCall) -> Answer:
    """A refund by the merchant's number."""
    found: tuple[Transaction, Refund] | None = call.corp.of(Ledger).refund(
        call.merchant.mchid, call.path["out_refund_no"]
    )
    if found is None:
        raise PayError("RESOURCE_NOT_EXISTS", "no such refund")
    return found[0].refund_shown(found[1])


@ROUTES.on("GET", PATH)
def download(call: PayCall) -> Answer:
    """A file whose address another call gave out."""
    stored = call.corp.of(Files).get(call.query.get("token", ""), call.now_s)
    if stored is None or stored.mchid != call.merchant.mchid:
        raise PayError("NO_AUTH", "the address is not valid, or no longer")
    return File(stored.content)


@ROUTES.on("GET", "/v3/certificates")
def certificates(call: PayCall) -> Answer:
    """The platform certificate, encrypted with the merchant's APIv3 key."""
    keys = call.merchant.keys
    begins_s, ends_s = signing.certificate_times()
    nonce = signing.token(call.merchant.mchid, "certificate", call.now_s, length=12)
    return {
        "data": [
            {
                "serial_no": keys.certificate_serial,
                "effective_time": rfc3339(begins_s),
                "expire_time": rfc3339(ends_s),
                "encrypt_certificate": signing.resource(
                    call.merchant.apiv3_key, keys.certificate_pem.encode(), nonce=nonce, associated="certificate"
                ),
            }
        ]
    }


def _mchid(call: PayCall) -> str:
    mchid = call.query.get("mchid", "")
    if not mchid:
        raise fields.wrong("mchid", "is required")
    return mchid


def _known(transaction: Transaction | None) -> Transaction:
    if transaction is None:
        raise PayError("ORDER_NOT_EXIST", "no such payment")
    return transaction
