-- Mentions are removed when their message is deleted; this index finds them by message.
CREATE INDEX mentions_by_message ON mentions (channel, seq);
DELETE FROM reactions WHERE EXISTS (
    SELECT 1 FROM log
    WHERE log.id = reactions.channel AND log.seq = reactions.target
    AND json_extract(log.content, '$.deleted') IS NOT NULL
);
DELETE FROM mentions WHERE EXISTS (
    SELECT 1 FROM log
    WHERE log.id = mentions.channel AND log.seq = mentions.seq
    AND json_extract(log.content, '$.deleted') IS NOT NULL
);
