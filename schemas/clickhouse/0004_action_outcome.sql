-- How every call to WeCom ended, without request and response bodies: those may hold personal data and stay in Kafka.
CREATE TABLE IF NOT EXISTS action_outcome
(
    corp_id LowCardinality(String) COMMENT 'Corp',
    action_id String COMMENT 'The same intent always has the same id',
    lane LowCardinality(String) COMMENT 'welcome, urgent, bulk, sync',
    endpoint LowCardinality(String) COMMENT 'Path below the base URL of WeCom',
    subject String COMMENT 'Customer key, staff key or corp id',
    staff_id String COMMENT 'Staff member, empty when none is concerned',
    customer_id String COMMENT 'Customer, empty when none is concerned',
    status LowCardinality(String) COMMENT 'done, already_done, expired, rejected, failed',
    errcode Int32 COMMENT 'Last errcode of WeCom; 0 when it accepted or was not called',
    detail LowCardinality(String) COMMENT 'Machine-readable reason',
    calls Int32 COMMENT 'HTTP calls made',
    reason LowCardinality(String) COMMENT 'Rule id and version that asked for it',
    caused_by String COMMENT 'Event id, or id of the work item',
    created DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time at which it was asked for',
    deadline DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time after which the call must not start; epoch 0: none',
    trigger_received_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time at which the triggering event arrived; epoch 0: none',
    finished_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time at which it ended',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert'
)
ENGINE = ReplacingMergeTree(finished_at)
ORDER BY (corp_id, action_id)
COMMENT 'Outcomes of actions; read action_outcome_now';

CREATE OR REPLACE VIEW action_outcome_now AS
SELECT * FROM action_outcome FINAL;
