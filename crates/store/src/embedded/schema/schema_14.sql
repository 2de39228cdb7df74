-- Rows of the user's inbox up to this position may be gone, with stays in groups that were left and are forgotten.
ALTER TABLE user_heads ADD COLUMN forgotten_upto INTEGER NOT NULL DEFAULT 0;
