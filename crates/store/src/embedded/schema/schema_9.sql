-- The sender of a message with mentions: a message of a blocked user does not count.
ALTER TABLE mentions ADD COLUMN sender INTEGER NOT NULL DEFAULT 0;
UPDATE mentions SET sender = coalesce(
    (SELECT log.sender FROM log WHERE log.id = mentions.channel AND log.seq = mentions.seq), 0);

-- Blocks are looked up from both sides.
CREATE INDEX blocks_by_other ON blocks (other, user);
