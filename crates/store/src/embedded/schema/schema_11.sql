-- Rows 1 to `trimmed` of an own log are removed.
ALTER TABLE user_heads ADD COLUMN trimmed INTEGER NOT NULL DEFAULT 0;

-- The position at which a channel was left; null in one that the user is in. Of channels that were left before this version
-- it is not known.
ALTER TABLE memberships ADD COLUMN left_at_pos INTEGER;
UPDATE memberships SET left_at_pos = 0 WHERE is_open = 0 AND role IS NOT NULL;
CREATE INDEX memberships_left ON memberships (user, in_inbox, left_at_pos) WHERE left_at_pos IS NOT NULL;
