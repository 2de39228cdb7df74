-- What operators did. Appended, and never changed.
CREATE TABLE acts (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    by_name TEXT NOT NULL,
    client TEXT NOT NULL,
    kind TEXT NOT NULL,
    channel INTEGER,
    change TEXT NOT NULL,
    why TEXT NOT NULL,
    document TEXT NOT NULL
) STRICT;
