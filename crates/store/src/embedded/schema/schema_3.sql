-- Two rows a pair, as each of the two sees it. A null state: they are contacts no longer, and their own logs have no note of that yet.
CREATE TABLE contacts (
    user INTEGER NOT NULL,
    other INTEGER NOT NULL,
    state TEXT,
    at_ms INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    is_told INTEGER NOT NULL,
    PRIMARY KEY (user, other)
) WITHOUT ROWID;

CREATE TABLE presence (
    user INTEGER PRIMARY KEY,
    invisible INTEGER NOT NULL DEFAULT 0,
    status TEXT,
    last_active_at INTEGER
);
