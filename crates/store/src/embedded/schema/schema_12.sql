-- When a message that mentions somebody was sent: the mentions of one user are listed by it.
ALTER TABLE mentions ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE mentions SET at_ms = coalesce(
    (SELECT log.at_ms FROM log WHERE log.id = mentions.channel AND log.seq = mentions.seq), 0);
CREATE INDEX mentions_by_time ON mentions (user, at_ms, channel, seq) WHERE user > 0;

-- When the last message of a channel was sent; null if there was none.
ALTER TABLE heads ADD COLUMN message_at INTEGER;
UPDATE heads SET message_at =
    (SELECT log.at_ms FROM log WHERE log.id = heads.id AND log.sender IS NOT NULL ORDER BY log.seq DESC LIMIT 1);

-- Of users who were deleted before, the rows that only they read are removed by now.
INSERT OR IGNORE INTO deletions SELECT id FROM users WHERE state = 2;
