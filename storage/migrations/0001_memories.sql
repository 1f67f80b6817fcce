-- The tables of the service, its roles, and the policies that bind them.
CREATE EXTENSION IF NOT EXISTS vector;

-- Roles belong to the whole cluster: another database may have made them, even at this moment.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['memory_layer_app', 'memory_layer_worker'] LOOP
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

GRANT USAGE ON SCHEMA memory_layer TO memory_layer_app, memory_layer_worker;

-- One row a user. Its lock orders all writes of that user, so that change_seq grows in the
-- order of commits. A reader whose cursor is older than purged_through, or from another epoch,
-- has missed deletions and starts anew.
CREATE TABLE user_state (
    user_id        uuid PRIMARY KEY,
    change_seq     bigint NOT NULL DEFAULT 0,
    purged_through bigint NOT NULL DEFAULT 0,
    epoch          uuid NOT NULL DEFAULT gen_random_uuid()
) WITH (fillfactor = 50);

CREATE TABLE memories (
    user_id            uuid NOT NULL,
    id                 uuid NOT NULL,
    prompt             text,
    response           text,
    status             text NOT NULL CHECK (status IN ('waiting', 'partial', 'complete')),
    provider           text NOT NULL,
    model              text,
    conversation_id    text,
    conversation_title text,
    url                text,
    source             text,
    metadata           jsonb NOT NULL DEFAULT '{}',
    -- SHA-256 of the texts as captured; they outlive edits and deletion and decide about retries.
    prompt_capture     bytea,
    response_capture   bytea,
    -- Of the texts as they stand: 16 bytes of the prompt's SHA-256, then 16 of the response's.
    content_hash       bytea NOT NULL,
    edited             boolean NOT NULL DEFAULT false,
    embedding_state    text NOT NULL DEFAULT 'open'
                       CHECK (embedding_state IN ('open', 'done', 'failed')),
    embedding_model    text,
    leased_until       timestamptz,
    attempts           smallint NOT NULL DEFAULT 0,
    occurred_at        timestamptz NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz,
    change_seq         bigint NOT NULL,
    PRIMARY KEY (user_id, id)
);

CREATE INDEX memories_by_id ON memories (id);
CREATE UNIQUE INDEX memories_by_change ON memories (user_id, change_seq);
CREATE INDEX memories_by_time ON memories (user_id, occurred_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX memories_by_conversation ON memories (user_id, provider, conversation_id, occurred_at)
    WHERE deleted_at IS NULL;
-- The embedding queue: only its open rows are in the index.
CREATE INDEX memories_to_embed ON memories (user_id, change_seq)
    WHERE embedding_state = 'open' AND deleted_at IS NULL;

CREATE INDEX memories_set_aside ON memories (user_id)
    WHERE embedding_state = 'failed' AND deleted_at IS NULL;
-- What another embedder has made, to be made anew.
CREATE INDEX memories_by_embedder ON memories (embedding_model)
    WHERE embedding_state = 'done' AND deleted_at IS NULL;

-- Parts of a text, text[start:stop] in characters, and their vectors; several models may stand
-- side by side while the vectors are being renewed.
CREATE TABLE chunks (
    user_id         uuid NOT NULL,
    memory_id       uuid NOT NULL,
    embedding_model text NOT NULL,
    ordinal         smallint NOT NULL,
    role            text NOT NULL CHECK (role IN ('prompt', 'response')),
    start           integer NOT NULL,
    stop            integer NOT NULL,
    embedding       vector NOT NULL,
    PRIMARY KEY (user_id, memory_id, embedding_model, ordinal),
    FOREIGN KEY (user_id, memory_id) REFERENCES memories (user_id, id) ON DELETE CASCADE
);

ALTER TABLE user_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE memories ENABLE ROW LEVEL SECURITY;
ALTER TABLE chunks ENABLE ROW LEVEL SECURITY;

-- The ids that the transaction acts for; none when they were not set. STABLE and in a sub-select
-- below, it is evaluated once a statement.
CREATE FUNCTION acting_user_ids() RETURNS uuid[]
    LANGUAGE sql STABLE
    RETURN nullif(current_setting('memory_layer.user_ids', true), '')::uuid[];

CREATE POLICY own_rows ON user_state TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY own_rows ON memories TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY own_rows ON chunks TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY every_row ON user_state TO memory_layer_worker USING (true);
CREATE POLICY every_row ON memories TO memory_layer_worker USING (true);
CREATE POLICY every_row ON chunks TO memory_layer_worker USING (true);

-- Nobody's service role may take a row away: deleting is an update that blanks the text.
GRANT SELECT, INSERT, UPDATE ON user_state, memories TO memory_layer_app;
GRANT SELECT, DELETE ON chunks TO memory_layer_app;
GRANT SELECT, UPDATE ON memories TO memory_layer_worker;
GRANT SELECT, INSERT, UPDATE ON user_state TO memory_layer_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON chunks TO memory_layer_worker;

-- The one question about other people's rows that the service may ask.
CREATE FUNCTION is_somebody_elses(wanted uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = memory_layer, pg_temp
    RETURN EXISTS (SELECT 1 FROM memory_layer.memories WHERE id = wanted)
       AND NOT EXISTS (SELECT 1 FROM memory_layer.memories
                        WHERE id = wanted
                          AND user_id = ANY (memory_layer.acting_user_ids()));
REVOKE ALL ON FUNCTION is_somebody_elses(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_somebody_elses(uuid) TO memory_layer_app;

-- The extension's own names lie in `public` here and in `extensions` on Supabase; bound once,
-- this needs no search_path. Bytes: dimension and a zero as int16, then big-endian float32.
CREATE FUNCTION vector_bytes(v vector) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN vector_send(v);
