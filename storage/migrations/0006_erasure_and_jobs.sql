-- Erasing an account, and the background jobs that purge what is old.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['memory_layer_eraser', 'memory_layer_janitor'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS NOINHERIT', name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
        -- From 16 on, who creates a role may give it away but not act under it.
        IF NOT pg_has_role(
            current_user,
            name,
            CASE WHEN current_setting('server_version_num')::int >= 160000
                 THEN 'SET' ELSE 'MEMBER' END
        ) THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', name);
        END IF;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA memory_layer TO memory_layer_eraser, memory_layer_janitor;

-- An erased account's row is a mark without content: while it stands, and as long as an access
-- token can live, no write brings anything of that person back, and every replica sees why.
ALTER TABLE user_state
    ADD COLUMN erased_at timestamptz,
    ADD COLUMN erasure_pending boolean NOT NULL DEFAULT false;
CREATE INDEX user_state_erased ON user_state (erased_at) WHERE erased_at IS NOT NULL;

GRANT SELECT (erased_at) ON user_state TO memory_layer_meter;

CREATE POLICY own_account ON user_state TO memory_layer_eraser
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY erased_accounts ON user_state FOR SELECT TO memory_layer_eraser
    USING (erased_at IS NOT NULL);
GRANT SELECT, DELETE, INSERT (user_id, erased_at, erasure_pending),
      UPDATE (epoch, erased_at, erasure_pending)
   ON user_state TO memory_layer_eraser;

-- Deletes at most so many rows of the person from the first table that has any, and says which;
-- no row is the end. It finds the tables itself, so that one that is added later is not forgotten.
CREATE FUNCTION erase_some(person uuid, most integer) RETURNS TABLE (kind text, n bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place regclass;
BEGIN
    IF (person = ANY (memory_layer.acting_user_ids())) IS NOT TRUE THEN
        RAISE insufficient_privilege USING MESSAGE = 'the transaction does not act for this person';
    END IF;
    -- What refers to other rows goes before them, or a cascade would hide it from the count.
    FOR place, kind IN
        SELECT c.oid, c.relname::text
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'user_id' AND a.attnum > 0
         WHERE c.relnamespace IN ('memory_layer'::regnamespace, 'memory_layer_auth'::regnamespace)
           -- The audit goes on to say of which id the operator did what.
           AND c.relkind = 'r' AND c.relname NOT IN ('user_state', 'admin_audit')
         ORDER BY (SELECT count(*) FROM pg_constraint f
                    WHERE f.conrelid = c.oid AND f.contype = 'f') DESC, c.relname
    LOOP
        EXECUTE format(
            'DELETE FROM %1$s WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM %1$s WHERE user_id = $1 LIMIT $2 FOR UPDATE))', place)
          USING person, most;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n > 0 THEN
            RETURN NEXT;
            RETURN;
        END IF;
    END LOOP;
    DELETE FROM memory_layer_auth.users WHERE id = person;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        kind := 'users';
        RETURN NEXT;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION erase_some(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_some(uuid, integer) TO memory_layer_eraser;

-- One row a background job; a replica that takes its turn moves started_at forward.
CREATE TABLE job_runs (
    name          text PRIMARY KEY,
    what          text NOT NULL,
    every_seconds integer NOT NULL,
    started_at    timestamptz,
    finished_at   timestamptz,
    outcome       text CHECK (outcome IN ('running', 'ok', 'failed')),
    detail        text NOT NULL DEFAULT ''
);

-- Users whom the identity provider no longer knows: reported here, erased when the operator says so.
CREATE TABLE missing_users (
    user_id    uuid PRIMARY KEY,
    noticed_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE job_runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE missing_users ENABLE ROW LEVEL SECURITY;

CREATE POLICY every_run ON job_runs TO memory_layer_janitor USING (true);
CREATE POLICY every_row ON missing_users TO memory_layer_janitor USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON job_runs, missing_users TO memory_layer_janitor;

-- The janitor never sees a text, and what its owner has not deleted it cannot take away.
CREATE POLICY tombstones ON memories FOR SELECT TO memory_layer_janitor
    USING (deleted_at IS NOT NULL);
CREATE POLICY old_tombstones ON memories FOR DELETE TO memory_layer_janitor
    USING (deleted_at < now() - interval '30 days');
GRANT SELECT (user_id, id, deleted_at, change_seq), DELETE ON memories TO memory_layer_janitor;
CREATE INDEX memories_deleted ON memories (deleted_at, user_id) WHERE deleted_at IS NOT NULL;

CREATE POLICY every_account ON user_state FOR SELECT TO memory_layer_janitor USING (true);
CREATE POLICY purged ON user_state FOR UPDATE TO memory_layer_janitor USING (true);
-- No access token that was given before the erasure lives so long.
CREATE POLICY old_marks ON user_state FOR DELETE TO memory_layer_janitor
    USING (erased_at < now() - interval '8 days');
GRANT SELECT, UPDATE (purged_through), DELETE ON user_state TO memory_layer_janitor;

CREATE POLICY every_day ON daily_use FOR SELECT TO memory_layer_janitor USING (true);
CREATE POLICY old_days ON daily_use FOR DELETE TO memory_layer_janitor
    USING (day < current_date - 400);
GRANT SELECT, DELETE ON daily_use TO memory_layer_janitor;
