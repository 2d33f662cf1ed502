-- One row a relationship (staff member × customer) and revision; the highest revision is what stands.
-- Absolute values: writing a row twice changes nothing.
CREATE TABLE IF NOT EXISTS relationship
(
    corp_id LowCardinality(String) COMMENT 'Corp',
    staff_id String COMMENT 'Staff member (userid)',
    customer_id String COMMENT 'Customer (external_userid)',
    revision UInt64 COMMENT 'Grows with every change of the row',
    status LowCardinality(String) COMMENT 'none, half, friend, deleted_by_customer, deleted_by_staff, deleted_by_both, transferred',
    staff_side Bool COMMENT 'The staff member has the customer',
    customer_side Bool COMMENT 'The customer has the staff member',
    channel String COMMENT 'State of the contact way or link of the current (else last) episode; empty when unknown',
    first_added DateTime64(3, 'Asia/Shanghai') COMMENT 'Start of the first episode; epoch 0 when never friends',
    episodes_started Array(DateTime64(3, 'Asia/Shanghai')) COMMENT 'Begin of each period as friends, in order',
    episodes_ended Array(DateTime64(3, 'Asia/Shanghai')) COMMENT 'End of each, epoch 0 while it lasts',
    episodes_ended_by Array(LowCardinality(String)) COMMENT 'customer, staff, transfer; empty while it lasts',
    event_time DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time of the newest event the row rests on',
    received_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time at which the event that caused this revision arrived',
    caused_by String COMMENT 'Id of that event',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (corp_id, staff_id, customer_id)
COMMENT 'Relationships, every written revision until merged; read relationship_now';

CREATE OR REPLACE VIEW relationship_now AS
SELECT * FROM relationship FINAL;
