-- Live devices are found and counted without the revoked ones; those are found by user and by time.
DROP INDEX devices_by_user;
CREATE INDEX devices_live ON devices (user, id) WHERE revoked_at IS NULL;
CREATE INDEX devices_revoked ON devices (user, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX devices_revoked_by_time ON devices (revoked_at) WHERE revoked_at IS NOT NULL;
-- A revoked device's token stays for as long as the device is kept: a client that presents it is informed of the revocation.
ALTER TABLE refresh_tokens ADD COLUMN is_revoked INTEGER NOT NULL DEFAULT 0;
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_at) WHERE is_revoked = 0;

-- `sign_in_rev` rises when all sign-ins of the user are ended. `state`: 0 active, 1 disabled, 2 deleted.
ALTER TABLE users ADD COLUMN sign_in_rev INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN avatar TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN rev INTEGER NOT NULL DEFAULT 1;
-- Handles of deleted users, which no other user gets for a while.
CREATE TABLE kept_handles (handle TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID;
-- Deleted users whose memberships and contacts may not have been ended yet.
CREATE TABLE deletions (user INTEGER PRIMARY KEY);

CREATE TABLE invitations (
    hash BLOB PRIMARY KEY,
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
