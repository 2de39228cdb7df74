-- The users who may add a user to a group, and write to the user; null: the default of the configuration.
ALTER TABLE users ADD COLUMN may_add TEXT;
ALTER TABLE users ADD COLUMN may_write TEXT;

-- Whether a member joined without being added, or has written or read since. Older memberships count as accepted.
ALTER TABLE members ADD COLUMN has_accepted INTEGER NOT NULL DEFAULT 1;
ALTER TABLE memberships ADD COLUMN has_accepted INTEGER NOT NULL DEFAULT 1;
-- Circles are read from the index alone.
DROP INDEX members_now;
CREATE INDEX members_now ON members (channel, user, has_accepted) WHERE is_open = 1;

-- `state`: 'waiting', 'declined', or 'ended' until the user's devices are notified.
CREATE TABLE group_invitations (
    user INTEGER NOT NULL,
    channel INTEGER NOT NULL,
    inviter INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    state TEXT NOT NULL,
    rev INTEGER NOT NULL,
    is_told INTEGER NOT NULL,
    PRIMARY KEY (user, channel)
) WITHOUT ROWID;
CREATE INDEX group_invitations_by_inviter ON group_invitations (inviter, user);
CREATE INDEX group_invitations_by_channel ON group_invitations (channel, user);
CREATE INDEX group_invitations_untold ON group_invitations (user, channel) WHERE is_told = 0;
