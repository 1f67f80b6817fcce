-- Tokens that were spent of the operator's keys, beside the requests of the day.
ALTER TABLE daily_use ADD COLUMN tokens bigint NOT NULL DEFAULT 0;
