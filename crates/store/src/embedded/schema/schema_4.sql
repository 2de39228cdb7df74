-- Over the rest of the row, by `row_checksum` (checksum.rs). Rows of version 1 have none.
ALTER TABLE log ADD COLUMN checksum INTEGER;
ALTER TABLE user_log ADD COLUMN checksum INTEGER;
