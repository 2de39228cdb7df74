-- Logs lie in the order of their positions: a row is written at the end, and a page is full before the next begins. In a
-- table ordered by log and seq each row went into the middle, and inner pages held whole rows (decision 0015).
CREATE TABLE log_5 (
    pos INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sender INTEGER,
    client_msg_id BLOB,
    body_hash BLOB,
    checksum INTEGER,
    -- Last: a walk over times never reads the overflow pages of long texts.
    content TEXT NOT NULL
);
INSERT INTO log_5 SELECT pos, id, seq, at_ms, ordinal, version, sender, client_msg_id, body_hash, checksum, content
FROM log ORDER BY pos;
DROP TABLE log;
ALTER TABLE log_5 RENAME TO log;
CREATE UNIQUE INDEX log_places ON log (id, seq);

CREATE TABLE user_log_5 (
    pos INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sender INTEGER,
    client_msg_id BLOB,
    body_hash BLOB,
    checksum INTEGER,
    content TEXT NOT NULL
);
INSERT INTO user_log_5 SELECT pos, id, seq, at_ms, ordinal, version, sender, client_msg_id, body_hash, checksum, content
FROM user_log ORDER BY pos;
DROP TABLE user_log;
ALTER TABLE user_log_5 RENAME TO user_log;
CREATE UNIQUE INDEX user_log_places ON user_log (id, seq);

-- By the hour: the records of one append are then neighbours here, as they are in the table.
DROP INDEX sends_by_time;
CREATE INDEX sends_by_hour ON sends (at_ms / 3600000);
