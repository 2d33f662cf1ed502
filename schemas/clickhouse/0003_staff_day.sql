-- One row a staff member, business day (Asia/Shanghai) and revision. What each counter counts: docs/definitions.md.
-- The day is part of the key and never changes, so months are safe partitions: no row's revisions straddle two.
CREATE TABLE IF NOT EXISTS staff_day
(
    corp_id LowCardinality(String) COMMENT 'Corp',
    staff_id String COMMENT 'Staff member (userid); empty: what nobody can be credited with',
    day Date COMMENT 'Business day, Asia/Shanghai',
    revision UInt64 COMMENT 'Grows with every change of the row',
    adds Int64 COMMENT 'Episodes opened',
    half_adds Int64 COMMENT 'Half adds',
    lost_by_customer Int64 COMMENT 'Episodes ended by the customer',
    lost_by_staff Int64 COMMENT 'Episodes ended by the staff member',
    lost_by_transfer Int64 COMMENT 'Episodes ended by a transfer',
    orders Int64 COMMENT 'Paid orders credited',
    gross_fen Int64 COMMENT 'Paid, fen',
    refunds Int64 COMMENT 'Refunds of paid orders, on the day of the refund',
    refunded_fen Int64 COMMENT 'Their amount, fen',
    net_fen Int64 DEFAULT gross_fen - refunded_fen COMMENT 'gross_fen - refunded_fen, fen',
    unknown_customer_orders Int64 COMMENT 'Part of orders whose payer nobody knows',
    unknown_customer_gross_fen Int64 COMMENT 'Their amount, fen',
    unmatched_refunds Int64 COMMENT 'Refunds whose payment is not known; not part of refunds',
    unmatched_refund_fen Int64 COMMENT 'Their amount, fen',
    event_time DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time of the newest event the row rests on',
    received_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time at which the event that caused this revision arrived',
    caused_by String COMMENT 'Id of that event',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert'
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(day)
ORDER BY (corp_id, staff_id, day)
COMMENT 'Staff days, every written revision until merged; read staff_day_now';

CREATE OR REPLACE VIEW staff_day_now AS
SELECT * FROM staff_day FINAL
-- Months are merged apart from each other, which reads them in parallel; right because a row never changes its month.
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW staff_total_now AS
SELECT
    corp_id, staff_id,
    min(day) AS first_day,
    max(day) AS last_day,
    sum(adds) AS adds,
    sum(half_adds) AS half_adds,
    sum(lost_by_customer) AS lost_by_customer,
    sum(lost_by_staff) AS lost_by_staff,
    sum(lost_by_transfer) AS lost_by_transfer,
    adds - lost_by_customer - lost_by_staff - lost_by_transfer AS net_customers,
    sum(orders) AS orders,
    sum(gross_fen) AS gross_fen,
    sum(refunds) AS refunds,
    sum(refunded_fen) AS refunded_fen,
    sum(net_fen) AS net_fen,
    sum(unknown_customer_orders) AS unknown_customer_orders,
    sum(unknown_customer_gross_fen) AS unknown_customer_gross_fen,
    sum(unmatched_refunds) AS unmatched_refunds,
    sum(unmatched_refund_fen) AS unmatched_refund_fen,
    max(received_at) AS received_at
FROM staff_day_now
GROUP BY corp_id, staff_id;
