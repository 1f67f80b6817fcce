-- What a user may spend, and what each has spent by day.
DO $$
BEGIN
    BEGIN
        CREATE ROLE memory_layer_meter NOLOGIN NOBYPASSRLS NOINHERIT;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    -- From 16 on, who creates a role may give it away but not act under it.
    IF NOT pg_has_role(
        current_user,
        'memory_layer_meter',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
    ) THEN
        GRANT memory_layer_meter TO CURRENT_USER;
    END IF;
END
$$;

-- Null is the service's default.
ALTER TABLE user_state
    ADD COLUMN tier text CHECK (tier IN ('free', 'pro', 'enterprise')),
    ADD COLUMN per_minute integer CHECK (per_minute >= 0),
    ADD COLUMN per_day integer CHECK (per_day >= 0);

CREATE TABLE daily_use (
    user_id  uuid NOT NULL,
    day      date NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (user_id, day)
) WITH (fillfactor = 70);

ALTER TABLE daily_use ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON daily_use TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY every_row ON daily_use TO memory_layer_meter USING (true);
CREATE POLICY every_plan ON user_state FOR SELECT TO memory_layer_meter USING (true);

-- No role that serves a user's request can change what that user may spend.
REVOKE INSERT, UPDATE ON user_state FROM memory_layer_app, memory_layer_worker;
GRANT INSERT (user_id, change_seq, purged_through, epoch),
      UPDATE (change_seq, purged_through, epoch)
   ON user_state TO memory_layer_app, memory_layer_worker;

GRANT USAGE ON SCHEMA memory_layer TO memory_layer_meter;
GRANT SELECT (user_id, tier, per_minute, per_day) ON user_state TO memory_layer_meter;
GRANT SELECT, INSERT, UPDATE ON daily_use TO memory_layer_meter;
GRANT SELECT ON daily_use TO memory_layer_app;
