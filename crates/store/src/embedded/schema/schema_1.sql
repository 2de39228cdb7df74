-- Ids and places are unsigned 63-bit numbers; times are milliseconds since 1970.

-- One row: the last position given out. Written with every group that appends.
CREATE TABLE position (id INTEGER PRIMARY KEY CHECK (id = 0), value INTEGER NOT NULL);
INSERT INTO position VALUES (0, 0);

CREATE TABLE epochs (start_order INTEGER PRIMARY KEY, epoch INTEGER NOT NULL UNIQUE, start_pos INTEGER NOT NULL);

-- The head of each channel's log, and the position of its last row.
CREATE TABLE heads (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    pos INTEGER NOT NULL
);
CREATE TABLE user_heads (
    id INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    pos INTEGER NOT NULL
);

-- The content comes last: a walk over positions or times never reads the overflow pages of long texts.
CREATE TABLE log (
    id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sender INTEGER,
    client_msg_id BLOB,
    body_hash BLOB,
    content TEXT NOT NULL,
    PRIMARY KEY (id, seq)
) WITHOUT ROWID;
CREATE TABLE user_log (
    id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    version INTEGER NOT NULL,
    sender INTEGER,
    client_msg_id BLOB,
    body_hash BLOB,
    content TEXT NOT NULL,
    PRIMARY KEY (id, seq)
) WITHOUT ROWID;

CREATE TABLE sends (
    channel INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    client_msg_id BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    seq INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (channel, sender, client_msg_id)
) WITHOUT ROWID;
CREATE INDEX sends_by_time ON sends (at_ms);

CREATE TABLE channels (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT,
    between_one INTEGER,
    between_other INTEGER,
    created_by INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    capacity INTEGER NOT NULL
);
-- one < other
CREATE TABLE directs (
    one INTEGER NOT NULL,
    other INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    PRIMARY KEY (one, other)
) WITHOUT ROWID;
CREATE TABLE seats (channel INTEGER PRIMARY KEY, count INTEGER NOT NULL, rev INTEGER NOT NULL);
CREATE TABLE members (
    channel INTEGER NOT NULL,
    user INTEGER NOT NULL,
    role TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    is_open INTEGER NOT NULL,
    -- A change without an entry in the log, or not settled.
    pending TEXT,
    spans TEXT NOT NULL,
    PRIMARY KEY (channel, user)
) WITHOUT ROWID;
CREATE INDEX members_now ON members (channel, user) WHERE is_open = 1;
CREATE INDEX members_pending ON members (channel, user) WHERE pending IS NOT NULL;

-- With the read marker. A row whose role is null is a marker alone.
CREATE TABLE memberships (
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    marker_seq INTEGER NOT NULL DEFAULT 0,
    marker_ordinal INTEGER NOT NULL DEFAULT 0,
    is_open INTEGER NOT NULL DEFAULT 0,
    role TEXT,
    spans TEXT,
    as_of INTEGER,
    PRIMARY KEY (user, channel)
) WITHOUT ROWID;

CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    handle TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    password_hash TEXT NOT NULL
);
CREATE TABLE devices (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    received_epoch INTEGER,
    received_pos INTEGER
);
CREATE INDEX devices_by_user ON devices (user, id);
CREATE TABLE refresh_tokens (
    device INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    user INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    replaced_hash BLOB UNIQUE,
    replaced_until INTEGER
);
CREATE TABLE blocks (
    user INTEGER NOT NULL,
    other INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (user, other)
) WITHOUT ROWID;
CREATE TABLE claims (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    id INTEGER NOT NULL,
    request_hash BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX claims_by_time ON claims (at_ms);
