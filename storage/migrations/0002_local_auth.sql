-- Accounts of the service's own sign-in; empty where Supabase signs people in. Not in a schema
-- called auth: Supabase has one.
CREATE SCHEMA memory_layer_auth;

DO $$
BEGIN
    BEGIN
        CREATE ROLE memory_layer_auth NOLOGIN NOBYPASSRLS NOINHERIT;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    -- From 16 on, who creates a role may give it away but not act under it.
    IF NOT pg_has_role(
        current_user,
        'memory_layer_auth',
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END
    ) THEN
        GRANT memory_layer_auth TO CURRENT_USER;
    END IF;
END
$$;

CREATE TABLE memory_layer_auth.users (
    id              uuid PRIMARY KEY,
    email           text NOT NULL UNIQUE,
    password_hash   text NOT NULL,
    user_metadata   jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    last_sign_in_at timestamptz NOT NULL DEFAULT now()
);

-- Refresh tokens are not stored: a session's key and counter are what it takes to know them again.
CREATE TABLE memory_layer_auth.sessions (
    id              uuid PRIMARY KEY,
    user_id         uuid NOT NULL REFERENCES memory_layer_auth.users ON DELETE CASCADE,
    refresh_key     bytea NOT NULL,
    refresh_counter bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    refreshed_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

CREATE INDEX sessions_by_user ON memory_layer_auth.sessions (user_id);

-- In the database and not in a file, so that all replicas sign alike. The newest key signs, all
-- verify.
CREATE TABLE memory_layer_auth.signing_keys (
    kid         text PRIMARY KEY,
    private_pem text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE memory_layer_auth.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory_layer_auth.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE memory_layer_auth.signing_keys ENABLE ROW LEVEL SECURITY;

CREATE POLICY sign_in ON memory_layer_auth.users TO memory_layer_auth USING (true);
CREATE POLICY sign_in ON memory_layer_auth.sessions TO memory_layer_auth USING (true);
CREATE POLICY sign_in ON memory_layer_auth.signing_keys TO memory_layer_auth USING (true);

GRANT USAGE ON SCHEMA memory_layer_auth TO memory_layer_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_layer_auth.users TO memory_layer_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_layer_auth.sessions TO memory_layer_auth;
GRANT SELECT, INSERT ON memory_layer_auth.signing_keys TO memory_layer_auth;
