-- Where the alerts of a device go. A token belongs to one device at a time.
CREATE TABLE push_subscriptions (
    device INTEGER PRIMARY KEY,
    user INTEGER NOT NULL,
    token TEXT NOT NULL UNIQUE,
    subscription TEXT NOT NULL
);
CREATE INDEX push_subscriptions_by_user ON push_subscriptions (user, device);

CREATE TABLE alert_settings (user INTEGER PRIMARY KEY, settings TEXT NOT NULL);
-- Null: the level of the user's own settings.
ALTER TABLE channel_settings ADD COLUMN alerts TEXT;

-- What became of alerts. The ids rise with time.
CREATE TABLE alert_notes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX alert_notes_by_message ON alert_notes (user, channel, last_seq);
CREATE TABLE dead_letters (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, letter TEXT NOT NULL);

-- The queue of alerts: one row for each user and channel. `due_at` is null if no worker has to look at it.
CREATE TABLE alerts (
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    due_at INTEGER,
    fresh TEXT,
    held TEXT NOT NULL,
    PRIMARY KEY (user, channel)
) WITHOUT ROWID;
CREATE INDEX alerts_due ON alerts (due_at, user, channel) WHERE due_at IS NOT NULL;
-- Logs with rows of which no alerts were made yet.
CREATE TABLE alert_outbox (
    is_user INTEGER NOT NULL,
    log INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    upto_seq INTEGER NOT NULL,
    PRIMARY KEY (is_user, log)
) WITHOUT ROWID;
