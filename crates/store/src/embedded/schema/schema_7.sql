-- The settings of users about channels. A row begins with `rev` 1.
CREATE TABLE channel_settings (
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    favourite INTEGER NOT NULL,
    marked_unread INTEGER NOT NULL,
    muted_until INTEGER,
    hidden_ordinal INTEGER,
    PRIMARY KEY (user, channel)
) WITHOUT ROWID;

-- Messages that users deleted for themselves.
CREATE TABLE hidden_messages (
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user, channel, seq)
) WITHOUT ROWID;

-- 0: active, 1: archived, 2: deleted.
ALTER TABLE channels ADD COLUMN state INTEGER NOT NULL DEFAULT 0;

-- Deleted channels whose messages are not erased yet.
CREATE TABLE erasures (
    channel INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    upto INTEGER NOT NULL
);
