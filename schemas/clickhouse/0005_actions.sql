-- What became of an action, part by part: a send falls into chunks and a chunk into persons, each with an outcome.
ALTER TABLE action_outcome ADD COLUMN IF NOT EXISTS campaign_id LowCardinality(String) COMMENT 'What it belongs to; empty: to the rule in reason' AFTER trigger_received_at;

ALTER TABLE action_outcome ADD COLUMN IF NOT EXISTS parent_id String COMMENT 'The action this is a part of; empty: it is whole' AFTER campaign_id;

ALTER TABLE action_outcome ADD COLUMN IF NOT EXISTS message_id String COMMENT 'Id that WeCom gave to what the call made (msgid, jobid, config_id); empty: it made nothing' AFTER parent_id;

ALTER TABLE action_outcome COMMENT COLUMN status 'done, already_done, expired, rejected, failed, cancelled, suppressed, blocked';

-- The parts of one action were asked for in one call or shortly after one another, but their ids are hashes: the index
-- spares reading the granules of a corp that hold none of them.
ALTER TABLE action_outcome ADD INDEX IF NOT EXISTS by_parent parent_id TYPE bloom_filter(0.01) GRANULARITY 1;

CREATE OR REPLACE VIEW action_outcome_now AS
SELECT * FROM action_outcome FINAL;

-- What the executor remembers of an action while it is under way, and how it ended; without its memory, which may hold
-- personal data and stays in Kafka. An action that ended in one step was never in the ledger: its outcome is all there is.
CREATE TABLE IF NOT EXISTS action
(
    corp_id LowCardinality(String) COMMENT 'Corp',
    action_id String COMMENT 'The same intent always has the same id',
    revision UInt64 COMMENT 'Grows with the time of writing; of one millisecond the later state wins, and an end wins over everything',
    parent_id String COMMENT 'The action this is a part of; empty: it is whole',
    lane LowCardinality(String) COMMENT 'welcome, urgent, bulk, sync',
    endpoint LowCardinality(String) COMMENT 'Path below the base URL of WeCom',
    subject String COMMENT 'Customer key, staff key or corp id',
    staff_id String COMMENT 'Staff member, empty when none is concerned',
    customer_id String COMMENT 'Customer, empty when none is concerned',
    campaign_id LowCardinality(String) COMMENT 'What it belongs to; empty: to the rule in reason',
    reason LowCardinality(String) COMMENT 'Rule id and version that asked for it',
    caused_by String COMMENT 'Event id, id of the work item, or the action that this one repeats',
    state LowCardinality(String) COMMENT 'waiting, prepared, in_doubt, accepted, ended',
    status LowCardinality(String) COMMENT 'As in action_outcome once it has ended, before that empty',
    detail LowCardinality(String) COMMENT 'Machine-readable reason',
    errcode Int32 COMMENT 'Last errcode of WeCom; 0 when it accepted or was not called',
    calls Int32 COMMENT 'HTTP calls made so far',
    message_id String COMMENT 'Id that WeCom gave to what the call made; empty: nothing is known to be made',
    created DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time at which it was asked for',
    not_before DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time before which it does not start; epoch 0: at once',
    deadline DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time after which the call must not start; epoch 0: none',
    due DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time at which it is looked at again; epoch 0: when something happens',
    updated_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time of this state',
    admitted_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Business time of the newest admission; epoch 0: never admitted',
    limits_revision LowCardinality(String) COMMENT 'Of the limits that admitted it',
    admission String COMMENT 'JSON: each level with what was used and allowed at the newest admission',
    origin String COMMENT 'topic/partition/offset of the record that brought it; empty for a part of another action',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert',
    INDEX by_parent parent_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (corp_id, action_id)
COMMENT 'Actions of the ledger, every written state until merged; read action_now';

CREATE OR REPLACE VIEW action_now AS
SELECT * FROM action FINAL;

CREATE TABLE IF NOT EXISTS quota_level
(
    corp_id LowCardinality(String) COMMENT 'Corp; empty: the level is shared by all',
    endpoint LowCardinality(String) COMMENT 'Endpoint whose calls count here; empty: several',
    level String COMMENT 'What is counted together, e.g. corp_api|corp|endpoint; may name a staff member or a customer',
    shard UInt32 COMMENT 'Partition whose owner keeps it',
    view String COMMENT 'JSON: each window with used, amount, lanes, frozen_until_ms and rate_percent; calls in flight',
    updated_at DateTime64(3, 'Asia/Shanghai') COMMENT 'Wall time of these figures',
    written_at DateTime64(3, 'Asia/Shanghai') DEFAULT now64(3) COMMENT 'Wall time of the insert'
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (corp_id, endpoint, level)
COMMENT 'What has been used of the limits, every written figure until merged; read quota_level_now';

CREATE OR REPLACE VIEW quota_level_now AS
SELECT * FROM quota_level FINAL;
