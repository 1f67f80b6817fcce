-- New memories in one round trip instead of five: numbered under the locks of their people, as
-- every write is. It runs as its owner, a role that row-level security binds to `people`.
GRANT CREATE ON SCHEMA memory_layer TO memory_layer_app;
SET LOCAL ROLE memory_layer_app;

-- Add memories of `people`, to whom `counts` numbers are given; `behind` says how far each memory's
-- number is from the last one of its person. Return those of the people whose account stands, or
-- null where a memory stands under one of the ids: then nothing is added.
CREATE FUNCTION memory_layer.add_memories(
    people uuid[], counts bigint[],
    owners uuid[], ids uuid[], prompts text[], responses text[], statuses text[], providers text[],
    models text[], conversation_ids text[], conversation_titles text[], urls text[], sources text[],
    facts text[], prompt_captures bytea[], response_captures bytea[], hashes bytea[],
    times timestamptz[], creations timestamptz[], behind bigint[])
    RETURNS uuid[]
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    standing uuid[];
    numbers bigint[];
BEGIN
    PERFORM set_config('memory_layer.user_ids', people::text, true);

    WITH numbered AS (
        INSERT INTO memory_layer.user_state AS s (user_id, change_seq)
        SELECT w.user_id, w.n FROM unnest(people, counts) AS w (user_id, n) ORDER BY w.user_id
            ON CONFLICT (user_id) DO UPDATE SET change_seq = s.change_seq + EXCLUDED.change_seq
         WHERE s.erased_at IS NULL
        RETURNING s.user_id, s.change_seq)
    SELECT coalesce(array_agg(user_id), '{}'), array_agg(change_seq)
      INTO standing, numbers FROM numbered;

    -- A statement of its own: it sees what was committed before the locks were had.
    IF EXISTS (
        SELECT FROM unnest(owners, ids) AS k (user_id, id), LATERAL (
            SELECT FROM memory_layer.memories m
             WHERE m.user_id = k.user_id AND m.id = k.id LIMIT 1) known)
    THEN
        RETURN NULL;
    END IF;

    -- What is nobody's of `people` is not left out: the policy refuses it.
    INSERT INTO memory_layer.memories (
           user_id, id, prompt, response, status, provider, model, conversation_id,
           conversation_title, url, source, metadata, prompt_capture, response_capture,
           content_hash, occurred_at, created_at, change_seq)
    SELECT r.user_id, r.id, r.prompt, r.response, r.status, r.provider, r.model, r.conversation_id,
           r.conversation_title, r.url, r.source, r.metadata::jsonb, r.prompt_capture,
           r.response_capture, r.content_hash, r.occurred_at, r.created_at,
           coalesce(n.last, 0) + r.behind
      FROM unnest(owners, ids, prompts, responses, statuses, providers, models, conversation_ids,
                  conversation_titles, urls, sources, facts, prompt_captures, response_captures,
                  hashes, times, creations, behind)
        AS r (user_id, id, prompt, response, status, provider, model, conversation_id,
              conversation_title, url, source, metadata, prompt_capture, response_capture,
              content_hash, occurred_at, created_at, behind)
      LEFT JOIN unnest(standing, numbers) AS n (user_id, last) ON n.user_id = r.user_id
     WHERE n.user_id IS NOT NULL OR r.user_id <> ALL (people);
    RETURN standing;
END
$$;

REVOKE ALL ON FUNCTION memory_layer.add_memories(
    uuid[], bigint[], uuid[], uuid[], text[], text[], text[], text[], text[], text[], text[],
    text[], text[], text[], bytea[], bytea[], bytea[], timestamptz[], timestamptz[], bigint[])
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION memory_layer.add_memories(
    uuid[], bigint[], uuid[], uuid[], text[], text[], text[], text[], text[], text[], text[],
    text[], text[], text[], bytea[], bytea[], bytea[], timestamptz[], timestamptz[], bigint[])
    TO SESSION_USER;

RESET ROLE;
REVOKE CREATE ON SCHEMA memory_layer FROM memory_layer_app;
