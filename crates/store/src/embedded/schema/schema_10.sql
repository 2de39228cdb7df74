-- How many open channels somebody has made is counted.
CREATE INDEX channels_made ON channels (created_by) WHERE searched IS NOT NULL;
