-- What members may change of a channel. `pins` is JSON. `searched` is name and topic of an open channel, in lower case.
ALTER TABLE channels ADD COLUMN topic TEXT NOT NULL DEFAULT '';
ALTER TABLE channels ADD COLUMN avatar TEXT NOT NULL DEFAULT '';
ALTER TABLE channels ADD COLUMN slow_mode_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE channels ADD COLUMN pins TEXT NOT NULL DEFAULT '[]';
ALTER TABLE channels ADD COLUMN searched TEXT;
CREATE INDEX channels_searched ON channels (id, searched) WHERE searched IS NOT NULL;

-- Until when; for ever is the greatest number.
ALTER TABLE members ADD COLUMN muted_until INTEGER;
ALTER TABLE members ADD COLUMN banned_until INTEGER;
CREATE INDEX members_banned ON members (channel, user) WHERE banned_until IS NOT NULL;
UPDATE members SET pending = replace(replace(pending, '"is_role":true', '"change":"role"'), '"is_role":false', '"change":"seat"')
WHERE pending IS NOT NULL;

-- Open channels are in nobody's inbox.
ALTER TABLE memberships ADD COLUMN in_inbox INTEGER NOT NULL DEFAULT 1;

-- The users that messages mention. User 0 is everybody.
CREATE TABLE mentions (
    channel INTEGER NOT NULL,
    user INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (channel, user, seq)
) WITHOUT ROWID;

CREATE TABLE reactions (
    channel INTEGER NOT NULL,
    target INTEGER NOT NULL,
    emoji TEXT NOT NULL,
    user INTEGER NOT NULL,
    PRIMARY KEY (channel, target, emoji, user)
) WITHOUT ROWID;

ALTER TABLE users ADD COLUMN sends_receipts INTEGER NOT NULL DEFAULT 1;
