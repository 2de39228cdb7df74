-- An index to count the open channels that a user has made.
CREATE INDEX channels_made ON channels (created_by) WHERE searched IS NOT NULL;
