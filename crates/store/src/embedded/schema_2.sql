-- Whether what happens there comes by itself: not in an open channel.
ALTER TABLE memberships ADD COLUMN in_inbox INTEGER NOT NULL DEFAULT 1;

ALTER TABLE channels ADD COLUMN topic TEXT NOT NULL DEFAULT '';
ALTER TABLE channels ADD COLUMN avatar TEXT NOT NULL DEFAULT '';
-- Name and topic of an open channel in lower case; null of others.
ALTER TABLE channels ADD COLUMN searched TEXT;
-- Who looks for open channels reads this alone.
CREATE INDEX channels_searched ON channels (id, searched) WHERE searched IS NOT NULL;
