-- What is asked most, answered in one round trip instead of three. Each function says itself whose
-- rows may be seen, and runs as its owner, a role that row-level security binds. Who calls it names
-- the person once, as `memory_layer.user_ids` does for a transaction.

-- To own functions, a role has to be allowed to make them.
GRANT CREATE ON SCHEMA memory_layer TO memory_layer_app;
SET LOCAL ROLE memory_layer_app;

-- Memories of a person by their ids, and where the person's writes stand at that moment: one row
-- without a memory where none of them is there, no row for who has nothing or was erased.
CREATE FUNCTION memory_layer.own_memories(person uuid, wanted uuid[])
    RETURNS TABLE (
        id uuid, prompt text, response text, prompt_missing boolean, status text, provider text,
        model text, conversation_id text, conversation_title text, url text, source text,
        metadata jsonb, edited boolean, embedding_state text, occurred_at timestamptz,
        created_at timestamptz, updated_at timestamptz,
        epoch uuid, change_seq bigint, purged_through bigint, purges bigint)
    LANGUAGE plpgsql ROWS 10 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('memory_layer.user_ids', '{' || person || '}', true);
    RETURN QUERY
    SELECT m.id, m.prompt, m.response, m.prompt IS NULL, m.status, m.provider, m.model,
           m.conversation_id, m.conversation_title, m.url, m.source, m.metadata, m.edited,
           m.embedding_state, m.occurred_at, m.created_at, m.updated_at,
           s.epoch, s.change_seq, s.purged_through, s.purges
      FROM memory_layer.user_state s
      LEFT JOIN memory_layer.memories m
             ON m.user_id = person AND m.id = ANY (wanted) AND m.deleted_at IS NULL
     WHERE s.user_id = person AND s.erased_at IS NULL;
END
$$;

-- A person's memories, newest first, from behind one that stands at this time under this id.
CREATE FUNCTION memory_layer.newest_memories(
    person uuid, from_provider text, in_conversation text, since timestamptz, until timestamptz,
    behind timestamptz, behind_id uuid, most integer)
    RETURNS TABLE (
        id uuid, prompt text, response text, prompt_missing boolean, status text, provider text,
        model text, conversation_id text, conversation_title text, url text, source text,
        metadata jsonb, edited boolean, embedding_state text, occurred_at timestamptz,
        created_at timestamptz, updated_at timestamptz)
    LANGUAGE plpgsql ROWS 20 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('memory_layer.user_ids', '{' || person || '}', true);
    RETURN QUERY
    SELECT m.id, m.prompt, m.response, m.prompt IS NULL, m.status, m.provider, m.model,
           m.conversation_id, m.conversation_title, m.url, m.source, m.metadata, m.edited,
           m.embedding_state, m.occurred_at, m.created_at, m.updated_at
      FROM memory_layer.memories m
     WHERE m.user_id = person AND m.deleted_at IS NULL
       AND (from_provider IS NULL OR m.provider = from_provider)
       AND (in_conversation IS NULL OR m.conversation_id = in_conversation)
       AND (since IS NULL OR m.occurred_at >= since)
       AND (until IS NULL OR m.occurred_at < until)
       AND (behind IS NULL OR (m.occurred_at, m.id) < (behind, behind_id))
     ORDER BY m.occurred_at DESC, m.id DESC
     LIMIT most;
END
$$;

-- The next few changes of a person, with all that a search cache takes in of them: packed words, or
-- the texts where nobody has packed them, and the chunks that this model made.
CREATE FUNCTION memory_layer.next_changes(
    person uuid, after bigint, most integer, words_by smallint, vectors_by text)
    RETURNS TABLE (
        epoch uuid, change_seq bigint, purged_through bigint, purges bigint,
        id uuid, number bigint, deleted boolean, answered boolean, provider text,
        conversation_id text, occurred_at timestamptz, created_at timestamptz, content_hash bytea,
        embedded boolean,
        prompt_length integer, response_length integer, terms bytea, counts bytea, speaker bytea,
        prompt text, response text,
        sides bytea, starts bytea, stops bytea, vectors bytea)
    LANGUAGE plpgsql ROWS 2 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('memory_layer.user_ids', '{' || person || '}', true);
    RETURN QUERY
    SELECT s.epoch, s.change_seq, s.purged_through, s.purges,
           m.id, m.change_seq, m.deleted_at IS NOT NULL, coalesce(m.response <> '', false),
           m.provider, m.conversation_id, m.occurred_at, m.created_at, m.content_hash,
           m.embedding_state = 'done' AND m.deleted_at IS NULL,
           k.prompt_length, k.response_length, k.terms, k.counts, k.speaker,
           CASE WHEN k.terms IS NULL THEN m.prompt END,
           CASE WHEN k.terms IS NULL THEN m.response END,
           c.sides, c.starts, c.stops, c.vectors
      FROM memory_layer.user_state s
      LEFT JOIN LATERAL (
            SELECT * FROM memory_layer.memories
             WHERE user_id = person AND memories.change_seq > after
             ORDER BY memories.change_seq LIMIT most) m ON true
      LEFT JOIN memory_layer.keywords k
             ON k.user_id = person AND k.memory_id = m.id AND k.content_hash = m.content_hash
            AND k.occurred_at = m.occurred_at AND k.analyzer = words_by
      LEFT JOIN LATERAL (
            SELECT string_agg(CASE role WHEN 'prompt' THEN '\x00'::bytea ELSE '\x01' END, ''
                              ORDER BY ordinal) AS sides,
                   string_agg(int4send(start), '' ORDER BY ordinal) AS starts,
                   string_agg(int4send(stop), '' ORDER BY ordinal) AS stops,
                   string_agg(memory_layer.vector_bytes(embedding), '' ORDER BY ordinal) AS vectors
              FROM memory_layer.chunks
             WHERE user_id = person AND memory_id = m.id AND embedding_model = vectors_by
               AND m.embedding_state = 'done' AND m.deleted_at IS NULL) c ON true
     WHERE s.user_id = person AND s.erased_at IS NULL
     ORDER BY m.change_seq;
END
$$;

REVOKE ALL ON FUNCTION memory_layer.own_memories(uuid, uuid[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION memory_layer.newest_memories(
    uuid, text, text, timestamptz, timestamptz, timestamptz, uuid, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION memory_layer.next_changes(uuid, bigint, integer, smallint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION memory_layer.own_memories(uuid, uuid[]) TO SESSION_USER;
GRANT EXECUTE ON FUNCTION memory_layer.newest_memories(
    uuid, text, text, timestamptz, timestamptz, timestamptz, uuid, integer) TO SESSION_USER;
GRANT EXECUTE ON FUNCTION memory_layer.next_changes(uuid, bigint, integer, smallint, text)
    TO SESSION_USER;

RESET ROLE;
REVOKE CREATE ON SCHEMA memory_layer FROM memory_layer_app;
