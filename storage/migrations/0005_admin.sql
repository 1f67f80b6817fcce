-- What the operator sees and may change: counts, tiers and traffic, never a text.
DO $$
BEGIN
    BEGIN
        CREATE ROLE memory_layer_admin NOLOGIN NOBYPASSRLS NOINHERIT;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    -- From 16 on, who creates a role may give it away but not act under it.
    IF NOT pg_has_role(
        current_user,
        'memory_layer_admin',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
    ) THEN
        GRANT memory_layer_admin TO CURRENT_USER;
    END IF;
END
$$;

-- Requests of all replicas by route, five minutes a row. `errors` are answers of 500 and above,
-- `refused` those that a limit refused, `buckets` a histogram of response times.
CREATE TABLE traffic (
    slot     timestamptz NOT NULL,
    route    text NOT NULL,
    requests bigint NOT NULL,
    errors   bigint NOT NULL,
    refused  bigint NOT NULL,
    buckets  bigint[] NOT NULL,
    PRIMARY KEY (slot, route)
) WITH (fillfactor = 70);

-- How many memories each user has, as of `change_seq`: to count them all for each look at the
-- panel would take seconds. No foreign key: it would lock rows that saves lock in an order.
CREATE TABLE user_totals (
    user_id    uuid PRIMARY KEY,
    memories   bigint NOT NULL,
    change_seq bigint NOT NULL,
    changed_at timestamptz
) WITH (fillfactor = 70);

CREATE TABLE admin_sessions (
    token_hash bytea PRIMARY KEY,
    key_hash   bytea NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Who did what when. Nobody's service role may change or remove a row. `subject` is the user whom
-- it was about; not called user_id, as what carries that name goes when an account is erased.
CREATE TABLE admin_audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor   text NOT NULL,
    address text,
    action  text NOT NULL,
    subject uuid,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX admin_audit_by_subject ON admin_audit (subject, id DESC) WHERE subject IS NOT NULL;

ALTER TABLE daily_use ADD COLUMN refused bigint NOT NULL DEFAULT 0;
CREATE INDEX daily_use_by_day ON daily_use (day, user_id);
CREATE INDEX daily_use_refused ON daily_use (day, user_id) WHERE refused > 0;
CREATE INDEX user_state_overrides ON user_state (user_id)
    WHERE per_minute IS NOT NULL OR per_day IS NOT NULL;

ALTER TABLE traffic ENABLE ROW LEVEL SECURITY;
ALTER TABLE user_totals ENABLE ROW LEVEL SECURITY;
ALTER TABLE admin_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE admin_audit ENABLE ROW LEVEL SECURITY;

CREATE POLICY every_row ON traffic TO memory_layer_meter USING (true);
CREATE POLICY panel ON traffic FOR SELECT TO memory_layer_admin USING (true);
CREATE POLICY panel ON user_totals TO memory_layer_admin USING (true);
CREATE POLICY panel ON admin_sessions TO memory_layer_admin USING (true);
CREATE POLICY panel ON admin_audit TO memory_layer_admin USING (true);
CREATE POLICY panel ON user_state TO memory_layer_admin USING (true);
CREATE POLICY panel ON daily_use FOR SELECT TO memory_layer_admin USING (true);
CREATE POLICY panel ON memories FOR SELECT TO memory_layer_admin USING (true);
CREATE POLICY panel ON memory_layer_auth.users FOR SELECT TO memory_layer_admin USING (true);

GRANT USAGE ON SCHEMA memory_layer, memory_layer_auth TO memory_layer_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON traffic TO memory_layer_meter;
GRANT SELECT ON traffic, daily_use TO memory_layer_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON user_totals TO memory_layer_admin;
GRANT SELECT, INSERT, DELETE ON admin_sessions TO memory_layer_admin;
GRANT SELECT, INSERT (actor, address, action, subject, details)
   ON admin_audit TO memory_layer_admin;
GRANT SELECT,
      INSERT (user_id, tier, per_minute, per_day),
      UPDATE (tier, per_minute, per_day, epoch)
   ON user_state TO memory_layer_admin;
-- Enough to count: no column with a text of anybody's is among them.
GRANT SELECT (user_id, change_seq, updated_at, deleted_at) ON memories TO memory_layer_admin;
GRANT SELECT (id, email, user_metadata, created_at, last_sign_in_at)
   ON memory_layer_auth.users TO memory_layer_admin;
