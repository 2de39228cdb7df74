-- Who wrote what mentions somebody: a message of a person whom one blocks does not count.
ALTER TABLE mentions ADD COLUMN sender INTEGER NOT NULL DEFAULT 0;
UPDATE mentions SET sender = coalesce(
    (SELECT log.sender FROM log WHERE log.id = mentions.channel AND log.seq = mentions.seq), 0);

-- Blocks are asked for from both sides.
CREATE INDEX blocks_by_other ON blocks (other, user);
