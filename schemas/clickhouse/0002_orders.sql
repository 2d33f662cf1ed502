-- orders: the order as it stands. order_history: every revision for good, so that a figure of last week can be explained
-- after a late refund or a late event moved it. Money is integer fen throughout.
CREATE TABLE IF NOT EXISTS orders
(
    corp_id LowCardinality(String) COMMENT 'Corp',
    order_id String COMMENT 'out_trade_no',
    revision UInt64 COMMENT 'Grows with every change of the row',
    customer_id String COMMENT 'Payer (external_userid); empty when nobody knows',
    staff_id String COMMENT 'Who is credited; empty when nobody can be',
    credit_rule LowCardinality(String) COMMENT 'collector, owner, refunder, none',
    paid Bool COMMENT 'False while only refunds are known',
    pay_time DateTime64(3, 'Asia/Shanghai') COMMENT 'Epoch 0 while the payment is unknown',
    gross_fen Int64 COMMENT 'Paid, fen',
    refunded_fen Int64 COMMENT 'Sum over refund_amounts_fen, fen',
    net_fen Int64 DEFAULT gross_fen - refunded_fen COMMENT 'gross_fen - refunded_fen, fen',
    refund_ids Array(String) COMMENT 'out_refund_no of each refund',
    refund_times Array(DateTime64(3, 'Asia/Shanghai')) COMMENT 'Time of each refund',
    refund_amounts_fen Array(Int64) COMMENT 'Amount of each refund, fen',
    payment_type Int32 COMMENT '0 chat, 1 QR code, 2 live room, 3 album, 14 transfer, 15 mini program',
    event_time DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time of the newest event the row rests on',
    received_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time at which the event that caused this revision arrived',
    caused_by String COMMENT 'Id of that event',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (corp_id, order_id)
COMMENT 'Orders, every written revision until merged; read orders_now';

CREATE TABLE IF NOT EXISTS order_history AS orders
-- No version column: a revision is written with one content only, so any of its copies will do.
ENGINE = ReplacingMergeTree
ORDER BY (corp_id, order_id, revision)
COMMENT 'Every revision of every order, kept; read order_history_now';

CREATE OR REPLACE VIEW orders_now AS
SELECT * FROM orders FINAL;

CREATE OR REPLACE VIEW order_history_now AS
SELECT * FROM order_history FINAL;

CREATE OR REPLACE VIEW uncredited_orders_now AS
SELECT
    corp_id, order_id, customer_id, paid, pay_time, gross_fen, refunded_fen, net_fen,
    arrayMin(refund_times) AS first_refund, payment_type, event_time, revision, caused_by
FROM orders FINAL
-- WHERE, not PREWHERE: the filter must see the newest revision only, after FINAL has chosen it.
WHERE staff_id = '';
