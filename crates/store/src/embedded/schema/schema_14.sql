-- Rows of the user's inbox up to this position may be missing, since stays in groups were left and removed.
ALTER TABLE user_heads ADD COLUMN forgotten_upto INTEGER NOT NULL DEFAULT 0;
