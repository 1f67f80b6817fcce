-- What a memory was before it was edited or deleted, and the imports of a person's past.

-- The newest version of a deleted memory, with its deleted_at, is what the trash holds; the row in
-- memories is a blank tombstone from the first moment, so that nothing else can show its texts.
CREATE TABLE versions (
    user_id            uuid NOT NULL,
    memory_id          uuid NOT NULL,
    number             integer NOT NULL,
    prompt             text,
    response           text,
    status             text NOT NULL,
    model              text,
    conversation_id    text,
    conversation_title text,
    url                text,
    source             text,
    metadata           jsonb NOT NULL,
    prompt_capture     bytea,
    response_capture   bytea,
    content_hash       bytea NOT NULL,
    edited             boolean NOT NULL,
    written_at         timestamptz NOT NULL,
    replaced_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz,
    PRIMARY KEY (user_id, memory_id, number),
    FOREIGN KEY (user_id, memory_id) REFERENCES memories (user_id, id) ON DELETE CASCADE
);

CREATE INDEX versions_in_trash ON versions (user_id, deleted_at DESC, memory_id DESC)
    WHERE deleted_at IS NOT NULL;

-- Counts are of turns: found = imported + already_here + skipped + failed. They are written in the
-- transaction that writes the memories, so that an import goes on where it stood.
CREATE TABLE imports (
    user_id      uuid NOT NULL,
    id           uuid NOT NULL,
    state        text NOT NULL DEFAULT 'queued'
                 CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    file_name    text,
    bytes        bigint NOT NULL,
    bytes_read   bigint NOT NULL DEFAULT 0,
    format       text,
    found        bigint NOT NULL DEFAULT 0,
    imported     bigint NOT NULL DEFAULT 0,
    already_here bigint NOT NULL DEFAULT 0,
    skipped      bigint NOT NULL DEFAULT 0,
    failed       bigint NOT NULL DEFAULT 0,
    reasons      jsonb NOT NULL DEFAULT '{}',
    message      text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    PRIMARY KEY (user_id, id)
);

CREATE INDEX imports_unfinished ON imports (id) WHERE state IN ('queued', 'running');

ALTER TABLE versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE imports ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON versions TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY own_rows ON imports TO memory_layer_app
    USING (user_id = ANY ((SELECT memory_layer.acting_user_ids())::uuid[]));
CREATE POLICY every_row ON versions TO memory_layer_worker USING (true);
CREATE POLICY every_row ON imports TO memory_layer_worker USING (true);

GRANT SELECT, INSERT, DELETE ON versions TO memory_layer_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON imports TO memory_layer_app;
GRANT SELECT, DELETE ON versions TO memory_layer_worker;
GRANT SELECT, UPDATE ON imports TO memory_layer_worker;
